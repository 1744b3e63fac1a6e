//! The partition table of a disk, read by the rules of [`bank_format::gpt`].

use std::{
    fs::File,
    io::{Seek as _, SeekFrom},
    os::unix::fs::FileExt as _,
    path::Path,
};

pub use bank_format::gpt::{Entry, guid_text};

use crate::error::{Error, Result};

/// Reads the table of a disk; no entries when there is none.
pub fn read(disk: &Path, block_bytes: u64) -> Result<Vec<Entry>> {
    let mut file = File::open(disk).map_err(Error::io("open", disk))?;
    let disk_bytes = file.seek(SeekFrom::End(0)).map_err(Error::io("measure", disk))?;
    bank_format::gpt::read(disk_bytes, block_bytes, &mut |offset, buffer| file.read_exact_at(buffer, offset))
        .map_err(Error::io("read the partition table of", disk))?
        .map_err(|source| Error::PartitionTable { disk: disk.display().to_string(), source })
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
