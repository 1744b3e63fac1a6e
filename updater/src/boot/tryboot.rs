//! `autoboot.txt` on a FAT partition that is never mounted for writing, and the parameter of the next reboot.
//!
//! Sources: "autoboot.txt" in the Raspberry Pi documentation; systemd keeps the parameter that it hands to reboot(2) in
//! `/run/systemd/reboot-param` (`systemctl(1)`, `--reboot-argument=`).

use std::{
    io,
    path::{Path, PathBuf},
};

use bank_format::{
    PerBank,
    fat::{self, FatError},
    limits::MAX_AUTOBOOT_BYTES,
    loader::{Medium as _, RebootFlag, Tryboot},
};

use super::uboot::named;
use crate::{
    files::{DiskFiles, replace},
    medium::PathMedium,
};

const FILE: &str = "autoboot.txt";
const PARAMETER: &str = "0 tryboot";

/// The parameter, kept in a file until the reboot.
#[derive(Debug, Clone)]
pub struct RebootParameter {
    path: PathBuf,
}

impl RebootFlag for RebootParameter {
    type Error = io::Error;

    fn armed(&mut self) -> io::Result<bool> {
        match std::fs::read(&self.path) {
            Ok(bytes) => Ok(bytes.trim_ascii() == PARAMETER.as_bytes()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn arm(&mut self) -> io::Result<()> {
        replace(&DiskFiles, &self.path, PARAMETER.as_bytes())
    }

    fn disarm(&mut self) -> io::Result<()> {
        std::fs::remove_file(&self.path)
    }
}

pub(super) fn open(
    path: &Path,
    partitions: PerBank<u32>,
    parameter: &Path,
) -> io::Result<Tryboot<PathMedium, RebootParameter>> {
    let mut medium = named(path)?;
    let flag = RebootParameter { path: parameter.to_owned() };
    let metadata = std::fs::metadata(path)?;
    if metadata.is_file() && metadata.len() <= MAX_AUTOBOOT_BYTES as u64 {
        return Ok(Tryboot::new(medium, metadata.len() as usize, partitions, flag));
    }
    let found = fat::find_file(|offset, buffer| medium.read_at(offset, buffer), FILE).map_err(|error| {
        let (kind, why) = match &error {
            FatError::Read { source } => (source.kind(), format!("{error}: {source}")),
            FatError::NotFound { .. } => (io::ErrorKind::NotFound, error.to_string()),
            FatError::Scattered { .. } | FatError::Format(_) => {
                (io::ErrorKind::InvalidData, error.to_string())
            }
        };
        io::Error::new(kind, format!("{}: {why}", path.display()))
    })?;
    let file_bytes = usize::try_from(found.file_bytes).unwrap_or(usize::MAX);
    Ok(Tryboot::new(medium.starting_at(found.offset_bytes), file_bytes, partitions, flag))
}
