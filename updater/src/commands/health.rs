//! `updater health`.

use super::{Context, Exit};
use crate::{
    error::Result,
    gate::{Wait, examine, healthy},
    machine::ThisMachine,
    printer::{self, Format},
};

/// Nothing to choose.
#[derive(Debug, clap::Args)]
pub struct Args {}

impl Args {
    /// Makes the checks now; nothing follows from them.
    pub fn run(self, context: &Context) -> Result<Exit> {
        let config = context.load()?;
        let findings = examine(&ThisMachine, Wait::No, &config.state_dir, &config.health_dirs);
        for finding in &findings {
            match context.format {
                Format::Json => printer::object(finding),
                Format::Text => match &finding.failed {
                    None => printer::data(&format!("good    {}", finding.check)),
                    Some(why) => printer::data(&format!("failed  {}: {why}", finding.check)),
                },
            }
        }
        healthy(&findings)?;
        Ok(Exit::Done)
    }
}
