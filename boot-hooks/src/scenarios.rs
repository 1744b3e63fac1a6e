//! What every boot loader must do, as one table of scenarios. Data only: it knows no loader and no machine.
//!
//! Three stages play it: `tests` with simulated storage for every backend, `qemu-testbed` with whole systems under real loaders,
//! and `qemu-testbed` with U-Boot and payload kernels. A stage plays a step, or says why it cannot; it never skips in silence.

use Step::{CutDuring, Expect, Install, PowerCut, PowerOn, Reboot, Rollback};
use bank_format::{Bank, record::Outcome};

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
    /// Something rots. The machine is off.
    Damage(Damage),
    /// The deed is interrupted: before it, after it, and at each write or torn half of a write that the stage can play. Each time
    /// power comes again, as [`Step::PowerOn`], and one of the states holds. Always the last step.
    CutDuring(Deed, &'static [State]),
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
    /// `updater install` of the good release, from "written" on.
    Arm,
    /// From the reset into the good trial until it is confirmed.
    Confirm,
    /// From the reset into the unhealthy trial until the old bank has settled.
    FallBack,
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
    Stopped,
    /// No bank boots: the recovery entry was started.
    Recovers,
}

const fn runs(bank: Bank, last: Outcome) -> State {
    State::Runs { bank, last: Some(last) }
}

const ON_A: Step = Step::Expect(State::Runs { bank: Bank::A, last: None });
const CONFIRMED_B: Step = Step::Expect(runs(Bank::B, Outcome::Confirmed));
const BACK_ON_A: Step = Step::Expect(runs(Bank::A, Outcome::FellBack));
const LOST_B: Step = Step::Expect(runs(Bank::A, Outcome::BankLost));

const fn falls_back(image: Image) -> [Step; 7] {
    let back = runs(Bank::A, Outcome::FellBack);
    [PowerOn, Install(image), Reboot, Expect(back), PowerCut, PowerOn, Expect(back)]
}

const PANICS: [Step; 7] = falls_back(Image::Panics);
const HANGS_EARLY: [Step; 7] = falls_back(Image::HangsEarly);
const HANGS_LATE: [Step; 7] = falls_back(Image::HangsLate);
const UNHEALTHY: [Step; 7] = falls_back(Image::Unhealthy);

const fn scenario(name: &'static str, shows: &'static str, steps: &'static [Step]) -> Scenario {
    Scenario { name, shows, tries: 1, recovery: false, steps }
}

