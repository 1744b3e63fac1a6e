//! Making chunks with a patch: what it needs of the base is read here, the rest is computed elsewhere.
//!
//! Memory, besides the patch: a plain one holds its target and its streams; one of LZ4 holds a packed and an unpacked block, then target and
//! streams, then target and what it packs to. Base blocks are unpacked one after the other, and only what is used of them is kept.

use std::io;

use bank_format::{
    delta::patch::{self, BaseBlock, Header, Kind, Pieces, Stream, Streams},
    index::Encoding,
    limits::MAX_IMAGE_BYTES,
};

use super::base::take_pieces;
use crate::{
    bank::fill,
    codec::{Decoder, pack_lz4, unpack_lz4},
    limits::MAX_PATCH_HELD_BYTES,
    ports::ImageFile,
};

/// A patch that was read, and is not believed: nobody signed its bytes.
pub struct Parsed {
    stored: Vec<u8>,
    header: Header,
    streams: Streams,
    ops: Vec<u8>,
    /// Bytes of the chunks that it makes.
    chunks_bytes: usize,
}

/// A patch with all that it needs.
pub struct Prepared {
    parsed: Parsed,
    base: Base,
}

enum Base {
    /// The target, its bytes out of the base in place.
    Target(Vec<u8>),
    /// The packed blocks.
    Packed(Vec<(BaseBlock, Vec<u8>)>),
}

impl Parsed {
    /// Reads the patch. Whatever is wrong with it, the chunks can be fetched.
    pub fn new(stored: Vec<u8>, chunks_bytes: usize, decoder: &mut Decoder) -> io::Result<Self> {
        let (header, streams) = Header::decode(&stored).map_err(wrong)?;
        if header.kind == Kind::Plain && header.target_bytes() as usize != chunks_bytes {
            return Err(wrong("it makes other chunks"));
        }
        let ops = stream(&stored, streams.ops.clone(), header.ops, decoder)?;
        let parsed = Self { stored, header, streams, ops, chunks_bytes };
        if parsed.held_bytes() > MAX_PATCH_HELD_BYTES {
            return Err(wrong("it needs too much memory"));
        }
        Ok(parsed)
    }

    /// The most bytes that making it holds at once.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        let target = self.header.target_bytes() as usize;
        let stored = self.stored.len() + self.ops.len();
        match &self.header.kind {
            Kind::Plain => stored + 2 * target,
            Kind::Lz4 { base_blocks, .. } => {
                let unpacked =
                    base_blocks.iter().map(|block| block.decoded_bytes as usize).max().unwrap_or(0);
                let packed: usize = base_blocks.iter().map(|block| block.stored_bytes as usize).sum();
                stored + target + (packed + unpacked).max(target).max(self.chunks_bytes)
            }
        }
    }

    /// Reads what it needs of the base.
    pub fn with_base(self, active: &mut dyn ImageFile) -> io::Result<Prepared> {
        let base = match &self.header.kind {
            Kind::Plain => {
                let mut target = vec![0; self.chunks_bytes];
                take_pieces(active, pieces(&self.header, &self.ops, MAX_IMAGE_BYTES)?, &mut target)?;
                Base::Target(target)
            }
            Kind::Lz4 { base_blocks, .. } => {
                let mut blocks = Vec::with_capacity(base_blocks.len());
                for block in base_blocks {
                    let mut packed = vec![0; block.stored_bytes as usize];
                    if fill(active, block.offset, &mut packed)? < packed.len() {
                        return Err(wrong("the base ends early"));
                    }
                    blocks.push((*block, packed));
                }
                Base::Packed(blocks)
            }
        };
        Ok(Prepared { parsed: self, base })
    }
}

impl Prepared {
    /// The bytes of the chunks, one behind the other.
    pub fn make(self, decoder: &mut Decoder) -> io::Result<Vec<u8>> {
        let Self { parsed: Parsed { stored, header, streams, ops, chunks_bytes }, base } = self;
        let (mut target, base_bytes) = match base {
            Base::Target(target) => (target, MAX_IMAGE_BYTES),
            Base::Packed(blocks) => {
                let base_bytes = blocks.iter().map(|(block, _)| u64::from(block.decoded_bytes)).sum();
                let mut target = vec![0; header.target_bytes() as usize];
                let mut start = 0;
                for (block, packed) in blocks {
                    let mut unpacked = vec![0; block.decoded_bytes as usize];
                    unpack_lz4(&packed, &mut unpacked)?;
                    drop(packed);
                    for piece in pieces(&header, &ops, base_bytes)? {
                        let piece = piece.map_err(wrong)?;
                        let into = target.get_mut(piece.target..).and_then(|rest| rest.get_mut(..piece.add));
                        take_from(&unpacked, start, piece.from, into.unwrap_or_default());
                    }
                    start += u64::from(block.decoded_bytes);
                }
                (target, base_bytes)
            }
        };
        let diff = stream(&stored, streams.diff.clone(), header.diff, decoder)?;
        let extra = stream(&stored, streams.extra.clone(), header.extra, decoder)?;
        drop(stored);
        patch::finish(pieces(&header, &ops, base_bytes)?, &diff, &extra, &mut target).map_err(wrong)?;
        match header.kind {
            Kind::Plain => Ok(target),
            Kind::Lz4 { level, .. } => {
                drop((diff, extra));
                pack_lz4(&target, level, chunks_bytes)
            }
        }
    }
}

fn pieces<'o>(header: &Header, ops: &'o [u8], base_bytes: u64) -> io::Result<Pieces<'o>> {
    Pieces::new(ops, base_bytes, header.diff.bytes.into(), header.extra.bytes.into()).map_err(wrong)
}

/// What of a piece of the base lies in a part of it that begins at `start`.
fn take_from(part: &[u8], start: u64, from: u64, into: &mut [u8]) {
    let end = start + part.len() as u64;
    let (first, last) = (from.max(start), (from + into.len() as u64).min(end));
    if first < last {
        let source = part.get((first - start) as usize..(last - start) as usize);
        let target = into.get_mut((first - from) as usize..(last - from) as usize);
        if let (Some(source), Some(target)) = (source, target) {
            target.copy_from_slice(source);
        }
    }
}

fn stream(
    stored: &[u8],
    place: std::ops::Range<usize>,
    stream: Stream,
    decoder: &mut Decoder,
) -> io::Result<Vec<u8>> {
    let stored = stored.get(place).unwrap_or_default();
    match stream.encoding() {
        Encoding::Stored => Ok(stored.to_vec()),
        Encoding::Zstd => {
            let mut bytes = vec![0; stream.bytes as usize];
            decoder.exactly(stored, &mut bytes)?;
            Ok(bytes)
        }
    }
}

pub(super) fn wrong(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, source)
}
