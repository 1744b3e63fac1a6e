//! The scenario table with the real U-Boot, on QEMU's arm64 board, with kernels of a few instructions.
//!
//! The disk, the boot script's settings and the agent's configuration are those of `docs/loaders/u-boot.md`. What is real and what is
//! played stands at the head of `stage`. Every row of the table is
//! played; the one that has another end here is named by [`cannot_be`].

mod board;
mod cuts;
mod damage;
mod device;
mod images;
mod page;
mod payload;
mod play;
mod stage;

pub use play::{cannot_be, play, play_without_its_partition};

use crate::error::Error;

/// Something that should not be, with the words of what noticed it.
fn odd(what: &str, seen: &dyn std::fmt::Display) -> Error {
    Error::Unexpected { what: what.to_owned(), wanted: "it to be sound".to_owned(), seen: seen.to_string() }
}
