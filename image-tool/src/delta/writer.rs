//! Puts a patch together: operations, differences and new bytes, each packed by itself, as they have little in common.

use bank_format::{
    delta::patch::{Header, Kind, Op, Stream, encode_ops},
    limits::{MAX_PATCH_OPS_BYTES, MAX_PATCH_STORED_BYTES},
};

use super::bases::Text;
use crate::{
    codec,
    error::{Error, Result},
    limits::PATCH_LEVEL,
};

/// What a patch says.
#[derive(Default)]
pub(super) struct Streams {
    ops: Vec<Op>,
    diff: Vec<u8>,
    extra: Vec<u8>,
    /// Where in the base the last operation ended.
    place: u64,
}

impl Streams {
    /// Adds these bytes, made of that text.
    pub(super) fn put(&mut self, text: &Text, new: &[u8]) {
        let mut at = 0;
        for step in text.old.steps(new) {
            let mut from = step.from;
            for (offset, bytes) in text.places(step.from, step.add_bytes) {
                let old = text.old.bytes().get(from..from + bytes).unwrap_or_default();
                let made = new.get(at..at + bytes).unwrap_or_default();
                self.diff.extend(made.iter().zip(old).map(|(new, old)| new.wrapping_sub(*old)));
                // Places of an image fit into 2^40.
                let seek = offset.cast_signed() - self.place.cast_signed();
                self.ops.push(Op { seek, add: bytes as u32, extra: 0 });
                self.place = offset + bytes as u64;
                from += bytes;
                at += bytes;
            }
            self.extra.extend(new.get(at..at + step.extra_bytes).unwrap_or_default());
            at += step.extra_bytes;
            match self.ops.last_mut() {
                Some(last) => last.extra += step.extra_bytes as u32,
                None => self.ops.push(Op { seek: 0, add: 0, extra: step.extra_bytes as u32 }),
            }
        }
    }

    /// The bytes of the patch; nothing where they are more than a device reads.
    pub(super) fn encode(self, kind: Kind) -> Result<Option<Vec<u8>>> {
        let operations = encode_ops(&self.ops);
        if operations.len() > MAX_PATCH_OPS_BYTES as usize {
            return Ok(None);
        }
        let (ops, ops_packed) = pack(operations)?;
        let (diff, diff_packed) = pack(self.diff)?;
        let (extra, extra_packed) = pack(self.extra)?;
        let header = Header { kind, ops, diff, extra };
        let mut patch = header.encode().map_err(Error::format("write a patch"))?;
        for packed in [ops_packed, diff_packed, extra_packed] {
            patch.extend(packed);
        }
        Ok(Some(patch).filter(|patch| patch.len() <= MAX_PATCH_STORED_BYTES as usize))
    }
}

fn pack(content: Vec<u8>) -> Result<(Stream, Vec<u8>)> {
    let too_long = |_| Error::Bug { what: "a stream of a patch is too long" };
    let bytes = u32::try_from(content.len()).map_err(too_long)?;
    let packed = if content.is_empty() {
        content
    } else {
        codec::compress(content, PATCH_LEVEL).map_err(|source| Error::Frame {
            deed: "compress",
            frame: 0,
            source,
        })?
    };
    Ok((Stream { stored_bytes: u32::try_from(packed.len()).map_err(too_long)?, bytes }, packed))
}
