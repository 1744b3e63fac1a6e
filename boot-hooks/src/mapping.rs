//! Block devices over other block devices: the verified root, and a bank's boot image where it is a file in the ESP.
//!
//! systemd-boot starts `EFI/Linux/roro-a.efi` and `roro-b.efi`: files of fixed size that are never renamed, moved or resized. Over the
//! exact space of each lies a device, which the agent overwrites like any boot partition; the file system around it is never
//! written, so it cannot be torn. The kernel holds the ESP for these devices: nobody else mounts it.

use std::{
    os::unix::fs::FileTypeExt as _,
    path::{Path, PathBuf},
};

use bank_format::{Bank, fat::Extent};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};

use crate::{
    disk::Partition,
    error::{Error, Result},
    linux::{
        Access,
        device_mapper::{self, Wanted},
    },
    loader::find_file,
};

const SECTOR_BYTES: u64 = 512;

/// Makes the device; returns its node.
pub fn map(wanted: Wanted<'_>) -> Result<PathBuf> {
    let mapped = device_mapper::create(wanted).map_err(Error::io("map", wanted.name))?;
    let node = PathBuf::from(format!("/dev/dm-{}", mapped.minor));
    // devtmpfs makes the node; without it we do.
    if !node.metadata().is_ok_and(|found| found.file_type().is_block_device()) {
        let number = makedev(mapped.major.into(), mapped.minor.into());
        mknod(&node, SFlag::S_IFBLK, Mode::from_bits_truncate(0o600), number)
            .map_err(Error::io("create", &node))?;
    }
    Ok(node)
}

/// The boot image of a bank in the ESP as a device.
pub fn map_boot_file(esp: &Partition, bank: Bank) -> Result<PathBuf> {
    let path = format!("EFI/Linux/roro-{bank}.efi");
    let (sectors, table) = place(esp, &path, find_file(&esp.node, &path)?)?;
    let name = format!("roro-boot-{bank}");
    let uuid = format!("RORO-BOOT-{bank}");
    map(Wanted {
        name: &name,
        uuid: &uuid,
        target: "linear",
        sectors,
        table: &table,
        access: Access::ReadWrite,
    })
}

/// Length in sectors, and the table: `DEVICE FIRST-SECTOR`. The device ends where the file does: behind it other files may begin.
fn place(esp: &Partition, path: &str, extent: Extent) -> Result<(u64, String)> {
    let Extent { offset_bytes, file_bytes, .. } = extent;
    if offset_bytes % SECTOR_BYTES != 0 || file_bytes % SECTOR_BYTES != 0 || file_bytes == 0 {
        return Err(Error::Path {
            subject: Path::new(path).display().to_string(),
            detail: "is not made of whole sectors: write the factory image again",
        });
    }
    Ok((file_bytes / SECTOR_BYTES, format!("{} {}", esp.device, offset_bytes / SECTOR_BYTES)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpt::Entry;

    #[test]
    fn the_device_covers_the_file_and_nothing_else() {
        let entry = Entry { number: 1, name: "esp".into(), guid: [1; 16], first_lba: 2048, blocks: 4096 };
        let esp = Partition { entry, node: "/dev/vda1".into(), device: "254:1".into() };
        let extent = Extent { offset_bytes: 40960, file_bytes: 8192, space_bytes: 16384 };
        assert_eq!(place(&esp, "x", extent).unwrap(), (16, "254:1 80".into()));
        for odd in [
            Extent { file_bytes: 8191, ..extent },
            Extent { offset_bytes: 1, ..extent },
            Extent { file_bytes: 0, ..extent },
        ] {
            assert!(place(&esp, "x", odd).is_err());
        }
    }
}
