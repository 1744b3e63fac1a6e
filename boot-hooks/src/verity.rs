//! The root image against the one hash that the boot image carries: the quick look, the whole check, the kernel's table.
//!
//! Source: `Documentation/admin-guide/device-mapper/verity.rst` of Linux. The tree has no superblock; every parameter comes from
//! the command line. What is refused is a [`Finding`]; what could not be read is an error.

use std::{
    fs::File,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use bank_format::{
    Digest256,
    verity::{BLOCK_BYTES, Geometry, TreeBuilder, hash_block},
};
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};

use crate::{
    error::{Error, Result},
    limits::CHECK_BUFFER_BYTES,
    linux::{self, Access, device_mapper::Wanted},
    mapping,
};

const SECTORS_PER_BLOCK: u64 = BLOCK_BYTES as u64 / 512;
const DIGEST_BYTES: usize = 32;
const DIGESTS_PER_BLOCK: u64 = (BLOCK_BYTES / DIGEST_BYTES) as u64;
const MAPPED_NAME: &str = "roro-root";

/// What the boot image says about its root image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    /// Root of the tree.
    pub root: Digest256,
    /// Salt.
    pub salt: Vec<u8>,
    /// Data blocks of 4096 bytes; the tree starts behind them.
    pub blocks: u64,
}

/// Why an image is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Finding {
    /// The partition ends before the image.
    #[error("the partition is too small for it")]
    TooSmall,
    /// The top of the tree is another.
    #[error("it is not the one of this boot image, or its top block is damaged: root {found}")]
    OtherRoot {
        /// The root that is there.
        found: Digest256,
    },
    /// A data block does not match its hash.
    #[error("data block {block} does not match its hash")]
    DataBlock {
        /// Which block.
        block: u64,
    },
    /// A block of the tree is damaged.
    #[error("block {block} of its hash tree is damaged")]
    TreeBlock {
        /// Which block, from the start of the tree.
        block: u64,
    },
}

impl Proof {
    fn geometry(&self) -> Result<Geometry> {
        let bytes = self.blocks.saturating_mul(BLOCK_BYTES as u64);
        Geometry::for_bytes(bytes)
            .map_err(|source| Error::Format { subject: "roro.blocks of the command line", source })
    }

    /// The parameters of the kernel's verity target for an image on `device` (`major:minor`).
    #[must_use]
    pub fn table(&self, device: &str) -> String {
        let salt = if self.salt.is_empty() { "-".into() } else { hex::encode(&self.salt) };
        let Self { root, blocks, .. } = self;
        format!(
            "1 {device} {device} {BLOCK_BYTES} {BLOCK_BYTES} {blocks} {blocks} sha256 {root} {salt} 1 panic_on_corruption"
        )
    }

    /// Looks at one block: is the top of the tree the one that is wanted?
    pub fn check_top(&self, image: &File, subject: &Path) -> Result<Result<(), Finding>> {
        let geometry = self.geometry()?;
        let offset = if geometry.tree_blocks() == 0 { 0 } else { geometry.tree_offset_bytes() };
        let mut block = [0; BLOCK_BYTES];
        if let Err(finding) = read_block(image, subject, offset, &mut block)? {
            return Ok(Err(finding));
        }
        let found = hash_block(&self.salt, &block);
        Ok(if found == self.root { Ok(()) } else { Err(Finding::OtherRoot { found }) })
    }

