//! The chunk table of an image: which bytes it consists of, and which frame carries them.
//!
//! ```text
//! 8   magic "RoroIdx1"
//! v   image_bytes
//! v   frames; each: v new chunks in it * 2 + lane, v stored_bytes; frames lie one behind the other in the image's part of the section
//! v   chunks; each: v value * 4 + kind
//!       kind 0, new:    value is its bytes; it is the next one in the content of the frames of lane 0
//!       kind 1, zeros:  value is its bytes
//!       kind 2, repeat: value is the number of an earlier new chunk, which it equals
//!       kind 3, new:    as kind 0, in the frames of lane 1
//! 32  per new chunk: SHA-256
//! ```
//!
//! `v` is a varint in its shortest form. Chunks follow each other in the image and new ones follow each other in the frames of their
//! lane, so there can be no gap and no overlap; the content of a frame is as long as its chunks. What changes at other times goes into another
//! lane (the inodes between the files, say): a device that fetches one does not pay for the other. Equal chunks are stored once. A frame with
//! `stored_bytes` equal to the bytes of its content is stored as it is, a shorter one is a zstd frame. A table has one form:
//! what was read is written again byte for byte, so a table that a device has made can be compared by its digest.

use std::collections::{HashMap, hash_map::Entry};

use crate::{
    digest::Digest256,
    error::{Error, Result},
    header::Reader,
    limits::{MAX_CHUNKS, MAX_IMAGE_BYTES, MAX_INDEX_BYTES},
    varint,
};

mod rules;
#[cfg(test)]
pub(crate) mod tests;

pub(crate) use rules::{Builder, Row};

const MAGIC: [u8; 8] = *b"RoroIdx1";
const STRUCTURE: &str = "chunk table";
const NEW: u64 = 0;
const ZEROS: u64 = 1;
const REPEAT: u64 = 2;
const NEW_ASIDE: u64 = 3;

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
        Encoding::of(self.stored_bytes, self.raw_bytes)
    }
}

/// How a frame, or a stream of a patch, holds its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// As it is.
    Stored,
    /// One zstd frame (RFC 8878), window at most 8 MiB.
    Zstd,
}

impl Encoding {
    /// What does not shrink is stored as it is.
    pub(crate) fn of(stored_bytes: u32, raw_bytes: u32) -> Self {
        if stored_bytes == raw_bytes { Self::Stored } else { Self::Zstd }
    }
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

/// Which frames a chunk goes into: what changes together should be together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// Content of files.
    Main,
    /// What lies between.
    Aside,
}

impl Lane {
    fn number(self) -> u64 {
        match self {
            Self::Main => 0,
            Self::Aside => 1,
        }
    }
}

/// What a table says of a frame; the rest follows from the chunks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FrameShape {
    /// Which new chunks it takes.
    pub(crate) lane: Lane,
    /// New chunks in its content, at least 1.
    pub(crate) chunks: u32,
    /// Bytes in the bundle, at least 1.
    pub(crate) stored_bytes: u32,
}

impl FrameShape {
    /// Appends the list of frames.
    pub(crate) fn put_all(out: &mut Vec<u8>, shapes: &[Self]) {
        varint::put(out, shapes.len() as u64);
        for shape in shapes {
            varint::put(out, u64::from(shape.chunks) << 1 | shape.lane.number());
            varint::put(out, shape.stored_bytes.into());
        }
    }

    /// Reads a list of frames; their rules are checked with the chunks.
    pub(crate) fn read_all(reader: &mut Reader<'_>) -> Result<Vec<Self>> {
        let count = reader.at_most("list of frames", MAX_CHUNKS)?;
        let mut shapes = Vec::new();
        for _ in 0..count {
            let head = reader.at_most("list of chunks in a frame", MAX_CHUNKS * 2 + 1)?;
            let lane = if head & 1 == 1 { Lane::Aside } else { Lane::Main };
            shapes.push(Self { lane, chunks: head >> 1, stored_bytes: reader.at_most("frame", u32::MAX)? });
        }
        Ok(shapes)
    }
}

/// The table of one image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChunkTable {
    image_bytes: u64,
    shapes: Vec<FrameShape>,
    frames: Vec<Frame>,
    chunks: Vec<Chunk>,
}

