//! How the checks of the newest trial stand: while its gate is at work, and after its verdict.

use std::path::Path;

use bank_format::Release;
use serde::Serialize;

use crate::{
    device::Device,
    engine::State,
    error::Result,
    evidence,
    gate::{Finding, reason},
    health::rounds::Standing,
};

/// The checks of one trial.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Judged {
    /// What was, or is, on trial.
    pub release: Option<Release>,
    /// `judging`, or what came of it: `confirmed`, `rejected`.
    pub phase: &'static str,
    /// Each check, without its output.
    pub checks: Vec<Finding>,
}

/// The trial that runs, as its gate saw it a few seconds ago; else the newest one of which the history knows the checks.
pub(super) fn newest(device: &Device, state_dir: &Path) -> Result<Option<Judged>> {
    if matches!(device.engine().state(), State::Trial(_) | State::Healthy(_)) {
        let bank = device.running();
        let release = device.record().banks.get(bank).release.clone();
        let findings = evidence::under_way(state_dir, release.as_ref(), bank);
        let checks: Vec<_> = findings.iter().map(Finding::in_short).collect();
        return Ok((!checks.is_empty()).then_some(Judged { release, phase: "judging", checks }));
    }
    let judged = device.ports.history.entries()?.into_iter().rev().find(|entry| !entry.checks.is_empty());
    Ok(judged.map(|entry| Judged { release: entry.release, phase: entry.event.word(), checks: entry.checks }))
}

impl Judged {
    /// In one line.
    pub(super) fn words(&self) -> String {
        let healthy = self.checks.iter().filter(|check| check.state == Standing::Healthy).count();
        let of_all = format!("{healthy} of {} checks healthy", self.checks.len());
        let waiting = self.checks.iter().find(|check| check.state == Standing::Waiting);
        match (reason(&self.checks), waiting) {
            (Some(reason), _) => format!("{of_all}, failed: {reason}"),
            (None, Some(check)) => format!("{of_all}, waiting for: {}", check.check),
            (None, None) => of_all,
        }
    }
}
