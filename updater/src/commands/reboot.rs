//! `updater reboot`.

use super::{Context, Done, Exit, open_locked};
use crate::{
    device::{Device, NoWork, Purpose},
    engine::{Event, Rearm},
    error::{Error, Result},
    limits::MAX_SIMULATED_BOOTS,
    ports::AfterReboot,
    settle::settle,
};

/// Nothing to choose.
#[derive(Debug, clap::Args)]
pub struct Args {}

impl Args {
    /// Reboots. Without a machine to reboot the boot is played, and settled as a boot would be.
    pub fn run(self, context: &Context) -> Result<Exit> {
        let config = context.load()?;
        let (_lock, mut device) = open_locked(&config)?;
        let mut after = device.handle(Event::RebootRequested, &mut NoWork)?;
        for _ in 0..MAX_SIMULATED_BOOTS {
            match after {
                Some(AfterReboot::Simulated(_)) => {
                    device = Device::open(&config, Purpose::Act)?;
                    after = settle(&mut device, Rearm::Allowed)?;
                }
                Some(AfterReboot::GoingDown) => {
                    let done = Done::of("rebooting", &device, device.running());
                    context.say(&done, "rebooting");
                    return Ok(Exit::Done);
                }
                None => {
                    let done = Done::of("booted", &device, device.running());
                    context.say(&done, &format!("booted {} (simulated)", done.subject()));
                    return Ok(Exit::Done);
                }
            }
        }
        Err(Error::Bug { detail: "the simulated boots do not end" })
    }
}
