//! Rollback and the lost record, on files.

use std::path::Path;

use crate::support::{confirmed, device_directory, installed, open, rebooted};
use bank_format::{Bank, record::Outcome};
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
    assert_eq!(rebooted(dir.path()).running(), Bank::A, "the loader was told as well");

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

#[test]
fn a_lost_record_is_rebuilt_and_the_floor_does_not_fall() {
    let dir = device_directory();
    confirmed(dir.path(), "1.0.0", 1);
    confirmed(dir.path(), "1.1.0", 2);
    confirmed(dir.path(), "1.2.0", 3);
    let floor = open(dir.path()).record().floor.clone();
    assert!(floor.is_some());
    let path = dir.path().join("record.bin");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[100] ^= 1;
    bytes[(32 << 10) + 100] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let mut device = open(dir.path());
    updater::settle::settle(&mut device, updater::engine::Rearm::Allowed).unwrap();
    assert_eq!(device.record().floor, floor);
    assert_eq!(device.record().last_result.as_ref().unwrap().outcome, Outcome::RecordRebuilt);
    let entries = HistoryFile::in_directory(&dir.path().join("state")).entries().unwrap();
    assert_eq!(entries.last().unwrap().event, Happening::RecordRebuilt);
}
