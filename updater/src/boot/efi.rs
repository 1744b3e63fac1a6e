//! UEFI: boot variables through efivarfs, as a directory.
//!
//! Kernel documentation: `Documentation/filesystems/efivarfs.rst`: a file `NAME-GUID` holds 4 bytes of attributes, then the
//! value; a write is one firmware call, so it must be one `write(2)`; variables are immutable until the flag is cleared.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
};

use bank_format::{
    Bank, PerBank,
    efi::{
        self, ATTRIBUTES, GLOBAL_VENDOR, Partition, VarStore, clear_next, ensure_entries, entry_name,
        entry_title, set_next, set_order, title_of,
    },
    limits::MAX_EFI_VARIABLE_BYTES,
};

use super::{file::kernel_boot_id, partition::partition_of};
use crate::{bank::Staged, linux, ports::BootControl};

const EFIVARFS: &str = "/sys/firmware/efi/efivars";

/// An `io::Error`, or what is wrong with a variable's bytes.
#[derive(Debug)]
pub struct VarError(io::Error);

impl From<bank_format::Error> for VarError {
    fn from(error: bank_format::Error) -> Self {
        Self(io::Error::new(io::ErrorKind::InvalidData, error))
    }
}

impl From<VarError> for io::Error {
    fn from(error: VarError) -> Self {
        error.0
    }
}

/// EFI variables as files.
#[derive(Debug, Clone)]
pub struct EfiVars {
    directory: PathBuf,
}

impl EfiVars {
    /// Variables in this directory.
    #[must_use]
    pub fn new(directory: &Path) -> Self {
        Self { directory: directory.to_owned() }
    }

    fn path(&self, name: &str, vendor: &str) -> PathBuf {
        self.directory.join(format!("{name}-{vendor}"))
    }
}

fn named<T>(name: &str, result: io::Result<T>) -> Result<T, VarError> {
    result.map_err(|error| VarError(io::Error::new(error.kind(), format!("variable {name}: {error}"))))
}

impl VarStore for EfiVars {
    type Error = VarError;

    fn names(&self, vendor: &str) -> Result<Vec<String>, VarError> {
        let suffix = format!("-{vendor}");
        let list = || -> io::Result<Vec<String>> {
            let mut names = Vec::new();
            for entry in std::fs::read_dir(&self.directory)? {
                let name = entry?.file_name();
                if let Some(name) = name.to_str().and_then(|name| name.strip_suffix(&suffix)) {
                    names.push(name.to_owned());
                }
            }
            Ok(names)
        };
        named("list", list())
    }

    fn read(&self, name: &str, vendor: &str) -> Result<Option<Vec<u8>>, VarError> {
        let read = || -> io::Result<Option<Vec<u8>>> {
            let file = match File::open(self.path(name, vendor)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                other => other?,
            };
            let mut bytes = Vec::new();
            file.take(MAX_EFI_VARIABLE_BYTES as u64).read_to_end(&mut bytes)?;
            Ok(bytes.get(4..).map(<[u8]>::to_vec))
        };
        named(name, read())
    }

    fn write(&mut self, name: &str, vendor: &str, value: &[u8]) -> Result<(), VarError> {
        let mut bytes = ATTRIBUTES.to_le_bytes().to_vec();
        bytes.extend_from_slice(value);
        let write = || -> io::Result<()> {
            let path = self.path(name, vendor);
            if let Some(old) = open_existing(&path)? {
                linux::clear_immutable(&old)?;
            }
            let mut file = OpenOptions::new().write(true).create(true).truncate(false).open(&path)?;
            if file.write(&bytes)? != bytes.len() {
                return Err(io::Error::from(io::ErrorKind::WriteZero));
            }
            // The firmware replaces the whole variable; a plain directory, as in tests, keeps the old tail.
            if file.metadata()?.len() > bytes.len() as u64 {
                file.set_len(bytes.len() as u64)?;
            }
            Ok(())
        };
        named(name, write())
    }

    fn remove(&mut self, name: &str, vendor: &str) -> Result<(), VarError> {
        let remove = || -> io::Result<()> {
            let path = self.path(name, vendor);
            match open_existing(&path)? {
                Some(old) => linux::clear_immutable(&old)?,
                None => return Ok(()),
            }
            std::fs::remove_file(&path)
        };
        named(name, remove())
    }
}

