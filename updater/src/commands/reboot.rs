//! `updater reboot`.

use super::{Context, Done, Exit, open_locked};
use crate::{
    config::Config,
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
        match reboot_and_settle(&config, &mut device)? {
            AfterReboot::GoingDown => {
                let done = Done::of("rebooting", &device, device.running());
                context.say(&done, "rebooting");
            }
            AfterReboot::Simulated(bank) => {
                let done = Done::of("booted", &device, bank);
                context.say(&done, &format!("booted {} (simulated)", done.subject()));
            }
        }
        Ok(Exit::Done)
    }
}

/// Reboots; a simulated machine is settled and booted until it stands, and `device` is the device of that last boot.
pub fn reboot_and_settle(config: &Config, device: &mut Device) -> Result<AfterReboot> {
    let mut after = device.handle(Event::RebootRequested, &mut NoWork)?;
    for _ in 0..MAX_SIMULATED_BOOTS {
        match after {
            Some(AfterReboot::Simulated(_)) => {
                *device = Device::open(config, Purpose::Act)?;
                after = settle(device, Rearm::Allowed)?;
            }
            Some(AfterReboot::GoingDown) => return Ok(AfterReboot::GoingDown),
            None => return Ok(AfterReboot::Simulated(device.running())),
        }
    }
    Err(Error::Bug { detail: "the simulated boots do not end" })
}
