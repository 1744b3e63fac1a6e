//! The worked examples in docs/bundle-format.md are the golden files.

use super::{BUNDLE, DELTA_TABLE, PATCH, PATCH_LZ4, TAIL, head};

const DOCUMENT: &str = include_str!("../../../docs/bundle-format.md");

/// What stands under this heading, up to the next one.
fn under(heading: &str) -> &'static str {
    let line = format!("\n{heading}\n");
    assert!(DOCUMENT.contains(&line), "{heading} is not there");
    let (_, rest) = DOCUMENT.split_once(&line).unwrap();
    rest.split("\n#").next().unwrap()
}

/// Lines `OFFSET  HEX  meaning`, as (offset, bytes).
fn hex_lines(text: &str) -> Vec<(usize, Vec<u8>)> {
    let mut lines = Vec::new();
    for line in text.lines().filter(|line| line.starts_with("    ")) {
        // Two blanks end the offset, and the bytes: a meaning may begin with a number.
        let mut columns = line.trim_start().split("  ");
        let Some(offset) = columns.next().filter(|word| word.len() == 4) else { continue };
        let Ok(offset) = usize::from_str_radix(offset, 16) else { continue };
        let bytes: Vec<u8> = columns
            .next()
            .unwrap_or_default()
            .split(' ')
            .filter_map(|word| u8::from_str_radix(word, 16).ok())
            .collect();
        if !bytes.is_empty() {
            lines.push((offset, bytes));
        }
    }
    lines
}

/// Compares what is shown with the file; says which bytes are shown.
fn shown(heading: &str, file: &[u8]) -> Vec<bool> {
    let mut shown = vec![false; file.len()];
    for (offset, bytes) in hex_lines(under(heading)) {
        assert_eq!(file.get(offset..offset + bytes.len()), Some(&bytes[..]), "{heading}, line {offset:04x}");
        shown[offset..offset + bytes.len()].fill(true);
    }
    shown
}

#[test]
fn the_other_examples_are_the_golden_files() {
    for (heading, file) in [
        ("### A delta", DELTA_TABLE),
        ("### A plain patch", PATCH),
        ("### An LZ4 patch", PATCH_LZ4),
        ("### A tail", TAIL),
    ] {
        let shown = shown(heading, file);
        assert_eq!(shown.iter().position(|shown| !shown), None, "{heading}: a byte is not in the document");
        assert!(under(heading).contains(&format!("{} bytes", file.len())), "{heading}");
    }
}

#[test]
fn the_worked_example_is_the_golden_bundle() {
    let shown = shown("## A worked example", BUNDLE);
    let header = *head(BUNDLE).unwrap().header();
    let whole = [0..128, header.signatures.offset as usize..header.documents.offset as usize];
    for range in whole {
        for at in range {
            assert!(shown[at], "byte {at:04x} is not in the document");
        }
    }
    let manifest = std::str::from_utf8(head(BUNDLE).unwrap().manifest_bytes()).unwrap().to_owned();
    let mut rest = DOCUMENT;
    for line in manifest.lines().filter(|line| !line.is_empty()) {
        let at =
            rest.find(line).unwrap_or_else(|| panic!("line of the manifest is not in the document: {line}"));
        rest = &rest[at + line.len()..];
    }
}
