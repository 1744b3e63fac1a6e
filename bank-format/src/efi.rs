//! UEFI boot variables: bytes to types, and what to write for a trial and a confirm.
//!
//! Sources: UEFI 2.10, 3.1.1 (boot manager), 3.1.3 (`EFI_LOAD_OPTION`), 10.3.5.1 (hard drive node), 10.3.5.4 (file path node),
//! 10.3.1 (end node). The variables themselves are read and written through [`VarStore`].

use crate::{
    bank::{Bank, PerBank},
    error::{Error, Result},
    header::Reader,
    limits::MAX_EFI_VARIABLE_BYTES,
};

/// Vendor GUID of `BootOrder`, `BootNext` and `Boot####`.
pub const GLOBAL_VENDOR: &str = "8be4df61-93ca-11d2-aa0d-00e098032b8c";
/// Vendor GUID of the boot loader interface (`LoaderDevicePartUUID`), <https://systemd.io/BOOT_LOADER_INTERFACE/>.
pub const LOADER_VENDOR: &str = "4a67b082-0a4c-41cf-b6c7-440b29bb8c4f";
/// The file that the entries of both banks start.
pub const LOADER_PATH: &str = "\\EFI\\BOOT\\BOOTX64.EFI";
/// Non-volatile, and accessible before and after `ExitBootServices`.
pub const ATTRIBUTES: u32 = 7;
const STRUCTURE: &str = "EFI boot entry";
const ACTIVE: u32 = 1;
const END_NODE: [u8; 4] = [0x7f, 0xff, 4, 0];

/// Where variables live. A value is without its attributes; writes use [`ATTRIBUTES`].
pub trait VarStore {
    /// What can go wrong there.
    type Error: From<Error>;
    /// Names of the variables of a vendor.
    fn names(&self, vendor: &str) -> Result<Vec<String>, Self::Error>;
    /// The value, or nothing.
    fn read(&self, name: &str, vendor: &str) -> Result<Option<Vec<u8>>, Self::Error>;
    /// Sets the value in one firmware call.
    fn write(&mut self, name: &str, vendor: &str, value: &[u8]) -> Result<(), Self::Error>;
    /// Removes the variable; done as well when there was none.
    fn remove(&mut self, name: &str, vendor: &str) -> Result<(), Self::Error>;
}

/// A GPT partition as a hard drive node names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Partition {
    /// Number, from 1.
    pub number: u32,
    /// First block.
    pub first_lba: u64,
    /// Blocks.
    pub blocks: u64,
    /// Unique GUID as it stands in the partition table (mixed endian).
    pub guid: [u8; 16],
}

/// The title of a bank's entry.
#[must_use]
pub fn entry_title(bank: Bank) -> &'static str {
    match bank {
        Bank::A => "Roro A",
        Bank::B => "Roro B",
    }
}

/// The `EFI_LOAD_OPTION` that starts [`LOADER_PATH`] on a partition, without load options: those would replace
/// the command line inside the UKI.
#[must_use]
pub fn load_option(title: &str, partition: &Partition) -> Vec<u8> {
    let mut path = Vec::new();
    path.extend([4, 1, 42, 0]);
    path.extend(partition.number.to_le_bytes());
    path.extend(partition.first_lba.to_le_bytes());
    path.extend(partition.blocks.to_le_bytes());
    path.extend(partition.guid);
    path.extend([2, 2]);
    let file = utf16(LOADER_PATH);
    path.extend([4, 4]);
    path.extend((4 + file.len() as u16).to_le_bytes());
    path.extend(file);
    path.extend(END_NODE);
    let mut option = Vec::new();
    option.extend(ACTIVE.to_le_bytes());
    option.extend((path.len() as u16).to_le_bytes());
    option.extend(utf16(title));
    option.extend(path);
    option
}

fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect()
}

/// The title of a load option, if it can be read.
#[must_use]
pub fn title_of(option: &[u8]) -> Option<String> {
    let units: Vec<u16> = option
        .get(6..)?
        .chunks_exact(2)
        .map(|pair| pair.iter().rev().fold(0, |unit, byte| unit << 8 | u16::from(*byte)))
        .take_while(|unit| *unit != 0)
        .collect();
    String::from_utf16(&units).ok()
}

/// Reads a list of entry numbers (`BootOrder`, `BootNext`).
pub fn decode_order(value: &[u8]) -> Result<Vec<u16>> {
    if !value.len().is_multiple_of(2) || value.len() > MAX_EFI_VARIABLE_BYTES {
        return Err(Error::malformed(
            "EFI boot order",
            format!("{} bytes are no list of entries", value.len()),
        ));
    }
    let mut reader = Reader::new("EFI boot order", value);
    (0..value.len() / 2).map(|_| reader.u16()).collect()
}

