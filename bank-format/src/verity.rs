//! The dm-verity hash tree, as the Linux kernel reads it: format 1, SHA-256, 4096-byte blocks, salt first, no superblock.
//!
//! Source: `Documentation/admin-guide/device-mapper/verity.rst` and `drivers/md/dm-verity-target.c` of Linux.
//! The tree lies behind the data, its top level first. With one data block there is no tree: the root is that block's hash.
//! The builder takes the data in any slicing, keeps one block per level, and hands out each tree block with its place.

use sha2::{Digest as _, Sha256};

use crate::{
    digest::Digest256,
    error::{Error, Result},
    limits::{MAX_IMAGE_BYTES, MAX_SALT_BYTES},
};

/// Bytes of a data block and of a tree block.
pub const BLOCK_BYTES: usize = 4096;
const DIGESTS_PER_BLOCK: u64 = 128;

/// Shape of a tree over a number of data blocks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Geometry {
    /// Data blocks of 4096 bytes.
    pub data_blocks: u64,
    /// For each level, from the leaves up: its first block, counted from the start of the tree, and its blocks.
    levels: Vec<(u64, u64)>,
}

impl Geometry {
    /// The tree over `data_bytes` bytes; the last block is padded with zeros.
    pub fn for_bytes(data_bytes: u64) -> Result<Self> {
        if data_bytes == 0 {
            return Err(Error::malformed("image", "it is empty"));
        }
        if data_bytes > MAX_IMAGE_BYTES {
            return Err(Error::TooLarge { structure: "image", value: data_bytes, limit: MAX_IMAGE_BYTES });
        }
        let data_blocks = data_bytes.div_ceil(BLOCK_BYTES as u64);
        let mut sizes = Vec::new();
        let mut blocks = data_blocks;
        while blocks > 1 {
            blocks = blocks.div_ceil(DIGESTS_PER_BLOCK);
            sizes.push(blocks);
        }
        let mut levels = Vec::with_capacity(sizes.len());
        let mut first = 0;
        for size in sizes.iter().rev() {
            levels.push((first, *size));
            first += size;
        }
        levels.reverse();
        Ok(Self { data_blocks, levels })
    }

    /// Blocks of the tree.
    #[must_use]
    pub fn tree_blocks(&self) -> u64 {
        self.levels.iter().map(|(_, blocks)| blocks).sum()
    }

    /// Bytes of data (padded to a block) and tree together.
    #[must_use]
    pub fn total_bytes(&self) -> u64 {
        (self.data_blocks + self.tree_blocks()) * BLOCK_BYTES as u64
    }

    /// Where the digest of a data block stands; nowhere when it is the only one: then it is the root.
    #[must_use]
    pub fn place_of(&self, data_block: u64) -> Option<DigestPlace> {
        self.levels.first().map(|(first, _)| DigestPlace::in_level(*first, data_block))
    }

    /// The blocks of the tree from the top down, each with the place of its digest; that of the top block is the root.
    pub fn from_the_top(&self) -> impl Iterator<Item = (u64, Option<DigestPlace>)> {
        self.levels.iter().enumerate().rev().flat_map(|(level, (first, blocks))| {
            let parent = self.levels.get(level + 1).map(|(first, _)| *first);
            let place = move |number| parent.map(|parent| DigestPlace::in_level(parent, number));
            (0..*blocks).map(move |number| (first + number, place(number)))
        })
    }

    /// Byte offset of the tree, and so of its top block, behind the start of the data.
    #[must_use]
    pub fn tree_offset_bytes(&self) -> u64 {
        self.data_blocks * BLOCK_BYTES as u64
    }
}

/// Where a digest stands in the tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DigestPlace {
    /// Block of the tree.
    pub tree_block: u64,
    /// Byte in that block.
    pub offset_bytes: usize,
}

impl DigestPlace {
    fn in_level(first: u64, number: u64) -> Self {
        let offset_bytes = (number % DIGESTS_PER_BLOCK) as usize * size_of::<Digest256>();
        Self { tree_block: first + number / DIGESTS_PER_BLOCK, offset_bytes }
    }
}

