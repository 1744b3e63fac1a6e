//! The passive bank as types: [`PassiveBank`] → [`BankWriter`] → [`Staged`]. Each has one way to come about, so that the
//! running bank cannot be written, and what was not read back cannot be tried.
//!
//! Order inside a bank: the data of all images; flush; read back, each tree written as it comes out; flush; the first block of the last
//! image; flush; trees and first block read back.

pub mod audit;
mod checked;
mod closed;
mod proof;
mod tail;
mod writer;

use bank_format::{
    Bank,
    record::{BankState, Record},
};

use crate::error::{Error, Result};

pub use checked::Checked;
pub use closed::close_unwanted;
pub use proof::prove;
pub(crate) use proof::{fill, fill_parts};
pub use tail::table_in;
pub use writer::BankWriter;

/// The bank that does not run, and that the record does not call confirmed: it may be written.
#[derive(Debug, PartialEq, Eq)]
pub struct PassiveBank {
    bank: Bank,
}

impl PassiveBank {
    /// The passive bank of a device on which `running` runs. The record must have marked it as being written.
    pub fn of(record: &Record, running: Bank) -> Result<Self> {
        if record.confirmed != running || record.trial.is_some() {
            return Err(Error::Unsettled { running, confirmed: record.confirmed });
        }
        let bank = !running;
        if record.banks.get(bank).state == BankState::Writing {
            Ok(Self { bank })
        } else {
            Err(Error::Bug { detail: "a bank is opened for writing before the record says so" })
        }
    }

    /// The passive bank where it is neither a way back nor on trial.
    fn unwanted(record: &Record, running: Bank) -> Option<Self> {
        if record.confirmed != running || record.trial.is_some() {
            return None;
        }
        let bank = !running;
        let here = record.banks.get(bank);
        match here.state {
            BankState::Confirmed => None,
            // A record that was rebuilt calls a bank empty of which it knows nothing. One that names a release was given up.
            BankState::Empty if here.release.is_none() => None,
            BankState::Empty | BankState::Writing | BankState::Written | BankState::Failed => {
                Some(Self { bank })
            }
        }
    }

    /// Which bank.
    #[must_use]
    pub fn bank(&self) -> Bank {
        self.bank
    }
}

/// A bank that is complete: flushed, read back, compared. The boot loader asks for it.
#[derive(Debug, PartialEq, Eq)]
pub struct Staged {
    bank: Bank,
}

impl Staged {
    /// The bank on trial in a record that is on stable storage: it was read back before the trial came to be.
    #[must_use]
    pub fn from_armed_record(record: &Record) -> Option<Self> {
        let trial = record.trial.as_ref()?;
        match record.banks.get(trial.bank).state {
            BankState::Written | BankState::Confirmed => Some(Self { bank: trial.bank }),
            BankState::Empty | BankState::Writing | BankState::Failed => None,
        }
    }

    /// Which bank.
    #[must_use]
    pub fn bank(&self) -> Bank {
        self.bank
    }
}