    /// Recomputes everything and compares it with the tree on the medium. `progress` is told the blocks done so far.
    pub fn check_whole(
        &self,
        image: &File,
        subject: &Path,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Result<(), Finding>> {
        let outcome = self.recompute(image, subject, progress);
        // The kernel reads the image again through dm-verity: what was read here is not needed twice in memory.
        let _advice = posix_fadvise(image, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
        outcome
    }

    fn recompute(
        &self,
        image: &File,
        subject: &Path,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Result<(), Finding>> {
        let geometry = self.geometry()?;
        let bad = |source| Error::Format { subject: "the tree of the command line", source };
        let data_bytes = geometry.tree_offset_bytes();
        let mut builder = TreeBuilder::new(data_bytes, &self.salt).map_err(bad)?;
        let leaf_blocks = geometry.data_blocks.div_ceil(DIGESTS_PER_BLOCK);
        let first_leaf = geometry.tree_blocks().saturating_sub(leaf_blocks);
        let mut first: Result<Result<(), Finding>> = Ok(Ok(()));
        let mut compare = |number: u64, expected: &[u8; BLOCK_BYTES]| {
            if matches!(first, Ok(Ok(()))) {
                let offset = data_bytes.saturating_add(number.saturating_mul(BLOCK_BYTES as u64));
                let mut stored = [0; BLOCK_BYTES];
                first = match read_block(image, subject, offset, &mut stored) {
                    Ok(Ok(())) => Ok(compare_block(number, first_leaf, expected, &stored)),
                    other => other,
                };
            }
        };
        let mut buffer = vec![0; CHECK_BUFFER_BYTES];
        let mut done = 0;
        while done < data_bytes {
            let wanted = (data_bytes - done).min(CHECK_BUFFER_BYTES as u64) as usize;
            let part = buffer.get_mut(..wanted).unwrap_or_default();
            if let Err(finding) = read_block(image, subject, done, part)? {
                return Ok(Err(finding));
            }
            builder.update(part, &mut compare).map_err(bad)?;
            done += wanted as u64;
            progress(done / BLOCK_BYTES as u64);
        }
        let found = builder.finish(&mut compare).map_err(bad)?;
        Ok(match first? {
            Ok(()) if found != self.root => Err(Finding::OtherRoot { found }),
            other => other,
        })
    }

    /// Lets the kernel verify every block from now on; returns the device to mount. A block that does not match panics the kernel.
    pub fn map(&self, device: &str) -> Result<PathBuf> {
        let root = self.root.to_string();
        let uuid = format!("RORO-VERITY-{root}");
        mapping::map(Wanted {
            name: MAPPED_NAME,
            uuid: &uuid,
            target: "verity",
            sectors: self.blocks.saturating_mul(SECTORS_PER_BLOCK),
            table: &self.table(device),
            access: Access::ReadOnly,
        })
    }
}

/// A finding is believed when it is made twice: a transfer that flipped a bit in memory must not cost a bank its place. `forget` is
/// called in between, so that the second look reads the medium.
pub fn twice(
    look: &mut dyn FnMut() -> Result<Result<(), Finding>>,
    forget: impl FnOnce(&Finding),
) -> Result<Result<(), Finding>> {
    match look()? {
        Ok(()) => Ok(Ok(())),
        Err(finding) => {
            forget(&finding);
            look()
        }
    }
}

/// Drops what the kernel keeps in memory of a device; a drive that refuses is read from memory again.
pub fn forget_cached(image: &File) {
    let _refused = linux::drop_cached(image);
    let _advice = posix_fadvise(image, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
}

fn compare_block(
    number: u64,
    first_leaf: u64,
    expected: &[u8; BLOCK_BYTES],
    stored: &[u8; BLOCK_BYTES],
) -> Result<(), Finding> {
    if expected == stored {
        return Ok(());
    }
    let pairs = expected.chunks_exact(DIGEST_BYTES).zip(stored.chunks_exact(DIGEST_BYTES));
    let differing: Vec<u64> = (0..).zip(pairs).filter(|(_, (a, b))| a != b).map(|(at, _)| at).collect();
    match (number.checked_sub(first_leaf), differing.as_slice()) {
        (Some(leaf), [digest]) => Err(Finding::DataBlock { block: leaf * DIGESTS_PER_BLOCK + digest }),
        _ => Err(Finding::TreeBlock { block: number }),
    }
}

fn read_block(image: &File, subject: &Path, offset: u64, block: &mut [u8]) -> Result<Result<(), Finding>> {
    match image.read_exact_at(block, offset) {
        Ok(()) => Ok(Ok(())),
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Ok(Err(Finding::TooSmall)),
        Err(error) => Err(Error::io("read", subject)(error)),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    const BLOCK: u64 = BLOCK_BYTES as u64;

    /// An image with its tree behind it, and its proof.
    pub fn image(blocks: u64, salt: &[u8]) -> (Vec<u8>, Proof) {
        let mut bytes: Vec<u8> = (0..blocks * BLOCK).map(|at| (at / 7 + at / BLOCK) as u8).collect();
        let mut builder = TreeBuilder::new(blocks * BLOCK, salt).unwrap();
        let mut tree = vec![0; builder.geometry().tree_blocks() as usize * BLOCK_BYTES];
        let mut emit = |number: u64, block: &[u8; BLOCK_BYTES]| {
            let at = number as usize * BLOCK_BYTES;
            tree[at..at + BLOCK_BYTES].copy_from_slice(block);
        };
        builder.update(&bytes, &mut emit).unwrap();
        let root = builder.finish(&mut emit).unwrap();
        bytes.extend(tree);
        (bytes, Proof { root, salt: salt.to_vec(), blocks })
    }

    fn findings(bytes: &[u8], proof: &Proof) -> (Result<(), Finding>, Result<(), Finding>) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        let open = File::open(file.path()).unwrap();
        let mut last = 0;
        let whole = proof.check_whole(&open, file.path(), &mut |done| last = done).unwrap();
        assert!(whole.is_err() || last == proof.blocks);
        (proof.check_top(&open, file.path()).unwrap(), whole)
    }

    #[test]
    fn a_finding_counts_when_it_is_made_twice() {
        let finding = || Finding::DataBlock { block: 7 };
        for (looks, forgotten, expected) in [
            (vec![Ok(())], 0, Ok(())),
            (vec![Err(finding()), Ok(())], 1, Ok(())),
            (vec![Err(finding()), Err(finding())], 1, Err(finding())),
        ] {
            let (mut looks, mut forgets) = (looks.into_iter(), 0);
            let found = twice(&mut || Ok(looks.next().unwrap()), |_| forgets += 1).unwrap();
            assert_eq!((found, forgets, looks.next()), (expected, forgotten, None));
        }
    }

    #[test]
    fn good_images_pass() {
        for blocks in [1, 2, 128, 129, 300] {
            let (bytes, proof) = image(blocks, b"salt");
            assert_eq!(findings(&bytes, &proof), (Ok(()), Ok(())), "{blocks}");
        }
    }

    #[test]
    fn flipped_bit_is_found_wherever_it_is() {
        let (bytes, proof) = image(300, b"salt");
        let tree = |block| Err(Finding::TreeBlock { block });
        for (at, expected) in [
            (200 * BLOCK + 5, Err(Finding::DataBlock { block: 200 })),
            (299 * BLOCK, Err(Finding::DataBlock { block: 299 })),
            (300 * BLOCK + 4095, tree(0)),
        ] {
            let mut bad = bytes.clone();
            bad[at as usize] ^= 1;
            assert_eq!(findings(&bad, &proof).1, expected, "{at}");
        }
        let mut bad = bytes.clone();
        bad[302 * BLOCK_BYTES] ^= 1;
        assert!(findings(&bad, &proof).1.is_err());
        let mut bad = bytes.clone();
        bad[300 * BLOCK_BYTES] ^= 1;
        assert!(matches!(findings(&bad, &proof).0, Err(Finding::OtherRoot { .. })));
        assert_eq!(findings(&bytes[..303 * BLOCK_BYTES], &proof).1, Err(Finding::TooSmall));
        assert_eq!(findings(&bytes[..BLOCK_BYTES], &proof).0, Err(Finding::TooSmall));
    }

    #[test]
    fn another_image_with_a_sound_tree_is_refused() {
        let (bytes, _) = image(300, b"salt");
        let (_, other) = image(300, b"other");
        let (top, whole) = findings(&bytes, &other);
        assert!(top.is_err() && whole.is_err());
    }

    #[test]
    fn table_is_what_the_kernel_expects() {
        let root = Digest256([0xab; 32]);
        let proof = Proof { root, salt: vec![1, 2], blocks: 300 };
        let expected = format!("1 254:3 254:3 4096 4096 300 300 sha256 {root} 0102 1 panic_on_corruption");
        assert_eq!(proof.table("254:3"), expected);
        let unsalted = Proof { salt: vec![], ..proof };
        assert!(unsalted.table("254:3").ends_with(" - 1 panic_on_corruption"));
    }
}
