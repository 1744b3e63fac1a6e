//! The power goes at every moment of every flow, goes again at every moment of the recovery from that, and then once more by chance. What is left
//! is played on until the machine is quiet, and judged ([`oracle`]).
//!
//! A state is what lies on the storage when the power has gone; each is played once. A state has a name, its [`Trace`], by which it is made again.

pub mod flows;
pub mod oracle;
pub mod removed;
pub mod sick;
mod trace;
pub mod troubles;
pub mod workers;

use std::{collections::HashSet, fmt};

use bank_format::loader::Kind;

use crate::{
    stage::{Machine, Played},
    storage::{Contents, Cut, Deed, Replay},
};
use flows::Flow;
use oracle::Judge;
pub use trace::{Trace, Trouble};

/// How much is explored of one flow with one loader.
#[derive(Debug, Clone, Copy)]
pub struct Budget {
    /// States, at most; all that one cut leaves are played in any case.
    pub states: usize,
    /// What chance depends on.
    pub seed: u64,
}

/// What was explored.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Explored {
    /// States after one cut, after two, after three: each counted once.
    pub states: [usize; 3],
    /// How often something was looked at that had been looked at before.
    pub known: usize,
}

impl Explored {
    /// All of them.
    #[must_use]
    pub fn total(&self) -> usize {
        self.states.iter().sum()
    }
}

/// A state that may not be.
#[derive(Debug, Clone)]
pub struct Violation {
    /// How it came about.
    pub trace: Trace,
    /// What is wrong.
    pub why: String,
    /// What happened on the way.
    pub journal: Vec<String>,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}\n    {}", self.trace, self.why, self.journal.join("\n    "))?;
        write!(f, "\nagain: cargo run -p tests --example cuts -- replay '{}'", self.trace)
    }
}

/// Every flow with every loader that it fits.
#[must_use]
pub fn cells() -> Vec<(&'static Flow, Kind)> {
    let all = flows::ALL.iter().flat_map(|flow| Kind::ALL.into_iter().map(move |kind| (flow, kind)));
    all.filter(|(flow, kind)| flow.fits(*kind)).collect()
}

struct Explorer {
    begun: Begun,
    seen: HashSet<u128>,
    budget: Budget,
    explored: Explored,
    chance: Chance,
}

/// Explores a flow with a loader.
pub fn explore(flow: &Flow, kind: Kind, budget: Budget) -> Result<Explored, Box<Violation>> {
    let trace = Trace::of(flow.name, kind);
    let begun = Begun::new(flow, &trace)?;
    let (base, log) = begun.machine.storage().log();
    let mut explorer = Explorer {
        begun,
        seen: HashSet::new(),
        budget,
        explored: Explored::default(),
        chance: Chance(budget.seed),
    };
    explorer.first_cuts(&trace, base, &log)?;
    Ok(explorer.explored)
}

/// Plays one trace, and tells what happened.
pub fn replay(trace: &Trace) -> Result<Vec<String>, Box<Violation>> {
    let missing = || violation(trace.clone(), format!("there is no flow {}", trace.flow), Vec::new());
    let flow = flows::by_name(&trace.flow).ok_or_else(missing)?;
    let Begun { start, mut machine, judge } = Begun::new(flow, trace)?;
    for (number, cut) in trace.cuts.iter().enumerate() {
        let contents = machine.storage().after_power_cut(cut);
        let journal = std::mem::take(&mut machine.journal);
        machine = start.after_cut_of(&machine, cut, contents.clone());
        machine.journal = journal;
        machine.journal.push(format!("power cut {cut}"));
        let is_last = number + 1 == trace.cuts.len();
        let judged = judge.survives(&contents).and_then(|()| {
            let quiet = machine.power_on()?;
            if is_last { judge.judge(&mut machine, quiet, trace.cuts.len()) } else { Ok(()) }
        });
        judged.map_err(|why| violation(trace.clone(), why, machine.journal.clone()))?;
    }
    Ok(machine.journal)
}

/// A flow that was gone through, in trouble or not, and has not been cut yet.
struct Begun {
    start: Machine,
    machine: Machine,
    judge: Judge,
}

impl Begun {
    fn new(flow: &Flow, trace: &Trace) -> Result<Self, Box<Violation>> {
        let at_once = |why: String| violation(trace.clone(), why, Vec::new());
        let start = flow.prepared(trace.kind).map_err(at_once)?;
        let mut machine = start.copy();
        if let Some(Trouble::Fault(fault)) = trace.trouble {
            machine.storage().set_fault(Some(fault));
            if let Err(why) = (flow.deed)(&mut machine) {
                machine.journal.push(format!("the deed has failed: {why}"));
            }
            machine.storage().set_fault(None);
        } else {
            let played = (flow.deed)(&mut machine);
            let done = played.and_then(|()| Judge::is_flushed(&machine));
            done.map_err(|why| violation(trace.clone(), why, machine.journal.clone()))?;
        }
        match trace.trouble {
            Some(Trouble::Killed(deeds)) => {
                machine = start.killed_after(&machine, deeds);
                let again = (flow.again)(&mut machine);
                again.map_err(|why| {
                    violation(
                        trace.clone(),
                        format!("the same command again: {why}"),
                        machine.journal.clone(),
                    )
                })?;
            }
            Some(Trouble::Lies) => machine.storage().forget_flushes(),
            Some(Trouble::Fault(_)) | None => (),
        }
        let judge = Judge::new(flow, &start, &machine);
        Ok(Self { start, machine, judge })
    }

