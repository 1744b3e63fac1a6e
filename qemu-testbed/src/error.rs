//! What can go wrong in the proving ground: operation and subject, never the source's text a second time.
//! The edge (`main.rs`) prints the chain once and takes the exit code from [`Error::exit_code`].

use std::{io, path::PathBuf};

/// The result of everything here.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file operation failed.
    #[error("cannot {deed} {}", subject.display())]
    Io {
        /// The deed, as a verb.
        deed: &'static str,
        /// The file.
        subject: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A program could not be started.
    #[error("cannot start {program}")]
    Start {
        /// Its name.
        program: String,
        /// What the system said.
        source: io::Error,
    },
    /// A program ended badly.
    #[error("{program} ended with {status}: {last_words}")]
    Program {
        /// Its name.
        program: String,
        /// Its exit status.
        status: String,
        /// The end of what it said.
        last_words: String,
    },
    /// Debian packages are missing and we may not install them.
    #[error("debian packages are missing: {packages}; install them with: {command}")]
    PackagesMissing {
        /// The packages.
        packages: String,
        /// The one command to run.
        command: String,
    },
    /// QEMU is gone although nobody cut its power.
    #[error("machine {machine}: qemu ended by itself: {last_words}")]
    MachineEnded {
        /// Name of the machine.
        machine: String,
        /// The end of what QEMU said.
        last_words: String,
    },
    /// The machine is off.
    #[error("machine {machine} is off; power it on first")]
    MachineOff {
        /// Name of the machine.
        machine: String,
    },
    /// Something awaited did not appear.
    #[error("{place}: {why} {wanted}; full log: {}; it ends with\n{tail}", log.display())]
    NotSeen {
        /// Which line or console.
        place: &'static str,
        /// Deadline passed, or the machine ended.
        why: String,
        /// What was awaited.
        wanted: String,
        /// The file with everything.
        log: PathBuf,
        /// The last lines.
        tail: String,
    },
    /// Something appeared that ends all hope.
    #[error("{place}: saw {seen:?} while waiting for {wanted}; full log: {}; it ends with\n{tail}", log.display())]
    Hopeless {
        /// Which line or console.
        place: &'static str,
        /// What was seen.
        seen: String,
        /// What was awaited.
        wanted: String,
        /// The file with everything.
        log: PathBuf,
        /// The last lines.
        tail: String,
    },
    /// The guest rebooted in the middle of a command.
    #[error("the guest restarted during: {command}")]
    GuestRestarted {
        /// The command.
        command: String,
    },
    /// A console line that the guest's tty would cut.
    #[error("console line of {length} bytes is too long for the guest's tty; split it")]
    ConsoleLine {
        /// Its length.
        length: usize,
    },
    /// QEMU refused a QMP command, or spoke no JSON.
    #[error("qmp {command}: {answer}")]
    Qmp {
        /// The command.
        command: String,
        /// The answer.
        answer: String,
    },
    /// The system under test did something else than promised.
    #[error("{what}: expected {wanted}, saw {seen}")]
    Unexpected {
        /// The subject.
        what: String,
        /// What was promised.
        wanted: String,
        /// What happened.
        seen: String,
    },
    /// Text that should be JSON.
    #[error("{what} is no JSON: {text}")]
    Json {
        /// Where it came from.
        what: String,
        /// The text.
        text: String,
        /// What the parser said.
        source: serde_json::Error,
    },
    /// The mint could not make a release.
    #[error("cannot make release {release}")]
    Mint {
        /// Which.
        release: String,
        /// What the mint said.
        source: Box<image_tool::Error>,
    },
    /// There is no such scenario.
    #[error("no scenario is called {name}; see qemu-testbed list")]
    NoScenario {
        /// The name given.
        name: String,
    },
    /// There is no such boot loader here.
    #[error("no boot loader is called {name}; there are efi, systemd-boot, grub-efi, grub-bios and u-boot")]
    NoLoader {
        /// The name given.
        name: String,
    },
    /// The page of a boot loader shows no appliance.
    #[error("{} has no block of toml, which the test must follow", page.display())]
    NoExample {
        /// The page.
        page: PathBuf,
    },
    /// The benchmark has nothing of that name.
    #[error("nothing to measure is called {name}; there are {known}")]
    NothingToMeasure {
        /// The name given.
        name: String,
        /// The names that there are.
        known: String,
    },
    /// Only root can do that.
    #[error("{what}: run it as root")]
    NotRoot {
        /// What needs root.
        what: &'static str,
    },
    /// Scenarios were run and some failed.
    #[error("{failed} of {total} scenarios failed")]
    ScenariosFailed {
        /// How many failed.
        failed: usize,
        /// How many ran.
        total: usize,
    },
}

impl Error {
    /// An [`Error::Io`] to be filled with its source.
    pub fn io(deed: &'static str, subject: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let subject = subject.into();
        move |source| Error::Io { deed, subject, source }
    }

    /// The exit code of docs/architecture.md.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::NoScenario { .. } | Error::NoLoader { .. } | Error::NothingToMeasure { .. } => 2,
            Error::Io { .. }
            | Error::PackagesMissing { .. }
            | Error::Start { .. }
            | Error::NotRoot { .. } => 5,
            _ => 1,
        }
    }
}
