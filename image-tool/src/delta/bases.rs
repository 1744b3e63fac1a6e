//! What a part of the new image is compared with: the same path in the base, then the same name of another version, then what lies around the
//! same place.

use std::{
    collections::HashMap,
    fs::File,
    os::unix::fs::FileExt as _,
    sync::{Arc, Mutex, PoisonError},
};

use super::matcher::Old;
use crate::{
    error::{Error, Result},
    limits::{MAX_BASE_TEXT_BYTES, MAX_TEXTS},
    segments::Segment,
};

/// Bytes of the base, ready to be searched, and where they lie in it.
pub struct Text {
    /// The bytes.
    pub old: Old,
    /// Stretches: where each begins in `old`, and where in the base image.
    pieces: Vec<(usize, u64)>,
}

impl Text {
    /// Bytes of the base that lie one behind the other.
    pub fn at(offset_bytes: u64, bytes: Vec<u8>) -> Self {
        Self { old: Old::new(bytes), pieces: vec![(0, offset_bytes)] }
    }

    /// Where a stretch of the text lies in the base: the pieces that it consists of, as offset and bytes.
    pub fn places(&self, from: usize, bytes: usize) -> Vec<(u64, usize)> {
        let mut places = Vec::new();
        let (mut at, end) = (from, from + bytes);
        let first = self.pieces.partition_point(|(start, _)| *start <= from).saturating_sub(1);
        for (number, (start, offset)) in self.pieces.iter().enumerate().skip(first) {
            if at >= end {
                break;
            }
            let piece_end = self.pieces.get(number + 1).map_or(usize::MAX, |(next, _)| *next);
            let until = end.min(piece_end);
            places.push((offset + (at - start) as u64, until - at));
            at = until;
        }
        places
    }
}

/// The base image and what lies where in it.
pub struct Bases<'a> {
    file: &'a File,
    subject: &'a str,
    segments: &'a [Segment],
    by_name: HashMap<&'a str, usize>,
    by_shape: HashMap<String, usize>,
    by_last_part: HashMap<String, usize>,
    /// The last texts that were asked for.
    recent: Mutex<Vec<(Key, Slot)>>,
}

/// Where a text is, or will be.
type Slot = Arc<Mutex<Option<Arc<Text>>>>;

/// Which bytes of the base: a segment, or what lies around a place. The same key of the same base means the same text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    /// A segment, by its number.
    Segment(usize),
    /// Of a very large segment, from this offset on.
    Part(u64),
    /// All around this offset that has no name.
    Around(u64),
}

impl Key {
    /// As numbers, for a cache.
    #[must_use]
    pub fn numbers(self) -> [u64; 2] {
        match self {
            Self::Segment(number) => [0, number as u64],
            Self::Part(offset) => [1, offset],
            Self::Around(offset) => [2, offset],
        }
    }
}

impl<'a> Bases<'a> {
    /// Of an image that is cut into these segments.
    #[must_use]
    pub fn new(file: &'a File, segments: &'a [Segment], subject: &'a str) -> Self {
        let named = || segments.iter().enumerate().filter(|(_, segment)| !segment.name.is_empty());
        Self {
            file,
            subject,
            segments,
            by_name: named().map(|(number, segment)| (segment.name.as_str(), number)).collect(),
            by_shape: named().map(|(number, segment)| (shape(&segment.name), number)).collect(),
            by_last_part: named()
                .map(|(number, segment)| (shape(last_part(&segment.name)), number))
                .collect(),
            recent: Mutex::default(),
        }
    }

