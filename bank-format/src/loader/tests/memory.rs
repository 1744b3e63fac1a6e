//! Storage in memory that knows what a power cut can leave of each write.

use std::collections::BTreeMap;

use super::SECTOR;
use crate::{Error, efi::VarStore, record::Medium};

/// A disk that notes its writes.
#[derive(Debug, Clone, Default)]
pub(super) struct Disk {
    pub(super) bytes: Vec<u8>,
    pub(super) log: Vec<(usize, Vec<u8>)>,
}

impl Disk {
    pub(super) fn new(bytes: Vec<u8>) -> Self {
        Self { bytes, log: Vec::new() }
    }

    pub(super) fn put(&mut self, offset: usize, bytes: &[u8]) {
        self.bytes[offset..][..bytes.len()].copy_from_slice(bytes);
    }

    /// Its noted writes, one after the other.
    pub(super) fn writes(&self, before: &Self) -> Vec<Write<Self>> {
        let mut disk = Self::new(before.bytes.clone());
        let mut writes = Vec::new();
        for (offset, bytes) in &self.log {
            let mut after = disk.clone();
            after.put(*offset, bytes);
            let torn = disk.mixed_with(&after);
            writes.push(Write { before: disk, torn, after: after.clone() });
            disk = after;
        }
        writes
    }

    /// Each sector from here or from there.
    fn mixed_with(&self, after: &Self) -> Vec<Self> {
        assert_eq!(self.bytes.len(), after.bytes.len());
        let sectors = self.bytes.chunks(SECTOR).zip(after.bytes.chunks(SECTOR));
        let changed: Vec<usize> =
            sectors.enumerate().filter(|(_, (old, new))| old != new).map(|(at, _)| at * SECTOR).collect();
        assert!(changed.len() <= 8, "more mixtures than can be looked at");
        let mixture = |mask: usize| {
            let mut mixed = self.clone();
            for (_, offset) in changed.iter().enumerate().filter(|(at, _)| mask & (1 << at) != 0) {
                let end = (offset + SECTOR).min(after.bytes.len());
                mixed.put(*offset, &after.bytes[*offset..end]);
            }
            mixed
        };
        (0..1 << changed.len()).map(mixture).collect()
    }
}

/// A write, and every state that a power cut in it can leave.
pub(super) struct Write<T> {
    pub(super) before: T,
    pub(super) torn: Vec<T>,
    pub(super) after: T,
}

impl<T> Write<T> {
    pub(super) fn map<U>(self, make: impl Fn(T) -> U) -> Write<U> {
        let torn = self.torn.into_iter().map(&make).collect();
        Write { before: make(self.before), torn, after: make(self.after) }
    }
}

impl Medium for Disk {
    type Error = Error;
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> Result<(), Error> {
        for (at, byte) in buffer.iter_mut().enumerate() {
            *byte = self.bytes.get(offset as usize + at).copied().unwrap_or(0);
        }
        Ok(())
    }
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> Result<(), Error> {
        self.put(offset as usize, bytes);
        self.log.push((offset as usize, bytes.to_vec()));
        Ok(())
    }
    fn flush(&mut self) -> Result<(), Error> {
        Ok(())
    }
}

/// Firmware variables, and every state they went through.
#[derive(Debug, Clone, Default)]
pub(super) struct Vars {
    pub(super) now: BTreeMap<String, Vec<u8>>,
    pub(super) log: Vec<BTreeMap<String, Vec<u8>>>,
}

impl Vars {
    /// Each state in its log, from the one before it. None is torn.
    pub(super) fn writes(&self) -> Vec<Write<Self>> {
        let state = |now: &BTreeMap<_, _>| Self { now: now.clone(), log: Vec::new() };
        let pairs = self.log.iter().zip(self.log.iter().skip(1));
        pairs.map(|(old, new)| Write { before: state(old), torn: Vec::new(), after: state(new) }).collect()
    }

    pub(super) fn take(&mut self, name: &str) -> Option<Vec<u8>> {
        self.now.remove(name)
    }
}

impl VarStore for Vars {
    type Error = Error;
    fn names(&self, _: &str) -> Result<Vec<String>, Error> {
        Ok(self.now.keys().cloned().collect())
    }
    fn read(&self, name: &str, _: &str) -> Result<Option<Vec<u8>>, Error> {
        Ok(self.now.get(name).cloned())
    }
    fn write(&mut self, name: &str, _: &str, value: &[u8]) -> Result<(), Error> {
        self.now.insert(name.to_owned(), value.to_vec());
        self.log.push(self.now.clone());
        Ok(())
    }
    fn remove(&mut self, name: &str, _: &str) -> Result<(), Error> {
        self.now.remove(name);
        self.log.push(self.now.clone());
        Ok(())
    }
}
