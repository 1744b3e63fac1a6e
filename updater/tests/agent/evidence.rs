//! What a failed boot leaves, as the next good boot tells it. The kernel's store is played by a directory.

use std::{
    path::Path,
    process::Command,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use crate::{
    health::Played,
    support::{device_directory, installed, open, rebooted, state_of},
};
use bank_format::{Bank, record::Outcome};
use updater::{
    device::NoWork,
    engine::{Event, Rearm, State},
    evidence::{self, Attempt},
    files::DiskFiles,
    gate::{Finding, Keeper},
    history::{Happening, HistoryFile, HistoryLog},
    limits,
    settle::settle_with_evidence,
};

/// The trial runs, and its gate has begun to keep what it sees; then the kernel dies. Which boot comes next is up to the loader.
fn panics_on_trial(directory: &Path) -> Attempt {
    let mut device = open(directory);
    assert_eq!(device.engine().state(), State::Trial(Bank::B));
    let release = device.record().banks.b.release.clone();
    let attempt = Attempt::begin(&state_of(directory), release.as_ref(), Bank::B).unwrap();
    let keeper = Keeper::start(attempt.clone(), Arc::new(Played::default())).unwrap();
    while !attempt.directory().join("journal.txt").exists() {
        thread::sleep(Duration::from_millis(10));
    }
    keeper.end();
    let pstore = directory.join("pstore");
    std::fs::create_dir_all(&pstore).unwrap();
    let text = "Panic#1 Part1\n<0>[ 9.0] Kernel panic - not syncing: Attempted to kill init!\n";
    std::fs::write(pstore.join("dmesg-efi_pstore-1"), text).unwrap();
    device.handle(Event::RebootRequested, &mut NoWork).unwrap();
    attempt
}

fn updater(directory: &Path, arguments: &[&str]) -> (bool, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_updater"))
        .arg("--config")
        .arg(directory.join("updater.toml"))
        .args(arguments)
        .output()
        .unwrap();
    (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn a_panic_of_the_trial_is_told_by_the_next_good_boot() {
    let dir = device_directory();
    installed(dir.path(), "1.2.0", 1);
    rebooted(dir.path());
    let attempt = panics_on_trial(dir.path());
    let mut device = open(dir.path());
    assert_eq!(device.running(), Bank::A);
    let (state, pstore) = (state_of(dir.path()), dir.path().join("pstore"));
    settle_with_evidence(&mut device, Rearm::Allowed, &state, &pstore).unwrap();
    let last = device.record().last_result.clone().unwrap();
    assert_eq!(last.outcome, Outcome::FellBack);
    assert_eq!(last.reason.as_deref(), Some("kernel panic: Attempted to kill init!"));
    assert_eq!(last.evidence.as_deref(), attempt.directory().to_str());
    assert_eq!(std::fs::read_dir(&pstore).unwrap().count(), 0);
    let entry = HistoryFile::in_directory(&state).entries().unwrap().pop().unwrap();
    assert_eq!((entry.event, entry.evidence), (Happening::FellBack, last.evidence));

    let (good, list) = updater(dir.path(), &["history"]);
    assert!(good && list.lines().last().unwrap().trim_start().starts_with("1  "), "{list}");
    let (good, page) = updater(dir.path(), &["history", "show", "1"]);
    assert!(good, "{page}");
    for expected in [
        "fell-back       demo 1.2.0 (bank b): kernel panic: Attempted to kill init!",
        "last words of the kernel, the newest 1 of 1 lines:\n  <0>[ 9.0] Kernel panic",
        "journal of that boot, the newest 1 of 1 lines:\n  the log of that boot",
        "all of it: ",
    ] {
        assert!(page.contains(expected), "{expected}: {page}");
    }
    let (good, json) = updater(dir.path(), &["--json", "history", "show", "1"]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert!(good && json["number"] == 1 && json["kept"]["journal"] == "the log of that boot\n", "{json}");
    assert!(!updater(dir.path(), &["history", "show", "99"]).0);
    assert!(!updater(dir.path(), &["history", "show", "0"]).0);
}

/// A hang may come at any moment after a check has failed.
#[test]
fn the_keeper_does_not_wait_for_its_time_when_a_check_stands_otherwise() {
    let dir = tempfile::tempdir().unwrap();
    let attempt = Attempt::begin(&state_of(dir.path()), None, Bank::B).unwrap();
    let keeper = Keeper::start(attempt.clone(), Arc::new(Played::default())).unwrap();
    let began = Instant::now();
    for result in [Ok(()), Err("exit 1".to_owned())] {
        let findings = [Finding::of_step("kiosk answers", result, Duration::ZERO)];
        keeper.tell(&findings);
        while evidence::read(&DiskFiles, attempt.directory()).checks != findings {
            assert!(began.elapsed() < limits::SNAPSHOT_INTERVAL, "kept too late");
            thread::sleep(Duration::from_millis(10));
        }
    }
    keeper.end();
}

#[test]
fn each_attempt_of_several_tries_has_its_own_evidence() {
    let dir = device_directory();
    let path = dir.path().join("updater.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, format!("tries = 2\n{text}")).unwrap();
    let (state, pstore) = (state_of(dir.path()), dir.path().join("pstore"));
    installed(dir.path(), "1.2.0", 1);
    rebooted(dir.path());
    let first = panics_on_trial(dir.path());
    settle_with_evidence(&mut open(dir.path()), Rearm::Allowed, &state, &pstore).unwrap();
    let entry = HistoryFile::in_directory(&state).entries().unwrap().pop().unwrap();
    assert_eq!(entry.event, Happening::Rearmed);
    assert_eq!(entry.evidence.as_deref(), first.directory().to_str());
    let second = panics_on_trial(dir.path());
    let mut device = open(dir.path());
    settle_with_evidence(&mut device, Rearm::Allowed, &state, &pstore).unwrap();
    let last = device.record().last_result.clone().unwrap();
    assert_eq!((last.outcome, last.evidence.as_deref()), (Outcome::FellBack, second.directory().to_str()));
    assert_ne!(first.directory(), second.directory());
}
