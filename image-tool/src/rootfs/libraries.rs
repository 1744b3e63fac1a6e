//! A look over the finished root: does every program find the libraries that it names?
//!
//! Leaving packages out is the appliance's right, and a mistake there shows only when a program starts on the device. Plug-ins may
//! name libraries that nobody loads, so this is told, not refused.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    elf,
    error::Result,
    limits::MAX_UKI_PART_BYTES,
    tree::{Kind, Tree},
};

const PROGRAMS: [&str; 3] = ["usr/bin", "usr/sbin", "usr/lib"];

/// One line for each library that is named but not there.
pub fn missing(tree: &Tree) -> Result<Vec<String>> {
    let there: BTreeSet<&str> =
        tree.iter().map(|(path, _)| path.rsplit_once('/').map_or(path, |(_, name)| name)).collect();
    let mut absent: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (path, entry) in PROGRAMS.iter().flat_map(|directory| tree.below(directory)) {
        let Kind::File(content) = &entry.kind else { continue };
        let library = path.contains(".so");
        if path.ends_with(".ko") || !(library || entry.mode & 0o111 != 0) {
            continue;
        }
        let bytes = content.read(MAX_UKI_PART_BYTES)?;
        for name in elf::needed_libraries(&bytes) {
            if !there.contains(name.as_str()) {
                absent.entry(name).or_default().push(path.to_owned());
            }
        }
    }
    let told = absent.into_iter().map(|(name, paths)| {
        let example = paths.first().map(String::as_str).unwrap_or_default();
        format!("library {name} is missing: {} files name it, such as {example}", paths.len())
    });
    Ok(told.collect())
}
