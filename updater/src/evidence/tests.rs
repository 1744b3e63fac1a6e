//! Evidence on a state directory, with a store of the kernel that is played by files.

use bank_format::release::Version;

use super::*;
use crate::{
    files::DiskFiles,
    health::rounds::Standing,
    limits::{MAX_CHECK_OUTPUT_BYTES, MAX_HEALTH_CHECKS},
};

fn release(minor: u64) -> Release {
    Release { name: "demo".into(), version: Version::new(1, minor, 0) }
}

fn failed<'a>(release: &'a Release, reason: Option<&'a str>, kept: Option<&'a str>) -> Occasion<'a> {
    Occasion::FailedTrial { release: Some(release), bank: Bank::B, reason, kept }
}

struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("pstore")).unwrap();
        Self { dir }
    }
    fn state(&self) -> State {
        State::on_disk(&self.dir.path().join("state"))
    }
    fn pstore(&self) -> PathBuf {
        self.dir.path().join("pstore")
    }
    fn panics(&self) {
        let text = "Panic#1 Part1\n<0>[ 3.0] Kernel panic - not syncing: sysrq triggered crash\n";
        std::fs::write(self.pstore().join("dmesg-efi_pstore-1"), text).unwrap();
    }
    fn collect(&self, occasion: Occasion<'_>) -> Option<Witness> {
        collect(&self.state(), &self.pstore(), occasion).unwrap()
    }
    fn left(&self) -> Vec<u64> {
        numbered(&DiskFiles, &self.state().directory().join("evidence"))
            .unwrap()
            .into_iter()
            .map(|(number, _)| number)
            .collect()
    }
}

#[test]
fn evidence_that_cannot_be_kept_does_not_stay_in_the_firmwares_memory() {
    let place = Place::new();
    place.panics();
    // Nothing can be kept where a file is in the way of the directory.
    std::fs::write(place.state().directory(), "").unwrap();
    let ordinary = Occasion::Ordinary { release: None, bank: Bank::A };
    assert!(collect(&place.state(), &place.pstore(), ordinary).is_err());
    assert_eq!(std::fs::read_dir(place.pstore()).unwrap().count(), 0);
}

fn finding() -> Finding {
    Finding {
        check: "kiosk answers".into(),
        kind: "command".into(),
        state: Standing::Failed,
        why: Some("exit 1".into()),
        looks: 3,
        milliseconds: 4000,
        output: Some("no kiosk\n".into()),
    }
}

#[test]
fn a_trial_that_panics_leaves_its_snapshot_and_the_last_words_of_its_kernel() {
    let place = Place::new();
    let attempt = Attempt::begin(&place.state(), Some(&release(2)), Bank::B).unwrap();
    attempt.keep_journal(b"the log so far\n").unwrap();
    attempt.keep_checks(&[finding()]).unwrap();
    place.panics();
    for _ in 0..2 {
        // Twice: a power cut may come before the record knows of it.
        let witness = place.collect(failed(&release(2), None, None)).unwrap();
        assert!(witness.directory.ends_with("evidence/demo-1.2.0-1"), "{witness:?}");
        assert_eq!(witness.panic.as_deref(), Some("kernel panic: sysrq triggered crash"));
    }
    let kept = read(&DiskFiles, attempt.directory());
    assert_eq!(kept.checks, [finding()]);
    assert_eq!(kept.journal.as_deref(), Some("the log so far\n"));
    assert!(kept.kernel.unwrap().contains("Kernel panic"));
    assert_eq!(std::fs::read_dir(place.pstore()).unwrap().count(), 0, "the store is empty again");
    close_all(&place.state()).unwrap();
    assert_eq!(place.collect(failed(&release(2), None, None)), None, "a later attempt is another one");
}

#[test]
fn the_kernels_word_is_the_reason_where_there_is_no_other() {
    let place = Place::new();
    place.panics();
    let witness = place.collect(failed(&release(2), None, None)).unwrap();
    assert_eq!(witness.panic.as_deref(), Some("kernel panic: sysrq triggered crash"));
    assert_eq!(read(&DiskFiles, &witness.directory).reason, witness.panic);
    place.panics();
    let witness = place.collect(failed(&release(2), Some("initrd, root: rotten"), None)).unwrap();
    assert_eq!(read(&DiskFiles, &witness.directory).reason.as_deref(), Some("initrd, root: rotten"));
}

