//! The configuration: TOML, strict. A key that is not known is an error that names the nearest known one.
//! Relative paths are relative to the file.

mod boot;

use std::{
    collections::BTreeMap,
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use bank_format::{PerBank, release::check_compatible};
use serde::Deserialize;
use toml::{Table, Value};

use crate::{
    error::{Error, Result, file},
    files::State,
    limits::{MAX_GATE_DEADLINE_SECONDS, MAX_SMALL_FILE_BYTES},
    throttle::Limits,
};

pub use boot::{Backend, Boot, Environment};

/// Where the configuration lies unless `--config` says otherwise.
pub const DEFAULT_PATH: &str = "/etc/roro/updater.toml";

const TOP_KEYS: [&str; 15] = [
    "compatible",
    "trust_root",
    "state_dir",
    "record",
    "release_file",
    "run_dir",
    "health_dirs",
    "tries",
    "gate_deadline_seconds",
    "health",
    "boot",
    "bank",
    "source",
    "network",
    "install",
];
const HEALTH_KEYS: [&str; 2] = ["soak_seconds", "update_source"];
const BANK_KEYS: [&str; 2] = ["a", "b"];
const SOURCE_KEYS: [&str; 1] = ["url"];
const INSTALL_KEYS: [&str; 3] = ["network_bytes_per_second", "disk_bytes_per_second", "priority"];
const NETWORK_KEYS: [&str; 5] =
    ["proxy", "connect_timeout_seconds", "read_timeout_seconds", "min_bytes_per_second", "retries"];

/// What the device is, and where its parts are.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Which bundles fit.
    pub compatible: String,
    /// The trust root, TUF `root.json`.
    #[serde(default = "default_trust_root")]
    pub trust_root: PathBuf,
    /// History, evidence, newer trust roots.
    pub state_dir: PathBuf,
    /// The record: partition or file.
    pub record: PathBuf,
    /// What the running image says of itself.
    #[serde(default = "default_release_file")]
    pub release_file: PathBuf,
    /// What the initrd left: `bank`, `dev/`; and the lock.
    #[serde(default = "default_run_dir")]
    pub run_dir: PathBuf,
    /// Where health checks are declared.
    #[serde(default = "default_health_dirs")]
    pub health_dirs: Vec<PathBuf>,
    /// Boots that a trial gets.
    #[serde(default = "default_tries")]
    pub tries: u32,
    /// How long the health gate waits for the system to be up.
    #[serde(default = "default_gate_deadline_seconds")]
    pub gate_deadline_seconds: u64,
    /// What the health gate asks besides the declared checks.
    #[serde(default)]
    pub health: Health,
    /// The boot loader.
    pub boot: Boot,
    /// The images of both banks.
    pub bank: PerBank<BTreeMap<String, PathBuf>>,
    /// Where `check` looks.
    #[serde(default)]
    pub source: Vec<Source>,
    /// Timeouts, proxy.
    #[serde(default)]
    pub network: Network,
    /// How much of the device an install may take.
    #[serde(default)]
    pub install: Limits,
}

/// What the health gate asks besides the declared checks.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Health {
    /// How long all checks must hold; a longer time in a declaration counts instead.
    pub soak_seconds: u64,
    /// Whether an image that reaches no update source may be confirmed.
    pub update_source: UpdateSource,
}

/// Whether an image that reaches no update source may be confirmed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UpdateSource {
    /// At least one must answer, where one is configured.
    #[default]
    Reachable,
    /// Nobody asks.
    Off,
}

/// Where bundles are found.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// A repository.
    pub url: String,
}

/// How the network is used.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Network {
    /// Instead of the environment's.
    pub proxy: Option<String>,
    /// For a connection to stand.
    pub connect_timeout_seconds: u64,
    /// Between two reads.
    pub read_timeout_seconds: u64,
    /// Below this a connection is given up and made anew.
    pub min_bytes_per_second: u64,
    /// Attempts in a row that may fail.
    pub retries: u32,
}

impl Default for Network {
    fn default() -> Self {
        Self {
            proxy: None,
            connect_timeout_seconds: 15,
            read_timeout_seconds: 30,
            min_bytes_per_second: 1024,
            retries: 6,
        }
    }
}

fn default_trust_root() -> PathBuf {
    "/usr/lib/roro/root.json".into()
}

