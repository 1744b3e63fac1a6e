//! The table of a delta: what is different from the base's chunk table, and what its patches make.
//!
//! ```text
//! 8   magic "RoroDlt1"
//! v   image_bytes
//! v   frames; each: v new chunks in it * 2 + lane, v stored_bytes; as in the chunk table
//! v   runs; each: v copied rows; if any: v base row (signed; from the end of the run copied before, at first from 0)
//!                 v literal rows; each: v bytes * 4 + kind (0 new, 1 zeros, 3 new in lane 1)
//! 32  per literal row that is not zeros: SHA-256
//! v   patches; each: v stored_bytes; v runs of chunks; each: v chunks before it (of the first run, behind where the patch before begins; of
//!                    a later one, behind the run before), v chunks
//! ```
//!
//! The rows of all runs are the chunks of the image. Of rows with one digest the first is new and the later ones repeat it. Only the
//! first run may copy nothing, and none is empty; so a delta's table, too, has one form.

use std::{collections::HashMap, ops::Range};

use crate::{
    digest::Digest256,
    error::{Error, Result},
    header::Reader,
    index::{Builder, Chunk, ChunkTable, FrameShape, Lane, Row, Source, check_image_bytes},
    limits::{MAX_CHUNK_BYTES, MAX_CHUNKS, MAX_INDEX_BYTES, MAX_PATCH_STORED_BYTES, MAX_PATCH_TARGET_BYTES},
    varint,
};

const MAGIC: [u8; 8] = *b"RoroDlt1";
const NEW: u64 = 0;
const ZEROS: u64 = 1;
const NEW_ASIDE: u64 = 3;
const STRUCTURE: &str = "delta table";
/// Rows of the base at which a run is tried: without a bound, an image of one repeated chunk costs the square of its chunks.
const MOST_CANDIDATES: usize = 64;

/// A patch to be named in a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PatchEntry {
    /// Numbers of the chunks that it makes: runs, ascending, none empty, none touching the one before.
    pub chunks: Vec<Range<u32>>,
    /// Its bytes, at least 1.
    pub stored_bytes: u32,
}

/// A patch of a delta.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Patch {
    /// Numbers of the chunks that it makes: runs, ascending.
    pub chunks: Vec<Range<u32>>,
    /// Bytes from the start of the delta's patches.
    pub offset: u64,
    /// Its bytes, at least 1.
    pub stored_bytes: u32,
}

