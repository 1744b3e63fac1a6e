//! Memory for large transfers.

use bank_format::verity::BLOCK_BYTES;

use crate::{limits::DIRECT_BYTES, linux};

/// Memory in one piece, [`DIRECT_BYTES`] of it where so much is needed: where the system has huge pages, a transfer out of or into it is one address
/// then, not hundreds. It begins at a whole piece, as devices want it that are written past their cache.
pub struct Pages {
    memory: Vec<u8>,
    start: usize,
    bytes: usize,
}

impl Pages {
    /// [`DIRECT_BYTES`], zeros.
    #[must_use]
    pub fn new() -> Self {
        Self::for_content(u64::MAX)
    }

    /// No more than a content of so many bytes needs, in whole blocks.
    #[must_use]
    pub fn for_content(bytes: u64) -> Self {
        let bytes = bytes.min(DIRECT_BYTES as u64).next_multiple_of(BLOCK_BYTES as u64) as usize;
        let piece = if bytes == DIRECT_BYTES { DIRECT_BYTES } else { BLOCK_BYTES };
        // What is never touched takes no memory.
        let mut memory = vec![0; bytes + piece];
        let start = memory.as_ptr().align_offset(piece).min(piece);
        if bytes == DIRECT_BYTES
            && let Some(room) = memory.get_mut(start..start + bytes)
        {
            linux::prefer_huge_pages(room);
        }
        Self { memory, start, bytes }
    }

    /// All of it.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.memory.get(self.start..self.start + self.bytes).unwrap_or_default()
    }

    /// All of it.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        self.memory.get_mut(self.start..self.start + self.bytes).unwrap_or_default()
    }
}

impl Default for Pages {
    fn default() -> Self {
        Self::new()
    }
}
