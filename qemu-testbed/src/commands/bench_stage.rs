//! `bench-stage`: the small process that the benchmark puts between itself and what it measures.

use std::{os::unix::process::ExitStatusExt, path::PathBuf, process::ExitCode};

use crate::{
    bench::measure::{self, SIGNAL},
    error::Result,
};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Where it notes what the command used
    #[arg(long)]
    note: PathBuf,
    /// The control group that it joins
    #[arg(long)]
    group: Option<PathBuf>,
    /// The command
    #[arg(last = true, required = true)]
    words: Vec<String>,
}

impl Args {
    /// Ends as the command has ended.
    pub(super) fn run(self) -> Result<ExitCode> {
        let status = measure::stage(&self.words, &self.note, self.group.as_deref())?;
        // As a shell tells a signal.
        let code = status.code().or_else(|| status.signal().map(|signal| signal.saturating_add(SIGNAL)));
        Ok(ExitCode::from(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)))
    }
}