#[test]
fn what_the_gate_has_kept_is_gone_on_with() {
    let place = Place::new();
    let attempt = Attempt::begin(&place.state(), Some(&release(2)), Bank::B).unwrap();
    attempt.close().unwrap();
    let kept = attempt.directory().to_str().unwrap().to_owned();
    let witness = place.collect(failed(&release(2), Some("unhealthy"), Some(&kept))).unwrap();
    assert_eq!(witness.directory, attempt.directory());
    assert_eq!(place.left(), [1]);
    assert_eq!(place.collect(failed(&release(2), None, Some("/nonexistent/x"))), None);
}

#[test]
fn an_ordinary_boot_keeps_a_panic_and_throws_a_confirmed_trial_away() {
    let place = Place::new();
    let occasion = Occasion::Ordinary { release: None, bank: Bank::A };
    Attempt::begin(&place.state(), Some(&release(2)), Bank::B).unwrap();
    assert_eq!(place.collect(Occasion::TrialRuns), None);
    assert_eq!(place.left(), [1]);
    assert_eq!(place.collect(occasion), None);
    assert!(place.left().is_empty());
    place.panics();
    let witness = place.collect(occasion).unwrap();
    assert!(witness.directory.ends_with("evidence/unknown-1"), "{witness:?}");
}

#[test]
fn evidence_of_another_release_is_not_mixed_up() {
    let place = Place::new();
    Attempt::begin(&place.state(), Some(&release(1)), Bank::B).unwrap();
    place.panics();
    let witness = place.collect(failed(&release(2), None, None)).unwrap();
    assert!(witness.directory.ends_with("evidence/demo-1.2.0-2"), "{witness:?}");
}

#[test]
fn the_newest_are_kept_and_their_sum_is_bounded() {
    let place = Place::new();
    for _ in 0..12 {
        let attempt = Attempt::begin(&place.state(), Some(&release(2)), Bank::B).unwrap();
        attempt.keep_journal(&[b'\n'; MAX_JOURNAL_BYTES]).unwrap();
        attempt.keep_kernel_log(&[b'\n'; MAX_KERNEL_LOG_BYTES]).unwrap();
    }
    assert_eq!(place.left(), (5..=12).collect::<Vec<_>>(), "eight with long logs");
    for _ in 0..12 {
        let attempt = Attempt::begin(&place.state(), Some(&release(2)), Bank::B).unwrap();
        attempt.keep_journal(&vec![b'\n'; 10 * MAX_JOURNAL_BYTES]).unwrap();
        attempt.keep_kernel_log(&vec![b'\n'; 10 * MAX_KERNEL_LOG_BYTES]).unwrap();
        std::fs::write(attempt.directory().join(CHECKS), vec![b' '; 600 << 10]).unwrap();
    }
    let attempts = numbered(&DiskFiles, &place.state().directory().join("evidence")).unwrap();
    let total: u64 = attempts.iter().map(|(_, path)| bytes_of(&DiskFiles, path).unwrap()).sum();
    assert!(total <= MAX_EVIDENCE_BYTES, "{total}");
    assert!(attempts.len() >= 2 && attempts.last().unwrap().0 == 24, "{attempts:?}");
}

/// The most checks, each of which says as much as it can, in bytes that grow.
#[test]
fn the_longest_findings_can_be_read_back() {
    let place = Place::new();
    let attempt = Attempt::begin(&place.state(), Some(&release(2)), Bank::B).unwrap();
    let long = Finding {
        check: "\"".repeat(bank_format::limits::MAX_CHECK_NAME_BYTES),
        why: Some(reason_line(&"\"".repeat(9999))),
        output: Some("\n".repeat(MAX_CHECK_OUTPUT_BYTES)),
        ..finding()
    };
    let findings = vec![long; MAX_HEALTH_CHECKS + 5];
    attempt.keep_checks(&findings).unwrap();
    assert_eq!(read(&DiskFiles, attempt.directory()).checks, findings);
}

#[test]
fn a_long_log_keeps_its_end_from_the_beginning_of_a_line() {
    assert_eq!(tail(b"first\nsecond\nthird\n", 9), b"third\n");
    assert_eq!(tail(b"short", 9), b"short");
    assert_eq!(tail(b"0123456789", 4), b"6789");
}

#[test]
fn a_directory_that_is_gone_has_nothing_to_say() {
    assert_eq!(read(&DiskFiles, Path::new("/nonexistent/x")), Kept::default());
}
