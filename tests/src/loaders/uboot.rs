//! U-Boot with the script `boot-hooks/loaders/u-boot.cmd`: the first bank of `BOOT_ORDER` that has starts left is started, and the
//! start is counted in the older copy of the environment before. Format of the environment: U-Boot's `include/env_internal.h`.

use bank_format::{Bank, record::Medium as _};

use super::{Board, Start, plain};
use crate::storage::{Place, Writer};

/// Bytes of one copy.
pub const COPY_BYTES: usize = 4096;
/// CRC and serial.
const HEAD_BYTES: usize = 5;

/// CRC-32 as in ISO 3309, bit by bit: another code than the one that is judged.
fn crc(bytes: &[u8]) -> u32 {
    let shift = |crc: u32| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
    !bytes.iter().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), |crc, _| shift(crc)))
}

/// One copy of an environment.
#[must_use]
pub fn render(variables: &[String], serial: u8) -> Vec<u8> {
    let mut data: Vec<u8> =
        variables.iter().flat_map(|variable| [variable.as_bytes(), &[0]].concat()).collect();
    data.resize(COPY_BYTES - HEAD_BYTES, 0);
    [&crc(&data).to_le_bytes()[..], &[serial], &data].concat()
}

struct Environment {
    serial: u8,
    copy: u8,
    variables: Vec<String>,
}

impl Environment {
    fn read(board: &Board, copy: u8) -> Option<Self> {
        let bytes = board.storage.head(Place::Environment(copy), 0, COPY_BYTES);
        let data = bytes.get(HEAD_BYTES..)?;
        let found = bytes.first_chunk::<4>().map(|crc| u32::from_le_bytes(*crc))?;
        let texts = data.split(|byte| *byte == 0).take_while(|text| !text.is_empty());
        let variables = texts.map(|text| String::from_utf8_lossy(text).into_owned()).collect();
        (crc(data) == found).then(|| Self {
            serial: bytes.get(4).copied().unwrap_or_default(),
            copy,
            variables,
        })
    }

    /// Both copies whole: the newer by its serial, where 0 follows 255.
    fn newest(board: &Board) -> Option<Self> {
        match (Self::read(board, 0), Self::read(board, 1)) {
            (Some(first), Some(second)) => {
                let newer = match (first.serial, second.serial) {
                    (255, 0) => true,
                    (0, 255) => false,
                    (first, second) => second > first,
                };
                Some(if newer { second } else { first })
            }
            (first, second) => first.or(second),
        }
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.variables.iter().find_map(|variable| variable.strip_prefix(name)?.strip_prefix('='))
    }

    fn left(&self, bank: Bank) -> u32 {
        self.get(left(bank)).and_then(|text| u32::from_str_radix(text, 16).ok()).unwrap_or_default()
    }

    fn order(&self) -> Vec<Bank> {
        let names = self.get("BOOT_ORDER").unwrap_or_default().split_whitespace();
        names.filter_map(|name| Bank::BOTH.into_iter().find(|bank| name == letter(*bank))).collect()
    }

    /// Counts one start, in the older copy.
    fn count(&mut self, board: &Board, bank: Bank) {
        let counted = format!("{}={:x}", left(bank), self.left(bank).saturating_sub(1));
        let prefix = format!("{}=", left(bank));
        for variable in self.variables.iter_mut().filter(|variable| variable.starts_with(&prefix)) {
            variable.clone_from(&counted);
        }
        let older = Place::Environment(1 - self.copy);
        let bytes = render(&self.variables, self.serial.wrapping_add(1));
        let _written = board.storage.medium(older, Writer::Loader).write_at(0, &bytes);
    }
}

fn letter(bank: Bank) -> &'static str {
    match bank {
        Bank::A => "A",
        Bank::B => "B",
    }
}

fn left(bank: Bank) -> &'static str {
    match bank {
        Bank::A => "BOOT_A_LEFT",
        Bank::B => "BOOT_B_LEFT",
    }
}

pub(super) fn start(board: &Board) -> Start {
    let loadable = |bank: &Bank| board.loadable(*bank);
    let Some(mut environment) = Environment::newest(board) else {
        // Nothing is known: the initrd decides by the record.
        return Bank::BOTH.into_iter().find(loadable).map_or_else(|| board.nothing(), plain);
    };
    let order = environment.order();
    let order = if order.is_empty() { Bank::BOTH.to_vec() } else { order };
    let given_up = |bank: Bank| order.first().copied().filter(|first| *first != bank);
    let counted = order.iter().copied().find(|bank| environment.left(*bank) > 0 && board.loadable(*bank));
    if let Some(bank) = counted {
        environment.count(board, bank);
        return Start::Bank { bank, gave_up: given_up(bank) };
    }
    // No starts are left to any: what can be loaded is started all the same, as nothing better is there.
    match order.iter().copied().find(loadable) {
        Some(bank) => Start::Bank { bank, gave_up: given_up(bank) },
        None => board.nothing(),
    }
}
