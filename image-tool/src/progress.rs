//! How long work tells of itself. The command line draws bars; libraries and tests stay silent.

/// Listener of a long deed.
pub trait Progress: Sync {
    /// A new stage begins, told in a few words.
    fn stage(&self, what: &str);
    /// Something a person should know, in one line, that does not stop the work.
    fn note(&self, what: &str);
    /// How far the stage is, where that can be counted.
    fn advance(&self, done_bytes: u64, total_bytes: u64) {
        let _ = (done_bytes, total_bytes);
    }
}

/// Says nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Progress for Silent {
    fn stage(&self, _what: &str) {}
    fn note(&self, _what: &str) {}
}
