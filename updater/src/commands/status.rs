//! `updater status`.

use super::{Context, Exit};
use crate::{
    device::{Device, Purpose},
    error::Result,
    status::{of_machine, status},
};

/// Nothing to choose.
#[derive(Debug, clap::Args)]
pub struct Args {}

impl Args {
    /// Looks, and changes nothing.
    pub fn run(self, context: &Context) -> Result<Exit> {
        let config = context.load()?;
        let device = Device::open(&config, Purpose::Look)?;
        let mut status = status(&device)?.with_health(&device, &config.state());
        status.warnings.extend(of_machine(&config.run_dir));
        context.say(&status, &status.lines().join("\n"));
        Ok(Exit::Done)
    }
}
