//! The doorkeeper: process 1 of the initrd, and the systemd units that carry a boot from there to "confirmed".
//!
//! It may know bank-format, the kernel's interfaces through `nix`, and the partitions of the disk that was booted. It promises
//! to end in bounded time, and to end either in the verified root or in a reset with the reason written down.
//! Deliberately absent: network, TOML, threads, async, a shell, any choice that is not `bank_format::rule::decide`.

#![deny(unsafe_code)]

pub mod cmdline;
pub mod console;
pub mod disk;
pub mod ending;
pub mod error;
pub mod gpt;
pub mod handover;
pub mod init;
pub mod ledger;
pub mod limits;
#[expect(unsafe_code, reason = "the one module that speaks to the kernel through ioctls")]
pub mod linux;
pub mod loader;
pub mod mapping;
pub mod medium;
pub mod modules;
pub mod paths;
pub mod scenarios;
pub mod seed;
pub mod state;
pub mod switch;
pub mod vars;
pub mod verity;
pub mod watchdog;

pub use error::{Error, Result};
