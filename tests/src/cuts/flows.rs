//! What is cut: everything that a device does, each from where it is quiet to where it is quiet again.

use bank_format::{Bank, loader::Kind};
use boot_hooks::scenarios::{Damage, Image};

use crate::{
    loaders::Recovery,
    stage::{Machine, Played, Quiet},
};

/// Where a flow may lead, besides back to where it began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leads {
    /// To the release that was installed last.
    ToTheNewest,
    /// Away from the release that was armed; it runs if the power goes before that.
    BackFromTheNewest,
    /// To the release in the other bank.
    ToTheOther,
    /// Nowhere: what ran before runs after.
    Nowhere,
    /// To the stated end: no bank boots any more.
    ToTheEnd,
}

/// Something that a device does.
#[derive(Debug, Clone, Copy)]
pub struct Flow {
    /// Its name in traces.
    pub name: &'static str,
    /// What is done before, without a cut.
    before: fn(&mut Machine) -> Played<()>,
    /// What is cut.
    pub deed: fn(&mut Machine) -> Played<()>,
    /// The same command once more, after a cut, in a machine that is up.
    pub again: fn(&mut Machine) -> Played<()>,
    /// Where it leads.
    pub leads: Leads,
    /// Whether a bank rots before: what is said of it is known to be wrong only when somebody looks.
    pub rots: bool,
}

/// All of them.
pub const ALL: [Flow; 17] = [
    Flow {
        name: "factory",
        before: nothing,
        deed: |machine| machine.power_on().map(drop),
        again: nothing,
        leads: Leads::Nowhere,
        rots: false,
    },
    Flow {
        name: "install",
        before: up,
        deed: good,
        again: good_again,
        leads: Leads::ToTheNewest,
        rots: false,
    },
    Flow {
        name: "install-over",
        before: |machine| update(machine).and_then(|()| update(machine)),
        deed: good,
        again: good_again,
        leads: Leads::ToTheNewest,
        rots: false,
    },
    Flow {
        name: "resume",
        before: half,
        deed: good_again,
        again: good_again,
        leads: Leads::ToTheNewest,
        rots: false,
    },
    Flow {
        name: "cancel",
        before: armed,
        deed: roll_back,
        again: cancel_again,
        leads: Leads::BackFromTheNewest,
        rots: false,
    },
    Flow {
        name: "cancel-half",
        before: half,
        deed: roll_back,
        again: cancel_again,
        leads: Leads::Nowhere,
        rots: false,
    },
    Flow {
        name: "trial-good",
        before: armed,
        deed: reboot,
        again: good_again,
        leads: Leads::ToTheNewest,
        rots: false,
    },
    Flow {
        name: "trial-panics",
        before: |machine| up(machine).and_then(|()| machine.install(Image::Panics)),
        deed: reboot,
        again: reboot,
        leads: Leads::Nowhere,
        rots: false,
    },
    Flow {
        name: "trial-hangs-early",
        before: |machine| up(machine).and_then(|()| machine.install(Image::HangsEarly)),
        deed: reboot,
        again: reboot,
        leads: Leads::Nowhere,
        rots: false,
    },
    Flow {
        name: "trial-hangs-late",
        before: |machine| up(machine).and_then(|()| machine.install(Image::HangsLate)),
        deed: reboot,
        again: reboot,
        leads: Leads::Nowhere,
        rots: false,
    },
    Flow {
        name: "trial-unhealthy",
        before: |machine| up(machine).and_then(|()| machine.install(Image::Unhealthy)),
        deed: reboot,
        again: reboot,
        leads: Leads::Nowhere,
        rots: false,
    },
    Flow {
        name: "install-after-fallback",
        before: |machine| {
            up(machine).and_then(|()| machine.install(Image::Unhealthy)).and_then(|()| reboot(machine))
        },
        deed: good,
        again: good_again,
        leads: Leads::ToTheNewest,
        rots: false,
    },
    Flow {
        name: "rollback",
        before: update,
        deed: roll_back_and_reboot,
        again: nothing,
        leads: Leads::ToTheOther,
        rots: false,
    },
    Flow {
        name: "rollback-armed",
        before: |machine| update(machine).and_then(|()| roll_back(machine)),
        deed: reboot,
        again: nothing,
        leads: Leads::ToTheOther,
        rots: false,
    },
    Flow {
        name: "update",
        before: update,
        deed: |machine| good(machine).and_then(|()| reboot(machine)),
        again: good_again,
        leads: Leads::ToTheNewest,
        rots: false,
    },
    Flow {
        name: "bank-lost",
        before: |machine| update(machine).and_then(|()| rot(machine, &[Bank::B])),
        deed: |machine| machine.power_on().map(drop),
        again: nothing,
        leads: Leads::ToTheOther,
        rots: true,
    },
    Flow {
        name: "both-bad",
        before: |machine| update(machine).and_then(|()| rot(machine, &Bank::BOTH)),
        deed: |machine| machine.power_on().map(drop),
        again: nothing,
        leads: Leads::ToTheEnd,
        rots: false,
    },
];

