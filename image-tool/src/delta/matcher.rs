//! Finds how bytes can be made of older bytes: long stretches that are nearly equal, and what is new between them.
//!
//! A stretch need not be equal: what a linker moves changes a byte here and there, and the differences of neighbours are alike, so they
//! compress to next to nothing. Exact matches of `SEED_BYTES` and more are anchors; each is grown in both directions as long as more bytes
//! agree than not. Deliberately absent: files, compression, and any order of places in the old bytes.

use crate::limits::MAX_CANDIDATES;

/// Bytes of the shortest match that is looked for.
const SEED_BYTES: usize = 8;
/// A match elsewhere must be better than going on as before by as many bytes: a change of place has its price.
const BETTER_BY: usize = 8;
/// Matches of this length are taken without a look at others.
const LONG_BYTES: usize = 4096;
const NONE: u32 = u32::MAX;

/// One step: `add_bytes` bytes at `from` of the old ones, with differences, then `extra_bytes` new ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// Where in the old bytes.
    pub from: usize,
    /// Bytes that are made of old ones.
    pub add_bytes: usize,
    /// Bytes that are not.
    pub extra_bytes: usize,
}

/// Old bytes, ready to be searched.
pub struct Old {
    bytes: Vec<u8>,
    shift: u32,
    /// By the hash of a seed: its last place.
    heads: Vec<u32>,
    /// By place: the one before with the same hash.
    before: Vec<u32>,
}

impl Old {
    /// Takes 5 to 9 bytes of memory for each old one. At most 2^31 bytes are searched.
    #[must_use]
    pub fn new(mut bytes: Vec<u8>) -> Self {
        bytes.truncate(1 << 31);
        let bits = (usize::BITS - bytes.len().leading_zeros()).clamp(8, 24);
        let mut old = Self {
            shift: 64 - bits,
            heads: vec![NONE; 1 << bits],
            before: vec![NONE; bytes.len().saturating_sub(SEED_BYTES - 1)],
            bytes,
        };
        for at in 0..old.before.len() {
            let Some(hash) = old.hash(&old.bytes, at) else { break };
            let (Some(head), Some(before)) = (old.heads.get_mut(hash), old.before.get_mut(at)) else { break };
            *before = std::mem::replace(head, at as u32);
        }
        old
    }

    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn hash(&self, bytes: &[u8], at: usize) -> Option<usize> {
        let seed: [u8; SEED_BYTES] = bytes.get(at..at + SEED_BYTES)?.try_into().ok()?;
        Some((u64::from_le_bytes(seed).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> self.shift) as usize)
    }

    /// The longest match for `new` from `at`: its place in the old bytes and its length.
    fn longest(&self, new: &[u8], at: usize) -> Option<(usize, usize)> {
        let mut best: Option<(usize, usize)> = None;
        let mut place = *self.heads.get(self.hash(new, at)?)?;
        for _ in 0..MAX_CANDIDATES {
            if place == NONE {
                break;
            }
            let candidate = place as usize;
            let longest = best.map_or(0, |(_, length)| length);
            // One look at the byte that would make it longer saves most comparisons.
            let may_be_longer = new.get(at + longest) == self.bytes.get(candidate + longest);
            if may_be_longer {
                let length = common(tail(new, at), tail(&self.bytes, candidate));
                if length >= SEED_BYTES && length > longest {
                    best = Some((candidate, length));
                    if length >= LONG_BYTES {
                        break;
                    }
                }
            }
            place = self.before.get(candidate).copied().unwrap_or(NONE);
        }
        best
    }

    /// The steps that make `new`.
    #[must_use]
    pub fn steps(&self, new: &[u8]) -> Vec<Step> {
        let anchors = self.anchors(new);
        grow(&self.bytes, new, &anchors)
    }

