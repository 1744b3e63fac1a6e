//! The judge: what the suites over all libraries share. No root, no network beyond loopback, no virtual machine.

#![forbid(unsafe_code)]

pub mod cuts;
pub mod forge;
pub mod fuzz;
pub mod hostile;
pub mod loaders;
pub mod simulated;
pub mod stage;
pub mod storage;
