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
