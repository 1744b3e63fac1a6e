//! EFI variables through efivarfs, and what they say about where this boot stands.
//!
//! Source: `Documentation/filesystems/efivarfs.rst` of Linux: a file is four bytes of attributes and the value; one write is one
//! firmware call.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use bank_format::{
    Bank,
    efi::{self, ATTRIBUTES, LOADER_VENDOR, VarStore},
    limits::MAX_EFI_VARIABLE_BYTES,
    loader::bank_of_entry,
};

use crate::{
    error::{Error, Result},
    linux, paths,
};

const MOUNT_POINT: &str = "/sys/firmware/efi/efivars";

/// The variables of this machine.
#[derive(Debug)]
pub struct EfiVars {
    directory: PathBuf,
}

impl EfiVars {
    /// Where [`crate::init`] mounts them.
    #[must_use]
    pub fn mounted() -> Self {
        Self { directory: PathBuf::from(MOUNT_POINT) }
    }

    /// The directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    fn path(&self, name: &str, vendor: &str) -> PathBuf {
        self.directory.join(format!("{name}-{vendor}"))
    }
}

impl VarStore for EfiVars {
    type Error = Error;

    fn names(&self, vendor: &str) -> Result<Vec<String>> {
        let entries = fs::read_dir(&self.directory).map_err(Error::io("list", &self.directory))?;
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.map_err(Error::io("list", &self.directory))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if let Some(name) = name.strip_suffix(vendor).and_then(|rest| rest.strip_suffix('-')) {
                names.push(name.to_owned());
            }
        }
        Ok(names)
    }

    fn read(&self, name: &str, vendor: &str) -> Result<Option<Vec<u8>>> {
        let bytes = paths::read_small(&self.path(name, vendor), MAX_EFI_VARIABLE_BYTES as u64)?;
        // Less than its attributes: a file that is just being made, so no variable yet.
        Ok(bytes.and_then(|bytes| bytes.get(4..).map(<[u8]>::to_vec)))
    }

    fn write(&mut self, name: &str, vendor: &str, value: &[u8]) -> Result<()> {
        let path = self.path(name, vendor);
        match File::open(&path) {
            Ok(file) => linux::clear_immutable(&file).map_err(Error::io("unlock", &path))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => (),
            Err(error) => return Err(Error::io("open", &path)(error)),
        }
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(Error::io("open", &path))?;
        let bytes = [&ATTRIBUTES.to_le_bytes()[..], value].concat();
        file.write_all(&bytes).map_err(Error::io("write", &path))
    }

    fn remove(&mut self, name: &str, vendor: &str) -> Result<()> {
        let path = self.path(name, vendor);
        if let Ok(file) = File::open(&path) {
            linux::clear_immutable(&file).map_err(Error::io("unlock", &path))?;
        }
        paths::remove_if_there(&path)
    }
}

/// GUID of the partition that the boot image was started from, in lower-case text; `None` where the loader does not say.
pub fn loader_partition<S: VarStore>(vars: &S) -> Result<Option<String>, S::Error> {
    match vars.read("LoaderDevicePartUUID", LOADER_VENDOR)? {
        Some(value) => Ok(Some(efi::decode_part_uuid(&value)?)),
        None => Ok(None),
    }
}

/// The bank whose entry systemd-boot has started; `None` where another loader did.
pub fn loader_entry<S: VarStore>(vars: &S) -> Result<Option<Bank>, S::Error> {
    Ok(vars.read("LoaderEntrySelected", LOADER_VENDOR)?.and_then(|value| bank_of_entry(&value)))
}

#[cfg(test)]
mod tests {
    use bank_format::{
        PerBank,
        efi::{GLOBAL_VENDOR, Partition},
        loader::{Firmware, Loader as _, Spare},
    };

    use super::*;

    fn store(dir: &Path) -> EfiVars {
        EfiVars { directory: dir.to_path_buf() }
    }

    fn partitions() -> PerBank<Partition> {
        let part = |number| Partition { number, first_lba: 2048, blocks: 98304, guid: [number as u8; 16] };
        PerBank { a: part(1), b: part(2) }
    }

    #[test]
    fn redirect_works_after_the_firmware_has_forgotten_everything() {
        let dir = tempfile::tempdir().unwrap();
        Firmware::new(store(dir.path()), partitions()).redirect(Bank::B, Spare::Unbootable).unwrap();
        let vars = store(dir.path());
        assert_eq!(efi::order(&vars).unwrap(), [1, 0]);
        assert_eq!(efi::next(&vars).unwrap(), Some(1));
        let raw = fs::read(dir.path().join(format!("BootNext-{GLOBAL_VENDOR}"))).unwrap();
        assert_eq!(raw, [7, 0, 0, 0, 1, 0]);
        assert_eq!(vars.names("other").unwrap(), Vec::<String>::new());
    }

    #[test]
    fn where_we_stand() {
        let dir = tempfile::tempdir().unwrap();
        let mut vars = store(dir.path());
        assert_eq!(loader_partition(&vars).unwrap(), None);
        let text = "4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709\0";
        let value: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
        vars.write("LoaderDevicePartUUID", LOADER_VENDOR, &value).unwrap();
        assert_eq!(loader_partition(&vars).unwrap().unwrap(), text[..36].to_lowercase());
        vars.write("LoaderDevicePartUUID", LOADER_VENDOR, b"junk").unwrap();
        assert!(loader_partition(&vars).is_err());
        assert_eq!(loader_entry(&vars).unwrap(), None);
        let entry: Vec<u8> = "roro-b.efi\0".encode_utf16().flat_map(u16::to_le_bytes).collect();
        vars.write("LoaderEntrySelected", LOADER_VENDOR, &entry).unwrap();
        assert_eq!(loader_entry(&vars).unwrap(), Some(Bank::B));
    }
}
