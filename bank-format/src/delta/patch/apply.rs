//! Puts the target of a patch together, operation by operation.

use crate::{
    error::{Error, Result},
    header::Reader,
    limits::{MAX_PATCH_OPS_BYTES, MAX_PATCH_TARGET_BYTES},
    varint,
};

const STRUCTURE: &str = "operations of a patch";

/// Where bytes of the base come from.
pub trait BaseReader {
    /// What can go wrong there.
    type Error;
    /// Bytes of the base; nothing is read beyond them.
    fn bytes(&self) -> u64;
    /// Fills `into` from `offset`.
    fn read_at(&mut self, offset: u64, into: &mut [u8]) -> Result<(), Self::Error>;
}

/// A base in memory.
impl BaseReader for &[u8] {
    type Error = Error;

    fn bytes(&self) -> u64 {
        self.len() as u64
    }

    fn read_at(&mut self, offset: u64, into: &mut [u8]) -> Result<()> {
        let from = usize::try_from(offset).ok().and_then(|start| self.get(start..)?.get(..into.len()));
        into.copy_from_slice(from.ok_or_else(|| Error::malformed(STRUCTURE, "they read beyond the base"))?);
        Ok(())
    }
}

/// Why a patch makes nothing.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError<E> {
    /// The base cannot be read.
    #[error("cannot read the base of a patch")]
    Base {
        /// The reader's words.
        source: E,
    },
    /// The patch is wrong.
    #[error(transparent)]
    Patch(Error),
}

/// One operation: the place in the base, which is where the operation before left it (at first 0), moves by `seek`; then `add` bytes of
/// the base from there, each with a byte of the differences added, which leaves the place behind them; then `extra` bytes as they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Op {
    /// How far the place in the base moves, in bytes.
    pub seek: i64,
    /// Bytes out of the base.
    pub add: u32,
    /// Bytes out of the patch.
    pub extra: u32,
}

impl Op {
    fn read(reader: &mut Reader<'_>) -> Result<Self> {
        let seek = reader.signed_varint()?;
        let add = reader.at_most(STRUCTURE, MAX_PATCH_TARGET_BYTES)?;
        let extra = reader.at_most(STRUCTURE, MAX_PATCH_TARGET_BYTES)?;
        if add == 0 && extra == 0 {
            return Err(Error::malformed(STRUCTURE, "one of them makes nothing"));
        }
        Ok(Self { seek, add, extra })
    }
}

/// The bytes of operations.
#[must_use]
pub fn encode_ops(ops: &[Op]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for op in ops {
        varint::put_signed(&mut bytes, op.seek);
        varint::put(&mut bytes, op.add.into());
        varint::put(&mut bytes, op.extra.into());
    }
    bytes
}

/// Makes the target: `out` is emptied, and then holds exactly as many bytes as `diff` and `extra` together. All three streams must be
/// used up, and no place may lie beyond the base. After an error, what `out` holds means nothing.
pub fn apply<E>(
    ops: &[u8],
    diff: &[u8],
    extra: &[u8],
    base: &mut dyn BaseReader<Error = E>,
    out: &mut Vec<u8>,
) -> Result<(), ApplyError<E>> {
    out.clear();
    let target_bytes = diff.len() as u64 + extra.len() as u64;
    varint::bounded("what a patch makes", target_bytes, MAX_PATCH_TARGET_BYTES).map_err(ApplyError::Patch)?;
    varint::bounded(STRUCTURE, ops.len() as u64, MAX_PATCH_OPS_BYTES).map_err(ApplyError::Patch)?;
    out.reserve_exact(diff.len() + extra.len());
    let refused = |detail: &str| ApplyError::Patch(Error::malformed(STRUCTURE, detail));
    let (mut diff, mut extra) = (diff, extra);
    let mut reader = Reader::new(STRUCTURE, ops);
    let base_bytes = base.bytes();
    let mut place = 0u64;
    while !reader.rest().is_empty() {
        let op = Op::read(&mut reader).map_err(ApplyError::Patch)?;
        let too_long = || refused("they use more bytes than there are");
        let (differences, rest) = diff.split_at_checked(op.add as usize).ok_or_else(too_long)?;
        diff = rest;
        let (other, rest) = extra.split_at_checked(op.extra as usize).ok_or_else(too_long)?;
        extra = rest;
        let beyond = || refused("they reach beyond the base");
        let from = place.checked_add_signed(op.seek).ok_or_else(beyond)?;
        place = from.checked_add(op.add.into()).filter(|end| *end <= base_bytes).ok_or_else(beyond)?;
        let start = out.len();
        out.resize(start + differences.len(), 0);
        let added = out.get_mut(start..).unwrap_or_default();
        if !added.is_empty() {
            base.read_at(from, added).map_err(|source| ApplyError::Base { source })?;
        }
        for (byte, difference) in added.iter_mut().zip(differences) {
            *byte = byte.wrapping_add(*difference);
        }
        out.extend_from_slice(other);
    }
    if diff.is_empty() && extra.is_empty() { Ok(()) } else { Err(refused("they leave bytes over")) }
}
