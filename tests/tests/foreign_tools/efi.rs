//! `efibootmgr`, on a directory of variables instead of the firmware's.

use std::{collections::BTreeMap, fs};

use bank_format::{
    Bank, PerBank,
    efi::{
        GLOBAL_VENDOR, Partition, VarStore as _, encode_order, entry_name, entry_title, load_option, next,
        order,
    },
    loader::{Firmware, Loader as _, Spare},
};
use updater::boot::efi::EfiVars;

use crate::{Random, STATES, Tool, report, scratch};

/// What `efibootmgr -v` says.
#[derive(Debug, Default, PartialEq)]
struct Said {
    next: Option<u16>,
    order: Vec<u16>,
    /// The mark of an active entry, then title and path.
    entries: BTreeMap<u16, String>,
}

fn number(text: &str) -> u16 {
    u16::from_str_radix(text, 16).expect("a number of an entry")
}

fn read(text: &str) -> Said {
    let mut said = Said::default();
    for line in text.lines() {
        if let Some(next) = line.strip_prefix("BootNext: ") {
            said.next = Some(number(next));
        } else if let Some(order) = line.strip_prefix("BootOrder: ") {
            said.order = order.split(',').map(number).collect();
        } else if let Some((digits, rest)) =
            line.strip_prefix("Boot").and_then(|rest| rest.split_at_checked(4))
        {
            said.entries.insert(number(digits), rest.to_owned());
        }
    }
    said
}

/// As `efibootmgr` writes a GUID: its first three groups are little-endian in the table.
fn guid_text(guid: [u8; 16]) -> String {
    let hex =
        |bytes: &mut dyn Iterator<Item = &u8>| bytes.map(|byte| format!("{byte:02x}")).collect::<String>();
    [
        hex(&mut guid[..4].iter().rev()),
        hex(&mut guid[4..6].iter().rev()),
        hex(&mut guid[6..8].iter().rev()),
        hex(&mut guid[8..10].iter()),
        hex(&mut guid[10..].iter()),
    ]
    .join("-")
}

fn entry_text(bank: Bank, partition: &Partition) -> String {
    format!(
        "* {}\tHD({},GPT,{},0x{:x},0x{:x})/File(\\EFI\\BOOT\\BOOTX64.EFI)",
        entry_title(bank),
        partition.number,
        guid_text(partition.guid),
        partition.first_lba,
        partition.blocks
    )
}

fn partition(random: &mut Random) -> Partition {
    let mut guid = [0; 16];
    guid.fill_with(|| 1 + random.below(255) as u8);
    Partition {
        number: 1 + random.below(128) as u32,
        first_lba: 34 + random.below(1 << 40) as u64,
        blocks: 1 + random.below(1 << 40) as u64,
        guid,
    }
}

#[test]
fn efibootmgr_and_we_read_each_others_variables() {
    let Some(manager) = Tool::find("efibootmgr", "efibootmgr") else { return };
    let scratch = scratch();
    let directory = scratch.path().join("efivars");
    let manager = manager.with("EFIVARFS_PATH", &format!("{}/", directory.display()));
    let mut random = Random::new(5);
    let mut vars = EfiVars::new(&directory);
    let mut partitions = PerBank { a: partition(&mut random), b: partition(&mut random) };
    for state in 0..STATES {
        if state % 8 == 0 {
            // Another machine: entries of others, at random numbers, some of them in the order.
            let _ = fs::remove_dir_all(&directory);
            fs::create_dir(&directory).unwrap();
            partitions = PerBank { a: partition(&mut random), b: partition(&mut random) };
            let mut others = Vec::new();
            for _ in 0..random.below(5) {
                let end = *random.of(&[4, 0x1_0000]);
                let number = random.below(end) as u16;
                let title = format!("Other {}", random.text("abc Ü1", 12));
                let option = load_option(&title, &partition(&mut random));
                vars.write(&entry_name(number), GLOBAL_VENDOR, &option).map_err(io).unwrap();
                if random.below(3) > 0 && !others.contains(&number) {
                    others.push(number);
                }
            }
            if !others.is_empty() {
                vars.write("BootOrder", GLOBAL_VENDOR, &encode_order(&others)).map_err(io).unwrap();
            }
        }
        // We write, the tool reads.
        let before = order(&vars).map_err(io).unwrap();
        let (bank, spare) = (random.bank(), random.spare());
        let mut loader = Firmware::new(vars.clone(), partitions);
        let (first, tried) = if random.below(2) == 0 {
            loader.set_next(bank).map_err(io).unwrap();
            (!bank, Some(bank))
        } else {
            loader.set_default(bank, spare).map_err(io).unwrap();
            match spare {
                Spare::Bootable => (!bank, Some(bank)),
                Spare::Unbootable => (bank, None),
            }
        };
        let said = read(&manager.run(["-v"]));
        let entry = |bank: Bank| {
            let text = entry_text(bank, partitions.get(bank));
            let mut ours = said.entries.iter().filter(|(_, entry)| **entry == text);
            let found = ours.next().unwrap_or_else(|| panic!("state {state}: {text} in {said:?}"));
            assert_eq!(ours.next(), None, "state {state}: {text} in {said:?}");
            *found.0
        };
        assert_eq!(said.next, tried.map(entry), "state {state}");
        let mut wanted = [first, !first].map(entry).to_vec();
        wanted.extend(before.into_iter().filter(|entry| !wanted.contains(entry)).collect::<Vec<_>>());
        assert_eq!(said.order, wanted, "state {state}: ours in front, those of others as they were");

        // The tool writes, we read.
        let known: Vec<u16> = said.entries.keys().copied().collect();
        let one = format!("{:04X}", random.of(&known));
        let mut shuffled = known.clone();
        for at in (1..shuffled.len()).rev() {
            shuffled.swap(at, random.below(at + 1));
        }
        let list = shuffled.iter().map(|entry| format!("{entry:04X}")).collect::<Vec<_>>().join(",");
        let arguments: Vec<&str> = match random.below(7) {
            0 => vec!["-n", &one],
            // Version 17 asks for an entry 0001 before it deletes BootNext.
            1 if said.next.is_some() && known.contains(&1) => vec!["-N"],
            2 if !said.order.is_empty() => vec!["-O"],
            3 => vec!["-b", &one, "-B"],
            4 => vec!["-b", &one, "-A"],
            5 => vec!["-b", &one, "-a"],
            _ => vec!["-o", &list],
        };
        let said = read(&manager.run(arguments.iter().copied().chain(["-v"])));
        assert_eq!(said.next, next(&vars).map_err(io).unwrap(), "state {state}: {arguments:?}");
        assert_eq!(said.order, order(&vars).map_err(io).unwrap(), "state {state}: {arguments:?}");
        let title = said.next.and_then(|next| said.entries.get(&next)).map(|entry| {
            entry.get(2..).and_then(|text| text.split('\t').next()).unwrap_or_default().to_owned()
        });
        let named = Bank::BOTH.into_iter().find(|bank| title.as_deref() == Some(entry_title(*bank)));
        let ours = Firmware::new(vars.clone(), partitions).next().map_err(io).unwrap();
        assert_eq!(ours, named, "state {state}: {arguments:?}");
    }
    report("efibootmgr", STATES);
}

fn io(error: updater::boot::efi::VarError) -> std::io::Error {
    error.into()
}
