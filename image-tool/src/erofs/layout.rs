//! The structures of EROFS as bytes: superblock, inodes, directory entries, extended attributes. Little endian throughout.

use std::collections::BTreeMap;

use sha2::{Digest as _, Sha256};

use crate::{
    error::{Error, Result},
    tree::{Entry, Kind},
};

/// Bytes of a block.
pub const BLOCK_BYTES: u64 = 4096;
/// Offset of the superblock.
pub const SUPER_OFFSET: u64 = 1024;
/// Inode numbers count these from the start of the metadata.
pub const INODE_SLOT_BYTES: u64 = 32;

/// Of the superblock.
pub const MAGIC: u32 = 0xE0F5_E1E2;
const COMPAT_SB_CHECKSUM: u32 = 1;
const SUPER_BYTES: usize = 128;
const COMPACT_BYTES: u64 = 32;
const EXTENDED_BYTES: u64 = 64;
const DIRENT_BYTES: usize = 12;
const XATTR_HEADER_BYTES: usize = 12;

/// What the superblock says.
pub struct Superblock {
    /// Inode number of the root.
    pub root_nid: u16,
    /// Number of inodes.
    pub inodes: u64,
    /// Time of every compact inode.
    pub epoch_seconds: u64,
    /// Blocks of the image.
    pub blocks: u32,
    /// First block of the metadata.
    pub metadata_block: u32,
}

impl Superblock {
    /// The rest of block 0, from [`SUPER_OFFSET`] on, with its checksum.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity((BLOCK_BYTES - SUPER_OFFSET) as usize);
        out.extend(MAGIC.to_le_bytes());
        out.extend(0u32.to_le_bytes());
        out.extend(COMPAT_SB_CHECKSUM.to_le_bytes());
        out.extend([12, 0]); // log2 of the block size, no extra slots
        out.extend(self.root_nid.to_le_bytes());
        out.extend(self.inodes.to_le_bytes());
        out.extend(self.epoch_seconds.to_le_bytes());
        out.extend(0u32.to_le_bytes());
        out.extend(self.blocks.to_le_bytes());
        out.extend(self.metadata_block.to_le_bytes());
        out.extend(0u32.to_le_bytes()); // no shared extended attributes
        out.extend(uuid());
        out.extend(*b"roro-root\0\0\0\0\0\0\0");
        out.extend(0u32.to_le_bytes()); // no incompatible feature
        out.resize(SUPER_BYTES, 0);
        out.resize((BLOCK_BYTES - SUPER_OFFSET) as usize, 0);
        // The kernel's crc32c neither starts nor ends with an inversion of its own: seed all ones, no final one.
        let checksum = !crc32c::crc32c(&out);
        if let Some(place) = out.get_mut(4..8) {
            place.copy_from_slice(&checksum.to_le_bytes());
        }
        out
    }
}

/// A constant: it must not differ between releases, or every update would carry it.
fn uuid() -> [u8; 16] {
    let digest: [u8; 32] = Sha256::digest(b"roro erofs root").into();
    let mut bytes = [0; 16];
    for (to, from) in bytes.iter_mut().zip(digest) {
        *to = from;
    }
    uuid::Builder::from_sha1_bytes(bytes).into_uuid().into_bytes()
}

/// How the data of an inode is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DataLayout {
    /// In blocks of its own.
    Plain,
    /// Whole blocks of its own, the tail behind the inode.
    Inline,
}

/// What an inode says beside what its entry says.
pub struct InodeFields {
    /// Where the data is.
    pub layout: DataLayout,
    /// Bytes of the data.
    pub size_bytes: u64,
    /// First block of the data; unused for inline data without whole blocks.
    pub first_block: u32,
    /// Names of this inode; for directories with those of their children's `..`.
    pub links: u32,
    /// Number for the eyes of 32-bit programs.
    pub number: u32,
}

