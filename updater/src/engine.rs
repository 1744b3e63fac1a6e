//! The mind of the agent: a state machine over the record. It decides; it touches nothing and knows no clock.
//!
//! [`Engine::handle`] changes the record in memory and returns the deeds, in their order. A deed that fails ends the
//! process: the next one starts from what is on stable storage. Order of deeds: `docs/architecture.md`.

mod boots;
mod event;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use bank_format::{
    Bank,
    barrier::{Barrier, holds},
    record::{
        BankRecord, BankState, ImageProof, Intent, LastResult, Outcome, Purpose, Record, Trial, TrialPhase,
        reason_line,
    },
    release::floor_after_confirm,
};
use serde_json::Value;

pub use event::{Action, Event, IllegalTransition, Offer, Rearm, State};

use crate::history::{Entry, Happening};

/// Reason of a fallback that left no word behind.
pub const NO_WORD: &str = "the trial boot ended without a word (panic, hang or power loss)";
/// Times the boot loader was sent to the bank, in [`Trial::extra`]. A kernel that dies before it can count its attempt is counted by this.
const SENT: &str = "sent";
/// The boot during which the trial was armed, in [`Trial::extra`].
const ARMED_IN: &str = "armed_in_boot";
/// Evidence of the newest attempt, in [`Trial::extra`].
const EVIDENCE: &str = "evidence";
/// Whether the confirmed release had update sources, in [`Record::extra`]. Absent: no, or an older agent.
const HAD_SOURCES: &str = "had_sources";
/// Why its kernel died, by the kernel's own word, in [`Trial::extra`].
const LAST_WORD: &str = "last_word";

/// Whether the record in memory is on stable storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// It was read.
    Stored,
    /// There was none: made from what runs.
    Founded,
    /// It was lost: made from what runs and what the history knows.
    Rebuilt,
}

/// Whether the release that runs knows where updates come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sources {
    /// At least one `[[source]]` is configured.
    Configured,
    /// None is.
    None,
}

/// The state machine.
#[derive(Debug, Clone)]
pub struct Engine {
    sources: Option<Sources>,
    record: Record,
    origin: Origin,
    running: Bank,
    tries: u32,
}

impl Engine {
    /// An engine for the bank that runs; a trial gets at most `tries` boots.
    #[must_use]
    pub fn new(record: Record, origin: Origin, running: Bank, tries: u32) -> Self {
        Self { sources: None, record, origin, running, tries: tries.max(1) }
    }

    /// The same, and the record shall say of what is confirmed whether it had sources.
    #[must_use]
    pub fn with_sources(self, sources: Sources) -> Self {
        Self { sources: Some(sources), ..self }
    }

    /// Whether the confirmed release had sources, as it said itself.
    #[must_use]
    pub fn sources_before(&self) -> Sources {
        match self.record.extra.get(HAD_SOURCES) {
            Some(Value::Bool(true)) => Sources::Configured,
            Some(_) | None => Sources::None,
        }
    }

    /// What runs is confirmed, or is being confirmed: its word counts from now on.
    fn remember_sources(&mut self) {
        match self.sources {
            Some(Sources::Configured) => {
                self.record.extra.insert(HAD_SOURCES.into(), Value::Bool(true));
            }
            Some(Sources::None) => {
                self.record.extra.remove(HAD_SOURCES);
            }
            None => (),
        }
    }

    /// What is known.
    #[must_use]
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// Where the record came from.
    #[must_use]
    pub fn origin(&self) -> Origin {
        self.origin
    }

    /// The bank that runs.
    #[must_use]
    pub fn running(&self) -> Bank {
        self.running
    }