    /// Plays what one cut leaves.
    fn play(&self, trace: &Trace, cut: &Cut, contents: Contents) -> Result<(), Box<Violation>> {
        let mut machine = self.start.after_cut_of(&self.machine, cut, contents);
        self.recover(&trace.with(cut), &mut machine)
    }

    /// Power comes back, until the machine is quiet; what it did until then is in its log.
    fn recover(&self, trace: &Trace, machine: &mut Machine) -> Result<(), Box<Violation>> {
        machine.journal.clear();
        let contents = machine.storage().contents();
        let played: Played<()> = self.judge.survives(&contents).and_then(|()| {
            let quiet = machine.power_on()?;
            self.judge.judge(machine, quiet, trace.cuts.len())
        });
        played.map_err(|why| violation(trace.clone(), why, machine.journal.clone()))
    }
}

fn violation(trace: Trace, why: String, journal: Vec<String>) -> Box<Violation> {
    Box::new(Violation { trace, why, journal })
}

impl Explorer {
    fn first_cuts(&mut self, trace: &Trace, base: Contents, log: &[Deed]) -> Result<(), Box<Violation>> {
        // How many there are is known beforehand, so that the second cuts are spread over all of them.
        let mut firsts = Vec::new();
        let mut replay = Replay::new(base, log);
        loop {
            for cut in replay.cuts_here() {
                let contents = replay.contents(&cut);
                if self.seen.insert(contents.fingerprint()) {
                    firsts.push((cut, contents));
                } else {
                    self.explored.known += 1;
                }
            }
            if !replay.step() {
                break;
            }
        }
        self.explored.states[0] = firsts.len();
        let count = firsts.len();
        for (number, (cut, contents)) in firsts.into_iter().enumerate() {
            let left =
                self.budget.states.saturating_sub(count + self.explored.states[1] + self.explored.states[2]);
            let share = left / (count - number);
            let machine = self.begun.start.after_cut_of(&self.begun.machine, &cut, contents);
            self.play(&trace.with(&cut), machine, share)?;
        }
        Ok(())
    }

    /// Plays a machine that comes back, and up to `further` states that come of a cut while it recovers.
    fn play(&mut self, trace: &Trace, mut machine: Machine, further: usize) -> Result<(), Box<Violation>> {
        let before = machine.copy();
        self.begun.recover(trace, &mut machine)?;
        if further == 0 {
            return Ok(());
        }
        let (base, log) = machine.storage().log();
        let mut cuts = all_cuts(&base, &log);
        // Plain cuts, after each deed, before those that lose something.
        self.chance.shuffle(&mut cuts);
        cuts.sort_by_key(|cut| !cut.is_plain());
        // Some are known already.
        cuts.truncate(further.saturating_mul(3));
        // Once through the log for all of them.
        cuts.sort_by_key(|cut| cut.done);
        let mut replay = Replay::new(base, &log);
        let mut left = further;
        for cut in cuts {
            if left == 0 {
                break;
            }
            let contents = replay.contents(&cut);
            if !self.seen.insert(contents.fingerprint()) {
                self.explored.known += 1;
                continue;
            }
            left -= 1;
            self.explored.states[1] += 1;
            let trace = trace.with(&cut);
            let second = before.after_cut_of(&machine, &cut, contents);
            let mut again = second.copy();
            self.begun.recover(&trace, &mut again)?;
            if self.chance.one_in(8) {
                left = left.saturating_sub(self.third_cut(&trace, &second, &again)?);
            }
        }
        Ok(())
    }

    fn third_cut(
        &mut self,
        trace: &Trace,
        before: &Machine,
        after: &Machine,
    ) -> Result<usize, Box<Violation>> {
        let (base, log) = after.storage().log();
        let cuts = all_cuts(&base, &log);
        let Some(cut) = self.chance.one_of(&cuts) else { return Ok(0) };
        let contents = Replay::new(base, &log).contents(cut);
        if !self.seen.insert(contents.fingerprint()) {
            self.explored.known += 1;
            return Ok(0);
        }
        self.explored.states[2] += 1;
        self.begun.recover(&trace.with(cut), &mut before.after_cut_of(after, cut, contents))?;
        Ok(1)
    }
}

fn all_cuts(base: &Contents, log: &[Deed]) -> Vec<Cut> {
    let mut replay = Replay::new(base.clone(), log);
    let mut cuts = replay.cuts_here();
    while replay.step() {
        cuts.extend(replay.cuts_here());
    }
    cuts
}

/// The same in every run with the same seed.
#[derive(Debug, Clone)]
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    fn one_in(&mut self, count: u64) -> bool {
        self.next().is_multiple_of(count)
    }

    fn one_of<'c>(&mut self, cuts: &'c [Cut]) -> Option<&'c Cut> {
        cuts.get((self.next() % (cuts.len() as u64).max(1)) as usize)
    }

    fn shuffle(&mut self, cuts: &mut [Cut]) {
        for end in (1..cuts.len()).rev() {
            cuts.swap(end, (self.next() % (end as u64 + 1)) as usize);
        }
    }
}
