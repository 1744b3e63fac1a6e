//! The boot loaders behind one port.

pub mod efi;
pub mod file;
mod partition;

pub use efi::EfiBoot;
pub use file::{FileBoot, SimulatedReboot};
