//! The history: one JSON object a line, appended and flushed, in the state directory. A torn last line is passed over.
//!
//! It never grows beyond [`MAX_HISTORY_BYTES`]: at the bound it is rewritten to its newest half.

use std::{io, path::PathBuf, sync::Arc};

use bank_format::{
    Bank, Release,
    barrier::{Barrier, holds},
    release::Version,
};
use serde::{Deserialize, Serialize};

use crate::{
    error::{Result, file},
    files::{Files, State, replace},
    gate::Finding,
    limits::{KEPT_HISTORY_BYTES, MAX_HISTORY_BYTES},
};

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Happening {
    /// The record was made for a device that had none.
    RecordFounded,
    /// Both copies were lost; it was made anew.
    RecordRebuilt,
    /// An install began.
    InstallStarted,
    /// A release is complete in the passive bank, and the next reboot tries it.
    Armed,
    /// The trial did not come up, and is tried again.
    Rearmed,
    /// The trial was confirmed.
    Confirmed,
    /// The health gate, or a person, rejected the trial.
    Rejected,
    /// The trial failed; the old bank runs.
    FellBack,
    /// The release was withdrawn before it was tried.
    Cancelled,
    /// The confirmed bank could not be booted any more.
    BankLost,
}

impl Happening {
    /// As in the JSON.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::RecordFounded => "record-founded",
            Self::RecordRebuilt => "record-rebuilt",
            Self::InstallStarted => "install-started",
            Self::Armed => "armed",
            Self::Rearmed => "rearmed",
            Self::Confirmed => "confirmed",
            Self::Rejected => "rejected",
            Self::FellBack => "fell-back",
            Self::Cancelled => "cancelled",
            Self::BankLost => "bank-lost",
        }
    }
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// When, by the clock of the device.
    pub unix_seconds: i64,
    /// What.
    pub event: Happening,
    /// Of which release.
    pub release: Option<Release>,
    /// Of which bank.
    pub bank: Option<Bank>,
    /// Why.
    pub reason: Option<String>,
    /// The log that was kept.
    pub evidence: Option<String>,
    /// The floor afterwards.
    pub floor: Option<Version>,
    /// How the health checks stood, where they decided.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub checks: Vec<Finding>,
}

/// Where entries go.
pub trait HistoryLog {
    /// Puts the entry on stable storage.
    fn append(&mut self, entry: &Entry) -> Result<()>;
    /// The newest entries, oldest first.
    fn entries(&self) -> Result<Vec<Entry>>;
}

/// The history in a file.
#[derive(Debug)]
pub struct HistoryFile {
    files: Arc<dyn Files>,
    path: PathBuf,
}

impl HistoryFile {
    /// `history.jsonl` in the state directory.
    #[must_use]
    pub fn in_directory(state: &State) -> Self {
        Self { files: Arc::clone(state.files()), path: state.directory().join("history.jsonl") }
    }

    /// Bytes of the file; 0 where there is none.
    fn bytes(&self) -> io::Result<u64> {
        match self.files.bytes(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
            other => other,
        }
    }

    /// Its newest bytes; none where there is no file.
    fn newest(&self) -> io::Result<Vec<u8>> {
        match self.bytes()? {
            0 => Ok(Vec::new()),
            bytes => self.files.read(&self.path, bytes.saturating_sub(MAX_HISTORY_BYTES), MAX_HISTORY_BYTES),
        }
    }
}

impl HistoryLog for HistoryFile {
    fn append(&mut self, entry: &Entry) -> Result<()> {
        let append = || -> io::Result<()> {
            if let Some(directory) = self.path.parent() {
                self.files.make_directories(directory)?;
            }
            let bytes = self.bytes()?;
            let mut line = Vec::new();
            // A power cut may have torn the last line: the new one must not be glued to it.
            if bytes > 0 && self.files.read(&self.path, bytes - 1, 1)? != [b'\n'] {
                line.push(b'\n');
            }
            serde_json::to_writer(&mut line, entry)?;
            line.push(b'\n');
            if bytes.saturating_add(line.len() as u64) > MAX_HISTORY_BYTES {
                let mut kept = newest_half(&self.newest()?);
                kept.append(&mut line);
                return replace(self.files.as_ref(), &self.path, &kept);
            }
            let mut file = self.files.append(&self.path)?;
            file.write(&line)?;
            // Without this flush a fallback could be forgotten by the very power cut that follows it.
            if holds(Barrier::HistoryLine) {
                file.sync()?;
            }
            if holds(Barrier::HistoryName) { self.files.sync_directory_of(&self.path) } else { Ok(()) }
        };
        append().map_err(file("append to", &self.path))
    }