/// Writes a list of entry numbers.
#[must_use]
pub fn encode_order(order: &[u16]) -> Vec<u8> {
    order.iter().flat_map(|entry| entry.to_le_bytes()).collect()
}

/// The name of an entry's variable.
#[must_use]
pub fn entry_name(number: u16) -> String {
    format!("Boot{number:04X}")
}

/// The number in `Boot####`; `None` for other variables.
#[must_use]
pub fn entry_number(name: &str) -> Option<u16> {
    let digits = name.strip_prefix("Boot")?;
    let upper = digits.len() == 4 && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'A'..=b'F'));
    if upper { u16::from_str_radix(digits, 16).ok() } else { None }
}

/// Reads `LoaderDevicePartUUID`: UTF-16, a GUID in text. Returned in lower case.
pub fn decode_part_uuid(value: &[u8]) -> Result<String> {
    let units: Vec<u16> = decode_order(value)?.into_iter().take_while(|unit| *unit != 0).collect();
    let text = String::from_utf16(&units).unwrap_or_default().to_ascii_lowercase();
    if text.len() == 36 && text.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-') {
        Ok(text)
    } else {
        Err(Error::malformed("LoaderDevicePartUUID", "it is no GUID"))
    }
}

/// Finds the entries of both banks, or creates what is lost. An entry of ours whose partition moved is written anew in its place.
/// A new entry is not in `BootOrder` until [`set_order`] puts it there.
pub fn ensure_entries<S: VarStore>(
    store: &mut S,
    partitions: &PerBank<Partition>,
) -> Result<PerBank<u16>, S::Error> {
    PerBank::try_from_fn(|bank| ensure_entry(store, entry_title(bank), partitions.get(bank)))
}

/// As [`ensure_entries`], for one entry with its title.
pub fn ensure_entry<S: VarStore>(store: &mut S, title: &str, partition: &Partition) -> Result<u16, S::Error> {
    let mut entries = Vec::new();
    for name in store.names(GLOBAL_VENDOR)? {
        if let Some(number) = entry_number(&name) {
            let option = store.read(&name, GLOBAL_VENDOR)?.unwrap_or_default();
            entries.push((number, option));
        }
    }
    entries.sort();
    let wanted = load_option(title, partition);
    if let Some((number, _)) = entries.iter().find(|(_, option)| *option == wanted) {
        return Ok(*number);
    }
    let moved = entries.iter().find(|(_, option)| title_of(option).as_deref() == Some(title));
    let number = match moved {
        Some((number, _)) => *number,
        None => (0..=u16::MAX)
            .find(|number| entries.iter().all(|(taken, _)| taken != number))
            .ok_or_else(|| Error::malformed(STRUCTURE, "all 65536 entries are taken"))?,
    };
    store.write(&entry_name(number), GLOBAL_VENDOR, &wanted)?;
    Ok(number)
}

/// The entry with this title, the one with the lowest number if there are several.
pub fn entry_titled<S: VarStore>(store: &S, title: &str) -> Result<Option<u16>, S::Error> {
    let mut numbers: Vec<u16> =
        store.names(GLOBAL_VENDOR)?.iter().filter_map(|name| entry_number(name)).collect();
    numbers.sort_unstable();
    for number in numbers {
        let option = store.read(&entry_name(number), GLOBAL_VENDOR)?;
        if option.and_then(|option| title_of(&option)).as_deref() == Some(title) {
            return Ok(Some(number));
        }
    }
    Ok(None)
}

/// `BootOrder`, empty when there is none. One that is no list is as good as none: it must not keep the right one from being written.
pub fn order<S: VarStore>(store: &S) -> Result<Vec<u16>, S::Error> {
    Ok(decode_order(&store.read("BootOrder", GLOBAL_VENDOR)?.unwrap_or_default()).unwrap_or_default())
}

/// Puts `first` before the other bank and both before everything else, in one write; no write when it is so already.
pub fn set_order<S: VarStore>(store: &mut S, entries: &PerBank<u16>, first: Bank) -> Result<(), S::Error> {
    put_in_front(store, [*entries.get(first), *entries.get(!first)])
}

/// Puts these entries before everything else, in one write; no write when it is so already.
pub fn put_in_front<S: VarStore>(store: &mut S, ours: [u16; 2]) -> Result<(), S::Error> {
    let old = order(store)?;
    let mut wanted = ours.to_vec();
    wanted.extend(old.iter().filter(|entry| !ours.contains(entry)));
    if old == wanted {
        return Ok(());
    }
    store.write("BootOrder", GLOBAL_VENDOR, &encode_order(&wanted))
}

