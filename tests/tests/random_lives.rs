//! Random lives of a device, with every loader: installs of good and bad releases, rollbacks, reboots, rot, and power cuts in the
//! middle of any of it, also of the recovery from a cut. The invariants are those of `docs/architecture.md`, sections 1 and 7.
//!
//! The same lives in every run: a failure is a failure, and no luck.

#![expect(clippy::panic, reason = "a suite that cannot set its stage has failed")]

use bank_format::{
    Bank,
    loader::Kind,
    record::{BankState, Outcome},
    release::Version,
};
use boot_hooks::scenarios::{Damage, Image};
use proptest::{
    collection::vec,
    prelude::*,
    test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner},
};
use tests::{
    loaders::Recovery,
    stage::{Machine, Quiet},
};

/// Lives of each loader.
const LIVES: u32 = 128;
/// Deeds in a life.
const DEEDS: usize = 10;

#[derive(Debug, Clone, Copy)]
enum Wound {
    BootImage,
    Kernel,
    Root,
}

#[derive(Debug, Clone, Copy)]
enum Deed {
    Install(Image),
    Rollback,
    Reboot,
    PowerCut,
    OneRecordCopy,
    OneLoaderCopy,
    Loader,
    /// The bank that runs rots, where the other one was confirmed once.
    Wound(Wound),
}

/// A deed, and where the power goes in it, and then in the recovery, and so on: each picks one of the states that can be.
#[derive(Debug, Clone)]
struct Interrupted {
    deed: Deed,
    cuts: Vec<prop::sample::Index>,
}

fn deeds() -> impl Strategy<Value = Vec<Interrupted>> {
    let image = prop_oneof![
        4 => Just(Image::Good),
        1 => Just(Image::Panics),
        1 => Just(Image::HangsEarly),
        1 => Just(Image::HangsLate),
        1 => Just(Image::Unhealthy),
    ];
    let wound = prop_oneof![Just(Wound::BootImage), Just(Wound::Kernel), Just(Wound::Root)];
    let deed = prop_oneof![
        6 => image.prop_map(Deed::Install),
        2 => Just(Deed::Rollback),
        6 => Just(Deed::Reboot),
        2 => Just(Deed::PowerCut),
        1 => Just(Deed::OneRecordCopy),
        1 => Just(Deed::OneLoaderCopy),
        1 => Just(Deed::Loader),
        1 => wound.prop_map(Deed::Wound),
    ];
    let cuts = prop_oneof![3 => vec(any::<prop::sample::Index>(), 0..1), 2 => vec(any::<prop::sample::Index>(), 1..4)];
    vec((deed, cuts).prop_map(|(deed, cuts)| Interrupted { deed, cuts }), 1..DEEDS)
}

/// What may not change, and how.
struct Watch {
    floor: Option<Version>,
}

impl Watch {
    /// What holds whenever the machine is quiet.
    fn look(&mut self, machine: &Machine, quiet: Quiet) -> Result<(), String> {
        let Quiet::Up(bank) = quiet else { return Err(format!("it is {quiet:?}, with a good bank")) };
        let status = machine.status()?;
        let minor = machine.minor_in(bank);
        let version = status.release.as_ref().map(|release| release.version.clone());
        if (status.active, version) != (bank, Some(Version::new(1, u64::from(minor), 0))) {
            return Err(format!(
                "status says {} and {:?}, 1.{minor}.0 runs in bank {bank}",
                status.active, status.release
            ));
        }
        if let Some(unproven) = machine.ran_as_confirmed.difference(&machine.gate_passed).next() {
            return Err(format!("release 1.{unproven}.0 ran without a trial, and never passed the gate"));
        }
        if status.confirmed != bank || status.trial.as_ref().is_some_and(|trial| trial.bank == bank) {
            return Err(format!("it came to rest in bank {bank}, which is not confirmed"));
        }
        let last = status.last_result.as_ref();
        let told_of_running = last.is_some_and(|last| {
            last.outcome == Outcome::FellBack && last.release.is_some() && last.release == status.release
        });
        if told_of_running {
            return Err("the release that runs is said to have fallen back".into());
        }
        if status.floor < self.floor {
            return Err(format!("the floor fell from {:?} to {:?}", self.floor, status.floor));
        }
        self.floor = status.floor;
        Ok(())
    }
}

