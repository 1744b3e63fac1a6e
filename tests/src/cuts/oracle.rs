//! What must hold in every state, read from the bytes on the storage and from what the device says of itself.
//!
//! - A power cut alone never costs both copies of the record.
//! - A bank whose first block is there is whole: firmware that has forgotten everything starts no mixture.
//! - Once it is quiet, nothing waits to be flushed.
//! - Some bank boots, and what boots is, byte for byte, a release that was signed.
//! - What comes to rest was confirmed: before, or by its own health gate.
//! - The floor never falls.
//! - What `status` says of either bank is what lies there, and what was interrupted is named.
//! - The power may go once more, and it stays.
//! - The same command leads to the end in two boots, and the next release can be installed.
//! - Nothing grows without a bound.

use std::{
    cell::RefCell,
    collections::{BTreeMap, HashSet},
};

use bank_format::{
    Bank,
    record::{BankState, COPY_BYTES, Copy, decode_copy},
    release::Version,
};
use boot_hooks::scenarios::Image;
use updater::status::Status;

use super::flows::{Flow, Leads};
use crate::{
    loaders::LOADABLE,
    stage::{
        Machine, Played, Quiet,
        image::{BOOT_BYTES, ROOT_BYTES, Release, started_in},
    },
    storage::{Contents, Place},
};

/// Files of the state directory.
const MAX_FILES: usize = 64;
/// Bytes of all of them.
const MAX_FILE_BYTES: usize = 256 << 10;
/// Boots that the same command may take.
const MAX_BOOTS: u32 = 2;

/// Cuts in a row that may look like a bank that does not boot.
const CUTS_TO_AN_END: usize = 3;
/// Stated ends, one after the other.
const ENDS_IN_A_ROW: usize = 3;

/// The images of a release.
struct Images {
    boot: Vec<u8>,
    root: Vec<u8>,
}

/// Judges the states of one flow.
pub struct Judge {
    flow: Flow,
    /// Minor versions that may come to rest.
    allowed: Vec<u8>,
    newest: u8,
    floor: Option<Version>,
    /// Judged before, by the bank that runs and the fingerprint of what lies there.
    settled: RefCell<HashSet<(Bank, u128)>>,
    images: RefCell<BTreeMap<Release, Images>>,
}

impl Judge {
    /// A flow that began like this and came to this without a cut.
    #[must_use]
    pub fn new(flow: &Flow, before: &Machine, after: &Machine) -> Self {
        let bank = before.confirmed_on_record();
        let mut allowed = vec![before.minor_in(bank)];
        match flow.leads {
            Leads::ToTheNewest | Leads::BackFromTheNewest => allowed.push(after.newest_minor()),
            Leads::ToTheOther => allowed.push(before.minor_in(!bank)),
            Leads::Nowhere | Leads::ToTheEnd => (),
        }
        Self {
            flow: *flow,
            allowed,
            newest: after.newest_minor(),
            floor: before.floor_on_record(),
            settled: RefCell::default(),
            images: RefCell::default(),
        }
    }

    /// What must hold before the power comes back.
    pub fn survives(&self, contents: &Contents) -> Played<()> {
        let record = contents.bytes(Place::Record);
        let is_whole = |copy: &[u8]| matches!(decode_copy(copy), Ok(Copy::Good(..)));
        if !record.chunks(COPY_BYTES).any(is_whole) {
            return Err("no copy of the record is whole".into());
        }
        if self.flow.rots || self.flow.leads == Leads::ToTheEnd {
            return Ok(());
        }
        let starts = |bank: &Bank| contents.bytes(Place::Boot(*bank)).starts_with(LOADABLE);
        Bank::BOTH.into_iter().filter(starts).try_for_each(|bank| self.is_signed(contents, bank))
    }

    /// What must hold when a command is done, or a system is up.
    pub fn is_flushed(machine: &Machine) -> Played<()> {
        let (places, files) = (machine.storage().unflushed_by_system(), machine.storage().unflushed_files());
        if places.is_empty() && files.is_empty() {
            Ok(())
        } else {
            Err(format!("it is quiet, and this is not flushed: {places:?} {files:?}"))
        }
    }

    /// Judges a machine that has become quiet after so many cuts.
    pub fn judge(&self, machine: &mut Machine, mut quiet: Quiet, cuts: usize) -> Played<()> {
        // Boots that were cut short count as failed ones. The stated end that many of them come to resets after its pause, and boots.
        for _ in 0..ENDS_IN_A_ROW {
            if cuts >= CUTS_TO_AN_END && matches!(quiet, Quiet::Stopped | Quiet::StoppedByInitrd) {
                quiet = machine.power_on()?;
            }
        }
        if self.flow.leads == Leads::ToTheEnd {
            return match quiet {
                Quiet::Stopped | Quiet::StoppedByInitrd | Quiet::Recovers => Ok(()),
                Quiet::Up(_) | Quiet::Spins => Err(format!("no bank is good, and it is {quiet:?}")),
            };
        }
        Self::is_flushed(machine)?;
        Self::ran_what_was_proven(machine)?;
        let Quiet::Up(bank) = quiet else { return Err(format!("a bank is good, and it is {quiet:?}")) };
        if !self.settled.borrow_mut().insert((bank, machine.storage().contents().fingerprint())) {
            return Ok(());
        }
        let status = self.looks_right(machine, quiet)?;
        self.stays(machine, quiet, &status)?;
        self.goes_on(machine)
    }

    fn ran_what_was_proven(machine: &Machine) -> Played<()> {
        match machine.ran_as_confirmed.difference(&machine.gate_passed).next() {
            Some(unproven) => Err(format!("1.{unproven}.0 ran as confirmed, and never passed its gate")),
            None => Ok(()),
        }
    }

