//! Looking at a machine's disk from outside, while it is off: partitions by name, their digests, a flipped bit.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom, Write},
    path::Path,
};

use bank_format::fat;
use gpt::{GptConfig, disk::LogicalBlockSize};
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};

/// Where a partition lies in the disk file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// First byte.
    pub offset: u64,
    /// Length in bytes.
    pub bytes: u64,
}

/// Finds a partition by its name.
pub fn partition(disk: &Path, name: &str) -> Result<Extent> {
    let read = |error: io::Error| Error::io("read the partition table of", disk)(error);
    let table = GptConfig::new()
        .writable(false)
        .logical_block_size(LogicalBlockSize::Lb512)
        .open(disk)
        .map_err(|error| read(io::Error::other(error)))?;
    let block = LogicalBlockSize::Lb512;
    let found = table.partitions().values().find(|partition| partition.name == name);
    let extent = found.and_then(|partition| {
        let offset = partition.bytes_start(block).ok()?;
        Some(Extent { offset, bytes: partition.bytes_len(block).ok()? })
    });
    extent
        .ok_or_else(|| read(io::Error::new(io::ErrorKind::NotFound, format!("no partition is named {name}"))))
}

/// Finds a file on the FAT file system in a partition: the space that it has.
pub fn file_on_fat(disk: &Path, name: &str, path: &str) -> Result<Extent> {
    let within = partition(disk, name)?;
    let mut file = File::open(disk).map_err(Error::io("open", disk))?;
    let read = |offset: u64, buffer: &mut [u8]| -> io::Result<()> {
        file.seek(SeekFrom::Start(within.offset.saturating_add(offset)))?;
        file.read_exact(buffer)
    };
    let found = fat::find_file(read, path)
        .map_err(|error| Error::io("look into the file system of", disk)(io::Error::other(error)))?;
    Ok(Extent { offset: within.offset.saturating_add(found.offset_bytes), bytes: found.space_bytes })
}

/// SHA-256 of a partition, hexadecimal.
pub fn digest(disk: &Path, name: &str) -> Result<String> {
    let extent = partition(disk, name)?;
    let mut file = File::open(disk).map_err(Error::io("open", disk))?;
    file.seek(SeekFrom::Start(extent.offset)).map_err(Error::io("seek in", disk))?;
    let mut hasher = Sha256::new();
    let mut bytes = vec![0_u8; 1 << 20];
    let mut rest = file.take(extent.bytes);
    loop {
        let count = rest.read(&mut bytes).map_err(Error::io("read", disk))?;
        match bytes.get(..count) {
            Some(piece) if count > 0 => hasher.update(piece),
            _ => return Ok(hex::encode(hasher.finalize())),
        }
    }
}

/// The bytes of an extent; it must be a small one.
pub fn read(disk: &Path, extent: Extent) -> Result<Vec<u8>> {
    let read = || -> io::Result<Vec<u8>> {
        let mut file = File::open(disk)?;
        file.seek(SeekFrom::Start(extent.offset))?;
        let mut bytes = Vec::new();
        file.take(extent.bytes).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    read().map_err(Error::io("read", disk))
}

/// Writes into a disk that is there.
pub fn write(disk: &Path, offset: u64, bytes: &[u8]) -> Result<()> {
    let write = || -> io::Result<()> {
        let mut file = File::options().write(true).open(disk)?;
        file.seek(SeekFrom::Start(offset))?;
        file.write_all(bytes)
    };
    write().map_err(Error::io("write into", disk))
}

/// Where the first window of `window_bytes` bytes in an extent begins that is looked for.
pub fn find(disk: &Path, within: Extent, is_it: impl Fn(&[u8]) -> bool, window_bytes: usize) -> Result<u64> {
    let bytes = read(disk, within)?;
    let found = bytes.windows(window_bytes).position(is_it);
    let at = found.and_then(|at| within.offset.checked_add(at as u64));
    at.ok_or_else(|| Error::io("find in", disk)(io::ErrorKind::NotFound.into()))
}

/// Flips the lowest bit of one byte of a file.
pub fn flip_bit(file: &Path, offset: u64) -> Result<()> {
    let flip = || -> io::Result<()> {
        let mut file = File::options().read(true).write(true).open(file)?;
        let mut byte = [0_u8; 1];
        file.seek(SeekFrom::Start(offset))?;
        file.read_exact(&mut byte)?;
        file.seek(SeekFrom::Start(offset))?;
        file.write_all(&byte.map(|value| value ^ 1))
    };
    flip().map_err(Error::io("flip a bit of", file))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_bit_is_flipped_and_flipped_back() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("bytes");
        std::fs::write(&file, [0, 2, 4]).unwrap();
        flip_bit(&file, 1).unwrap();
        assert_eq!(std::fs::read(&file).unwrap(), [0, 3, 4]);
        flip_bit(&file, 1).unwrap();
        assert_eq!(std::fs::read(&file).unwrap(), [0, 2, 4]);
        assert!(flip_bit(&file, 3).is_err());
    }
}
