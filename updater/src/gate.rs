//! The health gate: decides on a trial boot whether it may stay.

use std::{
    io::{self, Write},
    path::Path,
    time::Duration,
};

use bank_format::record::reason_line;

use crate::{
    device::{Device, NoWork},
    engine::{Event, State},
    error::{Error, Result},
    evidence, health, linux,
    machine::Machine,
    ports::AfterReboot,
};

/// How one check went.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Finding {
    /// Which check.
    pub check: String,
    /// Why it failed; nothing when it passed.
    pub failed: Option<String>,
}

/// Whether the system is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// Until it is up, at most so long.
    UntilUp(Duration),
    /// It is looked at as it is.
    No,
}

/// Makes all checks. The first that fails decides; the others are still made, for the record of a person.
pub fn examine(
    machine: &dyn Machine,
    wait: Wait,
    state_dir: &Path,
    health_dirs: &[std::path::PathBuf],
) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut note = |check: &str, result: Result<(), String>| {
        findings.push(Finding { check: check.into(), failed: result.err() });
    };
    if let Wait::UntilUp(deadline) = wait {
        note("system is up", machine.wait_until_up(deadline));
    }
    note(
        "no failed unit",
        machine.failed_units().and_then(|units| {
            if units.is_empty() { Ok(()) } else { Err(format!("failed: {}", units.join(", "))) }
        }),
    );
    note("state is writable", state_is_writable(state_dir).map_err(|error| error.to_string()));
    match health::load(health_dirs) {
        Ok(checks) => {
            for check in checks {
                note(&check.name, machine.check(&check.command, check.deadline()));
            }
        }
        Err(error) => note("health checks can be read", Err(error.line())),
    }
    findings
}

fn state_is_writable(state_dir: &Path) -> io::Result<()> {
    std::fs::create_dir_all(state_dir)?;
    let path = state_dir.join("gate.probe");
    let mut file = std::fs::File::create(&path)?;
    file.write_all(b"roro\n")?;
    file.sync_all()?;
    std::fs::remove_file(&path)?;
    linux::sync_directory_of(&path)
}

/// The reason in one line, if a check failed.
#[must_use]
pub fn reason(findings: &[Finding]) -> Option<String> {
    let failed = findings.iter().filter_map(|f| Some(format!("{}: {}", f.check, f.failed.as_ref()?)));
    let all: Vec<String> = failed.collect();
    if all.is_empty() { None } else { Some(reason_line(&all.join("; "))) }
}

/// What the gate did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// This boot is no trial.
    NoTrial,
    /// The trial is confirmed.
    Confirmed,
    /// The trial is rejected, and the machine goes down.
    Rejected {
        /// Why.
        reason: String,
        /// What comes after the reboot.
        after: Option<AfterReboot>,
    },
}

/// Carries out what the findings mean. The device must have been opened under the lock: a person may have decided meanwhile.
pub fn decide(
    device: &mut Device,
    machine: &dyn Machine,
    state_dir: &Path,
    findings: &[Finding],
) -> Result<Verdict> {
    let bank = match device.engine().state() {
        State::Trial(bank) => bank,
        State::Healthy(_) => {
            device.handle(Event::Confirm, &mut NoWork)?;
            return Ok(Verdict::Confirmed);
        }
        State::Idle
        | State::Confirmed
        | State::FellBack
        | State::Installing(_)
        | State::Installed(_)
        | State::Armed(_)
        | State::Rejected(_)
        | State::Unsettled(_) => return Ok(Verdict::NoTrial),
    };
    let Some(reason) = reason(findings) else {
        device.handle(Event::Confirm, &mut NoWork)?;
        return Ok(Verdict::Confirmed);
    };
    let release = device.record().banks.get(bank).release.clone();
    // Evidence that cannot be kept is no reason to stay in a sick system.
    let evidence = evidence::keep(state_dir, release.as_ref(), &reason, &machine.journal());
    let evidence = evidence.ok().map(|path| path.display().to_string());
    let after = device.handle(Event::GateFailed { reason: reason.clone(), evidence }, &mut NoWork)?;
    Ok(Verdict::Rejected { reason, after })
}

/// For `health`: the findings as an error.
pub fn healthy(findings: &[Finding]) -> Result<()> {
    match reason(findings) {
        None => Ok(()),
        Some(reason) => Err(Error::Unhealthy { reason }),
    }
}
