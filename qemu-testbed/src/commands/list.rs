//! `list`: the scenarios, one line each.

use crate::{error::Result, printer, scenarios};

#[derive(Debug, clap::Args)]
pub(super) struct Args {}

impl Args {
    pub(super) fn run(self) -> Result<()> {
        let width = scenarios::ALL.iter().map(|scenario| scenario.name.len()).max().unwrap_or(0);
        for scenario in scenarios::ALL {
            printer::say(format_args!("{:<width$}  {}", scenario.name, scenario.shows));
        }
        Ok(())
    }
}
