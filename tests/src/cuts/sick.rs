//! A part of the storage is sick for good: it gives errors, is read-only, full, or says nothing but zeros. The machine must come up all the same, with
//! what was confirmed or what has passed its gate; and once the part is well again, the next release must arrive.

use bank_format::{Bank, loader::Kind};
use boot_hooks::scenarios::Image;

use crate::{
    loaders::Recovery,
    stage::{Machine, Played, Quiet},
    storage::{At, Fault, Place, What},
};

/// Failures that never end.
const FOR_GOOD: u32 = u32::MAX;

/// Everything that may be sick in a machine with this loader whose bank A is the passive one.
#[must_use]
pub fn all(kind: Kind) -> Vec<(What, At)> {
    let loader = match kind {
        Kind::Efi | Kind::SystemdBoot => vec![At::Variables],
        Kind::Grub => vec![At::Place(Place::Loader)],
        Kind::UBoot => [0, 1].map(|copy| At::Place(Place::Environment(copy))).into(),
        Kind::Tryboot => vec![At::Place(Place::Autoboot)],
        // Its state is the program's own matter.
        Kind::Script => Vec::new(),
    };
    let unwritable = [What::Write, What::Room, What::ReadOnly, What::Flush];
    let of = |places: &[At], whats: &[What]| -> Vec<(What, At)> {
        places.iter().flat_map(|at| whats.iter().map(move |what| (*what, *at))).collect()
    };
    let passive = [At::Place(Place::Boot(Bank::A)), At::Place(Place::Root(Bank::A))];
    [
        // Limit: a record that takes what is written and can never be read is taken for a lost one. The install goes on, and its trial is not
        // known to be one.
        of(&[At::Files], &[What::Read]),
        of(&[At::Place(Place::Record), At::Files], &unwritable),
        of(&loader, &unwritable),
        of(&passive, &[What::Read, What::Zeros]),
        of(&passive, &unwritable),
    ]
    .concat()
}

/// Plays it; what happened on the way is told where it ends badly.
pub fn play(kind: Kind, what: What, at: At) -> Result<(), String> {
    let mut machine = Machine::factory(kind, 1, Recovery::Absent)?;
    lives(&mut machine, what, at)
        .map_err(|why| format!("{kind}, {what:?} at {at:?}: {why}\n    {}", machine.journal.join("\n    ")))
}

fn lives(machine: &mut Machine, what: What, at: At) -> Played<()> {
    machine.power_on()?;
    machine.install(Image::Good)?;
    machine.reboot()?;
    machine.storage().set_fault(Some(Fault { what, at, after: 0, times: FOR_GOOD }));
    comes_up(machine, "sick")?;
    let installed = machine.install(Image::Good);
    machine.journal.push(format!("the install: {installed:?}"));
    if installed.is_ok()
        && let Err(why) = machine.reboot()
    {
        machine.journal.push(format!("the reboot: {why}"));
    }
    comes_up(machine, "after an install, sick")?;
    machine.storage().set_fault(None);
    comes_up(machine, "well again")?;
    machine.install(Image::Good).map_err(|why| format!("well again: {why}"))?;
    machine.reboot()?;
    let next = machine.newest_minor();
    match machine.running().map(|bank| machine.minor_in(bank)) {
        Some(minor) if minor == next => Ok(()),
        other => Err(format!("well again, 1.{next}.0 was to run, and {other:?} does")),
    }
}

fn comes_up(machine: &mut Machine, when: &str) -> Played<()> {
    machine.cut_power();
    match machine.power_on()? {
        Quiet::Up(_) => (),
        other => return Err(format!("{when}: it does not come up: {other:?}")),
    }
    match machine.ran_as_confirmed.difference(&machine.gate_passed).next() {
        Some(unproven) => Err(format!("{when}: 1.{unproven}.0 ran as confirmed, and never passed its gate")),
        None => Ok(()),
    }
}
