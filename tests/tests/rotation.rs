//! Keys change: a device follows the chain of trust roots, and only the chain.

#![expect(clippy::unwrap_used, reason = "a suite that cannot set its stage has failed")]

use std::path::Path;

use image_tool::root_json::{self, RoleKeys, RootSpec};
use tests::forge::{Forge, key, noise};
use updater::trust;

/// Root `version` with root key `root`, and release key `release`; signed by the root keys `signers`.
fn root(version: u64, root: u8, release: u8, signers: &[u8]) -> Vec<u8> {
    let spec = RootSpec {
        expires_unix_seconds: 4_102_444_800,
        root: RoleKeys::of(&[key(root)], 1),
        targets: RoleKeys::of(&[key(release)], 1),
        snapshot: RoleKeys::of(&[key(root)], 1),
        timestamp: RoleKeys::of(&[key(root)], 1),
    };
    let signers: Vec<_> = signers.iter().map(|number| key(*number)).collect();
    root_json::sign(&spec, version, signers.iter()).unwrap()
}

fn verdict(image_root: &Path, state: &Path, release_key: u8) -> Result<(), String> {
    let trust = trust::load(image_root, &updater::files::State::on_disk(state))
        .map_err(|error| format!("root: {error}"))?;
    let mut forge = Forge::honest(&noise(1, 100), "1.1.0");
    forge.signers = vec![release_key];
    let bytes = forge.bytes();
    let (_, head) = bank_format::bundle::HeadReader::default().feed(&bytes).unwrap();
    head.unwrap().verify(&trust).map(|_| ()).map_err(|error| format!("bundle: {error}"))
}

#[test]
fn a_revoked_release_key_is_revoked_for_good() {
    let dir = tempfile::tempdir().unwrap();
    let (image_root, state) = (dir.path().join("root.json"), dir.path().join("state"));
    std::fs::create_dir_all(state.join("trust")).unwrap();
    std::fs::write(&image_root, root(1, 50, 1, &[50])).unwrap();
    verdict(&image_root, &state, 1).unwrap();
    assert!(verdict(&image_root, &state, 2).unwrap_err().starts_with("bundle"));

    // Version 2 replaces the release key and the root key; version 3 is signed by 2 and 3.
    std::fs::write(state.join("trust/2.root.json"), root(2, 51, 2, &[50, 51])).unwrap();
    verdict(&image_root, &state, 2).unwrap();
    assert!(verdict(&image_root, &state, 1).unwrap_err().starts_with("bundle"), "the old key is revoked");
    std::fs::write(state.join("trust/3.root.json"), root(3, 51, 3, &[51])).unwrap();
    verdict(&image_root, &state, 3).unwrap();

    // An image that brings root 3 itself needs no files, and is not disturbed by old ones.
    std::fs::write(&image_root, root(3, 51, 3, &[51])).unwrap();
    verdict(&image_root, &state, 3).unwrap();
}

#[test]
fn roots_outside_the_chain_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (image_root, state) = (dir.path().join("root.json"), dir.path().join("state"));
    std::fs::create_dir_all(state.join("trust")).unwrap();
    std::fs::write(&image_root, root(1, 50, 1, &[50])).unwrap();
    let cases = [
        ("not signed by the old root", root(2, 51, 9, &[51])),
        ("not signed by itself", root(2, 51, 9, &[50])),
        ("a version too far", root(3, 50, 9, &[50])),
        ("the same version again", root(1, 50, 9, &[50])),
        ("not signed at all", root(2, 50, 9, &[])),
        ("torn", root(2, 50, 9, &[50])[..200].to_vec()),
        ("empty", Vec::new()),
    ];
    for (name, bytes) in cases {
        std::fs::write(state.join("trust/2.root.json"), bytes).unwrap();
        for release_key in [1, 9] {
            let refusal = verdict(&image_root, &state, release_key).expect_err(name);
            assert!(refusal.starts_with("root"), "{name}: {refusal}");
        }
    }
}
