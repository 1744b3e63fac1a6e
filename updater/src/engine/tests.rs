//! The engine as a table: every state, every event; then whole roads; then a random walk that must keep its promises.

use bank_format::{Digest256, Release, loader::Spare, release::Version, rule};
use proptest::prelude::*;

use super::*;

fn release(minor: u64) -> Release {
    Release { name: "demo".into(), version: Version::new(1, minor, 0) }
}

fn offer(minor: u64) -> Offer {
    Offer { release: release(minor), manifest: Digest256([minor as u8; 32]), floor: None }
}

fn proofs() -> BTreeMap<String, ImageProof> {
    let proof = ImageProof { bytes: 1, verity_root: Digest256([0; 32]), salt: String::new(), tree: None };
    BTreeMap::from([("root".to_owned(), proof)])
}

fn founded() -> Record {
    Record::founded_on(Bank::A, Some(release(0)), proofs())
}

/// With an older confirmed release in bank B.
fn both_confirmed() -> Record {
    let mut record = founded();
    record.banks.b.state = BankState::Confirmed;
    record
}

fn engine(record: Record, running: Bank) -> Engine {
    Engine::new(record, Origin::Stored, running, 1)
}

fn arm() -> Event {
    Event::Arm { boot_id: "1".into() }
}

fn booted(rearm: Rearm) -> Event {
    Event::Booted { boot_id: "2".into(), rearm }
}

/// A device in each state.
fn in_state(state: &str) -> Engine {
    let with_trial = |phase, running, tries_left| {
        let mut fresh = engine(founded(), Bank::A);
        fresh.handle(Event::BeginInstall(offer(1)), 0).unwrap();
        fresh.handle(Event::Written(proofs()), 0).unwrap();
        fresh.handle(arm(), 0).unwrap();
        let mut record = fresh.record().clone();
        let trial = record.trial.as_mut().unwrap();
        trial.phase = phase;
        trial.tries_left = tries_left;
        trial.tries_made = u32::from(phase != TrialPhase::Armed);
        if phase == TrialPhase::Failed {
            trial.reason = Some("sick".into());
        }
        engine(record, running)
    };
    let with_last = |outcome| {
        let mut record = both_confirmed();
        record.last_result = Some(LastResult { outcome, release: None, reason: None, evidence: None });
        engine(record, Bank::A)
    };
    match state {
        "idle" => engine(both_confirmed(), Bank::A),
        "confirmed" => with_last(Outcome::Confirmed),
        "fell-back" => with_last(Outcome::FellBack),
        "installing" => {
            let mut fresh = engine(founded(), Bank::A);
            fresh.handle(Event::BeginInstall(offer(1)), 0).unwrap();
            fresh
        }
        "installed" => {
            let mut fresh = in_state("installing");
            fresh.handle(Event::Written(proofs()), 0).unwrap();
            fresh
        }
        "armed" => with_trial(TrialPhase::Armed, Bank::A, 1),
        "trial" => with_trial(TrialPhase::Started, Bank::B, 0),
        "healthy" => with_trial(TrialPhase::Healthy, Bank::B, 0),
        "rejected" => with_trial(TrialPhase::Failed, Bank::B, 0),
        "unsettled" => with_trial(TrialPhase::Started, Bank::A, 0),
        other => panic!("no state {other}"),
    }
}

const STATES: [&str; 10] = [
    "idle",
    "confirmed",
    "fell-back",
    "installing",
    "installed",
    "armed",
    "trial",
    "healthy",
    "rejected",
    "unsettled",
];

/// Actions as words, with what a commit says about the trial and bank B.
fn words(actions: &[Action]) -> Vec<String> {
    actions
        .iter()
        .map(|action| match action {
            Action::Commit(record) => {
                let trial = record.trial.as_ref().map_or("none".into(), |t| format!("{:?}", t.phase));
                format!("commit b={:?} trial={trial} confirmed={}", record.banks.b.state, record.confirmed)
            }
            Action::WipeBoot(bank) => format!("wipe {bank}"),
            Action::WriteImages(bank) => format!("write {bank}"),
            Action::ReadBack(bank) => format!("read-back {bank}"),
            Action::SetTrial(bank) => format!("set-trial {bank}"),
            Action::SetDefault(bank, Spare::Bootable) => format!("set-default {bank}, spare"),
            Action::SetDefault(bank, Spare::Unbootable) => format!("set-default {bank}"),
            Action::History(entry) => format!("history {}", entry.event.word()),
            Action::Reboot => "reboot".into(),
        })
        .collect()
}

