//! The goals, each judged from the results alone: what is allowed, what was measured, and by how much it was missed.
//!
//! All goals are upper limits. Where a row is missing, so is the verdict: a goal that was not measured is not reached.

use std::fmt;

use crate::{
    bench::{
        results::{InstallRow, Results, WireRow},
        tools::{self, Case, Family, Mode, TOOLS, Verifies},
        wire::COMPUTED,
    },
    limits,
};

/// The peers that send pieces, of which the best counts.
const CHUNKED: [&str; 8] = [
    "bita",
    "bita-brotli11",
    "casync-64k",
    "casync-16k",
    "zchunk",
    "swupdate-delta",
    "rauc-block-hash-index",
    COMPUTED,
];
const ONE_PACKAGE_BYTES: f64 = 450_000.0;
const UNCHANGED_BYTES: f64 = 65_536.0;
const MEMORY_KIB: f64 = 48.0 * 1024.0;
const DELTA_CPU_SECONDS: f64 = 5.0;
const MAKE_SECONDS: f64 = 180.0;
const MAKE_KIB: f64 = 2.0 * 1024.0 * 1024.0;
/// How near to its own time a held link or disk must be.
const NEAR: f64 = 1.05;

/// A goal and what became of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Judged {
    /// The goal, in words.
    pub goal: String,
    /// What it allows, where that could be computed.
    pub allowed: String,
    /// What was measured.
    pub measured: String,
    /// What became of it.
    pub verdict: Verdict,
}

/// What became of a goal.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Verdict {
    /// Reached; this part of what is allowed was used.
    Reached {
        /// Measured by allowed.
        part: f64,
    },
    /// Not reached.
    Missed {
        /// Measured by allowed.
        times: f64,
    },
    /// A figure is missing.
    NotMeasured,
}

#[derive(Debug, Clone, Copy)]
enum Unit {
    Bytes,
    Seconds,
    Kibibytes,
}

impl fmt::Display for Verdict {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Verdict::Reached { part } => write!(to, "reached ({part:.2} of it)"),
            Verdict::Missed { times } => write!(to, "**not reached**: {times:.2} times what is allowed"),
            Verdict::NotMeasured => write!(to, "**not measured**"),
        }
    }
}

impl Judged {
    /// One line for a terminal.
    #[must_use]
    pub fn line(&self) -> String {
        let verdict = self.verdict.to_string().replace("**", "");
        format!("{}: allowed {}, measured {}: {verdict}", self.goal, self.allowed, self.measured)
    }
}

/// Judges all goals.
#[must_use]
pub fn judge(results: &Results) -> Vec<Judged> {
    [bytes(results), memory(results), times(results), making(results)].concat()
}

fn bytes(results: &Results) -> Vec<Judged> {
    let wire = |case: Case, tool| results.wire(case.word(), tool).map(|row| row.bytes as f64);
    let roro = |case| wire(case, "roro");
    let best_chunked = CHUNKED
        .iter()
        .filter_map(|tool| wire(Case::Security, tool))
        .min_by(|one, other| one.total_cmp(other));
    let full = results.wire(Case::Major.word(), "roro-full").and_then(|row| row.served_bytes);
    let goal = |text: &str, measured, allowed| limit(text, Unit::Bytes, measured, allowed);
    vec![
        goal(
            "v1 to v2, bytes: 0.50 of xdelta3 -9 -S lzma with all of v1 as window",
            roro(Case::Security),
            wire(Case::Security, "xdelta3-9-lzma").map(|bytes| bytes * 0.50),
        ),
        goal(
            "v1 to v2, bytes: 0.20 of the best of bita, casync, zchunk, swupdate's delta and rauc's index",
            roro(Case::Security),
            best_chunked.map(|bytes| bytes * 0.20),
        ),
        goal("v1 to v3, bytes: 0.45 MB", roro(Case::Package), Some(ONE_PACKAGE_BYTES)),
        goal("an unchanged release, bytes: 64 KiB", roro(Case::Unchanged), Some(UNCHANGED_BYTES)),
        goal(
            "v1 to v2 without a delta, bytes: 0.75 of bita",
            wire(Case::Security, "roro-without-delta"),
            wire(Case::Security, "bita").map(|bytes| bytes * 0.75),
        ),
        goal(
            "a major jump, bytes: 1.01 of the full bundle",
            roro(Case::Major),
            full.map(|bytes| bytes as f64 * 1.01),
        ),
    ]
}

fn memory(results: &Results) -> Vec<Judged> {
    let is_ours = |name: &str| tools::by_name(name).is_some_and(|tool| tool.family == Family::Roro);
    let wire = results.wire.iter().filter(|row| is_ours(&row.tool)).map(|row| row.apply.peak_rss_kib);
    let install = results.install.iter().filter(|row| is_ours(&row.tool)).map(|row| row.peak_rss_kib());
    let own_words = results.wire.iter().filter_map(|row| row.report).map(|report| report.peak_rss_kib);
    let peak = wire.chain(install).chain(own_words).max().map(|kib| kib as f64);
    vec![limit("updater, resident memory in all runs: 48 MiB", Unit::Kibibytes, peak, Some(MEMORY_KIB))]
}

