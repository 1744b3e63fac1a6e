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
    PerBank,
    efi::{ATTRIBUTES, VarStore},
    limits::MAX_EFI_VARIABLE_BYTES,
    loader::{Firmware, SystemdBoot},
};

use super::partition::partition_of;
use crate::linux;

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

/// The directory of the variables: efivarfs unless another is configured.
pub(super) fn directory(configured: Option<PathBuf>) -> PathBuf {
    configured.unwrap_or_else(|| EFIVARFS.into())
}

/// The firmware's boot manager; `run_dir` has links to the boot partitions, made by the initrd.
pub(super) fn firmware(vars: &Path, run_dir: &Path) -> io::Result<Firmware<EfiVars>> {
    let partitions = PerBank::try_from_fn(|bank| partition_of(&run_dir.join(format!("dev/boot-{bank}"))))?;
    Ok(Firmware::new(EfiVars::new(vars), partitions))
}

/// systemd-boot; `run_dir` has a link to its partition. Without one it serves all the same, and no firmware entry is made.
pub(super) fn systemd_boot(vars: &Path, run_dir: &Path) -> SystemdBoot<EfiVars> {
    SystemdBoot::new(EfiVars::new(vars)).on_partition(partition_of(&run_dir.join("dev/esp")).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use bank_format::efi::GLOBAL_VENDOR;

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
}
