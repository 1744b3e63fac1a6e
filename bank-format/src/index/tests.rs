//! Tables that are right and tables that lie; random ones, which the tests of deltas use too.

use proptest::prelude::*;

use super::*;
use crate::limits::{MAX_CHUNK_BYTES, MAX_FRAME_RAW_BYTES};

fn digest(n: u8) -> Digest256 {
    Digest256::of(&[n])
}

fn zeros(bytes: u32) -> (u32, Source, Digest256) {
    (bytes, Source::Zeros, Digest256::of(&vec![0; bytes as usize]))
}

fn at(frame: u32, offset: u32) -> Source {
    Source::Frame { frame, offset }
}

fn main(stored_bytes: u32, raw_bytes: u32) -> (Lane, u32, u32) {
    (Lane::Main, stored_bytes, raw_bytes)
}

fn sample() -> ChunkTable {
    ChunkTable::new(
        &[main(50, 100), main(30, 30)],
        &[
            (60, at(0, 0), digest(1)),
            (40, at(0, 60), digest(2)),
            zeros(4096),
            (60, at(0, 0), digest(1)),
            (30, at(1, 0), digest(3)),
            zeros(5000),
        ],
    )
    .unwrap()
}

/// Tables of up to 60 chunks out of a few contents, so that they repeat, and resemble each other.
pub(crate) fn tables() -> impl Strategy<Value = ChunkTable> {
    (proptest::collection::vec(0u32..40, 0..60), proptest::collection::vec(1u32..6, 60)).prop_map(
        |(contents, cuts)| {
            // Of each content the length and whether it is zeros follow from its number.
            let mut seen = std::collections::BTreeSet::new();
            let lane = |content: u32| if content.is_multiple_of(3) { Lane::Aside } else { Lane::Main };
            let new: Vec<u32> =
                contents.iter().copied().filter(|content| *content >= 8 && seen.insert(*content)).collect();
            let of = |wanted| new.iter().filter(|content| lane(**content) == wanted).count();
            let (mut main, mut aside) = (of(Lane::Main), of(Lane::Aside));
            let mut shapes = Vec::new();
            for cut in cuts {
                let (lane, left) =
                    if cut % 2 == 0 { (Lane::Main, &mut main) } else { (Lane::Aside, &mut aside) };
                let chunks = (cut as usize).min(*left) as u32;
                if chunks > 0 {
                    shapes.push(FrameShape { lane, chunks, stored_bytes: 1 + cut });
                    *left -= chunks as usize;
                }
            }
            // The frames were too few for one of them.
            for (lane, left) in [(Lane::Main, main), (Lane::Aside, aside)] {
                shapes.extend((0..left).map(|_| FrameShape { lane, chunks: 1, stored_bytes: 1 }));
            }
            let bytes: u64 = contents.iter().map(|content| u64::from(*content * 100 + 10)).sum();
            let mut builder = Builder::new(bytes, shapes).unwrap();
            for content in contents {
                let bytes = content * 100 + 10;
                if content < 8 {
                    builder.row(Row::Zeros { bytes }).unwrap();
                } else {
                    builder
                        .new_or_repeat(lane(content), bytes, Digest256::of(&content.to_le_bytes()))
                        .unwrap();
                }
            }
            builder.finish().unwrap()
        },
    )
}

#[test]
fn round_trip() {
    let table = sample();
    assert_eq!(ChunkTable::decode(&table.encode()).unwrap(), table);
    assert_eq!(table.image_bytes(), 60 + 40 + 4096 + 60 + 30 + 5000);
    assert_eq!(table.frames()[1].offset, 50);
    assert_eq!(table.frames()[0].encoding(), Encoding::Zstd);
    assert_eq!(table.frames()[1].encoding(), Encoding::Stored);
    // A row of what is known takes a byte or two.
    let digests = 3 * 32;
    assert_eq!(table.encode().len(), 8 + 2 + (1 + 2 + 2) + 1 + (2 + 2 + 3 + 1 + 1 + 3) + digests);
}

/// Between files lies what changes with each of them; two lanes are two tilings.
#[test]
fn lanes_are_filled_each_by_itself() {
    let aside = |stored, raw| (Lane::Aside, stored, raw);
    let frames = [main(5, 30), aside(7, 20), main(9, 10)];
    let chunks = [
        (10, at(1, 0), digest(1)),
        (30, at(0, 0), digest(2)),
        (10, at(1, 10), digest(3)),
        (10, at(2, 0), digest(4)),
    ];
    let table = ChunkTable::new(&frames, &chunks).unwrap();
    assert_eq!(ChunkTable::decode(&table.encode()).unwrap(), table);
    let offsets: Vec<_> = table.frames().iter().map(|frame| frame.offset).collect();
    assert_eq!(offsets, [0, 5, 12]);
    assert!(ChunkTable::new(&[main(5, 30), main(7, 20), main(9, 10)], &chunks).is_err(), "in one lane");
}

