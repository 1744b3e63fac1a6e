//! Both copies of a table as they ought to be: the first behind a protective MBR, the backup in the last block of the disk.
//!
//! An image that was written to a larger disk has its backup somewhere in the middle, where neither firmware nor Linux looks for it
//! once the first copy is damaged (UEFI 2.10, 5.3.2; `block/partitions/efi.c` of Linux). One call writes one copy, from another one
//! that it has just read and found whole, and never writes that one: a power cut leaves what it began with. What a call has written is
//! believed when the next boot has read it from the drive. Partitions are never changed, and bytes at the end of the disk that are no
//! table's are not overwritten: a loader may have its variables there.

use super::{Disk, First, HEADER_BYTES, Header, STRUCTURE, Table, backup_places, u64_at};
use crate::{
    error::{Error, Result},
    record::Medium,
};

/// First entry, type and signature of an MBR; what comes before is code for a BIOS.
const MBR_ENTRIES: usize = 446;
/// Block of the first entries, unless a header says otherwise.
const ROWS_LBA: u64 = 2;

/// What was found, and done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mended {
    /// There is no table at all.
    NoTable,
    /// Both copies are whole and where they belong.
    Whole,
    /// The backup was written to the end of the disk.
    Backup,
    /// The first copy was written.
    Primary,
}

/// Makes one copy anew, if one is damaged or the backup is not at the end of the disk; flushed when it returns.
///
/// The outer error is the medium's, the inner one says why nothing was written.
pub fn mend<M: Medium>(
    medium: &mut M,
    disk_bytes: u64,
    block_bytes: u64,
) -> Result<Result<Mended>, M::Error> {
    let Some(disk) = Disk::of(disk_bytes, block_bytes) else { return Ok(Ok(Mended::NoTable)) };
    let read_at = &mut |offset, buffer: &mut [u8]| medium.read_at(offset, buffer);
    let First { header, table } = First::read(disk, read_at);
    let primary = table.ok();
    let mut whole = primary.clone();
    let mut last = None;
    for lba in backup_places(disk, header.as_ref()) {
        last = Table::read(disk, lba, read_at).ok();
        whole = whole.or_else(|| last.clone());
    }
    let Some(good) = whole else { return Ok(Ok(Mended::NoTable)) };
    let backup_there = last.filter(|last| last.says_the_same(&good) && last.header.other_lba() == 1);
    let (stays, planned) = if let Some(backup) = backup_there {
        let mbr = read_mbr(disk, medium);
        let planned = match (&primary, mbr) {
            (Some(primary), Mbr::Whole(_)) if primary.header.other_lba() == disk.last_lba() => {
                return Ok(Ok(Mended::Whole));
            }
            (Some(primary), Mbr::Whole(_)) => Ok(pointed_at_the_end(disk, primary)),
            (_, Mbr::Whole(mbr) | Mbr::Damaged(mbr)) => first_copy(disk, &good, header, mbr, medium),
        };
        (backup, planned)
    } else {
        let planned = backup(disk, &good, header, medium);
        (good, planned)
    };
    let Plan { offset, bytes, mended } = match planned.and_then(|plan| plan.beside(disk, &stays)) {
        Ok(plan) => plan,
        Err(refusal) => return Ok(Err(refusal)),
    };
    medium.write_at(offset, &bytes)?;
    medium.flush()?;
    Ok(Ok(mended))
}

/// One write.
struct Plan {
    offset: u64,
    bytes: Vec<u8>,
    mended: Mended,
}

impl Plan {
    /// Refuses to write upon the copy that stays: torn, neither would be whole.
    fn beside(self, disk: Disk, stays: &Table) -> Result<Self> {
        let end = self.offset.saturating_add(self.bytes.len() as u64);
        let lies_in = |lba: u64, bytes: u64| {
            let from = lba.saturating_mul(disk.block_bytes);
            from < end && self.offset < from.saturating_add(bytes)
        };
        let header = &stays.header;
        if lies_in(header.lba(), disk.block_bytes) || lies_in(header.rows_lba(), stays.rows.len() as u64) {
            return Err(refusal("its copies would lie upon each other"));
        }
        Ok(self)
    }
}

enum Mbr {
    Whole(Vec<u8>),
    Damaged(Vec<u8>),
}

fn read_mbr<M: Medium>(disk: Disk, medium: &mut M) -> Mbr {
    let mut block = vec![0; disk.block_bytes as usize];
    // Its code has no second copy: one misread must not cost it.
    let read = medium.read_at(0, &mut block).or_else(|_| medium.read_at(0, &mut block));
    if read.is_ok() && block.get(510..512) == Some(&[0x55, 0xaa]) {
        return Mbr::Whole(block);
    }
    if read.is_err() {
        block.fill(0);
    }
    // UEFI 2.10, 5.2.3: one entry of type 0xee over the whole disk, from block 1 on.
    let blocks = u32::try_from(disk.last_lba()).unwrap_or(u32::MAX);
    let mut entries = vec![0, 0, 2, 0, 0xee, 0xff, 0xff, 0xff, 1, 0, 0, 0];
    entries.extend(blocks.to_le_bytes());
    entries.resize(64, 0);
    entries.extend([0x55, 0xaa]);
    if let Some(place) = block.get_mut(MBR_ENTRIES..512) {
        place.copy_from_slice(&entries);
    }
    Mbr::Damaged(block)
}

