//! `updater audit --passive`: the passive bank on files, sound and rotten.

use std::path::Path;

use crate::{
    install::updater,
    support::{bundle, content, device_directory, write},
};
use bank_format::manifest::Tree;
use serde_json::{Value, json};

const BYTES: usize = DATA_BLOCKS * 4096;
/// Blocks of data; behind them the top block of the tree, then two leaves.
const DATA_BLOCKS: usize = 147;

/// A device whose passive bank B holds one image.
fn device(tree: Tree) -> tempfile::TempDir {
    let dir = device_directory();
    let file = write(dir.path(), "1.roro", &bundle("1.0.0", &[("root", &content(BYTES, 1), tree)]));
    assert_eq!(updater(dir.path(), &["install", file.to_str().unwrap()]).code, 0);
    dir
}

fn flip(dir: &Path, byte: usize) {
    let path = dir.join("b.img");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[byte] ^= 1;
    std::fs::write(&path, bytes).unwrap();
}

fn audited(dir: &Path) -> (i32, Value) {
    let done = updater(dir, &["audit", "--passive"]);
    assert_eq!(done.errors, "");
    (done.code, done.last)
}

#[test]
fn a_sound_bank_is_as_installed_and_nothing_is_changed() {
    for tree in [Tree::Appended, Tree::None] {
        let dir = device(tree);
        let record = std::fs::read(dir.path().join("record.bin")).unwrap();
        let (code, found) = audited(dir.path());
        assert_eq!(
            (code, found),
            (
                0,
                json!({
                    "result": "as-installed", "bank": "b", "release": {"name": "demo", "version": "1.0.0"},
                    "state": "written", "images": [{"image": "root", "result": "as-installed"}],
                })
            )
        );
        assert_eq!(std::fs::read(dir.path().join("record.bin")).unwrap(), record);
    }
}

#[test]
fn one_flipped_bit_anywhere_is_found_where_it_is() {
    let dir = device(Tree::Appended);
    let end = std::fs::metadata(dir.path().join("b.img")).unwrap().len() as usize;
    assert_eq!(end, (DATA_BLOCKS + 3) * 4096);
    for (byte, block) in [
        (0, 0),
        (4095, 0),
        (300_000, 73),
        (BYTES - 1, 146),
        (DATA_BLOCKS * 4096, 147),
        ((DATA_BLOCKS + 1) * 4096 + 77, 148),
        ((DATA_BLOCKS + 2) * 4096, 149),
    ] {
        flip(dir.path(), byte);
        let (code, found) = audited(dir.path());
        assert_eq!((code, &found["result"]), (4, &json!("differs")), "byte {byte}");
        assert_eq!(found["images"][0]["block"], json!(block), "byte {byte}: {found}");
        flip(dir.path(), byte);
    }
    assert_eq!(audited(dir.path()).0, 0, "all is as it was");
}

#[test]
fn without_a_tree_the_place_is_not_known_but_the_rot_is() {
    let dir = device(Tree::None);
    flip(dir.path(), 300_000);
    let (code, found) = audited(dir.path());
    assert_eq!((code, &found["images"][0]["block"]), (4, &Value::Null));
    let image = std::fs::OpenOptions::new().write(true).open(dir.path().join("b.img")).unwrap();
    image.set_len(8192).unwrap();
    let (code, found) = audited(dir.path());
    assert_eq!((code, &found["images"][0]["block"]), (4, &json!(2)));
    std::fs::remove_file(dir.path().join("b.img")).unwrap();
    assert_eq!(audited(dir.path()).1["images"][0]["detail"], "it is not there");
}

#[test]
fn where_nothing_is_installed_there_is_nothing_to_audit() {
    let dir = device_directory();
    let (code, found) = audited(dir.path());
    assert_eq!((code, &found["result"], &found["bank"]), (3, &json!("nothing-installed"), &json!("b")));
    let mut broken = bundle("1.0.0", &[("root", &content(50_000, 5), Tree::None)]);
    let last = broken.len() - 10;
    broken[last] ^= 0x20;
    let path = write(dir.path(), "x.roro", &broken);
    assert_eq!(updater(dir.path(), &["install", path.to_str().unwrap()]).code, 4);
    let (code, found) = audited(dir.path());
    assert_eq!((code, &found["state"]), (3, &json!("writing")));
    assert_eq!(updater(dir.path(), &["audit"]).code, 2, "it must be said what is audited");
}
