//! The commands of `docs/loaders/u-boot.md`, run as an integrator would: `cargo test -p qemu-testbed --test uboot_page`.
//!
//! No machine is started here. What the commands make is judged by what will read it on a device: the initrd's check of the root image, the
//! reader of the environment, and the offsets in the page's own `fw_env.config`.
#![expect(clippy::unwrap_used, reason = "a suite says what failed by panicking")]

use std::fs::{self, File};

use bank_format::{
    Bank,
    loader::{
        Kind, UBoot,
        uboot::{PARTITION_ENV_BYTES, decode_copy},
    },
};
use boot_hooks::{cmdline, disk};

mod pages;

use pages::run;

const PAGE: &str = include_str!("../../docs/loaders/u-boot.md");

fn block(kind: &str) -> String {
    pages::block(PAGE, kind)
}

#[test]
fn the_commands_make_a_bank_that_the_initrd_accepts_and_a_factory_disk() {
    let folder = tempfile::tempdir().unwrap();
    let put = |name: &str, bytes: &[u8]| fs::write(folder.path().join(name), bytes).unwrap();
    put("root.img", &(0..100_001_u32).flat_map(u32::to_le_bytes).collect::<Vec<u8>>());
    put("Image", b"a kernel");
    put("initrd", b"an initrd");
    put("u-boot.cmd", include_bytes!("../../boot-hooks/loaders/u-boot.cmd"));
    for word in ["sh bank", "sh script", "sh disk"] {
        run(folder.path(), &block(word));
    }

    let line = fs::read_to_string(folder.path().join("boot.env")).unwrap();
    let line = cmdline::parse(line.trim_end().strip_prefix("cmdline=").unwrap()).unwrap();
    assert_eq!((line.loader, line.bank), (Some(Kind::UBoot), None));
    let image = folder.path().join("root.img");
    let check = line.root.check_whole(&File::open(&image).unwrap(), &image, &mut |_| ()).unwrap();
    assert_eq!(check.map_err(|finding| finding.to_string()), Ok(()));

    let disk = fs::read(folder.path().join("disk.img")).unwrap();
    let factory = decode_copy(&UBoot::factory(Bank::A, PARTITION_ENV_BYTES, 1).unwrap()).unwrap().1;
    let copies = copies_of_the_page();
    assert_eq!(copies.len(), 2);
    for (offset, bytes) in copies {
        assert_eq!(bytes, PARTITION_ENV_BYTES);
        let (_, variables) = decode_copy(&disk[offset..offset + bytes]).unwrap();
        assert!(variables.pairs().eq(factory.pairs()), "{variables:?}");
    }
    let table = run(folder.path(), "sgdisk --print disk.img");
    let start_of = |name: &str| -> usize {
        let row = table.lines().find(|row| row.split_whitespace().last() == Some(name));
        let row = row.unwrap_or_else(|| panic!("no partition {name} in {table}"));
        row.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 512
    };
    for name in disk::NAMES.into_iter().filter(|name| *name != disk::ESP) {
        start_of(name);
    }
    for (name, file) in [("script", "script.img"), ("boot-a", "boot.img"), ("root-a", "root.img")] {
        let bytes = fs::read(folder.path().join(file)).unwrap();
        assert!(disk[start_of(name)..].starts_with(&bytes), "{file} is not at the start of {name}");
    }
    let kernel = format!("mtype -i disk.img@@{} ::roro/linux", start_of("boot-a"));
    assert_eq!(run(folder.path(), &kernel), "a kernel");
    let script = format!("mdir -b -i disk.img@@{} ::", start_of("script"));
    assert!(run(folder.path(), &script).contains("boot.scr"));
}

/// Offset and length of each copy.
fn copies_of_the_page() -> Vec<(usize, usize)> {
    let hexadecimal = |word: &str| usize::from_str_radix(word.strip_prefix("0x").unwrap(), 16).unwrap();
    let text = block("text fw_env.config");
    let rows = text.lines().filter(|row| !row.starts_with('#'));
    let rows = rows.map(|row| row.split_whitespace().collect::<Vec<_>>());
    rows.map(|row| (hexadecimal(row[1]), hexadecimal(row[2]))).collect()
}
