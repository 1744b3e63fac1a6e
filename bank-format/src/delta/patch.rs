//! A patch: makes a few chunks, one behind the other, out of bytes of the base image.
//!
//! ```text
//! v   kind: 0 plain, 1 LZ4
//!     kind 1: v level, v decoded_bytes, v base blocks; each: v offset in the base image, v stored_bytes, v decoded_bytes
//! v   ops_stored,   v ops_bytes
//! v   diff_stored,  v diff_bytes
//! v   extra_stored, v extra_bytes
//!     the three streams
//! ```
//!
//! A stream with fewer stored bytes than bytes is one zstd frame; with as many it is stored as it is. The operations put the target
//! together (see [`apply`]). Plain: the base is the base image, the target is the chunks. LZ4: the content of both images is packed in
//! blocks of the legacy frame, as kernels and initrds are; the base is the decoded base blocks one behind the other, the target is one
//! decoded block. Packed again by LZ4 HC at `level`, its length before it (4 bytes, little-endian), that is the chunks. An
//! encoder that packs otherwise makes other chunks: their digests tell, and they are fetched.

use std::ops::Range;

use crate::{
    error::{Error, Result},
    header::Reader,
    index::Encoding,
    limits::{
        MAX_IMAGE_BYTES, MAX_LZ4_BLOCK_BYTES, MAX_LZ4_LEVEL, MAX_LZ4_STORED_BYTES, MAX_PATCH_BASE_BLOCKS,
        MAX_PATCH_OPS_BYTES, MAX_PATCH_STORED_BYTES, MAX_PATCH_TARGET_BYTES,
    },
    varint,
};

mod apply;

pub use apply::{ApplyError, BaseReader, Op, Piece, Pieces, apply, encode_ops, finish};

const STRUCTURE: &str = "patch";
const PLAIN: u64 = 0;
const LZ4: u64 = 1;

/// A block of an LZ4 legacy frame in the base image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BaseBlock {
    /// Bytes from the start of the base image to the packed bytes, behind the four of their length.
    pub offset: u64,
    /// Packed bytes, at least 1.
    pub stored_bytes: u32,
    /// Bytes that they unpack to, at least 1 and at most 8 MiB.
    pub decoded_bytes: u32,
}

/// What the base and the target of a patch are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// The base image, and the chunks.
    Plain,
    /// Blocks of LZ4 legacy frames.
    Lz4 {
        /// Level of LZ4 HC, 1 to 12.
        level: u32,
        /// Bytes of the block that is made, before it is packed.
        decoded_bytes: u32,
        /// What it is made of, at most 8; their decoded bytes one behind the other are the base.
        base_blocks: Vec<BaseBlock>,
    },
}

/// One of the three streams of a patch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stream {
    /// Bytes in the patch, at most `bytes`.
    pub stored_bytes: u32,
    /// Bytes once it is decompressed; 0 for a stream that is not there.
    pub bytes: u32,
}

impl Stream {
    /// How it is stored.
    #[must_use]
    pub fn encoding(&self) -> Encoding {
        Encoding::of(self.stored_bytes, self.bytes)
    }
}

/// What stands before the streams.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// What its base and target are.
    pub kind: Kind,
    /// How the target is put together: operations, see [`apply`].
    pub ops: Stream,
    /// Differences from bytes of the base.
    pub diff: Stream,
    /// Bytes that the base has not.
    pub extra: Stream,
}

/// Where the streams are in the bytes of a patch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Streams {
    /// The operations.
    pub ops: Range<usize>,
    /// The differences.
    pub diff: Range<usize>,
    /// The other bytes.
    pub extra: Range<usize>,
}

impl Header {
    /// Bytes of the target, at most 8 MiB. For a plain patch these are the bytes of its chunks together, which the caller compares.
    #[must_use]
    pub fn target_bytes(&self) -> u32 {
        // Their sum was checked, or is as large as can be: then it equals nothing.
        self.diff.bytes.saturating_add(self.extra.bytes)
    }

    /// The bytes before the streams, by the same rules by which they are read.
    pub fn encode(&self) -> Result<Vec<u8>> {
        self.check()?;
        let mut bytes = Vec::new();
        match &self.kind {
            Kind::Plain => varint::put(&mut bytes, PLAIN),
            Kind::Lz4 { level, decoded_bytes, base_blocks } => {
                for value in [LZ4, (*level).into(), (*decoded_bytes).into(), base_blocks.len() as u64] {
                    varint::put(&mut bytes, value);
                }
                for block in base_blocks {
                    for value in [block.offset, block.stored_bytes.into(), block.decoded_bytes.into()] {
                        varint::put(&mut bytes, value);
                    }
                }
            }
        }
        for stream in [self.ops, self.diff, self.extra] {
            varint::put(&mut bytes, stream.stored_bytes.into());
            varint::put(&mut bytes, stream.bytes.into());
        }
        Ok(bytes)
    }

