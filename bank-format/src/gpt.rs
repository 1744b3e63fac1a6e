//! The GUID partition table: reading it, the backup when the first is damaged.
//!
//! Source: UEFI 2.10, 5.3. Our own few lines, because a disk that somebody plugged in must neither crash process 1 nor keep it busy:
//! every number is checked before it is used. Deliberately absent: writing, the protective MBR, and the disk itself, which is a
//! closure that fills a buffer from an offset.

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
/// The outer error is the disk's and comes only when neither table could be read; the inner one says that both are damaged.
pub fn read<E>(
    disk_bytes: u64,
    block_bytes: u64,
    read_at: &mut ReadAt<'_, E>,
) -> Result<Result<Vec<Entry>>, E> {
    if !matches!(block_bytes, 512..=65536) || disk_bytes / block_bytes < 3 {
        return Ok(Ok(Vec::new()));
    }
    let mut damage = None;
    let mut unread = None;
    for lba in [1, disk_bytes / block_bytes - 1] {
        match read_table(disk_bytes, block_bytes, lba, read_at) {
            Ok(Ok(entries)) => return Ok(Ok(entries)),
            Ok(Err(Flaw::NoTable)) => (),
            Ok(Err(Flaw::Damaged(detail))) => damage = Some(detail),
            Err(error) => unread = Some(error),
        }
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

enum Flaw {
    NoTable,
    Damaged(&'static str),
}

fn read_table<E>(
    disk_bytes: u64,
    block_bytes: u64,
    lba: u64,
    read_at: &mut ReadAt<'_, E>,
) -> Result<Result<Vec<Entry>, Flaw>, E> {
    let mut header = [0; HEADER_BYTES];
    read_at(lba.saturating_mul(block_bytes), &mut header)?;
    let table = match parse_header(&header, lba) {
        Ok(table) => table,
        Err(flaw) => return Ok(Err(flaw)),
    };
    let bytes = u64::from(table.entries) * u64::from(table.entry_bytes);
    let offset = table.first_lba.checked_mul(block_bytes);
    let Some(offset) = offset.filter(|at| at.checked_add(bytes).is_some_and(|end| end <= disk_bytes)) else {
        return Ok(Err(Flaw::Damaged("its entries lie outside")));
    };
    let mut entries = vec![0; bytes as usize];
    read_at(offset, &mut entries)?;
    if crc32fast::hash(&entries) != table.crc {
        return Ok(Err(Flaw::Damaged("checksum of its entries does not match")));
    }
    let rows = entries.chunks_exact(table.entry_bytes as usize);
    Ok(Ok((1..).zip(rows).filter_map(|(number, row)| parse_entry(number, row)).collect()))
}

struct Table {
    first_lba: u64,
    entries: u32,
    entry_bytes: u32,
    crc: u32,
}

fn parse_header(header: &[u8; HEADER_BYTES], lba: u64) -> Result<Table, Flaw> {
    if !header.starts_with(b"EFI PART") {
        return Err(Flaw::NoTable);
    }
    if u32_at(header, 12) as usize != HEADER_BYTES {
        return Err(Flaw::Damaged("its header has an unknown length"));
    }
    let mut unsigned = *header;
    if let Some(crc) = unsigned.get_mut(16..20) {
        crc.fill(0);
    }
    if crc32fast::hash(&unsigned) != u32_at(header, 16) || u64_at(header, 24) != lba {
        return Err(Flaw::Damaged("checksum of its header does not match"));
    }
    let table = Table {
        first_lba: u64_at(header, 72),
        entries: u32_at(header, 80),
        entry_bytes: u32_at(header, 84),
        crc: u32_at(header, 88),
    };
    if table.entries > MAX_PARTITIONS
        || !(MIN_ENTRY_BYTES..=MAX_PARTITION_ENTRY_BYTES).contains(&table.entry_bytes)
    {
        return Err(Flaw::Damaged("it has too many or too large entries"));
    }
    Ok(table)
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
