//! The factory disk: GPT, bank A filled, bank B empty, a fresh record, an empty state partition. A sparse file.
//!
//! Numbers of disk and partitions are derived from `compatible` and the partition's name, not from the version, so that every disk
//! of a product looks alike to firmware and tools. Nothing here opens a device.

use std::{
    fs::{self, File, OpenOptions},
    io::{Seek as _, SeekFrom, Write as _},
    path::Path,
    process::Command,
};

use bank_format::{
    Bank,
    record::{COPY_BYTES, RECORD_BYTES, Record, encode_copy},
    release::Release,
};
use gpt::{
    GptConfig,
    disk::LogicalBlockSize,
    mbr::ProtectiveMBR,
    partition::Partition,
    partition_types::{self, Type},
};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::{
    appliance::Disk,
    error::{Error, Result},
    host,
    mint::{Minted, MintedImage},
    tree::Content,
};

const MIB: u64 = 1 << 20;
const SECTOR_BYTES: u64 = 512;

/// One partition of the default profile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Name in the partition table.
    pub name: &'static str,
    /// First byte on the disk, a multiple of a MiB.
    pub offset_bytes: u64,
    /// Bytes.
    pub len_bytes: u64,
    kind: Type,
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
    /// The default profile with the sizes of an appliance.
    #[must_use]
    pub fn of(disk: &Disk) -> Self {
        let (boot, root, state) =
            (u64::from(disk.boot_mib) * MIB, u64::from(disk.root_mib) * MIB, u64::from(disk.state_mib) * MIB);
        let parts = [
            ("boot-a", boot, partition_types::EFI),
            ("boot-b", boot, partition_types::EFI),
            ("root-a", root, partition_types::LINUX_ROOT_X64),
            ("root-b", root, partition_types::LINUX_ROOT_X64),
            ("record", RECORD_BYTES as u64, partition_types::LINUX_FS),
            ("state", state, partition_types::LINUX_FS),
        ];
        let mut at = MIB;
        let mut places = Vec::new();
        for (name, len_bytes, kind) in parts {
            places.push(Place { name, offset_bytes: at, len_bytes, kind });
            at = (at + len_bytes).next_multiple_of(MIB);
        }
        // The last MiB has the second copy of the table.
        Self { places, disk_bytes: at + MIB }
    }

    fn place(&self, name: &str) -> Result<&Place> {
        self.places
            .iter()
            .find(|place| place.name == name)
            .ok_or_else(|| Error::malformed(name, "no such partition: this is a bug in Roro"))
    }
}

/// Writes the disk of a release to `path`; a file that is there is replaced.
pub fn write(minted: &Minted, sizes: &Disk, epoch_seconds: u64, path: &Path) -> Result<Layout> {
    let layout = Layout::of(sizes);
    let compatible = &minted.release.compatible;
    let mut disk = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(path)
        .map_err(Error::file("create", path))?;
    disk.set_len(layout.disk_bytes).map_err(Error::file("grow", path))?;
    table(&mut disk, &layout, compatible, path)?;
    let boot = layout.place("boot-a")?;
    copy_sparse(&mut disk, path, boot.offset_bytes, &Content::of_file(&minted.boot.path)?)?;
    let root = layout.place("root-a")?.offset_bytes;
    copy_sparse(&mut disk, path, root, &Content::of_file(&minted.root.path)?)?;
    copy_sparse(&mut disk, path, root + tree_offset(&minted.root), &Content::of_file(&minted.root.tree)?)?;
    let record = layout.place("record")?.offset_bytes;
    copy_sparse(&mut disk, path, record, &record_bytes(minted)?.into())?;
    let state = layout.place("state")?;
    let made = state_file_system(state.len_bytes, compatible, epoch_seconds, path)?;
    copy_sparse(&mut disk, path, state.offset_bytes, &Content::of_file(made.path())?)?;
    disk.sync_all().map_err(Error::file("flush", path))?;
    Ok(layout)
}