    /// Reads what stands before the streams of a whole patch, and says where they are: they end with it.
    pub fn decode(patch: &[u8]) -> Result<(Self, Streams)> {
        varint::bounded(STRUCTURE, patch.len() as u64, MAX_PATCH_STORED_BYTES)?;
        let mut reader = Reader::new(STRUCTURE, patch);
        let kind = match reader.varint()? {
            PLAIN => Kind::Plain,
            LZ4 => {
                let level = reader.at_most("LZ4 level", MAX_LZ4_LEVEL)?;
                let decoded_bytes = reader.at_most("LZ4 block", MAX_LZ4_BLOCK_BYTES)?;
                let mut base_blocks = Vec::new();
                for _ in 0..reader.at_most("list of base blocks", MAX_PATCH_BASE_BLOCKS)? {
                    base_blocks.push(BaseBlock {
                        offset: reader.varint()?,
                        stored_bytes: reader.at_most("packed LZ4 block", MAX_LZ4_STORED_BYTES)?,
                        decoded_bytes: reader.at_most("LZ4 block", MAX_LZ4_BLOCK_BYTES)?,
                    });
                }
                Kind::Lz4 { level, decoded_bytes, base_blocks }
            }
            other => {
                return Err(Error::malformed(STRUCTURE, format!("kind {other} of patches does not exist")));
            }
        };
        let mut stream = || -> Result<Stream> {
            let stored_bytes = reader.at_most(STRUCTURE, MAX_PATCH_STORED_BYTES)?;
            Ok(Stream { stored_bytes, bytes: reader.at_most("stream of a patch", MAX_PATCH_TARGET_BYTES)? })
        };
        let header = Self { kind, ops: stream()?, diff: stream()?, extra: stream()? };
        header.check()?;
        let mut end = patch.len() - reader.rest().len();
        let mut next = |stream: Stream| {
            let start = end;
            end += stream.stored_bytes as usize;
            start..end
        };
        let streams = Streams { ops: next(header.ops), diff: next(header.diff), extra: next(header.extra) };
        if end != patch.len() {
            return Err(Error::malformed(STRUCTURE, "its streams do not end with it"));
        }
        Ok((header, streams))
    }

    fn check(&self) -> Result<()> {
        for stream in [self.ops, self.diff, self.extra] {
            if stream.stored_bytes > stream.bytes || (stream.stored_bytes == 0 && stream.bytes > 0) {
                return Err(Error::malformed(STRUCTURE, "a stream is longer than its content, or not there"));
            }
        }
        varint::bounded("operations of a patch", self.ops.bytes.into(), MAX_PATCH_OPS_BYTES)?;
        let target = u64::from(self.diff.bytes) + u64::from(self.extra.bytes);
        let target = varint::bounded("what a patch makes", target, MAX_PATCH_TARGET_BYTES)?;
        if target == 0 || self.ops.bytes == 0 {
            return Err(Error::malformed(STRUCTURE, "it makes nothing"));
        }
        match &self.kind {
            Kind::Plain => Ok(()),
            Kind::Lz4 { level, decoded_bytes, base_blocks } => {
                varint::bounded("list of base blocks", base_blocks.len() as u64, MAX_PATCH_BASE_BLOCKS)?;
                if *level == 0 || *level > MAX_LZ4_LEVEL {
                    return Err(Error::malformed(STRUCTURE, format!("LZ4 HC has no level {level}")));
                }
                if *decoded_bytes != target {
                    return Err(Error::malformed(STRUCTURE, "its streams make another block than it says"));
                }
                base_blocks.iter().try_for_each(BaseBlock::check)
            }
        }
    }
}

impl BaseBlock {
    fn check(&self) -> Result<()> {
        varint::bounded("packed LZ4 block", self.stored_bytes.into(), MAX_LZ4_STORED_BYTES)?;
        varint::bounded("LZ4 block", self.decoded_bytes.into(), MAX_LZ4_BLOCK_BYTES)?;
        let end = self.offset.checked_add(self.stored_bytes.into());
        if self.stored_bytes == 0 || self.decoded_bytes == 0 || end.is_none_or(|end| end > MAX_IMAGE_BYTES) {
            return Err(Error::malformed(STRUCTURE, "a base block is empty, or lies beyond any image"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
