//! Weak evidence writes no bank off: power cuts between the count and the settled system, and a loader that has given up once.

#![expect(clippy::panic, reason = "a suite that cannot set its stage has failed")]

use bank_format::{
    Bank,
    loader::Kind,
    record::{BankState, Outcome},
};
use boot_hooks::scenarios::{Damage, Image};
use tests::{
    loaders::Recovery,
    stage::{Machine, Quiet},
};

const LOADERS: [Kind; 5] = [Kind::Efi, Kind::SystemdBoot, Kind::Grub, Kind::UBoot, Kind::Tryboot];

fn for_each_loader(play: impl Fn(&mut Machine) -> Result<(), String>) {
    for kind in LOADERS {
        let outcome = Machine::factory(kind, 1, Recovery::Absent).and_then(|mut machine| {
            let two_good_banks = machine.power_on().and_then(|_| {
                machine.install(Image::Good)?;
                is(machine.reboot()?, Quiet::Up(Bank::B))?;
                machine.cut_power();
                Ok(())
            });
            let outcome = two_good_banks.and_then(|()| play(&mut machine));
            outcome.map_err(|why| format!("{why}\n    {}", machine.journal.join("\n    ")))
        });
        if let Err(why) = outcome {
            panic!("{kind}: {why}");
        }
    }
}

fn is(quiet: Quiet, expected: Quiet) -> Result<(), String> {
    if quiet == expected { Ok(()) } else { Err(format!("it is {quiet:?}, not {expected:?}")) }
}

fn three_cuts(machine: &mut Machine) -> Result<(), String> {
    (0..3).try_for_each(|_| machine.dies_unsettled())
}

/// The spare had rotted unseen; three power cuts in the good bank sent the device there, and it stopped for good.
#[test]
fn three_power_cuts_beside_a_rotten_spare() {
    for_each_loader(|machine| {
        machine.damage(Damage::RootImage(Bank::A));
        three_cuts(machine)?;
        is(machine.power_on()?, Quiet::Up(Bank::B))?;
        let status = machine.status()?;
        if status.passive.state != BankState::Failed {
            return Err(format!("the rotten bank is {:?}", status.passive.state));
        }
        machine.cut_power();
        is(machine.power_on()?, Quiet::Up(Bank::B))
    });
}

/// The bank that the cuts have cost its place is wiped by nobody, and is the way back.
#[test]
fn three_power_cuts_beside_a_good_spare() {
    for_each_loader(|machine| {
        three_cuts(machine)?;
        is(machine.power_on()?, Quiet::Up(Bank::A))?;
        let status = machine.status()?;
        let outcome = status.last_result.as_ref().map(|last| last.outcome);
        if (status.passive.state, outcome) != (BankState::Confirmed, Some(Outcome::BankLost)) {
            return Err(format!("{:?}, {outcome:?}", status.passive.state));
        }
        is(machine.reboot()?, Quiet::Up(Bank::A))?;
        machine.cut_power();
        is(machine.power_on()?, Quiet::Up(Bank::A))?;
        machine.roll_back()?;
        is(machine.reboot()?, Quiet::Up(Bank::B))
    });
}

/// Six cuts lose both banks; the reset after the stated end finds one that comes up.
#[test]
fn six_power_cuts_end_in_one_pause() {
    for_each_loader(|machine| {
        three_cuts(machine)?;
        three_cuts(machine)?;
        is(machine.power_on()?, Quiet::StoppedByInitrd)?;
        is(machine.power_on()?, Quiet::Up(Bank::B))?;
        is(machine.reboot()?, Quiet::Up(Bank::B))
    });
}
