//! Rollback, the health gate and the lost record, on files.

use std::{cell::RefCell, path::Path, time::Duration};

use crate::support::{bundle, content, device_directory, trust, write};
use bank_format::{Bank, manifest::Tree, record::Outcome};
use updater::{
    Device, Kind, Result, Terms,
    commands::reboot::reboot_and_settle,
    config::{Config, Network},
    device::{NoWork, Purpose},
    engine::{Event, State},
    gate::{Finding, Verdict, Wait, decide, examine},
    history::{Happening, HistoryFile, HistoryLog},
    install,
    machine::Machine,
    ports::Silent,
    rollback::{RolledBack, rollback},
};

fn config(directory: &Path) -> Config {
    Config::load(&directory.join("updater.toml")).unwrap()
}

fn open(directory: &Path) -> Device {
    Device::open(&config(directory), Purpose::Act).unwrap()
}

fn installed(directory: &Path, version: &str, seed: u64) {
    let file = bundle(version, &[("root", &content(60_000, seed), Tree::None)]);
    let file = write(directory, "x.roro", &file);
    let terms = Terms { compatible: "test,any".into(), trust: trust(), network: Network::default() };
    install(&mut open(directory), &terms, file.to_str().unwrap(), &mut Silent).unwrap();
}

fn rebooted(directory: &Path) -> Device {
    let mut device = open(directory);
    reboot_and_settle(&config(directory), &mut device).unwrap();
    open(directory)
}

fn confirmed(directory: &Path, version: &str, seed: u64) {
    installed(directory, version, seed);
    rebooted(directory).handle(Event::Confirm, &mut NoWork).unwrap();
}

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

/// A system whose words are given.
struct Played {
    failed: Vec<String>,
    asked: RefCell<Vec<Duration>>,
}

impl Machine for Played {
    fn wait_until_up(&self, deadline: Duration) -> Result<(), String> {
        self.asked.borrow_mut().push(deadline);
        Ok(())
    }
    fn failed_units(&self) -> Result<Vec<String>, String> {
        Ok(self.failed.clone())
    }
    fn check(&self, command: &[String], _: Duration) -> Result<(), String> {
        if command == ["/bin/false"] { Err("exit 1: no kiosk".into()) } else { Ok(()) }
    }
    fn journal(&self) -> Vec<u8> {
        b"the log of that boot\n".to_vec()
    }
}

fn gate(directory: &Path, failed: &[&str]) -> (Verdict, Vec<Finding>) {
    let machine =
        Played { failed: failed.iter().map(|unit| (*unit).into()).collect(), asked: RefCell::default() };
    let state_dir = directory.join("state");
    let wait = Wait::UntilUp(Duration::from_secs(9));
    let findings = examine(&machine, wait, &state_dir, &[directory.join("health.d")]);
    assert_eq!(machine.asked.take(), [Duration::from_secs(9)]);
    (decide(&mut open(directory), &machine, &state_dir, &findings).unwrap(), findings)
}

#[test]
fn a_healthy_trial_is_confirmed_by_the_gate() {
    let dir = device_directory();
    assert_eq!(gate(dir.path(), &[]).0, Verdict::NoTrial);
    installed(dir.path(), "1.0.0", 1);
    assert_eq!(gate(dir.path(), &[]).0, Verdict::NoTrial, "not booted yet");
    rebooted(dir.path());
    let (verdict, findings) = gate(dir.path(), &[]);
    assert_eq!(verdict, Verdict::Confirmed);
    let checks: Vec<_> = findings.iter().map(|finding| finding.check.as_str()).collect();
    assert_eq!(checks, ["system is up", "no failed unit", "state is writable"]);
}

#[test]
fn a_sick_trial_leaves_its_reason_and_its_log() {
    let dir = device_directory();
    std::fs::create_dir(dir.path().join("health.d")).unwrap();
    let check = "[[check]]\nname = \"kiosk answers\"\ncommand = [\"/bin/false\"]\n";
    write(dir.path(), "health.d/kiosk.toml", check.as_bytes());
    installed(dir.path(), "1.0.0", 1);
    rebooted(dir.path());
    let (verdict, _) = gate(dir.path(), &["kiosk.service"]);
    let expected = "no failed unit: failed: kiosk.service; kiosk answers: exit 1: no kiosk";
    assert!(matches!(verdict, Verdict::Rejected { ref reason, .. } if reason == expected), "{verdict:?}");
    // The gate has rebooted; the next boot settles what became of it.
    let mut device = open(dir.path());
    assert_eq!(device.running(), Bank::A);
    updater::settle::settle(&mut device, updater::engine::Rearm::Allowed).unwrap();
    let last = device.record().last_result.clone().unwrap();
    assert_eq!((last.outcome, last.reason.as_deref()), (Outcome::FellBack, Some(expected)));
    let evidence = std::fs::read_to_string(last.evidence.unwrap()).unwrap();
    assert!(evidence.starts_with("reason: no failed unit") && evidence.contains("the log of that boot"));
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