/// Whether the short form, without own time and with 16-bit owners, can hold it.
fn is_compact(entry: &Entry, size_bytes: u64, links: u32) -> bool {
    let small = |value: u32| u16::try_from(value).is_ok();
    small(entry.uid) && small(entry.gid) && small(links) && u32::try_from(size_bytes).is_ok()
}

/// Bytes of inode and extended attributes.
pub fn inode_bytes(entry: &Entry, size_bytes: u64, links: u32) -> Result<u64> {
    let head = if is_compact(entry, size_bytes, links) { COMPACT_BYTES } else { EXTENDED_BYTES };
    Ok(head + xattrs(&entry.xattrs)?.len() as u64)
}

/// Inode and extended attributes as bytes.
pub fn encode_inode(entry: &Entry, fields: &InodeFields, epoch_seconds: u64) -> Result<Vec<u8>> {
    let compact = is_compact(entry, fields.size_bytes, fields.links);
    let layout: u16 = match fields.layout {
        DataLayout::Plain => 0,
        DataLayout::Inline => 2,
    };
    let format = (layout << 1) | u16::from(!compact);
    let attributes = xattrs(&entry.xattrs)?;
    let attribute_slots = match attributes.len() {
        0 => 0,
        bytes => u16::try_from((bytes - XATTR_HEADER_BYTES) / 4 + 1)
            .map_err(|_| Error::malformed("extended attributes", "too many of them"))?,
    };
    let union = match entry.kind {
        Kind::CharDevice { major, minor } | Kind::BlockDevice { major, minor } => device(major, minor),
        _ => fields.first_block,
    };
    let mut out = Vec::with_capacity(EXTENDED_BYTES as usize + attributes.len());
    out.extend(format.to_le_bytes());
    out.extend(attribute_slots.to_le_bytes());
    out.extend((type_bits(&entry.kind) | (entry.mode & 0o7777)).to_le_bytes());
    if compact {
        out.extend((fields.links as u16).to_le_bytes());
        out.extend((fields.size_bytes as u32).to_le_bytes());
        out.extend([0; 4]);
        out.extend(union.to_le_bytes());
        out.extend(fields.number.to_le_bytes());
        out.extend((entry.uid as u16).to_le_bytes());
        out.extend((entry.gid as u16).to_le_bytes());
        out.extend([0; 4]);
    } else {
        out.extend([0; 2]);
        out.extend(fields.size_bytes.to_le_bytes());
        out.extend(union.to_le_bytes());
        out.extend(fields.number.to_le_bytes());
        out.extend(entry.uid.to_le_bytes());
        out.extend(entry.gid.to_le_bytes());
        out.extend(epoch_seconds.to_le_bytes());
        out.extend([0; 4]);
        out.extend(fields.links.to_le_bytes());
        out.extend([0; 16]);
    }
    out.extend(attributes);
    Ok(out)
}

fn type_bits(kind: &Kind) -> u16 {
    match kind {
        Kind::Fifo => 0o010_000,
        Kind::CharDevice { .. } => 0o020_000,
        Kind::Directory => 0o040_000,
        Kind::BlockDevice { .. } => 0o060_000,
        Kind::File(_) => 0o100_000,
        Kind::Symlink(_) => 0o120_000,
    }
}

fn dirent_type(kind: &Kind) -> u8 {
    match kind {
        Kind::File(_) => 1,
        Kind::Directory => 2,
        Kind::CharDevice { .. } => 3,
        Kind::BlockDevice { .. } => 4,
        Kind::Fifo => 5,
        Kind::Symlink(_) => 7,
    }
}

/// `new_encode_dev` of Linux.
fn device(major: u32, minor: u32) -> u32 {
    (minor & 0xff) | ((major & 0xfff) << 8) | ((minor & !0xff) << 12)
}

/// Name prefixes that have a number of their own.
const XATTR_PREFIXES: [(&str, u8); 4] =
    [("user.", 1), ("trusted.", 4), ("security.", 6), ("system.posix_acl_access", 2)];

