//! What the device has of a bundle's images: tables from the tails of the banks, from a delta, or from the bundle; what lies in place; what the
//! active bank holds. Only reads, so that a plan can be shown before anything is touched.
//!
//! What a tail says of the active bank is checked when it is copied. What it says of the passive bank is believed until the read-back: where
//! that finds it wrong, or where an install was interrupted, every chunk is looked at.

use bank_format::{
    Bank, Digest256,
    bundle::Opened,
    delta::{CODEC, DeltaTable, Patch},
    header::Section,
    index::{Chunk, ChunkTable, Source},
    limits::MAX_INDEX_BYTES,
    record::BankState,
    verity::BLOCK_BYTES,
};

use super::{
    plan::{Held, Plan},
    source::Ranges,
};
use crate::{
    bank::{Checked, fill_parts, table_in},
    codec::Decoder,
    crew::Crew,
    device::Device,
    error::{Error, Result, bundle},
    limits::{COPY_BYTES, LEAST_SAMPLES, SAMPLES, TAIL_TABLE_BYTES, TAIL_TABLE_FACTOR},
    ports::{Access, BankDisk, ImageFile, Phase, Progress},
};

/// An image, and where its chunks will come from.
pub struct Surveyed {
    /// Its chunks.
    pub table: ChunkTable,
    /// Where each comes from.
    pub plan: Plan,
    /// Patches from what the active bank holds, and where they are in the bundle; none where there is no such delta.
    pub patches: Vec<Patch>,
    /// The patches' part of the bundle.
    pub patches_section: Section,
    /// Whether what lies in place was believed, not read.
    pub trusting: bool,
}

/// Both banks before an install.
pub struct Survey<'d> {
    device: &'d Device,
    disk: &'d dyn BankDisk,
    opened: &'d Opened,
    decoder: Decoder,
}

/// What the tails say, and what is known of the active image.
struct Hints {
    active: Option<(Digest256, ChunkTable)>,
    passive: Option<(Digest256, ChunkTable)>,
    /// Root of the image in the active bank.
    base: Option<Digest256>,
}

impl<'d> Survey<'d> {
    /// Before anything is read.
    pub fn new(device: &'d Device, disk: &'d dyn BankDisk, opened: &'d Opened) -> Self {
        Self { device, disk, opened, decoder: Decoder::default() }
    }

    /// An image whose bundle can be read in any place.
    pub fn by_ranges(
        &mut self,
        image: usize,
        ranges: &mut dyn Ranges,
        progress: &mut dyn Progress,
    ) -> Result<Surveyed> {
        let mut hints = self.hints(image)?;
        let mut patches = (Vec::new(), Section::default());
        let table = match self.table_at_hand(image, &mut hints)? {
            Some(table) => table,
            None => {
                let delta = self.delta(image, hints.base, ranges, progress)?;
                let made = delta.as_ref().and_then(|(delta, _)| {
                    let table = delta.chunk_table(&hints.active.as_ref()?.1).ok()?;
                    self.opened.check_table(image, &table).ok().map(|()| table)
                });
                if let Some((delta, section)) = delta {
                    patches = (delta.patches().to_vec(), section);
                }
                match made {
                    Some(table) => table,
                    None => {
                        let section = self.opened.index_section(image).ok_or(super::NO_SUCH_IMAGE)?;
                        let bytes = whole(ranges, section, progress)?;
                        self.opened.chunk_table(image, &bytes).map_err(bundle)?
                    }
                }
            }
        };
        self.planned(image, table, hints, patches, progress)
    }

    /// An image whose table has streamed by. Deltas come behind the frames, and are of no use to a stream.
    pub fn by_stream(
        &mut self,
        image: usize,
        table: ChunkTable,
        progress: &mut dyn Progress,
    ) -> Result<Surveyed> {
        let hints = self.hints(image)?;
        self.planned(image, table, hints, (Vec::new(), Section::default()), progress)
    }

