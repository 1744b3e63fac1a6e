//! Packed kernels: blocks of LZ4's legacy format, which the kernel's build makes with `lz4 -l -9`.
//!
//! A packed kernel changes as a whole where a byte of the kernel changes. So its blocks are unpacked, compared unpacked, and packed again on
//! the device: LZ4 at a level is a function of its input. What does not come out as it was is left packed.
//!
//! Source: LZ4 frame format 1.6.4, "Legacy frame": magic, then blocks of a length (u32 little endian) and as many bytes; each makes 8 MiB, the last
//! one what is left.

use std::{fs::File, io, os::unix::fs::FileExt as _};

use lz4::block::{self, CompressionMode};

/// In front of the first block.
pub const MAGIC: [u8; 4] = [0x02, 0x21, 0x4c, 0x18];
/// Bytes of an unpacked block, but for the last.
pub const BLOCK_BYTES: usize = 8 << 20;
/// In front of each block: its length.
pub const PREFIX_BYTES: u64 = 4;
/// Levels that are tried: what `lz4 -9` and `lz4 -12` mean.
const LEVELS: [u8; 2] = [9, 12];

/// A block in an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Block {
    /// Where its length stands, from the start of the image.
    pub offset_bytes: u64,
    /// Packed bytes, behind the length.
    pub packed_bytes: u32,
    /// Unpacked bytes.
    pub unpacked_bytes: u32,
}

impl Block {
    /// Where it ends.
    #[must_use]
    pub fn end_bytes(&self) -> u64 {
        self.offset_bytes.saturating_add(PREFIX_BYTES).saturating_add(self.packed_bytes.into())
    }

    /// Its content.
    pub fn unpack(&self, file: &File) -> io::Result<Vec<u8>> {
        let mut packed = vec![0; self.packed_bytes as usize];
        file.read_exact_at(&mut packed, self.offset_bytes + PREFIX_BYTES)?;
        block::decompress(&packed, Some(self.unpacked_bytes.cast_signed()))
    }

    /// At which level it comes out as it is.
    pub fn level(&self, file: &File) -> io::Result<Option<u8>> {
        let mut packed = vec![0; self.packed_bytes as usize];
        file.read_exact_at(&mut packed, self.offset_bytes + PREFIX_BYTES)?;
        let content = self.unpack(file)?;
        for level in LEVELS {
            if pack(&content, level)? == packed {
                return Ok(Some(level));
            }
        }
        Ok(None)
    }
}

/// Packs a block.
pub fn pack(content: &[u8], level: u8) -> io::Result<Vec<u8>> {
    block::compress(content, Some(CompressionMode::HIGHCOMPRESSION(level.into())), false)
}

/// The blocks behind a magic at `offset_bytes`; none where it is a coincidence.
#[must_use]
pub fn blocks(file: &File, offset_bytes: u64, image_bytes: u64) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut at = offset_bytes.saturating_add(MAGIC.len() as u64);
    loop {
        let mut length = [0; PREFIX_BYTES as usize];
        if file.read_exact_at(&mut length, at).is_err() {
            return blocks;
        }
        let packed_bytes = u32::from_le_bytes(length);
        let end = at.saturating_add(PREFIX_BYTES).saturating_add(packed_bytes.into());
        if packed_bytes == 0 || packed_bytes as usize > BLOCK_BYTES || end > image_bytes {
            return blocks;
        }
        let mut block = Block { offset_bytes: at, packed_bytes, unpacked_bytes: BLOCK_BYTES as u32 };
        let Ok(content) = block.unpack(file) else { return blocks };
        block.unpacked_bytes = content.len() as u32;
        blocks.push(block);
        at = end;
        if content.len() < BLOCK_BYTES {
            return blocks;
        }
    }
}
