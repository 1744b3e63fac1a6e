//! The metadata area: where each inode lies, and the bytes of inodes, directories and links.
//!
//! Two passes: the first gives every inode its place (sizes are known from names alone), the second writes, since a directory
//! names the places of what it holds. The root comes first, because the superblock has only 16 bits for its number.

use std::collections::HashMap;

use super::layout::{
    BLOCK_BYTES, DataLayout, INODE_SLOT_BYTES, InodeFields, Name, directory_block_bytes,
    encode_directory_block, encode_inode, inode_bytes, split_directory,
};
use crate::{
    error::{Error, Result},
    tree::{Entry, Kind, Tree},
};

/// The metadata area.
pub struct Metadata {
    /// Its bytes, whole blocks.
    pub bytes: Vec<u8>,
    /// Inode number of the root.
    pub root_nid: u16,
    /// Number of inodes.
    pub inodes: u64,
}

impl Metadata {
    /// Blocks of the area.
    pub fn blocks(&self) -> Result<u32> {
        u32::try_from(self.bytes.len() as u64 / BLOCK_BYTES)
            .map_err(|_| Error::malformed("metadata", "more than an EROFS image can hold"))
    }
}

struct Node<'tree> {
    entry: &'tree Entry,
    fields: InodeFields,
    /// Names of a directory, dots included, in byte order.
    names: Vec<Name<'tree>>,
    /// Bytes behind the inode.
    inline_bytes: u64,
    offset_bytes: u64,
}

/// Builds the area. `places` has the first data block of each file; `first_block` is where the area will lie.
pub fn build(
    tree: &Tree,
    places: &HashMap<&str, u32>,
    first_block: u32,
    epoch_seconds: u64,
) -> Result<Metadata> {
    let mut nodes = collect(tree, places)?;
    let area_bytes = place(&mut nodes, first_block)?;
    let mut bytes = vec![0; usize::try_from(area_bytes).map_err(|_| too_large())?];
    let nid_of = |index: usize| nodes.get(index).map_or(0, |node| node.offset_bytes / INODE_SLOT_BYTES);
    for node in &nodes {
        let mut written = encode_inode(node.entry, &node.fields, epoch_seconds)?;
        match &node.entry.kind {
            Kind::Symlink(target) => written.extend(target.as_bytes()),
            Kind::Directory => {
                let blocks = split_directory(&node.names);
                for (number, names) in blocks.iter().enumerate() {
                    let block = encode_directory_block(names, &nid_of);
                    if number + 1 == blocks.len() && node.fields.layout == DataLayout::Inline {
                        written.extend(block);
                    } else {
                        let at = u64::from(node.fields.first_block - first_block) + number as u64;
                        copy_to(&mut bytes, at * BLOCK_BYTES, &block)?;
                    }
                }
            }
            Kind::File(_) | Kind::CharDevice { .. } | Kind::BlockDevice { .. } | Kind::Fifo => {}
        }
        copy_to(&mut bytes, node.offset_bytes, &written)?;
    }
    let root_nid = u16::try_from(nid_of(0)).map_err(|_| too_large())?;
    Ok(Metadata { bytes, root_nid, inodes: nodes.len() as u64 })
}

