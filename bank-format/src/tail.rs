//! The tail of a bank: the chunk table of what lies in it, behind the image and its tree, where there is room.
//!
//! ```text
//! 8   magic "RoroTail"
//! 32  root of the hash tree over the image
//! 4   bytes of the table
//! 4   zero
//! 32  SHA-256 of the table
//!     the table
//! ```
//!
//! So a device has the table of what it runs, and needs neither fetch it nor hash the whole bank to know where a chunk lies. It is a
//! hint and nothing more: nobody signed it, and it may belong to another image, or be torn. A table out of it counts when its digest is
//! that of the manifest, or when what a delta makes of it is; a chunk that it points at is hashed before it is used.

use crate::{
    digest::Digest256,
    error::{Error, Result},
    header::Reader,
    index::ChunkTable,
    limits::MAX_INDEX_BYTES,
    manifest::Tree,
    verity::{BLOCK_BYTES, Geometry},
};

const MAGIC: [u8; 8] = *b"RoroTail";
const STRUCTURE: &str = "tail of a bank";
/// Bytes before the table.
pub const HEAD_BYTES: usize = 80;

/// What stands before the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Root of the hash tree over the image that the table is of; another one, and the tail is of an image that is gone.
    pub root: Digest256,
    /// Bytes of the table, at least 1 and at most [`MAX_INDEX_BYTES`].
    pub table_bytes: u32,
    /// SHA-256 of the table.
    pub table_sha256: Digest256,
}

/// Bytes from the start of the partition to the tail: the next multiple of 4096 behind the image and, where it is kept, its tree.
pub fn offset(image_bytes: u64, tree: Tree) -> Result<u64> {
    let geometry = Geometry::for_bytes(image_bytes)?;
    Ok(match tree {
        Tree::None => geometry.data_blocks * BLOCK_BYTES as u64,
        Tree::Appended => geometry.total_bytes(),
    })
}

/// As [`offset`]; `None` where a partition of so many bytes has no room for a tail with a table of so many.
pub fn place(image_bytes: u64, tree: Tree, table_bytes: u64, partition_bytes: u64) -> Result<Option<u64>> {
    let offset = offset(image_bytes, tree)?;
    let end = offset.checked_add(HEAD_BYTES as u64).and_then(|end| end.checked_add(table_bytes));
    Ok(end.filter(|end| *end <= partition_bytes).map(|_| offset))
}

/// The tail of an image with this root and chunk table.
pub fn encode(root: Digest256, table: &[u8]) -> Result<Vec<u8>> {
    let head =
        Head { root, table_bytes: checked_bytes(table.len() as u64)?, table_sha256: Digest256::of(table) };
    let mut bytes = Vec::with_capacity(HEAD_BYTES + table.len());
    bytes.extend(MAGIC);
    bytes.extend(head.root.0);
    bytes.extend(head.table_bytes.to_le_bytes());
    bytes.extend([0; 4]);
    bytes.extend(head.table_sha256.0);
    bytes.extend(table);
    Ok(bytes)
}

/// Reads the head. [`Error::WrongMagic`] is a bank without a tail, the usual thing; any other error is a tail that is of no use either.
pub fn decode_head(bytes: &[u8; HEAD_BYTES]) -> Result<Head> {
    let mut reader = Reader::new(STRUCTURE, bytes);
    if reader.array::<8>()? != MAGIC {
        return Err(Error::WrongMagic { structure: STRUCTURE });
    }
    let root = Digest256(reader.array()?);
    let table_bytes = checked_bytes(reader.u32()?.into())?;
    if reader.u32()? != 0 {
        return Err(Error::malformed(STRUCTURE, "what is kept free is not zero"));
    }
    Ok(Head { root, table_bytes, table_sha256: Digest256(reader.array()?) })
}

impl Head {
    /// The chunk table, if these bytes are the ones that were written with the head: whole, and no more than that.
    pub fn table(&self, bytes: &[u8]) -> Result<ChunkTable> {
        self.table_sha256.check(bytes, || format!("chunk table in the {STRUCTURE}"))?;
        ChunkTable::decode(bytes)
    }
}

fn checked_bytes(bytes: u64) -> Result<u32> {
    match u32::try_from(bytes) {
        Ok(0) => Err(Error::malformed(STRUCTURE, "it has no table")),
        Ok(bytes) if u64::from(bytes) <= MAX_INDEX_BYTES => Ok(bytes),
        Ok(_) | Err(_) => {
            Err(Error::TooLarge { structure: "chunk table", value: bytes, limit: MAX_INDEX_BYTES })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn head(tail: &[u8]) -> Result<Head> {
        decode_head(tail.first_chunk().unwrap())
    }

    #[test]
    fn it_lies_behind_what_is_in_the_bank() {
        let block = BLOCK_BYTES as u64;
        for (bytes, tree, expected) in [
            (1, Tree::None, 1),
            (block, Tree::None, 1),
            (block + 1, Tree::None, 2),
            (block, Tree::Appended, 1),
            (2 * block, Tree::Appended, 3),
            (129 * block, Tree::Appended, 129 + 3),
        ] {
            assert_eq!(offset(bytes, tree).unwrap(), expected * block, "{bytes}");
        }
        assert!(offset(0, Tree::None).is_err());
        assert!(offset(u64::MAX, Tree::None).is_err());
        let room = |bytes| place(2 * block, Tree::Appended, 100, bytes).unwrap();
        assert_eq!(room(3 * block + 180), Some(3 * block));
        assert_eq!(room(3 * block + 179), None);
        assert_eq!(place(block, Tree::None, u64::MAX, u64::MAX).unwrap(), None);
    }

    #[test]
    fn torn_and_foreign_tails_are_told_apart() {
        let table = ChunkTable::new(&[], &[]).unwrap();
        let tail = encode(Digest256([1; 32]), &table.encode()).unwrap();
        let good = head(&tail).unwrap();
        assert_eq!(good.root, Digest256([1; 32]));
        assert_eq!(good.table(&tail[HEAD_BYTES..]).unwrap(), table);
        assert!(matches!(decode_head(&[0; HEAD_BYTES]), Err(Error::WrongMagic { .. })), "never written");
        for at in 8..tail.len() {
            let mut torn = tail.clone();
            torn[at] ^= 1;
            let Ok(found) = head(&torn) else { continue };
            let same = found.root == good.root && found.table_bytes == good.table_bytes;
            assert!(!same || found.table(&torn[HEAD_BYTES..]).is_err(), "byte {at}");
        }
        assert!(encode(Digest256([1; 32]), &[]).is_err());
        assert!(encode(Digest256([1; 32]), &vec![0; MAX_INDEX_BYTES as usize + 1]).is_err());
    }

    proptest! {
        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), HEAD_BYTES)) {
            let mut tail = bytes;
            let _ = head(&tail);
            tail[..8].copy_from_slice(&MAGIC);
            tail[44..48].fill(0);
            if let Ok(head) = head(&tail) {
                prop_assert!(u64::from(head.table_bytes) <= MAX_INDEX_BYTES);
            }
        }
    }
}
