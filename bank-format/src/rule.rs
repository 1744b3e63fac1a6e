//! The rule that picks the bank to boot.
//!
//! One pure function, used by the initrd of every bank and by every test. The boot loader has started a bank; the rule says
//! whether to go on, and what the record must say *before* going on: an attempt is counted before it is tried.
//! Table: `docs/boot.md`.

use crate::{
    bank::Bank,
    limits::{MAX_EARLY_FAILURES, MAX_REDIRECTS},
    record::{BankState, LastResult, Outcome, Record, TrialPhase, reason_line},
};

/// As what a bank boots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BootAs {
    /// The confirmed bank.
    Confirmed,
    /// A trial: check the whole image, then the health gate.
    Trial,
    /// A bank that was confirmed once, for want of a better way.
    LastResort,
}

/// What to do next, after the record was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Go on.
    Boot(BootAs),
    /// Point the boot loader at the other bank, and reset.
    Redirect {
        /// Where to.
        to: Bank,
        /// Why, in one line.
        reason: String,
    },
    /// Stop with this message: no bank can be booted.
    Halt {
        /// Why, in one line.
        reason: String,
    },
}

/// Decides for the bank that the loader has started. The returned record must be on stable storage before the decision is carried out.
#[must_use]
pub fn decide(record: &Record, standing_in: Bank) -> (Decision, Record) {
    let mut next = record.clone();
    if let Some(trial) = next.trial.as_mut().filter(|trial| trial.bank == standing_in) {
        match trial.phase {
            TrialPhase::Armed | TrialPhase::Started if trial.tries_left > 0 => {
                trial.phase = TrialPhase::Started;
                trial.tries_left -= 1;
                trial.tries_made = trial.tries_made.saturating_add(1);
                next.redirects = 0;
                return (Decision::Boot(BootAs::Trial), next);
            }
            TrialPhase::Healthy => {
                next.redirects = 0;
                return (Decision::Boot(BootAs::Trial), next);
            }
            TrialPhase::Armed | TrialPhase::Started => {
                return redirect(next, standing_in, format!("bank {standing_in} has used up its tries"));
            }
            TrialPhase::Failed => {
                return redirect(next, standing_in, format!("the trial of bank {standing_in} has failed"));
            }
        }
    }
    if standing_in != record.confirmed {
        return redirect(next, standing_in, format!("bank {standing_in} is neither confirmed nor on trial"));
    }
    if next.unsettled_boots >= MAX_EARLY_FAILURES
        && next.banks.get(!standing_in).state == BankState::Confirmed
    {
        let reason =
            format!("confirmed bank {standing_in} did not come up {} times in a row", next.unsettled_boots);
        let reason = match next.boot_failure.take() {
            Some(why) => reason_line(&format!("{reason}: {why}")),
            None => reason,
        };
        next.last_result = Some(LastResult {
            outcome: Outcome::BankLost,
            release: next.banks.get(standing_in).release.clone(),
            reason: Some(reason.clone()),
            evidence: None,
        });
        next.banks.get_mut(standing_in).state = BankState::Failed;
        next.confirmed = !standing_in;
        next.unsettled_boots = 0;
        // A trial of the bank that is now the only good one is over: it is what we stand on.
        if next.trial.as_ref().is_some_and(|trial| trial.bank == next.confirmed) {
            next.trial = None;
        }
        return redirect(next, standing_in, reason);
    }
    next.unsettled_boots = next.unsettled_boots.saturating_add(1);
    next.redirects = 0;
    (Decision::Boot(BootAs::Confirmed), next)
}

fn redirect(mut next: Record, standing_in: Bank, reason: String) -> (Decision, Record) {
    next.redirects = next.redirects.saturating_add(1);
    if next.redirects <= MAX_REDIRECTS {
        return (Decision::Redirect { to: next.confirmed, reason }, next);
    }
    // The firmware does not go where it is sent. A bank that was confirmed once still serves.
    match next.banks.get(standing_in).state {
        BankState::Confirmed => {
            next.redirects = 0;
            (Decision::Boot(BootAs::LastResort), next)
        }
        BankState::Empty | BankState::Writing | BankState::Written | BankState::Failed => {
            let reason = format!("{reason}, and the firmware does not start bank {}", next.confirmed);
            (Decision::Halt { reason }, next)
        }
    }
}

