//! What can be wrong with bytes from outside. Each variant names the structure, so that a person knows where to look.

use crate::digest::Digest256;

/// Result with the error of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why bytes were not accepted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The magic is another.
    #[error("not a {structure}: it starts with other bytes")]
    WrongMagic {
        /// What was expected.
        structure: &'static str,
    },
    /// The format is newer than this reader.
    #[error(
        "{structure} needs a reader of format {min_reader}, this one reads {supported}: update the tool first"
    )]
    NewerFormat {
        /// What was read.
        structure: &'static str,
        /// The oldest reader that understands it.
        min_reader: u16,
        /// The newest format that this code understands.
        supported: u16,
    },
    /// The bytes do not follow the format.
    #[error("malformed {structure}: {detail}")]
    Malformed {
        /// What was read.
        structure: &'static str,
        /// What is wrong.
        detail: String,
    },
    /// A size is beyond the limit.
    #[error("{structure} is too large: {value}, at most {limit}")]
    TooLarge {
        /// What was read.
        structure: &'static str,
        /// The size it claims.
        value: u64,
        /// The limit.
        limit: u64,
    },
    /// The input ended early.
    #[error("{structure} is cut short: {missing_bytes} bytes are missing")]
    Truncated {
        /// What was read.
        structure: &'static str,
        /// How many bytes are missing at least.
        missing_bytes: u64,
    },
    /// Not JSON, or not the JSON that was asked for.
    #[error("cannot read {structure}")]
    Json {
        /// What was read.
        structure: &'static str,
        /// The parser's words.
        #[source]
        source: serde_json::Error,
    },
    /// Not TOML, or not the TOML that was asked for.
    #[error("cannot read {structure}")]
    Toml {
        /// What was read.
        structure: &'static str,
        /// The parser's words.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// Cannot be written as TOML or JSON: a bug in Roro.
    #[error("cannot write {structure}: this is a bug in Roro")]
    Encode {
        /// What was written.
        structure: &'static str,
        /// The serializer's words.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A digest is not the signed one.
    #[error("{subject} is not what was signed: expected {expected}, found {found}")]
    DigestMismatch {
        /// What was hashed.
        subject: String,
        /// The signed digest.
        expected: Digest256,
        /// The digest of the bytes.
        found: Digest256,
    },
    /// Too few good signatures.
    #[error("{subject} has {valid} valid signatures of the {role} role, {threshold} are needed")]
    ThresholdNotMet {
        /// What was signed.
        subject: &'static str,
        /// The role whose keys count.
        role: &'static str,
        /// Signatures by distinct keys that verify.
        valid: usize,
        /// Signatures needed.
        threshold: usize,
    },
    /// Metadata has expired.
    #[error("{subject} expired at {expires}: install a newer one, or set the clock if it is wrong")]
    Expired {
        /// What has expired.
        subject: &'static str,
        /// When, RFC 3339.
        expires: String,
    },
    /// The next root has another version than the one after this.
    #[error("next trust root has version {found}, expected {expected}")]
    RootVersion {
        /// N + 1.
        expected: u64,
        /// What it says.
        found: u64,
    },
}

/// What a caller does about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The input is refused: malformed, or not signed as it must be.
    Rejected,
    /// A bug in Roro.
    Internal,
}

impl Error {
    /// The kind, from which the exit code follows.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Encode { .. } => ErrorKind::Internal,
            Self::WrongMagic { .. }
            | Self::NewerFormat { .. }
            | Self::Malformed { .. }
            | Self::TooLarge { .. }
            | Self::Truncated { .. }
            | Self::Json { .. }
            | Self::Toml { .. }
            | Self::DigestMismatch { .. }
            | Self::ThresholdNotMet { .. }
            | Self::Expired { .. }
            | Self::RootVersion { .. } => ErrorKind::Rejected,
        }
    }

    pub(crate) fn malformed(structure: &'static str, detail: impl Into<String>) -> Self {
        Self::Malformed { structure, detail: detail.into() }
    }
}
