//! The disk that was booted, its partitions, and the bank that we stand in.
//!
//! Knows `/sys/block`, `/dev` and the partition tables. It promises to end within `limits::DISK_WAIT`, and to give partitions of one
//! disk only, so that a stick with partitions of the same names does not mix in. Deliberately absent: udev and its links.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    time::Instant,
};

use bank_format::{Bank, PerBank, efi};

use crate::{
    error::{Error, Result, chain},
    gpt, limits,
    linux::uevent::Events,
    paths,
    verity::Proof,
};

/// Partitions that the system finds under `/run/roro/dev`, those of them that are there: which ones depends on the boot loader.
pub const NAMES: [&str; 8] = ["boot-a", "boot-b", "root-a", "root-b", "record", "state", LOADER, ESP];
/// Name of the partition in which a loader keeps its state.
pub const LOADER: &str = "loader";
/// Name of the partition from which firmware starts a loader.
pub const ESP: &str = "esp";
/// Name of the partition that firmware starts when no bank can be booted, where there is one.
pub const RECOVERY: &str = "recovery";
/// Name of the record partition.
pub const RECORD: &str = "record";
/// Name of the state partition.
pub const STATE: &str = "state";

/// Block devices that never hold a system: volatile, stacked or optical.
const NEVER: [&str; 9] = ["loop", "ram", "zram", "dm-", "md", "sr", "fd", "nbd", "mtdblock"];

/// A partition with its device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    /// What the table says.
    pub entry: gpt::Entry,
    /// Device node.
    pub node: PathBuf,
    /// `major:minor`.
    pub device: String,
}

/// A disk and those of its partitions that the kernel knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// Kernel name, like `vda`.
    pub name: String,
    /// In the order of the table.
    pub partitions: Vec<Partition>,
}

/// Where we stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// On which disk.
    pub disk: Disk,
    /// In which bank.
    pub bank: Bank,
}

impl Disk {
    /// The partition of this name.
    pub fn partition(&self, name: &str) -> Result<&Partition> {
        self.find(name).ok_or_else(|| Error::NoPartition { disk: self.name.clone(), name: name.to_owned() })
    }

    /// The partition of this name, if there is one.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&Partition> {
        self.partitions.iter().find(|partition| partition.entry.name == name)
    }

    /// The root partition of a bank.
    pub fn root(&self, bank: Bank) -> Result<&Partition> {
        self.partition(root_name(bank))
    }

    /// The boot partitions, as a firmware entry names them.
    pub fn boot_partitions(&self) -> Result<PerBank<efi::Partition>> {
        PerBank::try_from_fn(|bank| self.partition(boot_name(bank)).map(Partition::for_firmware))
    }
}

impl Partition {
    /// As a firmware entry names it.
    #[must_use]
    pub fn for_firmware(&self) -> efi::Partition {
        let gpt::Entry { number, guid, first_lba, blocks, .. } = self.entry;
        efi::Partition { number, first_lba, blocks, guid }
    }
}

fn root_name(bank: Bank) -> &'static str {
    match bank {
        Bank::A => "root-a",
        Bank::B => "root-b",
    }
}

fn boot_name(bank: Bank) -> &'static str {
    match bank {
        Bank::A => "boot-a",
        Bank::B => "boot-b",
    }
}

/// What is known before any disk was looked at.
#[derive(Debug, Clone)]
pub struct Clues<'a> {
    /// `LoaderDevicePartUUID`, lower case.
    pub loader_partition: Option<String>,
    /// The bank that the loader says it has started: `LoaderEntrySelected` or `roro.bank`.
    pub bank: Option<Bank>,
    /// The number of the partition that Raspberry Pi firmware has started.
    pub partition_number: Option<u32>,
    /// The tree that the root partition must carry.
    pub root: &'a Proof,
}

/// Where the kernel shows its disks.
#[derive(Debug, Clone)]
pub struct Places {
    /// `/sys/block`.
    pub sys_block: PathBuf,
    /// `/dev`.
    pub dev: PathBuf,
}

impl Places {
    /// Those of a running kernel.
    #[must_use]
    pub fn of_the_kernel() -> Self {
        Self { sys_block: PathBuf::from("/sys/block"), dev: PathBuf::from("/dev") }
    }

