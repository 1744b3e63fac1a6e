//! Memory for large transfers.

use crate::{limits::DIRECT_BYTES, linux};

/// [`DIRECT_BYTES`] of memory in one piece, where the system has huge pages: a transfer out of or into it is one address then, not hundreds. It
/// begins at a whole piece, as devices want it that are written past their cache.
pub struct Pages {
    memory: Vec<u8>,
    start: usize,
}

impl Pages {
    /// Zeros.
    #[must_use]
    pub fn new() -> Self {
        // What is never touched takes no memory.
        let mut memory = vec![0; 2 * DIRECT_BYTES];
        let start = memory.as_ptr().align_offset(DIRECT_BYTES).min(DIRECT_BYTES);
        if let Some(room) = memory.get_mut(start..start + DIRECT_BYTES) {
            linux::prefer_huge_pages(room);
        }
        Self { memory, start }
    }

    /// All of it.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.memory.get(self.start..self.start + DIRECT_BYTES).unwrap_or_default()
    }

    /// All of it.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        self.memory.get_mut(self.start..self.start + DIRECT_BYTES).unwrap_or_default()
    }
}

impl Default for Pages {
    fn default() -> Self {
        Self::new()
    }
}
