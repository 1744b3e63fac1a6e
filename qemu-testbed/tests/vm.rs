//! The scenarios as tests: `cargo test -p qemu-testbed --test vm` plays them all.
//!
//! Each is a test of its own, so that every runner can pick and repeat them; how many machines run at a time is decided
//! by locks (`slots`), not by the runner. What a scenario tells is shown when it fails.

use std::collections::BTreeSet;

use qemu_testbed::scenarios;

mod told;

use told::{Told, told};

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
    unhealthy_update_falls_back,
    kernel_that_panics_falls_back,
    flipped_bit_in_root_falls_back,
    tampered_bundle_is_refused_before_the_first_write,
    tampered_frame_is_never_activated,
    wrong_key_is_refused,
    wrong_compatible_is_refused,
    below_the_floor_is_refused,
    power_cut_during_write_then_same_command_finishes,
    last_words_of_a_panic_are_kept,
    rot_under_a_running_system_restarts_into_the_other_bank,
    audit_finds_a_flipped_bit,
    every_kind_of_check_is_made,
    hang_ends_by_the_chip_set,
    hang_ends_by_softdog,
    signed_system_boots_and_updates,
    unsigned_kernel_image_is_refused_by_firmware,
    altered_kernel_image_is_refused_by_firmware,
    unsigned_kernel_image_under_systemd_boot_falls_back,
);

fn play(name: &str) -> Result<(), Told> {
    told(scenarios::by_name(name).and_then(scenarios::Scenario::play))
}

/// Rows of the table of all boot loaders: these with each of them, and all of them with `qemu-testbed run --all`.
macro_rules! rows_as_tests {
    ($($module:ident: $loader:expr $(, and $further:ident)*);+ $(;)?) => {
        $(
            mod $module {
                use qemu_testbed::{error::Error, loader::Loader, scenarios::table};

                rows_as_tests!(@rows $loader; first_boot, good_trial, trial_panics, trial_hangs_early, cut_while_arming);
                $(rows_as_tests!(@rows $loader; $further);)*

                fn play(name: &str, loader: Loader) -> Result<(), super::Told> {
                    let row = boot_hooks::scenarios::by_name(name)
                        .ok_or_else(|| Error::NoScenario { name: name.to_owned() });
                    super::told(row.and_then(|row| table::play(row, loader)))
                }
            }
        )+
    };
    (@rows $loader:expr; $($name:ident),+) => {
        $(
            #[test]
            fn $name() -> Result<(), super::Told> {
                play(stringify!($name), $loader)
            }
        )+
    };
}

rows_as_tests!(
    efi: Loader::Efi, and rollback_on_request, and loader_state_lost;
    systemd_boot: Loader::SystemdBoot;
    grub_efi: Loader::GrubEfi;
    grub_bios: Loader::GrubBios;
);