fn default_release_file() -> PathBuf {
    "/usr/lib/roro/release.json".into()
}

fn default_run_dir() -> PathBuf {
    "/run/roro".into()
}

fn default_health_dirs() -> Vec<PathBuf> {
    vec!["/usr/lib/roro/health.d".into(), "/etc/roro/health.d".into()]
}

fn default_tries() -> u32 {
    1
}

fn default_gate_deadline_seconds() -> u64 {
    180
}

impl Config {
    /// The state directory.
    #[must_use]
    pub fn state(&self) -> State {
        State::on_disk(&self.state_dir)
    }

    /// Reads the file.
    pub fn load(path: &Path) -> Result<Self> {
        let text = read_small(path)?;
        let absolute = std::path::absolute(path).map_err(file("find", path))?;
        let directory = absolute.parent().unwrap_or(Path::new("/"));
        Self::parse(&text, directory).map_err(|detail| Error::Config { path: path.to_owned(), detail })
    }

    /// Reads the text; `directory` is where relative paths start. The error is one line.
    pub fn parse(text: &str, directory: &Path) -> Result<Self, String> {
        let table: Table = text.parse().map_err(|error| toml_line(&error))?;
        check_keys(&table)?;
        let mut config: Self = Value::Table(table).try_into().map_err(|error| toml_line(&error))?;
        check_compatible(&config.compatible).map_err(|error| error.to_string())?;
        for path in [
            &mut config.trust_root,
            &mut config.state_dir,
            &mut config.record,
            &mut config.release_file,
            &mut config.run_dir,
        ]
        .into_iter()
        .chain(&mut config.health_dirs)
        .chain(config.boot.paths_mut())
        .chain(config.bank.a.values_mut())
        .chain(config.bank.b.values_mut())
        {
            *path = directory.join(&*path);
        }
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), String> {
        let names = |bank: &BTreeMap<String, PathBuf>| bank.keys().cloned().collect::<Vec<_>>().join(", ");
        if self.bank.a.is_empty() {
            return Err("[bank.a] names no image".into());
        }
        if !self.bank.a.keys().eq(self.bank.b.keys()) {
            let (a, b) = (names(&self.bank.a), names(&self.bank.b));
            return Err(format!("[bank.a] has images {a}, [bank.b] has {b}: both must have the same"));
        }
        let mut paths: Vec<_> = self.bank.a.values().chain(self.bank.b.values()).collect();
        paths.push(&self.record);
        paths.sort();
        if let Some(twice) = paths.windows(2).find_map(|pair| match pair {
            [one, two] if one == two => Some(one),
            _ => None,
        }) {
            return Err(format!("{} stands for two things", twice.display()));
        }
        bank_format::health::check_soak(Some(self.health.soak_seconds))
            .map_err(|why| format!("health.{why}"))?;
        if !(1..=MAX_GATE_DEADLINE_SECONDS).contains(&self.gate_deadline_seconds) {
            return Err(format!("gate_deadline_seconds is 1 to {MAX_GATE_DEADLINE_SECONDS}"));
        }
        self.install.check(self.network.min_bytes_per_second).map_err(|why| format!("install.{why}"))?;
        if self.tries == 0 {
            return Err("tries = 0 would never boot a trial: use at least 1".into());
        }
        Ok(())
    }
}

fn toml_line(error: &toml::de::Error) -> String {
    let message = error.message();
    message.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ")
}

fn check_keys(top: &Table) -> Result<(), String> {
    check_table("", top, &TOP_KEYS)?;
    for (name, known) in [
        ("boot", &boot::KEYS[..]),
        ("health", &HEALTH_KEYS),
        ("bank", &BANK_KEYS),
        ("network", &NETWORK_KEYS),
        ("install", &INSTALL_KEYS),
    ] {
        if let Some(Value::Table(table)) = top.get(name) {
            check_table(&format!("{name}."), table, known)?;
        }
    }
    if let Some(Value::Array(sources)) = top.get("source") {
        for source in sources.iter().filter_map(Value::as_table) {
            check_table("source.", source, &SOURCE_KEYS)?;
        }
    }
    Ok(())
}

