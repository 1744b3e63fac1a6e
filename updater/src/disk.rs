//! The images of the banks as block devices or regular files. A regular file is created when missing, grows as needed, and ends
//! up with exactly the bytes of the image.

mod direct;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{File, OpenOptions},
    io::{self, Seek, SeekFrom},
    os::unix::fs::{FileExt, FileTypeExt},
    path::PathBuf,
};

use bank_format::{Bank, PerBank, verity::BLOCK_BYTES};

use crate::{
    linux,
    ports::{Access, BankDisk, ImageFile, Room},
};
use direct::{Ahead, Gathered};

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
        let direct = |access| block_device.then(|| linux::open_direct(path, access).ok()).flatten();
        let gathered = match access {
            Access::Write => direct(Access::Write).map(Gathered::new),
            Access::Read => None,
        };
        let ahead = direct(Access::Read).map(Ahead::new);
        Ok(Box::new(PathImage { file, block_device, gathered, ahead, poisoned: false }))
    }
}

struct PathImage {
    file: File,
    block_device: bool,
    /// How a device is written past its cache; none where it cannot be.
    gathered: Option<Gathered>,
    /// How it is read past its cache, likewise.
    ahead: Option<Ahead>,
    /// After a failed write or flush the kernel may have dropped what was dirty: a later flush would lie.
    poisoned: bool,
}

impl PathImage {
    fn guarded<T>(&mut self, deed: impl FnOnce(&mut Self) -> io::Result<T>) -> io::Result<T> {
        if self.poisoned {
            return Err(io::Error::other("closed after a failed write"));
        }
        if let Some(ahead) = &mut self.ahead {
            ahead.forget();
        }
        let result = deed(self);
        self.poisoned = result.is_err();
        result
    }

    fn spill(&mut self) -> io::Result<()> {
        match &mut self.gathered {
            Some(gathered) => gathered.spill(&self.file),
            None => Ok(()),
        }
    }
}

