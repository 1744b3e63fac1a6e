//! The rules of a chunk table, applied row by row: the same for one that is read, one that is made, and one that comes of a delta.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use sha2::{Digest as _, Sha256};

use super::{Chunk, ChunkTable, Frame, FrameShape, STRUCTURE, Source, check_image_bytes};
use crate::{
    digest::Digest256,
    error::{Error, Result},
    limits::{MAX_CHUNK_BYTES, MAX_CHUNKS, MAX_FRAME_RAW_BYTES, MAX_FRAME_STORED_BYTES},
};

/// A row of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Row {
    /// Its bytes are the next ones in the content of the frames.
    New { bytes: u32, digest: Digest256 },
    /// All bytes are zero.
    Zeros { bytes: u32 },
    /// Equals the new chunk of that number.
    Repeat { of: u32 },
}

/// A table in the making.
pub(crate) struct Builder {
    table: ChunkTable,
    image_cursor: u64,
    stored_cursor: u64,
    /// New chunks that the last frame still lacks.
    lacking: u32,
    /// Numbers of the new chunks.
    numbers: HashMap<Digest256, u32>,
    zeros: BTreeSet<u32>,
}

impl Builder {
    pub(crate) fn new(image_bytes: u64, shapes: Vec<FrameShape>) -> Result<Self> {
        check_image_bytes(image_bytes)?;
        for shape in &shapes {
            if shape.stored_bytes > MAX_FRAME_STORED_BYTES {
                return Err(too_large("frame", shape.stored_bytes, MAX_FRAME_STORED_BYTES));
            }
            if shape.chunks == 0 || shape.stored_bytes == 0 {
                return Err(Error::malformed(STRUCTURE, "a frame is empty"));
            }
        }
        Ok(Self {
            table: ChunkTable { image_bytes, shapes, frames: Vec::new(), chunks: Vec::new() },
            image_cursor: 0,
            stored_cursor: 0,
            lacking: 0,
            numbers: HashMap::new(),
            zeros: BTreeSet::new(),
        })
    }

    /// Takes the next row.
    pub(crate) fn row(&mut self, row: Row) -> Result<()> {
        let (bytes, source, digest) = match row {
            Row::New { bytes, digest } => (bytes, self.place(bytes, digest)?, digest),
            Row::Zeros { bytes } => {
                self.zeros.insert(bytes);
                // Known at the end, when all lengths are.
                (bytes, Source::Zeros, Digest256([0; 32]))
            }
            Row::Repeat { of } => match self.table.chunks.get(of as usize) {
                Some(first) if self.numbers.get(&first.digest) == Some(&of) => {
                    (first.bytes, first.source, first.digest)
                }
                Some(_) | None => {
                    return Err(Error::malformed(
                        STRUCTURE,
                        format!("chunk {of} is none that can be repeated"),
                    ));
                }
            },
        };
        if bytes == 0 {
            return Err(Error::malformed(STRUCTURE, "a chunk is empty"));
        }
        if bytes > MAX_CHUNK_BYTES {
            return Err(too_large("chunk", bytes, MAX_CHUNK_BYTES));
        }
        if self.table.chunks.len() >= MAX_CHUNKS as usize {
            return Err(too_large("list of chunks", MAX_CHUNKS + 1, MAX_CHUNKS));
        }
        self.table.chunks.push(Chunk { offset: self.image_cursor, bytes, source, digest });
        self.image_cursor += u64::from(bytes);
        if self.image_cursor > self.table.image_bytes {
            return Err(Error::malformed(STRUCTURE, "chunks are longer than the image"));
        }
        Ok(())
    }

    /// Takes a chunk that is not zeros: a repeat where one of this digest went before, else new.
    pub(crate) fn new_or_repeat(&mut self, bytes: u32, digest: Digest256) -> Result<()> {
        match self.numbers.get(&digest) {
            Some(of) if self.table.chunks.get(*of as usize).is_some_and(|first| first.bytes == bytes) => {
                self.row(Row::Repeat { of: *of })
            }
            Some(_) | None => self.row(Row::New { bytes, digest }),
        }
    }

    /// The next place in the content of the frames.
    fn place(&mut self, bytes: u32, digest: Digest256) -> Result<Source> {
        let number = self.table.chunks.len() as u32;
        if let Some(earlier) = self.numbers.insert(digest, number) {
            let detail = format!("chunks {earlier} and {number} have one digest, and are stored twice");
            return Err(Error::malformed(STRUCTURE, detail));
        }
        if self.lacking == 0 {
            let shape = self
                .table
                .shapes
                .get(self.table.frames.len())
                .ok_or_else(|| Error::malformed(STRUCTURE, format!("no frame carries chunk {number}")))?;
            let frame = Frame { offset: self.stored_cursor, stored_bytes: shape.stored_bytes, raw_bytes: 0 };
            self.stored_cursor += u64::from(shape.stored_bytes);
            self.lacking = shape.chunks;
            self.table.frames.push(frame);
        }
        self.lacking -= 1;
        let frame_number = self.table.frames.len() as u32 - 1;
        let frame =
            self.table.frames.last_mut().ok_or_else(|| Error::malformed(STRUCTURE, "it has no frame"))?;
        let offset = frame.raw_bytes;
        frame.raw_bytes = offset.saturating_add(bytes);
        if frame.raw_bytes > MAX_FRAME_RAW_BYTES {
            return Err(too_large("frame content", frame.raw_bytes, MAX_FRAME_RAW_BYTES));
        }
        if self.lacking == 0 && frame.stored_bytes > frame.raw_bytes {
            return Err(Error::malformed(
                STRUCTURE,
                format!("frame {frame_number} is longer than its content"),
            ));
        }
        Ok(Source::Frame { frame: frame_number, offset })
    }

    /// The table, once all rows are there.
    pub(crate) fn finish(mut self) -> Result<ChunkTable> {
        if self.image_cursor != self.table.image_bytes {
            return Err(Error::malformed(STRUCTURE, "chunks do not cover the image"));
        }
        if self.lacking != 0 || self.table.frames.len() != self.table.shapes.len() {
            return Err(Error::malformed(STRUCTURE, "chunks do not cover the frames"));
        }
        let digests = digests_of_zeros(&self.zeros);
        for chunk in &mut self.table.chunks {
            if let (Source::Zeros, Some(digest)) = (chunk.source, digests.get(&chunk.bytes)) {
                chunk.digest = *digest;
            }
        }
        Ok(self.table)
    }
}

fn too_large(structure: &'static str, value: u32, limit: u32) -> Error {
    Error::TooLarge { structure, value: value.into(), limit: limit.into() }
}

/// Digests of so many zeros, all in one go: a table with zeros of a million different lengths costs no more hashing than the longest.
fn digests_of_zeros(lengths: &BTreeSet<u32>) -> BTreeMap<u32, Digest256> {
    const BLOCK: [u8; 4096] = [0; 4096];
    let mut hasher = Sha256::new();
    let mut hashed_bytes = 0;
    let mut digests = BTreeMap::new();
    for length in lengths {
        while hashed_bytes < *length {
            let part = BLOCK.get(..(length - hashed_bytes) as usize).unwrap_or(&BLOCK);
            hasher.update(part);
            hashed_bytes += part.len() as u32;
        }
        digests.insert(*length, Digest256(hasher.clone().finalize().into()));
    }
    digests
}
