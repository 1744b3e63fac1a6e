//! When the power goes, and what is left then: every state of a log, each with a word that makes it again.
//!
//! Between two flushes the drive may write in any order. While at most [`ALL_SUBSETS`] writes are open, every subset of them is a state; beyond that
//! none, all, each prefix, each one missing, each one alone, and some subsets by chance. Writes are torn between sectors of 512 bytes, also inside
//! a block of 4096. Names arrive in their order, as journals have them. Data of a file may be lost and its length not.

use std::{fmt, str::FromStr};

use super::{
    SECTOR_BYTES,
    contents::Contents,
    log::{Arrival, Deed, Open},
};

/// Open writes of which all subsets are states.
pub const ALL_SUBSETS: usize = 12;
/// Subsets by chance, where there are more.
const SOME_SUBSETS: u64 = 64;

/// A power cut.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cut {
    /// Deeds that were begun.
    pub done: usize,
    /// Writes that did not arrive.
    pub lost: Vec<usize>,
    /// Data of a file that did not arrive, and its length did.
    pub zeroed: Option<usize>,
    /// Writes that arrived in part.
    pub torn: Vec<Tear>,
    /// Names that arrived, of those that were not safe; all, where nothing is said.
    pub names: Option<usize>,
}

/// Which sectors of a write arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tear {
    write: usize,
    kind: Torn,
    sector: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Torn {
    Before,
    Only,
    AllBut,
}

const TORN: [(Torn, char); 3] = [(Torn::Before, 'b'), (Torn::Only, 'o'), (Torn::AllBut, 'x')];

impl Torn {
    fn arrives(self, sector: usize, at: usize) -> bool {
        match self {
            Self::Before => sector < at,
            Self::Only => sector == at,
            Self::AllBut => sector != at,
        }
    }
}

/// `12` after deed 12; `-3` without write 3; `~5` with zeros for write 5; `:7b2` write 7 up to sector 2; `!1` with one of the open names.
impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.done)?;
        self.lost.iter().try_for_each(|write| write!(f, "-{write}"))?;
        if let Some(zeroed) = self.zeroed {
            write!(f, "~{zeroed}")?;
        }
        for Tear { write, kind, sector } in &self.torn {
            let letter = TORN.iter().find(|(torn, _)| torn == kind).map_or('?', |(_, letter)| *letter);
            write!(f, ":{write}{letter}{sector}")?;
        }
        match self.names {
            Some(names) => write!(f, "!{names}"),
            None => Ok(()),
        }
    }
}

impl FromStr for Cut {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no power cut");
        let number = |text: &str| text.parse::<usize>().map_err(|_| wrong());
        let starts: Vec<usize> = text.match_indices(['-', '~', ':', '!']).map(|(at, _)| at).collect();
        let ends = starts.iter().skip(1).copied().chain([text.len()]);
        let head = starts.first().copied().unwrap_or(text.len());
        let mut cut = Cut { done: number(text.get(..head).unwrap_or_default())?, ..Cut::default() };
        for (start, end) in starts.iter().zip(ends) {
            let (kind, rest) =
                text.get(*start..end).and_then(|part| part.split_at_checked(1)).ok_or_else(wrong)?;
            match kind {
                "-" => cut.lost.push(number(rest)?),
                "~" => cut.zeroed = Some(number(rest)?),
                "!" => cut.names = Some(number(rest)?),
                _ => {
                    let at = rest.find(|letter: char| letter.is_ascii_lowercase()).ok_or_else(wrong)?;
                    let (write, rest) = rest.split_at(at);
                    let (letter, sector) = rest.split_at(1);
                    let kind = TORN.iter().find(|(_, known)| letter.starts_with(*known)).ok_or_else(wrong)?.0;
                    cut.torn.push(Tear { write: number(write)?, kind, sector: number(sector)? });
                }
            }
        }
        Ok(cut)
    }
}

impl Cut {
    /// Whether everything that was begun arrived.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        self.lost.is_empty() && self.zeroed.is_none() && self.torn.is_empty() && self.names.is_none()
    }

    /// Deeds that were over when the power went.
    #[must_use]
    pub fn deeds_over(&self) -> usize {
        let is_newest = |tear: &Tear| tear.write + 1 == self.done;
        if self.torn.iter().any(is_newest) { self.done - 1 } else { self.done }
    }
}

/// A log that is gone through once, from its beginning.
pub struct Replay<'l> {
    log: &'l [Deed],
    done: usize,
    open: Open,
    /// What is safe.
    safe: Contents,
}

impl<'l> Replay<'l> {
    /// A log on these contents.
    #[must_use]
    pub fn new(base: Contents, log: &'l [Deed]) -> Self {
        Self { log, done: 0, open: Open::default(), safe: base }
    }

    /// One more deed. Whether there was one.
    pub fn step(&mut self) -> bool {
        let Some(deed) = self.log.get(self.done) else { return false };
        let safe = self.open.after(self.log, self.done);
        debug_assert!(!matches!(deed, Deed::Variable(..)) || safe.len() == 1);
        for number in safe {
            if let Some(deed) = self.log.get(number) {
                self.safe.apply(deed, Arrival::Whole);
            }
        }
        self.done += 1;
        true
    }

