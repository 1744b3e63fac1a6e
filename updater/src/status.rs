//! What `status` says: the record, the running bank and the loader, seen together.

use bank_format::{
    Bank, Release,
    record::{BankState, Outcome, Purpose, TrialPhase},
    release::Version,
};
use serde::Serialize;

mod judged;
mod warnings;

pub use judged::Judged;
pub use warnings::{Warning, of_machine};

use crate::{device::Device, engine::State, error::Result, gate::harmless};

/// The JSON of `status`. Schema: `docs/architecture.md`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Status {
    /// The release that runs, as far as it is known.
    pub release: Option<Release>,
    /// The bank that runs.
    pub active: Bank,
    /// The other bank.
    pub passive: Passive,
    /// The boot that is not yet confirmed.
    pub trial: Option<TrialStatus>,
    /// The bank that boots when nothing is on trial.
    pub confirmed: Bank,
    /// Boots that the trial still gets.
    pub tries_left: Option<u32>,
    /// The lowest version that may be installed or booted.
    pub floor: Option<Version>,
    /// The deed that was begun and has not ended.
    pub interrupted: Option<Interrupted>,
    /// How the last deed ended.
    pub last_result: Option<LastStatus>,
    /// How the checks of the newest trial stand.
    pub health: Option<Judged>,
    /// What a person should look at.
    pub warnings: Vec<Warning>,
}

/// The other bank.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Passive {
    /// What it holds.
    pub release: Option<Release>,
    /// What it is good for.
    pub state: BankState,
}

/// The boot that is not yet confirmed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TrialStatus {
    /// Which bank.
    pub bank: Bank,
    /// How far.
    pub phase: TrialPhase,
    /// Why it is tried.
    pub purpose: Purpose,
    /// Whether a reboot is what comes next.
    pub reboot_pending: bool,
    /// Why it failed.
    pub reason: Option<String>,
}

/// A deed that was begun and has not ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Interrupted {
    /// `install` or `rollback`.
    pub deed: String,
    /// Of which release.
    pub release: Option<Release>,
    /// Into which bank.
    pub bank: Bank,
    /// How far it came.
    pub step: &'static str,
}

/// How the last deed ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LastStatus {
    /// How.
    pub outcome: Outcome,
    /// Of which release.
    pub release: Option<Release>,
    /// Why.
    pub reason: Option<String>,
    /// The log that was kept.
    pub evidence: Option<String>,
}

/// Looks at the device.
pub fn status(device: &Device) -> Result<Status> {
    let record = device.record();
    let active = device.running();
    let passive = record.banks.get(!active);
    let state = device.engine().state();
    // A loader that cannot be read is a warning: the rest is worth knowing all the more.
    let armed = device.armed();
    let trial = record.trial.as_ref().map(|trial| TrialStatus {
        bank: trial.bank,
        phase: trial.phase,
        purpose: trial.purpose,
        reboot_pending: matches!(state, State::Armed(_) | State::Rejected(_)),
        reason: trial.reason.clone(),
    });
    Ok(Status {
        release: record.banks.get(active).release.clone(),
        active,
        passive: Passive { release: passive.release.clone(), state: passive.state },
        trial,
        confirmed: record.confirmed,
        tries_left: record.trial.as_ref().map(|trial| trial.tries_left),
        floor: record.floor.clone(),
        interrupted: interrupted(device, state, &armed),
        last_result: record.last_result.as_ref().map(|last| LastStatus {
            outcome: last.outcome,
            release: last.release.clone(),
            reason: last.reason.clone(),
            evidence: last.evidence.clone(),
        }),
        health: None,
        warnings: warnings::of_device(device, &armed),
    })
}

fn interrupted(device: &Device, state: State, armed: &Result<Option<Bank>>) -> Option<Interrupted> {
    let record = device.record();
    if let Some(intent) = &record.interrupted {
        let step = match state {
            State::Installed(_) => "arming",
            State::Idle
            | State::Confirmed
            | State::FellBack
            | State::Installing(_)
            | State::Armed(_)
            | State::Trial(_)
            | State::Healthy(_)
            | State::Rejected(_)
            | State::Unsettled(_) => "writing",
        };
        let release = Some(intent.release.clone());
        return Some(Interrupted { deed: intent.deed.clone(), release, bank: intent.bank, step });
    }
    let of_trial = |bank: Bank, step| Interrupted {
        deed: match record.trial.as_ref().map(|trial| trial.purpose) {
            Some(Purpose::Rollback) => "rollback".into(),
            Some(Purpose::Update) | None => "install".into(),
        },
        release: record.banks.get(bank).release.clone(),
        bank,
        step,
    };
    match state {
        // The record says so, and the loader does not know: the power went before the last write.
        State::Armed(bank) if armed.as_ref().is_ok_and(|armed| *armed != Some(bank)) => {
            Some(of_trial(bank, "arming"))
        }
        State::Healthy(bank) => Some(of_trial(bank, "confirming")),
        State::Unsettled(bank) => Some(of_trial(bank, "settling")),
        State::Armed(_)
        | State::Idle
        | State::Confirmed
        | State::FellBack
        | State::Installing(_)
        | State::Installed(_)
        | State::Trial(_)
        | State::Rejected(_) => None,
    }
}

fn named(release: Option<&Release>) -> String {
    release.map_or("unknown release".into(), ToString::to_string)
}

fn word<T: Serialize>(value: &T) -> String {
    serde_json::to_value(value).ok().and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default()
}

