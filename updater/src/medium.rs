//! A place on a partition or in a file, as a [`Medium`]: the record, and what boot loaders keep there.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::{FileExt, FileTypeExt},
    path::Path,
};

use bank_format::record::Medium;

use crate::{linux, ports::Access};

/// The bytes of a block device or a regular file, from some offset on. What lies behind the end reads as zeros.
#[derive(Debug)]
pub struct PathMedium {
    file: File,
    start_bytes: u64,
    access: Access,
}

impl PathMedium {
    /// Opens what must be there.
    pub fn open(path: &Path, access: Access) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(access == Access::Write).open(path)?;
        Self::of(file, access)
    }

    /// Opens for reading and writing. A missing file is created with this length, a missing device is an error.
    pub fn open_or_create(path: &Path, bytes: u64) -> io::Result<Self> {
        match Self::open(path, Access::Write) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && linux::may_create(path) => {
                let file = OpenOptions::new().read(true).write(true).create_new(true).open(path)?;
                file.set_len(bytes)?;
                file.sync_all()?;
                // Without it the first content could be lost with its directory entry; for a record, the floor with it.
                linux::sync_directory_of(path)?;
                Self::of(file, Access::Write)
            }
            other => other,
        }
    }

    /// Opens for reading only; nothing where a file is not there yet. A device that is not there is an error.
    pub fn open_if_present(path: &Path) -> io::Result<Option<Self>> {
        match Self::open(path, Access::Read) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && linux::may_create(path) => Ok(None),
            other => other.map(Some),
        }
    }

    fn of(file: File, access: Access) -> io::Result<Self> {
        let kind = file.metadata()?.file_type();
        if kind.is_block_device() || kind.is_file() {
            Ok(Self { file, start_bytes: 0, access })
        } else {
            Err(io::Error::new(io::ErrorKind::InvalidInput, "neither a block device nor a regular file"))
        }
    }

    /// The same medium, from here on.
    #[must_use]
    pub fn starting_at(self, start_bytes: u64) -> Self {
        Self { start_bytes, ..self }
    }

    fn place(&self, offset: u64) -> io::Result<u64> {
        self.start_bytes.checked_add(offset).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))
    }
}

impl Medium for PathMedium {
    type Error = io::Error;

    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let start = self.place(offset)?;
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.file.read_at(rest, start.saturating_add(filled as u64)) {
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
        if self.access == Access::Read {
            return Err(io::Error::from(io::ErrorKind::PermissionDenied));
        }
        self.file.write_all_at(bytes, self.place(offset)?)
    }

    /// fsync(2) on a block device also empties the drive's own cache.
    fn flush(&mut self) -> io::Result<()> {
        self.file.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_in_a_file_is_read_and_written_from_its_start() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("env");
        assert!(PathMedium::open(&path, Access::Write).is_err());
        assert!(PathMedium::open_if_present(&path).unwrap().is_none());
        let mut medium = PathMedium::open_or_create(&path, 100).unwrap().starting_at(90);
        medium.write_at(5, b"hello").unwrap();
        medium.flush().unwrap();
        assert_eq!(std::fs::read(&path).unwrap()[93..], *b"\0\0hello");
        let mut buffer = [1; 10];
        medium.read_at(7, &mut buffer).unwrap();
        assert_eq!(buffer, *b"llo\0\0\0\0\0\0\0", "behind the end are zeros");
        assert!(medium.read_at(u64::MAX, &mut buffer).is_err());
        let mut looked = PathMedium::open_if_present(&path).unwrap().unwrap();
        assert!(looked.write_at(0, b"x").is_err());
        assert!(PathMedium::open_or_create(Path::new("/dev/roro-none"), 1).is_err());
        assert!(PathMedium::open_if_present(Path::new("/dev/roro-none")).is_err());
        assert!(PathMedium::open(Path::new("/dev/null"), Access::Write).is_err());
    }
}