    fn entries(&self) -> Result<Vec<Entry>> {
        let bytes = self.newest().map_err(file("read", &self.path))?;
        Ok(bytes.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect())
    }
}

/// The whole lines of the newest half, and before them the entry with the highest floor where only an older one knows it: a record
/// that is lost is rebuilt with that floor.
fn newest_half(bytes: &[u8]) -> Vec<u8> {
    let lines: Vec<&[u8]> = bytes.split_inclusive(|byte| *byte == b'\n').collect();
    let mut room = KEPT_HISTORY_BYTES as usize;
    let fits = |line: &&&[u8]| {
        let left = room.checked_sub(line.len());
        room = left.unwrap_or(0);
        left.is_some()
    };
    let (older, newer) = lines.split_at(lines.len() - lines.iter().rev().take_while(fits).count());
    let floor = |line: &&[u8]| serde_json::from_slice::<Entry>(line).ok().and_then(|entry| entry.floor);
    let highest = older.iter().max_by_key(|line| floor(line));
    let known = newer.iter().map(floor).max().flatten();
    let carried = highest.filter(|line| floor(line) > known);
    carried.into_iter().chain(newer).copied().flatten().copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(event: Happening) -> Entry {
        Entry {
            unix_seconds: 1,
            event,
            release: Some(Release { name: "demo".into(), version: Version::new(1, 2, 3) }),
            bank: Some(Bank::B),
            reason: None,
            evidence: None,
            floor: None,
            checks: Vec::new(),
        }
    }

    #[test]
    fn a_torn_last_line_is_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        let mut history = HistoryFile::in_directory(&State::on_disk(dir.path()));
        assert_eq!(history.entries().unwrap(), []);
        history.append(&entry(Happening::Armed)).unwrap();
        let path = dir.path().join("history.jsonl");
        let mut bytes = std::fs::read(&path).unwrap();
        bytes.extend(b"{\"unix_seconds\":1,\"ev");
        std::fs::write(&path, bytes).unwrap();
        history.append(&entry(Happening::Confirmed)).unwrap();
        let events: Vec<_> = history.entries().unwrap().into_iter().map(|entry| entry.event).collect();
        assert_eq!(events, [Happening::Armed, Happening::Confirmed]);
    }

    #[test]
    fn a_device_that_lives_long_keeps_the_newest_entries_and_the_highest_floor() {
        let dir = tempfile::tempdir().unwrap();
        let mut history = HistoryFile::in_directory(&State::on_disk(dir.path()));
        history.append(&Entry { floor: Some(Version::new(7, 0, 0)), ..entry(Happening::Confirmed) }).unwrap();
        let path = dir.path().join("history.jsonl");
        let reason = Some("x".repeat(20_000));
        for number in 0..120 {
            let floor = Some(Version::new(6, 0, number));
            let next = Entry { reason: reason.clone(), floor, ..entry(Happening::FellBack) };
            history.append(&next).unwrap();
            assert!(std::fs::metadata(&path).unwrap().len() <= MAX_HISTORY_BYTES);
        }
        let entries = history.entries().unwrap();
        assert_eq!(entries.first().unwrap().floor, Some(Version::new(7, 0, 0)));
        assert_eq!(entries.last().unwrap().floor, Some(Version::new(6, 0, 119)));
        assert!((25..60).contains(&entries.len()), "{}", entries.len());
        let newest: Vec<_> = entries.iter().skip(1).map(|entry| entry.floor.clone().unwrap()).collect();
        assert!(newest.windows(2).all(|pair| pair[0] < pair[1]), "in their order");
    }

    #[test]
    fn exact_json() {
        assert_eq!(
            serde_json::to_string(&entry(Happening::FellBack)).unwrap(),
            concat!(
                r#"{"unix_seconds":1,"event":"fell-back","release":{"name":"demo","version":"1.2.3"},"#,
                r#""bank":"b","reason":null,"evidence":null,"floor":null}"#
            )
        );
    }
}
