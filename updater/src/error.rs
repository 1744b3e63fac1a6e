//! What can go wrong, as operation and subject; the exit code follows from [`Error::kind`], the hint from [`Error::hint`].

use std::{collections::BTreeSet, fmt, io, path::PathBuf};

use bank_format::{Bank, Digest256, Release, record::StoreError, release::Version};

use crate::{engine::IllegalTransition, fetch::FetchError};

/// Result with the error of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What a script does about an error: the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A bug in Roro.
    Internal,
    /// The command or the configuration is wrong.
    Usage,
    /// There is nothing to do.
    NothingToDo,
    /// Signature, compatible, floor or policy say no.
    Rejected,
    /// A device, a file or a server failed.
    Device,
    /// It may work later.
    TryLater,
}

impl Kind {
    /// The exit code, `docs/architecture.md`.
    ///
    /// ```
    /// use updater::Kind;
    /// assert_eq!(Kind::Rejected.exit_code(), 4);
    /// assert_eq!(Kind::TryLater.exit_code(), 75);
    /// ```
    #[must_use]
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Internal => 1,
            Self::Usage => 2,
            Self::NothingToDo => 3,
            Self::Rejected => 4,
            Self::Device => 5,
            Self::TryLater => 75,
        }
    }

    /// One word for scripts.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Internal => "internal",
            Self::Usage => "usage",
            Self::NothingToDo => "nothing-to-do",
            Self::Rejected => "rejected",
            Self::Device => "device",
            Self::TryLater => "try-later",
        }
    }
}

/// Why a deed was refused before anything was touched.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// Made for other devices.
    #[error("bundle is compatible with {bundle:?}, this device is {device:?}")]
    Compatible {
        /// What the bundle says.
        bundle: String,
        /// What the configuration says.
        device: String,
    },
    /// Too old.
    #[error("{release} is below the floor {floor}")]
    BelowFloor {
        /// What was offered.
        release: Release,
        /// The lowest version that may be installed.
        floor: Version,
    },
    /// The bundle and the banks have different images.
    #[error("bundle has images {}, this device has {}", list(bundle), list(device))]
    Images {
        /// Image names in the bundle.
        bundle: BTreeSet<String>,
        /// Image names in the configuration.
        device: BTreeSet<String>,
    },
    /// The bank is too small.
    #[error("image {image} needs {needed_bytes} bytes, bank {bank} has {available_bytes}")]
    TooSmall {
        /// Which image.
        image: String,
        /// Which bank.
        bank: Bank,
        /// Bytes with the tree.
        needed_bytes: u64,
        /// Bytes of the device.
        available_bytes: u64,
    },
    /// The other bank cannot be gone back to.
    #[error("bank {bank} cannot be gone back to: {why}")]
    NoWayBack {
        /// The other bank.
        bank: Bank,
        /// Why not.
        why: String,
    },
    /// The trial was rejected already.
    #[error("the trial of bank {bank} was rejected: {reason}")]
    TrialRejected {
        /// The bank that runs.
        bank: Bank,
        /// Why.
        reason: String,
    },
}

fn list(names: &BTreeSet<String>) -> String {
    names.iter().map(String::as_str).collect::<Vec<_>>().join(", ")
}

/// What can go wrong.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file of ours.
    #[error("cannot {deed} {path}")]
    File {
        /// Read, write, create, ...
        deed: &'static str,
        /// Which file.
        path: PathBuf,
        /// The system's words.
        source: io::Error,
    },
    /// The configuration is wrong.
    #[error("configuration {path}: {detail}")]
    Config {
        /// Which file.
        path: PathBuf,
        /// What is wrong, in one line.
        detail: String,
    },
    /// The command is wrong.
    #[error("{detail}")]
    Usage {
        /// What is wrong.
        detail: String,
    },
    /// The bundle's bytes.
    #[error("bundle is refused")]
    Bundle {
        /// Why.
        source: bank_format::Error,
    },
    /// A frame does not give what was signed.
    #[error("bundle is refused: frame {frame} of image {image} cannot be decompressed")]
    Frame {
        /// Which image.
        image: String,
        /// Which frame.
        frame: usize,
        /// The decoder's words.
        source: io::Error,
    },
    /// The keys.
    #[error("trust root {path} is refused")]
    TrustRoot {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: bank_format::Error,
    },
    /// Preflight says no.
    #[error(transparent)]
    Refused(Refusal),
    /// Nothing to do.
    #[error("nothing to do: {detail}")]
    NothingToDo {
        /// Why.
        detail: String,
    },
    /// Another deed is under way.
    #[error("another updater is at work: process {holder}")]
    Busy {
        /// Its process id, as far as it is known.
        holder: String,
    },
    /// What was looked at is not what it was.
    #[error("bank {bank} was changed while it was read")]
    Changed {
        /// The bank.
        bank: Bank,
    },
    /// The running release is not confirmed yet.
    #[error("{release} in bank {bank} is itself on trial")]
    OnTrial {
        /// What runs.
        release: String,
        /// Where.
        bank: Bank,
    },
    /// What runs is not what the record says should run.
    #[error("bank {running} runs, the record says {confirmed}")]
    Unsettled {
        /// The bank that runs.
        running: Bank,
        /// The bank that should run.
        confirmed: Bank,
    },
    /// The record.
    #[error("record cannot be used")]
    Record {
        /// Why.
        source: StoreError<io::Error>,
    },
    /// A bank's image.
    #[error("cannot {deed} image {image} of bank {bank}")]
    Bank {
        /// Read, write, flush, ...
        deed: &'static str,
        /// Which bank.
        bank: Bank,
        /// Which image.
        image: String,
        /// The system's words.
        source: io::Error,
    },
    /// What was written is not what is read.
    #[error("bank {bank} does not give back what was written: image {image}, {detail}")]
    ReadBack {
        /// Which bank.
        bank: Bank,
        /// Which image.
        image: String,
        /// What differs.
        detail: String,
    },
    /// The chunk table and the tree of a signed manifest contradict each other.
    #[error("bundle is refused: image {image} has verity root {found}, the manifest says {expected}")]
    VerityRoot {
        /// Which image.
        image: String,
        /// In the manifest.
        expected: Digest256,
        /// Of the chunks.
        found: Digest256,
    },
    /// The boot loader.
    #[error("cannot {deed} in the boot loader")]
    Boot {
        /// What was attempted.
        deed: &'static str,
        /// The backend's words.
        source: io::Error,
    },
    /// The machine does not reboot.
    #[error("cannot reboot")]
    Reboot {
        /// The system's words.
        source: io::Error,
    },
    /// The network.
    #[error("cannot fetch from {server}")]
    Fetch {
        /// From where, without what may be a credential.
        server: String,
        /// Why.
        source: FetchError,
    },
    /// A health check, or the gate.
    #[error("not healthy: {reason}")]
    Unhealthy {
        /// The first check that failed, and why.
        reason: String,
    },
    /// A step that the engine does not allow.
    #[error("{0}: this is a bug in Roro")]
    Illegal(IllegalTransition),
    /// An invariant does not hold.
    #[error("{detail}: this is a bug in Roro")]
    Bug {
        /// Which.
        detail: &'static str,
    },
}