/// Hash of one block, salt first, as the kernel computes it.
#[must_use]
pub fn hash_block(salt: &[u8], block: &[u8]) -> Digest256 {
    Digest256(Sha256::new().chain_update(salt).chain_update(block).finalize().into())
}

/// Digests of the blocks of a stretch of data: what can be computed apart from the tree, and side by side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaves {
    digests: Vec<Digest256>,
    data_bytes: u64,
}

impl Leaves {
    /// Those of `data`; its last block is padded with zeros.
    #[must_use]
    pub fn of(salt: &[u8], data: &[u8]) -> Self {
        let salted = Sha256::new().chain_update(salt);
        let digests = data.chunks(BLOCK_BYTES).map(|block| {
            let padding = [0; BLOCK_BYTES];
            let padding = padding.get(block.len()..).unwrap_or_default();
            Digest256(salted.clone().chain_update(block).chain_update(padding).finalize().into())
        });
        Self { digests: digests.collect(), data_bytes: data.len() as u64 }
    }
}

#[derive(Clone)]
struct Level {
    block: Box<[u8; BLOCK_BYTES]>,
    used: usize,
    next_block: u64,
}

/// Computes the tree while the data streams by.
pub struct TreeBuilder {
    geometry: Geometry,
    data_bytes: u64,
    salted: Sha256,
    partial: Vec<u8>,
    seen_bytes: u64,
    levels: Vec<Level>,
    root: Option<Digest256>,
}

impl TreeBuilder {
    /// A builder for exactly `data_bytes` bytes.
    pub fn new(data_bytes: u64, salt: &[u8]) -> Result<Self> {
        if salt.len() > MAX_SALT_BYTES {
            return Err(Error::TooLarge {
                structure: "verity salt",
                value: salt.len() as u64,
                limit: MAX_SALT_BYTES as u64,
            });
        }
        let geometry = Geometry::for_bytes(data_bytes)?;
        let levels = geometry
            .levels
            .iter()
            .map(|(first, _)| Level { block: Box::new([0; BLOCK_BYTES]), used: 0, next_block: *first })
            .collect();
        Ok(Self {
            geometry,
            data_bytes,
            salted: Sha256::new().chain_update(salt),
            partial: Vec::with_capacity(BLOCK_BYTES),
            seen_bytes: 0,
            levels,
            root: None,
        })
    }

    /// The shape of the tree.
    #[must_use]
    pub fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// Takes the next bytes. `emit(tree_block, bytes)` receives each finished tree block with its number in the tree.
    pub fn update(&mut self, mut data: &[u8], emit: &mut dyn FnMut(u64, &[u8; BLOCK_BYTES])) -> Result<()> {
        self.seen_bytes = self.seen_bytes.saturating_add(data.len() as u64);
        if self.seen_bytes > self.data_bytes {
            return Err(Error::malformed(
                "image",
                format!("it is longer than its {} bytes", self.data_bytes),
            ));
        }
        if !self.partial.is_empty() {
            let take = (BLOCK_BYTES - self.partial.len()).min(data.len());
            let (head, rest) = data.split_at(take);
            self.partial.extend_from_slice(head);
            data = rest;
            if self.partial.len() == BLOCK_BYTES {
                let block = std::mem::take(&mut self.partial);
                self.leaf(&block, emit);
                self.partial = block;
                self.partial.clear();
            }
        }
        let mut blocks = data.chunks_exact(BLOCK_BYTES);
        for block in &mut blocks {
            self.leaf(block, emit);
        }
        self.partial.extend_from_slice(blocks.remainder());
        Ok(())
    }

