//! The place of a partition as the firmware's boot entries name it: number, blocks and GUID, from sysfs and the GPT
//! (UEFI 2.10, 5.3). The kernel has checked the table; here the entry must agree with what the kernel made of it.

use std::{
    fs::File,
    io::{self, Seek as _, SeekFrom},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use bank_format::{efi::Partition, gpt};

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
fn read_entry(mut disk: &File, block_bytes: u64, partition_number: u32) -> io::Result<Partition> {
    let disk_bytes = disk.seek(SeekFrom::End(0))?;
    let entries =
        gpt::read(disk_bytes, block_bytes, &mut |offset, buffer| disk.read_exact_at(buffer, offset))?
            .map_err(|error| bad(error.to_string()))?;
    entries
        .iter()
        .find(|entry| entry.number == partition_number)
        .map(gpt::Entry::partition)
        .ok_or_else(|| bad(format!("the partition table has no entry {partition_number}")))
}
