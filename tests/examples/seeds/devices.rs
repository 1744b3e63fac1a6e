//! Seeds of what lies on a device: the record, what loaders and firmware keep, partition tables, a FAT, declarations.

use bank_format::{
    Bank,
    efi::{LOADER_PATH, Partition, encode_order, load_option},
    loader::{
        Grub, UBoot,
        grub::encode_block,
        uboot::{Variables, decode_copy},
    },
    record::{Copy, decode_copy as decode_record},
};

use super::Seed;

const RECORD: &[u8] = include_bytes!("../../../bank-format/tests/golden/record.bin");

pub(super) fn all() -> Vec<Seed> {
    [records(), environments(), grub(), autoboot(), firmware(), tables(), volumes(), health()].concat()
}

/// Two parts of one length, as a body halves its bytes; `fill` behind the shorter one.
fn halves(first: &[u8], second: &[u8], fill: u8) -> Vec<u8> {
    let half = first.len().max(second.len());
    let filled = |part: &[u8]| [part, &vec![fill; half - part.len()]].concat();
    [filled(first), filled(second)].concat()
}

fn records() -> Vec<Seed> {
    let Ok(Copy::Good(_, record)) = decode_record(RECORD) else { return Vec::new() };
    let full = serde_json::to_vec(&record).unwrap();
    let least = br#"{"confirmed":"a","banks":{"a":{"state":"confirmed"},"b":{"state":"empty"}}}"#;
    let spare = br#"{"confirmed":"b","banks":{"a":{"state":"confirmed"},"b":{"state":"confirmed"}},"unsettled_boots":3,"losses":1,"redirects":3,"unclean":true,"boot_failure":"no root"}"#;
    let trial = br#"{"confirmed":"a","banks":{"a":{"state":"confirmed"},"b":{"state":"written"}},"trial":{"bank":"b","phase":"started","purpose":"rollback","tries_left":0,"tries_made":4294967295}}"#;
    vec![
        ("record", "golden", RECORD.to_vec()),
        ("record", "golden-twice", [RECORD, RECORD].concat()),
        ("record", "payload", full.clone()),
        ("record", "payload-least", least.to_vec()),
        ("record", "payload-spare", spare.to_vec()),
        ("record", "payload-trial", trial.to_vec()),
        ("record", "two-payloads", halves(&full, spare, b' ')),
        ("record", "one-payload-and-rot", halves(b"rot", trial, b' ')),
    ]
}

fn environments() -> Vec<Seed> {
    // As RAUC's script leaves it, and one with Roro's trial. The first byte is the serial.
    let rauc = b"\x01bootcmd=run distro\0BOOT_ORDER=A B\0BOOT_A_LEFT=3\0BOOT_B_LEFT=0\0\0";
    let trial = b"\x02BOOT_ORDER=B A\0BOOT_A_LEFT=3\0BOOT_B_LEFT=1\0roro_trial=b\0bootdelay=2\0\0";
    let twice = b"\xffBOOT_ORDER=A B\0BOOT_ORDER=B A\0roro_trial\0roro_trial=a\0\0";
    let config = b"# two copies\n/dev/disk/by-partlabel/loader 0x0 0x4000\n/dev/disk/by-partlabel/loader 0x4000 4000 0x200\n";
    let lines = b"# built in\nbootcmd=run a; \\\nrun b\n\nbootdelay=2\nempty=\n";
    let copy = UBoot::factory(Bank::A, 128, 2).unwrap();
    let Some((_, variables)) = decode_copy(&copy) else { return Vec::new() };
    let other = Variables::encode(&variables, 128, 1).unwrap();
    vec![
        ("uboot_env", "rauc-and-trial", halves(rauc, trial, 0)),
        ("uboot_env", "wrapped-serial", halves(twice, b"\0BOOT_ORDER=A B\0\0", 0)),
        ("uboot_env", "one-copy", halves(trial, b"", 0)),
        ("uboot_env", "factory", [copy, other].concat()),
        ("uboot_env", "fw_env.config", config.to_vec()),
        ("uboot_env", "lines", lines.to_vec()),
    ]
}

