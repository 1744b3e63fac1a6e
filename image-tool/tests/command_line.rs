//! The command line as a person meets it: exit codes, hints, and outputs that scripts read.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

fn image_tool(dir: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_image-tool"))
        .args(arguments)
        .current_dir(dir)
        .env("SOURCE_DATE_EPOCH", "1700000000")
        .env("XDG_CACHE_HOME", dir.join("cache"))
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[track_caller]
fn done(dir: &Path, arguments: &[&str]) -> String {
    let output = image_tool(dir, arguments);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    text(&output.stdout)
}

#[track_caller]
fn refused(dir: &Path, arguments: &[&str], code: i32, expected: &[&str]) {
    let output = image_tool(dir, arguments);
    let words = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{words}");
    assert!(output.stdout.is_empty());
    for part in expected {
        assert!(words.contains(part), "{part:?} is not in: {words}");
    }
}

const BUNDLE: [&str; 9] =
    ["bundle", "--name", "demo", "--compatible", "test,any", "--image", "root=disk.img", "--keys", "keys"];

fn bundle<'a>(more: &[&'a str]) -> Vec<&'a str> {
    BUNDLE.iter().copied().chain(more.iter().copied()).collect()
}

#[test]
fn keys_bundle_inspect_verify() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    fs::write(dir.join("disk.img"), [vec![1; 70_000], vec![0; 200_000]].concat()).unwrap();
    let made = done(dir, &["keygen", "keys"]);
    assert_eq!(made, "keys/root-1.pem\nkeys/release-1.pem\nkeys/timestamp-1.pem\nkeys/root.json\n");
    let arguments = bundle(&["--version", "1.0.0", "--document", "notes=disk.img", "--out", "x.roro"]);
    assert_eq!(done(dir, &arguments), "x.roro\n");
    let first = fs::read(dir.join("x.roro")).unwrap();
    done(dir, &arguments);
    assert!(fs::read(dir.join("x.roro")).unwrap() == first, "the same inputs give the same bundle");

    let shown = done(dir, &["inspect", "x.roro"]);
    assert!(shown.contains("demo 1.0.0") && shown.contains("NOT CHECKED"), "{shown}");
    let shown = done(dir, &["inspect", "x.roro", "--root", "keys/root.json"]);
    assert!(shown.contains("good: 1 by release keys, 1 needed"), "{shown}");
    let json: serde_json::Value = serde_json::from_str(&done(dir, &["inspect", "--json", "x.roro"])).unwrap();
    assert_eq!(json["release"]["version"], "1.0.0");
    assert_eq!(json["signatures"]["checked"], false);
    assert_eq!(json["created_unix_seconds"], 1_700_000_000);
    assert_eq!(json["images"][0]["bytes"], 270_000);
    assert_eq!(
        done(dir, &["verify", "x.roro", "--root", "keys/root.json"]),
        "good: demo 1.0.0 for test,any\n"
    );

    done(dir, &["keygen", "others"]);
    refused(dir, &["verify", "x.roro", "--root", "others/root.json"], 4, &["0 valid signatures", "hint: "]);
    refused(dir, &["inspect", "x.roro", "--root", "others/root.json"], 4, &["0 valid signatures"]);
    let mut damaged = first;
    *damaged.last_mut().unwrap() ^= 1;
    fs::write(dir.join("x.roro"), &damaged).unwrap();
    refused(dir, &["verify", "x.roro", "--root", "keys/root.json"], 4, &["hint: the file is damaged"]);
    damaged.truncate(damaged.len() - 1);
    fs::write(dir.join("x.roro"), &damaged).unwrap();
    refused(dir, &["verify", "x.roro", "--root", "keys/root.json"], 4, &["1 bytes are missing"]);
}

