//! Going back: withdraw what was not tried, reject what is tried, or try the older release in the other bank.

use std::rc::Rc;

use bank_format::{Bank, Release, record::BankState};

use crate::{
    bank::{PassiveBank, Staged, close_unwanted, prove},
    device::{BankWork, Device, NoWork},
    engine::{Event, State},
    error::{Error, Refusal, Result},
    ports::{BankDisk, Phase, Progress},
    record::how_it_failed,
};

/// What a rollback came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RolledBack {
    /// What was installed and not tried is withdrawn.
    Cancelled(Bank),
    /// The running trial is rejected: a reboot goes back.
    Rejected(Bank),
    /// The other bank is armed: a reboot tries it.
    Armed(Bank),
}

/// Goes back by the way that fits where the device stands.
pub fn rollback(device: &mut Device, progress: &mut dyn Progress) -> Result<RolledBack> {
    match device.engine().state() {
        State::Installing(bank) | State::Installed(bank) | State::Armed(bank) => {
            device.handle(Event::Cancel, &mut NoWork)?;
            close_unwanted(device.ports.disk.as_ref(), device.record(), device.running())?;
            Ok(RolledBack::Cancelled(bank))
        }
        State::Trial(bank) | State::Healthy(bank) => {
            device.handle(Event::Reject { reason: "rejected by hand".into() }, &mut NoWork)?;
            Ok(RolledBack::Rejected(bank))
        }
        State::Rejected(bank) => Err(Error::NothingToDo {
            detail: format!("the trial of bank {bank} is rejected already, a reboot goes back"),
        }),
        State::Unsettled(_) => Err(unsettled(device)),
        State::Idle | State::Confirmed | State::FellBack => {
            if device.record().confirmed != device.running() {
                return Err(unsettled(device));
            }
            to_the_other(device, progress)
        }
    }
}

fn unsettled(device: &Device) -> Error {
    Error::Unsettled { running: device.running(), confirmed: device.record().confirmed }
}

fn to_the_other(device: &mut Device, progress: &mut dyn Progress) -> Result<RolledBack> {
    let bank = !device.running();
    preflight(device, bank)?;
    let disk = Rc::clone(&device.ports.disk);
    let known = device.record().banks.get(bank).clone();
    progress.begin(Phase::ReadBack, known.images.values().map(|proof| proof.bytes).sum());
    let mut work = ProveWork { disk: disk.as_ref(), bank, known: &known, progress };
    device.handle(Event::BeginRollback, &mut work)?;
    progress.end();
    let boot_id = device.boot_id()?;
    device.handle(Event::RollbackProven { boot_id }, &mut NoWork)?;
    Ok(RolledBack::Armed(bank))
}

fn preflight(device: &Device, bank: Bank) -> Result<Release> {
    let record = device.record();
    let known = record.banks.get(bank);
    let no_way = |why: &str| Err(Error::Refused(Refusal::NoWayBack { bank, why: why.into() }));
    match known.state {
        BankState::Confirmed => (),
        BankState::Empty => return no_way("it is empty"),
        BankState::Writing => return no_way("it is half written"),
        BankState::Written => return no_way("its release was never confirmed"),
        BankState::Failed => return no_way(how_it_failed(record, bank)),
    }
    let Some(release) = known.release.clone() else {
        return no_way("it is not known what it holds");
    };
    match record.floor.clone().filter(|floor| release.version < *floor) {
        Some(floor) => Err(Error::Refused(Refusal::BelowFloor { release, floor })),
        None => Ok(release),
    }
}

struct ProveWork<'a> {
    disk: &'a dyn BankDisk,
    bank: Bank,
    known: &'a bank_format::record::BankRecord,
    progress: &'a mut dyn Progress,
}

impl BankWork for ProveWork<'_> {
    fn wipe(&mut self, _: PassiveBank) -> Result<()> {
        Err(Error::Bug { detail: "a rollback writes nothing" })
    }

    fn write(&mut self) -> Result<()> {
        Err(Error::Bug { detail: "a rollback writes nothing" })
    }

    fn read_back(&mut self) -> Result<Staged> {
        prove(self.disk, self.bank, self.known, self.progress)
    }
}
