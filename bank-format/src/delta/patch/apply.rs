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

/// What an operation makes, and of what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// Bytes from the start of the target.
    pub target: usize,
    /// Bytes from the start of the base.
    pub from: u64,
    /// Bytes out of the base, each with the next byte of the differences added.
    pub add: usize,
    /// Bytes out of the patch, behind those.
    pub extra: usize,
}

/// The pieces of a target, in their order, each checked before it is handed out. The first error is the last item.
///
/// A target may be made in passes, each with its own walk: all bytes out of the base, then the differences, then the other bytes. So the base
/// need not be in memory with the streams.
#[derive(Debug, Clone)]
pub struct Pieces<'a> {
    reader: Reader<'a>,
    base_bytes: u64,
    place: u64,
    target: usize,
    diff_left: u64,
    extra_left: u64,
    ended: bool,
}

impl<'a> Pieces<'a> {
    /// The pieces that `ops` makes of a base of `base_bytes` bytes and of streams of so many.
    pub fn new(ops: &'a [u8], base_bytes: u64, diff_bytes: u64, extra_bytes: u64) -> Result<Self> {
        varint::bounded(
            "what a patch makes",
            diff_bytes.saturating_add(extra_bytes),
            MAX_PATCH_TARGET_BYTES,
        )?;
        varint::bounded(STRUCTURE, ops.len() as u64, MAX_PATCH_OPS_BYTES)?;
        let reader = Reader::new(STRUCTURE, ops);
        let (diff_left, extra_left) = (diff_bytes, extra_bytes);
        Ok(Self { reader, base_bytes, place: 0, target: 0, diff_left, extra_left, ended: false })
    }

    fn piece(&mut self) -> Result<Option<Piece>> {
        let refused = |detail: &str| Error::malformed(STRUCTURE, detail);
        if self.reader.rest().is_empty() {
            let all = self.diff_left == 0 && self.extra_left == 0;
            return if all { Ok(None) } else { Err(refused("they leave bytes over")) };
        }
        let op = Op::read(&mut self.reader)?;
        let too_long = || refused("they use more bytes than there are");
        self.diff_left = self.diff_left.checked_sub(op.add.into()).ok_or_else(too_long)?;
        self.extra_left = self.extra_left.checked_sub(op.extra.into()).ok_or_else(too_long)?;
        let beyond = || refused("they reach beyond the base");
        let from = self.place.checked_add_signed(op.seek).ok_or_else(beyond)?;
        self.place =
            from.checked_add(op.add.into()).filter(|end| *end <= self.base_bytes).ok_or_else(beyond)?;
        let piece = Piece { target: self.target, from, add: op.add as usize, extra: op.extra as usize };
        // At most as much as the streams are long.
        self.target += piece.add + piece.extra;
        Ok(Some(piece))
    }
}

impl Iterator for Pieces<'_> {
    type Item = Result<Piece>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let piece = self.piece().transpose();
        self.ended = !matches!(piece, Some(Ok(_)));
        piece
    }
}

/// The second pass over a target that holds the bytes out of the base: adds the differences, puts the other bytes where they belong.
pub fn finish(pieces: Pieces<'_>, diff: &[u8], extra: &[u8], target: &mut [u8]) -> Result<()> {
    let (mut diff, mut extra) = (diff, extra);
    let short = || Error::malformed(STRUCTURE, "they use more bytes than there are");
    for piece in pieces {
        let Piece { target: at, add, extra: others, .. } = piece?;
        let made = target.get_mut(at..).and_then(|rest| rest.get_mut(..add + others)).ok_or_else(short)?;
        let (added, behind) = made.split_at_mut(add);
        let (differences, rest) = diff.split_at_checked(add).ok_or_else(short)?;
        diff = rest;
        for (byte, difference) in added.iter_mut().zip(differences) {
            *byte = byte.wrapping_add(*difference);
        }
        let (other, rest) = extra.split_at_checked(others).ok_or_else(short)?;
        extra = rest;
        behind.copy_from_slice(other);
    }
    Ok(())
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
    let pieces =
        Pieces::new(ops, base.bytes(), diff.len() as u64, extra.len() as u64).map_err(ApplyError::Patch)?;
    out.clear();
    out.resize(diff.len() + extra.len(), 0);
    for piece in pieces.clone() {
        let piece = piece.map_err(ApplyError::Patch)?;
        let part = out.get_mut(piece.target..piece.target + piece.add).unwrap_or_default();
        if !part.is_empty() {
            base.read_at(piece.from, part).map_err(|source| ApplyError::Base { source })?;
        }
    }
    finish(pieces, diff, extra, out).map_err(ApplyError::Patch)
}
