//! The appliance file: what an image is made of, as TOML. `docs/appliance.md` is the reference.
//!
//! It is strict: a key that is not known is an error that names the nearest known one. `extends` names another file, relative to
//! this one, or the built-in `jeos`: tables merge, scalars override, lists append. It knows files only to read appliances.

mod boot;

use std::{
    fs,
    path::{Path, PathBuf},
};

use bank_format::{health, release};
use serde::Deserialize;
use toml::{Table, Value};

pub use boot::{Boot, BootLoader, SecureBoot};

use crate::{
    error::{Error, Result},
    limits::MAX_EXTENDS,
    tree::clean_path,
};

/// Name of the built-in appliance, for `extends` and the command line.
pub const BUILT_IN: &str = "jeos";
const BUILT_IN_TEXT: &str = include_str!("../appliances/jeos.toml");

/// A whole appliance.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Appliance {
    /// Name of the release.
    #[serde(default)]
    pub name: String,
    /// Which devices it fits.
    #[serde(default)]
    pub compatible: String,
    /// The file that this one extends; `None` once loaded.
    #[serde(default)]
    pub extends: Option<String>,
    /// Where packages come from.
    #[serde(default)]
    pub base: Base,
    /// Kernel, modules, command line.
    #[serde(default)]
    pub kernel: Kernel,
    /// Who starts a bank.
    #[serde(default)]
    pub boot: Boot,
    /// Who signs what firmware starts; nobody where it is absent.
    #[serde(default)]
    pub secure_boot: Option<SecureBoot>,
    /// What is left out, enabled and masked.
    #[serde(default)]
    pub image: Image,
    /// Users beside root and nobody.
    #[serde(default)]
    pub user: Vec<User>,
    /// Files of its own.
    #[serde(default)]
    pub file: Vec<FileSpec>,
    /// What is writable.
    #[serde(default)]
    pub state: State,
    /// Health checks of a trial, as `bank_format::health` reads them; they go into the image as they stand.
    #[serde(default)]
    pub health: Vec<Value>,
    /// Sizes of partitions.
    #[serde(default)]
    pub disk: Disk,
    /// Merged into the configuration of the agent.
    #[serde(default)]
    pub updater: Table,
}

/// `[base]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Base {
    /// Debian release.
    pub suite: String,
    /// Parts of the archive.
    pub components: Vec<String>,
    /// Packages, with what they depend on.
    pub packages: Vec<String>,
    /// Archive to use instead of the host's.
    pub mirror: Option<String>,
}

impl Default for Base {
    fn default() -> Self {
        Self {
            suite: "bookworm".to_owned(),
            components: vec!["main".to_owned()],
            packages: Vec::new(),
            mirror: None,
        }
    }
}

/// `[kernel]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Kernel {
    /// Package that depends on the kernel.
    pub package: String,
    /// Package with the EFI stub.
    pub stub_package: String,
    /// Modules in the root image, with what they depend on.
    pub modules: Vec<String>,
    /// Modules in the initrd, loaded in order.
    pub initrd_modules: Vec<String>,
    /// Kernel command line.
    pub cmdline: String,
}

impl Default for Kernel {
    fn default() -> Self {
        Self {
            package: "linux-image-amd64".to_owned(),
            stub_package: "systemd-boot-efi".to_owned(),
            modules: Vec::new(),
            initrd_modules: Vec::new(),
            cmdline: String::new(),
        }
    }
}

/// `[image]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Image {
    /// Packages that dependencies bring, but whose files are left out.
    pub remove_packages: Vec<String>,
    /// Globs of files to leave out.
    pub remove: Vec<String>,
    /// Units to enable.
    pub enable: Vec<String>,
    /// Units to mask.
    pub mask: Vec<String>,
}

/// `[[user]]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct User {
    /// Login name; its group has the same name and number.
    pub name: String,
    /// Number.
    pub uid: u32,
    /// Home directory.
    #[serde(default = "User::default_home")]
    pub home: String,
    /// Further groups.
    #[serde(default)]
    pub groups: Vec<String>,
}

