//! The bytes of a file in a tree: in memory, or a range of a file on disk, so that a tree of gigabytes stays small.

use std::{
    fs::File,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::error::{Error, Result};

const COPY_BYTES: usize = 256 << 10;

/// The bytes of a file.
#[derive(Debug, Clone)]
pub enum Content {
    /// In memory.
    Bytes(Arc<[u8]>),
    /// A range of a file on disk, which must not change while the tree lives.
    Slice {
        /// The open file.
        file: Arc<File>,
        /// Where it lies, for messages.
        path: Arc<Path>,
        /// First byte.
        offset_bytes: u64,
        /// Number of bytes.
        len_bytes: u64,
    },
}

impl Content {
    /// The whole of a file on disk.
    pub fn of_file(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(Error::file("open", path))?;
        let len_bytes = file.metadata().map_err(Error::file("measure", path))?.len();
        Ok(Self::Slice { file: Arc::new(file), path: path.into(), offset_bytes: 0, len_bytes })
    }

    /// Number of bytes.
    #[must_use]
    pub fn len_bytes(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Slice { len_bytes, .. } => *len_bytes,
        }
    }

    /// Hands the bytes to `take`, piece by piece.
    pub fn for_each_piece(&self, take: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
        match self {
            Self::Bytes(bytes) => take(bytes),
            Self::Slice { file, path, offset_bytes, len_bytes } => {
                let mut buffer = vec![0; COPY_BYTES.min(usize::try_from(*len_bytes).unwrap_or(COPY_BYTES))];
                let mut done = 0;
                while done < *len_bytes {
                    let want =
                        usize::try_from(len_bytes - done).map_or(buffer.len(), |left| left.min(buffer.len()));
                    let piece = buffer.get_mut(..want).unwrap_or_default();
                    file.read_exact_at(piece, offset_bytes + done).map_err(Error::file("read", &**path))?;
                    take(piece)?;
                    done += want as u64;
                }
                Ok(())
            }
        }
    }

    /// All bytes, refused when there are more than `limit_bytes`.
    pub fn read(&self, limit_bytes: u64) -> Result<Vec<u8>> {
        if self.len_bytes() > limit_bytes {
            return Err(Error::TooLarge {
                subject: self.path().display().to_string(),
                needed: self.len_bytes(),
                available: limit_bytes,
                hint: "it is read whole, and nothing of that size is expected there",
            });
        }
        let mut all = Vec::with_capacity(usize::try_from(self.len_bytes()).unwrap_or_default());
        self.for_each_piece(&mut |piece| {
            all.extend_from_slice(piece);
            Ok(())
        })?;
        Ok(all)
    }

    fn path(&self) -> PathBuf {
        match self {
            Self::Bytes(_) => PathBuf::from("bytes in memory"),
            Self::Slice { path, .. } => path.to_path_buf(),
        }
    }
}

impl From<Vec<u8>> for Content {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Bytes(bytes.into())
    }
}

impl From<&str> for Content {
    fn from(text: &str) -> Self {
        Self::Bytes(text.as_bytes().into())
    }
}