    /// Takes the next bytes, hashed elsewhere with the salt of this tree. All but the last stretch of the data are whole blocks, and
    /// so is what [`TreeBuilder::update`] took before.
    pub fn push(&mut self, leaves: &Leaves, emit: &mut dyn FnMut(u64, &[u8; BLOCK_BYTES])) -> Result<()> {
        let whole = |bytes: u64| bytes.is_multiple_of(BLOCK_BYTES as u64);
        let seen_bytes = self.seen_bytes.saturating_add(leaves.data_bytes);
        if seen_bytes > self.data_bytes
            || !whole(self.seen_bytes)
            || !(whole(seen_bytes) || seen_bytes == self.data_bytes)
        {
            return Err(Error::malformed("image", "its blocks are hashed in stretches that do not fit it"));
        }
        self.seen_bytes = seen_bytes;
        for digest in &leaves.digests {
            self.put(0, *digest, emit);
        }
        Ok(())
    }

    /// Ends the data: pads the last block, emits the unfinished tree blocks, returns the root digest.
    pub fn finish(mut self, emit: &mut dyn FnMut(u64, &[u8; BLOCK_BYTES])) -> Result<Digest256> {
        if self.seen_bytes != self.data_bytes {
            return Err(Error::Truncated {
                structure: "image",
                missing_bytes: self.data_bytes.saturating_sub(self.seen_bytes),
            });
        }
        if !self.partial.is_empty() {
            let mut block = std::mem::take(&mut self.partial);
            block.resize(BLOCK_BYTES, 0);
            self.leaf(&block, emit);
        }
        for level in 0..self.levels.len() {
            self.flush(level, emit);
        }
        self.root.ok_or_else(|| Error::malformed("image", "its tree has no root: this is a bug in Roro"))
    }

    fn hash(&self, block: &[u8]) -> Digest256 {
        Digest256(self.salted.clone().chain_update(block).finalize().into())
    }

    fn leaf(&mut self, block: &[u8], emit: &mut dyn FnMut(u64, &[u8; BLOCK_BYTES])) {
        let digest = self.hash(block);
        self.put(0, digest, emit);
    }

    fn put(&mut self, level: usize, digest: Digest256, emit: &mut dyn FnMut(u64, &[u8; BLOCK_BYTES])) {
        let Some(here) = self.levels.get_mut(level) else {
            self.root = Some(digest);
            return;
        };
        if let Some(slot) = here.block.get_mut(here.used..here.used + 32) {
            slot.copy_from_slice(&digest.0);
        }
        here.used += 32;
        if here.used == BLOCK_BYTES {
            self.flush(level, emit);
        }
    }

