//! Rollback and the lost record, on files.

use std::path::Path;

use crate::support::{
    bundle, confirmed, content, device_directory, installed, open, rebooted, state_of, write,
};
use bank_format::{
    Bank,
    manifest::Tree,
    record::{BankState, Outcome},
};
use updater::{
    Kind, Result,
    device::NoWork,
    engine::{Event, State},
    history::{Happening, HistoryFile, HistoryLog},
    ports::Silent,
    rollback::{RolledBack, rollback},
};

fn roll_back(directory: &Path) -> Result<RolledBack> {
    rollback(&mut open(directory), &mut Silent)
}

#[test]
fn the_older_release_is_gone_back_to_as_a_trial() {
    let dir = device_directory();
    confirmed(dir.path(), "1.0.0", 1);
    confirmed(dir.path(), "1.1.0", 2);
    assert_eq!(open(dir.path()).running(), Bank::A);
    assert_eq!(roll_back(dir.path()).unwrap(), RolledBack::Armed(Bank::B));
    let mut device = rebooted(dir.path());
    assert_eq!(device.engine().state(), State::Trial(Bank::B));
    device.handle(Event::Confirm, &mut NoWork).unwrap();
    assert_eq!(device.record().confirmed, Bank::B);
    assert_eq!(roll_back(dir.path()).unwrap(), RolledBack::Armed(Bank::A), "and forth again");
}

#[test]
fn a_rotten_bank_is_not_gone_back_to() {
    let dir = device_directory();
    confirmed(dir.path(), "1.0.0", 1);
    confirmed(dir.path(), "1.1.0", 2);
    let path = dir.path().join("b.img");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[40_000] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let error = roll_back(dir.path()).unwrap_err();
    assert_eq!(error.kind(), Kind::Device, "{}", error.line());
    assert_eq!(open(dir.path()).engine().state(), State::Confirmed, "nothing was armed");
}

#[test]
fn what_was_not_tried_is_withdrawn_and_what_is_tried_is_rejected() {
    let dir = device_directory();
    installed(dir.path(), "1.0.0", 1);
    assert_eq!(roll_back(dir.path()).unwrap(), RolledBack::Cancelled(Bank::B));
    assert_eq!(open(dir.path()).record().banks.b.state, BankState::Empty, "nothing in it is to boot");
    assert_eq!(rebooted(dir.path()).running(), Bank::A, "the loader was told as well");
    let status = crate::install::updater(dir.path(), &["status"]);
    assert_eq!(status.last["passive"]["state"], "empty", "{}", status.last);
    let audit = crate::install::updater(dir.path(), &["audit", "--passive"]);
    assert_eq!(audit.last["result"], "nothing-installed", "{}", audit.last);

    installed(dir.path(), "1.0.0", 1);
    assert_eq!(rebooted(dir.path()).running(), Bank::B);
    assert_eq!(roll_back(dir.path()).unwrap(), RolledBack::Rejected(Bank::B));
    let device = rebooted(dir.path());
    assert_eq!(device.running(), Bank::A);
    let last = device.record().last_result.clone().unwrap();
    assert_eq!((last.outcome, last.reason.as_deref()), (Outcome::FellBack, Some("rejected by hand")));
}

#[test]
fn an_orderly_end_of_the_boot_is_on_record() {
    let dir = device_directory();
    rebooted(dir.path());
    rebooted(dir.path());
    assert!(open(dir.path()).record().unclean, "nobody has said how this boot ends");
    let ended = crate::install::updater(dir.path(), &["settle", "--ending"]);
    assert_eq!((ended.code, ended.errors.as_str()), (0, ""));
    assert!(!open(dir.path()).record().unclean);
    let record = std::fs::read(dir.path().join("record.bin")).unwrap();
    crate::install::updater(dir.path(), &["settle", "--ending"]);
    assert_eq!(std::fs::read(dir.path().join("record.bin")).unwrap(), record, "nothing is written twice");
}

/// How the state partition is sick.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Partition {
    Full,
    Unwritable,
}

