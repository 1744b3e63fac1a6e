//! Frames: zstd there and back again. Knows no files.
//!
//! It promises the same bytes for the same content and level, whoever compresses it and whatever came before.

use std::{
    cmp::Ordering,
    io::{self, Read},
};

use bank_format::{
    index::{Encoding, Frame},
    limits::MAX_WINDOW_LOG,
};
use zstd::{
    bulk::Compressor,
    stream::read::Decoder,
    zstd_safe::{CParameter, DParameter},
};

/// What a level may be.
pub const LEVELS: std::ops::RangeInclusive<i32> = 1..=22;

/// Compresses the content of one frame; a content that does not shrink is returned as it is.
///
/// Every frame gets a compressor of its own, so that its bytes cannot depend on an earlier one.
pub fn compress(content: Vec<u8>, level: i32) -> io::Result<Vec<u8>> {
    let mut compressor = Compressor::new(level)?;
    // The window is never longer than the content; the cap keeps the high levels from asking devices for more.
    compressor.set_parameter(CParameter::WindowLog(MAX_WINDOW_LOG))?;
    compressor.set_parameter(CParameter::ChecksumFlag(false))?;
    let packed = compressor.compress(&content)?;
    Ok(if packed.len() < content.len() { packed } else { content })
}

/// The content of a frame, exactly as long as its table says.
pub fn decode(stored: Vec<u8>, frame: &Frame) -> io::Result<Vec<u8>> {
    if frame.encoding() == Encoding::Stored {
        return Ok(stored);
    }
    let mut decoder = Decoder::with_buffer(stored.as_slice())?.single_frame();
    decoder.set_parameter(DParameter::WindowLogMax(MAX_WINDOW_LOG))?;
    let mut content = Vec::with_capacity(frame.raw_bytes as usize);
    decoder.by_ref().take(u64::from(frame.raw_bytes) + 1).read_to_end(&mut content)?;
    if content.len() != frame.raw_bytes as usize || !decoder.finish().is_empty() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "its content is not as long as its table says",
        ));
    }
    Ok(content)
}

/// The content of exactly one zstd frame, at most so many bytes.
pub fn decompress(stored: &[u8], most_bytes: u64) -> io::Result<Vec<u8>> {
    let mut decoder = Decoder::with_buffer(stored)?.single_frame();
    decoder.set_parameter(DParameter::WindowLogMax(MAX_WINDOW_LOG))?;
    let mut content = Vec::new();
    decoder.by_ref().take(most_bytes.saturating_add(1)).read_to_end(&mut content)?;
    if content.len() as u64 > most_bytes || !decoder.finish().is_empty() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is too long, or not one frame"));
    }
    Ok(content)
}

/// Whether these are the stored bytes of a frame with this content.
#[must_use]
pub fn holds(stored: &[u8], content: &[u8]) -> bool {
    match stored.len().cmp(&content.len()) {
        Ordering::Less => decompress(stored, content.len() as u64).is_ok_and(|found| found == content),
        Ordering::Equal => stored == content,
        Ordering::Greater => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(stored: &[u8], raw: usize) -> Frame {
        Frame { offset: 0, stored_bytes: stored.len() as u32, raw_bytes: raw as u32 }
    }

    #[test]
    fn round_trip_at_every_level() {
        let content: Vec<u8> = (0..200_000u32).flat_map(|n| (n / 7).to_le_bytes()).collect();
        for level in [*LEVELS.start(), 3, 19, *LEVELS.end()] {
            let packed = compress(content.clone(), level).unwrap();
            assert!(packed.len() < content.len());
            assert_eq!(decode(packed.clone(), &frame(&packed, content.len())).unwrap(), content);
        }
    }

    #[test]
    fn what_does_not_shrink_is_stored() {
        let content = vec![1, 2, 3];
        assert_eq!(compress(content.clone(), 19).unwrap(), content);
        assert!(holds(&content, &content) && !holds(&[1, 2, 4], &content) && !holds(&[1, 2, 3, 4], &content));
        let long = vec![5; 1000];
        let packed = compress(long.clone(), 19).unwrap();
        assert!(holds(&packed, &long) && !holds(&packed, &vec![5; 1001]) && !holds(&packed, &vec![6; 1000]));
        assert_eq!(decode(content.clone(), &frame(&content, 3)).unwrap(), content);
    }

    #[test]
    fn bombs_short_contents_and_trailing_bytes_are_refused() {
        let content = vec![7; 100_000];
        let packed = compress(content.clone(), 3).unwrap();
        for raw in [99_999, 100_001] {
            assert!(decode(packed.clone(), &frame(&packed, raw)).is_err(), "{raw}");
        }
        let two = [packed.clone(), packed.clone()].concat();
        for raw in [100_000, 200_000] {
            assert!(decode(two.clone(), &frame(&two, raw)).is_err(), "{raw}");
        }
        let cut = packed[..packed.len() - 1].to_vec();
        assert!(decode(cut.clone(), &frame(&cut, 100_000)).is_err());
    }
}
