//! Which chunks of an image are taken from where, on the sizes of the signed tables: they lie in place, they are zeros, they are copied from the
//! active bank, made by a patch, or fetched in a frame. Pure.
//!
//! A patch is taken where it costs fewer bytes than the frames that nothing else needs; so deltas never cost more than frames alone.

use std::{cmp::Reverse, collections::BTreeMap};

use crate::limits::{MAX_RANGE_BYTES, MAX_RANGE_GAP_BYTES};
use bank_format::{
    delta::Patch,
    index::{ChunkTable, Source},
};

/// What the device has of an image.
#[derive(Debug, Clone, Default)]
pub struct Held {
    /// By chunk: whether it lies in its place in the passive bank.
    pub in_place: Vec<bool>,
    /// By chunk: where in the active bank it lies, in bytes.
    pub active: Vec<Option<u64>>,
}

/// Which chunks of an image are taken from where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// By chunk.
    pub ways: Vec<Way>,
    /// Numbers of the patches that are fetched.
    pub patches: Vec<usize>,
}

/// Where a chunk comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// It lies in place.
    Skip,
    /// It is zeros.
    Zeros,
    /// It is copied from the active bank.
    Copy {
        /// Bytes from the start of the image there.
        offset: u64,
    },
    /// A patch makes it.
    Patch,
    /// A frame carries it.
    Fetch,
}

/// Bytes of an image by the way they take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sums {
    /// They lie in place.
    pub skipped: u64,
    /// Zeros.
    pub zeros: u64,
    /// Copied from the active bank.
    pub copied: u64,
    /// Made by patches.
    pub patched: u64,
    /// Out of frames.
    pub fetched: u64,
}

/// Neighbours that are fetched in one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// First byte, counted from the start of the section.
    pub offset: u64,
    /// Bytes.
    pub bytes: u64,
    /// Number of the first one.
    pub first: usize,
    /// Number of the last one, included.
    pub last: usize,
}

impl Plan {
    /// The cheapest way for each chunk. `patches` are those of a delta from what the active bank holds.
    #[must_use]
    pub fn new(table: &ChunkTable, held: &Held, patches: &[Patch]) -> Self {
        let alone = Self::choosing(table, held, &[]);
        let with = Self::choosing(table, held, patches);
        let bytes = |plan: &Self| plan.runs(table, patches).map(|run| run.bytes).sum::<u64>();
        // Patches may lie so that what is between them is fetched as well.
        if bytes(&with) < bytes(&alone) { with } else { alone }
    }

    fn choosing(table: &ChunkTable, held: &Held, patches: &[Patch]) -> Self {
        let mut ways: Vec<Way> = table
            .chunks()
            .iter()
            .enumerate()
            .map(|(number, chunk)| {
                if held.in_place.get(number).copied().unwrap_or_default() {
                    return Way::Skip;
                }
                match (chunk.source, held.active.get(number).copied().flatten()) {
                    (Source::Zeros, _) => Way::Zeros,
                    (Source::Frame { .. }, Some(offset)) => Way::Copy { offset },
                    (Source::Frame { .. }, None) => Way::Fetch,
                }
            })
            .collect();
        let mut contents = Contents::new(table, &ways);
        let chosen = contents.choose(table, patches);
        for (number, chunk) in table.chunks().iter().enumerate() {
            if let Some(way @ Way::Fetch) = ways.get_mut(number)
                && contents.of(chunk.source).is_some_and(|content| content.is_patched)
            {
                *way = Way::Patch;
            }
        }
        Self { ways, patches: chosen }
    }

    /// Bytes by the way they take.
    #[must_use]
    pub fn sums(&self, table: &ChunkTable) -> Sums {
        let mut sums = Sums::default();
        for (way, chunk) in self.ways.iter().zip(table.chunks()) {
            let sum = match way {
                Way::Skip => &mut sums.skipped,
                Way::Zeros => &mut sums.zeros,
                Way::Copy { .. } => &mut sums.copied,
                Way::Patch => &mut sums.patched,
                Way::Fetch => &mut sums.fetched,
            };
            *sum += u64::from(chunk.bytes);
        }
        sums
    }

