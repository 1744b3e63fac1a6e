//! A disk image with a GPT: partitions with names, sizes and contents. It knows nothing of banks.
//!
//! A sparse file: what no piece covers is a hole. Numbers of the disk and its partitions are derived from the product and the
//! partition's name. Nothing here opens a device.

use std::{
    fs::{File, OpenOptions},
    io::{Seek as _, SeekFrom, Write as _},
    path::Path,
};

use gpt::{
    GptConfig,
    disk::LogicalBlockSize,
    mbr::ProtectiveMBR,
    partition_types::{self, Type},
};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::{
    error::{Error, Result},
    tree::Content,
};

/// Partitions begin on borders of this size, and the table has the first one for itself.
pub const ALIGN_BYTES: u64 = 1 << 20;
/// Bytes of a sector.
pub const SECTOR_BYTES: u64 = 512;
/// Bytes at the start of a disk that a BIOS runs, before the disk's number and the table of the protective MBR.
pub const BOOT_CODE_BYTES: usize = 440;

/// What a partition is for: its type in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Firmware looks for programs there.
    EfiSystem,
    /// GRUB's core lies there, for a BIOS.
    BiosBoot,
    /// A root file system for x86-64.
    LinuxRoot,
    /// Anything else.
    Linux,
}

impl Purpose {
    fn kind(self) -> Type {
        match self {
            Self::EfiSystem => partition_types::EFI,
            Self::BiosBoot => partition_types::BIOS,
            Self::LinuxRoot => partition_types::LINUX_ROOT_X64,
            Self::Linux => partition_types::LINUX_FS,
        }
    }
}

/// A partition that is to be.
#[derive(Debug, Clone)]
pub struct Partition {
    /// Name in the table.
    pub name: String,
    /// Bytes, a multiple of 512.
    pub bytes: u64,
    /// What it is for.
    pub purpose: Purpose,
    /// What is written, each at its offset in the partition.
    pub pieces: Vec<(u64, Content)>,
}

impl Partition {
    /// An empty partition.
    #[must_use]
    pub fn empty(name: &str, bytes: u64, purpose: Purpose) -> Self {
        Self { name: name.to_owned(), bytes, purpose, pieces: Vec::new() }
    }

    /// With a content at its start.
    #[must_use]
    pub fn with(self, content: impl Into<Content>) -> Self {
        self.with_at(0, content)
    }

    /// With a content at an offset.
    #[must_use]
    pub fn with_at(mut self, offset_bytes: u64, content: impl Into<Content>) -> Self {
        self.pieces.push((offset_bytes, content.into()));
        self
    }
}

/// Where a partition lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Name in the table.
    pub name: String,
    /// Number in the table, from 1.
    pub number: u32,
    /// First byte on the disk, a multiple of [`ALIGN_BYTES`].
    pub offset_bytes: u64,
    /// Bytes.
    pub len_bytes: u64,
}

/// Where everything lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// Partitions in order.
    pub places: Vec<Place>,
    /// Bytes of the disk.
    pub disk_bytes: u64,
}

impl Layout {
    /// One partition behind the other.
    #[must_use]
    pub fn of(partitions: &[Partition]) -> Self {
        let mut at = ALIGN_BYTES;
        let mut places = Vec::new();
        for (partition, number) in partitions.iter().zip(1..) {
            let len_bytes = partition.bytes;
            places.push(Place { name: partition.name.clone(), number, offset_bytes: at, len_bytes });
            at = (at + len_bytes).next_multiple_of(ALIGN_BYTES);
        }
        // The last MiB has the second copy of the table.
        Self { places, disk_bytes: at + ALIGN_BYTES }
    }

    /// The partition of this name.
    #[must_use]
    pub fn place(&self, name: &str) -> Option<&Place> {
        self.places.iter().find(|place| place.name == name)
    }
}

/// Writes a disk to `path`; a file that is there is replaced. `boot_code` is what a BIOS runs, all zeros where none should.
pub fn write(
    path: &Path,
    product: &str,
    partitions: &[Partition],
    boot_code: &[u8; BOOT_CODE_BYTES],
) -> Result<Layout> {
    let layout = Layout::of(partitions);
    let mut disk = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(path)
        .map_err(Error::file("create", path))?;
    disk.set_len(layout.disk_bytes).map_err(Error::file("grow", path))?;
    table(&mut disk, &layout, product, partitions, path)?;
    copy_sparse(&mut disk, path, 0, &boot_code.to_vec().into())?;
    for (partition, place) in partitions.iter().zip(&layout.places) {
        for (offset_bytes, content) in &partition.pieces {
            let needed = offset_bytes.saturating_add(content.len_bytes());
            if needed > place.len_bytes {
                return Err(Error::TooLarge {
                    subject: format!("the content of partition {}", place.name),
                    needed,
                    available: place.len_bytes,
                    hint: "raise its size in [disk] of the appliance",
                });
            }
            copy_sparse(&mut disk, path, place.offset_bytes + offset_bytes, content)?;
        }
    }
    disk.sync_all().map_err(Error::file("flush", path))?;
    Ok(layout)
}

