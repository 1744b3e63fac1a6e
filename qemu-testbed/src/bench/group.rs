//! Control groups: the CPU time of a command with everything it started, and a disk that is held to a rate.
//!
//! Knows both hierarchies: version 1 (Documentation/admin-guide/cgroup-v1) and version 2 (admin-guide/cgroup-v2.rst).
//! A group lasts for one measurement. Where none can be made, CPU time comes from `getrusage` and disks are not held.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use crate::{
    error::{Error, Result},
    limits,
};

/// Where this host has its groups.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Groups {
    /// Version 1 with CPU accounting.
    accounting: Option<PathBuf>,
    /// Version 1 with block devices.
    block: Option<PathBuf>,
    /// Version 2.
    unified: Option<PathBuf>,
}

/// A block device may be written at this rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Its numbers.
    major: u64,
    minor: u64,
    /// The rate.
    bytes_per_second: u64,
}

/// One group.
#[derive(Debug)]
pub struct Group {
    folder: PathBuf,
    root: PathBuf,
    version: Version,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

/// A device under version 1 that is held until this is dropped.
#[derive(Debug)]
pub struct Held {
    file: PathBuf,
    rate: Rate,
}

impl Groups {
    /// Those of this host.
    pub fn find() -> Result<Self> {
        let mounts =
            fs::read_to_string("/proc/self/mounts").map_err(Error::io("read", "/proc/self/mounts"))?;
        Ok(Self::of(&mounts))
    }

    fn of(mounts: &str) -> Self {
        let mut groups = Groups::default();
        for line in mounts.lines() {
            let mut words = line.split_whitespace().skip(1);
            let (Some(folder), Some(kind), Some(options)) = (words.next(), words.next(), words.next()) else {
                continue;
            };
            let has = |controller| options.split(',').any(|option| option == controller);
            if kind == "cgroup2" {
                groups.unified = Some(folder.into());
            }
            if kind == "cgroup" && has("cpuacct") {
                groups.accounting = Some(folder.into());
            }
            if kind == "cgroup" && has("blkio") {
                groups.block = Some(folder.into());
            }
        }
        groups
    }

    /// A new group, for commands under this rate if there is one. None where groups are not ours to make.
    #[must_use]
    pub fn make(&self, rate: Option<Rate>) -> Option<Group> {
        let (root, version) = match (&self.accounting, &self.unified) {
            (Some(root), _) => (root, Version::One),
            (None, Some(root)) => (root, Version::Two),
            (None, None) => return None,
        };
        let folder = root.join(format!("roro-bench-{}", std::process::id()));
        fs::create_dir(&folder).ok()?;
        let group = Group { folder, root: root.clone(), version };
        if let (Version::Two, Some(rate)) = (version, rate) {
            let limit = format!("{}:{} wbps={}", rate.major, rate.minor, rate.bytes_per_second);
            fs::write(group.folder.join("io.max"), limit).ok()?;
        }
        Some(group)
    }

    /// Prepares to hold a device. `Err` says why this host cannot.
    pub fn hold(&self, rate: Rate) -> Result<Option<Held>, &'static str> {
        if let Some(block) = &self.block {
            // At the root: version 1 counts what the page cache writes back as the kernel's own, which is in no other group.
            let file = block.join("blkio.throttle.write_bps_device");
            let held = Held { file, rate };
            return match held.set(rate.bytes_per_second) {
                Ok(()) => Ok(Some(held)),
                Err(_) => Err("the kernel does not hold block devices"),
            };
        }
        let Some(unified) = &self.unified else { return Err("there are no control groups") };
        fs::write(unified.join("cgroup.subtree_control"), "+io +memory")
            .map(|()| None)
            .map_err(|_| "control groups do not hold block devices here")
    }
}

impl Rate {
    /// A rate for the device node `device`.
    pub fn of(device: &Path, bytes_per_second: u64) -> Result<Self> {
        let numbers = fs::metadata(device).map_err(Error::io("look at", device))?.rdev();
        Ok(Rate {
            major: nix::sys::stat::major(numbers),
            minor: nix::sys::stat::minor(numbers),
            bytes_per_second,
        })
    }
}

impl Group {
    /// The file that takes the number of a process which joins.
    #[must_use]
    pub fn door(&self) -> PathBuf {
        self.folder.join("cgroup.procs")
    }

    /// Takes a process in that runs already.
    pub fn adopt(&self, process: u32) -> Result<()> {
        fs::write(self.door(), process.to_string()).map_err(Error::io("write", self.door()))
    }

    /// CPU seconds of all that ever ran in it.
    pub fn cpu_seconds(&self) -> Result<f64> {
        let (name, read): (_, fn(&str) -> Option<f64>) = match self.version {
            Version::One => ("cpuacct.usage", nanoseconds),
            Version::Two => ("cpu.stat", usage),
        };
        let file = self.folder.join(name);
        let text = fs::read_to_string(&file).map_err(Error::io("read", &file))?;
        read(&text).ok_or_else(|| Error::io("understand", &file)(std::io::ErrorKind::InvalidData.into()))
    }
}

fn nanoseconds(text: &str) -> Option<f64> {
    text.trim().parse::<f64>().ok().map(|nanoseconds| nanoseconds / 1e9)
}

fn usage(text: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix("usage_usec "))?;
    line.trim().parse::<f64>().ok().map(|microseconds| microseconds / 1e6)
}

impl Drop for Group {
    fn drop(&mut self) {
        // A service that was taken in lives on, and a group with processes cannot be removed.
        for process in fs::read_to_string(self.door()).unwrap_or_default().lines() {
            fs::write(self.root.join("cgroup.procs"), process).ok();
        }
        // The kernel may still be taking down the last process.
        for _ in 0..limits::GROUP_REMOVALS {
            if fs::remove_dir(&self.folder).is_ok() {
                return;
            }
            std::thread::sleep(limits::GROUP_PAUSE);
        }
    }
}

impl Held {
    fn set(&self, bytes_per_second: u64) -> std::io::Result<()> {
        fs::write(&self.file, format!("{}:{} {bytes_per_second}", self.rate.major, self.rate.minor))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // Zero lifts it.
        self.set(0).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_hierarchies_are_found() {
        let old = "tmpfs /sys/fs/cgroup tmpfs rw,mode=755 0 0\n\
                   cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,cpu,cpuacct 0 0\n\
                   cgroup /sys/fs/cgroup/blkio cgroup rw,relatime,blkio 0 0\n\
                   cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        let wanted = Groups {
            accounting: Some("/sys/fs/cgroup/cpu,cpuacct".into()),
            block: Some("/sys/fs/cgroup/blkio".into()),
            unified: Some("/sys/fs/cgroup/unified".into()),
        };
        assert_eq!(Groups::of(old), wanted);
        let new = "cgroup2 /sys/fs/cgroup cgroup2 rw,nosuid 0 0\n";
        let wanted = Groups { unified: Some("/sys/fs/cgroup".into()), ..Groups::default() };
        assert_eq!(Groups::of(new), wanted);
    }

    #[test]
    fn cpu_time_is_read_in_both_versions() {
        assert_eq!(nanoseconds("2500000000\n"), Some(2.5));
        assert_eq!(usage("usage_usec 1500000\nuser_usec 1\nsystem_usec 2\n"), Some(1.5));
        assert_eq!(usage("user_usec 1\n"), None);
    }
}
