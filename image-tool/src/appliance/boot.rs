//! `[boot]` and `[secure_boot]` of the appliance file: which loader starts the banks, and who signs what firmware starts.

use std::path::{Path, PathBuf};

use bank_format::loader;
use serde::Deserialize;
use toml::{Table, Value};

use super::Appliance;
use crate::secure_boot::TOKEN_PREFIX;

/// `[boot]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Boot {
    /// Who starts a bank.
    pub loader: BootLoader,
    /// Boots that a trial gets; the agent's own number where nothing is said.
    pub tries: Option<u32>,
    /// What starts when no bank can be booted.
    pub recovery: Option<PathBuf>,
}

/// The loaders that a disk can be made for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BootLoader {
    /// The firmware itself.
    #[default]
    Efi,
    /// systemd-boot on the ESP.
    SystemdBoot,
    /// GRUB, for EFI and BIOS on one disk.
    Grub,
}

impl BootLoader {
    /// What device and agent call it.
    #[must_use]
    pub fn kind(self) -> loader::Kind {
        match self {
            Self::Efi => loader::Kind::Efi,
            Self::SystemdBoot => loader::Kind::SystemdBoot,
            Self::Grub => loader::Kind::Grub,
        }
    }
}

/// `[secure_boot]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SecureBoot {
    /// Private key: a PEM file, or a `pkcs11:` address.
    pub key: String,
    /// Its certificate, which firmware knows.
    pub certificate: PathBuf,
    /// File with the passphrase of the key on its first line.
    #[serde(default)]
    pub passphrase_file: Option<PathBuf>,
}

/// Words of the kernel command line that the build or the loader sets.
const OWN_WORDS: [&str; 7] = [
    "roothash=",
    "roro.salt=",
    "roro.blocks=",
    "roro.loader=",
    "roro.bank=",
    "roro.gave_up=",
    "roro.recovery=",
];

/// What these tables ask for together with the rest of the file.
pub(super) fn check(appliance: &Appliance) -> Result<(), String> {
    let Appliance { boot, kernel, updater, secure_boot, .. } = appliance;
    let cmdline = &kernel.cmdline;
    if secure_boot.is_some() && boot.loader == BootLoader::Grub {
        return Err("secure_boot: nothing would check the kernel that GRUB starts; take boot.loader = \"efi\" or \"systemd-boot\"".to_owned());
    }
    if cmdline.contains(['\n', '\0']) {
        return Err("kernel.cmdline is one line".to_owned());
    }
    let own = |word: &&str| OWN_WORDS.iter().any(|own| word.starts_with(own));
    if let Some(word) = cmdline.split_whitespace().find(own) {
        return Err(format!("kernel.cmdline: {word} is set by the build"));
    }
    if boot.loader == BootLoader::Grub && cmdline.contains(['\'', '"', '\\', '$', '*', '?', '[']) {
        return Err("kernel.cmdline: quotes, backslashes, $ and wildcards mean something else to GRUB".into());
    }
    if boot.tries == Some(0) {
        return Err("boot.tries = 0 would never boot a trial: use at least 1".to_owned());
    }
    if boot.tries.is_some() && updater.contains_key("tries") {
        return Err("give tries in [boot] or in [updater], not in both".to_owned());
    }
    if let Some(Value::Table(table)) = updater.get("boot")
        && table.contains_key("backend")
    {
        return Err("updater.boot.backend follows from [boot] loader: set that instead".to_owned());
    }
    Ok(())
}

/// Paths in these tables are relative to the file that they stand in.
pub(super) fn make_absolute(table: &mut Table, beside: &Path) {
    const FILES: [(&str, &str); 4] = [
        ("boot", "recovery"),
        ("secure_boot", "key"),
        ("secure_boot", "certificate"),
        ("secure_boot", "passphrase_file"),
    ];
    for (name, key) in FILES {
        if let Some(Value::Table(inner)) = table.get_mut(name)
            && let Some(Value::String(file)) = inner.get_mut(key)
            && !file.starts_with(TOKEN_PREFIX)
        {
            *file = beside.join(&*file).to_string_lossy().into_owned();
        }
    }
}
