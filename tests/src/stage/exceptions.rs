//! Cells of the table that cannot be as the table says, each with its reason and with what happens instead. The only such place.

use bank_format::loader::Kind;

use super::Quiet;

/// A cell that is otherwise.
#[derive(Debug, Clone, Copy)]
pub struct Exception {
    /// With this loader
    pub kind: Kind,
    /// this scenario
    pub scenario: &'static str,
    /// ends like this after the damage,
    pub instead: Quiet,
    /// because of this.
    pub because: &'static str,
}

const NO_SECOND_COPY: &str =
    "autoboot.txt is one sector, so no write tears it; when that sector rots, the firmware starts no bank";
const NO_WAY_ON: &str =
    "the firmware goes on to its next boot mode, and never to the other partition of the same disk";
const NO_COUNT: &str =
    "the firmware counts no starts, and a kernel that dies before the initrd counts none either";

const NO_RECOVERY: &str = "this loader has no word for it, so a stop of the initrd means one more try after 5 minutes (docs/boot.md)";

const ONE_FILE: &str = "the page's example keeps one file, replaced whole by renaming; when it is lost, its loader starts no bank";
const NO_STATED_END: &str =
    "the page's example looks at no boot image and has no recovery: it starts its default again and again";

/// All of them.
pub const ALL: [Exception; 11] = [
    Exception {
        kind: Kind::Tryboot,
        scenario: "only_root_rotten_with_recovery",
        instead: Quiet::StoppedByInitrd,
        because: NO_RECOVERY,
    },
    Exception {
        kind: Kind::UBoot,
        scenario: "only_root_rotten_with_recovery",
        instead: Quiet::StoppedByInitrd,
        because: NO_RECOVERY,
    },
    Exception {
        kind: Kind::Script,
        scenario: "only_root_rotten_with_recovery",
        instead: Quiet::StoppedByInitrd,
        because: NO_RECOVERY,
    },
    Exception {
        kind: Kind::Script,
        scenario: "one_loader_copy_corrupt",
        instead: Quiet::Stopped,
        because: ONE_FILE,
    },
    Exception {
        kind: Kind::Script,
        scenario: "loader_state_lost",
        instead: Quiet::Stopped,
        because: ONE_FILE,
    },
    Exception {
        kind: Kind::Script,
        scenario: "both_banks_bad",
        instead: Quiet::Spins,
        because: NO_STATED_END,
    },
    Exception {
        kind: Kind::Script,
        scenario: "both_banks_bad_with_recovery",
        instead: Quiet::Spins,
        because: NO_STATED_END,
    },
    Exception {
        kind: Kind::Tryboot,
        scenario: "one_loader_copy_corrupt",
        instead: Quiet::Stopped,
        because: NO_SECOND_COPY,
    },
    Exception {
        kind: Kind::Tryboot,
        scenario: "loader_state_lost",
        instead: Quiet::Stopped,
        because: NO_SECOND_COPY,
    },
    Exception {
        kind: Kind::Tryboot,
        scenario: "late_boot_image_rot",
        instead: Quiet::Stopped,
        because: NO_WAY_ON,
    },
    Exception { kind: Kind::Tryboot, scenario: "late_kernel_rot", instead: Quiet::Spins, because: NO_COUNT },
];

/// The exception of a cell.
#[must_use]
pub fn of(kind: Kind, scenario: &str) -> Option<Exception> {
    ALL.into_iter().find(|exception| exception.kind == kind && exception.scenario == scenario)
}
