//! A device in memory: banks, record, boot loader, clock and network that the agent's real code runs against.
//!
//! Fault model: none by itself; it notes every write, so that a suite can say "nothing was written" and "nothing was armed".
//! Time is virtual: a pause costs nothing.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
    io::{self, Cursor, Read},
    rc::Rc,
    time::Duration,
};

use bank_format::{
    Bank, Release, TrustRoot,
    loader::Spare,
    record::{Record, StoreError},
};
use updater::{
    Device, InstallReport, Result, Terms,
    bank::Staged,
    config::Network,
    device::{NoWork, Ports},
    engine::{Engine, Event, Origin, Rearm},
    history::{Entry, HistoryLog},
    ports::{
        Access, AfterReboot, BankDisk, BootControl, Clock, ImageFile, Reboot, RecordStore, Request, Response,
        Room, Silent, Transport, TransportError,
    },
    settle::settle,
};

/// What the device holds; shared between the ports and the suite.
#[derive(Debug)]
pub struct Machine {
    /// Bytes of the images.
    pub images: RefCell<BTreeMap<(Bank, String), Vec<u8>>>,
    /// Writes to the images so far, the wipe of the first block included.
    pub writes: Cell<usize>,
    /// The bank that the next boot tries.
    pub armed: Cell<Option<Bank>>,
    /// The bank that runs.
    pub running: Cell<Bank>,
    /// Boots so far.
    pub boots: Cell<u32>,
    /// The bank that starts by default.
    pub default: Cell<Bank>,
    /// The record as it was last committed.
    pub record: RefCell<Record>,
    /// The history.
    pub history: RefCell<Vec<Entry>>,
    /// Virtual time.
    pub now: Cell<Duration>,
    /// Bytes of the partition of each image; without it, images are files that grow.
    pub partition_bytes: Cell<Option<u64>>,
    /// Writes that are still allowed; the next one fails, and so does every later one.
    pub writes_left: Cell<usize>,
}

/// Seconds since 1970 at which virtual time begins: 2026.
pub const START: i64 = 1_780_000_000;

impl Machine {
    /// A device that runs `release` from bank A, with one image `root` per bank; bank B holds `passive`.
    #[must_use]
    pub fn new(release: Release, active: &[u8], passive: &[u8]) -> Rc<Self> {
        Rc::new(Self {
            images: RefCell::new(BTreeMap::from([
                ((Bank::A, "root".to_owned()), active.to_vec()),
                ((Bank::B, "root".to_owned()), passive.to_vec()),
            ])),
            writes: Cell::new(0),
            armed: Cell::new(None),
            running: Cell::new(Bank::A),
            boots: Cell::default(),
            default: Cell::new(Bank::A),
            record: RefCell::new(Record::founded_on(Bank::A, Some(release), BTreeMap::new())),
            history: RefCell::default(),
            now: Cell::default(),
            partition_bytes: Cell::default(),
            writes_left: Cell::new(usize::MAX),
        })
    }

    /// Bytes of the only image of a bank.
    #[must_use]
    pub fn root(&self, bank: Bank) -> Vec<u8> {
        self.images.borrow().get(&(bank, "root".to_owned())).cloned().unwrap_or_default()
    }

    /// The agent on this machine, as it starts: the record is what was committed last.
    #[must_use]
    pub fn device(self: &Rc<Self>, transport: Rc<dyn Transport>) -> Device {
        let ports = Ports {
            disk: Rc::new(Hand(Rc::clone(self))),
            boot: Box::new(Hand(Rc::clone(self))),
            store: Box::new(Hand(Rc::clone(self))),
            reboot: Box::new(Hand(Rc::clone(self))),
            clock: Rc::new(Hand(Rc::clone(self))),
            transport,
            history: Box::new(Hand(Rc::clone(self))),
        };
        let record = self.record.borrow().clone();
        Device::new(ports, Engine::new(record, Origin::Stored, self.running.get(), 1))
    }

    /// The trial is good: the bank that was armed runs from now on, and is confirmed.
    pub fn boot_and_confirm(self: &Rc<Self>, transport: Rc<dyn Transport>) -> Result<()> {
        let armed = self.armed.take().unwrap_or_else(|| self.default.get());
        self.running.set(armed);
        self.boots.set(self.boots.get() + 1);
        let mut device = self.device(transport);
        settle(&mut device, Rearm::Allowed)?;
        device.handle(Event::Confirm, &mut NoWork)?;
        Ok(())
    }

    /// Installs from `source` with the real code.
    pub fn install(
        self: &Rc<Self>,
        transport: Rc<dyn Transport>,
        root_json: &[u8],
        network: Network,
        source: &str,
    ) -> Result<InstallReport> {
        let trust = TrustRoot::from_trusted(root_json).map_err(|source| updater::Error::Bundle { source })?;
        let terms = Terms { compatible: "test,any".into(), trust, network };
        updater::install(&mut self.device(transport), &terms, source, &mut Silent)
    }
}

/// One hand per port, all on the same machine.
struct Hand(Rc<Machine>);

