//! How much of the device an install may take: bytes of network and disk in a second, and whether everything else goes first. May be changed
//! while it runs: the file in the run directory is looked at every second.
//!
//! The doors to banks and network are wrapped; whoever uses them knows nothing of it.

use std::{
    cell::RefCell,
    collections::BTreeSet,
    io::{self, Read},
    path::PathBuf,
    rc::Rc,
    time::Duration,
};

use bank_format::Bank;
use serde::{Deserialize, Serialize};

use crate::{
    config::read_small,
    error::{Error, Result, file},
    files::{DiskFiles, replace},
    limits::{MAX_BURST, MIN_RATE_BYTES, THROTTLE_INTERVAL},
    linux,
    ports::{
        Access, BankDisk, Clock, ImageFile, Request, Response, Room, Started, Transport, TransportError,
    },
};

/// How much an install may take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Bytes of the network in a second; none is no limit.
    pub network_bytes_per_second: Option<u64>,
    /// Bytes of the banks in a second, read and written; none is no limit.
    pub disk_bytes_per_second: Option<u64>,
    /// Who goes first.
    pub priority: Priority,
}

/// Who goes first where several want the disk or the processor.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Priority {
    /// Nobody.
    #[default]
    Normal,
    /// Everything else.
    Idle,
}

impl Limits {
    /// A rate so low that an install never ends is a mistake, and so is one at which the server seems too slow. The error is one line.
    pub fn check(&self, min_bytes_per_second: u64) -> Result<(), String> {
        let least = min_bytes_per_second.saturating_mul(2);
        if self.network_bytes_per_second.is_some_and(|rate| rate < least) {
            return Err(format!(
                "network_bytes_per_second is at least {least}, twice network.min_bytes_per_second"
            ));
        }
        for (name, rate) in [
            ("network_bytes_per_second", self.network_bytes_per_second),
            ("disk_bytes_per_second", self.disk_bytes_per_second),
        ] {
            if rate.is_some_and(|rate| rate < MIN_RATE_BYTES) {
                return Err(format!("{name} is at least {MIN_RATE_BYTES}"));
            }
        }
        Ok(())
    }
}

/// The file that overrides the configuration until the next boot.
#[derive(Debug, Clone)]
pub struct Override {
    path: PathBuf,
}

impl Override {
    /// In the run directory.
    #[must_use]
    pub fn in_directory(run_dir: &std::path::Path) -> Self {
        Self { path: run_dir.join("throttle.json") }
    }

    /// What it says; nothing if it is not there.
    pub fn read(&self) -> Result<Option<Limits>> {
        let text = match read_small(&self.path) {
            Ok(text) => text,
            Err(Error::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let wrong = |source: io::Error| file("read", &self.path)(source);
        let limits: Limits = serde_json::from_str(&text).map_err(|source| wrong(source.into()))?;
        limits.check(0).map_err(|detail| wrong(io::Error::new(io::ErrorKind::InvalidData, detail)))?;
        Ok(Some(limits))
    }

    /// Sets it, or takes it back. An install under way minds it within a second.
    pub fn write(&self, limits: Option<&Limits>) -> Result<()> {
        let done = match limits {
            Some(limits) => {
                let text = serde_json::to_string(limits).map_err(io::Error::from);
                text.and_then(|text| replace(&DiskFiles, &self.path, text.as_bytes()))
            }
            None => match std::fs::remove_file(&self.path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                other => other,
            },
        };
        done.map_err(file("write", &self.path))
    }
}

/// Holds back who takes more than the limits say.
pub struct Throttle {
    clock: Rc<dyn Clock>,
    configured: Limits,
    now: Option<Override>,
    state: RefCell<State>,
}

struct State {
    limits: Limits,
    looked: Option<Duration>,
    network: Bucket,
    disk: Bucket,
}

/// When what was taken is paid for.
#[derive(Default)]
struct Bucket {
    paid_until: Duration,
}

impl Bucket {
    /// How long to wait after `bytes`: short debts are let run up, so that nobody sleeps for microseconds.
    fn wait(&mut self, bytes: usize, rate: Option<u64>, now: Duration) -> Duration {
        let Some(rate) = rate else { return Duration::ZERO };
        let cost = Duration::from_secs_f64(bytes as f64 / rate as f64);
        self.paid_until = self.paid_until.max(now) + cost;
        let debt = self.paid_until.saturating_sub(now);
        if debt >= MAX_BURST { debt } else { Duration::ZERO }
    }
}

impl Throttle {
    /// By the configuration, and by the file that overrides it.
    #[must_use]
    pub fn new(clock: Rc<dyn Clock>, configured: Limits, now: Option<Override>) -> Rc<Self> {
        let state = State {
            limits: Limits::default(),
            looked: None,
            network: Bucket::default(),
            disk: Bucket::default(),
        };
        let throttle = Self { clock, configured, now, state: RefCell::new(state) };
        throttle.look();
        Rc::new(throttle)
    }

    /// What counts now.
    #[must_use]
    pub fn limits(&self) -> Limits {
        self.look();
        self.state.borrow().limits
    }

    fn look(&self) {
        let now = self.clock.monotonic();
        let mut state = self.state.borrow_mut();
        if state.looked.is_some_and(|looked| now < looked + THROTTLE_INTERVAL) {
            return;
        }
        state.looked = Some(now);
        // A file that cannot be read was refused when it was set, or was written by hand; the configuration counts then.
        let over = self.now.as_ref().and_then(|file| file.read().ok().flatten());
        let limits = over.unwrap_or(self.configured);
        if limits.priority != state.limits.priority {
            // Without the right to do so, the install goes on as it is.
            let _ = match limits.priority {
                Priority::Idle => linux::go_last(),
                Priority::Normal => linux::go_in_turn(),
            };
        }
        state.limits = limits;
    }

    fn network(&self, bytes: usize) {
        self.look();
        let now = self.clock.monotonic();
        let wait = {
            let mut state = self.state.borrow_mut();
            let rate = state.limits.network_bytes_per_second;
            state.network.wait(bytes, rate, now)
        };
        self.sleep(wait);
    }

    fn disk(&self, bytes: usize) {
        self.look();
        let now = self.clock.monotonic();
        let wait = {
            let mut state = self.state.borrow_mut();
            let rate = state.limits.disk_bytes_per_second;
            state.disk.wait(bytes, rate, now)
        };
        self.sleep(wait);
    }

    fn sleep(&self, wait: Duration) {
        if !wait.is_zero() {
            self.clock.sleep(wait);
        }
    }
}

/// Banks behind a throttle.
pub struct ThrottledDisk {
    /// The banks.
    pub disk: Rc<dyn BankDisk>,
    /// What holds back.
    pub throttle: Rc<Throttle>,
}

struct ThrottledImage {
    image: Box<dyn ImageFile>,
    throttle: Rc<Throttle>,
}

impl BankDisk for ThrottledDisk {
    fn images(&self, bank: Bank) -> BTreeSet<String> {
        self.disk.images(bank)
    }
    fn room(&self, bank: Bank, image: &str) -> io::Result<Room> {
        self.disk.room(bank, image)
    }
    fn open(&self, bank: Bank, image: &str, access: Access) -> io::Result<Box<dyn ImageFile>> {
        let image = self.disk.open(bank, image, access)?;
        Ok(Box::new(ThrottledImage { image, throttle: Rc::clone(&self.throttle) }))
    }
}

impl ImageFile for ThrottledImage {
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.image.read_at(offset, buffer)?;
        self.throttle.disk(read);
        Ok(read)
    }
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.image.write_at(offset, bytes)?;
        self.throttle.disk(bytes.len());
        Ok(())
    }
    fn zero_at(&mut self, offset: u64, bytes: u64) -> io::Result<()> {
        // Mostly nothing is written for it.
        self.image.zero_at(offset, bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.image.flush()
    }
    fn forget_cached(&mut self) -> io::Result<()> {
        self.image.forget_cached()
    }
    fn set_bytes(&mut self, bytes: u64) -> io::Result<()> {
        self.image.set_bytes(bytes)
    }
}

/// The network behind a throttle.
pub struct ThrottledTransport {
    /// The network.
    pub transport: Rc<dyn Transport>,
    /// What holds back.
    pub throttle: Rc<Throttle>,
}

struct ThrottledBody {
    body: Box<dyn Read>,
    throttle: Rc<Throttle>,
}

impl Read for ThrottledBody {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.body.read(buffer)?;
        self.throttle.network(read);
        Ok(read)
    }
}