/// Notes why the boot in `standing_in` failed, before a reset. Only a trial is blamed for good; a confirmed bank is tried again.
#[must_use]
pub fn boot_failed(record: &Record, standing_in: Bank, reason: &str) -> Record {
    let mut next = record.clone();
    if let Some(trial) = next.trial.as_mut().filter(|trial| trial.bank == standing_in) {
        trial.reason = Some(reason_line(reason));
        if trial.phase != TrialPhase::Healthy {
            trial.phase = TrialPhase::Failed;
            next.banks.get_mut(standing_in).state = BankState::Failed;
        }
    } else if standing_in == next.confirmed {
        next.boot_failure = Some(reason_line(reason));
    }
    next
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::record::{Purpose, Trial, tests::record};

    fn with_trial(phase: TrialPhase, tries_left: u32) -> Record {
        let mut record = record(1);
        record.banks.b.state = BankState::Written;
        record.trial = Some(Trial {
            bank: Bank::B,
            phase,
            purpose: Purpose::Update,
            tries_left,
            tries_made: 0,
            reason: None,
            extra: BTreeMap::new(),
        });
        record
    }

    #[test]
    fn the_table_of_the_document() {
        use Decision::{Boot, Redirect};
        assert!(matches!(decide(&record(1), Bank::A), (Boot(BootAs::Confirmed), _)));
        assert!(matches!(decide(&record(1), Bank::B), (Redirect { to: Bank::A, .. }, _)));
        for (phase, tries, boots) in [
            (TrialPhase::Armed, 1, true),
            (TrialPhase::Armed, 0, false),
            (TrialPhase::Started, 2, true),
            (TrialPhase::Started, 0, false),
            (TrialPhase::Healthy, 0, true),
            (TrialPhase::Failed, 5, false),
        ] {
            let (decision, next) = decide(&with_trial(phase, tries), Bank::B);
            assert_eq!(decision == Boot(BootAs::Trial), boots, "{phase:?} {tries}");
            if boots && phase != TrialPhase::Healthy {
                let trial = next.trial.unwrap();
                assert_eq!(
                    (trial.phase, trial.tries_left, trial.tries_made),
                    (TrialPhase::Started, tries - 1, 1)
                );
            }
            let (decision, _) = decide(&with_trial(phase, tries), Bank::A);
            assert_eq!(decision, Boot(BootAs::Confirmed), "the confirmed bank boots whatever the trial");
        }
    }

    #[test]
    fn redirects_end() {
        let mut now = record(1);
        let mut redirects = 0;
        loop {
            let (decision, next) = decide(&now, Bank::B);
            now = next;
            match decision {
                Decision::Redirect { to, .. } => {
                    assert_eq!(to, Bank::A);
                    redirects += 1;
                    assert!(redirects <= MAX_REDIRECTS);
                }
                Decision::Halt { .. } => break,
                Decision::Boot(as_what) => panic!("an empty bank booted as {as_what:?}"),
            }
        }
        let mut old = record(1);
        old.banks.b.state = BankState::Confirmed;
        old.redirects = MAX_REDIRECTS;
        assert_eq!(decide(&old, Bank::B).0, Decision::Boot(BootAs::LastResort));
    }

    #[test]
    fn a_confirmed_bank_that_rots_gives_way_to_the_other() {
        let mut now = record(1);
        now.banks.b.state = BankState::Confirmed;
        for _ in 0..MAX_EARLY_FAILURES {
            let (decision, next) = decide(&now, Bank::A);
            assert_eq!(decision, Decision::Boot(BootAs::Confirmed));
            now = next;
        }
        let (decision, next) = decide(&now, Bank::A);
        assert!(matches!(decision, Decision::Redirect { to: Bank::B, .. }));
        assert_eq!(next.last_result.as_ref().unwrap().outcome, Outcome::BankLost);
        assert_eq!(decide(&next, Bank::B).0, Decision::Boot(BootAs::Confirmed));
        let mut alone = record(1);
        alone.unsettled_boots = 100;
        assert_eq!(decide(&alone, Bank::A).0, Decision::Boot(BootAs::Confirmed), "nothing better is there");
    }

    #[test]
    fn a_failed_early_boot_blames_the_trial_only() {
        let failed = boot_failed(&with_trial(TrialPhase::Started, 2), Bank::B, "root is\nrotten");
        let trial = failed.trial.as_ref().unwrap();
        assert_eq!((trial.phase, trial.reason.as_deref()), (TrialPhase::Failed, Some("root is; rotten")));
        assert!(matches!(decide(&failed, Bank::B).0, Decision::Redirect { .. }));
        let mut confirmed = boot_failed(&record(1), Bank::A, "state is full");
        assert_eq!(confirmed.boot_failure.as_deref(), Some("state is full"));
        assert!(
            matches!(decide(&confirmed, Bank::A).0, Decision::Boot(BootAs::Confirmed)),
            "it is tried again"
        );
        confirmed.banks.b.state = BankState::Confirmed;
        confirmed.unsettled_boots = MAX_EARLY_FAILURES;
        let lost = decide(&confirmed, Bank::A).1.last_result.unwrap().reason.unwrap();
        assert!(lost.ends_with("in a row: state is full"), "{lost}");
        assert_eq!(boot_failed(&record(1), Bank::B, "x"), record(1));
    }
}