fn grub() -> Vec<Seed> {
    let block = |serial: &str, default: &str, next: &str, spare: &str| {
        let names = ["roro_serial", "roro_default", "roro_next", "roro_spare"];
        encode_block(names.into_iter().zip([serial, default, next, spare])).unwrap()
    };
    let noted = |serial: &str, left: &str, tried: &str| {
        encode_block([("serial", serial), ("left", left), ("tried", tried)]).unwrap()
    };
    let foreign = encode_block([("a\\b", "x")].into_iter().filter(|_| false)).unwrap();
    let escaped = encode_block([("saved_entry", "0"), ("kernelopts", "a\\b\nc=d # e")]).unwrap();
    vec![
        ("grubenv", "factory", Grub::factory(Bank::B).unwrap()[..8192].to_vec()),
        (
            "grubenv",
            "trial-tried",
            [block("8", "a", "b", "0"), block("7", "a", "none", "1"), noted("8", "3", "1")].concat(),
        ),
        (
            "grubenv",
            "counted",
            [block("3", "b", "none", "1"), block("4", "b", "none", "1"), noted("4", "x2", "0")].concat(),
        ),
        ("grubenv", "recovery", [block("3", "b", "recovery", "1"), foreign].concat()),
        (
            "grubenv",
            "last-serials",
            [block("2147483646", "a", "none", "0"), block("2147483647", "a", "b", "0")].concat(),
        ),
        ("grubenv", "escapes", escaped),
    ]
}

fn autoboot() -> Vec<Seed> {
    let files: [(&str, &[u8]); 5] = [
        ("twice", b"[all]\nboot_partition=9\nboot_partition=2\n[tryboot]\nboot_partition=3\n[all]\nboot_partition=3\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n"),
        ("factory", b"[all]\ntryboot_a_b=1\nboot_partition=2\n[tryboot]\nboot_partition=3\n\n\n\n\n\n"),
        ("crlf-and-others", b"boot_partition=3\r\n# note\r\n[pi4]\r\nboot_partition=7\r\n[all]\r\n tryboot_a_b = 1 \r\n[TRYBOOT]\r\nboot_partition=2\r\n\r\n\r\n"),
        ("empty", b"\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n"),
        ("too-short", b"[all]\nboot_partition=2"),
    ];
    files.map(|(name, bytes)| ("autoboot", name, bytes.to_vec())).to_vec()
}

fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect()
}

fn firmware() -> Vec<Seed> {
    let partition =
        |number: u32| Partition { number, first_lba: 2048, blocks: 4096, guid: [number as u8; 16] };
    let option = |title, number| load_option(title, &partition(number));
    // Which variable, bytes of its value, the value: see the target.
    let set = |which: u8, value: Vec<u8>| [vec![which, value.len() as u8], value].concat();
    let entries = [
        set(0, encode_order(&[1, 0, 0xffff])),
        set(1, encode_order(&[0])),
        set(2, option("Roro A", 1)),
        set(3, option("Roro B", 9)),
        set(4, option("Roro Recovery", 4)),
    ];
    let systemd_boot = [
        set(5, utf16("roro-b.efi")),
        set(6, utf16("RORO-A.EFI")),
        set(7, [utf16("roro-a.efi"), utf16("roro-recovery.efi")].concat()),
        set(2, option("Roro", 3)),
        set(8, utf16("4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709")),
    ];
    vec![
        ("efi", "entries", entries.concat()),
        ("efi", "systemd-boot", systemd_boot.concat()),
        ("efi", "no-lists", [set(0, vec![1]), set(1, vec![7, 0, 1]), set(9, vec![1])].concat()),
        ("efi", "load-option", option("Roro A", 1)),
        ("efi", "part-uuid", utf16("4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709")),
        ("efi", "path", utf16(LOADER_PATH)),
    ]
}

const BLOCK: usize = 512;

fn put(disk: &mut [u8], at: usize, bytes: &[u8]) {
    disk[at..at + bytes.len()].copy_from_slice(bytes);
}

