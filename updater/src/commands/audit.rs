//! `updater audit`.

use bank_format::{Bank, Release, record::BankState};
use serde::Serialize;

use super::{Context, Exit};
use crate::{
    bank::audit::{AuditedImage, Found, audit},
    config::Config,
    device::{Device, Purpose},
    error::{Error, Result},
    ports::Phase,
    progress::watcher,
};

/// What to audit.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Read the images of the bank that does not run again, and compare them with what was installed
    #[arg(long, required = true)]
    passive: bool,
}

/// What was found. Schema: `docs/architecture.md`.
#[derive(Debug, Serialize)]
struct Audited {
    result: &'static str,
    bank: Bank,
    release: Option<Release>,
    state: BankState,
    images: Vec<AuditedImage>,
}

impl Args {
    /// Reads, and changes nothing.
    pub fn run(self, context: &Context) -> Result<Exit> {
        let config = context.load()?;
        let device = Device::open(&config, Purpose::Look)?;
        let bank = !device.running();
        let known = device.record().banks.get(bank).clone();
        let holds_some = match known.state {
            BankState::Empty | BankState::Writing => false,
            BankState::Written | BankState::Confirmed | BankState::Failed => !known.images.is_empty(),
        };
        if !holds_some {
            return nothing(context, bank, known.state, known.release);
        }
        let mut progress = watcher(context.format);
        progress.begin(Phase::ReadBack, known.images.values().map(|proof| proof.bytes).sum());
        let images = audit(device.ports.disk.as_ref(), bank, &known, progress.as_mut())?;
        progress.end();
        if is_another(&config, bank, &known)? {
            return Err(Error::Changed { bank });
        }
        let good = images.iter().all(|image| image.found == Found::AsInstalled);
        let (result, exit) = if good { ("as-installed", Exit::Done) } else { ("differs", Exit::Rejected) };
        let audited = Audited { result, bank, release: known.release, state: known.state, images };
        context.say(&audited, &audited.lines().join("\n"));
        Ok(exit)
    }
}

/// An install that began while we read has made the findings worthless.
fn is_another(config: &Config, bank: Bank, known: &bank_format::record::BankRecord) -> Result<bool> {
    let now = Device::open(config, Purpose::Look)?;
    Ok(now.running() == bank || now.record().banks.get(bank) != known)
}

fn nothing(context: &Context, bank: Bank, state: BankState, release: Option<Release>) -> Result<Exit> {
    let why = match state {
        BankState::Empty => "nothing installed",
        BankState::Writing => "nothing installed: an install is under way, or was interrupted",
        BankState::Written | BankState::Confirmed | BankState::Failed => {
            "the record does not know what was installed"
        }
    };
    let audited = Audited { result: "nothing-installed", bank, release, state, images: Vec::new() };
    context.say(&audited, &format!("bank {bank}: {why}"));
    Ok(Exit::NothingToDo)
}

impl Audited {
    fn lines(&self) -> Vec<String> {
        let release = self.release.as_ref().map_or("an unknown release".into(), ToString::to_string);
        let line = |image: &AuditedImage| match &image.found {
            Found::AsInstalled => format!("{:<6} as installed", image.image),
            Found::Differs { block: Some(block), detail } => {
                format!("{:<6} differs at block {block}: {detail}", image.image)
            }
            Found::Differs { block: None, detail } => format!("{:<6} differs: {detail}", image.image),
        };
        [format!("bank {} holds {release}", self.bank)]
            .into_iter()
            .chain(self.images.iter().map(line))
            .collect()
    }
}