    /// Goes on to a cut, and tells what it leaves. It must not lie behind.
    #[must_use]
    pub fn contents(&mut self, cut: &Cut) -> Contents {
        while self.done < cut.done && self.step() {}
        let mut contents = self.safe.clone();
        let names = self.open.names.iter().take(cut.names.unwrap_or(usize::MAX));
        let writes = self.open.writes.iter().filter(|write| !cut.lost.contains(write));
        // In their order, as they may lie on each other.
        let mut all: Vec<usize> = names.chain(writes).copied().collect();
        all.sort_unstable();
        for number in all {
            let Some(deed) = self.log.get(number) else { continue };
            match (cut.torn.iter().find(|tear| tear.write == number), deed) {
                (Some(tear), Deed::Write { place, offset, bytes, .. }) => {
                    parts(*offset, bytes, *tear, &mut |at, part| contents.write(*place, at, part));
                }
                (Some(tear), Deed::Data { inode, offset, bytes }) => {
                    parts(*offset, bytes, *tear, &mut |at, part| {
                        let part = Deed::Data { inode: *inode, offset: at, bytes: part.to_vec() };
                        contents.apply(&part, Arrival::Whole);
                    });
                }
                (_, _) if cut.zeroed == Some(number) => contents.apply(deed, Arrival::Zeros),
                (_, _) => contents.apply(deed, Arrival::Whole),
            }
        }
        contents
    }

    /// Cuts right after the deed that was stepped over last; those that leave the same as an earlier cut are left out as far as that is known
    /// beforehand.
    pub fn cuts_here(&self) -> Vec<Cut> {
        let mut cuts = Vec::new();
        let done = self.done;
        let last = done.checked_sub(1).and_then(|last| self.log.get(last));
        let newest = matches!(last, Some(Deed::Write { .. } | Deed::Data { .. }));
        let others =
            self.open.writes.split_last().filter(|_| newest).map_or(&self.open.writes[..], |(_, o)| o);
        let mut lost = |lost: Vec<usize>| cuts.push(Cut { done, lost, ..Cut::default() });
        if others.len() < ALL_SUBSETS + usize::from(!newest) {
            for mask in 0..1_u32 << others.len() {
                lost(subset(others, |place| mask >> place & 1 == 1));
            }
        } else {
            lost(Vec::new());
            lost(others.to_vec());
            (1..others.len()).for_each(|kept| lost(others.get(kept..).unwrap_or_default().to_vec()));
            for one in 0..others.len() {
                lost(subset(others, |place| place == one));
                lost(subset(others, |place| place != one));
            }
            for chance in 0..SOME_SUBSETS {
                let mut state = chance.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(done as u64);
                lost(subset(others, |_| {
                    state =
                        state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    state >> 63 == 1
                }));
            }
        }
        for names in 0..self.open.names.len() {
            let all = Cut { done, names: Some(names), ..Cut::default() };
            if !self.open.writes.is_empty() {
                cuts.push(Cut { lost: self.open.writes.clone(), ..all.clone() });
            }
            cuts.push(all);
        }
        for write in &self.open.writes {
            match self.log.get(*write) {
                Some(Deed::Write { offset, bytes, .. }) => self.tears(*write, *offset, bytes, &mut cuts),
                Some(Deed::Data { offset, bytes, .. }) => {
                    cuts.push(Cut { done, zeroed: Some(*write), ..Cut::default() });
                    self.tears(*write, *offset, bytes, &mut cuts);
                }
                _ => (),
            }
        }
        cuts
    }

    /// The newest write in every way, an older one from its start on.
    fn tears(&self, write: usize, offset: usize, bytes: &[u8], cuts: &mut Vec<Cut>) {
        let is_newest = write + 1 == self.done;
        for sector in offset / SECTOR_BYTES..(offset + bytes.len()).div_ceil(SECTOR_BYTES) {
            for (kind, _) in TORN.iter().take(if is_newest { TORN.len() } else { 1 }) {
                let torn = vec![Tear { write, kind: *kind, sector }];
                cuts.push(Cut { done: self.done, torn, ..Cut::default() });
            }
        }
        // Two are torn: of each the first sector has arrived, or of the older one all others.
        let Some(newest) = self.first_sector_of_several(write).filter(|_| is_newest) else { return };
        let newest = Tear { write, kind: Torn::Only, sector: newest };
        for older in self.open.writes.iter().filter(|older| **older < write) {
            let Some(sector) = self.first_sector_of_several(*older) else { continue };
            for kind in [Torn::Only, Torn::AllBut] {
                let torn = vec![Tear { write: *older, kind, sector }, newest];
                cuts.push(Cut { done: self.done, torn, ..Cut::default() });
            }
        }
    }

    fn first_sector_of_several(&self, write: usize) -> Option<usize> {
        let (Deed::Write { offset, bytes, .. } | Deed::Data { offset, bytes, .. }) = self.log.get(write)?
        else {
            return None;
        };
        let first = offset / SECTOR_BYTES;
        ((offset + bytes.len()).div_ceil(SECTOR_BYTES) > first + 1).then_some(first)
    }
}

fn subset(of: &[usize], mut is_in: impl FnMut(usize) -> bool) -> Vec<usize> {
    of.iter().enumerate().filter(|(place, _)| is_in(*place)).map(|(_, write)| *write).collect()
}

/// The sectors that arrive, each with its place.
fn parts(offset: usize, bytes: &[u8], tear: Tear, arrives: &mut dyn FnMut(usize, &[u8])) {
    let sectors = offset / SECTOR_BYTES..(offset + bytes.len()).div_ceil(SECTOR_BYTES);
    for sector in sectors.filter(|sector| tear.kind.arrives(*sector, tear.sector)) {
        let start = (sector * SECTOR_BYTES).max(offset);
        let stop = ((sector + 1) * SECTOR_BYTES).min(offset + bytes.len());
        arrives(start, bytes.get(start - offset..stop - offset).unwrap_or_default());
    }
}
