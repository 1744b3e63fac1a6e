//! Seeds of Roro's own formats: out of the golden files and the forge.
#![expect(clippy::single_range_in_vec_init, reason = "a patch makes runs of chunks")]

use bank_format::{
    Digest256,
    delta::{
        CODEC, DeltaTable, PatchEntry,
        patch::{BaseBlock, Header, Kind, Op, Stream, encode_ops},
    },
    header::Section,
    index::{ChunkTable, Lane, Source},
    manifest::{Delta, Document},
    release::Version,
    tail,
};
use tests::forge::{Forge, Row, Table, noise};

use super::Seed;

const BUNDLE: &[u8] = include_bytes!("../../../bank-format/tests/golden/v1.roro");
const DELTA_TABLE: &[u8] = include_bytes!("../../../bank-format/tests/golden/delta-table.bin");
const PATCH: &[u8] = include_bytes!("../../../bank-format/tests/golden/patch.bin");
const PATCH_LZ4: &[u8] = include_bytes!("../../../bank-format/tests/golden/patch-lz4.bin");
const TAIL: &[u8] = include_bytes!("../../../bank-format/tests/golden/tail.bin");
const ROOT: &[u8] = include_bytes!("../../../bank-format/tests/golden/root.json");
const ROOT_2: &[u8] = include_bytes!("../../../bank-format/tests/golden/root-2.json");

pub(super) fn all() -> Vec<Seed> {
    let mut seeds = vec![
        ("trust_root", "golden", ROOT.to_vec()),
        ("trust_root", "golden-next", ROOT_2.to_vec()),
        ("tail", "golden", TAIL.to_vec()),
        ("tail", "table-alone", TAIL[tail::HEAD_BYTES..].to_vec()),
    ];
    seeds.extend(bundles());
    seeds.extend(tables());
    seeds.extend(patches());
    seeds
}

/// Two chunks in a frame, a stored frame, zeros, a repeat.
fn mixed() -> Forge {
    let (left, right, stored) = (noise(1, 60), noise(2, 40), noise(3, 30));
    let image = [&left[..], &right, &stored, &[0; 600], &left].concat();
    let table = Table {
        image_bytes: image.len() as u64,
        frames: vec![(2, 90), (1, 30)],
        rows: vec![Row::of(&left), Row::of(&right), Row::of(&stored), Row::Zeros(600), Row::Repeat(0)],
    };
    Forge::with_table(&image, "1.1.0", &table, noise(4, 120))
}

/// The golden delta, a delta of a codec from the future, and a document.
fn with_deltas() -> Forge {
    let mut forge = mixed();
    let table = DELTA_TABLE.to_vec();
    let delta = |codec: &str, bytes: u64, table_bytes: u64| Delta {
        image: "root".into(),
        codec: codec.into(),
        base: Digest256([7; 32]),
        base_version: Version::new(1, 0, 0),
        bytes,
        table_bytes,
        table_sha256: Digest256([0; 32]),
    };
    let (whole, part) = ((table.len() + PATCH.len()) as u64, table.len() as u64);
    forge.manifest.deltas = vec![delta(CODEC, whole, part), delta("later", 4, 4)];
    forge.deltas = [&table[..], PATCH, b"what"].concat();
    forge
}

fn bundles() -> Vec<Seed> {
    let with_deltas = with_deltas();
    let golden = manifest_of(BUNDLE);
    let mut full = with_deltas.manifest.clone();
    full.floor = Some(Version::new(1, 0, 0));
    full.build.source = Some("https://example.org/appliance.git".into());
    full.build.commit = Some("0123456789abcdef".into());
    full.documents.push(Document { name: "packages".into(), bytes: 7, sha256: Digest256([9; 32]) });
    let minimal = Forge::honest(b"x", "0.0.1-rc.1+build");
    vec![
        ("bundle", "golden", BUNDLE.to_vec()),
        ("bundle", "honest", Forge::honest(&noise(5, 5000), "1.0.0").bytes()),
        ("bundle", "mixed", mixed().bytes()),
        ("bundle", "deltas", with_deltas.bytes()),
        ("manifest", "golden", golden),
        ("manifest", "full", full.encode().unwrap().into_bytes()),
        ("manifest", "minimal", minimal.manifest.encode().unwrap().into_bytes()),
        ("index", "mixed", mixed().tables[0].clone()),
    ]
}

fn section(bundle: &[u8], section: Section) -> Vec<u8> {
    bundle[section.offset as usize..section.end().unwrap() as usize].to_vec()
}

fn manifest_of(bundle: &[u8]) -> Vec<u8> {
    let header = bank_format::header::Header::decode(bundle.first_chunk().unwrap()).unwrap();
    section(bundle, header.manifest)
}