impl User {
    fn default_home() -> String {
        "/nonexistent".to_owned()
    }
}

/// `[[file]]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileSpec {
    /// Path in the image.
    pub path: String,
    /// Text of the file.
    pub content: Option<String>,
    /// File beside the appliance with the content.
    pub source: Option<PathBuf>,
    /// Permissions, octal.
    #[serde(default = "FileSpec::default_mode")]
    pub mode: String,
}

impl FileSpec {
    fn default_mode() -> String {
        "0644".to_owned()
    }

    /// Permissions as a number.
    #[must_use]
    pub fn mode_bits(&self) -> Option<u16> {
        u16::from_str_radix(&self.mode, 8).ok().filter(|mode| *mode <= 0o7777)
    }
}

/// `[state]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct State {
    /// Paths kept across releases.
    pub persist: Vec<String>,
    /// Paths that start empty with each boot.
    pub tmpfs: Vec<Tmpfs>,
}

/// One entry of `tmpfs`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tmpfs {
    /// Where it is mounted.
    pub path: String,
    /// Most memory it takes, as the kernel reads it (`64M`).
    pub size: String,
}

/// `[disk]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Disk {
    /// MiB of each boot partition.
    pub boot_mib: u32,
    /// MiB of each root partition, which hold the image and its tree.
    pub root_mib: u32,
    /// MiB of the state partition.
    pub state_mib: u32,
}

impl Default for Disk {
    fn default() -> Self {
        Self { boot_mib: 64, root_mib: 256, state_mib: 64 }
    }
}

impl Appliance {
    /// Loads a file, or the built-in appliance when the path is just `jeos` and no such file is there.
    pub fn load(path: &Path) -> Result<Self> {
        let mut merged = Table::new();
        load_onto(&mut merged, path, 0)?;
        merged.remove("extends");
        let appliance: Self =
            merged.try_into().map_err(|error: toml::de::Error| refuse(path, explain(error.message())))?;
        appliance.check().map_err(|why| refuse(path, why))?;
        Ok(appliance)
    }

    fn check(&self) -> Result<(), String> {
        release::check_name("name", &self.name).map_err(|error| format!("name: {error}"))?;
        release::check_compatible(&self.compatible).map_err(|error| format!("compatible: {error}"))?;
        if self.base.packages.is_empty() {
            return Err("base.packages is empty: name at least systemd, or extend jeos".to_owned());
        }
        let package_names = [&self.kernel.package, &self.kernel.stub_package];
        for package in self.base.packages.iter().chain(package_names) {
            let fits =
                |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.' | b':' | b'=' | b'~');
            if package.is_empty() || package.starts_with('-') || !package.bytes().all(fits) {
                return Err(format!("{package:?} is not the name of a package"));
            }
        }
        boot::check(self)?;
        for file in &self.file {
            let path = clean_path(&file.path)?;
            if path.is_empty() || file.mode_bits().is_none() {
                return Err(format!("file {}: expected a path and an octal mode such as 0644", file.path));
            }
            if file.content.is_some() == file.source.is_some() {
                return Err(format!("file {}: give either content or source", file.path));
            }
        }
        let paths = self.state.persist.iter().chain(self.state.tmpfs.iter().map(|tmpfs| &tmpfs.path));
        for path in paths {
            if !path.starts_with('/') || path.contains(char::is_whitespace) || clean_path(path)?.is_empty() {
                return Err(format!("state: {path:?} is not an absolute path without blanks"));
            }
        }
        for tmpfs in &self.state.tmpfs {
            let number = tmpfs.size.trim_end_matches(['k', 'K', 'm', 'M', 'g', 'G']);
            if number.parse::<u64>().is_err() || tmpfs.size.len() > number.len() + 1 {
                return Err(format!("state: {:?} is not a size such as 64M", tmpfs.size));
            }
        }
        for check in &self.health {
            health::parse_check(check).map_err(|why| format!("health: {why}"))?;
        }
        for user in &self.user {
            let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'-');
            if user.name.is_empty() || !user.name.bytes().all(fits) || !user.home.starts_with('/') {
                return Err(format!(
                    "user {:?}: expected lower-case letters, and an absolute home",
                    user.name
                ));
            }
        }
        Ok(())
    }
}

