//! What a simulated machine keeps without power: partitions, firmware variables, the history; and every state that a power
//! cut can leave of it.
//!
//! Fault model. A partition is written in sectors of 512 bytes. A write is on stable storage once its place was flushed; until
//! then a power cut may drop it, keep it, or tear it between any two sectors, and may do so out of order with the other writes
//! since the flush. A write of the boot loader goes past the system's cache, so the next flush of any place settles it. One
//! firmware variable, and one line of the history, is there or not: their own journals see to that, and other suites to them.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    fmt, io,
    rc::Rc,
};

use bank_format::{Bank, Digest256, efi::VarStore, record::Medium};
use updater::history::Entry;

/// Bytes that a drive writes or does not write.
pub const SECTOR_BYTES: usize = 512;

/// A place that keeps bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// The partition `record`.
    Record,
    /// The partition `loader` of GRUB.
    Loader,
    /// Copy 0 or 1 of U-Boot's environment.
    Environment(u8),
    /// The file `autoboot.txt`.
    Autoboot,
    /// The boot image of a bank.
    Boot(Bank),
    /// The root image of a bank.
    Root(Bank),
}

/// Who writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writer {
    /// Initrd or agent, through the kernel's cache.
    System,
    /// The boot loader, straight to the drive.
    Loader,
}

/// One deed on the storage.
#[derive(Debug, Clone, PartialEq)]
pub enum Deed {
    /// Bytes were written.
    Write {
        /// Where.
        place: Place,
        /// From this byte on.
        offset: usize,
        /// What.
        bytes: Vec<u8>,
        /// By whom.
        writer: Writer,
    },
    /// A place was flushed.
    Flush(Place),
    /// A firmware variable was set, or removed.
    Variable(String, Option<Vec<u8>>),
    /// A line of the history was appended.
    History(Box<Entry>),
}

/// All that is kept. A clone shares the bytes until one of both is written.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Contents {
    places: BTreeMap<Place, Rc<Vec<u8>>>,
    /// Firmware variables, as `NAME-VENDOR`.
    pub variables: BTreeMap<String, Vec<u8>>,
    /// The history.
    pub history: Vec<Entry>,
}

impl Contents {
    /// These places, and nothing else.
    #[must_use]
    pub fn of(places: impl IntoIterator<Item = (Place, Vec<u8>)>) -> Self {
        let places = places.into_iter().map(|(place, bytes)| (place, Rc::new(bytes))).collect();
        Self { places, ..Self::default() }
    }

    /// The bytes of a place.
    #[must_use]
    pub fn bytes(&self, place: Place) -> &[u8] {
        self.places.get(&place).map(|bytes| bytes.as_slice()).unwrap_or_default()
    }

    /// The bytes of a place, to be changed.
    pub fn bytes_mut(&mut self, place: Place) -> &mut Vec<u8> {
        Rc::make_mut(self.places.entry(place).or_default())
    }

    fn write(&mut self, place: Place, offset: usize, bytes: &[u8]) {
        let medium = self.bytes_mut(place);
        let end = offset + bytes.len();
        medium.resize(medium.len().max(end), 0);
        if let Some(there) = medium.get_mut(offset..end) {
            there.copy_from_slice(bytes);
        }
    }

    fn apply(&mut self, deed: &Deed) {
        match deed {
            Deed::Write { place, offset, bytes, .. } => self.write(*place, *offset, bytes),
            Deed::Flush(_) => (),
            Deed::Variable(key, Some(value)) => {
                self.variables.insert(key.clone(), value.clone());
            }
            Deed::Variable(key, None) => {
                self.variables.remove(key);
            }
            Deed::History(entry) => self.history.push((**entry).clone()),
        }
    }

    fn fingerprint(&self) -> Digest256 {
        let mut all = format!("{:?}{:?}", self.variables, self.history).into_bytes();
        for bytes in self.places.values() {
            all.extend(Digest256::of(bytes).0);
        }
        Digest256::of(&all)
    }
}

#[derive(Debug, Default)]
struct State {
    now: Contents,
    /// As it was when the log was begun.
    base: Contents,
    log: Vec<Deed>,
}

/// The storage of one machine; clones are hands on the same one.
#[derive(Debug, Clone, Default)]
pub struct Storage(Rc<RefCell<State>>);

impl Storage {
    /// A machine that was off with these contents.
    #[must_use]
    pub fn of(contents: Contents) -> Self {
        Self(Rc::new(RefCell::new(State { base: contents.clone(), now: contents, log: Vec::new() })))
    }

    /// What a reader sees now.
    #[must_use]
    pub fn contents(&self) -> Contents {
        self.0.borrow().now.clone()
    }

    /// The first bytes of a place, at most `count`.
    #[must_use]
    pub fn head(&self, place: Place, offset: usize, count: usize) -> Vec<u8> {
        let state = self.0.borrow();
        let rest = state.now.bytes(place).get(offset..).unwrap_or_default();
        rest.get(..count.min(rest.len())).unwrap_or_default().to_vec()
    }

