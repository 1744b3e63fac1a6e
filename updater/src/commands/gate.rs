//! `updater gate`, run by a unit on each boot; acts on a trial boot only.

use std::time::Duration;

use super::{Context, Done, Exit, patient_lock};
use crate::{
    device::{Device, Purpose},
    engine::State,
    error::Result,
    gate::{Verdict, Wait, decide, examine},
    machine::ThisMachine,
    printer,
};

/// How often the gate asks for the lock before it gives up, a second apart.
const LOCK_ATTEMPTS: u32 = 60;

/// Nothing to choose.
#[derive(Debug, clap::Args)]
pub struct Args {}

impl Args {
    /// Confirms or rejects a trial; quiet on any other boot.
    pub fn run(self, context: &Context) -> Result<Exit> {
        let config = context.load()?;
        let device = Device::open(&config, Purpose::Look)?;
        match device.engine().state() {
            State::Trial(_) | State::Healthy(_) => drop(device),
            State::Idle
            | State::Confirmed
            | State::FellBack
            | State::Installing(_)
            | State::Installed(_)
            | State::Armed(_)
            | State::Rejected(_)
            | State::Unsettled(_) => return Ok(Exit::Done),
        }
        let wait = Wait::UntilUp(Duration::from_secs(config.gate_deadline_seconds));
        let findings = examine(&ThisMachine, wait, &config.state_dir, &config.health_dirs);
        // A person may be at work for a moment: their word counts, and then the gate looks again.
        let _lock = patient_lock(&config, LOCK_ATTEMPTS)?;
        let mut device = Device::open(&config, Purpose::Act)?;
        let bank = device.running();
        match decide(&mut device, &ThisMachine, &config.state_dir, &findings)? {
            Verdict::NoTrial => Ok(Exit::Done),
            Verdict::Confirmed => {
                let done = Done::of("confirmed", &device, bank);
                context.say(&done, &format!("healthy: confirmed {}", done.subject()));
                Ok(Exit::Done)
            }
            Verdict::Rejected { reason, .. } => {
                let mut done = Done::of("rejected", &device, bank);
                printer::person(&format!("not healthy: {reason}"));
                done.reason = Some(reason);
                context.say(&done, &format!("rejected {}, rebooting", done.subject()));
                Ok(Exit::Done)
            }
        }
    }
}
