//! What an install has cost: the closing object of `install --json`.

use bank_format::{Bank, Release, bundle::Opened};
use serde::Serialize;

use super::{plan::Run, survey::Surveyed};

/// Counters of one install: what was fetched in all attempts together, the rest of the last one.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Tally {
    /// Bytes of the bundle that were read, from a server or a file.
    pub fetched_bytes: u64,
    /// Bytes taken from the active bank.
    pub copied_bytes: u64,
    /// Bytes made by patches.
    pub patched_bytes: u64,
    /// Bytes that the active bank or a patch was to give, and that were fetched instead.
    pub lost_bytes: u64,
    /// Bytes that lay in place already.
    pub skipped_bytes: u64,
    /// Bytes written to the passive bank, trees included.
    pub written_bytes: u64,
    /// How long the read-back took.
    pub readback_seconds: f64,
    /// Whether this attempt has believed what a tail says of the passive bank.
    pub trusted: bool,
}

impl Tally {
    /// What an earlier attempt has done is no matter any more, but for what it has fetched.
    pub(super) fn begin_attempt(&mut self) {
        *self = Self { fetched_bytes: self.fetched_bytes, ..Self::default() };
    }
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
    /// Bytes that the active bank or a patch was to give, and that were fetched instead: the active bank is not what it was.
    pub bytes_lost: u64,
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
            bytes_patched: tally.patched_bytes,
            bytes_lost: tally.lost_bytes,
            bytes_skipped: tally.skipped_bytes,
            bytes_written: tally.written_bytes,
            seconds: milliseconds(seconds),
            readback_seconds: milliseconds(tally.readback_seconds),
            peak_rss_kib,
            outcome: outcome.result,
        }
    }
}

/// What an install would fetch: the object of `install --plan`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PlanReport {
    /// `plan`, or `nothing-to-do`.
    pub result: &'static str,
    /// Which release.
    pub release: Release,
    /// The bank that would hold it, or holds it.
    pub bank: Bank,
    /// Bytes of the whole bundle.
    pub bundle_bytes: u64,
    /// Bytes that were fetched to know the plan: head and tables. They are fetched again.
    pub bytes_fetched: u64,
    /// Bytes that an install fetches, those included.
    pub bytes_to_fetch: u64,
    /// Requests for patches and frames.
    pub requests: usize,
    /// Image by image.
    pub images: Vec<PlannedImage>,
}

impl PlanReport {
    /// What these images will take; without any, there is nothing to do. What was fetched so far is not in it.
    pub(super) fn new(opened: &Opened, bank: Bank, images: Vec<Surveyed>) -> Self {
        let runs = |image: &Surveyed| {
            let (patches, frames) =
                (image.plan.patch_runs(&image.patches), image.plan.frame_runs(&image.table));
            let sum = |runs: &[Run]| runs.iter().map(|run| run.bytes).sum::<u64>();
            (patches.len() + frames.len(), sum(&patches), sum(&frames))
        };
        let result = if images.is_empty() { "nothing-to-do" } else { "plan" };
        let requests = images.iter().map(|image| runs(image).0).sum();
        let entries = opened.manifest().images.iter();
        let images: Vec<PlannedImage> = entries
            .zip(&images)
            .map(|(entry, image)| {
                let sums = image.plan.sums(&image.table);
                let (_, patches_bytes, frames_bytes) = runs(image);
                PlannedImage {
                    image: entry.name.clone(),
                    bytes: entry.bytes,
                    bytes_skipped: sums.skipped,
                    bytes_zeros: sums.zeros,
                    bytes_copied: sums.copied,
                    bytes_patched: sums.patched,
                    bytes_fetched: sums.fetched,
                    patches_bytes,
                    frames_bytes,
                }
            })
            .collect();
        Self {
            result,
            release: opened.manifest().release(),
            bank,
            bundle_bytes: opened.header().total_bytes(),
            bytes_fetched: 0,
            bytes_to_fetch: images.iter().map(|image| image.patches_bytes + image.frames_bytes).sum(),
            requests,
            images,
        }
    }

    /// A server without ranges sends everything up to the last frame, whatever is needed of it.
    pub(super) fn of_a_stream(self, opened: &Opened, fetched_bytes: u64) -> Self {
        let header = opened.header();
        let bytes_to_fetch = (header.total_bytes() - header.deltas.bytes).saturating_sub(fetched_bytes);
        Self { bytes_to_fetch, requests: 1, ..self }
    }
}

/// What would become of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PlannedImage {
    /// Its name.
    pub image: String,
    /// Its bytes.
    pub bytes: u64,
    /// They lie in place.
    pub bytes_skipped: u64,
    /// Zeros.
    pub bytes_zeros: u64,
    /// Copied from the active bank.
    pub bytes_copied: u64,
    /// Made by patches.
    pub bytes_patched: u64,
    /// Out of frames.
    pub bytes_fetched: u64,
    /// Bytes of patches to be fetched.
    pub patches_bytes: u64,
    /// Bytes of frames to be fetched.
    pub frames_bytes: u64,
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
            patched_bytes: 5,
            lost_bytes: 6,
            skipped_bytes: 3,
            written_bytes: 4,
            readback_seconds: 0.5,
            trusted: false,
        };
        let report = InstallReport::new(outcome, &tally, 1.23456, 7);
        assert_eq!(
            serde_json::to_string(&report).unwrap(),
            concat!(
                r#"{"result":"installed","release":{"name":"demo","version":"1.1.0"},"bank":"b","#,
                r#""bytes_fetched":1,"bytes_copied":2,"bytes_patched":5,"bytes_lost":6,"bytes_skipped":3,"#,
                r#""bytes_written":4,"#,
                r#""seconds":1.235,"readback_seconds":0.5,"peak_rss_kib":7}"#
            )
        );
    }
}
