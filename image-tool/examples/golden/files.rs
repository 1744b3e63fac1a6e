//! What is in the golden files. The keys follow from constant seeds that anybody can read here: they sign nothing else.
#![expect(clippy::single_range_in_vec_init, reason = "a patch makes runs of chunks")]

use std::{collections::BTreeMap, fs, num::NonZeroUsize};

use bank_format::{
    Bank, Digest256, Release,
    delta::{
        DeltaTable, PatchEntry,
        patch::{BaseBlock, Header, Kind, Op, Stream, encode_ops},
    },
    index::{ChunkTable, Lane, Source},
    manifest::{Build, Tree},
    record::{
        self, BankRecord, BankState, ImageProof, Intent, LastResult, Outcome, Purpose, Record, Trial,
        TrialPhase,
    },
    release::Version,
    tail,
};
use image_tool::{
    bundle::{self, BundleSpec, ImageSpec, Older},
    chunker::Packing,
    codec,
    keys::{PrivateKey, ReleaseKeys},
    progress::Silent,
    root_json::{self, RoleKeys, RootSpec},
};

/// 2100-01-01T00:00:00Z.
const EXPIRES_UNIX_SECONDS: i64 = 4_102_444_800;

/// Names and bytes of all golden files.
pub fn all() -> Vec<(&'static str, Vec<u8>)> {
    let (root_1, root_2) = roots();
    vec![
        ("v1.roro", bundle(root_1.clone())),
        ("root.json", root_1),
        ("root-2.json", root_2),
        ("record.bin", record::encode_copy(&record(), 7).unwrap()),
        ("delta-table.bin", delta().encode()),
        ("patch.bin", patch()),
        ("patch-lz4.bin", patch_lz4()),
        ("tail.bin", tail()),
    ]
}

/// The head of a tail, and its table behind it: in a bank they are not neighbours.
fn tail() -> Vec<u8> {
    let table = base_table().encode();
    [&tail::encode_head(Digest256([7; 32]), &table).unwrap()[..], &table].concat()
}

/// The chunk table of an older release: 1000 bytes of text, 4096 zeros, the text again, and letters in lower case.
pub fn base_table() -> ChunkTable {
    let text = Source::Frame { frame: 0, offset: 0 };
    let letters = Source::Frame { frame: 1, offset: 0 };
    let chunks = [
        (1000, text, Digest256::of(&text_of_the_image())),
        (4096, Source::Zeros, Digest256::of(&[0; 4096])),
        (1000, text, Digest256::of(&text_of_the_image())),
        (1896, letters, Digest256::of(&[b'r'; 1896])),
    ];
    ChunkTable::new(&[(Lane::Main, 51, 1000), (Lane::Main, 18, 1896)], &chunks).unwrap()
}

/// As the bundle has it: noise is new, and the letters are upper case now. Its frames are told as they are in the bundle.
pub fn new_table() -> ChunkTable {
    let at = |frame| Source::Frame { frame, offset: 0 };
    let noise = noise_of_the_image();
    let chunks = [
        (1000, at(0), Digest256::of(&text_of_the_image())),
        (200, at(1), Digest256::of(&noise)),
        (4096, Source::Zeros, Digest256::of(&[0; 4096])),
        (1000, at(0), Digest256::of(&text_of_the_image())),
        (1896, at(2), Digest256::of(&[b'R'; 1896])),
    ];
    ChunkTable::new(&[(Lane::Main, 51, 1000), (Lane::Main, 200, 200), (Lane::Main, 18, 1896)], &chunks)
        .unwrap()
}

fn delta() -> DeltaTable {
    let patch = PatchEntry { chunks: vec![4..5], stored_bytes: patch().len() as u32 };
    DeltaTable::between(&base_table(), &new_table(), vec![patch]).unwrap()
}

/// Makes the letters upper case: 6096 bytes into the base, 1895 bytes that differ by as much, and the last one as it is.
fn patch() -> Vec<u8> {
    let diff = vec![b'R'.wrapping_sub(b'r'); 1895];
    whole_patch(Kind::Plain, &[Op { seek: 6096, add: 1895, extra: 1 }], diff, b"R".to_vec())
}

/// Makes an LZ4 block out of two; what they hold is for its test.
fn patch_lz4() -> Vec<u8> {
    let block = |offset, stored_bytes, decoded_bytes| BaseBlock { offset, stored_bytes, decoded_bytes };
    let base_blocks = vec![block(4100, 300, 1000), block(4404, 20, 24)];
    let ops = [Op { seek: 1000, add: 24, extra: 0 }, Op { seek: -1024, add: 600, extra: 6 }];
    let kind = Kind::Lz4 { level: 9, decoded_bytes: 630, base_blocks };
    whole_patch(kind, &ops, vec![0; 624], b"golden".to_vec())
}

fn whole_patch(kind: Kind, ops: &[Op], diff: Vec<u8>, extra: Vec<u8>) -> Vec<u8> {
    let pack = |content: Vec<u8>| {
        let bytes = content.len() as u32;
        let stored = codec::compress(content, 19).unwrap();
        (Stream { stored_bytes: stored.len() as u32, bytes }, stored)
    };
    let [(ops, ops_stored), (diff, diff_stored), (extra, extra_stored)] =
        [encode_ops(ops), diff, extra].map(pack);
    let header = Header { kind, ops, diff, extra }.encode().unwrap();
    [header, ops_stored, diff_stored, extra_stored].concat()
}

