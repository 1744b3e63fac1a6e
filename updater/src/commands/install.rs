//! `updater install SRC`.

use std::path::Path;

use bank_format::{TrustRoot, limits::MAX_ROOT_BYTES};

use super::{Context, Exit, open_locked};
use crate::{
    config::Config,
    error::{Error, Result, file},
    install::{InstallResult, Terms, install},
    printer,
    progress::watcher,
};

/// What to install.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A bundle: path or http(s) address
    source: String,
}

impl Args {
    /// Installs and arms.
    pub fn run(self, context: &Context) -> Result<Exit> {
        let config = context.load()?;
        let terms = terms(&config)?;
        let (_lock, mut device) = open_locked(&config)?;
        let mut progress = watcher(context.format);
        let report = install(&mut device, &terms, &self.source, progress.as_mut())?;
        let (exit, text) = match &report.outcome {
            InstallResult::Installed => (
                Exit::Done,
                format!(
                    "installed {} into bank {} in {:.1} s; reboot to try it: updater reboot",
                    report.release, report.bank, report.seconds
                ),
            ),
            InstallResult::NothingToDo { detail } => (Exit::NothingToDo, format!("nothing to do: {detail}")),
        };
        if exit == Exit::NothingToDo && context.format == printer::Format::Json {
            printer::person(&text);
        }
        context.say(&report, &text);
        Ok(exit)
    }
}

fn terms(config: &Config) -> Result<Terms> {
    Ok(Terms {
        compatible: config.compatible.clone(),
        trust: trust_root(&config.trust_root)?,
        network: config.network.clone(),
    })
}

fn trust_root(path: &Path) -> Result<TrustRoot> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(MAX_ROOT_BYTES as u64 + 1).read_to_end(&mut bytes))
        .map_err(file("read trust root", path))?;
    TrustRoot::from_trusted(&bytes).map_err(|source| Error::TrustRoot { path: path.into(), source })
}
