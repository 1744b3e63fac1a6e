//! The boot loaders behind one port.

use std::io;

use bank_format::loader::{Grub, LoaderError, SystemdBoot};

use crate::{
    config::{Backend, Config},
    ports::BootControl,
};

pub mod efi;
pub mod file;
mod loader;
mod partition;
mod reboot;
mod script;
mod tryboot;
mod uboot;

pub use efi::EfiVars;
pub use file::{FileBoot, SimulatedReboot};
pub use loader::LoaderBoot;
pub use reboot::ProgramReboot;
pub use script::Script;
pub use tryboot::RebootParameter;

/// The boot loader of a configuration. Nothing is opened yet.
#[must_use]
pub fn open(config: &Config) -> Box<dyn BootControl> {
    let run_dir = config.run_dir.as_path();
    match config.boot.backend.clone() {
        Backend::Efi { variables } => {
            let (vars, links) = (efi::directory(variables), run_dir.to_owned());
            Box::new(LoaderBoot::new(run_dir, move || efi::firmware(&vars, &links), Into::into))
        }
        Backend::SystemdBoot { variables } => {
            let vars = efi::directory(variables);
            let open = move || Ok(SystemdBoot::new(EfiVars::new(&vars)));
            Box::new(LoaderBoot::new(run_dir, open, Into::into))
        }
        Backend::Grub { partition } => {
            let path = partition.unwrap_or_else(|| run_dir.join("dev/loader"));
            Box::new(LoaderBoot::new(run_dir, move || Ok(Grub::new(uboot::named(&path)?)), explain))
        }
        Backend::UBoot(environment) => {
            Box::new(LoaderBoot::new(run_dir, move || uboot::open(&environment), explain))
        }
        Backend::Tryboot { path, partitions, reboot_parameter } => {
            let open = move || tryboot::open(&path, partitions, &reboot_parameter);
            Box::new(LoaderBoot::new(run_dir, open, explain))
        }
        Backend::Script { program } => {
            let script = Script::new(&program, run_dir);
            Box::new(LoaderBoot::new(run_dir, move || Ok(script.clone()), std::convert::identity))
        }
        Backend::File { path } => Box::new(FileBoot::new(&path)),
    }
}

fn explain(error: LoaderError<io::Error>) -> io::Error {
    let kind = match &error {
        LoaderError::Medium { source, .. } => source.kind(),
        LoaderError::Format(_) => io::ErrorKind::InvalidData,
        LoaderError::Poisoned => io::ErrorKind::Other,
    };
    io::Error::new(kind, error)
}
