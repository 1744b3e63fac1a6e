//! The boot loaders that whole systems are played with.

use std::{fmt, str::FromStr};

use bank_format::loader::Kind;

use crate::{error::Error, firmware::Firmware};

/// A boot loader, and the firmware that starts it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loader {
    /// The firmware itself.
    Efi,
    /// systemd-boot on UEFI.
    SystemdBoot,
    /// GRUB on UEFI.
    GrubEfi,
    /// GRUB on BIOS; the same disk as [`Loader::GrubEfi`].
    GrubBios,
}

impl Loader {
    /// All of them, in the order of the matrix.
    pub const ALL: [Self; 4] = [Self::Efi, Self::SystemdBoot, Self::GrubEfi, Self::GrubBios];

    /// A word, for command lines and names of runs.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Efi => "efi",
            Self::SystemdBoot => "systemd-boot",
            Self::GrubEfi => "grub-efi",
            Self::GrubBios => "grub-bios",
        }
    }

    /// The backend that drives it, which is also what its disk is built for.
    #[must_use]
    pub fn kind(self) -> Kind {
        match self {
            Self::Efi => Kind::Efi,
            Self::SystemdBoot => Kind::SystemdBoot,
            Self::GrubEfi | Self::GrubBios => Kind::Grub,
        }
    }

    /// The firmware below it.
    #[must_use]
    pub fn firmware(self) -> Firmware {
        match self {
            Self::Efi | Self::SystemdBoot | Self::GrubEfi => Firmware::Uefi,
            Self::GrubBios => Firmware::Bios,
        }
    }
}

impl fmt::Display for Loader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl FromStr for Loader {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        Self::ALL
            .into_iter()
            .find(|loader| loader.word() == text)
            .ok_or_else(|| Error::NoLoader { name: text.to_owned() })
    }
}
