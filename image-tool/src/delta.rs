//! Deltas: what makes a new image out of an older one.
//!
//! For each part of the new image that the base does not hold, it finds what it was in the base, writes down the differences, and packs what
//! belongs together into patches. A packed kernel is compared unpacked. A patch that saves nothing is left out. The same images give the same delta.
//! Deliberately absent: the format of tables and patches, which is `bank_format::delta`.

pub mod apply;
pub mod bases;
pub mod lz4;
pub mod matcher;
mod writer;

use std::{
    collections::{HashMap, HashSet},
    fs::File,
    ops::Range,
    os::unix::fs::FileExt as _,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use bank_format::{
    Digest256,
    delta::{
        DeltaTable, PatchEntry,
        patch::{BaseBlock, Kind},
    },
    index::{Chunk, ChunkTable, Source},
    limits::MAX_PATCH_TARGET_BYTES,
};

use crate::{
    cache::{self, Cache, KeyBuilder},
    chunker::Packing,
    error::{Error, Result},
    limits::{MAX_PATCH_MAKERS, PATCH_TARGET_BYTES},
    segments::Segment,
};
use apply::Base;
use bases::{Bases, Text};
use writer::Streams;

/// A patch that needs more than this part of what its chunks need in frames is left out: it is not worth reading the base for it.
const WORTH: f64 = 0.95;

/// One of both images.
pub struct Side<'a> {
    /// The image.
    pub file: &'a File,
    /// Names it in errors.
    pub subject: &'a str,
    /// Its chunks.
    pub table: &'a ChunkTable,
    /// What lies where in it.
    pub segments: &'a [Segment],
}

/// A delta of one image.
pub struct Made {
    /// Its table.
    pub table: DeltaTable,
    /// Its patches, one behind the other.
    pub patches: Vec<u8>,
}

/// What one patch is to make.
enum Job {
    /// Chunks, by their numbers.
    Chunks(Vec<Range<usize>>),
    /// A block of a packed kernel, which is these chunks.
    Packed { chunks: Range<usize>, block: lz4::Block, segment: usize },
}

impl Job {
    /// The chunks that it makes.
    fn runs(&self) -> Vec<Range<usize>> {
        match self {
            Self::Chunks(runs) => runs.clone(),
            Self::Packed { chunks, .. } => vec![chunks.clone()],
        }
    }
}

/// Makes the delta. `advance` hears how many patches of how many are made.
pub fn between(
    base: &Side<'_>,
    new: &Side<'_>,
    packing: Packing<'_>,
    advance: &(dyn Fn(u64, u64) + Sync),
) -> Result<Made> {
    let jobs = jobs(base, new);
    let maker = Maker::new(base, new, packing.cache);
    let (next, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let made = thread::scope(|scope| {
        let workers: Vec<_> = (0..packing.threads.get().min(MAX_PATCH_MAKERS))
            .map(|_| {
                scope.spawn(|| -> Result<Vec<(usize, Vec<u8>)>> {
                    let mut made = Vec::new();
                    while let Some((number, job)) = next_of(&next, &jobs) {
                        if let Some(patch) = maker.patch(job)? {
                            made.push((number, patch));
                        }
                        advance(done.fetch_add(1, Ordering::Relaxed) as u64 + 1, jobs.len() as u64);
                    }
                    Ok(made)
                })
            })
            .collect();
        let mut made = Vec::new();
        for worker in workers {
            made.extend(worker.join().map_err(|_| Error::Bug { what: "a maker of patches panicked" })??);
        }
        Ok::<_, Error>(made)
    })?;
    let mut made: HashMap<usize, Vec<u8>> = made.into_iter().collect();
    let (mut entries, mut patches) = (Vec::new(), Vec::new());
    for (number, job) in jobs.iter().enumerate() {
        let Some(patch) = made.remove(&number) else { continue };
        let stored_bytes =
            u32::try_from(patch.len()).map_err(|_| Error::Bug { what: "a patch is too long" })?;
        // Chunks of a table are fewer than 2^32.
        let chunks = job.runs().into_iter().map(|run| run.start as u32..run.end as u32).collect();
        entries.push(PatchEntry { chunks, stored_bytes });
        patches.extend(patch);
    }
    let table = DeltaTable::between(base.table, new.table, entries)
        .map_err(Error::format("make the table of a delta"))?;
    Ok(Made { table, patches })
}

fn next_of<'j>(next: &AtomicUsize, jobs: &'j [Job]) -> Option<(usize, &'j Job)> {
    let number = next.fetch_add(1, Ordering::Relaxed);
    jobs.get(number).map(|job| (number, job))
}