    /// The segment of the base that is the same thing as this one.
    #[must_use]
    pub fn segment_for(&self, new: &Segment) -> Option<&'a Segment> {
        self.number_for(new).and_then(|number| self.segments.get(number))
    }

    fn number_for(&self, new: &Segment) -> Option<usize> {
        if new.name.is_empty() {
            return None;
        }
        let by_name = self.by_name.get(new.name.as_str());
        let by_shape = || self.by_shape.get(&shape(&new.name));
        let by_last_part = || self.by_last_part.get(&shape(last_part(&new.name)));
        by_name.or_else(by_shape).or_else(by_last_part).copied()
    }

    /// What to compare the bytes at an offset of a new segment with.
    #[must_use]
    pub fn key_for(&self, new: &Segment, offset_bytes: u64) -> Key {
        let number = self.number_for(new);
        match number.and_then(|number| Some((number, self.segments.get(number)?))) {
            Some((number, segment)) if segment.len_bytes <= MAX_BASE_TEXT_BYTES => Key::Segment(number),
            Some((_, segment)) => {
                // The same part of a very large file, and as much again around it.
                let into = offset_bytes.saturating_sub(new.offset_bytes);
                let start =
                    into.saturating_sub(MAX_BASE_TEXT_BYTES / 2).min(segment.len_bytes - MAX_BASE_TEXT_BYTES);
                Key::Part(segment.offset_bytes + start - start % (MAX_BASE_TEXT_BYTES / 4))
            }
            // What lies near to each other has one text.
            None => {
                let near = MAX_BASE_TEXT_BYTES / 4;
                Key::Around(offset_bytes - offset_bytes % near + near / 2)
            }
        }
    }

    fn stretches(&self, key: Key) -> Vec<(u64, u64)> {
        match key {
            Key::Segment(number) => self
                .segments
                .get(number)
                .map(|segment| vec![(segment.offset_bytes, segment.len_bytes)])
                .unwrap_or_default(),
            Key::Part(start) => {
                let at = self.segments.partition_point(|segment| segment.end_bytes() <= start);
                let end = self.segments.get(at).map_or(start, Segment::end_bytes);
                vec![(start, MAX_BASE_TEXT_BYTES.min(end - start))]
            }
            Key::Around(offset) => self.nameless_around(offset),
        }
    }

    /// The text that a key means.
    pub fn text(&self, key: Key) -> Result<Arc<Text>> {
        let slot = self.slot(key);
        // Whoever comes while it is made waits for it: two of the same would cost twice the memory.
        let mut text = slot.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(text) = &*text {
            return Ok(Arc::clone(text));
        }
        let made = Arc::new(self.read(&self.stretches(key))?);
        *text = Some(Arc::clone(&made));
        Ok(made)
    }

    fn slot(&self, key: Key) -> Slot {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let known = recent.iter().position(|(known, _)| *known == key);
        let slot = known.map_or_else(Slot::default, |at| recent.remove(at).1);
        recent.push((key, Arc::clone(&slot)));
        if recent.len() > MAX_TEXTS {
            recent.remove(0);
        }
        slot
    }

    /// What has no name in the base, nearest to this offset, in its order.
    fn nameless_around(&self, offset_bytes: u64) -> Vec<(u64, u64)> {
        let mut nameless: Vec<&Segment> =
            self.segments.iter().filter(|segment| segment.name.is_empty()).collect();
        nameless.sort_by_key(|segment| distance(segment, offset_bytes));
        let mut left = MAX_BASE_TEXT_BYTES;
        let mut stretches = Vec::new();
        for segment in nameless {
            let into = offset_bytes.saturating_sub(segment.offset_bytes).saturating_sub(left / 2);
            let into = into.min(segment.len_bytes.saturating_sub(left));
            let bytes = (segment.len_bytes - into).min(left);
            stretches.push((segment.offset_bytes + into, bytes));
            left -= bytes;
            if left == 0 {
                break;
            }
        }
        stretches.sort_unstable();
        stretches
    }

    fn read(&self, stretches: &[(u64, u64)]) -> Result<Text> {
        let mut bytes = Vec::new();
        let mut pieces = Vec::new();
        for (offset, length) in stretches {
            let start = bytes.len();
            pieces.push((start, *offset));
            bytes.resize(start + *length as usize, 0);
            self.file
                .read_exact_at(bytes.get_mut(start..).unwrap_or_default(), *offset)
                .map_err(Error::file("read", self.subject))?;
        }
        Ok(Text { old: Old::new(bytes), pieces })
    }
}

fn distance(segment: &Segment, offset_bytes: u64) -> u64 {
    if offset_bytes < segment.offset_bytes {
        segment.offset_bytes - offset_bytes
    } else {
        offset_bytes.saturating_sub(segment.end_bytes())
    }
}

fn last_part(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// A path without the numbers of its versions: `lib/modules/6.1.0-41/x.ko` and `lib/modules/6.1.0-42/x.ko` have the same.
fn shape(path: &str) -> String {
    let mut shape = String::with_capacity(path.len());
    let mut in_number = false;
    for letter in path.chars() {
        match (letter.is_ascii_digit(), in_number) {
            (true, true) => (),
            (true, false) => shape.push('#'),
            (false, _) => shape.push(letter),
        }
        in_number = letter.is_ascii_digit();
    }
    shape
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn segment(name: &str, offset_bytes: u64, len_bytes: u64) -> Segment {
        Segment { name: name.into(), offset_bytes, len_bytes, packed: Vec::new() }
    }

    #[test]
    fn the_same_path_comes_first_then_another_version_then_the_last_part() {
        let file = tempfile::tempfile().unwrap();
        let segments = [
            segment("usr/lib/libx.so.1", 0, 10),
            segment("lib/modules/6.1.0-41/kernel/x.ko", 10, 10),
            segment("usr/bin/tool", 20, 10),
        ];
        let bases = Bases::new(&file, &segments, "base");
        let found = |name: &str| bases.segment_for(&segment(name, 0, 1)).map(|segment| segment.offset_bytes);
        assert_eq!(found("usr/lib/libx.so.1"), Some(0));
        assert_eq!(found("usr/lib/libx.so.2"), Some(0));
        assert_eq!(found("lib/modules/6.1.0-142/kernel/x.ko"), Some(10));
        assert_eq!(found("opt/tool"), Some(20));
        assert_eq!(found("opt/other"), None);
        assert_eq!(found(""), None);
    }

    #[test]
    fn what_has_no_name_is_compared_with_all_that_has_none() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"aaaaBBBBccccDDDD").unwrap();
        let segments = [segment("", 0, 4), segment("x", 4, 4), segment("", 8, 4), segment("y", 12, 4)];
        let bases = Bases::new(&file, &segments, "base");
        let text = bases.text(bases.key_for(&segment("", 100, 4), 100)).unwrap();
        assert_eq!(text.old.bytes(), b"aaaacccc");
        assert_eq!(text.places(2, 4), [(2, 2), (8, 2)]);
        assert_eq!(text.places(4, 4), [(8, 4)]);
    }
}
