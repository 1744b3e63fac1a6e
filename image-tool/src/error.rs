//! What can go wrong in the mint. Each variant names the deed and its subject; the source says why.

use std::{fmt::Display, io, path::PathBuf};

/// Result of the mint.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of the mint.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be read, written or made.
    #[error("cannot {deed} {}", path.display())]
    File {
        /// What was to be done, as a verb.
        deed: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A program of the host could not be started.
    #[error("cannot start {program}; hint: install the Debian package {package}")]
    Start {
        /// The program.
        program: String,
        /// The Debian package that brings it.
        package: &'static str,
        /// The system's reason.
        source: io::Error,
    },
    /// A program of the host failed.
    #[error("{program} failed: {message}")]
    Program {
        /// The program.
        program: String,
        /// The last lines it wrote.
        message: String,
    },
    /// The appliance file is wrong.
    #[error("appliance {}: {message}", path.display())]
    Appliance {
        /// The file.
        path: PathBuf,
        /// What is wrong and what to do.
        message: String,
    },
    /// An input has another form than expected.
    #[error("{subject}: {message}")]
    Malformed {
        /// What was read.
        subject: String,
        /// What is wrong with it.
        message: String,
    },
    /// Something that the image needs is not there.
    #[error("{subject} is missing: {hint}")]
    Missing {
        /// What is missing.
        subject: String,
        /// What to do.
        hint: String,
    },
    /// Something does not fit.
    #[error("{subject} needs {needed} bytes, but only {available} are there: {hint}")]
    TooLarge {
        /// What does not fit.
        subject: String,
        /// Bytes it needs.
        needed: u64,
        /// Bytes there are.
        available: u64,
        /// What to do.
        hint: &'static str,
    },
    /// A structure shared with the device refused its input.
    #[error("cannot {deed}")]
    Format {
        /// What was to be done, as a verb.
        deed: &'static str,
        /// Why not.
        source: bank_format::Error,
    },
}

impl Error {
    pub(crate) fn file(deed: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { deed, path, source }
    }

    pub(crate) fn malformed(subject: impl Display, message: impl Display) -> Self {
        Self::Malformed { subject: subject.to_string(), message: message.to_string() }
    }

    pub(crate) fn missing(subject: impl Display, hint: impl Display) -> Self {
        Self::Missing { subject: subject.to_string(), hint: hint.to_string() }
    }
}
