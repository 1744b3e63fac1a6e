//! Every byte of a bundle, flipped one at a time, by every way in: refused with exit code 4 or 5, or provably without effect.
//! The passive bank is never armed with anything but the signed image, and the active bank is never touched.

#![expect(clippy::unwrap_used, reason = "a suite that cannot set its stage has failed")]

use std::rc::Rc;

use bank_format::{Bank, Release, header::HEADER_BYTES, release::Version};
use tests::{
    forge::{self, Forge, Row, Table, noise},
    simulated::{Machine, MemoryServer, Serving},
};
use updater::config::Network;

const ACTIVE: &[u8] = b"the running system";
const PASSIVE: &[u8] = b"what lay in the passive bank before";

fn running() -> Release {
    Release { name: "demo".into(), version: Version::new(1, 0, 0) }
}

/// A bundle of a few kilobytes with all that a chunk table can hold: a zstd frame with two chunks, a stored frame, zeros, a repeat.
fn small_bundle() -> (Forge, Vec<u8>) {
    let text = b"all work and no play makes a dull update ".repeat(20);
    let (left, right) = text.split_at(500);
    let stored = noise(7, 300);
    let zeros = vec![0; 600];
    let image = [left, right, &stored, &zeros, left].concat();
    let packed = image_tool::codec::compress(text.clone(), 19).unwrap();
    assert!(packed.len() < text.len());
    let table = Table {
        image_bytes: image.len() as u64,
        frames: vec![(2, packed.len() as u64), (1, stored.len() as u64)],
        rows: vec![Row::of(left), Row::of(right), Row::of(&stored), Row::Zeros(600), Row::Repeat(0)],
    };
    let forge = Forge::with_table(&image, "1.1.0", &table, [packed, stored].concat());
    (forge, image)
}

/// Installs these bytes on a fresh machine, and judges what is left.
fn judge(bytes: Vec<u8>, serving: Serving, root: &[u8], image: &[u8], why: &dyn Fn() -> String) -> Outcome {
    let machine = Machine::new(running(), ACTIVE, PASSIVE);
    let server = Rc::new(MemoryServer { file: bytes, serving });
    let network = Network { retries: 1, ..Network::default() };
    let result = machine.install(server, root, network, "http://memory/x.roro");
    assert_eq!(machine.root(Bank::A), ACTIVE, "{}: the active bank was touched", why());
    match result {
        Ok(_) => {
            assert_eq!(machine.armed.get(), Some(Bank::B), "{}", why());
            assert!(machine.root(Bank::B) == image, "{}: armed with something else than the image", why());
            Outcome::WithoutEffect
        }
        Err(error) => {
            let code = error.kind().exit_code();
            assert!(matches!(code, 4 | 5), "{}: exit {code}: {error}", why());
            assert_eq!(machine.armed.get(), None, "{}: armed after {error}", why());
            if machine.writes.get() == 0 {
                assert_eq!(machine.root(Bank::B), PASSIVE, "{}", why());
                Outcome::RefusedBeforeTheFirstWrite
            } else {
                Outcome::RefusedWhileWriting
            }
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    RefusedBeforeTheFirstWrite,
    RefusedWhileWriting,
    WithoutEffect,
}

#[test]
fn every_flipped_byte_is_refused() {
    let (forge, image) = small_bundle();
    let good = forge.bytes();
    let frames_start = good.len() - forge.frames[0].len();
    let root = forge::root(1, 1);
    for serving in [Serving::Ranges, Serving::Whole] {
        assert_eq!(
            judge(good.clone(), serving, &root, &image, &|| "untouched".into()),
            Outcome::WithoutEffect
        );
        for at in 0..good.len() {
            for mask in [0x01, 0x80, 0xff] {
                let mut bad = good.clone();
                bad[at] ^= mask;
                let outcome =
                    judge(bad, serving, &root, &image, &|| format!("byte {at} ^ {mask:#x}, {serving:?}"));
                if at < frames_start {
                    assert_eq!(outcome, Outcome::RefusedBeforeTheFirstWrite, "byte {at}, {serving:?}");
                }
            }
        }
    }
}

#[test]
fn truncated_and_grown_bundles_are_refused() {
    let (forge, image) = small_bundle();
    let good = forge.bytes();
    let root = forge::root(1, 1);
    for serving in [Serving::Ranges, Serving::Whole] {
        for length in (0..good.len()).step_by(7).chain([HEADER_BYTES - 1, HEADER_BYTES, good.len() - 1]) {
            let outcome =
                judge(good[..length].to_vec(), serving, &root, &image, &|| format!("cut at {length}"));
            assert_ne!(outcome, Outcome::WithoutEffect, "cut at {length}, {serving:?}");
        }
        for more in [1, 4096] {
            let grown = [good.clone(), vec![0; more]].concat();
            let outcome = judge(grown, serving, &root, &image, &|| format!("{more} more"));
            assert_ne!(outcome, Outcome::WithoutEffect, "{more} more, {serving:?}");
        }
    }
}

#[test]
fn bundles_spliced_from_two_are_refused_at_every_seam() {
    let root = forge::root(1, 1);
    let one = noise(1, 3000);
    let two = noise(2, 3000);
    let (left, right) = (Forge::honest(&one, "1.1.0").bytes(), Forge::honest(&two, "1.1.1").bytes());
    assert_eq!(left.len(), right.len());
    for seam in (1..left.len()).step_by(5) {
        let spliced = [&left[..seam], &right[seam..]].concat();
        if spliced == left || spliced == right {
            continue;
        }
        let machine = Machine::new(running(), ACTIVE, PASSIVE);
        let server = Rc::new(MemoryServer { file: spliced, serving: Serving::Ranges });
        let result = machine.install(server, &root, Network::default(), "http://memory/x");
        assert!(result.is_err(), "seam {seam}");
        assert_eq!(machine.armed.get(), None, "seam {seam}");
    }
}
