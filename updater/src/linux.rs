//! System calls, through `nix`. The only module of this crate with `unsafe`; each has a SAFETY line.

use std::{
    fs::{File, OpenOptions},
    io,
    os::{fd::AsRawFd, unix::process::ExitStatusExt},
    path::Path,
    process::ExitStatus,
};

use nix::{
    fcntl::{PosixFadviseAdvice, posix_fadvise},
    sys::{
        mman::{MmapAdvise, madvise},
        reboot::RebootMode,
        signal::Signal,
    },
    unistd::Pid,
};

use crate::ports::Access;

mod ioctl {
    //! linux/fs.h: BLKFLSBUF is _IO(0x12, 97); FS_IOC_GETFLAGS is _IOR('f', 1, long), FS_IOC_SETFLAGS is _IOW('f', 2, long),
    //! and both move an int.
    nix::ioctl_none!(blkflsbuf, 0x12, 97);
    nix::ioctl_read!(fs_ioc_getflags, b'f', 1, nix::libc::c_long);
    nix::ioctl_write_ptr!(fs_ioc_setflags, b'f', 2, nix::libc::c_long);
}
const FS_IMMUTABLE_FL: nix::libc::c_long = 0x10;

/// Whether a file that is missing may be created there. A lost device, or a lost link to one, must not become a regular file
/// in a file system made of memory.
#[must_use]
pub fn may_create(path: &Path) -> bool {
    !["/dev", "/run", "/proc", "/sys"].iter().any(|made_of_memory| path.starts_with(made_of_memory))
}

/// Makes a new or renamed file findable after a power cut.
pub fn sync_directory_of(path: &Path) -> io::Result<()> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) | None => Path::new("."),
    };
    File::open(directory)?.sync_all()
}

/// Asks the kernel to drop the clean pages of a file. Advice only: a file system in memory keeps them.
pub fn drop_page_cache(file: &File) -> io::Result<()> {
    posix_fadvise(file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED).map_err(io::Error::from)
}

/// Drops the buffers of a block device. Only root may; for others [`drop_page_cache`] has to do.
pub fn flush_block_buffers(file: &File) -> io::Result<()> {
    // SAFETY: the descriptor is open for the whole call, and the request takes no argument.
    match unsafe { ioctl::blkflsbuf(file.as_raw_fd()) } {
        Ok(_) | Err(nix::errno::Errno::EACCES | nix::errno::Errno::EPERM) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Opens a device for reading, or for writing, past its cache.
pub fn open_direct(path: &Path, access: Access) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let writes = access == Access::Write;
    OpenOptions::new().read(!writes).write(writes).custom_flags(nix::libc::O_DIRECT).open(path)
}

/// Asks for memory in few large pieces, which must be aligned to such a piece. Advice only: not every system has them.
pub fn prefer_huge_pages(memory: &mut [u8]) {
    let start = std::ptr::NonNull::from(&mut *memory).cast();
    // SAFETY: this advice changes neither what the memory holds nor whether it can be used.
    let _ = unsafe { madvise(start, memory.len(), MmapAdvise::MADV_HUGEPAGE) };
}

/// Makes whole blocks zero without writing them, where that can be done. What a file has behind its end stays a hole.
pub fn zero_range(file: &File, offset: u64, bytes: u64) -> io::Result<()> {
    use nix::fcntl::{FallocateFlags, fallocate};
    let too_large = |_| io::Error::from(io::ErrorKind::InvalidInput);
    let (offset, bytes) =
        (i64::try_from(offset).map_err(too_large)?, i64::try_from(bytes).map_err(too_large)?);
    let keep = FallocateFlags::FALLOC_FL_KEEP_SIZE;
    // Without a way to free them, blocks may still be zeroed by the device itself.
    fallocate(file, FallocateFlags::FALLOC_FL_PUNCH_HOLE | keep, offset, bytes)
        .or_else(|_| fallocate(file, FallocateFlags::FALLOC_FL_ZERO_RANGE | keep, offset, bytes))
        .map_err(io::Error::from)
}

/// Gives memory back to the system as soon as it is not used: without it the C library keeps the largest buffers for later ones, which here are
/// of another size, and an install holds twice what it needs.
pub fn give_memory_back() {
    #[cfg(target_env = "gnu")]
    {
        const MMAP_FROM_BYTES: i32 = 256 << 10;
        const MOST_ARENAS: i32 = 2;
        // SAFETY: both only set a number of the allocator, and no other thread runs yet.
        unsafe {
            nix::libc::mallopt(nix::libc::M_MMAP_THRESHOLD, MMAP_FROM_BYTES);
            nix::libc::mallopt(nix::libc::M_ARENA_MAX, MOST_ARENAS);
        }
    }
}

/// From now on all threads of this process wait until nobody else wants the disk or the processor.
pub fn go_last() -> io::Result<()> {
    const IDLE_CLASS: nix::libc::c_int = 3;
    of_all_threads(IDLE_CLASS << 13, 19)
}

/// From now on all threads of this process take their turn.
pub fn go_in_turn() -> io::Result<()> {
    of_all_threads(0, 0)
}

/// linux/ioprio.h: the class in the upper bits, of a thread by its id.
fn of_all_threads(io_priority: nix::libc::c_int, nice: nix::libc::c_int) -> io::Result<()> {
    const WHO_PROCESS: nix::libc::c_int = 1;
    let mut result = Ok(());
    for entry in std::fs::read_dir("/proc/self/task")? {
        let Some(thread) = entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        // SAFETY: both calls take numbers only; a thread that has ended meanwhile is an error and nothing else.
        let failed = unsafe {
            nix::libc::syscall(nix::libc::SYS_ioprio_set, WHO_PROCESS, thread, io_priority) < 0
                || nix::libc::setpriority(nix::libc::PRIO_PROCESS, thread, nice) < 0
        };
        if failed {
            result = Err(io::Error::last_os_error());
        }
    }
    result
}

/// Room in a file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FreeSpace {
    /// For users without privileges.
    pub free_bytes: u64,
    /// All of it.
    pub total_bytes: u64,
}

