//! The machine under the health gate: systemd, the journal, the reset.

use std::{
    fs::File,
    io::{self, Read},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    time::{Duration, Instant},
};

use crate::{
    health::rounds::Trouble,
    limits::{
        MAX_CHECK_OUTPUT_BYTES, MAX_JOURNAL_BYTES, MAX_JOURNAL_LINES, MAX_TOOL_BYTES, MIN_LOOK,
        TOOL_DEADLINE, WATCH_INTERVAL,
    },
    linux,
    ports::{AfterReboot, Reboot},
    process::{self, Ended, Finished, Keep},
};

/// What the health gate asks. Each question ends in about its limit.
pub trait Machine: Send + Sync {
    /// Waits until the system is up; the error says what it waits for.
    fn wait_until_up(&self, limit: Duration) -> Result<(), String>;
    /// Starts `boot-complete.target`, where there is one, with all that it requires.
    fn complete_boot(&self, limit: Duration) -> Result<(), String>;
    /// Names of the units that failed.
    fn failed_units(&self, limit: Duration) -> Result<Vec<String>, String>;
    /// Whether a unit is active.
    fn unit_is_active(&self, unit: &str, limit: Duration) -> Result<(), String>;
    /// How a container is, in a word of its runtime: `running`, `stopped`, ...
    fn container_status(&self, container: &str, limit: Duration) -> Result<String, String>;
    /// Runs a program of a health check.
    fn check(&self, command: &[String], limit: Duration) -> Result<(), Trouble>;
    /// The newest part of this boot's log.
    fn journal(&self) -> Vec<u8>;
}

const BOOT_COMPLETE: &str = "boot-complete.target";

/// This machine.
#[derive(Debug, Clone, Copy)]
pub struct ThisMachine;

/// What `systemctl is-system-running` means.
#[derive(Debug, PartialEq, Eq)]
enum State {
    /// All that was to be started was started; which units failed is asked separately.
    Up,
    /// It will not come up.
    Down(String),
    /// No answer, or not up yet.
    Unknown(String),
}

/// Only two words mean that the system is up: whatever else is said must not pass for it.
fn state_of_system(answer: &str) -> State {
    match last_line(answer) {
        "running" | "degraded" => State::Up,
        word @ ("maintenance" | "stopping") => State::Down(format!("the state of the system is: {word}")),
        "" => State::Unknown("systemctl does not say whether the system is up".into()),
        word => State::Unknown(format!("the state of the system is: {word}")),
    }
}

/// Whether `boot-complete.target` is there to be started. Only an image that has none, or has masked it, goes without.
fn is_there(succeeded: bool, answer: &str) -> Result<bool, String> {
    match (succeeded, last_line(answer)) {
        (true, "loaded") => Ok(true),
        (true, "not-found" | "masked") => Ok(false),
        (true, word) => Err(format!("it cannot be started, its state is: {word}")),
        (false, word) => Err(format!("systemctl does not know it: {word}")),
    }
}

/// What a tool says on its error output comes before its answer.
fn last_line(text: &str) -> &str {
    text.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or_default()
}

fn not_up_in(deadline: Duration) -> String {
    let jobs = systemctl(&["list-jobs", "--no-legend", "--no-pager"], TOOL_DEADLINE)
        .map(|jobs| jobs.text())
        .unwrap_or_default();
    let units: Vec<&str> = jobs.lines().filter_map(|line| line.split_whitespace().nth(1)).take(8).collect();
    format!("the system did not come up in {} s, it waits for: {}", deadline.as_secs(), units.join(", "))
}

fn systemd_runs() -> bool {
    Path::new("/run/systemd/system").is_dir()
}

fn systemctl(arguments: &[&str], deadline: Duration) -> Result<Finished, String> {
    process::run("systemctl", arguments, deadline, Keep::First(MAX_TOOL_BYTES))
        .map_err(|error| format!("systemctl cannot be run: {error}"))
}

