//! A bundle: its head however it is cut, what only the signatures guard, and its body piece by piece.

#![expect(clippy::unwrap_used, reason = "what is unwrapped was promised")]

use std::{collections::BTreeSet, sync::OnceLock};

use bank_format::{
    Digest256, Error, Manifest, TrustRoot,
    bundle::{BodyReader, Head, HeadReader, Opened, Piece},
    delta::DeltaTable,
    header::{HEADER_BYTES, Header, Section},
    index::ChunkTable,
    limits::{MAX_DOCUMENT_BYTES, MAX_IMAGES, MAX_MANIFEST_BYTES, MAX_SALT_BYTES},
    manifest::Image,
    signatures::{self, Signature, signing_message},
    trust::key_id,
};
use ed25519_dalek::{Signer as _, SigningKey};

use super::{Verdict, delta_table, memory::Slices, table};

const ROOT: &[u8] = include_bytes!("../../../bank-format/tests/golden/root.json");
/// Two of the golden root's release keys, which is as many as it asks for. Anybody can read them here.
const RELEASE_KEYS: [u8; 2] = [0x11, 0x12];

fn trust() -> &'static TrustRoot {
    static TRUST: OnceLock<TrustRoot> = OnceLock::new();
    TRUST.get_or_init(|| TrustRoot::from_trusted(ROOT).unwrap())
}

fn sign(manifest: &[u8]) -> Vec<u8> {
    static KEYS: OnceLock<[(SigningKey, Digest256); 2]> = OnceLock::new();
    let keys = KEYS.get_or_init(|| {
        RELEASE_KEYS.map(|seed| {
            let key = SigningKey::from_bytes(&[seed; 32]);
            let id = key_id(&key.verifying_key().to_bytes()).unwrap();
            (key, id)
        })
    });
    let message = signing_message(manifest);
    let signed = keys
        .each_ref()
        .map(|(key, key_id)| Signature { key_id: *key_id, signature: key.sign(&message).to_bytes() });
    signatures::encode(&signed)
}

/// The bytes as they stand; and with the header, digests and signatures that fit them.
pub(super) fn bundle(bytes: &[u8]) -> Verdict {
    if let Ok(signed) = signatures::decode(bytes) {
        assert_eq!(signatures::encode(&signed), bytes, "signatures have one form");
    }
    let as_it_stands = read(bytes);
    let put_right = match fitted(bytes) {
        Some(fitted) => {
            let verdict = read(&fitted);
            assert_eq!(verdict, Verdict::Accepted, "signed, and refused");
            verdict
        }
        None => Verdict::Refused,
    };
    as_it_stands.or(put_right)
}

fn read(bytes: &[u8]) -> Verdict {
    let whole = head(std::iter::once(bytes));
    match (&whole, head(Slices::of(bytes))) {
        (Ok(whole), Ok(cut)) => {
            assert_eq!(whole.header(), cut.header());
            assert_eq!(whole.manifest_bytes(), cut.manifest_bytes());
        }
        (Err(whole), Err(cut)) => assert_eq!(whole.to_string(), cut.to_string()),
        (whole, cut) => assert_eq!(whole.is_ok(), cut.is_ok(), "it depends on how it is cut"),
    }
    let Ok(head) = whole else { return Verdict::Refused };
    assert_eq!(head.header().encode(), bytes[..HEADER_BYTES], "a header has one form");
    let claims = head.claims();
    let opened = head.verify(trust());
    if let Ok(opened) = &opened {
        assert_eq!(claims.unwrap().manifest, **opened.manifest());
        check_sections(opened);
        check_body(opened, bytes);
    }
    Verdict::of(&opened)
}

fn head<'a>(slices: impl Iterator<Item = &'a [u8]>) -> Result<Head, Error> {
    let mut reader = HeadReader::default();
    for slice in slices {
        let (used, head) = reader.feed(slice)?;
        match head {
            Some(head) => return Ok(head),
            None => assert_eq!(used, slice.len(), "it wants more, and left some"),
        }
    }
    Err(reader.truncated())
}

/// Sections of images, documents and deltas follow each other in theirs, and no more are told than there are.
fn check_sections(opened: &Opened) {
    let header = opened.header();
    let manifest = opened.manifest();
    let tiles = |whole: Section, count: usize, part: &dyn Fn(usize) -> Option<Section>| {
        let mut offset = whole.offset;
        for number in 0..count {
            let section = part(number).unwrap();
            assert_eq!(section.offset, offset);
            offset = section.end().unwrap();
        }
        assert_eq!(whole.end(), Some(offset));
        assert_eq!(part(count), None);
    };
    tiles(header.indexes, manifest.images.len(), &|number| opened.index_section(number));
    tiles(header.frames, manifest.images.len(), &|number| opened.frames_section(number));
    tiles(header.documents, manifest.documents.len(), &|number| opened.document_section(number));
    tiles(header.deltas, manifest.deltas.len(), &|number| {
        let parts = opened.delta_sections(number)?;
        assert_eq!(parts.table.end(), Some(parts.patches.offset));
        assert_eq!(parts.table.bytes, manifest.deltas[number].table_bytes);
        Some(Section { offset: parts.table.offset, bytes: parts.patches.end()? - parts.table.offset })
    });
}

