//! Evidence of attempts that failed: `STATE/evidence/NAME-VERSION-N/`, the newest few, bounded.
//!
//! ```text
//! attempt.json   whose it is, and whether it is still open
//! reason.txt     why, in one line
//! checks.json    how each health check stood, with its output
//! journal.txt    the newest part of the journal of that boot
//! kernel.txt     the kernel's last words, from pstore
//! ```
//!
//! A trial opens its directory when its gate begins, and writes into it while it runs: a hang or a panic leaves that much. The next
//! good boot adds what the kernel left ([`collect`]), and closes it; a confirmed trial throws it away.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use bank_format::{Bank, Release, record::reason_line, release::check_name};
use serde::{Deserialize, Serialize};

use crate::{
    error::{Result, file},
    files::{Files, State, replace},
    gate::Finding,
    limits::{
        MAX_ATTEMPTS, MAX_EVIDENCE_BYTES, MAX_EVIDENCE_FILE_BYTES, MAX_JOURNAL_BYTES, MAX_KERNEL_LOG_BYTES,
    },
};

pub mod pstore;

const ATTEMPT: &str = "attempt.json";
const REASON: &str = "reason.txt";
const CHECKS: &str = "checks.json";
const JOURNAL: &str = "journal.txt";
const KERNEL: &str = "kernel.txt";
/// The most that one attempt can grow to.
const MAX_ATTEMPT_BYTES: u64 = MAX_EVIDENCE_FILE_BYTES + (MAX_JOURNAL_BYTES + MAX_KERNEL_LOG_BYTES) as u64;

/// Why a kernel log is kept that no trial has left.
const OUTSIDE_A_TRIAL: &str = "the kernel left a log of an earlier boot";
/// Why a directory is kept where nobody said anything.
const NO_REASON: &str = "that boot ended without a word";

/// `attempt.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct About {
    release: Option<Release>,
    bank: Bank,
    open: bool,
}

/// The directory of one attempt.
#[derive(Debug, Clone)]
pub struct Attempt {
    files: Arc<dyn Files>,
    directory: PathBuf,
}

/// What was kept of an attempt.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Kept {
    /// Why it failed.
    pub reason: Option<String>,
    /// How each check stood.
    pub checks: Vec<Finding>,
    /// The kernel's last words.
    pub kernel: Option<String>,
    /// The journal of that boot.
    pub journal: Option<String>,
}

/// What the boot that collects knows of the one before.
#[derive(Debug, Clone, Copy)]
pub enum Occasion<'a> {
    /// A trial was booted, and another bank runs now.
    FailedTrial {
        /// What was tried.
        release: Option<&'a Release>,
        /// Where.
        bank: Bank,
        /// Why it failed, in the words of its gate or its initrd.
        reason: Option<&'a str>,
        /// Evidence that its gate has kept.
        kept: Option<&'a str>,
    },
    /// The trial itself runs: its evidence is not complete.
    TrialRuns,
    /// Nothing was tried.
    Ordinary {
        /// What runs.
        release: Option<&'a Release>,
        /// Where.
        bank: Bank,
    },
}

/// What was found of the boot before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Witness {
    /// Where it is kept.
    pub directory: PathBuf,
    /// The kernel's own word on why it died.
    pub panic: Option<String>,
}

impl Attempt {
    /// Opens the directory of an attempt that begins. The oldest make room first: a full state partition must not cost the newest.
    pub fn begin(state: &State, release: Option<&Release>, bank: Bank) -> Result<Self> {
        let (files, all) = (state.files(), state.directory().join("evidence"));
        let make = || -> io::Result<Self> {
            make_directory(files.as_ref(), state.directory(), &all)?;
            let mut attempts = numbered(files.as_ref(), &all)?;
            make_room(files.as_ref(), &mut attempts)?;
            let number = attempts.last().map_or(1, |(number, _)| number.saturating_add(1));
            let name = match release {
                Some(release) if check_name("release", &release.name).is_ok() => {
                    format!("{}-{}-{number}", release.name, release.version)
                }
                Some(_) | None => format!("unknown-{number}"),
            };
            let attempt = Self { files: Arc::clone(files), directory: all.join(name) };
            make_directory(files.as_ref(), &all, &attempt.directory)?;
            attempt.note(&About { release: release.cloned(), bank, open: true })?;
            Ok(attempt)
        };
        make().map_err(file("keep evidence in", &all))
    }

    /// Where it is.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Keeps the reason.
    pub fn keep_reason(&self, reason: &str) -> Result<()> {
        self.keep(REASON, format!("{}\n", reason_line(reason)).as_bytes())
    }