    fn runs(&self, table: &ChunkTable, patches: &[Patch]) -> impl Iterator<Item = Run> {
        self.patch_runs(patches).into_iter().chain(self.frame_runs(table))
    }

    /// The requests for patches, in their section.
    #[must_use]
    pub fn patch_runs(&self, patches: &[Patch]) -> Vec<Run> {
        let places = self.patches.iter().filter_map(|number| {
            let patch = patches.get(*number)?;
            Some((*number, patch.offset, patch.stored_bytes))
        });
        runs(places)
    }

    /// The requests for frames, in the part of their section that is the image's.
    #[must_use]
    pub fn frame_runs(&self, table: &ChunkTable) -> Vec<Run> {
        let mut wanted = vec![false; table.frames().len()];
        for (way, chunk) in self.ways.iter().zip(table.chunks()) {
            if let (Way::Fetch, Source::Frame { frame, .. }) = (way, chunk.source)
                && let Some(wanted) = wanted.get_mut(frame as usize)
            {
                *wanted = true;
            }
        }
        let frames = table.frames().iter().enumerate().zip(wanted);
        runs(
            frames
                .filter(|(_, wanted)| *wanted)
                .map(|((number, frame), _)| (number, frame.offset, frame.stored_bytes)),
        )
    }

    /// What a patch or the active bank was to give, and did not, is fetched.
    pub fn fetch_instead(&mut self, chunk: usize) {
        if let Some(way) = self.ways.get_mut(chunk) {
            *way = Way::Fetch;
        }
    }
}

/// Neighbours, and such as lie so near that a second request would cost more.
fn runs(places: impl Iterator<Item = (usize, u64, u32)>) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for (number, offset, stored_bytes) in places {
        let end = offset + u64::from(stored_bytes);
        match runs.last_mut() {
            Some(run)
                if offset <= run.offset + run.bytes + MAX_RANGE_GAP_BYTES
                    && end - run.offset <= MAX_RANGE_BYTES =>
            {
                run.last = number;
                run.bytes = end - run.offset;
            }
            Some(_) | None => {
                runs.push(Run { offset, bytes: stored_bytes.into(), first: number, last: number });
            }
        }
    }
    runs
}

/// A content that is wanted: several chunks may have it.
#[derive(Debug, Clone, Copy)]
struct Content {
    source: Source,
    is_patched: bool,
}

/// The contents that are wanted, by their place in the frames; and how many of each frame nothing but the frame brings.
struct Contents {
    wanted: Vec<Content>,
    needs: Vec<u32>,
}

impl Contents {
    fn new(table: &ChunkTable, ways: &[Way]) -> Self {
        let mut wanted: Vec<Content> = table
            .chunks()
            .iter()
            .zip(ways)
            .filter(|(_, way)| **way == Way::Fetch)
            .map(|(chunk, _)| Content { source: chunk.source, is_patched: false })
            .collect();
        wanted.sort_unstable_by_key(|content| place(content.source));
        wanted.dedup_by_key(|content| place(content.source));
        let mut needs = vec![0; table.frames().len()];
        for content in &wanted {
            if let Some(need) = needs.get_mut(place(content.source).0 as usize) {
                *need += 1;
            }
        }
        Self { wanted, needs }
    }

    fn of(&self, source: Source) -> Option<&Content> {
        let found = self.wanted.binary_search_by_key(&place(source), |content| place(content.source)).ok()?;
        self.wanted.get(found)
    }

    fn set(&mut self, source: Source, is_patched: bool) {
        let found = self.wanted.binary_search_by_key(&place(source), |content| place(content.source));
        let Some(content) = found.ok().and_then(|found| self.wanted.get_mut(found)) else { return };
        if content.is_patched != is_patched {
            content.is_patched = is_patched;
            if let Some(need) = self.needs.get_mut(place(source).0 as usize) {
                *need = if is_patched { *need - 1 } else { *need + 1 };
            }
        }
    }

