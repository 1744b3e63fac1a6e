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

/// A partition as the kernel shows it.
#[derive(Debug)]
pub struct Shown {
    /// The disk that it is on.
    pub disk: PathBuf,
    /// Bytes of a block of that disk.
    pub block_bytes: u64,
    number: u32,
    start_sectors: u64,
}

/// The partition behind a device node or a link to one.
pub fn partition_of(node: &Path) -> io::Result<Partition> {
    shown(node)?.entry()
}

/// What the kernel says of the partition behind a device node or a link to one.
pub fn shown(node: &Path) -> io::Result<Shown> {
    let device = std::fs::canonicalize(node)
        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", node.display())))?;
    let name = device.file_name().ok_or_else(|| bad("a device without a name"))?;
    let sys = std::fs::canonicalize(Path::new("/sys/class/block").join(name))?;
    let disk_sys = sys.parent().ok_or_else(|| bad("a partition without a disk"))?;
    let disk_name = disk_sys.file_name().ok_or_else(|| bad("a disk without a name"))?;
    Ok(Shown {
        number: number(&sys.join("partition"))?,
        start_sectors: number(&sys.join("start"))?,
        block_bytes: number(&disk_sys.join("queue/logical_block_size"))?,
        disk: Path::new("/dev").join(disk_name),
    })
}

impl Shown {
    /// Its entry in the table, which must agree with the kernel.
    pub fn entry(&self) -> io::Result<Partition> {
        let found = read_entry(&File::open(&self.disk)?, self.block_bytes, self.number)?;
        // sysfs counts in 512-byte sectors, whatever the disk does.
        if found.first_lba.checked_mul(self.block_bytes) == self.start_sectors.checked_mul(512) {
            Ok(found)
        } else {
            Err(bad(format!("partition {} lies elsewhere than its table says: reboot first", self.number)))
        }
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
