//! What a run found: the shape of `bench.json`. Everything on the page is computed from it, verdicts included.

use std::{collections::BTreeMap, fs, path::Path};

use serde::{Deserialize, Serialize};

use crate::{
    bench::measure::Cost,
    error::{Error, Result},
};

/// The shape of the file; another one is not read.
pub const FORMAT: u32 = 1;

/// Figures are kept to the thousandth of a second.
const MILLISECONDS: f64 = 1000.0;

/// One run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Results {
    /// [`FORMAT`].
    pub format: u32,
    /// What it ran on.
    pub host: Host,
    /// Versions by program.
    pub versions: BTreeMap<String, String>,
    /// The images.
    pub images: Vec<Image>,
    /// Bytes and costs of updates.
    pub wire: Vec<WireRow>,
    /// Seconds of installs.
    pub install: Vec<InstallRow>,
    /// What was left out, and why.
    pub left_out: Vec<LeftOut>,
}

/// The machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Host {
    /// Day of the run.
    pub date: String,
    /// The state of the source tree that was measured.
    pub commit: String,
    /// Model of the processor.
    pub processor: String,
    /// How many of its cores.
    pub cores: usize,
    /// Memory.
    pub memory_mib: u64,
    /// Release of the kernel.
    pub kernel: String,
    /// The distribution.
    pub system: String,
    /// How much others wanted the processors when the run began (the load of the last minute).
    pub load: String,
}

/// An image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Image {
    /// `v1`, `v2`, `v3`, `major`.
    pub name: String,
    /// Its size.
    pub bytes: u64,
    /// SHA-256.
    pub sha256: String,
}

/// One tool in one update.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WireRow {
    /// The update.
    pub case: String,
    /// The tool.
    pub tool: String,
    /// Bytes over the wire, both directions, heads included.
    pub bytes: u64,
    /// Requests.
    pub requests: u64,
    /// Size of the file that is served, where it is one.
    pub served_bytes: Option<u64>,
    /// To make what is served.
    pub make: Option<Cost>,
    /// To apply it.
    pub apply: Cost,
    /// How many applies; `apply` is the median of each figure, and the highest peak.
    pub rounds: usize,
    /// What Roro says of itself.
    pub report: Option<Report>,
}

/// One tool in one mode.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InstallRow {
    /// The mode.
    pub mode: String,
    /// The update.
    pub case: String,
    /// The tool.
    pub tool: String,
    /// Size of the image.
    pub image_bytes: u64,
    /// Each run, in order.
    pub runs: Vec<Paired>,
    /// What Roro says of itself, in the run of median time.
    pub report: Option<Report>,
}

/// A run and the plain dd before it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Paired {
    /// The tool.
    pub cost: Cost,
    /// dd of the raw image into the same bank.
    pub dd: Cost,
    /// Bytes over the wire.
    pub bytes: u64,
}

/// The closing object of `updater install --json`, as far as it counts here.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Bytes of the bundle that were read.
    pub bytes_fetched: u64,
    /// Bytes made by patches.
    pub bytes_patched: u64,
    /// Bytes taken from the active bank.
    pub bytes_copied: u64,
    /// Bytes that lay in place.
    pub bytes_skipped: u64,
    /// Bytes written.
    pub bytes_written: u64,
    /// The whole install.
    pub seconds: f64,
    /// The read-back in it.
    pub readback_seconds: f64,
    /// Peak of resident memory, as the program sees it.
    pub peak_rss_kib: u64,
}

/// Something that was not measured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LeftOut {
    /// Where: an update or a mode.
    pub place: String,
    /// The tool; everything there if none is named.
    pub tool: Option<String>,
    /// Why.
    pub why: String,
}

impl Results {
    /// Reads a file.
    pub fn read(file: &Path) -> Result<Self> {
        let text = fs::read_to_string(file).map_err(Error::io("read", file))?;
        let results: Results = serde_json::from_str(&text).map_err(|source| Error::Json {
            what: file.display().to_string(),
            text: String::new(),
            source,
        })?;
        if results.format != FORMAT {
            return Err(Error::Unexpected {
                what: format!("the format of {}", file.display()),
                wanted: FORMAT.to_string(),
                seen: results.format.to_string(),
            });
        }
        Ok(results)
    }

