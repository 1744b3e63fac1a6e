//! The GUID partition table: reading it, the backup when the first is damaged, and making the damaged copy anew ([`mend()`]).
//!
//! Source: UEFI 2.10, 5.3. Our own few lines, because a disk that somebody plugged in must neither crash process 1 nor keep it busy:
//! every number is checked before it is used. Deliberately absent: changing what a table says, and the disk itself, which is a
//! closure that fills a buffer from an offset.

mod mend;

pub use mend::{Mended, mend};

use crate::{
    efi::Partition,
    error::{Error, Result},
    limits::{MAX_PARTITION_ENTRY_BYTES, MAX_PARTITIONS},
};

const STRUCTURE: &str = "partition table";
const HEADER_BYTES: usize = 92;
const MIN_ENTRY_BYTES: u32 = 128;

/// One partition as the table has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Number, from 1.
    pub number: u32,
    /// Unique GUID, in the table's mixed-endian order.
    pub guid: [u8; 16],
    /// First block.
    pub first_lba: u64,
    /// Blocks.
    pub blocks: u64,
    /// Name.
    pub name: String,
}

/// Fills the buffer from a byte offset of the disk.
pub type ReadAt<'a, E> = dyn FnMut(u64, &mut [u8]) -> Result<(), E> + 'a;

impl Entry {
    /// As the firmware's boot entries name it.
    #[must_use]
    pub fn partition(&self) -> Partition {
        Partition { number: self.number, first_lba: self.first_lba, blocks: self.blocks, guid: self.guid }
    }
}

/// Reads the table of a disk of `disk_bytes` bytes in blocks of `block_bytes`; no entries when there is none.
///
/// The first copy counts, else the one that its header names, if that is whole, else the one in the last block. The second of these
/// is the backup of an image that was written to a larger disk. The outer error is the disk's and comes only when no copy could be
/// read; the inner one says that all are damaged.
pub fn read<E>(
    disk_bytes: u64,
    block_bytes: u64,
    read_at: &mut ReadAt<'_, E>,
) -> Result<Result<Vec<Entry>>, E> {
    let Some(disk) = Disk::of(disk_bytes, block_bytes) else { return Ok(Ok(Vec::new())) };
    let First { header, table } = First::read(disk, read_at);
    let (mut damage, mut unread) = (None, None);
    let mut places = backup_places(disk, header.as_ref()).into_iter();
    let mut copy = Some(table);
    while let Some(this) = copy {
        match this {
            Ok(table) => return Ok(Ok(table.entries())),
            Err(Flaw::NoTable) => (),
            Err(Flaw::Damaged(detail)) => damage = Some(detail),
            Err(Flaw::Unread(error)) => unread = Some(error),
        }
        copy = places.next().map(|lba| Table::read(disk, lba, read_at));
    }
    match (damage, unread) {
        (Some(detail), _) => Ok(Err(Error::malformed(STRUCTURE, detail))),
        (None, Some(error)) => Err(error),
        (None, None) => Ok(Ok(Vec::new())),
    }
}

/// The usual text of a GUID in mixed-endian order, lower case.
#[must_use]
pub fn guid_text(guid: &[u8; 16]) -> String {
    let [a, b, c, d, e, f, g, h, rest @ ..] = *guid;
    let digits = hex::encode([&[d, c, b, a, f, e, h, g][..], &rest].concat());
    let part = |from, to| digits.get(from..to).unwrap_or_default();
    [part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32)].join("-")
}

/// The size of a disk that has room for a table.
#[derive(Debug, Clone, Copy)]
struct Disk {
    bytes: u64,
    block_bytes: u64,
}

impl Disk {
    fn of(bytes: u64, block_bytes: u64) -> Option<Self> {
        (matches!(block_bytes, 512..=65536) && bytes / block_bytes >= 3)
            .then_some(Self { bytes, block_bytes })
    }

    fn last_lba(self) -> u64 {
        self.bytes / self.block_bytes - 1
    }
}

