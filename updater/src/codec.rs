//! Unpacking and packing within bounds: zstd frames into exactly their size, LZ4 blocks both ways.

use std::io;

use bank_format::index::{Encoding, Frame};
use lz4::block::{self, CompressionMode};
use zstd::{bulk::Decompressor, zstd_safe};

use crate::error::{Error, Result};

/// What a thread needs to unpack; made when it is needed.
#[derive(Default)]
pub struct Decoder {
    zstd: Option<Decompressor<'static>>,
}

impl Decoder {
    /// The content of a frame: exactly `raw_bytes` bytes. `spare` is room that is not needed elsewhere.
    pub fn frame(
        &mut self,
        (image, number): (&str, usize),
        frame: &Frame,
        stored: Vec<u8>,
        spare: Vec<u8>,
    ) -> Result<Vec<u8>> {
        match frame.encoding() {
            Encoding::Stored => Ok(stored),
            Encoding::Zstd => {
                let mut content = spare;
                content.resize(frame.raw_bytes as usize, 0);
                self.exactly(&stored, &mut content).map_err(|source| Error::Frame {
                    image: image.into(),
                    frame: number,
                    source,
                })?;
                Ok(content)
            }
        }
    }

    /// Unpacks one zstd frame that fills `into` to its last byte. The decoder writes into that buffer and nowhere else, so a
    /// bomb has no room to go off; a second frame or other bytes behind the first are refused.
    pub fn exactly(&mut self, stored: &[u8], into: &mut [u8]) -> io::Result<()> {
        let first =
            zstd_safe::find_frame_compressed_size(stored).map_err(|_| failed("it is no zstd frame"))?;
        if first != stored.len() {
            return Err(failed("bytes behind the end of the frame"));
        }
        let zstd = match &mut self.zstd {
            Some(zstd) => zstd,
            none => none.insert(Decompressor::new()?),
        };
        if zstd.decompress_to_buffer(stored, into)? == into.len() {
            Ok(())
        } else {
            Err(failed("its content is shorter than signed"))
        }
    }

    /// Unpacks one zstd frame that says how long its content is, up to a limit.
    pub fn at_most(&mut self, stored: &[u8], limit_bytes: u64) -> io::Result<Vec<u8>> {
        match zstd_safe::get_frame_content_size(stored) {
            Ok(Some(bytes)) if bytes <= limit_bytes => {
                let mut content = vec![0; bytes as usize];
                self.exactly(stored, &mut content)?;
                Ok(content)
            }
            Ok(Some(_)) => Err(failed("its content is too long")),
            Ok(None) | Err(_) => Err(failed("it does not say how long its content is")),
        }
    }
}

/// Unpacks an LZ4 block that fills `into` to its last byte.
pub fn unpack_lz4(packed: &[u8], into: &mut [u8]) -> io::Result<()> {
    let bytes = i32::try_from(into.len()).map_err(|_| failed("it is too long"))?;
    if block::decompress_to_buffer(packed, Some(bytes), into)? == into.len() {
        Ok(())
    } else {
        Err(failed("its content is shorter than signed"))
    }
}

/// Packs an LZ4 block at a level of LZ4 HC, behind its length as in the legacy frame; `bytes` in all, or it is another block than was meant.
pub fn pack_lz4(content: &[u8], level: u32, bytes: usize) -> io::Result<Vec<u8>> {
    const PREFIX_BYTES: usize = 4;
    let level = i32::try_from(level).map_err(|_| failed("there is no such level"))?;
    let mut packed = vec![0; bytes];
    let (prefix, into) =
        packed.split_at_mut_checked(PREFIX_BYTES).ok_or_else(|| failed("it is shorter than its length"))?;
    let found =
        block::compress_to_buffer(content, Some(CompressionMode::HIGHCOMPRESSION(level)), false, into)?;
    if found != into.len() {
        return Err(failed("it packs to another length"));
    }
    let found = u32::try_from(found).map_err(|_| failed("it is too long"))?;
    prefix.copy_from_slice(&found.to_le_bytes());
    Ok(packed)
}

fn failed(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bombs_trailing_bytes_and_short_content_are_refused() {
        let content = vec![7; 100_000];
        let stored = zstd::bulk::compress(&content, 3).unwrap();
        let mut decoder = Decoder::default();
        let mut decode = |stored: &[u8], bytes: usize| {
            let mut into = vec![0; bytes];
            decoder.exactly(stored, &mut into).map(|()| into)
        };
        assert_eq!(decode(&stored, 100_000).unwrap(), content);
        for raw in [99_999, 100_001, 5000] {
            assert!(decode(&stored, raw).is_err(), "{raw}");
        }
        let half = zstd::bulk::compress(&content[..50_000], 3).unwrap();
        for behind in [&half[..], b"x", b"\x50\x2a\x4d\x18\x00\x00\x00\x00"] {
            let glued = [&half[..], behind].concat();
            assert!(decode(&glued, 100_000).is_err());
            assert!(decode(&glued, 50_000).is_err());
        }
        assert!(decode(b"nonsense", 100).is_err());
        let mut decoder = Decoder::default();
        assert_eq!(decoder.at_most(&stored, 100_000).unwrap(), content);
        assert!(decoder.at_most(&stored, 99_999).is_err());
        assert!(decoder.at_most(b"nonsense", 99_999).is_err());
    }

    #[test]
    fn blocks_of_lz4_come_out_as_they_were_or_not_at_all() {
        let content: Vec<u8> = (0..200_000u32).flat_map(|n| (n / 7).to_le_bytes()).collect();
        let packed = block::compress(&content, Some(CompressionMode::HIGHCOMPRESSION(9)), false).unwrap();
        let made = pack_lz4(&content, 9, packed.len() + 4).unwrap();
        assert_eq!(made[4..], packed);
        assert_eq!(made[..4], (packed.len() as u32).to_le_bytes());
        for bytes in [0, 3, 4, packed.len() + 3, packed.len() + 5] {
            assert!(pack_lz4(&content, 9, bytes).is_err(), "{bytes}");
        }
        let mut into = vec![0; content.len()];
        unpack_lz4(&packed, &mut into).unwrap();
        assert_eq!(into, content);
        for bytes in [0, content.len() - 1, content.len() + 1] {
            assert!(unpack_lz4(&packed, &mut vec![0; bytes]).is_err(), "{bytes}");
        }
        assert!(unpack_lz4(b"nonsense that is no block", &mut into).is_err());
    }
}
