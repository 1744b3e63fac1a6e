//! GRUB with the script `boot-hooks/loaders/grub.cfg`, by the layout in `docs/boot.md`: both copies are checked by their line, the
//! newer one counts; GRUB's own block is written before what it counts is tried, and a trial that cannot be counted is not started.

use std::collections::BTreeMap;

use bank_format::{Bank, Digest256, record::Medium as _};

use super::{Board, Recovery, Start, plain};
use crate::storage::{Place, Writer};

const BLOCK_BYTES: usize = 1024;
/// Where each copy starts, and how its line names the sectors.
const COPIES: [(usize, &str); 2] = [(0, "0+2"), (4096, "8+2")];
const OWN_AT: usize = 8192;
/// Where an index (ISO 9660) shows GRUB its own block as a file.
const INDEX_AT: usize = 32_768;
const TITLE: &str = "# GRUB Environment Block\n";

type Variables = BTreeMap<String, String>;

/// An environment block, as `load_env` reads it. Nothing that is stored here needs an escape.
fn block(bytes: &[u8]) -> Option<Variables> {
    let text = String::from_utf8_lossy(bytes);
    let lines = text.strip_prefix(TITLE)?.lines().filter(|line| !line.starts_with('#'));
    Some(lines.filter_map(|line| line.split_once('=')).map(|(k, v)| (k.to_owned(), v.to_owned())).collect())
}

fn render(variables: &[(&str, String)]) -> Vec<u8> {
    let mut bytes = TITLE.as_bytes().to_vec();
    for (name, value) in variables {
        bytes.extend(format!("{name}={value}\n").bytes());
    }
    bytes.resize(BLOCK_BYTES, b'#');
    bytes
}

/// `hashsum --check`: each line of the list names a file (here a list of sectors) and its digest; spaces before it do not count.
fn checked(board: &Board, at: usize, name: &str) -> Option<Variables> {
    let bytes = board.storage.head(Place::Loader, at, BLOCK_BYTES);
    let list = board.storage.head(Place::Loader, at + BLOCK_BYTES, 512);
    let text = std::str::from_utf8(&list).ok()?;
    let digest = Digest256::of(&bytes).to_string();
    let mut lines = text.lines();
    let first = lines.next()?.trim_start();
    let (found, file) = first.split_once("  ")?;
    let right = found == digest && file == name && lines.next().is_none();
    right.then(|| block(&bytes)).flatten()
}

fn bank(text: Option<&String>) -> Option<Bank> {
    match text.map(String::as_str) {
        Some("a") => Some(Bank::A),
        Some("b") => Some(Bank::B),
        _ => None,
    }
}

struct Wanted {
    serial: u64,
    default: Bank,
    next: Option<Bank>,
    recovery: bool,
    spare: bool,
}

fn wanted(board: &Board) -> Option<Wanted> {
    let copies = COPIES.iter().filter_map(|(at, name)| {
        let variables = checked(board, *at, name)?;
        Some(Wanted {
            serial: variables.get("roro_serial")?.parse().ok()?,
            default: bank(variables.get("roro_default"))?,
            next: bank(variables.get("roro_next")),
            recovery: variables.get("roro_next").is_some_and(|next| next == "recovery"),
            spare: variables.get("roro_spare").is_some_and(|spare| spare == "1"),
        })
    });
    copies.max_by_key(|copy| copy.serial)
}

/// What GRUB notes of a decision.
struct Own {
    tried: bool,
    /// One of [`LEFT`], by its place there.
    starts: usize,
}

/// What `left` says after so many starts: those that the default has, and those beyond.
const LEFT: [&str; 10] = ["3", "2", "1", "0", "x1", "x2", "x3", "x4", "x5", "x6"];
/// From here on the default bank is given up.
const GIVEN_UP: usize = 3;

fn own(board: &Board, serial: u64) -> Own {
    let known = block(&board.storage.head(Place::Loader, OWN_AT, BLOCK_BYTES)).unwrap_or_default();
    let of = |name: &str| known.get(name).map(String::as_str);
    if of("serial") != Some(serial.to_string().as_str()) {
        return Own { tried: false, starts: 0 };
    }
    Own {
        tried: of("tried") == Some("1"),
        starts: of("left").and_then(|left| LEFT.iter().position(|known| *known == left)).unwrap_or(0),
    }
}

/// Whether it is written: `save_env` writes into a block that is there, by a file that is there.
fn save(board: &Board, serial: u64, own: &Own) -> bool {
    let there = block(&board.storage.head(Place::Loader, OWN_AT, BLOCK_BYTES)).is_some()
        && board.storage.head(Place::Loader, INDEX_AT + 1, 5) == b"CD001";
    let tried = u8::from(own.tried).to_string();
    let bytes =
        render(&[("serial", serial.to_string()), ("tried", tried), ("left", LEFT[own.starts].to_owned())]);
    there && board.storage.medium(Place::Loader, Writer::Loader).write_at(OWN_AT as u64, &bytes).is_ok()
}

pub(super) fn start(board: &Board) -> Start {
    let gave_up = |bank: Bank, lost: Bank| Start::Bank { bank, gave_up: Some(lost) };
    let Some(wanted) = wanted(board) else {
        // The initrd decides by the record.
        let any = Bank::BOTH.into_iter().find(|bank| board.loadable(*bank));
        return any.map_or_else(|| board.nothing(), plain);
    };
    let mut own = own(board, wanted.serial);
    if let Some(next) = wanted.next.filter(|_| !own.tried) {
        own.tried = true;
        if save(board, wanted.serial, &own) && board.loadable(next) {
            return plain(next);
        }
    }
    if wanted.recovery && board.recovery == Recovery::Configured && !own.tried {
        own.tried = true;
        if save(board, wanted.serial, &own) {
            return Start::Recovery;
        }
    }
    let (default, other) = (wanted.default, !wanted.default);
    let has_given_up = own.starts >= GIVEN_UP;
    let is_at_the_end = own.starts + 1 == LEFT.len();
    own.starts = if is_at_the_end { own.starts - 1 } else { own.starts + 1 };
    if save(board, wanted.serial, &own) && is_at_the_end {
        return board.nothing();
    }
    if has_given_up && wanted.spare && board.loadable(other) {
        return gave_up(other, default);
    }
    if board.loadable(default) {
        plain(default)
    } else if board.loadable(other) {
        gave_up(other, default)
    } else {
        board.nothing()
    }
}
