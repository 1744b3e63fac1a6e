//! The health gate: decides on a trial boot whether it may stay.
//!
//! Each look at a check runs on a thread of its own, which is not waited for longer than it was given: a check that is stuck fails,
//! and holds up neither the others nor the gate. [`Watch`] hears of every step, and passes it on to the service manager.

use std::{
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};

use bank_format::record::reason_line;
use serde::{Deserialize, Serialize};

use crate::{
    device::{Device, NoWork},
    engine::{Event, State},
    error::{Error, Result},
    evidence::Attempt,
    health::{
        Plan, Planned, bare_plan,
        look::Eye,
        rounds::{Mode, Rounds, Standing, Track, Trouble},
    },
    limits::{LOOK_GRACE, MAX_CHECK_OUTPUT_BYTES, TOOL_DEADLINE, WATCH_INTERVAL},
    machine::Machine,
    ports::AfterReboot,
};

mod keeper;

pub use keeper::Keeper;

/// How one check went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// Which check.
    pub check: String,
    /// Of which kind: a word of the declaration, or `built-in`.
    pub kind: String,
    /// How it stands.
    pub state: Standing,
    /// Why it is not healthy.
    pub why: Option<String>,
    /// How often it was looked at.
    pub looks: u32,
    /// From the beginning to the end of its newest look.
    pub milliseconds: u64,
    /// What a program or a server said, where it was not healthy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<String>,
}

impl Finding {
    fn of(check: &Planned, track: &Track) -> Self {
        let output = track.trouble.as_ref().map(|trouble| in_bounds(&harmless(&trouble.output)));
        Self {
            check: check.name.clone(),
            kind: check.subject.word().into(),
            state: track.standing,
            why: track.trouble.as_ref().map(|trouble| reason_line(&harmless(&trouble.why))),
            looks: track.looks,
            milliseconds: in_milliseconds(track.took),
            output: output.filter(|output| !output.is_empty()),
        }
    }

    /// Of a step that is made once.
    #[must_use]
    pub fn of_step(check: &str, result: Result<(), String>, took: Duration) -> Self {
        Self {
            check: check.into(),
            kind: "built-in".into(),
            state: if result.is_ok() { Standing::Healthy } else { Standing::Failed },
            why: result.err().map(|why| reason_line(&harmless(&why))),
            looks: 1,
            milliseconds: in_milliseconds(took),
            output: None,
        }
    }

    /// For the history, which has a line for it and no page.
    #[must_use]
    pub fn in_short(&self) -> Self {
        Self { output: None, ..self.clone() }
    }
}

fn in_milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Output is shown on terminals later: what could steer one is taken out.
#[must_use]
pub fn harmless(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && !matches!(c, '\n' | '\t') { '\u{fffd}' } else { c }).collect()
}

/// What was no text has become longer.
fn in_bounds(text: &str) -> String {
    let mut bytes = 0;
    let mut fits = |c: &char| {
        bytes += c.len_utf8();
        bytes <= MAX_CHECK_OUTPUT_BYTES
    };
    text.chars().take_while(&mut fits).collect()
}

/// Whether the system is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// Until it is up and `boot-complete.target` is reached, each at most so long.
    UntilUp(Duration),
    /// It is looked at as it is.
    No,
}

/// Who hears how the gate gets on, at least every few seconds.
pub trait Watch {
    /// A look has ended, or time has passed in which nothing was overdue.
    fn progress(&mut self, findings: &[Finding], words: &str);
}

/// Makes all checks. A plan that cannot be read is a check that failed.
pub fn examine(
    eye: &Arc<Eye>,
    plan: Result<Plan>,
    wait: Wait,
    mode: Mode,
    watch: &mut dyn Watch,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Wait::UntilUp(limit) = wait {
        let machine = Arc::clone(&eye.machine);
        let up = step("system is up", limit, watch, &findings, move || machine.wait_until_up(limit));
        let is_up = up.state == Standing::Healthy;
        findings.push(up);
        if is_up {
            let machine = Arc::clone(&eye.machine);
            let reached = move || machine.complete_boot(limit);
            findings.push(step("boot-complete.target", limit, watch, &findings, reached));
        }
    }
    let plan = plan.unwrap_or_else(|error| {
        findings.push(Finding::of_step("health checks can be read", Err(error.line()), Duration::ZERO));
        bare_plan()
    });
    let mode = match mode {
        Mode::Until { soak } => Mode::Until { soak: soak.max(plan.soak) },
        Mode::Once => Mode::Once,
    };
    make_rounds(eye, &plan, mode, findings, watch)
}

