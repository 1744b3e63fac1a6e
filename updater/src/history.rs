//! The history: one JSON object a line, appended and flushed, in the state directory. A torn last line is passed over.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use bank_format::{Bank, Release, release::Version};
use serde::{Deserialize, Serialize};

use crate::{
    error::{Result, file},
    gate::Finding,
    limits::MAX_HISTORY_BYTES,
    linux,
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
    path: PathBuf,
}

impl HistoryFile {
    /// `history.jsonl` in the state directory.
    #[must_use]
    pub fn in_directory(state_dir: &Path) -> Self {
        Self { path: state_dir.join("history.jsonl") }
    }
}

impl HistoryLog for HistoryFile {
    fn append(&mut self, entry: &Entry) -> Result<()> {
        let append = || -> io::Result<()> {
            if let Some(directory) = self.path.parent() {
                std::fs::create_dir_all(directory)?;
            }
            let mut file = OpenOptions::new().read(true).append(true).create(true).open(&self.path)?;
            let mut line = Vec::new();
            // A power cut may have torn the last line: the new one must not be glued to it.
            if file.metadata()?.len() > 0 {
                file.seek(SeekFrom::End(-1))?;
                let mut last = [0];
                file.read_exact(&mut last)?;
                if last != [b'\n'] {
                    line.push(b'\n');
                }
            }
            serde_json::to_writer(&mut line, entry)?;
            line.push(b'\n');
            file.write_all(&line)?;
            // Without this flush a fallback could be forgotten by the very power cut that follows it.
            file.sync_all()?;
            linux::sync_directory_of(&self.path)
        };
        append().map_err(file("append to", &self.path))
    }

    fn entries(&self) -> Result<Vec<Entry>> {
        let read = || -> io::Result<Vec<u8>> {
            let mut file = match File::open(&self.path) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
                Err(error) => return Err(error),
            };
            let skip = file.metadata()?.len().saturating_sub(MAX_HISTORY_BYTES);
            file.seek(SeekFrom::Start(skip))?;
            let mut bytes = Vec::new();
            file.take(MAX_HISTORY_BYTES).read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        let bytes = read().map_err(file("read", &self.path))?;
        Ok(bytes.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect())
    }
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
        let mut history = HistoryFile::in_directory(dir.path());
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
