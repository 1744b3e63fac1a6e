//! Bundles that are put together well, and lie: about their signatures, their sizes, their tables, their content.
//! Each is refused with exit code 4, nothing is armed, and what can be known beforehand is refused before the first write.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a verdict of the judge is a panic")]

use std::rc::Rc;

use bank_format::{Bank, Digest256, Manifest, Release, manifest::Delta, release::Version};
use tests::{
    forge::{self, Forge, Row, Table, key, noise},
    simulated::{Machine, MemoryServer, Serving},
};
use updater::config::Network;

fn release(version: &str) -> Release {
    Release { name: "demo".into(), version: Version::parse(version).unwrap() }
}

fn attempt(bytes: Vec<u8>, root: &[u8]) -> (Rc<Machine>, updater::Result<updater::InstallReport>) {
    let machine = Machine::new(release("1.0.0"), b"active", b"passive");
    let server = Rc::new(MemoryServer { file: bytes, serving: Serving::Ranges });
    let result = machine.install(server, root, Network::default(), "http://memory/x.roro");
    (machine, result)
}

#[track_caller]
fn refused_before_the_first_write(name: &str, bytes: Vec<u8>, root: &[u8]) {
    let (machine, result) = attempt(bytes, root);
    let error = result.err().unwrap_or_else(|| panic!("{name}: was installed"));
    assert_eq!(error.kind().exit_code(), 4, "{name}: {error}");
    assert_eq!((machine.writes.get(), machine.armed.get()), (0, None), "{name}");
    assert_eq!(machine.root(Bank::B), b"passive", "{name}");
}

#[track_caller]
fn never_armed(name: &str, bytes: Vec<u8>) {
    let (machine, result) = attempt(bytes, &forge::root(1, 1));
    let error = result.err().unwrap_or_else(|| panic!("{name}: was installed"));
    assert!(matches!(error.kind().exit_code(), 4 | 5), "{name}: {error}");
    assert_eq!(machine.armed.get(), None, "{name}");
    assert_eq!(machine.root(Bank::A), b"active", "{name}");
}

fn signed_by(signers: &[u8]) -> Vec<u8> {
    let mut forge = Forge::honest(&noise(3, 5000), "1.1.0");
    forge.signers = signers.to_vec();
    forge.bytes()
}

#[test]
fn the_honest_forge_is_installed() {
    let image = noise(3, 5000);
    let (machine, result) = attempt(signed_by(&[1]), &forge::root(1, 1));
    result.unwrap();
    assert_eq!(machine.root(Bank::B), image);
    assert_eq!(machine.armed.get(), Some(Bank::B));
}

#[test]
fn stripped_foreign_and_doubled_signatures_are_refused() {
    refused_before_the_first_write("zero signatures", signed_by(&[]), &forge::root(1, 1));
    refused_before_the_first_write("a foreign key", signed_by(&[9]), &forge::root(1, 1));
    refused_before_the_first_write("one of two", signed_by(&[1]), &forge::root(3, 2));
    refused_before_the_first_write("one of two, and a foreign one", signed_by(&[1, 9]), &forge::root(3, 2));
    refused_before_the_first_write("the root key signs no release", signed_by(&[100]), &forge::root(1, 1));
    let (_, two_of_three) = attempt(signed_by(&[1, 3]), &forge::root(3, 2));
    two_of_three.unwrap();
    // One key twice: the section itself forbids it, so it is assembled by hand.
    let forge = Forge::honest(&noise(3, 5000), "1.1.0");
    let text = forge.manifest.encode().unwrap();
    let signature = key(1).sign(&bank_format::signatures::signing_message(text.as_bytes())).unwrap();
    let mut section = 2u32.to_le_bytes().to_vec();
    for _ in 0..2 {
        section.extend(signature.key_id.0);
        section.extend(signature.signature);
    }
    refused_before_the_first_write(
        "one key twice",
        forge.assemble(text.as_bytes(), &section),
        &forge::root(3, 2),
    );
    // A signature over the manifest without its domain.
    let bare = key(1).sign(text.as_bytes()).unwrap();
    let section = bank_format::signatures::encode(&[bare]);
    refused_before_the_first_write(
        "no domain",
        forge.assemble(text.as_bytes(), &section),
        &forge::root(1, 1),
    );
}

#[test]
fn releases_that_do_not_fit_are_refused() {
    let of = |change: fn(&mut Manifest)| {
        let mut forge = Forge::honest(&noise(3, 5000), "1.1.0");
        change(&mut forge.manifest);
        forge.bytes()
    };
    let root = forge::root(1, 1);
    refused_before_the_first_write("other device", of(|m| m.compatible = "test,other".into()), &root);
    refused_before_the_first_write("below the floor", of(|m| m.version = Version::new(0, 9, 0)), &root);
    refused_before_the_first_write(
        "pre-release of the floor",
        of(|m| m.version = "1.0.0-rc.1".parse().unwrap()),
        &root,
    );
    refused_before_the_first_write(
        "image the device has not",
        of(|m| m.images[0].name = "boot".into()),
        &root,
    );
}

