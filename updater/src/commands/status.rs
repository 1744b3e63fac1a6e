//! `updater status`.

use super::{Context, Exit};
use crate::{
    device::{Device, Purpose},
    error::Result,
    status::status,
};

/// Nothing to choose.
#[derive(Debug, clap::Args)]
pub struct Args {}

impl Args {
    /// Looks, and changes nothing.
    pub fn run(self, context: &Context) -> Result<Exit> {
        let config = context.load()?;
        let device = Device::open(&config, Purpose::Look)?;
        let status = status(&device)?;
        context.say(&status, &status.lines().join("\n"));
        Ok(Exit::Done)
    }
}
