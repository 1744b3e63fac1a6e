//! The two copies on their medium: which one counts, and how both are written so that one is always whole.

use super::{COPY_BYTES, Copy, Record, decode_copy, encode_copy};
use crate::{
    barrier::{Barrier, holds},
    error::{Error, Result},
};

/// Never an error: only the write that repairs a record makes a drive replace its rotten sectors.
const UNREADABLE: &str = "it cannot be read";

/// Where the record lies: 64 KiB that can be read, written at an offset, and flushed.
pub trait Medium {
    /// What can go wrong there.
    type Error;
    /// Fills `buffer` from `offset`; bytes behind the end of the medium read as zeros.
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> Result<(), Self::Error>;
    /// Writes all of `bytes` at `offset`.
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> Result<(), Self::Error>;
    /// Returns once all that was written is on stable storage.
    fn flush(&mut self) -> Result<(), Self::Error>;
}

/// What both copies together say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Loaded {
    /// The newer whole copy.
    Record(Box<Record>),
    /// Never written.
    Blank,
    /// There was one, and no copy of it is whole. Never treat this as blank.
    Lost(String),
}

/// An error of the medium, or of the bytes on it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError<E> {
    /// The medium failed.
    #[error("cannot {deed} the record")]
    Medium {
        /// Write or flush.
        deed: &'static str,
        /// The medium's words.
        source: E,
    },
    /// The bytes are not for us.
    #[error(transparent)]
    Format(Error),
    /// An earlier write or flush failed; what is on the medium is unknown until it is opened again.
    #[error("the record is closed after a failed write: run the command again")]
    Poisoned,
}

/// The record on its medium.
#[derive(Debug)]
pub struct Store<M> {
    medium: M,
    /// Highest sequence seen, and the copy that has it.
    newest: Option<(u64, usize)>,
    poisoned: bool,
}

impl<M: Medium> Store<M> {
    /// Reads both copies. Where none can be read, the record is lost.
    pub fn open(mut medium: M) -> Result<(Self, Loaded), StoreError<M::Error>> {
        let mut newest: Option<(u64, usize, Box<Record>)> = None;
        let mut torn: Option<String> = None;
        for copy in 0..2 {
            let mut bytes = vec![0; COPY_BYTES];
            let offset = (copy * COPY_BYTES) as u64;
            // A rotten sector under one copy must not take the other with it; a cable that had slipped is given a second chance.
            if medium.read_at(offset, &mut bytes).or_else(|_| medium.read_at(offset, &mut bytes)).is_err() {
                torn.get_or_insert_with(|| UNREADABLE.into());
                continue;
            }
            match decode_copy(&bytes).map_err(StoreError::Format)? {
                Copy::Good(sequence, record) => {
                    if newest.as_ref().is_none_or(|(best, ..)| sequence > *best) {
                        newest = Some((sequence, copy, record));
                    }
                }
                Copy::Blank => (),
                Copy::Torn(why) => torn = Some(why),
            }
        }
        let place = newest.as_ref().map(|(sequence, copy, _)| (*sequence, *copy));
        let loaded = match (newest, torn) {
            (Some((.., record)), _) => Loaded::Record(record),
            (None, None) => Loaded::Blank,
            (None, Some(why)) => Loaded::Lost(why),
        };
        Ok((Self { medium, newest: place, poisoned: false }, loaded))
    }

    /// Puts `record` on both copies, the stale one first. Nothing is on stable storage before this returns.
    pub fn commit(&mut self, record: &Record) -> Result<(), StoreError<M::Error>> {
        if self.poisoned {
            return Err(StoreError::Poisoned);
        }
        let (sequence, newest) = self.newest.unwrap_or((0, 1));
        let sequence = sequence.saturating_add(1);
        let bytes = encode_copy(record, sequence).map_err(StoreError::Format)?;
        self.poisoned = true;
        let order =
            if holds(Barrier::RecordStaleFirst) { [1 - newest, newest] } else { [newest, 1 - newest] };
        for (copy, barrier) in
            order.into_iter().zip([Barrier::RecordBetweenCopies, Barrier::RecordSecondCopy])
        {
            self.medium
                .write_at((copy * COPY_BYTES) as u64, &bytes)
                .map_err(|source| StoreError::Medium { deed: "write", source })?;
            // Without this flush both copies could be torn by one power cut.
            if holds(barrier) {
                self.medium.flush().map_err(|source| StoreError::Medium { deed: "flush", source })?;
            }
        }
        self.newest = Some((sequence, newest));
        self.poisoned = false;
        Ok(())
    }

