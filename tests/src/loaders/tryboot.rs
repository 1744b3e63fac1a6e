//! The Raspberry Pi's firmware, by "autoboot.txt" in its documentation: the sections that hold are read in their order, the last
//! `boot_partition` counts; the flag is cleared before anything is started. A partition without a system is not passed over: the
//! firmware goes on to the next boot mode of its `BOOT_ORDER`, which is where a recovery medium would be.

use bank_format::{Bank, PerBank};

use super::{Board, Start, plain};
use crate::storage::Place;

/// Bytes of `autoboot.txt`.
pub const FILE_BYTES: usize = 512;
/// Numbers of the boot partitions.
pub const PARTITIONS: PerBank<u32> = PerBank { a: 2, b: 3 };

/// The file as it is delivered.
#[must_use]
pub fn factory() -> Vec<u8> {
    let mut text =
        String::from("[all]\ntryboot_a_b=1\nboot_partition=2\n[tryboot]\nboot_partition=3\n").into_bytes();
    text.resize(FILE_BYTES, b'\n');
    text
}

pub(super) fn start(board: &mut Board) -> Start {
    let flag = std::mem::take(&mut board.tryboot);
    let bytes = board.storage.head(Place::Autoboot, 0, FILE_BYTES);
    let text = String::from_utf8_lossy(&bytes);
    let mut holds = true;
    let mut partition = None;
    for line in text.lines().map(str::trim) {
        match line {
            "[all]" => holds = true,
            "[tryboot]" => holds = flag,
            _ if line.starts_with('[') => holds = false,
            _ if holds => {
                let number =
                    line.strip_prefix("boot_partition=").and_then(|number| number.parse::<u32>().ok());
                partition = number.or(partition);
            }
            _ => (),
        }
    }
    let bank = Bank::BOTH.into_iter().find(|bank| partition == Some(*PARTITIONS.get(*bank)));
    bank.filter(|bank| board.loadable(*bank)).map_or_else(|| board.nothing(), plain)
}
