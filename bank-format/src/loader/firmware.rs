//! UEFI boot variables as a [`Loader`].
//!
//! The firmware counts nothing, so the one-shot `BootNext` is the counter: while the spare bank is bootable, each good boot sets
//! `BootNext` to the default bank and leaves the spare first in `BootOrder`. A default bank that dies before it can do so again
//! has used up `BootNext`, and the firmware starts the spare, whose initrd decides by the record.

use super::{Loader, RECOVERY_TITLE, Recovery, Spare};
use crate::{
    bank::{Bank, PerBank},
    efi::{
        GLOBAL_VENDOR, Partition, VarStore, clear_next, ensure_entries, entry_name, entry_title,
        entry_titled, next, set_next, set_order, title_of,
    },
};

/// The firmware's boot manager.
#[derive(Debug, Clone)]
pub struct Firmware<S> {
    vars: S,
    partitions: PerBank<Partition>,
}

impl<S: VarStore> Firmware<S> {
    /// The boot manager with these variables, and the partitions that its entries start.
    #[must_use]
    pub fn new(vars: S, partitions: PerBank<Partition>) -> Self {
        Self { vars, partitions }
    }

    /// The variables.
    pub fn vars(&self) -> &S {
        &self.vars
    }

    fn entries(&mut self) -> Result<PerBank<u16>, S::Error> {
        ensure_entries(&mut self.vars, &self.partitions)
    }

    fn next_is(&self, entry: u16) -> Result<bool, S::Error> {
        Ok(next(&self.vars)? == Some(entry))
    }
}

impl<S: VarStore> Loader for Firmware<S> {
    type Error = S::Error;

    fn next(&mut self) -> Result<Option<Bank>, S::Error> {
        let Some(next) = next(&self.vars)? else { return Ok(None) };
        let title = self.vars.read(&entry_name(next), GLOBAL_VENDOR)?.and_then(|option| title_of(&option));
        Ok(Bank::BOTH.into_iter().find(|bank| title.as_deref() == Some(entry_title(*bank))))
    }

    fn set_next(&mut self, bank: Bank) -> Result<(), S::Error> {
        let entries = self.entries()?;
        // The order first: a trial that dies must find the other bank in front.
        set_order(&mut self.vars, &entries, !bank)?;
        set_next(&mut self.vars, *entries.get(bank))
    }

    fn set_default(&mut self, first: Bank, spare: Spare) -> Result<(), S::Error> {
        let entries = self.entries()?;
        let entry = *entries.get(first);
        match spare {
            Spare::Bootable => {
                // The one-shot first: with the order alone the next boot would start the spare.
                if !self.next_is(entry)? {
                    set_next(&mut self.vars, entry)?;
                }
                set_order(&mut self.vars, &entries, !first)
            }
            Spare::Unbootable => {
                set_order(&mut self.vars, &entries, first)?;
                match next(&self.vars)? {
                    Some(_) => clear_next(&mut self.vars),
                    None => Ok(()),
                }
            }
        }
    }

    fn redirect(&mut self, to: Bank, spare: Spare) -> Result<(), S::Error> {
        match spare {
            // The spare stays in front: `to` may be a bank whose kernel dies before anything can count it.
            Spare::Bootable => self.set_default(to, spare),
            Spare::Unbootable => {
                let entries = self.entries()?;
                set_order(&mut self.vars, &entries, to)?;
                // Last: should the order be lost on this firmware, the next boot goes right all the same.
                set_next(&mut self.vars, *entries.get(to))
            }
        }
    }

    fn recover(&mut self) -> Result<Recovery, S::Error> {
        match entry_titled(&self.vars, RECOVERY_TITLE)? {
            Some(entry) => set_next(&mut self.vars, entry).map(|()| Recovery::Next),
            None => Ok(Recovery::NotConfigured),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::efi::{load_option, tests::Memory};

    #[test]
    fn variables_that_are_no_lists_are_written_anew() {
        let partition =
            |number| Partition { number, first_lba: 2048, blocks: 4096, guid: [number as u8; 16] };
        let mut loader = Firmware::new(Memory::default(), PerBank { a: partition(1), b: partition(2) });
        loader.set_default(Bank::A, Spare::Bootable).unwrap();
        let before = loader.vars.clone();
        for name in ["BootNext", "BootOrder"] {
            loader.vars.write(name, GLOBAL_VENDOR, &[1, 0, 7]).unwrap();
        }
        assert_eq!(loader.next().unwrap(), None);
        loader.redirect(Bank::A, Spare::Bootable).unwrap();
        for name in ["BootNext", "BootOrder"] {
            let read = |vars: &Memory| vars.read(name, GLOBAL_VENDOR).unwrap();
            assert_eq!(read(&loader.vars), read(&before), "{name}");
        }
    }

    #[test]
    fn recovery_is_the_entry_with_that_title_and_only_for_the_next_boot() {
        let partition =
            |number| Partition { number, first_lba: 2048, blocks: 4096, guid: [number as u8; 16] };
        let mut loader = Firmware::new(Memory::default(), PerBank { a: partition(1), b: partition(2) });
        loader.set_default(Bank::A, Spare::Unbootable).unwrap();
        let before = loader.vars.clone();
        assert_eq!(loader.recover().unwrap(), Recovery::NotConfigured);
        assert_eq!(loader.vars, before);
        let option = load_option(RECOVERY_TITLE, &partition(3));
        loader.vars.write("Boot0007", GLOBAL_VENDOR, &option).unwrap();
        assert_eq!(loader.recover().unwrap(), Recovery::Next);
        assert_eq!(next(&loader.vars).unwrap(), Some(7));
        assert_eq!(loader.next().unwrap(), None, "it is no bank");
    }
}
