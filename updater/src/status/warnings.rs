//! What a person should look at before it becomes an incident.

use std::{fs::File, io::Read as _, path::Path};

use bank_format::{Bank, record::BankState};
use serde::{Deserialize, Serialize};

use crate::{
    device::Device,
    engine::State,
    error::{Error, Result},
    limits::{FEW_TRIES, MAX_SMALL_FILE_BYTES},
    record::how_it_failed,
};

/// One thing to look at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Warning {
    /// For scripts: one word that stays the same.
    pub code: &'static str,
    /// For people.
    pub text: String,
}

impl Warning {
    fn new(code: &'static str, text: impl Into<String>) -> Self {
        Self { code, text: text.into() }
    }
}

/// What the record and the loader give cause for. `armed` is the bank that the loader was told to try.
pub(super) fn of_device(device: &Device, armed: &Result<Option<Bank>>) -> Vec<Warning> {
    let record = device.record();
    let running = device.running();
    let other = record.banks.get(!running);
    let mut warnings = Vec::new();
    let undecided = matches!(device.engine().state(), State::Trial(_) | State::Healthy(_));
    if let Some(trial) = record.trial.as_ref().filter(|trial| undecided && trial.tries_left <= FEW_TRIES) {
        let tries = match trial.tries_left {
            0 => "this is its last try".to_owned(),
            left => format!("tries left: {left}"),
        };
        let text =
            format!("bank {running} runs unconfirmed, {tries}: the health gate decides, or updater confirm");
        warnings.push(Warning::new("few-tries-left", text));
    }
    warnings.extend(of_loader(device, armed));
    if other.state == BankState::Failed {
        let release = other.release.as_ref().map(|release| format!(" with {release}")).unwrap_or_default();
        let text = format!(
            "no way back to bank {}{release}, {}: install a release",
            !running,
            how_it_failed(record, !running)
        );
        warnings.push(Warning::new("passive-failed", text));
    }
    warnings
}

fn of_loader(device: &Device, armed: &Result<Option<Bank>>) -> Option<Warning> {
    let confirmed = device.record().confirmed;
    match (device.engine().state(), armed) {
        (_, Err(error)) => Some(Warning::new("loader-unreadable", error.line())),
        (State::Armed(bank), Ok(told)) if *told != Some(bank) => {
            let text = format!(
                "bank {bank} is to be tried, and the boot loader does not know: updater reboot tells it"
            );
            Some(Warning::new("loader-differs", text))
        }
        // Loaders whose one-shot is their counter name the confirmed bank in it.
        (_, Ok(None)) => None,
        (State::Armed(_), Ok(Some(_))) => None,
        (_, Ok(Some(told))) if *told == confirmed => None,
        (_, Ok(Some(told))) => {
            let text =
                format!("the boot loader starts bank {told} next, which nobody asked for: updater settle");
            Some(Warning::new("loader-differs", text))
        }
    }
}

/// The rest of the status is worth knowing all the more.
pub(super) fn of_history(error: &Error) -> Warning {
    Warning::new("history-unreadable", error.line())
}

/// What the initrd leaves in `boot.json`, as far as it matters here.
#[derive(Debug, Deserialize)]
struct BootNote {
    /// The watchdog that guards this boot; nothing where there is none. Absent in the note of an older initrd.
    #[serde(default, deserialize_with = "present")]
    watchdog: Option<Option<String>>,
}

fn present<'d, D: serde::Deserializer<'d>>(from: D) -> std::result::Result<Option<Option<String>>, D::Error> {
    Option::deserialize(from).map(Some)
}

/// What the initrd has found of the machine. A host without Roro's initrd gives no cause.
#[must_use]
pub fn of_machine(run_dir: &Path) -> Option<Warning> {
    let mut text = String::new();
    let file = File::open(run_dir.join("boot.json")).ok()?;
    file.take(MAX_SMALL_FILE_BYTES).read_to_string(&mut text).ok()?;
    let note: BootNote = serde_json::from_str(&text).ok()?;
    match note.watchdog?.as_deref() {
        None => Some(Warning::new("no-watchdog", "no watchdog guards this boot: a hang waits for a person")),
        Some("softdog") => Some(Warning::new(
            "software-watchdog",
            "the watchdog is softdog: it ends a hang of user space, not one of the kernel",
        )),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_watchdog_is_what_the_initrd_noted() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(of_machine(dir.path()), None);
        for (note, code) in [
            (r#"{"bank":"a","as":"confirmed"}"#, None),
            (r#"{"bank":"a","watchdog":"i6300esb"}"#, None),
            (r#"{"bank":"a","watchdog":"softdog"}"#, Some("software-watchdog")),
            (r#"{"bank":"a","watchdog":null}"#, Some("no-watchdog")),
            ("{", None),
        ] {
            std::fs::write(dir.path().join("boot.json"), note).unwrap();
            assert_eq!(of_machine(dir.path()).map(|warning| warning.code), code, "{note}");
        }
    }
}
