//! The hardware watchdog, if there is one: started here, kept alive through the long steps, and left running for systemd.

use std::fs::{File, OpenOptions};

use crate::{console, limits::WATCHDOG_SECONDS, linux};

const DEVICE: &str = "/dev/watchdog";

/// The opened watchdog. Dropping it does not stop it: the magic close is never written.
#[derive(Debug, Default)]
pub struct Watchdog(Option<File>);

impl Watchdog {
    /// Starts the watchdog; a machine without one boots as well.
    #[must_use]
    pub fn start() -> Self {
        let Ok(file) = OpenOptions::new().write(true).open(DEVICE) else { return Self(None) };
        match linux::set_watchdog_timeout(&file, WATCHDOG_SECONDS) {
            Ok(()) => console::note(&format!("watchdog: {WATCHDOG_SECONDS} s")),
            Err(error) => console::warn(&format!("watchdog keeps its own timeout: {error}")),
        }
        Self(Some(file))
    }

    /// Puts the bite off.
    pub fn alive(&self) {
        if let Some(file) = &self.0
            && let Err(error) = linux::keep_watchdog_alive(file)
        {
            console::warn(&format!("watchdog does not listen: {error}"));
        }
    }
}
