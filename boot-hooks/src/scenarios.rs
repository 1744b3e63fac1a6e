//! What every boot loader must do, as one table of scenarios. Data only: it knows no loader and no machine.
//!
//! Three stages play it: `tests` with simulated storage for every backend, `qemu-testbed` with whole systems under real loaders,
//! and `qemu-testbed` with U-Boot and payload kernels. A stage plays a step, or says why it cannot; it never skips in silence.

use bank_format::{Bank, limits::MAX_HOPELESS_BOOTS, record::Outcome};

mod table;

pub use table::ALL;

/// One scenario.
#[derive(Debug, Clone, Copy)]
pub struct Scenario {
    /// A word, also the name of the test.
    pub name: &'static str,
    /// What it shows, in one line.
    pub shows: &'static str,
    /// `tries` of the agent's configuration.
    pub tries: u32,
    /// Whether a recovery entry is configured.
    pub recovery: bool,
    /// What happens, in order. Each begins with a factory disk in a machine that is off.
    pub steps: &'static [Step],
}

/// What happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Power comes. The machine runs, through as many resets as it takes, until it is quiet: a system is up, settled, and the gate
    /// of a trial has decided; or the stated end is reached.
    PowerOn,
    /// The plug is pulled while the machine is quiet.
    PowerCut,
    /// The agent installs a release and arms its trial.
    Install(Image),
    /// The agent is asked for the other bank, and arms it.
    Rollback,
    /// The agent reboots; then as [`Step::PowerOn`].
    Reboot,
    /// As [`Step::Reboot`], of a machine on which nothing is armed: exactly one reset, and one start of one kernel.
    QuietReboot,
    /// Something rots. The machine is off.
    Damage(Damage),
    /// The deed is interrupted: before it, after it, and at each write or torn half of a write that the stage can play. Each time
    /// power comes again, as [`Step::PowerOn`], and one of the states that the moment of the cut allows holds; then the plug is
    /// pulled and power comes once more, and the same state still holds. Each moment is played. Always the last step.
    CutDuring(Deed, &'static [(Moment, &'static [State])]),
    /// What holds now.
    Expect(State),
}

/// A release to install. Versions rise in this order from the factory's 1.0.0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Image {
    /// Nothing is wrong with it.
    Good,
    /// Its kernel panics before the initrd runs.
    Panics,
    /// It hangs before the system's first process runs, with the watchdog armed.
    HangsEarly,
    /// It hangs when the system is up: nobody pets the watchdog any more.
    HangsLate,
    /// It comes up, and its health check fails.
    Unhealthy,
}

/// What rots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Damage {
    /// The newer copy of the record is garbled.
    OneRecordCopy,
    /// Both copies of the record are garbled.
    Record,
    /// The newer copy of the loader's state is garbled. Where there is only one (EFI variables), it is deleted variable by variable:
    /// the one that decides the next boot is gone.
    OneLoaderCopy,
    /// The loader's state is lost: both copies garbled, or all variables gone.
    Loader,
    /// The boot image of the bank is wiped at its beginning: the loader finds nothing to start.
    BootImage(Bank),
    /// The boot image of the bank starts, and its kernel dies before the initrd runs.
    Kernel(Bank),
    /// One block of the root image of the bank is garbled.
    RootImage(Bank),
}

/// A deed whose last writes change the loader's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deed {
    /// `updater install` of the good release.
    Arm,
    /// From the reset into the good trial until it is confirmed.
    Confirm,
    /// From the reset into the unhealthy trial until the old bank has settled.
    FallBack,
}

impl Deed {
    /// The moments of this deed, in their order.
    #[must_use]
    pub const fn moments(self) -> &'static [Moment] {
        match self {
            Self::Arm => &[Moment::Writing, Moment::Arming, Moment::Armed],
            Self::Confirm => &[Moment::Starting, Moment::Judging, Moment::Deciding, Moment::Decided],
            Self::FallBack => &[Moment::Starting, Moment::Judging, Moment::Deciding, Moment::Decided],
        }
    }
}

/// A stretch of a deed, between two things that have happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Moment {
    /// The bank is written and read back; neither record nor loader know of a trial.
    Writing,
    /// Record and loader are told of the trial.
    Arming,
    /// The install has said that it is done.
    Armed,
    /// From the reset on; loader and initrd count the start of the trial.
    Starting,
    /// The trial is counted, and not judged.
    Judging,
    /// Record and loader are told what was found.
    Deciding,
    /// The gate has said what it found.
    Decided,
}

/// What holds when the machine is quiet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// This bank runs, is confirmed, and nothing is on trial; the last deed ended like this.
    Runs {
        /// The bank.
        bank: Bank,
        /// `last_result` of the agent.
        last: Option<Outcome>,
    },
    /// As `Runs`, and the release that failed was booted this many times.
    RanAfter {
        /// The bank.
        bank: Bank,
        /// Boots that were tried.
        tries: u32,
    },
    /// No bank boots: a message on the console says so, and nothing spins.
    Stopped(Finder),
    /// No bank boots: the recovery entry was started.
    Recovers(Finder),
}

/// Who found that no bank boots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finder {
    /// The loader: it has nothing to start.
    Loader,
    /// The initrd, after [`HOPELESS_BOOTS`] boots that it could not finish since power came. The boot after them says so.
    Initrd,
}

/// Boots of the only bank there is, which end in the initrd, before the initrd stops.
pub const HOPELESS_BOOTS: u32 = MAX_HOPELESS_BOOTS;

/// The scenario of this name.
#[must_use]
pub fn by_name(name: &str) -> Option<&'static Scenario> {
    ALL.iter().find(|scenario| scenario.name == name)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_words_and_differ_and_every_scenario_ends_in_an_expectation() {
        let names: BTreeSet<&str> = ALL.iter().map(|scenario| scenario.name).collect();
        assert_eq!(names.len(), ALL.len());
        for scenario in ALL {
            assert!(scenario.name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{}", scenario.name);
            assert_eq!(scenario.steps.first(), Some(&Step::PowerOn), "{}", scenario.name);
            let cuts = scenario.steps.iter().position(|step| matches!(step, Step::CutDuring(..)));
            assert!(cuts.is_none_or(|at| at + 1 == scenario.steps.len()), "{}", scenario.name);
            assert!(
                matches!(scenario.steps.last(), Some(Step::Expect(_) | Step::CutDuring(..))),
                "{}",
                scenario.name
            );
            for step in scenario.steps {
                if let Step::CutDuring(deed, moments) = step {
                    let named: Vec<Moment> = moments.iter().map(|(moment, _)| *moment).collect();
                    assert_eq!(named, deed.moments(), "{}", scenario.name);
                    assert!(moments.iter().all(|(_, states)| !states.is_empty()), "{}", scenario.name);
                }
            }
        }
    }

    /// Otherwise a counter that no good boot re-arms looks like one that each does.
    #[test]
    fn before_a_kernel_rots_there_are_more_good_boots_than_a_loader_counts() {
        let steps = by_name("late_kernel_rot").unwrap().steps;
        let rot = steps.iter().position(|step| matches!(step, Step::Damage(_))).unwrap();
        let boots = steps[..rot].iter().filter(|step| **step == Step::QuietReboot).count();
        assert!(boots > bank_format::limits::LOADER_TRIES as usize);
    }
}
