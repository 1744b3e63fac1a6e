//! Early in each boot: found or repair the record, report what became of a trial, complete what was interrupted.

use bank_format::record::Outcome;

use crate::{
    bank::close_unwanted,
    device::{Device, NoWork},
    engine::{Event, Rearm},
    error::Result,
    history::{Entry, Happening},
    ports::AfterReboot,
};

/// Settles this boot. A machine that must boot again at once (a trial with tries left) is on its way down when this returns.
pub fn settle(device: &mut Device, rearm: Rearm) -> Result<Option<AfterReboot>> {
    let boot_id = device.boot_id()?;
    let after = device.handle(Event::Booted { boot_id, rearm }, &mut NoWork)?;
    note_lost_bank(device)?;
    if after.is_none() {
        close_unwanted(device.ports.disk.as_ref(), device.record(), device.running())?;
    }
    Ok(after)
}

/// The initrd can change the record, but not the history: a bank that it gave up is noted here, once.
fn note_lost_bank(device: &mut Device) -> Result<()> {
    let record = device.record();
    let Some(last) = record.last_result.clone().filter(|last| last.outcome == Outcome::BankLost) else {
        return Ok(());
    };
    let entry = Entry {
        unix_seconds: device.ports.clock.unix_seconds(),
        event: Happening::BankLost,
        release: last.release,
        bank: Some(!record.confirmed),
        reason: last.reason,
        evidence: None,
        floor: record.floor.clone(),
    };
    let known = device
        .ports
        .history
        .entries()?
        .into_iter()
        .rev()
        .find(|entry| !matches!(entry.event, Happening::RecordFounded | Happening::RecordRebuilt));
    match known {
        Some(known) if known.event == Happening::BankLost && known.bank == entry.bank => Ok(()),
        Some(_) | None => device.ports.history.append(&entry),
    }
}
