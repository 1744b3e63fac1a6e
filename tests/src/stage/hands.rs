//! The agent's ports on simulated storage: the agent itself, its engine and its record are the real ones.

use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet},
    io,
    path::Path,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use bank_format::{
    Bank, Release,
    loader::{Loader, Spare},
    record::{Loaded, Record, Store},
};
use updater::{
    Device, Result,
    bank::Staged,
    device::Ports,
    engine::{Engine, Origin},
    files::State,
    history::{HistoryFile, HistoryLog as _},
    ports::{
        Access, AfterReboot, BankDisk, BootControl, Clock, ImageFile, Reboot, Request, Response, Room,
        Transport, TransportError,
    },
    record::rebuild,
};

use super::{
    image::{BOOT_BYTES, ROOT_BYTES, TAIL_BYTES},
    told::Told,
};
use crate::{
    simulated::{MemoryServer, START, Serving},
    storage::{Place, PlaceMedium, Storage, Writer},
};
use bank_format::record::Medium as _;

/// What an agent is given when it starts.
pub struct Circumstances {
    /// The storage.
    pub storage: Storage,
    /// The bank that runs.
    pub running: Bank,
    /// Its release, as the image itself says.
    pub release: Release,
    /// This boot.
    pub boot_id: String,
    /// `tries` of the configuration.
    pub tries: u32,
    /// The loader's state, as the agent's backend reaches it.
    pub loader: Told,
    /// What the server has.
    pub bundle: Vec<u8>,
}

/// The state directory of a machine.
#[must_use]
pub fn state_of(storage: &Storage) -> State {
    State::new(Arc::new(storage.files()), Path::new("/state"))
}

/// The real agent, as a command opens it.
pub fn agent(given: Circumstances) -> Result<Device, String> {
    let Circumstances { storage, running, release, boot_id, tries, loader, bundle } = given;
    let medium = storage.medium(Place::Record, Writer::System);
    let history = HistoryFile::in_directory(&state_of(&storage));
    let (store, loaded) =
        Store::open(medium).map_err(|error| format!("the record cannot be opened: {error}"))?;
    let (record, origin) = match loaded {
        Loaded::Record(record) => (*record, Origin::Stored),
        Loaded::Blank => (Record::founded_on(running, Some(release), BTreeMap::new()), Origin::Founded),
        Loaded::Lost(why) => {
            let entries = history.entries().map_err(|error| error.line())?;
            let remembered = entries.into_iter().filter_map(|entry| entry.floor).max();
            (rebuild(running, Some(release), remembered, &why), Origin::Rebuilt)
        }
    };
    let ports = Ports {
        disk: Rc::new(Disk(storage.clone())),
        boot: Box::new(SimulatedBoot { running, boot_id, loader: loader.into() }),
        store: Box::new(store),
        reboot: Box::new(Down),
        clock: Rc::new(VirtualClock(Cell::new(Duration::ZERO))),
        transport: Rc::new(Server(MemoryServer { file: bundle, serving: Serving::Ranges })),
        history: Box::new(history),
    };
    Ok(Device::new(ports, Engine::new(record, origin, running, tries)))
}

struct SimulatedBoot {
    running: Bank,
    boot_id: String,
    loader: std::cell::RefCell<Told>,
}

impl BootControl for SimulatedBoot {
    fn running(&self) -> io::Result<Bank> {
        Ok(self.running)
    }
    fn boot_id(&self) -> io::Result<String> {
        Ok(self.boot_id.clone())
    }
    fn armed(&self) -> io::Result<Option<Bank>> {
        self.loader.borrow_mut().next()
    }
    fn set_trial(&mut self, staged: &Staged) -> io::Result<()> {
        self.loader.get_mut().set_next(staged.bank())
    }
    fn set_default(&mut self, first: Bank, spare: Spare) -> io::Result<()> {
        self.loader.get_mut().set_default(first, spare)
    }
}

struct Down;

impl Reboot for Down {
    fn reboot(&mut self) -> io::Result<AfterReboot> {
        Ok(AfterReboot::GoingDown)
    }
}

struct VirtualClock(Cell<Duration>);

impl Clock for VirtualClock {
    fn unix_seconds(&self) -> i64 {
        START + self.0.get().as_secs() as i64
    }
    fn monotonic(&self) -> Duration {
        self.0.get()
    }
    fn sleep(&self, pause: Duration) {
        self.0.set(self.0.get() + pause);
    }
}

struct Server(MemoryServer);

impl Transport for Server {
    fn get(&self, request: &Request<'_>) -> Result<Response, TransportError> {
        self.0.get(request)
    }
}

struct Disk(Storage);

struct Image {
    medium: PlaceMedium,
    bytes: usize,
}

fn bytes_of(image: &str) -> usize {
    TAIL_BYTES + if image == "boot" { BOOT_BYTES } else { ROOT_BYTES }
}

impl BankDisk for Disk {
    fn images(&self, _: Bank) -> BTreeSet<String> {
        ["boot", "root"].map(str::to_owned).into()
    }
    fn room(&self, _: Bank, image: &str) -> io::Result<Room> {
        Ok(Room::Fixed { bytes: bytes_of(image) as u64 })
    }
    fn open(&self, bank: Bank, image: &str, _: Access) -> io::Result<Box<dyn ImageFile>> {
        let place = if image == "boot" { Place::Boot(bank) } else { Place::Root(bank) };
        Ok(Box::new(Image { medium: self.0.medium(place, Writer::System), bytes: bytes_of(image) }))
    }
}

impl ImageFile for Image {
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = buffer.len().min(self.bytes.saturating_sub(offset as usize));
        self.medium.read_at(offset, buffer.get_mut(..bytes).unwrap_or_default())?;
        Ok(bytes)
    }
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.medium.write_at(offset, bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.medium.flush()
    }
    /// What the page cache says proves nothing about the medium.
    fn forget_cached(&mut self) -> io::Result<()> {
        if self.medium.is_flushed() {
            Ok(())
        } else {
            Err(io::Error::other("what is read back was not flushed"))
        }
    }
    fn set_bytes(&mut self, _: u64) -> io::Result<()> {
        Ok(())
    }
}

/// A system that keeps no journal.
pub struct NoJournal;

impl updater::machine::Machine for NoJournal {
    fn wait_until_up(&self, _: Duration) -> Result<(), String> {
        Ok(())
    }
    fn complete_boot(&self, _: Duration) -> Result<(), String> {
        Ok(())
    }
    fn failed_units(&self, _: Duration) -> Result<Vec<String>, String> {
        Ok(Vec::new())
    }
    fn unit_is_active(&self, _: &str, _: Duration) -> Result<(), String> {
        Ok(())
    }
    fn container_status(&self, _: &str, _: Duration) -> Result<String, String> {
        Ok("running".into())
    }
    fn check(&self, _: &[String], _: Duration) -> Result<(), updater::health::rounds::Trouble> {
        Ok(())
    }
    fn journal(&self) -> Vec<u8> {
        Vec::new()
    }
}