/// The first copy is whole, and only its header names another place: one block.
fn pointed_at_the_end(disk: Disk, primary: &Table) -> Plan {
    let bytes = primary.header_block(disk, 1, disk.last_lba(), primary.header.rows_lba());
    Plan { offset: disk.block_bytes, bytes, mended: Mended::Primary }
}

/// All from the MBR to the last entry, in one write: a sector that cannot be read is written as a whole, else the kernel would
/// have to read the rest of it.
fn first_copy<M: Medium>(
    disk: Disk,
    good: &Table,
    header: Option<Header>,
    mbr: Vec<u8>,
    medium: &mut M,
) -> Result<Plan> {
    let rows = good.row_blocks(disk);
    let end = ROWS_LBA.saturating_add(rows.len() as u64 / disk.block_bytes);
    let mut there = vec![0; good.header.row_bytes() as usize];
    let read = medium.read_at(ROWS_LBA.saturating_mul(disk.block_bytes), &mut there);
    // Some boards have code of their ROM close behind the header, and the entries behind that.
    let proven = match header {
        Some(header) => header.rows_lba() == ROWS_LBA,
        None => good.first_usable() == end || (read.is_ok() && good.rows.starts_with(&there)),
    };
    if !proven || good.first_used() < end {
        return Err(refusal("it cannot be told where the entries of its first copy lie"));
    }
    let mut bytes = mbr;
    bytes.extend(good.header_block(disk, 1, disk.last_lba(), ROWS_LBA));
    bytes.extend(rows);
    Ok(Plan { offset: 0, bytes, mended: Mended::Primary })
}

fn backup<M: Medium>(disk: Disk, good: &Table, first: Option<Header>, medium: &mut M) -> Result<Plan> {
    let mut bytes = good.row_blocks(disk);
    let rows_lba = disk.last_lba().saturating_sub(bytes.len() as u64 / disk.block_bytes);
    if good.last_used() >= rows_lba {
        return Err(refusal("a partition ends where its backup belongs"));
    }
    bytes.extend(good.header_block(disk, disk.last_lba(), 1, rows_lba));
    let offset = rows_lba.saturating_mul(disk.block_bytes);
    // Our own place, if the first copy says so.
    if first.is_some_and(|header| header.other_lba() == disk.last_lba()) {
        return Ok(Plan { offset, bytes, mended: Mended::Backup });
    }
    let mut there = vec![0; bytes.len()];
    let read = medium.read_at(offset, &mut there);
    let block_bytes = disk.block_bytes as usize;
    let is_table =
        there.chunks(block_bytes).next_back().is_some_and(|header| header.starts_with(b"EFI PART"));
    // A write of ours that a power cut has torn leaves both.
    let is_blank =
        |block: &[u8]| block.iter().all(|byte| *byte == 0) || block.iter().all(|byte| *byte == 0xff);
    let mut blocks = there.chunks(block_bytes).zip(bytes.chunks(block_bytes));
    let is_free = blocks.all(|(there, ours)| there == ours || is_blank(there));
    // What cannot be read is lost to its owner as well.
    if read.is_err() || is_table || is_free {
        return Ok(Plan { offset, bytes, mended: Mended::Backup });
    }
    Err(refusal(
        "the end of the disk, where its backup belongs, has other content: `sgdisk -e` moves the backup there",
    ))
}

fn refusal(detail: &'static str) -> Error {
    Error::malformed(STRUCTURE, detail)
}

impl Table {
    fn says_the_same(&self, other: &Self) -> bool {
        let told = |table: &Self| {
            let header = &table.header;
            (header.0.get(56..72).map(<[u8]>::to_vec), header.rows(), header.row_bytes())
        };
        told(self) == told(other) && self.rows == other.rows
    }

    fn first_usable(&self) -> u64 {
        u64_at(&self.header.0, 40)
    }

    fn first_used(&self) -> u64 {
        self.entries().iter().map(|entry| entry.first_lba).min().unwrap_or(u64::MAX)
    }

    /// The last block that a partition has.
    fn last_used(&self) -> u64 {
        let end = |entry: &super::Entry| entry.first_lba.saturating_add(entry.blocks).saturating_sub(1);
        self.entries().iter().map(end).max().unwrap_or(0)
    }

    /// The entries, filled up to whole blocks.
    fn row_blocks(&self, disk: Disk) -> Vec<u8> {
        let mut rows = self.rows.clone();
        rows.resize(rows.len().next_multiple_of(disk.block_bytes as usize), 0);
        rows
    }

    /// A block with the header of a copy that lies elsewhere.
    fn header_block(&self, disk: Disk, lba: u64, other_lba: u64, rows_lba: u64) -> Vec<u8> {
        let mut header = self.header;
        let blocks = self.row_blocks(disk).len() as u64 / disk.block_bytes;
        let last_usable = disk.last_lba().saturating_sub(blocks).saturating_sub(1);
        let last_usable = last_usable.min(u64_at(&header.0, 48));
        for (at, value) in [(24, lba), (32, other_lba), (48, last_usable), (72, rows_lba)] {
            put(&mut header.0, at, &value.to_le_bytes());
        }
        let crc = header.crc();
        put(&mut header.0, 16, &crc.to_le_bytes());
        let mut block = header.0.to_vec();
        block.resize(disk.block_bytes as usize, 0);
        block
    }
}

fn put(header: &mut [u8; HEADER_BYTES], at: usize, bytes: &[u8]) {
    if let Some(place) = header.get_mut(at..at + bytes.len()) {
        place.copy_from_slice(bytes);
    }
}

#[cfg(test)]
mod tests;
