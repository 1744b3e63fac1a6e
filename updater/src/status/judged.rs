//! How the checks of the newest trial stand: while its gate is at work, and after its verdict.

use std::path::Path;

use bank_format::Release;
use serde::Serialize;

use crate::{
    device::Device,
    engine::State,
    error::Result,
    evidence,
    files::{Files, State as StateDirectory},
    gate::{Finding, reason},
    health::rounds::Standing,
    history::{Entry, Happening},
};

/// The checks of one trial.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Judged {
    /// What was, or is, on trial.
    pub release: Option<Release>,
    /// `judging`, or what came of it: `confirmed`, `rejected`; `fell-back` where the trial ended before its gate had decided.
    pub phase: &'static str,
    /// Each check, without its output.
    pub checks: Vec<Finding>,
}

/// The trial that runs, as its gate saw it a few seconds ago; else the newest one that has ended, if anything is known of its checks.
pub(super) fn newest(device: &Device, state: &StateDirectory) -> Result<Option<Judged>> {
    if matches!(device.engine().state(), State::Trial(_) | State::Healthy(_)) {
        let bank = device.running();
        let release = device.record().banks.get(bank).release.clone();
        let findings = evidence::under_way(state, release.as_ref(), bank);
        let checks: Vec<_> = findings.iter().map(Finding::in_short).collect();
        return Ok((!checks.is_empty()).then_some(Judged { release, phase: "judging", checks }));
    }
    Ok(last_verdict(state.files().as_ref(), device.ports.history.entries()?))
}

/// A trial that was rejected has two entries: that of its gate, with the checks, and that of the fallback.
fn last_verdict(files: &dyn Files, entries: Vec<Entry>) -> Option<Judged> {
    let mut ends = entries.into_iter().rev().filter(|entry| match entry.event {
        Happening::Confirmed | Happening::Rejected | Happening::FellBack => true,
        // It ends what came before: a trial that was armed since has no verdict of an older one.
        Happening::Armed => true,
        Happening::RecordFounded
        | Happening::RecordRebuilt
        | Happening::InstallStarted
        | Happening::Rearmed
        | Happening::Cancelled
        | Happening::BankLost => false,
    });
    let newest = ends.find(|entry| entry.event != Happening::Armed)?;
    let entry = match newest.event {
        Happening::FellBack => match ends.next() {
            Some(before) if before.event == Happening::Rejected && before.bank == newest.bank => before,
            Some(_) | None => newest,
        },
        Happening::Confirmed | Happening::Rejected => newest,
        Happening::Armed
        | Happening::RecordFounded
        | Happening::RecordRebuilt
        | Happening::InstallStarted
        | Happening::Rearmed
        | Happening::Cancelled
        | Happening::BankLost => return None,
    };
    let mut checks = entry.checks;
    if let (true, Some(evidence)) = (checks.is_empty(), &entry.evidence) {
        // Its gate could not speak for itself any more, but has kept how they stood.
        checks = evidence::read(files, Path::new(evidence)).checks.iter().map(Finding::in_short).collect();
    }
    (!checks.is_empty()).then(|| Judged { release: entry.release, phase: entry.event.word(), checks })
}

impl Judged {
    /// In one line.
    pub(super) fn words(&self) -> String {
        let healthy = self.checks.iter().filter(|check| check.state == Standing::Healthy).count();
        let release = super::named(self.release.as_ref());
        let of_all = format!("{release}, {}: {healthy} of {} checks healthy", self.phase, self.checks.len());
        let waiting = self.checks.iter().find(|check| check.state == Standing::Waiting);
        match (reason(&self.checks), waiting) {
            (Some(reason), _) => format!("{of_all}, failed: {reason}"),
            (None, Some(check)) => format!("{of_all}, waiting for: {}", check.check),
            (None, None) => of_all,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bank_format::{Bank, release::Version};

    use super::*;
    use crate::files::DiskFiles;

    fn entry(event: Happening, minor: u64, checks: &[&str]) -> Entry {
        let finding = |name: &&str| Finding::of_step(name, Ok(()), Duration::ZERO);
        Entry {
            unix_seconds: 0,
            event,
            release: Some(Release { name: "demo".into(), version: Version::new(1, minor, 0) }),
            bank: Some(Bank::B),
            reason: None,
            evidence: None,
            floor: None,
            checks: checks.iter().map(finding).collect(),
        }
    }

    #[test]
    fn a_trial_that_died_is_not_told_by_the_checks_of_an_older_one() {
        use Happening::{Armed, Confirmed, FellBack, InstallStarted, Rejected};
        let old = [entry(Armed, 1, &[]), entry(Confirmed, 1, &["old"])];
        let told = |newer: &[Entry]| last_verdict(&DiskFiles, [&old, newer].concat());
        assert_eq!(told(&[]).unwrap().words(), "demo 1.1.0, confirmed: 1 of 1 checks healthy");
        assert_eq!(told(&[entry(InstallStarted, 2, &[]), entry(Armed, 2, &[])]).unwrap().phase, "confirmed");
        assert_eq!(told(&[entry(Armed, 2, &[]), entry(FellBack, 2, &[])]), None, "it died at once");
        let rejected = [entry(Armed, 2, &[]), entry(Rejected, 2, &["new"]), entry(FellBack, 2, &[])];
        let judged = told(&rejected).unwrap();
        assert_eq!((judged.phase, judged.checks[0].check.as_str()), ("rejected", "new"));

        let dir = tempfile::tempdir().unwrap();
        let kept = vec![Finding::of_step("kept", Ok(()), Duration::ZERO)];
        std::fs::write(dir.path().join("checks.json"), serde_json::to_vec(&kept).unwrap()).unwrap();
        let evidence = Some(dir.path().display().to_string());
        let hung = Entry { evidence, ..entry(FellBack, 2, &[]) };
        let judged = told(&[entry(Armed, 2, &[]), hung]).unwrap();
        assert_eq!(judged.words(), "demo 1.2.0, fell-back: 1 of 1 checks healthy");
    }
}
