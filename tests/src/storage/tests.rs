//! What the storage remembers and forgets.

use std::path::Path;

use updater::files::{Files as _, replace};

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
    let cuts = storage.possible_cuts();
    let last = cuts.last().unwrap();
    assert_eq!(last.to_string(), "4");
    let left = storage.after_power_cut(last);
    assert_eq!((left.bytes(Place::Record)[512], left.bytes(Place::Loader)[0]), (1, 7));
    assert!(cuts.iter().filter(|cut| cut.done == 4).count() == 1);
    for cut in cuts {
        assert_eq!(cut.to_string().parse::<Cut>().unwrap(), cut);
    }
}

/// The names of files, and what is in them.
fn files(contents: &Contents) -> Vec<(String, String)> {
    let tree = contents.files();
    let text = |path: &Path| String::from_utf8_lossy(tree.file(path).unwrap_or(b"/")).into_owned();
    tree.names.keys().map(|path| (path.display().to_string(), text(path))).collect()
}

#[test]
fn files_are_old_or_new_if_they_are_replaced_and_torn_or_empty_if_they_are_not() {
    let storage = Storage::of(Contents::default());
    let (state, path) = (storage.files(), Path::new("/state/x"));
    state.make_directories(Path::new("/state")).unwrap();
    replace(&state, path, b"old").unwrap();
    storage.begin_log();
    replace(&state, path, b"new").unwrap();
    let found: BTreeSet<String> = storage
        .after_power_cuts()
        .iter()
        .map(|(_, contents)| String::from_utf8_lossy(contents.files().file(path).unwrap()).into_owned())
        .collect();
    assert_eq!(found, ["old", "new"].map(str::to_owned).into());

    storage.begin_log();
    state.create(path).unwrap().write(b"newest").unwrap();
    let found: BTreeSet<Vec<(String, String)>> =
        storage.after_power_cuts().iter().map(|(_, contents)| files(contents)).collect();
    let x =
        |text: &str| vec![("/state".to_owned(), "/".to_owned()), ("/state/x".to_owned(), text.to_owned())];
    assert_eq!(found, ["new", "", "\0\0\0\0\0\0", "newest"].map(x).into());
}

#[test]
fn what_is_appended_and_flushed_stays() {
    let storage = Storage::of(Contents::default());
    let (state, path) = (storage.files(), Path::new("/x"));
    for line in ["one", "two"] {
        let mut file = state.append(path).unwrap();
        file.write(line.as_bytes()).unwrap();
        file.sync().unwrap();
        state.sync_directory_of(path).unwrap();
    }
    let cuts = storage.after_power_cuts();
    let after = |deeds: usize| cuts.iter().filter(move |(cut, _)| cut.done >= deeds);
    assert!(after(4).all(|(_, contents)| contents.files().file(path).unwrap().starts_with(b"one")));
    assert!(cuts.iter().any(|(_, contents)| contents.files().file(path) == Some(b"one\0\0\0")));
    assert_eq!(after(6).count(), 0, "deed 6 changes nothing that deed 5 has not");
}
