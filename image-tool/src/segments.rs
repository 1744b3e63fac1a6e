//! What lies where in an image: files of an EROFS, sections of programs for UEFI, blocks of a packed kernel.
//!
//! What it finds decides where chunks are cut and what is compared with what, and nothing else. An image that it does not understand is one
//! piece without a name. Deliberately absent: any trust in what an image says of itself; whoever lies to it gets larger updates.

use std::{fs::File, os::unix::fs::FileExt as _};

use bank_format::index::Lane;
use object::{Object as _, ObjectSection as _, read::pe::PeFile64};

use crate::{
    delta::lz4,
    erofs::reader,
    error::{Error, Result},
    limits::{MAX_PE_HEADERS_BYTES, SCAN_BYTES},
};

/// Files begin at multiples of this in all file systems that are looked into.
const SECTOR_BYTES: u64 = 512;
const BLOCK_BYTES: u64 = 4096;

/// A part of an image that is one thing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// Path of the file, or name of the section; empty for what lies between.
    pub name: String,
    /// From the start of the image.
    pub offset_bytes: u64,
    /// Bytes.
    pub len_bytes: u64,
    /// Blocks of a packed kernel in it, in their order.
    pub packed: Vec<lz4::Block>,
}

impl Segment {
    fn new(name: String, offset_bytes: u64, len_bytes: u64) -> Self {
        Self { name, offset_bytes, len_bytes, packed: Vec::new() }
    }

    /// Where it ends.
    #[must_use]
    pub fn end_bytes(&self) -> u64 {
        self.offset_bytes.saturating_add(self.len_bytes)
    }
}

/// The segments of an image, one behind the other, without gaps.
pub fn of(file: &File, image_bytes: u64, subject: &str) -> Result<Vec<Segment>> {
    let mut named: Vec<Segment> = reader::extents(file)
        .into_iter()
        .map(|extent| Segment::new(extent.path, extent.offset_bytes, extent.len_bytes))
        .collect();
    let scan = scan(file, image_bytes, subject)?;
    if named.is_empty() {
        named = scan.programs.iter().flat_map(|at| sections(file, *at, image_bytes)).collect();
        named.sort_by_key(|segment| segment.offset_bytes);
    }
    let mut segments = tiled(named, image_bytes);
    for block in scan.packed {
        let at = segments.partition_point(|segment| segment.end_bytes() <= block.offset_bytes);
        if let Some(segment) = segments.get_mut(at) {
            segment.packed.push(block);
        }
    }
    Ok(segments)
}

/// Where the chunks of a segment go: what lies between files changes with each of them. In an image that is not understood there is no between.
#[must_use]
pub fn lane(segments: &[Segment], number: usize) -> Lane {
    let between = |segment: &Segment| segment.name.is_empty() && segments.len() > 1;
    if segments.get(number).is_some_and(between) { Lane::Aside } else { Lane::Main }
}

/// Fills the gaps, and drops what overlaps or reaches beyond the end.
fn tiled(named: Vec<Segment>, image_bytes: u64) -> Vec<Segment> {
    let mut segments = Vec::with_capacity(named.len());
    let mut at = 0;
    let mut named = named.into_iter().peekable();
    while let Some(mut segment) = named.next() {
        // What a file leaves free of its last block belongs to it.
        let next = named.peek().map_or(image_bytes, |next| next.offset_bytes);
        let padded = segment.end_bytes().next_multiple_of(BLOCK_BYTES).min(next);
        segment.len_bytes = segment.len_bytes.max(padded.saturating_sub(segment.offset_bytes));
        if segment.offset_bytes < at || segment.len_bytes == 0 || segment.end_bytes() > image_bytes {
            continue;
        }
        if segment.offset_bytes > at {
            segments.push(Segment::new(String::new(), at, segment.offset_bytes - at));
        }
        at = segment.end_bytes();
        segments.push(segment);
    }
    if at < image_bytes {
        segments.push(Segment::new(String::new(), at, image_bytes - at));
    }
    segments
}

#[derive(Default)]
struct Scan {
    /// Where a program for UEFI may begin.
    programs: Vec<u64>,
    packed: Vec<lz4::Block>,
}

/// One pass over the image for the marks of both.
fn scan(file: &File, image_bytes: u64, subject: &str) -> Result<Scan> {
    let mut found = Scan::default();
    let mut buffer = vec![0; SCAN_BYTES];
    let overlap = lz4::MAGIC.len() as u64 - 1;
    let (mut at, mut packed_until) = (0, 0);
    while at < image_bytes {
        let wanted = usize::try_from(image_bytes - at).unwrap_or(SCAN_BYTES).min(SCAN_BYTES);
        let part = buffer.get_mut(..wanted).unwrap_or_default();
        file.read_exact_at(part, at).map_err(Error::file("read", subject))?;
        for sector in (0..wanted).step_by(SECTOR_BYTES as usize) {
            if part.get(sector..).is_some_and(|rest| rest.starts_with(b"MZ")) {
                found.programs.push(at + sector as u64);
            }
        }
        for place in positions(part, lz4::MAGIC) {
            let place = at + place as u64;
            if place >= packed_until {
                let blocks = lz4::blocks(file, place, image_bytes);
                packed_until = blocks.last().map_or(place, lz4::Block::end_bytes);
                found.packed.extend(blocks);
            }
        }
        // A mark that lies across the border is seen with the next part, whose sectors stay aligned.
        at += if at + (wanted as u64) < image_bytes {
            wanted as u64 - overlap.next_multiple_of(SECTOR_BYTES)
        } else {
            wanted as u64
        };
    }
    found.programs.dedup();
    Ok(found)
}

fn positions<'a>(bytes: &'a [u8], mark: [u8; 4]) -> impl Iterator<Item = usize> + 'a {
    let [first, ..] = mark;
    let candidates = bytes.iter().enumerate().filter(move |(_, byte)| **byte == first);
    candidates
        .map(|(at, _)| at)
        .filter(move |at| bytes.get(*at..).is_some_and(|rest| rest.starts_with(&mark)))
}

/// The sections of the program that begins here, if one does.
fn sections(file: &File, at: u64, image_bytes: u64) -> Vec<Segment> {
    let mut head =
        vec![0; usize::try_from(image_bytes - at).unwrap_or(MAX_PE_HEADERS_BYTES).min(MAX_PE_HEADERS_BYTES)];
    if file.read_exact_at(&mut head, at).is_err() {
        return Vec::new();
    }
    let Ok(program) = PeFile64::parse(head.as_slice()) else { return Vec::new() };
    let mut sections: Vec<Segment> = program
        .sections()
        .filter_map(|section| {
            let (offset, bytes) = section.file_range()?;
            let name = section.name().ok()?.to_owned();
            Some(Segment::new(name, at.checked_add(offset)?, bytes))
        })
        .filter(|section| section.len_bytes > 0)
        .collect();
    sections.sort_by_key(|section| section.offset_bytes);
    sections
}
