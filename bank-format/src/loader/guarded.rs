//! A medium under a loader's state: each write is flushed, and after a failed one nothing more is written.

use crate::{
    barrier::{Barrier, holds},
    error::Error,
    record::Medium,
};

/// Why a loader could not be asked or told.
#[derive(Debug, thiserror::Error)]
pub enum LoaderError<E> {
    /// The medium failed.
    #[error("cannot {deed} the boot loader's state")]
    Medium {
        /// Read, write or flush.
        deed: &'static str,
        /// The medium's words.
        source: E,
    },
    /// What lies there is not for us.
    #[error(transparent)]
    Format(#[from] Error),
    /// An earlier write or flush failed; what is on the medium is unknown until it is opened again.
    #[error("the boot loader's state is closed after a failed write: run the command again")]
    Poisoned,
}

/// The medium and whether it can still be trusted.
#[derive(Debug, Clone)]
pub(super) struct Guarded<M> {
    medium: M,
    poisoned: bool,
}

impl<M: Medium> Guarded<M> {
    pub(super) fn new(medium: M) -> Self {
        Self { medium, poisoned: false }
    }

    pub(super) fn medium(&self) -> &M {
        &self.medium
    }

    pub(super) fn read(&mut self, offset: u64, bytes: usize) -> Result<Vec<u8>, LoaderError<M::Error>> {
        if self.poisoned {
            return Err(LoaderError::Poisoned);
        }
        let mut buffer = vec![0; bytes];
        self.medium
            .read_at(offset, &mut buffer)
            .map_err(|source| LoaderError::Medium { deed: "read", source })?;
        Ok(buffer)
    }

    /// One write, on stable storage when this returns.
    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), LoaderError<M::Error>> {
        if self.poisoned {
            return Err(LoaderError::Poisoned);
        }
        self.poisoned = true;
        self.medium
            .write_at(offset, bytes)
            .map_err(|source| LoaderError::Medium { deed: "write", source })?;
        // Without it the write could reach the medium together with a later one, and both copies be torn by one power cut.
        if holds(Barrier::LoaderWrite) {
            self.medium.flush().map_err(|source| LoaderError::Medium { deed: "flush", source })?;
        }
        self.poisoned = false;
        Ok(())
    }
}