/// Whether a deed can be played here; what a loader cannot survive is in `stage::exceptions`.
fn fits(kind: Kind, machine: &Machine, deed: Deed) -> bool {
    let confirmed = || machine.status().is_ok_and(|status| status.passive.state == BankState::Confirmed);
    let has_spare = || machine.running().is_some_and(|bank| machine.is_whole(!bank)) && confirmed();
    match deed {
        Deed::Install(_) | Deed::Rollback | Deed::Reboot | Deed::PowerCut | Deed::OneRecordCopy => true,
        Deed::OneLoaderCopy | Deed::Loader => kind != Kind::Tryboot,
        Deed::Wound(Wound::Root) => has_spare(),
        Deed::Wound(Wound::BootImage | Wound::Kernel) => kind != Kind::Tryboot && has_spare(),
    }
}

fn carry_out(machine: &mut Machine, deed: Deed) -> Result<Option<Quiet>, String> {
    let bank = machine.running().unwrap_or(Bank::A);
    let mut damaged = |damage| {
        machine.cut_power();
        machine.damage(damage);
        machine.power_on().map(Some)
    };
    match deed {
        Deed::Install(image) => machine.install(image).map(|()| None),
        // There is not always a way back; a refusal changes nothing that the invariants would not see.
        Deed::Rollback => {
            let _refused = machine.roll_back();
            Ok(None)
        }
        Deed::Reboot => machine.reboot().map(Some),
        Deed::PowerCut => {
            machine.cut_power();
            machine.power_on().map(Some)
        }
        Deed::OneRecordCopy => damaged(Damage::OneRecordCopy),
        Deed::OneLoaderCopy => damaged(Damage::OneLoaderCopy),
        Deed::Loader => damaged(Damage::Loader),
        Deed::Wound(Wound::BootImage) => damaged(Damage::BootImage(bank)),
        Deed::Wound(Wound::Kernel) => damaged(Damage::Kernel(bank)),
        Deed::Wound(Wound::Root) => damaged(Damage::RootImage(bank)),
    }
}

fn live(kind: Kind, tries: u32, life: &[Interrupted]) -> Result<(), String> {
    let mut machine = Machine::factory(kind, tries, Recovery::Absent)?;
    let outcome = live_on(kind, &mut machine, life);
    outcome.map_err(|why| format!("{kind}, {tries} tries: {why}\n    {}", machine.journal.join("\n    ")))
}

/// Nine starts cut short in a row make GRUB and U-Boot state their end; its pause leads to one more start, which must come up.
fn after_the_pause_of_the_loader(machine: &mut Machine, quiet: Quiet) -> Result<Quiet, String> {
    let loader_stopped = machine.journal.last().is_some_and(|line| line == "loader: Nothing");
    if quiet == Quiet::Stopped && loader_stopped { machine.power_on() } else { Ok(quiet) }
}

fn live_on(kind: Kind, machine: &mut Machine, life: &[Interrupted]) -> Result<(), String> {
    let mut watch = Watch { floor: None };
    let quiet = machine.power_on()?;
    watch.look(machine, quiet)?;
    for Interrupted { deed, cuts } in life {
        if !fits(kind, machine, *deed) {
            continue;
        }
        machine.storage().begin_log();
        let mut quiet = carry_out(machine, *deed)?;
        for cut in cuts {
            let cuts = machine.storage().possible_cuts();
            let cut = cut.get(&cuts);
            *machine = machine.with_contents(machine.storage().after_power_cut(cut));
            machine.journal.push(format!("power cut {cut}"));
            quiet = Some(machine.power_on()?);
        }
        if let Some(quiet) = quiet {
            let quiet = after_the_pause_of_the_loader(machine, quiet)?;
            watch.look(machine, quiet)?;
        }
    }
    // However it lived: the next good release is installed and confirmed, and stays.
    machine.install(Image::Good)?;
    let quiet = machine.reboot()?;
    watch.look(machine, quiet)?;
    machine.cut_power();
    let quiet = machine.power_on()?;
    watch.look(machine, quiet)?;
    let running = machine.running().map(|bank| machine.minor_in(bank));
    if running == Some(machine.newest_minor()) {
        Ok(())
    } else {
        Err("the last good release was not confirmed".into())
    }
}

fn lives_of(kind: Kind) {
    let config = Config { cases: LIVES, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let outcome = runner
        .run(&(1..=3_u32, deeds()), |(tries, life)| live(kind, tries, &life).map_err(TestCaseError::fail));
    if let Err(error) = outcome {
        panic!("{error}");
    }
}

#[test]
fn efi() {
    lives_of(Kind::Efi);
}

#[test]
fn systemd_boot() {
    lives_of(Kind::SystemdBoot);
}

#[test]
fn grub() {
    lives_of(Kind::Grub);
}

#[test]
fn u_boot() {
    lives_of(Kind::UBoot);
}

#[test]
fn tryboot() {
    lives_of(Kind::Tryboot);
}
