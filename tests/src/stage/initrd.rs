//! The initrd's part of a boot: the real ledger decides, and the real backend carries a redirect to the loader.

use bank_format::{
    Bank, efi,
    loader::{Kind, Loader as _, RECOVERY_TITLE, Recovery},
};
use boot_hooks::ledger::{Going, Ledger, Ruling};

use super::{
    Machine, Played,
    image::{Started, root_is_whole},
    told::Told,
};
use crate::{
    loaders,
    storage::{Place, Writer},
};

/// How a boot ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// A system is up and quiet.
    Up,
    /// In a reset.
    Reset,
    /// In the stated end.
    Stopped,
}

/// Whether `/run/roro/trial` is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trial {
    Yes,
    No,
}

/// How far it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Passed {
    /// Into the root.
    Root {
        /// As what.
        trial: Trial,
    },
    /// Not that far.
    Ended(End),
}

impl Machine {
    pub(super) fn initrd(&mut self, bank: Bank, gave_up: Option<Bank>, started: &Started) -> Played<Passed> {
        let storage = self.storage().clone();
        let medium = storage.medium(Place::Record, Writer::System);
        let mut loader = Told::new(self.kind, &storage, &self.parameter)?;
        let (mut ledger, ruling, _) = match Ledger::open(Ok(medium), bank, gave_up) {
            Ok(opened) => opened,
            Err(error) => {
                self.suffer(format!("ledger: {error}"))?;
                return Ok(Passed::Ended(End::Reset));
            }
        };
        self.note(format!("initrd in bank {bank}: {ruling:?}"));
        let going = match ruling {
            Ruling::Boot(going) => going,
            Ruling::Redirect(redirect, _) => match loader.redirect(redirect.to, redirect.spare) {
                Ok(()) => return Ok(Passed::Ended(End::Reset)),
                Err(error) => {
                    self.suffer(format!("redirect: {error}"))?;
                    if !ledger.stays().unwrap_or(false) {
                        return Ok(Passed::Ended(End::Reset));
                    }
                    Going::LastResort
                }
            },
            Ruling::Stop(_) => return self.stopped(&mut loader),
        };
        if going.checks_whole_image() && !root_is_whole(&storage, bank, started.root) {
            let reason = "initrd, root image: a block does not match its hash";
            self.note(format!("the root image of bank {bank} is rotten"));
            let told = match ledger.image_is_rotten(reason) {
                Ok(Some(redirect)) => {
                    loader.redirect(redirect.to, redirect.spare).map_err(|error| format!("redirect: {error}"))
                }
                Ok(None) => ledger.note_failure(reason),
                Err(why) => Err(why),
            };
            told.or_else(|why| self.suffer(why))?;
            return Ok(Passed::Ended(End::Reset));
        }
        let trial = if going == Going::Trial { Trial::Yes } else { Trial::No };
        Ok(Passed::Root { trial })
    }

    /// The stated end. Which loader shows by itself that there is a recovery entry is `BootLoader::recover`'s to know.
    fn stopped(&mut self, loader: &mut Told) -> Played<Passed> {
        let shows_it = matches!(self.kind, Kind::Efi | Kind::SystemdBoot);
        let recovery = if shows_it || self.board.recovery == loaders::Recovery::Configured {
            if self.kind == Kind::Efi && self.board.recovery == loaders::Recovery::Configured {
                let partition = loaders::recovery_partition();
                efi::ensure_entry(&mut self.storage().variables(), RECOVERY_TITLE, &partition)
                    .map_err(|error| format!("entry for recovery: {error:?}"))?;
            }
            loader.recover().map_err(|error| format!("recover: {error}"))?
        } else {
            Recovery::NotConfigured
        };
        self.note(format!("no bank can be booted; recovery: {recovery:?}"));
        Ok(Passed::Ended(match recovery {
            Recovery::Next => {
                self.asked_for_recovery = true;
                End::Reset
            }
            Recovery::NotConfigured => End::Stopped,
        }))
    }
}
