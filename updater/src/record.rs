//! The record on a partition or in a file, and what to do when there is none.

use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    io,
    os::unix::fs::{FileExt, FileTypeExt},
    path::Path,
};

use bank_format::{
    Bank, Release,
    record::{LastResult, Medium, Outcome, RECORD_BYTES, Record},
    release::Version,
};

use crate::linux;

/// 64 KiB of a partition or a file.
#[derive(Debug)]
pub struct RecordFile {
    file: File,
    writable: bool,
}

impl RecordFile {
    /// Opens for reading and writing; a missing file is created, a missing partition is an error.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = match OpenOptions::new().read(true).write(true).open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && linux::may_create(path) => {
                let file = OpenOptions::new().read(true).write(true).create_new(true).open(path)?;
                file.set_len(RECORD_BYTES as u64)?;
                file.sync_all()?;
                // Without it the first record could be lost with its directory entry, and the floor with it.
                linux::sync_directory_of(path)?;
                file
            }
            other => other?,
        };
        let kind = file.metadata()?.file_type();
        if kind.is_block_device() || kind.is_file() {
            Ok(Self { file, writable: true })
        } else {
            Err(io::Error::new(io::ErrorKind::InvalidInput, "neither a block device nor a regular file"))
        }
    }

    /// Opens for reading only. A missing file reads as blank.
    pub fn open_to_read(path: &Path) -> io::Result<Option<Self>> {
        match File::open(path) {
            Ok(file) => Ok(Some(Self { file, writable: false })),
            Err(error) if error.kind() == io::ErrorKind::NotFound && linux::may_create(path) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl Medium for RecordFile {
    type Error = io::Error;

    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.file.read_at(rest, offset + filled as u64) {
                Ok(0) => {
                    rest.fill(0);
                    break;
                }
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        if !self.writable {
            return Err(io::Error::from(io::ErrorKind::PermissionDenied));
        }
        self.file.write_all_at(bytes, offset)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.sync_all()
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;
    use bank_format::record::{Loaded, Store};

    #[test]
    fn a_missing_file_is_created_and_keeps_the_record() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("record.bin");
        assert!(RecordFile::open_to_read(&path).unwrap().is_none());
        let (mut store, loaded) = Store::open(RecordFile::open(&path).unwrap()).unwrap();
        assert_eq!(loaded, Loaded::Blank);
        let record = Record::founded_on(Bank::A, None, BTreeMap::new());
        store.commit(&record).unwrap();
        let (_, loaded) = Store::open(RecordFile::open_to_read(&path).unwrap().unwrap()).unwrap();
        assert_eq!(loaded, Loaded::Record(Box::new(record)));
        assert_eq!(std::fs::metadata(&path).unwrap().len(), RECORD_BYTES as u64);
        assert!(RecordFile::open(Path::new("/dev/roro-none")).is_err());
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
}
