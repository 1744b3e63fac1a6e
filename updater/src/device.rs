//! The device: the engine and its hands. Carries out what the engine asks for, in its order, and stops at the first failure; only the
//! history may fail.

use std::{io, path::Path, rc::Rc};

use bank_format::{
    Bank, Release,
    record::{Loaded, RECORD_BYTES, Record, Store, StoreError},
    release::ReleaseFile,
};

use crate::{
    bank::{PassiveBank, Staged},
    boot::{self, FileBoot, ProgramReboot, SimulatedReboot},
    clock::SystemClock,
    config::{Backend, Config, read_small},
    disk::PathDisk,
    engine::{Action, Engine, Event, Origin, Sources},
    error::{Error, Result, file},
    evidence::Witness,
    gate::Finding,
    history::{Entry, Happening, HistoryFile, HistoryLog},
    http::Http,
    machine::MachineReboot,
    medium::PathMedium,
    ports::{AfterReboot, BankDisk, BootControl, Clock, Reboot, RecordStore, Transport},
    printer,
    record::{MemoryRecord, rebuild},
};

/// The hands.
pub struct Ports {
    /// The banks.
    pub disk: Rc<dyn BankDisk>,
    /// The boot loader.
    pub boot: Box<dyn BootControl>,
    /// The record.
    pub store: Box<dyn RecordStore>,
    /// The reset.
    pub reboot: Box<dyn Reboot>,
    /// Time.
    pub clock: Rc<dyn Clock>,
    /// The network.
    pub transport: Rc<dyn Transport>,
    /// What is remembered.
    pub history: Box<dyn HistoryLog>,
}

/// The deeds on a bank's images that an event may ask for.
pub trait BankWork {
    /// Opens the bank for writing and wipes its first block.
    fn wipe(&mut self, passive: PassiveBank) -> Result<()>;
    /// Writes the images.
    fn write(&mut self) -> Result<()>;
    /// Reads them back.
    fn read_back(&mut self) -> Result<Staged>;
}

/// For events that ask for no such deed.
#[derive(Debug, Clone, Copy)]
pub struct NoWork;

const NO_WORK: Error = Error::Bug { detail: "images are asked for where there are none" };

impl BankWork for NoWork {
    fn wipe(&mut self, _: PassiveBank) -> Result<()> {
        Err(NO_WORK)
    }
    fn write(&mut self) -> Result<()> {
        Err(NO_WORK)
    }
    fn read_back(&mut self) -> Result<Staged> {
        Err(NO_WORK)
    }
}

/// Whether a command changes something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// It only looks: nothing is created.
    Look,
    /// It acts.
    Act,
}

/// The engine and its hands.
pub struct Device {
    /// The hands.
    pub ports: Ports,
    engine: Engine,
    staged: Option<Staged>,
    checks: Vec<Finding>,
}

impl Device {
    /// A device of these parts.
    #[must_use]
    pub fn new(ports: Ports, engine: Engine) -> Self {
        Self { ports, engine, staged: None, checks: Vec::new() }
    }

    /// The device of a configuration.
    pub fn open(config: &Config, purpose: Purpose) -> Result<Self> {
        let boot = boot::open(config);
        let running = boot.running().map_err(boot_error("find the running bank"))?;
        let history = HistoryFile::in_directory(&config.state());
        let opened = match purpose {
            Purpose::Act => {
                let medium = open_record(&config.record).map_err(file("open", &config.record))?;
                open_store(medium)
            }
            Purpose::Look => {
                match PathMedium::open_if_present(&config.record).map_err(file("open", &config.record))? {
                    Some(medium) => open_store(medium),
                    None => open_store(MemoryRecord::default()),
                }
            }
        };
        let (store, loaded) = opened.map_err(|source| Error::Record { source })?;
        let (record, origin) = match loaded {
            Loaded::Record(record) => (*record, Origin::Stored),
            // Zeros where the history knows of deeds are a record that was wiped.
            Loaded::Blank => without_record(running, running_release(&config.release_file)?, &history, None),
            Loaded::Lost(why) => {
                without_record(running, running_release(&config.release_file)?, &history, Some(&why))
            }
        };
        let ports = Ports {
            disk: Rc::new(PathDisk::new(config.bank.clone())),
            boot,
            store,
            reboot: open_reboot(config),
            clock: Rc::new(SystemClock::default()),
            transport: Rc::new(Http::new(config.network.clone())),
            history: Box::new(history),
        };
        let sources = if config.source.is_empty() { Sources::None } else { Sources::Configured };
        Ok(Self::new(ports, Engine::new(record, origin, running, config.tries).with_sources(sources)))
    }

    /// The engine, to look at.
    #[must_use]
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// What is known.
    #[must_use]
    pub fn record(&self) -> &Record {
        self.engine.record()
    }

    /// The bank that runs.
    #[must_use]
    pub fn running(&self) -> Bank {
        self.engine.running()
    }

    /// This boot.
    pub fn boot_id(&self) -> Result<String> {
        self.ports.boot.boot_id().map_err(boot_error("name this boot"))
    }

    /// The bank that the loader was told to try.
    pub fn armed(&self) -> Result<Option<Bank>> {
        self.ports.boot.armed().map_err(boot_error("read the trial"))
    }

