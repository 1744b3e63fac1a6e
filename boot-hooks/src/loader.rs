//! What early boot tells the boot loader: to start another bank, or what is configured for when no bank can be booted.
//!
//! The words are `bank_format::loader`'s; here is only where each loader keeps its state on the disk that was booted.

use std::{
    error::Error as StdError,
    fs::File,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use bank_format::{
    PerBank, efi, fat,
    loader::{
        Firmware, Grub, Kind, Loader, RECOVERY_TITLE, RebootFlag, Recovery, SystemdBoot, Tryboot, UBoot,
        uboot::{Layout, PARTITION_ENV_BYTES, Place, Variables},
    },
};

use crate::{
    disk::{self, Disk},
    error::{Error, Result, chain},
    ledger::Redirect,
    limits::MAX_SMALL_FILE_BYTES,
    medium::DeviceMedium,
    paths,
    vars::EfiVars,
};

/// Where U-Boot's environment lies, in the initrd of a board that does not keep it on the partition `loader`.
const UBOOT_LAYOUT: &str = "/etc/fw_env.config";
/// What that environment begins with where no copy of it is whole, as the agent has it.
const UBOOT_INITIAL: &str = "/etc/u-boot-initial-env";
const AUTOBOOT: &str = "autoboot.txt";

/// The boot loader of this machine.
#[derive(Debug, Clone)]
pub struct BootLoader {
    /// Which one.
    pub kind: Kind,
    /// The disk that was booted.
    pub disk: Disk,
    /// `roro.recovery=1`, for the loaders whose own state does not show it.
    pub has_recovery: bool,
}

/// What it is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Deed {
    Redirect(Redirect),
    Recover,
}

impl BootLoader {
    /// The next boot starts another bank.
    pub fn redirect(&self, redirect: Redirect) -> Result<()> {
        self.tell(Deed::Redirect(redirect)).map(|_| ())
    }

    /// No bank can be booted: the next boot starts the recovery entry, if there is one.
    pub fn recover(&self) -> Result<Recovery> {
        let shows_it = match self.kind {
            Kind::Efi | Kind::SystemdBoot => true,
            Kind::Grub | Kind::UBoot | Kind::Tryboot | Kind::Script => self.has_recovery,
        };
        if self.kind == Kind::Efi {
            self.ensure_recovery_entry()?;
        }
        if shows_it { self.tell(Deed::Recover) } else { Ok(Recovery::NotConfigured) }
    }

    /// The entry of the partition `recovery`, where the disk has one: firmware may never have had it, or have lost it.
    fn ensure_recovery_entry(&self) -> Result<()> {
        let Ok(partition) = self.disk.partition(disk::RECOVERY) else { return Ok(()) };
        let made = efi::ensure_entry(&mut EfiVars::mounted(), RECOVERY_TITLE, &partition.for_firmware());
        made.map(|_| ()).map_err(|error| Error::Loader { detail: chain(&error) })
    }

    fn tell(&self, deed: Deed) -> Result<Recovery> {
        match self.kind {
            Kind::Efi => carry_out(Firmware::new(EfiVars::mounted(), self.disk.boot_partitions()?), deed),
            Kind::SystemdBoot => carry_out(SystemdBoot::new(EfiVars::mounted()), deed),
            Kind::Grub => carry_out(Grub::new(DeviceMedium::open(&self.own_partition()?)?), deed),
            Kind::UBoot => {
                let (copies, env_bytes) = self.environment(Path::new(UBOOT_LAYOUT))?;
                let initial =
                    paths::read_small(Path::new(UBOOT_INITIAL), MAX_SMALL_FILE_BYTES)?.unwrap_or_default();
                let initial = Variables::from_lines(&String::from_utf8_lossy(&initial));
                carry_out(UBoot::new(copies, env_bytes).with_initial(initial), deed)
            }
            Kind::Tryboot => carry_out(self.autoboot()?, deed),
            // Its program lies in the root, so from here on the loader is on its own: it is reset, and counts by itself.
            Kind::Script => Ok(Recovery::NotConfigured),
        }
    }

    fn own_partition(&self) -> Result<PathBuf> {
        Ok(self.disk.partition(disk::LOADER)?.node.clone())
    }