impl Status {
    /// Adds how the checks of the newest trial stand. A history that cannot be read is a warning.
    #[must_use]
    pub fn with_health(mut self, device: &Device, state: &crate::files::State) -> Self {
        match judged::newest(device, state) {
            Ok(health) => self.health = health,
            Err(error) => self.warnings.push(warnings::of_history(&error)),
        }
        self
    }

    /// The same for people, line by line.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let mut lines = vec![
            format!("running    {} in bank {}", named(self.release.as_ref()), self.active),
            match (&self.passive.release, self.passive.state) {
                (Some(release), BankState::Empty) => {
                    format!("other      bank {} (empty: {release} was given up)", !self.active)
                }
                (Some(release), _) => {
                    format!("other      {release} in bank {} ({})", !self.active, word(&self.passive.state))
                }
                (None, _) => format!("other      bank {} ({})", !self.active, word(&self.passive.state)),
            },
            format!("confirmed  bank {}", self.confirmed),
        ];
        if let Some(floor) = &self.floor {
            lines.push(format!("floor      {floor}"));
        }
        if let Some(trial) = &self.trial {
            let next = match (trial.reboot_pending, trial.phase) {
                (true, TrialPhase::Failed) => ", reboot to go back: updater reboot",
                (true, TrialPhase::Armed | TrialPhase::Started | TrialPhase::Healthy) => {
                    ", reboot to try it: updater reboot"
                }
                (false, _) => "",
            };
            let reason = trial.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
            lines.push(format!("trial      bank {}, {}{reason}{next}", trial.bank, word(&trial.phase)));
        }
        if let Some(tries_left) = self.tries_left {
            lines.push(format!("tries left {tries_left}"));
        }
        if let Some(interrupted) = &self.interrupted {
            lines.push(format!(
                "interrupted while {}: {} of {} into bank {}; run the same command again",
                interrupted.step,
                interrupted.deed,
                named(interrupted.release.as_ref()),
                interrupted.bank
            ));
        }
        if let Some(last) = &self.last_result {
            let release = last.release.as_ref().map(|r| format!(" {r}")).unwrap_or_default();
            let reason = last.reason.as_ref().map(|r| format!(": {r}")).unwrap_or_default();
            lines.push(format!("last       {}{release}{reason}", word(&last.outcome)));
            if let Some(evidence) = &last.evidence {
                lines.push(format!("evidence   {evidence}"));
            }
        }
        if let Some(health) = &self.health {
            lines.push(format!("health     {}", health.words()));
        }
        lines.extend(self.warnings.iter().map(|warning| format!("warning    {}", warning.text)));
        // Reasons come from programs and kernels that failed: nothing in them steers a terminal.
        lines.iter().map(|line| harmless(line)).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::gate::Finding;

    #[test]
    fn exact_json() {
        let release = |minor| Some(Release { name: "demo".into(), version: Version::new(1, minor, 0) });
        let status = Status {
            release: release(0),
            active: Bank::A,
            passive: Passive { release: release(1), state: BankState::Written },
            trial: Some(TrialStatus {
                bank: Bank::B,
                phase: TrialPhase::Armed,
                purpose: Purpose::Update,
                reboot_pending: true,
                reason: None,
            }),
            confirmed: Bank::A,
            tries_left: Some(1),
            floor: Some(Version::new(1, 0, 0)),
            interrupted: None,
            last_result: Some(LastStatus {
                outcome: Outcome::FellBack,
                release: release(2),
                reason: Some("kiosk answers: exit 1".into()),
                evidence: Some("/state/roro/evidence/demo-1.2.0-1.log".into()),
            }),
            health: Some(Judged {
                release: release(2),
                phase: "rejected",
                checks: vec![Finding::of_step("kiosk answers", Err("exit 1".into()), Duration::ZERO)],
            }),
            warnings: vec![Warning { code: "no-watchdog", text: "a hang waits".into() }],
        };
        assert_eq!(
            serde_json::to_string(&status).unwrap(),
            concat!(
                r#"{"release":{"name":"demo","version":"1.0.0"},"active":"a","#,
                r#""passive":{"release":{"name":"demo","version":"1.1.0"},"state":"written"},"#,
                r#""trial":{"bank":"b","phase":"armed","purpose":"update","reboot_pending":true,"reason":null},"#,
                r#""confirmed":"a","tries_left":1,"floor":"1.0.0","interrupted":null,"#,
                r#""last_result":{"outcome":"fell-back","release":{"name":"demo","version":"1.2.0"},"#,
                r#""reason":"kiosk answers: exit 1","evidence":"/state/roro/evidence/demo-1.2.0-1.log"},"#,
                r#""health":{"release":{"name":"demo","version":"1.2.0"},"phase":"rejected","checks":[{"check":"kiosk answers","#,
                r#""kind":"built-in","state":"failed","why":"exit 1","looks":1,"milliseconds":0}]},"#,
                r#""warnings":[{"code":"no-watchdog","text":"a hang waits"}]}"#
            )
        );
        let text = status.lines().join("\n");
        let mut hostile = status;
        hostile.last_result.as_mut().unwrap().reason = Some("\u{1b}[2J\u{9b}2J all is well".into());
        let steered = hostile.lines().join("\n");
        assert!(!steered.contains(['\u{1b}', '\u{9b}']) && steered.contains("[2J"), "{steered}");
        assert!(
            text.ends_with("warning    a hang waits")
                && text.contains(
                    "health     demo 1.2.0, rejected: 0 of 1 checks healthy, failed: kiosk answers: exit 1\n"
                )
                && text.contains("reboot to try it")
                && text.contains("last       fell-back demo 1.2.0"),
            "{text}"
        );
    }
}