fn times(results: &Results) -> Vec<Judged> {
    let row = |mode: Mode, case: Case, tool| results.install(mode.word(), case.word(), tool);
    let fast = |tool| row(Mode::Fast, Case::Security, tool).map(|row| row.wall());
    let full = row(Mode::Fast, Case::Security, "roro-full");
    let wall = full.map(|row| row.wall());
    let before_readback = full.and_then(|row| row.report.map(|report| row.wall() - report.readback_seconds));
    let others = |sends: fn(&InstallRow) -> bool| {
        let is_wanted =
            |tool: &&tools::Tool| tool.family != Family::Roro && tool.verifies == Verifies::EveryByte;
        let rows =
            TOOLS.iter().filter(is_wanted).filter_map(|tool| row(Mode::Fast, Case::Security, tool.name));
        rows.filter(|row| sends(row)).map(InstallRow::wall).min_by(|one, other| one.total_cmp(other))
    };
    let slow_link = row(Mode::SlowLink, Case::Security, "roro-full");
    let slow_disk = row(Mode::SlowDisk, Case::Security, "roro-full");
    let link_seconds =
        slow_link.map(|row| row.bytes() as f64 * 8.0 / limits::BENCH_LINK_BITS_PER_SECOND as f64);
    let disk_seconds = slow_disk
        .and_then(|row| row.report)
        .map(|report| report.bytes_written as f64 / limits::BENCH_DISK_BYTES_PER_SECOND as f64);
    let delta = results.wire(Case::Security.word(), "roro");
    let package = |mode| row(mode, Case::Package, "roro").map(InstallRow::wall);
    let half = |mode| row(mode, Case::Security, "roro-full").map(|row| row.wall() * 0.5);
    let goal = |text: &str, measured, allowed| limit(text, Unit::Seconds, measured, allowed);
    let times = |factor: f64| move |seconds: f64| seconds * factor;
    vec![
        goal(
            "full install of v2 before the read-back: as long as curl, zstd -d and dd, which verify nothing",
            before_readback,
            fast("full-zstd19"),
        ),
        goal("the same with read-back: 1.5 times that", wall, fast("full-zstd19").map(times(1.5))),
        goal(
            "full install of v2: a quarter of swupdate, packed with zstd as here",
            wall,
            fast("swupdate-zstd").map(times(0.25)),
        ),
        goal(
            "full install of v2: the fastest other tool that verifies and sends less than the image",
            wall,
            others(|row| row.bytes() < row.image_bytes),
        ),
        goal(
            "the same, with those that send all of it unpacked, over a link as fast as memory",
            wall,
            others(|_| true),
        ),
        goal(
            "full install on the held link: 1.05 of the link's own time for the bytes",
            slow_link.map(|row| row.wall()),
            link_seconds.map(times(NEAR)),
        ),
        goal(
            "full install on the held disk: 1.05 of the disk's own time for the bytes",
            slow_disk.map(|row| row.wall()),
            disk_seconds.map(times(NEAR)),
        ),
        goal("v1 to v2 by delta, CPU: 5 s", delta.map(|row| row.apply.cpu_seconds), Some(DELTA_CPU_SECONDS)),
        goal("v1 to v3: half of the full install of v2", package(Mode::Fast), half(Mode::Fast)),
        goal("the same on the held link", package(Mode::SlowLink), half(Mode::SlowLink)),
        goal("the same on the held disk", package(Mode::SlowDisk), half(Mode::SlowDisk)),
    ]
}

fn making(results: &Results) -> Vec<Judged> {
    let make = results.wire(Case::Security.word(), "roro").and_then(|row: &WireRow| row.make);
    vec![
        limit(
            "the bundle of v2 with a delta from v1, time to make: 180 s",
            Unit::Seconds,
            make.map(|cost| cost.wall_seconds),
            Some(MAKE_SECONDS),
        ),
        limit(
            "the same, memory: 2 GiB",
            Unit::Kibibytes,
            make.map(|cost| cost.peak_rss_kib as f64),
            Some(MAKE_KIB),
        ),
    ]
}

fn limit(goal: &str, unit: Unit, measured: Option<f64>, allowed: Option<f64>) -> Judged {
    let text = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| unit.text(value));
    let verdict = match (measured, allowed) {
        (Some(measured), Some(allowed)) if measured <= allowed => {
            Verdict::Reached { part: measured / allowed }
        }
        (Some(measured), Some(allowed)) => Verdict::Missed { times: measured / allowed },
        (None, _) | (_, None) => Verdict::NotMeasured,
    };
    Judged { goal: goal.to_owned(), allowed: text(allowed), measured: text(measured), verdict }
}

impl Unit {
    fn text(self, value: f64) -> String {
        match self {
            Unit::Bytes => format!("{:.3} MB", value / 1e6),
            Unit::Seconds => format!("{value:.2} s"),
            Unit::Kibibytes => format!("{:.1} MiB", value / 1024.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_reached_missed_or_open() {
        let judged = |measured, allowed| limit("x", Unit::Bytes, measured, allowed).verdict;
        assert_eq!(judged(Some(50.0), Some(100.0)), Verdict::Reached { part: 0.5 });
        assert_eq!(judged(Some(100.0), Some(100.0)), Verdict::Reached { part: 1.0 });
        assert_eq!(judged(Some(123.0), Some(100.0)), Verdict::Missed { times: 1.23 });
        assert_eq!(judged(None, Some(100.0)), Verdict::NotMeasured);
        assert_eq!(judged(Some(1.0), None), Verdict::NotMeasured);
    }

    #[test]
    fn each_name_in_a_goal_is_a_tool() {
        for name in CHUNKED.iter().filter(|name| **name != COMPUTED) {
            assert_eq!(tools::by_name(name).map(|tool| tool.family), Some(Family::Chunks), "{name}");
        }
    }
}
