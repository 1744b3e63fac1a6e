//! The kernel, as early boot needs it: mounts, modules, ioctls, events, and the end of the machine.
//!
//! The only module of this crate with `unsafe`. Everything here is a thin voice: no decision, no retry.

pub mod device_mapper;
pub mod uevent;

use std::{
    convert::Infallible,
    ffi::CStr,
    fs::File,
    io,
    os::fd::{AsFd, AsRawFd},
    path::Path,
};

use nix::{
    libc,
    mount::{MsFlags, mount},
    sys::reboot::{RebootMode, reboot},
};

/// Request codes of `linux/watchdog.h` and `linux/fs.h`.
mod calls {
    use nix::libc;

    nix::ioctl_read!(wdioc_getsupport, b'W', 0, super::WatchdogInfo);
    nix::ioctl_readwrite!(wdioc_settimeout, b'W', 6, libc::c_int);
    nix::ioctl_read!(wdioc_keepalive, b'W', 5, libc::c_int);
    nix::ioctl_none!(blkflsbuf, 0x12, 97);
    nix::ioctl_write_ptr_bad!(blkpg, nix::request_code_none!(0x12, 105), super::PartitionCall);
    nix::ioctl_read!(fs_ioc_getflags, b'f', 1, libc::c_long);
    nix::ioctl_write_ptr!(fs_ioc_setflags, b'f', 2, libc::c_long);
}

/// `struct watchdog_info` of `linux/watchdog.h`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct WatchdogInfo {
    options: u32,
    firmware_version: u32,
    identity: [u8; 32],
}

/// `struct blkpg_partition` of `linux/blkpg.h`: bytes on the disk.
#[repr(C)]
struct NewPartition {
    start: libc::c_longlong,
    length: libc::c_longlong,
    number: libc::c_int,
    names: [u8; 128],
}

/// `struct blkpg_ioctl_arg`.
#[repr(C)]
struct PartitionCall {
    deed: libc::c_int,
    flags: libc::c_int,
    data_bytes: libc::c_int,
    data: *const NewPartition,
}

/// `BLKPG_ADD_PARTITION`.
const ADD_PARTITION: libc::c_int = 1;

/// `WDIOF_MAGICCLOSE`: closing the device does not stop it.
const STAYS_ON: u32 = 0x0100;

impl WatchdogInfo {
    /// What the driver calls itself; printable ASCII only.
    #[must_use]
    pub fn identity(&self) -> String {
        let letters = self.identity.iter().take_while(|byte| **byte != 0);
        letters
            .filter(|byte| byte.is_ascii_graphic() || **byte == b' ')
            .map(|byte| char::from(*byte))
            .collect()
    }

    /// Whether it runs on when this process closes it.
    #[must_use]
    pub fn stays_on_when_closed(&self) -> bool {
        self.options & STAYS_ON != 0
    }
}

/// `FS_IMMUTABLE_FL`: efivarfs sets it on variables that firmware may not survive the loss of.
const IMMUTABLE: libc::c_long = 0x10;

/// How a file system is mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// For reading only.
    ReadOnly,
    /// For reading and writing.
    ReadWrite,
}

/// What may be done with files of a mounted file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// Programs, device nodes and set-user-id bits count: the root.
    Full,
    /// Device nodes count: `/dev`.
    Devices,
    /// Set-user-id bits and device nodes do not count.
    Data,
    /// Nothing there is even a program.
    Kernel,
}

/// Mounts a file system.
pub fn mount_fs(
    source: &Path,
    target: &Path,
    kind: &str,
    access: Access,
    trust: Trust,
    options: &str,
) -> io::Result<()> {
    let mut flags = match trust {
        Trust::Full => MsFlags::empty(),
        Trust::Devices => MsFlags::MS_NOSUID,
        Trust::Data => MsFlags::MS_NOSUID | MsFlags::MS_NODEV,
        Trust::Kernel => MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC,
    };
    if access == Access::ReadOnly {
        flags |= MsFlags::MS_RDONLY;
    }
    Ok(mount(Some(source), target, Some(kind), flags, Some(options))?)
}

/// Makes `source` appear at `target` as well.
pub fn bind(source: &Path, target: &Path) -> io::Result<()> {
    Ok(mount(Some(source), target, None::<&str>, MsFlags::MS_BIND, None::<&str>)?)
}

/// Moves a mount.
pub fn move_mount(from: &Path, to: &Path) -> io::Result<()> {
    Ok(mount(Some(from), to, None::<&str>, MsFlags::MS_MOVE, None::<&str>)?)
}

