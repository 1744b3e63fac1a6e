//! One verb per file: `Args`, and `run`.

pub mod audit;
pub mod confirm;
pub mod gate;
pub mod health;
pub mod history;
pub mod install;
pub mod reboot;
pub mod rollback;
pub mod settle;
pub mod status;
pub mod throttle;

use std::{path::PathBuf, time::Duration};

use bank_format::{Bank, Release};
use serde::Serialize;

use crate::{
    clock::SystemClock,
    config::Config,
    device::{Device, Purpose},
    error::{Error, Result, file},
    linux::{self, FileLock, LockAttempt},
    ports::Clock,
    printer::{self, Format},
};

/// What every command is given.
#[derive(Debug)]
pub struct Context {
    /// The configuration file.
    pub config: PathBuf,
    /// How data is written.
    pub format: Format,
}

/// How a command ended well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// It is done.
    Done,
    /// There was nothing to do.
    NothingToDo,
    /// What was looked at is not as it should be.
    Rejected,
}

impl Context {
    fn load(&self) -> Result<Config> {
        Config::load(&self.config)
    }

    /// Prints one object, or its text.
    fn say<T: Serialize>(&self, value: &T, text: &str) {
        match self.format {
            Format::Json => printer::object(value),
            Format::Text => printer::data(text),
        }
    }
}

/// One deed at a time: a second one is told who is at work. The lock lies in memory: a state partition that takes nothing must not
/// keep a boot from being settled.
fn lock(config: &Config) -> Result<FileLock> {
    std::fs::create_dir_all(&config.run_dir).map_err(file("create", &config.run_dir))?;
    let path = config.run_dir.join("lock");
    match linux::try_lock(&path).map_err(file("lock", &path))? {
        LockAttempt::Taken(lock) => Ok(lock),
        LockAttempt::HeldBy(holder) => Err(Error::Busy { holder }),
    }
}

/// As [`lock`], for units: asks again each second, so many times in all.
fn patient_lock(config: &Config, attempts: u32) -> Result<FileLock> {
    let clock = SystemClock::default();
    for _ in 1..attempts {
        match lock(config) {
            Err(Error::Busy { .. }) => clock.sleep(Duration::from_secs(1)),
            other => return other,
        }
    }
    lock(config)
}

/// The device, locked, ready to act.
fn open_locked(config: &Config) -> Result<(FileLock, Device)> {
    let lock = lock(config)?;
    Ok((lock, Device::open(config, Purpose::Act)?))
}

/// The closing object of the short commands.
#[derive(Debug, Serialize)]
struct Done {
    result: &'static str,
    release: Option<Release>,
    bank: Bank,
    reason: Option<String>,
}

impl Done {
    fn of(result: &'static str, device: &Device, bank: Bank) -> Self {
        Self { result, release: device.record().banks.get(bank).release.clone(), bank, reason: None }
    }

    fn subject(&self) -> String {
        match &self.release {
            Some(release) => format!("{release} in bank {}", self.bank),
            None => format!("bank {}", self.bank),
        }
    }
}
