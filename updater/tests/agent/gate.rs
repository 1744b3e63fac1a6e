//! The gate from end to end: what it confirms, what it rejects, and what it tells the service manager.

use std::{
    os::unix::{fs::PermissionsExt, net::UnixDatagram},
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use crate::{
    health::Played,
    support::{config, device_directory, installed, open, rebooted, state_of, write},
};
use bank_format::{Bank, record::Outcome};
use updater::{
    engine::{Rearm, Sources, State},
    evidence::{self, Attempt},
    files::DiskFiles,
    gate::{Finding, Verdict, Wait, Watch, decide, examine},
    health::{look::Eye, plan, plan_of_trial, rounds::Mode},
    history::{Happening, HistoryFile, HistoryLog},
    limits,
    linux::{self, LockAttempt},
    machine::Machine,
    settle::settle,
};

struct Nobody;

impl Watch for Nobody {
    fn progress(&mut self, _: &[Finding], _: &str) {}
}

fn gate(directory: &Path, failed: &[&str]) -> (Verdict, Vec<Finding>) {
    let machine =
        Arc::new(Played { failed: failed.iter().map(|unit| (*unit).into()).collect(), ..Played::default() });
    let config = config(directory);
    let eye = Arc::new(Eye::new(Arc::clone(&machine) as Arc<dyn Machine>, &config));
    let limit = Duration::from_secs(9);
    // What has failed is not waited for: a built-in check gets half a minute.
    let mode = if failed.is_empty() { Mode::Until { soak: Duration::ZERO } } else { Mode::Once };
    let attempt = Attempt::begin(&config.state(), None, Bank::B).unwrap();
    let findings = examine(&eye, plan(&config), Wait::UntilUp(limit), mode, &mut Nobody);
    assert_eq!(*machine.waited.lock().unwrap(), [limit; 2]);
    (decide(&mut open(directory), &*machine, Some(&attempt), &findings).unwrap(), findings)
}

fn checks(findings: &[Finding]) -> Vec<&str> {
    findings.iter().map(|finding| finding.check.as_str()).collect()
}

#[test]
fn a_healthy_trial_is_confirmed_and_the_history_has_its_checks() {
    let dir = device_directory();
    assert_eq!(gate(dir.path(), &[]).0, Verdict::NoTrial);
    installed(dir.path(), "1.0.0", 1);
    assert_eq!(gate(dir.path(), &[]).0, Verdict::NoTrial, "not booted yet");
    rebooted(dir.path());
    let (verdict, findings) = gate(dir.path(), &[]);
    assert_eq!(verdict, Verdict::Confirmed);
    let expected = ["system is up", "boot-complete.target", "no failed unit", "state is writable"];
    assert_eq!(checks(&findings), expected);
    let last = HistoryFile::in_directory(&state_of(dir.path())).entries().unwrap().pop().unwrap();
    assert_eq!((last.event, checks(&last.checks)), (Happening::Confirmed, expected.to_vec()));
}

#[test]
fn a_sick_trial_leaves_its_reason_its_checks_and_its_log() {
    let dir = device_directory();
    std::fs::create_dir(dir.path().join("health.d")).unwrap();
    let check = "[[check]]\nname = \"kiosk answers\"\ncommand = [\"/bin/sh\", \"-c\", \"echo no kiosk; exit 1\"]\n\
                 deadline_seconds = 1\n";
    write(dir.path(), "health.d/kiosk.toml", check.as_bytes());
    installed(dir.path(), "1.0.0", 1);
    rebooted(dir.path());
    let (verdict, _) = gate(dir.path(), &[]);
    let expected = "kiosk answers: exit 1: no kiosk";
    assert!(matches!(verdict, Verdict::Rejected { ref reason, .. } if reason == expected), "{verdict:?}");
    // The gate has rebooted; the next boot settles what became of it.
    let mut device = open(dir.path());
    assert_eq!(device.running(), Bank::A);
    settle(&mut device, Rearm::Allowed).unwrap();
    let last = device.record().last_result.clone().unwrap();
    assert_eq!((last.outcome, last.reason.as_deref()), (Outcome::FellBack, Some(expected)));
    let kept = evidence::read(&DiskFiles, Path::new(&last.evidence.unwrap()));
    assert_eq!(kept.reason.as_deref(), Some(expected));
    assert_eq!(kept.journal.as_deref(), Some("the log of that boot\n"));
    let sick = kept.checks.iter().find(|finding| finding.check == "kiosk answers").unwrap();
    assert_eq!(sick.output.as_deref(), Some("no kiosk\n"));
}

#[test]
fn a_failed_unit_rejects_the_trial() {
    let dir = device_directory();
    installed(dir.path(), "1.0.0", 1);
    rebooted(dir.path());
    let (verdict, _) = gate(dir.path(), &["kiosk.service"]);
    let expected = "no failed unit: failed: kiosk.service";
    assert!(matches!(verdict, Verdict::Rejected { ref reason, .. } if reason == expected), "{verdict:?}");
}

#[test]
fn a_system_that_does_not_come_up_is_rejected_and_looked_at_all_the_same() {
    let down = Played { down: Some("it waits for: kiosk.service"), ..Played::default() };
    let incomplete = Played { incomplete: Some("kiosk-check.service failed"), ..Played::default() };
    for (machine, expected, looked_at) in [
        (
            down,
            "system is up: it waits for: kiosk.service",
            &["system is up", "no failed unit", "state is writable"][..],
        ),
        (
            incomplete,
            "boot-complete.target: kiosk-check.service failed",
            &["system is up", "boot-complete.target", "no failed unit", "state is writable"],
        ),
    ] {
        let dir = device_directory();
        installed(dir.path(), "1.0.0", 1);
        rebooted(dir.path());
        let config = config(dir.path());
        let machine: Arc<dyn Machine> = Arc::new(machine);
        let eye = Arc::new(Eye::new(Arc::clone(&machine), &config));
        let wait = Wait::UntilUp(Duration::from_secs(9));
        // Nothing of an hour is left for a system that has failed already.
        let mode = Mode::Until { soak: Duration::from_secs(3600) };
        let findings = examine(&eye, plan(&config), wait, mode, &mut Nobody);
        assert_eq!(checks(&findings), looked_at);
        let verdict = decide(&mut open(dir.path()), &*machine, None, &findings).unwrap();
        assert!(matches!(verdict, Verdict::Rejected { ref reason, .. } if reason == expected), "{verdict:?}");
    }
}

/// The service manager kills a gate that is stuck, and none that still may be at work.
#[test]
fn the_unit_of_the_gate_fits_its_limits() {
    let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../boot-hooks/units/roro-gate.service");
    let unit = std::fs::read_to_string(unit).unwrap();
    let value = |key: &str| unit.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('=')).unwrap();
    let seconds = |key: &str| {
        let value = value(key);
        let digits = value.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let unit = match &value[digits.len()..] {
            "s" => 1,
            "min" => 60,
            "h" => 3600,
            other => unreachable!("{key} in {other}"),
        };
        Duration::from_secs(digits.parse::<u64>().unwrap() * unit)
    };
    assert_eq!((value("Type"), value("NotifyAccess")), ("notify", "main"));
    assert_eq!(value("WantedBy"), "sysinit.target", "a trial that ends in another target is judged as well");
    assert_eq!(value("FailureAction"), "reboot-force");
    assert_eq!(seconds("WatchdogSec"), limits::MAX_GATE_SILENCE);
    let tool = limits::TOOL_DEADLINE;
    let loader = limits::LOADER_PROGRAM_DEADLINE;
    for silence in [
        // The snapshot that is waited for; then the lock; then journal, loader and reboot.
        tool * 2,
        Duration::from_secs(limits::GATE_LOCK_ATTEMPTS.into()),
        tool * 2 + loader * 2,
        limits::WATCH_INTERVAL * 10,
    ] {
        assert!(silence < limits::MAX_GATE_SILENCE, "{silence:?}");
    }
    let check = Duration::from_secs(bank_format::limits::MAX_CHECK_SECONDS) + limits::LOOK_GRACE;
    let up = Duration::from_secs(limits::MAX_GATE_DEADLINE_SECONDS) + tool * 2 + limits::LOOK_GRACE;
    let soak = Duration::from_secs(bank_format::limits::MAX_SOAK_SECONDS);
    let whole = up * 2 + check * 3 + soak + limits::MAX_GATE_SILENCE * 3;
    assert!(whole < seconds("RuntimeMaxSec"), "{whole:?}");
}