#[test]
fn gaps_overlaps_bombs_and_empty_rows_are_refused() {
    let d = digest(1);
    type Case<'a> = (&'a str, &'a [(Lane, u32, u32)], &'a [(u32, Source, Digest256)]);
    let bad: &[Case] = &[
        ("gap in a frame", &[main(9, 10)], &[(4, at(0, 0), d), (5, at(0, 5), digest(2))]),
        ("overlap in a frame", &[main(9, 10)], &[(6, at(0, 0), d), (6, at(0, 4), digest(2))]),
        ("same place, other digest", &[main(9, 10)], &[(10, at(0, 0), d), (10, at(0, 0), digest(2))]),
        ("same place, other length", &[main(9, 10)], &[(10, at(0, 0), d), (9, at(0, 0), d)]),
        ("stored twice", &[main(9, 10)], &[(5, at(0, 0), d), (5, at(0, 5), d)]),
        ("frame not used", &[main(9, 10)], &[zeros(10)]),
        ("frame not used up", &[main(9, 10)], &[(9, at(0, 0), d)]),
        (
            "frames in another order",
            &[main(9, 10), main(9, 10)],
            &[(10, at(1, 0), d), (10, at(0, 0), digest(2))],
        ),
        ("frame that is not there", &[], &[(9, at(0, 0), d)]),
        ("beyond the frame", &[main(9, 10)], &[(11, at(0, 0), d)]),
        ("offset near the end of 32 bits", &[main(9, 10)], &[(10, at(0, u32::MAX), d)]),
        ("empty chunk", &[], &[(0, Source::Zeros, d)]),
        ("chunk too large", &[], &[zeros(MAX_CHUNK_BYTES + 1)]),
        ("zeros with another digest", &[], &[(10, Source::Zeros, d)]),
        ("bomb", &[main(9, MAX_FRAME_RAW_BYTES + 1)], &[]),
        ("frame longer than its content", &[main(11, 10)], &[(10, at(0, 0), d)]),
        ("empty frame", &[main(0, 0)], &[]),
    ];
    for (name, frames, chunks) in bad {
        assert!(ChunkTable::new(frames, chunks).is_err(), "{name}");
    }
}

/// Rows as bytes: what no honest writer makes.
fn forged(image_bytes: u64, frames: &[(u64, u64)], heads: &[u64], digests: &[Digest256]) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    varint::put(&mut bytes, image_bytes);
    varint::put(&mut bytes, frames.len() as u64);
    for (chunks, stored) in frames {
        varint::put(&mut bytes, *chunks);
        varint::put(&mut bytes, *stored);
    }
    varint::put(&mut bytes, heads.len() as u64);
    for head in heads {
        varint::put(&mut bytes, *head);
    }
    bytes.extend(digests.iter().flat_map(|digest| digest.0));
    bytes
}

