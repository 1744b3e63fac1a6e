//! The rule that picks the bank to boot.
//!
//! One pure function, used by the initrd of every bank and by every test. The boot loader has started a bank; the rule says
//! whether to go on, and what the record must say *before* going on: an attempt is counted before it is tried.
//! Table: `docs/boot.md`.

use crate::{
    bank::Bank,
    limits::{MAX_EARLY_FAILURES, MAX_HOPELESS_BOOTS, MAX_REDIRECTS},
    record::{BankState, LastResult, Outcome, Record, TrialPhase, reason_line},
};

/// As what a bank boots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BootAs {
    /// The confirmed bank.
    Confirmed,
    /// The confirmed bank, whose last boot did not end in order (power cut, panic, watchdog): check the whole image first, as
    /// a block that rotted may be why.
    AfterUncleanEnd,
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
    /// No bank can be booted: say so on the console, start the recovery entry if there is one, else try again after a long pause.
    Stop {
        /// Why, in one line.
        reason: String,
    },
}

/// Decides for the bank that the loader has started. `gave_up` is the bank that the loader itself has given up on, where it counts
/// (GRUB, U-Boot). The returned record must be on stable storage before the decision is carried out.
#[must_use]
pub fn decide(record: &Record, standing_in: Bank, gave_up: Option<Bank>) -> (Decision, Record) {
    let mut next = record.clone();
    // Whatever the loader said of it: here its initrd runs.
    next.banks.get_mut(standing_in).does_not_start = false;
    if let Some(trial) = next.trial.as_mut().filter(|trial| trial.bank == standing_in) {
        match trial.phase {
            TrialPhase::Armed | TrialPhase::Started if trial.tries_left > 0 => {
                trial.phase = TrialPhase::Started;
                trial.tries_left -= 1;
                trial.tries_made = trial.tries_made.saturating_add(1);
                return go_on(next, BootAs::Trial);
            }
            TrialPhase::Healthy => return go_on(next, BootAs::Trial),
            TrialPhase::Armed | TrialPhase::Started => {
                return redirect(next, standing_in, format!("bank {standing_in} has used up its tries"));
            }
            TrialPhase::Failed => {
                return redirect(next, standing_in, format!("the trial of bank {standing_in} has failed"));
            }
        }
    }
    if standing_in != record.confirmed {
        // After the stated end it may be old news: the loader is sent there once more before it is believed.
        let old_news = record.losses > 1 && record.redirects == 0;
        if gave_up == Some(record.confirmed) && record.may_take_over(standing_in) && !old_news {
            let reason = format!("the boot loader has given up on bank {}", record.confirmed);
            return stand_in_for_silent(next, reason);
        }
        return redirect(next, standing_in, format!("bank {standing_in} is neither confirmed nor on trial"));
    }
    if next.unsettled_boots >= MAX_EARLY_FAILURES {
        let mut reason =
            format!("confirmed bank {standing_in} did not come up {} times in a row", next.unsettled_boots);
        if let Some(why) = &next.boot_failure {
            reason = reason_line(&format!("{reason}: {why}"));
        }
        if next.may_take_over(!standing_in) {
            return match lose(&mut next, standing_in, reason.clone()) {
                Lost::One => redirect(next, standing_in, reason),
                Lost::Both => (Decision::Stop { reason }, next),
            };
        }
        // Power cuts alone never lead here: the initrd itself must have said why it cannot go on.
        if next.boot_failure.is_some() && next.unsettled_boots >= MAX_HOPELESS_BOOTS {
            // One more attempt after the pause, then the same again.
            next.unsettled_boots = MAX_HOPELESS_BOOTS - 1;
            return (Decision::Stop { reason }, next);
        }
    }
    next.unsettled_boots = next.unsettled_boots.saturating_add(1);
    let as_what = if record.unclean { BootAs::AfterUncleanEnd } else { BootAs::Confirmed };
    go_on(next, as_what)
}

/// From here on only an orderly shutdown makes the end a clean one.
fn go_on(mut next: Record, as_what: BootAs) -> (Decision, Record) {
    next.redirects = 0;
    next.unclean = true;
    (Decision::Boot(as_what), next)
}

/// How many banks were lost since a boot was settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lost {
    One,
    Both,
}