    /// What the health gate has found; the next entry of the history on its verdict carries it.
    pub fn note_checks(&mut self, checks: Vec<Finding>) {
        self.checks = checks;
    }

    /// What an earlier boot has left, for the entry on the trial that failed.
    pub fn note_witness(&mut self, witness: &Witness) {
        self.engine.note_witness(&witness.directory.display().to_string(), witness.panic.as_deref());
    }

    /// Tells the engine, and does what it says.
    pub fn handle(&mut self, event: Event, work: &mut dyn BankWork) -> Result<Option<AfterReboot>> {
        let now = self.ports.clock.unix_seconds();
        let actions = self.engine.handle(event, now).map_err(Error::Illegal)?;
        let mut after = None;
        for action in actions {
            after = self.carry_out(action, work)?.or(after);
        }
        Ok(after)
    }

    fn carry_out(&mut self, action: Action, work: &mut dyn BankWork) -> Result<Option<AfterReboot>> {
        match action {
            Action::Commit(record) => {
                self.ports.store.commit(&record).map_err(|source| Error::Record { source })?;
            }
            Action::WipeBoot(_) => work.wipe(PassiveBank::of(self.record(), self.running())?)?,
            Action::WriteImages(_) => work.write()?,
            Action::ReadBack(_) => self.staged = Some(work.read_back()?),
            Action::SetTrial(bank) => {
                let proven = self.staged.take().filter(|staged| staged.bank() == bank);
                let staged = match proven {
                    Some(staged) => staged,
                    None => Staged::from_armed_record(self.record())
                        .filter(|staged| staged.bank() == bank)
                        .ok_or(Error::Bug { detail: "a bank is tried that was not read back" })?,
                };
                self.activate(staged)?;
            }
            Action::SetDefault(bank, spare) => {
                self.ports.boot.set_default(bank, spare).map_err(boot_error("set the default bank"))?;
            }
            Action::History(mut entry) => {
                if matches!(entry.event, Happening::Confirmed | Happening::Rejected) {
                    entry.checks = std::mem::take(&mut self.checks);
                }
                self.remember(&entry);
            }
            Action::Reboot => {
                return self.ports.reboot.reboot().map(Some).map_err(|source| Error::Reboot { source });
            }
        }
        Ok(None)
    }

    /// Puts an entry into the history. One that cannot be written is said, and holds nothing up: a full state partition must cost
    /// neither an install nor a way back.
    pub(crate) fn remember(&mut self, entry: &Entry) {
        if let Err(error) = self.ports.history.append(entry) {
            printer::person(&format!("warning: the history lacks {}: {}", entry.event.word(), error.line()));
        }
    }

    /// The only door to the boot loader's trial.
    fn activate(&mut self, staged: Staged) -> Result<()> {
        self.ports.boot.set_trial(&staged).map_err(boot_error("set the trial"))
    }
}

/// The record of a device that has none: made of what runs and of what the history remembers. `lost` is why there is none any more.
fn without_record(
    running: Bank,
    release: Option<Release>,
    history: &dyn HistoryLog,
    lost: Option<&str>,
) -> (Record, Origin) {
    // A state partition that cannot be read must not leave the device without a record as well.
    let entries = history.entries().unwrap_or_else(|error| {
        printer::person(&format!("warning: no floor is remembered: {}", error.line()));
        Vec::new()
    });
    match lost.or_else(|| (!entries.is_empty()).then_some("both are blank")) {
        Some(why) => {
            let remembered = entries.into_iter().filter_map(|entry| entry.floor).max();
            (rebuild(running, release, remembered, why), Origin::Rebuilt)
        }
        None => (Record::founded_on(running, release, Default::default()), Origin::Founded),
    }
}

fn boot_error(deed: &'static str) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Boot { deed, source }
}

type Opened = Result<(Box<dyn RecordStore>, Loaded), StoreError<io::Error>>;

fn open_store<M>(medium: M) -> Opened
where
    M: bank_format::record::Medium<Error = io::Error> + 'static,
{
    let (store, loaded) = Store::open(medium)?;
    Ok((Box::new(store), loaded))
}

fn open_record(path: &Path) -> io::Result<PathMedium> {
    PathMedium::open_or_create(path, RECORD_BYTES as u64)
}

fn open_reboot(config: &Config) -> Box<dyn Reboot> {
    match (&config.boot.backend, &config.boot.reboot_program) {
        (Backend::File { path }, _) => {
            let record = config.record.clone();
            Box::new(SimulatedReboot::new(FileBoot::new(path), move || open_record(&record)))
        }
        (_, Some(program)) => Box::new(ProgramReboot::new(program.clone())),
        (_, None) => Box::new(MachineReboot),
    }
}

/// What the running image says of itself; a host that is no image says nothing.
fn running_release(path: &Path) -> Result<Option<Release>> {
    let text = match read_small(path) {
        Ok(text) => text,
        Err(Error::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let found: ReleaseFile = serde_json::from_str(&text).map_err(|source| Error::File {
        deed: "read",
        path: path.into(),
        source: source.into(),
    })?;
    Ok(Some(Release { name: found.name, version: found.version }))
}
