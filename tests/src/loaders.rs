//! Models of boot loaders: which bank starts, read from the very bytes that agent and initrd have written.
//!
//! The model is the oracle of the scenario table, so it shares no reader and no writer with `bank_format::loader`: each is written
//! from the loader's own specification, and from what the scripts in `boot-hooks/loaders` say. A model writes where its loader
//! writes (counters, variables used up), and those writes can be cut like any other.

use bank_format::{Bank, loader::Kind};

use crate::storage::{Place, Storage};

mod firmware;
mod grub;
pub mod script;
mod systemd_boot;
pub mod tryboot;
pub mod uboot;

pub use firmware::{esp, partitions, recovery_partition};

/// First bytes of a boot image that a loader can start; a wiped image has zeros there.
pub const LOADABLE: &[u8] = b"RoroBoot";

/// Where a boot image says that it is not signed, and how.
pub const UNSIGNED_AT: usize = LOADABLE.len();
/// See [`UNSIGNED_AT`].
pub const UNSIGNED: u8 = b'!';

/// Whether a recovery entry is configured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recovery {
    /// It is.
    Configured,
    /// There is none.
    Absent,
}

/// What the loader starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// The boot image of a bank.
    Bank {
        /// Which.
        bank: Bank,
        /// What `roro.gave_up=` says.
        gave_up: Option<Bank>,
    },
    /// The recovery entry.
    Recovery,
    /// Nothing can be started; the loader says so.
    Nothing,
}

/// What a loader can see of a machine.
#[derive(Debug, Clone)]
pub struct Board {
    /// The storage.
    pub storage: Storage,
    /// Whether there is a recovery entry.
    pub recovery: Recovery,
    /// The one-shot flag of the reset controller: survives a reset and no power cut; cleared by whoever reads it.
    pub tryboot: bool,
}

impl Board {
    /// Whether the loader finds something to start in this bank.
    #[must_use]
    pub fn loadable(&self, bank: Bank) -> bool {
        self.storage.head(Place::Boot(bank), 0, LOADABLE.len()) == LOADABLE
    }

    /// Whether the firmware, asked to load this bank's image, refuses it.
    fn refused(&self, bank: Bank) -> bool {
        self.storage.head(Place::Boot(bank), UNSIGNED_AT, 1) == [UNSIGNED]
    }

    fn nothing(&self) -> Start {
        match self.recovery {
            Recovery::Configured => Start::Recovery,
            Recovery::Absent => Start::Nothing,
        }
    }
}

fn plain(bank: Bank) -> Start {
    Start::Bank { bank, gave_up: None }
}

/// Lets the loader start.
#[must_use]
pub fn start(kind: Kind, board: &mut Board) -> Start {
    match kind {
        Kind::Efi => firmware::start(board),
        Kind::SystemdBoot => systemd_boot::start(board),
        Kind::Grub => grub::start(board),
        Kind::UBoot => uboot::start(board),
        Kind::Tryboot => tryboot::start(board),
        Kind::Script => script::start(board),
    }
}

/// UTF-16 with a terminating zero, as firmware variables hold text.
fn text_of(value: &[u8]) -> String {
    let units: Vec<u16> = value
        .chunks_exact(2)
        .map(|pair| u16::from(pair[0]) | u16::from(pair[1]) << 8)
        .take_while(|unit| *unit != 0)
        .collect();
    String::from_utf16_lossy(&units)
}
