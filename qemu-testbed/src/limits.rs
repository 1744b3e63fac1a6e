//! Named limits of the testbed, each with the trouble that it stops.
//! Times are virtual seconds: what a machine with working KVM may take. [`crate::accelerator`] stretches them.

use std::time::Duration;

/// A machine that says nothing of what we wait for within this time has hung: power-on to a settled system.
pub const BOOT: Duration = Duration::from_secs(45);
/// A command in the guest that never comes back must not stall the whole run.
pub const COMMAND: Duration = Duration::from_secs(15);
/// Writing a whole release into a bank, reading it back included.
pub const INSTALL: Duration = Duration::from_secs(60);
/// QEMU answers a QMP command at once, or it is wedged.
pub const QMP: Duration = Duration::from_secs(5);
/// Memory and disk of a machine are copied within this time, or the host's disk is wedged.
pub const FORK: Duration = Duration::from_secs(30);
/// QEMU opens its sockets before the firmware runs; a host this slow would fail everywhere else.
pub const QEMU_START: Duration = Duration::from_secs(20);
/// The accelerator probe: firmware under a KVM that works greets in well under a second.
pub const PROBE: Duration = Duration::from_secs(4);
/// Between two looks at a state that announces itself by nothing but a new log line.
pub const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// A machine that has reached its stated end and does not reset within this time stays there.
pub const STANDSTILL: Duration = Duration::from_secs(3);

/// Resets between two quiet states: what three tries, three redirects and the counters of a loader need, and no loop.
pub const RESETS: usize = 12;
/// Memory of a machine: what a small gateway has.
pub const MACHINE_MEMORY_MIB: u32 = 512;
/// A guest that floods its serial line must not eat the host's memory; the file on disk keeps everything.
pub const TRANSCRIPT_BYTES: usize = 16 << 20;
/// As much of a log as helps in an error message.
pub const TAIL_LINES: usize = 25;
/// Where the update source of a release is served that has one: it must be known when the release is built. Below the ports that
/// Linux gives away by itself.
pub const SOURCE_PORT: u16 = 28_117;
/// A request head longer than this is no client of ours.
pub const REQUEST_HEAD_BYTES: usize = 16 << 10;
/// Bytes that the server hands out between two looks at its pace.
pub const SERVER_PIECE_BYTES: usize = 16 << 10;
/// A tty in canonical mode cuts longer lines (the kernel's `N_TTY_BUF_SIZE`).
pub const CONSOLE_LINE_BYTES: usize = 4000;
/// A log of QEMU that is longer has more to tell than a message can hold.
pub const QEMU_WORDS_BYTES: u64 = 1 << 20;

/// A board with U-Boot: from its first instruction, or from the death of a kernel with its watchdog armed, to the next word on its
/// serial line. Wall time: there is no KVM for it.
pub const BOARD_BOOT: Duration = Duration::from_secs(120);
/// Starts of a board until it must be quiet: three tries of a trial, six hopeless boots, and three redirects in between are far
/// fewer. More means that it spins.
pub const BOARD_STARTS: u32 = 24;

/// A tool of the benchmark that takes longer hangs: the slowest known, bsdiff, takes minutes for an image of 300 MB.
pub const BENCH_COMMAND: Duration = Duration::from_secs(30 * 60);
/// A server, a bus or a network of the benchmark is there at once, or never.
pub const BENCH_SERVICE_START: Duration = Duration::from_secs(10);
/// Between two looks at something that comes up.
pub const BENCH_LOOK_AGAIN: Duration = Duration::from_millis(20);
/// Runs under a held link or disk, and applies whose bytes are counted: they vary little, and each takes long.
pub const BENCH_SLOW_ROUNDS: usize = 3;
/// Where the benchmark serves. Below the ports that Linux gives away by itself.
pub const BENCH_PORT: u16 = 28_118;
/// The link that is held: a usual line to a branch office.
pub const BENCH_LINK_BITS_PER_SECOND: u64 = 80_000_000;
/// The disk that is held: an eMMC of a small device.
pub const BENCH_DISK_BYTES_PER_SECOND: u64 = 40_000_000;
/// What a bank has beyond the largest image: the table at its end, and what tools put there.
pub const BENCH_BANK_SPARE_BYTES: u64 = 16 << 20;
/// Images are compared in pieces of this size, so that the benchmark itself stays small.
pub const BENCH_PIECE_BYTES: usize = 1 << 20;
/// A head of a zchunk file that is longer is none.
pub const BENCH_HEAD_BYTES: u64 = 64 << 20;
/// The kernel needs a moment to take down the last process of a group.
pub const GROUP_REMOVALS: usize = 100;
/// Between two attempts.
pub const GROUP_PAUSE: Duration = Duration::from_millis(10);