/// One step that is waited for, and given up when it is overdue.
fn step(
    name: &str,
    limit: Duration,
    watch: &mut dyn Watch,
    findings: &[Finding],
    work: impl FnOnce() -> Result<(), String> + Send + 'static,
) -> Finding {
    let start = Instant::now();
    let (tell, told) = mpsc::channel();
    let begun = thread::Builder::new().spawn(move || {
        // Nobody listens any more when it was given up.
        let _ = tell.send(work());
    });
    if let Err(error) = begun {
        return Finding::of_step(name, Err(format!("cannot be begun: {error}")), start.elapsed());
    }
    // The tools that are asked before and after have deadlines of their own.
    let end = limit.saturating_add(TOOL_DEADLINE.saturating_mul(2)).saturating_add(LOOK_GRACE);
    loop {
        watch.progress(findings, &format!("waiting: {name}"));
        match told.recv_timeout(WATCH_INTERVAL) {
            Ok(result) => return Finding::of_step(name, result, start.elapsed()),
            Err(mpsc::RecvTimeoutError::Timeout) if start.elapsed() < end => (),
            Err(mpsc::RecvTimeoutError::Timeout | mpsc::RecvTimeoutError::Disconnected) => {
                let why = format!("no answer in {} s", start.elapsed().as_secs());
                return Finding::of_step(name, Err(why), start.elapsed());
            }
        }
    }
}

fn make_rounds(
    eye: &Arc<Eye>,
    plan: &Plan,
    mode: Mode,
    before: Vec<Finding>,
    watch: &mut dyn Watch,
) -> Vec<Finding> {
    let names: Vec<&str> = plan.checks.iter().map(|check| check.name.as_str()).collect();
    let start = Instant::now();
    let mut rounds = Rounds::new(plan.checks.iter().map(|check| check.pace), mode, Duration::ZERO);
    if reason(&before).is_some() && mode != Mode::Once {
        rounds.doom(Duration::ZERO);
    }
    let (tell, told) = mpsc::channel();
    loop {
        for (index, limit) in rounds.due(start.elapsed()) {
            let Some(check) = plan.checks.get(index) else { continue };
            let (eye, subject, tell) = (Arc::clone(eye), check.subject.clone(), tell.clone());
            let begun = thread::Builder::new().spawn(move || {
                // Nobody listens any more when it was given up.
                let _ = tell.send((index, eye.look(&subject, limit)));
            });
            if let Err(error) = begun {
                let trouble = Trouble::new(format!("cannot be begun: {error}"));
                rounds.ended(index, Err(trouble), start.elapsed());
            }
        }
        rounds.tick(start.elapsed());
        let tracks = plan.checks.iter().zip(rounds.tracks());
        let findings: Vec<_> =
            before.iter().cloned().chain(tracks.map(|(check, track)| Finding::of(check, track))).collect();
        watch.progress(&findings, &rounds.words(&names, start.elapsed()));
        if rounds.is_over() {
            return findings;
        }
        if let Ok((index, result)) = told.recv_timeout(rounds.pause(start.elapsed())) {
            rounds.ended(index, result, start.elapsed());
        }
    }
}

/// The reason in one line, if a check failed.
#[must_use]
pub fn reason(findings: &[Finding]) -> Option<String> {
    let failed = findings.iter().filter(|finding| finding.state == Standing::Failed);
    let all: Vec<String> = failed
        .map(|finding| match &finding.why {
            Some(why) => format!("{}: {why}", finding.check),
            None => finding.check.clone(),
        })
        .collect();
    if all.is_empty() { None } else { Some(reason_line(&all.join("; "))) }
}

/// What the gate did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// This boot is no trial.
    NoTrial,
    /// The trial is confirmed.
    Confirmed,
    /// The trial is rejected, and the machine goes down.
    Rejected {
        /// Why.
        reason: String,
        /// What comes after the reboot.
        after: Option<AfterReboot>,
    },
}

/// Carries out what the findings mean. The device must have been opened under the lock: a person may have decided meanwhile.
/// Evidence that cannot be kept is no reason to stay in a sick system.
pub fn decide(
    device: &mut Device,
    machine: &dyn Machine,
    attempt: Option<&Attempt>,
    findings: &[Finding],
) -> Result<Verdict> {
    let reason = match device.engine().state() {
        State::Trial(_) => reason(findings),
        // It was found healthy before.
        State::Healthy(_) => None,
        State::Idle
        | State::Confirmed
        | State::FellBack
        | State::Installing(_)
        | State::Installed(_)
        | State::Armed(_)
        | State::Rejected(_)
        | State::Unsettled(_) => return Ok(Verdict::NoTrial),
    };
    device.note_checks(findings.iter().map(Finding::in_short).collect());
    let Some(reason) = reason else {
        device.handle(Event::Confirm, &mut NoWork)?;
        let _ = attempt.map(Attempt::discard);
        return Ok(Verdict::Confirmed);
    };
    let kept = attempt.filter(|attempt| {
        let _ = attempt.keep_checks(findings);
        let _ = attempt.keep_journal(&machine.journal());
        attempt.keep_reason(&reason).is_ok()
    });
    let evidence = kept.map(|attempt| attempt.directory().display().to_string());
    let after = device.handle(Event::GateFailed { reason: reason.clone(), evidence }, &mut NoWork)?;
    Ok(Verdict::Rejected { reason, after })
}

/// For `health`: the findings as an error.
pub fn healthy(findings: &[Finding]) -> Result<()> {
    match reason(findings) {
        None => Ok(()),
        Some(reason) => Err(Error::Unhealthy { reason }),
    }
}
