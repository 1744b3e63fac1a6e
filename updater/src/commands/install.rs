//! `updater install SRC`.

use super::{Context, Exit, open_locked};
use crate::{
    config::Config,
    error::Result,
    install::{InstallResult, Terms, install},
    printer,
    progress::watcher,
    trust,
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
        trust: trust::load(&config.trust_root, &config.state_dir)?,
        network: config.network.clone(),
    })
}
