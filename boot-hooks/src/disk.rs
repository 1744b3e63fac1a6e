//! The disk that was booted, its partitions, and the bank that we stand in.
//!
//! Knows `/sys/block`, `/dev` and the partition tables. It promises to end within `limits::DISK_WAIT`, and to give partitions of one
//! disk only, so that a stick with partitions of the same names does not mix in. Deliberately absent: udev and its links.

use std::{
    fmt,
    fs::{self, File},
    path::{Path, PathBuf},
    time::Instant,
};

use bank_format::{Bank, PerBank, efi};

use crate::{
    console,
    error::{Error, Result, chain},
    gpt, limits,
    linux::{self, uevent::Events},
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

/// Whether a disk is meant to stay, as its drive says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stay {
    /// Built in, for all that is known.
    Fixed,
    /// A stick or a card in a reader.
    Removable,
}

/// A disk and those of its partitions that the kernel knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// Kernel name, like `vda`.
    pub name: String,
    /// Whether it is meant to stay.
    pub stay: Stay,
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

/// What becomes of partitions that are in the table of a disk of which the kernel shows none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unshown {
    /// It may not have come so far.
    Awaited,
    /// It will not show them.
    Added,
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

    /// Looks until the disk is there, at most [`limits::DISK_WAIT`]; `alive` is called after each disk: one that is sick answers only
    /// after half a minute of the kernel's patience, and must not use up the time of the others.
    pub fn find(&self, clues: &Clues<'_>, alive: &mut dyn FnMut()) -> Result<Standing> {
        let events = Events::listen();
        let started = Instant::now();
        loop {
            let mut seen = Seen::default();
            let unshown =
                if started.elapsed() < limits::PARTITION_WAIT { Unshown::Awaited } else { Unshown::Added };
            if let Some(standing) = self.look(clues, unshown, alive, &mut seen)? {
                return Ok(standing);
            }
            alive();
            let left = limits::DISK_WAIT.saturating_sub(started.elapsed());
            if left.is_zero() {
                return clues.choose_at_last(&seen.disks)?.ok_or_else(|| Error::NoDisk {
                    waited_seconds: limits::DISK_WAIT.as_secs(),
                    seen: seen.to_string(),
                });
            }
            events.wait(left.min(limits::DISK_POLL));
        }
    }

    /// One look. Disks that stay come first, and no disk is read that is not needed: neither behind the one that holds the partition of
    /// the loader, nor a stick where a built-in disk leaves no doubt.
    fn look(
        &self,
        clues: &Clues<'_>,
        unshown: Unshown,
        alive: &mut dyn FnMut(),
        seen: &mut Seen,
    ) -> Result<Option<Standing>> {
        let names = self.names()?;
        for stay in [Stay::Fixed, Stay::Removable] {
            for (name, _) in names.iter().filter(|(_, this)| *this == stay) {
                let read = self.disk(name.clone(), stay, unshown);
                alive();
                match read {
                    Ok(disk) => {
                        let decides = clues.is_of_loader(&disk);
                        seen.disks.push(disk);
                        if decides && let Some(standing) = clues.choose(&seen.disks)? {
                            return Ok(Some(standing));
                        }
                    }
                    Err(error) => seen.unread.push(error),
                }
            }
            if let Some(standing) = clues.choose(&seen.disks)? {
                return Ok(Some(standing));
            }
        }
        Ok(None)
    }

    /// Names of the disks, sorted.
    fn names(&self) -> Result<Vec<(String, Stay)>> {
        let listed = fs::read_dir(&self.sys_block).map_err(Error::io("list", &self.sys_block))?;
        let mut names: Vec<String> =
            listed.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.retain(|name| !NEVER.iter().any(|prefix| name.starts_with(prefix)));
        names.sort();
        names.truncate(limits::MAX_DISKS);
        let with_stay = |name: String| {
            let stay = self.stay(&name);
            (name, stay)
        };
        Ok(names.into_iter().map(with_stay).collect())
    }

    /// What cannot be told stays.
    fn stay(&self, name: &str) -> Stay {
        match number(&self.sys_block.join(name).join("removable")) {
            Ok(Some(1)) => Stay::Removable,
            Ok(_) | Err(_) => Stay::Fixed,
        }
    }

    /// The kernel looks for a backup of the table in few places, and shows no partition where it finds no whole table
    /// (`block/partitions/efi.c` of Linux); then what our own reading has found is added.
    fn disk(&self, name: String, stay: Stay, unshown: Unshown) -> Result<Disk> {
        let block_bytes =
            number(&self.sys_block.join(&name).join("queue/logical_block_size"))?.unwrap_or(512);
        let node = self.dev.join(&name);
        let entries = gpt::read(&node, block_bytes)?;
        let mut partitions = self.shown(&name, &entries)?;
        let is_ours = entries.iter().any(|entry| entry.name == RECORD);
        if partitions.is_empty() && is_ours && unshown == Unshown::Added {
            console::warn(&format!("the kernel shows no partition of {name}: adding them from its table"));
            let disk = File::open(&node).map_err(Error::io("open", &node))?;
            for entry in &entries {
                let (start, bytes) =
                    (entry.first_lba.saturating_mul(block_bytes), entry.blocks.saturating_mul(block_bytes));
                if let Err(error) = linux::add_partition(&disk, entry.number, start, bytes) {
                    console::warn(&format!("cannot add partition {} of {name}: {error}", entry.number));
                }
            }
            partitions = self.shown(&name, &entries)?;
        }
        Ok(Disk { name, stay, partitions })
    }

    /// Those of the entries that the kernel shows.
    fn shown(&self, name: &str, entries: &[gpt::Entry]) -> Result<Vec<Partition>> {
        let sys = self.sys_block.join(name);
        let mut partitions = Vec::new();
        let listed = fs::read_dir(&sys).map_err(Error::io("list", &sys))?;
        for child in listed.flatten().filter(|child| child.path().join("partition").exists()) {
            let Some(partition_number) = number(&child.path().join("partition"))? else { continue };
            let Some(entry) = entries.iter().find(|e| u64::from(e.number) == partition_number) else {
                continue;
            };
            let device =
                paths::read_text(&child.path().join("dev"), limits::MAX_SYSFS_BYTES)?.unwrap_or_default();
            let node = self.dev.join(child.file_name());
            partitions.push(Partition { entry: entry.clone(), node, device });
        }
        partitions.sort_by_key(|partition| partition.entry.number);
        Ok(partitions)
    }
}

