//! `fw_printenv` and `fw_setenv` of libubootenv, and `mkenvimage` of U-Boot.

use std::{collections::BTreeMap, fs, path::Path};

use bank_format::{
    Bank,
    loader::{
        Loader as _, Spare, UBoot,
        uboot::{Layout, Variables, decode_copy, left_of_bank, name_of_bank},
    },
};
use updater::{medium::PathMedium, ports::Access};

use crate::{Random, STATES, Tool, report, scratch};

const ENV_BYTES: usize = 4096;
const NAMES: [&str; 10] = [
    "bootcmd",
    "bootdelay",
    "ethaddr_2",
    "a",
    "aa",
    "BOOT_ORDER",
    "BOOT_A_LEFT",
    "BOOT_B_LEFT",
    "roro_trial",
    "fdt_addr_r",
];
const CHARACTERS: &str = "ab01 =;#${}\"'\\é/,-";

/// No spaces at the ends: `fw_setenv -s` takes them for the edges of its columns. Never empty: that would remove the variable.
fn value(random: &mut Random) -> String {
    let text = random.text(CHARACTERS, 30);
    format!("v{}", text.trim())
}

fn map(text: &str) -> BTreeMap<String, String> {
    let pairs = text.lines().map(|line| line.split_once('=').expect("a variable"));
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

fn map_of(variables: &Variables) -> BTreeMap<String, String> {
    variables.pairs().collect()
}

fn open(layout: &Layout) -> UBoot<PathMedium> {
    let copies = layout.copies.each_ref().map(|place| {
        let medium = PathMedium::open(Path::new(&place.device), Access::Write).expect("it is there");
        medium.starting_at(place.offset_bytes)
    });
    UBoot::new(copies, layout.env_bytes)
}

#[test]
fn fw_printenv_and_fw_setenv_and_we_read_each_others_environments() {
    let (Some(print), Some(set)) =
        (Tool::find("fw_printenv", "libubootenv-tool"), Tool::find("fw_setenv", "libubootenv-tool"))
    else {
        return;
    };
    let scratch = scratch();
    let [disk, config, script] = ["disk", "fw_env.config", "script"].map(|name| scratch.path().join(name));
    let device = disk.display();
    fs::write(&config, format!("# two copies\n{device} 0x400 0x1000\n{device} 0x2400 1000 0x1000\n"))
        .unwrap();
    let layout = Layout::parse(&fs::read_to_string(&config).unwrap()).unwrap();
    let offsets = layout.copies.each_ref().map(|place| place.offset_bytes as usize);
    assert_eq!((offsets, layout.env_bytes), ([0x400, 0x2400], ENV_BYTES));
    let [config, script] = [&config, &script].map(|path| path.to_str().unwrap());

    let mut random = Random::new(3);
    let mut bytes = vec![0; 0x4000];
    for state in 0..STATES {
        if state % 4 == 0 {
            // A fresh pair: other variables, serials anywhere, also about to wrap, and sometimes one copy torn.
            let first = *random.of(&[0u8, 1, 2, 7, 127, 128, 254, 255]);
            let serials = if random.below(2) == 0 {
                [first, first.wrapping_add(1)]
            } else {
                [first.wrapping_add(1), first]
            };
            for (offset, serial) in offsets.into_iter().zip(serials) {
                let mut variables = Variables::default();
                for _ in 0..=random.below(8) {
                    variables.set(random.of::<&str>(&NAMES), &value(&mut random));
                }
                let copy = variables.encode(ENV_BYTES, serial).unwrap();
                bytes[offset..][..ENV_BYTES].copy_from_slice(&copy);
            }
            if random.below(3) == 0 {
                let torn = *random.of(&offsets) + 5 + random.below(200);
                bytes[torn] ^= 1;
            }
            fs::write(&disk, &bytes).unwrap();
            let ours = map_of(&open(&layout).variables().unwrap());
            assert_eq!(map(&print.run(["-c", config])), ours, "state {state}: the same copy is taken");
        }
        // We write, the tool reads.
        let carried = map_of(&open(&layout).variables().unwrap());
        let (bank, spare) = (random.bank(), random.spare());
        let trial = random.below(2) == 0;
        let left = if trial {
            open(&layout).set_next(bank).unwrap();
            [1, 3]
        } else {
            open(&layout).set_default(bank, spare).unwrap();
            [3, if spare == Spare::Bootable { 3 } else { 0 }]
        };
        let mut expected = carried;
        expected.insert("BOOT_ORDER".into(), format!("{} {}", name_of_bank(bank), name_of_bank(!bank)));
        expected.insert(left_of_bank(bank).into(), left[0].to_string());
        expected.insert(left_of_bank(!bank).into(), left[1].to_string());
        expected.remove("roro_trial");
        if trial {
            expected.insert("roro_trial".into(), bank.letter().into());
        }
        assert_eq!(map(&print.run(["-c", config])), expected, "state {state}");

        // The tool writes, we read; and it writes the copy that we would have written.
        let before = fs::read(&disk).unwrap();
        let mut lines = String::new();
        for _ in 0..=random.below(4) {
            let name = *random.of(&NAMES);
            if random.below(3) == 0 {
                lines += &format!("{name}=\n");
                expected.remove(name);
            } else {
                let value = value(&mut random);
                lines += &format!("{name}={value}\n");
                expected.insert(name.into(), value);
            }
        }
        fs::write(script, &lines).unwrap();
        set.run(["-c", config, "-s", script]);
        assert_eq!(map_of(&open(&layout).variables().unwrap()), expected, "state {state}: after {lines}");
        let theirs = fs::read(&disk).unwrap();
        fs::write(&disk, &before).unwrap();
        // Something that is not so yet, so that we must write.
        let ours_next = open(&layout).next().unwrap();
        open(&layout).set_next(if ours_next == Some(Bank::A) { Bank::B } else { Bank::A }).unwrap();
        let ours = fs::read(&disk).unwrap();
        for (copy, offset) in offsets.into_iter().enumerate() {
            let written = |after: &[u8]| after[offset..][..ENV_BYTES] != before[offset..][..ENV_BYTES];
            assert_eq!(written(&theirs), written(&ours), "state {state}: copy {copy} is the older one");
            if written(&ours) {
                assert_eq!(theirs[offset + 4], ours[offset + 4], "state {state}: the next serial");
            }
        }
        fs::write(&disk, &theirs).unwrap();
        bytes = theirs;
    }
    report("fw_printenv and fw_setenv", STATES);
}

#[test]
fn mkenvimage_makes_the_bytes_that_we_make() {
    let Some(make) = Tool::find("mkenvimage", "u-boot-tools") else { return };
    let scratch = scratch();
    let [input, output] = ["in.txt", "out.bin"].map(|name| scratch.path().join(name));
    let mut random = Random::new(4);
    for state in 0..STATES {
        let mut variables = Variables::default();
        for _ in 0..random.below(12) {
            let name = format!("{}{}", random.of(&NAMES), random.text("abc_", 3));
            variables.set(&name, &value(&mut random).replace('#', ""));
        }
        let env_bytes = *random.of(&[1024, 2048, 4096, 16384]);
        // A value that ends in a backslash goes on in the next line, there as here.
        let mut text = String::new();
        for (name, value) in variables.pairs() {
            let end = random.of(&["\n", "\n\n", "\n#\n", "\n# x=y\n", "\n#x\\\n", "\n\n#=\n#\n\n"]);
            text += &format!("{name}={value}{end}");
        }
        if random.below(4) == 0 {
            text.truncate(text.trim_end_matches('\n').len());
        }
        fs::write(&input, &text).unwrap();
        // The padding counts for the checksum: with 0xff it is another block with the same variables.
        let padding = *random.of(&["0", "0xff"]);
        let size = env_bytes.to_string();
        let paths = [&output, &input].map(|path| path.to_str().unwrap());
        make.run(["-r", "-s", &size, "-p", padding, "-o", paths[0], paths[1]]);
        let theirs = fs::read(&output).unwrap();
        let (serial, read) = decode_copy(&theirs).expect("its checksum is right");
        let ours = Variables::from_lines(&text);
        assert_eq!(read, ours, "state {state}");
        assert!(ours == variables || text.contains("\\\n"), "state {state}: {text}");
        if padding == "0" {
            assert!(theirs == ours.encode(env_bytes, serial).unwrap(), "state {state}: {text}");
        }
    }
    report("mkenvimage", STATES);
}
