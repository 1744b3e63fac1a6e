//! GRUB on a disk for both firmwares: its core for a BIOS, its program for EFI, its script, and the boot image of a bank.
//!
//! The images come from `grub-mkimage` of this machine; that and the modules beside it are an input like the packages. How they are
//! joined to the disk is `grub-bios-setup`'s way, which itself wants a device: GRUB 2.06, `boot.S` and `diskboot.S`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use bank_format::{Bank, loader};

use super::Kernel;
use crate::{
    disk::table::{ALIGN_BYTES, BOOT_CODE_BYTES, Partition, Purpose, SECTOR_BYTES},
    error::{Error, Result},
    fat::{self, File},
    host,
    limits::MAX_UKI_PART_BYTES,
    tree::Content,
};

const SCRIPT: &str = include_str!("../../../boot-hooks/loaders/grub.cfg");
/// Where GRUB finds its script: partition 2 of the disk that it came from.
const PREFIX: &str = "(,gpt2)/grub";
const BIOS_BYTES: u64 = 1 << 20;
const MODULE_ROOT: &str = "/usr/lib/grub";
/// Modules that the script needs on every machine.
const MODULES: [&str; 24] = [
    "part_gpt",
    "fat",
    "iso9660",
    "normal",
    "configfile",
    "test",
    "true",
    "regexp",
    "loadenv",
    "hashsum",
    "gcry_sha256",
    "linux",
    "boot",
    "echo",
    "sleep",
    "reboot",
    "halt",
    "serial",
    "terminal",
    "search",
    "search_label",
    "search_fs_file",
    "cat",
    "ls",
];
const MODULES_BIOS: [&str; 1] = ["biosdisk"];
const MODULES_EFI: [&str; 3] = ["all_video", "chain", "efifwsetup"];

// boot.img, the first sector of the disk.
const KERNEL_SECTOR: usize = 0x5c;
const DRIVE_CHECK: usize = 0x66;
/// Two `nop`: take the drive that the BIOS names for what it is, but never a floppy.
const NO_OPERATION: [u8; 2] = [0x90, 0x90];
/// The list of blocks at the end of the core's first sector grows downwards; its first row says where the rest lies.
const BLOCK_LIST: usize = 0x1f4;

/// GRUB for both firmwares.
#[derive(Debug, Clone)]
pub struct Grub {
    boot_sector: Vec<u8>,
    core: Vec<u8>,
    program: Content,
}

impl Grub {
    /// Made from the modules of this machine.
    pub fn of_the_host() -> Result<Self> {
        let bios = modules("i386-pc", "grub-pc-bin")?;
        let efi = modules("x86_64-efi", "grub-efi-amd64-bin")?;
        let boot_image = bios.join("boot.img");
        Ok(Self {
            boot_sector: fs::read(&boot_image).map_err(Error::file("read", &boot_image))?,
            core: image("i386-pc", &bios, &MODULES_BIOS)?,
            program: image("x86_64-efi", &efi, &MODULES_EFI)?.into(),
        })
    }

    /// The EFI program.
    #[must_use]
    pub fn program(&self) -> &Content {
        &self.program
    }

    /// What a BIOS runs: it reads the core from the first partition.
    pub fn boot_code(&self) -> Result<[u8; BOOT_CODE_BYTES]> {
        let mut sector = self.boot_sector.clone();
        put(&mut sector, KERNEL_SECTOR, &core_sector().to_le_bytes())?;
        put(&mut sector, DRIVE_CHECK, &NO_OPERATION)?;
        let code = sector.get(..BOOT_CODE_BYTES).and_then(|code| code.try_into().ok());
        code.ok_or_else(|| Error::malformed("boot.img of GRUB", "it is cut short"))
    }

    pub(super) fn bios_partition(&self) -> Result<Partition> {
        let mut core = self.core.clone();
        put(&mut core, BLOCK_LIST, &(core_sector() + 1).to_le_bytes())?;
        Ok(Partition::empty("bios", BIOS_BYTES, Purpose::BiosBoot).with(core))
    }

    pub(super) fn esp_files(&self) -> Vec<File> {
        vec![File::new(fat::BOOT_PATH, self.program.clone()), File::new("grub/grub.cfg", SCRIPT)]
    }
}

