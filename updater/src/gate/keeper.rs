//! Keeps what is known of a trial while it runs: the checks whenever one stands otherwise, and the journal every few seconds, rarely
//! when it takes hours. A hang or a panic cannot wait for the end. It works on a thread of its own, so that a slow state partition does
//! not hold up the gate.

use std::{
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread,
    time::{Duration, Instant},
};

use super::Finding;
use crate::{
    evidence::Attempt,
    limits::{
        CHECKS_INTERVAL, LATE_SNAPSHOT_INTERVAL, SNAPSHOT_INTERVAL, SNAPSHOTS_PER_TRIAL, TOOL_DEADLINE,
    },
    machine::Machine,
};

/// The thread that keeps.
#[derive(Debug)]
pub struct Keeper {
    findings: Arc<Mutex<Vec<Finding>>>,
    stop: mpsc::Sender<()>,
    stopped: mpsc::Receiver<()>,
}

impl Keeper {
    /// Begins at once. Without a thread there is no keeper, and the gate goes on.
    #[must_use]
    pub fn start(attempt: Attempt, machine: Arc<dyn Machine>) -> Option<Self> {
        let findings = Arc::new(Mutex::new(Vec::new()));
        let (stop, must_stop) = mpsc::channel();
        let (has_stopped, stopped) = mpsc::channel();
        let known = Arc::clone(&findings);
        let work = move || {
            let began = Instant::now();
            let (mut kept_journal, mut kept, mut next_journal) = (Vec::new(), Vec::new(), Duration::ZERO);
            loop {
                let journal_is_due = began.elapsed() >= next_journal;
                let findings = known.lock().unwrap_or_else(PoisonError::into_inner).clone();
                // A file that did not change is not written again: the state partition may be flash memory. What cannot be written
                // now is tried again with the next snapshot.
                if findings != kept && (journal_is_due || !stand_alike(&findings, &kept)) {
                    let _ = attempt.keep_checks(&findings);
                    kept = findings;
                }
                if journal_is_due {
                    let journal = machine.journal();
                    if journal != kept_journal {
                        let _ = attempt.keep_journal(&journal);
                        kept_journal = journal;
                    }
                    next_journal = began.elapsed() + pause(began.elapsed());
                }
                match must_stop.recv_timeout(CHECKS_INTERVAL) {
                    Err(mpsc::RecvTimeoutError::Timeout) => (),
                    Ok(()) | Err(mpsc::RecvTimeoutError::Disconnected) => break,
                }
            }
            let _ = has_stopped.send(());
        };
        thread::Builder::new().spawn(work).ok()?;
        Some(Self { findings, stop, stopped })
    }

    /// For the next snapshot.
    pub fn tell(&self, findings: &[Finding]) {
        let mut known = self.findings.lock().unwrap_or_else(PoisonError::into_inner);
        known.clear();
        known.extend_from_slice(findings);
    }

    /// Ends it, and waits for a snapshot that is under way: two must not write the same file.
    pub fn end(self) {
        let _ = self.stop.send(());
        let _ = self.stopped.recv_timeout(TOOL_DEADLINE.saturating_mul(2));
    }
}

/// Whether nobody has become healthy, or sick.
fn stand_alike(one: &[Finding], other: &[Finding]) -> bool {
    one.len() == other.len() && one.iter().zip(other).all(|(one, other)| one.state == other.state)
}

/// Until the next snapshot, of a trial that has been under way for so long.
fn pause(under_way: Duration) -> Duration {
    (under_way / SNAPSHOTS_PER_TRIAL).clamp(SNAPSHOT_INTERVAL, LATE_SNAPSHOT_INTERVAL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_soak_of_a_day_writes_a_few_hundred_snapshots() {
        let (mut time, mut snapshots) = (Duration::ZERO, 0);
        while time < Duration::from_secs(24 * 3600) {
            assert!(pause(time) <= (time / 20).max(SNAPSHOT_INTERVAL));
            time += pause(time);
            snapshots += 1;
        }
        assert!((280..480).contains(&snapshots), "{snapshots}");
        assert_eq!(pause(Duration::from_secs(299)), SNAPSHOT_INTERVAL);
    }
}
