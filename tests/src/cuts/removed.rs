//! The suite is not blind: each flush and each order that is taken away must lead to a violation.

use bank_format::{
    barrier::{Barrier, without},
    loader::Kind,
};

use super::{Budget, Violation, explore, flows};

/// States of a flow with a loader: at first those of one cut, then some of two and three as well.
const STATES: [usize; 2] = [0, 500];

/// The first violation without this barrier, and how many cells (a flow with a loader) were explored until then.
#[must_use]
pub fn caught(barrier: Barrier) -> (Option<Box<Violation>>, usize) {
    let mut cells = 0;
    for states in STATES {
        for flow in &flows::ALL {
            for kind in Kind::ALL.into_iter().filter(|kind| flow.fits(*kind)) {
                cells += 1;
                let budget = Budget { states, seed: 1 };
                if let Err(violation) = without(barrier, || explore(flow, kind, budget)) {
                    return (Some(violation), cells);
                }
            }
        }
    }
    (None, cells)
}
