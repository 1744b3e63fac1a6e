//! Where an image is cut into chunks.
//!
//! Chunks follow what lies in the image: a large file begins and ends a chunk, small ones share chunks with their neighbours, each block of a
//! packed kernel is made of whole chunks. Within a file, and where nothing is known of the content, the content itself decides (a rolling hash), so
//! that an insertion moves cuts along. The same image gives the same cuts; which ones is nobody else's business.

use std::{fs::File, os::unix::fs::FileExt as _};

use bank_format::limits::MAX_CHUNK_BYTES;

use crate::{
    error::{Error, Result},
    limits::SCAN_BYTES,
    segments::Segment,
};

/// Chunks that the content cuts.
const LEAST_BYTES: u64 = 16 << 10;
const MOST_BYTES: u64 = 128 << 10;
/// On average a cut in so many bytes behind the least.
const MASK: u64 = ((32 << 10) - 1) << 20;
const BLOCK_BYTES: usize = 4096;
/// A file of this size has chunks of its own.
const OWN_BYTES: u64 = 32 << 10;
/// Small files are cut at one in so many names, so that cuts are found again behind one that came or went.
const NAMES: u32 = 4;

/// Lengths of the chunks of an image, which add up to it.
pub fn lengths(file: &File, image_bytes: u64, segments: &[Segment], subject: &str) -> Result<Vec<u32>> {
    let mut cuts = Cuts { last: 0, lengths: Vec::new() };
    for run in runs(segments) {
        cuts.at(run.start);
        match run.inside {
            Inside::Content => by_content(file, run.start, run.end, &mut cuts, subject)?,
            Inside::Whole => cuts.whole(run.end),
        }
        cuts.at(run.end);
    }
    cuts.at(image_bytes);
    Ok(cuts.lengths)
}

struct Cuts {
    last: u64,
    lengths: Vec<u32>,
}

impl Cuts {
    /// As few chunks as can be, up to here.
    fn whole(&mut self, end: u64) {
        while end - self.last > u64::from(MAX_CHUNK_BYTES) {
            self.at(self.last + u64::from(MAX_CHUNK_BYTES));
        }
        self.at(end);
    }

    fn at(&mut self, offset: u64) {
        // A run is never longer than the most, so it fits.
        if let Some(bytes) = offset
            .checked_sub(self.last)
            .and_then(|bytes| u32::try_from(bytes).ok())
            .filter(|bytes| *bytes > 0)
        {
            self.lengths.push(bytes);
            self.last = offset;
        }
    }
}

/// A stretch that begins and ends a chunk.
struct Run {
    start: u64,
    end: u64,
    inside: Inside,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Inside {
    /// Cut by its content.
    Content,
    /// In as few chunks as can be: it changes as a whole.
    Whole,
}

fn runs(segments: &[Segment]) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    // Where the small files that share chunks began.
    let mut shared: Option<u64> = None;
    let close = |shared: &mut Option<u64>, end: u64, runs: &mut Vec<Run>| {
        if let Some(start) = shared.take().filter(|start| *start < end) {
            runs.push(Run { start, end, inside: Inside::Content });
        }
    };
    for segment in segments {
        let small = segment.len_bytes < OWN_BYTES && !segment.name.is_empty() && segment.packed.is_empty();
        if small {
            if crc32c::crc32c(segment.name.as_bytes()).is_multiple_of(NAMES) {
                close(&mut shared, segment.offset_bytes, &mut runs);
            }
            shared.get_or_insert(segment.offset_bytes);
            continue;
        }
        close(&mut shared, segment.offset_bytes, &mut runs);
        let mut start = segment.offset_bytes;
        for block in &segment.packed {
            runs.push(Run { start, end: block.offset_bytes, inside: Inside::Content });
            runs.push(Run { start: block.offset_bytes, end: block.end_bytes(), inside: Inside::Whole });
            start = block.end_bytes();
        }
        runs.push(Run { start, end: segment.end_bytes().max(start), inside: Inside::Content });
    }
    if let Some(last) = segments.last() {
        close(&mut shared, last.end_bytes(), &mut runs);
    }
    runs
}

/// Cuts where the hash of the last 64 bytes has zeros in the place of the mask, and around long runs of zeros.
fn by_content(file: &File, start: u64, end: u64, cuts: &mut Cuts, subject: &str) -> Result<()> {
    let mut buffer = vec![0; SCAN_BYTES.min(usize::try_from(end - start).unwrap_or(SCAN_BYTES))];
    let mut rolling = Rolling { at: start, hash: 0 };
    let mut read_bytes = 0;
    // Zero blocks that were read, and not looked at yet.
    let mut zeros_bytes = 0;
    while start + read_bytes < end {
        let wanted = usize::try_from(end - start - read_bytes).unwrap_or(SCAN_BYTES).min(buffer.len());
        let part = buffer.get_mut(..wanted).unwrap_or_default();
        file.read_exact_at(part, start + read_bytes).map_err(Error::file("read", subject))?;
        read_bytes += wanted as u64;
        for block in part.chunks(BLOCK_BYTES) {
            if block.iter().all(|byte| *byte == 0) {
                zeros_bytes += block.len() as u64;
            } else {
                rolling.pass_zeros(std::mem::take(&mut zeros_bytes), cuts);
                rolling.pass(block.iter().copied(), cuts);
            }
        }
    }
    rolling.pass_zeros(zeros_bytes, cuts);
    Ok(())
}

struct Rolling {
    at: u64,
    hash: u64,
}

