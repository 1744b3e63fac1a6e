//! Bundles that can be read from any place: files, and servers with ranges.

use std::{
    fs::File,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use crate::{
    error::{Error, Result, file},
    fetch::{Remote, Sink},
    limits::BUFFER_BYTES,
    ports::Progress,
};

/// A bundle that is read by ranges.
pub trait Ranges {
    /// Its bytes, if they are known.
    fn total_bytes(&self) -> Option<u64>;
    /// Bytes that were read so far, those that had to be read again included.
    fn fetched_bytes(&self) -> u64;
    /// Says which ranges (offset, bytes) are read next, in that order, so that they may be asked for early.
    fn expect(&mut self, next: &[(u64, u64)]) {
        let _ = next;
    }
    /// Hands `bytes` bytes from `offset` to the sink, in order and each once.
    fn read(
        &mut self,
        offset: u64,
        bytes: u64,
        progress: &mut dyn Progress,
        sink: &mut Sink<'_>,
    ) -> Result<()>;
}

impl Ranges for Remote<'_> {
    fn total_bytes(&self) -> Option<u64> {
        Remote::total_bytes(self)
    }

    fn fetched_bytes(&self) -> u64 {
        Remote::fetched_bytes(self)
    }

    fn expect(&mut self, next: &[(u64, u64)]) {
        Remote::expect(self, next);
    }

    fn read(
        &mut self,
        offset: u64,
        bytes: u64,
        progress: &mut dyn Progress,
        sink: &mut Sink<'_>,
    ) -> Result<()> {
        Remote::read(self, offset, bytes, progress, sink)
    }
}

/// A bundle in a file.
#[derive(Debug)]
pub struct FileRanges {
    path: PathBuf,
    file: File,
    bytes: u64,
    fetched: u64,
}

impl FileRanges {
    /// Opens a regular file.
    pub fn open(source: &str) -> Result<Self> {
        let path = Path::new(source);
        let open = || {
            let file = File::open(path)?;
            let metadata = file.metadata()?;
            if metadata.is_file() {
                Ok(Self { path: path.into(), file, bytes: metadata.len(), fetched: 0 })
            } else {
                Err(std::io::Error::other("it is not a regular file"))
            }
        };
        open().map_err(file("open bundle", path))
    }
}

impl Ranges for FileRanges {
    fn total_bytes(&self) -> Option<u64> {
        Some(self.bytes)
    }

    fn fetched_bytes(&self) -> u64 {
        self.fetched
    }

    fn read(
        &mut self,
        offset: u64,
        bytes: u64,
        progress: &mut dyn Progress,
        sink: &mut Sink<'_>,
    ) -> Result<()> {
        let mut buffer = vec![0; BUFFER_BYTES];
        let mut done = 0;
        while done < bytes {
            let wanted = (bytes - done).min(BUFFER_BYTES as u64) as usize;
            let part = buffer.get_mut(..wanted).unwrap_or_default();
            match self.file.read_at(part, offset + done) {
                Ok(0) => {
                    let missing_bytes = bytes - done;
                    let source = bank_format::Error::Truncated { structure: "bundle", missing_bytes };
                    return Err(Error::Bundle { source });
                }
                Ok(read) => {
                    done += read as u64;
                    self.fetched += read as u64;
                    sink(part.get(..read).unwrap_or_default(), progress)?;
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => (),
                Err(error) => return Err(file("read bundle", &self.path)(error)),
            }
        }
        Ok(())
    }
}

/// Whether the source is an address and no path.
#[must_use]
pub(super) fn is_url(source: &str) -> bool {
    ["http://", "https://"]
        .iter()
        .any(|scheme| source.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme)))
}
