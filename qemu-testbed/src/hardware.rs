//! What a machine is made of, beside its disk.

use crate::firmware::Firmware;

/// The watchdog of a machine. When it bites, the machine resets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Watchdog {
    /// There is none that works: the chip set's own one is strapped off, as on many boards.
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
        let strap = match self {
            Watchdog::None | Watchdog::I6300Esb => "ICH9-LPC.noreboot=true",
            Watchdog::Tco => "ICH9-LPC.noreboot=false",
        };
        let mut options = vec!["-watchdog-action", "reset", "-global", strap];
        if self == Watchdog::I6300Esb {
            options.extend(["-device", "i6300esb"]);
        }
        options.into_iter().map(str::to_owned).collect()
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
    /// UEFI and a watchdog: what most scenarios run on.
    pub const USUAL: Self = Self { firmware: Firmware::Uefi, watchdog: Watchdog::I6300Esb };
}
