//! What a boot means: a trial that failed, that may be tried again, or that must be completed.

use bank_format::{
    Bank,
    record::{BankState, LastResult, Outcome, TrialPhase},
};
use serde_json::Value;

use super::{ARMED_IN, Action, EVIDENCE, Engine, LAST_WORD, NO_WORD, Origin, Rearm, SENT, State};
use crate::history::Happening;

impl Engine {
    pub(super) fn booted(&mut self, state: State, boot_id: &str, rearm: Rearm, now: i64) -> Vec<Action> {
        let before = self.record.clone();
        let mut actions = Vec::new();
        match self.origin {
            Origin::Stored => (),
            Origin::Founded => {
                actions.push(Action::History(self.entry(Happening::RecordFounded, self.running, now)));
            }
            Origin::Rebuilt => {
                actions.push(Action::History(self.entry(Happening::RecordRebuilt, self.running, now)));
            }
        }
        self.record.settle();
        let mut tell_loader = true;
        match state {
            State::Healthy(bank) => {
                actions.extend(self.confirm(state, bank, now));
                return actions;
            }
            State::Unsettled(bank) if self.phase() == Some(TrialPhase::Healthy) => {
                // Its gate passed, and the power went before the loader knew: the answer stands.
                actions.extend(self.confirm(state, bank, now));
                actions.push(Action::Reboot);
                return actions;
            }
            // The loader was told in this very boot: to say the default again would withdraw the trial.
            State::Armed(_) if self.extra(ARMED_IN) == Some(&Value::from(boot_id)) => tell_loader = false,
            State::Armed(bank) | State::Unsettled(bank) => {
                if rearm == Rearm::Allowed && self.may_be_sent_again() {
                    self.count_sent();
                    let mut entry = self.entry(Happening::Rearmed, bank, now);
                    (entry.reason, entry.evidence) = self.witnessed();
                    self.forget_witness();
                    actions.extend([
                        self.commit(),
                        Action::SetTrial(bank),
                        Action::History(entry),
                        Action::Reboot,
                    ]);
                    return actions;
                }
                actions.push(self.fall_back(bank, now));
            }
            State::Idle | State::Confirmed | State::FellBack | State::Installing(_) | State::Installed(_) => {
                let running = self.running;
                if running != self.record.confirmed && self.record.may_take_over(running) {
                    actions.push(self.adopt(running, now));
                }
            }
            State::Trial(_) | State::Rejected(_) => (),
        }
        if self.record.confirmed == self.running {
            self.remember_sources();
        }
        // The history comes last: a state partition that hangs must not keep the loader from being told.
        let mut deeds = Vec::new();
        if self.record != before || self.origin != Origin::Stored {
            deeds.push(self.commit());
        }
        if tell_loader {
            // Re-arms the loader's counter: a bank that rots after a hundred good boots still gives way.
            deeds.push(self.set_default(self.record.confirmed));
        }
        deeds.append(&mut actions);
        deeds
    }

    /// Nothing is written where it is known already, or where there is no record yet.
    pub(super) fn ending(&mut self) -> Vec<Action> {
        match self.origin {
            Origin::Stored if self.record.unclean => {
                self.record.unclean = false;
                vec![self.commit()]
            }
            Origin::Stored | Origin::Founded | Origin::Rebuilt => Vec::new(),
        }
    }

    /// The firmware insists on the other confirmed bank: that is what we have.
    fn adopt(&mut self, running: Bank, now: i64) -> Action {
        let lost = self.record.confirmed;
        self.record.confirmed = running;
        self.record.last_result = Some(LastResult {
            outcome: Outcome::BankLost,
            release: self.record.banks.get(lost).release.clone(),
            reason: Some(format!("the firmware does not start bank {lost}")),
            evidence: None,
        });
        Action::History(self.entry(Happening::BankLost, lost, now))
    }

    /// Whether a boot into the trial was due before this one: it was armed earlier, and another bank runs now.
    #[must_use]
    pub fn trial_was_due(&self, boot_id: &str) -> bool {
        match self.state() {
            State::Armed(_) => self.extra(ARMED_IN) != Some(&Value::from(boot_id)),
            State::Unsettled(_) => true,
            State::Idle
            | State::Confirmed
            | State::FellBack
            | State::Installing(_)
            | State::Installed(_)
            | State::Trial(_)
            | State::Healthy(_)
            | State::Rejected(_) => false,
        }
    }

    /// Evidence that the gate of the trial has kept.
    #[must_use]
    pub fn evidence(&self) -> Option<&str> {
        self.extra(EVIDENCE).and_then(Value::as_str)
    }

    /// What an attempt has left that could not speak for itself. Part of the next commit.
    pub fn note_witness(&mut self, evidence: &str, last_word: Option<&str>) {
        if let Some(trial) = self.record.trial.as_mut() {
            trial.extra.insert(EVIDENCE.into(), Value::from(evidence));
            if let Some(word) = last_word {
                trial.extra.insert(LAST_WORD.into(), Value::from(word));
            }
        }
    }

    /// The next attempt speaks for itself.
    fn forget_witness(&mut self) {
        if let Some(trial) = self.record.trial.as_mut() {
            trial.extra.remove(EVIDENCE);
            trial.extra.remove(LAST_WORD);
        }
    }

    /// Why the newest attempt failed, and where that is kept. The gate and the initrd are believed before the kernel, which may
    /// have died of what they did about it.
    fn witnessed(&self) -> (Option<String>, Option<String>) {
        let text = |key| self.extra(key).and_then(Value::as_str).map(str::to_owned);
        let said = self.record.trial.as_ref().and_then(|trial| trial.reason.clone());
        (said.or_else(|| text(LAST_WORD)), text(EVIDENCE))
    }

    pub(super) fn fall_back(&mut self, bank: Bank, now: i64) -> Action {
        let (reason, evidence) = self.witnessed();
        self.record.trial = None;
        self.record.interrupted = None;
        let here = self.record.banks.get_mut(bank);
        here.state = BankState::Failed;
        let release = here.release.clone();
        let last = LastResult {
            outcome: Outcome::FellBack,
            release,
            reason: Some(reason.unwrap_or_else(|| NO_WORD.into())),
            evidence,
        };
        self.record.last_result = Some(last.clone());
        let mut entry = self.entry(Happening::FellBack, bank, now);
        entry.reason = last.reason;
        entry.evidence = last.evidence;
        Action::History(entry)
    }

    pub(super) fn count_sent(&mut self) {
        let sent = self.extra(SENT).and_then(Value::as_u64).unwrap_or(0).saturating_add(1);
        if let Some(trial) = self.record.trial.as_mut() {
            trial.extra.insert(SENT.into(), Value::from(sent));
        }
    }

    /// Bounded twice: by the attempts that the initrd counts, and by the times that we sent the firmware there, as a kernel
    /// that dies early counts nothing.
    fn may_be_sent_again(&self) -> bool {
        let sent = self.extra(SENT).and_then(Value::as_u64).unwrap_or(0);
        self.record.trial.as_ref().is_some_and(|trial| {
            let granted = u64::from(trial.tries_left) + u64::from(trial.tries_made);
            matches!(trial.phase, TrialPhase::Armed | TrialPhase::Started)
                && trial.tries_left > 0
                && sent < granted
        })
    }
}
