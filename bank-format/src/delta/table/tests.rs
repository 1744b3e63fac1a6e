//! Tables of deltas: they make what they were made for, and never anything beyond the limits.
#![expect(clippy::single_range_in_vec_init, reason = "a patch makes runs of chunks")]

use proptest::prelude::*;

use super::*;
use crate::{index::tests::tables, limits::MAX_IMAGE_BYTES};

/// A table whose new chunks, one a frame, have these numbers; 0 is zeros. Each has 1000 bytes.
fn table(contents: &[u32]) -> ChunkTable {
    let mut seen = std::collections::BTreeSet::new();
    let shapes = contents
        .iter()
        .filter(|content| **content != 0 && seen.insert(**content))
        .map(|_| FrameShape { lane: Lane::Main, chunks: 1, stored_bytes: 500 })
        .collect();
    let mut builder = Builder::new(1000 * contents.len() as u64, shapes).unwrap();
    for content in contents {
        if *content == 0 {
            builder.row(Row::Zeros { bytes: 1000 }).unwrap();
        } else {
            builder.new_or_repeat(Lane::Main, 1000, Digest256::of(&content.to_le_bytes())).unwrap();
        }
    }
    builder.finish().unwrap()
}

fn made(base: &ChunkTable, new: &ChunkTable) -> DeltaTable {
    let delta = DeltaTable::between(base, new, vec![]).unwrap();
    let read = DeltaTable::decode(&delta.encode()).unwrap();
    assert_eq!(read, delta);
    assert_eq!(read.chunk_table(base).unwrap(), *new);
    delta
}

fn runs(base: &[u32], new: &[u32]) -> Vec<(u32, u32, u32)> {
    made(&table(base), &table(new)).runs.iter().map(|run| (run.base_row, run.copied, run.literals)).collect()
}

#[test]
fn runs_are_as_long_as_can_be() {
    let base = [1, 2, 3, 4, 5, 6, 7];
    assert_eq!(runs(&base, &base), [(0, 7, 0)]);
    assert_eq!(runs(&base, &[]), []);
    assert_eq!(runs(&[], &[1, 0, 2]), [(0, 0, 3)]);
    assert_eq!(runs(&base, &[1, 2, 9, 4, 5, 6, 7]), [(0, 2, 1), (3, 4, 0)], "one changed");
    assert_eq!(runs(&base, &[1, 2, 4, 5, 6, 7]), [(0, 2, 0), (3, 4, 0)], "one taken away");
    assert_eq!(runs(&base, &[8, 9, 1, 2, 3]), [(0, 0, 2), (0, 3, 0)], "two put before");
    assert_eq!(runs(&base, &[5, 6, 7, 1, 2]), [(4, 3, 0), (0, 2, 0)], "another order");
    assert_eq!(runs(&[1, 2, 1, 2, 3], &[1, 2, 3]), [(2, 3, 0)], "the longest, not the first");
    assert_eq!(runs(&[1, 2, 5, 1], &[5, 1]), [(2, 2, 0)], "a repeat becomes the first of its kind");
    assert_eq!(runs(&[0, 1, 2], &[1, 0, 3]), [(1, 1, 2)], "lone zeros are said");
    assert_eq!(runs(&[1, 0, 2], &[1, 0, 3]), [(0, 2, 1)], "unless they continue a run");
}

#[test]
fn an_image_of_one_repeated_chunk_is_no_square() {
    let base = table(&[1].repeat(200_000));
    let new = table(&[[1, 1, 1, 2], [1, 3, 1, 1]].concat().repeat(20_000));
    assert!(DeltaTable::between(&base, &new, vec![]).unwrap().chunk_table(&base).unwrap() == new);
}

#[test]
fn the_wrong_base_makes_another_table_or_none() {
    let (base, new) = (table(&[1, 2, 3, 4]), table(&[1, 2, 9, 4]));
    let delta = made(&base, &new);
    assert!(delta.chunk_table(&table(&[1, 2])).is_err(), "rows that it has not");
    assert!(delta.chunk_table(&table(&[])).is_err());
    assert_ne!(delta.chunk_table(&table(&[5, 6, 7, 8])).unwrap(), new);
    assert!(delta.chunk_table(&table(&[1, 1, 1, 1])).is_err(), "fewer new chunks than the frames have");
}

