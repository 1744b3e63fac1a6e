//! `run`: plays the scenarios that are named, or all.

use std::time::Instant;

use crate::{
    error::{Error, Result},
    printer, scenarios,
    stage::seconds,
};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Scenarios as named by `list`; all when none is given
    #[arg(value_name = "SCENARIO")]
    names: Vec<String>,
}

impl Args {
    pub(super) fn run(self) -> Result<()> {
        let chosen = if self.names.is_empty() {
            scenarios::ALL.iter().collect()
        } else {
            self.names.iter().map(|name| scenarios::by_name(name)).collect::<Result<Vec<_>>>()?
        };
        let mut failed = 0_usize;
        for scenario in &chosen {
            printer::say(format_args!("--- {}", scenario.name));
            let started = Instant::now();
            let outcome = scenario.play();
            let word = if outcome.is_ok() { "passed" } else { "FAILED" };
            if let Err(error) = &outcome {
                failed = failed.saturating_add(1);
                printer::complain_of(error);
            }
            printer::say(format_args!("--- {} {word} after {}", scenario.name, seconds(started.elapsed())));
        }
        match failed {
            0 => Ok(()),
            failed => Err(Error::ScenariosFailed { failed, total: chosen.len() }),
        }
    }
}