    /// Something rots: changes the contents behind everybody's back.
    pub fn rot(&self, change: impl FnOnce(&mut Contents)) {
        change(&mut self.0.borrow_mut().now);
    }

    /// Forgets what was done; what is there now counts as stable.
    pub fn begin_log(&self) {
        let mut state = self.0.borrow_mut();
        state.base = state.now.clone();
        state.log.clear();
    }

    fn record(&self, deed: Deed) {
        let mut state = self.0.borrow_mut();
        state.now.apply(&deed);
        state.log.push(deed);
    }

    /// Places that the system has written and not flushed since the log was begun. Nobody may reset a machine with these.
    #[must_use]
    pub fn unflushed_by_system(&self) -> BTreeSet<Place> {
        let state = self.0.borrow();
        pending(&state.log)
            .into_iter()
            .filter_map(|at| match state.log.get(at) {
                Some(Deed::Write { place, writer: Writer::System, .. }) => Some(*place),
                _ => None,
            })
            .collect()
    }

    /// Deeds since the log was begun.
    #[must_use]
    pub fn deeds(&self) -> usize {
        self.0.borrow().log.len()
    }

    /// Every state that a power cut since the log was begun can have left, each once, with words that say which.
    #[must_use]
    pub fn after_power_cuts(&self) -> Vec<(String, Contents)> {
        self.after_power_cuts_of(&[0]).into_iter().map(|(_, words, contents)| (words, contents)).collect()
    }

    /// The same for each of the stretches that begin after so many deeds, in rising order: each state once in each stretch, with the
    /// number of the stretch. A cut after a stretch has begun belongs to it, also where it loses what was written before.
    #[must_use]
    pub fn after_power_cuts_of(&self, begins: &[usize]) -> Vec<(usize, String, Contents)> {
        let state = self.0.borrow();
        let mut seen = BTreeSet::new();
        let cuts = cuts(&state.log).into_iter();
        let states = cuts.map(|cut| {
            let stretch = begins.iter().filter(|begin| **begin <= cut.deeds_over()).count().saturating_sub(1);
            (stretch, cut.to_string(), cut.contents(&state))
        });
        states.filter(|(stretch, _, contents)| seen.insert((*stretch, contents.fingerprint()))).collect()
    }

    /// Deeds until the last write to one of these places was over and flushed; none where nothing was written there.
    #[must_use]
    pub fn deeds_until_flushed(&self, places: &[Place]) -> usize {
        let state = self.0.borrow();
        let last =
            state.log.iter().rposition(|deed| matches!(deed, Deed::Flush(place) if places.contains(place)));
        last.map_or(0, |at| at + 1)
    }

    /// How many there are, those that are the same counted each.
    #[must_use]
    pub fn possible_cuts(&self) -> usize {
        cuts(&self.0.borrow().log).len()
    }

    /// The one of them with this number.
    #[must_use]
    pub fn after_power_cut(&self, number: usize) -> Option<(String, Contents)> {
        let state = self.0.borrow();
        let cut = cuts(&state.log).into_iter().nth(number)?;
        Some((cut.to_string(), cut.contents(&state)))
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

    /// Appends to the history.
    pub fn append_history(&self, entry: &Entry) {
        self.record(Deed::History(Box::new(entry.clone())));
    }
}

/// Numbers of the writes that are not stable after these deeds.
fn pending(log: &[Deed]) -> Vec<usize> {
    let mut open: Vec<usize> = Vec::new();
    for (at, deed) in log.iter().enumerate() {
        match deed {
            Deed::Write { .. } => open.push(at),
            Deed::Flush(flushed) => open.retain(|write| match log.get(*write) {
                Some(Deed::Write { place, writer, .. }) => place != flushed && *writer == Writer::System,
                _ => false,
            }),
            Deed::Variable(..) | Deed::History(_) => (),
        }
    }
    open
}

/// When the power goes, and what becomes of the writes that are not stable then.
#[derive(Debug, Clone)]
struct Cut {
    /// Deeds that were begun.
    done: usize,
    fate: Fate,
}

#[derive(Debug, Clone)]
enum Fate {
    /// These writes are lost, all others arrive.
    Lost(Vec<usize>),
    /// All arrive, and of the last one only some sectors.
    Torn(Torn, usize),
}

/// Which sectors of a torn write arrive.
#[derive(Debug, Clone, Copy)]
enum Torn {
    Before,
    Only,
    AllBut,
}

impl Torn {
    fn arrives(self, sector: usize, at: usize) -> bool {
        match self {
            Self::Before => sector < at,
            Self::Only => sector == at,
            Self::AllBut => sector != at,
        }
    }
}

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.fate {
            Fate::Lost(lost) if lost.is_empty() => write!(f, "after deed {}", self.done),
            Fate::Lost(lost) => write!(f, "after deed {}, writes {lost:?} lost", self.done),
            Fate::Torn(torn, at) => write!(f, "in deed {}, arrived: {torn:?} sector {at}", self.done),
        }
    }
}