    /// Where the device stands.
    #[must_use]
    pub fn state(&self) -> State {
        if let Some(trial) = &self.record.trial {
            let bank = trial.bank;
            return match (bank == self.running, trial.phase) {
                (true, TrialPhase::Armed | TrialPhase::Started) => State::Trial(bank),
                (true, TrialPhase::Healthy) => State::Healthy(bank),
                (true, TrialPhase::Failed) => State::Rejected(bank),
                (false, TrialPhase::Armed) => State::Armed(bank),
                (false, TrialPhase::Started | TrialPhase::Healthy | TrialPhase::Failed) => {
                    State::Unsettled(bank)
                }
            };
        }
        if let Some(intent) = &self.record.interrupted {
            return match self.record.banks.get(intent.bank).state {
                BankState::Written => State::Installed(intent.bank),
                BankState::Empty | BankState::Writing | BankState::Confirmed | BankState::Failed => {
                    State::Installing(intent.bank)
                }
            };
        }
        match self.record.last_result.as_ref().map(|last| last.outcome) {
            Some(Outcome::Confirmed) => State::Confirmed,
            Some(Outcome::FellBack) => State::FellBack,
            Some(Outcome::Cancelled | Outcome::BankLost | Outcome::RecordRebuilt) | None => State::Idle,
        }
    }

    /// Takes the event at `now` (seconds since 1970), and returns the deeds it asks for.
    pub fn handle(&mut self, event: Event, now: i64) -> Result<Vec<Action>, IllegalTransition> {
        let state = self.state();
        let word = event.word();
        let illegal = || Err(IllegalTransition { state, event: word });
        match event {
            Event::BeginInstall(offer) => match state {
                State::Idle
                | State::Confirmed
                | State::FellBack
                | State::Installing(_)
                | State::Installed(_)
                | State::Armed(_)
                | State::Unsettled(_)
                    if self.stands_on_confirmed() =>
                {
                    Ok(self.begin_install(state, offer, now))
                }
                State::Idle
                | State::Confirmed
                | State::FellBack
                | State::Installing(_)
                | State::Installed(_)
                | State::Armed(_)
                | State::Unsettled(_) => illegal(),
                State::Trial(_) | State::Healthy(_) | State::Rejected(_) => illegal(),
            },
            Event::Written(images) => match state {
                State::Installing(bank) => Ok(self.written(bank, images)),
                State::Idle
                | State::Confirmed
                | State::FellBack
                | State::Installed(_)
                | State::Armed(_)
                | State::Trial(_)
                | State::Healthy(_)
                | State::Rejected(_)
                | State::Unsettled(_) => illegal(),
            },
            Event::Arm { boot_id } => match state {
                State::Installed(bank) => Ok(self.arm(bank, Purpose::Update, boot_id, now)),
                State::Armed(bank) => Ok(vec![Action::SetTrial(bank)]),
                State::Idle
                | State::Confirmed
                | State::FellBack
                | State::Installing(_)
                | State::Trial(_)
                | State::Healthy(_)
                | State::Rejected(_)
                | State::Unsettled(_) => illegal(),
            },
            Event::RebootRequested => Ok(self.reboot(state)),
            Event::Booted { boot_id, rearm } => Ok(self.booted(state, &boot_id, rearm, now)),
            Event::Confirm => match state {
                State::Trial(bank) | State::Healthy(bank) => Ok(self.confirm(state, bank, now)),
                State::Idle
                | State::Confirmed
                | State::FellBack
                | State::Installing(_)
                | State::Installed(_)
                | State::Armed(_)
                | State::Rejected(_)
                | State::Unsettled(_) => illegal(),
            },
            Event::GateFailed { reason, evidence } => match state {
                State::Trial(bank) => {
                    let mut actions = self.reject(bank, &reason, evidence, now);
                    actions.push(Action::Reboot);
                    Ok(actions)
                }
                State::Idle
                | State::Confirmed
                | State::FellBack
                | State::Installing(_)
                | State::Installed(_)
                | State::Armed(_)
                | State::Healthy(_)
                | State::Rejected(_)
                | State::Unsettled(_) => illegal(),
            },
            Event::Reject { reason } => match state {
                State::Trial(bank) | State::Healthy(bank) => Ok(self.reject(bank, &reason, None, now)),
                State::Idle
                | State::Confirmed
                | State::FellBack
                | State::Installing(_)
                | State::Installed(_)
                | State::Armed(_)
                | State::Rejected(_)
                | State::Unsettled(_) => illegal(),
            },
            Event::Ending => Ok(self.ending()),
            Event::Cancel => match state {
                State::Installing(bank) | State::Installed(bank) | State::Armed(bank) => {
                    Ok(self.cancel(bank, now))
                }
                State::Idle
                | State::Confirmed
                | State::FellBack
                | State::Trial(_)
                | State::Healthy(_)
                | State::Rejected(_)
                | State::Unsettled(_) => illegal(),
            },
            Event::BeginRollback => match state {
                State::Idle | State::Confirmed | State::FellBack if self.has_way_back() => {
                    Ok(vec![Action::ReadBack(!self.running)])
                }
                State::Idle
                | State::Confirmed
                | State::FellBack
                | State::Installing(_)
                | State::Installed(_)
                | State::Armed(_)
                | State::Trial(_)
                | State::Healthy(_)
                | State::Rejected(_)
                | State::Unsettled(_) => illegal(),
            },
            Event::RollbackProven { boot_id } => match state {
                State::Idle | State::Confirmed | State::FellBack if self.has_way_back() => {
                    Ok(self.arm(!self.running, Purpose::Rollback, boot_id, now))
                }
                State::Idle
                | State::Confirmed
                | State::FellBack
                | State::Installing(_)
                | State::Installed(_)
                | State::Armed(_)
                | State::Trial(_)
                | State::Healthy(_)
                | State::Rejected(_)
                | State::Unsettled(_) => illegal(),
            },
        }
    }

