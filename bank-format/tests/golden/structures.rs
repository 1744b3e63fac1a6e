//! Every structure: its values, and the way back to the same bytes.

use bank_format::{
    Bank, Digest256, Error, Manifest,
    header::{HEADER_BYTES, Header, Section},
    index::{Encoding, Source},
    manifest::{Delta, Tree},
    record::{self, BankState, Copy, Outcome, Purpose, Record, TrialPhase},
    release::Version,
    signatures,
};

use super::{BUNDLE, RECORD, head, open, sign, trust_root};

fn section(offset: u64, bytes: u64) -> Section {
    Section { offset, bytes }
}

fn slice(section: Section) -> &'static [u8] {
    &BUNDLE[section.offset as usize..section.end().unwrap() as usize]
}

#[test]
fn header() {
    let bytes: &[u8; HEADER_BYTES] = BUNDLE.first_chunk().unwrap();
    let header = Header::decode(bytes).unwrap();
    assert_eq!(header.manifest, section(128, 916));
    assert_eq!(header.signatures, section(1044, 196));
    assert_eq!(header.indexes, section(1240, 173));
    assert_eq!(header.documents, section(1413, 22));
    assert_eq!(header.frames, section(1435, 316));
    assert_eq!(header.deltas, section(1751, 0));
    assert_eq!(header.total_bytes(), BUNDLE.len() as u64);
    assert_eq!(&header.encode(), bytes);
}

#[test]
fn manifest() {
    let head = head(BUNDLE).unwrap();
    let manifest = head.claims().unwrap().manifest;
    assert_eq!(manifest.format, 1);
    assert_eq!(manifest.release().to_string(), "golden 1.2.3");
    assert_eq!(manifest.compatible, "roro,golden");
    assert_eq!(manifest.created_unix_seconds, 1_700_000_000);
    assert_eq!(manifest.floor, Some(Version::new(1, 0, 0)));
    assert_eq!(manifest.build.tool, "image-tool 0.1.0");
    assert_eq!(manifest.build.source.as_deref(), Some("golden.toml"));
    assert_eq!(manifest.build.commit.as_deref(), Some("0123456789abcdef0123456789abcdef01234567"));
    let names: Vec<&str> = manifest.images.iter().map(|image| image.name.as_str()).collect();
    assert_eq!(names, ["root", "boot"]);
    let root = manifest.image("root").unwrap();
    assert_eq!((root.bytes, root.frames_bytes, root.index.bytes), (8192, 269, 125));
    assert_eq!(root.salt().unwrap(), [0xa0, 0xb1, 0xc2, 0xd3]);
    assert_eq!(root.verity.tree, Tree::Appended);
    let expected = "7dbd7a4ab34ec729e874fcdee5aa8640d4e459a00fac199d1f777c3ece11607f";
    assert_eq!(root.verity.root.to_string(), expected);
    assert_eq!(root.bank_bytes().unwrap(), 8192 + 4096);
    let boot = manifest.image("boot").unwrap();
    assert_eq!((boot.bytes, boot.frames_bytes, boot.index.bytes), (320, 47, 48));
    assert_eq!(boot.verity.tree, Tree::None);
    assert_eq!(boot.bank_bytes().unwrap(), 320);
    assert_eq!(manifest.documents.len(), 1);
    assert_eq!(manifest.documents[0].name, "packages");
    assert_eq!(manifest.deltas, []);
    assert_eq!(manifest.encode().unwrap().as_bytes(), head.manifest_bytes());
}

#[test]
fn signatures_section() {
    let bytes = slice(head(BUNDLE).unwrap().header().signatures);
    let found = signatures::decode(bytes).unwrap();
    let message = signatures::signing_message(head(BUNDLE).unwrap().manifest_bytes());
    // ed25519 is deterministic: the test keys still make these very signatures.
    let mut expected = [sign(0x11, &message), sign(0x12, &message)];
    expected.sort_by_key(|entry| entry.key_id);
    assert_eq!(found, expected);
    assert_eq!(signatures::encode(&found), bytes);
}