/// What is told is lost, and nothing else: the release is installed, the sick one is left, the next one is confirmed.
#[test]
fn a_state_partition_that_takes_nothing_costs_no_install_and_no_way_back() {
    for sick in [Partition::Full, Partition::Unwritable] {
        let dir = device_directory();
        confirmed(dir.path(), "1.0.0", 1);
        let state = dir.path().join("state");
        std::fs::remove_dir_all(&state).unwrap();
        match sick {
            Partition::Full => {
                std::fs::create_dir(&state).unwrap();
                for name in ["history.jsonl", "lock"] {
                    std::os::unix::fs::symlink("/dev/full", state.join(name)).unwrap();
                }
                std::fs::write(state.join("evidence"), "").unwrap();
            }
            // Not even root can make a directory there.
            Partition::Unwritable => {
                let path = dir.path().join("updater.toml");
                let text = std::fs::read_to_string(&path).unwrap();
                let text = text.replace("state_dir = \"state\"", "state_dir = \"/proc/roro\"");
                std::fs::write(&path, text).unwrap();
            }
        }
        let run = |arguments: &[&str]| {
            let ran = crate::install::updater(dir.path(), arguments);
            assert_eq!(ran.code, 0, "{sick:?}, {arguments:?}: {}", ran.errors);
            ran
        };
        let file = bundle("1.1.0", &[("root", &content(60_000, 2), Tree::None)]);
        let file = write(dir.path(), "x.roro", &file);
        let told = run(&["install", file.to_str().unwrap()]);
        assert!(told.errors.contains("warning: the history lacks install-started"), "{}", told.errors);
        run(&["reboot"]);
        run(&["settle"]);
        assert_eq!(open(dir.path()).engine().state(), State::Trial(Bank::A));
        run(&["rollback"]);
        run(&["reboot"]);
        let told = run(&["settle"]);
        assert_eq!((told.last["result"].as_str(), open(dir.path()).running()), (Some("settled"), Bank::B));
        assert_eq!(open(dir.path()).record().last_result.as_ref().unwrap().outcome, Outcome::FellBack);
        run(&["install", file.to_str().unwrap()]);
        run(&["reboot"]);
        run(&["confirm"]);
        run(&["settle", "--ending"]);
        let device = open(dir.path());
        assert_eq!((device.record().confirmed, device.record().unclean), (Bank::A, false));
    }
}

#[test]
fn a_lost_record_and_a_history_that_cannot_be_read_leave_a_device_that_settles() {
    let dir = device_directory();
    confirmed(dir.path(), "1.0.0", 1);
    let history = dir.path().join("state/history.jsonl");
    std::fs::remove_file(&history).unwrap();
    std::fs::create_dir(&history).unwrap();
    std::fs::write(dir.path().join("record.bin"), [1; 64 << 10]).unwrap();
    let told = crate::install::updater(dir.path(), &["settle"]);
    assert_eq!(told.code, 0, "{}", told.errors);
    assert!(told.errors.contains("warning: no floor is remembered"), "{}", told.errors);
    let device = open(dir.path());
    assert_eq!((device.running(), device.record().confirmed), (Bank::B, Bank::B));
}

#[test]
fn a_lost_or_wiped_record_is_rebuilt_and_the_floor_does_not_fall() {
    for wiped in [vec![1; 64 << 10], vec![0; 64 << 10]] {
        let dir = device_directory();
        confirmed(dir.path(), "1.0.0", 1);
        confirmed(dir.path(), "1.1.0", 2);
        confirmed(dir.path(), "1.2.0", 3);
        let floor = open(dir.path()).record().floor.clone();
        assert!(floor.is_some());
        let history = HistoryFile::in_directory(&state_of(dir.path()));
        assert_eq!(history.entries().unwrap().into_iter().filter_map(|entry| entry.floor).max(), floor);
        std::fs::write(dir.path().join("record.bin"), wiped).unwrap();
        let mut device = open(dir.path());
        updater::settle::settle(&mut device, updater::engine::Rearm::Allowed).unwrap();
        assert!(device.record().floor >= floor);
        assert_eq!(device.record().last_result.as_ref().unwrap().outcome, Outcome::RecordRebuilt);
        assert_eq!(history.entries().unwrap().last().unwrap().event, Happening::RecordRebuilt);
    }
}
