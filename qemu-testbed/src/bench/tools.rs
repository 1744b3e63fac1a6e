//! Who is measured, where, and with which lines. The lines are what a user of the tool would type (see [`super::line`]).
//!
//! A tool that is measured in more than one way has a row for each. Every `apply` ends in the target bank, and a `sync` of the
//! bank is added to each.

mod table;

pub use table::TOOLS;

use crate::bench::banks::Before;

/// An update.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Case {
    /// v1 to v2: everything that a distribution's updates bring.
    Security,
    /// v1 to v3: one package.
    Package,
    /// v1 to v1: another version number, the same bytes.
    Unchanged,
    /// v1 to an image that has nothing in common with it.
    Major,
}

/// A way to install.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Loopback and disk as fast as they are.
    Fast,
    /// The link is held.
    SlowLink,
    /// The disk is held.
    SlowDisk,
}

/// What kind of tool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// Ours.
    Roro,
    /// Sends all.
    Whole,
    /// Sends pieces that the device does not have.
    Chunks,
    /// Sends the difference to one known image, which must lie on the device as it was.
    Patch,
}

/// What is checked on the way into the bank.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verifies {
    /// Each byte, against digests that came with the update.
    EveryByte,
    /// Nothing, or only the tool's own stream.
    Nothing,
}

/// What must stand around a tool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Setting {
    /// Nothing.
    Plain,
    /// A device that runs v1.
    RoroDevice,
    /// A device with other content, which has nothing to copy from.
    RoroFresh,
    /// Bus, service, slots with the indexes of v1. `adaptive` is a line in the manifest.
    Rauc {
        /// What the manifest asks for beyond the image.
        adaptive: &'static str,
        /// How bytes are counted.
        bytes: RaucBytes,
    },
    /// A signed archive around one file of the shelf.
    Swupdate {
        /// The file that goes in.
        image: &'static str,
        /// Lines of sw-description for it.
        description: &'static str,
    },
}

/// Where RAUC's bytes are seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RaucBytes {
    /// At the server.
    Http,
    /// At the loop device on which it mounts a bundle that lies there as a file: what streaming would fetch.
    Mounted,
}

/// A tool.
#[derive(Debug, Clone, Copy)]
pub struct Tool {
    /// Its name in all tables.
    pub name: &'static str,
    /// What kind.
    pub family: Family,
    /// What it checks.
    pub verifies: Verifies,
    /// What must stand around it.
    pub setting: Setting,
    /// The tool whose shelf it uses, where not its own.
    pub shares: Option<&'static str>,
    /// Lines that make what is served.
    pub make: &'static [&'static str],
    /// The file in which all of it lies.
    pub served: Option<&'static str>,
    /// Lines before the applies of an update, not measured.
    pub prepare: &'static [&'static str],
    /// Lines that apply it.
    pub apply: &'static [&'static str],
    /// The updates in which its bytes are counted.
    pub cases: &'static [Case],
    /// The ways in which its installs of v2 are timed.
    pub modes: &'static [Mode],
    /// What a reader must know.
    pub note: &'static str,
}

impl Case {
    /// All.
    pub const ALL: [Case; 4] = [Case::Security, Case::Package, Case::Unchanged, Case::Major];

    /// The name in tables and on the command line.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Case::Security => "v2",
            Case::Package => "v3",
            Case::Unchanged => "unchanged",
            Case::Major => "major",
        }
    }

    /// The version of the release.
    #[must_use]
    pub fn version(self) -> &'static str {
        match self {
            Case::Security => "1.1.0",
            Case::Package => "1.0.1",
            Case::Unchanged => "1.0.2",
            Case::Major => "2.0.0",
        }
    }
}

impl Mode {
    /// All.
    pub const ALL: [Mode; 3] = [Mode::Fast, Mode::SlowLink, Mode::SlowDisk];

    /// The name in tables and on the command line.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Mode::Fast => "fast",
            Mode::SlowLink => "slow-link",
            Mode::SlowDisk => "slow-disk",
        }
    }
}

impl Tool {
    /// What the target holds before an apply whose bytes are counted.
    #[must_use]
    pub fn before_wire(&self) -> Before {
        match self.setting {
            Setting::Plain | Setting::RoroDevice | Setting::Swupdate { .. } => Before::Wiped,
            // Its index of the slot must fit what the slot holds.
            Setting::Rauc { .. } => Before::Old,
            Setting::RoroFresh => Before::Noise,
        }
    }

    /// What the target holds before an install that is timed.
    #[must_use]
    pub fn before_install(&self) -> Before {
        match self.setting {
            Setting::Plain | Setting::RoroDevice | Setting::Swupdate { .. } | Setting::Rauc { .. } => {
                Before::Old
            }
            Setting::RoroFresh => Before::Noise,
        }
    }
}

/// The tool of this name.
#[must_use]
pub fn by_name(name: &str) -> Option<&'static Tool> {
    TOOLS.iter().find(|tool| tool.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_tool_stands_once_and_is_measured_somewhere() {
        for (number, tool) in TOOLS.iter().enumerate() {
            assert!(TOOLS[..number].iter().all(|earlier| earlier.name != tool.name), "{}", tool.name);
            assert!(!tool.cases.is_empty() || !tool.modes.is_empty(), "{}", tool.name);
        }
    }

    #[test]
    fn who_shares_a_shelf_makes_the_same() {
        for tool in TOOLS {
            let Some(other) = tool.shares else { continue };
            let other = by_name(other).unwrap();
            assert_eq!((tool.make, tool.served), (other.make, other.served), "{}", tool.name);
        }
    }
}