/// What is to be made, in the order of its first chunk.
fn jobs(base: &Side<'_>, new: &Side<'_>) -> Vec<Job> {
    let known: HashSet<Digest256> = base.table.chunks().iter().map(|chunk| chunk.digest).collect();
    let chunks = new.table.chunks();
    let mut seen = HashSet::new();
    let changed: Vec<bool> = chunks
        .iter()
        .map(|chunk| {
            chunk.source != Source::Zeros && !known.contains(&chunk.digest) && seen.insert(chunk.digest)
        })
        .collect();
    let mut jobs = Vec::new();
    let mut taken = vec![false; chunks.len()];
    for (segment, block) in new
        .segments
        .iter()
        .enumerate()
        .flat_map(|(number, segment)| segment.packed.iter().map(move |block| (number, *block)))
        .filter(|(_, block)| block.unpacked_bytes > 0)
        .filter(|(_, block)| block.end_bytes() - block.offset_bytes <= MAX_PATCH_TARGET_BYTES.into())
    {
        let Some(run) = exactly(chunks, block.offset_bytes..block.end_bytes()) else { continue };
        if changed.get(run.clone()).is_some_and(|changed| changed.contains(&true)) {
            taken.get_mut(run.clone()).into_iter().flatten().for_each(|taken| *taken = true);
            jobs.push(Job::Packed { chunks: run, block, segment });
        }
    }
    for nameless in [true, false] {
        let wanted = chunks.iter().enumerate().map(|(number, chunk)| {
            let at = new.segments.partition_point(|segment| segment.end_bytes() <= chunk.offset);
            let is_nameless = new.segments.get(at).is_some_and(|segment| segment.name.is_empty());
            is_nameless == nameless && changed.get(number) == Some(&true) && taken.get(number) == Some(&false)
        });
        group(chunks, wanted, &mut jobs);
    }
    jobs.sort_by_key(|job| job.runs().first().map_or(0, |run| run.start));
    jobs
}

/// The chunks that are exactly these bytes of the image.
fn exactly(chunks: &[Chunk], bytes: Range<u64>) -> Option<Range<usize>> {
    let first = chunks.binary_search_by_key(&bytes.start, |chunk| chunk.offset).ok()?;
    let behind = chunks.partition_point(|chunk| chunk.offset < bytes.end);
    let last = chunks.get(behind.checked_sub(1)?)?;
    (last.offset + u64::from(last.bytes) == bytes.end).then_some(first..behind)
}

/// Puts wanted chunks together into jobs of a few MiB.
fn group(chunks: &[Chunk], wanted: impl Iterator<Item = bool>, jobs: &mut Vec<Job>) {
    let mut runs: Vec<Range<usize>> = Vec::new();
    let mut bytes = 0;
    for (number, chunk) in
        chunks.iter().enumerate().zip(wanted).filter(|(_, wanted)| *wanted).map(|(chunk, _)| chunk)
    {
        if bytes + u64::from(chunk.bytes) > PATCH_TARGET_BYTES {
            jobs.push(Job::Chunks(std::mem::take(&mut runs)));
            bytes = 0;
        }
        match runs.last_mut() {
            Some(run) if run.end == number => run.end += 1,
            Some(_) | None => runs.push(number..number + 1),
        }
        bytes += u64::from(chunk.bytes);
    }
    if !runs.is_empty() {
        jobs.push(Job::Chunks(runs));
    }
}

