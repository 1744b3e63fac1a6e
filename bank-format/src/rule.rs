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
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::{
        loader::Spare,
        record::{Purpose, Trial, tests::record},
    };

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
        assert!(matches!(decide(&record(1), Bank::A, None), (Boot(BootAs::Confirmed), _)));
        assert!(matches!(decide(&record(1), Bank::B, None), (Redirect { to: Bank::A, .. }, _)));
        for (phase, tries, boots) in [
            (TrialPhase::Armed, 1, true),
            (TrialPhase::Armed, 0, false),
            (TrialPhase::Started, 2, true),
            (TrialPhase::Started, 0, false),
            (TrialPhase::Healthy, 0, true),
            (TrialPhase::Failed, 5, false),
        ] {
            let (decision, next) = decide(&with_trial(phase, tries), Bank::B, None);
            assert_eq!(decision == Boot(BootAs::Trial), boots, "{phase:?} {tries}");
            if boots && phase != TrialPhase::Healthy {
                let trial = next.trial.unwrap();
                assert_eq!(
                    (trial.phase, trial.tries_left, trial.tries_made),
                    (TrialPhase::Started, tries - 1, 1)
                );
            }
            let (decision, _) = decide(&with_trial(phase, tries), Bank::A, None);
            assert_eq!(decision, Boot(BootAs::Confirmed), "the confirmed bank boots whatever the trial");
        }
    }

    #[test]
    fn redirects_end() {
        let mut now = record(1);
        let mut redirects = 0;
        loop {
            let (decision, next) = decide(&now, Bank::B, None);
            now = next;
            match decision {
                Decision::Redirect { to, .. } => {
                    assert_eq!(to, Bank::A);
                    redirects += 1;
                    assert!(redirects <= MAX_REDIRECTS);
                }
                Decision::Stop { .. } => break,
                Decision::Boot(as_what) => panic!("an empty bank booted as {as_what:?}"),
            }
        }
        let mut old = record(1);
        old.banks.b.state = BankState::Confirmed;
        old.redirects = MAX_REDIRECTS;
        let (decision, next) = decide(&old, Bank::B, None);
        assert_eq!(decision, Decision::Boot(BootAs::LastResort));
        assert_eq!((next.confirmed, next.last_result.unwrap().outcome), (Bank::B, Outcome::BankLost));
    }

    #[test]
    fn a_confirmed_bank_that_rots_gives_way_to_the_other() {
        let mut now = record(1);
        now.banks.b.state = BankState::Confirmed;
        for _ in 0..MAX_EARLY_FAILURES {
            let (decision, next) = decide(&now, Bank::A, None);
            assert!(matches!(decision, Decision::Boot(_)));
            now = next;
        }
        let (decision, next) = decide(&now, Bank::A, None);
        assert!(matches!(decision, Decision::Redirect { to: Bank::B, .. }));
        assert_eq!(next.last_result.as_ref().unwrap().outcome, Outcome::BankLost);
        assert_eq!(decide(&next, Bank::B, None).0, Decision::Boot(BootAs::AfterUncleanEnd));
        let mut alone = record(1);
        alone.unsettled_boots = 100;
        assert_eq!(
            decide(&alone, Bank::A, None).0,
            Decision::Boot(BootAs::Confirmed),
            "nothing better is there"
        );
    }

    /// A state partition that cannot be used once cost both banks, one behind the other.
    #[test]
    fn a_failure_behind_the_root_leaves_the_other_bank_alone_and_ends_in_the_stated_end() {
        let mut now = record(1);
        now.banks.b.state = BankState::Confirmed;
        let mut ends = 0;
        for boot in 1..=10 {
            let (decision, next) = decide(&now, Bank::A, None);
            assert!(matches!(decision, Decision::Boot(_)), "boot {boot}: {decision:?}");
            now = match failed_behind_the_root(&next, Bank::A, "state: needs cleaning") {
                Some(next) => {
                    ends += 1;
                    next
                }
                None => boot_failed(&next, Bank::A, "state: needs cleaning"),
            };
        }
        assert_eq!((ends, now.confirmed, now.losses), (8, Bank::A, 0));
        let trial = with_trial(TrialPhase::Started, 0);
        assert_eq!(failed_behind_the_root(&trial, Bank::B, "x"), None, "a trial is blamed");
    }

    #[test]
    fn a_loader_that_gave_up_is_believed_where_the_other_bank_was_confirmed() {
        let mut old = record(1);
        assert!(matches!(decide(&old, Bank::B, Some(Bank::A)).0, Decision::Redirect { .. }));
        old.banks.b.state = BankState::Confirmed;
        assert!(matches!(decide(&old, Bank::B, Some(Bank::B)).0, Decision::Redirect { .. }));
        let (decision, next) = decide(&old, Bank::B, Some(Bank::A));
        assert_eq!(decision, Decision::Boot(BootAs::LastResort));
        assert_eq!((next.confirmed, next.banks.a.state), (Bank::B, BankState::Confirmed));
        assert_eq!(next.as_spare(Bank::A), Spare::Unbootable, "firmware must not begin with it");
        assert_eq!(decide(&next, Bank::A, None).1.as_spare(Bank::A), Spare::Bootable, "its initrd runs");
    }

    /// A good bank was written off by three power cuts, the other had rotted unseen, and the device stopped for good beside it.
    #[test]
    fn power_cuts_write_no_bank_off() {
        let mut now = record(1);
        now.banks.b.state = BankState::Confirmed;
        for _ in 0..MAX_EARLY_FAILURES {
            now = decide(&now, Bank::A, None).1;
        }
        let (decision, next) = decide(&now, Bank::A, None);
        assert!(matches!(decision, Decision::Redirect { to: Bank::B, .. }));
        assert_eq!((next.banks.a.state, next.as_spare(Bank::A)), (BankState::Confirmed, Spare::Bootable));
        let (decision, next) = decide(&next, Bank::B, None);
        assert_eq!(decision, Decision::Boot(BootAs::AfterUncleanEnd));
        let next = image_is_rotten(&next, Bank::B, "block 7 is rotten").unwrap();
        assert_eq!((next.confirmed, next.banks.b.state), (Bank::A, BankState::Failed));
        assert!(matches!(decide(&next, Bank::A, None).0, Decision::Boot(_)));
    }

    #[test]
    fn what_both_banks_share_is_stated_and_each_is_asked_in_turn_until_it_goes_away() {
        let mut now = record(1);
        now.banks.b.state = BankState::Confirmed;
        let (mut standing_in, mut stops, mut boots) = (Bank::A, 0, Vec::new());
        for _ in 0..30 {
            let (decision, next) = decide(&now, standing_in, None);
            now = match decision {
                Decision::Boot(_) => {
                    boots.push((standing_in, stops));
                    boot_failed(&next, standing_in, "state is full")
                }
                Decision::Redirect { to, .. } => {
                    standing_in = to;
                    next
                }
                Decision::Stop { reason } => {
                    assert!(reason.contains("state is full"), "{reason}");
                    stops += 1;
                    next
                }
            };
            assert!(Bank::BOTH.into_iter().all(|bank| now.banks.get(bank).state == BankState::Confirmed));
        }
        let of = |stops| boots.iter().filter(|boot| boot.1 == stops).map(|boot| boot.0).collect::<Vec<_>>();
        assert_eq!(of(0), [Bank::A, Bank::A, Bank::A, Bank::B, Bank::B, Bank::B]);
        assert_eq!((of(1), of(2), of(3)), (vec![Bank::A], vec![Bank::B], vec![Bank::A]));
        now.settle();
        assert_eq!((now.losses, now.unsettled_boots), (0, 0));
    }

    #[test]
    fn a_kernel_that_dies_does_not_make_the_stated_end_spin() {
        let mut now = record(1);
        now.banks.b.state = BankState::Confirmed;
        let mut decisions = Vec::new();
        // The kernel of A dies, B's initrd starts each time, and B does not come up either.
        for _ in 0..20 {
            let (decision, next) = decide(&now, Bank::B, Some(Bank::A));
            now = next;
            decisions.push(matches!(decision, Decision::Stop { .. }));
        }
        assert!(decisions.windows(5).all(|five| five.contains(&true)), "{decisions:?}");
    }

    /// Firmware whose memory was full could not be told, and the confirmed bank was lost for it within seconds.
    #[test]
    fn a_loader_that_cannot_be_told_costs_no_bank_its_place() {
        let mut record = record(1);
        assert_eq!(stays(&decide(&record, Bank::B, None).1, Bank::B), None, "it was never confirmed");
        record.banks.b.state = BankState::Confirmed;
        let mut now = record.clone();
        for _ in 0..MAX_REDIRECTS {
            let (decision, next) = decide(&now, Bank::B, None);
            assert!(matches!(decision, Decision::Redirect { to: Bank::A, .. }));
            now = stays(&next, Bank::B).unwrap();
            assert_eq!((now.confirmed, now.last_result.as_ref(), now.unclean), (Bank::A, None, true));
        }
        assert_eq!(decide(&now, Bank::B, None).0, Decision::Boot(BootAs::LastResort), "it is bounded");
        record.trial = with_trial(TrialPhase::Failed, 0).trial;
        assert_eq!(stays(&record, Bank::B), None, "its trial has failed");
    }

    #[test]
    fn below_the_floor_no_bank_takes_over() {
        let mut now = record(2);
        now.confirmed = Bank::B;
        now.banks.b = now.banks.a.clone();
        now.banks.a.release =
            Some(crate::Release { name: "demo".into(), version: crate::release::Version::new(1, 0, 0) });
        assert!(!now.may_take_over(Bank::A) && now.may_take_over(Bank::B));
        assert_eq!(now.as_spare(Bank::A), Spare::Unbootable);
        assert!(matches!(decide(&now, Bank::A, Some(Bank::B)).0, Decision::Redirect { to: Bank::B, .. }));
        now.unsettled_boots = MAX_EARLY_FAILURES;
        assert!(matches!(decide(&now, Bank::B, None).0, Decision::Boot(_)));
        assert_eq!(image_is_rotten(&now, Bank::B, "rotten"), None);
        now.redirects = MAX_REDIRECTS;
        assert!(matches!(decide(&now, Bank::A, None).0, Decision::Stop { .. }));
        now.floor = None;
        assert!(now.may_take_over(Bank::A));
    }

    #[test]
    fn after_an_unclean_end_the_whole_image_is_checked() {
        let (first, booted) = decide(&record(1), Bank::A, None);
        assert_eq!((first, booted.unclean), (Decision::Boot(BootAs::Confirmed), true));
        assert_eq!(decide(&booted, Bank::A, None).0, Decision::Boot(BootAs::AfterUncleanEnd));
        assert_eq!(image_is_rotten(&booted, Bank::A, "rotten"), None);
        let mut two = booted;
        two.banks.b.state = BankState::Confirmed;
        let next = image_is_rotten(&two, Bank::A, "block 7 is rotten").unwrap();
        assert_eq!((next.confirmed, next.banks.a.state), (Bank::B, BankState::Failed));
        assert_eq!(next.last_result.unwrap().reason.as_deref(), Some("block 7 is rotten"));
    }

    #[test]
    fn where_nothing_boots_the_end_is_stated_and_tried_again_later() {
        let mut now = record(1);
        let mut stops = 0;
        for _ in 0..20 {
            let (decision, next) = decide(&now, Bank::A, None);
            now = match decision {
                Decision::Boot(_) => boot_failed(&next, Bank::A, "root image: block 7 is rotten"),
                Decision::Stop { reason } => {
                    assert!(reason.contains("block 7"), "{reason}");
                    stops += 1;
                    next
                }
                Decision::Redirect { .. } => panic!("there is nowhere to go"),
            };
        }
        assert_eq!(stops, 7, "six attempts, then one for each pause");
        let mut cut_only = record(1);
        cut_only.unsettled_boots = 1000;
        assert!(
            matches!(decide(&cut_only, Bank::A, None).0, Decision::Boot(_)),
            "power cuts never stop a device"
        );
    }

    #[test]
    fn a_failed_early_boot_blames_the_trial_only() {
        let failed = boot_failed(&with_trial(TrialPhase::Started, 2), Bank::B, "root is\nrotten");
        let trial = failed.trial.as_ref().unwrap();
        assert_eq!((trial.phase, trial.reason.as_deref()), (TrialPhase::Failed, Some("root is; rotten")));
        assert!(matches!(decide(&failed, Bank::B, None).0, Decision::Redirect { .. }));
        let mut confirmed = boot_failed(&record(1), Bank::A, "state is full");
        assert_eq!(confirmed.boot_failure.as_deref(), Some("state is full"));
        assert!(
            matches!(decide(&confirmed, Bank::A, None).0, Decision::Boot(BootAs::Confirmed)),
            "it is tried again"
        );
        confirmed.banks.b.state = BankState::Confirmed;
        confirmed.unsettled_boots = MAX_EARLY_FAILURES;
        let lost = decide(&confirmed, Bank::A, None).1.last_result.unwrap().reason.unwrap();
        assert!(lost.ends_with("in a row: state is full"), "{lost}");
        assert_eq!(boot_failed(&record(1), Bank::B, "x"), record(1));
    }
}