    /// Gives the medium back.
    pub fn into_medium(self) -> M {
        self.medium
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{RECORD_BYTES, tests::record},
        *,
    };

    #[derive(Default, Clone)]
    struct Memory {
        bytes: Vec<u8>,
        log: Vec<(u64, Vec<u8>)>,
        /// Reads of each copy that fail, until it is written.
        unreadable: [u32; 2],
    }

    impl Medium for Memory {
        type Error = ();
        fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> Result<(), ()> {
            let fails = &mut self.unreadable[offset as usize / COPY_BYTES];
            if *fails > 0 {
                *fails -= 1;
                return Err(());
            }
            self.bytes.resize(RECORD_BYTES, 0);
            buffer.copy_from_slice(&self.bytes[offset as usize..][..buffer.len()]);
            Ok(())
        }
        fn write_at(&mut self, offset: u64, bytes: &[u8]) -> Result<(), ()> {
            self.bytes.resize(RECORD_BYTES, 0);
            self.bytes[offset as usize..][..bytes.len()].copy_from_slice(bytes);
            self.log.push((offset, bytes.to_vec()));
            self.unreadable[offset as usize / COPY_BYTES] = 0;
            Ok(())
        }
        fn flush(&mut self) -> Result<(), ()> {
            Ok(())
        }
    }

    fn open(memory: &Memory) -> Loaded {
        Store::open(memory.clone()).unwrap().1
    }

    #[test]
    fn either_copy_alone_is_enough() {
        let (mut store, loaded) = Store::open(Memory::default()).unwrap();
        assert_eq!(loaded, Loaded::Blank);
        store.commit(&record(1)).unwrap();
        store.commit(&record(2)).unwrap();
        let memory = store.into_medium();
        for copy in 0..2 {
            let mut torn = memory.clone();
            torn.bytes[copy * COPY_BYTES + 40] ^= 1;
            assert_eq!(open(&torn), Loaded::Record(Box::new(record(2))), "copy {copy}");
        }
        let mut both = memory;
        both.bytes[40] ^= 1;
        both.bytes[COPY_BYTES + 40] ^= 1;
        assert!(matches!(open(&both), Loaded::Lost(_)));
    }

    #[test]
    fn a_record_that_cannot_be_read_is_lost_and_repaired_by_the_next_commit() {
        let (mut store, _) = Store::open(Memory::default()).unwrap();
        store.commit(&record(1)).unwrap();
        let memory = store.into_medium();
        for (unreadable, whole) in [([9, 0], true), ([0, 9], true), ([1, 1], true), ([9, 9], false)] {
            let (mut store, loaded) = Store::open(Memory { unreadable, ..memory.clone() }).unwrap();
            assert_eq!(loaded == Loaded::Record(Box::new(record(1))), whole, "{unreadable:?}");
            assert_eq!(matches!(loaded, Loaded::Lost(_)), !whole, "{unreadable:?}");
            store.commit(&record(2)).unwrap();
            assert_eq!(open(&store.into_medium()), Loaded::Record(Box::new(record(2))));
        }
        let beside_nothing = Memory { unreadable: [9, 0], ..Memory::default() };
        assert!(matches!(open(&beside_nothing), Loaded::Lost(_)), "it may have been there");
    }

    #[test]
    fn a_write_torn_at_any_sector_leaves_the_old_or_the_new_record() {
        let (mut store, _) = Store::open(Memory::default()).unwrap();
        for version in 1..4 {
            store.commit(&record(version)).unwrap();
        }
        let before = store.medium.clone();
        store.medium.log.clear();
        store.commit(&record(9)).unwrap();
        let writes = store.medium.log.clone();
        assert_eq!(writes.len(), 2);
        let mut disk = before;
        for (offset, bytes) in writes {
            for sectors in 0..=bytes.len() / 512 {
                let mut torn = disk.clone();
                torn.bytes[offset as usize..][..sectors * 512].copy_from_slice(&bytes[..sectors * 512]);
                match open(&torn) {
                    Loaded::Record(found) => assert!(*found == record(3) || *found == record(9)),
                    other => panic!("{other:?}"),
                }
            }
            disk.bytes[offset as usize..][..bytes.len()].copy_from_slice(&bytes);
        }
    }
}