    fn name(&self, image: usize) -> Result<&'d str> {
        let entry = self.opened.manifest().images.get(image).ok_or(super::NO_SUCH_IMAGE)?;
        Ok(&entry.name)
    }

    fn passive(&self) -> Bank {
        !self.device.running()
    }

    fn hints(&self, image: usize) -> Result<Hints> {
        let name = self.name(image)?;
        let entry = self.opened.manifest().images.get(image).ok_or(super::NO_SUCH_IMAGE)?;
        let most_bytes = entry.index.bytes.saturating_mul(TAIL_TABLE_FACTOR).saturating_add(TAIL_TABLE_BYTES);
        let banks = &self.device.record().banks;
        let root = |bank| banks.get(bank).images.get(name).map(|proof| proof.verity_root);
        let known = root(self.device.running());
        let active = table_in(self.disk, (self.device.running(), name), known, most_bytes);
        let passive = match banks.get(self.passive()).state {
            // Whatever its tail says, something was written since.
            BankState::Writing => None,
            BankState::Empty | BankState::Written | BankState::Confirmed | BankState::Failed => {
                table_in(self.disk, (self.passive(), name), root(self.passive()), most_bytes)
            }
        };
        let base = known.or(active.as_ref().map(|(head, _)| head.root));
        let short = |found: Option<(bank_format::tail::Head, ChunkTable)>| {
            found.map(|(head, table)| (head.table_sha256, table))
        };
        Ok(Hints { active: short(active), passive: short(passive), base })
    }

    /// The image's own table, if a bank has it in its tail.
    fn table_at_hand(&self, image: usize, hints: &mut Hints) -> Result<Option<ChunkTable>> {
        let entry = self.opened.manifest().images.get(image).ok_or(super::NO_SUCH_IMAGE)?;
        for (digest, table) in [&hints.passive, &hints.active].into_iter().flatten() {
            if *digest == entry.index.sha256 {
                self.opened.check_table(image, table).map_err(bundle)?;
                return Ok(Some(table.clone()));
            }
        }
        Ok(None)
    }

    /// The delta from what the active bank holds, and where its patches are.
    fn delta(
        &mut self,
        image: usize,
        base: Option<Digest256>,
        ranges: &mut dyn Ranges,
        progress: &mut dyn Progress,
    ) -> Result<Option<(DeltaTable, Section)>> {
        let name = self.name(image)?;
        let deltas = self.opened.manifest().deltas.iter();
        let found = deltas
            .enumerate()
            .find(|(_, delta)| delta.image == name && Some(delta.base) == base && delta.codec == CODEC);
        let Some((number, _)) = found else { return Ok(None) };
        let sections = self.opened.delta_sections(number).ok_or(super::NO_SUCH_IMAGE)?;
        let stored = whole(ranges, sections.table, progress)?;
        let mut read = || {
            self.opened.check_delta_table(number, &stored).map_err(bundle)?;
            let plain = self.decoder.at_most(&stored, MAX_INDEX_BYTES).map_err(|source| Error::Frame {
                image: name.into(),
                frame: 0,
                source,
            })?;
            self.opened.delta_table(number, &plain).map_err(bundle)
        };
        match read() {
            Ok(table) => Ok(Some((table, sections.patches))),
            // Index and frames are there for that.
            Err(error) => {
                progress.note(&format!("the delta cannot be used: {}", error.line()));
                Ok(None)
            }
        }
    }

    fn planned(
        &mut self,
        image: usize,
        table: ChunkTable,
        hints: Hints,
        (patches, patches_section): (Vec<Patch>, Section),
        progress: &mut dyn Progress,
    ) -> Result<Surveyed> {
        let name = self.name(image)?;
        // The first block of the last image is wiped before anything else is done.
        let is_last = image + 1 == self.opened.manifest().images.len();
        let wiped_bytes = if is_last { BLOCK_BYTES as u64 } else { 0 };
        let mut file = self.disk.open(self.passive(), name, Access::Read).ok();
        let can_stay = |chunk: &Chunk| chunk.offset >= wiped_bytes;
        let trusting = hints.passive.is_some();
        let in_place = match (&hints.passive, &mut file) {
            (Some((_, there)), _) => same_rows(&table, there, can_stay),
            (None, Some(file)) => {
                let every = match self.device.record().banks.get(self.passive()).state {
                    BankState::Writing => Looks::Every,
                    BankState::Empty | BankState::Written | BankState::Confirmed | BankState::Failed => {
                        Looks::IfAny
                    }
                };
                same_bytes(file.as_mut(), &table, can_stay, every, progress)?
            }
            (None, None) => Vec::new(),
        };
        let active = match &hints.active {
            Some((_, there)) => places(&table, there),
            None => {
                let missing = |chunk: &Chunk| chunk.source != Source::Zeros;
                let found = match self.disk.open(self.device.running(), name, Access::Read) {
                    Ok(mut file) => same_bytes(file.as_mut(), &table, missing, Looks::IfAny, progress)?,
                    Err(_) => Vec::new(),
                };
                let offsets = table.chunks().iter().map(|chunk| chunk.offset);
                found.into_iter().zip(offsets).map(|(here, offset)| here.then_some(offset)).collect()
            }
        };
        let plan = Plan::new(&table, &Held { in_place, active }, &patches);
        Ok(Surveyed { table, plan, patches, patches_section, trusting })
    }
}

