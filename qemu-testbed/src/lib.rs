//! The proving ground: real firmware, real boots, real power cuts.
//!
//! Builds releases with `image-tool`, boots them in QEMU as they would be shipped, and watches from outside: serial
//! lines, disk and firmware variables. May know QEMU and the mint; never links the agent. Promises that everything it
//! starts ends with it. Scenarios ([`scenarios`]) are the tests; `demo` tells the story of the most important ones, `bench` measures.

pub mod accelerator;
pub mod bench;
pub mod commands;
pub mod damage;
pub mod disk;
pub mod efi_program;
pub mod error;
pub mod expect;
pub mod firmware;
pub mod fork;
pub mod guest;
pub mod hardware;
pub mod limits;
pub mod loader;
pub mod machine;
pub mod matrix;
pub mod packages;
pub mod printer;
pub mod process;
pub mod profile;
pub mod qmp;
pub mod release;
pub mod scenarios;
pub mod server;
pub mod slots;
pub mod stage;
pub mod uboot;
pub mod variables;
pub mod workshop;
