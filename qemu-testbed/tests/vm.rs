//! The scenarios as tests: `cargo test -p qemu-testbed --test vm` plays them all.
//!
//! Each is a test of its own, so that every runner can pick and repeat them; how many machines run at a time is decided
//! by locks (`slots`), not by the runner. What a scenario tells is shown when it fails.

use std::collections::BTreeSet;

use qemu_testbed::scenarios;

macro_rules! scenarios_as_tests {
    ($($name:ident),+ $(,)?) => {
        $(
            #[test]
            fn $name() -> Result<(), Told> {
                play(stringify!($name))
            }
        )+

        #[test]
        fn every_scenario_is_a_test() {
            let tests = BTreeSet::from([$(stringify!($name)),+]);
            let scenarios: BTreeSet<_> = scenarios::ALL.iter().map(|scenario| scenario.name).collect();
            assert_eq!(tests, scenarios);
        }
    };
}

scenarios_as_tests!(
    first_boot,
    good_update_confirmed,
    rollback_on_request,
    unhealthy_update_falls_back,
    kernel_that_panics_falls_back,
    flipped_bit_in_root_falls_back,
    firmware_that_forgets_is_sent_back,
    tampered_bundle_is_refused_before_the_first_write,
    tampered_frame_is_never_activated,
    wrong_key_is_refused,
    wrong_compatible_is_refused,
    below_the_floor_is_refused,
    power_cut_during_write_then_same_command_finishes,
);

fn play(name: &str) -> Result<(), Told> {
    scenarios::by_name(name).and_then(scenarios::Scenario::play).map_err(|error| {
        let mut text = error.to_string();
        let mut cause = std::error::Error::source(&error);
        while let Some(error) = cause {
            text.push_str(&format!("\n  because: {error}"));
            cause = error.source();
        }
        Told(text)
    })
}

/// An error as a test runner shows it: in words.
struct Told(String);

impl std::fmt::Debug for Told {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}
