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
