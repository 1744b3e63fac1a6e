//! Small files and plain directories: reads with a limit, writes that survive a power cut, paths that no symbolic link leads astray.
//!
//! The state partition was written by a system that may have been broken into; early boot must not follow its links.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Component, Path, PathBuf},
};

use crate::error::{Error, Result};

/// Reads a whole small file; `None` when there is none.
pub fn read_small(path: &Path, limit_bytes: u64) -> Result<Option<Vec<u8>>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::io("open", path)(error)),
    };
    let mut bytes = Vec::new();
    file.take(limit_bytes.saturating_add(1)).read_to_end(&mut bytes).map_err(Error::io("read", path))?;
    if bytes.len() as u64 > limit_bytes {
        return Err(Error::TooLong { subject: path.display().to_string(), limit_bytes });
    }
    Ok(Some(bytes))
}

/// Reads a small text file, without white space at its ends.
pub fn read_text(path: &Path, limit_bytes: u64) -> Result<Option<String>> {
    Ok(read_small(path, limit_bytes)?.map(|bytes| String::from_utf8_lossy(&bytes).trim().to_owned()))
}

/// Writes a small file so that after a power cut there is either all of it or nothing.
pub fn write_whole(path: &Path, content: &[u8], mode: u32) -> Result<()> {
    let fresh = path.with_extension("new");
    remove_if_there(&fresh)?;
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&fresh)
        .map_err(Error::io("create", &fresh))?;
    file.write_all(content).map_err(Error::io("write", &fresh))?;
    // Without this flush the name could survive a power cut and the content not.
    file.sync_all().map_err(Error::io("flush", &fresh))?;
    fs::rename(&fresh, path).map_err(Error::io("rename", &fresh))?;
    flush_parent(path)
}

/// Puts a directory's new name on stable storage.
pub fn flush_parent(path: &Path) -> Result<()> {
    let parent = path.parent().unwrap_or(path);
    File::open(parent).and_then(|dir| dir.sync_all()).map_err(Error::io("flush", parent))
}

/// Removes a file; done as well when there was none.
pub fn remove_if_there(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::io("remove", path)(error)),
        _ => Ok(()),
    }
}

/// Makes a directory and what lies above it; done as well when it is there.
pub fn make_dirs(path: &Path) -> Result<()> {
    fs::create_dir_all(path).map_err(Error::io("create", path))
}

/// What [`plain`] does where nothing is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// Leave it so.
    Keep,
    /// Make directories, mode 0755.
    MakeDirectories,
}

/// `base` followed by `below`, each step of which is a directory and no link; the last step may be a file, or missing.
pub fn plain(base: &Path, below: &Path, missing: Missing) -> Result<PathBuf> {
    let mut path = base.to_path_buf();
    let mut steps = below.components().peekable();
    while let Some(step) = steps.next() {
        match step {
            Component::Normal(name) => path.push(name),
            Component::RootDir | Component::CurDir => continue,
            Component::ParentDir | Component::Prefix(_) => {
                return Err(refused(below, "leads upwards: write it without .."));
            }
        }
        let last = steps.peek().is_none();
        match fs::symlink_metadata(&path) {
            Ok(found) if found.is_dir() || (last && found.is_file()) => (),
            Ok(_) => return Err(refused(&path, "is no plain directory or file: remove it")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => match missing {
                Missing::Keep => (),
                Missing::MakeDirectories => {
                    DirBuilder::new().mode(0o755).create(&path).map_err(Error::io("create", &path))?;
                }
            },
            Err(error) => return Err(Error::io("look at", &path)(error)),
        }
    }
    Ok(path)
}

fn refused(path: &Path, detail: &'static str) -> Error {
    Error::Path { subject: path.display().to_string(), detail }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn planted_links_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/etc", dir.path().join("persist")).unwrap();
        let below = Path::new("persist/var");
        assert!(plain(dir.path(), below, Missing::Keep).is_err());
        assert!(plain(dir.path(), below, Missing::MakeDirectories).is_err());
        assert!(plain(dir.path(), Path::new("a/../b"), Missing::Keep).is_err());
        let made = plain(dir.path(), Path::new("/a/b"), Missing::MakeDirectories).unwrap();
        assert!(made.is_dir() && made.ends_with("a/b"));
    }

    #[test]
    fn small_files_have_a_limit_and_are_written_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("id");
        assert_eq!(read_text(&path, 3).unwrap(), None);
        write_whole(&path, b"ab\n", 0o444).unwrap();
        write_whole(&path, b"cd\n", 0o444).unwrap();
        assert_eq!(read_text(&path, 3).unwrap().unwrap(), "cd");
        assert!(read_small(&path, 2).is_err());
    }
}
