//! Every bound on what the mint reads from outside, with the accident that it stops.

/// Entries of a file tree: stops an archive that never ends.
pub const MAX_TREE_ENTRIES: usize = 1_000_000;
/// Bytes of one file name, as in Linux.
pub const MAX_NAME_BYTES: usize = 255;
/// Bytes of a symbolic link's target: it must fit behind its inode in one block.
pub const MAX_LINK_BYTES: usize = 3900;
/// Bytes of the extended attributes of one file: they must fit behind its inode.
pub const MAX_XATTR_BYTES: usize = 2048;
/// Bytes of a file that is read whole (unit files, os-release, modules.dep): stops a gigabyte named `passwd`.
pub const MAX_TEXT_BYTES: u64 = 8 << 20;
/// Links followed while a path is resolved, as in Linux.
pub const MAX_LINKS_FOLLOWED: usize = 40;
/// Bytes of a program, kernel or initrd that becomes part of a UKI.
pub const MAX_UKI_PART_BYTES: u64 = 512 << 20;
/// Depth of `extends` between appliance files: stops a circle.
pub const MAX_EXTENDS: usize = 8;
/// Bytes of a private key file: the longest PKCS#8 PEM of an ed25519 key has a few hundred.
pub const MAX_KEY_FILE_BYTES: u64 = 16 << 10;
/// Bytes of a passphrase file.
pub const MAX_PASSPHRASE_FILE_BYTES: u64 = 4 << 10;
/// Keys of one role that `keygen` makes: as many as a bundle can carry signatures.
pub const MAX_KEYS_PER_ROLE: usize = bank_format::limits::MAX_SIGNATURES;
/// Decompressed bytes of a frame: what a device fetches at least for one changed chunk. 1 MiB makes the whole bundle 6 % smaller, and an update
/// without a delta 13 % larger (docs/adr/0007-deltas.md).
pub const FRAME_RAW_BYTES: u32 = 256 << 10;
/// Frames that a reader keeps for repeated chunks.
pub const MAX_CACHED_FRAMES: usize = 16;
/// Bytes of a FAT volume: what FAT16 can number with clusters of 32 KiB.
pub const MAX_FAT_BYTES: u64 = 65_524 * 32_768;
/// Files and directories of a FAT volume: stops a list that was made by accident.
pub const MAX_FAT_ENTRIES: usize = 1000;
/// Places in a base that are compared for the longest match: a run of one byte has as many as it is long.
pub const MAX_CANDIDATES: usize = 128;
/// Bytes that one patch makes: what is lost when it, or its base, turns out to be rotten.
pub const PATCH_TARGET_BYTES: u64 = 4 << 20;
/// zstd level of patches: they are small, and every device fetches them.
pub const PATCH_LEVEL: i32 = 22;
/// Bytes of a base that one part of the new image is compared with: each takes up to 9 bytes of memory.
pub const MAX_BASE_TEXT_BYTES: u64 = 32 << 20;
/// Texts that are kept ready: many parts of an image are compared with the same.
pub const MAX_TEXTS: usize = 2;
/// Threads that make patches: each holds a text of the base and a window of zstd, up to 400 MiB together, so a machine of many cores
/// would run out of memory.
pub const MAX_PATCH_MAKERS: usize = 4;
/// Bytes of the cache: stops a machine that builds every day from filling its disk.
pub const MAX_CACHE_BYTES: u64 = 2 << 30;
/// Bytes of one entry of the cache: a patch, and its digest.
pub const MAX_CACHE_ENTRY_BYTES: u64 = 9 << 20;
/// Entries of an EROFS image that are looked at: a directory that contains itself ends here.
pub const MAX_EROFS_ENTRIES: u32 = 4_000_000;
/// Depth of its directories.
pub const MAX_EROFS_DEPTH: u32 = 64;
/// Bytes of an image that are looked through at a time.
pub const SCAN_BYTES: usize = 4 << 20;
/// Bytes from the start of a program within which its headers must lie.
pub const MAX_PE_HEADERS_BYTES: usize = 64 << 10;