/// A disk of so many blocks, whose table thinks that it has `thought`: four entries, two of them used. Checksums are the target's part.
fn table(blocks: usize, thought: u64) -> Vec<u8> {
    let mut disk = vec![0; blocks * BLOCK];
    disk[446 + 4] = 0xee;
    put(&mut disk, 510, &[0x55, 0xaa]);
    let mut rows = vec![0; BLOCK];
    for (number, (first, last, name)) in [(3u64, 4u64, "boot-a"), (5, 7, "record")].into_iter().enumerate() {
        let row = number * 128;
        put(&mut rows, row, &[7; 16]);
        put(&mut rows, row + 16, &[number as u8 + 1; 16]);
        put(&mut rows, row + 32, &first.to_le_bytes());
        put(&mut rows, row + 40, &last.to_le_bytes());
        put(&mut rows, row + 56, &utf16(name));
    }
    for (lba, other, rows_lba) in [(1, thought - 1, 2), (thought - 1, 1, thought - 2)] {
        let at = lba as usize * BLOCK;
        put(&mut disk, rows_lba as usize * BLOCK, &rows);
        put(&mut disk, at, b"EFI PART\0\0\x01\0\x5c\0\0\0");
        for (field, value) in [(24, lba), (32, other), (40, 3), (48, thought - 3), (72, rows_lba)] {
            put(&mut disk, at + field, &value.to_le_bytes());
        }
        put(&mut disk, at + 80, &4u32.to_le_bytes());
        put(&mut disk, at + 84, &128u32.to_le_bytes());
    }
    disk
}

/// The second partition ends with this block, which belongs to the backup.
fn with_last(mut disk: Vec<u8>, last: u64) -> Vec<u8> {
    put(&mut disk, 2 * BLOCK + 128 + 40, &last.to_le_bytes());
    disk
}

fn tables() -> Vec<Seed> {
    let without = |mut disk: Vec<u8>, blocks: std::ops::Range<usize>, with: u8| {
        disk[blocks.start * BLOCK..blocks.end * BLOCK].fill(with);
        disk
    };
    vec![
        ("gpt", "whole", table(12, 12)),
        ("gpt", "grown-disk", table(16, 12)),
        ("gpt", "first-copy-lost", without(table(12, 12), 0..3, 0)),
        ("gpt", "first-header-lost", without(table(12, 12), 1..2, 0xff)),
        ("gpt", "backup-lost", without(table(12, 12), 10..12, 0)),
        ("gpt", "lie-partition-where-the-backup-belongs", without(with_last(table(12, 12), 10), 10..12, 0)),
        ("gpt", "end-is-taken", without(table(16, 12), 14..16, 0x33)),
    ]
}

/// A directory entry.
fn entry(name: &[u8; 11], attributes: u8, cluster: u16, bytes: u32) -> Vec<u8> {
    let mut entry = name.to_vec();
    entry.push(attributes);
    entry.resize(26, 0);
    entry.extend(cluster.to_le_bytes());
    entry.extend(bytes.to_le_bytes());
    entry
}

/// The entries of a long name, and the short one behind them.
fn long_entry(name: &str, short: &[u8; 11], cluster: u16, bytes: u32) -> Vec<u8> {
    let sum = short.iter().fold(0u8, |sum, byte| sum.rotate_right(1).wrapping_add(*byte));
    let mut units: Vec<u16> = name.encode_utf16().chain([0]).collect();
    units.resize(units.len().next_multiple_of(13), 0xffff);
    let parts: Vec<&[u16]> = units.chunks(13).collect();
    let mut entries = Vec::new();
    for (at, part) in parts.iter().enumerate().rev() {
        let last = if at + 1 == parts.len() { 0x40 } else { 0 };
        let text: Vec<u8> = part.iter().flat_map(|unit| unit.to_le_bytes()).collect();
        entries.push(last | (at as u8 + 1));
        entries.extend(&text[..10]);
        entries.extend([0x0f, 0, sum]);
        entries.extend(&text[10..22]);
        entries.extend([0, 0]);
        entries.extend(&text[22..]);
    }
    entries.extend(entry(short, 0x20, cluster, bytes));
    entries
}

