use bank_format::{
    Digest256,
    delta::{DeltaTable, PatchEntry},
    index::Lane,
};
use proptest::prelude::*;

use super::*;

/// Frames of these stored bytes, each of so many chunks of 1000 bytes.
fn table(frames: &[(u32, u32)]) -> ChunkTable {
    let shapes: Vec<_> = frames.iter().map(|(stored, chunks)| (Lane::Main, *stored, chunks * 1000)).collect();
    let mut chunks = Vec::new();
    for (number, (_, count)) in frames.iter().enumerate() {
        for place in 0..*count {
            let digest = Digest256::of(&[(number as u32).to_le_bytes(), place.to_le_bytes()].concat());
            chunks.push((1000, Source::Frame { frame: number as u32, offset: place * 1000 }, digest));
        }
    }
    ChunkTable::new(&shapes, &chunks).unwrap()
}

fn patches(table: &ChunkTable, entries: &[(std::ops::Range<u32>, u32)]) -> Vec<Patch> {
    let entries = entries.iter().map(|(chunks, stored_bytes)| PatchEntry {
        chunks: vec![chunks.clone()],
        stored_bytes: *stored_bytes,
    });
    DeltaTable::between(table, table, entries.collect()).unwrap().patches().to_vec()
}

fn held(table: &ChunkTable, in_place: &[usize], active: &[usize]) -> Held {
    let mut held =
        Held { in_place: vec![false; table.chunks().len()], active: vec![None; table.chunks().len()] };
    in_place.iter().for_each(|number| held.in_place[*number] = true);
    active.iter().for_each(|number| held.active[*number] = Some(7));
    held
}

/// Bytes that are fetched, gaps included.
fn cost(plan: &Plan, table: &ChunkTable, patches: &[Patch]) -> u64 {
    plan.frame_runs(table).iter().chain(&plan.patch_runs(patches)).map(|run| run.bytes).sum()
}

#[test]
fn neighbours_and_small_gaps_become_one_request() {
    let table = table(&[(100, 1), (200, 1), (300, 1), (1000, 2000), (400, 1), (1000, 17), (500, 1)]);
    let runs = |wanted: &[usize]| {
        let all: Vec<usize> = (0..table.chunks().len()).filter(|number| !wanted.contains(number)).collect();
        let plan = Plan::new(&table, &held(&table, &all, &[]), &[]);
        plan.frame_runs(&table).iter().map(|run| (run.first, run.last, run.bytes)).collect::<Vec<_>>()
    };
    assert_eq!(runs(&[]), []);
    assert_eq!(runs(&[0, 1, 2]), [(0, 2, 600)]);
    assert_eq!(runs(&[0, 2]), [(0, 2, 600)], "a gap of 200 bytes");
    let far = self::table(&[(100, 1), (1 << 20, 2000), (300, 1)]);
    let plan = Plan::new(&far, &held(&far, &(1..2001).collect::<Vec<_>>(), &[]), &[]);
    assert_eq!(plan.frame_runs(&far).len(), 2, "a gap of a MiB");
}

#[test]
fn each_chunk_goes_the_cheapest_way() {
    let table = table(&[(900, 2), (900, 2), (900, 2)]);
    let patches = patches(&table, &[(2..4, 100), (4..5, 100)]);
    let plan = Plan::new(&table, &held(&table, &[0], &[1]), &patches);
    use Way::{Copy, Fetch, Patch, Skip};
    assert_eq!(plan.ways, [Skip, Copy { offset: 7 }, Patch, Patch, Fetch, Fetch]);
    assert_eq!(plan.patches, [0], "the third frame is needed for its other chunk anyway");
    let sums = plan.sums(&table);
    assert_eq!((sums.skipped, sums.copied, sums.patched, sums.fetched), (1000, 1000, 2000, 2000));
    assert_eq!(cost(&plan, &table, &patches), 1000);
}

#[test]
fn a_patch_that_costs_more_than_its_frame_is_left() {
    let table = table(&[(900, 2), (900, 2)]);
    let dear = patches(&table, &[(0..2, 901), (2..4, 899)]);
    assert_eq!(Plan::new(&table, &held(&table, &[], &[]), &dear).patches, [1]);
    // Two patches that spare one frame only together.
    let both = patches(&table, &[(0..1, 400), (1..2, 400)]);
    assert_eq!(Plan::new(&table, &held(&table, &[], &[]), &both).patches, [0, 1]);
    assert_eq!(Plan::new(&table, &held(&table, &[0, 1], &[]), &both).patches, [0; 0], "nothing is wanted");
}

proptest! {
    #[test]
    fn a_delta_never_costs_more_than_frames_alone(
        frames in proptest::collection::vec((1u32..5000, 1u32..5), 1..12),
        lies in proptest::collection::vec(0u8..4, 48),
        cuts in proptest::collection::vec((1u32..4, 1u32..4000), 0..20),
    ) {
        let frames: Vec<_> = frames.iter().map(|(stored, chunks)| ((*stored).min(chunks * 1000), *chunks)).collect();
        let table = table(&frames);
        let count = table.chunks().len();
        let (mut entries, mut at) = (Vec::new(), 0);
        for (chunks, stored) in cuts {
            if at + chunks <= count as u32 { entries.push((at..at + chunks, stored)) }
            at += chunks;
        }
        let patches = patches(&table, &entries);
        let places = |lie| (0..count).filter(|number| lies[*number] == lie).collect::<Vec<_>>();
        let held = held(&table, &places(0), &places(1));
        let plan = Plan::new(&table, &held, &patches);
        let alone = Plan::new(&table, &held, &[]);
        let stored = |plan: &Plan| -> u64 {
            let frames: std::collections::BTreeSet<u32> = plan.ways.iter().zip(table.chunks())
                .filter(|(way, _)| **way == Way::Fetch).map(|(_, chunk)| place(chunk.source).0).collect();
            let frames: u64 = frames.iter().map(|frame| u64::from(table.frames()[*frame as usize].stored_bytes)).sum();
            frames + plan.patches.iter().map(|number| u64::from(patches[*number].stored_bytes)).sum::<u64>()
        };
        prop_assert!(plan.patches.is_empty() || stored(&plan) <= stored(&alone));
        prop_assert!(cost(&plan, &table, &patches) <= cost(&alone, &table, &patches));
        let sums = plan.sums(&table);
        prop_assert_eq!(sums.skipped + sums.zeros + sums.copied + sums.patched + sums.fetched, table.image_bytes());
        for (number, way) in plan.ways.iter().enumerate() {
            match way {
                Way::Skip => prop_assert!(held.in_place[number]),
                Way::Copy { .. } => prop_assert!(held.active[number].is_some()),
                Way::Patch => prop_assert!(plan.patches.iter().any(|p| patches[*p].chunk_numbers().any(|n| n == number))),
                Way::Fetch | Way::Zeros => (),
            }
        }
    }
}
