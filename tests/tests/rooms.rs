//! The borders between the rooms: `cargo metadata` must show the edges of docs/architecture.md and no other.

#![expect(clippy::expect_used, reason = "a suite that cannot set its stage has failed")]

use std::{collections::BTreeSet, process::Command};

const ALLOWED: [(&str, &[&str]); 6] = [
    ("bank-format", &[]),
    ("image-tool", &["bank-format"]),
    ("updater", &["bank-format"]),
    ("boot-hooks", &["bank-format"]),
    ("tests", &["bank-format", "image-tool", "updater", "boot-hooks"]),
    ("qemu-testbed", &["bank-format", "image-tool", "boot-hooks"]),
];

/// Crates that a room must never name, whatever for.
const NEVER: [(&str, &[&str]); 3] = [
    ("bank-format", &["nix", "libc", "reqwest", "tempfile", "rand", "tokio"]),
    ("boot-hooks", &["toml", "reqwest", "tokio"]),
    ("updater", &["pkcs8"]),
];

fn dependencies() -> Vec<(String, Vec<String>)> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .output()
        .expect("cargo metadata runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).expect("metadata is JSON");
    let text = |value: &serde_json::Value| value.as_str().expect("a name").to_owned();
    metadata["packages"]
        .as_array()
        .expect("packages")
        .iter()
        .map(|package| {
            let names = package["dependencies"].as_array().expect("dependencies").iter();
            (text(&package["name"]), names.map(|dependency| text(&dependency["name"])).collect())
        })
        .collect()
}

#[test]
fn no_room_depends_on_a_room_that_it_may_not_know() {
    let packages = dependencies();
    let rooms: BTreeSet<&str> = ALLOWED.iter().map(|(room, _)| *room).collect();
    let found: BTreeSet<&str> = packages.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(found, rooms, "a new room needs a line in docs/architecture.md and here");
    for (room, allowed) in ALLOWED {
        let (_, names) = packages.iter().find(|(name, _)| name == room).expect("the room is there");
        for name in names.iter().filter(|name| rooms.contains(name.as_str())) {
            assert!(allowed.contains(&name.as_str()), "{room} must not depend on {name}");
        }
    }
}

#[test]
fn no_room_uses_what_it_must_never_know() {
    let packages = dependencies();
    for (room, never) in NEVER {
        let (_, names) = packages.iter().find(|(name, _)| name == room).expect("the room is there");
        for name in names {
            assert!(!never.contains(&name.as_str()), "{room} must never use {name}");
        }
    }
}
