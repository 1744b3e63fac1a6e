//! `updater settle`, run by a unit early in each boot.

use std::path::Path;

use super::{Context, Done, Exit, open_locked, patient_lock};
use crate::{
    config::Config,
    device::{Device, NoWork, Purpose},
    engine::{Event, Rearm, State},
    error::Result,
    evidence::pstore,
    limits::ENDING_LOCK_ATTEMPTS,
    ports::AfterReboot,
    settle::settle_with_evidence,
    table,
};

/// Which end of the boot.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The machine goes down in order: the next boot need not look for damage
    #[arg(long)]
    ending: bool,
}

impl Args {
    /// Settles this boot.
    pub fn run(self, context: &Context) -> Result<Exit> {
        let config = context.load()?;
        if self.ending {
            return end(&config);
        }
        let (_lock, mut device) = open_locked(&config)?;
        let before = device.engine().state();
        let pstore = Path::new(pstore::DIRECTORY);
        let after = settle_with_evidence(&mut device, Rearm::Allowed, &config.state(), pstore)?;
        // Where the confirmed bank stands, the disk has proven itself.
        if after.is_none() && device.running() == device.record().confirmed {
            table::look_after(&config.record);
        }
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

/// Quiet: nobody reads it any more.
fn end(config: &Config) -> Result<Exit> {
    // Whoever asked for the reboot may still hold the lock.
    let _lock = patient_lock(config, ENDING_LOCK_ATTEMPTS)?;
    Device::open(config, Purpose::Act)?.handle(Event::Ending, &mut NoWork)?;
    Ok(Exit::Done)
}