    fn environment(&self, layout: &Path) -> Result<([DeviceMedium; 2], usize)> {
        match paths::read_small(layout, MAX_SMALL_FILE_BYTES)? {
            Some(text) => {
                let Layout { copies: [first, second], env_bytes } =
                    Layout::parse(&String::from_utf8_lossy(&text))
                        .map_err(|source| Error::Format { subject: UBOOT_LAYOUT, source })?;
                let open =
                    |place: Place| DeviceMedium::open_from(Path::new(&place.device), place.offset_bytes);
                Ok(([open(first)?, open(second)?], env_bytes))
            }
            None => {
                let node = self.own_partition()?;
                let second = DeviceMedium::open_from(&node, PARTITION_ENV_BYTES as u64)?;
                Ok(([DeviceMedium::open(&node)?, second], PARTITION_ENV_BYTES))
            }
        }
    }

    /// On the first partition with a FAT that holds it: that is where the firmware looks.
    fn autoboot(&self) -> Result<Tryboot<DeviceMedium, NoFlag>> {
        let numbers = self.disk.boot_partitions()?;
        let numbers = PerBank { a: numbers.a.number, b: numbers.b.number };
        for partition in &self.disk.partitions {
            if let Ok(extent) = find_file(&partition.node, AUTOBOOT) {
                let file = DeviceMedium::open_from(&partition.node, extent.offset_bytes)?;
                let file_bytes = usize::try_from(extent.file_bytes).unwrap_or(usize::MAX);
                return Ok(Tryboot::new(file, file_bytes, numbers, NoFlag));
            }
        }
        Err(Error::Loader { detail: format!("no partition of {} has an {AUTOBOOT}", self.disk.name) })
    }
}

/// Where a file lies on the FAT of a partition.
pub fn find_file(node: &Path, path: &str) -> Result<fat::Extent> {
    let device = File::open(node).map_err(Error::io("open", node))?;
    fat::find_file(|offset, buffer| device.read_exact_at(buffer, offset), path)
        .map_err(|error| Error::Loader { detail: format!("{}: {}", node.display(), chain(&error)) })
}

/// The flag goes with an orderly reboot, and early boot knows none: whoever gets here has used it up.
#[derive(Debug, Clone, Copy)]
struct NoFlag;

impl RebootFlag for NoFlag {
    type Error = Error;

    fn armed(&mut self) -> Result<bool> {
        Ok(false)
    }

    fn arm(&mut self) -> Result<()> {
        Err(Error::Loader { detail: "early boot tries nothing: this is a bug in Roro".into() })
    }

    fn disarm(&mut self) -> Result<()> {
        Ok(())
    }
}

