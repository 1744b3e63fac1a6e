//! systemd-boot's EFI variables as a [`Loader`].
//!
//! Source: <https://systemd.io/BOOT_LOADER_INTERFACE/>: `LoaderEntryOneShot` names the entry of the next boot and is removed by
//! the loader before it starts it; `LoaderEntryDefault` names the entry of all others; both are UTF-16 with a terminating zero.
//! Each is one firmware write. Like [`super::Firmware`], the one-shot doubles as the counter.

use super::{Loader, Recovery, Spare};
use crate::{
    bank::Bank,
    efi::{LOADER_VENDOR, VarStore},
};

const ONE_SHOT: &str = "LoaderEntryOneShot";
const DEFAULT: &str = "LoaderEntryDefault";
/// The entries that the loader has found in this boot, each UTF-16 with a terminating zero.
const ENTRIES: &str = "LoaderEntries";
/// How the name of the entry begins that is started when no bank can be booted.
const RECOVERY_ENTRY: &str = "roro-recovery";

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
    let text = decode_list(value).into_iter().next()?;
    Bank::BOTH.into_iter().find(|bank| text.eq_ignore_ascii_case(entry_of_bank(*bank)))
}

/// Zero-terminated UTF-16 texts, one behind the other. What is no UTF-16 is no name of ours: it becomes an empty text.
fn decode_list(value: &[u8]) -> Vec<String> {
    let units: Vec<u16> = value
        .chunks_exact(2)
        .map(|pair| pair.iter().rev().fold(0, |unit, byte| unit << 8 | u16::from(*byte)))
        .collect();
    units.split(|unit| *unit == 0).map(|text| String::from_utf16(text).unwrap_or_default()).collect()
}

fn encode(entry: &str) -> Vec<u8> {
    entry.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect()
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
        let value = encode(entry_of_bank(bank));
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

    fn recover(&mut self) -> Result<Recovery, S::Error> {
        let entries = self.vars.read(ENTRIES, LOADER_VENDOR)?.unwrap_or_default();
        match decode_list(&entries).iter().find(|entry| entry.starts_with(RECOVERY_ENTRY)) {
            Some(entry) => self.vars.write(ONE_SHOT, LOADER_VENDOR, &encode(entry)).map(|()| Recovery::Next),
            None => Ok(Recovery::NotConfigured),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::efi::tests::Memory;

    #[test]
    fn banks_are_known_by_their_entry() {
        for bank in Bank::BOTH {
            assert_eq!(bank_of_entry(&encode(entry_of_bank(bank))), Some(bank));
            assert_eq!(bank_of_entry(&encode(&entry_of_bank(bank).to_uppercase())), Some(bank));
        }
        for other in [&b""[..], b"r", &encode("roro-c.efi"), &[0, 0xd8, 0, 0]] {
            assert_eq!(bank_of_entry(other), None);
        }
    }

    #[test]
    fn recovery_is_the_entry_with_that_name_and_only_for_the_next_boot() {
        let mut loader = SystemdBoot::new(Memory::default());
        loader.set_default(Bank::A, Spare::Unbootable).unwrap();
        let before = loader.vars.clone();
        assert_eq!(loader.recover().unwrap(), Recovery::NotConfigured);
        assert_eq!(loader.vars, before);
        let entries = ["roro-a.efi", "roro-b.efi", "roro-recovery.conf", "auto-windows"].map(encode).concat();
        loader.vars.write(ENTRIES, LOADER_VENDOR, &entries).unwrap();
        assert_eq!(loader.recover().unwrap(), Recovery::Next);
        assert_eq!(loader.vars.read(ONE_SHOT, LOADER_VENDOR).unwrap(), Some(encode("roro-recovery.conf")));
        assert_eq!(loader.vars.read(DEFAULT, LOADER_VENDOR).unwrap(), Some(encode("roro-a.efi")));
        assert_eq!(loader.next().unwrap(), None, "it is no bank");
    }
}
