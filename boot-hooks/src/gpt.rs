//! Reads a GUID partition table, the backup when the first is damaged.
//!
//! Source: UEFI 2.10, 5.3. Our own few lines, because a disk that somebody plugged in must neither crash process 1 nor keep it busy:
//! every number is checked before it is used. Deliberately absent: writing, and the protective MBR.

use std::{
    fs::File,
    io::{self, Read as _, Seek as _, SeekFrom},
    path::Path,
};

use crate::{
    error::{Error, Result},
    limits::{MAX_PARTITION_ENTRY_BYTES, MAX_PARTITIONS},
};

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

/// Reads the table of a disk; no entries when there is none.
pub fn read(disk: &Path, block_bytes: u64) -> Result<Vec<Entry>> {
    let mut file = File::open(disk).map_err(Error::io("open", disk))?;
    let wrong = |detail| Error::PartitionTable { disk: disk.display().to_string(), detail };
    let disk_bytes = file.seek(SeekFrom::End(0)).map_err(Error::io("measure", disk))?;
    if !matches!(block_bytes, 512..=65536) || disk_bytes / block_bytes < 3 {
        return Ok(Vec::new());
    }
    let mut reason = None;
    for lba in [1, disk_bytes / block_bytes - 1] {
        match read_at(&mut file, lba, block_bytes) {
            Ok(Ok(entries)) => return Ok(entries),
            Ok(Err(Flaw::NoTable)) => (),
            Ok(Err(Flaw::Damaged(detail))) => reason = Some(detail),
            Err(error) => return Err(Error::io("read the partition table of", disk)(error)),
        }
    }
    reason.map_or_else(|| Ok(Vec::new()), |detail| Err(wrong(detail)))
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

fn read_at(file: &mut File, lba: u64, block_bytes: u64) -> io::Result<std::result::Result<Vec<Entry>, Flaw>> {
    let mut header = [0; HEADER_BYTES];
    file.seek(SeekFrom::Start(lba.saturating_mul(block_bytes)))?;
    file.read_exact(&mut header)?;
    let table = match parse_header(&header, lba) {
        Ok(table) => table,
        Err(flaw) => return Ok(Err(flaw)),
    };
    let Some(offset) = table.first_lba.checked_mul(block_bytes) else {
        return Ok(Err(Flaw::Damaged("its entries lie outside")));
    };
    let mut entries = vec![0; (table.entries as usize) * (table.entry_bytes as usize)];
    file.seek(SeekFrom::Start(offset))?;
    match file.read_exact(&mut entries) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            return Ok(Err(Flaw::Damaged("its entries lie outside")));
        }
        done => done?,
    }
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

fn parse_header(header: &[u8; HEADER_BYTES], lba: u64) -> std::result::Result<Table, Flaw> {
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
pub(crate) mod tests {
    use std::{io::Write as _, os::unix::fs::FileExt as _, path::PathBuf};

    use super::*;

    /// A disk of 1 MiB written by another implementation, with partitions of `blocks` blocks from 64 on.
    pub fn disk(dir: &Path, file: &str, names: &[(&str, u64)]) -> PathBuf {
        let path = dir.join(file);
        let mut image = File::create_new(&path).unwrap();
        image.set_len(1 << 20).unwrap();
        image.flush().unwrap();
        let mut table = gpt::GptConfig::new().writable(true).create(&path).unwrap();
        for (name, blocks) in names {
            table.add_partition(name, blocks * 512, gpt::partition_types::LINUX_FS, 0, None).unwrap();
        }
        table.write().unwrap();
        path
    }

    #[test]
    fn reads_what_another_implementation_wrote() {
        let dir = tempfile::tempdir().unwrap();
        let path = disk(dir.path(), "disk", &[("boot-a", 8), ("root-ä", 16)]);
        let theirs = gpt::GptConfig::new().open(&path).unwrap();
        let ours = read(&path, 512).unwrap();
        assert_eq!(ours.len(), 2);
        for entry in &ours {
            let other = &theirs.partitions()[&entry.number];
            assert_eq!(entry.name, other.name);
            assert_eq!(guid_text(&entry.guid), other.part_guid.to_string());
            assert_eq!(
                (entry.first_lba, entry.blocks),
                (other.first_lba, other.last_lba - other.first_lba + 1)
            );
        }
    }

    #[test]
    fn damage_falls_back_to_the_backup_then_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = disk(dir.path(), "disk", &[("boot-a", 8)]);
        let good = read(&path, 512).unwrap();
        let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        file.write_all_at(b"x", 1024 + 60).unwrap();
        assert_eq!(read(&path, 512).unwrap(), good);
        file.write_all_at(b"x", (1 << 20) - 512 + 20).unwrap();
        assert!(read(&path, 512).is_err());
        file.write_all_at(&[0; 512], 512).unwrap();
        file.write_all_at(&[0; 512], (1 << 20) - 512).unwrap();
        assert_eq!(read(&path, 512).unwrap(), []);
        file.set_len(100).unwrap();
        assert_eq!(read(&path, 512).unwrap(), []);
    }

    #[test]
    fn every_flipped_byte_of_both_tables_is_survived() {
        let dir = tempfile::tempdir().unwrap();
        let path = disk(dir.path(), "disk", &[("boot-a", 8)]);
        let good = read(&path, 512).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        for at in 512..1024 + 256 {
            let mut bad = bytes.clone();
            bad[at] ^= 0x40;
            std::fs::write(&path, &bad).unwrap();
            assert_eq!(read(&path, 512).unwrap(), good, "{at}");
        }
    }
}
