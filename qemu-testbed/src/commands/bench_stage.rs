//! `bench-stage`: the small process that the benchmark puts between itself and what it measures.

use std::{path::PathBuf, process::ExitCode};

use crate::{bench::measure, error::Result};

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
        let code = status.code().and_then(|code| u8::try_from(code).ok());
        Ok(ExitCode::from(code.unwrap_or(1)))
    }
}
