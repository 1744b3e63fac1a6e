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
    /// A key is not usable.
    #[error("key {}: {message}", path.display())]
    Key {
        /// Its file, or the directory of keys.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
        /// What to do.
        hint: String,
    },
    /// The command contradicts itself, or what is there.
    #[error("{message}")]
    Usage {
        /// What is wrong.
        message: String,
        /// What to do.
        hint: String,
    },
    /// A bundle is refused.
    #[error("bundle {} is refused", path.display())]
    Rejected {
        /// The bundle.
        path: PathBuf,
        /// Why.
        source: bank_format::Error,
    },
    /// A trust root is refused.
    #[error("trust root {} is refused", path.display())]
    TrustRoot {
        /// Its file.
        path: PathBuf,
        /// Why.
        source: bank_format::Error,
    },
    /// A frame cannot be coded: its bytes are damaged, or the coder is.
    #[error("cannot {deed} frame {frame}")]
    Frame {
        /// What was to be done, as a verb.
        deed: &'static str,
        /// Number of the frame in its image.
        frame: usize,
        /// The coder's words.
        source: io::Error,
    },
    /// A promise inside the mint was broken.
    #[error("{what}: this is a bug in Roro")]
    Bug {
        /// Which one.
        what: &'static str,
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

/// What a caller does about an error; the exit code follows from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A bug.
    Internal,
    /// The command or its inputs are wrong.
    Usage,
    /// A signature, digest or format does not fit.
    Rejected,
    /// The system refused: a file, a disk, a program of the host.
    Device,
}

impl Kind {
    /// The exit code, as in docs/architecture.md.
    #[must_use]
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Internal => 1,
            Self::Usage => 2,
            Self::Rejected => 4,
            Self::Device => 5,
        }
    }
}

impl Error {
    /// The kind.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::File { .. } | Self::Start { .. } | Self::Program { .. } => Kind::Device,
            Self::Appliance { .. }
            | Self::Missing { .. }
            | Self::TooLarge { .. }
            | Self::Key { .. }
            | Self::Usage { .. } => Kind::Usage,
            Self::Malformed { .. } | Self::Rejected { .. } | Self::TrustRoot { .. } => Kind::Rejected,
            Self::Frame { deed: "compress", .. } | Self::Bug { .. } => Kind::Internal,
            Self::Frame { .. } => Kind::Rejected,
            Self::Format { source, .. } => match source.kind() {
                bank_format::ErrorKind::Rejected => Kind::Rejected,
                bank_format::ErrorKind::Internal => Kind::Internal,
            },
        }
    }

    /// What a person can do about it, where the message does not say so already.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        use bank_format::Error as Format;
        match self {
            Self::Key { hint, .. } | Self::Usage { hint, .. } => Some(hint.clone()),
            Self::Rejected { source, .. } => match source {
                Format::ThresholdNotMet { .. } => {
                    Some("give the root.json of the keys that signed this bundle, or sign it again".into())
                }
                Format::DigestMismatch { .. } | Format::Truncated { .. } => {
                    Some("the file is damaged: fetch it again".into())
                }
                Format::WrongMagic { .. } => {
                    Some("a bundle is what `image-tool bundle` or `build` writes".into())
                }
                _ => None,
            },
            Self::Frame { deed: "decode", .. } => Some("the file is damaged: fetch it again".into()),
            Self::File { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                Some("make room on the disk, then run the command again".into())
            }
            _ => None,
        }
    }

    pub(crate) fn key(path: impl Into<PathBuf>, message: impl Display, hint: impl Display) -> Self {
        Self::Key { path: path.into(), message: message.to_string(), hint: hint.to_string() }
    }

    pub(crate) fn usage(message: impl Display, hint: impl Display) -> Self {
        Self::Usage { message: message.to_string(), hint: hint.to_string() }
    }

    pub(crate) fn format(deed: &'static str) -> impl FnOnce(bank_format::Error) -> Self {
        move |source| Self::Format { deed, source }
    }

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
