//! Applies a patch, as a device does: the proof that it makes what it is for.
//!
//! Whatever is wrong with a patch is an error of kind "rejected"; only a base that cannot be read is one of the system.

use std::{fs::File, io, os::unix::fs::FileExt as _};

use bank_format::{
    delta::patch::{self, ApplyError, BaseBlock, BaseReader, Header, Kind, Stream},
    index::Encoding,
};

use super::lz4;
use crate::{
    codec,
    error::{Error, Result},
};

/// An image that patches are applied to.
#[derive(Clone, Copy)]
pub struct Base<'a> {
    /// The image.
    pub file: &'a File,
    /// Its bytes.
    pub bytes: u64,
    /// Names it in errors.
    pub subject: &'a str,
}

impl BaseReader for Base<'_> {
    type Error = io::Error;

    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn read_at(&mut self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(into, offset)
    }
}

/// The bytes of the chunks that a patch makes, one behind the other.
pub fn apply(stored: &[u8], base: Base<'_>) -> Result<Vec<u8>> {
    let (header, places) = Header::decode(stored).map_err(refused)?;
    let stream = |stream: Stream, place: std::ops::Range<usize>| {
        let bytes = stored.get(place).unwrap_or_default();
        match stream.encoding() {
            Encoding::Stored => Ok(bytes.to_vec()),
            Encoding::Zstd => codec::decompress(bytes, stream.bytes.into())
                .ok()
                .filter(|content| content.len() == stream.bytes as usize)
                .ok_or_else(|| Error::malformed("patch", "a stream is not as long as it says")),
        }
    };
    let ops = stream(header.ops, places.ops)?;
    let diff = stream(header.diff, places.diff)?;
    let extra = stream(header.extra, places.extra)?;
    let mut target = Vec::new();
    match &header.kind {
        Kind::Plain => {
            let mut base = base;
            patch::apply(&ops, &diff, &extra, &mut base, &mut target).map_err(|error| match error {
                ApplyError::Base { source } => Error::file("read", base.subject)(source),
                ApplyError::Patch(source) => refused(source),
            })?;
            Ok(target)
        }
        Kind::Lz4 { level, base_blocks, .. } => {
            let mut content = Vec::new();
            for block in base_blocks {
                content.extend(unpacked(block, base)?);
            }
            let mut bytes = content.as_slice();
            patch::apply(&ops, &diff, &extra, &mut bytes, &mut target).map_err(|error| match error {
                ApplyError::Base { source } | ApplyError::Patch(source) => refused(source),
            })?;
            let level = u8::try_from(*level).map_err(|_| Error::Bug { what: "a level is too high" })?;
            let packed = lz4::pack(&target, level).map_err(Error::file("pack a block of", base.subject))?;
            let length =
                u32::try_from(packed.len()).map_err(|_| Error::Bug { what: "a block is too long" })?;
            Ok([&length.to_le_bytes()[..], &packed].concat())
        }
    }
}

fn unpacked(block: &BaseBlock, base: Base<'_>) -> Result<Vec<u8>> {
    let wrong = || Error::malformed("patch", "the base has no such block");
    let block = lz4::Block {
        offset_bytes: block.offset.checked_sub(lz4::PREFIX_BYTES).ok_or_else(wrong)?,
        packed_bytes: block.stored_bytes,
        unpacked_bytes: block.decoded_bytes,
    };
    if block.end_bytes() > base.bytes {
        return Err(wrong());
    }
    let content = block.unpack(base.file).map_err(|_| wrong())?;
    if content.len() == block.unpacked_bytes as usize { Ok(content) } else { Err(wrong()) }
}

fn refused(source: bank_format::Error) -> Error {
    Error::Format { deed: "apply a patch", source }
}
