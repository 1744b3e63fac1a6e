//! docs/performance.md: what was measured on what, the goals with their verdicts, and all figures, from the results alone.

use Column::{Figures, Words};

use crate::{
    bench::{
        goals,
        measure::Cost,
        plot::{label, megabytes},
        results::{InstallRow, Results, WireRow},
        tools::{self, Case, Mode, TOOLS, Tool, Verifies},
        wire::COMPUTED,
    },
    limits,
};

/// The page of a run.
#[must_use]
pub fn write(results: &Results) -> String {
    let parts = [
        head(results),
        verdicts(results),
        bytes(results),
        sources(results),
        costs(results),
        installs(results),
        left_out(results),
        ground(results),
        lines(),
    ];
    parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("\n")
}

fn head(results: &Results) -> String {
    let host = &results.host;
    format!(
        "<!-- Written by `qemu-testbed bench`; do not edit by hand. -->\n\
         # Performance\n\n\
         Roro beside other tools that update images, on the same images in one run of `qemu-testbed bench` on {}.\n\n\
         How to read it:\n\
         - **Bytes** are counted by the server, heads of requests and answers included. They hardly differ between runs and machines.\n\
         - **Seconds and memory** are those of one machine with {} cores on one day. Seconds are noisy: compare them with the dd that ran just before\n  \
           (the column \"times dd\"), and trust no difference that is smaller than the spread.\n\
         - Ratios hold for these images only. Another corpus gives others.\n",
        host.date, host.cores
    )
}

fn verdicts(results: &Results) -> String {
    let rows = goals::judge(results)
        .into_iter()
        .map(|judged| vec![judged.goal, judged.allowed, judged.measured, judged.verdict.to_string()]);
    format!(
        "## Goals\n\nAll are upper limits. Not judged here: images up to 2 GiB and odd sizes, which the tests play, and the fuzzing of decoders.\n\n{}",
        table(&[Words("goal"), Figures("allowed"), Figures("measured"), Words("verdict")], rows)
    )
}

fn bytes(results: &Results) -> String {
    let cases: Vec<Case> =
        Case::ALL.into_iter().filter(|case| results.wire.iter().any(|row| row.case == case.word())).collect();
    if cases.is_empty() {
        return String::new();
    }
    let mut names: Vec<&str> = Vec::new();
    for row in &results.wire {
        if !names.contains(&row.tool.as_str()) {
            names.push(&row.tool);
        }
    }
    let mut columns = vec![Words("MB (10^6 bytes)")];
    for case in &cases {
        columns.extend([Figures(title(*case)), Figures("times Roro")]);
    }
    let rows = names.into_iter().map(|tool| {
        let mut cells = vec![label(tool)];
        for case in &cases {
            let row = results.wire(case.word(), tool);
            let roro = results.wire(case.word(), "roro");
            cells.push(row.map_or_else(String::new, |row| megabytes(row.bytes)));
            let ratio = row.zip(roro).map(|(row, roro)| row.bytes as f64 / roro.bytes.max(1) as f64);
            cells.push(ratio.map_or_else(String::new, |ratio| format!("{ratio:.2}")));
        }
        cells
    });
    format!(
        "## Bytes on the wire\n\n![Bytes on the wire by tool](performance.svg)\n\n{}\n\
         The passive bank was wiped before each update: nothing is saved by what an older release left there. `{COMPUTED}`: what RAUC's index\n\
         would fetch if nothing were read twice or ahead, at 128 KiB compressed as mksquashfs does, and the index itself.\n",
        table(&columns, rows)
    )
}

fn sources(results: &Results) -> String {
    let rows: Vec<Vec<String>> = results
        .wire
        .iter()
        .filter_map(|row| row.report.map(|report| (row, report)))
        .map(|(row, report)| {
            let parts = [
                report.bytes_fetched,
                report.bytes_patched,
                report.bytes_copied,
                report.bytes_skipped,
                report.bytes_written,
            ];
            let mut cells = vec![row.tool.clone(), row.case.clone()];
            cells.extend(parts.map(megabytes));
            cells
        })
        .collect();
    if rows.is_empty() {
        return String::new();
    }
    let figures = ["fetched", "patched", "copied", "in place", "written"].map(Figures);
    let columns: Vec<Column<'_>> = [Words("bundle"), Words("update")].into_iter().chain(figures).collect();
    format!(
        "### Where Roro's bytes came from, MB, by its own report\n\n{}",
        table(&columns, rows.into_iter())
    )
}

fn costs(results: &Results) -> String {
    let mut text = String::from(
        "## What it costs to make and to apply\n\nApplied into a bank on a loop device, `sync` included. Memory is the peak of the largest process, \
         that of the stages of a pipe added.\n",
    );
    let mut has_rows = false;
    for case in [Case::Security, Case::Package] {
        let rows: Vec<&WireRow> =
            results.wire.iter().filter(|row| row.case == case.word() && row.rounds > 0).collect();
        if rows.is_empty() {
            continue;
        }
        has_rows = true;
        let cells = rows.into_iter().map(|row| {
            let mut cells = vec![row.tool.clone()];
            cells.extend(row.make.map_or_else(|| [const { String::new() }; 3].to_vec(), cost));
            cells.extend(cost(row.apply));
            cells.push(row.requests.to_string());
            cells
        });
        let figures = ["make s", "CPU s", "MiB", "apply s", "CPU s", "MiB", "requests"].map(Figures);
        let columns: Vec<Column<'_>> = std::iter::once(Words("tool")).chain(figures).collect();
        text.push_str(&format!("\n### {}\n\n{}", title(case), table(&columns, cells)));
    }
    if has_rows { text } else { String::new() }
}

