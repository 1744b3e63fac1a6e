//! The watchdog: started as early as its driver is there, kept alive only while early boot makes progress, left running for systemd.
//!
//! Source: `Documentation/watchdog/watchdog-api.rst` of Linux. The device that is opened is `watchdog0`, which is the one that
//! systemd opens later. It promises that nothing here waits: a machine without a watchdog boots as well.

use std::{
    cell::Cell,
    fs::{File, OpenOptions},
    time::Instant,
};

use crate::{
    console,
    limits::{ALIVE_EVERY, WATCHDOG_SECONDS},
    linux,
};

const DEVICE: &str = "/dev/watchdog0";
/// The module of the watchdog that the kernel plays itself.
pub const SOFTWARE: &str = "softdog";
/// Drivers whose name is another than what they call themselves.
const NAMES: [(&str, &str); 3] =
    [("i6300ESB timer", "i6300esb"), ("Software Watchdog", SOFTWARE), ("SP5100 TCO timer", "sp5100_tco")];

/// The opened watchdog, or none. Dropping it does not stop it: the magic close is never written.
#[derive(Debug, Default)]
pub struct Watchdog(Option<Running>);

#[derive(Debug)]
struct Running {
    device: File,
    name: String,
    last_sign: Cell<Option<Instant>>,
}

impl Watchdog {
    /// Starts the watchdog if it is there by now and does not run yet.
    pub fn start(&mut self) {
        if self.0.is_some() {
            return;
        }
        let Ok(device) = OpenOptions::new().write(true).open(DEVICE) else { return };
        let info = linux::watchdog_info(&device).unwrap_or_default();
        let name = driver_of(&info.identity());
        match linux::set_watchdog_timeout(&device, WATCHDOG_SECONDS) {
            Ok(()) => console::note(&format!("watchdog {name}: {WATCHDOG_SECONDS} s")),
            Err(error) => console::warn(&format!("watchdog {name} keeps its own timeout: {error}")),
        }
        if name == SOFTWARE {
            console::warn(
                "no hardware watchdog: softdog catches programs that hang, not a kernel that hangs",
            );
        }
        if !info.stays_on_when_closed() {
            console::warn(&format!("watchdog {name} pauses while it is handed to the system"));
        }
        self.0 = Some(Running { device, name, last_sign: Cell::new(None) });
    }

    /// The driver that runs it.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.0.as_ref().map(|running| running.name.as_str())
    }

    /// Puts the bite off. To be called where a step has come further, never by the clock alone.
    pub fn alive(&self) {
        let Some(running) = &self.0 else { return };
        if running.last_sign.get().is_some_and(|last| last.elapsed() < ALIVE_EVERY) {
            return;
        }
        running.last_sign.set(Some(Instant::now()));
        if let Err(error) = linux::keep_watchdog_alive(&running.device) {
            console::warn(&format!("watchdog {} does not listen: {error}", running.name));
        }
    }
}

fn driver_of(identity: &str) -> String {
    let known = NAMES.iter().find(|(says, _)| *says == identity).map(|(_, driver)| *driver);
    known.unwrap_or(if identity.is_empty() { "unknown" } else { identity }).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drivers_have_the_names_of_their_modules() {
        for (identity, name) in [
            ("i6300ESB timer", "i6300esb"),
            ("iTCO_wdt", "iTCO_wdt"),
            ("Software Watchdog", "softdog"),
            ("", "unknown"),
        ] {
            assert_eq!(driver_of(identity), name);
        }
        assert_eq!(Watchdog::default().name(), None);
    }
}
