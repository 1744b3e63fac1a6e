//! The treaty: the bytes and types that every room of Roro shares, and the rule that picks the bank to boot.
//!
//! It may know hashing, ed25519 verification and serde. It promises never to panic, whatever bytes it is given,
//! and never to take more memory than [`limits`] allows. Deliberately absent: files, network, clock, environment,
//! threads and `unsafe`. Where a deed needs input or output, a trait stands here and the hands are elsewhere.

#![forbid(unsafe_code)]

pub mod bank;
pub mod barrier;
pub mod bundle;
pub mod delta;
pub mod digest;
pub mod efi;
pub mod error;
pub mod fat;
pub mod gpt;
pub mod header;
pub mod health;
pub mod index;
pub mod json;
pub mod limits;
pub mod loader;
pub mod manifest;
pub mod record;
pub mod release;
pub mod rule;
pub mod signatures;
pub mod tail;
pub mod trust;
mod varint;
pub mod verity;

pub use bank::{Bank, PerBank};
pub use digest::Digest256;
pub use error::{Error, ErrorKind};
pub use manifest::{Manifest, Verified};
pub use release::Release;
pub use trust::TrustRoot;
