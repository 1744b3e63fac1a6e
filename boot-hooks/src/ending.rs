//! How a boot ends that does not end in the root: a reset, at once or after a pause, or the stated end with its message.
//!
//! It promises that the machine is never left standing and never spins. The watchdog is kept alive in a pause, because a pause is meant;
//! in everything else that takes too long here it bites.

use std::{
    convert::Infallible,
    panic::catch_unwind,
    process::ExitCode,
    time::{Duration, Instant},
};

use bank_format::loader::Recovery;

use crate::{
    console,
    ledger::Counting,
    limits::{PAUSE_STEP, RECOVERY_PAUSE, STOP_MESSAGE_EVERY, STOP_PAUSE, UNCOUNTED_PAUSE},
    linux::{self, uevent::Events},
    watchdog::Watchdog,
};

/// An end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// This boot is over, for this reason.
    Reset(String, Counting),
    /// No bank can be booted.
    Stop(String, Recovery),
}

impl End {
    /// How long it takes, and what is said about it.
    fn plan(&self) -> (Duration, String) {
        match self {
            Self::Reset(reason, Counting::Counted) => (Duration::ZERO, format!("{reason}; resetting")),
            Self::Reset(reason, Counting::Uncounted) => {
                let pause = UNCOUNTED_PAUSE;
                (pause, format!("{reason}; resetting in {} s, as nothing counts this", pause.as_secs()))
            }
            Self::Stop(reason, Recovery::Next) => {
                let pause = RECOVERY_PAUSE;
                (pause, format!("no bank can be booted: {reason}; recovery starts in {} s", pause.as_secs()))
            }
            Self::Stop(reason, Recovery::NotConfigured) => {
                let minutes = STOP_PAUSE.as_secs() / 60;
                (
                    STOP_PAUSE,
                    format!("no bank can be booted: {reason}; trying once more in {minutes} minutes"),
                )
            }
        }
    }

    /// Ends the machine. Returns only when the kernel refuses.
    pub fn carry_out(&self, watchdog: &Watchdog) -> ExitCode {
        let _panic_on_the_last_line = catch_unwind(std::panic::AssertUnwindSafe(|| {
            let (pause, message) = self.plan();
            say_for(pause, &message, watchdog);
        }));
        nix::unistd::sync();
        let refused: std::io::Result<Infallible> = linux::restart();
        // Process 1 that ends is a kernel panic, which resets where `panic=` is on the command line: the last way out.
        let Err(error) = refused;
        console::fail(&format!("the kernel does not end the machine: {error}"));
        ExitCode::FAILURE
    }
}

fn say_for(pause: Duration, message: &str, watchdog: &Watchdog) {
    console::fail(message);
    let started = Instant::now();
    let mut said = 1;
    while let Some(left) = pause.checked_sub(started.elapsed()).filter(|left| !left.is_zero()) {
        watchdog.alive();
        Events::pause(left.min(PAUSE_STEP));
        if started.elapsed() >= STOP_MESSAGE_EVERY.saturating_mul(said) && started.elapsed() < pause {
            console::fail(message);
            said += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_end_has_its_pause_and_its_words() {
        for (end, pause, words) in [
            (End::Reset("x".into(), Counting::Counted), 0, "x; resetting"),
            (End::Reset("x".into(), Counting::Uncounted), 30, "x; resetting in 30 s, as nothing counts this"),
            (End::Stop("x".into(), Recovery::Next), 10, "no bank can be booted: x; recovery starts in 10 s"),
            (
                End::Stop("x".into(), Recovery::NotConfigured),
                300,
                "no bank can be booted: x; trying once more in 5 minutes",
            ),
        ] {
            assert_eq!(end.plan(), (Duration::from_secs(pause), words.to_owned()));
        }
    }
}