    /// Exact matches, in the order of the new bytes, each where a change of place pays.
    fn anchors(&self, new: &[u8]) -> Vec<Anchor> {
        let mut anchors: Vec<Anchor> = Vec::new();
        let mut at = 0;
        while at < new.len() {
            let along =
                anchors.last().and_then(|last| last.place_for(at)).filter(|place| *place < self.bytes.len());
            let going_on = along.map_or(0, |place| common(tail(new, at), tail(&self.bytes, place)));
            if going_on >= SEED_BYTES {
                // Nothing changes here; look again where it ends.
                at += going_on;
                continue;
            }
            let Some((place, length)) = self.longest(new, at) else {
                at += 1;
                continue;
            };
            let agreeing = along.map_or(0, |along| agreeing(tail(new, at), tail(&self.bytes, along), length));
            if length > agreeing + BETTER_BY || (anchors.is_empty() && length > BETTER_BY) {
                anchors.push(Anchor { new: at, old: place, length });
                at += length;
            } else {
                at += 1;
            }
        }
        anchors
    }
}

#[derive(Debug, Clone, Copy)]
struct Anchor {
    new: usize,
    old: usize,
    length: usize,
}

impl Anchor {
    /// Where the old bytes would go on for this place of the new ones.
    fn place_for(&self, new: usize) -> Option<usize> {
        new.checked_sub(self.new).map(|distance| self.old + distance)
    }
}

fn tail(bytes: &[u8], at: usize) -> &[u8] {
    bytes.get(at..).unwrap_or_default()
}

/// How many bytes agree from the start.
fn common(a: &[u8], b: &[u8]) -> usize {
    let mut length = 0;
    for (a, b) in a.chunks_exact(8).zip(b.chunks_exact(8)) {
        if a != b {
            break;
        }
        length += 8;
    }
    length + tail(a, length).iter().zip(tail(b, length)).take_while(|(a, b)| a == b).count()
}

/// How many of the first `length` bytes agree.
fn agreeing(a: &[u8], b: &[u8], length: usize) -> usize {
    a.iter().zip(b).take(length).filter(|(a, b)| a == b).count()
}

/// Grows anchors forwards and backwards where more bytes agree than not, and settles where two would overlap.
fn grow(old: &[u8], new: &[u8], anchors: &[Anchor]) -> Vec<Step> {
    let mut steps = Vec::new();
    // The stretch that is being closed: where it starts in both.
    let mut start = (0, 0);
    let mut open = false;
    let mut done = 0;
    for (number, anchor) in anchors.iter().enumerate() {
        if !open {
            // Before the first anchor.
            let backward = backward(old, new, anchor, done);
            push(&mut steps, 0, 0, anchor.new - backward - done);
            start = (anchor.new - backward, anchor.old - backward);
            open = true;
        }
        let next = anchors.get(number + 1);
        let limit = next.map_or(new.len(), |next| next.new);
        let mut forward = forward(old, new, anchor, limit);
        let end = anchor.new + anchor.length;
        let Some(next) = next else {
            push(&mut steps, start.1, end + forward - start.0, new.len() - end - forward);
            done = new.len();
            break;
        };
        let mut backward = backward(old, new, next, end);
        let overlap = (end + forward).saturating_sub(next.new - backward);
        if overlap > 0 {
            let border = border(old, new, anchor, next, next.new - backward, overlap);
            forward -= overlap - border;
            backward -= border;
        }
        let extra = next.new - backward - end - forward;
        push(&mut steps, start.1, end + forward - start.0, extra);
        start = (next.new - backward, next.old - backward);
    }
    if done < new.len() {
        push(&mut steps, 0, 0, new.len() - done);
    }
    steps
}

fn push(steps: &mut Vec<Step>, from: usize, add_bytes: usize, extra_bytes: usize) {
    match steps.last_mut() {
        _ if add_bytes + extra_bytes == 0 => (),
        Some(last) if add_bytes == 0 => last.extra_bytes += extra_bytes,
        Some(_) | None => steps.push(Step { from, add_bytes, extra_bytes }),
    }
}