    /// Looks until the disk is there, at most [`limits::DISK_WAIT`]; `alive` is called between two looks.
    pub fn find(&self, clues: &Clues<'_>, alive: &mut dyn FnMut()) -> Result<Standing> {
        let events = Events::listen();
        let started = Instant::now();
        loop {
            let (disks, unread) = self.disks()?;
            if let Some(standing) = clues.choose(&disks)? {
                return Ok(standing);
            }
            alive();
            let left = limits::DISK_WAIT.saturating_sub(started.elapsed());
            if left.is_zero() {
                return clues.choose_at_last(&disks)?.ok_or_else(|| Error::NoDisk {
                    waited_seconds: limits::DISK_WAIT.as_secs(),
                    seen: describe(&disks, &unread),
                });
            }
            events.wait(left.min(limits::DISK_POLL));
        }
    }

    /// All disks by name, and why some cannot be read: they are not there yet, or not ours.
    fn disks(&self) -> Result<(Vec<Disk>, Vec<Error>)> {
        let listed = fs::read_dir(&self.sys_block).map_err(Error::io("list", &self.sys_block))?;
        let mut names: Vec<String> =
            listed.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.retain(|name| !NEVER.iter().any(|prefix| name.starts_with(prefix)));
        names.sort();
        names.truncate(limits::MAX_DISKS);
        let (mut disks, mut unread) = (Vec::new(), Vec::new());
        for name in names {
            match self.disk(name) {
                Ok(disk) => disks.push(disk),
                Err(error) => unread.push(error),
            }
        }
        Ok((disks, unread))
    }

    fn disk(&self, name: String) -> Result<Disk> {
        let sys = self.sys_block.join(&name);
        let block_bytes = number(&sys.join("queue/logical_block_size"))?.unwrap_or(512);
        let mut entries = gpt::read(&self.dev.join(&name), block_bytes)?;
        let mut partitions = Vec::new();
        let listed = fs::read_dir(&sys).map_err(Error::io("list", &sys))?;
        for child in listed.flatten().filter(|child| child.path().join("partition").exists()) {
            let Some(partition_number) = number(&child.path().join("partition"))? else { continue };
            let Some(at) = entries.iter().position(|e| u64::from(e.number) == partition_number) else {
                continue;
            };
            let device =
                paths::read_text(&child.path().join("dev"), limits::MAX_SYSFS_BYTES)?.unwrap_or_default();
            let node = self.dev.join(child.file_name());
            partitions.push(Partition { entry: entries.swap_remove(at), node, device });
        }
        partitions.sort_by_key(|partition| partition.entry.number);
        Ok(Disk { name, partitions })
    }
}

