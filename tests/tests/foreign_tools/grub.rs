//! `grub-editenv`: environment blocks, and the partition `loader` that is made of them.

use std::fs;

use bank_format::{
    Bank,
    loader::{
        Grub, Loader as _, Spare,
        grub::{BLOCK_BYTES, COPY_OFFSETS, Decision, Next, OWN_OFFSET, decode_block, encode_block},
    },
};
use updater::{medium::PathMedium, ports::Access};

use crate::{Random, STATES, Tool, report, scratch};

const NAMES: [&str; 8] =
    ["roro_serial", "roro_default", "saved_entry", "x", "two words", "päckchen", "A-B.c", "back"];
const CHARACTERS: &str = "ab01 \\\n#=é\"'$%\t";

type Variables = Vec<(String, String)>;

fn set(variables: &mut Variables, name: &str, value: &str) {
    match variables.iter_mut().find(|(old, _)| old == name) {
        Some((_, old)) => value.clone_into(old),
        None => variables.push((name.to_owned(), value.to_owned())),
    }
}

fn encode(variables: &Variables) -> Vec<u8> {
    let pairs = variables.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    encode_block(pairs).expect("the variables fit")
}

fn listed(variables: &Variables) -> String {
    variables.iter().map(|(name, value)| format!("{name}={value}\n")).collect()
}

#[test]
fn grub_editenv_and_we_read_each_others_blocks() {
    let Some(editenv) = Tool::find("grub-editenv", "grub-common") else { return };
    let scratch = scratch();
    let path = scratch.path().join("grubenv");
    let file = path.to_str().unwrap();
    let mut random = Random::new(1);
    let mut variables = Variables::new();
    for state in 0..STATES {
        // Ours, from scratch, every other time; else on top of what the tool wrote.
        if state % 2 == 0 {
            variables.clear();
            for _ in 0..random.below(7) {
                set(&mut variables, random.of::<&str>(&NAMES), &random.text(CHARACTERS, 40));
            }
            fs::write(&path, encode(&variables)).unwrap();
            assert_eq!(editenv.run([file, "list"]), listed(&variables), "state {state}");
        }
        let changes: Vec<(&str, String)> =
            (0..=random.below(3)).map(|_| (*random.of(&NAMES), random.text(CHARACTERS, 40))).collect();
        if random.below(3) == 0 {
            editenv.run([file, "unset"].into_iter().chain(changes.iter().map(|(name, _)| *name)));
            variables.retain(|(name, _)| changes.iter().all(|(gone, _)| name != gone));
        } else {
            let words: Vec<String> = changes.iter().map(|(name, value)| format!("{name}={value}")).collect();
            editenv.run([file, "set"].into_iter().chain(words.iter().map(String::as_str)));
            for (name, value) in &changes {
                set(&mut variables, name, value);
            }
        }
        let theirs = fs::read(&path).unwrap();
        assert_eq!(decode_block(&theirs).unwrap(), variables, "state {state}");
        if state % 2 == 1 {
            assert_eq!(editenv.run([file, "list"]), listed(&variables), "state {state}");
        }
    }
    report("grub-editenv, blocks", STATES);
}

#[test]
fn grub_editenv_reads_our_decisions_and_we_read_its_notes() {
    let Some(editenv) = Tool::find("grub-editenv", "grub-common") else { return };
    let scratch = scratch();
    let (partition, block) = (scratch.path().join("loader"), scratch.path().join("grubenv"));
    let file = block.to_str().unwrap();
    fs::write(&partition, Grub::factory(Bank::A).unwrap()).unwrap();
    let open = || Grub::new(PathMedium::open(&partition, Access::Write).unwrap());
    let mut random = Random::new(2);
    for state in 0..STATES {
        let (bank, spare) = (random.bank(), random.spare());
        let wanted = match random.below(5) {
            0 | 1 => {
                open().set_next(bank).unwrap();
                Decision { default: !bank, next: Next::Bank(bank), spare: Spare::Unbootable }
            }
            2 => {
                let told = open().decision().unwrap().unwrap().1;
                open().recover().unwrap();
                Decision { next: Next::Recovery, ..told }
            }
            _ => {
                open().set_default(bank, spare).unwrap();
                Decision { default: bank, next: Next::Default, spare }
            }
        };
        let (serial, decision) = open().decision().unwrap().unwrap();
        assert_eq!(decision, wanted, "state {state}");
        let tries = match wanted.next {
            Next::Bank(bank) => Some(bank),
            Next::Default | Next::Recovery => None,
        };
        assert_eq!(open().next().unwrap(), tries);

        // The newest copy, as the tool reads it.
        let disk = fs::read(&partition).unwrap();
        let told = format!(
            "roro_serial={serial}\nroro_default={}\nroro_next={}\nroro_spare={}\n",
            wanted.default,
            match wanted.next {
                Next::Default => "none",
                Next::Bank(bank) => bank.letter(),
                Next::Recovery => "recovery",
            },
            if wanted.spare == Spare::Bootable { 1 } else { 0 },
        );
        let copy = COPY_OFFSETS
            .into_iter()
            .map(|offset| &disk[offset as usize..][..BLOCK_BYTES])
            .find(|copy| decode_block(copy).unwrap()[0].1 == serial.to_string())
            .unwrap();
        fs::write(&block, copy).unwrap();
        assert_eq!(editenv.run([file, "list"]), told, "state {state}");

        // What GRUB notes there, written by its own tool: sometimes about an older decision.
        let (tried, left) = (random.below(2), random.below(4));
        let about = serial.saturating_sub(if random.below(4) == 0 { 1 } else { 0 });
        fs::write(&block, &disk[OWN_OFFSET as usize..][..BLOCK_BYTES]).unwrap();
        let words = [format!("serial={about}"), format!("tried={tried}"), format!("left={left}")];
        editenv.run([file, "set"].into_iter().chain(words.iter().map(String::as_str)));
        let mut disk = disk;
        disk[OWN_OFFSET as usize..][..BLOCK_BYTES].copy_from_slice(&fs::read(&block).unwrap());
        fs::write(&partition, &disk).unwrap();
        let used_up = about == serial && tried == 1;
        assert_eq!(open().next().unwrap(), tries.filter(|_| !used_up), "state {state}");
        if wanted.next == Next::Default {
            open().set_default(wanted.default, wanted.spare).unwrap();
            let armed = about != serial || (tried == 0 && left == 3);
            let (again, _) = open().decision().unwrap().unwrap();
            assert_eq!(again == serial, armed, "state {state}: re-armed exactly where it is not");
        }
    }
    report("grub-editenv, decisions", STATES);
}
