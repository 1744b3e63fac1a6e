//! A machine on simulated storage, and the player of `boot_hooks::scenarios` on it.
//!
//! What is real: the rule and the ledger of the initrd, every backend of `bank_format::loader`, the agent with its engine, record,
//! install, settle and gate. What is a model: the loader ([`crate::loaders`]), the storage ([`crate::storage`]), the kernel and the
//! system of a release ([`image`]). Nothing waits: a watchdog bites at once, a pause is over when it begins.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::OnceLock,
    time::Duration,
};

use bank_format::{
    Bank, Release, TrustRoot,
    loader::Kind,
    record::{Loaded, Record, Store},
    release::Version,
};
use boot_hooks::scenarios::Moment;
use updater::{
    Device, Terms,
    config::Network,
    device::NoWork,
    engine::{Event, Rearm},
    evidence::Attempt,
    gate::{self, Finding, Verdict},
    ports::{AfterReboot, Silent},
    rollback::rollback,
    settle::settle_with_evidence,
    status::{Status, status},
};

use crate::{
    forge,
    loaders::{self, Board, Recovery, Start},
    storage::{Contents, Cut, Place, Storage, Writer},
};

pub mod exceptions;
mod factory;
mod hands;
pub mod image;
mod initrd;
pub mod play;
mod told;
mod wounds;

use hands::state_of;
use image::{Started, root_is_whole, started};
use initrd::End;

/// Starts of a boot loader until a machine must be quiet: three tries of a trial, six hopeless boots, and three redirects
/// in between are far fewer. More means that it spins.
pub const MAX_STARTS: u32 = 24;

/// The kernel's own store of last words, which these machines lack.
const NO_PSTORE: &str = "/nonexistent";

/// How a machine is when it is quiet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quiet {
    /// A system is up, settled, and judged.
    Up(Bank),
    /// The loader has nothing to start, and the console says so.
    Stopped,
    /// The initrd found that nothing boots, and the console says so.
    StoppedByInitrd,
    /// The recovery entry runs.
    Recovers,
    /// It is not: it has started [`MAX_STARTS`] times, and no end is in sight.
    Spins,
}

/// A machine.
pub struct Machine {
    kind: Kind,
    board: Board,
    tries: u32,
    /// Boots since the factory; names each.
    boots: u32,
    parameter: told::RebootParameter,
    running: Option<Bank>,
    /// How often the kernel of a release (its minor version) was started.
    pub kernel_starts: BTreeMap<u8, u32>,
    /// Starts of the boot loader since the last quiet moment.
    pub starts: u32,
    newest: Option<image::Release>,
    /// Moments of the deed that is to be cut, each with the deeds of the storage before it.
    moments: Vec<(Moment, usize)>,
    /// Whether the initrd has sent the loader to the recovery entry since the last quiet moment.
    pub asked_for_recovery: bool,
    /// Releases (by minor version) whose health gate has passed once; a factory disk's release needs none.
    pub gate_passed: BTreeSet<u8>,
    /// The gate passes of this log: which release, after how many deeds.
    passes: Vec<(u8, usize)>,
    /// Releases that ran without being on trial.
    pub ran_as_confirmed: BTreeSet<u8>,
    /// What happened, for a person who reads why a test failed.
    pub journal: Vec<String>,
}

/// A fault of the machine or of the stage, in words.
pub type Played<T> = Result<T, String>;

impl Machine {
    /// A factory disk in a machine that is off.
    pub fn factory(kind: Kind, tries: u32, recovery: Recovery) -> Played<Self> {
        let storage = Storage::of(factory::contents(kind)?);
        Ok(Self {
            kind,
            board: Board { storage, recovery, tryboot: false },
            tries,
            boots: 0,
            parameter: told::RebootParameter::default(),
            running: None,
            kernel_starts: BTreeMap::new(),
            starts: 0,
            newest: None,
            moments: Vec::new(),
            asked_for_recovery: false,
            gate_passed: BTreeSet::from([0]),
            passes: Vec::new(),
            ran_as_confirmed: BTreeSet::new(),
            journal: Vec::new(),
        })
    }

    /// The same machine, off, with these contents.
    #[must_use]
    pub fn with_contents(&self, contents: Contents) -> Self {
        Self {
            kind: self.kind,
            board: Board { storage: Storage::of(contents), recovery: self.board.recovery, tryboot: false },
            tries: self.tries,
            boots: self.boots,
            parameter: told::RebootParameter::default(),
            running: None,
            kernel_starts: self.kernel_starts.clone(),
            starts: 0,
            newest: self.newest,
            moments: Vec::new(),
            asked_for_recovery: false,
            gate_passed: self.gate_passed.clone(),
            passes: Vec::new(),
            ran_as_confirmed: self.ran_as_confirmed.clone(),
            journal: self.journal.clone(),
        }
    }