/// A piece that can be compared.
#[derive(Debug, PartialEq)]
enum Seen {
    Index(usize, ChunkTable),
    Frame(usize, usize, Vec<u8>),
}

fn check_body(opened: &Opened, bundle: &[u8]) {
    let body = bundle.get(opened.header().indexes.offset as usize..).unwrap();
    let (whole, end) = pieces(opened, std::iter::once(body));
    let (cut, end_of_cut) = pieces(opened, Slices::of(body));
    assert!(whole == cut, "the pieces depend on how it is cut");
    let end_told = end.is_ok();
    assert_eq!(end.map_err(|error| error.to_string()), end_of_cut.map_err(|error| error.to_string()));
    let part = |section: Section| bundle.get(section.offset as usize..section.end()? as usize);
    let mut tables = Vec::new();
    for piece in &whole {
        match piece {
            Seen::Index(image, found) => {
                let bytes = part(opened.index_section(*image).unwrap()).unwrap();
                table::check(found, bytes);
                opened.check_table(*image, found).unwrap();
                assert_eq!(&opened.chunk_table(*image, bytes).unwrap(), found);
                assert_eq!(*image, tables.len());
                tables.push(found);
            }
            Seen::Frame(image, frame, bytes) => {
                let told = tables[*image].frames()[*frame];
                let offset = opened.frames_section(*image).unwrap().offset + told.offset;
                let section = Section { offset, bytes: told.stored_bytes.into() };
                assert_eq!(part(section), Some(&bytes[..]));
            }
        }
    }
    let told: Vec<(usize, usize)> = tables
        .iter()
        .enumerate()
        .flat_map(|(image, table)| (0..table.frames().len()).map(move |frame| (image, frame)))
        .collect();
    let frames = whole.iter().filter_map(|piece| match piece {
        Seen::Index(..) => None,
        Seen::Frame(image, frame, _) => Some((*image, *frame)),
    });
    let frames: Vec<(usize, usize)> = frames.collect();
    assert_eq!(frames, told[..frames.len()], "frames come in their order, and none is left out");
    if end_told {
        assert_eq!((tables.len(), frames.len()), (opened.manifest().images.len(), told.len()));
    }
    check_deltas(opened, &part);
}

fn check_deltas<'a>(opened: &Opened, part: &dyn Fn(Section) -> Option<&'a [u8]>) {
    for number in 0..opened.manifest().deltas.len() {
        let Some(bytes) = part(opened.delta_sections(number).unwrap().table) else { continue };
        // What is stored is compressed; here it stands for itself.
        if opened.check_delta_table(number, bytes).is_ok()
            && let Ok(table) = opened.delta_table(number, bytes)
        {
            delta_table::check(&table, bytes);
            assert_eq!(table.patches_bytes(), opened.delta_sections(number).unwrap().patches.bytes);
        }
    }
}

fn pieces<'a>(opened: &Opened, slices: impl Iterator<Item = &'a [u8]>) -> (Vec<Seen>, Result<(), Error>) {
    let mut reader = BodyReader::new(opened);
    let mut seen = Vec::new();
    // The last frame may end with the input: then the end is told without a byte more.
    for mut slice in slices.chain(std::iter::once(&[][..])) {
        loop {
            let (used, piece) = match reader.feed(slice) {
                Ok(fed) => fed,
                Err(error) => return (seen, Err(error)),
            };
            slice = &slice[used..];
            match piece {
                Some(Piece::Index { image, table }) => seen.push(Seen::Index(image, table)),
                Some(Piece::Frame { image, frame, bytes }) => seen.push(Seen::Frame(image, frame, bytes)),
                Some(Piece::End) => return (seen, Ok(())),
                None => {
                    assert!(slice.is_empty(), "it wants more, and left some");
                    break;
                }
            }
        }
    }
    let error = reader.truncated();
    (seen, Err(error))
}

