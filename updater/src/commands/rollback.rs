//! `updater rollback`.

use super::{Context, Done, Exit, open_locked};
use crate::{
    error::Result,
    progress::watcher,
    rollback::{RolledBack, rollback},
};

/// Nothing to choose.
#[derive(Debug, clap::Args)]
pub struct Args {}

impl Args {
    /// Goes back by the way that fits.
    pub fn run(self, context: &Context) -> Result<Exit> {
        let config = context.load()?;
        let (_lock, mut device) = open_locked(&config)?;
        let mut progress = watcher(context.format);
        let (result, bank, text) = match rollback(&mut device, progress.as_mut())? {
            RolledBack::Cancelled(bank) => ("cancelled", bank, "withdrew"),
            RolledBack::Rejected(bank) => ("rejected", bank, "rejected; reboot to go back (updater reboot):"),
            RolledBack::Armed(bank) => ("armed", bank, "reboot to go back (updater reboot) to"),
        };
        let done = Done::of(result, &device, bank);
        context.say(&done, &format!("{text} {}", done.subject()));
        Ok(Exit::Done)
    }
}
