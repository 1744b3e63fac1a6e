//! Carries a plan out for one image: what is there already, zeros, copies, patches, frames. Reads, fetches and writes are made here, one after the
//! other; what lies between them, unpacking and checking, is spread over the cores.

use std::{collections::BTreeMap, sync::Arc};

use bank_format::{
    delta::Patch,
    index::{Chunk, ChunkTable, Source},
    limits::MAX_PATCH_TARGET_BYTES,
};

use super::{
    cutter::Cutter,
    patches::Parsed,
    plan::{Plan, Run, Way},
    report::Tally,
};
use crate::{
    bank::{BankWriter, Checked, fill_parts},
    codec::Decoder,
    crew::Crew,
    error::{Error, Result},
    limits::{COPY_BYTES, MAX_SPARE_BUFFERS, UNDER_WAY_BYTES},
    ports::{ImageFile, Progress},
};

/// What a thread has made.
pub struct Made {
    from: From,
    /// What did not come out right is not in it.
    checked: Checked,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum From {
    ActiveBank,
    Patch,
    Frame,
}

/// One image on its way into the bank.
pub struct Pour<'p, 'b> {
    /// Its number in the bundle.
    pub image: usize,
    /// Its name.
    pub name: Arc<str>,
    /// Its chunks.
    pub table: &'p ChunkTable,
    /// Where they come from.
    pub plan: &'p mut Plan,
    /// Where they go.
    pub writer: &'p mut BankWriter<'b>,
    /// What is counted.
    pub tally: &'p mut Tally,
    /// The image of the active bank, if it can be read.
    active: Option<Box<dyn ImageFile>>,
    /// Chunks before this one are copied, if they are to be.
    copied_to: usize,
    crew: Crew<Made>,
    /// For what is unpacked on this thread.
    decoder: Decoder,
    spare: Vec<Vec<u8>>,
    /// Numbers of the chunks that frames could bring, by frame and place in it.
    rows: Vec<u32>,
    done: Vec<bool>,
}

impl<'p, 'b> Pour<'p, 'b> {
    /// Before anything is written.
    pub fn new(
        (image, name): (usize, &str),
        table: &'p ChunkTable,
        plan: &'p mut Plan,
        writer: &'p mut BankWriter<'b>,
        active: Option<Box<dyn ImageFile>>,
        tally: &'p mut Tally,
    ) -> Result<Self> {
        let framed = |chunk: &Chunk| chunk.source != Source::Zeros;
        let mut rows: Vec<u32> =
            (0u32..).zip(table.chunks()).filter(|(_, chunk)| framed(chunk)).map(|(row, _)| row).collect();
        let key = |row: &u32| table.chunks().get(*row as usize).and_then(place);
        rows.sort_by_key(key);
        Ok(Self {
            image,
            name: name.into(),
            table,
            plan,
            writer,
            tally,
            active,
            copied_to: 0,
            crew: Crew::new(),
            decoder: Decoder::default(),
            spare: Vec::new(),
            rows,
            done: vec![false; table.chunks().len()],
        })
    }

    /// What needs no other bytes: chunks in place, and zeros.
    pub fn stay_and_zeros(&mut self, progress: &mut dyn Progress) -> Result<()> {
        for ((way, chunk), done) in self.plan.ways.iter().zip(self.table.chunks()).zip(&mut self.done) {
            match way {
                Way::Skip => self.tally.skipped_bytes += u64::from(chunk.bytes),
                Way::Zeros => self.writer.write_zeros(self.image, chunk)?,
                Way::Copy { .. } | Way::Patch | Way::Fetch => continue,
            }
            *done = true;
            progress.advance(chunk.bytes.into());
        }
        Ok(())
    }

    /// Copies out of the active bank what lies before a chunk of the image, so that the bank is written from its start to its end. What is not
    /// there any more is fetched.
    pub fn copies_before(&mut self, end: usize, progress: &mut dyn Progress) -> Result<()> {
        while let Some((start, first)) = self.next_copy(end) {
            let mut bytes = first.bytes as usize;
            let mut parts = vec![(first, 0)];
            while let Some((row, (offset, next))) = self.copy_at(self.copied_to, end)
                && offset == start + bytes as u64
                && bytes + next.bytes as usize <= COPY_BYTES
            {
                self.copied_to = row + 1;
                parts.push((next, bytes));
                bytes += next.bytes as usize;
            }
            self.make_room(bytes, progress)?;
            let mut buffer = self.spare.pop().unwrap_or_default();
            buffer.resize(bytes, 0);
            match &mut self.active {
                Some(active) => fill_parts(active.as_mut(), start, &mut buffer, &mut parts),
                None => parts.clear(),
            }
            self.crew.give(bytes, move |_| {
                Ok(Made { from: From::ActiveBank, checked: Checked::some(buffer, parts) })
            });
        }
        Ok(())
    }

