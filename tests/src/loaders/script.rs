//! A loader of an integrator: the program and the loader of `docs/loaders/script.md`, run by `sh` as they stand on the page.
//!
//! Their state is one line in a file that both replace by renaming, so it is there in the old form or in the new one. What they did with a
//! state is remembered, as they know nothing else: the thousands of states after a power cut would take minutes otherwise. `sync` is
//! left out. The page's loader looks at no boot image: it starts what is not there, and counts that start like any other.

use std::{
    collections::BTreeMap,
    fs, io,
    path::Path,
    process::Command,
    sync::{Mutex, PoisonError},
};

use bank_format::{
    Bank,
    efi::VarStore as _,
    loader::{Loader, Spare},
};

use super::{Board, Start};
use crate::storage::Storage;

const PAGE: &str = include_str!("../../../docs/loaders/script.md");
/// Under this name the state lies among the firmware variables of the storage.
const NAME: &str = "State";
const VENDOR: &str = "script";
/// The same name as a key of the storage: `NAME-VENDOR`.
pub const KEY: &str = "State-script";

/// The state of a factory disk.
#[must_use]
pub fn factory() -> Vec<u8> {
    b"default=a spare=none next=none left=3\n".to_vec()
}

/// Which block of the page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Program,
    Loader,
}

/// A part with its words, and the state that it found.
type Asked = (Part, Vec<String>, Option<Vec<u8>>);
/// What it printed, or why it failed; and the state that it left.
type Answered = (Result<String, String>, Option<Vec<u8>>);

static ANSWERS: Mutex<BTreeMap<Asked, Answered>> = Mutex::new(BTreeMap::new());

/// Runs a part on the state in the storage.
fn run(storage: &Storage, part: Part, words: &[&str]) -> io::Result<String> {
    let mut variables = storage.variables();
    let state = variables.read(NAME, VENDOR).map_err(io::Error::from)?;
    let asked = (part, words.iter().map(|word| (*word).to_owned()).collect(), state.clone());
    let known = ANSWERS.lock().unwrap_or_else(PoisonError::into_inner).get(&asked).cloned();
    let (said, after) = match known {
        Some(answered) => answered,
        None => {
            let answered = really_run(part, words, state.as_deref())?;
            ANSWERS.lock().unwrap_or_else(PoisonError::into_inner).insert(asked, answered.clone());
            answered
        }
    };
    if after != state {
        variables.write(NAME, VENDOR, &after.unwrap_or_default()).map_err(io::Error::from)?;
    }
    said.map_err(io::Error::other)
}

fn really_run(part: Part, words: &[&str], state: Option<&[u8]>) -> io::Result<Answered> {
    let dir = tempfile::tempdir()?;
    let place = dir.path().join("state");
    if let Some(state) = state {
        fs::write(&place, state)?;
    }
    let block = PAGE.split("```sh\n").nth(1 + part as usize).and_then(|rest| rest.split("```").next());
    let block = block.ok_or_else(|| io::Error::other("the page has no such block"))?;
    let script = dir.path().join("script");
    let text = block.replace("/boot/loader/state", &place.display().to_string());
    fs::write(&script, text.replace("set -eu\n", "set -eu\nsync() { :; }\n"))?;
    let output = Command::new("sh").arg(&script).args(words).output()?;
    let said = if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
    };
    Ok((said, read(&place)?))
}

fn read(place: &Path) -> io::Result<Option<Vec<u8>>> {
    match fs::read(place) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        other => other.map(Some),
    }
}

pub(super) fn start(board: &Board) -> Start {
    let Ok(line) = run(&board.storage, Part::Loader, &[]) else { return Start::Nothing };
    let bank = |key: &str| -> Option<Bank> {
        line.split_whitespace().find_map(|word| word.strip_prefix(key)?.parse().ok())
    };
    match bank("roro.bank=") {
        Some(started) => Start::Bank { bank: started, gave_up: bank("roro.gave_up=") },
        None => Start::Nothing,
    }
}

/// The program of the page, as the agent calls it.
#[derive(Debug)]
pub struct Program(pub Storage);

impl Loader for Program {
    type Error = io::Error;

    fn next(&mut self) -> io::Result<Option<Bank>> {
        match run(&self.0, Part::Program, &["next"])?.as_str() {
            "none" => Ok(None),
            bank => bank.parse().map(Some).map_err(io::Error::other),
        }
    }

    fn set_next(&mut self, bank: Bank) -> io::Result<()> {
        run(&self.0, Part::Program, &["set-next", bank.letter()]).map(drop)
    }

    fn set_default(&mut self, first: Bank, spare: Spare) -> io::Result<()> {
        let spare = match spare {
            Spare::Bootable => "bootable",
            Spare::Unbootable => "unbootable",
        };
        run(&self.0, Part::Program, &["set-default", first.letter(), spare]).map(drop)
    }

    /// The program lies in the root: the initrd resets, and no more.
    fn redirect(&mut self, _: Bank, _: Spare) -> io::Result<()> {
        Ok(())
    }
}