#[test]
fn each_state_is_what_it_is_called() {
    for state in STATES {
        assert_eq!(in_state(state).state().word(), state);
    }
}

#[test]
fn only_these_steps_are_legal() {
    type Row = (&'static str, fn() -> Event, &'static [&'static str]);
    let events: [Row; 12] = [
        (
            "begin install",
            || Event::BeginInstall(offer(2)),
            &["idle", "confirmed", "fell-back", "installing", "installed", "armed", "unsettled"],
        ),
        ("written", || Event::Written(proofs()), &["installing"]),
        ("arm", arm, &["installed", "armed"]),
        ("reboot", || Event::RebootRequested, &STATES),
        ("booted", || booted(Rearm::Allowed), &STATES),
        ("booted, no rearm", || booted(Rearm::Forbidden), &STATES),
        ("confirm", || Event::Confirm, &["trial", "healthy"]),
        ("gate failed", || Event::GateFailed { reason: "x".into(), evidence: None }, &["trial"]),
        ("reject", || Event::Reject { reason: "x".into() }, &["trial", "healthy"]),
        ("ending", || Event::Ending, &STATES),
        ("cancel", || Event::Cancel, &["installing", "installed", "armed"]),
        ("begin rollback", || Event::BeginRollback, &["idle", "confirmed", "fell-back"]),
    ];
    for (name, event, legal) in events {
        for state in STATES {
            let mut engine = in_state(state);
            let before = engine.record().clone();
            let result = engine.handle(event(), 0);
            assert_eq!(result.is_ok(), legal.contains(&state), "{name} while {state}");
            if result.is_err() {
                assert_eq!(*engine.record(), before, "a refused step changes nothing");
            }
        }
    }
}

#[test]
fn what_does_not_stand_on_the_confirmed_bank_gives_nothing_up() {
    let mut stray = engine(both_confirmed(), Bank::B);
    for event in [Event::BeginInstall(offer(2)), Event::BeginRollback] {
        assert!(stray.handle(event, 0).is_err());
    }
    assert!(engine(founded(), Bank::A).handle(Event::BeginRollback, 0).is_err(), "bank B is empty");
}

#[test]
fn an_install_marks_the_bank_bad_before_it_touches_it_and_tells_the_loader_last() {
    let mut engine = in_state("idle");
    assert_eq!(
        words(&engine.handle(Event::BeginInstall(offer(1)), 7).unwrap()),
        [
            "commit b=Writing trial=none confirmed=a",
            "set-default a",
            "history install-started",
            "wipe b",
            "write b",
            "read-back b"
        ]
    );
    assert_eq!(
        words(&engine.handle(Event::Written(proofs()), 8).unwrap()),
        ["commit b=Written trial=none confirmed=a"]
    );
    assert_eq!(
        words(&engine.handle(arm(), 9).unwrap()),
        ["commit b=Written trial=Armed confirmed=a", "history armed", "set-trial b"]
    );
    assert_eq!(words(&engine.handle(arm(), 9).unwrap()), ["set-trial b"], "the last write, once more");
}

#[test]
fn installing_over_an_armed_trial_withdraws_it_before_the_bank_is_touched() {
    let mut engine = in_state("armed");
    let actions = words(&engine.handle(Event::BeginInstall(offer(2)), 0).unwrap());
    assert_eq!(actions[..2], ["commit b=Writing trial=none confirmed=a", "set-default a"]);
    let wipe = actions.iter().position(|action| action == "wipe b").unwrap();
    assert!(wipe > 1);
}

#[test]
fn a_confirm_is_healthy_then_loader_then_record() {
    let mut engine = in_state("trial");
    assert_eq!(
        words(&engine.handle(Event::Confirm, 0).unwrap()),
        [
            "commit b=Written trial=Healthy confirmed=a",
            "set-default b, spare",
            "commit b=Confirmed trial=none confirmed=b",
            "history confirmed"
        ]
    );
    assert_eq!(engine.record().floor, Some(Version::new(1, 0, 0)), "not above what the other bank carries");
    assert_eq!(engine.state(), State::Confirmed);
}

#[test]
fn an_interrupted_confirm_is_completed_from_either_bank() {
    let mut engine = in_state("healthy");
    assert_eq!(
        words(&engine.handle(booted(Rearm::Allowed), 0).unwrap()),
        ["set-default b, spare", "commit b=Confirmed trial=none confirmed=b", "history confirmed"]
    );
    let mut record = in_state("healthy").record().clone();
    record.unsettled_boots = 1;
    let mut engine = self::engine(record, Bank::A);
    assert_eq!(words(&engine.handle(booted(Rearm::Allowed), 0).unwrap()).last().unwrap(), "reboot");
    assert_eq!(engine.record().confirmed, Bank::B);
}

#[test]
fn a_fallback_is_reported_with_its_reason() {
    let mut engine = in_state("unsettled");
    assert_eq!(
        words(&engine.handle(booted(Rearm::Allowed), 0).unwrap()),
        ["commit b=Failed trial=none confirmed=a", "set-default a", "history fell-back"]
    );
    let last = engine.record().last_result.clone().unwrap();
    assert_eq!((last.outcome, last.reason.as_deref()), (Outcome::FellBack, Some(NO_WORD)));

    let mut sick = in_state("trial");
    let failed = Event::GateFailed { reason: "check\nfailed".into(), evidence: Some("/log".into()) };
    assert_eq!(
        words(&sick.handle(failed, 0).unwrap()),
        ["commit b=Failed trial=Failed confirmed=a", "history rejected", "reboot"]
    );
    let mut after = self::engine(sick.record().clone(), Bank::A);
    after.handle(booted(Rearm::Allowed), 0).unwrap();
    let last = after.record().last_result.clone().unwrap();
    assert_eq!(last.reason.as_deref(), Some("check; failed"));
    assert_eq!(last.evidence.as_deref(), Some("/log"));
}

/// A kernel that dies before the initrd counts nothing: the times we sent the firmware there are counted too.
#[test]
fn a_trial_that_never_reaches_the_initrd_ends_as_well() {
    for asked_by_us in [false, true] {
        let mut engine = in_state("armed");
        let mut boots = 0;
        if asked_by_us {
            let actions = words(&engine.handle(Event::RebootRequested, 0).unwrap());
            assert_eq!(actions[1..], ["set-trial b", "reboot"]);
            boots += 1;
        }
        while words(&engine.handle(booted(Rearm::Allowed), 0).unwrap()).contains(&"reboot".to_owned()) {
            boots += 1;
            assert!(boots < 5);
        }
        assert_eq!(boots, 1);
        assert_eq!(engine.state(), State::FellBack);
    }
}

#[test]
fn settling_twice_in_the_boot_that_armed_does_not_reboot() {
    let mut engine = in_state("armed");
    let same = Event::Booted { boot_id: "1".into(), rearm: Rearm::Allowed };
    assert!(engine.handle(same, 0).unwrap().is_empty(), "the trial is not withdrawn");
    assert_eq!(engine.state(), State::Armed(Bank::B));
}

#[test]
fn every_settled_boot_re_arms_the_loader() {
    for (record, expected) in [(both_confirmed(), "set-default a, spare"), (founded(), "set-default a")] {
        let mut engine = engine(record, Bank::A);
        for _ in 0..2 {
            assert_eq!(words(&engine.handle(booted(Rearm::Allowed), 0).unwrap()), [expected]);
        }
    }
}

#[test]
fn an_orderly_end_is_noted_once() {
    let mut record = founded();
    record.unclean = true;
    let mut fresh = engine(record.clone(), Bank::A);
    fresh.handle(booted(Rearm::Allowed), 0).unwrap();
    assert!(fresh.record().unclean, "only the end of the boot says how it ended");
    assert!(
        matches!(fresh.handle(Event::Ending, 0).unwrap()[..], [Action::Commit(ref noted)] if !noted.unclean)
    );
    assert!(fresh.handle(Event::Ending, 0).unwrap().is_empty());
    let mut founded = Engine::new(record, Origin::Founded, Bank::A, 1);
    assert!(
        founded.handle(Event::Ending, 0).unwrap().is_empty(),
        "what was never stored is not stored in passing"
    );
}

#[test]
fn tries_left_are_used() {
    let mut fresh = Engine::new(founded(), Origin::Stored, Bank::A, 3);
    for event in [Event::BeginInstall(offer(1)), Event::Written(proofs()), arm(), Event::RebootRequested] {
        fresh.handle(event, 0).unwrap();
    }
    let mut record = fresh.record().clone();
    let mut boots = 0;
    loop {
        // The trial boots, and dies after the initrd has counted it.
        record = rule::decide(&record, Bank::B, None).1;
        boots += 1;
        let mut back = engine(record.clone(), Bank::A);
        let again = words(&back.handle(booted(Rearm::Allowed), 0).unwrap()).contains(&"reboot".to_owned());
        record = back.record().clone();
        if !again {
            break;
        }
    }
    assert_eq!(boots, 3);
    assert_eq!(record.last_result.unwrap().outcome, Outcome::FellBack);
}

#[test]
fn a_record_that_was_not_there_is_founded_by_the_first_boot() {
    for (origin, expected) in
        [(Origin::Founded, "history record-founded"), (Origin::Rebuilt, "history record-rebuilt")]
    {
        let mut fresh = Engine::new(founded(), origin, Bank::A, 1);
        let actions = words(&fresh.handle(booted(Rearm::Allowed), 0).unwrap());
        assert_eq!(actions[1..], ["set-default a", expected]);
        assert!(actions[0].starts_with("commit"));
    }
}

#[test]
fn the_firmware_that_insists_on_the_other_confirmed_bank_is_believed() {
    let mut record = both_confirmed();
    let mut engine = engine(record.clone(), Bank::B);
    let actions = words(&engine.handle(booted(Rearm::Allowed), 0).unwrap());
    assert_eq!(
        actions,
        ["commit b=Confirmed trial=none confirmed=b", "set-default b, spare", "history bank-lost"]
    );
    record.banks.b.state = BankState::Failed;
    let mut engine = self::engine(record, Bank::B);
    assert_eq!(words(&engine.handle(booted(Rearm::Allowed), 0).unwrap()), ["set-default a"]);
}

#[test]
fn a_release_that_raises_the_floor_has_no_spare_below_it() {
    for (demanded, spare, told) in [
        (Version::new(1, 1, 0), BankState::Failed, "set-default b"),
        (Version::new(1, 0, 0), BankState::Confirmed, "set-default b, spare"),
    ] {
        let mut engine = engine(founded(), Bank::A);
        let offer = Offer { floor: Some(demanded.clone()), ..offer(1) };
        for event in [Event::BeginInstall(offer), Event::Written(proofs()), arm(), Event::RebootRequested] {
            engine.handle(event, 0).unwrap();
        }
        let mut trial = self::engine(rule::decide(engine.record(), Bank::B, None).1, Bank::B);
        let actions = words(&trial.handle(Event::Confirm, 0).unwrap());
        assert!(actions.iter().any(|action| action == told), "{actions:?}");
        let record = trial.record();
        assert_eq!((record.floor.as_ref(), record.banks.a.state), (Some(&demanded), spare));
        // Three boots that do not end never lead below the floor.
        let mut record = record.clone();
        let mut decision = rule::decide(&record, Bank::B, None);
        for _ in 0..3 {
            record = decision.1;
            decision = rule::decide(&record, Bank::B, None);
        }
        let leads_back = matches!(decision.0, rule::Decision::Redirect { .. });
        assert_eq!(leads_back, spare == BankState::Confirmed);
    }
}

#[test]
fn a_rollback_is_a_trial_of_the_other_confirmed_bank() {
    let mut engine = in_state("trial");
    engine.handle(Event::Confirm, 0).unwrap();
    assert_eq!(engine.handle(Event::BeginRollback, 0).unwrap(), [Action::ReadBack(Bank::A)]);
    let actions = engine.handle(Event::RollbackProven { boot_id: "3".into() }, 0).unwrap();
    assert_eq!(words(&actions).last().unwrap(), "set-trial a");
    let trial = engine.record().trial.as_ref().unwrap();
    assert_eq!((trial.bank, trial.purpose), (Bank::A, Purpose::Rollback));
}

fn any_event() -> impl Strategy<Value = Event> {
    prop_oneof![
        (1u64..5).prop_map(|minor| Event::BeginInstall(offer(minor))),
        Just(Event::Written(proofs())),
        any::<u8>().prop_map(|boot| Event::Arm { boot_id: boot.to_string() }),
        Just(Event::RebootRequested),
        any::<u8>().prop_map(|boot| Event::Booted { boot_id: boot.to_string(), rearm: Rearm::Allowed }),
        Just(Event::Confirm),
        Just(Event::GateFailed { reason: "sick".into(), evidence: None }),
        Just(Event::Reject { reason: "by hand".into() }),
        Just(Event::Ending),
        Just(Event::Cancel),
        Just(Event::BeginRollback),
        any::<u8>().prop_map(|boot| Event::RollbackProven { boot_id: boot.to_string() }),
    ]
}

proptest! {
    /// Whatever happens in whatever order, wherever the loader starts: never a write to the running bank, never a trial of
    /// a bank that is not complete, the floor never falls, and the confirmed bank is one that was confirmed.
    #[test]
    fn promises_hold_on_every_road(steps in proptest::collection::vec((any_event(), any::<Option<bool>>()), 1..60)) {
        let mut engine = Engine::new(founded(), Origin::Stored, Bank::A, 2);
        for (event, boot) in steps {
            let running = engine.running();
            let floor = engine.record().floor.clone();
            for action in engine.handle(event, 0).unwrap_or_default() {
                match action {
                    Action::WipeBoot(bank) | Action::WriteImages(bank) => {
                        prop_assert_ne!(bank, running);
                        prop_assert_eq!(engine.record().confirmed, running);
                    }
                    Action::SetTrial(bank) => {
                        let state = engine.record().banks.get(bank).state;
                        prop_assert!(matches!(state, BankState::Written | BankState::Confirmed), "{:?}", state);
                    }
                    Action::Commit(record) => {
                        prop_assert!(record.floor >= floor);
                        prop_assert_eq!(record.banks.get(record.confirmed).state, BankState::Confirmed);
                    }
                    Action::SetDefault(bank, spare) => {
                        let record = engine.record();
                        prop_assert_eq!(record.banks.get(bank).state, BankState::Confirmed);
                        if spare == Spare::Bootable {
                            prop_assert_eq!(record.banks.get(!bank).state, BankState::Confirmed);
                        }
                    }
                    Action::ReadBack(_) | Action::History(_) | Action::Reboot => (),
                }
            }
            if let Some(other) = boot {
                let mut standing_in = if other { !running } else { running };
                let mut record = engine.record().clone();
                // Boots that nobody settles come to the stated end, as power cuts do; the reset behind it boots.
                let (mut up, mut ends) = (false, 0);
                for _ in 0..10 {
                    let (decision, next) = rule::decide(&record, standing_in, None);
                    record = next;
                    match decision {
                        rule::Decision::Boot(_) => {
                            up = true;
                            break;
                        }
                        rule::Decision::Redirect { to, .. } => standing_in = to,
                        rule::Decision::Stop { .. } => ends += 1,
                    }
                }
                prop_assert!(up && ends <= 1, "{ends} ends");
                prop_assert_ne!(record.banks.get(standing_in).state, BankState::Writing);
                engine = Engine::new(record, Origin::Stored, standing_in, 2);
            }
        }
    }
}