fn cost(cost: Cost) -> Vec<String> {
    vec![
        format!("{:.2}", cost.wall_seconds),
        format!("{:.2}", cost.cpu_seconds),
        mebibytes(cost.peak_rss_kib),
    ]
}

fn installs(results: &Results) -> String {
    let mut text = String::from(
        "## Install into a bank\n\nFrom the command to the `sync` of the bank; median of the runs. Before each run the bank held v1 (for `roro-full`: noise), caches were \
         dropped, and a plain dd of the raw image went into the same bank. The bank was compared with the image after each run.\n",
    );
    let mut has_rows = false;
    for mode in Mode::ALL {
        let rows: Vec<&InstallRow> = results.install.iter().filter(|row| row.mode == mode.word()).collect();
        if rows.is_empty() {
            continue;
        }
        has_rows = true;
        let words = ["tool", "update", "verifies"].map(Words);
        let figures =
            ["runs", "s", "least to most", "times dd", "CPU s", "MiB", "MB on the wire"].map(Figures);
        let columns: Vec<Column<'_>> = words.into_iter().chain(figures).collect();
        text.push_str(&format!(
            "\n### {}\n\n{}",
            manner(mode),
            table(&columns, rows.into_iter().map(install))
        ));
    }
    if has_rows { text } else { String::new() }
}

fn install(row: &InstallRow) -> Vec<String> {
    let verifies = match tools::by_name(&row.tool).map(|tool| tool.verifies) {
        Some(Verifies::EveryByte) => "every byte",
        Some(Verifies::Nothing) | None => "nothing",
    };
    let (least, most) = row.spread();
    vec![
        row.tool.clone(),
        row.case.clone(),
        verifies.to_owned(),
        row.runs.len().to_string(),
        format!("{:.2}", row.wall()),
        format!("{least:.2} to {most:.2}"),
        format!("{:.1}", row.times_dd()),
        format!("{:.2}", row.cpu()),
        mebibytes(row.peak_rss_kib()),
        megabytes(row.bytes()),
    ]
}

fn left_out(results: &Results) -> String {
    if results.left_out.is_empty() {
        return String::new();
    }
    let rows = results.left_out.iter().map(|left| {
        let tool = left.tool.clone().unwrap_or_else(|| "all".to_owned());
        vec![left.place.clone(), tool, left.why.replace('|', "/")]
    });
    format!("## Left out\n\n{}", table(&[Words("where"), Words("tool"), Words("why")], rows))
}

fn ground(results: &Results) -> String {
    let host = &results.host;
    let images = results
        .images
        .iter()
        .map(|image| vec![image.name.clone(), image.bytes.to_string(), image.sha256.clone()]);
    let versions: Vec<String> =
        results.versions.iter().map(|(name, version)| format!("{name} {version}")).collect();
    format!(
        "## On what\n\n\
         {}, {} cores, {} MiB of memory; {}, kernel {}; load at the start {}. Roro at {}.\n\n\
         {}\n\
         v1: a small Debian 12 with kernel, systemd and Python, without an initrd. v2: the same with all updates. v3: v1 with the updates of openssl\n\
         and libssl3. major: v2 as a compressed squashfs, which has nothing in common with v1.\n\n\
         {}.\n",
        host.processor,
        host.cores,
        host.memory_mib,
        host.system,
        host.kernel,
        host.load,
        host.commit,
        table(&[Words("image"), Figures("bytes"), Words("SHA-256")], images),
        versions.join(", ")
    )
}

fn lines() -> String {
    let mut text = format!(
        "## With which lines\n\n\
         `qemu-testbed bench` makes the images, or takes them from `--images DIR`; `--only roro,bita,v2` measures some. As root, for an hour or two.\n\
         nginx serves on the loopback. The held link is a network of its own at {} Mbit/s, the held disk a control group at {} MB/s.\n",
        limits::BENCH_LINK_BITS_PER_SECOND / 1_000_000,
        limits::BENCH_DISK_BYTES_PER_SECOND / 1_000_000,
    );
    for tool in TOOLS {
        text.push_str(&one(tool));
    }
    text
}

fn one(tool: &Tool) -> String {
    let note = if tool.note.is_empty() { String::new() } else { format!(": {}", tool.note) };
    let lines = tool.make.iter().chain(tool.prepare).chain(tool.apply);
    let lines: String = lines.map(|line| format!("    {line}\n")).collect();
    format!("\n**{}**{note}\n\n{lines}", tool.name)
}

fn title(case: Case) -> &'static str {
    match case {
        Case::Security => "v1 to v2",
        Case::Package => "v1 to v3",
        Case::Unchanged => "unchanged",
        Case::Major => "major jump",
    }
}

fn manner(mode: Mode) -> &'static str {
    match mode {
        Mode::Fast => "Link and disk as fast as they are",
        Mode::SlowLink => "Link held",
        Mode::SlowDisk => "Disk held",
    }
}

fn mebibytes(kib: u64) -> String {
    format!("{:.1}", kib as f64 / 1024.0)
}

/// A column of a table.
enum Column<'a> {
    /// Words, to the left.
    Words(&'a str),
    /// Figures, to the right.
    Figures(&'a str),
}

fn table(columns: &[Column<'_>], rows: impl Iterator<Item = Vec<String>>) -> String {
    let (mut text, mut rule) = ("|".to_owned(), "|".to_owned());
    for column in columns {
        let (name, mark) = match column {
            Words(name) => (name, "---"),
            Figures(name) => (name, "--:"),
        };
        text.push_str(&format!(" {name} |"));
        rule.push_str(&format!("{mark}|"));
    }
    text.push_str(&format!("\n{rule}\n"));
    for row in rows {
        text.push_str(&format!("| {} |\n", row.join(" | ")));
    }
    text
}