/// The other bank takes the place of `lost`, which stays what it is: boots that did not end, or a loader that has given up, are
/// weak evidence (power cuts, one misread sector, a cause that both banks share). Where both were lost, the stated end comes first,
/// and after it each gets one boot in turn, so that a cause that goes away heals.
fn lose(next: &mut Record, lost: Bank, reason: String) -> Lost {
    replace(next, lost, reason);
    next.losses = next.losses.saturating_add(1);
    if next.losses <= 1 {
        return Lost::One;
    }
    next.unsettled_boots = MAX_EARLY_FAILURES - 1;
    Lost::Both
}

/// The other bank is the confirmed one from now on.
fn replace(next: &mut Record, lost: Bank, reason: String) {
    next.last_result = Some(LastResult {
        outcome: Outcome::BankLost,
        release: next.banks.get(lost).release.clone(),
        reason: Some(reason),
        evidence: None,
    });
    next.confirmed = !lost;
    next.unsettled_boots = 0;
    next.redirects = 0;
    next.boot_failure = None;
    // A trial of the bank that is now the one we stand on is over.
    if next.trial.as_ref().is_some_and(|trial| trial.bank == next.confirmed) {
        next.trial = None;
    }
}

/// The confirmed bank does not come as far as its initrd; this one takes its place.
fn stand_in_for_silent(mut next: Record, reason: String) -> (Decision, Record) {
    let silent = next.confirmed;
    next.banks.get_mut(silent).does_not_start = true;
    match lose(&mut next, silent, reason.clone()) {
        Lost::One => {
            next.unsettled_boots = 1;
            go_on(next, BootAs::LastResort)
        }
        Lost::Both => (Decision::Stop { reason }, next),
    }
}

fn redirect(mut next: Record, standing_in: Bank, reason: String) -> (Decision, Record) {
    next.redirects = next.redirects.saturating_add(1);
    if next.redirects <= MAX_REDIRECTS {
        return (Decision::Redirect { to: next.confirmed, reason }, next);
    }
    // The bank does not start where we send the loader. One that was confirmed once still serves.
    let reason = format!("{reason}, and bank {} does not start", next.confirmed);
    if next.may_take_over(standing_in) {
        return stand_in_for_silent(next, reason);
    }
    // One more attempt after the pause, then the same again.
    next.redirects = MAX_REDIRECTS - 1;
    (Decision::Stop { reason }, next)
}

/// The loader could not be told to go on to the confirmed bank, for example because the firmware's memory is full. That says nothing
/// against the confirmed bank, so nothing is lost: where this one may take over, it boots as last resort. `None` where it may not.
/// Bounded by the redirects, which only a settled boot forgets.
#[must_use]
pub fn stays(record: &Record, standing_in: Bank) -> Option<Record> {
    let on_trial = record.trial.as_ref().is_some_and(|trial| trial.bank == standing_in);
    (record.may_take_over(standing_in) && !on_trial).then(|| Record { unclean: true, ..record.clone() })
}

/// The image of the confirmed bank is not what was installed: the other bank takes its place at once, if it was confirmed once.
/// `None` where there is nothing better: then it is a failed boot like any other.
#[must_use]
pub fn image_is_rotten(record: &Record, standing_in: Bank, reason: &str) -> Option<Record> {
    let replaced = standing_in == record.confirmed && record.may_take_over(!standing_in);
    replaced.then(|| {
        let mut next = record.clone();
        replace(&mut next, standing_in, reason_line(reason));
        // Proven, and so for good: it must not be asked again, and its boot image is closed.
        next.banks.get_mut(standing_in).state = BankState::Failed;
        next
    })
}

/// The boot failed behind a root image that was proven good: the other bank would fail alike, so it does not take over. `None` as long as
/// it is a failed boot like any other: on trial, or not often enough in a row. Else the stated end is due, and after its pause one more
/// attempt in the same bank.
#[must_use]
pub fn failed_behind_the_root(record: &Record, standing_in: Bank, reason: &str) -> Option<Record> {
    let on_trial = record.trial.as_ref().is_some_and(|trial| trial.bank == standing_in);
    let is_over =
        !on_trial && standing_in == record.confirmed && record.unsettled_boots >= MAX_EARLY_FAILURES;
    is_over.then(|| {
        let mut next = boot_failed(record, standing_in, reason);
        next.unsettled_boots = MAX_EARLY_FAILURES - 1;
        next
    })
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
mod tests;
