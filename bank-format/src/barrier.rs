//! The flushes and orders that a power cut would find missing, each by name.
//!
//! In a build for the judge (feature `barriers`) one of them can be taken away, to show that the suite of power cuts sees it: what no cut can
//! miss is not needed. In every other build they hold, and cost nothing.

macro_rules! barriers {
    ($($variant:ident, $name:literal, $what:literal;)*) => {
        /// A flush, or an order of two deeds.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Barrier {
            $(#[doc = $what] $variant,)*
        }

        impl Barrier {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// In short.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }

            /// What it is for.
            #[must_use]
            pub fn what(self) -> &'static str {
                match self {
                    $(Self::$variant => $what,)*
                }
            }
        }
    };
}

barriers! {
    RecordBetweenCopies, "record-between-copies", "One copy of the record is safe before the other is written.";
    RecordSecondCopy, "record-second-copy", "Both copies of the record are safe before anything else is done.";
    RecordStaleFirst, "record-stale-first", "The stale copy of the record is written first.";
    LoaderWrite, "loader-write", "What the loader is told is safe before anything relies on it.";
    BankWipe, "bank-wipe", "The first block of a bank is gone before the blocks behind it change.";
    BankFirstBlockLast, "bank-first-block-last", "The first block of a bank is written when all others were read back.";
    BankData, "bank-data", "The data of a bank is safe before it is read back.";
    BankTrees, "bank-trees", "The trees of a bank are safe before they are read back.";
    BankFirstBlock, "bank-first-block", "The first block of a bank is safe before the record calls the bank written.";
    BankClosed, "bank-closed", "A bank that nobody wants is closed for good.";
    FileContent, "file-content", "The content of a small file is safe before it gets its name.";
    FileName, "file-name", "A small file has its name for good before anything relies on it.";
    HistoryLine, "history-line", "A line of the history is safe before the next deed.";
    HistoryName, "history-name", "The history has its name for good.";
    IntentBeforeBank, "intent-before-bank", "The record says that a bank is being written before it is touched.";
    CountedBeforeTried, "counted-before-tried", "A boot is counted before it is tried.";
}

/// Whether it is in its place.
#[cfg(not(feature = "barriers"))]
#[must_use]
#[inline]
pub const fn holds(_: Barrier) -> bool {
    true
}

#[cfg(feature = "barriers")]
pub use switch::{holds, without};

#[cfg(feature = "barriers")]
mod switch {
    use std::cell::Cell;

    use super::Barrier;

    thread_local! {
        static REMOVED: Cell<Option<Barrier>> = const { Cell::new(None) };
    }

    /// Whether it is in its place on this thread.
    #[must_use]
    pub fn holds(barrier: Barrier) -> bool {
        REMOVED.get() != Some(barrier)
    }

    /// Does something without a barrier, on this thread.
    pub fn without<T>(barrier: Barrier, deed: impl FnOnce() -> T) -> T {
        struct Again(Option<Barrier>);
        impl Drop for Again {
            fn drop(&mut self) {
                REMOVED.set(self.0);
            }
        }
        let _again = Again(REMOVED.replace(Some(barrier)));
        deed()
    }
}