/// Sector of the first partition, which has the core.
fn core_sector() -> u64 {
    ALIGN_BYTES / SECTOR_BYTES
}

/// The agent's and GRUB's state, as from the factory.
pub(super) fn loader_partition() -> Result<Partition> {
    let bytes = loader::Grub::factory(Bank::A).map_err(Error::format("encode the factory state of GRUB"))?;
    Ok(Partition::empty("loader", bytes.len() as u64, Purpose::Linux).with(bytes))
}

/// Files of a bank's boot image.
pub(super) fn boot_files(parts: &Kernel<'_>) -> Vec<File> {
    // The appliance refuses what would end the quotes.
    let settings = format!("set cmdline='{}'\n", parts.command_line);
    vec![
        File::new("roro/linux", parts.kernel.to_vec()),
        File::new("roro/initrd", parts.initrd.to_vec()),
        File::new("roro/boot.cfg", settings.as_str()),
    ]
}

fn modules(platform: &str, package: &str) -> Result<PathBuf> {
    let directory = Path::new(MODULE_ROOT).join(platform);
    if directory.join("kernel.img").is_file() {
        Ok(directory)
    } else {
        let subject = format!("GRUB for {platform}");
        Err(Error::missing(subject, format!("install the Debian package {package}")))
    }
}

fn image(platform: &str, directory: &Path, more: &[&str]) -> Result<Vec<u8>> {
    let file =
        tempfile::NamedTempFile::new().map_err(Error::file("create a file in", std::env::temp_dir()))?;
    let mut command = Command::new("grub-mkimage");
    command.args(["--format", platform, "--prefix", PREFIX, "--directory"]).arg(directory);
    command.arg("--output").arg(file.path()).args(MODULES).args(more);
    host::run(&mut command, "grub-common")?;
    Content::of_file(file.path())?.read(MAX_UKI_PART_BYTES)
}

fn put(image: &mut [u8], offset: usize, bytes: &[u8]) -> Result<()> {
    let place = image.get_mut(offset..).and_then(|rest| rest.get_mut(..bytes.len()));
    place.ok_or_else(|| Error::malformed("an image of GRUB", "it is cut short"))?.copy_from_slice(bytes);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// The words of a list of modules that ends in `, and biosdisk`.
    fn listed(text: &str) -> BTreeSet<String> {
        let list = &text[text.find("part_gpt").unwrap()..];
        list[..list.find(", and").unwrap()].replace('#', "").split_whitespace().map(str::to_owned).collect()
    }

    /// The module of each command that the script calls, by GRUB's own list.
    fn called(commands: &str) -> BTreeSet<String> {
        let modules = commands.lines().filter_map(|line| line.trim_start_matches('*').split_once(": "));
        let words: BTreeSet<&str> = SCRIPT
            .lines()
            .filter(|line| !line.trim_start().starts_with('#'))
            .filter_map(|line| {
                let line = line.trim_start();
                line.strip_prefix("if ")
                    .or(line.strip_prefix("elif "))
                    .unwrap_or(line)
                    .split([' ', ';'])
                    .next()
            })
            .collect();
        let called = modules.filter(|(command, _)| words.contains(command));
        called.map(|(_, module)| module.to_owned()).collect()
    }

    #[test]
    fn page_and_script_name_every_module_that_the_script_calls_and_our_images_have_them() {
        let named = listed(include_str!("../../../docs/loaders/grub.md"));
        assert_eq!(named, listed(SCRIPT));
        let ours: BTreeSet<String> = MODULES.iter().map(|module| (*module).to_owned()).collect();
        assert!(named.is_subset(&ours), "not in our images: {:?}", named.difference(&ours));
        let Ok(commands) = fs::read_to_string(Path::new(MODULE_ROOT).join("i386-pc/command.lst")) else {
            assert!(std::env::var_os("CI").is_none(), "install the Debian package grub-pc-bin");
            return;
        };
        let called = called(&commands);
        assert!(called.len() > 10, "{called:?}");
        assert!(called.is_subset(&named), "called and not named: {:?}", called.difference(&named));
    }
}
