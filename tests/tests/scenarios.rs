//! The scenario table against simulated storage: every scenario with every loader, each a test of its own.

#![expect(clippy::panic, reason = "a suite that cannot set its stage has failed")]
#![expect(clippy::print_stdout, reason = "the number of states is what a reader of the log asks for")]

use bank_format::{loader::Kind, record::Outcome};
use boot_hooks::scenarios;
use tests::{
    loaders::Recovery,
    stage::{Machine, Quiet, exceptions, play::play},
};

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
    tryboot = bank_format::loader::Kind::Tryboot,
    script = bank_format::loader::Kind::Script;
    [
        first_boot, good_trial, trial_panics, trial_hangs_early, trial_hangs_late, trial_unhealthy, tries_are_used_up,
        cut_while_arming, cut_while_confirming, cut_while_falling_back, one_record_copy_corrupt, record_corrupt,
        one_loader_copy_corrupt, loader_state_lost, rollback_on_request, late_boot_image_rot, late_kernel_rot, late_root_rot,
        both_banks_bad, both_banks_bad_with_recovery, only_root_rotten, only_root_rotten_with_recovery, good_after_bad,
    ]
}

#[test]
fn every_exception_is_of_a_scenario_that_there_is() {
    for exception in exceptions::ALL {
        assert!(scenarios::by_name(exception.scenario).is_some(), "{exception:?}");
        assert!(!exception.because.is_empty());
    }
}

const LOADERS: [Kind; 5] = [Kind::Efi, Kind::SystemdBoot, Kind::Grub, Kind::UBoot, Kind::Tryboot];

/// Seen in random lives: firmware that had forgotten its variables started the release that had failed, whose kernel died before
/// its initrd could send the firmware back, for ever.
#[test]
fn firmware_that_forgets_starts_no_release_that_failed_or_was_withdrawn() {
    use scenarios::{Damage, Image, Scenario, State, Step};
    let on_a = |last| Step::Expect(State::Runs { bank: bank_format::Bank::A, last: Some(last) });
    let forgets = [Step::PowerCut, Step::Damage(Damage::Loader), Step::PowerOn];
    let failed = [
        &[Step::PowerOn, Step::Install(Image::Panics), Step::Reboot][..],
        &forgets,
        &[on_a(Outcome::FellBack)],
    ];
    let withdrawn = [
        &[Step::PowerOn, Step::Install(Image::Panics), Step::Rollback][..],
        &forgets,
        &[on_a(Outcome::Cancelled)],
    ];
    for steps in [failed.concat(), withdrawn.concat()] {
        let scenario = Scenario {
            name: "forgets_after_a_bad_release",
            shows: "what nobody wants does not look bootable",
            tries: 1,
            recovery: false,
            steps: steps.leak(),
        };
        // A Raspberry Pi's firmware that has lost its only sector starts nothing at all.
        for kind in LOADERS.into_iter().filter(|kind| *kind != Kind::Tryboot) {
            if let Err(why) = play(kind, &scenario) {
                panic!("{why}");
            }
        }
    }
}

/// systemd-boot returns to the firmware when that refuses an image: it tries no other entry, and does not reset.
#[test]
fn an_image_that_firmware_refuses_falls_back() {
    for kind in [Kind::Efi, Kind::SystemdBoot] {
        for spare in [0, 2] {
            if let Err(why) = refused_trial(kind, spare) {
                panic!("{kind}, {spare} good trials before: {why}");
            }
        }
    }
}

/// After so many good trials, the trial of a release that is not signed, in either bank.
fn refused_trial(kind: Kind, good_trials: usize) -> Result<(), String> {
    let mut machine = Machine::factory(kind, 1, Recovery::Absent)?;
    machine.power_on()?;
    for _ in 0..good_trials {
        machine.install(scenarios::Image::Good)?;
        machine.reboot()?;
    }
    let confirmed = machine.running().ok_or("no system runs")?;
    machine.install(scenarios::Image::Good)?;
    machine.cut_power();
    machine.take_signature(!confirmed);
    for boot in 0..3 {
        let quiet = machine.power_on()?;
        let outcome = machine.status().map(|status| status.last_result.map(|last| last.outcome));
        if quiet != Quiet::Up(confirmed) || outcome != Ok(Some(Outcome::FellBack)) {
            let journal = machine.journal.join("\n    ");
            return Err(format!("boot {boot}: it is {quiet:?}, {outcome:?}\n    {journal}"));
        }
        machine.cut_power();
    }
    Ok(())
}

/// The confirmed image is refused one day: the spare takes over, as from any other rot.
#[test]
fn a_confirmed_image_that_firmware_refuses_gives_way() {
    for kind in [Kind::Efi, Kind::SystemdBoot] {
        let played = || -> Result<(), String> {
            let mut machine = Machine::factory(kind, 1, Recovery::Absent)?;
            machine.power_on()?;
            machine.install(scenarios::Image::Good)?;
            machine.reboot()?;
            machine.cut_power();
            machine.take_signature(bank_format::Bank::B);
            let quiet = machine.power_on()?;
            let outcome = machine.status()?.last_result.map(|last| last.outcome);
            if (quiet, outcome) == (Quiet::Up(bank_format::Bank::A), Some(Outcome::BankLost)) {
                return Ok(());
            }
            Err(format!("it is {quiet:?}, {outcome:?}\n    {}", machine.journal.join("\n    ")))
        };
        if let Err(why) = played() {
            panic!("{kind}: {why}");
        }
    }
}

/// The end that the initrd states, that of GRUB or U-Boot a few starts later, and again before the redirect by which the initrd goes on:
/// 15 minutes of pauses, and then it boots.
const ENDS_IN_A_ROW: usize = 3;

/// Cuts at the same place of each boot, twenty boots in a row, never end in a machine that does not boot. Four cuts in a row between
/// the count of a redirect and the redirect itself end in the stated end, and the reset at its end of five minutes heals that.
#[test]
fn power_cuts_alone_never_stop_a_machine() {
    for kind in LOADERS {
        for place in 0..12 {
            if let Err(why) = cut_each_boot(kind, place) {
                panic!("{kind}, cut {place}: {why}");
            }
        }
    }
}

fn after_its_pauses(machine: &mut Machine) -> Result<Quiet, String> {
    let mut quiet = machine.power_on()?;
    for _ in 0..ENDS_IN_A_ROW {
        if matches!(quiet, Quiet::Stopped | Quiet::StoppedByInitrd) {
            quiet = machine.power_on()?;
        }
    }
    Ok(quiet)
}

fn cut_each_boot(kind: Kind, place: usize) -> Result<(), String> {
    let mut machine = Machine::factory(kind, 1, Recovery::Absent)?;
    machine.power_on()?;
    machine.install(scenarios::Image::Good)?;
    machine.reboot()?;
    machine.cut_power();
    for _ in 0..20 {
        let quiet = after_its_pauses(&mut machine)?;
        if !matches!(quiet, Quiet::Up(_)) {
            return Err(format!("it is {quiet:?}\n    {}", machine.journal.join("\n    ")));
        }
        // Near the beginning of the boot, where nothing is settled yet.
        let cuts = machine.storage().possible_cuts();
        let cut = cuts.get(cuts.len().saturating_sub(1).min(place * 4)).ok_or("no such cut")?;
        machine = machine.with_contents(machine.storage().after_power_cut(cut));
    }
    match after_its_pauses(&mut machine)? {
        Quiet::Up(_) => Ok(()),
        other => Err(format!("it is {other:?} in the end")),
    }
}