/// The table.
pub const ALL: &[Scenario] = &[
    scenario(
        "first_boot",
        "a factory disk boots, is confirmed on bank A, and stays so",
        &[PowerOn, ON_A, Reboot, ON_A],
    ),
    scenario(
        "good_trial",
        "a good release is tried once, confirmed on bank B, and stays there",
        &[PowerOn, Install(Image::Good), Reboot, CONFIRMED_B, PowerCut, PowerOn, CONFIRMED_B],
    ),
    scenario("trial_panics", "a kernel that panics falls back by itself", &PANICS),
    scenario(
        "trial_hangs_early",
        "a hang before the first process ends by the watchdog, and falls back",
        &HANGS_EARLY,
    ),
    scenario(
        "trial_hangs_late",
        "a hang of the running system ends by the watchdog, and falls back",
        &HANGS_LATE,
    ),
    scenario("trial_unhealthy", "a system that is up and no good falls back, and says why", &UNHEALTHY),
    Scenario {
        name: "tries_are_used_up",
        shows: "with three tries a panicking release is booted three times, then given up",
        tries: 3,
        recovery: false,
        steps: &[
            PowerOn,
            Install(Image::Panics),
            Reboot,
            Expect(State::RanAfter { bank: Bank::A, tries: 3 }),
        ],
    },
    scenario(
        "cut_while_arming",
        "power goes while the trial is armed: the old release runs, or the new one is confirmed",
        &[
            PowerOn,
            CutDuring(
                Deed::Arm,
                &[
                    State::Runs { bank: Bank::A, last: None },
                    runs(Bank::A, Outcome::FellBack),
                    runs(Bank::B, Outcome::Confirmed),
                ],
            ),
        ],
    ),
    scenario(
        "cut_while_confirming",
        "power goes between the reset into a trial and its confirmation: one of both releases runs",
        &[
            PowerOn,
            Install(Image::Good),
            CutDuring(Deed::Confirm, &[runs(Bank::A, Outcome::FellBack), runs(Bank::B, Outcome::Confirmed)]),
        ],
    ),
    scenario(
        "cut_while_falling_back",
        "power goes while a bad trial is given up: the old release runs",
        &[PowerOn, Install(Image::Unhealthy), CutDuring(Deed::FallBack, &[runs(Bank::A, Outcome::FellBack)])],
    ),
    scenario(
        "one_record_copy_corrupt",
        "one copy of the record rots: nobody notices",
        &[
            PowerOn,
            Install(Image::Good),
            Reboot,
            CONFIRMED_B,
            PowerCut,
            Step::Damage(Damage::OneRecordCopy),
            PowerOn,
            CONFIRMED_B,
        ],
    ),
    scenario(
        "record_corrupt",
        "both copies of the record rot: the bank that the loader starts is kept, and the record is rebuilt on it",
        &[
            PowerOn,
            Install(Image::Good),
            Reboot,
            CONFIRMED_B,
            PowerCut,
            Step::Damage(Damage::Record),
            PowerOn,
            Expect(runs(Bank::B, Outcome::RecordRebuilt)),
        ],
    ),
    scenario(
        "one_loader_copy_corrupt",
        "one copy of the loader's state rots: the confirmed bank runs",
        &[
            PowerOn,
            Install(Image::Good),
            Reboot,
            CONFIRMED_B,
            PowerCut,
            Step::Damage(Damage::OneLoaderCopy),
            PowerOn,
            CONFIRMED_B,
        ],
    ),
    scenario(
        "loader_state_lost",
        "the loader has forgotten everything: the initrd sends it to the confirmed bank",
        &[
            PowerOn,
            Install(Image::Good),
            Reboot,
            CONFIRMED_B,
            PowerCut,
            Step::Damage(Damage::Loader),
            PowerOn,
            CONFIRMED_B,
            PowerCut,
            PowerOn,
            CONFIRMED_B,
        ],
    ),
    scenario(
        "rollback_on_request",
        "a person goes back to the release before; it is tried and confirmed like any other",
        &[
            PowerOn,
            Install(Image::Good),
            Reboot,
            CONFIRMED_B,
            Rollback,
            Reboot,
            Expect(runs(Bank::A, Outcome::Confirmed)),
        ],
    ),
    scenario(
        "late_boot_image_rot",
        "after good boots the confirmed boot image is gone: the other bank takes over",
        &[
            PowerOn,
            Install(Image::Good),
            Reboot,
            CONFIRMED_B,
            Reboot,
            CONFIRMED_B,
            PowerCut,
            Step::Damage(Damage::BootImage(Bank::B)),
            PowerOn,
            LOST_B,
            Reboot,
            LOST_B,
        ],
    ),
    scenario(
        "late_kernel_rot",
        "after good boots the confirmed kernel dies before it can count: the counter was re-armed, the other bank takes over",
        &[
            PowerOn,
            Install(Image::Good),
            Reboot,
            CONFIRMED_B,
            Reboot,
            CONFIRMED_B,
            PowerCut,
            Step::Damage(Damage::Kernel(Bank::B)),
            PowerOn,
            LOST_B,
        ],
    ),
    scenario(
        "late_root_rot",
        "after good boots a block of the confirmed root rots: the other bank takes over before wrong data is served",
        &[
            PowerOn,
            Install(Image::Good),
            Reboot,
            CONFIRMED_B,
            PowerCut,
            Step::Damage(Damage::RootImage(Bank::B)),
            PowerOn,
            LOST_B,
        ],
    ),
    scenario(
        "both_banks_bad",
        "no bank boots: the console says so, and the end is a stated one",
        &[PowerOn, ON_A, PowerCut, Step::Damage(Damage::BootImage(Bank::A)), PowerOn, Expect(State::Stopped)],
    ),
    Scenario {
        name: "both_banks_bad_with_recovery",
        shows: "no bank boots and a recovery entry is configured: it is started",
        tries: 1,
        recovery: true,
        steps: &[
            PowerOn,
            ON_A,
            PowerCut,
            Step::Damage(Damage::BootImage(Bank::A)),
            PowerOn,
            Expect(State::Recovers),
        ],
    },
    scenario(
        "good_after_bad",
        "after a fallback the next good release is installed and confirmed as if nothing had been",
        &[PowerOn, Install(Image::Unhealthy), Reboot, BACK_ON_A, Install(Image::Good), Reboot, CONFIRMED_B],
    ),
];

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
        }
    }
}
