//! The place of a partition as the firmware's boot entries name it: number, blocks and GUID, from sysfs and the GPT
//! (UEFI 2.10, 5.3). The kernel has checked the table; here the entry must agree with what the kernel made of it.

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use bank_format::efi::Partition;

fn bad(detail: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, detail.into())
}

fn number<T: std::str::FromStr>(path: &Path) -> io::Result<T> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))?;
    text.trim().parse().map_err(|_| bad(format!("{} is no number", path.display())))
}

/// The partition behind a device node or a link to one.
pub fn partition_of(node: &Path) -> io::Result<Partition> {
    let device = std::fs::canonicalize(node)
        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", node.display())))?;
    let name = device.file_name().ok_or_else(|| bad("a device without a name"))?;
    let sys = std::fs::canonicalize(Path::new("/sys/class/block").join(name))?;
    let disk_sys = sys.parent().ok_or_else(|| bad("a partition without a disk"))?;
    let disk_name = disk_sys.file_name().ok_or_else(|| bad("a disk without a name"))?;
    let block_bytes: u64 = number(&disk_sys.join("queue/logical_block_size"))?;
    let partition_number: u32 = number(&sys.join("partition"))?;
    let start_sectors: u64 = number(&sys.join("start"))?;
    let disk: PathBuf = Path::new("/dev").join(disk_name);
    let found = read_entry(&File::open(disk)?, block_bytes, partition_number)?;
    // sysfs counts in 512-byte sectors, whatever the disk does.
    if found.first_lba.checked_mul(block_bytes) == start_sectors.checked_mul(512) {
        Ok(found)
    } else {
        Err(bad(format!("partition {partition_number} lies elsewhere than its table says: reboot first")))
    }
}

/// Entry `partition_number` (from 1) of the GPT of a disk.
fn read_entry(disk: &File, block_bytes: u64, partition_number: u32) -> io::Result<Partition> {
    let mut header = [0; 92];
    disk.read_exact_at(&mut header, block_bytes)?;
    let u64_at = |bytes: &[u8], at: usize| {
        let field = bytes.get(at..at + 8).and_then(|field| <[u8; 8]>::try_from(field).ok());
        field.map(u64::from_le_bytes).ok_or_else(|| bad("a table that is cut short"))
    };
    if header.get(..8) != Some(b"EFI PART") {
        return Err(bad("the disk has no GUID partition table"));
    }
    let entries_lba = u64_at(&header, 72)?;
    // Number and size of the entries: two 32-bit fields.
    let counts = u64_at(&header, 80)?;
    let (count, entry_bytes) = (counts & 0xffff_ffff, counts >> 32);
    if partition_number == 0 || u64::from(partition_number) > count || !(128..=4096).contains(&entry_bytes) {
        return Err(bad(format!("the partition table has no entry {partition_number}")));
    }
    let offset = entries_lba
        .checked_mul(block_bytes)
        .and_then(|start| start.checked_add(u64::from(partition_number - 1) * entry_bytes))
        .ok_or_else(|| bad("a table beyond 64 bits"))?;
    let mut entry = [0; 128];
    disk.read_exact_at(&mut entry, offset)?;
    let first_lba = u64_at(&entry, 32)?;
    let last_lba = u64_at(&entry, 40)?;
    let blocks = last_lba.checked_sub(first_lba).and_then(|blocks| blocks.checked_add(1));
    let guid = entry.get(16..32).and_then(|guid| <[u8; 16]>::try_from(guid).ok());
    match (blocks, guid) {
        (Some(blocks), Some(guid)) if first_lba > 0 => {
            Ok(Partition { number: partition_number, first_lba, blocks, guid })
        }
        _ => Err(bad(format!("entry {partition_number} of the partition table is empty"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(block_bytes: usize) -> Vec<u8> {
        let mut disk = vec![0; block_bytes * 40];
        disk[block_bytes..block_bytes + 8].copy_from_slice(b"EFI PART");
        disk[block_bytes + 72] = 2;
        disk[block_bytes + 80] = 128;
        disk[block_bytes + 84] = 128;
        let second = block_bytes * 2 + 128;
        disk[second + 16..second + 32].fill(0xab);
        disk[second + 33] = 8;
        disk[second + 41] = 9;
        disk
    }

    #[test]
    fn entries_are_found_on_disks_of_any_block_size() {
        for block_bytes in [512, 4096] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("disk");
            std::fs::write(&path, table(block_bytes)).unwrap();
            let disk = File::open(&path).unwrap();
            let found = read_entry(&disk, block_bytes as u64, 2).unwrap();
            assert_eq!(found, Partition { number: 2, first_lba: 2048, blocks: 257, guid: [0xab; 16] });
            for wrong in [0, 1, 129] {
                assert!(read_entry(&disk, block_bytes as u64, wrong).is_err(), "{wrong}");
            }
        }
    }
}