fn load_onto(merged: &mut Table, path: &Path, depth: usize) -> Result<()> {
    if depth > MAX_EXTENDS {
        return Err(refuse(path, "extends leads in a circle".to_owned()));
    }
    let built_in = path.file_name().is_some_and(|name| name == BUILT_IN) && !path.exists();
    let text = if built_in {
        BUILT_IN_TEXT.to_owned()
    } else {
        fs::read_to_string(path).map_err(Error::file("read", path))?
    };
    // Each file alone first: only here a mistake still has a line.
    if let Err(error) = toml::from_str::<Appliance>(&text) {
        let line =
            error.span().map(|span| text.get(..span.start).unwrap_or_default().matches('\n').count() + 1);
        let place = line.map_or_else(String::new, |line| format!("line {line}: "));
        return Err(refuse(path, format!("{place}{}", explain(error.message()))));
    }
    let mut table: Table = toml::from_str(&text).map_err(|error| refuse(path, explain(error.message())))?;
    let beside = path.parent().unwrap_or_else(|| Path::new("."));
    if let Some(Value::Array(files)) = table.get_mut("file") {
        for file in files {
            if let Some(Value::String(source)) = file.get_mut("source") {
                *source = beside.join(&*source).to_string_lossy().into_owned();
            }
        }
    }
    boot::make_absolute(&mut table, beside);
    if let Some(Value::String(base)) = table.get("extends") {
        load_onto(merged, &beside.join(base), depth + 1)?;
    }
    merge(merged, table);
    Ok(())
}

/// Tables merge, lists append, scalars override.
pub(crate) fn merge(into: &mut Table, from: Table) {
    for (key, value) in from {
        match (into.get_mut(&key), value) {
            (Some(Value::Table(old)), Value::Table(new)) => merge(old, new),
            (Some(Value::Array(old)), Value::Array(new)) => old.extend(new),
            (_, value) => {
                into.insert(key, value);
            }
        }
    }
}

fn refuse(path: &Path, message: String) -> Error {
    Error::Appliance { path: path.to_owned(), message }
}

