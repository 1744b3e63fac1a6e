//! The default appliance, built twice from the same packages: the same bytes, and within its budget.

#![expect(clippy::unwrap_used, reason = "a suite that cannot set its stage has failed")]

use std::{fs, num::NonZeroUsize, path::Path};

use image_tool::{
    bundle::Older,
    chunker::Packing,
    keys::{self, KeygenOptions, ReleaseKeys},
    packages::{self, Reuse},
    progress::Silent,
    release::{BuildOptions, Built, build},
};
use qemu_testbed::workshop::Workshop;

const MIB: u64 = 1 << 20;

fn jeos(keys: &ReleaseKeys, binaries: &Path, out: &Path, threads: usize) -> Built {
    let options = BuildOptions {
        appliance: "jeos".into(),
        version: "1.0.0".parse().unwrap(),
        floor: None,
        keys,
        out: out.to_owned(),
        binaries: Some(binaries.to_owned()),
        packages: packages::Options { mirror: None, cache: packages::default_cache(), reuse: Reuse::Kept },
        packing: Packing { threads: NonZeroUsize::new(threads).unwrap(), ..Packing::at_level(3) },
        from: Older::default(),
        epoch_seconds: 1_767_225_600,
    };
    build(&options, &Silent).unwrap()
}

#[test]
fn built_twice_bundle_disk_and_package_list_are_the_same_bytes() {
    let workshop = Workshop::open().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let key_dir = dir.path().join("keys");
    keys::generate(&KeygenOptions::new(&key_dir, 1_767_225_600)).unwrap();
    let keys = ReleaseKeys::load(&key_dir, None, &Silent).unwrap();
    let one = jeos(&keys, workshop.binaries(), &dir.path().join("one"), 1);
    let two = jeos(&keys, workshop.binaries(), &dir.path().join("elsewhere/two"), 3);
    for (one, two) in [(&one.bundle, &two.bundle), (&one.disk, &two.disk), (&one.packages, &two.packages)] {
        assert!(fs::read(one).unwrap() == fs::read(two).unwrap(), "{} differs", one.display());
    }
    // At the level of a real release the bundle is smaller still.
    assert!(one.minted.root.bytes < 160 * MIB, "root image: {} bytes", one.minted.root.bytes);
    assert!(fs::metadata(&one.bundle).unwrap().len() < 60 * MIB);
}
