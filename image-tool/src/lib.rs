//! The mint: file trees become images, images become signed bundles and factory disks.
//!
//! It may know private keys, file trees, the zstd encoder, mmdebstrap and mkfs. It promises that the same input gives the
//! same bytes. Deliberately absent: block devices of a device, and choosing a boot.

#![forbid(unsafe_code)]

pub mod appliance;
pub mod bundle;
pub mod cache;
pub mod chunker;
pub mod clock;
pub mod codec;
pub mod commands;
pub mod cpio;
pub mod cuts;
pub mod delta;
pub mod disk;
pub mod elf;
pub mod erofs;
pub mod error;
pub mod fat;
pub mod host;
pub mod initrd;
pub mod keys;
pub mod limits;
pub mod loader;
pub mod mint;
pub mod modules;
pub mod packages;
pub mod printer;
pub mod progress;
pub mod reader;
pub mod release;
pub mod root_json;
pub mod rootfs;
pub mod secure_boot;
pub mod segments;
pub mod tree;
pub mod uki;

pub use error::{Error, Result};