/// The same manifest and body, with a header, digests and signatures that fit; `None` where there is no manifest to sign.
fn fitted(bytes: &[u8]) -> Option<Vec<u8>> {
    let manifest_bytes = u64_at(bytes, 24)?.min(MAX_MANIFEST_BYTES) as usize;
    let signatures_bytes = u64_at(bytes, 40)?.min(signatures::MAX_SECTION_BYTES) as usize;
    let (text, behind) = bytes.get(HEADER_BYTES..)?.split_at_checked(manifest_bytes)?;
    let body = behind.get(signatures_bytes..)?;
    let mut manifest = unsigned(text).ok()?;
    let mut rest = body;
    for image in &mut manifest.images {
        fit_image(image, take(&mut rest, image.index.bytes));
    }
    for document in &mut manifest.documents {
        document.sha256 = Digest256::of(take(&mut rest, document.bytes));
    }
    for image in &manifest.images {
        take(&mut rest, image.frames_bytes);
    }
    for delta in &mut manifest.deltas {
        let table = take(&mut rest, delta.table_bytes);
        delta.table_sha256 = Digest256::of(table);
        if let Ok(table) = DeltaTable::decode(table) {
            delta.bytes = delta.table_bytes.checked_add(table.patches_bytes())?;
        }
        take(&mut rest, delta.bytes.saturating_sub(delta.table_bytes));
    }
    let text = manifest.encode().ok()?;
    Some([&signed_head(text.as_bytes(), &manifest)?[..], body].concat())
}

fn fit_image(image: &mut Image, table: &[u8]) {
    image.index.sha256 = Digest256::of(table);
    if let Ok(table) = ChunkTable::decode(table) {
        image.bytes = table.image_bytes();
        image.frames_bytes = table.stored_bytes();
    }
}

/// So many of the bytes, or as many as there are.
fn take<'a>(rest: &mut &'a [u8], bytes: u64) -> &'a [u8] {
    let (taken, behind) = rest.split_at(usize::try_from(bytes).unwrap_or(usize::MAX).min(rest.len()));
    *rest = behind;
    taken
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..at + 8)?.first_chunk().map(|eight| u64::from_le_bytes(*eight))
}

/// Header, manifest and signatures. `None` where the sections end beyond 64 bits.
fn signed_head(text: &[u8], manifest: &Manifest) -> Option<Vec<u8>> {
    let signed = sign(text);
    let [indexes, documents, frames, deltas] = manifest.section_bytes().unwrap();
    let sizes = [text.len() as u64, signed.len() as u64, indexes, documents, frames, deltas];
    let header = Header::lay_out(sizes).ok()?;
    Some([&header.encode()[..], text, &signed].concat())
}

/// What a manifest says that nobody has signed.
fn unsigned(text: &[u8]) -> Result<Manifest, Error> {
    let signatures = signatures::encode(&[]);
    let header = Header::lay_out([text.len() as u64, signatures.len() as u64, 0, 0, 0, 0]).unwrap();
    let bytes = [&header.encode()[..], text, &signatures].concat();
    head(std::iter::once(&bytes[..])).and_then(|head| head.claims()).map(|claims| claims.manifest)
}

/// Nothing is told twice.
fn check_names(manifest: &Manifest) {
    let images: BTreeSet<&str> = manifest.images.iter().map(|image| image.name.as_str()).collect();
    assert_eq!(images.len(), manifest.images.len());
    assert!(!images.is_empty() && images.len() <= MAX_IMAGES);
    let documents: BTreeSet<&str> =
        manifest.documents.iter().map(|document| document.name.as_str()).collect();
    assert_eq!(documents.len(), manifest.documents.len());
    let ways: BTreeSet<_> =
        manifest.deltas.iter().map(|delta| (&delta.image, &delta.codec, delta.base)).collect();
    assert_eq!(ways.len(), manifest.deltas.len());
    assert!(manifest.deltas.iter().all(|delta| images.contains(delta.image.as_str())));
}

/// The bytes as the text of a manifest.
pub(super) fn manifest(bytes: &[u8]) -> Verdict {
    let found = unsigned(bytes);
    if let Ok(manifest) = &found {
        let text = manifest.encode().unwrap();
        assert!(text.len() as u64 <= MAX_MANIFEST_BYTES);
        assert_eq!(&unsigned(text.as_bytes()).unwrap(), manifest);
        for image in &manifest.images {
            assert!(image.salt().unwrap().len() <= MAX_SALT_BYTES);
            assert!(image.bank_bytes().unwrap() >= image.bytes);
        }
        check_names(manifest);
        assert!(manifest.documents.iter().all(|document| document.bytes <= MAX_DOCUMENT_BYTES));
        if let Some(signed) = signed_head(bytes, manifest) {
            let opened = head(std::iter::once(&signed[..])).and_then(|head| head.verify(trust())).unwrap();
            assert_eq!(&**opened.manifest(), manifest);
            assert_eq!(opened.manifest_digest(), Digest256::of(bytes));
            check_sections(&opened);
        }
    }
    Verdict::of(&found)
}