/// The program itself, as its unit starts it; tools of the system are played by scripts, so that the host does not matter.
fn gate_command(directory: &Path, socket: &Path) -> Command {
    // systemd is up, no unit has failed, and nothing needs to be started.
    for (tool, script) in [("systemctl", "#!/bin/sh\nexit 0\n"), ("journalctl", "#!/bin/sh\necho played\n")] {
        let path = write(directory, tool, script.as_bytes());
        std::fs::set_permissions(path, PermissionsExt::from_mode(0o755)).unwrap();
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_updater"));
    command.arg("--config").arg(directory.join("updater.toml")).arg("gate");
    command.env("PATH", directory).env("NOTIFY_SOCKET", socket);
    command
}

fn heard(listener: &UnixDatagram) -> Vec<String> {
    listener.set_nonblocking(true).unwrap();
    let mut buffer = [0; 1024];
    let mut words = Vec::new();
    while let Ok(read) = listener.recv(&mut buffer) {
        words.push(String::from_utf8_lossy(&buffer[..read]).into_owned());
    }
    words
}

#[test]
fn the_service_manager_hears_that_the_gate_goes_on() {
    let dir = device_directory();
    let socket = dir.path().join("notify");
    let listener = UnixDatagram::bind(&socket).unwrap();
    assert!(gate_command(dir.path(), &socket).status().unwrap().success());
    let words = heard(&listener);
    assert!(words.len() == 1 && words[0].starts_with("READY=1\n"), "no trial: {words:?}");

    std::fs::create_dir(dir.path().join("health.d")).unwrap();
    // It would speak to the service manager in the gate's name, if it could.
    let check = "[[check]]\nname = \"slow\"\n\
                 command = [\"/bin/sh\", \"-c\", \"/bin/sleep 3; [ -z \\\"$NOTIFY_SOCKET\\\" ]\"]\n";
    write(dir.path(), "health.d/slow.toml", check.as_bytes());
    installed(dir.path(), "1.0.0", 1);
    rebooted(dir.path());
    let output = gate_command(dir.path(), &socket).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(open(dir.path()).engine().state(), State::Confirmed, "{output:?}");
    let words = heard(&listener);
    assert!(words[0].starts_with("READY=1\n"), "{words:?}");
    let beats = words.iter().filter(|word| word.starts_with("WATCHDOG=1\nSTATUS=")).count();
    assert!(beats == words.len() - 1 && beats >= 5, "{words:?}");
    assert!(words.iter().any(|word| word.contains("2 of 3 checks healthy, waiting for: slow")), "{words:?}");
    let left = std::fs::read_dir(dir.path().join("state/evidence")).unwrap().count();
    assert_eq!(left, 0, "a confirmed trial leaves no evidence");
}

/// No beat comes from a thread that has nothing to do with the work.
#[test]
fn a_gate_that_gets_no_further_is_silent() {
    let dir = device_directory();
    let socket = dir.path().join("notify");
    installed(dir.path(), "1.0.0", 1);
    rebooted(dir.path());
    std::fs::create_dir_all(dir.path().join("run")).unwrap();
    let LockAttempt::Taken(lock) = linux::try_lock(&dir.path().join("run/lock")).unwrap() else {
        unreachable!("nobody else is here")
    };
    let listener = UnixDatagram::bind(&socket).unwrap();
    let mut gate = gate_command(dir.path(), &socket).stdout(Stdio::null()).spawn().unwrap();
    let mut buffer = [0; 1024];
    listener.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    while !buffer.starts_with(b"WATCHDOG=1\nSTATUS=deciding") {
        buffer.fill(0);
        listener.recv(&mut buffer).unwrap();
    }
    listener.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
    let silence = listener.recv(&mut buffer);
    assert!(silence.is_err(), "it is held up: {:?}", String::from_utf8_lossy(&buffer));
    drop(lock);
    assert!(gate.wait().unwrap().success());
    assert_eq!(open(dir.path()).engine().state(), State::Confirmed);
}

/// The image of the trial has another configuration: its sources are gone, and nothing says that this is meant.
#[test]
fn a_release_that_has_lost_its_update_sources_is_not_confirmed() {
    for meant in ["", "[health]\nupdate_source = \"off\"\n"] {
        let dir = device_directory();
        let path = dir.path().join("updater.toml");
        let without = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, format!("{without}\n[[source]]\nurl = \"http://127.0.0.1:9/\"\n")).unwrap();
        rebooted(dir.path());
        installed(dir.path(), "1.0.0", 1);
        rebooted(dir.path());
        std::fs::write(&path, format!("{without}\n{meant}")).unwrap();
        let config = config(dir.path());
        let eye = Arc::new(Eye::new(Arc::new(Played::default()), &config));
        let plan = plan_of_trial(&config, open(dir.path()).engine().sources_before());
        let findings = examine(&eye, plan, Wait::No, Mode::Once, &mut Nobody);
        let mut device = open(dir.path());
        let verdict = decide(&mut device, &Played::default(), None, &findings).unwrap();
        if meant.is_empty() {
            let why = "update sources are still configured: no [[source]] is configured";
            assert!(matches!(verdict, Verdict::Rejected { ref reason, .. } if reason == why), "{verdict:?}");
        } else {
            assert_eq!((verdict, device.engine().sources_before()), (Verdict::Confirmed, Sources::None));
        }
    }
}
