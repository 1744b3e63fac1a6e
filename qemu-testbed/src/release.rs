//! The releases that scenarios play with: the good, the bad and the forged.

use std::fmt;

/// A release, or what pretends to be one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Release {
    /// 1.0.0, on the factory disk.
    Factory,
    /// 1.1.0: good, with a visible change.
    Good,
    /// 1.2.0: boots, and its health check fails.
    Unhealthy,
    /// 1.3.0: its kernel panics.
    Panicking,
    /// 1.4.0: hangs before the system's first process runs; nobody pets the watchdog.
    HangingEarly,
    /// 1.5.0: comes up, and then its first process stands still; nobody pets the watchdog.
    HangingLate,
    /// 1.6.0: comes up, and then its kernel panics.
    PanickingLate,
    /// 1.7.0: good, with every kind of check that it can pass, and a soak.
    Checked,
    /// 0.9.0: below the floor of a device that left the factory with 1.0.0.
    BelowFloor,
    /// 1.1.0 for another device.
    OtherDevice,
    /// 1.1.0 signed with keys that the device has never heard of.
    ForeignKeys,
    /// 1.1.0 with one flipped bit in its signed manifest.
    TamperedManifest,
    /// 1.1.0 with one flipped bit in the first of its frames.
    TamperedFrame,
}

/// How a release comes into being.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recipe {
    /// Built from an appliance file of `appliances/`.
    Build {
        /// File name without `.toml`.
        appliance: &'static str,
        /// The keys that sign it.
        keys: Keys,
    },
    /// A copy of the good release with one bit flipped.
    Flip(Place),
}

/// Whose keys sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keys {
    /// Ours: the device trusts them.
    Ours,
    /// Somebody else's.
    Foreign,
}

/// Where a bit is flipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In the manifest.
    Manifest,
    /// In the first frame.
    Frame,
}

impl Release {
    /// Every release.
    pub const ALL: [Release; 13] = [
        Release::Factory,
        Release::Good,
        Release::Unhealthy,
        Release::Panicking,
        Release::HangingEarly,
        Release::HangingLate,
        Release::PanickingLate,
        Release::Checked,
        Release::BelowFloor,
        Release::OtherDevice,
        Release::ForeignKeys,
        Release::TamperedManifest,
        Release::TamperedFrame,
    ];

    /// The version it claims.
    #[must_use]
    pub fn version(self) -> &'static str {
        match self {
            Release::Factory => "1.0.0",
            Release::Unhealthy => "1.2.0",
            Release::Panicking => "1.3.0",
            Release::HangingEarly => "1.4.0",
            Release::HangingLate => "1.5.0",
            Release::PanickingLate => "1.6.0",
            Release::Checked => "1.7.0",
            Release::BelowFloor => "0.9.0",
            Release::Good
            | Release::OtherDevice
            | Release::ForeignKeys
            | Release::TamperedManifest
            | Release::TamperedFrame => "1.1.0",
        }
    }

    /// A name for its files.
    #[must_use]
    pub fn file_stem(self) -> &'static str {
        match self {
            Release::Factory => "factory",
            Release::Good => "good",
            Release::Unhealthy => "unhealthy",
            Release::Panicking => "panicking",
            Release::HangingEarly => "hanging-early",
            Release::HangingLate => "hanging-late",
            Release::PanickingLate => "panicking-late",
            Release::Checked => "checked",
            Release::BelowFloor => "below-floor",
            Release::OtherDevice => "other-device",
            Release::ForeignKeys => "foreign-keys",
            Release::TamperedManifest => "tampered-manifest",
            Release::TamperedFrame => "tampered-frame",
        }
    }

    /// How it is made.
    #[must_use]
    pub fn recipe(self) -> Recipe {
        let ours = |appliance| Recipe::Build { appliance, keys: Keys::Ours };
        match self {
            Release::Factory | Release::BelowFloor => ours("testbed"),
            Release::Good => ours("good"),
            Release::Unhealthy => ours("unhealthy"),
            Release::Panicking => ours("panic"),
            Release::HangingEarly => ours("hang-early"),
            Release::HangingLate => ours("hang-late"),
            Release::PanickingLate => ours("panic-late"),
            Release::Checked => ours("checked"),
            Release::OtherDevice => ours("other-device"),
            Release::ForeignKeys => Recipe::Build { appliance: "good", keys: Keys::Foreign },
            Release::TamperedManifest => Recipe::Flip(Place::Manifest),
            Release::TamperedFrame => Recipe::Flip(Place::Frame),
        }
    }
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.version(), self.file_stem())
    }
}