#[test]
fn patches_have_their_places_and_none_overlaps() {
    let (base, new) = (table(&[1, 2]), table(&[3, 4, 5, 6, 7]));
    let runs =
        |chunks: &[std::ops::Range<u32>], stored_bytes| PatchEntry { chunks: chunks.to_vec(), stored_bytes };
    let entry = |first: u32, chunks: u32, bytes| runs(&[first..first.wrapping_add(chunks)], bytes);
    let with = |patches: &[PatchEntry]| DeltaTable::between(&base, &new, patches.to_vec());
    let delta = with(&[entry(0, 2, 100), entry(2, 1, 50), entry(4, 1, 7)]).unwrap();
    let read = DeltaTable::decode(&delta.encode()).unwrap();
    assert_eq!(read, delta);
    let places: Vec<_> = read.patches().iter().map(|patch| (patch.chunks.clone(), patch.offset)).collect();
    assert_eq!(places, [(vec![0..2], 0), (vec![2..3], 100), (vec![4..5], 150)]);
    assert_eq!(read.patches_bytes(), 157);
    for bad in [
        &[entry(0, 0, 1)][..],
        &[entry(0, 1, 0)],
        &[entry(0, 6, 1)],
        &[entry(5, 1, 1)],
        &[entry(0, 2, 1), entry(1, 1, 1)],
        &[entry(2, 1, 1), entry(0, 1, 1)],
        &[entry(u32::MAX, 2, 1)],
        &[entry(0, 1, MAX_PATCH_STORED_BYTES + 1)],
        &[runs(&[], 1)],
        &[runs(&[0..1, 1..2], 1)],
        &[runs(&[2..3, 0..1], 1)],
        &[runs(&[0..1, 3..4], 1), runs(&[3..5], 1)],
    ] {
        assert!(with(bad).is_err(), "{bad:?}");
    }
    let woven = with(&[runs(&[0..1, 3..4], 10), runs(&[1..2, 4..5], 20)]).unwrap();
    let read = DeltaTable::decode(&woven.encode()).unwrap();
    assert_eq!(read, woven);
    assert_eq!(read.patches()[1].chunk_numbers().collect::<Vec<_>>(), [1, 4]);
}

#[test]
fn a_patch_that_makes_more_than_the_limit_is_refused_with_its_lengths() {
    let chunks = MAX_PATCH_TARGET_BYTES / MAX_CHUNK_BYTES + 1;
    let mut builder = Builder::new(u64::from(chunks * MAX_CHUNK_BYTES), vec![]).unwrap();
    for _ in 0..chunks {
        builder.row(Row::Zeros { bytes: MAX_CHUNK_BYTES }).unwrap();
    }
    let new = builder.finish().unwrap();
    let entry = |chunks| vec![PatchEntry { chunks: vec![0..chunks], stored_bytes: 1 }];
    assert!(matches!(DeltaTable::between(&new, &new, entry(chunks)), Err(Error::TooLarge { .. })));
    let mut delta = DeltaTable::between(&new, &new, entry(chunks - 1)).unwrap();
    delta.patches[0].chunks = vec![0..chunks];
    let forged = DeltaTable::decode(&delta.encode()).unwrap();
    assert!(matches!(forged.chunk_table(&new), Err(Error::TooLarge { .. })));
}

/// A table out of numbers, as a liar writes it; `None` is the place of a SHA-256.
fn forged(numbers: &[Option<u64>]) -> Result<DeltaTable> {
    let mut bytes = MAGIC.to_vec();
    for number in numbers {
        match number {
            Some(number) => varint::put(&mut bytes, *number),
            None => bytes.extend([7; 32]),
        }
    }
    DeltaTable::decode(&bytes)
}