/// What each chunk costs in its frame, in bytes.
fn in_frames(table: &ChunkTable) -> Vec<f64> {
    table
        .chunks()
        .iter()
        .map(|chunk| match chunk.source {
            Source::Zeros => 0.0,
            Source::Frame { frame, .. } => table.frames().get(frame as usize).map_or(0.0, |frame| {
                f64::from(chunk.bytes) * f64::from(frame.stored_bytes) / f64::from(frame.raw_bytes)
            }),
        })
        .collect()
}

struct Maker<'a> {
    base: &'a Side<'a>,
    new: &'a Side<'a>,
    bases: Bases<'a>,
    in_frames: Vec<f64>,
    cache: Option<&'a Cache>,
    /// What every key of the cache begins with: the base, of which the same table and the same segments follow from the same bytes.
    base_digest: Digest256,
}

/// Bytes of the new image, and what they are compared with.
struct Part {
    key: bases::Key,
    bytes: Vec<u8>,
}

/// A block of a packed kernel, and its counterparts in the base.
struct Block<'a> {
    /// The block.
    block: &'a lz4::Block,
    /// Its number among those of its segment.
    number: usize,
    /// Those of the base.
    old: &'a [lz4::Block],
}

impl<'a> Maker<'a> {
    fn new(base: &'a Side<'a>, new: &'a Side<'a>, cache: Option<&'a Cache>) -> Self {
        Self {
            base,
            new,
            bases: Bases::new(base.file, base.segments, base.subject),
            in_frames: in_frames(new.table),
            cache,
            base_digest: Digest256::of(&base.table.encode()),
        }
    }

    /// The patch, unless the frames are cheaper.
    fn patch(&self, job: &Job) -> Result<Option<Vec<u8>>> {
        let parts = self.parts(&job.runs())?;
        let wanted: Vec<u8> = parts.iter().flat_map(|part| &part.bytes).copied().collect();
        let packed = match job {
            Job::Chunks(_) => None,
            Job::Packed { block, segment, .. } => self.packed(block, *segment, &wanted)?,
        };
        let patch = match packed {
            Some(patch) => Some(patch),
            None => self.plain(&parts, &wanted)?,
        };
        let cost: f64 =
            job.runs().into_iter().flatten().filter_map(|number| self.in_frames.get(number)).sum();
        Ok(patch.filter(|patch| (patch.len() as f64) < cost * WORTH))
    }

    /// The bytes of chunks, cut where segments end.
    fn parts(&self, runs: &[Range<usize>]) -> Result<Vec<Part>> {
        let mut parts = Vec::new();
        for run in runs {
            let chunks = self.new.table.chunks().get(run.clone()).unwrap_or_default();
            let (Some(first), Some(last)) = (chunks.first(), chunks.last()) else { continue };
            let (mut at, end) = (first.offset, last.offset + u64::from(last.bytes));
            let mut number = self.new.segments.partition_point(|segment| segment.end_bytes() <= at);
            while let Some(segment) = self.new.segments.get(number).filter(|_| at < end) {
                let until = segment.end_bytes().min(end);
                parts.push(Part { key: self.bases.key_for(segment, at), bytes: read(self.new, at, until)? });
                at = until;
                number += 1;
            }
        }
        Ok(parts)
    }

    fn plain(&self, parts: &[Part], wanted: &[u8]) -> Result<Option<Vec<u8>>> {
        let key = parts.iter().fold(self.key("plain patch"), |key, part| {
            let [kind, place] = part.key.numbers();
            key.number(kind).number(place).bytes(&Digest256::of(&part.bytes).0)
        });
        self.proven(key.finish(), wanted, || {
            let mut streams = Streams::default();
            for part in parts {
                streams.put(&*self.bases.text(part.key)?, &part.bytes);
            }
            streams.encode(Kind::Plain)
        })
    }

