//! What a command costs: seconds by the clock, seconds of CPU, resident memory at its peak.
//!
//! Each stage of a line runs below a small process of ours ([`stage`]) that asks the kernel what its children used, since
//! the peak that `getrusage` gives is one for all children ever, and a process starts with the peak of the one that made it.
//! The peak of a line is the sum over its stages of the largest process in each; of several lines it is the largest.
//! No figure below the size of that small process can be seen.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use nix::sys::{
    resource::{UsageWho, getrusage},
    time::{TimeVal, TimeValLike},
};
use serde::{Deserialize, Serialize};

use crate::{
    bench::{
        group::{Group, Groups, Held, Rate},
        line::Line,
    },
    error::{Error, Result},
    limits, process,
};

/// Exit codes above this are signals, by the custom of shells.
pub const SIGNAL: i32 = 128;

/// What a command cost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cost {
    /// By the clock.
    pub wall_seconds: f64,
    /// Of CPU, user and system, with all descendants.
    pub cpu_seconds: f64,
    /// Resident memory at its peak.
    pub peak_rss_kib: u64,
}

/// Under which conditions commands run.
#[derive(Debug, Clone, Default)]
pub struct Conditions {
    /// Words before each command: how it gets into a network that is held.
    pub prefix: Vec<String>,
    /// The device that is held.
    pub rate: Option<Rate>,
    /// A service that does the work for the command.
    pub service: Option<u32>,
}

/// Measures on this host.
#[derive(Debug)]
pub struct Scales {
    groups: Groups,
    folder: PathBuf,
    program: PathBuf,
}

/// What a stage used; what [`stage`] writes.
#[derive(Debug, Serialize, Deserialize)]
struct Used {
    cpu_seconds: f64,
    peak_rss_kib: u64,
}

impl Scales {
    /// Scales that keep their notes in `folder`, where the commands run, too.
    pub fn new(folder: &Path) -> Result<Self> {
        let program = std::env::current_exe().map_err(Error::io("find", "/proc/self/exe"))?;
        Ok(Scales { groups: Groups::find()?, folder: folder.to_owned(), program })
    }

    /// The control groups of this host.
    #[must_use]
    pub fn groups(&self) -> &Groups {
        &self.groups
    }

    /// Runs lines one behind the other. The inner error is what a tool that failed said.
    pub fn run(&self, lines: &[Line], conditions: &Conditions) -> Result<Result<Cost, String>> {
        let _held = self.hold(conditions)?;
        let group = self.groups.make(conditions.rate);
        if let (Some(group), Some(service)) = (&group, conditions.service) {
            group.adopt(service)?;
            // Forgets the peak so far (proc_pid_clear_refs(5)).
            fs::write(format!("/proc/{service}/clear_refs"), "5").ok();
        }
        let mut used = Used { cpu_seconds: 0.0, peak_rss_kib: 0 };
        let begin = Instant::now();
        for line in lines {
            match self.line(line, conditions, group.as_ref())? {
                Ok(line) => {
                    used.cpu_seconds += line.cpu_seconds;
                    used.peak_rss_kib = used.peak_rss_kib.max(line.peak_rss_kib);
                }
                Err(finding) => return Ok(Err(finding)),
            }
        }
        let wall = begin.elapsed();
        if let Some(service) = conditions.service {
            let file = format!("/proc/{service}/status");
            let status = fs::read_to_string(&file).map_err(Error::io("read", &file))?;
            used.peak_rss_kib = used.peak_rss_kib.saturating_add(high_water(&status).unwrap_or(0));
        }
        let cpu_seconds = group.map_or(Ok(used.cpu_seconds), |group| group.cpu_seconds())?;
        Ok(Ok(Cost { wall_seconds: wall.as_secs_f64(), cpu_seconds, peak_rss_kib: used.peak_rss_kib }))
    }

    /// Whoever asks for a rate has tried before whether this host can hold it.
    fn hold(&self, conditions: &Conditions) -> Result<Option<Held>> {
        let Some(rate) = conditions.rate else { return Ok(None) };
        self.groups.hold(rate).map_err(|why| Error::Unexpected {
            what: "a disk that is held".to_owned(),
            wanted: "the same as before".to_owned(),
            seen: why.to_owned(),
        })
    }

