//! Firmware variables: boot entries and orders, and the loaders that keep their state there.

#![expect(clippy::unwrap_used, reason = "what is unwrapped was promised")]

use bank_format::{
    Bank, PerBank,
    efi::{
        GLOBAL_VENDOR, LOADER_VENDOR, Partition, VarStore as _, decode_order, decode_part_uuid, encode_order,
        entry_name, entry_number, load_option, order, title_of,
    },
    loader::{Firmware, Loader, Spare, SystemdBoot, bank_of_entry},
};

use super::{
    Verdict,
    memory::{Variables, one_bank},
};

/// Variables that the bytes may set. The last one looks like an entry and is none.
const NAMES: [(&str, &str); 10] = [
    ("BootOrder", GLOBAL_VENDOR),
    ("BootNext", GLOBAL_VENDOR),
    ("Boot0000", GLOBAL_VENDOR),
    ("Boot0001", GLOBAL_VENDOR),
    ("BootFFFF", GLOBAL_VENDOR),
    ("LoaderEntryOneShot", LOADER_VENDOR),
    ("LoaderEntryDefault", LOADER_VENDOR),
    ("LoaderEntries", LOADER_VENDOR),
    ("LoaderDevicePartUUID", LOADER_VENDOR),
    ("Boot00af", GLOBAL_VENDOR),
];
const ESP: Partition = Partition { number: 3, first_lba: 8192, blocks: 4096, guid: [3; 16] };

fn partitions() -> PerBank<Partition> {
    let partition = |number| Partition { number, first_lba: 2048, blocks: 4096, guid: [number as u8; 16] };
    PerBank { a: partition(1), b: partition(2) }
}

/// The bytes as one value, and as variables one behind the other: which one, bytes of its value, the value.
pub(super) fn efi(bytes: &[u8]) -> Verdict {
    let decoded = decode_order(bytes);
    if let Ok(entries) = &decoded {
        assert_eq!(encode_order(entries), bytes);
        assert!(entries.iter().all(|entry| entry_number(&entry_name(*entry)) == Some(*entry)));
    }
    if let Ok(guid) = decode_part_uuid(bytes) {
        assert!(guid.len() == 36 && !guid.contains(char::is_uppercase));
    }
    if let Some(title) = title_of(bytes) {
        let again = title_of(&load_option(&title, &ESP));
        assert_eq!(again.as_deref(), Some(&*title));
    }
    let _bank = bank_of_entry(bytes);
    let variables = variables(bytes);
    told_to_firmware(&variables, one_bank(bytes));
    told_to_systemd_boot(&variables, one_bank(bytes));
    Verdict::of(&decoded)
}

fn variables(mut bytes: &[u8]) -> Variables {
    let mut variables = Variables::default();
    while let [which, length, rest @ ..] = bytes {
        let (value, behind) = rest.split_at(usize::from(*length).min(rest.len()));
        let (name, vendor) = NAMES[usize::from(*which) % NAMES.len()];
        variables.write(name, vendor, value).unwrap();
        bytes = behind;
    }
    variables
}

fn told_to_firmware(variables: &Variables, bank: Bank) {
    let new = || Firmware::new(variables.clone(), partitions());
    let _next = new().next().unwrap();
    let mut loader = new();
    loader.set_next(bank).unwrap();
    assert_eq!(loader.next().unwrap(), Some(bank));
    assert_eq!(first_title(loader.vars()), Some(title(!bank)), "a trial that dies finds the other bank");

    let mut loader = new();
    loader.set_default(bank, Spare::Bootable).unwrap();
    assert_eq!(loader.next().unwrap(), Some(bank), "the one-shot is the counter");
    assert_eq!(first_title(loader.vars()), Some(title(!bank)), "the spare takes over");
    let changes = loader.vars().changes;
    loader.set_default(bank, Spare::Bootable).unwrap();
    assert_eq!(loader.vars().changes, changes, "said, and said again");

    let mut loader = new();
    loader.set_default(bank, Spare::Unbootable).unwrap();
    assert_eq!(loader.next().unwrap(), None);
    assert_eq!(first_title(loader.vars()), Some(title(bank)));
    let changes = loader.vars().changes;
    loader.set_default(bank, Spare::Unbootable).unwrap();
    assert_eq!(loader.vars().changes, changes, "said, and said again");

    for spare in [Spare::Bootable, Spare::Unbootable] {
        let mut loader = new();
        loader.redirect(bank, spare).unwrap();
        assert_eq!(loader.next().unwrap(), Some(bank));
    }
    let _recovery = new().recover().unwrap();
}

fn title(bank: Bank) -> String {
    format!("Roro {}", bank.letter().to_uppercase())
}

/// The title of the first entry in the order.
fn first_title(variables: &Variables) -> Option<String> {
    let first = *order(variables).unwrap().first()?;
    title_of(&variables.read(&entry_name(first), GLOBAL_VENDOR).unwrap()?)
}

fn told_to_systemd_boot(variables: &Variables, bank: Bank) {
    let new = || SystemdBoot::new(variables.clone()).on_partition(Some(ESP));
    let _next = new().next().unwrap();
    let mut loader = new();
    loader.set_next(bank).unwrap();
    assert_eq!(loader.next().unwrap(), Some(bank));
    for spare in [Spare::Bootable, Spare::Unbootable] {
        let mut loader = new();
        loader.set_default(bank, spare).unwrap();
        let next = loader.next().unwrap();
        assert_eq!(next, if spare == Spare::Bootable { Some(bank) } else { None });
        assert_eq!(first_title(loader.vars()).as_deref(), Some("Roro"));
        let changes = loader.vars().changes;
        loader.set_default(bank, spare).unwrap();
        assert_eq!(loader.vars().changes, changes, "said, and said again");
        let mut loader = new();
        loader.redirect(bank, spare).unwrap();
        assert_eq!(loader.next().unwrap(), Some(bank));
    }
    let _recovery = new().recover().unwrap();
}
