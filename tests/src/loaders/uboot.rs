//! U-Boot with the script `boot-hooks/loaders/u-boot.cmd`: the first bank of `BOOT_ORDER` that has starts left is started, and the
//! start is counted in the older copy of the environment before. Format of the environment: U-Boot's `include/env_internal.h`.

use bank_format::{Bank, record::Medium as _};

use super::{Board, Start};
use crate::storage::{Place, Writer};

/// Bytes of one copy.
pub const COPY_BYTES: usize = 4096;
/// Starts of a bank where the environment does not say how many.
const STARTS: u32 = 3;
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

/// What a bank's `left` says from its first start beyond those that were left.
const BEYOND: [&str; 6] = ["x1", "x2", "x3", "x4", "x5", "x6"];

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
        self.get(left(bank)).map_or(STARTS, |text| u32::from_str_radix(text, 16).unwrap_or_default())
    }

    fn order(&self) -> Vec<Bank> {
        let names = self.get("BOOT_ORDER").unwrap_or("A B").split_whitespace();
        names.filter_map(|name| Bank::BOTH.into_iter().find(|bank| name == letter(*bank))).collect()
    }

    /// What is left after one more start; [`BEYOND`] counts those beyond, and then every other one is none.
    fn after_one_more(&self, bank: Bank) -> String {
        match self.left(bank) {
            0 => {
                match self.get(left(bank)).and_then(|beyond| BEYOND.iter().position(|known| *known == beyond))
                {
                    Some(at) => BEYOND.get(at + 1).unwrap_or(&BEYOND[BEYOND.len() - 2]).to_string(),
                    None => BEYOND[0].to_owned(),
                }
            }
            some => format!("{:x}", some - 1),
        }
    }

    /// Counts one start, in the older copy, which is the newer one from then on.
    fn count(&mut self, board: &Board, bank: Bank) {
        let counted = format!("{}={}", left(bank), self.after_one_more(bank));
        let prefix = format!("{}=", left(bank));
        match self.variables.iter_mut().find(|variable| variable.starts_with(&prefix)) {
            Some(variable) => *variable = counted,
            None => self.variables.push(counted),
        }
        (self.copy, self.serial) = (1 - self.copy, self.serial.wrapping_add(1));
        let bytes = render(&self.variables, self.serial);
        let _written =
            board.storage.medium(Place::Environment(self.copy), Writer::Loader).write_at(0, &bytes);
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
    // Where nothing is known, an empty environment is begun in copy 0, and the initrd decides by the record.
    let lost = Environment { serial: 0, copy: 1, variables: Vec::new() };
    let mut environment = Environment::newest(board).unwrap_or(lost);
    let order = environment.order();
    let gave_up = |bank: Bank| order.first().copied().filter(|first| *first != bank);
    for bank in order.iter().copied() {
        if environment.left(bank) > 0 {
            environment.count(board, bank);
            if board.loadable(bank) {
                return Start::Bank { bank, gave_up: gave_up(bank) };
            }
        }
    }
    // No starts are left to any: what can be loaded is started six more times, as nothing better is there; a trial last.
    let mut rest = order.clone();
    rest.sort_by_key(|bank| environment.get("roro_trial") == Some(bank.letter()));
    for bank in rest {
        let is_at_the_end = environment.get(left(bank)) == BEYOND.last().copied();
        environment.count(board, bank);
        if is_at_the_end {
            break;
        }
        if board.loadable(bank) {
            return Start::Bank { bank, gave_up: gave_up(bank) };
        }
    }
    board.nothing()
}