    /// Keeps how the checks stand.
    pub fn keep_checks(&self, findings: &[Finding]) -> Result<()> {
        let bytes = serde_json::to_vec(findings).map_err(io::Error::from);
        self.keep(CHECKS, &bytes.map_err(file("write", self.directory.join(CHECKS)))?)
    }

    /// Keeps the newest part of a journal.
    pub fn keep_journal(&self, journal: &[u8]) -> Result<()> {
        self.keep(JOURNAL, tail(journal, MAX_JOURNAL_BYTES))
    }

    fn keep_kernel_log(&self, log: &[u8]) -> Result<()> {
        self.keep(KERNEL, tail(log, MAX_KERNEL_LOG_BYTES))
    }

    /// Each file is the old or the new one after a power cut.
    fn keep(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let path = self.directory.join(name);
        replace(self.files.as_ref(), &path, bytes).map_err(file("write", path))
    }

    fn note(&self, about: &About) -> io::Result<()> {
        replace(self.files.as_ref(), &self.directory.join(ATTEMPT), &serde_json::to_vec(about)?)
    }

    fn about(&self) -> Option<About> {
        serde_json::from_slice(&read_part(self.files.as_ref(), &self.directory.join(ATTEMPT)).ok()?).ok()
    }

    /// Nothing more is to come.
    pub fn close(&self) -> Result<()> {
        match self.about() {
            Some(about) if about.open => self
                .note(&About { open: false, ..about })
                .map_err(file("write", self.directory.join(ATTEMPT))),
            Some(_) | None => Ok(()),
        }
    }

    /// The trial is confirmed: there is nothing to prove.
    pub fn discard(&self) -> Result<()> {
        self.files.remove_directory(&self.directory).map_err(file("remove", &self.directory))
    }
}

/// Gathers what the boot before has left: in the directory of its attempt, and in the kernel's store, which is emptied so that the
/// firmware's memory does not fill up. Called before the record changes; [`close_all`] comes after. Once more after a power cut is
/// harmless.
pub fn collect(state: &State, pstore: &Path, occasion: Occasion<'_>) -> Result<Option<Witness>> {
    let words = pstore::read(pstore);
    let kept = keep(state, &words, occasion);
    if kept.is_err() {
        // A state partition that takes nothing must not fill the firmware's memory as well: the loader could be told nothing more.
        words.forget();
    }
    kept
}

fn keep(state: &State, words: &pstore::LastWords, occasion: Occasion<'_>) -> Result<Option<Witness>> {
    let files = state.files();
    let attempt = match occasion {
        Occasion::FailedTrial { release, bank, reason, kept } => {
            let attempt = |path: &str| Attempt { files: Arc::clone(files), directory: path.into() };
            let gone_on = kept.map(attempt).filter(|attempt| files.is_directory(&attempt.directory));
            match gone_on.or_else(|| find_open(state, release, bank)) {
                Some(attempt) => attempt,
                None if words.has_died() || reason.is_some() => Attempt::begin(state, release, bank)?,
                None => return Ok(None),
            }
        }
        Occasion::TrialRuns => return Ok(None),
        Occasion::Ordinary { release, bank } => {
            for attempt in open_attempts(state) {
                // Its trial was confirmed, and the power went before it was thrown away.
                attempt.discard()?;
            }
            if !words.has_died() {
                return Ok(None);
            }
            Attempt::begin(state, release, bank)?
        }
    };
    let known = read(files.as_ref(), &attempt.directory).kernel;
    // The console alone, once more after a power cut, does not take the place of a death that was kept before it.
    if words.has_died() || (known.is_none() && !words.text().is_empty()) {
        attempt.keep_kernel_log(words.text().as_bytes())?;
    }
    // Only now: before, a power cut would take the last copy.
    words.forget();
    let panic = read(files.as_ref(), &attempt.directory).kernel.as_deref().and_then(pstore::panic_in);
    let reason = match occasion {
        Occasion::FailedTrial { reason, .. } => reason.or(panic.as_deref()).unwrap_or(NO_REASON),
        Occasion::TrialRuns | Occasion::Ordinary { .. } => panic.as_deref().unwrap_or(OUTSIDE_A_TRIAL),
    };
    attempt.keep_reason(reason)?;
    Ok(Some(Witness { directory: attempt.directory, panic }))
}

/// What was collected has reached the record.
pub fn close_all(state: &State) -> Result<()> {
    open_attempts(state).iter().try_for_each(Attempt::close)
}

