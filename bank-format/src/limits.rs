//! Every bound on what is read from outside, with the attack or accident that it stops.

/// Bytes of the manifest: stops a header that asks for gigabytes before any signature was checked.
pub const MAX_MANIFEST_BYTES: u64 = 1 << 20;
/// Signatures in a bundle: stops a bundle that makes the device verify for hours.
pub const MAX_SIGNATURES: usize = 16;
/// Images in a bundle.
pub const MAX_IMAGES: usize = 16;
/// Delta sections in a bundle: a few images times the last releases.
pub const MAX_DELTAS: usize = 256;
/// Documents (package list, SBOM) in a bundle.
pub const MAX_DOCUMENTS: usize = 16;
/// Bytes of one document.
pub const MAX_DOCUMENT_BYTES: u64 = 16 << 20;
/// Bytes of one image: keeps every offset far away from the end of 64 bits.
pub const MAX_IMAGE_BYTES: u64 = 1 << 40;
/// Bytes of one chunk table, and of one delta's table once it is decompressed: the size of the decoder's buffer.
pub const MAX_INDEX_BYTES: u64 = 32 << 20;
/// Chunks of one image, and frames, as no frame is without one: a row takes a single byte in a table and sixty in memory, so it
/// stops a table of 32 MiB that becomes two gigabytes. With chunks of 64 KiB it is enough for an image of 64 GiB.
pub const MAX_CHUNKS: u32 = 1 << 20;
/// Bytes of one chunk.
pub const MAX_CHUNK_BYTES: u32 = 1 << 20;
/// Decompressed bytes of one frame: the size of the decoder's buffer, so it stops decompression bombs.
pub const MAX_FRAME_RAW_BYTES: u32 = 4 << 20;
/// Stored bytes of one frame: a frame that does not shrink is stored as it is, so it is never longer than its content.
pub const MAX_FRAME_STORED_BYTES: u32 = MAX_FRAME_RAW_BYTES;
/// Base-2 logarithm of the largest zstd window that a frame may ask for (8 MiB).
pub const MAX_WINDOW_LOG: u32 = 23;
/// Bytes that one patch makes: bounds what a device holds while it patches.
pub const MAX_PATCH_TARGET_BYTES: u32 = 8 << 20;
/// Stored bytes of one patch: what does not shrink is stored as it is, and its head and operations come on top.
pub const MAX_PATCH_STORED_BYTES: u32 = (8 << 20) + (64 << 10);
/// Bytes of a patch's operations: stops a small patch that decompresses to operations of one byte each.
pub const MAX_PATCH_OPS_BYTES: u32 = 4 << 20;
/// Blocks of the base that one patch decodes: stops a patch of a few bytes that unpacks the whole base into memory.
pub const MAX_PATCH_BASE_BLOCKS: u32 = 8;
/// Decoded bytes of an LZ4 block, as in the legacy frame: the size of the decoder's buffer, so it stops decompression bombs.
pub const MAX_LZ4_BLOCK_BYTES: u32 = 8 << 20;
/// Stored bytes of an LZ4 block: what does not shrink grows by a 255th, and no more.
pub const MAX_LZ4_STORED_BYTES: u32 = (8 << 20) + (64 << 10);
/// The highest level of LZ4 HC: a level that no encoder has cannot be made again.
pub const MAX_LZ4_LEVEL: u32 = 12;
/// Bytes of a trust root.
pub const MAX_ROOT_BYTES: usize = 512 << 10;
/// Keys and key ids in a trust root.
pub const MAX_KEYS: usize = 64;
/// Bytes of a name (release, image, document, base).
pub const MAX_NAME_BYTES: usize = 128;
/// Bytes of a dm-verity salt, as in the kernel.
pub const MAX_SALT_BYTES: usize = 256;
/// Bytes of the record's payload: a copy is 32 KiB with its head.
pub const MAX_RECORD_PAYLOAD_BYTES: usize = 30 << 10;
/// Bytes of a reason kept in the record: the evidence file has the rest.
pub const MAX_REASON_BYTES: usize = 1024;
/// Early boots of the confirmed bank that may fail in a row before the other confirmed bank is asked.
pub const MAX_EARLY_FAILURES: u32 = 3;
/// Early boots of the confirmed bank that may fail in a row, each with a reason, where there is no other bank: then the end is stated.
pub const MAX_HOPELESS_BOOTS: u32 = 6;
/// Redirects in a row: stops two banks that send the loader to each other for ever.
pub const MAX_REDIRECTS: u32 = 3;
/// Bytes of an EFI variable that we read.
pub const MAX_EFI_VARIABLE_BYTES: usize = 64 << 10;
/// Entries of a partition table that are read: stops a stick with a table of four milliards of entries.
pub const MAX_PARTITIONS: u32 = 512;
/// Bytes of one entry of a partition table.
pub const MAX_PARTITION_ENTRY_BYTES: u32 = 4096;
/// Health checks of one system: each has a thread of the gate while it is looked at.
pub const MAX_HEALTH_CHECKS: usize = 64;
/// Bytes of the name of a health check: it stands in reasons, in the history and in evidence, which are bounded.
pub const MAX_CHECK_NAME_BYTES: usize = 128;
/// The longest that a health check may take, whatever it asks for: a trial that is never judged is a trial for ever.
pub const MAX_CHECK_SECONDS: u64 = 3600;
/// The longest soak: as above.
pub const MAX_SOAK_SECONDS: u64 = 24 * 3600;
/// Boots of the default bank that a loader which counts (GRUB, U-Boot) allows before the spare takes over: a bank that dies before
/// it can count itself.
pub const LOADER_TRIES: u32 = 3;
/// Largest serial of a GRUB block: GRUB on BIOS compares numbers of 31 bits.
pub const MAX_GRUB_SERIAL: u32 = i32::MAX as u32;
/// Bytes of one copy of a U-Boot environment: stops a configuration that asks for the whole disk.
pub const MAX_UBOOT_ENV_BYTES: usize = 1 << 20;
/// Bytes of an `autoboot.txt`: the firmware reads no more, and one sector is written at once.
pub const MAX_AUTOBOOT_BYTES: usize = 512;
/// Clusters of a file or directory that are followed in a FAT: stops a chain that is a circle (a file system of 128 GiB in one
/// file is not looked for).
pub const MAX_FAT_CHAIN: u32 = 1 << 22;
/// Entries of one directory that are read: 65,536 is what FAT itself allows.
pub const MAX_FAT_ENTRIES: u32 = 1 << 16;