    /// The next chunk that is copied, from `row` on and before `end`: its number, where it lies in the active bank, and what it is.
    fn copy_at(&self, row: usize, end: usize) -> Option<(usize, (u64, Chunk))> {
        let ways = self.plan.ways.iter().zip(self.table.chunks()).enumerate().take(end).skip(row);
        ways.map(|(row, (way, chunk))| match way {
            Way::Copy { offset } => Some((row, (*offset, *chunk))),
            Way::Skip | Way::Zeros | Way::Patch | Way::Fetch => None,
        })
        .find_map(|copy| copy)
    }

    fn next_copy(&mut self, end: usize) -> Option<(u64, Chunk)> {
        let found = self.copy_at(self.copied_to, end);
        self.copied_to = found.map_or(self.copied_to.max(end), |(row, _)| row + 1);
        found.map(|(_, copy)| copy)
    }

    /// Takes a patch, whole. What it does not make is fetched.
    pub fn patch(&mut self, patch: &Patch, stored: Vec<u8>, progress: &mut dyn Progress) -> Result<()> {
        self.copies_before(patch.chunk_numbers().next().unwrap_or_default(), progress)?;
        let mut parts: BTreeMap<u64, (Chunk, usize)> = BTreeMap::new();
        let mut bytes = 0u64;
        for chunk in patch.chunk_numbers().filter_map(|number| self.table.chunks().get(number)) {
            for wanted in self.wanted(place(chunk), Way::Patch) {
                parts.entry(wanted.offset).or_insert((wanted, bytes as usize));
            }
            bytes += u64::from(chunk.bytes);
        }
        if parts.is_empty() || bytes > u64::from(MAX_PATCH_TARGET_BYTES) {
            return Ok(());
        }
        let (parts, bytes) = (parts.into_values().collect(), bytes as usize);
        self.make_room(2 * stored.len(), progress)?;
        let Ok(parsed) = Parsed::new(stored, bytes, &mut self.decoder) else { return Ok(()) };
        let held_bytes = parsed.held_bytes();
        // What it is made of is read while nothing else is held, if it is large.
        self.make_room(held_bytes, progress)?;
        if held_bytes > UNDER_WAY_BYTES {
            self.spare.clear();
        }
        let Some(active) = &mut self.active else { return Ok(()) };
        let Ok(prepared) = parsed.with_base(active.as_mut()) else { return Ok(()) };
        self.crew.give(held_bytes, move |decoder| {
            let made = prepared.make(decoder).unwrap_or_default();
            Ok(Made { from: From::Patch, checked: Checked::some(made, parts) })
        });
        Ok(())
    }

    /// Takes a frame, whole; unpacks it if a chunk of it is wanted.
    pub fn frame(&mut self, number: usize, stored: Vec<u8>, progress: &mut dyn Progress) -> Result<()> {
        let frame = *self
            .table
            .frames()
            .get(number)
            .ok_or(Error::Bug { detail: "there is no frame of that number" })?;
        let first =
            self.rows.partition_point(|row| self.place(*row).is_none_or(|place| (place.0 as usize) < number));
        let rows = self.rows.get(first..).unwrap_or_default();
        let parts: Vec<(Chunk, usize)> = rows
            .iter()
            .take_while(|row| self.place(**row).is_some_and(|place| place.0 as usize == number))
            .filter(|row| self.is_wanted(**row, Way::Fetch))
            .filter_map(|row| Some((*self.table.chunks().get(*row as usize)?, self.place(*row)?.1 as usize)))
            .collect();
        if parts.is_empty() {
            return Ok(());
        }
        let bytes = stored.len() + frame.raw_bytes as usize;
        self.make_room(bytes, progress)?;
        let (name, spare) = (Arc::clone(&self.name), self.spare.pop().unwrap_or_default());
        self.crew.give(bytes, move |decoder| {
            let content = decoder.frame((&name, number), &frame, stored, spare)?;
            Ok(Made { from: From::Frame, checked: Checked::all(&name, content, parts)? })
        });
        Ok(())
    }

