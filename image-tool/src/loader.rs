//! What each boot loader wants on a disk: the boot image of a bank, the loader's own partitions, and their order.
//!
//! The order of the partitions is part of the contract with devices and with `grub.cfg`: it does not change. Deliberately absent: the
//! state of a loader after the factory, which is `bank_format::loader`'s.

pub mod grub;

use crate::{
    appliance::{Boot, BootLoader, Disk},
    disk::table::{Partition, Purpose},
    error::{Error, Result},
    fat::{self, File, Size},
    limits::MAX_UKI_PART_BYTES,
    secure_boot::Signer,
    tree::{Content, Tree},
    uki::Uki,
};

const MIB: u64 = 1 << 20;
/// Room for loaders and their files beside what is counted.
const ESP_BYTES: u64 = 16 * MIB;
/// As many bytes as a data block of the device: images are written and checked in whole blocks.
const BLOCK_BYTES: usize = 4096;

/// Where systemd-boot looks for unified kernel images.
const UKI_PATHS: [&str; 2] = ["EFI/Linux/roro-a.efi", "EFI/Linux/roro-b.efi"];
const LOADER_CONF: &str = "timeout 0\neditor no\nauto-firmware no\nauto-entries no\ndefault roro-a.efi\n";
const RECOVERY_CONF: &str = "title Roro Recovery\nefi /EFI/Roro/RECOVERY.EFI\n";
const RECOVERY_PATH: &str = "EFI/Roro/RECOVERY.EFI";

/// What is on a disk beside the banks.
#[derive(Debug, Clone)]
pub enum Installed {
    /// Nothing: the firmware starts the banks.
    Efi,
    /// systemd-boot.
    SystemdBoot {
        /// `systemd-bootx64.efi`.
        program: Content,
    },
    /// GRUB, for both firmwares.
    Grub(grub::Grub),
}

/// What a device starts when no bank can be booted: an EFI program, or for GRUB a script.
pub type Recovery = Option<Content>;

/// What a boot image is made of.
#[derive(Debug)]
pub struct Kernel<'a> {
    /// The whole as one program.
    pub uki: &'a Uki,
    /// The kernel.
    pub kernel: &'a [u8],
    /// The initrd.
    pub initrd: &'a [u8],
    /// The kernel command line.
    pub command_line: &'a str,
}

/// Who signs what firmware starts.
#[derive(Clone, Copy)]
pub enum Signing<'a> {
    /// Nobody.
    Nobody,
    /// The signer.
    By(&'a Signer),
}

impl Signing<'_> {
    fn sign(self, program: &[u8]) -> Result<Vec<u8>> {
        match self {
            Self::Nobody => Ok(program.to_vec()),
            Self::By(signer) => signer.sign(program),
        }
    }
}

/// Makes the boot image that a loader starts: what a device writes into a bank's place.
///
/// `space_bytes` is the space of a bank for it. A signed program fills it to the last byte where it is a file of that size.
pub fn boot_image(
    loader: BootLoader,
    parts: &Kernel<'_>,
    signing: Signing<'_>,
    space_bytes: u64,
) -> Result<Vec<u8>> {
    match loader {
        BootLoader::Efi => {
            let files = [File::new(fat::BOOT_PATH, signing.sign(&parts.uki.bytes)?)];
            fat::volume(&files, Size::Least)?.to_bytes()
        }
        BootLoader::SystemdBoot => match signing {
            Signing::By(signer) => signer.sign_to(&parts.uki.bytes, space_bytes),
            Signing::Nobody => {
                let mut bytes = parts.uki.bytes.clone();
                bytes.resize(bytes.len().next_multiple_of(BLOCK_BYTES), 0);
                Ok(bytes)
            }
        },
        BootLoader::Grub => fat::volume(&grub::boot_files(parts), Size::Least)?.to_bytes(),
    }
}

