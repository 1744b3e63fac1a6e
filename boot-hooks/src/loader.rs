//! What early boot tells the boot loader: to start another bank, or what is configured for when no bank can be booted.
//!
//! The words are `bank_format::loader`'s; here is only where each loader keeps its state on the disk that was booted.

use std::error::Error as StdError;

use bank_format::loader::{Firmware, Kind, Loader, Recovery, SystemdBoot};

use crate::{
    disk::Disk,
    error::{Error, Result, chain},
    ledger::Redirect,
    vars::EfiVars,
};

/// The boot loader of this machine.
#[derive(Debug, Clone)]
pub struct BootLoader {
    /// Which one.
    pub kind: Kind,
    /// The disk that was booted.
    pub disk: Disk,
    /// `roro.recovery=1`, for the loaders whose own state does not show it.
    pub has_recovery: bool,
}

/// What it is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Deed {
    Redirect(Redirect),
    Recover,
}

impl BootLoader {
    /// The next boot starts another bank.
    pub fn redirect(&self, redirect: Redirect) -> Result<()> {
        self.tell(Deed::Redirect(redirect)).map(|_| ())
    }

    /// No bank can be booted: the next boot starts the recovery entry, if there is one.
    pub fn recover(&self) -> Result<Recovery> {
        self.tell(Deed::Recover)
    }

    fn tell(&self, deed: Deed) -> Result<Recovery> {
        match self.kind {
            Kind::Efi => carry_out(Firmware::new(EfiVars::mounted(), self.disk.boot_partitions()?), deed),
            Kind::SystemdBoot => carry_out(SystemdBoot::new(EfiVars::mounted()), deed),
            Kind::Grub | Kind::UBoot | Kind::Tryboot | Kind::Script => Ok(Recovery::NotConfigured),
        }
    }
}

fn carry_out<L: Loader>(mut loader: L, deed: Deed) -> Result<Recovery>
where
    L::Error: StdError,
{
    let done = match deed {
        Deed::Redirect(Redirect { to, spare }) => {
            loader.redirect(to, spare).map(|()| Recovery::NotConfigured)
        }
        Deed::Recover => loader.recover(),
    };
    done.map_err(|error| Error::Loader { detail: chain(&error) })
}