    /// The same machine, as it runs, on storage of its own.
    #[must_use]
    pub fn copy(&self) -> Self {
        let mut copy = self.with_contents(self.storage().contents());
        copy.running = self.running;
        copy.board.tryboot = self.board.tryboot;
        copy.parameter.0.set(self.parameter.0.get());
        copy
    }

    /// The power goes, and leaves this.
    pub fn lose_power(&mut self, contents: Contents) {
        *self = self.with_contents(contents);
    }

    /// A machine, off, with what another one had when its power went: what it knows of what was asked for and of gates that passed until then.
    #[must_use]
    pub fn after_cut_of(&self, begun: &Self, cut: &Cut, contents: Contents) -> Self {
        let mut machine = self.with_contents(contents);
        machine.newest = begun.newest;
        let passed = begun.passes.iter().filter(|(_, deeds)| *deeds <= cut.done).map(|(minor, _)| *minor);
        machine.gate_passed.extend(passed);
        machine
    }

    /// The same machine, still running, after a process that did what `begun` did was killed after so many deeds. The kernel has all of them.
    #[must_use]
    pub fn killed_after(&self, begun: &Self, deeds: usize) -> Self {
        let mut machine = self.copy();
        machine.newest = begun.newest;
        machine.board.storage = begun.storage().after_deeds(deeds);
        machine
    }

    /// The bank that the record calls confirmed.
    #[must_use]
    pub fn confirmed_on_record(&self) -> Bank {
        self.on_record().map_or(Bank::A, |record| record.confirmed)
    }

    /// The floor in the record.
    #[must_use]
    pub fn floor_on_record(&self) -> Option<Version> {
        self.on_record().and_then(|record| record.floor)
    }

    fn on_record(&self) -> Option<Record> {
        let medium = self.storage().medium(Place::Record, Writer::System);
        match Store::open(medium).ok()?.1 {
            Loaded::Record(record) => Some(*record),
            Loaded::Blank | Loaded::Lost(_) => None,
        }
    }

    /// The release that was asked for last is asked for once more.
    pub fn install_again(&mut self) -> Played<()> {
        let release = self.newest.ok_or("nothing was installed before")?;
        self.install_release(release)
    }

    /// Its storage.
    #[must_use]
    pub fn storage(&self) -> &Storage {
        &self.board.storage
    }

    /// The minor version of the release in a bank.
    #[must_use]
    pub fn minor_in(&self, bank: Bank) -> u8 {
        started(&self.board.storage, bank).release.minor
    }

    /// The newest release that was ever installed.
    #[must_use]
    pub fn newest_minor(&self) -> u8 {
        self.newest.map_or(0, |release| release.minor)
    }

    /// The bank that runs.
    #[must_use]
    pub fn running(&self) -> Option<Bank> {
        self.running
    }

    /// A moment begins, if it has not begun before.
    fn moment(&mut self, moment: Moment) {
        self.moment_after(moment, self.storage().deeds());
    }

    fn moment_after(&mut self, moment: Moment, deeds: usize) {
        if self.moments.iter().all(|(begun, _)| *begun != moment) {
            self.moments.push((moment, deeds));
        }
    }

    fn note(&mut self, words: String) {
        self.journal.push(words);
    }

    /// The plug is pulled, and what was written stays.
    pub fn cut_power(&mut self) {
        self.note("power cut".into());
        self.board.storage.begin_log();
        self.board.tryboot = false;
        self.running = None;
    }

    /// Runs until it is quiet.
    pub fn power_on(&mut self) -> Played<Quiet> {
        self.starts = 0;
        self.asked_for_recovery = false;
        self.running = None;
        while self.starts < MAX_STARTS {
            self.starts += 1;
            let start = loaders::start(self.kind, &mut self.board);
            self.note(format!("loader: {start:?}"));
            let end = match start {
                Start::Nothing => return Ok(Quiet::Stopped),
                Start::Recovery => return Ok(Quiet::Recovers),
                Start::Bank { bank, gave_up } => self.boot(bank, gave_up)?,
            };
            match end {
                End::Up => return self.running.map(Quiet::Up).ok_or_else(|| "a bug of the stage".into()),
                End::Reset => (),
                End::Stopped => return Ok(Quiet::StoppedByInitrd),
            }
            self.running = None;
            let left = self.board.storage.unflushed_by_system();
            if !left.is_empty() {
                self.suffer(format!("a reset with unflushed writes to {left:?}"))?;
            }
        }
        Ok(Quiet::Spins)
    }