enum Flaw<E> {
    NoTable,
    Damaged(&'static str),
    Unread(E),
}

/// The copy in block 1; its header may be whole where its entries are not.
struct First<E> {
    header: Option<Header>,
    table: Result<Table, Flaw<E>>,
}

impl<E> First<E> {
    fn read(disk: Disk, read_at: &mut ReadAt<'_, E>) -> Self {
        match Header::read(disk, 1, read_at) {
            Ok(header) => Self { header: Some(header), table: header.table(disk, read_at) },
            Err(flaw) => Self { header: None, table: Err(flaw) },
        }
    }
}

/// Where a backup may be: the block that the first header names, then the last block.
fn backup_places(disk: Disk, first: Option<&Header>) -> Vec<u64> {
    let last = disk.last_lba();
    let named = first.map(Header::other_lba).filter(|lba| *lba > 1 && *lba < last);
    named.into_iter().chain([last]).collect()
}

/// A header whose checksum fits, with numbers in their bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Header([u8; HEADER_BYTES]);

impl Header {
    fn read<E>(disk: Disk, lba: u64, read_at: &mut ReadAt<'_, E>) -> Result<Self, Flaw<E>> {
        let mut header = [0; HEADER_BYTES];
        read_at(lba.saturating_mul(disk.block_bytes), &mut header).map_err(Flaw::Unread)?;
        if !header.starts_with(b"EFI PART") {
            return Err(Flaw::NoTable);
        }
        let this = Self(header);
        if u32_at(&header, 12) as usize != HEADER_BYTES {
            return Err(Flaw::Damaged("its header has an unknown length"));
        }
        if this.crc() != u32_at(&header, 16) || this.lba() != lba {
            return Err(Flaw::Damaged("checksum of its header does not match"));
        }
        if this.rows() > MAX_PARTITIONS
            || !(MIN_ENTRY_BYTES..=MAX_PARTITION_ENTRY_BYTES).contains(&this.row_bytes())
        {
            return Err(Flaw::Damaged("it has too many or too large entries"));
        }
        Ok(this)
    }

    /// Of the header without itself.
    fn crc(&self) -> u32 {
        let mut unsigned = self.0;
        if let Some(crc) = unsigned.get_mut(16..20) {
            crc.fill(0);
        }
        crc32fast::hash(&unsigned)
    }

    fn lba(&self) -> u64 {
        u64_at(&self.0, 24)
    }

    fn other_lba(&self) -> u64 {
        u64_at(&self.0, 32)
    }

    fn rows_lba(&self) -> u64 {
        u64_at(&self.0, 72)
    }

    fn rows(&self) -> u32 {
        u32_at(&self.0, 80)
    }

    fn row_bytes(&self) -> u32 {
        u32_at(&self.0, 84)
    }

    fn table<E>(self, disk: Disk, read_at: &mut ReadAt<'_, E>) -> Result<Table, Flaw<E>> {
        let bytes = u64::from(self.rows()) * u64::from(self.row_bytes());
        let offset = self.rows_lba().checked_mul(disk.block_bytes);
        let Some(offset) = offset.filter(|at| at.checked_add(bytes).is_some_and(|end| end <= disk.bytes))
        else {
            return Err(Flaw::Damaged("its entries lie outside"));
        };
        let mut rows = vec![0; bytes as usize];
        read_at(offset, &mut rows).map_err(Flaw::Unread)?;
        if crc32fast::hash(&rows) != u32_at(&self.0, 88) {
            return Err(Flaw::Damaged("checksum of its entries does not match"));
        }
        Ok(Table { header: self, rows })
    }
}

/// A copy that is whole.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Table {
    header: Header,
    rows: Vec<u8>,
}

impl Table {
    fn read<E>(disk: Disk, lba: u64, read_at: &mut ReadAt<'_, E>) -> Result<Self, Flaw<E>> {
        Header::read(disk, lba, read_at)?.table(disk, read_at)
    }

    fn entries(&self) -> Vec<Entry> {
        let rows = self.rows.chunks_exact(self.header.row_bytes() as usize);
        (1..).zip(rows).filter_map(|(number, row)| parse_entry(number, row)).collect()
    }
}

fn parse_entry(number: u32, row: &[u8]) -> Option<Entry> {
    if row.get(..16)?.iter().all(|byte| *byte == 0) {
        return None;
    }
    let guid = row.get(16..32)?.try_into().ok()?;
    let (first_lba, last_lba) = (u64_at(row, 32), u64_at(row, 40));
    let blocks = last_lba.checked_sub(first_lba)?.checked_add(1)?;
    let units: Vec<u16> = row
        .get(56..128)?
        .chunks_exact(2)
        .map(|pair| pair.iter().rev().fold(0, |unit, byte| (unit << 8) | u16::from(*byte)))
        .take_while(|unit| *unit != 0)
        .collect();
    Some(Entry { number, guid, first_lba, blocks, name: String::from_utf16_lossy(&units) })
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|four| four.try_into().ok()).map_or(0, u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|eight| eight.try_into().ok()).map_or(0, u64::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn never_panics(mut disk in proptest::collection::vec(any::<u8>(), 1536..4096), crc in any::<bool>()) {
            disk[512..520].copy_from_slice(b"EFI PART");
            disk[524..528].copy_from_slice(&92u32.to_le_bytes());
            disk[536..544].copy_from_slice(&1u64.to_le_bytes());
            if crc {
                disk[528..532].fill(0);
                let crc = crc32fast::hash(&disk[512..604]).to_le_bytes();
                disk[528..532].copy_from_slice(&crc);
            }
            let bytes = disk.len() as u64;
            let _ = read::<()>(bytes, 512, &mut |offset, buffer| {
                let from = disk.get(offset as usize..).and_then(|rest| rest.get(..buffer.len())).ok_or(())?;
                buffer.copy_from_slice(from);
                Ok(())
            });
        }
    }
}
