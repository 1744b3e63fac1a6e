//! Storage in memory, random slices that follow from the bytes, and the numbers of the tables read a second time.

use std::{collections::BTreeMap, convert::Infallible};

use bank_format::{Bank, efi::VarStore, record::Medium};

/// A medium that notes its writes. What lies behind its end reads as zeros and is never written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Memory {
    pub(super) bytes: Vec<u8>,
    /// Offset and bytes of each.
    pub(super) writes: Vec<(usize, Vec<u8>)>,
}

impl Memory {
    pub(super) fn new(bytes: Vec<u8>) -> Self {
        Self { bytes, writes: Vec::new() }
    }

    /// These bytes, filled up with zeros, or cut.
    pub(super) fn of_bytes(bytes: &[u8], length: usize) -> Self {
        let mut bytes = bytes.get(..length.min(bytes.len())).unwrap_or_default().to_vec();
        bytes.resize(length, 0);
        Self::new(bytes)
    }

    /// Writes over what is there.
    pub(super) fn put(&mut self, offset: usize, bytes: &[u8]) {
        let place = self.bytes.get_mut(offset..).and_then(|rest| rest.get_mut(..bytes.len()));
        assert!(place.is_some(), "a write of {} bytes at {offset} beyond the medium", bytes.len());
        if let Some(place) = place {
            place.copy_from_slice(bytes);
        }
    }
}

impl Medium for Memory {
    type Error = Infallible;

    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> Result<(), Infallible> {
        let rest = usize::try_from(offset).ok().and_then(|offset| self.bytes.get(offset..));
        let rest = rest.unwrap_or_default();
        let (there, beyond) = buffer.split_at_mut(rest.len().min(buffer.len()));
        there.copy_from_slice(rest.get(..there.len()).unwrap_or_default());
        beyond.fill(0);
        Ok(())
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> Result<(), Infallible> {
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        self.put(offset, bytes);
        self.writes.push((offset, bytes.to_vec()));
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Infallible> {
        Ok(())
    }
}

/// Firmware variables that count their changes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Variables {
    /// Values by name, by vendor.
    values: BTreeMap<String, BTreeMap<String, Vec<u8>>>,
    pub(super) changes: u32,
}

impl VarStore for Variables {
    type Error = bank_format::Error;

    fn names(&self, vendor: &str) -> Result<Vec<String>, Self::Error> {
        Ok(self.values.get(vendor).map(|ours| ours.keys().cloned().collect()).unwrap_or_default())
    }

    fn read(&self, name: &str, vendor: &str) -> Result<Option<Vec<u8>>, Self::Error> {
        Ok(self.values.get(vendor).and_then(|ours| ours.get(name)).cloned())
    }

    fn write(&mut self, name: &str, vendor: &str, value: &[u8]) -> Result<(), Self::Error> {
        self.values.entry(vendor.to_owned()).or_default().insert(name.to_owned(), value.to_vec());
        self.changes += 1;
        Ok(())
    }

    fn remove(&mut self, name: &str, vendor: &str) -> Result<(), Self::Error> {
        self.values.entry(vendor.to_owned()).or_default().remove(name);
        self.changes += 1;
        Ok(())
    }
}

/// Cuts bytes into pieces whose lengths look random and follow from the bytes.
pub(super) struct Slices<'a> {
    rest: &'a [u8],
    state: u32,
}

impl<'a> Slices<'a> {
    pub(super) fn of(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, state: crc32fast::hash(bytes) | 1 }
    }
}

impl<'a> Iterator for Slices<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        if self.rest.is_empty() {
            return None;
        }
        self.state ^= self.state << 13;
        self.state ^= self.state >> 17;
        self.state ^= self.state << 5;
        let most = if self.state & 1 == 0 { 8 } else { 1024 };
        let length = ((self.state >> 8) as usize % most + 1).min(self.rest.len());
        let (slice, rest) = self.rest.split_at(length);
        self.rest = rest;
        Some(slice)
    }
}

/// A bank that follows from the bytes: what holds for one holds for the other, and a run of both finds half as much.
pub(super) fn one_bank(bytes: &[u8]) -> Bank {
    if crc32fast::hash(bytes).is_multiple_of(2) { Bank::A } else { Bank::B }
}

/// The first half of the bytes, and the other one, which is as long or one longer.
pub(super) fn halves(bytes: &[u8]) -> (&[u8], &[u8]) {
    bytes.split_at(bytes.len() / 2)
}

/// The next number, read in another way than `bank-format` does: `None` where it must refuse.
pub(super) fn number(bytes: &mut &[u8]) -> Option<u64> {
    let length = bytes.iter().position(|byte| *byte < 0x80)? + 1;
    let (digits, rest) = bytes.split_at(length);
    *bytes = rest;
    let value = digits.iter().rev().try_fold(0u128, |value, digit| {
        let more = value.checked_mul(128)?;
        Some(more + u128::from(digit & 0x7f))
    })?;
    let is_shortest = length == 1 || digits.last() != Some(&0);
    u64::try_from(value).ok().filter(|_| is_shortest)
}

/// The next signed number.
pub(super) fn signed_number(bytes: &mut &[u8]) -> Option<i128> {
    let folded = i128::from(number(bytes)?);
    Some(if folded % 2 == 0 { folded / 2 } else { -(folded + 1) / 2 })
}