impl Machine for ThisMachine {
    fn wait_until_up(&self, deadline: Duration) -> Result<(), String> {
        if !systemd_runs() {
            return Ok(());
        }
        let end = Instant::now() + deadline;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let waited = systemctl(&["is-system-running", "--wait"], left.max(MIN_LOOK))?;
            let why = match (&waited.ended, state_of_system(&waited.text())) {
                (Ended::Exited(_), State::Up) => return Ok(()),
                (Ended::Exited(_), State::Down(why)) => return Err(why),
                // A service manager that was executed anew has dropped the question: it is asked again.
                (Ended::Exited(_), State::Unknown(why)) => why,
                (Ended::TimedOut, _) => return Err(not_up_in(deadline)),
            };
            if Instant::now() >= end {
                return Err(why);
            }
            std::thread::sleep(WATCH_INTERVAL);
        }
    }

    fn complete_boot(&self, limit: Duration) -> Result<(), String> {
        if !systemd_runs() {
            return Ok(());
        }
        let state = systemctl(&["show", "--property=LoadState", "--value", BOOT_COMPLETE], TOOL_DEADLINE)?;
        if !is_there(state.succeeded(), &state.text())? {
            return Ok(());
        }
        let started = systemctl(&["start", BOOT_COMPLETE], limit)?;
        match started.ended {
            Ended::Exited(status) if status.success() => Ok(()),
            Ended::Exited(_) => {
                let failed = self.failed_units(TOOL_DEADLINE).unwrap_or_default();
                Err(format!("{}; failed: {}", first_lines(&started.text(), 2), failed.join(", ")))
            }
            Ended::TimedOut => Err(format!("not reached in {} s", limit.as_secs())),
        }
    }

    fn failed_units(&self, limit: Duration) -> Result<Vec<String>, String> {
        if !systemd_runs() {
            return Ok(Vec::new());
        }
        let arguments = ["list-units", "--state=failed", "--plain", "--no-legend", "--no-pager"];
        let listed = systemctl(&arguments, limit.min(TOOL_DEADLINE))?;
        if !listed.succeeded() {
            return Err(format!("failed units cannot be listed: {}", listed.text().trim()));
        }
        let names = listed.text();
        Ok(names.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect())
    }

    fn unit_is_active(&self, unit: &str, limit: Duration) -> Result<(), String> {
        if !systemd_runs() {
            return Err("systemd does not run here".into());
        }
        let asked = systemctl(&["is-active", "--", unit], limit.min(TOOL_DEADLINE))?;
        match (&asked.ended, asked.succeeded()) {
            (_, true) => Ok(()),
            (Ended::Exited(_), false) => Err(format!("{unit} is {}", first_lines(&asked.text(), 1))),
            (Ended::TimedOut, _) => Err("systemctl gives no answer".into()),
        }
    }

    fn container_status(&self, container: &str, limit: Duration) -> Result<String, String> {
        let limit = limit.min(TOOL_DEADLINE);
        let asked = process::run("crun", &["state", container], limit, Keep::First(MAX_TOOL_BYTES))
            .map_err(|error| format!("crun cannot be run: {error}"))?;
        if !asked.succeeded() {
            return Err(format!("crun knows no state of it: {}", first_lines(&asked.text(), 2)));
        }
        status_of_container(&asked.text())
    }

    fn check(&self, command: &[String], limit: Duration) -> Result<(), Trouble> {
        let Some((program, arguments)) = command.split_first() else {
            return Err(Trouble::new("its command is empty"));
        };
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let finished = process::run(program, &arguments, limit, Keep::First(MAX_CHECK_OUTPUT_BYTES))
            .map_err(|error| Trouble::new(format!("{program} cannot be run: {error}")))?;
        let how = match finished.ended {
            Ended::Exited(status) if status.success() => return Ok(()),
            Ended::Exited(status) => linux::describe_exit(status),
            Ended::TimedOut => format!("no answer in {} s", limit.as_secs()),
        };
        let output = finished.text();
        let said = first_lines(&output, 3);
        Err(Trouble { why: if said.is_empty() { how } else { format!("{how}: {said}") }, output })
    }

    fn journal(&self) -> Vec<u8> {
        let lines = format!("--lines={MAX_JOURNAL_LINES}");
        let arguments = ["-b", "--no-pager", "-o", "short-monotonic", &lines];
        match process::run("journalctl", &arguments, TOOL_DEADLINE, Keep::Last(MAX_JOURNAL_BYTES)) {
            Ok(finished) if finished.succeeded() && !finished.output.is_empty() => finished.output,
            Ok(_) | Err(_) => kernel_log(),
        }
    }
}

fn first_lines(text: &str, count: usize) -> String {
    text.lines().map(str::trim).filter(|line| !line.is_empty()).take(count).collect::<Vec<_>>().join("; ")
}

