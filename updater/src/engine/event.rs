//! What the engine is told, and what it asks for.

use std::{collections::BTreeMap, fmt};

use bank_format::{
    Bank, Digest256, Release,
    loader::Spare,
    record::{ImageProof, Record},
    release::Version,
};

use crate::history::Entry;

/// A release that passed preflight.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// Name and version.
    pub release: Release,
    /// SHA-256 of its manifest.
    pub manifest: Digest256,
    /// The floor that it demands.
    pub floor: Option<Version>,
}

/// Whether a boot may lead to a reboot by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rearm {
    /// A trial with tries left is tried again at once.
    Allowed,
    /// It is given up.
    Forbidden,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// An install begins.
    BeginInstall(Offer),
    /// The bank is written, flushed and read back.
    Written(BTreeMap<String, ImageProof>),
    /// The written bank shall be tried.
    Arm {
        /// The boot during which this happens.
        boot_id: String,
    },
    /// Somebody wants a reboot.
    RebootRequested,
    /// The system came up: told once early in each boot.
    Booted {
        /// This boot.
        boot_id: String,
        /// Whether a trial may be tried again.
        rearm: Rearm,
    },
    /// The health gate passed, or a person confirms.
    Confirm,
    /// The health gate failed.
    GateFailed {
        /// Which check, and why.
        reason: String,
        /// The log that was kept.
        evidence: Option<String>,
    },
    /// A person rejects the running trial.
    Reject {
        /// Why.
        reason: String,
    },
    /// The machine goes down in order.
    Ending,
    /// A person withdraws what was installed and not tried.
    Cancel,
    /// The other bank shall be gone back to; it passed preflight.
    BeginRollback,
    /// The bank to go back to was read back.
    RollbackProven {
        /// The boot during which this happens.
        boot_id: String,
    },
}

impl Event {
    /// For messages.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::BeginInstall(_) => "begin an install",
            Self::Written(_) => "note a written bank",
            Self::Arm { .. } => "arm a trial",
            Self::RebootRequested => "reboot",
            Self::Booted { .. } => "settle a boot",
            Self::Confirm => "confirm",
            Self::GateFailed { .. } => "fail the health gate",
            Self::Reject { .. } => "reject the trial",
            Self::Ending => "end a boot",
            Self::Cancel => "cancel",
            Self::BeginRollback => "begin a rollback",
            Self::RollbackProven { .. } => "arm a rollback",
        }
    }
}

/// What must be done, in the order given; each deed is on stable storage before the next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Put the record on stable storage.
    Commit(Box<Record>),
    /// Wipe the first block of the bank's boot image.
    WipeBoot(Bank),
    /// Write the images, each chunk verified first.
    WriteImages(Bank),
    /// Read the whole bank back and compare.
    ReadBack(Bank),
    /// Tell the loader to try the bank once.
    SetTrial(Bank),
    /// Tell the loader to start this bank from now on, to try nothing, and whether the other bank may take over.
    SetDefault(Bank, Spare),
    /// Append to the history.
    History(Entry),
    /// Reboot.
    Reboot,
}

/// Where the device stands; follows from the record and the running bank.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Nothing is pending.
    Idle,
    /// Nothing is pending; the last deed was a confirm.
    Confirmed,
    /// Nothing is pending; the last trial failed.
    FellBack,
    /// A bank is being written, or was when the power went.
    Installing(Bank),
    /// A bank is written and read back, and not armed.
    Installed(Bank),
    /// The next reboot tries this bank.
    Armed(Bank),
    /// We run in the bank on trial.
    Trial(Bank),
    /// We run in the bank on trial, and its gate passed.
    Healthy(Bank),
    /// We run in the bank on trial, and it was rejected.
    Rejected(Bank),
    /// The trial of this bank was begun and another bank runs: nobody has settled that yet.
    Unsettled(Bank),
}

impl State {
    /// For messages and `status`.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Confirmed => "confirmed",
            Self::FellBack => "fell-back",
            Self::Installing(_) => "installing",
            Self::Installed(_) => "installed",
            Self::Armed(_) => "armed",
            Self::Trial(_) => "trial",
            Self::Healthy(_) => "healthy",
            Self::Rejected(_) => "rejected",
            Self::Unsettled(_) => "unsettled",
        }
    }
}

/// The engine refuses this step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IllegalTransition {
    /// Where the device stands.
    pub state: State,
    /// What was attempted.
    pub event: &'static str,
}

impl fmt::Display for IllegalTransition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {} while {}", self.event, self.state.word())
    }
}

impl std::error::Error for IllegalTransition {}
