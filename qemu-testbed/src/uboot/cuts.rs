//! The states that a power cut can leave: between two deeds, and in the middle of their writes.
//!
//! Pure. A write to the environment or the record reaches the disk in sectors of 512 bytes, any of them first; the order of the
//! writes of a deed is the agent's (docs/architecture.md, "Order of deeds") and the record's (the stale copy first). What is torn here:
//! each change of the environment, and of either copy of the record, once with the first half of the changed sectors new and,
//! for the environment, once with the last half. The writes of a bank are not cut here. Every single write and flush is cut in `tests`, on simulated storage.

use std::path::Path;

use bank_format::record::{COPY_BYTES, Loaded, Medium, RECORD_BYTES, Record, Store, TrialPhase};
use boot_hooks::scenarios;

use super::{
    device::{Contents, RECORD},
    odd,
};
use crate::error::Result;

const SECTOR_BYTES: usize = 512;

/// What was written since the moment before, in its order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wrote {
    /// Nothing was, yet.
    Nothing,
    /// U-Boot: the environment. Initrd: the record, and then perhaps the environment. Settle and install likewise.
    RecordThenEnvironment,
    /// The gate, when it confirms: "healthy" in the record, the environment, "confirmed" in the record.
    EnvironmentThenRecord,
}

/// A moment between two deeds.
#[derive(Debug, Clone)]
pub struct Moment {
    /// What had just happened.
    pub words: String,
    /// What had been written for it.
    pub wrote: Wrote,
    /// The moment of the table while that was written, and after it.
    pub stretches: [scenarios::Moment; 2],
    /// What was on stable storage.
    pub contents: Contents,
}

/// A state that a power cut leaves.
#[derive(Debug, Clone)]
pub struct Cut {
    /// The moment of the table.
    pub stretch: scenarios::Moment,
    /// Words for it.
    pub words: String,
    /// What is on stable storage.
    pub contents: Contents,
}

/// Every state.
pub fn after_power_cuts(moments: &[Moment]) -> Result<Vec<Cut>> {
    let mut cuts = Vec::new();
    let mut before: Option<&Contents> = None;
    // A later boot of the same deed does not lead back to an earlier moment of it.
    let mut latest = scenarios::Moment::Writing;
    for moment in moments {
        let [during, after] = moment.stretches.map(|stretch| stretch.max(latest));
        if let Some(before) = before {
            for (what, contents) in torn(before, moment)? {
                let words = format!("before \"{}\", with {what}", moment.words);
                cuts.push(Cut { stretch: during, words, contents });
            }
        }
        if before != Some(&moment.contents) || after != latest {
            let words = format!("after \"{}\"", moment.words);
            cuts.push(Cut { stretch: after, words, contents: moment.contents.clone() });
        }
        latest = after;
        before = Some(&moment.contents);
    }
    Ok(cuts)
}

fn torn(before: &Contents, moment: &Moment) -> Result<Vec<(&'static str, Contents)>> {
    let after = &moment.contents;
    let mut cuts = Vec::new();
    // The copy that is written first, while the other one and all else is old: torn by the first commit.
    if let Some(mut bytes) = mixed(record(before), record(after), COPY_BYTES..RECORD_BYTES, Half::First)
        && let (Some(copy), Some(old)) = (bytes.get_mut(..COPY_BYTES), record(before).get(..COPY_BYTES))
    {
        copy.copy_from_slice(old);
        cuts.push(("one copy of the record torn", with_record(before, bytes)));
    }
    let while_environment_is_written = match moment.wrote {
        Wrote::Nothing => return Ok(Vec::new()),
        Wrote::RecordThenEnvironment => after.clone(),
        Wrote::EnvironmentThenRecord => with_record(before, healthy(record(before))?),
    };
    for (what, half) in
        [("the environment torn", Half::First), ("the environment torn the other way", Half::Last)]
    {
        let all = 0..before.environment.len();
        if let Some(environment) = mixed(&before.environment, &after.environment, all, half) {
            cuts.push((what, Contents { environment, ..while_environment_is_written.clone() }));
        }
    }
    // The copy that is written last, while the other one is new: torn by the last commit.
    if let Some(bytes) = mixed(record(before), record(after), 0..COPY_BYTES, Half::First) {
        let environment = match moment.wrote {
            Wrote::Nothing | Wrote::RecordThenEnvironment => before.environment.clone(),
            Wrote::EnvironmentThenRecord => after.environment.clone(),
        };
        cuts.push((
            "the other copy of the record torn",
            Contents { environment, ..with_record(after, bytes) },
        ));
    }
    Ok(cuts)
}