fn tree_offset(image: &MintedImage) -> u64 {
    image.bytes.next_multiple_of(bank_format::verity::BLOCK_BYTES as u64)
}

fn table(disk: &mut File, layout: &Layout, compatible: &str, path: &Path) -> Result<()> {
    let bad = |error: &dyn std::fmt::Display| {
        Error::malformed(format!("partition table of {}", path.display()), error)
    };
    let sectors = u32::try_from(layout.disk_bytes / SECTOR_BYTES - 1).unwrap_or(u32::MAX);
    ProtectiveMBR::with_lb_size(sectors).overwrite_lba0(disk).map_err(|error| bad(&error))?;
    let config = GptConfig::new().writable(true).logical_block_size(LogicalBlockSize::Lb512);
    let mut gpt = config
        .create_from_device(&mut *disk, Some(number(compatible, "disk")))
        .map_err(|error| bad(&error))?;
    let partitions = layout.places.iter().zip(1u32..).map(|(place, index)| {
        let partition = Partition {
            part_type_guid: place.kind.clone(),
            part_guid: number(compatible, place.name),
            first_lba: place.offset_bytes / SECTOR_BYTES,
            last_lba: (place.offset_bytes + place.len_bytes) / SECTOR_BYTES - 1,
            flags: 0,
            name: place.name.to_owned(),
        };
        (index, partition)
    });
    gpt.update_partitions(partitions.collect()).map_err(|error| bad(&error))?;
    gpt.write().map_err(|error| bad(&error))?;
    Ok(())
}

