//! What goes wrong besides the power, at every moment of a flow; then the power goes, with all that was not safe or without loss, and what is left
//! is judged as after any other cut.

use std::collections::HashSet;

use bank_format::loader::Kind;

use super::{Begun, Chance, Trace, Trouble, Violation, all_cuts, flows::Flow};
use crate::storage::{At, Fault, Replay, What};

/// Failures in a row that are never over before the deed is.
const UNTIL_THE_END: u32 = 1_000_000;

/// Every read, write or flush of a flow fails once, or all from there on until the deed is over. How many plays there were.
pub fn faults(flow: &Flow, kind: Kind, what: What) -> Result<usize, Box<Violation>> {
    let mut plays = 0;
    for times in [1, UNTIL_THE_END] {
        for after in 0.. {
            let fault = Fault { what, at: At::Everywhere, after, times };
            let trace = Trace::of(flow.name, kind).in_trouble(Trouble::Fault(fault));
            let begun = Begun::new(flow, &trace)?;
            if begun.machine.storage().failures() == 0 {
                break;
            }
            plays += ends(&begun, &trace)?;
        }
    }
    Ok(plays)
}

/// The process is killed after every deed of a flow that is one command, and the command is given again. How many plays there were.
pub fn kills(flow: &Flow, kind: Kind) -> Result<usize, Box<Violation>> {
    let through = Begun::new(flow, &Trace::of(flow.name, kind))?;
    if through.machine.starts > 0 {
        // Whoever resets a machine kills all its processes.
        return Ok(0);
    }
    let mut plays = 0;
    for deeds in 0..through.machine.storage().deeds() {
        let trace = Trace::of(flow.name, kind).in_trouble(Trouble::Killed(deeds));
        plays += ends(&Begun::new(flow, &trace)?, &trace)?;
    }
    Ok(plays)
}

fn ends(begun: &Begun, trace: &Trace) -> Result<usize, Box<Violation>> {
    let cuts = begun.machine.storage().cuts_at_the_end();
    for cut in &cuts {
        let contents = begun.machine.storage().after_power_cut(cut);
        begun.play(trace, cut, contents)?;
    }
    Ok(cuts.len())
}

/// What a disk that lies does to a flow.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Lied {
    /// States after one cut.
    pub states: usize,
    /// Those of them that violate a promise.
    pub violations: usize,
}

/// States of a flow with a loader on a disk that lies.
const LYING_STATES: usize = 100;

/// The disk says that it has flushed, and has not: some of what it can leave.
pub fn lies(flow: &Flow, kind: Kind) -> Result<Lied, Box<Violation>> {
    let trace = Trace::of(flow.name, kind).in_trouble(Trouble::Lies);
    let begun = Begun::new(flow, &trace)?;
    let (base, log) = begun.machine.storage().log();
    let (mut seen, mut lied) = (HashSet::new(), Lied::default());
    let mut cuts = all_cuts(&base, &log);
    Chance(1).shuffle(&mut cuts);
    cuts.truncate(LYING_STATES);
    for cut in cuts {
        let contents = Replay::new(base.clone(), &log).contents(&cut);
        if seen.insert(contents.fingerprint()) {
            lied.states += 1;
            lied.violations += usize::from(begun.play(&trace, &cut, contents).is_err());
        }
    }
    Ok(lied)
}
