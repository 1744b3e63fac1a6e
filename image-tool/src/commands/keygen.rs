//! `keygen`: root and release keys, and the trust root that names them.

use std::path::PathBuf;

use crate::{
    clock,
    commands::{Context, read_passphrase},
    error::Result,
    keys::{self, EXPIRES_DAYS, KeygenOptions},
    limits::MAX_KEYS_PER_ROLE,
};

/// Arguments.
#[derive(clap::Args)]
pub struct Args {
    /// Where the keys go; made when it is not there, and nothing in it is ever overwritten
    dir: PathBuf,
    /// Keys that sign the next trust root (at most 16)
    #[arg(long, value_name = "N", default_value_t = 1)]
    root_keys: usize,
    /// Signatures that the next trust root needs
    #[arg(long, value_name = "T", default_value_t = 1)]
    root_threshold: usize,
    /// Keys that sign releases (at most 16)
    #[arg(long, value_name = "N", default_value_t = 1)]
    release_keys: usize,
    /// Signatures that a release needs
    #[arg(long, value_name = "T", default_value_t = 1)]
    release_threshold: usize,
    /// Days until the trust root expires
    #[arg(long, value_name = "D", default_value_t = EXPIRES_DAYS)]
    expires_days: u32,
    /// File whose first line encrypts the private keys
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
    /// Make the next trust root after the one in this directory, signed by its root keys too
    #[arg(long, value_name = "OLD_DIR")]
    rotate: Option<PathBuf>,
    /// File whose first line decrypts the keys in OLD_DIR
    #[arg(long, value_name = "FILE", requires = "rotate")]
    old_passphrase_file: Option<PathBuf>,
}

impl Args {
    /// Makes the keys.
    pub fn run(self, context: &Context) -> Result<()> {
        const _: () = assert!(MAX_KEYS_PER_ROLE == 16, "the help text above names it");
        let old_passphrase = read_passphrase(self.old_passphrase_file.as_deref())?;
        let options = KeygenOptions {
            dir: self.dir,
            root_keys: self.root_keys,
            root_threshold: self.root_threshold,
            release_keys: self.release_keys,
            release_threshold: self.release_threshold,
            expires_days: self.expires_days,
            passphrase: read_passphrase(self.passphrase_file.as_deref())?,
            now_unix_seconds: clock::epoch_unix_seconds()?,
            rotate: self.rotate.map(|dir| (dir, old_passphrase)),
        };
        let made = keys::generate(&options)?;
        for path in made.private.iter().chain([&made.root_json]) {
            context.printer.data(&path.display().to_string());
        }
        let (version, expires) = (made.root.version(), made.root.expires());
        context.printer.say(&format!("trust root version {version}, expires {expires}"));
        context.printer.say("keep root-*.pem offline: they are needed only to make the next trust root");
        Ok(())
    }
}
