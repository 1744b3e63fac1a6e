//! The power goes at every moment of every flow, with every loader: see `tests::cuts`.
//!
//! `RORO_CUTS=100000000` explores that many states, `RORO_SEED=7` others of those that chance picks.

use std::collections::BTreeMap;

use bank_format::loader::Kind;
use tests::{
    cuts::{
        Budget, Explored, Trace, Violation, cells, explore, replay, sick,
        troubles::{self, Lied},
        workers::on_all_cores,
    },
    storage::What,
};

/// States that are explored when nobody says how many.
const STATES: usize = 1_000_000;

fn number(name: &str, otherwise: usize) -> usize {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

fn none_of(violations: &[Violation]) {
    let told: Vec<String> = violations.iter().map(ToString::to_string).collect();
    assert!(violations.is_empty(), "{}", told.join("\n\n"));
}

/// What was found, and what must not have been.
fn sorted<T>(results: Vec<Result<T, Box<Violation>>>) -> (Vec<T>, Vec<Violation>) {
    let (mut found, mut violations) = (Vec::new(), Vec::new());
    for result in results {
        match result {
            Ok(some) => found.push(some),
            Err(violation) => violations.push(*violation),
        }
    }
    (found, violations)
}

#[test]
fn the_power_goes_at_every_moment() {
    let cells = cells();
    let seed = number("RORO_SEED", 1) as u64;
    let budget = Budget { states: number("RORO_CUTS", STATES).div_ceil(cells.len()), seed };
    let results = on_all_cores(cells, |(flow, kind)| {
        explore(flow, kind, budget).map(|explored| (format!("{}, {kind}", flow.name), explored))
    });
    let (found, violations) = sorted(results);
    let found: BTreeMap<String, Explored> = found.into_iter().collect();
    println!("{:<36}{:>12}{:>12}{:>12}", "states after", "one cut", "two", "three");
    for (cell, explored) in &found {
        let [one, two, three] = explored.states;
        println!("{cell:<36}{one:>12}{two:>12}{three:>12}");
    }
    let total: usize = found.values().map(Explored::total).sum();
    println!("{total} states, {} violations; seed {seed}", violations.len());
    none_of(&violations);
}

#[test]
fn every_read_write_and_flush_fails() {
    let faults = [What::Read, What::Write, What::Room, What::Flush];
    let work = cells().into_iter().flat_map(|cell| faults.map(|what| (cell, what))).collect();
    let results = on_all_cores(work, |((flow, kind), what)| {
        troubles::faults(flow, kind, what).map(|plays| (what, plays))
    });
    let (found, violations) = sorted(results);
    let mut plays: BTreeMap<What, usize> = BTreeMap::new();
    found.into_iter().for_each(|(what, count)| *plays.entry(what).or_default() += count);
    println!("{plays:?} plays, {} violations", violations.len());
    none_of(&violations);
}

#[test]
fn the_process_is_killed_after_every_deed() {
    let results = on_all_cores(cells(), |(flow, kind)| troubles::kills(flow, kind));
    let (found, violations) = sorted(results);
    println!("{} plays, {} violations", found.iter().sum::<usize>(), violations.len());
    none_of(&violations);
}

#[test]
fn a_part_of_the_storage_is_sick_for_good() {
    let work: Vec<_> = Kind::ALL
        .into_iter()
        .flat_map(|kind| sick::all(kind).into_iter().map(move |(what, at)| (kind, what, at)))
        .collect();
    let plays = work.len();
    let told = on_all_cores(work, |(kind, what, at)| sick::play(kind, what, at).err());
    let told: Vec<String> = told.into_iter().flatten().collect();
    println!("{plays} plays, {} violations", told.len());
    assert!(told.is_empty(), "{}", told.join("\n\n"));
}

/// Nobody can promise anything on such a disk. That it is worse shows that the suite sees what a flush is for.
#[test]
fn a_disk_that_lies_about_its_flushes_is_a_class_of_its_own() {
    let results = on_all_cores(cells(), |(flow, kind)| troubles::lies(flow, kind));
    let (found, violations) = sorted(results);
    none_of(&violations);
    let sum = |of: fn(&Lied) -> usize| found.iter().map(of).sum::<usize>();
    let (states, violated) = (sum(|lied| lied.states), sum(|lied| lied.violations));
    println!("{states} states of a disk that lies, {violated} violations");
    assert!(violated > 0, "the suite is blind");
}

#[test]
fn a_state_is_made_again_by_its_name() {
    for trace in
        ["install/grub/7-5", "update/efi/killed9/12", "factory/u-boot/write1x1/3", "rollback/script/lies/4-1"]
    {
        let parsed: Trace = trace.parse().unwrap();
        assert_eq!(parsed.to_string(), trace);
        if parsed.trouble.is_none() {
            assert!(replay(&parsed).is_ok_and(|journal| journal.iter().any(|line| line == "power cut 7-5")));
        }
    }
    assert!("install/grub/7-".parse::<Trace>().is_err());
    assert!("install/lilo".parse::<Trace>().is_err());
}
