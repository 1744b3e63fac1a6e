//! The images of the banks as block devices or regular files. A regular file is created when missing, grows as needed, and ends
//! up with exactly the bytes of the image.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{File, OpenOptions},
    io::{self, Seek, SeekFrom},
    os::unix::fs::{FileExt, FileTypeExt},
    path::PathBuf,
};

use bank_format::{Bank, PerBank};

use crate::{
    linux,
    ports::{Access, BankDisk, ImageFile, Room},
};

/// Both banks, by the paths of the configuration.
#[derive(Debug, Clone)]
pub struct PathDisk {
    paths: PerBank<BTreeMap<String, PathBuf>>,
}

impl PathDisk {
    /// Image names and where they are.
    #[must_use]
    pub fn new(paths: PerBank<BTreeMap<String, PathBuf>>) -> Self {
        Self { paths }
    }

    fn path(&self, bank: Bank, image: &str) -> io::Result<&PathBuf> {
        self.paths.get(bank).get(image).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }
}

impl BankDisk for PathDisk {
    fn images(&self, bank: Bank) -> BTreeSet<String> {
        self.paths.get(bank).keys().cloned().collect()
    }

    fn room(&self, bank: Bank, image: &str) -> io::Result<Room> {
        let path = self.path(bank, image)?;
        match std::fs::metadata(path) {
            Ok(found) if found.file_type().is_block_device() => {
                Ok(Room::Fixed { bytes: File::open(path)?.seek(SeekFrom::End(0))? })
            }
            Ok(found) if found.is_file() => Ok(Room::Grows),
            Ok(_) => Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{} is neither a block device nor a regular file", path.display()),
            )),
            // A lost device node must not become a regular file in a file system made of memory.
            Err(error) if error.kind() == io::ErrorKind::NotFound && linux::may_create(path) => {
                Ok(Room::Grows)
            }
            Err(error) => Err(error),
        }
    }

    fn open(&self, bank: Bank, image: &str, access: Access) -> io::Result<Box<dyn ImageFile>> {
        let path = self.path(bank, image)?;
        let file = match access {
            Access::Read => File::open(path)?,
            Access::Write => match OpenOptions::new().read(true).write(true).open(path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound && linux::may_create(path) => {
                    let file = OpenOptions::new().read(true).write(true).create_new(true).open(path)?;
                    // Without it a power cut could leave a bank that the record calls written and no directory knows.
                    linux::sync_directory_of(path)?;
                    file
                }
                other => other?,
            },
        };
        let block_device = file.metadata()?.file_type().is_block_device();
        Ok(Box::new(PathImage { file, block_device, poisoned: false }))
    }
}

struct PathImage {
    file: File,
    block_device: bool,
    /// After a failed write or flush the kernel may have dropped what was dirty: a later flush would lie.
    poisoned: bool,
}

impl PathImage {
    fn guarded<T>(&mut self, deed: impl FnOnce(&File) -> io::Result<T>) -> io::Result<T> {
        if self.poisoned {
            return Err(io::Error::other("closed after a failed write"));
        }
        let result = deed(&self.file);
        self.poisoned = result.is_err();
        result
    }
}

impl ImageFile for PathImage {
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        match self.file.read_at(buffer, offset) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => self.file.read_at(buffer, offset),
            other => other,
        }
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.guarded(|file| file.write_all_at(bytes, offset))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.guarded(File::sync_all)
    }

    fn forget_cached(&mut self) -> io::Result<()> {
        if self.block_device {
            linux::flush_block_buffers(&self.file)?;
        }
        linux::drop_page_cache(&self.file)
    }

    fn set_bytes(&mut self, bytes: u64) -> io::Result<()> {
        if self.block_device { Ok(()) } else { self.guarded(|file| file.set_len(bytes)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_created_grown_and_cut_to_size() {
        let dir = tempfile::tempdir().unwrap();
        let paths = |name: &str| BTreeMap::from([("root".to_owned(), dir.path().join(name))]);
        let disk = PathDisk::new(PerBank { a: paths("a"), b: paths("b") });
        assert_eq!(disk.room(Bank::A, "root").unwrap(), Room::Grows);
        assert!(disk.room(Bank::A, "boot").is_err());
        assert!(disk.open(Bank::A, "root", Access::Read).is_err());
        let mut image = disk.open(Bank::A, "root", Access::Write).unwrap();
        image.write_at(5000, b"hello").unwrap();
        image.set_bytes(5003).unwrap();
        image.flush().unwrap();
        image.forget_cached().unwrap();
        let mut buffer = [1; 8];
        assert_eq!(image.read_at(4998, &mut buffer).unwrap(), 5);
        assert_eq!(&buffer[..5], b"\0\0hel");
        assert_eq!(std::fs::metadata(dir.path().join("a")).unwrap().len(), 5003);
    }

    #[test]
    fn a_device_node_that_is_lost_is_not_created() {
        let paths = |name: &str| BTreeMap::from([("root".to_owned(), PathBuf::from(name))]);
        let disk = PathDisk::new(PerBank { a: paths("/dev/roro-none-a"), b: paths("/dev/roro-none-b") });
        assert!(disk.room(Bank::A, "root").is_err());
        assert!(disk.open(Bank::A, "root", Access::Write).is_err());
    }
}