#[test]
fn chunk_tables() {
    let opened = open(BUNDLE).unwrap();
    let bytes = slice(opened.index_section(0).unwrap());
    let table = opened.chunk_table(0, bytes).unwrap();
    assert_eq!(table.image_bytes(), 8192);
    let frames: Vec<(u64, u32, u32)> =
        table.frames().iter().map(|frame| (frame.offset, frame.stored_bytes, frame.raw_bytes)).collect();
    assert_eq!(frames, [(0, 51, 1000), (51, 200, 200), (251, 18, 1896)]);
    assert_eq!(table.frames()[0].encoding(), Encoding::Zstd);
    assert_eq!(table.frames()[1].encoding(), Encoding::Stored);
    let chunks: Vec<(u64, u32, Source)> =
        table.chunks().iter().map(|chunk| (chunk.offset, chunk.bytes, chunk.source)).collect();
    let at = |frame| Source::Frame { frame, offset: 0 };
    let expected = [
        (0, 1000, at(0)),
        (1000, 200, at(1)),
        (1200, 4096, Source::Zeros),
        (5296, 1000, at(0)),
        (6296, 1896, at(2)),
    ];
    assert_eq!(chunks, expected);
    assert_eq!(table.chunks()[2].digest, Digest256::of(&[0; 4096]));
    assert_eq!(table.chunks()[4].digest, Digest256::of(&[b'R'; 1896]));
    assert_eq!(table.encode(), bytes);

    let bytes = slice(opened.index_section(1).unwrap());
    let table = opened.chunk_table(1, bytes).unwrap();
    assert_eq!((table.image_bytes(), table.chunks().len(), table.stored_bytes()), (320, 1, 47));
    assert_eq!(table.encode(), bytes);
    assert!(opened.chunk_table(0, bytes).is_err(), "the table of another image");
    assert!(opened.chunk_table(2, bytes).is_err(), "there is no third image");
    assert_eq!(opened.index_section(2), None);
}

#[test]
fn frames_and_documents() {
    let opened = open(BUNDLE).unwrap();
    assert_eq!(opened.frames_section(0), Some(section(1435, 269)));
    assert_eq!(opened.frames_section(1), Some(section(1704, 47)));
    assert_eq!(opened.frames_section(2), None);
    let document = slice(opened.document_section(0).unwrap());
    assert_eq!(document, b"base-files 12.4 amd64\n");
    opened.check_document(0, document).unwrap();
    assert!(matches!(opened.check_document(0, b"other"), Err(Error::DigestMismatch { .. })));
    assert!(opened.check_document(1, document).is_err());
    assert_eq!(opened.manifest_digest(), Digest256::of(slice(opened.header().manifest)));
}

#[test]
fn record_copy() {
    let Copy::Good(sequence, found) = record::decode_copy(RECORD).unwrap() else { panic!("it is not good") };
    assert_eq!(sequence, 7);
    check_record(&found);
    assert_eq!(record::encode_copy(&found, 7).unwrap(), RECORD);
}

fn check_record(found: &Record) {
    assert_eq!(found.confirmed, Bank::A);
    assert_eq!(found.floor, Some(Version::new(1, 2, 2)));
    assert_eq!((found.unsettled_boots, found.redirects), (1, 2));
    let (a, b) = (found.banks.get(Bank::A), found.banks.get(Bank::B));
    assert_eq!((a.state, b.state), (BankState::Confirmed, BankState::Written));
    assert_eq!(a.release.as_ref().unwrap().to_string(), "golden 1.2.2");
    assert_eq!(b.manifest, Some(Digest256([8; 32])));
    assert_eq!(b.floor, Some(Version::new(1, 0, 0)));
    let proof = &b.images["root"];
    assert_eq!((proof.bytes, proof.verity_root, proof.salt.as_str()), (8192, Digest256([7; 32]), "a0b1c2d3"));
    let trial = found.trial.as_ref().unwrap();
    assert_eq!((trial.bank, trial.phase, trial.purpose), (Bank::B, TrialPhase::Armed, Purpose::Update));
    assert_eq!((trial.tries_left, trial.tries_made), (1, 0));
    assert_eq!(trial.reason.as_deref(), Some("none yet"));
    let intent = found.interrupted.as_ref().unwrap();
    assert_eq!((intent.deed.as_str(), intent.bank), ("install", Bank::B));
    let last = found.last_result.as_ref().unwrap();
    assert_eq!(last.outcome, Outcome::FellBack);
    assert_eq!(last.reason.as_deref(), Some("check \"kiosk answers\" failed"));
    assert_eq!(found.extra["from_the_future"]["kept"], true);
}