/// How much room the file system has in which the path lies.
pub fn free_space(path: &Path) -> io::Result<FreeSpace> {
    let found = nix::sys::statvfs::statvfs(path)?;
    let block_bytes = found.fragment_size();
    Ok(FreeSpace {
        free_bytes: found.blocks_available().saturating_mul(block_bytes),
        total_bytes: found.blocks().saturating_mul(block_bytes),
    })
}

/// Mounts the kernel's store of last words, where nobody has done so. Refused without privileges, or where it is mounted already.
pub fn mount_pstore(at: &Path) -> io::Result<()> {
    use nix::mount::MsFlags;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    nix::mount::mount(Some("pstore"), at, Some("pstore"), flags, None::<&str>).map_err(io::Error::from)
}

/// Takes away the immutable flag that efivarfs puts on variables. A file system without flags is fine.
pub fn clear_immutable(file: &File) -> io::Result<()> {
    let mut flags: nix::libc::c_long = 0;
    // SAFETY: the descriptor is open, and `flags` has room for the long of which the kernel writes an int.
    match unsafe { ioctl::fs_ioc_getflags(file.as_raw_fd(), &raw mut flags) } {
        Ok(_) => (),
        Err(nix::errno::Errno::ENOTTY | nix::errno::Errno::EOPNOTSUPP) => return Ok(()),
        Err(error) => return Err(error.into()),
    }
    if flags & FS_IMMUTABLE_FL == 0 {
        return Ok(());
    }
    flags &= !FS_IMMUTABLE_FL;
    // SAFETY: as above; the kernel only reads.
    unsafe { ioctl::fs_ioc_setflags(file.as_raw_fd(), &raw const flags) }.map(|_| ()).map_err(io::Error::from)
}

/// Flushes all file systems and resets the machine at once, without asking the services.
pub fn reset() -> io::Result<()> {
    nix::unistd::sync();
    match nix::sys::reboot::reboot(RebootMode::RB_AUTOBOOT) {
        Ok(never) => match never {},
        Err(error) => Err(error.into()),
    }
}

/// Flushes all file systems.
pub fn sync_all() {
    nix::unistd::sync();
}

/// Kills a process group that we started.
pub fn kill_group(leader: u32) {
    if let Ok(leader) = i32::try_from(leader) {
        // It may have ended by itself meanwhile.
        let _ = nix::sys::signal::killpg(Pid::from_raw(leader), Signal::SIGKILL);
    }
}

/// How a process ended, for people.
#[must_use]
pub fn describe_exit(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit {code}"),
        (None, Some(signal)) => format!("killed by signal {signal}"),
        (None, None) => "ended in an unknown way".into(),
    }
}

/// Highest resident memory of this process in KiB, from /proc; 0 where there is none.
#[must_use]
pub fn peak_rss_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .and_then(|rest| rest.split_whitespace().next())
        .and_then(|kib| kib.parse().ok())
        .unwrap_or(0)
}

/// A lock on a file, given back when it is dropped or the process ends.
#[derive(Debug)]
pub struct FileLock(#[expect(dead_code, reason = "held for its drop")] nix::fcntl::Flock<File>);

/// Whether the lock was free.
#[derive(Debug)]
pub enum LockAttempt {
    /// It is ours now.
    Taken(FileLock),
    /// Somebody has it; their process id as the file says.
    HeldBy(String),
}

/// Takes the lock without waiting, and notes our process id in the file.
pub fn try_lock(path: &Path) -> io::Result<LockAttempt> {
    use std::io::Write as _;
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
    match nix::fcntl::Flock::lock(file, nix::fcntl::FlockArg::LockExclusiveNonblock) {
        Ok(mut lock) => {
            lock.set_len(0)?;
            writeln!(lock, "{}", std::process::id())?;
            Ok(LockAttempt::Taken(FileLock(lock)))
        }
        Err((_, nix::errno::Errno::EWOULDBLOCK)) => {
            let holder = std::fs::read_to_string(path).unwrap_or_default();
            let holder = holder.trim();
            Ok(LockAttempt::HeldBy(if holder.is_empty() { "unknown".into() } else { holder.into() }))
        }
        Err((_, error)) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_lock_names_the_holder() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let first = try_lock(&path).unwrap();
        assert!(matches!(first, LockAttempt::Taken(_)));
        match try_lock(&path).unwrap() {
            LockAttempt::HeldBy(holder) => assert_eq!(holder, std::process::id().to_string()),
            LockAttempt::Taken(_) => panic!("taken twice"),
        }
        drop(first);
        assert!(matches!(try_lock(&path).unwrap(), LockAttempt::Taken(_)));
    }

    #[test]
    fn memory_is_measured() {
        assert!(peak_rss_kib() > 100);
    }
}
