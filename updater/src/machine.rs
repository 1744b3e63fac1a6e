//! The machine under the health gate: systemd, the journal, the reset.

use std::{
    fs::File,
    io::{self, Read},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    time::Duration,
};

use crate::{
    limits::{MAX_CHECK_OUTPUT_BYTES, MAX_EVIDENCE_BYTES, TOOL_DEADLINE},
    linux,
    ports::{AfterReboot, Reboot},
    process::{self, Ended, Finished, Keep},
};

/// What the health gate asks.
pub trait Machine {
    /// Waits until the system is up; the error says what it waits for.
    fn wait_until_up(&self, deadline: Duration) -> Result<(), String>;
    /// Names of the units that failed.
    fn failed_units(&self) -> Result<Vec<String>, String>;
    /// Runs a health check; the error says how it failed.
    fn check(&self, command: &[String], deadline: Duration) -> Result<(), String>;
    /// The newest part of this boot's log.
    fn journal(&self) -> Vec<u8>;
}

/// This machine.
#[derive(Debug, Clone, Copy)]
pub struct ThisMachine;

fn systemd_runs() -> bool {
    Path::new("/run/systemd/system").is_dir()
}

fn systemctl(arguments: &[&str], deadline: Duration) -> Result<Finished, String> {
    process::run("systemctl", arguments, deadline, Keep::First(64 << 10))
        .map_err(|error| format!("systemctl cannot be run: {error}"))
}

impl Machine for ThisMachine {
    fn wait_until_up(&self, deadline: Duration) -> Result<(), String> {
        if !systemd_runs() {
            return Ok(());
        }
        // "degraded" is an exit code too: which units failed is asked separately.
        let waited = systemctl(&["is-system-running", "--wait"], deadline)?;
        match waited.ended {
            Ended::Exited(_) => Ok(()),
            Ended::TimedOut => {
                let jobs = systemctl(&["list-jobs", "--no-legend", "--no-pager"], TOOL_DEADLINE)
                    .map(|jobs| jobs.text())
                    .unwrap_or_default();
                let units: Vec<&str> =
                    jobs.lines().filter_map(|line| line.split_whitespace().nth(1)).take(8).collect();
                Err(format!(
                    "the system did not come up in {} s, it waits for: {}",
                    deadline.as_secs(),
                    units.join(", ")
                ))
            }
        }
    }

    fn failed_units(&self) -> Result<Vec<String>, String> {
        if !systemd_runs() {
            return Ok(Vec::new());
        }
        let arguments = ["list-units", "--state=failed", "--plain", "--no-legend", "--no-pager"];
        let listed = systemctl(&arguments, TOOL_DEADLINE)?;
        if !listed.succeeded() {
            return Err(format!("failed units cannot be listed: {}", listed.text().trim()));
        }
        let names = listed.text();
        Ok(names.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect())
    }

    fn check(&self, command: &[String], deadline: Duration) -> Result<(), String> {
        let Some((program, arguments)) = command.split_first() else {
            return Err("its command is empty".into());
        };
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let finished = process::run(program, &arguments, deadline, Keep::First(MAX_CHECK_OUTPUT_BYTES))
            .map_err(|error| format!("{program} cannot be run: {error}"))?;
        let how = match finished.ended {
            Ended::Exited(status) if status.success() => return Ok(()),
            Ended::Exited(status) => linux::describe_exit(status),
            Ended::TimedOut => format!("no answer in {} s", deadline.as_secs()),
        };
        let output = finished.text();
        let said: Vec<&str> = output.lines().map(str::trim).filter(|l| !l.is_empty()).take(3).collect();
        Err(if said.is_empty() { how } else { format!("{how}: {}", said.join("; ")) })
    }

    fn journal(&self) -> Vec<u8> {
        let arguments = ["-b", "--no-pager", "-o", "short-monotonic"];
        match process::run("journalctl", &arguments, TOOL_DEADLINE, Keep::Last(MAX_EVIDENCE_BYTES)) {
            Ok(finished) if finished.succeeded() && !finished.output.is_empty() => finished.output,
            Ok(_) | Err(_) => kernel_log(),
        }
    }
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
                    let surplus = log.len().saturating_sub(MAX_EVIDENCE_BYTES);
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
