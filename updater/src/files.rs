//! The files of the state directory, by what the system does for them. Behind a port, so that the same code runs on simulated files that lose
//! what was not flushed.

use std::{
    fmt,
    fs::{DirBuilder, File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use bank_format::barrier::{Barrier, holds};

use crate::linux;

/// What a directory of files is asked for. What was written is safe from a power cut after [`OpenFile::sync`], its name after
/// [`Files::sync_directory_of`], and not before.
pub trait Files: fmt::Debug + Send + Sync {
    /// Bytes from `from` on, at most `most_bytes`.
    fn read(&self, path: &Path, from: u64, most_bytes: u64) -> io::Result<Vec<u8>>;
    /// Its length.
    fn bytes(&self, path: &Path) -> io::Result<u64>;
    /// Whether a directory is there.
    fn is_directory(&self, path: &Path) -> bool;
    /// What is in a directory.
    fn list(&self, directory: &Path) -> io::Result<Vec<PathBuf>>;
    /// A directory, and those above it, where they are not there.
    fn make_directories(&self, path: &Path) -> io::Result<()>;
    /// A directory for its owner alone. One that is there is an error.
    fn make_directory(&self, path: &Path) -> io::Result<()>;
    /// A file that is empty, also where one was there.
    fn create(&self, path: &Path) -> io::Result<Box<dyn OpenFile>>;
    /// A file to which is added; made where it is not there.
    fn append(&self, path: &Path) -> io::Result<Box<dyn OpenFile>>;
    /// Another name, in the place of what has it.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Removes a directory with all that is in it.
    fn remove_directory(&self, path: &Path) -> io::Result<()>;
    /// Returns once the names beside this one are on stable storage.
    fn sync_directory_of(&self, path: &Path) -> io::Result<()>;
}

/// A file that is written.
pub trait OpenFile {
    /// Writes all of it.
    fn write(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Returns once what was written is on stable storage.
    fn sync(&mut self) -> io::Result<()>;
}

/// Where the agent keeps what is neither image nor record.
#[derive(Debug, Clone)]
pub struct State {
    files: Arc<dyn Files>,
    directory: PathBuf,
}

impl State {
    /// A directory of these files.
    #[must_use]
    pub fn new(files: Arc<dyn Files>, directory: &Path) -> Self {
        Self { files, directory: directory.into() }
    }

    /// A directory of this system.
    #[must_use]
    pub fn on_disk(directory: &Path) -> Self {
        Self::new(Arc::new(DiskFiles), directory)
    }

    /// Its files.
    #[must_use]
    pub fn files(&self) -> &Arc<dyn Files> {
        &self.files
    }

    /// The directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }
}

/// Writes a small file so that after a power cut either the old or the new content is there.
pub fn replace(files: &dyn Files, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(".new");
    let next = path.with_file_name(name);
    let replace = || -> io::Result<()> {
        let mut file = files.create(&next)?;
        file.write(bytes)?;
        // Without it the rename could reach the disk before the content, and an empty file would be left.
        if holds(Barrier::FileContent) {
            file.sync()?;
        }
        files.rename(&next, path)?;
        if holds(Barrier::FileName) { files.sync_directory_of(path) } else { Ok(()) }
    };
    replace().inspect_err(|_| {
        // What did not fit takes no room.
        let _ = files.remove(&next);
    })
}

/// The files of this system.
#[derive(Debug, Clone, Copy)]
pub struct DiskFiles;

impl Files for DiskFiles {
    fn read(&self, path: &Path, from: u64, most_bytes: u64) -> io::Result<Vec<u8>> {
        let mut file = File::open(path)?;
        if from > 0 {
            file.seek(SeekFrom::Start(from))?;
        }
        let mut bytes = Vec::new();
        file.take(most_bytes).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn bytes(&self, path: &Path) -> io::Result<u64> {
        Ok(std::fs::metadata(path)?.len())
    }

    fn is_directory(&self, path: &Path) -> bool {
        path.is_dir()
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<PathBuf>> {
        std::fs::read_dir(directory)?.map(|entry| Ok(entry?.path())).collect()
    }

    fn make_directories(&self, path: &Path) -> io::Result<()> {
        std::fs::create_dir_all(path)
    }

    fn make_directory(&self, path: &Path) -> io::Result<()> {
        DirBuilder::new().mode(0o700).create(path)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn OpenFile>> {
        Ok(Box::new(File::create(path)?))
    }

    fn append(&self, path: &Path) -> io::Result<Box<dyn OpenFile>> {
        Ok(Box::new(OpenOptions::new().append(true).create(true).open(path)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn remove_directory(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_dir_all(path)
    }

    fn sync_directory_of(&self, path: &Path) -> io::Result<()> {
        linux::sync_directory_of(path)
    }
}

impl OpenFile for File {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write_all(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_all()
    }
}
