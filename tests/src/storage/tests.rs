//! What the storage remembers and forgets.

use super::*;

fn storage() -> (Storage, PlaceMedium, PlaceMedium) {
    let places = [Place::Record, Place::Loader].map(|place| (place, vec![0; 4096]));
    let storage = Storage::of(Contents::of(places));
    let record = storage.medium(Place::Record, Writer::System);
    let loader = storage.medium(Place::Loader, Writer::Loader);
    (storage, record, loader)
}

fn firsts(storage: &Storage, place: Place, at: &[usize]) -> BTreeSet<Vec<u8>> {
    let cuts = storage.after_power_cuts();
    cuts.iter().map(|(_, state)| at.iter().map(|at| state.bytes(place)[*at]).collect()).collect()
}

#[test]
fn a_write_is_old_new_or_torn_and_after_its_flush_only_new() {
    let (storage, mut record, _) = storage();
    record.write_at(0, &[1; 1024]).unwrap();
    let all: BTreeSet<Vec<u8>> = [[0, 0], [0, 1], [1, 0], [1, 1]].map(Vec::from).into();
    assert_eq!(firsts(&storage, Place::Record, &[0, 512]), all);
    assert_eq!(storage.unflushed_by_system(), [Place::Record].into());
    record.flush().unwrap();
    assert!(storage.unflushed_by_system().is_empty());
    storage.begin_log();
    assert_eq!(firsts(&storage, Place::Record, &[0, 512]), [vec![1, 1]].into());
}

#[test]
fn unflushed_writes_are_lost_out_of_order_and_a_flush_settles_the_loaders_writes_too() {
    let (storage, mut record, mut loader) = storage();
    record.write_at(0, &[1; 512]).unwrap();
    record.write_at(512, &[1; 512]).unwrap();
    assert!(firsts(&storage, Place::Record, &[0, 512]).contains(&vec![0, 1]));
    loader.write_at(0, &[7; 512]).unwrap();
    assert!(firsts(&storage, Place::Loader, &[0]).contains(&vec![0]), "before the flush it may be lost");
    record.flush().unwrap();
    // Nothing is open any more, so there is one way only to lose power here.
    let (words, last) = storage.after_power_cut(storage.possible_cuts() - 1).unwrap();
    assert_eq!(words, "after deed 4");
    assert_eq!((last.bytes(Place::Record)[512], last.bytes(Place::Loader)[0]), (1, 7));
    let (words, _) = storage.after_power_cut(storage.possible_cuts() - 2).unwrap();
    assert!(words.contains("deed 3"), "{words}");
}
