//! The table of a delta, patches, and the tail of a bank: their values, and the way back to the same bytes.
#![expect(clippy::single_range_in_vec_init, reason = "a patch makes runs of chunks")]

use bank_format::{
    Digest256, Error,
    delta::{
        CODEC, DeltaTable, Patch,
        patch::{BaseBlock, Header, Kind, Op, apply, encode_ops},
    },
    header::{Header as BundleHeader, Section},
    index::{ChunkTable, Encoding},
    manifest::Delta,
    release::Version,
    signatures, tail,
};

use super::{BUNDLE, DELTA_TABLE, PATCH, PATCH_LZ4, TAIL, head, open, sign, streams};

fn base_table() -> ChunkTable {
    let head = tail::decode_head(TAIL.first_chunk().unwrap()).unwrap();
    assert_eq!(head.root, Digest256([7; 32]));
    assert_eq!(head.table_bytes as usize, TAIL.len() - tail::HEAD_BYTES);
    head.table(&TAIL[tail::HEAD_BYTES..]).unwrap()
}

#[test]
fn tail_of_a_bank() {
    let table = base_table();
    let lengths: Vec<u32> = table.chunks().iter().map(|chunk| chunk.bytes).collect();
    assert_eq!(lengths, [1000, 4096, 1000, 1896]);
    let bytes = table.encode();
    assert_eq!([&tail::encode_head(Digest256([7; 32]), &bytes).unwrap()[..], &bytes].concat(), TAIL);
}

#[test]
fn the_delta_makes_the_table_of_the_golden_bundle() {
    let delta = DeltaTable::decode(DELTA_TABLE).unwrap();
    assert_eq!(delta.encode(), DELTA_TABLE);
    assert_eq!(delta.image_bytes(), 8192);
    let patch = Patch { chunks: vec![4..5], offset: 0, stored_bytes: PATCH.len() as u32 };
    assert_eq!(delta.patches(), [patch]);

    let opened = open(BUNDLE).unwrap();
    let made = delta.chunk_table(&base_table()).unwrap();
    opened.check_table(0, &made).unwrap();
    assert!(opened.check_table(1, &made).is_err(), "the table of another image");
    assert!(delta.chunk_table(&made).is_err(), "made of another base");
}

#[test]
fn plain_patch() {
    let (header, streams) = Header::decode(PATCH).unwrap();
    assert_eq!(header.kind, Kind::Plain);
    assert_eq!(header.target_bytes(), 1896);
    assert_eq!(header.ops.encoding(), Encoding::Stored);
    assert_eq!(header.diff.encoding(), Encoding::Zstd);
    assert_eq!((header.diff.stored_bytes, header.diff.bytes), (18, 1895));
    assert_eq!(header.encode().unwrap(), PATCH[..streams.ops.start]);
    assert_eq!(PATCH[streams.ops.clone()], encode_ops(&[Op { seek: 6096, add: 1895, extra: 1 }]));

    let base = [&[b'x'; 6096][..], &[b'r'; 1896]].concat();
    let mut made = Vec::new();
    let diff = [0xe0; 1895];
    apply(&PATCH[streams.ops], &diff, &PATCH[streams.extra], &mut &base[..], &mut made).unwrap();
    let opened = open(BUNDLE).unwrap();
    let section = opened.index_section(0).unwrap();
    let table = opened.chunk_table(0, &BUNDLE[section.offset as usize..][..section.bytes as usize]).unwrap();
    assert_eq!(Digest256::of(&made), table.chunks()[4].digest);
}

#[test]
fn lz4_patch() {
    let (header, streams) = Header::decode(PATCH_LZ4).unwrap();
    let block = |offset, stored_bytes, decoded_bytes| BaseBlock { offset, stored_bytes, decoded_bytes };
    let base_blocks = vec![block(4100, 300, 1000), block(4404, 20, 24)];
    assert_eq!(header.kind, Kind::Lz4 { level: 9, decoded_bytes: 630, base_blocks });
    assert_eq!(header.encode().unwrap(), PATCH_LZ4[..streams.ops.start]);
    assert_eq!(&PATCH_LZ4[streams.extra.clone()], b"golden");

    let base: Vec<u8> = (0..1024u32).map(|number| (number / 4) as u8).collect();
    let mut made = Vec::new();
    apply(&PATCH_LZ4[streams.ops], &[0; 624], b"golden", &mut &base[..], &mut made).unwrap();
    assert_eq!(made, [&base[1000..], &base[..600], b"golden"].concat());
}

