//! The scenario table against simulated storage: every scenario with every loader, each a test of its own.

#![expect(clippy::panic, reason = "a suite that cannot set its stage has failed")]
#![expect(clippy::print_stdout, reason = "the number of states is what a reader of the log asks for")]

use bank_format::loader::Kind;
use boot_hooks::scenarios;
use tests::stage::{exceptions, play::play};

fn check(kind: Kind, name: &str) {
    let Some(scenario) = scenarios::by_name(name) else { panic!("no scenario {name}") };
    match play(kind, scenario) {
        Ok(tally) if tally.cuts > 0 => println!("{name}, {kind}: {} states after a power cut", tally.cuts),
        Ok(_) => (),
        Err(why) => panic!("{why}"),
    }
}

macro_rules! table {
    ($($loader:ident = $kind:expr),* ; $names:tt) => {
        $(table!(@loader $loader, $kind, $names);)*
    };
    (@loader $loader:ident, $kind:expr, [$($name:ident),* $(,)?]) => {
        mod $loader {
            $(#[test] fn $name() { super::check($kind, stringify!($name)); })*
            #[test]
            fn every_scenario_is_played() {
                let here = [$(stringify!($name)),*];
                let all: Vec<&str> = super::scenarios::ALL.iter().map(|scenario| scenario.name).collect();
                assert_eq!(here.as_slice(), all);
            }
        }
    };
}

table! {
    efi = bank_format::loader::Kind::Efi,
    systemd_boot = bank_format::loader::Kind::SystemdBoot,
    grub = bank_format::loader::Kind::Grub,
    u_boot = bank_format::loader::Kind::UBoot,
    tryboot = bank_format::loader::Kind::Tryboot;
    [
        first_boot, good_trial, trial_panics, trial_hangs_early, trial_hangs_late, trial_unhealthy, tries_are_used_up,
        cut_while_arming, cut_while_confirming, cut_while_falling_back, one_record_copy_corrupt, record_corrupt,
        one_loader_copy_corrupt, loader_state_lost, rollback_on_request, late_boot_image_rot, late_kernel_rot, late_root_rot,
        both_banks_bad, both_banks_bad_with_recovery, good_after_bad,
    ]
}

#[test]
fn every_exception_is_of_a_scenario_that_there_is() {
    for exception in exceptions::ALL {
        assert!(scenarios::by_name(exception.scenario).is_some(), "{exception:?}");
        assert!(!exception.because.is_empty());
    }
}
