//! The worked example in docs/bundle-format.md is the golden bundle.

use super::{BUNDLE, head};

const DOCUMENT: &str = include_str!("../../../docs/bundle-format.md");

/// Lines `OFFSET  HEX  meaning` of the fenced blocks, as (offset, bytes).
fn hex_lines() -> Vec<(usize, Vec<u8>)> {
    let mut lines = Vec::new();
    for line in DOCUMENT.lines() {
        let mut words = line.split_whitespace();
        let Some(offset) = words.next().filter(|word| word.len() == 4) else { continue };
        let Ok(offset) = usize::from_str_radix(offset, 16) else { continue };
        let bytes: Vec<u8> = words
            .take_while(|word| word.len() == 2 && word.bytes().all(|b| b.is_ascii_hexdigit()))
            .filter_map(|word| u8::from_str_radix(word, 16).ok())
            .collect();
        if !bytes.is_empty() {
            lines.push((offset, bytes));
        }
    }
    lines
}

#[test]
fn the_worked_example_is_the_golden_bundle() {
    let lines = hex_lines();
    let mut shown = vec![false; BUNDLE.len()];
    for (offset, bytes) in &lines {
        assert_eq!(&BUNDLE[*offset..offset + bytes.len()], bytes, "line {offset:04x}");
        shown[*offset..offset + bytes.len()].fill(true);
    }
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
