//! From stored bytes to content: frames cut out of a run of bytes, and decompressed into exactly their size.

use std::io;

use bank_format::index::{Encoding, Frame};
use zstd::{bulk::Decompressor, zstd_safe};

use crate::error::{Error, Result};

/// Decompresses frames, each independent. Its buffers are as large as the largest frame so far, and no larger.
pub struct FrameDecoder {
    zstd: Decompressor<'static>,
    content: Vec<u8>,
}

impl FrameDecoder {
    /// A decoder.
    pub fn new() -> Result<Self> {
        let zstd =
            Decompressor::new().map_err(|_| Error::Bug { detail: "the decompressor cannot be set up" })?;
        Ok(Self { zstd, content: Vec::new() })
    }

    /// The content of a frame: exactly `raw_bytes` bytes. The decoder writes into that buffer and nowhere else, so a
    /// bomb has no room to go off; a second frame or other bytes behind the first are refused.
    pub fn decode<'a>(
        &'a mut self,
        image: &str,
        number: usize,
        frame: &Frame,
        stored: &'a [u8],
    ) -> Result<&'a [u8]> {
        let failed = |what: &str| Error::Frame {
            image: image.into(),
            frame: number,
            source: io::Error::new(io::ErrorKind::InvalidData, what),
        };
        match frame.encoding() {
            Encoding::Stored => Ok(stored),
            Encoding::Zstd => {
                let first = zstd_safe::find_frame_compressed_size(stored)
                    .map_err(|_| failed("it is no zstd frame"))?;
                if first != stored.len() {
                    return Err(failed("bytes behind the end of the frame"));
                }
                self.content.resize(frame.raw_bytes as usize, 0);
                let raw = self
                    .zstd
                    .decompress_to_buffer(stored, &mut self.content[..])
                    .map_err(|source| Error::Frame { image: image.into(), frame: number, source })?;
                if raw != self.content.len() {
                    return Err(failed("its content is shorter than signed"));
                }
                Ok(&self.content)
            }
        }
    }
}

/// Cuts consecutive frames out of bytes that come in any slicing.
pub struct FrameCutter {
    /// Number and stored bytes of each frame of the run, the next one last.
    left: Vec<(usize, usize)>,
    pending: Vec<u8>,
}

impl FrameCutter {
    /// For these frames: number and stored bytes, in the order of the bundle.
    #[must_use]
    pub fn new(mut frames: Vec<(usize, usize)>) -> Self {
        frames.reverse();
        Self { left: frames, pending: Vec::new() }
    }

    /// Takes bytes, and hands out each frame once it is whole.
    pub fn feed(&mut self, mut bytes: &[u8], take: &mut dyn FnMut(usize, &[u8]) -> Result<()>) -> Result<()> {
        while let Some((number, stored_bytes)) = self.left.last().copied() {
            let missing = stored_bytes.saturating_sub(self.pending.len());
            let (mine, rest) = bytes.split_at(missing.min(bytes.len()));
            if mine.len() < missing {
                self.pending.extend_from_slice(mine);
                return Ok(());
            }
            if self.pending.is_empty() {
                take(number, mine)?;
            } else {
                self.pending.extend_from_slice(mine);
                take(number, &self.pending)?;
                self.pending.clear();
            }
            bytes = rest;
            self.left.pop();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame(stored: &[u8], raw_bytes: u32) -> Frame {
        Frame { offset: 0, stored_bytes: stored.len() as u32, raw_bytes }
    }

    #[test]
    fn bombs_trailing_bytes_and_short_content_are_refused() {
        let content = vec![7; 100_000];
        let stored = zstd::bulk::compress(&content, 3).unwrap();
        let mut decoder = FrameDecoder::new().unwrap();
        assert_eq!(decoder.decode("root", 0, &frame(&stored, 100_000), &stored).unwrap(), content);
        for raw in [99_999, 100_001, 5000] {
            assert!(decoder.decode("root", 0, &frame(&stored, raw), &stored).is_err(), "{raw}");
        }
        let half = zstd::bulk::compress(&content[..50_000], 3).unwrap();
        for behind in [&half[..], b"x", b"\x50\x2a\x4d\x18\x00\x00\x00\x00"] {
            let glued = [&half[..], behind].concat();
            assert!(decoder.decode("root", 0, &frame(&glued, 100_000), &glued).is_err());
            assert!(decoder.decode("root", 0, &frame(&glued, 50_000), &glued).is_err());
        }
        assert!(decoder.decode("root", 0, &frame(b"nonsense", 100), b"nonsense").is_err());
    }

    proptest! {
        #[test]
        fn frames_do_not_depend_on_how_bytes_are_cut(
            sizes in proptest::collection::vec(1usize..50, 0..8),
            slices in proptest::collection::vec(1usize..40, 1..10),
        ) {
            let total: usize = sizes.iter().sum();
            let bytes: Vec<u8> = (0..total).map(|n| n as u8).collect();
            let mut cutter = FrameCutter::new(sizes.iter().copied().enumerate().collect());
            let mut found = Vec::new();
            let mut rest = &bytes[..];
            for slice in slices.iter().cycle() {
                if rest.is_empty() { break }
                let (part, behind) = rest.split_at((*slice).min(rest.len()));
                cutter.feed(part, &mut |number, stored| { found.push((number, stored.to_vec())); Ok(()) }).unwrap();
                rest = behind;
            }
            let mut at = 0;
            for (number, size) in sizes.iter().enumerate() {
                prop_assert_eq!(&found[number], &(number, bytes[at..at + size].to_vec()));
                at += size;
            }
        }
    }
}