fn carry_out<L: Loader>(mut loader: L, deed: Deed) -> Result<Recovery>
where
    L::Error: StdError,
{
    let done = match deed {
        Deed::Redirect(Redirect { to, spare }) => {
            loader.redirect(to, spare).map(|()| Recovery::NotConfigured)
        }
        Deed::Recover => loader.recover(),
    };
    done.map_err(|error| Error::Loader { detail: chain(&error) })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use bank_format::{
        Bank,
        loader::{Spare, grub::Next, tryboot::Autoboot},
    };

    use super::*;
    use crate::{disk::Partition, gpt::Entry};

    const TO_B: Redirect = Redirect { to: Bank::B, spare: Spare::Bootable };

    /// A disk whose partitions are files.
    fn machine(dir: &Path, kind: Kind, partitions: &[(&str, Vec<u8>)]) -> BootLoader {
        let partition = |number: u32, name: &str, bytes: &[u8]| {
            let node: PathBuf = dir.join(name);
            fs::write(&node, bytes).unwrap();
            let entry =
                Entry { number, name: name.into(), guid: [number as u8; 16], first_lba: 64, blocks: 8 };
            Partition { entry, node, device: format!("8:{number}") }
        };
        let partitions =
            (1..).zip(partitions).map(|(at, (name, bytes))| partition(at, name, bytes)).collect();
        BootLoader {
            kind,
            disk: Disk { name: "sda".into(), stay: disk::Stay::Fixed, partitions },
            has_recovery: false,
        }
    }

    #[test]
    fn grub_is_told_on_its_partition() {
        let dir = tempfile::tempdir().unwrap();
        let loader = machine(dir.path(), Kind::Grub, &[("loader", Grub::factory(Bank::A).unwrap())]);
        loader.redirect(TO_B).unwrap();
        let mut told = Grub::new(DeviceMedium::open(&dir.path().join("loader")).unwrap());
        let (_, decision) = told.decision().unwrap().unwrap();
        assert_eq!(
            (decision.default, decision.next, decision.spare),
            (Bank::B, Next::Default, Spare::Bootable)
        );
        assert_eq!(loader.recover().unwrap(), Recovery::NotConfigured, "nobody has said that there is one");
        let configured = BootLoader { has_recovery: true, ..loader };
        assert_eq!(configured.recover().unwrap(), Recovery::Next);
        assert_eq!(told.decision().unwrap().unwrap().1.next, Next::Recovery);
        let bare = machine(dir.path(), Kind::Grub, &[("state", Vec::new())]);
        assert!(matches!(bare.redirect(TO_B), Err(Error::NoPartition { .. })));
    }

    #[test]
    fn u_boot_is_told_on_its_partition_or_where_its_tools_look() {
        let dir = tempfile::tempdir().unwrap();
        let copies: Vec<u8> = [2, 1]
            .into_iter()
            .flat_map(|serial| UBoot::factory(Bank::A, PARTITION_ENV_BYTES, serial).unwrap())
            .collect();
        let loader = machine(dir.path(), Kind::UBoot, &[("loader", copies)]);
        loader.redirect(TO_B).unwrap();
        let order = |layout: &Path| {
            let (copies, env_bytes) = loader.environment(layout).unwrap();
            let variables = UBoot::new(copies, env_bytes).variables().unwrap();
            (variables.get("BOOT_ORDER").unwrap(), variables.get("BOOT_A_LEFT").unwrap())
        };
        assert_eq!(order(Path::new(UBOOT_LAYOUT)), ("B A".into(), "3".into()));
        let elsewhere = dir.path().join("mmc");
        let mut bytes = vec![0; 0x1000];
        bytes.extend(UBoot::factory(Bank::A, 0x1000, 2).unwrap());
        bytes.extend(UBoot::factory(Bank::B, 0x1000, 3).unwrap());
        fs::write(&elsewhere, bytes).unwrap();
        let layout = dir.path().join("fw_env.config");
        let name = elsewhere.display();
        fs::write(&layout, format!("# U-Boot\n{name} 0x1000 0x1000\n{name} 0x2000 0x1000\n")).unwrap();
        assert_eq!(order(&layout), ("B A".into(), "0".into()));
        fs::write(&layout, format!("{name} 0x1000 0x1000\n")).unwrap();
        assert!(loader.environment(&layout).is_err());
    }

    #[test]
    fn autoboot_txt_is_changed_in_place_on_the_first_fat_that_has_it() {
        let dir = tempfile::tempdir().unwrap();
        let text = Autoboot::new(2, 3).render(512).unwrap();
        let partitions = [
            ("state", vec![0; 4096]),
            ("boot-a", vec![0; 4096]),
            ("boot-b", vec![0; 4096]),
            ("firmware", small_fat(&text)),
        ];
        let loader = machine(dir.path(), Kind::Tryboot, &partitions);
        loader.redirect(TO_B).unwrap();
        let changed = fs::read(dir.path().join("firmware")).unwrap();
        let found = find_file(&dir.path().join("firmware"), AUTOBOOT).unwrap();
        let content = &changed[found.offset_bytes as usize..][..512];
        let now = Autoboot::parse(content).unwrap();
        assert_eq!((now.default_partition(), now.tryboot_partition()), (Some(3), Some(2)));
        let bare = machine(dir.path(), Kind::Tryboot, &partitions[..3]);
        assert!(matches!(bare.redirect(TO_B), Err(Error::Loader { .. })));
    }

    /// A FAT12 of 16 sectors with `autoboot.txt` of one sector in cluster 2.
    fn small_fat(content: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; 16 * 512];
        bytes[11..13].copy_from_slice(&512u16.to_le_bytes());
        bytes[13] = 1;
        bytes[14..16].copy_from_slice(&1u16.to_le_bytes());
        bytes[16] = 1;
        bytes[17..19].copy_from_slice(&16u16.to_le_bytes());
        bytes[19..21].copy_from_slice(&16u16.to_le_bytes());
        bytes[21] = 0xf8;
        bytes[22..24].copy_from_slice(&1u16.to_le_bytes());
        bytes[510..512].copy_from_slice(&[0x55, 0xaa]);
        bytes[512..518].copy_from_slice(&[0xf8, 0xff, 0xff, 0xff, 0x0f, 0x00]);
        let entry = &mut bytes[1024..1056];
        entry[..11].copy_from_slice(b"AUTOBOOTTXT");
        entry[11] = 0x20;
        entry[26] = 2;
        entry[28..32].copy_from_slice(&512u32.to_le_bytes());
        bytes[1536..2048].copy_from_slice(content);
        bytes
    }

    #[test]
    fn a_script_cannot_be_asked_from_here() {
        let dir = tempfile::tempdir().unwrap();
        let loader = machine(dir.path(), Kind::Script, &[]);
        loader.redirect(TO_B).unwrap();
        assert_eq!(loader.recover().unwrap(), Recovery::NotConfigured);
    }
}
