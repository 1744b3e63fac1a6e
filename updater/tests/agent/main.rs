//! The agent from end to end: installs, the ways back, the health gate. On files and in memory, without root.

#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod audit;
mod by_hand;
mod evidence;
mod gate;
mod health;
mod install;
#[expect(
    clippy::panic,
    clippy::print_stderr,
    reason = "a board that spins has failed; a tool that is absent is named"
)]
mod pages;
mod support;
mod ways_back;
