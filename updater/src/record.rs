//! The record where there is none: in memory, for what only looks, and made anew where both copies are lost.

use std::{collections::BTreeMap, io};

use bank_format::{
    Bank, Release,
    record::{LastResult, Medium, Outcome, RECORD_BYTES, Record},
    release::Version,
};

/// A record in memory, for what only looks and for tests.
#[derive(Debug, Clone, Default)]
pub struct MemoryRecord(pub Vec<u8>);

impl Medium for MemoryRecord {
    type Error = io::Error;

    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let known = self.0.get(usize::try_from(offset).unwrap_or(usize::MAX)..).unwrap_or_default();
        buffer.fill(0);
        for (to, from) in buffer.iter_mut().zip(known) {
            *to = *from;
        }
        Ok(())
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.resize(RECORD_BYTES, 0);
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let place = self.0.get_mut(start..).and_then(|rest| rest.get_mut(..bytes.len()));
        place.ok_or(io::ErrorKind::InvalidInput)?.copy_from_slice(bytes);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Makes a record for a device that lost both copies. The floor is the highest that anybody remembers: the running release, or
/// what the history says. It never falls in silence.
#[must_use]
pub fn rebuild(running: Bank, release: Option<Release>, remembered: Option<Version>, why: &str) -> Record {
    let mut record = Record::founded_on(running, release.clone(), BTreeMap::new());
    record.floor = record.floor.max(remembered);
    let floor = record.floor.as_ref().map_or("none".into(), ToString::to_string);
    record.last_result = Some(LastResult {
        outcome: Outcome::RecordRebuilt,
        release,
        reason: Some(format!("both copies of the record were lost ({why}); floor is {floor} now")),
        evidence: None,
    });
    record
}

/// Why the bank holds what failed, as far as the record still knows: it keeps how the last deed ended, and no more.
#[must_use]
pub fn how_it_failed(record: &Record, bank: Bank) -> &'static str {
    let release = record.banks.get(bank).release.as_ref();
    let last = record.last_result.as_ref().filter(|last| last.release.as_ref() == release);
    match last.map(|last| last.outcome) {
        Some(Outcome::BankLost) => "it was confirmed, and could not be booted any more",
        Some(Outcome::FellBack) => "its last trial failed",
        Some(Outcome::Confirmed | Outcome::Cancelled | Outcome::RecordRebuilt) | None => "it has failed",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::medium::PathMedium;
    use bank_format::record::{Loaded, Store};

    #[test]
    fn a_missing_file_is_created_and_keeps_the_record() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("record.bin");
        let medium = PathMedium::open_or_create(&path, RECORD_BYTES as u64).unwrap();
        let (mut store, loaded) = Store::open(medium).unwrap();
        assert_eq!(loaded, Loaded::Blank);
        let record = Record::founded_on(Bank::A, None, BTreeMap::new());
        store.commit(&record).unwrap();
        let (_, loaded) = Store::open(PathMedium::open_if_present(&path).unwrap().unwrap()).unwrap();
        assert_eq!(loaded, Loaded::Record(Box::new(record)));
        assert_eq!(std::fs::metadata(&path).unwrap().len(), RECORD_BYTES as u64);
    }

    #[test]
    fn a_rebuilt_record_never_lowers_the_floor() {
        let release = |text: &str| Release { name: "demo".into(), version: Version::parse(text).unwrap() };
        let v = |text: &str| Some(Version::parse(text).unwrap());
        for (running, remembered, expected) in [
            (Some("1.0.0"), None, v("1.0.0")),
            (Some("1.0.0"), v("1.2.0"), v("1.2.0")),
            (Some("1.3.0"), v("1.2.0"), v("1.3.0")),
            (None, v("1.2.0"), v("1.2.0")),
        ] {
            assert_eq!(rebuild(Bank::B, running.map(release), remembered, "torn").floor, expected);
        }
    }

    #[test]
    fn a_bank_that_was_lost_is_no_trial_that_failed() {
        let mut record = Record::founded_on(Bank::A, None, BTreeMap::new());
        for (outcome, expected) in [
            (Outcome::BankLost, "it was confirmed, and could not be booted any more"),
            (Outcome::FellBack, "its last trial failed"),
            (Outcome::Cancelled, "it has failed"),
        ] {
            record.last_result = Some(LastResult { outcome, release: None, reason: None, evidence: None });
            assert_eq!(how_it_failed(&record, Bank::B), expected);
        }
    }
}