/// The flow of that name.
#[must_use]
pub fn by_name(name: &str) -> Option<&'static Flow> {
    ALL.iter().find(|flow| flow.name == name)
}

impl Flow {
    /// Whether there is such a thing with this loader. What it cannot survive at all is in [`crate::stage::exceptions`].
    #[must_use]
    pub fn fits(&self, kind: Kind) -> bool {
        match self.name {
            "bank-lost" => !matches!(kind, Kind::Tryboot),
            // Its page's loader never states an end.
            "both-bad" => kind != Kind::Script,
            _ => true,
        }
    }

    /// A machine where it can begin.
    pub fn prepared(&self, kind: Kind) -> Played<Machine> {
        let mut machine = Machine::factory(kind, 1, Recovery::Absent)?;
        (self.before)(&mut machine)?;
        machine.storage().begin_log();
        Ok(machine)
    }
}

fn nothing(_: &mut Machine) -> Played<()> {
    Ok(())
}

fn up(machine: &mut Machine) -> Played<()> {
    match machine.power_on()? {
        Quiet::Up(_) => Ok(()),
        other => Err(format!("it does not come up: {other:?}")),
    }
}

fn good(machine: &mut Machine) -> Played<()> {
    machine.install(Image::Good)
}

/// What was installed before is asked for once more; the reboot is where it is tried.
fn good_again(machine: &mut Machine) -> Played<()> {
    machine.install_again()
}

fn reboot(machine: &mut Machine) -> Played<()> {
    machine.reboot().map(drop)
}

fn armed(machine: &mut Machine) -> Played<()> {
    up(machine)?;
    good(machine)
}

fn update(machine: &mut Machine) -> Played<()> {
    if machine.running().is_none() {
        up(machine)?;
    }
    good(machine)?;
    reboot(machine)
}

/// An install whose power went in the middle of the images.
fn half(machine: &mut Machine) -> Played<()> {
    up(machine)?;
    machine.storage().begin_log();
    good(machine)?;
    let cut = crate::storage::Cut { done: machine.storage().deeds() / 2, ..Default::default() };
    let contents = machine.storage().after_power_cut(&cut);
    machine.lose_power(contents);
    up(machine)
}

fn roll_back(machine: &mut Machine) -> Played<()> {
    machine.roll_back()
}

/// Withdrawn already, or not begun: both are an answer.
fn cancel_again(machine: &mut Machine) -> Played<()> {
    let _there_is_nothing_to_withdraw = machine.roll_back();
    Ok(())
}

fn roll_back_and_reboot(machine: &mut Machine) -> Played<()> {
    machine.roll_back()?;
    reboot(machine)
}

fn rot(machine: &mut Machine, banks: &[Bank]) -> Played<()> {
    machine.cut_power();
    banks.iter().for_each(|bank| machine.damage(Damage::BootImage(*bank)));
    Ok(())
}
