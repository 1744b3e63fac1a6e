//! `updater confirm`.

use bank_format::Bank;

use super::{Context, Done, Exit, open_locked};
use crate::{
    device::{Device, NoWork},
    engine::{Event, State},
    error::{Error, Refusal, Result},
};

/// Nothing to choose.
#[derive(Debug, clap::Args)]
pub struct Args {}

impl Args {
    /// Confirms by hand what the health gate would confirm.
    pub fn run(self, context: &Context) -> Result<Exit> {
        let config = context.load()?;
        let (_lock, mut device) = open_locked(&config)?;
        let bank = on_trial(&device)?;
        device.handle(Event::Confirm, &mut NoWork)?;
        let done = Done::of("confirmed", &device, bank);
        context.say(&done, &format!("confirmed {}", done.subject()));
        Ok(Exit::Done)
    }
}

fn on_trial(device: &Device) -> Result<Bank> {
    let nothing = |detail: String| Err(Error::NothingToDo { detail });
    match device.engine().state() {
        State::Trial(bank) | State::Healthy(bank) => Ok(bank),
        State::Rejected(bank) => {
            let trial = device.record().trial.as_ref();
            let reason = trial.and_then(|trial| trial.reason.clone()).unwrap_or_default();
            Err(Error::Refused(Refusal::TrialRejected { bank, reason }))
        }
        State::Armed(bank) => nothing(format!("bank {bank} was not booted yet: updater reboot")),
        State::Idle
        | State::Confirmed
        | State::FellBack
        | State::Installing(_)
        | State::Installed(_)
        | State::Unsettled(_) => nothing("nothing is on trial".into()),
    }
}
