//! The scenarios: each a sentence about what the machine must do, played with real firmware.
//!
//! A scenario knows its stage and nothing else; it leaves nothing behind but the logs of its run.

mod fallbacks;
mod power;
mod refusals;
mod updates;

use crate::{
    error::{Error, Result},
    stage::Stage,
    workshop::Workshop,
};

/// A scenario.
#[derive(Debug, Clone, Copy)]
pub struct Scenario {
    /// Its name on the command line and among the tests.
    pub name: &'static str,
    /// What it shows, in one line.
    pub shows: &'static str,
    play: fn(&mut Stage) -> Result<()>,
}

/// All of them.
pub const ALL: &[Scenario] = &[
    Scenario {
        name: "first_boot",
        shows: "a factory disk boots, founds its record on bank A and is confirmed",
        play: updates::first_boot,
    },
    Scenario {
        name: "good_update_confirmed",
        shows: "an update over HTTP goes into bank B, boots on trial, is confirmed, and stays after another reboot",
        play: updates::good_update_confirmed,
    },
    Scenario {
        name: "rollback_on_request",
        shows: "after a confirmed update, rollback brings the old release back",
        play: updates::rollback_on_request,
    },
    Scenario {
        name: "unhealthy_update_falls_back",
        shows: "a release whose health check fails is left again; status names the check",
        play: fallbacks::unhealthy_update_falls_back,
    },
    Scenario {
        name: "kernel_that_panics_falls_back",
        shows: "a release whose kernel panics uses up its one try; the firmware itself falls back",
        play: fallbacks::kernel_that_panics_falls_back,
    },
    Scenario {
        name: "flipped_bit_in_root_falls_back",
        shows: "one bit of the written root image rots before the trial; the trial ends in the initrd",
        play: fallbacks::flipped_bit_in_root_falls_back,
    },
    Scenario {
        name: "firmware_that_forgets_is_sent_back",
        shows: "the firmware loses all its variables and starts the wrong bank; the initrd restores them and sends it back",
        play: fallbacks::firmware_that_forgets_is_sent_back,
    },
    Scenario {
        name: "tampered_bundle_is_refused_before_the_first_write",
        shows: "a flipped bit in the manifest is refused and bank B stays as it was, byte for byte",
        play: refusals::tampered_bundle_is_refused_before_the_first_write,
    },
    Scenario {
        name: "tampered_frame_is_never_activated",
        shows: "a flipped bit in a frame is refused, nothing is armed, and the good bundle installs afterwards",
        play: refusals::tampered_frame_is_never_activated,
    },
    Scenario {
        name: "wrong_key_is_refused",
        shows: "a bundle signed with unknown keys is refused",
        play: refusals::wrong_key_is_refused,
    },
    Scenario {
        name: "wrong_compatible_is_refused",
        shows: "a bundle for another device is refused",
        play: refusals::wrong_compatible_is_refused,
    },
    Scenario {
        name: "below_the_floor_is_refused",
        shows: "a properly signed but older release is refused",
        play: refusals::below_the_floor_is_refused,
    },
    Scenario {
        name: "power_cut_during_write_then_same_command_finishes",
        shows: "QEMU is killed in the middle of an install; status names it, the same command finishes it",
        play: power::power_cut_during_write_then_same_command_finishes,
    },
];

/// The scenario of this name.
pub fn by_name(name: &str) -> Result<&'static Scenario> {
    ALL.iter()
        .find(|scenario| scenario.name == name)
        .ok_or_else(|| Error::NoScenario { name: name.to_owned() })
}

impl Scenario {
    /// Plays it on a stage of its own.
    pub fn play(&self) -> Result<()> {
        let mut stage = Stage::set(Workshop::open()?, self.name)?;
        stage.tell(self.shows);
        (self.play)(&mut stage)
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
