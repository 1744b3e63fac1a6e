//! What an install has cost: the closing object of `install --json`.

use bank_format::{Bank, Release};
use serde::Serialize;

/// Counters of one install, all attempts together.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Tally {
    /// Bytes of the bundle that were read, from a server or a file.
    pub fetched_bytes: u64,
    /// Bytes taken from the active bank.
    pub copied_bytes: u64,
    /// Bytes that lay in place already.
    pub skipped_bytes: u64,
    /// Bytes written to the passive bank, trees included.
    pub written_bytes: u64,
    /// How long the read-back took.
    pub readback_seconds: f64,
}

/// How it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InstallResult {
    /// The release is in the passive bank and armed.
    Installed,
    /// It was there already.
    NothingToDo {
        /// Where and as what.
        detail: String,
    },
}

/// What came out, without the counters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Outcome {
    pub result: InstallResult,
    pub release: Release,
    pub bank: Bank,
}

/// The closing object.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct InstallReport {
    /// `installed` or `nothing-to-do`.
    pub result: &'static str,
    /// Which release.
    pub release: Release,
    /// The bank that holds it.
    pub bank: Bank,
    /// Bytes of the bundle that were read.
    pub bytes_fetched: u64,
    /// Bytes taken from the active bank.
    pub bytes_copied: u64,
    /// Bytes made by patches.
    pub bytes_patched: u64,
    /// Bytes that lay in place.
    pub bytes_skipped: u64,
    /// Bytes written.
    pub bytes_written: u64,
    /// Wall time of the whole install.
    pub seconds: f64,
    /// Wall time of the read-back.
    pub readback_seconds: f64,
    /// Highest resident memory.
    pub peak_rss_kib: u64,
    /// How it ended.
    #[serde(skip)]
    pub outcome: InstallResult,
}

impl InstallReport {
    pub(super) fn new(outcome: Outcome, tally: &Tally, seconds: f64, peak_rss_kib: u64) -> Self {
        Self {
            result: match outcome.result {
                InstallResult::Installed => "installed",
                InstallResult::NothingToDo { .. } => "nothing-to-do",
            },
            release: outcome.release,
            bank: outcome.bank,
            bytes_fetched: tally.fetched_bytes,
            bytes_copied: tally.copied_bytes,
            bytes_patched: 0,
            bytes_skipped: tally.skipped_bytes,
            bytes_written: tally.written_bytes,
            seconds: milliseconds(seconds),
            readback_seconds: milliseconds(tally.readback_seconds),
            peak_rss_kib,
            outcome: outcome.result,
        }
    }
}

fn milliseconds(seconds: f64) -> f64 {
    (seconds * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use bank_format::release::Version;

    #[test]
    fn exact_json() {
        let outcome = Outcome {
            result: InstallResult::Installed,
            release: Release { name: "demo".into(), version: Version::new(1, 1, 0) },
            bank: Bank::B,
        };
        let tally = Tally {
            fetched_bytes: 1,
            copied_bytes: 2,
            skipped_bytes: 3,
            written_bytes: 4,
            readback_seconds: 0.5,
        };
        let report = InstallReport::new(outcome, &tally, 1.23456, 7);
        assert_eq!(
            serde_json::to_string(&report).unwrap(),
            concat!(
                r#"{"result":"installed","release":{"name":"demo","version":"1.1.0"},"bank":"b","#,
                r#""bytes_fetched":1,"bytes_copied":2,"bytes_patched":0,"bytes_skipped":3,"bytes_written":4,"#,
                r#""seconds":1.235,"readback_seconds":0.5,"peak_rss_kib":7}"#
            )
        );
    }
}