impl Rolling {
    fn pass(&mut self, bytes: impl Iterator<Item = u8>, cuts: &mut Cuts) {
        for byte in bytes {
            self.hash = (self.hash << 1).wrapping_add(gear(byte));
            self.at += 1;
            let bytes = self.at - cuts.last;
            if (bytes >= LEAST_BYTES && self.hash & MASK == 0) || bytes >= MOST_BYTES {
                cuts.at(self.at);
            }
        }
    }

    /// A long run has chunks of its own: they are carried by no frame.
    fn pass_zeros(&mut self, bytes: u64, cuts: &mut Cuts) {
        if bytes < LEAST_BYTES {
            self.pass((0..bytes).map(|_| 0), cuts);
            return;
        }
        cuts.at(self.at);
        self.at += bytes;
        cuts.whole(self.at);
    }
}

/// A number without a pattern for each byte (the finisher of SplitMix64).
const fn mix(byte: u64) -> u64 {
    let mut x = (byte + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

const GEAR: [u64; 256] = {
    let mut gear = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        gear[byte] = mix(byte as u64);
        byte += 1;
    }
    gear
};

fn gear(byte: u8) -> u64 {
    GEAR[usize::from(byte)]
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use crate::{delta::lz4, segments};

    fn noise(bytes: usize, seed: u64) -> Vec<u8> {
        (0..bytes.div_ceil(8) as u64).flat_map(|at| mix(seed << 32 | at).to_le_bytes()).take(bytes).collect()
    }

    fn segment(name: &str, offset_bytes: u64, len_bytes: u64) -> Segment {
        Segment { name: name.into(), offset_bytes, len_bytes, packed: Vec::new() }
    }

    fn cut(bytes: &[u8], segments: &[Segment]) -> Vec<u64> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        let lengths = lengths(&file, bytes.len() as u64, segments, "image").unwrap();
        assert!(lengths.iter().all(|bytes| (1..=MAX_CHUNK_BYTES).contains(bytes)));
        let ends: Vec<u64> = lengths
            .iter()
            .scan(0, |at, bytes| {
                *at += u64::from(*bytes);
                Some(*at)
            })
            .collect();
        assert_eq!(ends.last().copied().unwrap_or_default(), bytes.len() as u64);
        ends
    }

    #[test]
    fn an_insertion_moves_the_cuts_along() {
        let old = noise(2 << 20, 1);
        let mut new = old.clone();
        new.splice(300_000..300_000, [1, 2, 3]);
        let whole = |bytes: &[u8]| vec![segment("", 0, bytes.len() as u64)];
        let (before, after) = (cut(&old, &whole(&old)), cut(&new, &whole(&new)));
        let moved: Vec<u64> = before.iter().map(|at| if *at > 300_000 { at + 3 } else { *at }).collect();
        let lost = moved.iter().filter(|at| !after.contains(at)).count();
        assert!(lost <= 2 && before.len() > 30, "{lost} of {}", before.len());
        assert!(before.windows(2).all(|pair| pair[1] - pair[0] <= MOST_BYTES));
    }

    #[test]
    fn large_files_begin_and_end_chunks_and_small_ones_share_them() {
        let bytes = noise(600_000, 2);
        let mut segments = vec![segment("large", 0, 200_000)];
        segments.extend((0..50).map(|n| segment(&format!("small {n}"), 200_000 + n * 4000, 4000)));
        segments.push(segment("last", 400_000, 200_000));
        let ends = cut(&bytes, &segments);
        assert!([200_000, 400_000].iter().all(|border| ends.contains(border)));
        let small = ends.iter().filter(|end| (200_001..=400_000).contains(*end)).count();
        assert!((4..40).contains(&small), "{small} chunks of 50 small files");
    }

    #[test]
    fn a_long_run_of_zeros_has_chunks_of_its_own() {
        let mut bytes = noise(100_000, 3);
        bytes.resize(3 << 20, 0);
        bytes.extend(noise(50_000, 4));
        let ends = cut(&bytes, &[segment("", 0, bytes.len() as u64)]);
        // From the first block that is all zeros.
        let start = 100_000u64.next_multiple_of(4096);
        assert!([start, start + (1 << 20), 3 << 20].iter().all(|border| ends.contains(border)), "{ends:?}");
        assert_eq!(ends.iter().filter(|end| (start + 1..3 << 20).contains(*end)).count(), 2);
    }

    #[test]
    fn blocks_of_a_packed_kernel_are_whole_chunks() {
        let content = [noise(1 << 20, 5), vec![0; 9 << 20]].concat();
        let mut bytes = vec![7; 5000];
        let start = bytes.len() as u64;
        bytes.extend(lz4::MAGIC);
        for part in content.chunks(lz4::BLOCK_BYTES) {
            let packed = lz4::pack(part, 9).unwrap();
            bytes.extend((packed.len() as u32).to_le_bytes());
            bytes.extend(packed);
        }
        bytes.extend([9; 3000]);
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&bytes).unwrap();
        let segments = segments::of(&file, bytes.len() as u64, "image").unwrap();
        let blocks = &segments[0].packed;
        let unpacked: Vec<u32> = blocks.iter().map(|block| block.unpacked_bytes).collect();
        assert_eq!(unpacked, [8 << 20, 2 << 20]);
        assert_eq!(blocks[0].offset_bytes, start + 4);
        assert_eq!(blocks[0].level(&file).unwrap(), Some(9));
        let ends = cut(&bytes, &segments);
        assert!(
            blocks
                .iter()
                .all(|block| ends.contains(&block.offset_bytes) && ends.contains(&block.end_bytes()))
        );
    }
}
