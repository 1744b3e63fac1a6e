//! `updater history`, and `updater history show N`.

use std::path::Path;

use serde::Serialize;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{Context, Exit, health};
use crate::{
    error::{Error, Result},
    evidence::{self, Kept},
    files::DiskFiles,
    gate::harmless,
    history::{Entry, HistoryFile, HistoryLog},
    limits::MAX_SHOWN_LINES,
    printer::{self, Format},
};

/// What to show.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Args {
    /// Only the newest entries
    #[arg(long, value_name = "COUNT")]
    last: Option<usize>,
    #[command(subcommand)]
    one: Option<One>,
}

/// One entry.
#[derive(Debug, clap::Subcommand)]
enum One {
    /// One entry with its evidence: reason, checks, kernel log, journal
    Show {
        /// Its number, as `updater history` prints it; the newest is 1
        number: usize,
    },
}

/// An entry, and its number.
#[derive(Debug, Serialize)]
struct Numbered<'a> {
    number: usize,
    #[serde(flatten)]
    entry: &'a Entry,
}

/// An entry with what was kept.
#[derive(Debug, Serialize)]
struct Shown<'a> {
    number: usize,
    #[serde(flatten)]
    entry: &'a Entry,
    kept: Option<Kept>,
}

impl Args {
    /// Prints the entries, oldest first, or one of them.
    pub fn run(self, context: &Context) -> Result<Exit> {
        let config = context.load()?;
        let entries = HistoryFile::in_directory(&config.state()).entries()?;
        match self.one {
            Some(One::Show { number }) => show(context, &entries, number)?,
            None => list(context, &entries, self.last),
        }
        Ok(Exit::Done)
    }
}

fn list(context: &Context, entries: &[Entry], last: Option<usize>) {
    let skip = last.map_or(0, |last| entries.len().saturating_sub(last));
    for (place, entry) in entries.iter().enumerate().skip(skip) {
        let number = entries.len() - place;
        match context.format {
            Format::Json => printer::object(&Numbered { number, entry }),
            Format::Text => printer::data(&harmless(&format!("{number:>4}  {}", line(entry)))),
        }
    }
}

fn show(context: &Context, entries: &[Entry], number: usize) -> Result<()> {
    let entry = number.checked_sub(1).and_then(|newer| entries.iter().rev().nth(newer));
    let Some(entry) = entry else {
        let detail = format!("the history has no entry {number}, it has {} in all", entries.len());
        return Err(Error::Usage { detail });
    };
    let directory = entry.evidence.as_deref().map(Path::new).filter(|directory| directory.is_dir());
    let kept = directory.map(|directory| evidence::read(&DiskFiles, directory));
    match context.format {
        Format::Json => printer::object(&Shown { number, entry, kept }),
        Format::Text => {
            for line in page(entry, kept.as_ref()) {
                printer::data(&line);
            }
        }
    }
    Ok(())
}

/// For people. Logs come from a system that failed: nothing in them steers a terminal.
fn page(entry: &Entry, kept: Option<&Kept>) -> Vec<String> {
    let mut lines = vec![harmless(&line(entry))];
    let nothing = Kept::default();
    let kept = match (kept, &entry.evidence) {
        (Some(kept), _) => kept,
        (None, Some(gone)) => {
            lines.push(format!("the evidence is no longer kept: {gone}"));
            &nothing
        }
        (None, None) => &nothing,
    };
    if let Some(reason) = kept.reason.as_ref().filter(|reason| entry.reason.as_ref() != Some(reason)) {
        lines.push(format!("reason: {}", harmless(reason)));
    }
    let checks = if kept.checks.is_empty() { &entry.checks } else { &kept.checks };
    if !checks.is_empty() {
        lines.extend([String::new(), "checks:".into()]);
    }
    for check in checks {
        lines.push(format!("  {}", harmless(&health::line(check))));
        let output = check.output.as_deref().unwrap_or_default();
        lines.extend(output.lines().map(|line| format!("             | {}", harmless(line))));
    }
    for (title, log) in [("last words of the kernel", &kept.kernel), ("journal of that boot", &kept.journal)]
    {
        let Some(log) = log else { continue };
        let all = log.lines().count();
        let shown = all.min(MAX_SHOWN_LINES);
        lines.extend([String::new(), format!("{title}, the newest {shown} of {all} lines:")]);
        lines.extend(log.lines().skip(all - shown).map(|line| format!("  {}", harmless(line))));
    }
    if let Some(directory) = entry.evidence.as_ref().filter(|_| *kept != nothing) {
        lines.extend([String::new(), format!("all of it: {directory}")]);
    }
    lines
}

fn line(entry: &Entry) -> String {
    let when = OffsetDateTime::from_unix_timestamp(entry.unix_seconds)
        .ok()
        .and_then(|when| when.format(&Rfc3339).ok())
        .unwrap_or_else(|| entry.unix_seconds.to_string());
    let mut text = format!("{when}  {:<15}", entry.event.word());
    if let Some(release) = &entry.release {
        text = format!("{text} {release}");
    }
    if let Some(bank) = entry.bank {
        text = format!("{text} (bank {bank})");
    }
    if let Some(reason) = &entry.reason {
        text = format!("{text}: {reason}");
    }
    if let Some(evidence) = &entry.evidence {
        text = format!("{text} [{evidence}]");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{gate::Finding, health::rounds::Standing, history::Happening};

    fn entry() -> Entry {
        Entry {
            unix_seconds: 0,
            event: Happening::Rejected,
            release: None,
            bank: Some(bank_format::Bank::B),
            reason: Some("kiosk answers: exit 1".into()),
            evidence: Some("/state/roro/evidence/demo-1.2.0-1".into()),
            floor: None,
            checks: Vec::new(),
        }
    }

    #[test]
    fn a_page_has_all_that_was_kept_and_steers_no_terminal() {
        let check = Finding {
            check: "kiosk answers".into(),
            kind: "command".into(),
            state: Standing::Failed,
            why: Some("exit 1".into()),
            looks: 2,
            milliseconds: 12_345,
            output: Some("no kiosk".into()),
        };
        let journal = (1..=100).map(|n| format!("line {n}\n")).collect::<String>();
        let kept = Kept {
            reason: entry().reason,
            checks: vec![check],
            kernel: Some("Kernel panic \u{1b}[2J\n".into()),
            journal: Some(journal),
        };
        let text = page(&entry(), Some(&kept)).join("\n");
        assert!(
            text.contains("  failed     12.3 s  kiosk answers: exit 1\n             | no kiosk"),
            "{text}"
        );
        assert!(
            text.contains("newest 40 of 100 lines")
                && text.contains("line 61\n")
                && !text.contains("line 60\n")
        );
        assert!(text.contains("Kernel panic \u{fffd}[2J") && !text.contains('\u{1b}'), "{text}");
        assert_eq!(text.matches("kiosk answers: exit 1").count(), 2, "the reason is not said twice");
    }

    #[test]
    fn evidence_that_is_gone_is_said() {
        let text = page(&entry(), None).join("\n");
        assert!(text.contains("no longer kept"), "{text}");
    }
}
