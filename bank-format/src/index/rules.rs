//! The rules of a chunk table, applied row by row: the same for one that is read, one that is made, and one that comes of a delta.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use sha2::{Digest as _, Sha256};

use super::{Chunk, ChunkTable, Frame, FrameShape, Lane, STRUCTURE, Source, check_image_bytes};
use crate::{
    digest::Digest256,
    error::{Error, Result},
    limits::{MAX_CHUNK_BYTES, MAX_CHUNKS, MAX_FRAME_RAW_BYTES, MAX_FRAME_STORED_BYTES},
};

/// A row of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Row {
    /// Its bytes are the next ones in the content of the frames of its lane.
    New { lane: Lane, bytes: u32, digest: Digest256 },
    /// All bytes are zero.
    Zeros { bytes: u32 },
    /// Equals the new chunk of that number.
    Repeat { of: u32 },
}

/// A table in the making.
pub(crate) struct Builder {
    table: ChunkTable,
    image_cursor: u64,
    main: Filling,
    aside: Filling,
    /// Frames that are full.
    filled: u32,
    /// Numbers of the new chunks.
    numbers: HashMap<Digest256, u32>,
    zeros: BTreeSet<u32>,
}

/// The frame of a lane that is being filled.
#[derive(Default)]
struct Filling {
    /// The frames before it are full, or of the other lane.
    frame: usize,
    /// New chunks in it.
    chunks: u32,
}

impl Builder {
    pub(crate) fn new(image_bytes: u64, shapes: Vec<FrameShape>) -> Result<Self> {
        check_image_bytes(image_bytes)?;
        let mut frames = Vec::with_capacity(shapes.len());
        let mut offset = 0;
        for shape in &shapes {
            if shape.stored_bytes > MAX_FRAME_STORED_BYTES {
                return Err(too_large("frame", shape.stored_bytes, MAX_FRAME_STORED_BYTES));
            }
            if shape.chunks == 0 || shape.stored_bytes == 0 {
                return Err(Error::malformed(STRUCTURE, "a frame is empty"));
            }
            frames.push(Frame { offset, stored_bytes: shape.stored_bytes, raw_bytes: 0 });
            offset += u64::from(shape.stored_bytes);
        }
        Ok(Self {
            table: ChunkTable { image_bytes, shapes, frames, chunks: Vec::new() },
            image_cursor: 0,
            main: Filling::default(),
            aside: Filling::default(),
            filled: 0,
            numbers: HashMap::new(),
            zeros: BTreeSet::new(),
        })
    }

    /// Takes the next row.
    pub(crate) fn row(&mut self, row: Row) -> Result<()> {
        let (bytes, source, digest) = match row {
            Row::New { lane, bytes, digest } => (bytes, self.place(lane, bytes, digest)?, digest),
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
    pub(crate) fn new_or_repeat(&mut self, lane: Lane, bytes: u32, digest: Digest256) -> Result<()> {
        match self.numbers.get(&digest) {
            Some(of) if self.table.chunks.get(*of as usize).is_some_and(|first| first.bytes == bytes) => {
                self.row(Row::Repeat { of: *of })
            }
            Some(_) | None => self.row(Row::New { lane, bytes, digest }),
        }
    }

    /// The next place in the content of the frames of a lane.
    fn place(&mut self, lane: Lane, bytes: u32, digest: Digest256) -> Result<Source> {
        let number = self.table.chunks.len() as u32;
        if let Some(earlier) = self.numbers.insert(digest, number) {
            let detail = format!("chunks {earlier} and {number} have one digest, and are stored twice");
            return Err(Error::malformed(STRUCTURE, detail));
        }
        let filling = match lane {
            Lane::Main => &mut self.main,
            Lane::Aside => &mut self.aside,
        };
        let is_full = |shape: &FrameShape| shape.lane != lane || filling.chunks >= shape.chunks;
        if self.table.shapes.get(filling.frame).is_some_and(is_full) {
            let behind = self.table.shapes.iter().skip(filling.frame + 1);
            let skipped = behind.take_while(|shape| shape.lane != lane).count();
            *filling = Filling { frame: filling.frame + 1 + skipped, chunks: 0 };
        }
        let no_frame = || Error::malformed(STRUCTURE, format!("no frame carries chunk {number}"));
        let shape = self.table.shapes.get(filling.frame).ok_or_else(no_frame)?;
        let frame = self.table.frames.get_mut(filling.frame).ok_or_else(no_frame)?;
        filling.chunks += 1;
        let offset = frame.raw_bytes;
        frame.raw_bytes = offset.saturating_add(bytes);
        if frame.raw_bytes > MAX_FRAME_RAW_BYTES {
            return Err(too_large("frame content", frame.raw_bytes, MAX_FRAME_RAW_BYTES));
        }
        let frame_number = filling.frame as u32; // at most MAX_CHUNKS frames were read
        if filling.chunks == shape.chunks && frame.stored_bytes > frame.raw_bytes {
            return Err(Error::malformed(
                STRUCTURE,
                format!("frame {frame_number} is longer than its content"),
            ));
        }
        self.filled += u32::from(filling.chunks == shape.chunks);
        Ok(Source::Frame { frame: frame_number, offset })
    }

    /// The table, once all rows are there.
    pub(crate) fn finish(mut self) -> Result<ChunkTable> {
        if self.image_cursor != self.table.image_bytes {
            return Err(Error::malformed(STRUCTURE, "chunks do not cover the image"));
        }
        if self.filled as usize != self.table.shapes.len() {
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