fn open_existing(path: &Path) -> io::Result<Option<File>> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The firmware's boot manager.
#[derive(Debug, Clone)]
pub struct EfiBoot {
    vars: EfiVars,
    run_dir: PathBuf,
}

impl EfiBoot {
    /// Variables in `directory` (efivarfs unless given); `run_dir` has what the initrd found out.
    #[must_use]
    pub fn new(directory: Option<&Path>, run_dir: &Path) -> Self {
        Self { vars: EfiVars::new(directory.unwrap_or(Path::new(EFIVARFS))), run_dir: run_dir.to_owned() }
    }

    fn partitions(&self) -> io::Result<PerBank<Partition>> {
        PerBank::try_from_fn(|bank| partition_of(&self.run_dir.join(format!("dev/boot-{bank}"))))
    }

    fn entries(&mut self) -> io::Result<PerBank<u16>> {
        let partitions = self.partitions()?;
        Ok(ensure_entries(&mut self.vars, &partitions)?)
    }
}

impl BootControl for EfiBoot {
    fn running(&self) -> io::Result<Bank> {
        let path = self.run_dir.join("bank");
        let text = std::fs::read_to_string(&path).map_err(|error| {
            io::Error::new(error.kind(), format!("{}, which the initrd writes: {error}", path.display()))
        })?;
        text.trim().parse().map_err(io::Error::other)
    }

    fn boot_id(&self) -> io::Result<String> {
        kernel_boot_id()
    }

    fn armed(&self) -> io::Result<Option<Bank>> {
        let Some(next) = efi::next(&self.vars)? else { return Ok(None) };
        let title = self.vars.read(&entry_name(next), GLOBAL_VENDOR)?.and_then(|option| title_of(&option));
        Ok(Bank::BOTH.into_iter().find(|bank| title.as_deref() == Some(entry_title(*bank))))
    }

    fn set_trial(&mut self, staged: &Staged) -> io::Result<()> {
        let entries = self.entries()?;
        Ok(set_next(&mut self.vars, *entries.get(staged.bank()))?)
    }

    fn clear_trial(&mut self) -> io::Result<()> {
        Ok(clear_next(&mut self.vars)?)
    }

    fn confirm(&mut self, bank: Bank) -> io::Result<()> {
        let entries = self.entries()?;
        Ok(set_order(&mut self.vars, &entries, bank)?)
    }

    fn repair(&mut self, confirmed: Bank) -> io::Result<()> {
        self.confirm(confirmed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_have_their_attributes_in_front() {
        let dir = tempfile::tempdir().unwrap();
        let mut vars = EfiVars::new(dir.path());
        vars.write("BootOrder", GLOBAL_VENDOR, &[1, 0, 2, 0]).unwrap();
        let path = dir.path().join("BootOrder-8be4df61-93ca-11d2-aa0d-00e098032b8c");
        assert_eq!(std::fs::read(&path).unwrap(), [7, 0, 0, 0, 1, 0, 2, 0]);
        vars.write("BootOrder", GLOBAL_VENDOR, &[3, 0]).unwrap();
        assert_eq!(vars.read("BootOrder", GLOBAL_VENDOR).unwrap(), Some(vec![3, 0]));
        assert_eq!(vars.names(GLOBAL_VENDOR).unwrap(), ["BootOrder"]);
        vars.remove("BootOrder", GLOBAL_VENDOR).unwrap();
        vars.remove("BootOrder", GLOBAL_VENDOR).unwrap();
        assert_eq!(vars.read("BootOrder", GLOBAL_VENDOR).unwrap(), None);
    }

    #[test]
    fn the_trial_that_the_firmware_knows_is_found_by_its_title() {
        let dir = tempfile::tempdir().unwrap();
        let partition = Partition { number: 2, first_lba: 2048, blocks: 4096, guid: [9; 16] };
        let mut boot = EfiBoot::new(Some(dir.path()), dir.path());
        assert!(boot.running().is_err());
        std::fs::write(dir.path().join("bank"), "a\n").unwrap();
        assert_eq!(boot.running().unwrap(), Bank::A);
        assert_eq!(boot.armed().unwrap(), None);
        let partitions = PerBank { a: partition, b: Partition { number: 3, ..partition } };
        let entries = ensure_entries(&mut boot.vars, &partitions).unwrap();
        set_next(&mut boot.vars, entries.b).unwrap();
        assert_eq!(boot.armed().unwrap(), Some(Bank::B));
        boot.clear_trial().unwrap();
        assert_eq!(boot.armed().unwrap(), None);
    }
}
