//! The record partition as a `Medium`: plain reads and writes, and a flush that reaches the drive.

use std::{
    fs::{File, OpenOptions},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use bank_format::record::Medium;

use crate::error::{Error, Result};

/// The opened partition.
#[derive(Debug)]
pub struct RecordPartition {
    file: File,
    path: PathBuf,
}

impl RecordPartition {
    /// Opens the partition for reading and writing.
    pub fn open(path: &Path) -> Result<Self> {
        let file =
            OpenOptions::new().read(true).write(true).open(path).map_err(Error::io("open record", path))?;
        Ok(Self { file, path: path.to_path_buf() })
    }
}

impl Medium for RecordPartition {
    type Error = Error;

    fn read_at(&mut self, offset: u64, mut buffer: &mut [u8]) -> Result<()> {
        let mut at = offset;
        while !buffer.is_empty() {
            match self.file.read_at(buffer, at) {
                Ok(0) => {
                    buffer.fill(0);
                    return Ok(());
                }
                Ok(bytes) => {
                    at = at.saturating_add(bytes as u64);
                    buffer = buffer.get_mut(bytes..).unwrap_or_default();
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => (),
                Err(error) => return Err(Error::io("read record", &self.path)(error)),
            }
        }
        Ok(())
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        self.file.write_all_at(bytes, offset).map_err(Error::io("write record", &self.path))
    }

    /// `fsync` on a block device writes its pages out and sends the drive a flush
    /// (<https://docs.kernel.org/block/writeback_cache_control.html>).
    fn flush(&mut self) -> Result<()> {
        self.file.sync_all().map_err(Error::io("flush record", &self.path))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use bank_format::{
        Bank,
        record::{Loaded, Record, Store},
    };

    use super::*;

    #[test]
    fn a_record_survives_on_a_medium_that_started_shorter() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let open = || Store::open(RecordPartition::open(file.path()).unwrap()).unwrap();
        let (mut store, loaded) = open();
        assert_eq!(loaded, Loaded::Blank);
        let record = Record::founded_on(Bank::B, None, BTreeMap::new());
        store.commit(&record).unwrap();
        assert_eq!(open().1, Loaded::Record(Box::new(record)));
    }
}