fn cuts(log: &[Deed]) -> Vec<Cut> {
    let mut all = Vec::new();
    for done in 0..=log.len() {
        let begun = log.get(..done).unwrap_or_default();
        let open = pending(begun);
        let mut lost = |writes: &[usize]| all.push(Cut { done, fate: Fate::Lost(writes.to_vec()) });
        lost(&[]);
        // Unflushed writes: none arrives, each prefix, and each one missing alone (the drive reordered them).
        (0..open.len()).for_each(|kept| lost(open.get(kept..).unwrap_or_default()));
        open.iter().for_each(|missing| lost(&[*missing]));
        if let Some(Deed::Write { offset, bytes, .. }) = begun.last() {
            let sectors = offset / SECTOR_BYTES..(offset + bytes.len()).div_ceil(SECTOR_BYTES);
            let torn = sectors.flat_map(|at| [Torn::Before, Torn::Only, Torn::AllBut].map(|torn| (torn, at)));
            all.extend(torn.map(|(torn, at)| Cut { done, fate: Fate::Torn(torn, at) }));
        }
    }
    all
}

impl Cut {
    /// Deeds that were over when the power went.
    fn deeds_over(&self) -> usize {
        match self.fate {
            Fate::Lost(_) => self.done,
            Fate::Torn(..) => self.done.saturating_sub(1),
        }
    }

    fn contents(&self, state: &State) -> Contents {
        let mut contents = state.base.clone();
        let last = self.done.saturating_sub(1);
        for (at, deed) in state.log.iter().take(self.done).enumerate() {
            match (&self.fate, deed) {
                (Fate::Lost(lost), _) if lost.contains(&at) => (),
                (Fate::Torn(torn, sector), Deed::Write { place, offset, bytes, .. }) if at == last => {
                    let first = offset / SECTOR_BYTES;
                    let end = (offset + bytes.len()).div_ceil(SECTOR_BYTES);
                    for each in (first..end).filter(|each| torn.arrives(*each, *sector)) {
                        let start = (each * SECTOR_BYTES).max(*offset);
                        let stop = ((each + 1) * SECTOR_BYTES).min(offset + bytes.len());
                        let part = bytes.get(start - offset..stop - offset).unwrap_or_default();
                        contents.write(*place, start, part);
                    }
                }
                (Fate::Lost(_) | Fate::Torn(..), _) => contents.apply(deed),
            }
        }
        contents
    }
}

/// A hand on a place.
#[derive(Debug, Clone)]
pub struct PlaceMedium {
    storage: Storage,
    place: Place,
    writer: Writer,
}

impl Medium for PlaceMedium {
    type Error = io::Error;

    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let bytes = self.storage.head(self.place, offset as usize, buffer.len());
        buffer.fill(0);
        for (to, from) in buffer.iter_mut().zip(bytes) {
            *to = from;
        }
        Ok(())
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let (place, writer) = (self.place, self.writer);
        self.storage.record(Deed::Write { place, offset: offset as usize, bytes: bytes.to_vec(), writer });
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.storage.record(Deed::Flush(self.place));
        Ok(())
    }
}

/// A hand on the firmware's variables.
#[derive(Debug, Clone)]
pub struct Variables(Storage);

/// What is wrong with a variable's bytes.
#[derive(Debug)]
pub struct VariableError(bank_format::Error);

impl From<bank_format::Error> for VariableError {
    fn from(error: bank_format::Error) -> Self {
        Self(error)
    }
}

impl From<VariableError> for io::Error {
    fn from(error: VariableError) -> Self {
        Self::other(error.0)
    }
}

impl VarStore for Variables {
    type Error = VariableError;

    fn names(&self, vendor: &str) -> Result<Vec<String>, VariableError> {
        let suffix = format!("-{vendor}");
        let state = self.0.0.borrow();
        Ok(state
            .now
            .variables
            .keys()
            .filter_map(|key| key.strip_suffix(&suffix))
            .map(str::to_owned)
            .collect())
    }

    fn read(&self, name: &str, vendor: &str) -> Result<Option<Vec<u8>>, VariableError> {
        Ok(self.0.0.borrow().now.variables.get(&format!("{name}-{vendor}")).cloned())
    }

    fn write(&mut self, name: &str, vendor: &str, value: &[u8]) -> Result<(), VariableError> {
        self.0.record(Deed::Variable(format!("{name}-{vendor}"), Some(value.to_vec())));
        Ok(())
    }

    fn remove(&mut self, name: &str, vendor: &str) -> Result<(), VariableError> {
        self.0.record(Deed::Variable(format!("{name}-{vendor}"), None));
        Ok(())
    }
}

#[cfg(test)]
mod tests;