#[test]
fn a_release_with_a_delta_is_made_checked_and_made_again_out_of_the_cache() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    done(dir, &["keygen", "keys"]);
    let mut image: Vec<u8> = (0..200_000u32).flat_map(|number| (number / 3 * 7).to_le_bytes()).collect();
    fs::write(dir.join("disk.img"), &image).unwrap();
    done(dir, &bundle(&["--version", "1.0.0", "--out", "old.roro"]));
    image[300_000] ^= 1;
    image.splice(500_000..500_000, *b"inserted");
    fs::write(dir.join("disk.img"), &image).unwrap();
    let arguments = bundle(&["--version", "1.1.0", "--from", "old.roro", "--out", "new.roro"]);
    let output = image_tool(dir, &arguments);
    let words = text(&output.stderr);
    assert!(words.contains("from 1.0.0"), "{words}");
    let first = fs::read(dir.join("new.roro")).unwrap();
    assert!(dir.join("cache/roro/packed").is_dir());
    done(dir, &arguments);
    assert!(fs::read(dir.join("new.roro")).unwrap() == first, "out of the cache");
    done(dir, &[&arguments[..], &["--no-cache"]].concat());
    assert!(fs::read(dir.join("new.roro")).unwrap() == first, "without the cache");
    // A directory means what is older in it.
    let of_directory = bundle(&["--version", "1.1.0", "--from", ".", "--deltas", "2", "--out", "new.roro"]);
    done(dir, &of_directory);
    assert!(fs::read(dir.join("new.roro")).unwrap() == first, "out of a directory");

    let verify = ["verify", "new.roro", "--root", "keys/root.json", "--from"];
    assert_eq!(done(dir, &[&verify[..], &["old.roro"]].concat()), "good: demo 1.1.0 for test,any\n");
    refused(dir, &[&verify[..], &["new.roro"]].concat(), 2, &["has no delta from new.roro", "hint: "]);
    let shown = done(dir, &["inspect", "new.roro"]);
    assert!(shown.contains("1.0.0"), "{shown}");
}

#[test]
fn bad_input_says_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    fs::write(dir.join("disk.img"), "x").unwrap();
    fs::write(dir.join("empty.img"), "").unwrap();
    let version = ["--version", "1.0.0", "--out", "x.roro"];
    let good = bundle(&version);
    refused(dir, &good, 2, &["no such directory", "image-tool keygen"]);
    done(dir, &["keygen", "keys"]);
    refused(dir, &["keygen", "keys"], 2, &["never overwritten", "hint: "]);
    refused(dir, &bundle(&["--version", "1.0", "--out", "x.roro"]), 2, &["semantic version"]);
    refused(dir, &[&good[..], &["--image", "boot"]].concat(), 2, &["expected NAME=FILE"]);
    refused(dir, &[&good[..], &["--image", "../a=disk.img"]].concat(), 2, &["a name has"]);
    refused(dir, &[&good[..], &["--image", "boot=empty.img"]].concat(), 2, &["is empty"]);
    refused(dir, &[&good[..], &["--image", "boot=no.img"]].concat(), 5, &["no.img"]);
    refused(dir, &[&good[..], &["--image", "root=disk.img"]].concat(), 4, &["twice"]);
    refused(dir, &[&good[..], &["--floor", "2.0.0"]].concat(), 2, &["--floor is above"]);
    refused(dir, &[&good[..], &["--level", "99"]].concat(), 2, &["1 to 22"]);
    refused(dir, &[&good[..], &["--surprise"]].concat(), 2, &["--surprise"]);
    refused(dir, &["verify", "disk.img", "--root", "keys/root.json"], 4, &["cut short"]);
    fs::write(dir.join("disk.img"), [b'x'; 500]).unwrap();
    refused(dir, &["inspect", "disk.img"], 4, &["not a Roro bundle", "hint: "]);
    refused(dir, &["inspect", "no.roro"], 5, &["no.roro"]);
    fs::write(dir.join("words"), "\n").unwrap();
    refused(dir, &[&good[..], &["--passphrase-file", "words"]].concat(), 2, &["empty line"]);
    fs::write(dir.join("words"), "words\n").unwrap();
    done(
        dir,
        &[
            "keygen",
            "locked",
            "--passphrase-file",
            "words",
            "--release-keys",
            "3",
            "--release-threshold",
            "2",
        ],
    );
    let locked: Vec<&str> = good.iter().map(|word| if *word == "keys" { "locked" } else { word }).collect();
    refused(dir, &locked, 2, &["encrypted", "--passphrase-file"]);
    done(dir, &[&locked[..], &["--passphrase-file", "words"]].concat());
    done(dir, &["verify", "x.roro", "--root", "locked/root.json"]);
    fs::write(dir.join("words"), "wrong\n").unwrap();
    refused(dir, &[&locked[..], &["--passphrase-file", "words"]].concat(), 2, &["does not fit"]);
}
