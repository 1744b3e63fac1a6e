//! Each flush and each order of two deeds is taken away in turn, and the suite of power cuts must see it: see `bank_format::barrier`.

use bank_format::barrier::Barrier;
use tests::cuts::{removed, workers::on_all_cores};

#[test]
fn every_barrier_that_is_taken_away_is_missed() {
    let found = on_all_cores(Barrier::ALL.to_vec(), |barrier| {
        let (violation, cells) = removed::caught(barrier);
        let by = violation
            .as_ref()
            .map_or("NOTHING".into(), |violation| format!("{}: {}", violation.trace, violation.why));
        println!("{:<28} after {cells:>4} cells by {by}", barrier.name());
        violation.is_none().then_some(barrier)
    });
    let missed: Vec<Barrier> = found.into_iter().flatten().collect();
    assert!(missed.is_empty(), "nobody misses {missed:?}");
}
