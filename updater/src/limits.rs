//! Every bound of the agent, with the accident or attack that it stops. Bounds on formats are in `bank_format::limits`.

use std::time::Duration;

/// Bytes of the first request: the head of an ordinary bundle and its small tables in one round trip.
pub const PROBE_BYTES: u64 = 64 << 10;
/// Bytes of one range request: a torn connection costs at most the frame in flight, and no server is held for ever.
pub const MAX_RANGE_BYTES: u64 = 32 << 20;
/// Bytes that are fetched and thrown away rather than asking twice: a round trip costs more than that.
pub const MAX_RANGE_GAP_BYTES: u64 = 16 << 10;
/// Bytes read at once from a server, a bundle or a bank.
pub const BUFFER_BYTES: usize = 64 << 10;
/// Bytes read at once while a bank is read back.
pub const READ_BACK_BUFFER_BYTES: usize = 1 << 20;
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
/// Bytes of the history that are read: its newest part.
pub const MAX_HISTORY_BYTES: u64 = 1 << 20;
/// Bytes of a check's output that become part of a reason.
pub const MAX_CHECK_OUTPUT_BYTES: usize = 4 << 10;
/// Bytes of a journal kept as evidence: its newest part.
pub const MAX_EVIDENCE_BYTES: usize = 512 << 10;
/// Evidence files that are kept: stops failing trials from filling the state partition.
pub const MAX_EVIDENCE_FILES: usize = 8;
/// Health files that are read from one directory, and checks in one file.
pub const MAX_HEALTH_CHECKS: usize = 256;
/// The longest a check may take, whatever it asks for.
pub const MAX_CHECK_SECONDS: u64 = 3600;
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
