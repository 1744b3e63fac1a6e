//! The doors to the world: what the agent needs done, as traits. The hands behind them are in `disk`, `boot`, `http`, `linux`;
//! the `tests` room brings simulated ones. Ports answer with `io::Error`; the caller adds operation and subject.

use std::{
    collections::BTreeSet,
    io::{self, Read},
    time::Duration,
};

use bank_format::{
    Bank,
    loader::Spare,
    record::{Medium, Record, Store, StoreError},
};

use crate::bank::Staged;

/// How an image of a bank is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Only reading; an image that is not there is an error.
    Read,
    /// Reading and writing; a regular file that is not there is created.
    Write,
}

/// How much fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    /// A device of this many bytes.
    Fixed {
        /// Its size.
        bytes: u64,
    },
    /// A file that grows.
    Grows,
}

/// The images of both banks.
pub trait BankDisk {
    /// Names of the images of a bank.
    fn images(&self, bank: Bank) -> BTreeSet<String>;
    /// How much fits.
    fn room(&self, bank: Bank, image: &str) -> io::Result<Room>;
    /// Opens an image.
    fn open(&self, bank: Bank, image: &str, access: Access) -> io::Result<Box<dyn ImageFile>>;
}

/// An open image of a bank.
pub trait ImageFile {
    /// Reads at most `buffer.len()` bytes; 0 at the end.
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;
    /// Writes all of `bytes`.
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Writes zeros.
    fn zero_at(&mut self, offset: u64, bytes: u64) -> io::Result<()> {
        static ZEROS: [u8; 16 << 10] = [0; 16 << 10];
        let mut done = 0;
        while done < bytes {
            let part = ZEROS.get(..(bytes - done).min(ZEROS.len() as u64) as usize).unwrap_or_default();
            self.write_at(offset + done, part)?;
            done += part.len() as u64;
        }
        Ok(())
    }
    /// Returns once all that was written is on stable storage.
    fn flush(&mut self) -> io::Result<()>;
    /// Makes the next reads come from the medium, as far as the system can do that. Call after a flush.
    fn forget_cached(&mut self) -> io::Result<()>;
    /// A regular file gets exactly this length; a device stays as it is.
    fn set_bytes(&mut self, bytes: u64) -> io::Result<()>;
}

/// The boot loader. Every deed is on stable storage when it returns.
pub trait BootControl {
    /// The bank that runs.
    fn running(&self) -> io::Result<Bank>;
    /// Another word for each boot of the machine.
    fn boot_id(&self) -> io::Result<String>;
    /// The bank that the next boot tries, if the loader was told to.
    fn armed(&self) -> io::Result<Option<Bank>>;
    /// The next boot, and only that one, starts this bank; the other bank is the default. Only a [`Staged`] bank can be tried.
    fn set_trial(&mut self, staged: &Staged) -> io::Result<()>;
    /// From now on `first` starts, and nothing is tried; a `spare` that is bootable takes over when `first` does not come up
    /// to say so again. Also restores what the loader has forgotten. Nothing is written where nothing is to be said.
    fn set_default(&mut self, first: Bank, spare: Spare) -> io::Result<()>;
}

/// What becomes of this process after a reboot was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AfterReboot {
    /// The machine goes down.
    GoingDown,
    /// There is no machine to reboot: the boot was played, and this bank "runs" now.
    Simulated(Bank),
}

/// The machine's reset.
pub trait Reboot {
    /// Reboots.
    fn reboot(&mut self) -> io::Result<AfterReboot>;
}

/// Where the record is kept.
pub trait RecordStore {
    /// Puts the record on stable storage, both copies.
    fn commit(&mut self, record: &Record) -> Result<(), StoreError<io::Error>>;
}

impl<M: Medium<Error = io::Error>> RecordStore for Store<M> {
    fn commit(&mut self, record: &Record) -> Result<(), StoreError<io::Error>> {
        Self::commit(self, record)
    }
}

/// Time.
pub trait Clock {
    /// Seconds since 1970.
    fn unix_seconds(&self) -> i64;
    /// Time since some moment, never going back.
    fn monotonic(&self) -> Duration;
    /// Waits.
    fn sleep(&self, pause: Duration);
}

/// A request: GET, with a range of bytes, both ends included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request<'a> {
    /// From where.
    pub url: &'a str,
    /// First byte.
    pub first: u64,
    /// Last byte.
    pub last: u64,
}

/// What a server says. Nothing of it is trusted.
pub struct Response {
    /// Status code.
    pub status: u16,
    /// Header fields, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Box<dyn Read>,
}

impl Response {
    /// The first field of that name (lower case).
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// Gives the answer to a request that was sent; waits for it.
pub type Started = Box<dyn FnOnce() -> Result<Response, TransportError>>;

/// Why there is no response.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// It may work on the next attempt.
    #[error("no answer")]
    Network {
        /// The client's words.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// It will not work however often it is tried.
    #[error("{detail}")]
    Refused {
        /// Why.
        detail: String,
    },
}

/// The network.
pub trait Transport {
    /// Sends the request, follows redirects.
    fn get(&self, request: &Request<'_>) -> Result<Response, TransportError>;
    /// Sends the request, if that can be done without waiting for the answer. An answer that nobody asks for is given up.
    fn start(&self, request: &Request<'_>) -> Option<Started> {
        let _ = request;
        None
    }
}

/// What is going on, for a person or a script that watches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// The bundle's head and tables are read and checked.
    Verify,
    /// What lies in the banks is looked at.
    Look,
    /// The passive bank is written.
    Write,
    /// The passive bank is read back.
    ReadBack,
}

impl Phase {
    /// One word.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Verify => "verify",
            Self::Look => "look",
            Self::Write => "write",
            Self::ReadBack => "read-back",
        }
    }
}

/// Who watches an install.
pub trait Progress {
    /// A phase begins; it takes `total_bytes` steps of one byte.
    fn begin(&mut self, phase: Phase, total_bytes: u64);
    /// So many bytes more are done.
    fn advance(&mut self, bytes: u64);
    /// Something worth a line: a retry, a restart.
    fn note(&mut self, text: &str);
    /// The last phase has ended.
    fn end(&mut self);
}

/// Nobody watches.
#[derive(Debug, Default, Clone, Copy)]
pub struct Silent;

impl Progress for Silent {
    fn begin(&mut self, _: Phase, _: u64) {}
    fn advance(&mut self, _: u64) {}
    fn note(&mut self, _: &str) {}
    fn end(&mut self) {}
}