#[test]
fn signed_manifests_that_are_nonsense_are_refused() {
    let forge = Forge::honest(&noise(3, 5000), "1.1.0");
    let text = forge.manifest.encode().unwrap();
    let root = forge::root(1, 1);
    let cases = [
        ("unknown key", text.replacen("format = 1", "format = 1\nshell = \"rm\"", 1)),
        ("no image", text.split("[[image]]").next().unwrap().to_owned()),
        ("image of 2^63 bytes", text.replacen("bytes = 5000", "bytes = 9223372036854775807", 1)),
        ("negative size", text.replacen("bytes = 5000", "bytes = -5000", 1)),
        (
            "table of 2^62 bytes",
            text.replacen(&format!("bytes = {}", forge.tables[0].len()), "bytes = 4611686018427387904", 1),
        ),
        ("empty", String::new()),
        ("not UTF-8 in spirit", "\u{0}".repeat(100)),
        ("image larger than the table says", text.replacen("bytes = 5000", "bytes = 5001", 1)),
    ];
    for (name, manifest) in cases {
        assert_ne!(manifest, text, "{name} changes something");
        refused_before_the_first_write(name, forge.bytes_with_manifest(manifest.as_bytes()), &root);
    }
}

fn one_chunk(content: &[u8], stored: &[u8]) -> Forge {
    let table = Table {
        image_bytes: content.len() as u64,
        frames: vec![(1, stored.len() as u64)],
        rows: vec![Row::of(content)],
    };
    Forge::with_table(content, "1.1.0", &table, stored.to_vec())
}

#[test]
fn tables_that_do_not_add_up_and_impossible_sizes_are_refused() {
    let image = noise(4, 1000);
    let row = |bytes: u64, number: u8| Row::New(bytes, Digest256([number; 32]));
    let root = forge::root(1, 1);
    type Case = (&'static str, u64, Vec<(u64, u64)>, Vec<Row>);
    let cases: Vec<Case> = vec![
        ("more chunks in the frame than there are", 1000, vec![(2, 1000)], vec![row(1000, 1)]),
        ("a chunk in no frame", 1000, vec![(1, 1000)], vec![row(400, 1), row(600, 2)]),
        ("a frame without a chunk", 1000, vec![(1, 900), (0, 100)], vec![row(1000, 1)]),
        ("one chunk stored twice", 1000, vec![(2, 1000)], vec![row(500, 1), row(500, 1)]),
        ("a chunk that repeats itself", 1000, vec![], vec![Row::Repeat(0)]),
        ("a chunk that repeats a later one", 1000, vec![(1, 1000)], vec![Row::Repeat(1), row(500, 1)]),
        ("a chunk that repeats zeros", 1000, vec![], vec![Row::Zeros(500), Row::Repeat(0)]),
        ("does not cover the image", 1000, vec![(1, 1000)], vec![row(999, 1)]),
        ("longer than the image", 1000, vec![(1, 1000)], vec![row(1001, 1)]),
        ("no chunks", 1000, vec![], vec![]),
        ("a chunk of 2^32-1", 1000, vec![(1, 1000)], vec![row(u32::MAX.into(), 1)]),
        ("a chunk of 2^60", 1000, vec![(1, 1000)], vec![row(1 << 60, 1)]),
        ("another size of image", 1 << 63, vec![(1, 1000)], vec![row(1000, 1)]),
        ("a frame of nothing", 1000, vec![(1, 0)], vec![row(1000, 1)]),
        ("a frame longer than its content", 1000, vec![(1, 1001)], vec![row(1000, 1)]),
        ("a frame of 2^60 bytes", 1000, vec![(1, 1 << 60)], vec![row(1000, 1)]),
        ("a frame of five megabytes", 5 << 20, vec![(5, 1000)], (0..5).map(|n| row(1 << 20, n)).collect()),
    ];
    for (name, image_bytes, frames, rows) in cases {
        let table = Table { image_bytes, frames, rows };
        let forge = Forge::with_table(&image, "1.1.0", &table, image.clone());
        refused_before_the_first_write(name, forge.bytes(), &root);
    }
}

#[test]
fn frames_that_lie_are_never_armed() {
    let image = b"x".repeat(5000);
    let packed = image_tool::codec::compress(image.clone(), 3).unwrap();
    never_armed("decompresses to more than it says", one_chunk(&image[..4000], &packed).bytes());
    never_armed("decompresses to less than it says", {
        let longer = [image.clone(), vec![1]].concat();
        one_chunk(&longer, &packed).bytes()
    });
    never_armed("bytes behind the frame", one_chunk(&image, &[packed.clone(), vec![0; 9]].concat()).bytes());
    never_armed("not zstd at all", one_chunk(&image, b"garbage").bytes());
    let bomb = image_tool::codec::compress(vec![0; 4 << 20], 19).unwrap();
    never_armed("a bomb", one_chunk(&image, &bomb).bytes());
    let mut wrong_root = Forge::honest(&image, "1.1.0");
    wrong_root.manifest.images[0].verity.root = Digest256([7; 32]);
    never_armed("another verity root", wrong_root.bytes());
    let mut wrong_digest = one_chunk(&image, &packed);
    wrong_digest.tables[0] = Table {
        image_bytes: 5000,
        frames: vec![(1, packed.len() as u64)],
        rows: vec![Row::New(5000, Digest256([9; 32]))],
    }
    .encode();
    wrong_digest.fit();
    never_armed("another chunk digest", wrong_digest.bytes());
}

#[test]
fn a_delta_of_a_codec_that_nobody_knows_costs_nothing() {
    let mut forge = Forge::honest(&noise(3, 5000), "1.1.0");
    forge.deltas = noise(5, 700);
    forge.manifest.deltas.push(Delta {
        image: "root".into(),
        codec: "from-the-future".into(),
        base: Digest256([1; 32]),
        base_version: Version::new(1, 0, 0),
        bytes: 700,
        table_bytes: 300,
        table_sha256: Digest256::of(b""),
    });
    attempt(forge.bytes(), &forge::root(1, 1)).1.unwrap();
}