    fn flush(&mut self, level: usize, emit: &mut dyn FnMut(u64, &[u8; BLOCK_BYTES])) {
        let Some(here) = self.levels.get_mut(level) else { return };
        if here.used == 0 {
            return;
        }
        let block = here.block.clone();
        let number = here.next_block;
        here.block.fill(0);
        here.used = 0;
        here.next_block += 1;
        emit(number, &block);
        let digest = self.hash(&block[..]);
        self.put(level + 1, digest, emit);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn build(data: &[u8], salt: &[u8], slices: usize) -> (Digest256, Vec<u8>) {
        let mut builder = TreeBuilder::new(data.len() as u64, salt).unwrap();
        let mut tree = vec![0; (builder.geometry().tree_blocks() as usize) * BLOCK_BYTES];
        let mut emit = |number: u64, block: &[u8; BLOCK_BYTES]| {
            let at = number as usize * BLOCK_BYTES;
            tree[at..at + BLOCK_BYTES].copy_from_slice(block);
        };
        for part in data.chunks(slices) {
            builder.update(part, &mut emit).unwrap();
        }
        let root = builder.finish(&mut emit).unwrap();
        (root, tree)
    }

    #[test]
    fn every_block_is_under_the_root_by_its_place() {
        for blocks in [1u64, 2, 128, 129, 128 * 128 + 1] {
            let data: Vec<u8> =
                (0..blocks).flat_map(|n| [n as u8, (n >> 8) as u8].repeat(BLOCK_BYTES / 2)).collect();
            let (root, tree) = build(&data, b"salt", data.len());
            let geometry = Geometry::for_bytes(data.len() as u64).unwrap();
            let digest_at = |place: Option<DigestPlace>| match place {
                None => root,
                Some(place) => {
                    let start = place.tree_block as usize * BLOCK_BYTES + place.offset_bytes;
                    Digest256(tree[start..start + 32].try_into().unwrap())
                }
            };
            let mut seen = 0;
            for (number, place) in geometry.from_the_top() {
                assert_eq!(number, seen, "the top block stands first");
                let block = &tree[number as usize * BLOCK_BYTES..][..BLOCK_BYTES];
                assert_eq!(hash_block(b"salt", block), digest_at(place));
                seen += 1;
            }
            assert_eq!(seen, geometry.tree_blocks());
            for (number, block) in (0..).zip(data.chunks(BLOCK_BYTES)) {
                assert_eq!(hash_block(b"salt", block), digest_at(geometry.place_of(number)));
            }
        }
    }

    /// Reference, level by level.
    fn reference(data: &[u8], salt: &[u8]) -> (Digest256, Vec<u8>) {
        let mut level: Vec<Digest256> = data
            .chunks(BLOCK_BYTES)
            .map(|c| {
                let mut block = c.to_vec();
                block.resize(BLOCK_BYTES, 0);
                hash_block(salt, &block)
            })
            .collect();
        let mut tree = Vec::new();
        while level.len() > 1 {
            let mut bytes: Vec<u8> = Vec::new();
            let mut up = Vec::new();
            for group in level.chunks(128) {
                let mut block: Vec<u8> = group.iter().flat_map(|d| d.0).collect();
                block.resize(BLOCK_BYTES, 0);
                up.push(hash_block(salt, &block));
                bytes.extend(block);
            }
            tree.splice(0..0, bytes);
            level = up;
        }
        (level[0], tree)
    }

    #[test]
    fn tree_equals_the_reference_however_the_data_is_cut() {
        for bytes in
            [1, 4095, 4096, 4097, 2 * 4096, 128 * 4096, 128 * 4096 + 1, 129 * 4096, 3 * 128 * 128 * 16]
        {
            let data: Vec<u8> = (0..bytes).map(|i| (i * 7 + i / 251) as u8).collect();
            for slices in [1000, 4096, 5000, 1 << 20] {
                assert_eq!(build(&data, b"salt", slices), reference(&data, b"salt"), "{bytes} {slices}");
            }
            let mut builder = TreeBuilder::new(data.len() as u64, b"salt").unwrap();
            for part in data.chunks(3 * BLOCK_BYTES) {
                builder.push(&Leaves::of(b"salt", part), &mut |_, _| ()).unwrap();
            }
            assert!(builder.push(&Leaves::of(b"salt", b"x"), &mut |_, _| ()).is_err(), "one too many");
            assert_eq!(builder.finish(&mut |_, _| ()).unwrap(), reference(&data, b"salt").0, "{bytes}");
        }
    }

    /// `veritysetup format --no-superblock --salt 0102` (cryptsetup 2.6) over 300 blocks whose every byte is the block number.
    #[test]
    fn root_equals_veritysetup() {
        let data: Vec<u8> = (0..300u32).flat_map(|n| vec![n as u8; BLOCK_BYTES]).collect();
        let (root, _) = build(&data, &[1, 2], 1 << 20);
        assert_eq!(root.to_string(), VERITYSETUP_ROOT);
    }
    const VERITYSETUP_ROOT: &str = "1f65315156301a8ff941960b0db2a92584851b087843d69a56411c85114e2807";

    #[test]
    fn too_much_and_too_little_are_refused() {
        let mut builder = TreeBuilder::new(10, b"").unwrap();
        assert!(builder.update(&[0; 11], &mut |_, _| ()).is_err());
        let builder = TreeBuilder::new(10, b"").unwrap();
        assert!(builder.finish(&mut |_, _| ()).is_err());
        assert!(TreeBuilder::new(0, b"").is_err());
        assert!(TreeBuilder::new(u64::MAX, b"").is_err());
        assert!(TreeBuilder::new(1, &[0; 257]).is_err());
    }
}
