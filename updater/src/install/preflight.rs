//! Preflight: every reason to refuse a bundle, before anything is touched. One line each.

use std::collections::BTreeSet;

use bank_format::{Bank, bundle::Opened};

use super::Terms;
use crate::{
    device::Device,
    engine::{Offer, State},
    error::{Error, Refusal, Result, bundle},
    ports::Room,
};

/// What preflight says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Go on.
    Install(Offer),
    /// It is written and on record as armed, but the loader was not told: the power went in between.
    ArmAgain {
        /// The bank that holds it.
        bank: Bank,
    },
    /// It is there already.
    NothingToDo {
        /// The bank that holds it.
        bank: Bank,
        /// As what.
        detail: String,
    },
}

/// The running bank must be the confirmed one: the other is the only way back from a trial.
pub(super) fn running_is_settled(device: &Device) -> Result<()> {
    let (record, running) = (device.record(), device.running());
    match device.engine().state() {
        State::Trial(bank) | State::Healthy(bank) | State::Rejected(bank) => {
            let release = &record.banks.get(bank).release;
            let release = release.as_ref().map_or("the running release".into(), ToString::to_string);
            Err(Error::OnTrial { release, bank })
        }
        State::Idle
        | State::Confirmed
        | State::FellBack
        | State::Installing(_)
        | State::Installed(_)
        | State::Armed(_)
        | State::Unsettled(_) => {
            if record.confirmed == running {
                Ok(())
            } else {
                Err(Error::Unsettled { running, confirmed: record.confirmed })
            }
        }
    }
}

/// Compares a verified bundle with the device.
pub fn preflight(device: &Device, terms: &Terms, opened: &Opened) -> Result<Verdict> {
    let manifest = opened.manifest();
    let release = manifest.release();
    let record = device.record();
    let running = device.running();
    if manifest.compatible != terms.compatible {
        return Err(Error::Refused(Refusal::Compatible {
            bundle: manifest.compatible.clone(),
            device: terms.compatible.clone(),
        }));
    }
    let here = record.banks.get(running);
    if here.manifest == Some(opened.manifest_digest()) || here.release.as_ref() == Some(&release) {
        let detail = format!("{release} runs already, in bank {running}");
        return Ok(Verdict::NothingToDo { bank: running, detail });
    }
    if let Some(floor) = record.floor.as_ref().filter(|floor| release.version < **floor) {
        return Err(Error::Refused(Refusal::BelowFloor { release, floor: floor.clone() }));
    }
    let target = !running;
    if let State::Armed(bank) = device.engine().state()
        && record.banks.get(bank).manifest == Some(opened.manifest_digest())
    {
        return Ok(if device.armed()? == Some(bank) {
            let detail = format!("{release} is installed in bank {bank}, the next reboot tries it");
            Verdict::NothingToDo { bank, detail }
        } else {
            Verdict::ArmAgain { bank }
        });
    }
    let in_bundle: BTreeSet<String> = manifest.images.iter().map(|image| image.name.clone()).collect();
    let in_bank = device.ports.disk.images(target);
    if in_bundle != in_bank {
        return Err(Error::Refused(Refusal::Images { bundle: in_bundle, device: in_bank }));
    }
    for image in &manifest.images {
        let needed_bytes = image.bank_bytes().map_err(bundle)?;
        let room = device.ports.disk.room(target, &image.name).map_err(|source| Error::Bank {
            deed: "open",
            bank: target,
            image: image.name.clone(),
            source,
        })?;
        match room {
            Room::Fixed { bytes } if bytes < needed_bytes => {
                return Err(Error::Refused(Refusal::TooSmall {
                    image: image.name.clone(),
                    bank: target,
                    needed_bytes,
                    available_bytes: bytes,
                }));
            }
            Room::Fixed { .. } | Room::Grows => (),
        }
    }
    Ok(Verdict::Install(Offer { release, manifest: opened.manifest_digest(), floor: manifest.floor.clone() }))
}
