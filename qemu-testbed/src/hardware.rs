//! What a machine is made of, beside its disk.

use std::path::Path;

use crate::firmware::Firmware;

/// The watchdog of a machine. When it bites, the machine resets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Watchdog {
    /// There is none, as on many boards.
    None,
    /// Intel 6300ESB, a PCI device.
    I6300Esb,
    /// The chip set's own (TCO of ICH9).
    Tco,
}

impl Watchdog {
    /// The name of its driver, as Linux has it.
    #[must_use]
    pub fn driver(self) -> Option<&'static str> {
        match self {
            Watchdog::None => None,
            Watchdog::I6300Esb => Some("i6300ESB"),
            Watchdog::Tco => Some("iTCO_wdt"),
        }
    }

    /// The QEMU options for it.
    #[must_use]
    pub fn options(self) -> Vec<String> {
        let further: &[&str] = match self {
            Watchdog::None => &[],
            Watchdog::I6300Esb => &["-global", "ICH9-LPC.noreboot=true", "-device", "i6300esb"],
            Watchdog::Tco => &["-global", "ICH9-LPC.noreboot=false"],
        };
        ["-watchdog-action", "reset"].iter().chain(further).map(|option| (*option).to_owned()).collect()
    }
}

/// A kind of machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hardware {
    /// What starts it.
    pub firmware: Firmware,
    /// What resets it when it hangs.
    pub watchdog: Watchdog,
}

impl Hardware {
    /// The QEMU options for it, with the firmware's variables in `vars`.
    #[must_use]
    pub fn options(self, vars: &Path) -> Vec<String> {
        let machine = match (self.watchdog, self.firmware) {
            // Older than the chip set's watchdog, whose driver would not notice that it is strapped off.
            (Watchdog::None, _) => "pc",
            // The variables may be written by system management mode only: without it nothing is secure about them.
            (_, Firmware::SecureUefi) => "q35,smm=on",
            (_, Firmware::Uefi | Firmware::Bios) => "q35",
        };
        let mut options = vec!["-machine".to_owned(), machine.to_owned()];
        options.extend(self.firmware.options(vars));
        options.extend(self.watchdog.options());
        options
    }

    /// UEFI and a watchdog: what most scenarios run on.
    pub const USUAL: Self = Self { firmware: Firmware::Uefi, watchdog: Watchdog::I6300Esb };
}
