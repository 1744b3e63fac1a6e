//! The agent on the device: writes bundles into the passive bank, tries them, confirms them, falls back.
//!
//! [`engine`] decides and touches nothing; [`ports`] are the doors; [`device`] carries the decisions out, in their order.
//! It may know public keys, the configuration, the network and the passive bank. It promises that no byte reaches a bank
//! before it was checked against a signature, and that no bank is tried before it was read back. Deliberately absent: private keys.

#![deny(unsafe_code)]

pub mod bank;
pub mod boot;
pub mod cli;
pub mod clock;
pub mod codec;
pub mod commands;
pub mod config;
pub mod crew;
pub mod device;
pub mod disk;
pub mod engine;
pub mod error;
pub mod evidence;
pub mod fetch;
pub mod files;
pub mod gate;
pub mod health;
pub mod history;
pub mod http;
pub mod install;
pub mod limits;
#[expect(unsafe_code, reason = "the one room for system calls")]
pub mod linux;
pub mod machine;
pub mod medium;
pub mod notify;
pub mod pages;
pub mod ports;
pub mod printer;
pub mod process;
pub mod progress;
pub mod record;
pub mod rollback;
pub mod settle;
pub mod status;
pub mod table;
pub mod throttle;
pub mod trust;

pub use device::Device;
pub use error::{Error, Kind, Result};
pub use install::{InstallReport, PlanReport, Terms, install, plan};