impl Error {
    /// The kind, from which the exit code follows.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Config { .. } | Self::Usage { .. } => Kind::Usage,
            Self::Bundle { source } | Self::TrustRoot { source, .. } => of_format(source),
            Self::Frame { .. } | Self::VerityRoot { .. } | Self::Refused(_) => Kind::Rejected,
            Self::NothingToDo { .. } => Kind::NothingToDo,
            Self::Busy { .. } | Self::Changed { .. } | Self::OnTrial { .. } | Self::Unsettled { .. } => {
                Kind::TryLater
            }
            Self::File { .. }
            | Self::Record { .. }
            | Self::Bank { .. }
            | Self::ReadBack { .. }
            | Self::Boot { .. }
            | Self::Reboot { .. }
            | Self::Unhealthy { .. } => Kind::Device,
            Self::Fetch { source, .. } => source.kind(),
            Self::Illegal(_) | Self::Bug { .. } => Kind::Internal,
        }
    }

    /// What to do next, where we know it.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Refused(refusal) => Some(match refusal {
                Refusal::Compatible { .. } => "take the bundle that was built for this device",
                Refusal::BelowFloor { .. } => {
                    "the floor never falls: build the old content under a higher version"
                }
                Refusal::Images { .. } => "bundle and [bank.a], [bank.b] must name the same images",
                Refusal::TooSmall { .. } => "build a smaller image, or repartition the device",
                Refusal::NoWayBack { .. } => "install the release that you want instead",
                Refusal::TrialRejected { .. } => "reboot to go back: updater reboot",
            }),
            Self::Changed { .. } => Some("run the same command again, once nothing is being installed"),
            Self::Busy { .. } => Some("wait until it has ended, then run the same command again"),
            Self::OnTrial { .. } => {
                Some("wait for its health gate, or decide: updater confirm, or updater rollback")
            }
            Self::Unsettled { .. } => Some("run: updater settle"),
            Self::ReadBack { .. } => {
                Some("the storage may be failing: run the same command again, then look at the kernel log")
            }
            Self::Bank { .. } | Self::Record { .. } | Self::Boot { .. } => {
                Some("what runs is untouched; see the kernel log, then run the same command again")
            }
            Self::Fetch { source, .. } => Some(source.hint()),
            Self::Bundle { source } => Some(match source {
                bank_format::Error::ThresholdNotMet { .. } => {
                    "it was not signed by the keys that this device trusts"
                }
                bank_format::Error::WrongMagic { .. } => "check that the address leads to a .roro file",
                bank_format::Error::Expired { .. } => "set the clock if it is wrong",
                _ => "nothing of it was activated: fetch or build the bundle again",
            }),
            Self::Frame { .. } | Self::VerityRoot { .. } => {
                Some("nothing of it was activated: fetch or build the bundle again")
            }
            Self::TrustRoot { .. } => Some(
                "bring the newer root.json: in the next image, or as trust/N.root.json in the state directory",
            ),
            Self::Config { .. }
            | Self::Usage { .. }
            | Self::File { .. }
            | Self::NothingToDo { .. }
            | Self::Reboot { .. }
            | Self::Unhealthy { .. }
            | Self::Illegal(_)
            | Self::Bug { .. } => None,
        }
    }

    /// The whole chain in one line.
    #[must_use]
    pub fn line(&self) -> String {
        let mut text = self.to_string();
        let mut next = std::error::Error::source(self);
        while let Some(source) = next {
            let _ = fmt::write(&mut text, format_args!(": {source}"));
            next = source.source();
        }
        text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ")
    }
}

fn of_format(error: &bank_format::Error) -> Kind {
    match error.kind() {
        bank_format::ErrorKind::Rejected => Kind::Rejected,
        bank_format::ErrorKind::Internal => Kind::Internal,
    }
}

/// A bundle's error, from a format error.
pub(crate) fn bundle(source: bank_format::Error) -> Error {
    Error::Bundle { source }
}

/// A file's error, from the system's.
pub(crate) fn file(deed: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Error {
    let path = path.into();
    move |source| Error::File { deed, path, source }
}
