//! A writer for EROFS images, made for updates: uncompressed, every file at the start of a 4096-byte block, in order by path,
//! equal contents stored once, one time stamp, a constant UUID. The same tree gives the same bytes.
//!
//! Source: `fs/erofs/erofs_fs.h` of Linux 5.4 and later; only what those kernels read is used.
//! Layout: block 0 with the superblock, then the data of files, then the metadata (inodes, short links and directory tails
//! inline), so that a change of names moves no data. Deliberately absent: compression, chunks, hard links, reading.
//!
//! Building needs no root and no directory with the right owners, which is why `mkfs.erofs` is not used.

mod layout;
mod metadata;
pub mod reader;

use std::{
    collections::HashMap,
    fs::File,
    io::{BufWriter, Seek as _, SeekFrom, Write as _},
    path::Path,
};

use bank_format::Digest256;
use sha2::{Digest as _, Sha256};

use crate::{
    error::{Error, Result},
    tree::{Content, Kind, Tree},
};
use layout::{BLOCK_BYTES, SUPER_OFFSET, Superblock};

/// Where the bytes of one file lie in an image. A later stage cuts chunks along these borders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extent {
    /// Path of the first file with this content, in the order of paths.
    pub path: String,
    /// Offset in the image, a multiple of 4096.
    pub offset_bytes: u64,
    /// Bytes of the content, without padding.
    pub len_bytes: u64,
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// Bytes of the image, a multiple of 4096.
    pub image_bytes: u64,
    /// Data of files, in order by offset.
    pub extents: Vec<Extent>,
    /// Where the metadata starts; it goes up to the end.
    pub metadata_offset_bytes: u64,
}

/// Writes the tree as an EROFS image. `epoch_seconds` becomes the time of every file.
pub fn write(tree: &Tree, epoch_seconds: u64, path: &Path) -> Result<Written> {
    let file = File::create(path).map_err(Error::file("create", path))?;
    let mut data = DataWriter {
        out: BufWriter::with_capacity(1 << 20, file),
        path,
        next_block: 1,
        known: HashMap::new(),
        extents: Vec::new(),
    };
    data.out.write_all(&[0; BLOCK_BYTES as usize]).map_err(Error::file("write", path))?;
    let mut places = HashMap::new();
    for (name, entry) in tree.iter() {
        if let Kind::File(content) = &entry.kind {
            places.insert(name, data.put(name, content)?);
        }
    }
    let metadata_block = data.next_block;
    let metadata = metadata::build(tree, &places, metadata_block, epoch_seconds)?;
    let blocks = metadata_block
        .checked_add(metadata.blocks()?)
        .ok_or_else(|| Error::malformed(path.display(), "an EROFS image has at most 16 TiB"))?;
    let superblock = Superblock {
        root_nid: metadata.root_nid,
        inodes: metadata.inodes,
        epoch_seconds,
        blocks,
        metadata_block,
    };
    let image_bytes = u64::from(blocks) * BLOCK_BYTES;
    let mut out = data.out;
    let fail = || Error::file("write", path);
    out.seek(SeekFrom::Start(u64::from(metadata_block) * BLOCK_BYTES)).map_err(fail())?;
    out.write_all(&metadata.bytes).map_err(fail())?;
    out.seek(SeekFrom::Start(SUPER_OFFSET)).map_err(fail())?;
    out.write_all(&superblock.encode()).map_err(fail())?;
    let file = out.into_inner().map_err(|error| error.into_error()).map_err(fail())?;
    file.set_len(image_bytes).map_err(fail())?;
    Ok(Written {
        image_bytes,
        extents: data.extents,
        metadata_offset_bytes: u64::from(metadata_block) * BLOCK_BYTES,
    })
}

struct DataWriter<'path> {
    out: BufWriter<File>,
    path: &'path Path,
    next_block: u32,
    known: HashMap<(Digest256, u64), u32>,
    extents: Vec<Extent>,
}