    /// The passive bank may only be given up while the confirmed one runs.
    fn stands_on_confirmed(&self) -> bool {
        self.record.confirmed == self.running
    }

    fn has_way_back(&self) -> bool {
        self.stands_on_confirmed() && self.record.banks.get(!self.running).state == BankState::Confirmed
    }

    fn begin_install(&mut self, state: State, offer: Offer, now: i64) -> Vec<Action> {
        let mut actions = Vec::new();
        if let State::Unsettled(bank) = state {
            actions.push(self.fall_back(bank, now));
        }
        let bank = !self.running;
        self.record.trial = None;
        *self.record.banks.get_mut(bank) = BankRecord {
            state: BankState::Writing,
            release: Some(offer.release.clone()),
            manifest: Some(offer.manifest),
            floor: offer.floor,
            images: BTreeMap::new(),
            does_not_start: false,
            extra: BTreeMap::new(),
        };
        self.record.interrupted = Some(Intent { deed: "install".into(), release: offer.release, bank });
        // Bad on record before the bank is touched: whoever boots meanwhile knows that it is no system.
        // And the loader knows before it is touched: a trial is withdrawn, and the bank is no spare any more.
        actions.splice(0..0, [self.commit(), self.set_default(self.running)]);
        if self.origin == Origin::Rebuilt {
            actions.push(Action::History(self.entry(Happening::RecordRebuilt, self.running, now)));
        }
        actions.push(Action::History(self.entry(Happening::InstallStarted, bank, now)));
        actions.extend([Action::WipeBoot(bank), Action::WriteImages(bank), Action::ReadBack(bank)]);
        if !holds(Barrier::IntentBeforeBank) {
            let late = actions.remove(0);
            actions.push(late);
        }
        actions
    }

    fn written(&mut self, bank: Bank, images: BTreeMap<String, ImageProof>) -> Vec<Action> {
        let record = self.record.banks.get_mut(bank);
        record.state = BankState::Written;
        record.images = images;
        vec![self.commit()]
    }

    fn arm(&mut self, bank: Bank, purpose: Purpose, boot_id: String, now: i64) -> Vec<Action> {
        let extra =
            BTreeMap::from([(SENT.to_owned(), Value::from(0)), (ARMED_IN.to_owned(), Value::from(boot_id))]);
        self.record.trial = Some(Trial {
            bank,
            phase: TrialPhase::Armed,
            purpose,
            tries_left: self.tries,
            tries_made: 0,
            reason: None,
            extra,
        });
        self.record.interrupted = None;
        // The loader is told last: when it acts, everything that it leads to is on stable storage.
        vec![self.commit(), Action::History(self.entry(Happening::Armed, bank, now)), Action::SetTrial(bank)]
    }

    fn reboot(&mut self, state: State) -> Vec<Action> {
        match state {
            State::Armed(bank) => {
                self.count_sent();
                vec![self.commit(), Action::SetTrial(bank), Action::Reboot]
            }
            State::Idle
            | State::Confirmed
            | State::FellBack
            | State::Installing(_)
            | State::Installed(_)
            | State::Trial(_)
            | State::Healthy(_)
            | State::Rejected(_)
            | State::Unsettled(_) => vec![Action::Reboot],
        }
    }

