//! The real backends of `bank_format::loader` on simulated storage: what agent and initrd tell the loader.

use std::io;

use bank_format::{
    Bank,
    loader::{Firmware, Kind, Loader, Spare, SystemdBoot},
};

use crate::{
    loaders::partitions,
    storage::{Storage, Variables},
};

/// One of the real backends.
#[derive(Debug)]
pub enum Told {
    /// UEFI.
    Efi(Firmware<Variables>),
    /// systemd-boot.
    SystemdBoot(SystemdBoot<Variables>),
}

impl Told {
    /// The backend of this kind.
    pub fn new(kind: Kind, storage: &Storage) -> Result<Self, String> {
        match kind {
            Kind::Efi => Ok(Self::Efi(Firmware::new(storage.variables(), partitions()))),
            Kind::SystemdBoot => Ok(Self::SystemdBoot(SystemdBoot::new(storage.variables()))),
            Kind::Grub | Kind::UBoot | Kind::Tryboot | Kind::Script => {
                Err(format!("{kind} is not simulated"))
            }
        }
    }
}

impl Loader for Told {
    type Error = io::Error;

    fn next(&mut self) -> io::Result<Option<Bank>> {
        match self {
            Self::Efi(loader) => Ok(loader.next()?),
            Self::SystemdBoot(loader) => Ok(loader.next()?),
        }
    }

    fn set_next(&mut self, bank: Bank) -> io::Result<()> {
        match self {
            Self::Efi(loader) => Ok(loader.set_next(bank)?),
            Self::SystemdBoot(loader) => Ok(loader.set_next(bank)?),
        }
    }

    fn set_default(&mut self, first: Bank, spare: Spare) -> io::Result<()> {
        match self {
            Self::Efi(loader) => Ok(loader.set_default(first, spare)?),
            Self::SystemdBoot(loader) => Ok(loader.set_default(first, spare)?),
        }
    }

    fn redirect(&mut self, to: Bank, spare: Spare) -> io::Result<()> {
        match self {
            Self::Efi(loader) => Ok(loader.redirect(to, spare)?),
            Self::SystemdBoot(loader) => Ok(loader.redirect(to, spare)?),
        }
    }
}