    fn looks_right(&self, machine: &Machine, quiet: Quiet) -> Played<Status> {
        let Quiet::Up(bank) = quiet else { return Err(format!("a bank is good, and it is {quiet:?}")) };
        let status = machine.status()?;
        let minor = machine.minor_in(bank);
        if !self.allowed.contains(&minor) {
            return Err(format!("1.{minor}.0 runs, and only {:?} may", self.allowed));
        }
        machine.storage().with(|contents| self.is_signed(contents, bank))?;
        let told = status.release.as_ref().map(|release| &release.version);
        if (status.active, status.confirmed, told) != (bank, bank, Some(&Version::new(1, minor.into(), 0))) {
            return Err(format!(
                "1.{minor}.0 runs in bank {bank}, and status says {told:?} in {}, confirmed {}",
                status.active, status.confirmed
            ));
        }
        if status.trial.as_ref().is_some_and(|trial| trial.bank == bank) {
            return Err("it has come to rest on trial".into());
        }
        Self::ran_what_was_proven(machine)?;
        if status.floor < self.floor {
            return Err(format!("the floor fell from {:?} to {:?}", self.floor, status.floor));
        }
        self.other_bank(machine, !bank, &status)?;
        let (files, bytes) =
            machine.storage().with(|contents| (contents.files().names.len(), contents.files().bytes()));
        if files > MAX_FILES || bytes > MAX_FILE_BYTES {
            return Err(format!("{files} files with {bytes} bytes in the state directory"));
        }
        Ok(status)
    }

    /// What is said of the bank that does not run.
    fn other_bank(&self, machine: &Machine, bank: Bank, status: &Status) -> Played<()> {
        let said = status.passive.release.as_ref().map(|release| release.version.clone());
        match status.passive.state {
            // What was never armed is closed again; the command that was interrupted is named.
            BankState::Written if status.interrupted.is_some() => (),
            BankState::Confirmed if self.flow.leads == Leads::ToTheOther && self.flow.rots => (),
            BankState::Written | BankState::Confirmed => {
                machine.storage().with(|contents| self.is_signed(contents, bank))?;
                let there = machine.minor_in(bank);
                if said != Some(Version::new(1, there.into(), 0)) {
                    return Err(format!("bank {bank} is said to hold {said:?}, and holds 1.{there}.0"));
                }
            }
            BankState::Writing => match &status.interrupted {
                Some(interrupted) if interrupted.bank == bank => (),
                other => return Err(format!("bank {bank} is half written, and interrupted is {other:?}")),
            },
            BankState::Empty | BankState::Failed => {
                let starts = machine
                    .storage()
                    .with(|contents| contents.bytes(Place::Boot(bank)).starts_with(LOADABLE));
                if starts && said.is_some() {
                    return Err(format!("{said:?} was given up, and bank {bank} still starts"));
                }
            }
        }
        Ok(())
    }

    fn is_signed(&self, contents: &Contents, bank: Bank) -> Played<()> {
        let release = started_in(contents, bank).release;
        let mut known = self.images.borrow_mut();
        let images = || Images { boot: release.boot(), root: release.root() };
        let Images { boot, root } = known.entry(release).or_insert_with(images);
        let same = |place, image: &[u8], bytes| contents.bytes(place).get(..bytes) == Some(image);
        if same(Place::Boot(bank), boot, BOOT_BYTES) && same(Place::Root(bank), root, ROOT_BYTES) {
            Ok(())
        } else {
            Err(format!("what lies in bank {bank} is no release: it calls itself {}", release.version()))
        }
    }

    /// The power goes once more.
    fn stays(&self, machine: &Machine, quiet: Quiet, status: &Status) -> Played<()> {
        let mut after = machine.with_contents(machine.storage().contents());
        let again = after.power_on()?;
        let said =
            self.looks_right(&after, again).map_err(|why| format!("after another power cut: {why}"))?;
        let armed = status.trial.is_some();
        if again != quiet && !armed {
            return Err(format!("it was {quiet:?}, and after another power cut it is {again:?}"));
        }
        if !armed && (said.confirmed, &said.floor) != (status.confirmed, &status.floor) {
            return Err("another power cut has changed what is confirmed".into());
        }
        Ok(())
    }

    /// The same command once more, and then the next release.
    fn goes_on(&self, machine: &Machine) -> Played<()> {
        let mut machine = machine.copy();
        (self.flow.again)(&mut machine).map_err(|why| format!("the same command again: {why}"))?;
        if self.flow.leads == Leads::ToTheNewest {
            self.arrives(&mut machine, self.newest)?;
        }
        machine.install(Image::Good).map_err(|why| format!("the next release: {why}"))?;
        let next = machine.newest_minor();
        self.arrives(&mut machine, next)
    }

    fn arrives(&self, machine: &mut Machine, minor: u8) -> Played<()> {
        let running = machine.running().map(|bank| machine.minor_in(bank));
        if running != Some(minor) {
            let quiet = machine.reboot()?;
            let found = machine.running().map(|bank| machine.minor_in(bank));
            if found != Some(minor) || machine.starts > MAX_BOOTS {
                return Err(format!(
                    "1.{minor}.0 was to run; after {} boots it is {quiet:?} with {found:?}",
                    machine.starts
                ));
            }
        }
        let status = machine.status()?;
        if Some(status.confirmed) == machine.running() {
            Ok(())
        } else {
            Err(format!("1.{minor}.0 is not confirmed"))
        }
    }
}
