//! How many machines run at a time on this host, over all processes: locks on files, so that test runners which start a
//! process for each test keep to it as well. A lock ends with its holder, however that ends.

use std::{
    fs::{self, File},
    path::Path,
    thread,
};

use nix::fcntl::{Flock, FlockArg};

use crate::error::{Error, Result};

/// The right to run something that others wait for.
#[derive(Debug)]
pub struct Held(#[expect(dead_code, reason = "held for its Drop")] Flock<File>);

/// Waits for the lock `file`, which is made when it is not there.
pub fn lock(file: &Path) -> Result<Held> {
    take(file, FlockArg::LockExclusive)?
        .ok_or_else(|| Error::io("lock", file)(std::io::ErrorKind::WouldBlock.into()))
}

/// How many machines run at a time.
#[must_use]
pub fn at_a_time() -> usize {
    thread::available_parallelism().map_or(1, |cores| cores.get().clamp(1, 2))
}

/// Waits for the right to run one machine. `folder` is shared by all who are to share the host.
pub fn machine_slot(folder: &Path, name: &str) -> Result<Held> {
    let slots = at_a_time();
    let file = |slot: usize| folder.join(format!("machine-{slot}.lock"));
    for slot in 0..slots {
        if let Some(held) = take(&file(slot), FlockArg::LockExclusiveNonblock)? {
            return Ok(held);
        }
    }
    // All taken: queue up at one of them, spread by name.
    let slot = name.bytes().map(usize::from).sum::<usize>().checked_rem(slots).unwrap_or(0);
    lock(&file(slot))
}

fn take(file: &Path, how: FlockArg) -> Result<Option<Held>> {
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
    }
    let open = File::options().create(true).append(true).open(file).map_err(Error::io("open", file))?;
    match Flock::lock(open, how) {
        Ok(held) => Ok(Some(Held(held))),
        Err((_, nix::errno::Errno::EWOULDBLOCK)) => Ok(None),
        Err((_, errno)) => Err(Error::io("lock", file)(errno.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_has_one_holder_and_is_free_after_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("x/y.lock");
        let held = lock(&file).unwrap();
        assert!(take(&file, FlockArg::LockExclusiveNonblock).unwrap().is_none());
        drop(held);
        assert!(take(&file, FlockArg::LockExclusiveNonblock).unwrap().is_some());
    }
}