    /// Cuts the patches of a run out of its bytes.
    #[must_use]
    pub fn patches_of(&self, run: &Run, patches: &[Patch]) -> Cutter {
        let run = patches.iter().enumerate().take(run.last + 1).skip(run.first);
        Cutter::new(run.map(|(number, patch)| (number, patch.stored_bytes as usize)))
    }

    /// Cuts the frames of a run out of its bytes.
    #[must_use]
    pub fn frames_of(&self, run: &Run) -> Cutter {
        let run = self.table.frames().iter().enumerate().take(run.last + 1).skip(run.first);
        Cutter::new(run.map(|(number, frame)| (number, frame.stored_bytes as usize)))
    }

    /// The rest of the copies, and everything that is under way.
    pub fn all_copies(&mut self, progress: &mut dyn Progress) -> Result<()> {
        self.copies_before(self.table.chunks().len(), progress)?;
        self.drain(progress)
    }

    /// Everything that the active bank and patches were to give and did not is fetched from now on.
    pub fn fetch_the_rest(&mut self) {
        for (number, (chunk, done)) in self.table.chunks().iter().zip(&self.done).enumerate() {
            if !done {
                if self.plan.ways.get(number).is_some_and(|way| *way != Way::Fetch) {
                    self.tally.lost_bytes += u64::from(chunk.bytes);
                }
                self.plan.fetch_instead(number);
            }
        }
    }

    /// Waits for what is under way, and writes it.
    pub fn drain(&mut self, progress: &mut dyn Progress) -> Result<()> {
        while self.take(progress)? {}
        Ok(())
    }

    /// All chunks are in the bank. What was read of the active bank need not stay in memory.
    pub fn check_done(&mut self) -> Result<()> {
        if let Some(active) = &mut self.active {
            let _ = active.forget_cached();
        }
        if self.done.contains(&false) {
            Err(Error::Bug { detail: "an image is sealed before all its chunks are written" })
        } else {
            Ok(())
        }
    }

    fn row_of(&self, chunk: &Chunk) -> usize {
        self.table.chunks().partition_point(|other| other.offset < chunk.offset)
    }

    fn place(&self, row: u32) -> Option<(u32, u32)> {
        self.table.chunks().get(row as usize).and_then(place)
    }

    fn is_wanted(&self, row: u32, way: Way) -> bool {
        let row = row as usize;
        self.done.get(row) == Some(&false) && self.plan.ways.get(row) == Some(&way)
    }

    /// The chunks of a content that are wanted by this way.
    fn wanted(&self, content: Option<(u32, u32)>, way: Way) -> impl Iterator<Item = Chunk> + '_ {
        let first = self.rows.partition_point(|row| self.place(*row) < content);
        let rows = self.rows.get(first..).unwrap_or_default().iter();
        rows.take_while(move |row| self.place(**row) == content)
            .filter(move |row| self.is_wanted(**row, way))
            .filter_map(|row| self.table.chunks().get(*row as usize).copied())
    }

    fn make_room(&mut self, bytes: usize, progress: &mut dyn Progress) -> Result<()> {
        while !self.crew.has_room(bytes) {
            self.take(progress)?;
        }
        Ok(())
    }

    /// Writes the oldest of what is under way.
    fn take(&mut self, progress: &mut dyn Progress) -> Result<bool> {
        let Some(made) = self.crew.take() else { return Ok(false) };
        let Made { from, checked } = made?;
        self.writer.write(self.image, &checked)?;
        let bytes = checked.content_bytes();
        match from {
            From::ActiveBank => self.tally.copied_bytes += bytes,
            From::Patch => self.tally.patched_bytes += bytes,
            From::Frame => (),
        }
        for (chunk, _) in checked.parts() {
            let row = self.row_of(chunk);
            if let Some(done) = self.done.get_mut(row) {
                *done = true;
            }
        }
        progress.advance(bytes);
        let buffer = checked.into_buffer();
        if buffer.capacity() <= COPY_BYTES && self.spare.len() < MAX_SPARE_BUFFERS {
            self.spare.push(buffer);
        }
        Ok(true)
    }
}

fn place(chunk: &Chunk) -> Option<(u32, u32)> {
    match chunk.source {
        Source::Frame { frame, offset } => Some((frame, offset)),
        Source::Zeros => None,
    }
}
