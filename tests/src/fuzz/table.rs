//! The chunk table, alone and in the tail of a bank.

#![expect(clippy::unwrap_used, reason = "what is unwrapped was promised")]

use std::collections::{BTreeMap, BTreeSet};

use bank_format::{
    Digest256, Error,
    index::{ChunkTable, Encoding, Lane, Source},
    limits::{
        MAX_CHUNK_BYTES, MAX_CHUNKS, MAX_FRAME_RAW_BYTES, MAX_FRAME_STORED_BYTES, MAX_IMAGE_BYTES,
        MAX_INDEX_BYTES,
    },
    manifest::Tree,
    tail,
};

use super::{Verdict, memory::number};

/// Zeros whose digest is compared: more cost time and show nothing new.
const MOST_ZEROS: u32 = 4096;

pub(super) fn index(bytes: &[u8]) -> Verdict {
    let table = ChunkTable::decode(bytes);
    if let Ok(table) = &table {
        check(table, bytes);
    }
    Verdict::of(&table)
}

/// What holds for every table that was read or made, and whose bytes these are.
pub(super) fn check(table: &ChunkTable, bytes: &[u8]) {
    assert_eq!(table.encode(), bytes, "a table has one form");
    assert!(table.image_bytes() <= MAX_IMAGE_BYTES);
    assert!(table.chunks().len() <= MAX_CHUNKS as usize);
    assert!(table.frames().len() <= table.chunks().len(), "no frame is without a chunk");
    let mut stored = 0;
    for frame in table.frames() {
        assert_eq!(frame.offset, stored, "frames lie one behind the other");
        assert!((1..=MAX_FRAME_STORED_BYTES).contains(&frame.stored_bytes));
        assert!((frame.stored_bytes..=MAX_FRAME_RAW_BYTES).contains(&frame.raw_bytes));
        assert_eq!(frame.encoding() == Encoding::Stored, frame.stored_bytes == frame.raw_bytes);
        stored += u64::from(frame.stored_bytes);
    }
    assert_eq!(table.stored_bytes(), stored);
    check_chunks(table);
    let frames: Vec<_> = lanes(bytes, table.frames().len())
        .into_iter()
        .zip(table.frames())
        .map(|(lane, frame)| (lane, frame.stored_bytes, frame.raw_bytes))
        .collect();
    let chunks: Vec<_> =
        table.chunks().iter().map(|chunk| (chunk.bytes, chunk.source, chunk.digest)).collect();
    assert_eq!(&ChunkTable::new(&frames, &chunks).unwrap(), table, "made of its own parts");
}

fn check_chunks(table: &ChunkTable) {
    let mut image_bytes = 0;
    let mut places = BTreeMap::new();
    let mut digests = BTreeSet::new();
    let mut zeros = BTreeMap::new();
    for chunk in table.chunks() {
        assert_eq!(chunk.offset, image_bytes, "chunks follow each other");
        assert!((1..=MAX_CHUNK_BYTES).contains(&chunk.bytes));
        image_bytes += u64::from(chunk.bytes);
        match chunk.source {
            Source::Zeros => {
                assert_eq!(*zeros.entry(chunk.bytes).or_insert(chunk.digest), chunk.digest);
            }
            Source::Frame { frame, offset } => {
                let told = (chunk.bytes, chunk.digest);
                if !places.contains_key(&(frame, offset)) {
                    assert!(digests.insert(chunk.digest), "equal chunks are stored once");
                }
                assert_eq!(*places.entry((frame, offset)).or_insert(told), told, "one place, one chunk");
            }
        }
    }
    assert_eq!(image_bytes, table.image_bytes());
    let mut filled = vec![0; table.frames().len()];
    for ((frame, offset), (bytes, _)) in places {
        let end = filled.get_mut(frame as usize).unwrap();
        assert_eq!(*end, offset, "chunks tile frame {frame}");
        *end += bytes;
    }
    assert!(filled.iter().eq(table.frames().iter().map(|frame| &frame.raw_bytes)));
    if let Some((bytes, digest)) = zeros.first_key_value().filter(|(bytes, _)| **bytes <= MOST_ZEROS) {
        assert_eq!(*digest, Digest256::of(&vec![0; *bytes as usize]));
    }
}

/// The lanes of the frames, out of the table's bytes.
fn lanes(bytes: &[u8], frames: usize) -> Vec<Lane> {
    let mut rest = &bytes[8..];
    number(&mut rest).unwrap();
    assert_eq!(number(&mut rest), Some(frames as u64));
    let lane = |_| {
        let head = number(&mut rest).unwrap();
        number(&mut rest).unwrap();
        if head % 2 == 1 { Lane::Aside } else { Lane::Main }
    };
    (0..frames).map(lane).collect()
}

/// The bytes as they lie in a partition, and as a table behind a head that fits it.
pub(super) fn tail(bytes: &[u8]) -> Verdict {
    check_place(bytes);
    let as_it_stands = read_tail(bytes);
    let head_of_its_own = match tail::encode_head(Digest256([7; 32]), bytes) {
        Ok(head) => {
            let verdict = read_tail(&[&head[..], bytes].concat());
            assert_eq!(verdict, Verdict::of(&ChunkTable::decode(bytes)), "the head is right");
            verdict
        }
        Err(_) => {
            assert!(bytes.is_empty(), "only a tail without a table is refused");
            Verdict::Refused
        }
    };
    as_it_stands.or(head_of_its_own)
}

fn read_tail(bytes: &[u8]) -> Verdict {
    let Some((head, table)) = bytes.split_first_chunk::<{ tail::HEAD_BYTES }>() else {
        return Verdict::Refused;
    };
    let Ok(found) = tail::decode_head(head) else { return Verdict::Refused };
    assert!((1..=MAX_INDEX_BYTES).contains(&u64::from(found.table_bytes)));
    let Some(table) = table.get(..found.table_bytes as usize) else { return Verdict::Refused };
    let result = found.table(table);
    match &result {
        Ok(read) => {
            check(read, table);
            assert_eq!(tail::encode_head(found.root, table).unwrap(), *head);
        }
        Err(Error::DigestMismatch { .. }) => assert_ne!(Digest256::of(table), found.table_sha256),
        Err(_) => assert!(ChunkTable::decode(table).is_err()),
    }
    Verdict::of(&result)
}

/// Where a tail lies, for numbers out of the bytes.
fn check_place(bytes: &[u8]) {
    let number = |at: usize| {
        let eight = bytes.get(at..at + 8).and_then(|eight| eight.first_chunk());
        eight.map_or(at as u64, |eight| u64::from_le_bytes(*eight))
    };
    let (image_bytes, table_bytes, partition_bytes) = (number(0), number(8), number(16));
    for tree in [Tree::None, Tree::Appended] {
        let place = tail::place(image_bytes, tree, table_bytes, partition_bytes);
        assert_eq!(place.is_ok(), (1..=MAX_IMAGE_BYTES).contains(&image_bytes));
        let Ok(Some(place)) = place else { continue };
        assert_eq!(tail::head_offset(partition_bytes), Some(place.head_offset));
        assert!(place.table_offset.is_multiple_of(4096) && place.head_offset.is_multiple_of(4096));
        assert!(place.table_offset >= image_bytes);
        assert!(u128::from(place.table_offset) + u128::from(table_bytes) <= u128::from(place.head_offset));
        assert!(partition_bytes - place.head_offset >= 4096 && partition_bytes - place.head_offset < 8192);
    }
}
