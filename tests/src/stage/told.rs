//! The real backends of `bank_format::loader` on simulated storage: what agent and initrd tell the loader.

use std::{cell::Cell, io, rc::Rc};

use bank_format::{
    Bank,
    loader::{
        Firmware, Grub, Kind, Loader, LoaderError, RebootFlag, Recovery, Spare, SystemdBoot, Tryboot, UBoot,
    },
};

use crate::{
    loaders::{esp, partitions, script, tryboot, uboot},
    storage::{Place, PlaceMedium, Storage, Variables, Writer},
};

/// The parameter of the next orderly reboot, in the memory of the system that runs.
#[derive(Debug, Clone, Default)]
pub struct RebootParameter(pub Rc<Cell<bool>>);

impl RebootFlag for RebootParameter {
    type Error = io::Error;
    fn armed(&mut self) -> io::Result<bool> {
        Ok(self.0.get())
    }
    fn arm(&mut self) -> io::Result<()> {
        self.0.set(true);
        Ok(())
    }
    fn disarm(&mut self) -> io::Result<()> {
        self.0.set(false);
        Ok(())
    }
}

/// One of the real backends.
#[derive(Debug)]
pub enum Told {
    /// UEFI.
    Efi(Firmware<Variables>),
    /// systemd-boot.
    SystemdBoot(SystemdBoot<Variables>),
    /// GRUB.
    Grub(Grub<PlaceMedium>),
    /// U-Boot.
    UBoot(UBoot<PlaceMedium>),
    /// Raspberry Pi firmware.
    Tryboot(Tryboot<PlaceMedium, RebootParameter>),
    /// The program of the page.
    Script(script::Program),
}

impl Told {
    /// The backend of this kind.
    pub fn new(kind: Kind, storage: &Storage, parameter: &RebootParameter) -> Result<Self, String> {
        let medium = |place| storage.medium(place, Writer::System);
        match kind {
            Kind::Efi => Ok(Self::Efi(Firmware::new(storage.variables(), partitions()))),
            Kind::SystemdBoot => {
                let loader = SystemdBoot::new(storage.variables()).on_partition(Some(esp()));
                Ok(Self::SystemdBoot(loader))
            }
            Kind::Grub => Ok(Self::Grub(Grub::new(medium(Place::Loader)))),
            Kind::UBoot => {
                let copies = [0, 1].map(|copy| medium(Place::Environment(copy)));
                Ok(Self::UBoot(UBoot::new(copies, uboot::COPY_BYTES)))
            }
            Kind::Tryboot => {
                let file = medium(Place::Autoboot);
                let (bytes, partitions) = (tryboot::FILE_BYTES, tryboot::PARTITIONS);
                Ok(Self::Tryboot(Tryboot::new(file, bytes, partitions, parameter.clone())))
            }
            Kind::Script => Ok(Self::Script(script::Program(storage.clone()))),
        }
    }
}

impl Loader for Told {
    type Error = io::Error;

    fn next(&mut self) -> io::Result<Option<Bank>> {
        match self {
            Self::Efi(loader) => Ok(loader.next()?),
            Self::SystemdBoot(loader) => Ok(loader.next()?),
            Self::Grub(loader) => loader.next().map_err(plain),
            Self::UBoot(loader) => loader.next().map_err(plain),
            Self::Tryboot(loader) => loader.next().map_err(plain),
            Self::Script(loader) => loader.next(),
        }
    }

    fn set_next(&mut self, bank: Bank) -> io::Result<()> {
        match self {
            Self::Efi(loader) => Ok(loader.set_next(bank)?),
            Self::SystemdBoot(loader) => Ok(loader.set_next(bank)?),
            Self::Grub(loader) => loader.set_next(bank).map_err(plain),
            Self::UBoot(loader) => loader.set_next(bank).map_err(plain),
            Self::Tryboot(loader) => loader.set_next(bank).map_err(plain),
            Self::Script(loader) => loader.set_next(bank),
        }
    }

    fn set_default(&mut self, first: Bank, spare: Spare) -> io::Result<()> {
        match self {
            Self::Efi(loader) => Ok(loader.set_default(first, spare)?),
            Self::SystemdBoot(loader) => Ok(loader.set_default(first, spare)?),
            Self::Grub(loader) => loader.set_default(first, spare).map_err(plain),
            Self::UBoot(loader) => loader.set_default(first, spare).map_err(plain),
            Self::Tryboot(loader) => loader.set_default(first, spare).map_err(plain),
            Self::Script(loader) => loader.set_default(first, spare),
        }
    }

    fn redirect(&mut self, to: Bank, spare: Spare) -> io::Result<()> {
        match self {
            Self::Efi(loader) => Ok(loader.redirect(to, spare)?),
            Self::SystemdBoot(loader) => Ok(loader.redirect(to, spare)?),
            Self::Grub(loader) => loader.redirect(to, spare).map_err(plain),
            Self::UBoot(loader) => loader.redirect(to, spare).map_err(plain),
            Self::Tryboot(loader) => loader.redirect(to, spare).map_err(plain),
            Self::Script(loader) => loader.redirect(to, spare),
        }
    }

    fn recover(&mut self) -> io::Result<Recovery> {
        match self {
            Self::Efi(loader) => Ok(loader.recover()?),
            Self::SystemdBoot(loader) => Ok(loader.recover()?),
            Self::Grub(loader) => loader.recover().map_err(plain),
            Self::UBoot(loader) => loader.recover().map_err(plain),
            Self::Tryboot(loader) => loader.recover().map_err(plain),
            Self::Script(loader) => loader.recover(),
        }
    }
}

fn plain(error: LoaderError<io::Error>) -> io::Error {
    io::Error::other(error)
}