    /// Whether a bank starts and can be read: what rot has taken stays in the record until somebody looks.
    #[must_use]
    pub fn is_whole(&self, bank: Bank) -> bool {
        let found = started(&self.board.storage, bank);
        self.board.loadable(bank)
            && found.kernel_lives
            && root_is_whole(&self.board.storage, bank, found.root)
    }

    /// Power comes, and goes again when the root is mounted, before the system has settled.
    pub fn dies_unsettled(&mut self) -> Played<()> {
        for _ in 0..MAX_STARTS {
            let Start::Bank { bank, gave_up } = loaders::start(self.kind, &mut self.board) else { break };
            let started = started(&self.board.storage, bank);
            if started.kernel_lives
                && matches!(self.initrd(bank, gave_up, &started)?, initrd::Passed::Root { .. })
            {
                self.cut_power();
                return Ok(());
            }
        }
        Err("no bank comes as far as its root".into())
    }

    fn boot(&mut self, bank: Bank, gave_up: Option<Bank>) -> Played<End> {
        self.boots += 1;
        self.parameter.0.set(false);
        let started = started(&self.board.storage, bank);
        *self.kernel_starts.entry(started.release.minor).or_default() += 1;
        if !self.board.loadable(bank) {
            self.note(format!(
                "the boot image of bank {bank} is none; whatever the loader does then ends in a reset"
            ));
            return Ok(End::Reset);
        }
        if !started.kernel_lives {
            self.note(format!("the kernel of bank {bank} panics"));
            return Ok(End::Reset);
        }
        let end = self.initrd(bank, gave_up, &started)?;
        let initrd::Passed::Root { trial } = end else {
            return Ok(match end {
                initrd::Passed::Ended(end) => end,
                initrd::Passed::Root { .. } => End::Up,
            });
        };
        if trial == initrd::Trial::Yes {
            self.moment(Moment::Judging);
        }
        self.system(bank, &started, trial)
    }

    /// From the switch into the root on.
    fn system(&mut self, bank: Bank, started: &Started, trial: initrd::Trial) -> Played<End> {
        use boot_hooks::scenarios::Image;
        let image = started.release.image;
        if image == Image::HangsEarly {
            self.note("hangs early; the watchdog resets".into());
            return Ok(End::Reset);
        }
        if !root_is_whole(&self.board.storage, bank, started.root) {
            self.note("reads a rotten block; the kernel panics".into());
            return Ok(End::Reset);
        }
        self.running = Some(bank);
        if trial == initrd::Trial::No {
            self.ran_as_confirmed.insert(started.release.minor);
        }
        match self.settle() {
            Ok(None) => (),
            Ok(Some(_)) => return self.go_down(),
            // The unit has failed, and nothing else happens: it is up. A trial is judged all the same.
            Err(why) => self.suffer(why)?,
        }
        match trial {
            initrd::Trial::No => return Ok(End::Up),
            initrd::Trial::Yes if image == Image::HangsLate => {
                self.note("hangs late; the watchdog resets".into());
                return Ok(End::Reset);
            }
            initrd::Trial::Yes => (),
        }
        let failed = (image == Image::Unhealthy).then(|| "exit code 1: no answer".to_owned());
        if failed.is_none() {
            self.gate_passed.insert(started.release.minor);
            self.passes.push((started.release.minor, self.storage().deeds()));
        }
        let verdict = match self.judge(failed) {
            Ok(verdict) => verdict,
            Err(why) => {
                self.suffer(why)?;
                self.note("the gate has failed; the system resets".into());
                self.running = None;
                return Ok(End::Reset);
            }
        };
        match verdict {
            Verdict::NoTrial | Verdict::Confirmed => Ok(End::Up),
            Verdict::Rejected { after: Some(AfterReboot::GoingDown | AfterReboot::Simulated(_)), .. } => {
                self.go_down()
            }
            Verdict::Rejected { after: None, .. } => Err("a rejected trial stays up".into()),
        }
    }

    fn settle(&mut self) -> Played<Option<AfterReboot>> {
        let mut device = self.agent(Vec::new())?;
        let before = device.engine().state();
        let state = state_of(self.storage());
        let after = settle_with_evidence(&mut device, Rearm::Allowed, &state, Path::new(NO_PSTORE))
            .map_err(|error| format!("settle: {}", error.line()))?;
        self.note(format!("settled from {before:?}: {:?}", device.engine().state()));
        Ok(after)
    }

