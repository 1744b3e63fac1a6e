//! What the tests share that follow a page of the documentation.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a suite says what failed by panicking")]

use std::{path::Path, process::Command};

/// Runs commands in a folder; gives what they say.
pub fn run(folder: &Path, commands: &str) -> String {
    let output = Command::new("bash")
        .args(["-euo", "pipefail", "-c", commands])
        .current_dir(folder)
        .env("PATH", format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default()))
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "a missing program comes with `qemu-testbed setup`: {errors}\n{commands}"
    );
    String::from_utf8(output.stdout).unwrap()
}

/// The first block of this kind on a page.
pub fn block(page: &str, kind: &str) -> String {
    let (_, rest) = page.split_once(&format!("```{kind}\n")).unwrap_or_else(|| panic!("no block {kind}"));
    rest.split_once("```").unwrap().0.to_owned()
}