/// The partitions of both banks and the loader, bank A filled with `boot` and `root`, without record and state.
pub fn partitions(
    installed: &Installed,
    recovery: &Recovery,
    sizes: &Disk,
    boot: Vec<(u64, Content)>,
    root: Vec<(u64, Content)>,
) -> Result<Vec<Partition>> {
    let boot_bytes = u64::from(sizes.boot_mib) * MIB;
    let root_bytes = u64::from(sizes.root_mib) * MIB;
    let root_a = Partition { pieces: root, ..Partition::empty("root-a", root_bytes, Purpose::LinuxRoot) };
    let root_b = Partition::empty("root-b", root_bytes, Purpose::LinuxRoot);
    let banks = |purpose| {
        [
            Partition { pieces: boot.clone(), ..Partition::empty("boot-a", boot_bytes, purpose) },
            Partition::empty("boot-b", boot_bytes, purpose),
        ]
    };
    let mut all = Vec::new();
    match installed {
        Installed::Efi => all.extend(banks(Purpose::EfiSystem)),
        Installed::SystemdBoot { program } => {
            let [path_a, path_b] = UKI_PATHS;
            // A file has no tail.
            let (_, boot) = boot.first().cloned().ok_or(Error::Bug { what: "bank A has no boot image" })?;
            let mut files = vec![
                File::fixed(path_a, boot, boot_bytes),
                File::fixed(path_b, Vec::new(), boot_bytes),
                File::new(fat::BOOT_PATH, program.clone()),
                File::new("loader/loader.conf", LOADER_CONF),
            ];
            let mut bytes = 2 * boot_bytes + ESP_BYTES;
            if let Some(program) = recovery {
                bytes += program.len_bytes().next_multiple_of(MIB);
                files.push(File::new("loader/entries/roro-recovery.conf", RECOVERY_CONF));
                files.push(File::new(RECOVERY_PATH, program.clone()));
            }
            all.push(esp(&files, bytes)?);
        }
        Installed::Grub(grub) => {
            // The core knows its own place, which is that of the first partition.
            all.push(grub.bios_partition()?);
            let script = recovery.iter().map(|script| File::new("grub/recovery.cfg", script.clone()));
            all.push(esp(&grub.esp_files().into_iter().chain(script).collect::<Vec<_>>(), ESP_BYTES)?);
            all.push(grub::loader_partition()?);
            all.extend(banks(Purpose::Linux));
        }
    }
    all.extend([root_a, root_b]);
    Ok(all)
}

/// Firmware has no place for a recovery program but a partition of its own, behind all others. Its entry is made by who needs it.
pub fn recovery_partition(installed: &Installed, recovery: &Recovery) -> Result<Option<Partition>> {
    match (installed, recovery) {
        (Installed::Efi, Some(program)) => {
            let volume = fat::volume(&[File::new(fat::BOOT_PATH, program.clone())], Size::Least)?;
            let partition = Partition::empty("recovery", volume.bytes, Purpose::EfiSystem);
            Ok(Some(Partition { pieces: volume.pieces, ..partition }))
        }
        (Installed::SystemdBoot { .. } | Installed::Grub(_), _) | (Installed::Efi, None) => Ok(None),
    }
}

/// Reads what `[boot] recovery` names, and signs it where firmware would ask for that.
pub fn recovery(boot: &Boot, signing: Signing<'_>) -> Result<Recovery> {
    let Some(path) = &boot.recovery else { return Ok(None) };
    let content = Content::of_file(path)?.read(MAX_UKI_PART_BYTES)?;
    match boot.loader {
        BootLoader::Grub => Ok(Some(content.into())),
        BootLoader::Efi | BootLoader::SystemdBoot if content.starts_with(b"MZ") => {
            Ok(Some(signing.sign(&content)?.into()))
        }
        BootLoader::Efi | BootLoader::SystemdBoot => {
            Err(Error::malformed(path.display(), "the recovery of this loader is an EFI program"))
        }
    }
}

fn esp(files: &[File], bytes: u64) -> Result<Partition> {
    let volume = fat::volume(files, Size::Exactly(bytes))?;
    Ok(Partition { pieces: volume.pieces, ..Partition::empty("esp", bytes, Purpose::EfiSystem) })
}

/// What a disk for this loader needs, from the packages of the image or from this machine.
pub fn install(loader: BootLoader, packages: &Tree, signing: Signing<'_>) -> Result<Installed> {
    const PROGRAM: &str = "usr/lib/systemd/boot/efi/systemd-bootx64.efi";
    match loader {
        BootLoader::Efi => Ok(Installed::Efi),
        BootLoader::SystemdBoot => {
            let Some(path) = packages.resolve(PROGRAM) else {
                return Err(Error::missing(
                    "systemd-bootx64.efi",
                    "kernel.stub_package of the appliance must bring it, as systemd-boot-efi does",
                ));
            };
            let program = packages.content(&path)?.read(MAX_UKI_PART_BYTES)?;
            Ok(Installed::SystemdBoot { program: signing.sign(&program)?.into() })
        }
        BootLoader::Grub => grub::Grub::of_the_host().map(Installed::Grub),
    }
}

#[cfg(test)]
mod tests;
