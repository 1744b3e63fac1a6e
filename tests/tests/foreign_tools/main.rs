//! The tools of the field as the oracle, both ways: what Roro writes they read, what they write Roro reads, on random states.
//!
//! Each tool runs as it is shipped, on files in memory. Seeds are fixed, so a difference comes back at the next run. A tool that is not
//! installed fails the suite where `CI` is set; elsewhere the suite says that it was left out.

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a suite that cannot set its stage has failed, and tells what it has done"
)]

mod efi;
mod fat;
mod grub;
mod systemd_boot;
mod uboot;

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use bank_format::{Bank, loader::Spare};

/// Random states for each tool.
pub const STATES: usize = 10_000;

/// A program of somebody else.
pub struct Tool {
    path: PathBuf,
    environment: Vec<(String, String)>,
}

impl Tool {
    /// Finds it; `None` where it may be absent.
    pub fn find(name: &str, package: &str) -> Option<Self> {
        let places = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
        let found = places.split(':').map(|place| Path::new(place).join(name)).find(|path| path.is_file());
        match found {
            Some(path) => Some(Self { path, environment: Vec::new() }),
            None if std::env::var_os("CI").is_some() => panic!("{name} is missing: install {package}"),
            None => {
                eprintln!("left out: {name} is not installed (Debian package {package})");
                None
            }
        }
    }

    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn command<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Command {
        let mut command = Command::new(&self.path);
        command.args(arguments).env("LC_ALL", "C").stdin(Stdio::null());
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// What it says; it must succeed.
    pub fn run<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> String {
        let mut command = self.command(arguments);
        let Output { status, stdout, stderr } = command.output().expect("the tool starts");
        let (stdout, stderr) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
        assert!(status.success(), "{command:?}: {status}: {stdout}{stderr}");
        stdout.into_owned()
    }
}

/// Numbers that are the same in every run: the generator "splitmix64".
pub struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).unwrap_or_default()
    }

    pub(crate) fn of<'c, T>(&mut self, choices: &'c [T]) -> &'c T {
        let at = self.below(choices.len());
        choices.get(at).expect("there is something to choose from")
    }

    /// A text of these characters.
    pub fn text(&mut self, characters: &str, most: usize) -> String {
        let characters: Vec<char> = characters.chars().collect();
        (0..self.below(most + 1)).map(|_| *self.of(&characters)).collect()
    }

    pub(crate) fn bank(&mut self) -> Bank {
        *self.of(&Bank::BOTH)
    }

    pub(crate) fn spare(&mut self) -> Spare {
        *self.of(&[Spare::Bootable, Spare::Unbootable])
    }
}

/// A directory in memory where there is one: some tools flush each write.
pub fn scratch() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let made = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    made.expect("a directory can be made")
}

/// Says what was done: a suite that looks at nothing passes as well.
pub fn report(tool: &str, states: usize) {
    eprintln!("{tool}: {states} random states, no difference");
    assert!(states >= STATES, "{tool} was to see {STATES} states, it saw {states}");
}
