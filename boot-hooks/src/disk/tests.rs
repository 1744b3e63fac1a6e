//! A machine of files: what is chosen, and what is read on the way.

use std::os::unix::fs::{FileExt as _, MetadataExt as _};

use super::*;
use crate::{gpt::tests::disk, verity::tests::image};

/// A machine of files: disks under `dev`, and what `/sys/block` says about them.
struct Machine {
    dir: tempfile::TempDir,
    places: Places,
}

impl Machine {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let places = Places { sys_block: dir.path().join("block"), dev: dir.path().join("dev") };
        fs::create_dir(&places.sys_block).unwrap();
        fs::create_dir(&places.dev).unwrap();
        Self { dir, places }
    }

    /// Adds a disk; each of `roots` gets this image.
    fn with(self, name: &str, roots: &[(&str, &[u8])]) -> Self {
        let sizes: Vec<(&str, u64)> = NAMES.iter().map(|name| (*name, 40)).collect();
        disk(&self.places.dev, name, &sizes);
        fs::create_dir(self.places.sys_block.join(name)).unwrap();
        fs::write(self.places.sys_block.join(name).join("uevent"), "MAJOR=254\n").unwrap();
        for entry in gpt::read(&self.places.dev.join(name), 512).unwrap() {
            let part = format!("{name}{}", entry.number);
            let sys = self.places.sys_block.join(name).join(&part);
            fs::create_dir_all(&sys).unwrap();
            fs::write(sys.join("partition"), format!("{}\n", entry.number)).unwrap();
            fs::write(sys.join("dev"), format!("254:{}\n", entry.number)).unwrap();
            let node = File::create_new(self.places.dev.join(part)).unwrap();
            for (_, bytes) in roots.iter().filter(|(root, _)| *root == entry.name) {
                node.write_all_at(bytes, 0).unwrap();
            }
        }
        self
    }

    fn choose(
        &self,
        loader: Option<&str>,
        bank: Option<Bank>,
        root: &Proof,
    ) -> Result<Option<(String, Bank)>> {
        let disks = self.disks().disks;
        let guid_of = |wanted: &str| {
            let (disk, part) = wanted.split_once('/').unwrap();
            let disk = disks.iter().find(|d| d.name == disk).unwrap();
            gpt::guid_text(&disk.partition(part).unwrap().entry.guid)
        };
        let clues = Clues { loader_partition: loader.map(guid_of), bank, partition_number: None, root };
        Ok(clues.choose(&disks)?.map(|found| (found.disk.name, found.bank)))
    }

    /// All of them.
    fn disks(&self) -> Seen {
        let mut seen = Seen::default();
        let (_, proof) = image(2, b"s");
        let clues = Clues {
            loader_partition: Some("of no disk".into()),
            bank: None,
            partition_number: None,
            root: &proof,
        };
        assert_eq!(self.places.look(&clues, Unshown::Awaited, &mut || (), &mut seen).unwrap(), None);
        seen
    }

    fn pulls_out(self, name: &str) -> Self {
        fs::write(self.places.sys_block.join(name).join("removable"), "1\n").unwrap();
        self
    }

    /// What one look decides, which disks it has read, and how often it gave a sign of life.
    fn look(&self, clues: &Clues<'_>) -> (Result<Option<String>>, Vec<String>, usize) {
        let (mut seen, mut signs) = (Seen::default(), 0);
        let found = self.places.look(clues, Unshown::Awaited, &mut || signs += 1, &mut seen);
        let found = found.map(|found| found.map(|standing| standing.disk.name));
        (found, seen.disks.into_iter().map(|disk| disk.name).collect(), signs)
    }
}

#[test]
fn the_loader_decides_even_when_the_root_does_not_fit() {
    let (bytes, proof) = image(2, b"s");
    let machine = Machine::new().with("vda", &[("root-a", &bytes)]).with("vdb", &[("root-a", &bytes)]);
    let choose = |loader| machine.choose(Some(loader), Some(Bank::A), &proof).unwrap();
    assert_eq!(choose("vdb/boot-a"), Some(("vdb".into(), Bank::A)));
    assert_eq!(choose("vda/boot-b"), Some(("vda".into(), Bank::B)));
    assert_eq!(choose("vda/state"), Some(("vda".into(), Bank::A)));
    let esp = |bank| machine.choose(Some("vda/esp"), bank, &proof).unwrap();
    assert_eq!(esp(Some(Bank::B)), Some(("vda".into(), Bank::B)), "a common ESP: the entry decides");
    assert_eq!(esp(None), Some(("vda".into(), Bank::A)), "a common ESP without a name: the tree decides");
}

