//! Which chunks are taken from where, image by image: in place, zeros, the active bank, or a frame of the bundle.

use bank_format::{
    Digest256,
    index::{Chunk, ChunkTable, Source},
};

use super::{
    frames::{FrameCutter, FrameDecoder},
    report::Tally,
};
use crate::{
    bank::BankWriter,
    error::{Error, Result},
    limits::{MAX_RANGE_BYTES, MAX_RANGE_GAP_BYTES},
    ports::{ImageFile, Progress},
};

/// Frames that are fetched in one request, counted from the start of the image's frames.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// First byte.
    pub offset: u64,
    /// Bytes.
    pub bytes: u64,
    /// First frame.
    pub first: usize,
    /// Last frame, included.
    pub last: usize,
}

/// What is still to be fetched of one image.
pub struct ImageJob<'t> {
    image: usize,
    name: &'t str,
    table: &'t ChunkTable,
    /// Chunks that need a frame, ordered by it.
    wanted: Vec<usize>,
    taken: usize,
}

impl<'t> ImageJob<'t> {
    /// Looks at each chunk; writes the zeros and what the active bank has in the same place.
    pub fn plan(
        writer: &mut BankWriter<'_>,
        (image, name): (usize, &'t str),
        table: &'t ChunkTable,
        mut active: Option<&mut dyn ImageFile>,
        tally: &mut Tally,
        progress: &mut dyn Progress,
    ) -> Result<Self> {
        let mut wanted = Vec::new();
        let mut buffer = Vec::new();
        for (number, chunk) in table.chunks().iter().enumerate() {
            let bytes = u64::from(chunk.bytes);
            if writer.in_place(image, chunk, &mut buffer)? {
                tally.skipped_bytes += bytes;
                progress.advance(bytes);
                continue;
            }
            match chunk.source {
                Source::Zeros => {
                    buffer.clear();
                    buffer.resize(chunk.bytes as usize, 0);
                    writer.write_chunk(image, chunk, &buffer)?;
                    progress.advance(bytes);
                }
                Source::Frame { .. } => {
                    let here = active.as_deref_mut().is_some_and(|file| lies_in(file, chunk, &mut buffer));
                    if here {
                        writer.write_chunk(image, chunk, &buffer)?;
                        tally.copied_bytes += bytes;
                        progress.advance(bytes);
                    } else {
                        wanted.push(number);
                    }
                }
            }
        }
        wanted.sort_by_key(|number| table.chunks().get(*number).and_then(frame_of));
        Ok(Self { image, name, table, wanted, taken: 0 })
    }

    /// The requests that bring all wanted frames.
    #[must_use]
    pub fn runs(&self) -> Vec<Run> {
        let mut runs: Vec<Run> = Vec::new();
        for number in self.wanted.iter().filter_map(|number| frame_of(self.table.chunks().get(*number)?)) {
            let Some(frame) = self.table.frames().get(number) else { continue };
            let end = frame.offset + u64::from(frame.stored_bytes);
            match runs.last_mut() {
                Some(run) if run.last == number => (),
                Some(run)
                    if frame.offset <= run.offset + run.bytes + MAX_RANGE_GAP_BYTES
                        && end - run.offset <= MAX_RANGE_BYTES =>
                {
                    run.last = number;
                    run.bytes = end - run.offset;
                }
                Some(_) | None => {
                    let bytes = u64::from(frame.stored_bytes);
                    runs.push(Run { offset: frame.offset, bytes, first: number, last: number });
                }
            }
        }
        runs
    }

    /// The frames of a run, to be cut out of its bytes.
    #[must_use]
    pub fn frames_of(&self, run: &Run) -> FrameCutter {
        let frames = self.table.frames().iter().enumerate().skip(run.first);
        let frames = frames.take_while(|(number, _)| *number <= run.last);
        FrameCutter::new(frames.map(|(number, frame)| (number, frame.stored_bytes as usize)).collect())
    }

    /// Takes a frame: decompresses it if a chunk of it is wanted, and writes those chunks.
    pub fn take_frame(
        &mut self,
        number: usize,
        stored: &[u8],
        decoder: &mut FrameDecoder,
        writer: &mut BankWriter<'_>,
        progress: &mut dyn Progress,
    ) -> Result<()> {
        let of_frame = |chunk: &Chunk| match chunk.source {
            Source::Frame { frame, offset } if frame as usize == number => Some(offset as usize),
            Source::Frame { .. } | Source::Zeros => None,
        };
        let next = |taken: usize| {
            let chunk = self.table.chunks().get(*self.wanted.get(taken)?)?;
            Some((chunk, of_frame(chunk)?))
        };
        if next(self.taken).is_none() {
            return Ok(());
        }
        let frame = self
            .table
            .frames()
            .get(number)
            .ok_or(Error::Bug { detail: "there is no frame of that number" })?;
        let content = decoder.decode(self.name, number, frame, stored)?;
        let mut taken = self.taken;
        while let Some((chunk, offset)) = next(taken) {
            let part = content
                .get(offset..)
                .and_then(|rest| rest.get(..chunk.bytes as usize))
                .ok_or(Error::Bug { detail: "a chunk reaches beyond its frame" })?;
            writer.write_chunk(self.image, chunk, part)?;
            progress.advance(u64::from(chunk.bytes));
            taken += 1;
        }
        self.taken = taken;
        Ok(())
    }

    /// All wanted chunks were written.
    pub fn check_done(&self) -> Result<()> {
        if self.taken == self.wanted.len() {
            Ok(())
        } else {
            Err(Error::Bug { detail: "an image is sealed before all its chunks are written" })
        }
    }
}

fn frame_of(chunk: &Chunk) -> Option<usize> {
    match chunk.source {
        Source::Frame { frame, .. } => Some(frame as usize),
        Source::Zeros => None,
    }
}

/// Whether the active bank has the chunk in the same place. A bank that cannot be read costs bytes, never correctness.
fn lies_in(file: &mut dyn ImageFile, chunk: &Chunk, buffer: &mut Vec<u8>) -> bool {
    buffer.resize(chunk.bytes as usize, 0);
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read_at(chunk.offset + filled as u64, rest) {
            Ok(0) | Err(_) => return false,
            Ok(read) => filled += read,
        }
    }
    Digest256::of(buffer) == chunk.digest
}