/// Adds the nearest known key to serde's "unknown field `x`, expected one of `a`, `b`".
pub(crate) fn explain(message: &str) -> String {
    let mut words = message.split('`').skip(1).step_by(2);
    let Some(unknown) = words.next().filter(|_| message.starts_with("unknown field")) else {
        return message.to_owned();
    };
    let nearest = words
        .filter(|known| *known != "extends" || unknown.starts_with('e'))
        .max_by(|a, b| strsim::jaro_winkler(unknown, a).total_cmp(&strsim::jaro_winkler(unknown, b)));
    match nearest {
        Some(nearest) => format!("unknown key {unknown}; the nearest known one is {nearest}"),
        None => format!("unknown key {unknown}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(files: &[(&str, &str)]) -> Result<Appliance> {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(dir.path().join(name), text).unwrap();
        }
        Appliance::load(&dir.path().join(files[0].0))
    }

    fn message(files: &[(&str, &str)]) -> String {
        load(files).unwrap_err().to_string()
    }

    #[test]
    fn the_built_in_appliance_is_valid() {
        let jeos = Appliance::load(Path::new(BUILT_IN)).unwrap();
        assert_eq!(jeos.name, "jeos");
        assert!(jeos.base.packages.contains(&"systemd".to_owned()));
    }

    #[test]
    fn extending_merges_tables_appends_lists_and_overrides_scalars() {
        let kiosk = load(&[(
            "kiosk.toml",
            "extends = \"jeos\"\nname = \"kiosk\"\n[base]\npackages = [\"cog\"]\n[[file]]\npath = \"/etc/motd\"\nsource = \"motd\"\n",
        )])
        .unwrap();
        assert_eq!(kiosk.name, "kiosk");
        assert_eq!(kiosk.compatible, "roro,jeos-x86_64");
        assert_eq!(kiosk.base.packages.last().unwrap(), "cog");
        assert!(kiosk.base.packages.len() > 1);
        assert!(kiosk.file.last().unwrap().source.as_ref().unwrap().is_absolute());
    }

    #[test]
    fn unknown_keys_name_the_nearest_known_one_and_the_line() {
        let told = message(&[("a.toml", "name = \"a\"\n[kernel]\nmodule = []\n")]);
        assert!(told.contains("line 3: unknown key module; the nearest known one is modules"), "{told}");
        let told = message(&[("a.toml", "nmae = \"a\"\n")]);
        assert!(told.contains("nearest known one is name"), "{told}");
        let told = message(&[("a.toml", "extends = \"b.toml\"\n"), ("b.toml", "[base]\nmirorr = \"x\"\n")]);
        assert!(
            told.contains("b.toml: line 2: unknown key mirorr; the nearest known one is mirror"),
            "{told}"
        );
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let cases = [
            ("extends = \"a.toml\"", "circle"),
            ("extends = \"jeos\"\nname = \"../x\"", "name"),
            ("extends = \"jeos\"\n[kernel]\ncmdline = \"roothash=00\"", "set by the build"),
            ("extends = \"jeos\"\n[kernel]\ncmdline = \"roro.loader=grub\"", "set by the build"),
            ("extends = \"jeos\"\n[boot]\nloader = \"uefi\"", "expected one of `efi`"),
            ("extends = \"jeos\"\n[boot]\nlaoder = \"efi\"", "nearest known one is loader"),
            ("extends = \"jeos\"\n[boot]\ntries = 0", "at least 1"),
            (
                "extends = \"jeos\"\n[boot]\nloader = \"grub\"\n[secure_boot]\nkey = \"k\"\ncertificate = \"c\"",
                "that GRUB starts",
            ),
            ("extends = \"jeos\"\n[secure_boot]\nkey = \"k\"", "missing field `certificate`"),
            ("extends = \"jeos\"\n[boot]\ntries = 2\n[updater]\ntries = 3", "not in both"),
            ("extends = \"jeos\"\n[updater.boot]\nbackend = \"grub\"", "[boot] loader"),
            ("extends = \"jeos\"\n[boot]\nloader = \"grub\"\n[kernel]\ncmdline = \"a='b'\"", "to GRUB"),
            ("extends = \"jeos\"\n[[file]]\npath = \"/../x\"\ncontent = \"\"", "climb"),
            ("extends = \"jeos\"\n[[file]]\npath = \"/x\"", "either content or source"),
            ("extends = \"jeos\"\n[[file]]\npath = \"/x\"\ncontent = \"\"\nmode = \"9\"", "octal"),
            ("extends = \"jeos\"\n[base]\npackages = [\"--x\"]", "package"),
            ("extends = \"jeos\"\n[[health]]\nname = \"x\"\ncommand = []", "absolute path"),
            (
                "extends = \"jeos\"\n[[health]]\nname = \"x\"\nkind = \"http\"\nurk = \"http://a/\"",
                "did you mean check.url?",
            ),
            ("extends = \"jeos\"\n[state]\npersist = [\"relative\"]", "absolute path"),
            ("extends = \"jeos\"\n[state]\ntmpfs = [{ path = \"/x\", size = \"much\" }]", "64M"),
            ("name = \"a\"\ncompatible = \"a\"", "packages"),
        ];
        for (text, expected) in cases {
            let told = message(&[("a.toml", text)]);
            assert!(told.contains(expected), "{text}: {told}");
        }
    }
}
