//! The rule, row by row.

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
    assert_eq!(decide(&alone, Bank::A, None).0, Decision::Boot(BootAs::Confirmed), "nothing better is there");
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