    /// What must not fail in a machine whose storage is sound.
    fn suffer(&mut self, why: String) -> Played<()> {
        if !self.storage().is_sick() {
            return Err(why);
        }
        self.note(why);
        Ok(())
    }

    fn judge(&mut self, failed: Option<String>) -> Played<Verdict> {
        self.moment(Moment::Deciding);
        let mut device = self.agent(Vec::new())?;
        let bank = device.running();
        let release = device.record().banks.get(bank).release.clone();
        let attempt = Attempt::begin(&state_of(self.storage()), release.as_ref(), bank)
            .map_err(|error| format!("evidence: {}", error.line()))?;
        let findings = [Finding::of_step("kiosk answers", failed.map_or(Ok(()), Err), Duration::ZERO)];
        let verdict = gate::decide(&mut device, &hands::NoJournal, Some(&attempt), &findings)
            .map_err(|error| format!("gate: {}", error.line()))?;
        self.note(format!("gate: {verdict:?}"));
        self.moment(Moment::Decided);
        Ok(verdict)
    }

    /// An orderly shutdown and a reset.
    fn go_down(&mut self) -> Played<End> {
        let ending = |mut device: Device| {
            device.handle(Event::Ending, &mut NoWork).map_err(|error| format!("ending: {}", error.line()))
        };
        self.agent(Vec::new()).and_then(ending).map(drop).or_else(|why| self.suffer(why))?;
        self.board.tryboot = self.parameter.0.take();
        self.note("goes down in order".into());
        self.running = None;
        Ok(End::Reset)
    }

    /// The agent reboots; runs until it is quiet.
    pub fn reboot(&mut self) -> Played<Quiet> {
        let mut device = self.agent(Vec::new())?;
        let after = device
            .handle(Event::RebootRequested, &mut NoWork)
            .map_err(|error| format!("reboot: {}", error.line()))?;
        if after != Some(AfterReboot::GoingDown) {
            return Err("the machine does not go down".into());
        }
        self.go_down()?;
        self.power_on()
    }

    /// The agent installs a release of this behaviour, newer than all before, and arms it.
    pub fn install(&mut self, image: boot_hooks::scenarios::Image) -> Played<()> {
        self.install_release(image::Release { image, minor: self.newest_minor() + 1 })
    }

    /// The agent installs this release, and arms it.
    pub fn install_release(&mut self, release: image::Release) -> Played<()> {
        self.newest = Some(release);
        self.note(format!("installs {} {:?}", release.version(), release.image));
        static TRUST: OnceLock<Result<TrustRoot, String>> = OnceLock::new();
        let made = || TrustRoot::from_trusted(&forge::root(1, 1)).map_err(|error| error.to_string());
        let trust = TRUST.get_or_init(made).clone()?;
        let network = Network::default();
        let terms = Terms { compatible: "test,any".into(), trust, network };
        let mut device = self.agent(release.bundle())?;
        match updater::install(&mut device, &terms, "http://server/bundle.roro", &mut Silent) {
            Ok(_) | Err(updater::Error::NothingToDo { .. }) => (),
            Err(error) => return Err(format!("install: {}", error.line())),
        }
        let bank = self.running.map(|bank| !bank).ok_or("no system runs")?;
        let written = self.storage().deeds_until_flushed(&[Place::Boot(bank), Place::Root(bank)]);
        self.moment_after(Moment::Arming, written);
        self.moment(Moment::Armed);
        Ok(())
    }

    /// The agent is asked for the other bank.
    pub fn roll_back(&mut self) -> Played<()> {
        let mut device = self.agent(Vec::new())?;
        let done =
            rollback(&mut device, &mut Silent).map_err(|error| format!("rollback: {}", error.line()))?;
        self.note(format!("rollback: {done:?}"));
        Ok(())
    }

    /// What `updater status` says.
    pub fn status(&self) -> Played<Status> {
        status(&self.agent(Vec::new())?).map_err(|error| format!("status: {}", error.line()))
    }

    fn agent(&self, bundle: Vec<u8>) -> Played<Device> {
        let running = self.running.ok_or("no system runs")?;
        let release = started(&self.board.storage, running).release;
        hands::agent(hands::Circumstances {
            storage: self.board.storage.clone(),
            running,
            release: Release { name: "demo".into(), version: release.version() },
            boot_id: format!("boot-{}", self.boots),
            tries: self.tries,
            loader: told::Told::new(self.kind, &self.board.storage, &self.parameter)?,
            bundle,
        })
    }
}
