//! The chunk table of an image: which bytes it consists of, and which frame carries them.
//!
//! ```text
//! 8   magic "RoroIdx1"
//! 8   image_bytes
//! 4   frames
//! 4   chunks
//! 8   per frame: stored_bytes u32, raw_bytes u32; frames lie one behind the other in the image's part of the frames section
//! 44  per chunk: bytes u32, frame u32 (0xFFFFFFFF: all zeros), offset in the frame u32, SHA-256
//! ```
//!
//! Chunks follow each other in the image, so there can be no gap and no overlap. A frame's content is tiled by the chunks
//! that mention it first, in order; a later chunk may point at an earlier one (same place, same digest). Nothing else is valid.
//! A frame with `stored_bytes == raw_bytes` is stored as it is, a shorter one is a zstd frame.

use std::collections::HashMap;

use crate::{
    digest::Digest256,
    error::{Error, Result},
    header::Reader,
    limits::{
        MAX_CHUNK_BYTES, MAX_FRAME_RAW_BYTES, MAX_FRAME_STORED_BYTES, MAX_IMAGE_BYTES, MAX_INDEX_BYTES,
    },
};

const MAGIC: [u8; 8] = *b"RoroIdx1";
const STRUCTURE: &str = "chunk table";
const ZEROS: u32 = u32::MAX;
const HEAD_BYTES: u64 = 24;
const FRAME_BYTES: u64 = 8;
const CHUNK_BYTES: u64 = 44;

/// A frame: independent, so that it can be fetched and checked alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    /// Bytes from the start of the image's part of the frames section.
    pub offset: u64,
    /// Bytes in the bundle.
    pub stored_bytes: u32,
    /// Bytes of its content.
    pub raw_bytes: u32,
}

impl Frame {
    /// How the content is stored.
    #[must_use]
    pub fn encoding(&self) -> Encoding {
        if self.stored_bytes == self.raw_bytes { Encoding::Stored } else { Encoding::Zstd }
    }
}

/// How a frame holds its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// As it is.
    Stored,
    /// One zstd frame (RFC 8878), window at most 8 MiB.
    Zstd,
}

/// Where a chunk's bytes come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Source {
    /// All bytes are zero.
    Zeros,
    /// In the content of a frame.
    Frame {
        /// Number of the frame.
        frame: u32,
        /// Bytes from the start of its content.
        offset: u32,
    },
}

/// A chunk: the unit that is hashed, fetched, copied or patched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunk {
    /// Bytes from the start of the image.
    pub offset: u64,
    /// Bytes.
    pub bytes: u32,
    /// Where they are.
    pub source: Source,
    /// SHA-256 of the bytes.
    pub digest: Digest256,
}

/// The table of one image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChunkTable {
    image_bytes: u64,
    frames: Vec<Frame>,
    chunks: Vec<Chunk>,
}

impl ChunkTable {
    /// Builds a table from `(stored_bytes, raw_bytes)` of each frame and `(bytes, source, digest)` of each chunk,
    /// by the same rules by which one is read.
    pub fn new(frames: &[(u32, u32)], chunks: &[(u32, Source, Digest256)]) -> Result<Self> {
        let image_bytes = chunks
            .iter()
            .try_fold(0u64, |sum, (bytes, ..)| sum.checked_add(u64::from(*bytes)))
            .ok_or_else(|| Error::malformed(STRUCTURE, "chunks are longer than 64 bits"))?;
        let mut builder = Builder::new(image_bytes)?;
        for (stored, raw) in frames {
            builder.frame(*stored, *raw)?;
        }
        for (bytes, source, digest) in chunks {
            builder.chunk(*bytes, *source, *digest)?;
        }
        builder.finish()
    }

    /// Bytes of the image.
    #[must_use]
    pub fn image_bytes(&self) -> u64 {
        self.image_bytes
    }

    /// The frames in their order in the bundle.
    #[must_use]
    pub fn frames(&self) -> &[Frame] {
        &self.frames
    }

    /// The chunks in their order in the image.
    #[must_use]
    pub fn chunks(&self) -> &[Chunk] {
        &self.chunks
    }

    /// Bytes of all frames in the bundle.
    #[must_use]
    pub fn stored_bytes(&self) -> u64 {
        self.frames.iter().map(|frame| u64::from(frame.stored_bytes)).sum()
    }

