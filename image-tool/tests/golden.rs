//! The golden files of `bank-format` are what this mint writes today, and what it read yesterday.
#![expect(clippy::unwrap_used, reason = "tests")]

#[path = "../examples/golden/files.rs"]
mod files;

use std::{fs, path::Path};

use bank_format::TrustRoot;
use image_tool::{progress::Silent, reader::BundleFile};

/// If only a new zstd packs `v1.roro` differently, keep the file and compare all but its frames here: what counts is
/// that it can still be read.
#[test]
fn the_golden_files_have_not_changed() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../bank-format/tests/golden");
    for (name, bytes) in files::all() {
        assert!(fs::read(dir.join(name)).unwrap() == bytes, "{name} differs from what is written today");
    }
}

#[test]
fn the_golden_bundle_holds_its_images() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../bank-format/tests/golden");
    let root = TrustRoot::from_trusted(&fs::read(dir.join("root.json")).unwrap()).unwrap();
    let bundle = BundleFile::open(&dir.join("v1.roro")).unwrap().verify(&root).unwrap();
    bundle.check_all(&Silent).unwrap();
    for (number, expected) in [files::root_image().0, files::boot_image()].into_iter().enumerate() {
        let mut image = Vec::new();
        bundle
            .read_image(number, &mut |bytes| {
                image.extend_from_slice(bytes);
                Ok(())
            })
            .unwrap();
        assert!(image == expected);
    }
    assert_eq!(bundle.document(0).unwrap(), b"base-files 12.4 amd64\n");
}