fn record(contents: &Contents) -> &[u8] {
    contents.files.get(Path::new(RECORD)).map(Vec::as_slice).unwrap_or_default()
}

fn with_record(contents: &Contents, bytes: Vec<u8>) -> Contents {
    let mut contents = contents.clone();
    contents.files.insert(RECORD.into(), bytes);
    contents
}

#[derive(Debug, Clone, Copy)]
enum Half {
    First,
    Last,
}

/// `after`, but that of the sectors of `range` that differ only this half is new. Nothing where a tear cannot be seen: fewer than two
/// sectors differ.
fn mixed(before: &[u8], after: &[u8], range: std::ops::Range<usize>, half: Half) -> Option<Vec<u8>> {
    let sector = |bytes: &[u8], at: usize| bytes.get(at..at + SECTOR_BYTES).map(<[u8]>::to_vec);
    let changed: Vec<usize> =
        range.step_by(SECTOR_BYTES).filter(|at| sector(before, *at) != sector(after, *at)).collect();
    if changed.len() < 2 {
        return None;
    }
    let middle = changed.len() / 2;
    let (first, last) = changed.split_at(middle);
    let old = match half {
        Half::First => last,
        Half::Last => first,
    };
    let mut bytes = after.to_vec();
    for at in old {
        let place = bytes.get_mut(*at..at + SECTOR_BYTES)?;
        place.copy_from_slice(&sector(before, *at)?);
    }
    Some(bytes)
}

/// The record with its trial marked healthy: what the gate writes before it tells the loader.
fn healthy(bytes: &[u8]) -> Result<Vec<u8>> {
    let broken = |error: &dyn std::fmt::Display| odd("the record in the middle of a confirm", error);
    let (mut store, loaded) = Store::open(Memory(bytes.to_vec())).map_err(|error| broken(&error))?;
    let Loaded::Record(record) = loaded else { return Err(broken(&"no record")) };
    let mut record: Record = *record;
    let trial = record.trial.as_mut().ok_or_else(|| broken(&"no trial"))?;
    trial.phase = TrialPhase::Healthy;
    store.commit(&record).map_err(|error| broken(&error))?;
    Ok(store.into_medium().0)
}

struct Memory(Vec<u8>);

impl Medium for Memory {
    type Error = std::io::Error;
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> std::io::Result<()> {
        let from = self.0.get(offset as usize..).and_then(|rest| rest.get(..buffer.len()));
        buffer.copy_from_slice(from.ok_or(std::io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> std::io::Result<()> {
        let to = self.0.get_mut(offset as usize..).and_then(|rest| rest.get_mut(..bytes.len()));
        to.ok_or(std::io::ErrorKind::UnexpectedEof)?.copy_from_slice(bytes);
        Ok(())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_copy_that_is_written_last_is_old_while_the_first_is_torn() {
        let contents = |value| Contents {
            files: [(RECORD.into(), vec![value; RECORD_BYTES])].into(),
            environment: Vec::new(),
        };
        let moment = Moment {
            words: String::new(),
            wrote: Wrote::RecordThenEnvironment,
            stretches: [scenarios::Moment::Writing; 2],
            contents: contents(1),
        };
        let cuts = torn(&contents(0), &moment).unwrap();
        let halves = |cut: &Contents| {
            let bytes = record(cut);
            [0, COPY_BYTES - 1, COPY_BYTES, RECORD_BYTES - 1].map(|at| bytes[at])
        };
        let seen: Vec<_> = cuts.iter().map(|(what, cut)| (*what, halves(cut))).collect();
        let wanted = [
            ("one copy of the record torn", [0, 0, 1, 0]),
            ("the other copy of the record torn", [1, 0, 1, 1]),
        ];
        assert_eq!(seen, wanted);
    }

    #[test]
    fn a_tear_mixes_sectors_and_needs_two_that_differ() {
        let (before, mut after) = (vec![0; 2048], vec![1; 2048]);
        let torn = mixed(&before, &after, 0..2048, Half::First).unwrap();
        assert_eq!((torn[0], torn[1023], torn[1024], torn[2047]), (1, 1, 0, 0));
        let torn = mixed(&before, &after, 512..2048, Half::Last).unwrap();
        assert_eq!((torn[511], torn[512], torn[1024], torn[2047]), (1, 0, 1, 1));
        after[..1536].fill(0);
        assert!(mixed(&before, &after, 0..2048, Half::First).is_none());
    }
}
