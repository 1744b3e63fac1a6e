//! Fault model: sectors that rot to other bytes or cannot be read any more, an image on a larger disk, and a power cut behind each
//! sector of a write. A sector that cannot be read heals when it is written, as drives do.

use std::{collections::BTreeSet, io::Cursor};

use proptest::prelude::*;

use super::*;
use crate::gpt::{Entry, read};

const BLOCK: usize = 512;
const IMAGE_BLOCKS: usize = 2048;
const DISK_BLOCKS: usize = 3000;

#[derive(Clone)]
struct Drive {
    bytes: Vec<u8>,
    unreadable: BTreeSet<usize>,
    /// Sectors that are still written before the power goes.
    left: usize,
    written: Vec<usize>,
}

impl Medium for Drive {
    type Error = &'static str;

    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> Result<(), Self::Error> {
        let from = offset as usize;
        if (from / BLOCK..(from + buffer.len()).div_ceil(BLOCK)).any(|lba| self.unreadable.contains(&lba)) {
            return Err("input/output error");
        }
        buffer.copy_from_slice(&self.bytes[from..][..buffer.len()]);
        Ok(())
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> Result<(), Self::Error> {
        for (lba, sector) in (offset as usize / BLOCK..).zip(bytes.chunks_exact(BLOCK)) {
            self.left = self.left.checked_sub(1).ok_or("the power went")?;
            self.bytes[lba * BLOCK..][..BLOCK].copy_from_slice(sector);
            self.unreadable.remove(&lba);
            self.written.push(lba);
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Self::Error> {
        Ok(())
    }
}

impl Drive {
    /// An image by another implementation, written to a larger disk.
    fn larger_than_its_image() -> Self {
        let mut image = Cursor::new(vec![0; IMAGE_BLOCKS * BLOCK]);
        let mbr = ::gpt::mbr::ProtectiveMBR::with_lb_size(IMAGE_BLOCKS as u32 - 1);
        mbr.overwrite_lba0(&mut image).unwrap();
        let config =
            ::gpt::GptConfig::new().writable(true).logical_block_size(::gpt::disk::LogicalBlockSize::Lb512);
        let mut table = config.create_from_device(&mut image, None).unwrap();
        for name in ["boot-a", "record"] {
            table.add_partition(name, 40 * 512, ::gpt::partition_types::LINUX_FS, 0, None).unwrap();
        }
        table.write().unwrap();
        let mut bytes = image.into_inner();
        bytes[..440].fill(0x90);
        bytes.resize(DISK_BLOCKS * BLOCK, 0);
        Self { bytes, unreadable: BTreeSet::new(), left: usize::MAX, written: Vec::new() }
    }

    fn mended() -> Self {
        let mut drive = Self::larger_than_its_image();
        assert_eq!(drive.boots(), [Mended::Backup, Mended::Primary, Mended::Whole]);
        drive
    }

    fn mend(&mut self) -> Result<Mended> {
        mend(self, (DISK_BLOCKS * BLOCK) as u64, 512).unwrap()
    }

    /// What each boot does, until there is nothing to do.
    fn boots(&mut self) -> Vec<Mended> {
        let mut deeds = Vec::new();
        while deeds.last() != Some(&Mended::Whole) && deeds.len() < 5 {
            deeds.push(self.mend().unwrap());
        }
        deeds
    }

    fn names(&mut self) -> Vec<Entry> {
        let bytes = self.bytes.len() as u64;
        read(bytes, 512, &mut |offset, buffer| self.read_at(offset, buffer)).unwrap().unwrap()
    }

    /// By the other implementation: only this copy is looked at.
    fn is_whole_for_others(&self) -> bool {
        let open = |bytes: Vec<u8>| {
            let config = ::gpt::GptConfig::new().only_valid_headers(true);
            config.open_from_device(Cursor::new(bytes)).is_ok_and(|table| table.partitions().len() == 2)
        };
        let mut without_first = self.bytes.clone();
        without_first[512..34 * BLOCK].fill(0);
        let config = ::gpt::GptConfig::new();
        let second = config.open_from_device(Cursor::new(without_first));
        open(self.bytes.clone()) && second.is_ok_and(|table| table.partitions().len() == 2)
    }
}

#[test]
fn the_backup_of_an_image_on_a_larger_disk_moves_to_its_end() {
    let mut drive = Drive::larger_than_its_image();
    let before = drive.clone().names();
    assert!(!drive.is_whole_for_others());
    assert_eq!(drive.mend().unwrap(), Mended::Backup);
    assert_eq!(
        drive.written,
        (DISK_BLOCKS - 33..DISK_BLOCKS).collect::<Vec<_>>(),
        "the first copy is not touched"
    );
    drive.written.clear();
    assert_eq!(drive.mend().unwrap(), Mended::Primary);
    assert_eq!(drive.written, [1], "only its header");
    assert_eq!(drive.mend().unwrap(), Mended::Whole);
    assert_eq!(drive.names(), before);
    assert!(drive.is_whole_for_others());
}

#[test]
fn a_rotten_first_copy_is_written_from_the_backup() {
    let whole = Drive::mended();
    let entries = whole.clone().names();
    let garbled = |from: usize, to: usize| {
        let mut drive = whole.clone();
        drive.bytes[from..to].iter_mut().for_each(|byte| *byte ^= 0xa5);
        drive
    };
    let unreadable = |lbas: std::ops::Range<usize>| Drive { unreadable: lbas.collect(), ..whole.clone() };
    for (what, mut drive, code_survives) in [
        ("its header", garbled(512, 1024), true),
        ("its entries", garbled(1024, 1030), true),
        ("the MBR", garbled(400, 512), false),
        ("a sector", unreadable(1..2), true),
        ("a sector of 4096 bytes", unreadable(0..8), false),
    ] {
        assert_eq!(drive.clone().names(), entries, "{what}");
        drive.written.clear();
        assert_eq!(drive.mend().unwrap(), Mended::Primary, "{what}");
        assert_eq!(drive.written, (0..34).collect::<Vec<_>>(), "{what}");
        assert_eq!(drive.mend().unwrap(), Mended::Whole, "{what}");
        assert!(drive.bytes[512..] == whole.bytes[512..], "{what}");
        assert_eq!(drive.bytes[..440] == whole.bytes[..440], code_survives, "{what}");
        assert!(drive.is_whole_for_others(), "{what}");
    }
}

#[test]
fn a_rotten_backup_is_written_from_the_first_copy() {
    let whole = Drive::mended();
    for at in [(DISK_BLOCKS - 1) * BLOCK, (DISK_BLOCKS - 33) * BLOCK + 20] {
        let mut drive = whole.clone();
        drive.bytes[at] ^= 1;
        assert_eq!(drive.mend().unwrap(), Mended::Backup);
        assert!(drive.bytes == whole.bytes);
    }
}

#[test]
fn rotten_entries_on_a_larger_disk_are_read_where_the_header_says() {
    let mut drive = Drive::larger_than_its_image();
    let entries = drive.names();
    drive.bytes[1030] ^= 1;
    assert_eq!(drive.names(), entries);
    assert_eq!(drive.boots(), [Mended::Backup, Mended::Primary, Mended::Whole]);
    assert_eq!(drive.names(), entries);
}

#[test]
fn a_table_of_an_earlier_life_at_the_end_of_the_disk_does_not_count() {
    let mut drive = Drive::larger_than_its_image();
    let entries = drive.names();
    let stranger = Drive::mended();
    let from = (DISK_BLOCKS - 33) * BLOCK;
    drive.bytes[from..].copy_from_slice(&stranger.bytes[from..]);
    assert_ne!(stranger.clone().names(), entries, "numbers are drawn by lot");
    drive.bytes[1030] ^= 1;
    assert_eq!(drive.boots(), [Mended::Backup, Mended::Primary, Mended::Whole]);
    assert_eq!(drive.names(), entries);
}

#[test]
fn power_cut_behind_each_sector_leaves_a_table_and_is_completed() {
    let whole = Drive::mended();
    let mut moved = Drive::larger_than_its_image();
    moved.bytes[(DISK_BLOCKS - 33) * BLOCK..].fill(0xff);
    let mut rotten = whole.clone();
    rotten.unreadable = (0..8).collect();
    for (mut start, sectors) in [(moved, 33), (rotten, 34)] {
        let entries = start.names();
        for cut in 0..sectors {
            let mut drive = Drive { left: cut, ..start.clone() };
            assert!(mend(&mut drive, (DISK_BLOCKS * BLOCK) as u64, 512).is_err());
            drive.left = usize::MAX;
            assert_eq!(drive.names(), entries, "{cut}");
            assert_eq!(drive.boots().last(), Some(&Mended::Whole), "{cut}");
            assert_eq!(drive.names(), entries, "{cut}");
        }
    }
}

#[test]
fn what_is_not_a_tables_is_not_overwritten() {
    let mut variables = Drive::larger_than_its_image();
    variables.bytes[(DISK_BLOCKS - 20) * BLOCK..][..4].copy_from_slice(b"env=");
    let told = variables.mend().unwrap_err().to_string();
    assert!(told.contains("the end of the disk") && variables.written.is_empty(), "{told}");

    let mut partition = Drive::larger_than_its_image();
    partition.bytes.truncate((IMAGE_BLOCKS - 33) * BLOCK);
    let bytes = partition.bytes.len() as u64;
    assert_eq!(mend(&mut partition, bytes, 512).unwrap().unwrap(), Mended::Backup, "a smaller disk");
    let mut partition = Drive::larger_than_its_image();
    let end = partition.names()[1].first_lba + 40;
    assert!(mend(&mut partition, (end + 20) * 512, 512).unwrap().is_err(), "a partition lies there");

    // `sgdisk -j`: a boot ROM's loader lies at block 16, and the entries behind it.
    let mut board = Drive::mended();
    board.bytes[512..34 * BLOCK].fill(0x5a);
    let at = (DISK_BLOCKS - 1) * BLOCK;
    board.bytes[at + 40..at + 48].copy_from_slice(&66u64.to_le_bytes());
    board.bytes[at + 16..at + 20].fill(0);
    let crc = crc32fast::hash(&board.bytes[at..at + 92]).to_le_bytes();
    board.bytes[at + 16..at + 20].copy_from_slice(&crc);
    board.written.clear();
    let told = board.mend().unwrap_err().to_string();
    assert!(told.contains("cannot be told where") && board.written.is_empty(), "{told}");

    // Entries of the first copy far behind their header, where the backup belongs.
    let mut far = Drive::larger_than_its_image();
    let at = DISK_BLOCKS - 50;
    far.bytes.copy_within(2 * BLOCK..34 * BLOCK, at * BLOCK);
    far.bytes[512 + 72..512 + 80].copy_from_slice(&(at as u64).to_le_bytes());
    far.bytes[512 + 16..512 + 20].fill(0);
    let crc = crc32fast::hash(&far.bytes[512..512 + 92]).to_le_bytes();
    far.bytes[512 + 16..512 + 20].copy_from_slice(&crc);
    let told = far.mend().unwrap_err().to_string();
    assert!(told.contains("upon each other") && far.written.is_empty(), "{told}");

    let mut empty = Drive::mended();
    empty.bytes.fill(0);
    empty.written.clear();
    assert_eq!((empty.mend().unwrap(), empty.written.len()), (Mended::NoTable, 0));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn whatever_rots_in_one_copy_the_partitions_stay(
        second in any::<bool>(),
        rot in proptest::collection::vec((0..33 * BLOCK, 1u8..), 1..9),
    ) {
        let mut drive = Drive::mended();
        let entries = drive.names();
        let from = if second { (DISK_BLOCKS - 33) * BLOCK } else { BLOCK };
        for (at, flips) in rot {
            drive.bytes[from + at] ^= flips;
        }
        prop_assert_eq!(drive.names(), entries.clone());
        while drive.mend().unwrap() != Mended::Whole {
            prop_assert_eq!(drive.names(), entries.clone());
        }
        prop_assert!(drive.is_whole_for_others());
        prop_assert_eq!(drive.names(), entries);
    }
}