/// How the checks of a trial that runs stand, as its gate has kept them; nothing where it has kept nothing yet.
#[must_use]
pub fn under_way(state: &State, release: Option<&Release>, bank: Bank) -> Vec<Finding> {
    let attempt = find_open(state, release, bank);
    attempt.map(|attempt| read(state.files().as_ref(), &attempt.directory).checks).unwrap_or_default()
}

/// What was kept there; files that are not there, or that cannot be read, are left out.
#[must_use]
pub fn read(files: &dyn Files, directory: &Path) -> Kept {
    let text = |name: &str| {
        let bytes = read_part(files, &directory.join(name)).ok()?;
        Some(String::from_utf8_lossy(&bytes).into_owned()).filter(|text| !text.is_empty())
    };
    let checks = read_part(files, &directory.join(CHECKS)).ok();
    Kept {
        reason: text(REASON).map(|text| text.trim_end().to_owned()),
        checks: checks.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default(),
        kernel: text(KERNEL),
        journal: text(JOURNAL),
    }
}

fn read_part(files: &dyn Files, path: &Path) -> io::Result<Vec<u8>> {
    files.read(path, 0, MAX_EVIDENCE_FILE_BYTES)
}

/// The newest bytes, from the beginning of a line.
fn tail(bytes: &[u8], limit_bytes: usize) -> &[u8] {
    let part = bytes.get(bytes.len().saturating_sub(limit_bytes)..).unwrap_or_default();
    if part.len() == bytes.len() {
        return part;
    }
    let line = part.iter().position(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    part.get(line..).unwrap_or_default()
}

/// For root alone: a journal may hold what is nobody else's business.
fn make_directory(files: &dyn Files, parent: &Path, directory: &Path) -> io::Result<()> {
    files.make_directories(parent)?;
    match files.make_directory(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        Ok(()) | Err(_) => files.sync_directory_of(directory),
    }
}

fn open_attempts(state: &State) -> Vec<Attempt> {
    let files = state.files();
    let attempts = numbered(files.as_ref(), &state.directory().join("evidence")).unwrap_or_default();
    attempts
        .into_iter()
        .map(|(_, directory)| Attempt { files: Arc::clone(files), directory })
        .filter(|attempt| attempt.about().is_some_and(|about| about.open))
        .collect()
}

fn find_open(state: &State, release: Option<&Release>, bank: Bank) -> Option<Attempt> {
    open_attempts(state)
        .into_iter()
        .rev()
        .find(|attempt| attempt.about().is_some_and(|a| a.release.as_ref() == release && a.bank == bank))
}

/// The attempts by their number.
fn numbered(files: &dyn Files, directory: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let entries = match files.list(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let mut attempts = Vec::new();
    for path in entries {
        let number = path
            .file_name()
            .and_then(|name| name.to_str())
            .and_then(|name| name.strip_suffix(".log").unwrap_or(name).rsplit_once('-')?.1.parse().ok());
        if let Some(number) = number {
            attempts.push((number, path));
        }
    }
    attempts.sort();
    Ok(attempts)
}

/// For one attempt more, in number and in bytes.
fn make_room(files: &dyn Files, attempts: &mut Vec<(u64, PathBuf)>) -> io::Result<()> {
    let sizes = attempts.iter().map(|(_, path)| bytes_of(files, path)).collect::<io::Result<Vec<u64>>>()?;
    let mut total = sizes.iter().fold(0_u64, |sum, bytes| sum.saturating_add(*bytes));
    let mut surplus = (attempts.len() + 1).saturating_sub(MAX_ATTEMPTS);
    for (place, bytes) in sizes.iter().enumerate() {
        if total > MAX_EVIDENCE_BYTES.saturating_sub(MAX_ATTEMPT_BYTES) {
            surplus = surplus.max(place + 1);
            total = total.saturating_sub(*bytes);
        }
    }
    // The newest keeps its number, from which the next one follows.
    let removed: Vec<_> = attempts.iter().take(surplus).cloned().collect();
    for (_, path) in &removed {
        if files.is_directory(path) { files.remove_directory(path)? } else { files.remove(path)? }
    }
    if removed.len() < attempts.len() {
        attempts.drain(..removed.len());
    }
    Ok(())
}

fn bytes_of(files: &dyn Files, path: &Path) -> io::Result<u64> {
    if !files.is_directory(path) {
        return files.bytes(path);
    }
    let parts = files.list(path)?;
    Ok(parts.iter().fold(0_u64, |sum, part| sum.saturating_add(files.bytes(part).unwrap_or(0))))
}

#[cfg(test)]
mod tests;