    /// The table's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(MAGIC);
        bytes.extend(self.image_bytes.to_le_bytes());
        bytes.extend((self.frames.len() as u32).to_le_bytes());
        bytes.extend((self.chunks.len() as u32).to_le_bytes());
        for frame in &self.frames {
            bytes.extend(frame.stored_bytes.to_le_bytes());
            bytes.extend(frame.raw_bytes.to_le_bytes());
        }
        for chunk in &self.chunks {
            let (frame, offset) = match chunk.source {
                Source::Zeros => (ZEROS, 0),
                Source::Frame { frame, offset } => (frame, offset),
            };
            bytes.extend(chunk.bytes.to_le_bytes());
            bytes.extend(frame.to_le_bytes());
            bytes.extend(offset.to_le_bytes());
            bytes.extend(chunk.digest.0);
        }
        bytes
    }

    /// Reads and checks a table. The caller has compared the bytes with the signed digest before.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let total = bytes.len() as u64;
        if total > MAX_INDEX_BYTES {
            return Err(Error::TooLarge { structure: STRUCTURE, value: total, limit: MAX_INDEX_BYTES });
        }
        let mut reader = Reader::new(STRUCTURE, bytes);
        if reader.array::<8>()? != MAGIC {
            return Err(Error::WrongMagic { structure: STRUCTURE });
        }
        let image_bytes = reader.u64()?;
        let frames = reader.u32()?;
        let chunks = reader.u32()?;
        let expected = HEAD_BYTES + FRAME_BYTES * u64::from(frames) + CHUNK_BYTES * u64::from(chunks);
        if total != expected {
            return Err(Error::malformed(STRUCTURE, format!("{total} bytes for a table of {expected}")));
        }
        let mut builder = Builder::new(image_bytes)?;
        for _ in 0..frames {
            builder.frame(reader.u32()?, reader.u32()?)?;
        }
        for _ in 0..chunks {
            let length = reader.u32()?;
            let source = match (reader.u32()?, reader.u32()?) {
                (ZEROS, 0) => Source::Zeros,
                (frame, offset) => Source::Frame { frame, offset },
            };
            builder.chunk(length, source, Digest256(reader.array()?))?;
        }
        builder.finish()
    }
}

/// The rules, applied row by row.
struct Builder {
    table: ChunkTable,
    image_cursor: u64,
    stored_cursor: u64,
    /// The frame that is being tiled, and how far.
    frame_cursor: (u32, u32),
    seen: HashMap<(u32, u32), (u32, Digest256)>,
}

impl Builder {
    fn new(image_bytes: u64) -> Result<Self> {
        if image_bytes > MAX_IMAGE_BYTES {
            return Err(Error::TooLarge { structure: "image", value: image_bytes, limit: MAX_IMAGE_BYTES });
        }
        Ok(Self {
            table: ChunkTable { image_bytes, frames: Vec::new(), chunks: Vec::new() },
            image_cursor: 0,
            stored_cursor: 0,
            frame_cursor: (0, 0),
            seen: HashMap::new(),
        })
    }

    fn frame(&mut self, stored_bytes: u32, raw_bytes: u32) -> Result<()> {
        for (structure, value, limit) in [
            ("frame content", raw_bytes, MAX_FRAME_RAW_BYTES),
            ("frame", stored_bytes, MAX_FRAME_STORED_BYTES),
        ] {
            if value > limit {
                return Err(Error::TooLarge { structure, value: value.into(), limit: limit.into() });
            }
        }
        if stored_bytes == 0 || stored_bytes > raw_bytes {
            return Err(Error::malformed(STRUCTURE, "a frame is empty, or longer than its content"));
        }
        self.table.frames.push(Frame { offset: self.stored_cursor, stored_bytes, raw_bytes });
        self.stored_cursor += u64::from(stored_bytes);
        Ok(())
    }

    fn chunk(&mut self, bytes: u32, source: Source, digest: Digest256) -> Result<()> {
        if bytes == 0 {
            return Err(Error::malformed(STRUCTURE, "a chunk is empty"));
        }
        if bytes > MAX_CHUNK_BYTES {
            return Err(Error::TooLarge {
                structure: "chunk",
                value: bytes.into(),
                limit: MAX_CHUNK_BYTES.into(),
            });
        }
        if let Source::Frame { frame, offset } = source {
            self.place(frame, offset, bytes, digest)?;
        }
        self.table.chunks.push(Chunk { offset: self.image_cursor, bytes, source, digest });
        self.image_cursor += u64::from(bytes);
        if self.image_cursor > self.table.image_bytes {
            return Err(Error::malformed(STRUCTURE, "chunks are longer than the image"));
        }
        Ok(())
    }