#[cfg(test)]
mod tests {
    use bank_format::index::Lane;

    use super::*;

    fn table(sizes: &[u32]) -> ChunkTable {
        let frames: Vec<_> = sizes.iter().map(|bytes| (Lane::Main, *bytes, *bytes)).collect();
        let chunks: Vec<_> = sizes
            .iter()
            .enumerate()
            .map(|(n, bytes)| {
                (*bytes, Source::Frame { frame: n as u32, offset: 0 }, Digest256([n as u8; 32]))
            })
            .collect();
        ChunkTable::new(&frames, &chunks).unwrap()
    }

    #[test]
    fn neighbours_and_small_gaps_become_one_request() {
        let table = table(&[100, 200, 300, 1 << 20, 400, 16 << 10, 500]);
        let runs = |wanted: &[usize]| {
            let job = ImageJob { image: 0, name: "root", table: &table, wanted: wanted.into(), taken: 0 };
            job.runs().iter().map(|run| (run.first, run.last, run.bytes)).collect::<Vec<_>>()
        };
        assert_eq!(runs(&[]), []);
        assert_eq!(runs(&[0, 1, 2]), [(0, 2, 600)]);
        assert_eq!(runs(&[0, 2]), [(0, 2, 600)], "a gap of 200 bytes");
        assert_eq!(runs(&[0, 0, 4]), [(0, 0, 100), (4, 4, 400)], "a gap of a MiB");
        assert_eq!(runs(&[4, 6]), [(4, 6, 400 + (16 << 10) + 500)]);
    }
}
