//! A host without a boot loader: its part is played by a small file, and a reboot by the rule that the initrd uses.
//!
//! Fault model: the file is replaced whole, so a power cut leaves the old or the new one.

use std::{
    fs::File,
    io::{self, Read as _},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use bank_format::{
    Bank,
    loader::Spare,
    record::{Loaded, Medium, Store, StoreError},
    rule::{Decision, decide},
};
use serde::{Deserialize, Serialize};

use crate::{
    bank::Staged,
    files::{DiskFiles, replace},
    limits::{MAX_SIMULATED_BOOTS, MAX_SMALL_FILE_BYTES},
    ports::{AfterReboot, BootControl, Reboot},
};

/// What the file says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct State {
    /// The bank that starts when nothing else is said.
    default: Bank,
    /// The bank of the next boot only.
    #[serde(default)]
    next: Option<Bank>,
    /// The bank that "runs".
    booted: Bank,
    /// Boots so far: makes each boot another one.
    #[serde(default)]
    boots: u64,
}

/// The loader's part.
#[derive(Debug, Clone)]
pub struct FileBoot {
    path: PathBuf,
}

impl FileBoot {
    /// State in this file; without a file, bank A runs and is the default.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    fn load(&self) -> io::Result<State> {
        let mut bytes = Vec::new();
        match File::open(&self.path) {
            Ok(file) => file.take(MAX_SMALL_FILE_BYTES).read_to_end(&mut bytes)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(State { default: Bank::A, next: None, booted: Bank::A, boots: 0 });
            }
            Err(error) => return Err(error),
        };
        Ok(serde_json::from_slice(&bytes)?)
    }

    fn save(&self, state: &State) -> io::Result<()> {
        let mut bytes = serde_json::to_vec(state)?;
        bytes.push(b'\n');
        replace(&DiskFiles, &self.path, &bytes)
    }

    fn change(&self, change: impl FnOnce(&mut State)) -> io::Result<()> {
        let old = self.load()?;
        let mut new = old.clone();
        change(&mut new);
        if new == old { Ok(()) } else { self.save(&new) }
    }
}

impl BootControl for FileBoot {
    fn running(&self) -> io::Result<Bank> {
        Ok(self.load()?.booted)
    }

    fn boot_id(&self) -> io::Result<String> {
        Ok(format!("simulated-{}", self.load()?.boots))
    }

    fn armed(&self) -> io::Result<Option<Bank>> {
        Ok(self.load()?.next)
    }

    fn set_trial(&mut self, staged: &Staged) -> io::Result<()> {
        self.change(|state| {
            state.default = !staged.bank();
            state.next = Some(staged.bank());
        })
    }

    /// Nobody counts here, so no spare takes over.
    fn set_default(&mut self, first: Bank, _: Spare) -> io::Result<()> {
        self.change(|state| {
            state.default = first;
            state.next = None;
        })
    }
}

/// Plays a boot: consumes `next`, then does what the initrd would do.
pub struct SimulatedReboot<F> {
    boot: FileBoot,
    open_record: F,
}

impl<M, F> SimulatedReboot<F>
where
    M: Medium<Error = io::Error>,
    F: FnMut() -> io::Result<M>,
{
    /// `open_record` opens the record anew, as the initrd would.
    pub fn new(boot: FileBoot, open_record: F) -> Self {
        Self { boot, open_record }
    }
}

impl<M, F> Reboot for SimulatedReboot<F>
where
    M: Medium<Error = io::Error>,
    F: FnMut() -> io::Result<M>,
{
    fn reboot(&mut self) -> io::Result<AfterReboot> {
        let other = |error: StoreError<io::Error>| io::Error::other(error.to_string());
        let mut state = self.boot.load()?;
        state.boots += 1;
        let mut standing_in = state.next.take().unwrap_or(state.default);
        // Consumed before the boot is tried, as firmware does it.
        self.boot.save(&state)?;
        let (mut store, loaded) = Store::open((self.open_record)()?).map_err(other)?;
        let Loaded::Record(mut record) = loaded else {
            state.booted = standing_in;
            self.boot.save(&state)?;
            return Ok(AfterReboot::Simulated(standing_in));
        };
        for _ in 0..MAX_SIMULATED_BOOTS {
            let (decision, next) = decide(&record, standing_in, None);
            store.commit(&next).map_err(other)?;
            *record = next;
            match decision {
                Decision::Boot(_) => {
                    state.booted = standing_in;
                    self.boot.save(&state)?;
                    return Ok(AfterReboot::Simulated(standing_in));
                }
                Decision::Redirect { to, .. } => {
                    state.default = record.confirmed;
                    standing_in = to;
                }
                Decision::Stop { reason } => return Err(io::Error::other(reason)),
            }
        }
        Err(io::Error::other("the simulated boot does not end"))
    }
}

/// Reads `/proc/sys/kernel/random/boot_id`, another word for each boot of the machine.
pub(super) fn kernel_boot_id() -> io::Result<String> {
    let mut bytes = [0; 64];
    let file = File::open("/proc/sys/kernel/random/boot_id")?;
    let read = file.read_at(&mut bytes, 0)?;
    Ok(String::from_utf8_lossy(bytes.get(..read).unwrap_or_default()).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_survives_and_a_garbled_one_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("boot.state");
        let mut boot = FileBoot::new(&path);
        assert_eq!((boot.running().unwrap(), boot.armed().unwrap()), (Bank::A, None));
        boot.set_default(Bank::B, Spare::Bootable).unwrap();
        assert_eq!(
            std::fs::read_to_string(&path).unwrap(),
            "{\"default\":\"b\",\"next\":null,\"booted\":\"a\",\"boots\":0}\n"
        );
        std::fs::write(&path, "{").unwrap();
        assert!(boot.running().is_err());
        assert!(boot.set_default(Bank::A, Spare::Bootable).is_err());
    }
}
