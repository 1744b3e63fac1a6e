//! systemd-boot's EFI variables as a [`Loader`].
//!
//! Source: <https://systemd.io/BOOT_LOADER_INTERFACE/>: `LoaderEntryOneShot` names the entry of the next boot and is removed by
//! the loader before it starts it; `LoaderEntryDefault` names the entry of all others; both are UTF-16 with a terminating zero.
//! Each is one firmware write. Like [`super::Firmware`], the one-shot doubles as the counter.

use super::{Loader, Spare};
use crate::{
    bank::Bank,
    efi::{LOADER_VENDOR, VarStore},
};

const ONE_SHOT: &str = "LoaderEntryOneShot";
const DEFAULT: &str = "LoaderEntryDefault";

/// The identifier of a bank's entry: the name of its file in `EFI/Linux`.
#[must_use]
pub fn entry_of_bank(bank: Bank) -> &'static str {
    match bank {
        Bank::A => "roro-a.efi",
        Bank::B => "roro-b.efi",
    }
}

/// The bank that an entry identifier (`LoaderEntrySelected`, UTF-16) names.
#[must_use]
pub fn bank_of_entry(value: &[u8]) -> Option<Bank> {
    let units: Vec<u16> = value
        .chunks_exact(2)
        .map(|pair| pair.iter().rev().fold(0, |unit, byte| unit << 8 | u16::from(*byte)))
        .take_while(|unit| *unit != 0)
        .collect();
    let text = String::from_utf16(&units).ok()?;
    Bank::BOTH.into_iter().find(|bank| text.eq_ignore_ascii_case(entry_of_bank(*bank)))
}

fn encode(bank: Bank) -> Vec<u8> {
    entry_of_bank(bank).encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect()
}

/// systemd-boot.
#[derive(Debug, Clone)]
pub struct SystemdBoot<S> {
    vars: S,
}

impl<S: VarStore> SystemdBoot<S> {
    /// The loader with these variables.
    #[must_use]
    pub fn new(vars: S) -> Self {
        Self { vars }
    }

    /// The variables.
    pub fn vars(&self) -> &S {
        &self.vars
    }

    fn write(&mut self, name: &str, bank: Bank) -> Result<(), S::Error> {
        let value = encode(bank);
        if self.vars.read(name, LOADER_VENDOR)?.as_ref() == Some(&value) {
            return Ok(());
        }
        self.vars.write(name, LOADER_VENDOR, &value)
    }
}

impl<S: VarStore> Loader for SystemdBoot<S> {
    type Error = S::Error;

    fn next(&mut self) -> Result<Option<Bank>, S::Error> {
        Ok(self.vars.read(ONE_SHOT, LOADER_VENDOR)?.and_then(|value| bank_of_entry(&value)))
    }

    fn set_next(&mut self, bank: Bank) -> Result<(), S::Error> {
        self.write(DEFAULT, !bank)?;
        self.write(ONE_SHOT, bank)
    }

    fn set_default(&mut self, first: Bank, spare: Spare) -> Result<(), S::Error> {
        match spare {
            Spare::Bootable => {
                self.write(ONE_SHOT, first)?;
                self.write(DEFAULT, !first)
            }
            Spare::Unbootable => {
                self.write(DEFAULT, first)?;
                match self.vars.read(ONE_SHOT, LOADER_VENDOR)? {
                    Some(_) => self.vars.remove(ONE_SHOT, LOADER_VENDOR),
                    None => Ok(()),
                }
            }
        }
    }

    fn redirect(&mut self, to: Bank, spare: Spare) -> Result<(), S::Error> {
        match spare {
            // As with the firmware: the spare stays the default, in case that the kernel of `to` dies.
            Spare::Bootable => self.set_default(to, spare),
            Spare::Unbootable => {
                self.write(DEFAULT, to)?;
                self.write(ONE_SHOT, to)
            }
        }
    }
}
