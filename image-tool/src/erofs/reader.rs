//! Reads where the files of an EROFS image lie, of an image that anybody has made.
//!
//! What it finds decides where chunks are cut and what is compared with what, and nothing else: an image that it cannot read, or that
//! lies, costs bytes. So it gives up on a part rather than fail, within bounds. Compressed files are left out.

use std::{collections::HashSet, fs::File, os::unix::fs::FileExt as _};

use super::{
    Extent,
    layout::{INODE_SLOT_BYTES, MAGIC, SUPER_OFFSET},
};
use crate::limits::{MAX_EROFS_DEPTH, MAX_EROFS_ENTRIES};

const DIRENT_BYTES: usize = 12;

/// An image that is being read.
struct Reader<'a> {
    file: &'a File,
    metadata_offset: u64,
    block_bytes: u64,
    left: u32,
    seen: HashSet<u64>,
    extents: Vec<Extent>,
}

/// What an inode says.
struct Inode {
    mode: u16,
    bytes: u64,
    layout: u16,
    first_block: u32,
    /// Where what lies behind the inode begins.
    behind: u64,
}

/// The data of regular files, in the order of their offsets: whole blocks, without what lies inline in the metadata. Nothing where
/// this is no EROFS image.
#[must_use]
pub fn extents(file: &File) -> Vec<Extent> {
    let mut head = [0; 128];
    if file.read_exact_at(&mut head, SUPER_OFFSET).is_err() || number(&head, 0, 4) != u64::from(MAGIC) {
        return Vec::new();
    }
    let bits = number(&head, 12, 1);
    if !(9..=16).contains(&bits) {
        return Vec::new();
    }
    let block_bytes = 1u64 << bits;
    let mut reader = Reader {
        file,
        metadata_offset: number(&head, 40, 4).saturating_mul(block_bytes),
        block_bytes,
        left: MAX_EROFS_ENTRIES,
        seen: HashSet::new(),
        extents: Vec::new(),
    };
    reader.directory(number(&head, 14, 2), "", MAX_EROFS_DEPTH);
    let mut extents = reader.extents;
    extents.sort_by(|a, b| (a.offset_bytes, &a.path).cmp(&(b.offset_bytes, &b.path)));
    // Hard links, and contents that are stored once.
    extents.dedup_by_key(|extent| extent.offset_bytes);
    extents
}

impl Reader<'_> {
    fn directory(&mut self, nid: u64, path: &str, depth_left: u32) {
        if depth_left == 0 || !self.seen.insert(nid) {
            return;
        }
        let Some(inode) = self.inode(nid).filter(|inode| inode.mode & 0o170_000 == 0o040_000) else { return };
        let mut offset = 0;
        while offset < inode.bytes {
            let bytes = (inode.bytes - offset).min(self.block_bytes);
            let Some(block) = self.data(&inode, offset, bytes) else { return };
            for (name, nid) in entries(&block) {
                if name == "." || name == ".." {
                    continue;
                }
                let Some(left) = self.left.checked_sub(1) else { return };
                self.left = left;
                let path = if path.is_empty() { name } else { format!("{path}/{name}") };
                self.entry(nid, path, depth_left);
            }
            offset += bytes;
        }
    }

    fn entry(&mut self, nid: u64, path: String, depth_left: u32) {
        let Some(inode) = self.inode(nid) else { return };
        match inode.mode & 0o170_000 {
            0o040_000 => self.directory(nid, &path, depth_left - 1),
            0o100_000 => {
                // Inline: the last, partial block lies behind the inode.
                let len_bytes = match inode.layout {
                    0 => inode.bytes,
                    2 => inode.bytes - inode.bytes % self.block_bytes,
                    _ => 0,
                };
                if len_bytes > 0 {
                    let offset_bytes = u64::from(inode.first_block) * self.block_bytes;
                    self.extents.push(Extent { path, offset_bytes, len_bytes });
                }
            }
            _ => (),
        }
    }

    fn inode(&self, nid: u64) -> Option<Inode> {
        let offset = nid.checked_mul(INODE_SLOT_BYTES)?.checked_add(self.metadata_offset)?;
        let mut head = [0; 32];
        self.file.read_exact_at(&mut head, offset).ok()?;
        let format = number(&head, 0, 2);
        let (bytes, inode_bytes) =
            if format & 1 == 0 { (number(&head, 8, 4), 32) } else { (number(&head, 8, 8), 64) };
        let xattr_bytes = match number(&head, 2, 2) {
            0 => 0,
            count => 12 + (count - 1) * 4,
        };
        Some(Inode {
            mode: number(&head, 4, 2) as u16,
            bytes,
            layout: (format >> 1 & 7) as u16,
            first_block: number(&head, 16, 4) as u32,
            behind: offset.checked_add(inode_bytes + xattr_bytes)?,
        })
    }

    /// At most a block, from a block's start on.
    fn data(&self, inode: &Inode, offset: u64, bytes: u64) -> Option<Vec<u8>> {
        let at = match inode.layout {
            2 if bytes < self.block_bytes => inode.behind,
            0 | 2 => (u64::from(inode.first_block) * self.block_bytes).checked_add(offset)?,
            _ => return None,
        };
        let mut block = vec![0; usize::try_from(bytes).ok()?];
        self.file.read_exact_at(&mut block, at).ok()?;
        Some(block)
    }
}

/// Names and inode numbers of a block of a directory.
fn entries(block: &[u8]) -> Vec<(String, u64)> {
    let count = number(block, 8, 2) as usize / DIRENT_BYTES;
    let name_at = |entry: usize| number(block, entry * DIRENT_BYTES + 8, 2) as usize;
    (0..count.min(block.len() / DIRENT_BYTES))
        .filter_map(|entry| {
            let end = if entry + 1 < count { name_at(entry + 1) } else { block.len() };
            let name = block.get(name_at(entry)..end)?;
            // The last name of a block may be padded.
            let name = name.split(|byte| *byte == 0).next()?;
            Some((String::from_utf8_lossy(name).into_owned(), number(block, entry * DIRENT_BYTES, 8)))
        })
        .collect()
}

/// A little-endian number of some bytes; zero beyond the end.
fn number(bytes: &[u8], at: usize, length: usize) -> u64 {
    let part = bytes.get(at..at + length).unwrap_or_default();
    part.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}