    fn line(
        &self,
        line: &Line,
        conditions: &Conditions,
        group: Option<&Group>,
    ) -> Result<Result<Used, String>> {
        let notes: Vec<PathBuf> =
            (0..line.stages.len()).map(|number| self.folder.join(format!("stage-{number}"))).collect();
        let mut children: Vec<(Child, &PathBuf)> = Vec::new();
        let mut input = Stdio::null();
        for (number, (stage, note)) in line.stages.iter().zip(&notes).enumerate() {
            let is_last = number.saturating_add(1) == line.stages.len();
            let output = match &line.output {
                _ if !is_last => Stdio::piped(),
                Some(file) => File::create(file).map_err(Error::io("create", file))?.into(),
                None => Stdio::null(),
            };
            let errors = note.with_extension("log");
            let errors = File::create(&errors).map_err(Error::io("create", &errors))?;
            let mut command = self.command(stage, note, conditions, group);
            let mut child = command
                .current_dir(&self.folder)
                .env("LC_ALL", "C")
                // What a tool says last is told where it fails; a trace would hide it.
                .env("RUST_BACKTRACE", "0")
                .stdin(std::mem::replace(&mut input, Stdio::null()))
                .stdout(output)
                .stderr(errors)
                .spawn()
                .map_err(|source| Error::Start { program: stage.join(" "), source })?;
            if let Some(pipe) = child.stdout.take() {
                input = pipe.into();
            }
            children.push((child, note));
        }
        let mut sum = Used { cpu_seconds: 0.0, peak_rss_kib: 0 };
        let mut finding = None;
        for ((mut child, note), words) in children.into_iter().zip(&line.stages) {
            let status = child.wait().map_err(Error::io("wait for", note))?;
            if status.success() {
                let text = fs::read_to_string(note).map_err(Error::io("read", note))?;
                let used: Used = serde_json::from_str(&text).map_err(|source| Error::Json {
                    what: note.display().to_string(),
                    text,
                    source,
                })?;
                sum.cpu_seconds += used.cpu_seconds;
                sum.peak_rss_kib = sum.peak_rss_kib.saturating_add(used.peak_rss_kib);
            } else if finding.is_none() {
                finding = Some(failure(words, status, &note.with_extension("log")));
            }
        }
        Ok(finding.map_or(Ok(sum), Err))
    }

    fn command(
        &self,
        words: &[String],
        note: &Path,
        conditions: &Conditions,
        group: Option<&Group>,
    ) -> Command {
        let program = self.program.to_string_lossy().into_owned();
        let mut start = conditions.prefix.iter().chain([&program]);
        let mut command = process::tied(start.next().map_or(&*program, String::as_str));
        command.args(start).arg("bench-stage").arg("--note").arg(note);
        if let Some(group) = group {
            command.arg("--group").arg(group.door());
        }
        command.arg("--").args(words);
        command
    }
}

/// The verb `bench-stage`: runs one stage, and leaves a note of what it used. Gives its exit status.
pub fn stage(words: &[String], note: &Path, group: Option<&Path>) -> Result<ExitStatus> {
    if let Some(door) = group {
        fs::write(door, std::process::id().to_string()).map_err(Error::io("write", door))?;
    }
    // `timeout` ends with us, and the tool ends with `timeout`.
    let status = process::tied("timeout")
        .args(["--kill-after=5", &limits::BENCH_COMMAND.as_secs().to_string()])
        .args(["setpriv", "--pdeathsig", "KILL", "--"])
        .args(words)
        .status()
        .map_err(|source| Error::Start { program: words.join(" "), source })?;
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)
        .map_err(|errno| Error::io("ask for the usage of", note)(errno.into()))?;
    let used = Used {
        cpu_seconds: (seconds(usage.user_time()) + seconds(usage.system_time())).as_secs_f64(),
        peak_rss_kib: u64::try_from(usage.max_rss()).unwrap_or(0),
    };
    let text = serde_json::to_string(&used).map_err(|error| Error::io("write", note)(error.into()))?;
    fs::write(note, text).map_err(Error::io("write", note))?;
    Ok(status)
}

fn seconds(time: TimeVal) -> Duration {
    Duration::from_micros(u64::try_from(time.num_microseconds()).unwrap_or(0))
}

/// `VmHWM` of proc_pid_status(5), in KiB.
fn high_water(status: &str) -> Option<u64> {
    status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?.split_whitespace().next()?.parse().ok()
}

fn failure(words: &[String], status: ExitStatus, log: &Path) -> String {
    let said = process::last_words(&fs::read_to_string(log).unwrap_or_default()).replace('\n', "; ");
    // Of timeout(1): the command took too long.
    if status.code() == Some(124) {
        return format!("{} did not end within {} s", first(words), limits::BENCH_COMMAND.as_secs());
    }
    match status.code() {
        Some(code) if code > SIGNAL => {
            format!("{} ended by signal {}: {said}", first(words), code.saturating_sub(SIGNAL))
        }
        Some(_) | None => format!("{} ended with {status}: {said}", first(words)),
    }
}

/// The name of a program, wherever it lies.
fn first(words: &[String]) -> &str {
    words.first().map_or("", |program| program.rsplit('/').next().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peak_of_a_service_is_read() {
        assert_eq!(high_water("Name:\trauc\nVmHWM:\t   12345 kB\nVmRSS:\t 1 kB\n"), Some(12345));
        assert_eq!(high_water("Name:\tkthreadd\n"), None);
    }
}