    /// Writes a file.
    pub fn write(&self, file: &Path) -> Result<()> {
        let mut text =
            serde_json::to_string_pretty(self).map_err(|error| Error::io("write", file)(error.into()))?;
        text.push('\n');
        fs::write(file, text).map_err(Error::io("write", file))
    }

    /// A tool in an update.
    #[must_use]
    pub fn wire(&self, case: &str, tool: &str) -> Option<&WireRow> {
        self.wire.iter().find(|row| row.case == case && row.tool == tool)
    }

    /// A tool in a mode.
    #[must_use]
    pub fn install(&self, mode: &str, case: &str, tool: &str) -> Option<&InstallRow> {
        self.install.iter().find(|row| row.mode == mode && row.case == case && row.tool == tool)
    }
}

impl Report {
    /// Finds the closing object: the last line that is one.
    #[must_use]
    pub fn read(lines: &str) -> Option<Self> {
        lines.lines().rev().find_map(|line| serde_json::from_str(line).ok())
    }
}

impl InstallRow {
    /// Median of the seconds.
    #[must_use]
    pub fn wall(&self) -> f64 {
        median(self.runs.iter().map(|run| run.cost.wall_seconds))
    }

    /// The shortest and the longest.
    #[must_use]
    pub fn spread(&self) -> (f64, f64) {
        let walls = || self.runs.iter().map(|run| run.cost.wall_seconds);
        (walls().fold(f64::INFINITY, f64::min), walls().fold(0.0, f64::max))
    }

    /// Median of the ratios to the dd before each run.
    #[must_use]
    pub fn times_dd(&self) -> f64 {
        median(self.runs.iter().map(|run| run.cost.wall_seconds / run.dd.wall_seconds))
    }

    /// Median of the CPU seconds.
    #[must_use]
    pub fn cpu(&self) -> f64 {
        median(self.runs.iter().map(|run| run.cost.cpu_seconds))
    }

    /// The highest peak of memory.
    #[must_use]
    pub fn peak_rss_kib(&self) -> u64 {
        self.runs.iter().map(|run| run.cost.peak_rss_kib).max().unwrap_or(0)
    }

    /// Bytes over the wire, the most of all runs.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.runs.iter().map(|run| run.bytes).max().unwrap_or(0)
    }
}

/// Of several costs: the median of the times, the highest peak.
#[must_use]
pub fn median_cost(costs: &[Cost]) -> Cost {
    Cost {
        wall_seconds: median(costs.iter().map(|cost| cost.wall_seconds)),
        cpu_seconds: median(costs.iter().map(|cost| cost.cpu_seconds)),
        peak_rss_kib: costs.iter().map(|cost| cost.peak_rss_kib).max().unwrap_or(0),
    }
}

/// The middle one; of an even number the mean of the two in the middle; 0 of none.
#[must_use]
pub fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    let at = |place: usize| values.get(place).copied().unwrap_or(0.0);
    if values.len() % 2 == 1 { at(middle) } else { f64::midpoint(at(middle.saturating_sub(1)), at(middle)) }
}

/// Rounded, so that a file of figures can be read.
#[must_use]
pub fn rounded(cost: Cost) -> Cost {
    let round = |seconds: f64| (seconds * MILLISECONDS).round() / MILLISECONDS;
    Cost { wall_seconds: round(cost.wall_seconds), cpu_seconds: round(cost.cpu_seconds), ..cost }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert_eq!(median([3.0, 1.0, 2.0].into_iter()), 2.0);
        assert_eq!(median([4.0, 1.0, 2.0, 3.0].into_iter()), 2.5);
        assert_eq!(median([7.0].into_iter()), 7.0);
        assert_eq!(median(std::iter::empty()), 0.0);
    }

    #[test]
    fn the_closing_object_is_found_behind_progress_and_with_keys_of_later_versions() {
        let lines = "{\"event\":\"progress\",\"bytes\":1}\n\
            {\"result\":\"installed\",\"bank\":\"a\",\"bytes_fetched\":1,\"bytes_copied\":2,\"bytes_patched\":3,\
            \"bytes_skipped\":4,\"bytes_written\":5,\"seconds\":1.5,\"readback_seconds\":0.5,\"peak_rss_kib\":7,\"new\":0}\n";
        let report = Report::read(lines).unwrap();
        assert_eq!((report.bytes_fetched, report.bytes_patched, report.peak_rss_kib), (1, 3, 7));
        assert_eq!(Report::read("{\"event\":\"progress\"}\n"), None);
    }
}