/// A bundle around another manifest, signed by the same keys.
fn resigned(manifest: &Manifest, signers: &[u8], deltas: &[u8]) -> Vec<u8> {
    let text = manifest.encode().unwrap();
    let message = signatures::signing_message(text.as_bytes());
    let signed: Vec<_> = signers.iter().map(|seed| sign(*seed, &message)).collect();
    let old = *head(BUNDLE).unwrap().header();
    let header = Header::lay_out([
        text.len() as u64,
        signatures::section_bytes(signed.len()),
        old.indexes.bytes,
        old.documents.bytes,
        old.frames.bytes,
        deltas.len() as u64,
    ])
    .unwrap();
    let body = &BUNDLE[old.indexes.offset as usize..];
    [&header.encode(), text.as_bytes(), &signatures::encode(&signed), body, deltas].concat()
}

#[test]
fn a_delta_of_an_unknown_codec_is_carried_along() {
    let mut manifest = head(BUNDLE).unwrap().claims().unwrap().manifest;
    manifest.deltas.push(Delta {
        image: "root".into(),
        codec: "from-the-future".into(),
        base: Digest256([9; 32]),
        base_version: Version::new(1, 2, 2),
        bytes: 11,
        table_bytes: 5,
        table_sha256: Digest256::of(b"table"),
    });
    let bytes = resigned(&manifest, &[0x11, 0x12], b"tablepatch!");
    let opened = open(&bytes).unwrap();
    assert_eq!(opened.manifest().deltas[0].codec, "from-the-future");
    assert_eq!(super::streams::pieces(&opened, &bytes, 1000).unwrap().len(), 6);
    manifest.deltas[0].image = "nothing".into();
    assert!(manifest.encode().is_err(), "a delta for an image that is not there");
}

#[test]
fn bundles_need_signatures_of_two_release_keys() {
    let manifest = head(BUNDLE).unwrap().claims().unwrap().manifest;
    assert!(open(&resigned(&manifest, &[0x12, 0x13], b"")).is_ok());
    assert!(open(&resigned(&manifest, &[0x11, 0x12, 0x13, 0x77], b"")).is_ok());
    for too_few in [&[][..], &[0x11], &[0x11, 0x77], &[1, 2, 3]] {
        let refused = open(&resigned(&manifest, too_few, b"")).unwrap_err();
        assert!(matches!(refused, Error::ThresholdNotMet { role: "targets", threshold: 2, .. }), "{refused}");
    }
    assert!(open(&resigned(&manifest, &[0x11, 0x11], b"")).is_err(), "one key signs twice");
}

#[test]
fn a_header_that_differs_from_the_signed_manifest_is_refused() {
    let good = *head(BUNDLE).unwrap().header();
    let sizes = good.sections().map(|section| section.bytes);
    for number in 2..6 {
        let mut spoiled = sizes;
        spoiled[number] += 1;
        let header = Header::lay_out(spoiled).unwrap();
        let bytes = [&header.encode()[..], &BUNDLE[HEADER_BYTES..]].concat();
        assert!(head(&bytes).unwrap().verify(&trust_root()).is_err(), "section {number}");
    }
    let mut manifest = head(BUNDLE).unwrap().claims().unwrap().manifest;
    manifest.version = Version::new(9, 9, 9);
    let other = resigned(&manifest, &[0x11, 0x12], b"");
    // The head of one bundle before the signatures of another.
    let manifest_end = good.manifest.end().unwrap() as usize;
    let spliced = [&other[..manifest_end], &BUNDLE[manifest_end..]].concat();
    assert!(open(&spliced).is_err());
}
