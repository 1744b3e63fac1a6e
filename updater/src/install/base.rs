//! What patches take out of the active bank: little pieces in any order, read in the order in which they lie there, those that lie close together
//! at once.

use std::io;

use bank_format::{Error, delta::patch::Piece};

use super::patches::wrong;
use crate::{
    bank::fill,
    limits::{BASE_BUFFER_BYTES, BASE_GAP_BYTES, BASE_READS_BYTES, BASE_READS_PER_BYTE, PIECES_AT_ONCE},
    ports::ImageFile,
};

/// Bytes of a block of the page cache: what is read of it, is read whole.
const PAGE_BYTES: u64 = 4096;

/// Puts all bytes of the base into the target.
pub(super) fn take_pieces(
    base: &mut dyn ImageFile,
    mut pieces: impl Iterator<Item = Result<Piece, Error>>,
    target: &mut [u8],
) -> io::Result<()> {
    let mut reads = Reads {
        base,
        buffer: Vec::new(),
        budget: BASE_READS_BYTES.saturating_add(BASE_READS_PER_BYTE.saturating_mul(target.len())),
    };
    let mut some = Vec::new();
    loop {
        some.clear();
        for piece in pieces.by_ref().take(PIECES_AT_ONCE) {
            some.push(piece.map_err(wrong)?);
        }
        if some.is_empty() {
            return Ok(());
        }
        some.retain(|piece| piece.add > 0);
        some.sort_unstable_by_key(|piece| piece.from);
        let mut rest = &some[..];
        while let Some(first) = rest.first() {
            let together = close_together(rest);
            let (now, later) = rest.split_at(together);
            if first.add >= BASE_BUFFER_BYTES {
                reads.exactly(first.from, part(target, first.target, first.add)?)?;
            } else {
                reads.spread(now, target)?;
            }
            rest = later;
        }
    }
}

/// How many of the first pieces are worth one read; at least one.
fn close_together(pieces: &[Piece]) -> usize {
    let Some(first) = pieces.first() else { return 0 };
    let mut end = first.from + first.add as u64;
    let joins = |piece: &&Piece| {
        let next = end.max(piece.from + piece.add as u64);
        let is_close = piece.from <= end + BASE_GAP_BYTES && next - first.from <= BASE_BUFFER_BYTES as u64;
        if is_close {
            end = next;
        }
        is_close
    };
    1 + pieces.iter().skip(1).take_while(joins).count()
}

fn part(bytes: &mut [u8], start: usize, count: usize) -> io::Result<&mut [u8]> {
    bytes.get_mut(start..).and_then(|rest| rest.get_mut(..count)).ok_or_else(|| wrong("it makes too much"))
}

struct Reads<'a> {
    base: &'a mut dyn ImageFile,
    buffer: Vec<u8>,
    /// Bytes that may still be read: a patch that jumps to and fro reads the whole bank a thousand times.
    budget: usize,
}

impl Reads<'_> {
    /// One read for all these pieces.
    fn spread(&mut self, pieces: &[Piece], target: &mut [u8]) -> io::Result<()> {
        let start = pieces.first().map_or(0, |first| first.from / PAGE_BYTES * PAGE_BYTES);
        let end = pieces.iter().map(|piece| piece.from + piece.add as u64).max().unwrap_or(start);
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.resize((end - start) as usize, 0);
        self.exactly(start, &mut buffer)?;
        for piece in pieces {
            part(target, piece.target, piece.add)?.copy_from_slice(part(
                &mut buffer,
                (piece.from - start) as usize,
                piece.add,
            )?);
        }
        self.buffer = buffer;
        Ok(())
    }

    fn exactly(&mut self, from: u64, into: &mut [u8]) -> io::Result<()> {
        self.budget =
            self.budget.checked_sub(into.len()).ok_or_else(|| wrong("it reads too much of the base"))?;
        if fill(self.base, from, into)? < into.len() {
            return Err(wrong("the base ends early"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A bank of so many bytes, none of which is kept.
    struct Content {
        bytes: u64,
        reads: usize,
    }

    fn byte(at: u64) -> u8 {
        (at.wrapping_mul(at) >> 5) as u8
    }

    impl ImageFile for Content {
        fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
            self.reads += 1;
            let bytes = self.bytes.saturating_sub(offset).min(buffer.len() as u64) as usize;
            for (at, into) in (offset..).zip(&mut buffer[..bytes]) {
                *into = byte(at);
            }
            Ok(bytes)
        }
        fn write_at(&mut self, _: u64, _: &[u8]) -> io::Result<()> {
            unreachable!("it is only read")
        }
        fn flush(&mut self) -> io::Result<()> {
            unreachable!("it is only read")
        }
        fn forget_cached(&mut self) -> io::Result<()> {
            unreachable!("it is only read")
        }
        fn set_bytes(&mut self, _: u64) -> io::Result<()> {
            unreachable!("it is only read")
        }
    }

    /// What they make, and with how many reads.
    fn take(bytes: u64, places: &[(u64, usize)]) -> io::Result<(Vec<u8>, usize)> {
        let mut target = vec![0; places.iter().map(|(_, add)| add).sum()];
        let mut start = 0;
        let pieces = places.iter().map(|(from, add)| {
            let piece = Piece { target: start, from: *from, add: *add, extra: 0 };
            start += add;
            Ok(piece)
        });
        let mut content = Content { bytes, reads: 0 };
        take_pieces(&mut content, pieces, &mut target).map(|()| (target, content.reads))
    }

    #[test]
    fn pieces_in_any_order_arrive_in_their_places_with_few_reads() {
        // Two places in turn, as a table and what it points to; then one long piece, one that overlaps, one of nothing.
        let mut places: Vec<(u64, usize)> =
            (0..500).flat_map(|n| [(1_000_000 + n * 300, 100), (20_000 + n * 64, 64)]).collect();
        places.extend([(5, 2_000_000), (1_999_990, 20), (3, 0), (2_999_999, 1)]);
        let (found, reads) = take(3_000_000, &places).unwrap();
        let expected: Vec<u8> =
            places.iter().flat_map(|(from, add)| (*from..from + *add as u64).map(byte)).collect();
        assert!(found == expected);
        assert!(reads <= 5, "{reads}");
        assert!(take(3_000_000, &[(0, 10), (2_999_999, 2)]).is_err(), "the base ends early");
    }

    #[test]
    fn each_place_is_read_once_and_not_each_time() {
        let places: Vec<(u64, usize)> =
            (0..PIECES_AT_ONCE as u64).map(|n| (n * 40_503 % 2000 * 32_768, 1)).collect();
        let (_, reads) = take(64 << 20, &places).unwrap();
        assert!(reads <= 2000, "{reads}");
    }

    #[test]
    fn a_patch_that_reads_too_much_of_the_bank_is_stopped() {
        // One byte of every four pages: each costs what lies between it and the next one.
        let places: Vec<(u64, usize)> = (0..8000).map(|n| (n * BASE_GAP_BYTES, 1)).collect();
        let refused = take(1 << 40, &places).unwrap_err();
        assert!(refused.to_string().contains("reads too much of the base"), "{refused}");
        assert!(take(1 << 40, &places[..4000]).is_ok());
    }
}