impl Patch {
    /// Numbers of the chunks that it makes, one behind the other.
    pub fn chunk_numbers(&self) -> impl Iterator<Item = usize> + '_ {
        self.chunks.iter().flat_map(|run| run.start as usize..run.end as usize)
    }

    fn begins(&self) -> u32 {
        self.chunks.first().map_or(0, |run| run.start)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Run {
    base_row: u32,
    copied: u32,
    literals: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Literal {
    Zeros { bytes: u32 },
    New { lane: Lane, bytes: u32, digest: Digest256 },
}

/// The table of one delta.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeltaTable {
    image_bytes: u64,
    shapes: Vec<FrameShape>,
    runs: Vec<Run>,
    /// Those of all runs, one behind the other.
    literals: Vec<Literal>,
    patches: Vec<Patch>,
}

impl DeltaTable {
    /// The delta by which [`DeltaTable::chunk_table`] makes `new` out of `base`. The patches are sorted by their chunks, do not overlap,
    /// and none makes more than 8 MiB of `new`.
    pub fn between(base: &ChunkTable, new: &ChunkTable, patches: Vec<PatchEntry>) -> Result<Self> {
        let mut positions: HashMap<Digest256, Vec<usize>> = HashMap::new();
        for (number, chunk) in base.chunks().iter().enumerate() {
            positions.entry(chunk.digest).or_default().push(number);
        }
        let mut runs: Vec<Run> = Vec::new();
        let mut literals = Vec::new();
        let mut cursor = 0;
        let mut rest = new.chunks();
        while let Some((first, behind)) = rest.split_first() {
            let places = positions.get(&first.digest).map_or(&[][..], Vec::as_slice);
            let (base_row, copied) = longest((base, new), rest, places, cursor);
            // A lone row of zeros says itself in fewer bytes than where to copy it from.
            if copied == 0 || (copied == 1 && first.source == Source::Zeros && base_row != cursor) {
                literals.push(literal(new, first));
                match runs.last_mut() {
                    Some(run) => run.literals += 1,
                    None => runs.push(Run { base_row: 0, copied: 0, literals: 1 }),
                }
                rest = behind;
            } else {
                runs.push(Run { base_row: base_row as u32, copied: copied as u32, literals: 0 });
                cursor = base_row + copied;
                rest = rest.get(copied..).unwrap_or_default();
            }
        }
        let patches = place(patches, new.chunks().len())?;
        let table =
            Self { image_bytes: new.image_bytes(), shapes: new.shapes().to_vec(), runs, literals, patches };
        table.check_targets(new)?;
        Ok(table)
    }

    /// The chunk table of the image, out of the base's. The caller compares SHA-256 of its bytes with the manifest
    /// ([`crate::bundle::Opened::check_table`]): another base, or a lie, makes another table.
    pub fn chunk_table(&self, base: &ChunkTable) -> Result<ChunkTable> {
        let mut builder = Builder::new(self.image_bytes, self.shapes.clone())?;
        let mut literals = self.literals.iter();
        for run in &self.runs {
            let rows = run.base_row as usize..(run.base_row + run.copied) as usize;
            let copied = base
                .chunks()
                .get(rows)
                .ok_or_else(|| Error::malformed(STRUCTURE, "it copies rows that the base has not"))?;
            for chunk in copied {
                match chunk.source {
                    Source::Zeros => builder.row(Row::Zeros { bytes: chunk.bytes })?,
                    Source::Frame { frame, .. } => {
                        builder.new_or_repeat(base.lane(frame), chunk.bytes, chunk.digest)?;
                    }
                }
            }
            for literal in literals.by_ref().take(run.literals as usize) {
                match literal {
                    Literal::Zeros { bytes } => builder.row(Row::Zeros { bytes: *bytes })?,
                    Literal::New { lane, bytes, digest } => builder.new_or_repeat(*lane, *bytes, *digest)?,
                }
            }
        }
        let table = builder.finish()?;
        self.check_targets(&table)?;
        Ok(table)
    }

    /// Bytes of the image.
    #[must_use]
    pub fn image_bytes(&self) -> u64 {
        self.image_bytes
    }

    /// The patches, sorted by their chunks; they do not overlap.
    #[must_use]
    pub fn patches(&self) -> &[Patch] {
        &self.patches
    }

    /// Bytes of all patches in the bundle.
    #[must_use]
    pub fn patches_bytes(&self) -> u64 {
        self.patches.iter().map(|patch| u64::from(patch.stored_bytes)).sum()
    }

    /// The table's bytes, which are compressed before they are stored.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        varint::put(&mut bytes, self.image_bytes);
        FrameShape::put_all(&mut bytes, &self.shapes);
        varint::put(&mut bytes, self.runs.len() as u64);
        let mut literals = self.literals.iter();
        let mut digests = Vec::new();
        let mut cursor = 0;
        for run in &self.runs {
            varint::put(&mut bytes, run.copied.into());
            if run.copied > 0 {
                varint::put_signed(&mut bytes, i64::from(run.base_row) - cursor);
                cursor = i64::from(run.base_row + run.copied);
            }
            varint::put(&mut bytes, run.literals.into());
            for literal in literals.by_ref().take(run.literals as usize) {
                varint::put(
                    &mut bytes,
                    match literal {
                        Literal::Zeros { bytes } => u64::from(*bytes) << 2 | ZEROS,
                        Literal::New { lane, bytes, digest } => {
                            digests.push(*digest);
                            u64::from(*bytes) << 2 | if *lane == Lane::Aside { NEW_ASIDE } else { NEW }
                        }
                    },
                );
            }
        }
        bytes.extend(digests.iter().flat_map(|digest| digest.0));
        varint::put(&mut bytes, self.patches.len() as u64);
        let mut begin = 0;
        for patch in &self.patches {
            varint::put(&mut bytes, patch.stored_bytes.into());
            varint::put(&mut bytes, patch.chunks.len() as u64);
            let mut behind = begin;
            for run in &patch.chunks {
                varint::put(&mut bytes, (run.start - behind).into());
                varint::put(&mut bytes, (run.end - run.start).into());
                behind = run.end;
            }
            begin = patch.begins();
        }
        bytes
    }

    /// Reads and checks a table, decompressed (to at most [`MAX_INDEX_BYTES`]); its stored bytes were compared with the signed digest.
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
        check_image_bytes(image_bytes)?;
        let shapes = FrameShape::read_all(&mut reader)?;
        let (runs, literals, rows) = read_runs(&mut reader)?;
        let patches = place(read_patches(&mut reader, rows)?, rows as usize)?;
        reader.end()?;
        Ok(Self { image_bytes, shapes, runs, literals, patches })
    }

    /// What a patch makes is known only with the lengths of its chunks.
    fn check_targets(&self, table: &ChunkTable) -> Result<()> {
        for patch in &self.patches {
            let chunks = patch.chunk_numbers().filter_map(|number| table.chunks().get(number));
            let bytes = chunks.map(|chunk| u64::from(chunk.bytes)).sum();
            varint::bounded("what a patch makes", bytes, MAX_PATCH_TARGET_BYTES)?;
        }
        Ok(())
    }
}