    /// Nothing where the block does not come out as it is when it is packed again, or where the base has no such thing.
    fn packed(&self, block: &lz4::Block, segment: usize, wanted: &[u8]) -> Result<Option<Vec<u8>>> {
        let Some(segment) = self.new.segments.get(segment) else { return Ok(None) };
        let Some(old) = self.bases.segment_for(segment).filter(|old| !old.packed.is_empty()) else {
            return Ok(None);
        };
        let number = segment.packed.iter().position(|other| other == block).unwrap_or_default();
        let key = self.key("packed patch").number(old.offset_bytes).number(number as u64);
        let key = key.bytes(&Digest256::of(wanted).0).finish();
        let block = Block { block, number, old: &old.packed };
        self.proven(key, wanted, || self.packed_anew(&block))
    }

    fn packed_anew(&self, new: &Block<'_>) -> Result<Option<Vec<u8>>> {
        let Some(level) = new.block.level(self.new.file).map_err(unpacking(self.new))? else {
            return Ok(None);
        };
        let content = new.block.unpack(self.new.file).map_err(unpacking(self.new))?;
        // The same block, with the one before or the one behind: a device has room for two.
        let last = new.old.len() - 1;
        let at = new.number.min(last);
        let mut pairs = vec![at.saturating_sub(1)..=at, at..=(at + 1).min(last)];
        pairs.dedup();
        let mut best: Option<Vec<u8>> = None;
        for pair in pairs {
            let mut bytes = Vec::new();
            let mut base_blocks = Vec::new();
            for block in new.old.get(pair).unwrap_or_default() {
                bytes.extend(block.unpack(self.base.file).map_err(unpacking(self.base))?);
                base_blocks.push(BaseBlock {
                    offset: block.offset_bytes + lz4::PREFIX_BYTES,
                    stored_bytes: block.packed_bytes,
                    decoded_bytes: block.unpacked_bytes,
                });
            }
            let mut streams = Streams::default();
            streams.put(&Text::at(0, bytes), &content);
            let patch = streams.encode(Kind::Lz4 {
                level: level.into(),
                decoded_bytes: new.block.unpacked_bytes,
                base_blocks,
            })?;
            let shorter = |patch: &Vec<u8>| best.as_ref().is_none_or(|best| patch.len() < best.len());
            if let Some(patch) = patch.filter(shorter) {
                best = Some(patch);
            }
        }
        Ok(best)
    }

    fn key(&self, kind: &str) -> KeyBuilder {
        KeyBuilder::new(kind).bytes(&self.base_digest.0)
    }

    /// A patch out of the cache, or else a new one; it was applied, and makes what is wanted.
    fn proven(
        &self,
        key: cache::Key,
        wanted: &[u8],
        make: impl FnOnce() -> Result<Option<Vec<u8>>>,
    ) -> Result<Option<Vec<u8>>> {
        let base =
            Base { file: self.base.file, bytes: self.base.table.image_bytes(), subject: self.base.subject };
        let makes = |patch: &[u8]| apply::apply(patch, base).map(|made| made == wanted);
        let kept = self.cache.and_then(|cache| cache.get(key));
        if let Some(kept) = kept.filter(|kept| makes(kept).unwrap_or(false)) {
            return Ok(Some(kept));
        }
        let Some(patch) = make()? else { return Ok(None) };
        if !makes(&patch)? {
            return Err(Error::Bug { what: "a patch makes something else" });
        }
        if let Some(cache) = self.cache {
            cache.put(key, &patch);
        }
        Ok(Some(patch))
    }
}

fn unpacking(side: &Side<'_>) -> impl FnOnce(std::io::Error) -> Error {
    Error::file("unpack a block of", side.subject)
}

fn read(side: &Side<'_>, from: u64, until: u64) -> Result<Vec<u8>> {
    let mut bytes = vec![
        0;
        usize::try_from(until - from)
            .map_err(|_| Error::Bug { what: "a part is longer than memory" })?
    ];
    side.file.read_exact_at(&mut bytes, from).map_err(Error::file("read", side.subject))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests;
