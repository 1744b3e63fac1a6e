//! Five gibibytes of which almost all are holes: what costs nothing must cost nothing, from the mint to the bank. Real files.

#![expect(clippy::unwrap_used, reason = "a verdict of the judge is a panic")]

use std::{
    fs::{self, File},
    num::NonZeroUsize,
    os::unix::fs::{FileExt as _, MetadataExt as _},
    path::Path,
};

use bank_format::{
    manifest::{Build, Tree},
    release::Version,
};
use image_tool::{
    bundle::{self, BundleSpec, ImageSpec, Older},
    chunker::Packing,
    keys::{KeygenOptions, ReleaseKeys, generate},
    progress::Silent,
};
use tests::forge::noise;
use updater::{
    Device, Terms,
    config::{Config, Network},
    device::Purpose,
};

const IMAGE_BYTES: u64 = 5 << 30;
/// What lies in it, and where: at its start, across the border of 32 bits, at its end.
const CONTENTS: [u64; 3] = [0, (4 << 30) - 50_000, IMAGE_BYTES - 100_000];

fn image(path: &Path) {
    let file = File::create(path).unwrap();
    file.set_len(IMAGE_BYTES).unwrap();
    for (seed, offset) in (1..).zip(CONTENTS) {
        file.write_all_at(&noise(seed, 100_000), offset).unwrap();
    }
}

#[test]
fn five_gibibytes_of_holes() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    generate(&KeygenOptions::new(path("keys"), 1_780_000_000)).unwrap();
    let keys = ReleaseKeys::load(&path("keys"), None, &Silent).unwrap();
    image(&path("root.img"));
    let spec = BundleSpec {
        name: "demo".into(),
        version: Version::new(1, 0, 0),
        compatible: "test,any".into(),
        created_unix_seconds: 0,
        floor: None,
        build: Build { tool: "tests".into(), source: None, commit: None },
        images: vec![ImageSpec {
            name: "root".into(),
            path: path("root.img"),
            tree: Tree::Appended,
            salt: vec![1],
            lengths: None,
        }],
        documents: vec![],
        keys: &keys,
        packing: Packing { threads: NonZeroUsize::MIN, ..Packing::at_level(3) },
        from: Older::default(),
    };
    bundle::write(&spec, &path("1.roro"), &Silent).unwrap();
    let bundle_bytes = fs::metadata(path("1.roro")).unwrap().len();
    assert!(bundle_bytes < 400_000, "{bundle_bytes}");

    let config = r#"
        compatible = "test,any"
        state_dir = "state"
        run_dir = "run"
        record = "record.bin"
        release_file = "release.json"
        [boot]
        backend = "file"
        path = "boot.state"
        [bank.a]
        root = "a.img"
        [bank.b]
        root = "b.img"
    "#;
    let config = Config::parse(config, dir.path()).unwrap();
    let mut device = Device::open(&config, Purpose::Act).unwrap();
    let terms =
        Terms { compatible: "test,any".into(), trust: keys.root().clone(), network: Network::default() };
    let source = path("1.roro");
    let report =
        updater::install(&mut device, &terms, source.to_str().unwrap(), &mut updater::ports::Silent).unwrap();
    assert_eq!(report.bytes_fetched, bundle_bytes);
    let bank = File::open(path("b.img")).unwrap();
    for (seed, offset) in (1..).zip(CONTENTS) {
        let mut found = vec![0; 100_000];
        bank.read_exact_at(&mut found, offset).unwrap();
        assert!(found == noise(seed, 100_000), "at {offset}");
    }
    let on_disk = bank.metadata().unwrap().blocks() * 512;
    assert!(on_disk < IMAGE_BYTES / 64, "holes stay holes; its tree is a 127th: {on_disk}");
}
