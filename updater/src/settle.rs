//! Early in each boot: found or repair the record, report what became of a trial, complete what was interrupted. Before that, what the
//! boot before has left is gathered as evidence.

use std::path::Path;

use bank_format::record::Outcome;

use crate::{
    bank::close_unwanted,
    device::{Device, NoWork},
    engine::{Event, Rearm, State},
    error::Result,
    evidence::{self, Occasion, Witness},
    files::State as StateDirectory,
    history::{Entry, Happening},
    ports::AfterReboot,
    printer,
};

/// Gathers what the boot before has left in the state directory and in the kernel's store, then settles this boot. Evidence that cannot
/// be kept is said, and holds nothing up.
pub fn settle_with_evidence(
    device: &mut Device,
    rearm: Rearm,
    state: &StateDirectory,
    pstore: &Path,
) -> Result<Option<AfterReboot>> {
    let boot_id = device.boot_id()?;
    let witness = evidence::collect(state, pstore, occasion(device, &boot_id)).unwrap_or_else(|error| {
        printer::person(&format!("warning: {}", error.line()));
        None
    });
    let (was_due, trial_runs) = match occasion(device, &boot_id) {
        Occasion::FailedTrial { .. } => (true, false),
        Occasion::TrialRuns => (false, true),
        Occasion::Ordinary { .. } => (false, false),
    };
    if let Some(witness) = witness.as_ref().filter(|_| was_due) {
        device.note_witness(witness);
    }
    let after = settle_after(device, rearm, witness.as_ref())?;
    if !trial_runs && let Err(error) = evidence::close_all(state) {
        printer::person(&format!("warning: {}", error.line()));
    }
    Ok(after)
}

fn occasion<'a>(device: &'a Device, boot_id: &str) -> Occasion<'a> {
    let (engine, record) = (device.engine(), device.record());
    if let Some(trial) = record.trial.as_ref().filter(|_| engine.trial_was_due(boot_id)) {
        let release = record.banks.get(trial.bank).release.as_ref();
        let (reason, kept) = (trial.reason.as_deref(), engine.evidence());
        return Occasion::FailedTrial { release, bank: trial.bank, reason, kept };
    }
    let bank = device.running();
    match engine.state() {
        State::Trial(_) | State::Rejected(_) => Occasion::TrialRuns,
        State::Idle
        | State::Confirmed
        | State::FellBack
        | State::Installing(_)
        | State::Installed(_)
        | State::Armed(_)
        | State::Healthy(_)
        | State::Unsettled(_) => {
            Occasion::Ordinary { release: record.banks.get(bank).release.as_ref(), bank }
        }
    }
}

/// Settles this boot. A machine that must boot again at once (a trial with tries left) is on its way down when this returns.
pub fn settle(device: &mut Device, rearm: Rearm) -> Result<Option<AfterReboot>> {
    settle_after(device, rearm, None)
}

fn settle_after(device: &mut Device, rearm: Rearm, witness: Option<&Witness>) -> Result<Option<AfterReboot>> {
    let boot_id = device.boot_id()?;
    let after = device.handle(Event::Booted { boot_id, rearm }, &mut NoWork)?;
    note_lost_bank(device, witness);
    if after.is_none() {
        close_unwanted(device.ports.disk.as_ref(), device.record(), device.running())?;
    }
    Ok(after)
}

/// The initrd can change the record, but not the history: a bank that it gave up is noted here, once.
fn note_lost_bank(device: &mut Device, witness: Option<&Witness>) {
    let record = device.record();
    let Some(last) = record.last_result.clone().filter(|last| last.outcome == Outcome::BankLost) else {
        return;
    };
    let entry = Entry {
        unix_seconds: device.ports.clock.unix_seconds(),
        event: Happening::BankLost,
        release: last.release,
        bank: Some(!record.confirmed),
        reason: last.reason,
        evidence: witness.map(|witness| witness.directory.display().to_string()),
        floor: record.floor.clone(),
        checks: Vec::new(),
    };
    let entries = match device.ports.history.entries() {
        Ok(entries) => entries,
        // It would be noted again with each boot.
        Err(error) => return printer::person(&format!("warning: {}", error.line())),
    };
    let mut told = entries.into_iter().rev();
    let known =
        told.find(|entry| !matches!(entry.event, Happening::RecordFounded | Happening::RecordRebuilt));
    match known {
        Some(known) if known.event == Happening::BankLost && known.bank == entry.bank => (),
        Some(_) | None => device.remember(&entry),
    }
}
