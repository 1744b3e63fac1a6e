//! Cuts frames and patches out of a run of bytes that comes in any slicing.

use std::collections::VecDeque;

use crate::error::Result;

/// Cuts consecutive pieces out of bytes.
pub struct Cutter {
    /// Number and stored bytes of each piece of the run.
    left: VecDeque<(usize, usize)>,
    pending: Vec<u8>,
}

impl Cutter {
    /// For these pieces: number and stored bytes, in the order of the bundle.
    #[must_use]
    pub fn new(pieces: impl IntoIterator<Item = (usize, usize)>) -> Self {
        Self { left: pieces.into_iter().collect(), pending: Vec::new() }
    }

    /// Takes bytes, and hands out each piece once it is whole.
    pub fn feed(
        &mut self,
        mut bytes: &[u8],
        take: &mut dyn FnMut(usize, Vec<u8>) -> Result<()>,
    ) -> Result<()> {
        while let Some((number, stored_bytes)) = self.left.front().copied() {
            if self.pending.capacity() == 0 {
                self.pending.reserve_exact(stored_bytes);
            }
            let missing = stored_bytes.saturating_sub(self.pending.len());
            let (mine, rest) = bytes.split_at(missing.min(bytes.len()));
            self.pending.extend_from_slice(mine);
            if mine.len() < missing {
                return Ok(());
            }
            bytes = rest;
            self.left.pop_front();
            take(number, std::mem::take(&mut self.pending))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn pieces_do_not_depend_on_how_bytes_are_cut(
            sizes in proptest::collection::vec(1usize..50, 0..8),
            slices in proptest::collection::vec(1usize..40, 1..10),
        ) {
            let total: usize = sizes.iter().sum();
            let bytes: Vec<u8> = (0..total).map(|n| n as u8).collect();
            let mut cutter = Cutter::new(sizes.iter().copied().enumerate());
            let mut found = Vec::new();
            let mut rest = &bytes[..];
            for slice in slices.iter().cycle() {
                if rest.is_empty() { break }
                let (part, behind) = rest.split_at((*slice).min(rest.len()));
                cutter.feed(part, &mut |number, stored| { found.push((number, stored)); Ok(()) }).unwrap();
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
