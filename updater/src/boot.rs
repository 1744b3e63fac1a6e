//! The boot loaders behind one port.

use std::io;

use bank_format::loader::{Grub, LoaderError};

use crate::{
    config::{Backend, Config},
    ports::BootControl,
};

pub mod efi;
pub mod file;
mod loader;
pub mod partition;
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
            let (vars, links) = (efi::directory(variables), run_dir.to_owned());
            let open = move || Ok(efi::systemd_boot(&vars, &links));
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use bank_format::{Bank, loader::Spare};

    fn opened(dir: &Path, boot: &str) -> Box<dyn BootControl> {
        let text = format!(
            "compatible = \"x\"\nstate_dir = \"s\"\nrecord = \"r\"\nrun_dir = \"run\"\n[boot]\n{boot}\n\
             [bank.a]\nroot = \"a\"\n[bank.b]\nroot = \"b\"\n"
        );
        open(&Config::parse(&text, dir).unwrap())
    }

    #[test]
    fn grub_is_told_on_the_partition_that_the_initrd_found() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("run/dev/loader");
        let mut boot = opened(dir.path(), "backend = \"grub\"");
        let error = boot.set_default(Bank::B, Spare::Bootable).unwrap_err().to_string();
        assert!(error.contains("run/dev/loader: "), "{error}");
        std::fs::create_dir_all(place.parent().unwrap()).unwrap();
        std::fs::write(&place, Grub::factory(Bank::A).unwrap()).unwrap();
        let mut boot = opened(dir.path(), "backend = \"grub\"");
        boot.set_default(Bank::B, Spare::Bootable).unwrap();
        let bytes = std::fs::read(&place).unwrap();
        let text = String::from_utf8_lossy(&bytes[..8192]);
        assert!(text.contains("roro_default=b") && text.contains("roro_spare=1"));
        assert_eq!(boot.armed().unwrap(), None);
    }

    #[test]
    fn systemd_boot_is_told_through_variables() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("vars")).unwrap();
        let mut boot = opened(dir.path(), "backend = \"systemd-boot\"\npath = \"vars\"");
        boot.set_default(Bank::B, Spare::Unbootable).unwrap();
        assert_eq!(boot.armed().unwrap(), None);
        let variable = "vars/LoaderEntryDefault-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f";
        let value = std::fs::read(dir.path().join(variable)).unwrap();
        let expected: Vec<u8> = "roro-b.efi\0".encode_utf16().flat_map(u16::to_le_bytes).collect();
        assert_eq!(value[4..], expected);
        boot.set_default(Bank::A, Spare::Bootable).unwrap();
        assert_eq!(boot.armed().unwrap(), Some(Bank::A), "the one-shot is the counter");
    }
}
