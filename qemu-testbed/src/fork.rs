//! Forks of a machine that runs: disk, variables and memory at one moment, from which any number of machines go on.
//!
//! Knows QEMU's migration, whose stream is a file here. Promises that the machine that was forked does not notice, and that a fork is
//! complete the moment one can see it. Fault model of a fork: none; it is the same machine twice. Deliberately absent: forks that
//! outlive the process that made them, since nothing says that the next QEMU is the same one.

use std::{
    fs,
    path::{Path, PathBuf},
    process, thread,
    time::Duration,
};

use serde_json::{Value, json};

use crate::{
    error::{Error, Result},
    limits,
    machine::{MEMORY_VARIABLE, Machine, copy_sparse},
};

/// Between two looks at a migration; it has an event only for those who ask for it beforehand.
const PAUSE: Duration = Duration::from_millis(20);

const PREFIX: &str = "forks-";

/// The folder for the forks of this process, among the runs.
#[must_use]
pub fn room(runs: &Path) -> PathBuf {
    runs.join(format!("{PREFIX}{}", process::id()))
}

/// Removes the forks of processes that are gone.
pub fn clean_up(runs: &Path) -> Result<()> {
    fs::create_dir_all(runs).map_err(Error::io("create", runs))?;
    for entry in fs::read_dir(runs).map_err(Error::io("list", runs))?.flatten() {
        let name = entry.file_name();
        let owner = name.to_string_lossy().strip_prefix(PREFIX).and_then(|owner| owner.parse::<u32>().ok());
        if owner.is_some_and(|owner| !Path::new("/proc").join(owner.to_string()).exists()) {
            fs::remove_dir_all(entry.path()).map_err(Error::io("remove", entry.path()))?;
        }
    }
    Ok(())
}

/// A machine at one moment.
#[derive(Debug, Clone)]
pub struct Fork {
    folder: PathBuf,
}

impl Fork {
    /// The fork in this folder, if there is one.
    #[must_use]
    pub fn at(folder: &Path) -> Option<Self> {
        folder.is_dir().then(|| Fork { folder: folder.to_owned() })
    }

    fn files(&self, machine: &Machine) -> [(PathBuf, PathBuf); 4] {
        [
            (self.folder.join("disk.img"), machine.disk()),
            (self.folder.join("vars.fd"), machine.vars()),
            (self.folder.join("memory"), machine.memory()),
            (self.folder.join("serial.log"), machine.folder().join("serial.log")),
        ]
    }
}

impl Machine {
    /// Forks this machine, which runs and whose shell waits for a line, into a folder that does not exist yet. It stands still
    /// meanwhile. Where another machine was quicker, its fork stays.
    pub fn fork(&mut self, folder: &Path) -> Result<()> {
        let unfinished = folder.with_extension(format!("of-{}", self.name()));
        fs::create_dir_all(&unfinished).map_err(Error::io("create", &unfinished))?;
        let deadline = self.deadline(limits::FORK);
        let to = format!("exec:cat > \"${MEMORY_VARIABLE}\"");
        self.qmp()?.command("stop", deadline)?;
        self.qmp()?.command_with("migrate", &json!({ "uri": to }), deadline)?;
        loop {
            let answer = self.qmp()?.command("query-migrate", deadline)?;
            match answer.get("status").and_then(Value::as_str).unwrap_or_default() {
                "completed" => break,
                "failed" | "cancelled" => {
                    return Err(Error::Qmp { command: "migrate".to_owned(), answer: answer.to_string() });
                }
                _ => thread::sleep(PAUSE),
            }
        }
        let fork = Fork { folder: unfinished.clone() };
        for (kept, used) in fork.files(self) {
            if used.exists() {
                copy_sparse(&used, &kept)?;
            }
        }
        self.qmp()?.command("cont", deadline)?;
        fs::remove_file(self.memory()).map_err(Error::io("remove", self.memory()))?;
        match fs::rename(&unfinished, folder) {
            Err(_) if folder.is_dir() => {
                fs::remove_dir_all(&unfinished).map_err(Error::io("remove", &unfinished))
            }
            done => done.map_err(Error::io("name", folder)),
        }
    }

    /// Becomes a fork, and goes on where that machine stood. This machine must be off, and made of the same parts.
    pub fn go_on_as(&mut self, fork: &Fork) -> Result<()> {
        for (kept, used) in fork.files(self) {
            if kept.exists() {
                copy_sparse(&kept, &used)?;
            }
        }
        self.power_on_with(&["-incoming", &format!("exec:cat \"${MEMORY_VARIABLE}\"")])?;
        let deadline = self.deadline(limits::FORK);
        loop {
            let answer = self.qmp()?.command("query-status", deadline)?;
            match answer.get("status").and_then(Value::as_str).unwrap_or_default() {
                "inmigrate" => thread::sleep(PAUSE),
                _ => break,
            }
        }
        self.qmp()?.command("cont", deadline)?;
        fs::remove_file(self.memory()).map_err(Error::io("remove", self.memory()))?;
        self.console_ready = true;
        Ok(())
    }
}
