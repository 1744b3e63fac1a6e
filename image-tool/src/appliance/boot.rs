//! `[boot]` and `[secure_boot]` of the appliance file: which loader starts the banks, and who signs what firmware starts.

use std::path::{Path, PathBuf};

use bank_format::loader;
use serde::Deserialize;
use toml::{Table, Value};

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

/// The last word on `[boot]` and the command line, which are one thing to a loader.
pub(super) fn check(boot: &Boot, cmdline: &str, updater: &Table) -> Result<(), String> {
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
    if let Some(Value::Table(boot)) = table.get_mut("boot")
        && let Some(Value::String(file)) = boot.get_mut("recovery")
    {
        *file = beside.join(&*file).to_string_lossy().into_owned();
    }
}
