//! `updater history`.

use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{Context, Exit};
use crate::{
    error::Result,
    history::{Entry, HistoryFile, HistoryLog},
    printer::{self, Format},
};

/// What to show.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only the newest entries
    #[arg(long, value_name = "COUNT")]
    last: Option<usize>,
}

impl Args {
    /// Prints the entries, oldest first.
    pub fn run(self, context: &Context) -> Result<Exit> {
        let config = context.load()?;
        let entries = HistoryFile::in_directory(&config.state_dir).entries()?;
        let skip = self.last.map_or(0, |last| entries.len().saturating_sub(last));
        for entry in entries.iter().skip(skip) {
            match context.format {
                Format::Json => printer::object(entry),
                Format::Text => printer::data(&line(entry)),
            }
        }
        Ok(Exit::Done)
    }
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