#[test]
fn forged_rows_are_refused() {
    let good = forged(20, &[(2, 5)], &[10 << 2, 2], &[digest(1)]);
    assert_eq!(ChunkTable::decode(&good).unwrap().chunks()[1].source, at(0, 0));
    let new = 10 << 2;
    type Case<'a> = (&'a str, u64, &'a [(u64, u64)], &'a [u64], usize);
    let bad: &[Case] = &[
        ("repeats itself", 10, &[], &[2], 0),
        ("repeats a later one", 20, &[(2, 5)], &[1 << 2 | 2, new], 1),
        ("repeats zeros", 20, &[], &[10 << 2 | 1, 2], 0),
        ("repeats a repeat", 30, &[(2, 5)], &[new, 2, 1 << 2 | 2], 1),
        ("repeats number 2^32", 20, &[(2, 5)], &[new, 1 << 34 | 2], 1),
        ("kind 3 without a frame", 10, &[], &[10 << 2 | 3], 0),
        ("kind 3 in a frame of the other lane", 10, &[(2, 5)], &[10 << 2 | 3], 1),
        ("kind 0 in a frame of the other lane", 10, &[(3, 5)], &[new], 1),
        ("zeros of 2^32 bytes", 10, &[], &[1 << 34 | 1], 0),
        ("more chunks in the frame than there are", 10, &[(4, 5)], &[new], 1),
        ("fewer", 20, &[(2, 5)], &[new, new], 2),
        ("a frame without chunks", 10, &[(0, 5), (2, 5)], &[new], 1),
        ("2^62 chunks in a frame", 10, &[(1 << 63, 5)], &[new], 1),
        ("a frame of nothing", 10, &[(2, 0)], &[new], 1),
        ("a frame of 2^32 bytes", 10, &[(2, 1 << 32)], &[new], 1),
        ("a frame longer than its content", 10, &[(2, 11)], &[new], 1),
        ("a digest is missing", 10, &[(2, 5)], &[new], 0),
        ("a digest too many", 10, &[(2, 5)], &[new], 2),
        ("a longer image", 11, &[(2, 5)], &[new], 1),
        ("a shorter image", 9, &[(2, 5)], &[new], 1),
        ("an image of 2^63 bytes", 1 << 63, &[(2, 5)], &[new], 1),
    ];
    for (name, image_bytes, frames, heads, digests) in bad {
        let digests: Vec<Digest256> = (0..*digests).map(|number| digest(number as u8)).collect();
        assert!(ChunkTable::decode(&forged(*image_bytes, frames, heads, &digests)).is_err(), "{name}");
    }
    let twice = forged(20, &[(4, 5)], &[new, new], &[digest(1), digest(1)]);
    assert!(ChunkTable::decode(&twice).is_err(), "one digest stored twice");
}

#[test]
fn counts_that_do_not_fit_the_bytes_are_refused_before_memory_is_taken() {
    for count in [u64::from(MAX_CHUNKS) + 1, u64::MAX] {
        let mut frames = MAGIC.to_vec();
        varint::put(&mut frames, 10);
        let mut chunks = frames.clone();
        varint::put(&mut frames, count);
        varint::put(&mut chunks, 0);
        varint::put(&mut chunks, count);
        for bytes in [frames, chunks] {
            assert!(matches!(ChunkTable::decode(&bytes), Err(Error::TooLarge { .. })));
        }
    }
    let many = forged(u64::from(MAX_CHUNKS) + 1, &[], &vec![1 << 2 | 1; MAX_CHUNKS as usize + 1], &[]);
    assert!(matches!(ChunkTable::decode(&many), Err(Error::TooLarge { .. })), "a bomb of rows");
    let most = forged(u64::from(MAX_CHUNKS), &[], &vec![1 << 2 | 1; MAX_CHUNKS as usize], &[]);
    assert_eq!(ChunkTable::decode(&most).unwrap().chunks().len(), MAX_CHUNKS as usize);
}

/// The sum of their lengths is half a terabyte: they must not be hashed one by one.
#[test]
fn zeros_of_a_million_lengths_cost_no_more_than_the_longest() {
    let heads: Vec<u64> = (1..=u64::from(MAX_CHUNK_BYTES)).map(|bytes| bytes << 2 | 1).collect();
    let bytes = forged((1..=u64::from(MAX_CHUNK_BYTES)).sum(), &[], &heads, &[]);
    let table = ChunkTable::decode(&bytes).unwrap();
    for at in [0, 1, 4095, 4096, 70_000] {
        assert_eq!(table.chunks()[at].digest, Digest256::of(&vec![0; at + 1]));
    }
}

proptest! {
    #[test]
    fn any_table_goes_there_and_back(table in tables()) {
        prop_assert_eq!(ChunkTable::decode(&table.encode()).unwrap(), table.clone());
        let frames = table.frames().iter().zip(table.shapes());
        let frames: Vec<_> =
            frames.map(|(frame, shape)| (shape.lane, frame.stored_bytes, frame.raw_bytes)).collect();
        let chunks: Vec<_> = table.chunks().iter().map(|chunk| (chunk.bytes, chunk.source, chunk.digest)).collect();
        prop_assert_eq!(ChunkTable::new(&frames, &chunks).unwrap(), table);
    }

    #[test]
    fn never_panics(
        table in tables(),
        flips in proptest::collection::vec((any::<usize>(), any::<u8>()), 0..8),
        cut in 0usize..300,
    ) {
        let mut bytes = table.encode();
        for (at, value) in flips {
            let len = bytes.len();
            bytes[at % len] = value;
        }
        bytes.truncate(bytes.len().saturating_sub(cut));
        if let Ok(table) = ChunkTable::decode(&bytes) {
            prop_assert_eq!(table.encode(), bytes);
        }
    }
}
