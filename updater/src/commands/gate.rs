//! `updater gate`, run by a unit on each trial boot; acts on a trial boot only.

use std::{sync::Arc, time::Duration};

use super::{Context, Done, Exit, patient_lock};
use crate::{
    config::Config,
    device::{Device, Purpose},
    engine::State,
    error::Result,
    evidence::Attempt,
    gate::{Finding, Keeper, Verdict, Wait, Watch, decide, examine},
    health::{Plan, look::Eye, plan_of_trial, rounds::Mode},
    limits::GATE_LOCK_ATTEMPTS,
    machine::{Machine, ThisMachine},
    notify::Manager,
    printer,
};

/// Nothing to choose.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Who hears how the gate gets on: the service manager, and the evidence.
struct Listeners<'a> {
    manager: &'a Manager,
    keeper: Option<&'a Keeper>,
}

impl Watch for Listeners<'_> {
    fn progress(&mut self, findings: &[Finding], words: &str) {
        self.manager.beat(words);
        if let Some(keeper) = self.keeper {
            keeper.tell(findings);
        }
    }
}

impl Args {
    /// Confirms or rejects a trial; quiet on any other boot.
    pub fn run(self, context: &Context) -> Result<Exit> {
        // First of all: a unit that waits for this word would call any earlier end a failure.
        let manager = Manager::from_environment();
        manager.ready();
        let config = context.load()?;
        let device = Device::open(&config, Purpose::Look)?;
        match device.engine().state() {
            State::Trial(_) | State::Healthy(_) => (),
            State::Idle
            | State::Confirmed
            | State::FellBack
            | State::Installing(_)
            | State::Installed(_)
            | State::Armed(_)
            | State::Rejected(_)
            | State::Unsettled(_) => return Ok(Exit::Done),
        }
        let machine: Arc<dyn Machine> = Arc::new(ThisMachine);
        let attempt = begin_evidence(&config, &device);
        let plan = plan_of_trial(&config, device.engine().sources_before());
        drop(device);
        let findings = watched(&config, plan, &machine, &manager, attempt.as_ref());
        manager.beat("deciding");
        // A person may be at work for a moment: what they decide counts. The checks are not made again meanwhile.
        let _lock = patient_lock(&config, GATE_LOCK_ATTEMPTS)?;
        manager.beat("deciding");
        let mut device = Device::open(&config, Purpose::Act)?;
        let bank = device.running();
        match decide(&mut device, &*machine, attempt.as_ref(), &findings)? {
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

/// Evidence that cannot be kept is said, and holds nothing up.
fn begin_evidence(config: &Config, device: &Device) -> Option<Attempt> {
    let bank = device.running();
    let release = device.record().banks.get(bank).release.as_ref();
    let begun = Attempt::begin(&config.state(), release, bank);
    begun.map_err(|error| printer::person(&format!("warning: {}", error.line()))).ok()
}

fn watched(
    config: &Config,
    plan: Result<Plan>,
    machine: &Arc<dyn Machine>,
    manager: &Manager,
    attempt: Option<&Attempt>,
) -> Vec<Finding> {
    let keeper = attempt.and_then(|attempt| Keeper::start(attempt.clone(), Arc::clone(machine)));
    let mut listeners = Listeners { manager, keeper: keeper.as_ref() };
    let eye = Arc::new(Eye::new(Arc::clone(machine), config));
    let wait = Wait::UntilUp(Duration::from_secs(config.gate_deadline_seconds));
    let mode = Mode::Until { soak: Duration::ZERO };
    let findings = examine(&eye, plan, wait, mode, &mut listeners);
    if let Some(keeper) = keeper {
        keeper.end();
    }
    findings
}
