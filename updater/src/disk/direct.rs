//! A device past its cache: an update must not push the appliance's own pages out, and a device is fastest with large transfers out of and into memory
//! that is in one piece. What is small, or no whole block, goes through the cache.

use std::{fs::File, io, os::unix::fs::FileExt};

use bank_format::verity::BLOCK_BYTES;

use super::BLOCK;
use crate::{
    limits::{DIRECT_BYTES, LEAST_DIRECT_BYTES, LEAST_DIRECT_READ_BYTES},
    pages::Pages,
};

/// Neighbouring writes, gathered until they are worth a write past the cache, which gathers the others as well.
pub struct Gathered {
    device: File,
    room: Pages,
    /// Where in the room they begin: as far behind a whole block as `offset` is.
    start: usize,
    bytes: usize,
    offset: u64,
    /// Whether the device takes such writes.
    works: bool,
}

impl Gathered {
    /// Nothing yet.
    pub fn new(device: File) -> Self {
        Self { device, room: Pages::new(), start: 0, bytes: 0, offset: 0, works: true }
    }

    /// Whether everything is written.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Takes bytes; writes what they do not belong to.
    pub fn write(&mut self, file: &File, mut offset: u64, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let is_full = self.start + self.bytes == DIRECT_BYTES;
            if self.bytes > 0 && (offset != self.offset + self.bytes as u64 || is_full) {
                self.spill(file)?;
            }
            if self.bytes == 0 {
                self.offset = offset;
                self.start = (offset % BLOCK) as usize;
            }
            let from = self.start + self.bytes;
            let (now, rest) = bytes.split_at(bytes.len().min(DIRECT_BYTES - from));
            if let Some(into) = self.room.bytes_mut().get_mut(from..from + now.len()) {
                into.copy_from_slice(now);
            }
            self.bytes += now.len();
            offset += now.len() as u64;
            bytes = rest;
        }
        Ok(())
    }

    /// Writes what was gathered.
    pub fn spill(&mut self, file: &File) -> io::Result<()> {
        let gathered = self.room.bytes().get(self.start..self.start + self.bytes).unwrap_or_default();
        let before = (self.offset.next_multiple_of(BLOCK) - self.offset).min(self.bytes as u64) as usize;
        let whole = (gathered.len() - before) / BLOCK_BYTES * BLOCK_BYTES;
        let (first, rest) = gathered.split_at(before);
        let (blocks, last) = rest.split_at(whole);
        let at = self.offset + before as u64;
        if self.works && blocks.len() >= LEAST_DIRECT_BYTES {
            match self.device.write_all_at(blocks, at) {
                // It wants larger blocks, or none at all.
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => self.works = false,
                other => other?,
            }
        }
        if !self.works || blocks.len() < LEAST_DIRECT_BYTES {
            file.write_all_at(blocks, at)?;
        }
        file.write_all_at(first, self.offset)?;
        file.write_all_at(last, at + whole as u64)?;
        self.bytes = 0;
        Ok(())
    }
}

/// Reads past the cache, with more behind them where one follows the other.
pub struct Ahead {
    device: File,
    room: Option<Pages>,
    /// What the room holds.
    offset: u64,
    bytes: usize,
    /// Bytes that were read at once the last time.
    at_once: usize,
    works: bool,
}

impl Ahead {
    /// Before the first read; the room is made when it is needed.
    pub fn new(device: File) -> Self {
        Self { device, room: None, offset: 0, bytes: 0, at_once: 0, works: true }
    }

    /// What the room holds is not what the device holds any more.
    pub fn forget(&mut self) {
        self.bytes = 0;
    }

    /// Reads some of the bytes, none only at the end. `None` if they are too few, or could not be read like that: then they are to be read through
    /// the cache. A bad place ahead of what is asked for is nobody's concern yet.
    pub fn read(&mut self, offset: u64, buffer: &mut [u8]) -> Option<usize> {
        if let Some(read) = self.held(offset, buffer) {
            return Some(read);
        }
        let is_aligned = |number: usize| number.is_multiple_of(BLOCK_BYTES);
        if !self.works || buffer.len() < LEAST_DIRECT_READ_BYTES {
            return None;
        }
        let fits = is_aligned(buffer.as_ptr() as usize) && is_aligned(buffer.len());
        if fits && offset.is_multiple_of(BLOCK) {
            let read = self.device.read_at(buffer, offset);
            return self.judged(read);
        }
        let at = offset / BLOCK * BLOCK;
        let wanted = ((offset - at) as usize + buffer.len()).next_multiple_of(BLOCK_BYTES);
        let end = self.offset + self.bytes as u64;
        let follows = self.bytes > 0 && offset >= end && offset - end <= self.at_once as u64 / 4;
        self.at_once = if follows { (2 * self.at_once).max(wanted) } else { wanted }.min(DIRECT_BYTES);
        let room = self.room.get_or_insert_with(Pages::new).bytes_mut();
        self.bytes = 0;
        let read = self.device.read_at(room.get_mut(..self.at_once).unwrap_or_default(), at);
        (self.offset, self.bytes) = (at, self.judged(read)?);
        Some(self.held(offset, buffer).unwrap_or(0))
    }

    fn held(&self, offset: u64, buffer: &mut [u8]) -> Option<usize> {
        let skip = usize::try_from(offset.checked_sub(self.offset)?).ok()?;
        let held = self.room.as_ref()?.bytes().get(..self.bytes)?.get(skip..)?;
        let bytes = held.len().min(buffer.len());
        buffer.get_mut(..bytes)?.copy_from_slice(held.get(..bytes)?);
        (bytes > 0).then_some(bytes)
    }

    fn judged(&mut self, read: io::Result<usize>) -> Option<usize> {
        // It wants larger blocks, or none at all.
        self.works = !matches!(&read, Err(error) if error.kind() == io::ErrorKind::InvalidInput);
        read.ok()
    }
}