    fn confirm(&mut self, state: State, bank: Bank, now: i64) -> Vec<Action> {
        let mut actions = Vec::new();
        if let (State::Trial(_), Some(trial)) = (state, self.record.trial.as_mut()) {
            trial.phase = TrialPhase::Healthy;
            // Without it a power cut between here and the last commit would make a healthy release fall back.
            actions.push(self.commit());
        }
        // The loader before the record: a confirmed bank that the loader does not start would be redirected to for nothing.
        let told = actions.len();
        let other = self.record.banks.get(!bank);
        let other = (other.state == BankState::Confirmed).then(|| other.release.clone()).flatten();
        let here = self.record.banks.get_mut(bank);
        here.state = BankState::Confirmed;
        let release = here.release.clone();
        if let Some(release) = &release {
            self.record.floor = Some(floor_after_confirm(
                self.record.floor.as_ref(),
                &release.version,
                other.as_ref().map(|other| &other.version),
                here.floor.as_ref(),
            ));
        }
        let other = self.record.banks.get(!bank).state;
        if other == BankState::Confirmed && !self.record.may_take_over(!bank) {
            // A release that raises the floor above the other bank has no spare: nothing may lead back below it.
            self.record.banks.get_mut(!bank).state = BankState::Failed;
        }
        self.record.confirmed = bank;
        if bank == self.running {
            self.remember_sources();
        }
        self.record.trial = None;
        self.record.interrupted = None;
        self.record.settle();
        self.record.last_result =
            Some(LastResult { outcome: Outcome::Confirmed, release, reason: None, evidence: None });
        actions.insert(told, self.set_default(bank));
        actions.push(self.commit());
        actions.push(Action::History(self.entry(Happening::Confirmed, bank, now)));
        actions
    }

    fn reject(&mut self, bank: Bank, reason: &str, evidence: Option<String>, now: i64) -> Vec<Action> {
        if let Some(trial) = self.record.trial.as_mut() {
            trial.phase = TrialPhase::Failed;
            trial.reason = Some(reason_line(reason));
            if let Some(evidence) = &evidence {
                trial.extra.insert(EVIDENCE.into(), Value::from(evidence.as_str()));
            }
        }
        self.record.banks.get_mut(bank).state = BankState::Failed;
        let mut entry = self.entry(Happening::Rejected, bank, now);
        entry.reason = Some(reason_line(reason));
        entry.evidence = evidence;
        vec![self.commit(), Action::History(entry)]
    }

    fn cancel(&mut self, bank: Bank, now: i64) -> Vec<Action> {
        self.record.trial = None;
        self.record.interrupted = None;
        let here = self.record.banks.get_mut(bank);
        match here.state {
            // Nothing in it is to boot any more: it is closed.
            BankState::Writing | BankState::Written => here.state = BankState::Empty,
            BankState::Empty | BankState::Confirmed | BankState::Failed => (),
        }
        let release = here.release.clone();
        self.record.last_result =
            Some(LastResult { outcome: Outcome::Cancelled, release, reason: None, evidence: None });
        // The record first: should the power go before the loader knows, the initrd of the bank sends us back.
        let entry = self.entry(Happening::Cancelled, bank, now);
        vec![self.commit(), self.set_default(self.record.confirmed), Action::History(entry)]
    }

    /// The spare follows from the record as it is once all deeds are done: only what was confirmed may take over unasked.
    fn set_default(&self, first: Bank) -> Action {
        Action::SetDefault(first, self.record.as_spare(!first))
    }

    fn commit(&self) -> Action {
        Action::Commit(Box::new(self.record.clone()))
    }

    fn entry(&self, event: Happening, bank: Bank, now: i64) -> Entry {
        Entry {
            unix_seconds: now,
            event,
            release: self.record.banks.get(bank).release.clone(),
            bank: Some(bank),
            reason: None,
            evidence: None,
            floor: self.record.floor.clone(),
            checks: Vec::new(),
        }
    }

    fn phase(&self) -> Option<TrialPhase> {
        self.record.trial.as_ref().map(|trial| trial.phase)
    }

    fn extra(&self, key: &str) -> Option<&Value> {
        self.record.trial.as_ref().and_then(|trial| trial.extra.get(key))
    }
}