fn table(
    disk: &mut File,
    layout: &Layout,
    product: &str,
    partitions: &[Partition],
    path: &Path,
) -> Result<()> {
    let bad = |error: &dyn std::fmt::Display| {
        Error::malformed(format!("partition table of {}", path.display()), error)
    };
    let sectors = u32::try_from(layout.disk_bytes / SECTOR_BYTES - 1).unwrap_or(u32::MAX);
    ProtectiveMBR::with_lb_size(sectors).overwrite_lba0(disk).map_err(|error| bad(&error))?;
    let config = GptConfig::new().writable(true).logical_block_size(LogicalBlockSize::Lb512);
    let mut gpt =
        config.create_from_device(&mut *disk, Some(number(product, "disk"))).map_err(|error| bad(&error))?;
    let rows = partitions.iter().zip(&layout.places).map(|(partition, place)| {
        let row = gpt::partition::Partition {
            part_type_guid: partition.purpose.kind(),
            part_guid: number(product, &place.name),
            first_lba: place.offset_bytes / SECTOR_BYTES,
            last_lba: (place.offset_bytes + place.len_bytes) / SECTOR_BYTES - 1,
            flags: 0,
            name: place.name.clone(),
        };
        (place.number, row)
    });
    gpt.update_partitions(rows.collect()).map_err(|error| bad(&error))?;
    gpt.write().map_err(|error| bad(&error))?;
    Ok(())
}

/// A number that depends on the product and a name alone.
#[must_use]
pub fn number(product: &str, name: &str) -> Uuid {
    let digest: [u8; 32] = Sha256::new()
        .chain_update(b"roro disk\0")
        .chain_update(product)
        .chain_update(b"\0")
        .chain_update(name)
        .finalize()
        .into();
    let mut bytes = [0; 16];
    for (to, from) in bytes.iter_mut().zip(digest) {
        *to = from;
    }
    uuid::Builder::from_custom_bytes(bytes).into_uuid()
}

/// Copies a content to a place of the disk; blocks of zeros stay holes.
fn copy_sparse(disk: &mut File, path: &Path, offset_bytes: u64, content: &Content) -> Result<()> {
    const STEP: usize = 64 << 10;
    let mut at = offset_bytes;
    content.for_each_piece(&mut |piece| {
        for part in piece.chunks(STEP) {
            if part.iter().any(|byte| *byte != 0) {
                disk.seek(SeekFrom::Start(at)).map_err(Error::file("write", path))?;
                disk.write_all(part).map_err(Error::file("write", path))?;
            }
            at += part.len() as u64;
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_depend_on_product_and_name_alone() {
        assert_eq!(number("test,any", "boot-a").to_string(), "e61e1115-afbc-85d3-a3c6-364f404faf5d");
        assert_ne!(number("test,any", "boot-b"), number("test,any", "boot-a"));
        assert_ne!(number("test,b", "boot-a"), number("test,any", "boot-a"));
    }

    #[test]
    fn a_disk_of_any_partitions_has_its_contents_in_place() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk.img");
        let partitions = [
            Partition::empty("one", 1536, Purpose::Linux).with("first").with_at(1024, "second"),
            Partition::empty("two", 3 << 20, Purpose::EfiSystem).with(vec![7; 100]),
        ];
        let layout = write(&path, "test", &partitions, &[9; BOOT_CODE_BYTES]).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        let at = |name: &str| layout.place(name).unwrap().offset_bytes as usize;
        assert_eq!(&bytes[at("one")..][..5], b"first");
        assert_eq!(&bytes[at("one") + 1024..][..6], b"second");
        assert_eq!(bytes[at("two")..][..100], [7; 100]);
        assert_eq!((bytes[0], bytes[439], bytes[510], bytes[511]), (9, 9, 0x55, 0xaa));
        let table = GptConfig::new().open(&path).unwrap();
        assert_eq!(table.partitions()[&2].name, "two");
        let full = [Partition::empty("one", 512, Purpose::Linux).with_at(510, "xyz")];
        let told = write(&path, "test", &full, &[0; BOOT_CODE_BYTES]).unwrap_err().to_string();
        assert!(told.contains("the content of partition one needs 513 bytes"), "{told}");
    }
}
