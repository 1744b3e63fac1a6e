//! The tail of a bank: the chunk table of what lies in it, at the end of the partition, where there is room behind the image and its tree.
//!
//! ```text
//!     the table, from a multiple of 4096 on
//! 8   magic "RoroTail"                              at the start of the partition's last whole block of 4096 bytes
//! 32  root of the hash tree over the image
//! 4   bytes of the table
//! 4   zero
//! 32  SHA-256 of the table
//! ```
//!
//! The head is at the end, so that it is found without knowing what lies in the bank. So a device has the table of what it runs, and needs neither fetch it nor hash the whole bank to know where a chunk lies. It is a
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
const BLOCK: u64 = BLOCK_BYTES as u64;
/// Bytes of the head.
pub const HEAD_BYTES: usize = 80;

/// What says which table it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Root of the hash tree over the image that the table is of; another one, and the tail is of an image that is gone.
    pub root: Digest256,
    /// Bytes of the table, at least 1 and at most [`MAX_INDEX_BYTES`].
    pub table_bytes: u32,
    /// SHA-256 of the table.
    pub table_sha256: Digest256,
}

/// Where the parts of a tail lie, in bytes from the start of the partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The table.
    pub table_offset: u64,
    /// The head.
    pub head_offset: u64,
}

/// Where the head lies in a partition of so many bytes; nowhere in one that has no whole block.
#[must_use]
pub fn head_offset(partition_bytes: u64) -> Option<u64> {
    (partition_bytes / BLOCK).checked_sub(1).map(|last| last * BLOCK)
}

fn table_offset(table_bytes: u64, partition_bytes: u64) -> Option<u64> {
    head_offset(partition_bytes)?.checked_sub(table_bytes.checked_next_multiple_of(BLOCK)?)
}

/// Where the tail of an image lies; `None` where a partition of so many bytes has no room for a table of so many.
pub fn place(image_bytes: u64, tree: Tree, table_bytes: u64, partition_bytes: u64) -> Result<Option<Place>> {
    let geometry = Geometry::for_bytes(image_bytes)?;
    let used_bytes = match tree {
        Tree::None => geometry.data_blocks * BLOCK,
        Tree::Appended => geometry.total_bytes(),
    };
    let place = head_offset(partition_bytes).and_then(|head_offset| {
        Some(Place { table_offset: table_offset(table_bytes, partition_bytes)?, head_offset })
    });
    Ok(place.filter(|place| place.table_offset >= used_bytes))
}

/// The head of the tail of an image with this root and chunk table.
pub fn encode_head(root: Digest256, table: &[u8]) -> Result<[u8; HEAD_BYTES]> {
    let table_bytes = checked_bytes(table.len() as u64)?;
    let mut bytes = [0; HEAD_BYTES];
    let fields = [&MAGIC[..], &root.0, &table_bytes.to_le_bytes(), &[0; 4], &Digest256::of(table).0].concat();
    for (to, from) in bytes.iter_mut().zip(fields) {
        *to = from;
    }
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
    /// Where the table lies in a partition of so many bytes; nowhere if it is longer than that.
    #[must_use]
    pub fn table_offset(&self, partition_bytes: u64) -> Option<u64> {
        table_offset(self.table_bytes.into(), partition_bytes)
    }

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

    #[test]
    fn it_lies_at_the_end_of_the_partition_and_behind_what_is_in_it() {
        let room = |image, tree, table, partition| {
            let place = place(image, tree, table, partition).unwrap()?;
            Some((place.table_offset / BLOCK, place.head_offset / BLOCK))
        };
        for (image, tree, table, partition, expected) in [
            (1, Tree::None, 1, 3 * BLOCK, Some((1, 2))),
            (BLOCK + 1, Tree::None, 1, 3 * BLOCK, None),
            (BLOCK, Tree::Appended, BLOCK, 3 * BLOCK + 4095, Some((1, 2))),
            (BLOCK, Tree::Appended, BLOCK + 1, 4 * BLOCK, Some((1, 3))),
            (2 * BLOCK, Tree::Appended, 1, 4 * BLOCK, None),
            (2 * BLOCK, Tree::Appended, 1, 5 * BLOCK, Some((3, 4))),
            (BLOCK, Tree::None, u64::MAX, u64::MAX, None),
            (BLOCK, Tree::None, 1, BLOCK - 1, None),
        ] {
            assert_eq!(room(image, tree, table, partition), expected, "{image} {table} {partition}");
        }
        assert!(place(0, Tree::None, 1, 1 << 20).is_err());
    }

    #[test]
    fn torn_and_foreign_tails_are_told_apart() {
        let table = ChunkTable::new(&[], &[]).unwrap();
        let bytes = table.encode();
        let tail = encode_head(Digest256([1; 32]), &bytes).unwrap();
        let good = decode_head(&tail).unwrap();
        assert_eq!(good.root, Digest256([1; 32]));
        assert_eq!(good.table(&bytes).unwrap(), table);
        let place = place(1, Tree::None, bytes.len() as u64, 1 << 20).unwrap().unwrap();
        assert_eq!(good.table_offset(1 << 20), Some(place.table_offset));
        assert!(matches!(decode_head(&[0; HEAD_BYTES]), Err(Error::WrongMagic { .. })), "never written");
        for at in 8..tail.len() {
            let mut torn = tail;
            torn[at] ^= 1;
            let Ok(found) = decode_head(&torn) else { continue };
            let same = found.root == good.root && found.table_bytes == good.table_bytes;
            assert!(!same || found.table(&bytes).is_err(), "byte {at}");
        }
        for at in 0..bytes.len() {
            let mut torn = bytes.clone();
            torn[at] ^= 1;
            assert!(good.table(&torn).is_err(), "byte {at} of the table");
        }
        assert!(encode_head(Digest256([1; 32]), &[]).is_err());
        assert!(encode_head(Digest256([1; 32]), &vec![0; MAX_INDEX_BYTES as usize + 1]).is_err());
    }

    proptest! {
        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), HEAD_BYTES)) {
            let mut tail: [u8; HEAD_BYTES] = bytes.try_into().unwrap();
            let _ = decode_head(&tail);
            tail[..8].copy_from_slice(&MAGIC);
            tail[44..48].fill(0);
            if let Ok(head) = decode_head(&tail) {
                prop_assert!(u64::from(head.table_bytes) <= MAX_INDEX_BYTES);
                let _ = head.table_offset(u64::MAX);
            }
        }
    }
}
