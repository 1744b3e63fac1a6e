//! Seeds that are right but for one thing, each of which a decoder must refuse: what would go wrong unseen if a check were lost.

use bank_format::{
    Digest256,
    delta::{
        DeltaTable,
        patch::{Kind, Op, encode_ops},
    },
    header::{HEADER_BYTES, Header},
    index::{ChunkTable, Lane, Source},
    limits::MAX_SALT_BYTES,
    manifest::Delta,
    tail,
};

use super::{Seed, formats};

pub(super) fn all() -> Vec<Seed> {
    [tables(), deltas(), patches(), others()].concat()
}

/// The number whose last byte stands at `at`, in a longer form.
fn longer(mut bytes: Vec<u8>, at: usize) -> Vec<u8> {
    bytes[at] |= 0x80;
    bytes.insert(at + 1, 0);
    bytes
}

fn with(mut bytes: Vec<u8>, at: usize, value: u8) -> Vec<u8> {
    bytes[at] = value;
    bytes
}

/// 10 and 20 bytes in one frame: magic, image, one frame (two chunks, 25 bytes), two rows, two digests.
fn small_table() -> ChunkTable {
    let chunk = |bytes, offset, digest| (bytes, Source::Frame { frame: 0, offset }, Digest256([digest; 32]));
    ChunkTable::new(&[(Lane::Main, 25, 30)], &[chunk(10, 0, 1), chunk(20, 10, 2)]).unwrap()
}

fn tables() -> Vec<Seed> {
    let table = small_table().encode();
    let digests = table.len() - 64;
    let chunk = |number: usize| {
        let chunk = small_table().chunks()[number];
        (chunk.bytes, chunk.source, chunk.digest)
    };
    let repeats = [chunk(0), chunk(0), chunk(0), chunk(1)];
    let repeats = ChunkTable::new(&[(Lane::Main, 25, 30)], &repeats).unwrap().encode();
    let mut equal = table.clone();
    equal.copy_within(digests..digests + 32, digests + 32);
    vec![
        ("index", "lie-longer-number", longer(table.clone(), 8)),
        ("index", "lie-longer-row", longer(table.clone(), digests - 1)),
        ("index", "lie-equal-chunks-twice", equal),
        ("index", "lie-frame-longer-than-its-content", with(table.clone(), 11, 31)),
        ("index", "lie-frame-of-the-other-lane", with(table.clone(), 10, 2 << 1 | 1)),
        ("index", "lie-frame-of-three", with(table.clone(), 10, 3 << 1)),
        ("index", "lie-chunk-of-nothing", with(table.clone(), 13, 0)),
        ("index", "lie-repeat-of-itself", with(table.clone(), 14, 1 << 2 | 2)),
        ("index", "lie-repeat-of-a-repeat", with(repeats, 15, 1 << 2 | 2)),
        ("index", "lie-image-of-more", with(table.clone(), 8, 31)),
        ("index", "lie-bytes-behind", [&table[..], &[0]].concat()),
        ("tail", "lie-digest", with(tail_of(Digest256([1; 32]), &table), 50, 0)),
        ("tail", "lie-no-table", tail_of_nothing()),
        ("tail", "lie-not-zero", with(tail_of(Digest256([1; 32]), &table), 45, 1)),
    ]
}

fn tail_of_nothing() -> Vec<u8> {
    let mut bytes = tail_of(Digest256::of(&[]), b"x");
    bytes.truncate(tail::HEAD_BYTES);
    bytes[40] = 0;
    bytes[48..80].copy_from_slice(&Digest256::of(&[]).0);
    bytes
}

/// A delta that makes so many MiB of zeros of nothing, with this list of patches: of each its runs, as they are written.
fn zeros_with(mebibytes: usize, patches: &[&[(u8, u8)]]) -> Vec<u8> {
    let zeros = (1 << 20, Source::Zeros, Digest256::of(&vec![0; 1 << 20]));
    let base = ChunkTable::new(&[], &[]).unwrap();
    let new = ChunkTable::new(&[], &vec![zeros; mebibytes]).unwrap();
    let mut bytes = DeltaTable::between(&base, &new, Vec::new()).unwrap().encode();
    bytes.pop();
    bytes.push(patches.len() as u8);
    for runs in patches {
        bytes.extend([9, runs.len() as u8]);
        bytes.extend(runs.iter().flat_map(|(before, chunks)| [*before, *chunks]));
    }
    bytes
}