#[test]
fn without_a_loader_the_tree_decides_and_two_that_fit_are_refused() {
    let (bytes, proof) = image(2, b"s");
    let (_, other) = image(2, b"t");
    let machine = Machine::new().with("vda", &[("root-b", &bytes)]).with("vdb", &[]);
    assert_eq!(machine.choose(None, None, &proof).unwrap(), Some(("vda".into(), Bank::B)));
    assert_eq!(machine.choose(None, Some(Bank::A), &proof).unwrap(), None);
    assert_eq!(machine.choose(None, None, &other).unwrap(), None);
    let both = Machine::new().with("vda", &[("root-a", &bytes), ("root-b", &bytes)]);
    assert!(matches!(both.choose(None, None, &proof), Err(Error::Ambiguous { .. })));
    assert_eq!(both.choose(None, Some(Bank::B), &proof).unwrap(), Some(("vda".into(), Bank::B)));
}

#[test]
fn a_sick_stick_is_not_read_where_a_disk_that_stays_decides() {
    let (bytes, proof) = image(2, b"s");
    let machine = Machine::new()
        .with("sda", &[("root-a", &bytes)])
        .with("sdb", &[("root-a", &bytes)])
        .with("sdc", &[])
        .pulls_out("sda");
    let all = machine.disks().disks;
    let names: Vec<&str> = all.iter().map(|disk| disk.name.as_str()).collect();
    assert_eq!(names, ["sdb", "sdc", "sda"]);
    let guid = gpt::guid_text(&all[0].partition("boot-a").unwrap().entry.guid);
    let told = Clues { loader_partition: Some(guid), bank: None, partition_number: None, root: &proof };
    let (found, read, signs) = machine.look(&told);
    assert_eq!((found.unwrap().as_deref(), read.len(), signs), (Some("sdb"), 1, 1));
    let untold = Clues { loader_partition: None, ..told };
    let (found, read, signs) = machine.look(&untold);
    assert_eq!((found.unwrap().as_deref(), read.len(), signs), (Some("sdb"), 2, 2));
}

#[test]
fn each_disk_that_was_read_is_a_sign_of_life() {
    let (bytes, proof) = image(2, b"s");
    let machine = Machine::new().with("sda", &[("root-a", &bytes)]).with("sdb", &[]).pulls_out("sda");
    fs::create_dir(machine.places.sys_block.join("sdx")).unwrap();
    let clues = Clues { loader_partition: None, bank: None, partition_number: None, root: &proof };
    let (found, read, signs) = machine.look(&clues);
    assert_eq!((found.unwrap().as_deref(), read.len(), signs), (Some("sda"), 2, 3), "the unread one too");
}

#[test]
fn of_two_that_fit_the_one_that_stays_is_taken() {
    let (bytes, proof) = image(2, b"s");
    let roots: &[(&str, &[u8])] = &[("root-a", &bytes)];
    let machine = Machine::new().with("sda", roots).with("sdb", roots).pulls_out("sda");
    assert_eq!(machine.choose(None, None, &proof).unwrap(), Some(("sdb".into(), Bank::A)));
    let all = machine.disks().disks;
    let elsewhere = Clues {
        loader_partition: Some("of another disk".into()),
        bank: Some(Bank::B),
        partition_number: None,
        root: &proof,
    };
    assert_eq!(elsewhere.choose(&all).unwrap(), None);
    assert_eq!(elsewhere.choose_at_last(&all).unwrap().unwrap().disk.name, "sdb");
    let machine = machine.pulls_out("sdb");
    assert!(matches!(machine.choose(None, None, &proof), Err(Error::Ambiguous { .. })), "two sticks");
}

