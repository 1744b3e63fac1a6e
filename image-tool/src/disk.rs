//! The factory disk: GPT, bank A filled (with the tails that an update begins with), bank B empty, the loader's own, a fresh record, an empty state partition. A sparse file.
//!
//! Numbers of disk and partitions are derived from `compatible` and the partition's name, not from the version, so that every disk
//! of a product looks alike to firmware and tools. Nothing here opens a device.

pub mod table;

use std::{fs, path::Path, process::Command};

use bank_format::{
    Bank,
    manifest::Tree,
    record::{COPY_BYTES, RECORD_BYTES, Record, encode_copy},
    release::Release,
    tail,
};

use crate::{
    appliance::Disk,
    error::{Error, Result},
    host,
    loader::{self, Installed},
    mint::{Minted, MintedImage},
    tree::Content,
};
use table::{BOOT_CODE_BYTES, Layout, Partition, Purpose, number};

const MIB: u64 = 1 << 20;

/// The chunk tables of the images, as the bundle has them.
#[derive(Debug, Clone, Copy)]
pub struct Tables<'a> {
    /// Of the system.
    pub root: &'a [u8],
    /// Of kernel, initrd and command line.
    pub boot: &'a [u8],
}

/// Writes the disk of a release to `path`; a file that is there is replaced.
pub fn write(
    minted: &Minted,
    tables: Tables<'_>,
    sizes: &Disk,
    epoch_seconds: u64,
    path: &Path,
) -> Result<Layout> {
    let compatible = &minted.release.compatible;
    let mut root = vec![
        (0, Content::of_file(&minted.root.path)?),
        (tree_offset(&minted.root), Content::of_file(&minted.root.tree)?),
    ];
    root.extend(tail_of(&minted.root, Tree::Appended, tables.root, sizes.root_mib)?);
    let mut boot = vec![(0, Content::of_file(&minted.boot.path)?)];
    boot.extend(tail_of(&minted.boot, Tree::None, tables.boot, sizes.boot_mib)?);
    let mut partitions = loader::partitions(&minted.installed, &minted.recovery, sizes, boot, root)?;
    let record = Partition::empty("record", RECORD_BYTES as u64, Purpose::Linux).with(record_bytes(minted)?);
    let state_bytes = u64::from(sizes.state_mib) * MIB;
    let state = state_file_system(state_bytes, compatible, epoch_seconds, path)?;
    let state = Partition::empty("state", state_bytes, Purpose::Linux).with(Content::of_file(state.path())?);
    partitions.extend([record, state]);
    partitions.extend(loader::recovery_partition(&minted.installed, &minted.recovery)?);
    let boot_code = match &minted.installed {
        Installed::Efi | Installed::SystemdBoot { .. } => [0; BOOT_CODE_BYTES],
        Installed::Grub(grub) => grub.boot_code()?,
    };
    table::write(path, compatible, &partitions, &boot_code)
}

/// The parts of the tail of a bank, and where they lie; nothing where the bank has no room for it.
fn tail_of(image: &MintedImage, tree: Tree, table: &[u8], partition_mib: u32) -> Result<Vec<(u64, Content)>> {
    let wrong = |source| Error::Format { deed: "place the tail of a bank", source };
    let space_bytes = u64::from(partition_mib) * MIB;
    let place = tail::place(image.bytes, tree, table.len() as u64, space_bytes).map_err(wrong)?;
    let Some(place) = place else { return Ok(Vec::new()) };
    let head = tail::encode_head(image.verity_root, table).map_err(wrong)?;
    Ok(vec![(place.table_offset, table.to_vec().into()), (place.head_offset, head.to_vec().into())])
}

fn tree_offset(image: &MintedImage) -> u64 {
    image.bytes.next_multiple_of(bank_format::verity::BLOCK_BYTES as u64)
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
            installed: Installed::Efi,
            recovery: None,
        }
    }

    const SIZES: Disk = Disk { boot_mib: 2, root_mib: 3, state_mib: 16 };

    #[test]
    fn the_disk_has_what_the_device_looks_for_and_is_the_same_twice() {
        let dir = tempfile::tempdir().unwrap();
        let minted = minted(dir.path());
        let (one, two) = (dir.path().join("1.img"), dir.path().join("2.img"));
        let tables = Tables { root: b"table of root", boot: b"table of boot" };
        let layout = write(&minted, tables, &SIZES, 1_700_000_000, &one).unwrap();
        write(&minted, tables, &SIZES, 1_700_000_000, &two).unwrap();
        let bytes = fs::read(&one).unwrap();
        assert!(bytes == fs::read(&two).unwrap());

        let table = gpt::GptConfig::new().open(&one).unwrap();
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
        for (name, mib, root, table) in [("boot-a", 2, 9, tables.boot), ("root-a", 3, 7, tables.root)] {
            let bank = &bytes[place(name)..][..mib * MIB as usize];
            let head_offset = tail::head_offset(bank.len() as u64).unwrap() as usize;
            let head = tail::decode_head(bank[head_offset..].first_chunk().unwrap()).unwrap();
            assert_eq!(
                (head.root, head.table_bytes as usize),
                (Digest256([root; 32]), table.len()),
                "{name}"
            );
            assert_eq!(&bank[head.table_offset(bank.len() as u64).unwrap() as usize..][..table.len()], table);
            assert_eq!(head.table_sha256, Digest256::of(table));
        }
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
    fn a_bank_without_room_has_no_tail() {
        let dir = tempfile::tempdir().unwrap();
        let image = minted(dir.path()).boot;
        let parts = |table: usize| tail_of(&image, Tree::None, &vec![1; table], 1).unwrap().len();
        let most = MIB as usize - 8192 - 4096;
        assert_eq!((parts(most), parts(most + 1)), (2, 0));
    }
}
