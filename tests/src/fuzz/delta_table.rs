//! The table of a delta, and the chunk tables that it makes of a few bases.

#![expect(clippy::unwrap_used, reason = "what is unwrapped was promised")]

use std::{collections::BTreeSet, sync::OnceLock};

use bank_format::{
    Digest256,
    delta::{DeltaTable, PatchEntry},
    index::{ChunkTable, Lane, Source},
    limits::{MAX_CHUNKS, MAX_IMAGE_BYTES, MAX_PATCH_STORED_BYTES, MAX_PATCH_TARGET_BYTES},
    tail,
};

use super::{Verdict, table};

const TAIL: &[u8] = include_bytes!("../../../bank-format/tests/golden/tail.bin");

pub(super) fn delta_table(bytes: &[u8]) -> Verdict {
    let delta = DeltaTable::decode(bytes);
    if let Ok(delta) = &delta {
        check(delta, bytes);
    }
    Verdict::of(&delta)
}

/// What holds for every delta table whose bytes these are.
pub(super) fn check(delta: &DeltaTable, bytes: &[u8]) {
    assert_eq!(delta.encode(), bytes, "a table has one form");
    assert!(delta.image_bytes() <= MAX_IMAGE_BYTES);
    let mut offset = 0;
    let mut begin = None;
    let mut made = BTreeSet::new();
    for patch in delta.patches() {
        assert_eq!(patch.offset, offset, "patches lie one behind the other");
        assert!((1..=MAX_PATCH_STORED_BYTES).contains(&patch.stored_bytes));
        offset += u64::from(patch.stored_bytes);
        let first = patch.chunks.first().map(|run| run.start);
        assert!(first.is_some() && first > begin, "patches are sorted");
        begin = first;
        let numbers: Vec<usize> = patch.chunk_numbers().collect();
        assert!(numbers.is_sorted());
        assert!(patch.chunks.windows(2).all(|pair| pair[0].end < pair[1].start), "runs do not touch");
        for number in numbers {
            assert!(number < MAX_CHUNKS as usize);
            assert!(made.insert(number), "chunk {number} is made twice");
        }
    }
    assert_eq!(delta.patches_bytes(), offset);
    for base in bases() {
        if let Ok(made) = delta.chunk_table(base) {
            check_made(delta, base, &made);
        }
    }
}

fn check_made(delta: &DeltaTable, base: &ChunkTable, made: &ChunkTable) {
    table::check(made, &made.encode());
    assert_eq!(made.image_bytes(), delta.image_bytes());
    assert_eq!(&ChunkTable::decode(&made.encode()).unwrap(), made);
    for patch in delta.patches() {
        let chunks = patch.chunk_numbers().map(|number| made.chunks().get(number).unwrap());
        let target: u64 = chunks.map(|chunk| u64::from(chunk.bytes)).sum();
        assert!(target <= u64::from(MAX_PATCH_TARGET_BYTES));
    }
    let entry = |patch: &bank_format::delta::Patch| PatchEntry {
        chunks: patch.chunks.clone(),
        stored_bytes: patch.stored_bytes,
    };
    let again = DeltaTable::between(base, made, delta.patches().iter().map(entry).collect()).unwrap();
    assert_eq!(&again.chunk_table(base).unwrap(), made, "the way there and back");
    assert_eq!(again.patches(), delta.patches());
    assert_eq!(DeltaTable::decode(&again.encode()).unwrap(), again);
}

/// An empty base, the golden one, and one of both lanes with zeros and repeats.
fn bases() -> &'static [ChunkTable; 3] {
    static BASES: OnceLock<[ChunkTable; 3]> = OnceLock::new();
    BASES.get_or_init(|| {
        let golden = ChunkTable::decode(&TAIL[tail::HEAD_BYTES..]).unwrap();
        [ChunkTable::new(&[], &[]).unwrap(), golden, mixed_base()]
    })
}

fn mixed_base() -> ChunkTable {
    let at = |frame, offset| Source::Frame { frame, offset };
    let digest = |number: u8| Digest256([number; 32]);
    let zeros = |bytes: u32| (bytes, Source::Zeros, Digest256::of(&vec![0; bytes as usize]));
    let chunks = [
        (100, at(0, 0), digest(1)),
        (200, at(1, 0), digest(2)),
        zeros(4096),
        (300, at(0, 100), digest(3)),
        (200, at(1, 0), digest(2)),
        (1, at(1, 200), digest(4)),
        zeros(1),
        (100, at(0, 0), digest(1)),
        (1 << 20, at(2, 0), digest(5)),
        zeros(1 << 20),
    ];
    ChunkTable::new(&[(Lane::Main, 40, 400), (Lane::Aside, 201, 201), (Lane::Main, 9, 1 << 20)], &chunks)
        .unwrap()
}
