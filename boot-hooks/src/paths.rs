//! Small files and plain directories: reads with a limit, writes that survive a power cut, paths that no symbolic link leads astray.
//!
//! The state partition was written by a system that may have been broken into; early boot must not follow its links.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Component, Path, PathBuf},
};

use crate::{
    console,
    error::{Error, Result},
    limits::MAX_SET_ASIDE,
};

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

/// What stands in the way is called NAME.bad from now on, or NAME.bad2 and so on, so that nothing is lost that somebody may want; only the
/// last of [`MAX_SET_ASIDE`] gives way to a newer one. Done as well when nothing was there.
pub fn set_aside(path: &Path) -> Result<()> {
    if fs::symlink_metadata(path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
        return Ok(());
    }
    let named = |number: u32| {
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(if number == 1 { ".bad".to_owned() } else { format!(".bad{number}") });
        path.with_file_name(name)
    };
    let is_free = |aside: &PathBuf| fs::symlink_metadata(aside).is_err();
    let aside = (1..=MAX_SET_ASIDE).map(named).find(is_free).unwrap_or_else(|| named(MAX_SET_ASIDE));
    remove_tree_if_there(&aside)?;
    fs::rename(path, &aside).map_err(Error::io("rename", path))?;
    console::warn(&format!("{} is not what is due there: it is {} now", path.display(), aside.display()));
    flush_parent(path)
}

/// Removes a file or a directory with all in it, and follows no link; done as well when there was none.
pub fn remove_tree_if_there(path: &Path) -> Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    };
    removed.map_err(Error::io("remove", path))
}

/// `base` followed by `below`, each step of which is a directory afterwards: what is none is set aside.
pub fn directories(base: &Path, below: &Path) -> Result<PathBuf> {
    let mut path = PathBuf::new();
    for step in below.components() {
        path.push(step);
        let here = base.join(&path);
        if fs::symlink_metadata(&here).is_ok_and(|found| !found.is_dir()) {
            set_aside(&here)?;
        }
    }
    plain(base, below, Missing::MakeDirectories)
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
    fn what_is_no_directory_is_set_aside() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("persist"), "a file").unwrap();
        fs::create_dir_all(dir.path().join("persist.bad/earlier")).unwrap();
        let made = directories(dir.path(), Path::new("persist/var/lib")).unwrap();
        assert_eq!(made, dir.path().join("persist/var/lib"));
        assert!(made.is_dir());
        assert!(dir.path().join("persist.bad/earlier").is_dir());
        assert_eq!(fs::read_to_string(dir.path().join("persist.bad2")).unwrap(), "a file");
        for content in 0..20 {
            fs::write(dir.path().join("again"), content.to_string()).unwrap();
            set_aside(&dir.path().join("again")).unwrap();
        }
        assert_eq!(fs::read_to_string(dir.path().join("again.bad")).unwrap(), "0");
        let last = format!("again.bad{MAX_SET_ASIDE}");
        assert_eq!(fs::read_to_string(dir.path().join(last)).unwrap(), "19");
        std::os::unix::fs::symlink("/etc", made.join("link")).unwrap();
        assert!(directories(&made, Path::new("link")).unwrap().is_dir());
        assert_eq!(fs::read_link(made.join("link.bad")).unwrap(), Path::new("/etc"));
        assert!(directories(&made, Path::new("../up")).is_err());
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