fn deltas() -> Vec<Seed> {
    let right = zeros_with(4, &[&[(0, 2), (1, 1)], &[(2, 1)]]);
    vec![
        ("delta_table", "patches-in-each-other", right.clone()),
        ("delta_table", "lie-longer-number", longer(right.clone(), right.len() - 1)),
        ("delta_table", "lie-runs-touch", zeros_with(4, &[&[(0, 2), (0, 1)]])),
        ("delta_table", "lie-chunk-made-twice", zeros_with(4, &[&[(0, 1), (1, 1)], &[(2, 1)]])),
        ("delta_table", "lie-same-beginning", zeros_with(4, &[&[(1, 1)], &[(0, 1)]])),
        ("delta_table", "lie-chunk-that-is-not-there", zeros_with(4, &[&[(3, 2)]])),
        ("delta_table", "lie-patch-of-nothing", zeros_with(4, &[&[]])),
        ("delta_table", "lie-patch-of-nine-mebibytes", zeros_with(9, &[&[(0, 9)]])),
    ]
}

fn patches() -> Vec<Seed> {
    let op = |seek, add, extra| Op { seek, add, extra };
    let lz4 = || {
        formats::stored(Kind::Lz4 { level: 9, decoded_bytes: 10, base_blocks: Vec::new() }, &[op(0, 0, 10)])
    };
    vec![
        ("patch", "to-the-end-of-the-base", formats::stored(Kind::Plain, &[op(4000, 96, 0)])),
        ("patch", "lie-beyond-the-base", formats::stored(Kind::Plain, &[op(4000, 97, 0)])),
        ("patch", "lie-beyond-without-a-byte", formats::stored(Kind::Plain, &[op(4097, 0, 1)])),
        ("patch", "lie-before-the-base", formats::stored(Kind::Plain, &[op(-1, 1, 0)])),
        ("patch", "lie-operation-of-nothing", encode_ops(&[op(0, 5, 5), op(1, 0, 0)])),
        ("patch", "lie-longer-number", longer(encode_ops(&[op(0, 5, 5)]), 2)),
        ("patch", "lie-level-0", with(lz4(), 1, 0)),
        ("patch", "lie-level-13", with(lz4(), 1, 13)),
        ("patch", "lie-another-block", with(lz4(), 2, 11)),
    ]
}

fn others() -> Vec<Seed> {
    let mut manifest = tests::forge::Forge::honest(&[7; 100], "1.0.0").manifest;
    let text = manifest.encode().unwrap();
    let salt = text.replace("salt = \"\"", &format!("salt = \"{}\"", "00".repeat(MAX_SALT_BYTES + 1)));
    let images = format!("{text}\n{}", &text[text.find("[[image]]").unwrap()..]);
    manifest.deltas.push(Delta {
        image: "root".into(),
        codec: "later".into(),
        base: Digest256([7; 32]),
        base_version: manifest.version.clone(),
        bytes: 1,
        table_bytes: 1,
        table_sha256: Digest256([0; 32]),
    });
    let text = manifest.encode().unwrap();
    let deltas = format!("{text}\n{}", &text[text.find("[[delta]]").unwrap()..]);
    let bundle = tests::forge::Forge::honest(&[7; 100], "1.0.0").bytes();
    let mut reserved = bundle.clone();
    reserved[HEADER_BYTES - 8] = 1;
    let crc = crc32fast::hash(&reserved[..HEADER_BYTES - 4]);
    reserved[HEADER_BYTES - 4..HEADER_BYTES].copy_from_slice(&crc.to_le_bytes());
    assert!(Header::decode(reserved.first_chunk().unwrap()).is_err());
    vec![
        ("manifest", "lie-salt", salt.into_bytes()),
        ("manifest", "lie-delta-twice", deltas.into_bytes()),
        ("manifest", "lie-image-twice", images.into_bytes()),
        ("bundle", "lie-header-not-zero", reserved),
        ("bundle", "lie-cut-short", bundle[..bundle.len() - 1].to_vec()),
    ]
}

/// The head of a tail, and its table behind it.
fn tail_of(root: Digest256, table: &[u8]) -> Vec<u8> {
    [&tail::encode_head(root, table).unwrap()[..], table].concat()
}
