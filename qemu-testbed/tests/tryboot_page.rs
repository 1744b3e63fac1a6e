//! The commands of `docs/loaders/tryboot.md`, run as an integrator would: `cargo test -p qemu-testbed --test tryboot_page`.
//!
//! No machine is started here. What the commands make is judged by what reads it on a device: the initrd reads the command line, finds the
//! disk and the bank on it, checks the root image, and redirects in `autoboot.txt`; mtools read that file as the firmware would.
#![expect(clippy::unwrap_used, reason = "a suite says what failed by panicking")]

use std::{
    fs::{self, File},
    path::Path,
};

use bank_format::{
    Bank,
    loader::{Kind, Spare},
};
use boot_hooks::{
    cmdline::{self, CommandLine},
    disk::{self, Clues, Places, Standing},
    gpt,
    ledger::Redirect,
    loader::BootLoader,
};

mod pages;

use pages::run;

const PAGE: &str = include_str!("../../docs/loaders/tryboot.md");

fn block(kind: &str) -> String {
    pages::block(PAGE, kind)
}

const DISK: &str = "mmcblk0";

#[test]
fn the_initrd_finds_its_way_on_the_disk_of_the_page() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::write(at("root.img"), (0..100_001_u32).flat_map(u32::to_le_bytes).collect::<Vec<u8>>()).unwrap();
    fs::create_dir(at("firmware")).unwrap();
    for name in ["kernel8.img", "initrd", "firmware/start4.elf"] {
        fs::write(at(name), name).unwrap();
    }
    for word in ["sh bank", "sh", "sh disk"] {
        run(folder.path(), &block(word));
    }

    let boot = at("boot.img").display().to_string();
    let text = run(folder.path(), &format!("mtype -i {boot} ::cmdline.txt"));
    let line = cmdline::parse(&text).unwrap();
    assert_eq!((line.loader, line.bank), (Some(Kind::Tryboot), None));
    for name in ["config.txt", "kernel8.img", "initrd", "start4.elf"] {
        run(folder.path(), &format!("mtype -i {boot} ::{name}"));
    }

    let places = machine(folder.path());
    for name in disk::NAMES.into_iter().filter(|name| ![disk::LOADER, disk::ESP].contains(name)) {
        assert!(stands(&places, &line, 2).disk.find(name).is_some(), "no partition {name}");
    }
    let Standing { disk, bank } = stands(&places, &line, 2);
    assert_eq!(bank, Bank::A);
    let node = &disk.root(bank).unwrap().node;
    let check = line.root.check_whole(&File::open(node).unwrap(), node, &mut |_| ()).unwrap();
    assert_eq!(check.map_err(|finding| finding.to_string()), Ok(()));

    let loader = BootLoader { kind: Kind::Tryboot, disk, has_recovery: false };
    let first = at("dev").join(format!("{DISK}p1")).display().to_string();
    for (to, expected) in [(Bank::B, ["3", "2"]), (Bank::A, ["2", "3"])] {
        loader.redirect(Redirect { to, spare: Spare::Bootable }).unwrap();
        let text = run(folder.path(), &format!("mtype -i {first} ::autoboot.txt"));
        let told: Vec<&str> =
            text.lines().filter_map(|line| line.trim_end().strip_prefix("boot_partition=")).collect();
        assert_eq!(told, expected, "to {to}: {text}");
    }
}

/// Where the initrd stands when the firmware has started this partition.
fn stands(places: &Places, line: &CommandLine, partition_number: u32) -> Standing {
    let clues = Clues {
        loader_partition: None,
        bank: line.bank,
        partition_number: Some(partition_number),
        root: &line.root,
    };
    places.find(&clues, &mut || ()).unwrap()
}

/// `/dev` and `/sys/block` of a kernel that sees `disk.img` and its partitions.
fn machine(folder: &Path) -> Places {
    let places = Places { sys_block: folder.join("block"), dev: folder.join("dev") };
    let sys = places.sys_block.join(DISK);
    fs::create_dir_all(&sys).unwrap();
    fs::create_dir(&places.dev).unwrap();
    let whole = places.dev.join(DISK);
    fs::rename(folder.join("disk.img"), &whole).unwrap();
    for entry in gpt::read(&whole, 512).unwrap() {
        let name = format!("{DISK}p{}", entry.number);
        fs::create_dir(sys.join(&name)).unwrap();
        fs::write(sys.join(&name).join("partition"), format!("{}\n", entry.number)).unwrap();
        fs::write(sys.join(&name).join("dev"), format!("179:{}\n", entry.number)).unwrap();
        let cut = format!(
            "dd status=none if=dev/{DISK} of=dev/{name} bs=1M iflag=skip_bytes,count_bytes skip={} count={} conv=sparse",
            entry.first_lba * 512,
            entry.blocks * 512
        );
        run(folder, &cut);
    }
    places
}
