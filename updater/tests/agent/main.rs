//! The agent from end to end: installs, the ways back, the health gate. On files and in memory, without root.

#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod install;
mod pages;
mod support;
mod ways_back;
