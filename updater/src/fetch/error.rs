//! What can go wrong between us and a server.

use crate::error::Kind;

/// Why the bundle could not be fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// No connection, or it broke.
    #[error("the connection failed")]
    Network {
        /// The client's words.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The client does not even try.
    #[error("{detail}")]
    Refused {
        /// Why.
        detail: String,
    },
    /// A status that brings no bytes.
    #[error("the server answers with status {status}")]
    Status {
        /// HTTP status code.
        status: u16,
    },
    /// The answer contradicts the request.
    #[error("the server's answer is wrong: {detail}")]
    Protocol {
        /// How.
        detail: String,
    },
    /// The file has no bytes.
    #[error("the file on the server is empty")]
    Empty,
    /// Another file lies there now.
    #[error("the file on the server changed during the install: its {what} is another")]
    Changed {
        /// ETag, Last-Modified or length.
        what: &'static str,
    },
    /// It knew ranges a moment ago.
    #[error("the server does not serve ranges any more")]
    RangesLost,
    /// The body ended early.
    #[error("the connection ended after {received_bytes} bytes")]
    Interrupted {
        /// What came.
        received_bytes: u64,
    },
    /// It drips.
    #[error("the server is too slow: {bytes} bytes in {seconds} s")]
    TooSlow {
        /// What came.
        bytes: u64,
        /// In this time.
        seconds: u64,
    },
}

impl FetchError {
    /// Whether another attempt may go better.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Network { .. } | Self::Interrupted { .. } | Self::TooSlow { .. } => true,
            Self::Changed { .. } | Self::RangesLost => true,
            Self::Status { status } => matches!(status, 408 | 425 | 429 | 500 | 502 | 503 | 504),
            Self::Refused { .. } | Self::Protocol { .. } | Self::Empty => false,
        }
    }

    /// Whether the install should start anew from what is verified in the bank.
    #[must_use]
    pub fn wants_restart(&self) -> bool {
        match self {
            Self::Changed { .. } | Self::RangesLost | Self::Interrupted { .. } => true,
            Self::Network { .. }
            | Self::TooSlow { .. }
            | Self::Status { .. }
            | Self::Refused { .. }
            | Self::Protocol { .. }
            | Self::Empty => false,
        }
    }

    /// The kind, from which the exit code follows.
    #[must_use]
    pub fn kind(&self) -> Kind {
        if matches!(self, Self::Empty) {
            Kind::Rejected
        } else if self.is_passing() {
            Kind::TryLater
        } else {
            Kind::Device
        }
    }

    /// What to do next.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        if self.is_passing() {
            "run the same command again later: what is already verified in the bank is not fetched twice"
        } else {
            "check the address and the server"
        }
    }

    /// The whole chain in one line.
    #[must_use]
    pub fn line(&self) -> String {
        let mut text = self.to_string();
        let mut next = std::error::Error::source(self);
        while let Some(source) = next {
            text = format!("{text}: {source}");
            next = source.source();
        }
        text
    }
}
