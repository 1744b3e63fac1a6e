//! Every bound of early boot, with the attack or accident that it stops.

use std::time::Duration;

/// How long the disk may take to appear: a slow USB bridge needs ten seconds, a dead one must not hold the boot for ever.
pub const DISK_WAIT: Duration = Duration::from_secs(20);
/// How long the kernel may take to show the partitions of a table that it can read, before early boot adds those of one that only we
/// can read: a disk is there a moment before its partitions are.
pub const PARTITION_WAIT: Duration = Duration::from_secs(3);
/// Longest sleep between two looks at the disks, when no event of the kernel ends it.
pub const DISK_POLL: Duration = Duration::from_millis(250);
/// Pause before a recovery entry is started: time to read why, and to pull the plug.
pub const RECOVERY_PAUSE: Duration = Duration::from_secs(10);
/// Pause before a machine on which no bank can be booted tries once more: a cause that goes away heals, one that stays neither wears
/// out the drive nor floods the log of who collects it.
pub const STOP_PAUSE: Duration = Duration::from_secs(5 * 60);
/// How often the message is said again meanwhile, for a person who plugs in a serial cable later.
pub const STOP_MESSAGE_EVERY: Duration = Duration::from_secs(60);
/// Pause before the reset after a failure that no record counts: without it a machine with a broken disk would spin.
pub const UNCOUNTED_PAUSE: Duration = Duration::from_secs(30);
/// Longest time between two signs of life to the watchdog in a pause.
pub const PAUSE_STEP: Duration = Duration::from_secs(5);
/// Shortest time between two signs of life: a tree of small files must not become a system call for each.
pub const ALIVE_EVERY: Duration = Duration::from_secs(1);
/// Seconds until the watchdog bites: more than any single step without a sign of life takes on a slow drive.
pub const WATCHDOG_SECONDS: i32 = 60;
/// Bytes of `/proc/cmdline`; the kernel's own limit on x86 is 2048.
pub const MAX_CMDLINE_BYTES: u64 = 16 << 10;
/// Bytes of `/modules/load`.
pub const MAX_MODULE_LIST_BYTES: u64 = 64 << 10;
/// Bytes of `/usr/lib/roro/state.list`.
pub const MAX_STATE_LIST_BYTES: u64 = 64 << 10;
/// Lines of `/usr/lib/roro/state.list`: each is a mount.
pub const MAX_STATE_LINES: usize = 256;
/// Disks that are looked at.
pub const MAX_DISKS: usize = 64;
/// Files, directories and links that are copied from the image into one persisted or tmpfs path.
pub const MAX_SEED_ENTRIES: u32 = 65_536;
/// Things of one name on the state partition that are set aside: a service that damages its path at each boot must not fill it.
pub const MAX_SET_ASIDE: u32 = 9;
/// Bytes of a file that are copied between two signs of life: the slowest cards still write that in a second.
pub const SEED_STEP_BYTES: u64 = 1 << 20;
/// Bytes of a file that may wait to be written: a card that writes a MiB in ten seconds is no reason for the watchdog to bite.
pub const SEED_FLUSH_BYTES: u64 = 4 << 20;
/// Depth of a tree that is copied or deleted: stops a damaged file system that contains itself.
pub const MAX_TREE_DEPTH: u32 = 64;
/// Bytes of one read while a whole image is checked.
pub const CHECK_BUFFER_BYTES: usize = 1 << 20;
/// Bytes of one kernel log message; the kernel refuses more than about 1000.
pub const MAX_KMSG_BYTES: usize = 900;
/// Bytes of a configuration file in the initrd.
pub const MAX_SMALL_FILE_BYTES: u64 = 64 << 10;
/// Bytes of a small file in `/proc` or `/sys`.
pub const MAX_SYSFS_BYTES: u64 = 4096;
