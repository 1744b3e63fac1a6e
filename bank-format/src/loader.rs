//! What a boot loader is told, whichever it is: the bank that starts, the one that takes over, and the one to try once.
//!
//! Each backend keeps this in its own place (EFI variables, environment blocks, a text file) and promises that a torn write
//! leaves the old or the new decision. What it does with it is the loader's part: `docs/boot.md`, "One behaviour".

use std::{fmt, str::FromStr};

use crate::{bank::Bank, error::Error};

mod firmware;
pub mod grub;
pub mod grub_index;
mod guarded;
mod systemd_boot;
#[cfg(test)]
mod tests;
pub mod tryboot;
pub mod uboot;

pub use crate::record::Medium;
pub use firmware::Firmware;
pub use grub::Grub;
pub use guarded::LoaderError;
pub use systemd_boot::{SystemdBoot, bank_of_entry};
pub use tryboot::{RebootFlag, Tryboot};
pub use uboot::UBoot;

/// Which boot loader: `[boot] backend` of the agent, `roro.loader=` on the kernel command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// UEFI boot variables.
    Efi,
    /// systemd-boot's variables.
    SystemdBoot,
    /// GRUB, on EFI or BIOS.
    Grub,
    /// U-Boot's redundant environment.
    UBoot,
    /// Raspberry Pi firmware.
    Tryboot,
    /// A program of the integrator.
    Script,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 6] =
        [Self::Efi, Self::SystemdBoot, Self::Grub, Self::UBoot, Self::Tryboot, Self::Script];

    /// As in configurations and on command lines.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Efi => "efi",
            Self::SystemdBoot => "systemd-boot",
            Self::Grub => "grub",
            Self::UBoot => "u-boot",
            Self::Tryboot => "tryboot",
            Self::Script => "script",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl FromStr for Kind {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.word() == text)
            .ok_or_else(|| Error::malformed("boot loader", format!("{text:?} is none that is known")))
    }
}

/// Whether the bank that is not the default may take over when the default does not come up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spare {
    /// It was confirmed once.
    Bootable,
    /// It is empty, half-written, untried or failed.
    Unbootable,
}

/// Whether a boot loader has something to start when no bank can be booted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recovery {
    /// The next boot, and only that one, starts it.
    Next,
    /// Nothing is configured; nothing was changed.
    NotConfigured,
}

/// Title of the firmware entry that is started when no bank can be booted.
pub const RECOVERY_TITLE: &str = "Roro Recovery";

/// The state of a boot loader. Each deed is on stable storage when it returns; after an error the state is the old or the new one.
pub trait Loader {
    /// What can go wrong there.
    type Error;

    /// The bank that only the next boot starts, if the loader was told one. Loaders that re-arm through the same place may name
    /// the default bank here.
    fn next(&mut self) -> Result<Option<Bank>, Self::Error>;

    /// The next boot, and only that one, starts `bank`; the other bank is the default.
    fn set_next(&mut self, bank: Bank) -> Result<(), Self::Error>;

    /// From now on `first` starts, and nothing is tried. The counter is re-armed: a `spare` that is bootable takes over when
    /// `first` does not come up to say so again. Called in every good boot; writes nothing where nothing is to be said.
    fn set_default(&mut self, first: Bank, spare: Spare) -> Result<(), Self::Error>;

    /// From early boot: whatever the loader believed, the next boot starts `to`.
    fn redirect(&mut self, to: Bank, spare: Spare) -> Result<(), Self::Error> {
        self.set_default(to, spare)
    }

    /// From early boot: no bank can be booted, so the next boot, and only that one, starts what is configured for that.
    fn recover(&mut self) -> Result<Recovery, Self::Error> {
        Ok(Recovery::NotConfigured)
    }
}
