//! Keys there and back again, and who may read them.

use std::{os::unix::fs::symlink, process::Command};

use super::*;
use crate::{
    error::Kind,
    progress::Silent,
    root_json::{RoleKeys, RootSpec},
};

const NOW: u64 = 1_700_000_000;

/// Release keys from fixed seeds, with a trust root that will not expire in our time.
pub(crate) fn release_keys(count: u8, threshold: usize) -> ReleaseKeys {
    let root = [PrivateKey::from_seed(&[1; 32])];
    let release: Vec<_> =
        (0..count).map(|number| PrivateKey::from_seed(&[10 * count + number; 32])).collect();
    let spec = RootSpec {
        expires_unix_seconds: 4_000_000_000,
        root: RoleKeys::of(&root, 1),
        targets: RoleKeys::of(&release, threshold),
        snapshot: RoleKeys::of(&root, 1),
        timestamp: RoleKeys::of(&root, 1),
    };
    let root_json = root_json::first(&spec, &root).unwrap();
    ReleaseKeys::new(release, root_json).unwrap()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// `ReleaseKeys` has no `Debug`, as it holds secrets: so no `unwrap_err`.
fn refusal<T>(result: Result<T>) -> Error {
    match result {
        Ok(_) => panic!("it was accepted"),
        Err(error) => error,
    }
}

#[test]
fn two_of_three_keys_with_a_passphrase_round_trip() {
    let dir = tempfile::tempdir().unwrap();
    let passphrase = || Passphrase::from_bytes(b"correct horse");
    let options = KeygenOptions {
        release_keys: 3,
        release_threshold: 2,
        root_keys: 2,
        root_threshold: 2,
        passphrase: Some(passphrase()),
        ..KeygenOptions::new(dir.path().join("new/keys"), NOW)
    };
    let made = generate(&options).unwrap();
    assert_eq!(made.private.len(), 6);
    assert_eq!(made.root.expires(), "2033-11-11T22:13:20Z");
    assert_eq!(made.root.role(Role::Targets).1, 2);
    assert_eq!(mode(&options.dir), 0o700);
    for path in &made.private {
        assert_eq!(mode(path), 0o600);
        let pem = fs::read_to_string(path).unwrap();
        assert!(pem.starts_with("-----BEGIN ENCRYPTED PRIVATE KEY-----\n"));
    }
    let keys = ReleaseKeys::load(&options.dir, Some(&passphrase()), &Silent).unwrap();
    assert_eq!(keys.count(), 3);
    fs::remove_file(options.dir.join("release-2.pem")).unwrap();
    assert_eq!(ReleaseKeys::load(&options.dir, Some(&passphrase()), &Silent).unwrap().count(), 2);

    let none = refusal(ReleaseKeys::load(&options.dir, None, &Silent));
    assert!(none.hint().unwrap().contains("--passphrase-file"));
    let wrong = Passphrase::from_bytes(b"wrong horse");
    let wrong = refusal(ReleaseKeys::load(&options.dir, Some(&wrong), &Silent));
    assert!(wrong.to_string().contains("does not fit"), "{wrong}");

    fs::remove_file(options.dir.join("release-1.pem")).unwrap();
    let few = refusal(ReleaseKeys::load(&options.dir, Some(&passphrase()), &Silent));
    assert!(few.to_string().contains("1 of its release keys are here, 2 must sign"), "{few}");
}

#[test]
fn openssl_reads_the_keys() {
    if Command::new("openssl").arg("version").output().is_err() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("key.pem");
    let key = PrivateKey::from_seed(&[5; 32]);
    let passphrase = Passphrase::from_bytes(b"secret");
    for passphrase in [None, Some(&passphrase)] {
        fs::write(&path, key.to_pem(passphrase).unwrap().as_bytes()).unwrap();
        let output = Command::new("openssl")
            .args(["pkey", "-pubout", "-outform", "DER", "-passin", "pass:secret", "-in"])
            .arg(&path)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(output.stdout.ends_with(&key.public()));
    }
    let made = Command::new("openssl").args(["genpkey", "-algorithm", "ed25519"]).output().unwrap();
    let pem = String::from_utf8(made.stdout).unwrap();
    assert!(PrivateKey::from_pem(&path, &pem, None).is_ok());
}

#[test]
fn existing_files_are_never_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    let options = KeygenOptions::new(dir.path(), NOW);
    symlink("/nowhere", dir.path().join("timestamp-1.pem")).unwrap();
    let error = refusal(generate(&options));
    assert_eq!(error.kind(), Kind::Usage);
    assert!(!dir.path().join("root-1.pem").exists());
    fs::remove_file(dir.path().join("timestamp-1.pem")).unwrap();
    generate(&options).unwrap();
    let before = fs::read(dir.path().join("release-1.pem")).unwrap();
    assert_eq!(refusal(generate(&options)).kind(), Kind::Usage);
    assert_eq!(fs::read(dir.path().join("release-1.pem")).unwrap(), before);
}