impl ImageFile for PathImage {
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        if self.gathered.as_ref().is_some_and(|gathered| !gathered.is_empty()) || self.poisoned {
            self.guarded(Self::spill)?;
        }
        if let Some(ahead) = &mut self.ahead
            && let Some(read) = ahead.read(offset, buffer)
        {
            return Ok(read);
        }
        match self.file.read_at(buffer, offset) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => self.file.read_at(buffer, offset),
            other => other,
        }
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.guarded(|image| match &mut image.gathered {
            Some(gathered) => gathered.write(&image.file, offset, bytes),
            None => image.file.write_all_at(bytes, offset),
        })
    }

    fn zero_at(&mut self, offset: u64, bytes: u64) -> io::Result<()> {
        static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
        self.guarded(|image| {
            image.spill()?;
            // Whole blocks without writing them, where the device or the file system can; then the rest, or all of it.
            let start = offset.next_multiple_of(BLOCK).min(offset + bytes);
            let end = ((offset + bytes) / BLOCK * BLOCK).max(start);
            let is_done = end > start && linux::zero_range(&image.file, start, end - start).is_ok();
            let (start, end) = if is_done { (start, end) } else { (offset, offset) };
            for (mut at, end) in [(offset, start), (end, offset + bytes)] {
                while at < end {
                    let part = ZEROS.get(..(end - at).min(ZEROS.len() as u64) as usize).unwrap_or_default();
                    image.file.write_all_at(part, at)?;
                    at += part.len() as u64;
                }
            }
            Ok(())
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        self.guarded(|image| {
            image.spill()?;
            image.file.sync_all()
        })
    }

    fn forget_cached(&mut self) -> io::Result<()> {
        if let Some(ahead) = &mut self.ahead {
            ahead.forget();
        }
        if self.block_device {
            linux::flush_block_buffers(&self.file)?;
        }
        linux::drop_page_cache(&self.file)
    }

    fn set_bytes(&mut self, bytes: u64) -> io::Result<()> {
        if self.block_device { Ok(()) } else { self.guarded(|image| image.file.set_len(bytes)) }
    }
}

const BLOCK: u64 = BLOCK_BYTES as u64;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{bank::fill, pages::Pages};

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

    /// A file stands for the device, and the file system for its way past the cache.
    #[test]
    fn writes_past_the_cache_are_as_if_they_went_through_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("device");
        let mut expected = vec![0; 9 << 20];
        std::fs::write(&path, &expected).unwrap();
        let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
        let direct = match linux::open_direct(&path, Access::Write) {
            Ok(direct) => direct,
            Err(error) if std::env::var_os("CI").is_some() => panic!("no file past the cache here: {error}"),
            Err(_) => return,
        };
        let ahead = linux::open_direct(&path, Access::Read).ok().map(Ahead::new);
        let gathered = Some(Gathered::new(direct));
        let mut image = PathImage { file, block_device: false, gathered, ahead, poisoned: false };
        let mut state = 1u64;
        let mut random = |below: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) as usize % below
        };
        let mut at = 0;
        for round in 0..400 {
            if random(3) == 0 {
                at = random(6 << 20);
            }
            let bytes = if random(2) == 0 { random(300) + 1 } else { random(1 << 20) + 1 };
            let bytes = bytes.min(expected.len() - at).max(1);
            if random(5) == 0 {
                image.zero_at(at as u64, bytes as u64).unwrap();
                expected[at..at + bytes].fill(0);
            } else {
                let content: Vec<u8> = (0..bytes).map(|n| (n + round) as u8).collect();
                image.write_at(at as u64, &content).unwrap();
                expected[at..at + bytes].copy_from_slice(&content);
            }
            at = (at + bytes).min(expected.len() - 1);
            if random(20) == 0 {
                let mut found = vec![1; if random(2) == 0 { 5000 } else { 3 << 20 }];
                let read = fill(&mut image, at as u64 / 2, &mut found).unwrap();
                assert_eq!(read, found.len());
                assert!(found == expected[at / 2..][..read]);
            }
        }
        // One read after the other, some of them right behind, some of what was just written; into memory that begins anywhere, or at a page.
        let mut room = Pages::new();
        let mut at = 0;
        while at < expected.len() - (1 << 20) {
            if random(10) == 0 {
                let content = vec![at as u8; random(100_000) + 1];
                image.write_at(at as u64 + 5000, &content).unwrap();
                expected[at + 5000..][..content.len()].copy_from_slice(&content);
            }
            let bytes = if random(2) == 0 { 20_000 + random(200_000) } else { 64 << 10 };
            let start = [0, 0, 0, 1, 512][random(5)];
            let into = room.bytes_mut().get_mut(start..start + bytes).unwrap();
            assert_eq!(fill(&mut image, at as u64, into).unwrap(), bytes);
            assert!(*into == expected[at..][..bytes], "{bytes} bytes at {at}");
            at = if random(2) == 0 { at + bytes } else { (at + bytes + random(20_000)) / 4096 * 4096 };
        }
        let mut end = vec![0; 100_000];
        assert_eq!(fill(&mut image, (9 << 20) - 70_000, &mut end).unwrap(), 70_000);
        image.flush().unwrap();
        assert!(std::fs::read(&path).unwrap() == expected);
    }

    #[test]
    fn what_cannot_be_read_past_the_cache_is_read_through_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("device");
        let expected: Vec<u8> = (0..3_000_000u32).map(|n| (n >> 3) as u8).collect();
        std::fs::write(&path, &expected).unwrap();
        // Every read of it fails.
        let ahead = Some(Ahead::new(OpenOptions::new().write(true).open(&path).unwrap()));
        let file = File::open(&path).unwrap();
        let mut image = PathImage { file, block_device: false, gathered: None, ahead, poisoned: false };
        for (at, bytes) in [(1, 200_000), (200_001, 200_000), (409_600, 2_000_000)] {
            let mut found = vec![0; bytes];
            assert_eq!(fill(&mut image, at as u64, &mut found).unwrap(), bytes);
            assert!(found == expected[at..][..bytes]);
        }
    }

    #[test]
    fn a_device_node_that_is_lost_is_not_created() {
        let paths = |name: &str| BTreeMap::from([("root".to_owned(), PathBuf::from(name))]);
        let disk = PathDisk::new(PerBank { a: paths("/dev/roro-none-a"), b: paths("/dev/roro-none-b") });
        assert!(disk.room(Bank::A, "root").is_err());
        assert!(disk.open(Bank::A, "root", Access::Write).is_err());
    }
}
