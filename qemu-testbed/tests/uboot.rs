//! The scenario table with the real U-Boot: `cargo test -p qemu-testbed --test uboot`.
//!
//! Each row is a test of its own; how many boards run at a time is decided by locks (`slots`).

use std::collections::BTreeSet;

use bank_format::Bank;
use boot_hooks::scenarios::{self, Damage, Finder, Scenario, State, Step};
use qemu_testbed::uboot;

mod told;

use told::{Told, told};

macro_rules! rows_as_tests {
    ($($name:ident),+ $(,)?) => {
        $(
            #[test]
            fn $name() -> Result<(), Told> {
                play(stringify!($name))
            }
        )+

        #[test]
        fn every_row_is_a_test() {
            let tests = BTreeSet::from([$(stringify!($name)),+]);
            let rows: BTreeSet<_> = scenarios::ALL.iter().map(|scenario| scenario.name).collect();
            assert_eq!(tests, rows);
        }
    };
}

rows_as_tests!(
    first_boot,
    good_trial,
    trial_panics,
    trial_hangs_early,
    trial_hangs_late,
    trial_unhealthy,
    tries_are_used_up,
    cut_while_arming,
    cut_while_confirming,
    cut_while_falling_back,
    one_record_copy_corrupt,
    record_corrupt,
    one_loader_copy_corrupt,
    loader_state_lost,
    rollback_on_request,
    late_boot_image_rot,
    late_kernel_rot,
    late_root_rot,
    both_banks_bad,
    both_banks_bad_with_recovery,
    only_root_rotten,
    only_root_rotten_with_recovery,
    good_after_bad,
);

#[test]
fn without_its_partition_a_bank_is_started_and_nothing_is_written() -> Result<(), Told> {
    told(uboot::play_without_its_partition())
}

/// No spare, and a kernel that dies before its initrd: nobody but U-Boot can count that.
const DEAD_KERNEL: &[Step] =
    &[Step::PowerOn, Step::PowerCut, Step::Damage(Damage::Kernel(Bank::A)), Step::PowerOn];

#[test]
fn a_kernel_that_never_comes_up_ends_in_a_stated_end_and_then_has_one_start_between_two_ends()
-> Result<(), Told> {
    let ends = [
        Step::Expect(State::Stopped(Finder::Loader)),
        Step::PowerCut,
        Step::PowerOn,
        Step::Expect(State::Stopped(Finder::Loader)),
    ];
    told(uboot::play(&Scenario {
        name: "dead_kernel",
        shows: "one start leads to the end again",
        tries: 1,
        recovery: false,
        steps: [DEAD_KERNEL, &ends].concat().leak(),
    }))
}

#[test]
fn a_kernel_that_never_comes_up_leads_to_recovery_where_there_is_one() -> Result<(), Told> {
    told(uboot::play(&Scenario {
        name: "dead_kernel_with_recovery",
        shows: "U-Boot runs the recovery command",
        tries: 1,
        recovery: true,
        steps: [DEAD_KERNEL, &[Step::Expect(State::Recovers(Finder::Loader))]].concat().leak(),
    }))
}

fn play(name: &str) -> Result<(), Told> {
    let scenario = scenarios::by_name(name).ok_or_else(|| Told(format!("the table has no row {name}")))?;
    told(uboot::play(scenario))
}
