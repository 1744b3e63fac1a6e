//! When which check is looked at, and how it ends. Pure: time comes as an argument, looks are made by the caller.
//!
//! ```text
//! reaching   each check is looked at, every interval, until it is healthy or its deadline is over
//! soaking    all were healthy once: each is looked at every interval, and one bad look fails it
//! closing    a last look at those whose last one is older than their interval when this begins
//! doomed     one has failed: those that were never looked at get one short look, for the record of a person
//! ```

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::limits::{DOOMED_PATIENCE, LOOK_GRACE, MIN_LOOK, WATCH_INTERVAL};

/// How long a check may take to become healthy, and the pause between two looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// The whole time.
    pub deadline: Duration,
    /// From the end of one look to the next.
    pub interval: Duration,
}

/// How often each check is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Once.
    Once,
    /// Until all are healthy, or one cannot be any more; then all must hold.
    Until {
        /// So long.
        soak: Duration,
    },
}

/// How a check stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Standing {
    /// Not healthy yet, and its time is not over.
    Waiting,
    /// Its last look was good.
    Healthy,
    /// It did not become healthy in time, or did not hold.
    Failed,
}

/// Why a look was not good.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trouble {
    /// In one line.
    pub why: String,
    /// What a program said, bounded.
    pub output: String,
}

impl Trouble {
    /// Without output.
    pub fn new(why: impl Into<String>) -> Self {
        Self { why: why.into(), output: String::new() }
    }
}

/// A look that is under way.
#[derive(Debug, Clone, Copy)]
struct Look {
    since: Duration,
    limit: Duration,
}

/// One check, as it goes.
#[derive(Debug, Clone)]
pub struct Track {
    pace: Pace,
    deadline: Duration,
    next: Duration,
    looking: Option<Look>,
    last_began: Duration,
    /// How it stands.
    pub standing: Standing,
    /// Looks that were begun.
    pub looks: u32,
    /// From the beginning to the end of the newest look.
    pub took: Duration,
    /// Why the newest look was not good.
    pub trouble: Option<Trouble>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Once,
    Reaching { soak: Duration },
    Soaking { until: Duration },
    Closing { since: Duration },
    Doomed { since: Duration },
    Over,
}

/// All checks, as they go.
#[derive(Debug, Clone)]
pub struct Rounds {
    tracks: Vec<Track>,
    phase: Phase,
    began: Duration,
}

impl Rounds {
    /// Begins at `now`.
    #[must_use]
    pub fn new(paces: impl Iterator<Item = Pace>, mode: Mode, now: Duration) -> Self {
        let track = |pace: Pace| Track {
            pace,
            deadline: now.saturating_add(pace.deadline),
            next: now,
            looking: None,
            last_began: now,
            standing: Standing::Waiting,
            looks: 0,
            took: Duration::ZERO,
            trouble: None,
        };
        let phase = match mode {
            Mode::Once => Phase::Once,
            Mode::Until { soak } => Phase::Reaching { soak },
        };
        Self { tracks: paces.map(track).collect(), phase, began: now }
    }

    /// Something else has failed already: each check gets one short look.
    pub fn doom(&mut self, now: Duration) {
        self.phase = Phase::Doomed { since: now };
    }

    /// The checks, in their order.
    #[must_use]
    pub fn tracks(&self) -> &[Track] {
        &self.tracks
    }