/// Names a key that is not known, and the nearest one that is.
pub(crate) fn check_table(prefix: &str, table: &Table, known: &[&str]) -> Result<(), String> {
    let Some(key) = table.keys().find(|key| !known.contains(&key.as_str())) else { return Ok(()) };
    let distance = |known: &&str| strsim::damerau_levenshtein(key, known);
    let nearest = known.iter().copied().min_by_key(distance).unwrap_or_default();
    Err(format!("key {prefix}{key} is not known, did you mean {prefix}{nearest}?"))
}

/// Reads a text file of bounded size.
pub(crate) fn read_small(path: &Path) -> Result<String> {
    let mut text = String::new();
    File::open(path)
        .and_then(|file| file.take(MAX_SMALL_FILE_BYTES).read_to_string(&mut text))
        .map_err(file("read", path))?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: &str = r#"
        compatible = "example,kiosk-x86"
        trust_root = "root.json"
        state_dir = "state"
        record = "record.bin"
        release_file = "release.json"
        run_dir = "run"
        health_dirs = ["health"]
        tries = 3
        gate_deadline_seconds = 60
        [health]
        soak_seconds = 5
        update_source = "off"
        [boot]
        backend = "file"
        path = "boot.state"
        [bank.a]
        root = "a.img"
        [bank.b]
        root = "/abs/b.img"
        [[source]]
        url = "https://updates.example/"
        [network]
        proxy = "http://proxy:3128"
        connect_timeout_seconds = 1
        read_timeout_seconds = 2
        min_bytes_per_second = 3
        retries = 4
        [install]
        network_bytes_per_second = 1000000
        disk_bytes_per_second = 2000000
        priority = "idle"
    "#;

    #[test]
    fn every_key_is_known_and_paths_are_relative_to_the_file() {
        let config = Config::parse(FULL, Path::new("/device")).unwrap();
        assert_eq!(config.record, Path::new("/device/record.bin"));
        assert_eq!(config.bank.a["root"], Path::new("/device/a.img"));
        assert_eq!(config.bank.b["root"], Path::new("/abs/b.img"));
        assert_eq!(config.boot.backend, Backend::File { path: "/device/boot.state".into() });
        assert_eq!((config.tries, config.network.retries), (3, 4));
        let table: Table = FULL.parse().unwrap();
        assert!(table.keys().all(|key| TOP_KEYS.contains(&key.as_str())));
        assert_eq!(table.len(), TOP_KEYS.len());
    }

    #[test]
    fn a_key_that_is_not_known_names_the_nearest() {
        for (from, to, expected) in [
            ("compatible =", "compatibel =", "key compatibel is not known, did you mean compatible?"),
            ("backend", "backnd", "key boot.backnd is not known, did you mean boot.backend?"),
            (
                "soak_seconds",
                "soak_second",
                "key health.soak_second is not known, did you mean health.soak_seconds?",
            ),
            ("proxy =", "proxi =", "key network.proxi is not known, did you mean network.proxy?"),
            ("[bank.b]", "[bank.c]", "key bank.c is not known"),
            ("url", "uri", "key source.uri is not known, did you mean source.url?"),
        ] {
            let error = Config::parse(&FULL.replace(from, to), Path::new("/")).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn what_cannot_be_is_refused_in_one_line() {
        for (from, to) in [
            ("tries = 3", "tries = 0"),
            ("tries = 3", "tries = \"x\""),
            ("gate_deadline_seconds = 60", "gate_deadline_seconds = 0"),
            ("gate_deadline_seconds = 60", "gate_deadline_seconds = 100000"),
            ("soak_seconds = 5", "soak_seconds = 100000"),
            ("disk_bytes_per_second = 2000000", "disk_bytes_per_second = 2"),
            ("priority = \"idle\"", "priority = \"lazy\""),
            ("update_source = \"off\"", "update_source = \"of\""),
            ("path = \"boot.state\"", ""),
            ("\"file\"", "\"lilo\""),
            ("/abs/b.img", "a.img"),
            ("a.img", "record.bin"),
            ("root = \"/abs/b.img\"", "rot = \"/abs/b.img\""),
            ("compatible = \"example,kiosk-x86\"", "compatible = \"a b\""),
            ("compatible = \"example,kiosk-x86\"", ""),
            ("[boot]", "[boot"),
        ] {
            let error = Config::parse(&FULL.replace(from, to), Path::new("/")).unwrap_err();
            assert!(!error.contains('\n') && !error.is_empty(), "{error}");
        }
    }
}
