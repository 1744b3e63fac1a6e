//! The rows.

use Step::{CutDuring, Expect, Install, PowerCut, PowerOn, QuietReboot, Reboot, Rollback};
use bank_format::{Bank, record::Outcome};

use super::{Damage, Deed, Finder, Image, Moment, Scenario, State, Step};

const fn runs(bank: Bank, last: Outcome) -> State {
    State::Runs { bank, last: Some(last) }
}

const AS_DELIVERED: State = State::Runs { bank: Bank::A, last: None };
const FELL_BACK: State = runs(Bank::A, Outcome::FellBack);
const CONFIRMED: State = runs(Bank::B, Outcome::Confirmed);

const ON_A: Step = Step::Expect(AS_DELIVERED);
const CONFIRMED_B: Step = Step::Expect(CONFIRMED);
const BACK_ON_A: Step = Step::Expect(FELL_BACK);
const LOST_B: Step = Step::Expect(runs(Bank::A, Outcome::BankLost));

const fn falls_back(image: Image) -> [Step; 7] {
    [PowerOn, Install(image), Reboot, BACK_ON_A, PowerCut, PowerOn, BACK_ON_A]
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
        &[PowerOn, ON_A, QuietReboot, ON_A],
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
        "power goes during an install: nothing has happened; while it is armed: either release; once it is: the new one is confirmed",
        &[
            PowerOn,
            CutDuring(
                Deed::Arm,
                &[
                    (Moment::Writing, &[AS_DELIVERED]),
                    (Moment::Arming, &[AS_DELIVERED, CONFIRMED]),
                    (Moment::Armed, &[CONFIRMED]),
                ],
            ),
        ],
    ),
    scenario(
        "cut_while_confirming",
        "power goes in a trial: it was the only try, so the old release runs; once the trial is confirmed the new one runs",
        &[
            PowerOn,
            Install(Image::Good),
            CutDuring(
                Deed::Confirm,
                &[
                    (Moment::Starting, &[CONFIRMED, FELL_BACK]),
                    (Moment::Judging, &[FELL_BACK]),
                    (Moment::Deciding, &[FELL_BACK, CONFIRMED]),
                    (Moment::Decided, &[CONFIRMED]),
                ],
            ),
        ],
    ),
    scenario(
        "cut_while_falling_back",
        "power goes while a bad trial is given up: the old release runs",
        &[
            PowerOn,
            Install(Image::Unhealthy),
            CutDuring(
                Deed::FallBack,
                &[
                    (Moment::Starting, &[FELL_BACK]),
                    (Moment::Judging, &[FELL_BACK]),
                    (Moment::Deciding, &[FELL_BACK]),
                    (Moment::Decided, &[FELL_BACK]),
                ],
            ),
        ],
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
            QuietReboot,
            CONFIRMED_B,
            PowerCut,
            Step::Damage(Damage::BootImage(Bank::B)),
            PowerOn,
            LOST_B,
            QuietReboot,
            LOST_B,
        ],
    ),
    scenario(
        "late_kernel_rot",
        "after more good boots than a loader counts, each one start, the confirmed kernel dies before it can count: the other bank takes over",
        &[
            PowerOn,
            Install(Image::Good),
            Reboot,
            CONFIRMED_B,
            QuietReboot,
            CONFIRMED_B,
            QuietReboot,
            CONFIRMED_B,
            QuietReboot,
            CONFIRMED_B,
            QuietReboot,
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
        &[
            PowerOn,
            ON_A,
            PowerCut,
            Step::Damage(Damage::BootImage(Bank::A)),
            PowerOn,
            Expect(State::Stopped(Finder::Loader)),
        ],
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
            Expect(State::Recovers(Finder::Loader)),
        ],
    },
    scenario(
        "only_root_rotten",
        "the only root image rots: the initrd counts its boots, says that no bank can be booted, and ends there",
        &[
            PowerOn,
            ON_A,
            PowerCut,
            Step::Damage(Damage::RootImage(Bank::A)),
            PowerOn,
            Expect(State::Stopped(Finder::Initrd)),
        ],
    ),
    Scenario {
        name: "only_root_rotten_with_recovery",
        shows: "the only root image rots and a recovery entry is configured: the initrd sends the loader there",
        tries: 1,
        recovery: true,
        steps: &[
            PowerOn,
            ON_A,
            PowerCut,
            Step::Damage(Damage::RootImage(Bank::A)),
            PowerOn,
            Expect(State::Recovers(Finder::Initrd)),
        ],
    },
    scenario(
        "good_after_bad",
        "after a fallback the next good release is installed and confirmed as if nothing had been",
        &[PowerOn, Install(Image::Unhealthy), Reboot, BACK_ON_A, Install(Image::Good), Reboot, CONFIRMED_B],
    ),
];