#[test]
fn a_named_bank_is_taken_at_last_so_that_its_failure_can_be_recorded() {
    let (_, proof) = image(2, b"s");
    let machine = Machine::new().with("vda", &[]);
    let disks = machine.disks().disks;
    let clues = Clues { loader_partition: None, bank: Some(Bank::B), partition_number: None, root: &proof };
    assert_eq!(clues.choose_at_last(&disks).unwrap().unwrap().bank, Bank::B);
    let clues = Clues { bank: None, ..clues };
    assert_eq!(clues.choose_at_last(&disks).unwrap(), None);
    let clues = Clues { partition_number: Some(2), ..clues };
    assert_eq!(clues.choose_at_last(&disks).unwrap().unwrap().bank, Bank::B, "boot-b is the second");
    let clues = Clues { partition_number: Some(5), ..clues };
    assert_eq!(clues.choose_at_last(&disks).unwrap(), None, "the record is no boot partition");
}

#[test]
fn partitions_carry_what_firmware_entries_need() {
    let machine = Machine::new().with("nvme0n1", &[]);
    fs::create_dir(machine.places.sys_block.join("loop0")).unwrap();
    fs::create_dir(machine.places.sys_block.join("sdx")).unwrap();
    let all = machine.disks();
    assert_eq!((all.disks.len(), all.unread.len()), (1, 1));
    let seen = all.to_string();
    let disks = all.disks;
    assert!(seen.starts_with("nvme0n1 (boot-a boot-b") && seen.contains("sdx: No such"), "{seen}");
    let boot = disks[0].boot_partitions().unwrap();
    assert_eq!((boot.a.number, boot.b.number, boot.a.blocks), (1, 2, 40));
    assert_eq!(disks[0].root(Bank::B).unwrap().device, "254:4");
    assert!(disks[0].partition("home").is_err());
    assert!(machine.dir.path().exists());
}

/// A loop device, freed at the end.
struct Loop(String);

impl Drop for Loop {
    fn drop(&mut self) {
        let _freed = std::process::Command::new("losetup").arg("--detach").arg(&self.0).status();
    }
}

fn tool(program: &str, arguments: &[&str]) -> String {
    let done = std::process::Command::new(program).args(arguments).output().unwrap();
    assert!(done.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).unwrap().trim().to_owned()
}

/// The first copy of the table has rotted, and the backup is where the image ended: no kernel shows a partition.
#[test]
fn partitions_that_the_kernel_does_not_show_are_added_from_the_table() {
    let is_root = fs::metadata("/proc/self").unwrap().uid() == 0;
    if !is_root || !Path::new("/dev/loop-control").exists() {
        println!("not run: loop devices need root");
        return;
    }
    if !Path::new("/usr/sbin/sgdisk").exists() && !Path::new("/sbin/sgdisk").exists() {
        assert!(std::env::var_os("CI").is_none(), "install the Debian package gdisk");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("disk.img");
    let image = image.to_str().unwrap();
    File::create_new(image).unwrap().set_len(8 << 20).unwrap();
    let sizes = ["-n1:2048:+64K", "-c1:boot-a", "-n2:4096:+1M", "-c2:root-a", "-n3:8192:+64K", "-c3:record"];
    tool("sgdisk", &[&sizes[..], &[image]].concat());
    let file = fs::OpenOptions::new().read(true).write(true).open(image).unwrap();
    file.write_all_at(b"the root", 4096 * 512).unwrap();
    file.set_len(20 << 20).unwrap();
    file.write_all_at(b"rot", 1024 + 300).unwrap();

    let device = Loop(tool("losetup", &["--find", "--show", "--partscan", image]));
    let name = device.0.trim_start_matches("/dev/").to_owned();
    let places = Places::of_the_kernel();
    let look = |unshown| places.disk(name.clone(), Stay::Fixed, unshown).unwrap();
    assert_eq!(look(Unshown::Awaited).partitions, []);
    let found = look(Unshown::Added);
    let names: Vec<&str> = found.partitions.iter().map(|part| part.entry.name.as_str()).collect();
    assert_eq!(names, ["boot-a", "root-a", "record"]);
    let root = found.root(Bank::A).unwrap();
    let sys = Path::new("/sys/block").join(&name).join(format!("{name}p2"));
    let says = |what: &str| fs::read_to_string(sys.join(what)).unwrap().trim().to_owned();
    assert_eq!(
        (says("start"), says("size"), says("dev")),
        ("4096".into(), "2048".into(), root.device.clone())
    );
    if root.node.exists() {
        let mut bytes = [0; 8];
        File::open(&root.node).unwrap().read_exact_at(&mut bytes, 0).unwrap();
        assert_eq!(&bytes, b"the root");
    }
    assert_eq!(look(Unshown::Awaited), found, "they stay");
}