fn volumes() -> Vec<Seed> {
    const FOLDER: u8 = 0x10;
    // Boot sector, one table, the root, then clusters of one sector: 2 a file, 3 and 4 folders, 5 and 6 a file.
    let mut fat12 = vec![0; 10 * BLOCK];
    put(&mut fat12, 11, &[0, 2, 1, 1, 0, 1, 16, 0, 10, 0, 0xf8, 1, 0]);
    put(&mut fat12, 510, &[0x55, 0xaa]);
    put(&mut fat12, BLOCK, &[0xf8, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x6f, 0x00, 0xff, 0x0f, 0]);
    let root = [entry(b"AUTOBOOTTXT", 0x20, 2, 512), entry(b"EFI        ", FOLDER, 3, 0)].concat();
    put(&mut fat12, 2 * BLOCK, &[entry(b"RORO       ", 8, 0, 0), root.clone()].concat());
    put(&mut fat12, 4 * BLOCK, &entry(b"LINUX      ", FOLDER, 4, 0));
    let file = long_entry("A long name of a file.efi", b"ALONGN~1EFI", 5, 700);
    put(&mut fat12, 5 * BLOCK, &file);
    // FAT32: the root is a chain as well.
    let mut fat32 = vec![0; 9 * BLOCK];
    put(&mut fat32, 11, &[0, 2, 1, 1, 0, 1, 0, 0, 9, 0, 0xf8, 0, 0]);
    put(&mut fat32, 36, &1u32.to_le_bytes());
    put(&mut fat32, 44, &7u32.to_le_bytes());
    put(&mut fat32, 510, &[0x55, 0xaa]);
    let end = 0x0fff_ffffu32;
    for (cluster, next) in [end, end, end, end, end, 6, end, 8, end].into_iter().enumerate() {
        put(&mut fat32, BLOCK + cluster * 4, &next.to_le_bytes());
    }
    put(&mut fat32, 2 * BLOCK + 5 * BLOCK, &root);
    put(&mut fat32, 3 * BLOCK, &entry(b"LINUX      ", FOLDER, 4, 0));
    put(&mut fat32, 4 * BLOCK, &file);
    let mut circle = fat32.clone();
    put(&mut circle, BLOCK + 7 * 4, &7u32.to_le_bytes());
    circle[2 * BLOCK + 5 * BLOCK..][..BLOCK].fill(0xe5);
    let mut longer = fat12.clone();
    put(&mut longer, 2 * BLOCK + 32 + 28, &513u32.to_le_bytes());
    vec![
        ("fat", "lie-longer-than-its-clusters", longer),
        ("fat", "fat12", fat12),
        ("fat", "fat32", fat32),
        ("fat", "circle", circle),
    ]
}

fn health() -> Vec<Seed> {
    let every_kind = br#"soak_seconds = 20
[[check]]
name = "self test"
command = ["/usr/bin/kiosk", "--self-test"]
deadline_seconds = 5
interval_seconds = 1
[[check]]
name = "unit"
kind = "unit"
unit = "kiosk.service"
[[check]]
name = "page"
kind = "http"
url = "http://127.0.0.1:8080/"
status = 302
body_contains = "ok"
[[check]]
name = "port"
kind = "tcp"
address = "[::1]:80"
[[check]]
name = "file"
kind = "file"
path = "/run/ok"
max_age_seconds = 60
contains = "ok"
[[check]]
name = "room"
kind = "free_space"
path = "/state"
min_percent = 10
[[check]]
name = "web"
kind = "container"
container = "web"
unit = "web.service"
[[check]]
name = "time"
kind = "clock"
[[check]]
name = "source"
kind = "update_source"
"#;
    vec![
        ("health", "every-kind", every_kind.to_vec()),
        ("health", "empty", b"# nothing\n".to_vec()),
        ("health", "wrong-kind", b"[[check]]\nname = \"x\"\nkind = \"htp\"\nurl = \"a\"\n".to_vec()),
        ("health", "unknown-key", b"[[check]]\nname = \"x\"\n\"com\\nmand\" = 1\n".to_vec()),
    ]
}