impl Clues<'_> {
    /// The disk and bank, as soon as there is no doubt. A partition of a bank is the best witness, then what the loader says, then the
    /// tree.
    fn choose(&self, disks: &[Disk]) -> Result<Option<Standing>> {
        let Some(guid) = &self.loader_partition else { return self.by_tree(disks) };
        let holds = |disk: &&Disk| disk.partitions.iter().any(|p| gpt::guid_text(&p.entry.guid) == *guid);
        let Some(disk) = disks.iter().find(holds) else { return Ok(None) };
        match self.bank_of_loader(disk, guid).or_else(|| self.named(disk)) {
            Some(bank) => Ok(Some(Standing { disk: disk.clone(), bank })),
            None => self.by_tree(std::slice::from_ref(disk)),
        }
    }

    fn bank_of_loader(&self, disk: &Disk, guid: &str) -> Option<Bank> {
        let of_loader =
            |bank: &Bank| disk.find(boot_name(*bank)).is_some_and(|p| gpt::guid_text(&p.entry.guid) == guid);
        Bank::BOTH.into_iter().find(of_loader)
    }

    /// The bank that we stand in if this is the disk.
    fn named(&self, disk: &Disk) -> Option<Bank> {
        let started = |bank: &Bank| {
            let number = disk.find(boot_name(*bank)).map(|partition| partition.entry.number);
            number.is_some() && number == self.partition_number
        };
        self.bank.or_else(|| Bank::BOTH.into_iter().find(started))
    }

    /// The only root partition, of the bank that was named if one was, whose tree fits.
    fn by_tree(&self, disks: &[Disk]) -> Result<Option<Standing>> {
        let mut fitting = self.roots(disks);
        fitting.retain(|(disk, bank)| disk.find(root_name(*bank)).is_some_and(|part| self.fits(part)));
        match fitting.as_slice() {
            [] => Ok(None),
            [(disk, bank)] => Ok(Some(Standing { disk: (*disk).clone(), bank: *bank })),
            several => {
                let names =
                    several.iter().map(|(disk, bank)| format!("{} of {}", root_name(*bank), disk.name));
                Err(Error::Ambiguous { candidates: names.collect::<Vec<_>>().join(", ") })
            }
        }
    }

    fn roots<'d>(&self, disks: &'d [Disk]) -> Vec<(&'d Disk, Bank)> {
        let banks = |disk: &Disk| self.named(disk).map_or_else(|| Bank::BOTH.to_vec(), |bank| vec![bank]);
        disks.iter().flat_map(|disk| banks(disk).into_iter().map(move |bank| (disk, bank))).collect()
    }

    fn fits(&self, partition: &Partition) -> bool {
        let looked = File::open(&partition.node)
            .map_err(Error::io("open", &partition.node))
            .and_then(|image| self.root.check_top(&image, &partition.node));
        matches!(looked, Ok(Ok(())))
    }

    /// Time is up. A disk that is not the loader's serves if its tree fits; and where the bank was named and only one disk has it,
    /// we stand there, so that the record learns why its root is refused.
    fn choose_at_last(&self, disks: &[Disk]) -> Result<Option<Standing>> {
        if let Some(standing) = self.by_tree(disks)? {
            return Ok(Some(standing));
        }
        let mut named = self.roots(disks);
        named.retain(|(disk, bank)| self.named(disk).is_some() && disk.find(root_name(*bank)).is_some());
        match named.as_slice() {
            [(disk, bank)] => Ok(Some(Standing { disk: (*disk).clone(), bank: *bank })),
            _ => Ok(None),
        }
    }
}

fn number(path: &Path) -> Result<Option<u64>> {
    Ok(paths::read_text(path, limits::MAX_SYSFS_BYTES)?.and_then(|text| text.parse().ok()))
}

fn describe(disks: &[Disk], unread: &[Error]) -> String {
    let of = |disk: &Disk| {
        let names: Vec<&str> = disk.partitions.iter().map(|p| p.entry.name.as_str()).collect();
        format!("{} ({})", disk.name, names.join(" "))
    };
    let seen: Vec<String> = disks.iter().map(of).chain(unread.iter().map(|error| chain(error))).collect();
    if seen.is_empty() { "none".into() } else { seen.join(", ") }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt as _;

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
            let disks = self.places.disks().unwrap().0;
            let guid_of = |wanted: &str| {
                let (disk, part) = wanted.split_once('/').unwrap();
                let disk = disks.iter().find(|d| d.name == disk).unwrap();
                gpt::guid_text(&disk.partition(part).unwrap().entry.guid)
            };
            let clues = Clues { loader_partition: loader.map(guid_of), bank, partition_number: None, root };
            Ok(clues.choose(&disks)?.map(|found| (found.disk.name, found.bank)))
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
    fn a_named_bank_is_taken_at_last_so_that_its_failure_can_be_recorded() {
        let (_, proof) = image(2, b"s");
        let machine = Machine::new().with("vda", &[]);
        let disks = machine.places.disks().unwrap().0;
        let clues =
            Clues { loader_partition: None, bank: Some(Bank::B), partition_number: None, root: &proof };
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
        let (disks, unread) = machine.places.disks().unwrap();
        assert_eq!((disks.len(), unread.len()), (1, 1));
        let seen = describe(&disks, &unread);
        assert!(seen.starts_with("nvme0n1 (boot-a boot-b") && seen.contains("sdx: No such"), "{seen}");
        let boot = disks[0].boot_partitions().unwrap();
        assert_eq!((boot.a.number, boot.b.number, boot.a.blocks), (1, 2, 40));
        assert_eq!(disks[0].root(Bank::B).unwrap().device, "254:4");
        assert!(disks[0].partition("home").is_err());
        assert!(machine.dir.path().exists());
    }
}
