//! Every bound of the agent, with the accident or attack that it stops. Bounds on formats are in `bank_format::limits`.

use std::time::Duration;

/// Bytes of the first request: the head of an ordinary bundle in one round trip, and not much that is of no use.
pub const PROBE_BYTES: u64 = 8 << 10;
/// Bytes of one range request: a torn connection costs at most the frame in flight, and no server is held for ever.
pub const MAX_RANGE_BYTES: u64 = 32 << 20;
/// Bytes that are fetched and thrown away rather than asking twice: a round trip costs more than that.
pub const MAX_RANGE_GAP_BYTES: u64 = 16 << 10;
/// Bytes read at once from a server, a bundle or a bank.
pub const BUFFER_BYTES: usize = 64 << 10;
/// Bytes that are copied from the active bank at once.
pub const COPY_BYTES: usize = 1 << 20;
/// Bytes of the active bank that are read at once for a patch, which uses little pieces that lie close together.
pub const BASE_BUFFER_BYTES: usize = 512 << 10;
/// Bytes between two such pieces that are read and not used, rather than reading twice.
pub const BASE_GAP_BYTES: u64 = 16 << 10;
/// Pieces of a patch that are sorted at once, by where they lie: it bounds the memory, 32 bytes for each.
pub const PIECES_AT_ONCE: usize = 64 << 10;
/// Bytes of the base that a patch may read, and how many more for each byte that it makes: stops one that jumps to and fro for hours.
pub const BASE_READS_BYTES: usize = 64 << 20;
/// As above.
pub const BASE_READS_PER_BYTE: usize = 1024;
/// The most that making a patch may hold: stops one that unpacks eight large blocks of the base. Two blocks of a kernel need 26 MiB.
pub const MAX_PATCH_HELD_BYTES: usize = 32 << 20;
/// A tail with a larger table than so many times that of the new image is none of ours: stops one that fills the memory.
pub const TAIL_TABLE_FACTOR: u64 = 4;
/// And so many bytes on top, for small images.
pub const TAIL_TABLE_BYTES: u64 = 64 << 10;
/// The longest range that is asked for ahead of its turn: for longer ones a round trip is nothing, and servers close connections that wait.
pub const MAX_AHEAD_BYTES: u64 = 1 << 20;
/// Bytes of what is unpacked, hashed or packed at one time: it bounds the memory. What is larger is worked on alone.
pub const UNDER_WAY_BYTES: usize = 8 << 20;
/// Buffers of at most [`COPY_BYTES`] that are kept to be used again.
pub const MAX_SPARE_BUFFERS: usize = 8;
/// Work that holds fewer bytes than that takes less time than to make a thread for it.
pub const THREAD_BYTES: usize = 64 << 10;
/// Threads that compute: more hold more memory, and the disk is slower than four.
pub const MAX_THREADS: usize = 4;
/// Chunks that are looked at to see whether a bank of which nothing is known is worth a look at all of them.
pub const SAMPLES: usize = 32;
/// It is worth it if one in so many lies there: to read it all takes as long as to copy it.
pub const LEAST_SAMPLES: usize = 8;
/// The lowest rate that an install may be held to: at a lower one it never ends.
pub const MIN_RATE_BYTES: u64 = 16 << 10;
/// What may be taken at once before the rate counts.
pub const MAX_BURST: Duration = Duration::from_millis(20);
/// How often an install looks whether its limits have changed.
pub const THROTTLE_INTERVAL: Duration = Duration::from_secs(1);
/// Requests that wait for their answers while one is read: a round trip costs a slow link nothing then.
pub const MAX_REQUESTS_AHEAD: usize = 3;
/// Bytes that are gathered before they are written to a device past its cache, and the unit in which they are read.
pub const DIRECT_BYTES: usize = 2 << 20;
/// Fewer bytes than that are left to the cache: each write past it waits for the device.
pub const LEAST_DIRECT_BYTES: usize = 128 << 10;
/// Reads of fewer bytes use the cache, which reads ahead: patches go to and fro in small steps.
pub const LEAST_DIRECT_READ_BYTES: usize = 16 << 10;
/// Bytes read at once while a bank is audited.
pub const AUDIT_BUFFER_BYTES: usize = 1 << 20;
/// Bytes that make a range request count as progress: a server that gives one byte for each connection ends somewhere.
pub const PROGRESS_BYTES: u64 = 64 << 10;
/// Redirects in a row: stops two servers that send us to each other.
pub const MAX_REDIRECTS: usize = 8;
/// Restarts of one install because the file on the server changed or its stream broke.
pub const MAX_RESTARTS: u32 = 4;
/// First pause between two attempts; doubled each time.
pub const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// Longest pause between two attempts.
pub const MAX_PAUSE: Duration = Duration::from_secs(60);
/// Longest `Retry-After` that is waited for: a server that says "next year" gets exit 75 instead.
pub const MAX_RETRY_AFTER: Duration = Duration::from_secs(300);
/// The window over which the minimum rate is measured: stops a server that drips for days.
pub const RATE_WINDOW: Duration = Duration::from_secs(30);
/// Bytes of a configuration file, a health file or a release file.
pub const MAX_SMALL_FILE_BYTES: u64 = 256 << 10;
/// Bytes of the history: a device that tells its story for years must not fill the state partition with it.
pub const MAX_HISTORY_BYTES: u64 = 1 << 20;
/// Bytes of it that are kept when it is at that bound: it is not rewritten with each entry.
pub const KEPT_HISTORY_BYTES: u64 = MAX_HISTORY_BYTES / 2;
/// Bytes of a check's output that become part of a reason.
pub const MAX_CHECK_OUTPUT_BYTES: usize = 4 << 10;
/// Bytes of a web page or a file that a health check looks through: a hostile or endless answer costs no more than that.
pub const MAX_CHECKED_BYTES: usize = 256 << 10;
/// One step of a health check in the network: to connect, to get the head of an answer, one read.
pub const MAX_NETWORK_STEP: Duration = Duration::from_secs(10);
/// Health checks of one device, declarations of all files together.
pub const MAX_HEALTH_CHECKS: usize = bank_format::limits::MAX_HEALTH_CHECKS;
/// What the checks that every system must pass may take: a unit that has just failed may be restarted by another, and a slow memory
/// card may take many seconds to flush.
pub const BUILT_IN_DEADLINE: Duration = Duration::from_secs(30);
/// How often they are looked at again.
pub const BUILT_IN_INTERVAL: Duration = Duration::from_secs(2);
/// How long a trial may take to reach an update source: addresses come late on a slow network.
pub const SOURCE_DEADLINE: Duration = Duration::from_secs(120);
/// How often it is asked again.
pub const SOURCE_INTERVAL: Duration = Duration::from_secs(5);
/// The shortest time that one look gets, when the deadline of its check is over.
pub const MIN_LOOK: Duration = Duration::from_secs(1);
/// How much longer than its limit a look may take before whoever makes it counts as stuck: a program is killed meanwhile.
pub const LOOK_GRACE: Duration = Duration::from_secs(5);
/// How long the looks that are left may take once a trial has failed anyway.
pub const DOOMED_PATIENCE: Duration = Duration::from_secs(10);
/// The longest that the gate does nothing: how often it tells the service manager that it is alive.
pub const WATCH_INTERVAL: Duration = Duration::from_secs(1);
/// The longest that the gate is silent while it decides: evidence, lock, boot loader and reboot each have limits of their own. A gate that
/// is silent for longer is stuck, and is killed by the service manager (`WatchdogSec=` of its unit).
pub const MAX_GATE_SILENCE: Duration = Duration::from_secs(180);
/// How often the gate asks for the lock before it gives up, a second apart: a person may be at work for a moment.
pub const GATE_LOCK_ATTEMPTS: u32 = 60;
/// The longest `gate_deadline_seconds`: a trial that is never judged is a trial for ever.
pub const MAX_GATE_DEADLINE_SECONDS: u64 = bank_format::limits::MAX_CHECK_SECONDS;
/// How often the gate keeps the journal of a trial that is under way: a hang or a panic costs at most that much of it.
pub const SNAPSHOT_INTERVAL: Duration = Duration::from_secs(10);
/// How often it looks whether a check stands otherwise than it has kept.
pub const CHECKS_INTERVAL: Duration = Duration::from_secs(2);
/// The pause between journals, for a trial that has been under way for long: a soak of a day must not wear out flash memory.
pub const LATE_SNAPSHOT_INTERVAL: Duration = Duration::from_secs(300);
/// Between the two, the pause is this part of the time that has passed.
pub const SNAPSHOTS_PER_TRIAL: u32 = 30;
/// A clock before it (2025-01-01) was never set, whatever the image says of itself.
pub const EARLIEST_CLOCK: i64 = 1_735_689_600;
/// A clock behind it (2100-01-01) is broken.
pub const LATEST_CLOCK: i64 = 4_102_444_800;
/// Lines of the journal that are asked for: it is read again and again while a trial runs.
pub const MAX_JOURNAL_LINES: usize = 2000;
/// Bytes of a journal kept as evidence: its newest part.
pub const MAX_JOURNAL_BYTES: usize = 256 << 10;
/// Bytes of a kernel log kept as evidence: its newest part.
pub const MAX_KERNEL_LOG_BYTES: usize = 128 << 10;
/// Entries of the kernel's store (pstore) that are read in one boot; the next boot takes the others.
pub const MAX_PSTORE_ENTRIES: usize = 256;
/// Bytes of one entry of the kernel's store that are read.
pub const MAX_PSTORE_ENTRY_BYTES: u64 = 256 << 10;
/// Failed attempts of which evidence is kept: stops failing trials from filling the state partition.
pub const MAX_ATTEMPTS: usize = 8;
/// Bytes of all evidence together; the oldest goes first.
pub const MAX_EVIDENCE_BYTES: u64 = 5 << 20;
/// Bytes of a file of evidence that are read back: more was never written.
pub const MAX_EVIDENCE_FILE_BYTES: u64 = 1 << 20;
/// Lines of each log that `history show` prints.
pub const MAX_SHOWN_LINES: usize = 40;
/// Bytes of the answer of a tool of the system (systemctl, crun) that are read.
pub const MAX_TOOL_BYTES: usize = 64 << 10;
/// How long a tool of the system (systemctl, journalctl) may take.
pub const TOOL_DEADLINE: Duration = Duration::from_secs(30);
/// Tries of a running trial that are few: a person who is asleep then finds the older release in the morning.
pub const FEW_TRIES: u32 = 1;
/// How often the end of a boot asks for the lock, a second apart: a deed that hangs must not hold up the shutdown.
pub const ENDING_LOCK_ATTEMPTS: u32 = 15;
/// How long the program of the backend `script` may take: one that hangs must not hold up boot or shutdown for ever.
pub const LOADER_PROGRAM_DEADLINE: Duration = Duration::from_secs(30);
/// Bytes of each output of that program that are read: stops one that talks without end from filling the memory.
pub const MAX_LOADER_PROGRAM_OUTPUT_BYTES: usize = 4 << 10;
/// Boots that one simulated reboot may take.
pub const MAX_SIMULATED_BOOTS: u32 = 16;
/// Trust roots that are followed from the image's one: stops a chain without end in the state directory.
pub const MAX_ROOT_ROTATIONS: u32 = 1024;
