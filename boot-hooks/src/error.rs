//! What can go wrong in early boot: operation and subject, so that one line on a serial console is enough to know where to look.

use std::{error::Error as StdError, io, path::Path};

use bank_format::Bank;

use crate::verity::Finding;

/// Result with the error of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a step of early boot failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A deed on a file, device or mount failed.
    #[error("cannot {deed} {subject}")]
    Io {
        /// What was to be done.
        deed: &'static str,
        /// To what.
        subject: String,
        /// The kernel's words.
        source: io::Error,
    },
    /// A file is longer than it may be.
    #[error("{subject} is longer than {limit_bytes} bytes")]
    TooLong {
        /// Which file.
        subject: String,
        /// The limit.
        limit_bytes: u64,
    },
    /// The kernel command line lacks something or contradicts itself.
    #[error("kernel command line: {detail}: build the boot image again")]
    CommandLine {
        /// What is wrong.
        detail: String,
    },
    /// Bytes that bank-format does not accept.
    #[error("cannot use {subject}")]
    Format {
        /// What was read.
        subject: &'static str,
        /// Why not.
        source: bank_format::Error,
    },
    /// A partition table that cannot be used.
    #[error("cannot use the partition table of {disk}")]
    PartitionTable {
        /// Which disk.
        disk: String,
        /// What is wrong.
        source: bank_format::Error,
    },
    /// The disk did not appear in time.
    #[error(
        "no disk with the partitions of this system within {waited_seconds} s, seen: {seen}: check the drive and its kernel modules"
    )]
    NoDisk {
        /// How long.
        waited_seconds: u64,
        /// The disks that were there.
        seen: String,
    },
    /// More than one partition fits.
    #[error("more than one root partition carries this tree: {candidates}: give roro.bank= or remove a disk")]
    Ambiguous {
        /// Which ones.
        candidates: String,
    },
    /// A partition is missing.
    #[error("disk {disk} has no partition {name}: write the factory image again")]
    NoPartition {
        /// Which disk.
        disk: String,
        /// Which partition.
        name: String,
    },
    /// The root image is not the one that this boot image was built for, or it is damaged.
    #[error("bank {bank} is refused: {finding}")]
    RootRefused {
        /// Which bank.
        bank: Bank,
        /// Why.
        finding: Finding,
    },
    /// The attempt could not be counted, so it must not be tried.
    #[error("the attempt cannot be counted: {detail}")]
    NotCounted {
        /// The record's words.
        detail: String,
    },
    /// The boot loader's state could not be changed.
    #[error("the boot loader cannot be told: {detail}")]
    Loader {
        /// The backend's words.
        detail: String,
    },
    /// No file system was recognised.
    #[error("cannot mount {subject}: {tried}")]
    NoFileSystem {
        /// Which partition.
        subject: String,
        /// Each type with the kernel's answer.
        tried: String,
    },
    /// A line of the state list.
    #[error("state list, line {line}: {detail}: correct [state] in the appliance file")]
    StateList {
        /// Which line, from 1.
        line: usize,
        /// What is wrong.
        detail: String,
    },
    /// A path that must be a plain directory or file.
    #[error("{subject} {detail}")]
    Path {
        /// Which path.
        subject: String,
        /// What is wrong.
        detail: &'static str,
    },
    /// This program was started as something else than `/init`.
    #[error("boot-hooks is /init of an initrd, and this is none: {detail}")]
    NotAnInitrd {
        /// How it was seen.
        detail: &'static str,
    },
}

impl Error {
    /// Wraps what the kernel said about `deed` on `subject`.
    pub fn io<E: Into<io::Error>>(deed: &'static str, subject: impl AsRef<Path>) -> impl FnOnce(E) -> Self {
        let subject = subject.as_ref().display().to_string();
        move |source| Self::Io { deed, subject, source: source.into() }
    }
}

impl From<bank_format::Error> for Error {
    fn from(source: bank_format::Error) -> Self {
        Self::Format { subject: "an EFI boot variable", source }
    }
}

/// The error and everything behind it, in one line.
#[must_use]
pub fn chain(error: &dyn StdError) -> String {
    let mut line = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        line.push_str(": ");
        line.push_str(&cause.to_string());
        source = cause.source();
    }
    line
}