fn tables() -> Vec<Seed> {
    let at = |frame, offset| Source::Frame { frame, offset };
    let digest = |number: u8| Digest256([number; 32]);
    let zeros = |bytes: u32| (bytes, Source::Zeros, Digest256::of(&vec![0; bytes as usize]));
    let golden = ChunkTable::decode(&TAIL[tail::HEAD_BYTES..]).unwrap();
    let row = |number: usize| {
        let chunk = golden.chunks()[number];
        (chunk.bytes, chunk.source, chunk.digest)
    };
    let make = |frames: &[(Lane, u32, u32)], chunks: &[(u32, Source, Digest256)]| {
        ChunkTable::new(frames, chunks).unwrap()
    };
    let lanes = make(
        &[(Lane::Main, 5, 30), (Lane::Aside, 20, 20), (Lane::Main, 9, 10)],
        &[
            (10, at(0, 0), digest(1)),
            (20, at(1, 0), digest(2)),
            zeros(4096),
            (20, at(0, 10), digest(3)),
            (10, at(0, 0), digest(1)),
            (10, at(2, 0), digest(4)),
            zeros(512),
        ],
    );
    let only_zeros = make(&[], &[zeros(1 << 20), zeros(1)]);
    // Rows of the golden base in another order, and new ones between.
    let moved = make(
        &[(Lane::Main, 51, 1000), (Lane::Aside, 7, 7), (Lane::Main, 18, 1896)],
        &[
            row(0),
            (7, at(1, 0), digest(8)),
            row(1),
            (1896, at(2, 0), golden.chunks()[3].digest),
            row(0),
            zeros(4096),
        ],
    );
    let patch = |chunks: Vec<std::ops::Range<u32>>| PatchEntry { chunks, stored_bytes: 32 };
    let delta = |base: &ChunkTable, new: &ChunkTable, patches| {
        DeltaTable::between(base, new, patches).unwrap().encode()
    };
    let empty = make(&[], &[]);
    vec![
        ("index", "golden-base", golden.encode()),
        ("index", "lanes", lanes.encode()),
        ("index", "only-zeros", only_zeros.encode()),
        ("index", "empty", empty.encode()),
        (
            "tail",
            "lanes",
            [&tail::encode_head(digest(1), &lanes.encode()).unwrap()[..], &lanes.encode()].concat(),
        ),
        ("delta_table", "golden", DELTA_TABLE.to_vec()),
        ("delta_table", "moved", delta(&golden, &moved, vec![patch(vec![0..2, 3..4]), patch(vec![2..3])])),
        ("delta_table", "all-new", delta(&empty, &lanes, vec![patch(vec![0..1]), patch(vec![1..7])])),
        ("delta_table", "unchanged", delta(&golden, &golden, Vec::new())),
        ("delta_table", "only-zeros", delta(&golden, &only_zeros, Vec::new())),
        ("delta_table", "empty", delta(&golden, &empty, Vec::new())),
    ]
}

/// A patch whose streams are stored as they are.
pub(super) fn stored(kind: Kind, ops: &[Op]) -> Vec<u8> {
    let ops_bytes = encode_ops(ops);
    let stream = |bytes: u32| Stream { stored_bytes: bytes, bytes };
    let (add, extra) = (ops.iter().map(|op| op.add).sum(), ops.iter().map(|op| op.extra).sum());
    let header =
        Header { kind, ops: stream(ops_bytes.len() as u32), diff: stream(add), extra: stream(extra) };
    [header.encode().unwrap(), ops_bytes, noise(6, add as usize), noise(7, extra as usize)].concat()
}

fn patches() -> Vec<Seed> {
    let op = |seek, add, extra| Op { seek, add, extra };
    let back_and_forth = [op(4000, 96, 5), op(-4096, 10, 0), op(100, 0, 3), op(3986, 0, 1), op(-7, 7, 0)];
    let block = |offset, decoded_bytes| BaseBlock { offset, stored_bytes: 9, decoded_bytes };
    let lz4 = |base_blocks| Kind::Lz4 { level: 12, decoded_bytes: 70, base_blocks };
    vec![
        ("patch", "golden", PATCH.to_vec()),
        ("patch", "golden-lz4", PATCH_LZ4.to_vec()),
        ("patch", "back-and-forth", stored(Kind::Plain, &back_and_forth)),
        ("patch", "all-extra", stored(Kind::Plain, &[op(0, 0, 40)])),
        ("patch", "lz4", stored(lz4(vec![block(4, 50), block(1 << 40 >> 1, 14)]), &[op(4, 60, 10)])),
        ("patch", "lz4-without-a-base", stored(lz4(Vec::new()), &[op(0, 0, 70)])),
        ("patch", "operations", encode_ops(&back_and_forth)),
    ]
}
