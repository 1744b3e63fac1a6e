//! The scenarios: each a sentence about what the machine must do, played with real firmware.
//!
//! A scenario knows its stage and nothing else; it leaves nothing behind but the logs of its run.

mod beginnings;
mod cuts;
mod fallbacks;
mod health;
mod integrity;
mod power;
mod refusals;
mod secure;
pub mod table;
mod watchdogs;

use std::time::Duration;

use bank_format::loader::Kind;

use crate::{
    error::{Error, Result},
    firmware::Firmware,
    hardware::{Hardware, Watchdog},
    profile::{Profile, Services, Signed},
    stage::{Setting, Stage},
    workshop::Workshop,
};

/// A scenario.
#[derive(Debug, Clone, Copy)]
pub struct Scenario {
    /// Its name on the command line and among the tests.
    pub name: &'static str,
    /// What it shows, in one line.
    pub shows: &'static str,
    /// On what it is played.
    pub setting: Setting,
    play: fn(&mut Stage) -> Result<()>,
}

/// All of them.
pub const ALL: &[Scenario] = &[
    usual(
        "unhealthy_update_falls_back",
        "a release whose health check fails is left again; status names the check",
        fallbacks::unhealthy_update_falls_back,
    ),
    usual(
        "kernel_that_panics_falls_back",
        "a release whose kernel panics uses up its one try; the firmware itself falls back",
        fallbacks::kernel_that_panics_falls_back,
    ),
    usual(
        "flipped_bit_in_root_falls_back",
        "one bit of the written root image rots before the trial; the trial ends in the initrd",
        fallbacks::flipped_bit_in_root_falls_back,
    ),
    usual(
        "tampered_bundle_is_refused_before_the_first_write",
        "a flipped bit in the manifest is refused and bank B stays as it was, byte for byte",
        refusals::tampered_bundle_is_refused_before_the_first_write,
    ),
    usual(
        "tampered_frame_is_never_activated",
        "a flipped bit in a frame is refused, nothing is armed, and the good bundle installs afterwards",
        refusals::tampered_frame_is_never_activated,
    ),
    usual(
        "wrong_key_is_refused",
        "a bundle signed with unknown keys is refused",
        refusals::wrong_key_is_refused,
    ),
    usual(
        "wrong_compatible_is_refused",
        "a bundle for another device is refused",
        refusals::wrong_compatible_is_refused,
    ),
    usual(
        "below_the_floor_is_refused",
        "a properly signed but older release is refused",
        refusals::below_the_floor_is_refused,
    ),
    usual(
        "power_cut_during_write_then_same_command_finishes",
        "QEMU is killed in the middle of an install; status names it, the same command finishes it",
        power::power_cut_during_write_then_same_command_finishes,
    ),
    usual(
        "last_words_of_a_panic_are_kept",
        "the kernel's log of a trial that panicked is shown by the next good boot, and the firmware's store is empty again",
        fallbacks::last_words_of_a_panic_are_kept,
    ),
    usual(
        "rot_under_a_running_system_restarts_into_the_other_bank",
        "a block of the running root rots: reading it restarts into the other bank, and wrong data is never served",
        integrity::rot_under_a_running_system_restarts_into_the_other_bank,
    ),
    usual(
        "audit_finds_a_flipped_bit",
        "updater audit --passive says whether the other bank is what was installed",
        integrity::audit_finds_a_flipped_bit,
    ),
    Scenario {
        name: "every_kind_of_check_is_made",
        shows: "a release with every kind of check, a soak, a unit before boot-complete.target and an update source is confirmed",
        setting: WHOLE,
        play: health::every_kind_of_check_is_made,
    },
    Scenario {
        name: "hang_ends_by_the_chip_set",
        shows: "the watchdog of the chip set ends a hang",
        setting: with(Watchdog::Tco),
        play: watchdogs::hang_ends_by_the_chip_set,
    },
    Scenario {
        name: "hang_ends_by_softdog",
        shows: "without a watchdog device softdog ends a hang of user space, and console and status say what it cannot do",
        setting: with(Watchdog::None),
        play: watchdogs::hang_ends_by_softdog,
    },
    Scenario {
        name: "signed_system_boots_and_updates",
        shows: "under Secure Boot a signed system boots, updates and is confirmed",
        setting: SECURE,
        play: secure::signed_system_boots_and_updates,
    },
    Scenario {
        name: "unsigned_kernel_image_is_refused_by_firmware",
        shows: "under Secure Boot an installed image that is not signed falls back by the firmware's refusal",
        setting: SECURE,
        play: secure::unsigned_kernel_image_is_refused_by_firmware,
    },
    Scenario {
        name: "altered_kernel_image_is_refused_by_firmware",
        shows: "under Secure Boot a signed image with one flipped bit falls back by the firmware's refusal",
        setting: SECURE,
        play: secure::altered_kernel_image_is_refused_by_firmware,
    },
    Scenario {
        name: "unsigned_kernel_image_under_systemd_boot_falls_back",
        shows: "under Secure Boot systemd-boot is started again when firmware refuses the image that it asked for",
        setting: Setting { profile: Profile { kind: Kind::SystemdBoot, ..SECURE.profile }, ..SECURE },
        play: secure::unsigned_kernel_image_under_systemd_boot_falls_back,
    },
];

/// As the usual one, with another watchdog.
const fn with(watchdog: Watchdog) -> Setting {
    Setting { hardware: Hardware { watchdog, ..Hardware::USUAL }, ..Setting::USUAL }
}

/// With everything that a device runs.
const WHOLE: Setting =
    Setting { profile: Profile { services: Services::All, ..Setting::USUAL.profile }, ..Setting::USUAL };

/// Secure Boot, on what it is signed for, and with everything that a device runs.
const SECURE: Setting = Setting {
    hardware: Hardware { firmware: Firmware::SecureUefi, ..Hardware::USUAL },
    profile: Profile { signed: Signed::WithTestKey, services: Services::All, ..Setting::USUAL.profile },
};

const fn usual(name: &'static str, shows: &'static str, play: fn(&mut Stage) -> Result<()>) -> Scenario {
    Scenario { name, shows, setting: Setting::USUAL, play }
}

/// The scenario of this name.
pub fn by_name(name: &str) -> Result<&'static Scenario> {
    ALL.iter()
        .find(|scenario| scenario.name == name)
        .ok_or_else(|| Error::NoScenario { name: name.to_owned() })
}

impl Scenario {
    /// Plays it on a stage of its own; gives the time on stage.
    pub fn play(&self) -> Result<Duration> {
        let mut stage = Stage::set(Workshop::open()?, self.name, self.setting)?;
        stage.tell(self.shows);
        (self.play)(&mut stage)?;
        Ok(stage.elapsed())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_unique_and_found() {
        let names: BTreeSet<_> = ALL.iter().map(|scenario| scenario.name).collect();
        assert_eq!(names.len(), ALL.len());
        for name in names {
            assert_eq!(by_name(name).unwrap().name, name);
        }
        assert!(matches!(by_name("nothing"), Err(Error::NoScenario { .. })));
    }
}
