//! Roro's own device: two banks on loop devices, the `file` backend as boot loader, the agent as it is shipped.
//!
//! Its state is saved once v1 is confirmed, or right at the start for a device with nothing to copy from, and restored before
//! each install.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    bench::banks::Banks,
    error::{Error, Result},
    process,
};

/// One block: the image of a device with nothing to copy from.
const NOTHING_BYTES: u64 = 4096;

/// A device.
#[derive(Debug)]
pub struct Device {
    folder: PathBuf,
    saved: PathBuf,
}

impl Device {
    /// A device that runs v1 from the running bank and has confirmed it. `release` is the bundle of v1.
    pub fn running(
        folder: &Path,
        updater: &Path,
        keys: &Path,
        banks: &Banks,
        release: &Path,
    ) -> Result<Self> {
        let device = Self::new(folder, keys, banks.target.node(), banks.running.node())?;
        let config = device.config();
        let release = release.to_string_lossy().into_owned();
        for words in [&["install", &*release][..], &["reboot"], &["confirm"]] {
            process::run(Command::new(updater).arg("--config").arg(&config).args(words))?;
        }
        device.save()
    }

    /// A device whose running bank has nothing that the new image has.
    pub fn fresh(folder: &Path, keys: &Path, banks: &Banks) -> Result<Self> {
        let nothing = folder.join("nothing.img");
        let device = Self::new(folder, keys, &nothing, banks.target.node())?;
        File::create(&nothing)
            .and_then(|file| file.set_len(NOTHING_BYTES))
            .map_err(Error::io("create", &nothing))?;
        device.save()
    }

    fn new(folder: &Path, keys: &Path, bank_a: &Path, bank_b: &Path) -> Result<Self> {
        fs::create_dir_all(folder.join("health.d")).map_err(Error::io("create", folder))?;
        let root = folder.join("root.json");
        fs::copy(keys.join("root.json"), &root).map_err(Error::io("copy", &root))?;
        let file = folder.join("updater.toml");
        fs::write(&file, configuration(bank_a, bank_b)).map_err(Error::io("write", &file))?;
        Ok(Device { folder: folder.to_owned(), saved: folder.with_extension("saved") })
    }

    fn save(self) -> Result<Self> {
        process::run(Command::new("cp").arg("-a").arg(&self.folder).arg(&self.saved))?;
        Ok(self)
    }

    /// Takes it back to how it was saved; the banks are not touched.
    pub fn restore(&self) -> Result<()> {
        fs::remove_dir_all(&self.folder).map_err(Error::io("remove", &self.folder))?;
        process::run(Command::new("cp").arg("-a").arg(&self.saved).arg(&self.folder)).map(drop)
    }

    /// Its configuration.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.folder.join("updater.toml")
    }
}

fn configuration(bank_a: &Path, bank_b: &Path) -> String {
    format!(
        "compatible = \"bench,any\"\ntrust_root = \"root.json\"\nstate_dir = \"state\"\nrun_dir = \"run\"\n\
         record = \"record.bin\"\nrelease_file = \"release.json\"\nhealth_dirs = [\"health.d\"]\n\
         [boot]\nbackend = \"file\"\npath = \"boot.state\"\n\
         [bank.a]\nroot = \"{}\"\n[bank.b]\nroot = \"{}\"\n",
        bank_a.display(),
        bank_b.display()
    )
}