/// Inodes in order by path (the root first), with the names of each directory.
fn collect<'tree>(tree: &'tree Tree, places: &HashMap<&str, u32>) -> Result<Vec<Node<'tree>>> {
    let index: HashMap<&str, usize> = tree.iter().enumerate().map(|(at, (path, _))| (path, at)).collect();
    let mut nodes: Vec<Node<'tree>> = Vec::with_capacity(tree.len());
    for (at, (path, entry)) in tree.iter().enumerate() {
        let size_bytes = match &entry.kind {
            Kind::File(content) => content.len_bytes(),
            Kind::Symlink(target) => target.len() as u64,
            _ => 0,
        };
        let fields = InodeFields {
            layout: if matches!(entry.kind, Kind::Symlink(_)) {
                DataLayout::Inline
            } else {
                DataLayout::Plain
            },
            size_bytes,
            first_block: places.get(path).copied().unwrap_or_default(),
            links: 1,
            number: u32::try_from(at + 1).map_err(|_| too_large())?,
        };
        nodes.push(Node { entry, fields, names: Vec::new(), inline_bytes: 0, offset_bytes: 0 });
    }
    for (at, (path, entry)) in tree.iter().enumerate() {
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        let parent =
            *index.get(parent).ok_or_else(|| Error::malformed(path, "it has no parent directory"))?;
        if entry.is_directory()
            && let Some(node) = nodes.get_mut(at)
        {
            node.fields.links += 1;
            node.names.push(Name { name: ".", kind: &entry.kind, inode: at });
            node.names.push(Name { name: "..", kind: &entry.kind, inode: parent });
        }
        if path.is_empty() {
            continue;
        }
        let node = nodes.get_mut(parent).ok_or_else(too_large)?;
        node.names.push(Name { name, kind: &entry.kind, inode: at });
        node.fields.links += u32::from(entry.is_directory());
    }
    for node in &mut nodes {
        node.names.sort_by(|a, b| a.name.as_bytes().cmp(b.name.as_bytes()));
    }
    Ok(nodes)
}

/// Gives every inode its offset in the area and every directory its blocks behind all inodes. Returns the size of the area.
fn place(nodes: &mut [Node<'_>], first_block: u32) -> Result<u64> {
    // Slot 0 stays free: number 0 means "nothing" to some readers.
    let mut at = INODE_SLOT_BYTES;
    let mut directory_blocks = Vec::new();
    for (index, node) in nodes.iter_mut().enumerate() {
        match &node.entry.kind {
            Kind::Directory => {
                let blocks = split_directory(&node.names);
                let tail = blocks.last().map_or(0, |names| directory_block_bytes(names)) as u64;
                let whole = blocks.len() as u64 - 1;
                node.fields.size_bytes = whole * BLOCK_BYTES + tail;
                let head = inode_bytes(node.entry, node.fields.size_bytes, node.fields.links)?;
                let own_blocks = if head + tail <= BLOCK_BYTES {
                    node.fields.layout = DataLayout::Inline;
                    node.inline_bytes = tail;
                    whole
                } else {
                    whole + 1
                };
                if own_blocks > 0 {
                    directory_blocks.push((index, own_blocks));
                }
            }
            Kind::Symlink(target) => node.inline_bytes = target.len() as u64,
            Kind::File(_) | Kind::CharDevice { .. } | Kind::BlockDevice { .. } | Kind::Fifo => {}
        }
        let bytes = inode_bytes(node.entry, node.fields.size_bytes, node.fields.links)? + node.inline_bytes;
        // Inline data must not cross a block, so neither does anything.
        if at % BLOCK_BYTES + bytes > BLOCK_BYTES {
            at = at.next_multiple_of(BLOCK_BYTES);
        }
        node.offset_bytes = at;
        at = (at + bytes).next_multiple_of(INODE_SLOT_BYTES);
    }
    let mut block = at.div_ceil(BLOCK_BYTES);
    for (index, blocks) in directory_blocks {
        if let Some(node) = nodes.get_mut(index) {
            node.fields.first_block = u32::try_from(block)
                .ok()
                .and_then(|block| first_block.checked_add(block))
                .ok_or_else(too_large)?;
        }
        block += blocks;
    }
    Ok(block * BLOCK_BYTES)
}

fn copy_to(area: &mut [u8], offset_bytes: u64, bytes: &[u8]) -> Result<()> {
    let place = usize::try_from(offset_bytes)
        .ok()
        .and_then(|start| area.get_mut(start..)?.get_mut(..bytes.len()))
        .ok_or_else(|| Error::malformed("metadata", "a part lies outside: this is a bug in Roro"))?;
    place.copy_from_slice(bytes);
    Ok(())
}

fn too_large() -> Error {
    Error::malformed("metadata", "more than an EROFS image can hold")
}
