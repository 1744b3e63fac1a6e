//! The boot loaders behind one port.

use crate::{
    config::{Backend, Config},
    ports::BootControl,
};

pub mod efi;
pub mod file;
mod loader;
mod partition;

pub use efi::EfiVars;
pub use file::{FileBoot, SimulatedReboot};
pub use loader::LoaderBoot;

/// The boot loader of a configuration. Nothing is opened yet.
#[must_use]
pub fn open(config: &Config) -> Box<dyn BootControl> {
    match config.boot.backend {
        Backend::Efi => {
            let vars = efi::directory(config.boot.path.as_deref()).to_owned();
            let run_dir = config.run_dir.clone();
            let open = move || efi::firmware(&vars, &run_dir);
            Box::new(LoaderBoot::new(&config.run_dir, open, Into::into))
        }
        Backend::File => Box::new(FileBoot::of(config)),
    }
}