#[test]
fn lies_are_refused_before_memory_is_taken() {
    let n = Some;
    let most = u64::from(MAX_CHUNKS);
    let (zeros, new) = (n(10 << 2 | 1), n(10 << 2));
    type Case<'a> = (&'a str, &'a [Option<u64>]);
    let good: &[Case] = &[
        ("nothing", &[n(0), n(0), n(0), n(0)]),
        ("zeros", &[n(10), n(0), n(1), n(0), n(1), zeros, n(0)]),
        ("new", &[n(10), n(1), n(2), n(5), n(1), n(0), n(1), new, None, n(0)]),
        ("a copy and a patch", &[n(10), n(0), n(1), n(1), n(2 * 5), n(0), n(1), n(99), n(1), n(0), n(1)]),
    ];
    for (name, numbers) in good {
        assert!(forged(numbers).is_ok(), "{name}");
    }
    let bad: &[Case] = &[
        ("a larger image", &[n(MAX_IMAGE_BYTES + 1), n(0), n(0), n(0)]),
        ("2^40 frames", &[n(10), n(1 << 40), n(0), n(0)]),
        ("2^40 runs", &[n(10), n(0), n(1 << 40), n(0)]),
        ("2^40 copied rows", &[n(10), n(0), n(1), n(1 << 40), n(0), n(0), n(0)]),
        ("2^40 literal rows", &[n(10), n(0), n(1), n(0), n(1 << 40), zeros, n(0)]),
        ("2^40 patches", &[n(10), n(0), n(0), n(1 << 40)]),
        ("more rows than may be", &[n(10), n(0), n(2), n(most), n(0), n(0), n(1), n(0), n(0), n(0)]),
        ("before the first row", &[n(10), n(0), n(1), n(1), n(1), n(0), n(0)]),
        ("beyond any base", &[n(10), n(0), n(1), n(1), n(2 * (most + 1)), n(0), n(0)]),
        ("beyond 64 bits", &[n(10), n(0), n(2), n(1), n(2), n(0), n(1), n(u64::MAX - 1), n(0), n(0)]),
        ("an empty run", &[n(10), n(0), n(1), n(0), n(0), n(0)]),
        (
            "a second run that copies nothing",
            &[n(10), n(0), n(2), n(0), n(1), zeros, n(0), n(1), zeros, n(0)],
        ),
        ("an empty row", &[n(10), n(0), n(1), n(0), n(1), n(1), n(0)]),
        ("a row of kind 2", &[n(10), n(0), n(1), n(0), n(1), n(10 << 2 | 2), n(0)]),
        (
            "a row too large",
            &[n(10), n(0), n(1), n(0), n(1), n(u64::from(MAX_CHUNK_BYTES + 1) << 2), None, n(0)],
        ),
        ("no digest", &[n(10), n(1), n(2), n(5), n(1), n(0), n(1), new, n(0)]),
        ("bytes behind its end", &[n(0), n(0), n(0), n(0), n(0)]),
        ("a patch beyond the rows", &[n(10), n(0), n(1), n(0), n(1), zeros, n(1), n(1), n(1), n(0), n(2)]),
        ("a gap beyond the rows", &[n(10), n(0), n(1), n(0), n(1), zeros, n(1), n(1), n(1), n(2), n(1)]),
        ("a patch of no chunk", &[n(10), n(0), n(1), n(0), n(1), zeros, n(1), n(1), n(1), n(0), n(0)]),
        ("a patch of no run", &[n(10), n(0), n(1), n(0), n(1), zeros, n(1), n(1), n(0)]),
        (
            "more runs than rows",
            &[n(10), n(0), n(1), n(0), n(1), zeros, n(1), n(1), n(2), n(0), n(1), n(0), n(1)],
        ),
        ("a patch of no byte", &[n(10), n(0), n(1), n(0), n(1), zeros, n(1), n(0), n(1), n(0), n(1)]),
        (
            "a patch of 2^32 bytes",
            &[n(10), n(0), n(1), n(0), n(1), zeros, n(1), n(1 << 32), n(1), n(0), n(1)],
        ),
    ];
    for (name, numbers) in bad {
        assert!(forged(numbers).is_err(), "{name}");
    }
    assert!(matches!(DeltaTable::decode(b"RoroIdx1"), Err(Error::WrongMagic { .. })));
}

/// Patches of some of the chunks of a table.
fn patches(chunks: usize, lengths: &[(u32, u32)]) -> Vec<PatchEntry> {
    let mut end = 0;
    let mut entries: Vec<PatchEntry> = Vec::new();
    for (number, (gap, length)) in lengths.iter().enumerate() {
        let first = end + gap;
        end = first + length;
        if end as usize > chunks {
            break;
        }
        // Some are woven into each other.
        let earlier = entries.len().checked_sub(2).filter(|_| *gap > 0 && number % 3 == 0);
        match earlier.and_then(|earlier| entries.get_mut(earlier)) {
            Some(earlier) => earlier.chunks.push(first..end),
            None => entries.push(PatchEntry { chunks: vec![first..end], stored_bytes: 1 + gap * 1000 }),
        }
    }
    entries
}

proptest! {
    #[test]
    fn any_table_is_made_of_any_other(
        base in tables(),
        new in tables(),
        lengths in proptest::collection::vec((0u32..4, 1u32..4), 0..8),
    ) {
        let entries = patches(new.chunks().len(), &lengths);
        let delta = DeltaTable::between(&base, &new, entries.clone()).unwrap();
        prop_assert_eq!(delta.patches().len(), entries.len());
        let read = DeltaTable::decode(&delta.encode()).unwrap();
        prop_assert_eq!(&read, &delta);
        prop_assert_eq!(read.chunk_table(&base).unwrap(), new);
    }

    #[test]
    fn a_table_of_equal_rows_is_copied(table in tables()) {
        let delta = DeltaTable::between(&table, &table, vec![]).unwrap();
        prop_assert!(delta.runs.len() <= 1);
        prop_assert_eq!(delta.literals, vec![]);
    }

    #[test]
    fn never_panics_and_has_one_form(
        base in tables(),
        new in tables(),
        flips in proptest::collection::vec((any::<usize>(), any::<u8>()), 0..6),
        cut in 0usize..100,
    ) {
        let delta = DeltaTable::between(&base, &new, patches(new.chunks().len(), &[(1, 2), (0, 3)])).unwrap();
        let mut bytes = delta.encode();
        for (at, value) in flips {
            let len = bytes.len();
            bytes[at % len] = value;
        }
        bytes.truncate(bytes.len().saturating_sub(cut));
        if let Ok(delta) = DeltaTable::decode(&bytes) {
            prop_assert_eq!(delta.encode(), bytes);
            if let Ok(table) = delta.chunk_table(&base) {
                prop_assert_eq!(ChunkTable::decode(&table.encode()).unwrap(), table);
            }
        }
    }
}
