//! What every decoder of foreign bytes must keep, whatever the bytes are: one body for each fuzz target.
//!
//! The fuzzer and the test of its seeds run these same bodies, so a seed cannot rot (`fuzz/`, `tests/tests/seeds.rs`). A body panics where
//! a decoder breaks a promise: what was read is written again byte for byte, the same however the input is cut, no more than the limits
//! allow, and a mended thing stays mended. Checksums, digests and signatures that random bytes never have are put right first, so that
//! what lies behind them is reached; the bytes are also taken as they stand. Known here: `bank-format`, and no other room, as the
//! fuzzer instruments all that this module brings along. Deliberately absent: zstd and LZ4, which `bank-format` does not know.

mod bundle;
mod delta_table;
mod disks;
mod firmware;
mod loaders;
mod memory;
mod patch;
mod record;
mod table;
mod texts;

/// Whether the bytes, as they stand or put right, were taken for what they are given out as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// They were.
    Accepted,
    /// They were not.
    Refused,
}

impl Verdict {
    fn of<T, E>(result: &Result<T, E>) -> Self {
        match result {
            Ok(_) => Self::Accepted,
            Err(_) => Self::Refused,
        }
    }

    /// Accepted where either is.
    fn or(self, other: Self) -> Self {
        match self {
            Self::Accepted => Self::Accepted,
            Self::Refused => other,
        }
    }
}

/// What is done with the bytes. It panics where a promise is broken.
pub type Body = fn(&[u8]) -> Verdict;

/// Every target by its name.
pub const TARGETS: [(&str, Body); 15] = [
    ("autoboot", loaders::autoboot),
    ("bundle", bundle::bundle),
    ("delta_table", delta_table::delta_table),
    ("efi", firmware::efi),
    ("fat", disks::fat),
    ("gpt", disks::gpt),
    ("grubenv", loaders::grubenv),
    ("health", texts::health),
    ("index", table::index),
    ("manifest", bundle::manifest),
    ("patch", patch::patch),
    ("record", record::record),
    ("tail", table::tail),
    ("trust_root", texts::trust_root),
    ("uboot_env", loaders::uboot_env),
];

/// Runs the body of that name.
///
/// # Panics
/// When a promise is broken, or there is no such target.
pub fn play(target: &str, bytes: &[u8]) -> Verdict {
    let body = TARGETS.iter().find(|(name, _)| *name == target);
    assert!(body.is_some(), "there is no target {target}");
    body.map_or(Verdict::Refused, |(_, body)| body(bytes))
}
