//! The firmware of a machine, as Debian ships it: code read-only, variables a private copy of each machine.

use std::path::Path;

use crate::error::{Error, Result};

/// Which firmware starts a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Firmware {
    /// OVMF: UEFI without Secure Boot.
    Uefi,
    /// OVMF with Secure Boot on, and the publicly known test keys of Debian's package `ovmf` enrolled.
    SecureUefi,
    /// `SeaBIOS`, which is part of QEMU.
    Bios,
}

impl Firmware {
    /// The firmware's code; none where QEMU brings it.
    #[must_use]
    pub fn code(self) -> Option<&'static Path> {
        match self {
            Firmware::Uefi => Some(Path::new("/usr/share/OVMF/OVMF_CODE_4M.fd")),
            Firmware::SecureUefi => Some(Path::new("/usr/share/OVMF/OVMF_CODE_4M.secboot.fd")),
            Firmware::Bios => None,
        }
    }

    /// The variable store that a machine begins with.
    #[must_use]
    pub fn vars_template(self) -> Option<&'static Path> {
        match self {
            Firmware::Uefi => Some(Path::new("/usr/share/OVMF/OVMF_VARS_4M.fd")),
            Firmware::SecureUefi => Some(Path::new("/usr/share/OVMF/OVMF_VARS_4M.snakeoil.fd")),
            Firmware::Bios => None,
        }
    }

    /// The QEMU options that put it into a machine whose variables are in `vars`.
    #[must_use]
    pub fn options(self, vars: &Path) -> Vec<String> {
        let mut options = Vec::new();
        if let Some(code) = self.code() {
            options.extend([
                "-drive".to_owned(),
                format!("if=pflash,unit=0,format=raw,readonly=on,file={}", escaped(code)),
                "-drive".to_owned(),
                format!("if=pflash,unit=1,format=raw,file={}", escaped(vars)),
            ]);
        }
        if self != Firmware::Bios {
            // A machine that finds nothing on its disk comes to its end at once, and not after minutes of asking the network.
            for stack in ["IPv4Support", "IPv6Support"] {
                options.extend(["-fw_cfg".to_owned(), format!("name=opt/org.tianocore/{stack},string=n")]);
            }
        }
        if self == Firmware::SecureUefi {
            options.extend(
                [
                    "-global",
                    "driver=cfi.pflash01,property=secure,value=on",
                    "-global",
                    "ICH9-LPC.disable_s3=1",
                ]
                .map(str::to_owned),
            );
        }
        options
    }

    /// A fresh variable store in `file`: firmware that remembers nothing but what it was made with.
    pub fn fresh_vars(self, file: &Path) -> Result<()> {
        if let Some(template) = self.vars_template() {
            std::fs::copy(template, file).map_err(Error::io("copy firmware variables to", file))?;
        }
        Ok(())
    }
}

/// A path as an option value of QEMU, where a comma is doubled.
#[must_use]
pub fn escaped(path: &Path) -> String {
    path.to_string_lossy().replace(',', ",,")
}