/// The length that has the most bytes agreeing over those that do not.
fn best_length(agree: impl Iterator<Item = bool>) -> usize {
    let (mut best, mut best_score, mut score) = (0, 0i64, 0i64);
    for (at, agree) in agree.enumerate() {
        score += if agree { 1 } else { -1 };
        if score > best_score {
            (best, best_score) = (at + 1, score);
        }
    }
    best
}

fn forward(old: &[u8], new: &[u8], anchor: &Anchor, limit: usize) -> usize {
    let from = anchor.new + anchor.length;
    let new = new.get(from..limit).unwrap_or_default();
    best_length(new.iter().zip(tail(old, anchor.old + anchor.length)).map(|(a, b)| a == b))
}

fn backward(old: &[u8], new: &[u8], anchor: &Anchor, limit: usize) -> usize {
    let new = new.get(limit..anchor.new).unwrap_or_default();
    let old = old.get(..anchor.old).unwrap_or_default();
    best_length(new.iter().rev().zip(old.iter().rev()).map(|(a, b)| a == b))
}

/// How much of an overlap the first anchor keeps so that most bytes agree. The overlap starts at `from` in the new bytes.
fn border(old: &[u8], new: &[u8], first: &Anchor, second: &Anchor, from: usize, overlap: usize) -> usize {
    let (mut best, mut best_score, mut score) = (0, 0i64, 0i64);
    for step in 0..overlap {
        let byte = new.get(from + step);
        let by_first = first.place_for(from + step).and_then(|place| old.get(place));
        let by_second = (second.old + step).checked_sub(second.new - from).and_then(|place| old.get(place));
        score += i64::from(by_first == byte) - i64::from(by_second == byte);
        if score > best_score {
            (best, best_score) = (step + 1, score);
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn made(old: &[u8], new: &[u8], steps: &[Step]) -> (Vec<u8>, usize) {
        let (mut out, mut differing) = (Vec::new(), 0);
        for step in steps {
            let at = out.len();
            let from = old.get(step.from..step.from + step.add_bytes).unwrap();
            differing += from.iter().zip(&new[at..]).filter(|(a, b)| a != b).count();
            out.extend(from.iter().zip(&new[at..]).map(|(a, b)| a.wrapping_add(b.wrapping_sub(*a))));
            let at = out.len();
            out.extend(&new[at..at + step.extra_bytes]);
            differing += step.extra_bytes;
        }
        (out, differing)
    }

    proptest! {
        #[test]
        fn steps_make_the_new_bytes(
            old in proptest::collection::vec(0u8..4, 0..600),
            edits in proptest::collection::vec((any::<prop::sample::Index>(), 0usize..40, any::<[u8; 3]>()), 0..8),
        ) {
            let mut new = old.clone();
            for (at, length, with) in edits {
                let at = if new.is_empty() { 0 } else { at.index(new.len()) };
                let end = (at + length).min(new.len());
                new.splice(at..end, with);
            }
            let steps = Old::new(old.clone()).steps(&new);
            prop_assert_eq!(made(&old, &new, &steps).0, new.clone());
            prop_assert_eq!(steps.iter().map(|s| s.add_bytes + s.extra_bytes).sum::<usize>(), new.len());
        }
    }

    #[test]
    fn scattered_changes_and_a_move_stay_cheap() {
        let mut state = 1u32;
        let mut random = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        let old: Vec<u8> = (0..100_000).map(|_| random()).collect();
        let mut new = old[50_000..].to_vec();
        new.extend(&old[..50_000]);
        for at in (0..new.len()).step_by(100) {
            new[at] ^= 1;
        }
        new.splice(10_000..10_000, [7; 50]);
        let steps = Old::new(old.clone()).steps(&new);
        let (out, differing) = made(&old, &new, &steps);
        assert_eq!(out, new);
        assert!(steps.len() < 10, "{} steps", steps.len());
        assert!(differing < 1_100, "{differing}");
    }
}
