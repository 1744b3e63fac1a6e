//! systemd-boot's EFI variables as a [`Loader`].
//!
//! Source: <https://systemd.io/BOOT_LOADER_INTERFACE/>: `LoaderEntryOneShot` names the entry of the next boot and is removed by
//! the loader before it starts it; `LoaderEntryDefault` names the entry of all others; both are UTF-16 with a terminating zero.
//! Each is one firmware write. Like [`super::Firmware`], the one-shot doubles as the counter.
//!
//! An image that the firmware refuses to load (Secure Boot) ends systemd-boot: it returns to the firmware, tries nothing else and does
//! not reset. So the firmware has two entries that start the same systemd-boot, in front of all others: when the first one returns, the
//! one-shot is used up, and the second one starts the default. They choose no bank, so no cut of their writes changes which one starts.

use super::{Loader, Recovery, Spare};
use crate::{
    bank::Bank,
    efi::{LOADER_VENDOR, Partition, VarStore, ensure_entry, put_in_front},
};

const ONE_SHOT: &str = "LoaderEntryOneShot";
const DEFAULT: &str = "LoaderEntryDefault";
/// The entries that the loader has found in this boot, each UTF-16 with a terminating zero.
const ENTRIES: &str = "LoaderEntries";
/// How the name of the entry begins that is started when no bank can be booted.
const RECOVERY_ENTRY: &str = "roro-recovery";

/// Titles of the firmware entries that start systemd-boot, in their order.
pub const ENTRY_TITLES: [&str; 2] = ["Roro", "Roro (second try)"];

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
    esp: Option<Partition>,
}

impl<S: VarStore> SystemdBoot<S> {
    /// The loader with these variables.
    #[must_use]
    pub fn new(vars: S) -> Self {
        Self { vars, esp: None }
    }

    /// The partition that holds systemd-boot: each settled boot makes sure that two firmware entries start it.
    #[must_use]
    pub fn on_partition(self, esp: Option<Partition>) -> Self {
        Self { esp, ..self }
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

    fn ensure_entries(&mut self) -> Result<(), S::Error> {
        let Some(esp) = self.esp else { return Ok(()) };
        let [first, second] = ENTRY_TITLES;
        let numbers =
            [ensure_entry(&mut self.vars, first, &esp)?, ensure_entry(&mut self.vars, second, &esp)?];
        put_in_front(&mut self.vars, numbers)
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
                self.write(DEFAULT, !first)?;
            }
            Spare::Unbootable => {
                self.write(DEFAULT, first)?;
                if self.vars.read(ONE_SHOT, LOADER_VENDOR)?.is_some() {
                    self.vars.remove(ONE_SHOT, LOADER_VENDOR)?;
                }
            }
        }
        // The bank is told. Firmware that keeps no entries of ours is worse off with a refused image only, and that is no reason to
        // leave a good boot unsettled.
        let _kept = self.ensure_entries();
        Ok(())
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
    use crate::efi::{GLOBAL_VENDOR, encode_order, load_option, order, tests::Memory};

    const ESP: Partition = Partition { number: 1, first_lba: 2048, blocks: 98304, guid: [1; 16] };

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

    #[test]
    fn two_firmware_entries_in_front_start_systemd_boot() {
        let mut vars = Memory::default();
        vars.write("Boot0000", GLOBAL_VENDOR, &load_option("UEFI Shell", &ESP)).unwrap();
        vars.write("BootOrder", GLOBAL_VENDOR, &encode_order(&[0])).unwrap();
        let mut loader = SystemdBoot::new(vars).on_partition(Some(ESP));
        loader.set_default(Bank::A, Spare::Unbootable).unwrap();
        assert_eq!(order(&loader.vars).unwrap(), [1, 2, 0]);
        for (name, title) in ["Boot0001", "Boot0002"].into_iter().zip(ENTRY_TITLES) {
            let entry = loader.vars.read(name, GLOBAL_VENDOR).unwrap();
            assert_eq!(entry, Some(load_option(title, &ESP)), "{title}");
        }
        let settled = loader.vars.clone();
        loader.set_default(Bank::A, Spare::Unbootable).unwrap();
        assert_eq!(loader.vars, settled, "what is there is not written again");
        loader.vars.remove("Boot0002", GLOBAL_VENDOR).unwrap();
        loader.vars.write("BootOrder", GLOBAL_VENDOR, &encode_order(&[0, 1])).unwrap();
        loader.set_default(Bank::A, Spare::Unbootable).unwrap();
        assert_eq!(order(&loader.vars).unwrap(), [1, 2, 0], "what firmware has lost is made again");
    }

    /// Variables of a firmware that keeps no entries of others.
    struct Stubborn(Memory);

    impl VarStore for Stubborn {
        type Error = crate::Error;
        fn names(&self, vendor: &str) -> Result<Vec<String>, crate::Error> {
            self.0.names(vendor)
        }
        fn read(&self, name: &str, vendor: &str) -> Result<Option<Vec<u8>>, crate::Error> {
            self.0.read(name, vendor)
        }
        fn write(&mut self, name: &str, vendor: &str, value: &[u8]) -> Result<(), crate::Error> {
            if vendor == GLOBAL_VENDOR {
                return Err(crate::Error::malformed("firmware", "this variable is write-protected"));
            }
            self.0.write(name, vendor, value)
        }
        fn remove(&mut self, name: &str, vendor: &str) -> Result<(), crate::Error> {
            self.0.remove(name, vendor)
        }
    }

    #[test]
    fn firmware_that_keeps_no_entries_of_ours_is_told_the_bank_all_the_same() {
        let mut loader = SystemdBoot::new(Stubborn(Memory::default())).on_partition(Some(ESP));
        loader.set_default(Bank::B, Spare::Bootable).unwrap();
        assert_eq!(loader.next().unwrap(), Some(Bank::B));
        assert_eq!(loader.vars.read(DEFAULT, LOADER_VENDOR).unwrap(), Some(encode("roro-a.efi")));
    }
}
