//! A writer for `newc` cpio archives, the form that Linux unpacks as its initrd.
//!
//! Source: `Documentation/driver-api/early-userspace/buffer-format.rst` of Linux. Uncompressed on purpose: compression belongs
//! to the wire, where deltas see through it. Every entry has the same time and its own inode number; no hard links.

use crate::{
    error::{Error, Result},
    tree::{Entry, Kind, Tree},
};

const TRAILER: &str = "TRAILER!!!";

/// Packs a tree. `epoch_seconds` becomes the time of every entry.
pub fn pack(tree: &Tree, epoch_seconds: u64) -> Result<Vec<u8>> {
    let epoch = u32::try_from(epoch_seconds)
        .map_err(|_| Error::malformed("time", "a cpio archive keeps no time after the year 2106"))?;
    let mut out = Vec::new();
    let mut number = 0u32;
    for (path, entry) in tree.iter().filter(|(path, _)| !path.is_empty()) {
        number += 1;
        let data = match &entry.kind {
            Kind::File(content) => content.read(u64::from(u32::MAX))?,
            Kind::Symlink(target) => target.as_bytes().to_vec(),
            Kind::Directory | Kind::CharDevice { .. } | Kind::BlockDevice { .. } | Kind::Fifo => Vec::new(),
        };
        header(&mut out, path, entry, number, epoch, data.len());
        out.extend(data);
        pad(&mut out);
    }
    header(&mut out, TRAILER, &Entry::new(Kind::Fifo, 0), 0, 0, 0);
    out.resize(out.len().next_multiple_of(512), 0);
    Ok(out)
}

fn header(out: &mut Vec<u8>, path: &str, entry: &Entry, number: u32, epoch: u32, data_bytes: usize) {
    let (kind, links, major, minor) = match entry.kind {
        Kind::File(_) => (0o100_000, 1, 0, 0),
        Kind::Directory => (0o040_000, 2, 0, 0),
        Kind::Symlink(_) => (0o120_000, 1, 0, 0),
        Kind::CharDevice { major, minor } => (0o020_000, 1, major, minor),
        Kind::BlockDevice { major, minor } => (0o060_000, 1, major, minor),
        Kind::Fifo => (0o010_000, 1, 0, 0),
    };
    let mode = if path == TRAILER { 0 } else { kind | u32::from(entry.mode & 0o7777) };
    let fields = [
        number,
        mode,
        entry.uid,
        entry.gid,
        links,
        epoch,
        u32::try_from(data_bytes).unwrap_or(u32::MAX), // bounded when the content was read
        0,
        0,
        major,
        minor,
        u32::try_from(path.len() + 1).unwrap_or(u32::MAX), // bounded by the tree
        0,
    ];
    out.extend(b"070701");
    for field in fields {
        out.extend(format!("{field:08x}").bytes());
    }
    out.extend(path.bytes());
    out.push(0);
    pad(out);
}

fn pad(out: &mut Vec<u8>) {
    out.resize(out.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use std::{
        io::Write as _,
        process::{Command, Stdio},
    };

    use super::*;

    #[test]
    fn the_bytes_are_the_documented_ones() {
        let mut tree = Tree::new();
        tree.put_file("init", "hello", 0o755).unwrap();
        let packed = pack(&tree, 1).unwrap();
        let head = "07070100000001000081ed0000000000000000000000010000000100000005\
                    0000000000000000000000000000000000000005\
                    00000000init\0\0hello\0\0\x00070701";
        let found = String::from_utf8(packed[..head.len()].to_vec()).unwrap();
        assert_eq!(found, head);
        assert_eq!(packed.len() % 512, 0);
    }

    /// The `cpio` program is the judge where it is installed.
    #[test]
    fn cpio_lists_it() {
        let mut tree = Tree::new();
        tree.put_file("modules/a.ko", vec![1; 5000], 0o644).unwrap();
        tree.put_link("sbin", "usr/sbin").unwrap();
        let packed = pack(&tree, 1_700_000_000).unwrap();
        let cpio =
            Command::new("cpio").args(["-t", "--quiet"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let Ok(mut cpio) = cpio else { return };
        cpio.stdin.take().unwrap().write_all(&packed).unwrap();
        let output = cpio.wait_with_output().unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), "modules\nmodules/a.ko\nsbin\n");
    }
}