impl Clues<'_> {
    /// The disk and bank, as soon as there is no doubt. A partition of a bank is the best witness, then what the loader says, then the
    /// tree.
    fn choose(&self, disks: &[Disk]) -> Result<Option<Standing>> {
        let Some(guid) = &self.loader_partition else { return self.by_tree(disks) };
        let Some(disk) = disks.iter().find(|disk| self.is_of_loader(disk)) else { return Ok(None) };
        match self.bank_of_loader(disk, guid).or_else(|| self.named(disk)) {
            Some(bank) => Ok(Some(Standing { disk: disk.clone(), bank })),
            None => self.by_tree(std::slice::from_ref(disk)),
        }
    }

    /// Whether the loader was started from this disk. Disks of one product carry the same numbers: the first one counts.
    fn is_of_loader(&self, disk: &Disk) -> bool {
        let is = |guid: &String| disk.partitions.iter().any(|part| gpt::guid_text(&part.entry.guid) == *guid);
        self.loader_partition.as_ref().is_some_and(is)
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

    /// The only root partition, of the bank that was named if one was, whose tree fits; of several the only one on a disk that stays.
    fn by_tree(&self, disks: &[Disk]) -> Result<Option<Standing>> {
        let mut fitting = self.roots(disks);
        fitting.retain(|(disk, bank)| disk.find(root_name(*bank)).is_some_and(|part| self.fits(part)));
        prefer_what_stays(&mut fitting);
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
        prefer_what_stays(&mut named);
        match named.as_slice() {
            [(disk, bank)] => Ok(Some(Standing { disk: (*disk).clone(), bank: *bank })),
            _ => Ok(None),
        }
    }
}

fn number(path: &Path) -> Result<Option<u64>> {
    Ok(paths::read_text(path, limits::MAX_SYSFS_BYTES)?.and_then(|text| text.parse().ok()))
}

/// A stick with the same system, left in by somebody, must not keep the machine from its own.
fn prefer_what_stays(candidates: &mut Vec<(&Disk, Bank)>) {
    if candidates.iter().any(|(disk, _)| disk.stay == Stay::Fixed) {
        candidates.retain(|(disk, _)| disk.stay == Stay::Fixed);
    }
}

/// What one look has seen: the disks, and why some cannot be read: they are not there yet, or not ours.
#[derive(Debug, Default)]
struct Seen {
    disks: Vec<Disk>,
    unread: Vec<Error>,
}

impl fmt::Display for Seen {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = |disk: &Disk| {
            let names: Vec<&str> = disk.partitions.iter().map(|p| p.entry.name.as_str()).collect();
            format!("{} ({})", disk.name, names.join(" "))
        };
        let seen: Vec<String> =
            self.disks.iter().map(of).chain(self.unread.iter().map(|error| chain(error))).collect();
        to.write_str(&if seen.is_empty() { "none".into() } else { seen.join(", ") })
    }
}

#[cfg(test)]
mod tests;