fn xattrs(attributes: &BTreeMap<String, Vec<u8>>) -> Result<Vec<u8>> {
    if attributes.is_empty() {
        return Ok(Vec::new());
    }
    let mut out = vec![0; XATTR_HEADER_BYTES];
    for (name, value) in attributes {
        let refuse = |why| Error::malformed(format!("extended attribute {name}"), why);
        let (prefix, index) = XATTR_PREFIXES
            .iter()
            .find(|(prefix, _)| name.starts_with(prefix))
            .ok_or_else(|| refuse("EROFS keeps only user, trusted, security and access lists"))?;
        let rest = name.get(prefix.len()..).unwrap_or_default();
        out.push(u8::try_from(rest.len()).map_err(|_| refuse("its name is too long"))?);
        out.push(*index);
        out.extend(u16::try_from(value.len()).map_err(|_| refuse("its value is too long"))?.to_le_bytes());
        out.extend(rest.as_bytes());
        out.extend(value);
        out.resize(out.len().next_multiple_of(4), 0);
    }
    Ok(out)
}

/// One name in a directory.
pub struct Name<'tree> {
    /// The name.
    pub name: &'tree str,
    /// What it leads to.
    pub kind: &'tree Kind,
    /// Index of the inode; becomes its number once all places are known.
    pub inode: usize,
}

/// The names of each block of a directory: as many as fit. `names` are in byte order, dots included.
pub fn split_directory<'a, 'tree>(names: &'a [Name<'tree>]) -> Vec<&'a [Name<'tree>]> {
    let mut blocks = Vec::new();
    let (mut start, mut used) = (0, 0);
    for (at, name) in names.iter().enumerate() {
        let bytes = DIRENT_BYTES + name.name.len();
        if used + bytes > BLOCK_BYTES as usize {
            blocks.push(names.get(start..at).unwrap_or_default());
            (start, used) = (at, 0);
        }
        used += bytes;
    }
    blocks.push(names.get(start..).unwrap_or_default());
    blocks
}

/// Bytes that the names of one block take.
pub fn directory_block_bytes(names: &[Name<'_>]) -> usize {
    names.iter().map(|name| DIRENT_BYTES + name.name.len()).sum()
}

/// One directory block, without padding. `nid_of` tells the inode number of an index.
pub fn encode_directory_block(names: &[Name<'_>], nid_of: &dyn Fn(usize) -> u64) -> Vec<u8> {
    let mut out = Vec::with_capacity(BLOCK_BYTES as usize);
    let mut name_offset = names.len() * DIRENT_BYTES;
    for name in names {
        out.extend(nid_of(name.inode).to_le_bytes());
        out.extend((name_offset as u16).to_le_bytes());
        out.extend([dirent_type(name.kind), 0]);
        name_offset += name.name.len();
    }
    for name in names {
        out.extend(name.name.as_bytes());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_devices_are_those_of_the_kernel() {
        assert_eq!(device(1, 3), 0x103);
        assert_eq!(device(254, 300), 0x0010_fe2c);
    }

    #[test]
    fn a_directory_is_cut_where_the_block_is_full() {
        let text = "n".repeat(244);
        let names: Vec<Name<'_>> =
            (0..33).map(|inode| Name { name: &text, kind: &Kind::Directory, inode }).collect();
        let blocks = split_directory(&names);
        assert_eq!(blocks.iter().map(|block| block.len()).collect::<Vec<_>>(), [16, 16, 1]);
        assert_eq!(encode_directory_block(blocks[0], &|_| 0).len(), 4096);
        assert_eq!(directory_block_bytes(blocks[2]), 256);
    }

    #[test]
    fn the_uuid_never_changes() {
        assert_eq!(uuid::Uuid::from_bytes(uuid()).to_string(), "d77653cc-03d8-55af-b838-a4ce1bcb0bb1");
    }
}