    /// Takes all patches that make something wanted; then gives back what costs more than the frames that it spares: patches alone, the dearest
    /// first; those of one frame together; and those that hang together by their frames, so that in the end none is a loss.
    fn choose(&mut self, table: &ChunkTable, patches: &[Patch]) -> Vec<usize> {
        let mut chosen = Chosen { contents: self, table, patches, taken: vec![false; patches.len()] };
        let mut alone: Vec<usize> = Vec::new();
        for (number, patch) in patches.iter().enumerate() {
            let makes_more =
                |source: &Source| chosen.contents.of(*source).is_some_and(|content| !content.is_patched);
            if sources(table, patch).iter().any(makes_more) {
                chosen.set(&[number], true);
                alone.push(number);
            }
        }
        alone.sort_by_key(|number| Reverse(patches.get(*number).map_or(0, |patch| patch.stored_bytes)));
        alone.iter().for_each(|number| chosen.give_back_if_dear(&[*number]));
        let mut of_frames: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
        for number in &alone {
            for frame in chosen.frames(&[*number]) {
                of_frames.entry(frame).or_default().push(*number);
            }
        }
        of_frames.values().for_each(|numbers| chosen.give_back_if_dear(numbers));
        let mut left = of_frames;
        while let Some((_, mut together)) = left.pop_first() {
            let mut next = 0;
            while let Some(number) = together.get(next).copied() {
                next += 1;
                for frame in chosen.frames(&[number]) {
                    together.extend(left.remove(&frame).unwrap_or_default());
                }
            }
            together.sort_unstable();
            together.dedup();
            chosen.give_back_if_dear(&together);
        }
        let taken = chosen.taken;
        taken.iter().enumerate().filter_map(|(number, taken)| taken.then_some(number)).collect()
    }
}

/// Patches that are taken for now.
struct Chosen<'c> {
    contents: &'c mut Contents,
    table: &'c ChunkTable,
    patches: &'c [Patch],
    taken: Vec<bool>,
}

impl Chosen<'_> {
    /// Frames that carry what these patches make.
    fn frames(&self, numbers: &[usize]) -> Vec<u32> {
        let patches = numbers.iter().filter_map(|number| self.patches.get(*number));
        let mut frames: Vec<u32> = patches
            .flat_map(|patch| sources(self.table, patch))
            .filter(|source| self.contents.of(*source).is_some())
            .map(|source| place(source).0)
            .collect();
        frames.sort_unstable();
        frames.dedup();
        frames
    }

    /// Bytes of those of the frames that are needed now.
    fn needed_bytes(&self, frames: &[u32]) -> u64 {
        let needed = |frame: &&u32| self.contents.needs.get(**frame as usize).is_some_and(|need| *need > 0);
        let frames =
            frames.iter().filter(needed).filter_map(|frame| self.table.frames().get(*frame as usize));
        frames.map(|frame| u64::from(frame.stored_bytes)).sum()
    }

    fn set(&mut self, numbers: &[usize], taken: bool) {
        for number in numbers {
            if let (Some(patch), Some(slot)) = (self.patches.get(*number), self.taken.get_mut(*number)) {
                *slot = taken;
                sources(self.table, patch).into_iter().for_each(|source| self.contents.set(source, taken));
            }
        }
    }

    fn give_back_if_dear(&mut self, numbers: &[usize]) {
        let is_taken = |number: &usize| self.taken.get(*number) == Some(&true);
        let numbers: Vec<usize> = numbers.iter().copied().filter(is_taken).collect();
        let stored = numbers.iter().filter_map(|number| self.patches.get(*number));
        let stored_bytes: u64 = stored.map(|patch| u64::from(patch.stored_bytes)).sum();
        let frames = self.frames(&numbers);
        let with = self.needed_bytes(&frames) + stored_bytes;
        self.set(&numbers, false);
        if self.needed_bytes(&frames) > with {
            self.set(&numbers, true);
        }
    }
}

/// What a patch makes.
fn sources(table: &ChunkTable, patch: &Patch) -> Vec<Source> {
    patch.chunk_numbers().filter_map(|number| table.chunks().get(number)).map(|chunk| chunk.source).collect()
}

/// Frame and place in it; zeros, which have neither, are never wanted.
fn place(source: Source) -> (u32, u32) {
    match source {
        Source::Frame { frame, offset } => (frame, offset),
        Source::Zeros => (u32::MAX, 0),
    }
}

#[cfg(test)]
mod tests;