/// The golden bundle, signed anew with these deltas and this section of them.
fn bundle_with(deltas: Vec<Delta>, section: &[u8]) -> Vec<u8> {
    let golden = head(BUNDLE).unwrap();
    let mut manifest = golden.claims().unwrap().manifest;
    manifest.deltas = deltas;
    let manifest = manifest.encode().unwrap().into_bytes();
    let message = signatures::signing_message(&manifest);
    let mut signed = [sign(0x11, &message), sign(0x12, &message)];
    signed.sort_by_key(|entry| entry.key_id);
    let signed = signatures::encode(&signed);
    let sections = golden.header().sections();
    let body = &BUNDLE[golden.header().indexes.offset as usize..];
    let bytes = [
        manifest.len() as u64,
        signed.len() as u64,
        sections[2].bytes,
        sections[3].bytes,
        sections[4].bytes,
        section.len() as u64,
    ];
    let header = BundleHeader::lay_out(bytes).unwrap().encode();
    [&header[..], &manifest, &signed, body, section].concat()
}

fn delta(codec: &str, table: &[u8], bytes: u64) -> Delta {
    Delta {
        image: "root".into(),
        codec: codec.into(),
        base: Digest256([7; 32]),
        base_version: Version::new(1, 2, 2),
        bytes,
        table_bytes: table.len() as u64,
        table_sha256: Digest256::of(table),
    }
}

/// What is stored would be zstd; to this room it is bytes with a digest.
#[test]
fn deltas_have_their_places_and_a_stream_leaves_them_alone() {
    let stored = b"a table as it is stored";
    let section = [&b"who knows"[..], stored, PATCH].concat();
    let whole = (stored.len() + PATCH.len()) as u64;
    let deltas = vec![delta("from-the-future", b"who", 9), delta(CODEC, stored, whole)];
    let bundle = bundle_with(deltas, &section);
    let opened = open(&bundle).unwrap();
    let start = opened.header().deltas.offset;
    let sections = opened.delta_sections(1).unwrap();
    assert_eq!(sections.table, Section { offset: start + 9, bytes: stored.len() as u64 });
    assert_eq!(sections.patches.offset, start + 9 + stored.len() as u64);
    assert_eq!(sections.patches.end(), Some(bundle.len() as u64));
    assert_eq!(opened.delta_sections(0).unwrap().patches, Section { offset: start + 3, bytes: 6 });
    assert_eq!(opened.delta_sections(2), None);

    opened.check_delta_table(1, stored).unwrap();
    assert!(matches!(opened.check_delta_table(1, b"other"), Err(Error::DigestMismatch { .. })));
    assert!(opened.check_delta_table(2, stored).is_err());
    assert_eq!(opened.delta_table(1, DELTA_TABLE).unwrap().encode(), DELTA_TABLE);
    assert!(opened.delta_table(0, DELTA_TABLE).is_err(), "of another coding");
    assert!(opened.delta_table(2, DELTA_TABLE).is_err());

    let with = streams::pieces(&opened, &bundle, 1000).unwrap();
    assert_eq!(with, streams::pieces(&open(BUNDLE).unwrap(), BUNDLE, 1000).unwrap());
    let without = &bundle[..start as usize];
    assert_eq!(with, streams::pieces(&opened, without, 1000).unwrap(), "the deltas need not even come");
}

#[test]
fn the_table_of_another_image_or_with_other_patches_is_refused() {
    let good = delta(CODEC, b"table", (5 + PATCH.len()) as u64);
    let section = [b"table", PATCH].concat();
    let read = |delta| {
        let bytes = delta_bytes(&delta, &section);
        open(&bundle_with(vec![delta], &bytes)).unwrap().delta_table(0, DELTA_TABLE)
    };
    assert!(read(good.clone()).is_ok());
    let of_boot = Delta { image: "boot".into(), ..good.clone() };
    let longer = Delta { bytes: good.bytes + 1, ..good.clone() };
    let shorter = Delta { bytes: good.bytes - 1, ..good };
    for wrong in [of_boot, longer, shorter] {
        let error = read(wrong).unwrap_err();
        assert!(error.to_string().contains("its sizes"), "{error}");
    }
}

fn delta_bytes(delta: &Delta, section: &[u8]) -> Vec<u8> {
    let mut bytes = section.to_vec();
    bytes.resize(delta.bytes as usize, 0);
    bytes
}
