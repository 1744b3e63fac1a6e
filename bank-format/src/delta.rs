//! Deltas: how chunks of an image are made of an older release, the base.
//!
//! ```text
//! the delta's table, stored as one zstd frame      (`table_bytes` and `table_sha256` of the manifest)
//! its patches, one behind the other                (up to `bytes` of the manifest)
//! ```
//!
//! The [table](DeltaTable) makes the chunk table of the image out of the base's, and says which chunks a patch makes. A
//! [patch] makes a few chunks out of bytes of the base. Nothing here is believed: the chunk table that comes out is compared
//! with the manifest, and what a patch makes is compared with the digest of each chunk. What does not fit costs a fetch of frames,
//! and nothing else. Deliberately absent: zstd and LZ4, which the callers do, within the limits that are named here.

pub mod patch;
mod table;

pub use table::{DeltaTable, Patch, PatchEntry};

/// Name of this coding in the manifest: `delta.codec`.
pub const CODEC: &str = "roro-1";
