//! The seeds of the fuzz targets, through the same bodies as in the fuzzer; and the fuzzer's own files, which nothing else compiles.

#![expect(clippy::unwrap_used, reason = "a suite that cannot set its stage has failed")]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use tests::fuzz::{TARGETS, Verdict, play};

/// Bytes of one seed: what a fuzzer changes byte by byte must be small.
const MAX_SEED_BYTES: u64 = 8 << 10;
/// Bytes of all seeds: they are in every checkout.
const MAX_SEEDS_BYTES: u64 = 400 << 10;

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz")
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

#[test]
fn every_seed_keeps_the_promises_and_every_target_accepts_one() {
    for (target, _) in TARGETS {
        let mut accepted = 0;
        for seed in files(&fuzz().join("seeds").join(target)) {
            let bytes = fs::read(&seed).unwrap();
            // The name stands in the output where a body panics.
            println!("{}", seed.display());
            match play(target, &bytes) {
                Verdict::Accepted => accepted += 1,
                Verdict::Refused => (),
            }
        }
        assert!(accepted > 0, "no seed of {target} goes further than to its first check");
    }
}

#[test]
fn seeds_are_small() {
    let mut total = 0;
    for (target, _) in TARGETS {
        for seed in files(&fuzz().join("seeds").join(target)) {
            let bytes = fs::metadata(&seed).unwrap().len();
            assert!(bytes <= MAX_SEED_BYTES, "{} has {bytes} bytes", seed.display());
            total += bytes;
        }
    }
    assert!(total <= MAX_SEEDS_BYTES, "{total} bytes of seeds");
}

#[test]
fn the_fuzzer_has_every_target_and_no_other() {
    let targets: BTreeSet<String> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    let names = |folder: &str| -> BTreeSet<String> {
        let stem = |file: &PathBuf| file.file_stem().unwrap().to_str().unwrap().to_owned();
        files(&fuzz().join(folder)).iter().map(stem).collect()
    };
    assert_eq!(names("fuzz_targets"), targets);
    assert_eq!(names("seeds"), targets);
    let manifest = fs::read_to_string(fuzz().join("Cargo.toml")).unwrap();
    for (target, _) in TARGETS {
        let bin = format!("name = \"{target}\"\npath = \"fuzz_targets/{target}.rs\"\n");
        assert!(manifest.contains(&bin), "fuzz/Cargo.toml has no {target}");
        let wrapper = fs::read_to_string(fuzz().join(format!("fuzz_targets/{target}.rs"))).unwrap();
        assert!(
            wrapper.contains(&format!("fuzz::play(\"{target}\", bytes);")),
            "{target} plays another body"
        );
    }
    assert_eq!(manifest.matches("[[bin]]").count(), TARGETS.len());
}