fn slowed(response: Response, throttle: Rc<Throttle>) -> Response {
    Response { body: Box::new(ThrottledBody { body: response.body, throttle }), ..response }
}

impl Transport for ThrottledTransport {
    fn get(&self, request: &Request<'_>) -> Result<Response, TransportError> {
        Ok(slowed(self.transport.get(request)?, Rc::clone(&self.throttle)))
    }
    fn start(&self, request: &Request<'_>) -> Option<Started> {
        // Answers that wait would take more than they may.
        if self.throttle.limits().network_bytes_per_second.is_some() {
            return None;
        }
        let (started, throttle) = (self.transport.start(request)?, Rc::clone(&self.throttle));
        Some(Box::new(move || Ok(slowed(started()?, throttle))))
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[derive(Default)]
    struct FakeClock(Cell<Duration>);

    impl Clock for FakeClock {
        fn unix_seconds(&self) -> i64 {
            0
        }
        fn monotonic(&self) -> Duration {
            self.0.get()
        }
        fn sleep(&self, pause: Duration) {
            self.0.set(self.0.get() + pause);
        }
    }

    #[test]
    fn rates_hold_over_time_and_may_change_while_it_runs() {
        let dir = tempfile::tempdir().unwrap();
        let file = Override::in_directory(dir.path());
        let clock = Rc::new(FakeClock::default());
        let configured = Limits { disk_bytes_per_second: Some(1 << 20), ..Limits::default() };
        let throttle = Throttle::new(clock.clone(), configured, Some(file.clone()));
        let seconds = |bytes: usize| {
            let before = clock.0.get();
            for _ in 0..bytes / 10_000 {
                throttle.disk(10_000);
                throttle.network(10_000);
            }
            (clock.0.get() - before).as_secs_f64()
        };
        let took = seconds(10 << 20);
        assert!((9.8..10.2).contains(&took), "{took}");
        file.write(Some(&Limits { network_bytes_per_second: Some(2 << 20), ..Limits::default() })).unwrap();
        clock.sleep(THROTTLE_INTERVAL);
        let took = seconds(10 << 20);
        assert!((4.8..5.2).contains(&took), "{took}");
        assert_eq!(throttle.limits().disk_bytes_per_second, None);
        file.write(None).unwrap();
        clock.sleep(THROTTLE_INTERVAL);
        assert_eq!(throttle.limits(), configured);
        std::fs::write(dir.path().join("throttle.json"), "{\"network_bytes_per_second\": 1}").unwrap();
        assert!(file.read().is_err());
        clock.sleep(THROTTLE_INTERVAL);
        assert_eq!(throttle.limits(), configured);
    }
}