struct Image {
    machine: Rc<Machine>,
    key: (Bank, String),
}

impl Image {
    fn with<T>(&self, change: impl FnOnce(&mut Vec<u8>) -> T) -> T {
        change(self.machine.images.borrow_mut().entry(self.key.clone()).or_default())
    }
}

impl BankDisk for Hand {
    fn images(&self, _: Bank) -> BTreeSet<String> {
        BTreeSet::from(["root".to_owned()])
    }
    fn room(&self, _: Bank, _: &str) -> io::Result<Room> {
        Ok(self.0.partition_bytes.get().map_or(Room::Grows, |bytes| Room::Fixed { bytes }))
    }
    fn open(&self, bank: Bank, image: &str, _: Access) -> io::Result<Box<dyn ImageFile>> {
        Ok(Box::new(Image { machine: Rc::clone(&self.0), key: (bank, image.to_owned()) }))
    }
}

impl ImageFile for Image {
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.with(|bytes| {
            let mut rest = bytes.get(offset as usize..).unwrap_or_default();
            rest.read(buffer)
        })
    }
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let left = self.machine.writes_left.get().checked_sub(1);
        self.machine.writes_left.set(left.ok_or_else(|| io::Error::other("no further write"))?);
        self.machine.writes.set(self.machine.writes.get() + 1);
        self.with(|image| {
            let end = offset as usize + bytes.len();
            image.resize(image.len().max(end), 0);
            image.splice(offset as usize..end, bytes.iter().copied());
        });
        Ok(())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
    fn forget_cached(&mut self) -> io::Result<()> {
        Ok(())
    }
    fn set_bytes(&mut self, bytes: u64) -> io::Result<()> {
        if self.machine.partition_bytes.get().is_none() {
            self.with(|image| image.resize(bytes as usize, 0));
        }
        Ok(())
    }
}

impl BootControl for Hand {
    fn running(&self) -> io::Result<Bank> {
        Ok(self.0.running.get())
    }
    fn boot_id(&self) -> io::Result<String> {
        Ok(format!("boot-{}", self.0.boots.get()))
    }
    fn armed(&self) -> io::Result<Option<Bank>> {
        Ok(self.0.armed.get())
    }
    fn set_trial(&mut self, staged: &Staged) -> io::Result<()> {
        self.0.default.set(!staged.bank());
        self.0.armed.set(Some(staged.bank()));
        Ok(())
    }
    fn set_default(&mut self, first: Bank, _: Spare) -> io::Result<()> {
        self.0.default.set(first);
        self.0.armed.set(None);
        Ok(())
    }
}

impl RecordStore for Hand {
    fn commit(&mut self, record: &Record) -> Result<(), StoreError<io::Error>> {
        *self.0.record.borrow_mut() = record.clone();
        Ok(())
    }
}

impl Reboot for Hand {
    fn reboot(&mut self) -> io::Result<AfterReboot> {
        Ok(AfterReboot::Simulated(self.0.armed.take().unwrap_or_else(|| self.0.default.get())))
    }
}

impl Clock for Hand {
    fn unix_seconds(&self) -> i64 {
        START + self.0.now.get().as_secs() as i64
    }
    fn monotonic(&self) -> Duration {
        self.0.now.get()
    }
    fn sleep(&self, pause: Duration) {
        self.0.now.set(self.0.now.get() + pause);
    }
}

impl HistoryLog for Hand {
    fn append(&mut self, entry: &Entry) -> Result<()> {
        self.0.history.borrow_mut().push(entry.clone());
        Ok(())
    }
    fn entries(&self) -> Result<Vec<Entry>> {
        Ok(self.0.history.borrow().clone())
    }
}

/// How the file in memory is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Serving {
    /// By ranges.
    Ranges,
    /// Whole, whatever was asked.
    Whole,
}

/// A server without a network: answers every address with one file.
#[derive(Debug)]
pub struct MemoryServer {
    /// The file.
    pub file: Vec<u8>,
    /// How.
    pub serving: Serving,
}

impl Transport for MemoryServer {
    fn get(&self, request: &Request<'_>) -> Result<Response, TransportError> {
        let total = self.file.len();
        let first = request.first as usize;
        let end = (request.last as usize).saturating_add(1).min(total);
        if self.serving == Serving::Whole {
            return Ok(response(200, vec![("content-length", total.to_string())], self.file.clone()));
        }
        if first >= end {
            return Ok(response(416, vec![("content-range", format!("bytes */{total}"))], Vec::new()));
        }
        let headers = vec![
            ("content-range", format!("bytes {first}-{}/{total}", end - 1)),
            ("content-length", (end - first).to_string()),
            ("etag", "\"one\"".to_owned()),
        ];
        Ok(response(206, headers, self.file.get(first..end).unwrap_or_default().to_vec()))
    }
}

fn response(status: u16, headers: Vec<(&str, String)>, body: Vec<u8>) -> Response {
    Response {
        status,
        headers: headers.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
        body: Box::new(Cursor::new(body)),
    }
}
