//! `updater settle`, run by a unit early in each boot.

use super::{Context, Done, Exit, open_locked};
use crate::{
    engine::{Rearm, State},
    error::Result,
    ports::AfterReboot,
    settle::settle,
};

/// Nothing to choose.
#[derive(Debug, clap::Args)]
pub struct Args {}

impl Args {
    /// Settles this boot.
    pub fn run(self, context: &Context) -> Result<Exit> {
        let config = context.load()?;
        let (_lock, mut device) = open_locked(&config)?;
        let before = device.engine().state();
        let after = settle(&mut device, Rearm::Allowed)?;
        let result = match (before, after) {
            (_, Some(AfterReboot::GoingDown | AfterReboot::Simulated(_))) => "rebooting",
            (State::Unsettled(_) | State::Armed(_), None) => device.engine().state().word(),
            (State::Healthy(_), None) => "confirmed",
            (State::Trial(_), None) => "on-trial",
            (_, None) => "settled",
        };
        let mut done = Done::of(result, &device, device.running());
        done.reason = device.record().last_result.as_ref().and_then(|last| last.reason.clone());
        context.say(&done, &format!("{result}: {} runs", done.subject()));
        Ok(Exit::Done)
    }
}