    /// Whether all has been seen.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.phase == Phase::Over
    }

    /// Looks to begin now: which check, and how long the look may take. Each counts as begun.
    pub fn due(&mut self, now: Duration) -> Vec<(usize, Duration)> {
        let phase = self.phase;
        let mut due = Vec::new();
        for (index, track) in self.tracks.iter_mut().enumerate() {
            if let Some(limit) = track.wants_look(phase, now) {
                track.looking = Some(Look { since: now, limit });
                track.last_began = now;
                track.looks = track.looks.saturating_add(1);
                due.push((index, limit));
            }
        }
        due
    }

    /// A look has ended. One that was given up before is no news.
    pub fn ended(&mut self, index: usize, result: Result<(), Trouble>, now: Duration) {
        let Some(track) = self.tracks.get_mut(index) else { return };
        let Some(look) = track.looking.take() else { return };
        track.took = now.saturating_sub(self.began);
        track.next = now.saturating_add(track.pace.interval);
        match result {
            Ok(()) => {
                track.standing = Standing::Healthy;
                track.trouble = None;
            }
            Err(mut trouble) => {
                match self.phase {
                    Phase::Once => track.standing = Standing::Failed,
                    Phase::Reaching { .. } => {
                        if look.since >= track.deadline || now >= track.deadline {
                            track.standing = Standing::Failed;
                        }
                        // The last look is at the deadline, not an interval behind it.
                        track.next = track.next.min(track.deadline.max(now));
                    }
                    Phase::Soaking { .. } | Phase::Closing { .. } => {
                        track.standing = Standing::Failed;
                        trouble.why = format!("was healthy, then: {}", trouble.why);
                    }
                    Phase::Doomed { .. } | Phase::Over => (),
                }
                track.trouble = Some(trouble);
            }
        }
    }

    /// Time has passed.
    pub fn tick(&mut self, now: Duration) {
        for track in &mut self.tracks {
            if let Some(look) = track.looking.filter(|look| now >= look.end()) {
                // Whoever makes it is stuck; it is not waited for, and what it says later is not heard.
                track.looking = None;
                track.standing = Standing::Failed;
                track.took = now.saturating_sub(self.began);
                track.trouble = Some(Trouble::new(format!("no answer in {} s", look.limit.as_secs())));
            }
        }
        while let Some(next) = self.next_phase(now) {
            self.phase = next;
        }
    }

    fn next_phase(&self, now: Duration) -> Option<Phase> {
        let failed = self.tracks.iter().any(|track| track.standing == Standing::Failed);
        let healthy = self.tracks.iter().all(|track| track.standing == Standing::Healthy);
        let quiet = self.tracks.iter().all(|track| track.looking.is_none());
        let seen = quiet && self.tracks.iter().all(|t| t.looks > 0 || t.standing == Standing::Failed);
        match self.phase {
            Phase::Reaching { .. } | Phase::Soaking { .. } | Phase::Closing { .. } if failed => {
                Some(Phase::Doomed { since: now })
            }
            Phase::Reaching { soak } if healthy && quiet => {
                Some(Phase::Soaking { until: now.saturating_add(soak) })
            }
            Phase::Soaking { until } if now >= until => Some(Phase::Closing { since: now }),
            Phase::Closing { since } if quiet && self.tracks.iter().all(|t| t.is_fresh(since)) => {
                Some(Phase::Over)
            }
            Phase::Once if seen => Some(Phase::Over),
            Phase::Doomed { since } if seen || now >= since.saturating_add(DOOMED_PATIENCE) => {
                Some(Phase::Over)
            }
            Phase::Once
            | Phase::Reaching { .. }
            | Phase::Soaking { .. }
            | Phase::Closing { .. }
            | Phase::Doomed { .. }
            | Phase::Over => None,
        }
    }

    /// How long the caller may wait for the end of a look before it comes back.
    #[must_use]
    pub fn pause(&self, now: Duration) -> Duration {
        let phase_end = match self.phase {
            Phase::Soaking { until } => Some(until),
            Phase::Doomed { since } => Some(since.saturating_add(DOOMED_PATIENCE)),
            Phase::Once | Phase::Reaching { .. } | Phase::Closing { .. } | Phase::Over => None,
        };
        let of_tracks = self.tracks.iter().map(|track| track.looking.map_or(track.next, Look::end));
        let next = of_tracks.filter(|at| *at > now).chain(phase_end).min();
        next.map_or(WATCH_INTERVAL, |at| at.saturating_sub(now)).min(WATCH_INTERVAL)
    }

    /// Where it stands, for people.
    #[must_use]
    pub fn words(&self, names: &[&str], now: Duration) -> String {
        let healthy = self.tracks.iter().filter(|track| track.standing == Standing::Healthy).count();
        let of_all = format!("{healthy} of {} checks healthy", self.tracks.len());
        match self.phase {
            Phase::Soaking { until } => {
                format!("{of_all}, all must hold for {} s more", until.saturating_sub(now).as_secs())
            }
            Phase::Once
            | Phase::Reaching { .. }
            | Phase::Closing { .. }
            | Phase::Doomed { .. }
            | Phase::Over => {
                let waits = self.tracks.iter().zip(names).filter(|(t, _)| t.standing == Standing::Waiting);
                match waits.map(|(_, name)| *name).next() {
                    Some(name) => format!("{of_all}, waiting for: {name}"),
                    None => of_all,
                }
            }
        }
    }
}

impl Look {
    fn end(self) -> Duration {
        self.since.saturating_add(self.limit).saturating_add(LOOK_GRACE)
    }
}

impl Track {
    fn wants_look(&self, phase: Phase, now: Duration) -> Option<Duration> {
        if self.looking.is_some() || self.standing == Standing::Failed {
            return None;
        }
        match phase {
            Phase::Once if self.looks == 0 => Some(self.pace.deadline),
            Phase::Reaching { .. } if self.standing == Standing::Waiting && now >= self.next => {
                Some(self.deadline.saturating_sub(now).max(MIN_LOOK))
            }
            Phase::Soaking { .. } if now >= self.next => Some(self.pace.deadline),
            Phase::Closing { since } if !self.is_fresh(since) => Some(self.pace.deadline),
            Phase::Doomed { .. } if self.looks == 0 => Some(self.pace.deadline.min(DOOMED_PATIENCE)),
            Phase::Once
            | Phase::Reaching { .. }
            | Phase::Soaking { .. }
            | Phase::Closing { .. }
            | Phase::Doomed { .. }
            | Phase::Over => None,
        }
    }

    fn is_fresh(&self, since: Duration) -> bool {
        self.last_began.saturating_add(self.pace.interval) >= since
    }
}

#[cfg(test)]
mod tests;