fn whole(ranges: &mut dyn Ranges, section: Section, progress: &mut dyn Progress) -> Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(section.bytes as usize);
    ranges.read(section.offset, section.bytes, progress, &mut |data, _| {
        bytes.extend_from_slice(data);
        Ok(())
    })?;
    Ok(bytes)
}

/// By chunk: whether another table has the same at the same place.
fn same_rows(table: &ChunkTable, there: &ChunkTable, can_stay: impl Fn(&Chunk) -> bool) -> Vec<bool> {
    let mut rest = there.chunks().iter().peekable();
    let same = table.chunks().iter().map(|chunk| {
        while rest.next_if(|other| other.offset < chunk.offset).is_some() {}
        rest.peek().is_some_and(|other| {
            (other.offset, other.bytes, other.digest) == (chunk.offset, chunk.bytes, chunk.digest)
        }) && can_stay(chunk)
    });
    same.collect()
}

/// By chunk: where a table has it; in the same place, if it has it there.
fn places(table: &ChunkTable, there: &ChunkTable) -> Vec<Option<u64>> {
    let mut sorted: Vec<&Chunk> =
        there.chunks().iter().filter(|chunk| chunk.source != Source::Zeros).collect();
    sorted.sort_unstable_by_key(|chunk| (chunk.digest.0, chunk.offset));
    let find = |chunk: &Chunk| {
        let key = |other: &&Chunk| (other.digest.0, other.offset);
        let same = sorted.binary_search_by_key(&(chunk.digest.0, chunk.offset), key);
        let at = same.unwrap_or_else(|at| {
            // Not in the same place: the one behind, or before, whichever is of the same digest.
            let is_next = sorted.get(at).is_some_and(|next| next.digest == chunk.digest);
            if is_next { at } else { at.wrapping_sub(1) }
        });
        sorted
            .get(at)
            .filter(|other| other.digest == chunk.digest && other.bytes == chunk.bytes)
            .map(|other| other.offset)
    };
    table.chunks().iter().map(find).collect()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Looks {
    /// An install was interrupted here: what was verified is not fetched again.
    Every,
    /// At all of them if enough of a few lie there: a bank of something else altogether is not read for nothing.
    IfAny,
}

/// By chunk: whether its bytes lie in its place. A bank that cannot be read costs bytes, never correctness.
fn same_bytes(
    file: &mut dyn ImageFile,
    table: &ChunkTable,
    wanted: impl Fn(&Chunk) -> bool,
    looks: Looks,
    progress: &mut dyn Progress,
) -> Result<Vec<bool>> {
    let chunks = table.chunks();
    let is_worth_it = match looks {
        Looks::Every => true,
        Looks::IfAny => {
            let step = (chunks.len() / SAMPLES).max(1);
            let samples: Vec<usize> = (0..chunks.len())
                .step_by(step)
                .filter(|number| {
                    chunks.get(*number).is_some_and(|chunk| chunk.source != Source::Zeros && wanted(chunk))
                })
                .collect();
            let found = look(file, chunks, &samples, &mut |_| ())?.len();
            found > 0 && found * LEAST_SAMPLES >= samples.len()
        }
    };
    if !is_worth_it {
        return Ok(Vec::new());
    }
    progress.begin(Phase::Look, table.image_bytes());
    let numbers: Vec<usize> =
        (0..chunks.len()).filter(|number| chunks.get(*number).is_some_and(&wanted)).collect();
    let found = look(file, chunks, &numbers, &mut |bytes| progress.advance(bytes))?;
    let mut found = found.into_iter().peekable();
    Ok(chunks.iter().map(|chunk| found.next_if_eq(&chunk.offset).is_some()).collect())
}

/// Offsets of those chunks whose bytes lie in their places.
fn look(
    file: &mut dyn ImageFile,
    chunks: &[Chunk],
    numbers: &[usize],
    seen: &mut dyn FnMut(u64),
) -> Result<Vec<u64>> {
    let mut crew: Crew<Checked> = Crew::new();
    let mut found = Vec::with_capacity(numbers.len());
    let mut spare: Vec<Vec<u8>> = Vec::new();
    let mut take = |crew: &mut Crew<Checked>, spare: &mut Vec<Vec<u8>>| -> Result<bool> {
        let Some(looked) = crew.take() else { return Ok(false) };
        let same = looked?;
        found.extend(same.parts().map(|(chunk, _)| chunk.offset));
        let buffer = same.into_buffer();
        seen(buffer.len() as u64);
        spare.push(buffer);
        Ok(true)
    };
    let mut chunks = numbers.iter().filter_map(|number| chunks.get(*number)).copied().peekable();
    while let Some(first) = chunks.next() {
        let (mut parts, mut bytes) = (vec![(first, 0)], first.bytes as usize);
        while let Some(next) = chunks.next_if(|next| {
            next.offset == first.offset + bytes as u64 && bytes + next.bytes as usize <= COPY_BYTES
        }) {
            parts.push((next, bytes));
            bytes += next.bytes as usize;
        }
        while !crew.has_room(bytes) {
            take(&mut crew, &mut spare)?;
        }
        let mut buffer = spare.pop().unwrap_or_default();
        buffer.resize(bytes, 0);
        fill_parts(file, first.offset, &mut buffer, &mut parts);
        crew.give(bytes, move |_| Ok(Checked::some(buffer, parts)));
    }
    while take(&mut crew, &mut spare)? {}
    Ok(found)
}

#[cfg(test)]
mod tests {
    use bank_format::index::Lane;

    use super::*;

    fn table(contents: &[u8]) -> ChunkTable {
        let mut chunks = Vec::new();
        for (number, content) in (0..).zip(contents) {
            let first = contents.iter().position(|other| other == content).unwrap_or(0);
            let offset = contents[..first]
                .iter()
                .enumerate()
                .filter(|(n, c)| contents[..*n].iter().all(|o| o != *c))
                .count() as u32
                * 10;
            let source = if *content == 0 { Source::Zeros } else { Source::Frame { frame: 0, offset } };
            let bytes: u32 = 10;
            let digest = if *content == 0 { Digest256::of(&[0; 10]) } else { Digest256::of(&[*content; 10]) };
            let _: u32 = number;
            chunks.push((bytes, source, digest));
        }
        let distinct: std::collections::BTreeSet<u8> =
            contents.iter().copied().filter(|content| *content != 0).collect();
        let raw = distinct.len() as u32 * 10;
        ChunkTable::new(&[(Lane::Main, raw, raw)], &chunks).unwrap()
    }

    #[test]
    fn rows_in_the_same_place_and_rows_elsewhere() {
        let (old, new) = (table(&[1, 2, 3, 2, 4]), table(&[1, 3, 3, 2, 5]));
        assert_eq!(same_rows(&new, &old, |_| true), [true, false, true, true, false]);
        assert_eq!(same_rows(&new, &old, |chunk| chunk.offset > 0), [false, false, true, true, false]);
        assert_eq!(places(&new, &old), [Some(0), Some(20), Some(20), Some(30), None]);
        assert_eq!(places(&old, &new), [Some(0), Some(30), Some(20), Some(30), None]);
    }
}
