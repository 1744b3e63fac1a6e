//! OVMF as Debian ships it: the code read-only, the variables a private copy of each machine.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// Where the firmware lies.
#[derive(Debug, Clone)]
pub struct Firmware {
    /// Code volume, never written.
    pub code: PathBuf,
    /// Empty variable store, to be copied.
    pub vars_template: PathBuf,
}

impl Firmware {
    /// The firmware of Debian's package `ovmf`, without Secure Boot.
    #[must_use]
    pub fn installed() -> Self {
        Firmware {
            code: PathBuf::from("/usr/share/OVMF/OVMF_CODE_4M.fd"),
            vars_template: PathBuf::from("/usr/share/OVMF/OVMF_VARS_4M.fd"),
        }
    }

    /// The QEMU options that put it into a machine whose variables are in `vars`.
    #[must_use]
    pub fn options(&self, vars: &Path) -> [String; 4] {
        [
            "-drive".to_owned(),
            format!("if=pflash,unit=0,format=raw,readonly=on,file={}", escaped(&self.code)),
            "-drive".to_owned(),
            format!("if=pflash,unit=1,format=raw,file={}", escaped(vars)),
        ]
    }

    /// A fresh variable store in `file`: firmware that remembers nothing.
    pub fn fresh_vars(&self, file: &Path) -> Result<()> {
        std::fs::copy(&self.vars_template, file).map_err(Error::io("copy firmware variables to", file))?;
        Ok(())
    }
}

/// A path as an option value of QEMU, where a comma is doubled.
#[must_use]
pub fn escaped(path: &Path) -> String {
    path.to_string_lossy().replace(',', ",,")
}