/// The next boot, and only that one, starts this entry: one write.
pub fn set_next<S: VarStore>(store: &mut S, entry: u16) -> Result<(), S::Error> {
    store.write("BootNext", GLOBAL_VENDOR, &encode_order(&[entry]))
}

/// The entry of the next boot, if one was set; one that is no number is as good as none.
pub fn next<S: VarStore>(store: &S) -> Result<Option<u16>, S::Error> {
    let value = store.read("BootNext", GLOBAL_VENDOR)?.unwrap_or_default();
    Ok(decode_order(&value).unwrap_or_default().first().copied())
}

/// Withdraws a trial that was not booted yet.
pub fn clear_next<S: VarStore>(store: &mut S) -> Result<(), S::Error> {
    store.remove("BootNext", GLOBAL_VENDOR)
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use proptest::prelude::*;

    /// Variables in memory by name, and the order in which they were written.
    #[derive(Debug, Clone, Default, PartialEq, Eq)]
    pub struct Memory(BTreeMap<String, Vec<u8>>, Vec<String>);

    impl VarStore for Memory {
        type Error = Error;
        fn names(&self, _: &str) -> Result<Vec<String>> {
            Ok(self.0.keys().cloned().collect())
        }
        fn read(&self, name: &str, _: &str) -> Result<Option<Vec<u8>>> {
            Ok(self.0.get(name).cloned())
        }
        fn write(&mut self, name: &str, _: &str, value: &[u8]) -> Result<()> {
            self.0.insert(name.into(), value.into());
            self.1.push(name.into());
            Ok(())
        }
        fn remove(&mut self, name: &str, _: &str) -> Result<()> {
            self.0.remove(name);
            Ok(())
        }
    }

    fn partitions() -> PerBank<Partition> {
        let part = |number| Partition { number, first_lba: 2048, blocks: 98304, guid: [number as u8; 16] };
        PerBank { a: part(1), b: part(2) }
    }

    #[test]
    fn entries_are_created_found_and_repaired() {
        let mut store = Memory::default();
        store.write("Boot0000", GLOBAL_VENDOR, &load_option("UEFI Shell", &partitions().a)).unwrap();
        store.write("BootOrder", GLOBAL_VENDOR, &encode_order(&[0])).unwrap();
        let entries = ensure_entries(&mut store, &partitions()).unwrap();
        assert_eq!(entries, PerBank { a: 1, b: 2 });
        set_order(&mut store, &entries, Bank::B).unwrap();
        assert_eq!(order(&store).unwrap(), [2, 1, 0]);
        store.1.clear();
        assert_eq!(ensure_entries(&mut store, &partitions()).unwrap(), entries);
        set_order(&mut store, &entries, Bank::B).unwrap();
        assert!(store.1.is_empty(), "nothing is written when all is right: {:?}", store.1);
        let mut moved = partitions();
        moved.a.first_lba = 4096;
        assert_eq!(ensure_entries(&mut store, &moved).unwrap(), entries);
        assert_eq!(store.1, ["Boot0001"]);
    }

    #[test]
    fn the_trial_is_one_variable() {
        let mut store = Memory::default();
        set_next(&mut store, 0x1a).unwrap();
        assert_eq!(store.0["BootNext"], [0x1a, 0]);
        assert_eq!(next(&store).unwrap(), Some(0x1a));
        clear_next(&mut store).unwrap();
        assert_eq!(next(&store).unwrap(), None);
    }

    #[test]
    fn names_and_guids() {
        assert_eq!(entry_number("Boot00AF"), Some(0xaf));
        for other in ["BootOrder", "Boot00af", "Boot1", "BootNext", "Boot+001"] {
            assert_eq!(entry_number(other), None, "{other}");
        }
        let value: Vec<u8> = utf16("4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709");
        assert_eq!(decode_part_uuid(&value).unwrap(), "4f68bce3-e8cd-4db1-96e7-fbcaf984b709");
        assert!(decode_part_uuid(b"x").is_err());
    }

    #[test]
    fn an_entry_has_the_bytes_that_efibootmgr_writes() {
        let option = load_option("Roro A", &partitions().a);
        let expected = concat!(
            "010000005e00",
            "52006f0072006f00200041000000",
            "04012a00010000000008000000000000008001000000000001010101010101010101010101010101",
            "0202",
            "04043000",
            "5c004500460049005c0042004f004f0054005c0042004f004f0054005800360034002e004500460049000000",
            "7fff0400"
        );
        assert_eq!(hex::encode(option), expected);
    }

    proptest! {
        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = title_of(&bytes);
            let _ = decode_order(&bytes);
            let _ = decode_part_uuid(&bytes);
        }
    }
}