impl DataWriter<'_> {
    /// Writes one content and returns its first block. A content that is already there is found by its digest and taken back.
    fn put(&mut self, name: &str, content: &Content) -> Result<u32> {
        let len_bytes = content.len_bytes();
        if len_bytes == 0 {
            return Ok(0);
        }
        let path = self.path;
        let mut digest = Sha256::new();
        let out = &mut self.out;
        content.for_each_piece(&mut |piece| {
            digest.update(piece);
            out.write_all(piece).map_err(Error::file("write", path))
        })?;
        let key = (Digest256(digest.finalize().into()), len_bytes);
        if let Some(block) = self.known.get(&key) {
            let start = u64::from(self.next_block) * BLOCK_BYTES;
            self.out.seek(SeekFrom::Start(start)).map_err(Error::file("write", path))?;
            return Ok(*block);
        }
        let padding =
            usize::try_from(len_bytes.next_multiple_of(BLOCK_BYTES) - len_bytes).unwrap_or_default();
        let zeros = [0; BLOCK_BYTES as usize];
        self.out.write_all(zeros.get(..padding).unwrap_or_default()).map_err(Error::file("write", path))?;
        let block = self.next_block;
        self.next_block = u32::try_from(len_bytes.div_ceil(BLOCK_BYTES))
            .ok()
            .and_then(|blocks| block.checked_add(blocks))
            .ok_or_else(|| Error::malformed(path.display(), "an EROFS image has at most 16 TiB"))?;
        self.known.insert(key, block);
        self.extents.push(Extent {
            path: name.to_owned(),
            offset_bytes: u64::from(block) * BLOCK_BYTES,
            len_bytes,
        });
        Ok(block)
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, process::Command};

    use super::*;
    use crate::tree::Entry;

    fn sample() -> Tree {
        let mut tree = Tree::new();
        tree.put_file("etc/hostname", "roro\n", 0o644).unwrap();
        tree.put_file("etc/same", "roro\n", 0o600).unwrap();
        tree.put_file("etc/empty", "", 0o644).unwrap();
        tree.put_file("usr/bin/big", vec![7; 100_000], 0o4755).unwrap();
        tree.put_link("bin", "usr/bin").unwrap();
        tree.put_link("long", &"x/".repeat(1900)).unwrap();
        tree.put_directory("tmp", 0o1777).unwrap();
        tree.put("dev/null", Entry::new(Kind::CharDevice { major: 1, minor: 3 }, 0o666)).unwrap();
        tree.put("dev/vda", Entry::new(Kind::BlockDevice { major: 254, minor: 300 }, 0o660)).unwrap();
        tree.put("run/pipe", Entry::new(Kind::Fifo, 0o600)).unwrap();
        // Names around "." and "..", and a directory of several blocks.
        for name in ["+a", "-b", ".c", "..d", "~e"] {
            tree.put_file(&format!("odd/{name}"), name, 0o644).unwrap();
        }
        for number in 0..1000 {
            tree.put_file(&format!("many/file-with-a-rather-long-name-{number}"), "x", 0o644).unwrap();
        }
        let mut capable = Entry::new(Kind::File("ping".into()), 0o755);
        capable.uid = 100_000;
        capable.xattrs = BTreeMap::from([
            (
                "security.capability".to_owned(),
                vec![1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            ),
            ("user.note".to_owned(), b"odd".to_vec()),
        ]);
        tree.put("usr/bin/ping", capable).unwrap();
        tree
    }

    #[test]
    fn the_same_tree_gives_the_same_bytes_and_equal_contents_lie_once() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        let written = write(&sample(), 1_700_000_000, &a).unwrap();
        assert_eq!(write(&sample(), 1_700_000_000, &b).unwrap(), written);
        assert_eq!(std::fs::read(&a).unwrap(), std::fs::read(&b).unwrap());
        let paths: Vec<&str> = written.extents.iter().map(|e| e.path.as_str()).collect();
        assert!(paths.contains(&"etc/hostname") && !paths.contains(&"etc/same"));
        assert!(written.extents.iter().all(|e| e.offset_bytes % 4096 == 0));
        let mut end = 4096;
        for extent in &written.extents {
            assert_eq!(extent.offset_bytes, end);
            end += extent.len_bytes.next_multiple_of(4096);
        }
        assert_eq!(end, written.metadata_offset_bytes);
    }

    /// The tree of the kernel's own reader stands behind `fsck.erofs`; where it is not installed the layout tests remain.
    #[test]
    fn fsck_accepts_it_and_finds_the_same_contents() {
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("image");
        write(&sample(), 1_700_000_000, &image).unwrap();
        let out = dir.path().join("out");
        let fsck = Command::new("fsck.erofs")
            .arg(format!("--extract={}", out.display()))
            .args(["--no-preserve", "--overwrite"])
            .arg(&image)
            .output();
        let Ok(fsck) = fsck else {
            assert!(
                std::env::var_os("CI").is_none(),
                "fsck.erofs is missing: run `qemu-testbed setup` first"
            );
            return;
        };
        let told =
            String::from_utf8_lossy(&fsck.stderr).into_owned() + &String::from_utf8_lossy(&fsck.stdout);
        // Making device nodes needs root; everything else must be there.
        if !fsck.status.success() {
            assert!(told.contains("mknod") || told.contains("not permitted"), "{told}");
            return;
        }
        assert_eq!(std::fs::read(out.join("usr/bin/big")).unwrap(), vec![7; 100_000]);
        assert_eq!(std::fs::read(out.join("etc/same")).unwrap(), b"roro\n");
        assert_eq!(std::fs::read_dir(out.join("many")).unwrap().count(), 1000);
        assert_eq!(std::fs::read_link(out.join("long")).unwrap().as_os_str().len(), 3800);
    }
}