/// A number that depends on the product and a name alone.
#[must_use]
pub fn number(compatible: &str, name: &str) -> Uuid {
    let digest: [u8; 32] = Sha256::new()
        .chain_update(b"roro disk\0")
        .chain_update(compatible)
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

/// Both copies of a record founded on bank A.
fn record_bytes(minted: &Minted) -> Result<Vec<u8>> {
    let release = Release { name: minted.release.name.clone(), version: minted.release.version.clone() };
    let record = Record::founded_on(Bank::A, Some(release), minted.proofs());
    let mut bytes = Vec::with_capacity(RECORD_BYTES);
    for sequence in [1, 2] {
        let copy = encode_copy(&record, sequence)
            .map_err(|source| Error::Format { deed: "encode the factory record", source })?;
        bytes.extend(copy);
        bytes.resize(bytes.len().next_multiple_of(COPY_BYTES), 0);
    }
    Ok(bytes)
}

/// An empty ext4, made on a file beside the disk.
fn state_file_system(
    len_bytes: u64,
    compatible: &str,
    epoch_seconds: u64,
    disk: &Path,
) -> Result<tempfile::NamedTempFile> {
    let directory = disk.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let file =
        tempfile::NamedTempFile::new_in(directory).map_err(Error::file("create a file in", directory))?;
    file.as_file().set_len(len_bytes).map_err(Error::file("grow", file.path()))?;
    let mut command = Command::new(mkfs());
    command
        .env("E2FSPROGS_FAKE_TIME", epoch_seconds.max(1).to_string())
        .env("SOURCE_DATE_EPOCH", epoch_seconds.to_string())
        .args(["-q", "-F", "-L", "state", "-b", "4096", "-m", "0"])
        .args(["-U", &number(compatible, "state file system").to_string()])
        .arg("-E")
        .arg(format!(
            "hash_seed={},root_owner=0:0,lazy_itable_init=0,lazy_journal_init=0,nodiscard",
            number(compatible, "state hash seed")
        ))
        .arg(file.path());
    host::run(&mut command, "e2fsprogs")?;
    Ok(file)
}

/// `mkfs.ext4` lies where ordinary users do not look.
fn mkfs() -> &'static str {
    let places = ["/sbin/mkfs.ext4", "/usr/sbin/mkfs.ext4"];
    places.into_iter().find(|place| Path::new(place).exists()).unwrap_or("mkfs.ext4")
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

/// Bytes that a sparse file really takes.
pub fn stored_bytes(path: &Path) -> Result<u64> {
    use std::os::unix::fs::MetadataExt as _;
    Ok(fs::metadata(path).map_err(Error::file("measure", path))?.blocks() * 512)
}

#[cfg(test)]
mod tests {
    use bank_format::{
        Digest256,
        record::{Copy, decode_copy},
        release::{ReleaseFile, Version},
    };

    use super::*;

    fn minted(directory: &Path) -> Minted {
        let image = |name: &'static str, byte: u8, bytes: usize| {
            let path = directory.join(format!("{name}.img"));
            let tree = directory.join(format!("{name}.verity"));
            fs::write(&path, vec![byte; bytes]).unwrap();
            fs::write(&tree, vec![byte + 1; 4096]).unwrap();
            MintedImage {
                name,
                path,
                bytes: bytes as u64,
                verity_root: Digest256([byte; 32]),
                salt: vec![1, 2],
                tree,
                boundaries: Vec::new(),
            }
        };
        Minted {
            release: ReleaseFile {
                name: "test".to_owned(),
                version: Version::new(1, 0, 0),
                compatible: "test,any".to_owned(),
            },
            root: image("root", 7, 300_000),
            boot: image("boot", 9, 5000),
            packages: Vec::new(),
            packages_text: String::new(),
            command_line: String::new(),
            initrd_bytes: 0,
        }
    }

    const SIZES: Disk = Disk { boot_mib: 2, root_mib: 3, state_mib: 16 };

    #[test]
    fn the_disk_has_what_the_device_looks_for_and_is_the_same_twice() {
        let dir = tempfile::tempdir().unwrap();
        let minted = minted(dir.path());
        let (one, two) = (dir.path().join("1.img"), dir.path().join("2.img"));
        let layout = write(&minted, &SIZES, 1_700_000_000, &one).unwrap();
        write(&minted, &SIZES, 1_700_000_000, &two).unwrap();
        let bytes = fs::read(&one).unwrap();
        assert!(bytes == fs::read(&two).unwrap());

        let table = GptConfig::new().open(&one).unwrap();
        let names: Vec<(String, u64)> = table
            .partitions()
            .values()
            .map(|part| (part.name.clone(), part.sectors_len().unwrap() * 512))
            .collect();
        let expected = [
            ("boot-a", 2 * MIB),
            ("boot-b", 2 * MIB),
            ("root-a", 3 * MIB),
            ("root-b", 3 * MIB),
            ("record", 64 << 10),
            ("state", 16 * MIB),
        ];
        assert_eq!(names, expected.map(|(name, bytes)| (name.to_owned(), bytes)));
        let place = |name: &str| layout.place(name).unwrap().offset_bytes as usize;
        assert_eq!(bytes[place("boot-a")..][..5000], [9; 5000]);
        assert_eq!(bytes[place("root-a")..][..300_000], [7; 300_000]);
        assert_eq!(bytes[place("root-a") + 303_104], 8);
        assert!(bytes[place("boot-b")..place("root-a")].iter().all(|byte| *byte == 0));
        assert!(bytes[place("root-b")..place("record")].iter().all(|byte| *byte == 0));
        for (copy, sequence) in [(0, 1), (1, 2)] {
            let at = place("record") + copy * COPY_BYTES;
            let Copy::Good(found, record) = decode_copy(&bytes[at..at + COPY_BYTES]).unwrap() else {
                panic!()
            };
            assert_eq!(
                (found, record.confirmed, record.floor.unwrap()),
                (sequence, Bank::A, Version::new(1, 0, 0))
            );
        }
        assert_eq!(bytes[place("state") + 1024 + 56..][..2], [0x53, 0xef]);
    }

    #[test]
    fn numbers_depend_on_product_and_name_alone() {
        assert_eq!(number("test,any", "boot-a").to_string(), "e61e1115-afbc-85d3-a3c6-364f404faf5d");
        assert_ne!(number("test,any", "boot-b"), number("test,any", "boot-a"));
        assert_ne!(number("test,b", "boot-a"), number("test,any", "boot-a"));
    }
}