fn literal(table: &ChunkTable, chunk: &Chunk) -> Literal {
    match chunk.source {
        Source::Zeros => Literal::Zeros { bytes: chunk.bytes },
        Source::Frame { frame, .. } => {
            Literal::New { lane: table.lane(frame), bytes: chunk.bytes, digest: chunk.digest }
        }
    }
}

/// Whether a row of one table says the same as one of the other.
fn equal((base, new): (&ChunkTable, &ChunkTable), one: &Chunk, other: &Chunk) -> bool {
    let sources = match (one.source, other.source) {
        (Source::Zeros, Source::Zeros) => true,
        (Source::Frame { frame: one, .. }, Source::Frame { frame: other, .. }) => {
            base.lane(one) == new.lane(other)
        }
        (Source::Zeros, Source::Frame { .. }) | (Source::Frame { .. }, Source::Zeros) => false,
    };
    sources && one.digest == other.digest && one.bytes == other.bytes
}

/// Where in the base the longest run of equal rows begins, and how many they are; of equal ones the nearest to `cursor`.
fn longest(
    tables: (&ChunkTable, &ChunkTable),
    new: &[Chunk],
    places: &[usize],
    cursor: usize,
) -> (usize, usize) {
    let middle = places.partition_point(|place| *place < cursor);
    let near = middle.saturating_sub(MOST_CANDIDATES / 2)..(middle + MOST_CANDIDATES / 2).min(places.len());
    let mut best = (cursor, 0);
    for place in places.get(near).unwrap_or_default() {
        let behind = tables.0.chunks().get(*place..).unwrap_or_default();
        let equal = behind.iter().zip(new).take_while(|(one, other)| equal(tables, one, other)).count();
        let nearer = place.abs_diff(cursor) < best.0.abs_diff(cursor);
        if equal > best.1 || (equal == best.1 && nearer) {
            best = (*place, equal);
        }
    }
    best
}

/// Gives each patch its place behind the one before. Each begins behind where the one before begins, and no chunk is made twice.
fn place(entries: Vec<PatchEntry>, rows: usize) -> Result<Vec<Patch>> {
    let mut patches: Vec<Patch> = Vec::with_capacity(entries.len());
    let mut made = vec![false; rows];
    let (mut begin, mut offset) = (None, 0u64);
    for PatchEntry { chunks, stored_bytes } in entries {
        varint::bounded("patch", stored_bytes.into(), MAX_PATCH_STORED_BYTES)?;
        let mut end = None;
        for run in &chunks {
            let wrong = || Error::malformed(STRUCTURE, "patches overlap, or make chunks that are not there");
            let makes = made.get_mut(run.start as usize..run.end as usize).ok_or_else(wrong)?;
            let touches = end.is_some_and(|end| run.start <= end);
            if makes.is_empty() || touches || makes.contains(&true) {
                return Err(wrong());
            }
            makes.fill(true);
            end = Some(run.end);
        }
        let first = chunks.first().map(|run| run.start);
        if first.is_none() || stored_bytes == 0 || (begin.is_some() && first <= begin) {
            return Err(Error::malformed(STRUCTURE, "a patch is empty, or stands before an earlier one"));
        }
        begin = first;
        patches.push(Patch { chunks, offset, stored_bytes });
        offset += u64::from(stored_bytes);
    }
    Ok(patches)
}