/// Loads a kernel module. One that is there already is fine, and so is a driver that finds nothing to drive.
pub fn load_module(module: &File, parameters: &CStr) -> io::Result<()> {
    match nix::kmod::finit_module(module, parameters, nix::kmod::ModuleInitFlags::empty()) {
        Ok(()) | Err(nix::Error::EEXIST | nix::Error::ENODEV) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Restarts the machine at once; returns only when the kernel refuses.
pub fn restart() -> io::Result<Infallible> {
    Ok(reboot(RebootMode::RB_AUTOBOOT)?)
}

/// What an opened watchdog is.
pub fn watchdog_info(watchdog: &File) -> io::Result<WatchdogInfo> {
    let mut info = WatchdogInfo::default();
    // SAFETY: WDIOC_GETSUPPORT writes one `watchdog_info`, which lives until the call returns; the descriptor is open.
    unsafe { calls::wdioc_getsupport(watchdog.as_raw_fd(), &mut info) }?;
    Ok(info)
}

/// Sets the seconds after which an opened watchdog bites.
pub fn set_watchdog_timeout(watchdog: &File, seconds: i32) -> io::Result<()> {
    let mut seconds: libc::c_int = seconds;
    // SAFETY: WDIOC_SETTIMEOUT reads and writes one int, which lives until the call returns; the descriptor is open.
    unsafe { calls::wdioc_settimeout(watchdog.as_raw_fd(), &mut seconds) }?;
    Ok(())
}

/// Tells an opened watchdog that all is well.
pub fn keep_watchdog_alive(watchdog: &File) -> io::Result<()> {
    let mut unused: libc::c_int = 0;
    // SAFETY: WDIOC_KEEPALIVE takes no argument; the pointer is valid all the same; the descriptor is open.
    unsafe { calls::wdioc_keepalive(watchdog.as_raw_fd(), &mut unused) }?;
    Ok(())
}

/// Drops what is kept in memory of a block device.
pub fn drop_cached(device: &File) -> io::Result<()> {
    // SAFETY: BLKFLSBUF takes no argument; the descriptor is open.
    unsafe { calls::blkflsbuf(device.as_raw_fd()) }?;
    Ok(())
}

/// Makes a partition of an opened disk known, which is only a word between us and the kernel: nothing is written.
pub fn add_partition(disk: &File, number: u32, start_bytes: u64, bytes: u64) -> io::Result<()> {
    let out_of_range = |_| io::Error::from(io::ErrorKind::InvalidInput);
    let partition = NewPartition {
        start: start_bytes.try_into().map_err(out_of_range)?,
        length: bytes.try_into().map_err(out_of_range)?,
        number: number.try_into().map_err(out_of_range)?,
        names: [0; 128],
    };
    let data_bytes = size_of::<NewPartition>().try_into().map_err(out_of_range)?;
    let call = PartitionCall { deed: ADD_PARTITION, flags: 0, data_bytes, data: &raw const partition };
    // SAFETY: BLKPG reads one `blkpg_ioctl_arg` and the `blkpg_partition` behind it, both of which live until the call returns; the
    // descriptor is open.
    unsafe { calls::blkpg(disk.as_raw_fd(), &raw const call) }?;
    Ok(())
}

/// Takes the immutable flag off an efivarfs file, if it is there.
pub fn clear_immutable(file: &File) -> io::Result<()> {
    let mut flags: libc::c_long = 0;
    // SAFETY: FS_IOC_GETFLAGS writes at most one long, which lives until the call returns; the descriptor is open.
    unsafe { calls::fs_ioc_getflags(file.as_fd().as_raw_fd(), &mut flags) }?;
    if flags & IMMUTABLE != 0 {
        flags &= !IMMUTABLE;
        // SAFETY: FS_IOC_SETFLAGS reads at most one long, which lives until the call returns; the descriptor is open.
        unsafe { calls::fs_ioc_setflags(file.as_fd().as_raw_fd(), &flags) }?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watchdog_says_what_it_is() {
        assert_eq!(size_of::<WatchdogInfo>(), 40);
        let mut info = WatchdogInfo { options: 0x8180, ..WatchdogInfo::default() };
        info.identity[..9].copy_from_slice(b"i\"6300\n B");
        assert_eq!((info.identity().as_str(), info.stays_on_when_closed()), ("i\"6300 B", true));
        info.options = 0x80;
        assert!(!info.stays_on_when_closed());
    }
}
