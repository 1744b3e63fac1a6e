//! A patch: its head, and what its operations make, compared with a second reading of the format.

#![expect(clippy::unwrap_used, reason = "what is unwrapped was promised")]

use bank_format::{
    Error,
    delta::patch::{ApplyError, BaseReader, Header, Kind, Stream, apply},
    index::Encoding,
    limits::{
        MAX_IMAGE_BYTES, MAX_LZ4_BLOCK_BYTES, MAX_LZ4_LEVEL, MAX_LZ4_STORED_BYTES, MAX_PATCH_BASE_BLOCKS,
        MAX_PATCH_OPS_BYTES, MAX_PATCH_STORED_BYTES, MAX_PATCH_TARGET_BYTES,
    },
};

use super::{
    Verdict,
    memory::{number, signed_number},
};

/// Streams and bases up to this size are made in full; beyond it the head is checked and nothing is made.
const MOST_BYTES: u32 = 64 << 10;
const PLAIN_BASE_BYTES: u32 = 4096;

/// The bytes as a patch, and as operations whose streams have the lengths that they ask for.
pub(super) fn patch(bytes: &[u8]) -> Verdict {
    let verdict = whole(bytes);
    operations(bytes);
    verdict
}

fn whole(bytes: &[u8]) -> Verdict {
    let decoded = Header::decode(bytes);
    let Ok((header, streams)) = &decoded else { return Verdict::Refused };
    assert!(bytes.len() <= MAX_PATCH_STORED_BYTES as usize);
    assert_eq!(header.encode().unwrap(), bytes[..streams.ops.start], "a head has one form");
    assert_eq!(streams.ops.end, streams.diff.start);
    assert_eq!(streams.diff.end, streams.extra.start);
    assert_eq!(streams.extra.end, bytes.len());
    assert!(header.ops.bytes <= MAX_PATCH_OPS_BYTES);
    assert!((1..=MAX_PATCH_TARGET_BYTES).contains(&header.target_bytes()));
    assert_eq!(header.target_bytes(), header.diff.bytes + header.extra.bytes);
    let base_bytes = check_kind(header);
    let sizes = [header.ops.bytes, header.diff.bytes, header.extra.bytes, base_bytes];
    if sizes.into_iter().all(|size| size <= MOST_BYTES) {
        let ops = content(header.ops, &bytes[streams.ops.clone()]);
        let diff = content(header.diff, &bytes[streams.diff.clone()]);
        let extra = content(header.extra, &bytes[streams.extra.clone()]);
        compare(&ops, &diff, &extra, base_bytes);
    }
    Verdict::Accepted
}

/// What an LZ4 patch unpacks is within the limits. Bytes of its base.
fn check_kind(header: &Header) -> u32 {
    match &header.kind {
        Kind::Plain => PLAIN_BASE_BYTES,
        Kind::Lz4 { level, decoded_bytes, base_blocks } => {
            assert!((1..=MAX_LZ4_LEVEL).contains(level));
            assert_eq!(*decoded_bytes, header.target_bytes());
            assert!(base_blocks.len() <= MAX_PATCH_BASE_BLOCKS as usize);
            for block in base_blocks {
                assert!((1..=MAX_LZ4_BLOCK_BYTES).contains(&block.decoded_bytes));
                assert!((1..=MAX_LZ4_STORED_BYTES).contains(&block.stored_bytes));
                assert!(block.offset + u64::from(block.stored_bytes) <= MAX_IMAGE_BYTES);
            }
            base_blocks.iter().map(|block| block.decoded_bytes).sum()
        }
    }
}

/// What a stream holds. One that is compressed is given content of its length, as `bank-format` knows no zstd.
fn content(stream: Stream, stored: &[u8]) -> Vec<u8> {
    match stream.encoding() {
        Encoding::Stored => stored.to_vec(),
        Encoding::Zstd => stored.iter().copied().cycle().take(stream.bytes as usize).collect(),
    }
}

fn operations(ops: &[u8]) {
    let mut rest = ops;
    let (mut add, mut extra) = (0u64, 0u64);
    while !rest.is_empty() {
        let op = (signed_number(&mut rest), number(&mut rest), number(&mut rest));
        let (Some(_), Some(more_add), Some(more_extra)) = op else { break };
        add = add.saturating_add(more_add);
        extra = extra.saturating_add(more_extra);
    }
    if add.max(extra) <= u64::from(MOST_BYTES) {
        let stream = |bytes: u64, step: u8| (0..bytes).map(|at| (at as u8).wrapping_mul(step)).collect();
        let (diff, extra): (Vec<u8>, Vec<u8>) = (stream(add, 7), stream(extra, 11));
        compare(ops, &diff, &extra, PLAIN_BASE_BYTES);
    }
}

/// A base that must not be read beyond its end, nor more than there are differences.
struct Base {
    bytes: Vec<u8>,
    may_read: usize,
}

impl BaseReader for Base {
    type Error = Error;

    fn bytes(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn read_at(&mut self, offset: u64, into: &mut [u8]) -> Result<(), Error> {
        self.may_read = self.may_read.checked_sub(into.len()).unwrap();
        into.copy_from_slice(self.bytes.get(offset as usize..).unwrap().get(..into.len()).unwrap());
        Ok(())
    }
}

fn compare(ops: &[u8], diff: &[u8], extra: &[u8], base_bytes: u32) {
    let base: Vec<u8> = (0..base_bytes).map(|at| (at ^ (at >> 8)) as u8).collect();
    let expected = reference(ops, diff, extra, &base);
    let mut out = vec![0xaa; 3];
    let mut reader = Base { bytes: base, may_read: diff.len() };
    let result = apply(ops, diff, extra, &mut reader, &mut out);
    assert!(out.capacity() <= (diff.len() + extra.len()).max(8), "it takes more memory than the target has");
    match (result, expected) {
        (Ok(()), Some(expected)) => {
            assert_eq!(out.len(), diff.len() + extra.len());
            assert!(out == expected, "another target");
            assert_eq!(reader.may_read, 0);
        }
        (Err(ApplyError::Patch(_)), None) => (),
        (result, expected) => assert_eq!(result.is_ok(), expected.is_some(), "{result:?}"),
    }
}

/// The format, read a second time.
fn reference(mut ops: &[u8], mut diff: &[u8], mut extra: &[u8], base: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let mut place = 0i128;
    while !ops.is_empty() {
        place += signed_number(&mut ops)?;
        let (add, other) = (number(&mut ops)?, number(&mut ops)?);
        if add == 0 && other == 0 {
            return None;
        }
        let start = usize::try_from(place).ok()?;
        let end = start.checked_add(usize::try_from(add).ok()?)?;
        let (differences, rest) = diff.split_at_checked(end - start)?;
        out.extend(base.get(start..end)?.iter().zip(differences).map(|(old, new)| old.wrapping_add(*new)));
        diff = rest;
        place = end as i128;
        let (bytes, rest) = extra.split_at_checked(usize::try_from(other).ok()?)?;
        out.extend(bytes);
        extra = rest;
    }
    (diff.is_empty() && extra.is_empty()).then_some(out)
}