#[test]
fn keys_that_others_may_read_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    generate(&KeygenOptions::new(dir.path(), NOW)).unwrap();
    let path = dir.path().join("release-1.pem");
    for mode in [0o640, 0o604, 0o666] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let error = refusal(ReleaseKeys::load(dir.path(), None, &Silent));
        assert!(error.hint().unwrap().starts_with("run: chmod 600 "), "{mode:o}");
    }
    fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).unwrap();
    assert!(ReleaseKeys::load(dir.path(), None, &Silent).is_ok());
}

#[test]
fn what_is_no_directory_of_keys_says_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let load = |path: &Path| refusal(ReleaseKeys::load(path, None, &Silent));
    assert!(load(&dir.path().join("no")).hint().unwrap().contains("image-tool keygen"));
    assert!(load(dir.path()).to_string().contains("no root.json"));
    generate(&KeygenOptions::new(dir.path(), NOW)).unwrap();
    let key = dir.path().join("release-1.pem");
    let write = |pem: &str| {
        fs::write(&key, pem).unwrap();
        load(dir.path()).to_string()
    };
    assert!(write("hello").contains("no PEM"));
    let certificate = "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n";
    assert!(write(certificate).contains("CERTIFICATE"));
    assert!(write("-----BEGIN PRIVATE KEY-----\nMAA=\n-----END PRIVATE KEY-----\n").contains("PKCS#8"));
    fs::remove_file(&key).unwrap();
    assert!(load(dir.path()).to_string().contains("no release-*.pem"));
    fs::write(dir.path().join("root.json"), "{}").unwrap();
    assert_eq!(load(dir.path()).kind(), Kind::Rejected);
}

#[test]
fn thresholds_and_counts_that_cannot_be_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let base = || KeygenOptions::new(dir.path().join("keys"), NOW);
    for options in [
        KeygenOptions { release_keys: 0, ..base() },
        KeygenOptions { release_threshold: 0, ..base() },
        KeygenOptions { release_threshold: 2, ..base() },
        KeygenOptions { root_keys: 17, ..base() },
        KeygenOptions { root_keys: 2, root_threshold: 3, ..base() },
        KeygenOptions { now_unix_seconds: u64::MAX, ..base() },
        KeygenOptions { now_unix_seconds: 1 << 50, ..base() },
    ] {
        assert_eq!(refusal(generate(&options)).kind(), Kind::Usage);
        assert!(!options.dir.exists());
    }
}

#[test]
fn rotation_is_signed_by_both_roots() {
    let dir = tempfile::tempdir().unwrap();
    let old = dir.path().join("1");
    let first = generate(&KeygenOptions::new(&old, NOW)).unwrap();
    let options =
        KeygenOptions { rotate: Some((old, None)), ..KeygenOptions::new(dir.path().join("2"), NOW) };
    let second = generate(&options).unwrap();
    assert_eq!(second.root.version(), 2);
    let bytes = fs::read(&second.root_json).unwrap();
    let rotated = first.root.rotate(&bytes).unwrap();
    assert_eq!(rotated.role(Role::Targets), second.root.role(Role::Targets));
    assert_ne!(rotated.role(Role::Targets), first.root.role(Role::Targets));
}