fn keys(seeds: &[u8]) -> Vec<PrivateKey> {
    seeds.iter().map(|seed| PrivateKey::from_seed(&[*seed; 32])).collect()
}

fn roots() -> (Vec<u8>, Vec<u8>) {
    let spec = |root: &[u8], release: &[u8]| RootSpec {
        expires_unix_seconds: EXPIRES_UNIX_SECONDS,
        root: RoleKeys::of(&keys(root), 2),
        targets: RoleKeys::of(&keys(release), 2),
        snapshot: RoleKeys::of(&keys(&[0x21]), 1),
        timestamp: RoleKeys::of(&keys(&[0x21]), 1),
    };
    let root_1 = root_json::first(&spec(&[1, 2, 3], &[0x11, 0x12, 0x13]), &keys(&[1, 2])).unwrap();
    // Root key 3 and release key 0x13 retire.
    let next = spec(&[1, 2, 4], &[0x11, 0x12, 0x14]);
    let root_2 = root_json::next(&root_1, &next, &keys(&[1, 2]), &keys(&[4])).unwrap();
    (root_1, root_2)
}

fn text_of_the_image() -> Vec<u8> {
    b"rolled on, proven, and rolled off again\n".repeat(25)
}

fn noise_of_the_image() -> Vec<u8> {
    (0..7u8).flat_map(|number| Digest256::of(&[number]).0).take(200).collect()
}

/// Text, which shrinks; bytes that do not; zeros; the text again; and enough to end on a block. With the lengths of its chunks.
pub fn root_image() -> (Vec<u8>, Vec<u32>) {
    let (text, noise) = (text_of_the_image(), noise_of_the_image());
    let image = [&text[..], &noise, &[0; 4096], &text, &[b'R'; 1896]].concat();
    (image, vec![1000, 200, 4096, 1000, 1896])
}

/// The boot image.
pub fn boot_image() -> Vec<u8> {
    b"kernel, initrd and command line\n".repeat(10)
}

fn bundle(root_json: Vec<u8>) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let image = |name: &str, bytes: &[u8], tree, lengths| {
        let path = dir.path().join(name);
        fs::write(&path, bytes).unwrap();
        let salt = vec![0xa0, 0xb1, 0xc2, 0xd3];
        ImageSpec { name: name.into(), path, tree, salt, lengths: Some(lengths) }
    };
    let (root, lengths) = root_image();
    let signing = ReleaseKeys::new(keys(&[0x11, 0x12]), root_json).unwrap();
    let spec = BundleSpec {
        name: "golden".into(),
        version: Version::new(1, 2, 3),
        compatible: "roro,golden".into(),
        created_unix_seconds: 1_700_000_000,
        floor: Some(Version::new(1, 0, 0)),
        build: Build {
            tool: "image-tool 0.1.0".into(),
            source: Some("golden.toml".into()),
            commit: Some("0123456789abcdef0123456789abcdef01234567".into()),
        },
        images: vec![
            image("root", &root, Tree::Appended, lengths),
            image("boot", &boot_image(), Tree::None, vec![320]),
        ],
        documents: vec![("packages".into(), b"base-files 12.4 amd64\n".to_vec())],
        keys: &signing,
        // Frames so small that an image of 8 KiB has three.
        from: Older::default(),
        packing: Packing { level: 19, threads: NonZeroUsize::MIN, frame_raw_bytes: 1000, cache: None },
    };
    let out = dir.path().join("v1.roro");
    bundle::write(&spec, &out, &Silent).unwrap();
    fs::read(out).unwrap()
}

/// A record with every field filled.
pub fn record() -> Record {
    let release = |patch| Release { name: "golden".into(), version: Version::new(1, 2, patch) };
    // Without `tree`, which came later: what such a record says is still read.
    let proof =
        ImageProof { bytes: 8192, verity_root: Digest256([7; 32]), salt: "a0b1c2d3".into(), tree: None };
    let images = BTreeMap::from([("root".to_owned(), proof)]);
    let mut record = Record::founded_on(Bank::A, Some(release(2)), images.clone());
    *record.banks.get_mut(Bank::B) = BankRecord {
        state: BankState::Written,
        release: Some(release(3)),
        manifest: Some(Digest256([8; 32])),
        floor: Some(Version::new(1, 0, 0)),
        images,
        does_not_start: false,
        extra: BTreeMap::new(),
    };
    record.trial = Some(Trial {
        bank: Bank::B,
        phase: TrialPhase::Armed,
        purpose: Purpose::Update,
        tries_left: 1,
        tries_made: 0,
        reason: Some("none yet".into()),
        extra: BTreeMap::new(),
    });
    record.unsettled_boots = 1;
    record.redirects = 2;
    record.interrupted = Some(Intent { deed: "install".into(), release: release(3), bank: Bank::B });
    record.last_result = Some(LastResult {
        outcome: Outcome::FellBack,
        release: Some(release(1)),
        reason: Some("check \"kiosk answers\" failed".into()),
        evidence: Some("/state/roro/evidence/1.log".into()),
    });
    record.extra.insert("from_the_future".into(), serde_json::json!({ "kept": true }));
    record
}