/// Runs, their literals, and how many rows they are together.
fn read_runs(reader: &mut Reader<'_>) -> Result<(Vec<Run>, Vec<Literal>, u32)> {
    let count = reader.at_most("list of runs", MAX_CHUNKS)?;
    let (mut runs, mut literals) = (Vec::new(), Vec::new());
    let mut rows = 0;
    let mut cursor = 0;
    for number in 0..count {
        let copied = reader.at_most("list of chunks", MAX_CHUNKS)?;
        let mut base_row = 0;
        if copied > 0 {
            base_row = i64::from(cursor)
                .checked_add(reader.signed_varint()?)
                .and_then(|row| u32::try_from(row).ok())
                .filter(|row| *row <= MAX_CHUNKS)
                .ok_or_else(|| Error::malformed(STRUCTURE, "it copies rows that no base has"))?;
            // Both are at most MAX_CHUNKS.
            cursor = base_row + copied;
        }
        let said = reader.at_most("list of chunks", MAX_CHUNKS)?;
        if copied == 0 && (number > 0 || said == 0) {
            return Err(Error::malformed(STRUCTURE, "a run is empty, or belongs to the one before"));
        }
        rows = varint::bounded(
            "list of chunks",
            u64::from(rows) + u64::from(copied) + u64::from(said),
            MAX_CHUNKS,
        )?;
        for _ in 0..said {
            let head = reader.varint()?;
            let bytes = varint::bounded("chunk", head >> 2, MAX_CHUNK_BYTES)?;
            if bytes == 0 {
                return Err(Error::malformed(STRUCTURE, "a chunk is empty"));
            }
            let new = |lane| Literal::New { lane, bytes, digest: Digest256([0; 32]) };
            literals.push(match head & 3 {
                NEW => new(Lane::Main),
                NEW_ASIDE => new(Lane::Aside),
                ZEROS => Literal::Zeros { bytes },
                _ => return Err(Error::malformed(STRUCTURE, "a row is of no kind that there is")),
            });
        }
        runs.push(Run { base_row, copied, literals: said });
    }
    for literal in &mut literals {
        match literal {
            Literal::New { digest, .. } => *digest = Digest256(reader.array()?),
            Literal::Zeros { .. } => (),
        }
    }
    Ok((runs, literals, rows))
}

fn read_patches(reader: &mut Reader<'_>, rows: u32) -> Result<Vec<PatchEntry>> {
    let count = reader.at_most("list of patches", MAX_CHUNKS)?;
    let mut entries = Vec::new();
    // Every run makes a chunk of its own, so there are no more of them than rows: that bounds the memory.
    let mut left = rows;
    let mut begin = 0u32;
    for _ in 0..count {
        let stored_bytes = reader.at_most("patch", MAX_PATCH_STORED_BYTES)?;
        let runs = reader.at_most("list of chunks of a patch", left)?;
        left -= runs;
        let mut chunks = Vec::new();
        let mut behind = begin;
        for _ in 0..runs {
            // Each is at most MAX_CHUNKS, and what reaches beyond the rows is refused before the next one is added.
            let start = behind + reader.at_most("list of chunks", rows)?;
            let bytes = reader.at_most("list of chunks", rows)?;
            let end = varint::bounded("chunks of a patch", u64::from(start) + u64::from(bytes), rows)?;
            chunks.push(start..end);
            behind = end;
        }
        begin = chunks.first().map_or(begin, |run| run.start);
        entries.push(PatchEntry { chunks, stored_bytes });
    }
    Ok(entries)
}

#[cfg(test)]
mod tests;
