//! `setup`: the Debian packages that building and booting need, and how they come onto this machine.
//!
//! Promises to say what it will install before it does, and to install nothing else. Without root it names the one
//! command to run. Deliberately absent: other distributions (their users get the list).

use std::{os::unix::fs::MetadataExt, process::Command};

use crate::{
    error::{Error, Result},
    printer, process,
};

/// A Debian package and what it is needed for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Package {
    /// Its name.
    pub name: &'static str,
    /// What it is needed for.
    pub purpose: &'static str,
}

/// All that is needed beyond Rust, gcc and what Debian calls essential.
pub const NEEDED: &[Package] = &[
    Package { name: "qemu-system-x86", purpose: "runs the machines" },
    Package { name: "ovmf", purpose: "is their UEFI firmware" },
    Package { name: "mmdebstrap", purpose: "fetches and unpacks the packages of an image" },
    Package { name: "uidmap", purpose: "lets mmdebstrap do that without root" },
    Package { name: "kmod", purpose: "reads what kernel modules need" },
    Package { name: "e2fsprogs", purpose: "makes the state file system" },
    Package { name: "erofs-utils", purpose: "checks the root image in the tests" },
    Package { name: "dosfstools", purpose: "checks the boot image in the tests" },
    Package { name: "mtools", purpose: "reads it in the tests" },
    Package { name: "gdisk", purpose: "checks the partition table in the tests" },
    Package { name: "cryptsetup-bin", purpose: "makes a hash tree as the page on U-Boot says" },
    Package { name: "sbsigntool", purpose: "signs for secure boot" },
    Package { name: "faketime", purpose: "gives these signatures the time of the build" },
    Package { name: "softhsm2", purpose: "plays a safe for keys in the tests" },
    Package { name: "libengine-pkcs11-openssl", purpose: "signs with keys in a safe" },
    Package { name: "openssl", purpose: "opens keys with a passphrase" },
    Package { name: "systemd-boot-efi", purpose: "has EFI programs that the tests sign" },
    Package { name: "grub-common", purpose: "makes and checks what GRUB needs" },
    Package { name: "grub-pc-bin", purpose: "is GRUB for a BIOS" },
    Package { name: "grub-efi-amd64-bin", purpose: "is GRUB for EFI" },
    Package { name: "qemu-system-arm", purpose: "runs the board with U-Boot" },
    Package { name: "u-boot-qemu", purpose: "is its U-Boot" },
    Package {
        name: "u-boot-tools",
        purpose: "compiles the boot script, and makes environments in the tests",
    },
    Package { name: "libubootenv-tool", purpose: "reads and writes them in the tests" },
    Package { name: "efibootmgr", purpose: "reads and writes boot variables in the tests" },
    Package { name: "systemd-boot", purpose: "reads and writes its own in the tests" },
];

/// What only the benchmark needs besides.
pub const BENCHMARK: &[Package] = &[
    Package { name: "bmap-tools", purpose: "is measured: bmaptool" },
    Package { name: "bsdiff", purpose: "is measured" },
    Package { name: "casync", purpose: "is measured" },
    Package { name: "rauc", purpose: "is measured" },
    Package { name: "swupdate", purpose: "is measured" },
    Package { name: "xdelta3", purpose: "is measured" },
    Package { name: "zchunk", purpose: "is measured" },
    Package { name: "zstd", purpose: "is measured" },
    Package { name: "curl", purpose: "fetches for tools that do not" },
    Package { name: "nginx-light", purpose: "serves, and counts the bytes" },
    Package { name: "cpio", purpose: "makes the archives of swupdate" },
    Package { name: "dbus-daemon", purpose: "is the bus on which rauc serves" },
    Package { name: "dbus-bin", purpose: "asks whether rauc is there" },
    Package { name: "iproute2", purpose: "holds the link to a rate" },
    Package {
        name: "squashfs-tools",
        purpose: "makes the image that has nothing in common, and rauc's bundles",
    },
];

/// The version of a package, if it is installed.
pub fn version(package: &str) -> Result<Option<String>> {
    let output = Command::new("dpkg-query")
        .args(["--show", "--showformat=${db:Status-Status} ${Version}", package])
        .output()
        .map_err(|source| Error::Start { program: "dpkg-query".to_owned(), source })?;
    let said = String::from_utf8_lossy(&output.stdout);
    Ok(said.strip_prefix("installed ").filter(|_| output.status.success()).map(str::to_owned))
}

/// Those of the packages that are not installed.
fn missing(wanted: &[&[Package]]) -> Result<Vec<Package>> {
    let mut missing = Vec::new();
    for &package in wanted.iter().copied().flatten() {
        if version(package.name)?.is_none() {
            missing.push(package);
        }
    }
    Ok(missing)
}

/// Installs what is missing of [`NEEDED`], and says so first. Gives how many packages were missing.
pub fn install_missing() -> Result<usize> {
    install(&[NEEDED])
}

/// The same with [`BENCHMARK`].
pub fn install_missing_for_benchmark() -> Result<usize> {
    install(&[NEEDED, BENCHMARK])
}

fn install(wanted: &[&[Package]]) -> Result<usize> {
    let missing = missing(wanted)?;
    if missing.is_empty() {
        return Ok(0);
    }
    let names: Vec<&str> = missing.iter().map(|package| package.name).collect();
    if !is_root()? {
        let command = format!(
            "sudo apt-get update && sudo apt-get install --yes --no-install-recommends {}",
            names.join(" ")
        );
        return Err(Error::PackagesMissing { packages: names.join(" "), command });
    }
    printer::say("installing these Debian packages with apt-get:");
    for package in &missing {
        printer::say(format_args!("  {:<16} {}", package.name, package.purpose));
    }
    apt_get(&["update"])?;
    let mut arguments = vec!["install", "--yes", "--no-install-recommends"];
    arguments.extend(&names);
    apt_get(&arguments)?;
    Ok(names.len())
}

fn apt_get(arguments: &[&str]) -> Result<()> {
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive").args(["--quiet", "-o", "DPkg::Lock::Timeout=120"]);
    process::run(command.args(arguments)).map(drop)
}

/// Whether we are root: our effective user, as the owner of our own entry in /proc.
pub fn is_root() -> Result<bool> {
    let me = std::fs::metadata("/proc/self").map_err(Error::io("look at", "/proc/self"))?;
    Ok(me.uid() == 0)
}
