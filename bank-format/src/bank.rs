//! The two banks.

use std::{fmt, ops::Not, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::error::Error;

/// Bank A or B: one complete system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Bank {
    /// Bank A, where a factory disk starts.
    A,
    /// Bank B.
    B,
}

impl Bank {
    /// Both banks, A first.
    pub const BOTH: [Self; 2] = [Self::A, Self::B];

    /// `a` or `b`.
    #[must_use]
    pub fn letter(self) -> &'static str {
        match self {
            Self::A => "a",
            Self::B => "b",
        }
    }
}

/// The passive bank is `!active`.
impl Not for Bank {
    type Output = Self;
    fn not(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }
}

impl fmt::Display for Bank {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.letter())
    }
}

impl FromStr for Bank {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        match text {
            "a" | "A" => Ok(Self::A),
            "b" | "B" => Ok(Self::B),
            _ => Err(Error::malformed("bank", format!("expected a or b, found {text:?}"))),
        }
    }
}

/// One value for each bank.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PerBank<T> {
    /// Of bank A.
    pub a: T,
    /// Of bank B.
    pub b: T,
}

impl<T> PerBank<T> {
    /// The value of `bank`.
    pub fn get(&self, bank: Bank) -> &T {
        match bank {
            Bank::A => &self.a,
            Bank::B => &self.b,
        }
    }

    /// The value of `bank`, to be changed.
    pub fn get_mut(&mut self, bank: Bank) -> &mut T {
        match bank {
            Bank::A => &mut self.a,
            Bank::B => &mut self.b,
        }
    }

    /// Makes both values, A first; stops at the first error.
    pub fn try_from_fn<E>(mut make: impl FnMut(Bank) -> Result<T, E>) -> Result<Self, E> {
        Ok(Self { a: make(Bank::A)?, b: make(Bank::B)? })
    }
}
