//! What a simulated machine keeps without power: partitions, firmware variables, the files of its state partition; and every state that a power
//! cut can leave of it.
//!
//! Fault model. A partition is written in sectors of 512 bytes. A write is on stable storage once its place was flushed; until
//! then a power cut may drop it, keep it, or tear it between any two sectors, and may do so out of order with the other writes
//! since the flush. A write of the boot loader goes past the system's cache, so the next flush of any place settles it. A file's data is
//! safe once the file was flushed, its name once the names were; names arrive in their order. One firmware variable is there or not: the firmware's
//! own journal sees to that.

pub mod contents;
pub mod cuts;
mod fault;
mod files;
mod log;

use std::{
    collections::BTreeSet,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bank_format::{efi::VarStore, record::Medium};

pub use contents::{Contents, Place};
pub use cuts::{Cut, Replay};
pub use fault::{At, Fault, What};
pub use files::StateFiles;
pub use log::{Deed, Writer};

use fault::{Asked, Going};
use log::{Arrival, Naming, Open};

/// Bytes that a drive writes or does not write.
pub const SECTOR_BYTES: usize = 512;

#[derive(Debug, Default)]
struct State {
    now: Contents,
    /// As it was when the log was begun.
    base: Contents,
    log: Vec<Deed>,
    /// What of the log is not safe.
    open: Open,
    fault: Option<Fault>,
    /// How often something has failed.
    fired: u32,
}

/// The storage of one machine; clones are hands on the same one.
#[derive(Debug, Clone, Default)]
pub struct Storage(Arc<Mutex<State>>);

impl Storage {
    /// A machine that was off with these contents.
    #[must_use]
    pub fn of(contents: Contents) -> Self {
        Self(Arc::new(Mutex::new(State { base: contents.clone(), now: contents, ..State::default() })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at what a reader sees now.
    pub fn with<T>(&self, look: impl FnOnce(&Contents) -> T) -> T {
        look(&self.state().now)
    }

    /// What a reader sees now.
    #[must_use]
    pub fn contents(&self) -> Contents {
        self.state().now.clone()
    }

    /// The first bytes of a place, at most `count`.
    #[must_use]
    pub fn head(&self, place: Place, offset: usize, count: usize) -> Vec<u8> {
        self.with(|contents| {
            let rest = contents.bytes(place).get(offset..).unwrap_or_default();
            rest.get(..count.min(rest.len())).unwrap_or_default().to_vec()
        })
    }

    /// Something rots: changes the contents behind everybody's back.
    pub fn rot(&self, change: impl FnOnce(&mut Contents)) {
        change(&mut self.state().now);
    }

    /// Forgets what was done; what is there now counts as stable.
    pub fn begin_log(&self) {
        let mut state = self.state();
        state.base = state.now.clone();
        state.log.clear();
        state.open = Open::default();
    }

    /// What was there when the log was begun, and what was done since.
    #[must_use]
    pub fn log(&self) -> (Contents, Vec<Deed>) {
        let state = self.state();
        (state.base.clone(), state.log.clone())
    }

    fn record(&self, deed: Deed) {
        let state = &mut *self.state();
        state.now.apply(&deed, Arrival::Whole);
        state.log.push(deed);
        state.open.after(&state.log, state.log.len() - 1);
    }

    /// Places that the system has written and not flushed since the log was begun. Nobody may reset a machine with these.
    #[must_use]
    pub fn unflushed_by_system(&self) -> BTreeSet<Place> {
        let state = self.state();
        let place = |at: &usize| match state.log.get(*at) {
            Some(Deed::Write { place, writer: Writer::System, .. }) => Some(*place),
            _ => None,
        };
        state.open.writes.iter().filter_map(place).collect()
    }

    /// Names and files of the state directory that are not safe. What was removed and comes back is removed again.
    #[must_use]
    pub fn unflushed_files(&self) -> Vec<String> {
        let state = self.state();
        let open = state.open.names.iter().chain(&state.open.writes).filter_map(|at| state.log.get(*at));
        let told = |deed: &Deed| match deed {
            Deed::Name(Naming::Put(path, _) | Naming::Rename(_, path)) => {
                Some(format!("the name {}", path.display()))
            }
            Deed::Data { inode, .. } => Some(format!("data of file {inode}")),
            _ => None,
        };
        open.filter_map(told).collect()
    }

    /// Deeds since the log was begun.
    #[must_use]
    pub fn deeds(&self) -> usize {
        self.state().log.len()
    }

    /// Every state that a power cut since the log was begun can have left, each once, with the cut that leaves it.
    #[must_use]
    pub fn after_power_cuts(&self) -> Vec<(Cut, Contents)> {
        self.after_power_cuts_of(&[0]).into_iter().map(|(_, cut, contents)| (cut, contents)).collect()
    }

    /// The same for each of the stretches that begin after so many deeds, in rising order: each state once in each stretch, with the
    /// number of the stretch. A cut after a stretch has begun belongs to it, also where it loses what was written before.
    #[must_use]
    pub fn after_power_cuts_of(&self, begins: &[usize]) -> Vec<(usize, Cut, Contents)> {
        let (base, log) = self.log();
        let mut replay = Replay::new(base, &log);
        let (mut seen, mut states) = (BTreeSet::new(), Vec::new());
        loop {
            for cut in replay.cuts_here() {
                let over = cut.deeds_over();
                let stretch = begins.iter().filter(|begin| **begin <= over).count().saturating_sub(1);
                let contents = replay.contents(&cut);
                if seen.insert((stretch, contents.fingerprint())) {
                    states.push((stretch, cut, contents));
                }
            }
            if !replay.step() {
                return states;
            }
        }
    }

    /// Deeds until the last write to one of these places was over and flushed; none where nothing was written there.
    #[must_use]
    pub fn deeds_until_flushed(&self, places: &[Place]) -> usize {
        let state = self.state();
        let last =
            state.log.iter().rposition(|deed| matches!(deed, Deed::Flush(place) if places.contains(place)));
        last.map_or(0, |at| at + 1)
    }

    /// All cuts, those that leave the same counted each.
    #[must_use]
    pub fn possible_cuts(&self) -> Vec<Cut> {
        let (base, log) = self.log();
        let mut replay = Replay::new(base, &log);
        let mut cuts = replay.cuts_here();
        while replay.step() {
            cuts.extend(replay.cuts_here());
        }
        cuts
    }

    /// What one of them leaves.
    #[must_use]
    pub fn after_power_cut(&self, cut: &Cut) -> Contents {
        let (base, log) = self.log();
        Replay::new(base, &log).contents(cut)
    }

    /// A hand on a place.
    #[must_use]
    pub fn medium(&self, place: Place, writer: Writer) -> PlaceMedium {
        PlaceMedium { storage: self.clone(), place, writer }
    }

    /// A hand on the firmware's variables.
    #[must_use]
    pub fn variables(&self) -> Variables {
        Variables(self.clone())
    }

    /// A hand on the files.
    #[must_use]
    pub fn files(&self) -> StateFiles {
        StateFiles(self.clone())
    }

    /// From now on something fails.
    pub fn set_fault(&self, fault: Option<Fault>) {
        self.state().fault = fault;
    }

    /// Whether something is set to fail.
    #[must_use]
    pub fn is_sick(&self) -> bool {
        self.state().fault.is_some()
    }

    /// What a power cut now leaves if nothing is lost, and if everything is that may be.
    #[must_use]
    pub fn cuts_at_the_end(&self) -> [Cut; 2] {
        let state = self.state();
        let (done, open) = (state.log.len(), state.open.clone());
        let names = (!open.names.is_empty()).then_some(0);
        [Cut { done, ..Cut::default() }, Cut { done, lost: open.writes, names, ..Cut::default() }]
    }

    /// The disk has lied: what was flushed since the log was begun may be lost as well.
    pub fn forget_flushes(&self) {
        let is_flush = |deed: &Deed| matches!(deed, Deed::Flush(_) | Deed::Sync(_) | Deed::SyncNames);
        self.state().log.retain(|deed| !is_flush(deed));
    }

    /// How often something has failed.
    #[must_use]
    pub fn failures(&self) -> u32 {
        self.state().fired
    }

    /// The same storage as it was after so many deeds, with what was not flushed by then still to be lost.
    #[must_use]
    pub fn after_deeds(&self, count: usize) -> Self {
        let (base, mut log) = self.log();
        log.truncate(count);
        let mut now = base.clone();
        log.iter().for_each(|deed| now.apply(deed, Arrival::Whole));
        let mut open = Open::default();
        (0..log.len()).for_each(|number| drop(open.after(&log, number)));
        Self(Arc::new(Mutex::new(State { now, base, log, open, ..State::default() })))
    }

    fn may(&self, at: At, asked: Asked) -> io::Result<Going> {
        let state = &mut *self.state();
        fault::ask(&mut state.fault, at, asked, &mut state.fired)
    }
}

/// A hand on a place.
#[derive(Debug, Clone)]
pub struct PlaceMedium {
    storage: Storage,
    place: Place,
    writer: Writer,
}

impl PlaceMedium {
    /// Whether everything that was written there is safe.
    #[must_use]
    pub fn is_flushed(&self) -> bool {
        !self.storage.unflushed_by_system().contains(&self.place)
    }
}

impl Medium for PlaceMedium {
    type Error = io::Error;

    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        if self.storage.may(At::Place(self.place), Asked::Read)? == Going::Zeros {
            buffer.fill(0);
            return Ok(());
        }
        self.storage.with(|contents| {
            let there = contents.bytes(self.place).get(offset as usize..).unwrap_or_default();
            let (known, rest) = buffer.split_at_mut(there.len().min(buffer.len()));
            known.copy_from_slice(there.get(..known.len()).unwrap_or_default());
            rest.fill(0);
        });
        Ok(())
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.storage.may(At::Place(self.place), Asked::Write)?;
        let (place, writer) = (self.place, self.writer);
        self.storage.record(Deed::Write { place, offset: offset as usize, bytes: bytes.to_vec(), writer });
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.storage.may(At::Place(self.place), Asked::Flush)?;
        self.storage.record(Deed::Flush(self.place));
        Ok(())
    }
}

/// A hand on the firmware's variables.
#[derive(Debug, Clone)]
pub struct Variables(Storage);

/// What is wrong with a variable.
#[derive(Debug)]
pub struct VariableError(io::Error);

impl From<bank_format::Error> for VariableError {
    fn from(error: bank_format::Error) -> Self {
        Self(io::Error::other(error))
    }
}

impl From<io::Error> for VariableError {
    fn from(error: io::Error) -> Self {
        Self(error)
    }
}

impl From<VariableError> for io::Error {
    fn from(error: VariableError) -> Self {
        error.0
    }
}

impl VarStore for Variables {
    type Error = VariableError;

    fn names(&self, vendor: &str) -> Result<Vec<String>, VariableError> {
        let suffix = format!("-{vendor}");
        Ok(self.0.with(|contents| {
            contents
                .variables()
                .keys()
                .filter_map(|key| key.strip_suffix(&suffix))
                .map(str::to_owned)
                .collect()
        }))
    }

    fn read(&self, name: &str, vendor: &str) -> Result<Option<Vec<u8>>, VariableError> {
        self.0.may(At::Variables, Asked::Read)?;
        Ok(self.0.with(|contents| contents.variables().get(&format!("{name}-{vendor}")).cloned()))
    }

    fn write(&mut self, name: &str, vendor: &str, value: &[u8]) -> Result<(), VariableError> {
        self.0.may(At::Variables, Asked::Write)?;
        self.0.record(Deed::Variable(format!("{name}-{vendor}"), Some(value.to_vec())));
        Ok(())
    }

    fn remove(&mut self, name: &str, vendor: &str) -> Result<(), VariableError> {
        self.0.may(At::Variables, Asked::Write)?;
        self.0.record(Deed::Variable(format!("{name}-{vendor}"), None));
        Ok(())
    }
}

#[cfg(test)]
mod tests;