impl ChunkTable {
    /// Builds a table from `(lane, stored_bytes, raw_bytes)` of each frame and `(bytes, source, digest)` of each chunk,
    /// by the same rules by which one is read. Chunks of one digest have one place; zeros have the digest of zeros.
    pub fn new(frames: &[(Lane, u32, u32)], chunks: &[(u32, Source, Digest256)]) -> Result<Self> {
        varint::bounded("list of chunks", chunks.len() as u64, MAX_CHUNKS)?;
        let image_bytes = chunks.iter().map(|(bytes, ..)| u64::from(*bytes)).sum();
        let mut shapes: Vec<FrameShape> = frames
            .iter()
            .map(|(lane, stored_bytes, _)| FrameShape { lane: *lane, chunks: 0, stored_bytes: *stored_bytes })
            .collect();
        let mut rows = Vec::with_capacity(chunks.len());
        let mut first = HashMap::new();
        for ((bytes, source, digest), number) in chunks.iter().zip(0..) {
            rows.push(match source {
                Source::Zeros => Row::Zeros { bytes: *bytes },
                Source::Frame { frame, .. } => match first.get(source) {
                    Some(of) => Row::Repeat { of: *of },
                    None => {
                        let shape = shapes.get_mut(*frame as usize).ok_or_else(|| {
                            Error::malformed(STRUCTURE, format!("there is no frame {frame}"))
                        })?;
                        shape.chunks += 1;
                        first.insert(*source, number);
                        Row::New { lane: shape.lane, bytes: *bytes, digest: *digest }
                    }
                },
            });
        }
        let mut builder = Builder::new(image_bytes, shapes)?;
        for row in rows {
            builder.row(row)?;
        }
        let table = builder.finish()?;
        for (number, (given, made)) in chunks.iter().zip(&table.chunks).enumerate() {
            if *given != (made.bytes, made.source, made.digest) {
                let detail = format!("chunk {number} leaves a gap or overlaps, or its digest is another's");
                return Err(Error::malformed(STRUCTURE, detail));
            }
        }
        if !frames.iter().map(|(.., raw)| *raw).eq(table.frames.iter().map(|frame| frame.raw_bytes)) {
            return Err(Error::malformed(STRUCTURE, "chunks do not cover the frames"));
        }
        Ok(table)
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

    pub(crate) fn shapes(&self) -> &[FrameShape] {
        &self.shapes
    }

    /// The lane of a chunk of this table that is in a frame.
    pub(crate) fn lane(&self, frame: u32) -> Lane {
        self.shapes.get(frame as usize).map_or(Lane::Main, |shape| shape.lane)
    }

    /// The table's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        varint::put(&mut bytes, self.image_bytes);
        FrameShape::put_all(&mut bytes, &self.shapes);
        varint::put(&mut bytes, self.chunks.len() as u64);
        let mut digests = Vec::new();
        let mut first: HashMap<Source, u64> = HashMap::new();
        for (chunk, number) in self.chunks.iter().zip(0u64..) {
            let (value, kind) = match chunk.source {
                Source::Zeros => (chunk.bytes.into(), ZEROS),
                Source::Frame { frame, .. } => match first.entry(chunk.source) {
                    Entry::Occupied(earlier) => (*earlier.get(), REPEAT),
                    Entry::Vacant(place) => {
                        place.insert(number);
                        digests.push(chunk.digest);
                        match self.lane(frame) {
                            Lane::Main => (chunk.bytes.into(), NEW),
                            Lane::Aside => (chunk.bytes.into(), NEW_ASIDE),
                        }
                    }
                },
            };
            varint::put(&mut bytes, value << 2 | kind);
        }
        bytes.extend(digests.iter().flat_map(|digest| digest.0));
        bytes
    }

    /// Reads and checks a table. The caller has compared the bytes with the signed digest, or believes nothing of it.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let total = bytes.len() as u64;
        if total > MAX_INDEX_BYTES {
            return Err(Error::TooLarge { structure: STRUCTURE, value: total, limit: MAX_INDEX_BYTES });
        }
        let mut reader = Reader::new(STRUCTURE, bytes);
        if reader.array::<8>()? != MAGIC {
            return Err(Error::WrongMagic { structure: STRUCTURE });
        }
        let image_bytes = reader.varint()?;
        let shapes = FrameShape::read_all(&mut reader)?;
        let count = reader.at_most("list of chunks", MAX_CHUNKS)?;
        let mut heads = Vec::new();
        for _ in 0..count {
            let head = reader.varint()?;
            heads.push((head & 3, varint::bounded("chunk", head >> 2, u32::MAX)?));
        }
        let mut builder = Builder::new(image_bytes, shapes)?;
        for (kind, value) in heads {
            builder.row(match kind {
                ZEROS => Row::Zeros { bytes: value },
                REPEAT => Row::Repeat { of: value },
                NEW_ASIDE => Row::New { lane: Lane::Aside, bytes: value, digest: Digest256(reader.array()?) },
                // There are four.
                _ => Row::New { lane: Lane::Main, bytes: value, digest: Digest256(reader.array()?) },
            })?;
        }
        reader.end()?;
        builder.finish()
    }
}

/// Refuses images beyond the limit.
pub(crate) fn check_image_bytes(image_bytes: u64) -> Result<()> {
    if image_bytes > MAX_IMAGE_BYTES {
        return Err(Error::TooLarge { structure: "image", value: image_bytes, limit: MAX_IMAGE_BYTES });
    }
    Ok(())
}