/// The `status` of an answer in the form of the OCI runtime specification.
fn status_of_container(answer: &str) -> Result<String, String> {
    let answer: serde_json::Value =
        serde_json::from_str(answer).map_err(|error| format!("answer of crun cannot be read: {error}"))?;
    let status = answer.get("status").and_then(serde_json::Value::as_str);
    status.map(str::to_owned).ok_or_else(|| "answer of crun has no status".into())
}

/// The kernel's log, record by record, until there is no more.
fn kernel_log() -> Vec<u8> {
    let read = || -> io::Result<Vec<u8>> {
        let mut file = File::options().read(true).custom_flags(nix::libc::O_NONBLOCK).open("/dev/kmsg")?;
        let mut log = Vec::new();
        let mut record = [0; 8192];
        loop {
            match file.read(&mut record) {
                Ok(0) => return Ok(log),
                Ok(read) => {
                    log.extend_from_slice(record.get(..read).unwrap_or_default());
                    let surplus = log.len().saturating_sub(MAX_JOURNAL_BYTES);
                    log.drain(..surplus);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(log),
                // A record that was overwritten meanwhile; the next read goes on behind it.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => (),
                Err(error) => return Err(error),
            }
        }
    };
    read().unwrap_or_default()
}

/// Reboots this machine: by systemd, which stops the services; without it, at once.
#[derive(Debug, Clone, Copy)]
pub struct MachineReboot;

impl Reboot for MachineReboot {
    fn reboot(&mut self) -> io::Result<AfterReboot> {
        linux::sync_all();
        if systemd_runs() && systemctl(&["reboot"], TOOL_DEADLINE).is_ok_and(|finished| finished.succeeded())
        {
            return Ok(AfterReboot::GoingDown);
        }
        linux::reset().map(|()| AfterReboot::GoingDown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_running_and_degraded_are_up() {
        for up in ["running\n", "degraded\n", "warning: x\ndegraded\n"] {
            assert_eq!(state_of_system(up), State::Up);
        }
        for down in ["maintenance\n", "stopping\n"] {
            assert!(matches!(state_of_system(down), State::Down(_)), "{down}");
        }
        for open in [
            "",
            "starting",
            "initializing",
            "offline",
            "unknown",
            "Failed to connect to bus: x",
            "not running",
        ] {
            assert!(matches!(state_of_system(open), State::Unknown(_)), "{open}");
        }
    }

    #[test]
    fn boot_complete_is_passed_over_only_where_there_is_none() {
        assert_eq!(is_there(true, "loaded\n"), Ok(true));
        for none in ["not-found\n", "masked\n"] {
            assert_eq!(is_there(true, none), Ok(false));
        }
        for (succeeded, answer) in [
            (true, "error\n"),
            (true, "bad-setting\n"),
            (true, ""),
            (false, ""),
            (false, "loaded\n"),
            (false, "not-found"),
        ] {
            assert!(is_there(succeeded, answer).is_err(), "{succeeded} {answer}");
        }
    }

    #[test]
    fn the_state_of_a_container_is_read() {
        let answer = r#"{"ociVersion":"1.0.0","id":"web","pid":7,"status":"running","bundle":"/x"}"#;
        assert_eq!(status_of_container(answer).unwrap(), "running");
        assert!(status_of_container("{}").unwrap_err().contains("no status"));
        assert!(status_of_container("error: no such").unwrap_err().contains("cannot be read"));
    }

    #[test]
    fn a_check_says_how_it_ended_and_what_it_said() {
        let run = |script: &str, seconds| {
            let command = ["/bin/sh", "-c", script].map(str::to_owned);
            ThisMachine.check(&command, Duration::from_secs(seconds))
        };
        assert_eq!(run("exit 0", 9), Ok(()));
        let trouble = run("echo; echo no kiosk; exit 7", 9).unwrap_err();
        assert_eq!((trouble.why.as_str(), trouble.output.as_str()), ("exit 7: no kiosk", "\nno kiosk\n"));
        assert_eq!(run("sleep 100", 0).unwrap_err().why, "no answer in 0 s");
        assert!(ThisMachine.check(&["/nonexistent/x".to_owned()], Duration::from_secs(1)).is_err());
        let loud = run("head -c 100000 /dev/zero | tr '\\0' x; exit 1", 9).unwrap_err();
        assert_eq!(loud.output.len(), MAX_CHECK_OUTPUT_BYTES);
    }
}
