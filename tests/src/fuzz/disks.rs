//! Disks that somebody else has written: the partition table, and where a file lies on a FAT.

#![expect(clippy::unwrap_used, reason = "what is unwrapped was promised")]

use bank_format::{
    fat::find_file,
    gpt::{Entry, Mended, guid_text, mend, read},
    limits::{MAX_FAT_CHAIN, MAX_FAT_ENTRIES, MAX_PARTITIONS},
    record::Medium as _,
};

use super::{Verdict, memory::Memory};

/// Blocks of a disk here: as many as there are parts of the bytes, within these bounds.
const LEAST_BLOCKS: usize = 12;
const MOST_BLOCKS: usize = 64;
/// Bytes that the beginning of a block is taken from.
const PART_BYTES: usize = 512;
const SIGNATURE: &[u8] = b"EFI PART";
const MAX_ENTRY_BYTES: u32 = 4096;

/// The bytes as a disk in blocks of 512 bytes, and as the beginnings of blocks of 4096; as they stand, and with the checksums of both
/// headers put right.
pub(super) fn gpt(bytes: &[u8]) -> Verdict {
    let mut verdict = Verdict::Refused;
    let blocks = bytes.len().div_ceil(PART_BYTES).clamp(LEAST_BLOCKS, MOST_BLOCKS);
    for block_bytes in [512, 4096] {
        let parts = bytes.chunks(PART_BYTES).flat_map(|part| Memory::of_bytes(part, block_bytes).bytes);
        let mut disk = Memory::of_bytes(&parts.collect::<Vec<_>>(), blocks * block_bytes);
        if !has_header(&disk, block_bytes, 1) && !has_header(&disk, block_bytes, blocks - 1) {
            continue;
        }
        verdict = verdict.or(mended(&disk, block_bytes));
        put_checksums_right(&mut disk, block_bytes);
        verdict = verdict.or(mended(&disk, block_bytes));
    }
    verdict
}

fn has_header(disk: &Memory, block_bytes: usize, lba: usize) -> bool {
    disk.bytes[lba * block_bytes..].starts_with(SIGNATURE)
}

fn put_checksums_right(disk: &mut Memory, block_bytes: usize) {
    for lba in [1, disk.bytes.len() / block_bytes - 1] {
        let at = lba * block_bytes;
        if !has_header(disk, block_bytes, lba) {
            continue;
        }
        let u32_at = |disk: &Memory, at: usize| u32::from_le_bytes(*disk.bytes[at..].first_chunk().unwrap());
        let rows_lba = u64::from_le_bytes(*disk.bytes[at + 72..].first_chunk().unwrap());
        let rows_bytes = u64::from(u32_at(disk, at + 80)) * u64::from(u32_at(disk, at + 84));
        let rows = usize::try_from(rows_lba).ok().and_then(|lba| lba.checked_mul(block_bytes));
        let rows = rows.and_then(|from| disk.bytes.get(from..)?.get(..usize::try_from(rows_bytes).ok()?));
        let crc = crc32fast::hash(rows.unwrap_or_default());
        disk.put(at + 88, &crc.to_le_bytes());
        disk.put(at + 12, &92u32.to_le_bytes());
        disk.put(at + 24, &(lba as u64).to_le_bytes());
        disk.put(at + 16, &[0; 4]);
        let crc = crc32fast::hash(&disk.bytes[at..at + 92]);
        disk.put(at + 16, &crc.to_le_bytes());
    }
}

/// The partitions of a disk; nothing where all copies are damaged.
fn entries(disk: &Memory, block_bytes: usize) -> Option<Vec<Entry>> {
    let mut disk = disk.clone();
    let (bytes, block_bytes) = (disk.bytes.len() as u64, block_bytes as u64);
    read(bytes, block_bytes, &mut |offset, buffer| {
        assert!(buffer.len() as u64 <= u64::from(MAX_PARTITIONS * MAX_ENTRY_BYTES), "a read without a bound");
        disk.read_at(offset, buffer)
    })
    .unwrap()
    .ok()
}

/// Mending changes no partition, whether its write is whole or torn, and comes to an end.
fn mended(disk: &Memory, block_bytes: usize) -> Verdict {
    let before = entries(disk, block_bytes);
    if let Some(entries) = &before {
        assert!(entries.len() <= MAX_PARTITIONS as usize);
        for entry in entries {
            assert!((1..=MAX_PARTITIONS).contains(&entry.number) && entry.blocks > 0);
            assert_eq!(guid_text(&entry.guid).len(), 36);
        }
    }
    let mut now = disk.clone();
    // One copy, the other copy, and nothing more to do.
    for round in 0..3 {
        let old = now.clone();
        now.writes.clear();
        let (bytes, block) = (now.bytes.len() as u64, block_bytes as u64);
        let result = mend(&mut now, bytes, block).unwrap();
        let Some((offset, written)) = now.writes.first().cloned() else {
            assert!(!matches!(result, Ok(Mended::Backup | Mended::Primary)), "said, and not done");
            return Verdict::of(&before.filter(|entries| !entries.is_empty()).ok_or(()));
        };
        assert!(matches!(result, Ok(Mended::Backup | Mended::Primary)), "written, and not said");
        assert_eq!(now.writes.len(), 1, "one call writes one copy");
        assert_eq!(entries(&now, block_bytes), before, "round {round}");
        check_outside(before.as_deref().unwrap_or_default(), block_bytes, offset, written.len());
        for torn_at in [512, 1024, written.len() / 1024 * 512, written.len() - 512] {
            let mut torn = old.clone();
            torn.put(offset, &written[..torn_at.min(written.len())]);
            assert_eq!(entries(&torn, block_bytes), before, "torn at {torn_at}");
        }
    }
    assert!(now.writes.is_empty(), "it is never mended");
    Verdict::Accepted
}

/// A write touches no block of a partition.
fn check_outside(entries: &[Entry], block_bytes: usize, offset: usize, length: usize) {
    let from = (offset / block_bytes) as u64;
    let to = from + (length / block_bytes) as u64;
    for entry in entries {
        let end = entry.first_lba.saturating_add(entry.blocks);
        assert!(end <= from || entry.first_lba >= to, "partition {} is written", entry.number);
    }
}

/// The bytes as a volume.
pub(super) fn fat(bytes: &[u8]) -> Verdict {
    let mut verdict = Verdict::Refused;
    for path in ["autoboot.txt", "efi/Linux/A long name of a file.efi"] {
        let mut reads = 0u32;
        let found = find_file(
            |offset, buffer: &mut [u8]| {
                reads += 1;
                assert!(buffer.len() <= 512, "a read without a bound");
                let from = usize::try_from(offset).ok().and_then(|offset| bytes.get(offset..));
                let from = from.and_then(|rest| rest.get(..buffer.len())).ok_or("beyond the end")?;
                buffer.copy_from_slice(from);
                Ok::<(), &str>(())
            },
            path,
        );
        let parts = path.split('/').count() as u32;
        assert!(reads <= 1 + parts * MAX_FAT_ENTRIES * 2 + MAX_FAT_CHAIN, "{reads} reads");
        if let Ok(extent) = &found {
            assert!(extent.offset_bytes >= 512 && extent.file_bytes <= extent.space_bytes);
            assert!(extent.offset_bytes.checked_add(extent.space_bytes).is_some());
        }
        verdict = verdict.or(Verdict::of(&found));
    }
    verdict
}
