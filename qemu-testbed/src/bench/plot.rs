//! The plot: bytes on the wire as bars, one panel for each update. Plain SVG, with its own ground in light and in dark, so that it
//! can be read wherever the page is shown.

use std::fmt::Write as _;

use crate::bench::{
    results::{Results, WireRow},
    tools::{self, Case, Family},
    wire::COMPUTED,
};

const WIDTH: f64 = 880.0;
const NAMES: f64 = 250.0;
const VALUES: f64 = 120.0;
const BAR: f64 = 16.0;
const STEP: f64 = 22.0;
const HEAD: f64 = 42.0;
const MARGIN: f64 = 16.0;

const STYLE: &str = "\
text{font:13px system-ui,sans-serif;fill:#1f2328}.head{font-weight:600}.value{font-variant-numeric:tabular-nums}\
.ground{fill:#ffffff}.peer{fill:#8c959f}.roro{fill:#0969da}\
@media(prefers-color-scheme:dark){text{fill:#e6edf3}.ground{fill:#0d1117}.peer{fill:#6e7681}.roro{fill:#58a6ff}}";

/// The plot of a run.
#[must_use]
pub fn draw(results: &Results) -> String {
    let panels: Vec<(&str, Vec<&WireRow>)> = [
        (Case::Security, "v1 to v2, all updates of the distribution: MB on the wire"),
        (Case::Package, "v1 to v3, one package: MB on the wire"),
    ]
    .into_iter()
    .map(|(case, title)| (title, rows(results, case)))
    .filter(|(_, rows)| !rows.is_empty())
    .collect();
    let mut body = String::new();
    let mut top = 0.0;
    for (title, rows) in &panels {
        panel(&mut body, top, title, rows);
        top += HEAD + STEP * rows.len() as f64 + MARGIN;
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{top}\" viewBox=\"0 0 {WIDTH} {top}\" role=\"img\">\n\
         <title>Bytes on the wire by tool</title>\n<style>{STYLE}</style>\n\
         <rect class=\"ground\" width=\"{WIDTH}\" height=\"{top}\"/>\n{body}</svg>\n"
    )
}

/// Fewest bytes first. The raw image is left out: it would make all other bars too short to compare.
fn rows(results: &Results, case: Case) -> Vec<&WireRow> {
    let mut rows: Vec<&WireRow> =
        results.wire.iter().filter(|row| row.case == case.word() && row.tool != "full-raw").collect();
    rows.sort_by_key(|row| row.bytes);
    rows
}

fn panel(svg: &mut String, top: f64, title: &str, rows: &[&WireRow]) {
    let most = rows.iter().map(|row| row.bytes).max().unwrap_or(1).max(1) as f64;
    let room = WIDTH - NAMES - VALUES;
    let mut line = |text: String| {
        svg.push_str(&text);
        svg.push('\n');
    };
    line(format!("<text class=\"head\" x=\"{MARGIN}\" y=\"{}\">{title}</text>", top + 26.0));
    for (number, row) in rows.iter().enumerate() {
        let y = top + HEAD + STEP * number as f64;
        let length = (row.bytes as f64 / most * room).max(1.0);
        let base = y + BAR - 3.0;
        let mut bar = String::new();
        // Writing to a string cannot fail.
        let _ = write!(
            bar,
            "<text x=\"{:.0}\" y=\"{base:.1}\" text-anchor=\"end\">{}</text>",
            NAMES - 8.0,
            row.tool
        );
        let _ = write!(
            bar,
            "<rect class=\"{}\" x=\"{NAMES}\" y=\"{y:.1}\" width=\"{length:.1}\" height=\"{BAR}\"/>",
            class(&row.tool)
        );
        let _ = write!(
            bar,
            "<text class=\"value\" x=\"{:.1}\" y=\"{base:.1}\">{}</text>",
            NAMES + length + 6.0,
            megabytes(row.bytes)
        );
        line(bar);
    }
}

fn class(tool: &str) -> &'static str {
    match tools::by_name(tool).map(|tool| tool.family) {
        Some(Family::Roro) => "roro",
        Some(Family::Whole | Family::Chunks | Family::Patch) | None => "peer",
    }
}

/// As many places as it takes to see a difference.
#[must_use]
pub fn megabytes(bytes: u64) -> String {
    let megabytes = bytes as f64 / 1e6;
    if megabytes < 1.0 { format!("{megabytes:.3}") } else { format!("{megabytes:.2}") }
}

/// The name of a row in a table.
#[must_use]
pub fn label(tool: &str) -> String {
    if tool == COMPUTED { format!("{tool} (arithmetic)") } else { tool.to_owned() }
}
