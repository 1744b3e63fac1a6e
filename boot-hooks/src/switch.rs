//! Leaves the initrd: its mounts move into the root, its memory is freed, and the root's init takes this process over.
//!
//! Source: `switch_root(8)` of util-linux and `Documentation/filesystems/ramfs-rootfs-initramfs.rst` of Linux. Only files on the
//! initrd's own file system are deleted.

use std::{
    convert::Infallible,
    env, fs,
    os::unix::{fs::MetadataExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::Command,
};

use nix::{
    sys::statfs::{FsType, TMPFS_MAGIC, statfs},
    unistd::{chdir, chroot},
};

use crate::{
    error::{Error, Result},
    limits::MAX_TREE_DEPTH,
    linux,
};

/// `RAMFS_MAGIC` of `linux/magic.h`.
const RAMFS_MAGIC: FsType = FsType(0x8584_58f6);
/// Mounts that go along.
const MOVED: [&str; 4] = ["dev", "proc", "sys", "run"];

/// Fails before anything was changed if the root cannot take over.
pub fn check(root: &Path, init: &Path) -> Result<()> {
    let below = init.strip_prefix("/").unwrap_or(init);
    let program = root.join(below);
    fs::symlink_metadata(&program).map_err(Error::io("find init", &program))?;
    for name in MOVED {
        let target = root.join(name);
        fs::metadata(&target).map_err(Error::io("find mount point", &target))?;
    }
    Ok(())
}

/// Becomes `init` of `root`. Returns only on failure.
pub fn switch(root: &Path, init: &Path) -> Result<Infallible> {
    for name in MOVED {
        let target = root.join(name);
        linux::move_mount(&Path::new("/").join(name), &target)
            .map_err(Error::io("move mount to", &target))?;
    }
    chdir(root).map_err(Error::io("enter", root))?;
    free_initrd();
    linux::move_mount(Path::new("."), Path::new("/")).map_err(Error::io("move the root from", root))?;
    chroot(".").map_err(Error::io("change the root to", root))?;
    chdir("/").map_err(Error::io("enter", "/"))?;
    // `exec` gives the new program the signal mask and dispositions that a process starts with.
    let error = Command::new(init).args(env::args_os().skip(1)).exec();
    Err(Error::io("run", init)(error))
}

/// Whether `/` is the kernel's initramfs: nothing but that may be deleted.
pub fn root_is_initramfs() -> bool {
    statfs("/").is_ok_and(|found| [RAMFS_MAGIC, TMPFS_MAGIC].contains(&found.filesystem_type()))
}

/// Memory that stays taken is a pity, not a reason: errors are passed over.
fn free_initrd() {
    if let (true, Ok(root)) = (root_is_initramfs(), fs::symlink_metadata("/")) {
        delete_below(&PathBuf::from("/"), root.dev(), MAX_TREE_DEPTH);
    }
}

fn delete_below(directory: &Path, device: u64, depth_left: u32) {
    let (Some(depth_left), Ok(entries)) = (depth_left.checked_sub(1), fs::read_dir(directory)) else {
        return;
    };
    for path in entries.flatten().map(|entry| entry.path()) {
        match fs::symlink_metadata(&path) {
            Ok(found) if found.dev() != device => (),
            Ok(found) if found.is_dir() => {
                delete_below(&path, device, depth_left);
                let _left_if_mounted_on = fs::remove_dir(&path);
            }
            Ok(_) => {
                let _left = fs::remove_file(&path);
            }
            Err(_) => (),
        }
    }
}
