//! Copies what the image declares into a fresh place: the first content of a persisted path or of a tmpfs.
//!
//! Keeps mode, owner and modification time of directories, files and symbolic links. Bounded in entries and depth. Deliberately
//! absent: extended attributes, device nodes, sockets and pipes, which no image declares there.

use std::{
    fs::{self, File, FileTimes, Metadata, OpenOptions},
    io::{self, Read as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, chown, lchown, symlink},
    path::Path,
};

use crate::{
    error::{Error, Result},
    limits::{MAX_SEED_ENTRIES, MAX_TREE_DEPTH, SEED_FLUSH_BYTES, SEED_STEP_BYTES},
};

/// What is left to copy at most, and whom each entry, and each step of a large file, is a sign of life to.
struct Course<'a> {
    budget: u32,
    alive: &'a dyn Fn(),
}

/// Copies `from` to `to`, which does not exist yet.
pub fn copy(from: &Path, to: &Path, alive: &dyn Fn()) -> Result<()> {
    copy_entry(from, to, MAX_TREE_DEPTH, &mut Course { budget: MAX_SEED_ENTRIES, alive })
}

/// Copies the content of the directory `from` into the directory `to`, and its mode and owner onto it.
pub fn copy_into(from: &Path, to: &Path, alive: &dyn Fn()) -> Result<()> {
    let mut course = Course { budget: MAX_SEED_ENTRIES, alive };
    let found = fs::symlink_metadata(from).map_err(Error::io("look at", from))?;
    copy_children(from, to, MAX_TREE_DEPTH, &mut course)?;
    dress(to, &found)
}

fn copy_entry(from: &Path, to: &Path, depth_left: u32, course: &mut Course<'_>) -> Result<()> {
    let out_of_bounds = || Error::Path {
        subject: from.display().to_string(),
        detail: "is too large to be copied: persist a smaller path",
    };
    course.budget = course.budget.checked_sub(1).ok_or_else(out_of_bounds)?;
    (course.alive)();
    let depth_left = depth_left.checked_sub(1).ok_or_else(out_of_bounds)?;
    let found = fs::symlink_metadata(from).map_err(Error::io("look at", from))?;
    if found.is_dir() {
        fs::create_dir(to).map_err(Error::io("create", to))?;
        copy_children(from, to, depth_left, course)?;
        dress(to, &found)
    } else if found.is_symlink() {
        let target = fs::read_link(from).map_err(Error::io("read", from))?;
        symlink(target, to).map_err(Error::io("create", to))?;
        lchown(to, Some(found.uid()), Some(found.gid())).map_err(Error::io("give away", to))
    } else if found.is_file() {
        let mut source = File::open(from).map_err(Error::io("open", from))?;
        let mut copy = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(to)
            .map_err(Error::io("create", to))?;
        copy_content(&mut source, &mut copy, course.alive).map_err(Error::io("copy to", to))?;
        dress(to, &found)
    } else {
        Ok(())
    }
}

/// In steps, each a sign of life. What was written is flushed every few steps: else all of a large file would wait for the flush at the
/// end, which gives no sign.
fn copy_content(source: &mut File, copy: &mut File, alive: &dyn Fn()) -> io::Result<()> {
    let mut unflushed_bytes = 0;
    loop {
        let copied_bytes = io::copy(&mut source.take(SEED_STEP_BYTES), copy)?;
        if copied_bytes == 0 {
            return Ok(());
        }
        alive();
        unflushed_bytes += copied_bytes;
        if unflushed_bytes >= SEED_FLUSH_BYTES {
            copy.sync_data()?;
            alive();
            unflushed_bytes = 0;
        }
    }
}

fn copy_children(from: &Path, to: &Path, depth_left: u32, course: &mut Course<'_>) -> Result<()> {
    for entry in fs::read_dir(from).map_err(Error::io("list", from))? {
        let name = entry.map_err(Error::io("list", from))?.file_name();
        copy_entry(&from.join(&name), &to.join(&name), depth_left, course)?;
    }
    Ok(())
}

/// Owner before mode: changing the owner clears set-user-id bits.
fn dress(path: &Path, like: &Metadata) -> Result<()> {
    chown(path, Some(like.uid()), Some(like.gid())).map_err(Error::io("give away", path))?;
    fs::set_permissions(path, fs::Permissions::from_mode(like.mode() & 0o7777))
        .map_err(Error::io("set the mode of", path))?;
    if let Ok(modified) = like.modified() {
        let times = FileTimes::new().set_modified(modified);
        File::open(path)
            .and_then(|file| file.set_times(times))
            .map_err(Error::io("set the time of", path))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_links_and_content_arrive() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        fs::create_dir_all(from.join("a/b")).unwrap();
        fs::write(from.join("a/file"), "content").unwrap();
        fs::set_permissions(from.join("a/file"), fs::Permissions::from_mode(0o640)).unwrap();
        fs::set_permissions(from.join("a/b"), fs::Permissions::from_mode(0o1777)).unwrap();
        symlink("/run/lock", from.join("lock")).unwrap();
        copy(&from, &to, &|| ()).unwrap();
        assert_eq!(fs::read_to_string(to.join("a/file")).unwrap(), "content");
        let mode = |name: &str| fs::metadata(to.join(name)).unwrap().mode() & 0o7777;
        assert_eq!((mode("a/file"), mode("a/b")), (0o640, 0o1777));
        assert_eq!(fs::read_link(to.join("lock")).unwrap(), Path::new("/run/lock"));
        let modified = |path: &Path| fs::metadata(path).unwrap().modified().unwrap();
        assert_eq!(modified(&to.join("a/file")), modified(&from.join("a/file")));
    }

    #[test]
    fn a_large_file_gives_a_sign_of_life_at_each_step() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        let content: Vec<u8> = (0..SEED_FLUSH_BYTES * 2 + 5).map(|at| (at % 251) as u8).collect();
        fs::write(&from, &content).unwrap();
        let signs = std::cell::Cell::new(0);
        copy(&from, &to, &|| signs.set(signs.get() + 1)).unwrap();
        assert_eq!(fs::read(&to).unwrap(), content);
        assert!(signs.get() > SEED_FLUSH_BYTES * 2 / SEED_STEP_BYTES, "{}", signs.get());
    }

    #[test]
    fn too_deep_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let deep: std::path::PathBuf = (0..70).map(|_| "d").collect();
        fs::create_dir_all(dir.path().join("from").join(deep)).unwrap();
        assert!(copy(&dir.path().join("from"), &dir.path().join("to"), &|| ()).is_err());
    }
}
