//! A device, or a part of one, as a `Medium`: plain reads and writes, and a flush that reaches the drive.

use std::{
    fs::{File, OpenOptions},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use bank_format::record::Medium;

use crate::error::{Error, Result};

/// The opened device, from an offset on.
#[derive(Debug)]
pub struct DeviceMedium {
    file: File,
    path: PathBuf,
    start_bytes: u64,
}

impl DeviceMedium {
    /// Opens all of a device for reading and writing.
    pub fn open(path: &Path) -> Result<Self> {
        Self::open_from(path, 0)
    }

    /// Opens a device for reading and writing; what is here at 0 lies at `start_bytes` there.
    pub fn open_from(path: &Path, start_bytes: u64) -> Result<Self> {
        let file = OpenOptions::new().read(true).write(true).open(path).map_err(Error::io("open", path))?;
        Ok(Self { file, path: path.to_path_buf(), start_bytes })
    }
}

impl Medium for DeviceMedium {
    type Error = Error;

    fn read_at(&mut self, offset: u64, mut buffer: &mut [u8]) -> Result<()> {
        let mut at = self.start_bytes.saturating_add(offset);
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
                Err(error) => return Err(Error::io("read", &self.path)(error)),
            }
        }
        Ok(())
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        let at = self.start_bytes.saturating_add(offset);
        self.file.write_all_at(bytes, at).map_err(Error::io("write", &self.path))
    }

    /// `fsync` on a block device writes its pages out and sends the drive a flush
    /// (<https://docs.kernel.org/block/writeback_cache_control.html>).
    fn flush(&mut self) -> Result<()> {
        self.file.sync_all().map_err(Error::io("flush", &self.path))
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
        let open = || Store::open(DeviceMedium::open(file.path()).unwrap()).unwrap();
        let (mut store, loaded) = open();
        assert_eq!(loaded, Loaded::Blank);
        let record = Record::founded_on(Bank::B, None, BTreeMap::new());
        store.commit(&record).unwrap();
        assert_eq!(open().1, Loaded::Record(Box::new(record)));
    }

    #[test]
    fn a_part_of_a_device_begins_where_it_begins() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), b"0123456789").unwrap();
        let mut part = DeviceMedium::open_from(file.path(), 4).unwrap();
        let mut bytes = [0; 2];
        part.read_at(1, &mut bytes).unwrap();
        assert_eq!(&bytes, b"56");
        part.write_at(2, b"x").unwrap();
        part.flush().unwrap();
        assert_eq!(std::fs::read(file.path()).unwrap(), b"012345x789");
    }
}