    /// A chunk either repeats an earlier one exactly, or continues the tiling of the frames.
    fn place(&mut self, frame: u32, offset: u32, bytes: u32, digest: Digest256) -> Result<()> {
        if let Some(earlier) = self.seen.get(&(frame, offset)) {
            return if *earlier == (bytes, digest) {
                Ok(())
            } else {
                Err(Error::malformed(STRUCTURE, format!("chunks overlap in frame {frame}")))
            };
        }
        let (at_frame, at_offset) = self.frame_cursor;
        let raw_bytes = match self.table.frames.get(at_frame as usize) {
            Some(current) if (frame, offset) == (at_frame, at_offset) => current.raw_bytes,
            _ => return Err(Error::malformed(STRUCTURE, format!("a gap or an overlap in frame {frame}"))),
        };
        let end = at_offset.checked_add(bytes).filter(|end| *end <= raw_bytes).ok_or_else(|| {
            Error::malformed(STRUCTURE, format!("a chunk reaches beyond the content of frame {frame}"))
        })?;
        self.seen.insert((frame, offset), (bytes, digest));
        self.frame_cursor = if end == raw_bytes { (at_frame + 1, 0) } else { (at_frame, end) };
        Ok(())
    }

    fn finish(self) -> Result<ChunkTable> {
        if self.image_cursor != self.table.image_bytes {
            return Err(Error::malformed(STRUCTURE, "chunks do not cover the image"));
        }
        if self.frame_cursor != (self.table.frames.len() as u32, 0) {
            return Err(Error::malformed(STRUCTURE, "chunks do not cover the frames"));
        }
        Ok(self.table)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn digest(n: u8) -> Digest256 {
        Digest256::of(&[n])
    }

    fn at(frame: u32, offset: u32) -> Source {
        Source::Frame { frame, offset }
    }

    fn sample() -> ChunkTable {
        ChunkTable::new(
            &[(50, 100), (30, 30)],
            &[
                (60, at(0, 0), digest(1)),
                (40, at(0, 60), digest(2)),
                (4096, Source::Zeros, digest(0)),
                (60, at(0, 0), digest(1)),
                (30, at(1, 0), digest(3)),
            ],
        )
        .unwrap()
    }

    #[test]
    fn round_trip() {
        let table = sample();
        assert_eq!(ChunkTable::decode(&table.encode()).unwrap(), table);
        assert_eq!(table.image_bytes(), 60 + 40 + 4096 + 60 + 30);
        assert_eq!(table.frames()[1].offset, 50);
        assert_eq!(table.frames()[0].encoding(), Encoding::Zstd);
        assert_eq!(table.frames()[1].encoding(), Encoding::Stored);
    }

    #[test]
    fn gaps_overlaps_bombs_and_empty_rows_are_refused() {
        let d = digest(1);
        type Case<'a> = (&'a str, &'a [(u32, u32)], &'a [(u32, Source, Digest256)]);
        let bad: &[Case] = &[
            ("gap in a frame", &[(9, 10)], &[(4, at(0, 0), d), (5, at(0, 5), d)]),
            ("overlap in a frame", &[(9, 10)], &[(6, at(0, 0), d), (6, at(0, 4), d)]),
            ("same place, other digest", &[(9, 10)], &[(10, at(0, 0), d), (10, at(0, 0), digest(2))]),
            ("same place, other length", &[(9, 10)], &[(10, at(0, 0), d), (9, at(0, 0), d)]),
            ("frame not used", &[(9, 10)], &[(10, Source::Zeros, d)]),
            ("frame not used up", &[(9, 10)], &[(9, at(0, 0), d)]),
            ("frame that is not there", &[], &[(9, at(0, 0), d)]),
            ("beyond the frame", &[(9, 10)], &[(11, at(0, 0), d)]),
            ("offset near the end of 32 bits", &[(9, 10)], &[(10, at(0, u32::MAX), d)]),
            ("empty chunk", &[], &[(0, Source::Zeros, d)]),
            ("chunk too large", &[], &[(MAX_CHUNK_BYTES + 1, Source::Zeros, d)]),
            ("bomb", &[(9, MAX_FRAME_RAW_BYTES + 1)], &[]),
            ("frame longer than its content", &[(11, 10)], &[(10, at(0, 0), d)]),
            ("empty frame", &[(0, 0)], &[]),
        ];
        for (name, frames, chunks) in bad {
            assert!(ChunkTable::new(frames, chunks).is_err(), "{name}");
        }
    }

    #[test]
    fn counts_that_do_not_fit_the_bytes_are_refused_before_memory_is_taken() {
        let mut bytes = sample().encode();
        bytes[16..20].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(ChunkTable::decode(&bytes).is_err());
        let mut bytes = sample().encode();
        bytes[8..16].copy_from_slice(&(1u64 << 63).to_le_bytes());
        assert!(ChunkTable::decode(&bytes).is_err());
    }

    proptest! {
        #[test]
        fn never_panics(flips in proptest::collection::vec((0usize..300, any::<u8>()), 0..8), cut in 0usize..300) {
            let mut bytes = sample().encode();
            for (at, value) in flips {
                let len = bytes.len();
                bytes[at % len] = value;
            }
            bytes.truncate(bytes.len().saturating_sub(cut));
            if let Ok(table) = ChunkTable::decode(&bytes) {
                prop_assert_eq!(table.encode(), bytes);
            }
        }
    }
}
