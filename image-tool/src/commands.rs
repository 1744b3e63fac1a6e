//! The command line: one verb a file, each `Args` and `run`.
//!
//! Verbs only translate: what they do is in the library, so that other rooms call it without a command line.

pub mod build;
pub mod bundle;
pub mod inspect;
pub mod keygen;
pub mod verify;

use std::path::{Path, PathBuf};

use bank_format::TrustRoot;
use clap::{Parser, Subcommand};

use crate::{
    bundle::Older,
    cache::Cache,
    chunker::Packing,
    codec::LEVELS,
    error::{Error, Result},
    keys::Passphrase,
    packages,
    printer::Printer,
    progress::Progress as _,
};

/// Makes operating-system images, signed bundles and factory disks.
#[derive(Parser)]
#[command(name = "image-tool", version, about, max_term_width = 110)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make root and release keys, and the root.json that names them
    Keygen(keygen::Args),
    /// Build an appliance into a signed bundle, a factory disk and a package list
    Build(build::Args),
    /// Put ready-made images into a signed bundle
    Bundle(bundle::Args),
    /// Show what a bundle says of itself
    Inspect(inspect::Args),
    /// Check every byte of a bundle
    Verify(verify::Args),
}

/// What every verb may use.
#[derive(Default)]
pub struct Context {
    /// Prints.
    pub printer: Printer,
}

impl Cli {
    /// Does what was asked.
    pub fn run(self, context: &Context) -> Result<()> {
        match self.command {
            Command::Keygen(args) => args.run(context),
            Command::Build(args) => args.run(context),
            Command::Bundle(args) => args.run(context),
            Command::Inspect(args) => args.run(context),
            Command::Verify(args) => args.run(context),
        }
    }
}

/// Options of all verbs that sign.
#[derive(clap::Args)]
pub struct ReleaseArgs {
    /// Directory of keys, as `keygen` makes it; all its release keys sign
    #[arg(long, value_name = "DIR")]
    pub keys: PathBuf,
    /// File whose first line decrypts the keys
    #[arg(long, value_name = "FILE")]
    pub passphrase_file: Option<PathBuf>,
    /// zstd level: a high one takes longer and makes a smaller bundle
    #[arg(long, value_name = "N", default_value_t = Packing::LEVEL, value_parser = parse_level)]
    pub level: i32,
    /// An older release, or a directory of releases: devices that run one of them fetch only what is different; may be given several times
    #[arg(long, value_name = "OLD.roro|DIR")]
    pub from: Vec<PathBuf>,
    /// Of a directory given with --from: the newest so many of the releases before this one
    #[arg(long, value_name = "K", default_value_t = Older::MOST)]
    pub deltas: usize,
    /// Where downloaded packages and compressed parts are kept, so that the next build is faster
    #[arg(long, value_name = "DIR")]
    pub cache: Option<PathBuf>,
    /// Compress everything anew, and keep nothing of it
    #[arg(long)]
    pub no_cache: bool,
}

impl ReleaseArgs {
    fn older(&self) -> Older {
        Older { paths: self.from.clone(), most: self.deltas }
    }

    fn cache_directory(&self) -> PathBuf {
        self.cache.clone().unwrap_or_else(packages::default_cache)
    }

    /// What was packed before; nothing where it cannot be used, which costs time and is no reason to fail.
    fn packed(&self, printer: &Printer) -> Option<Cache> {
        if self.no_cache {
            return None;
        }
        let directory = self.cache_directory().join("packed");
        match Cache::open(&directory) {
            Ok(cache) => Some(cache),
            Err(error) => {
                printer.note(&format!("nothing is kept for the next build: {error}"));
                None
            }
        }
    }
}

fn parse_level(text: &str) -> Result<i32, String> {
    text.parse()
        .ok()
        .filter(|level| LEVELS.contains(level))
        .ok_or_else(|| format!("expected a number from {} to {}", LEVELS.start(), LEVELS.end()))
}

fn parse_name(text: &str) -> Result<String, String> {
    bank_format::release::check_name("name", text).map_err(|error| error.to_string())?;
    Ok(text.into())
}

fn parse_compatible(text: &str) -> Result<String, String> {
    bank_format::release::check_compatible(text).map_err(|error| error.to_string())?;
    Ok(text.into())
}

fn parse_version(text: &str) -> Result<bank_format::release::Version, String> {
    bank_format::release::Version::parse(text)
        .map_err(|error| format!("{error}; expected a semantic version such as 1.2.3 or 1.2.3-rc.1"))
}

fn read_passphrase(path: Option<&Path>) -> Result<Option<Passphrase>> {
    path.map(Passphrase::read).transpose()
}

/// Reads a trust root that somebody chose to trust, and refuses one that has expired.
fn read_trust_root(path: &Path) -> Result<TrustRoot> {
    let bytes = std::fs::read(path).map_err(Error::file("read trust root", path))?;
    let refused = |source| Error::TrustRoot { path: path.into(), source };
    let root = TrustRoot::from_trusted(&bytes).map_err(refused)?;
    let now = i64::try_from(crate::clock::now_unix_seconds()).unwrap_or(i64::MAX);
    root.check_fresh(now).map_err(refused)?;
    Ok(root)
}

/// `123,456,789 bytes (117.7 MiB)`.
fn human_bytes(bytes: u64) -> String {
    format!("{bytes} bytes ({})", indicatif::BinaryBytes(bytes))
}
