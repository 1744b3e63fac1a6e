//! Any `bank_format` loader as the agent's port.
//!
//! The loader's storage is opened when it is first asked for, so that a loader that cannot be read hides nothing else from
//! `status`. After an error it is asked no more: what the medium holds then is known only to a new process.

use std::{
    cell::RefCell,
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use bank_format::{
    Bank,
    loader::{Loader, Spare},
};

use super::file::kernel_boot_id;
use crate::{bank::Staged, limits::MAX_SMALL_FILE_BYTES, ports::BootControl};

/// How far the loader's storage is.
enum Access<L> {
    Unopened,
    Open(L),
    /// After an error: a failed flush is never retried into success.
    Poisoned,
}

/// A boot loader, and what the initrd noted of this boot: `bank` in `run_dir`, and `boot_id` where the machine that boots is not
/// the one that this process runs on.
pub struct LoaderBoot<L, E> {
    run_dir: PathBuf,
    open: Box<dyn Fn() -> io::Result<L>>,
    explain: fn(E) -> io::Error,
    access: RefCell<Access<L>>,
}

impl<L, E> std::fmt::Debug for LoaderBoot<L, E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LoaderBoot").field("run_dir", &self.run_dir).finish_non_exhaustive()
    }
}

impl<E, L: Loader<Error = E>> LoaderBoot<L, E> {
    /// `open` opens the storage; `explain` makes the loader's errors the system's.
    pub fn new(
        run_dir: &Path,
        open: impl Fn() -> io::Result<L> + 'static,
        explain: fn(E) -> io::Error,
    ) -> Self {
        let access = RefCell::new(Access::Unopened);
        Self { run_dir: run_dir.to_owned(), open: Box::new(open), explain, access }
    }

    fn with<T>(&self, deed: impl FnOnce(&mut L) -> Result<T, E>) -> io::Result<T> {
        let mut access = self.access.borrow_mut();
        let mut loader = match std::mem::replace(&mut *access, Access::Poisoned) {
            Access::Unopened => (self.open)()?,
            Access::Open(loader) => loader,
            Access::Poisoned => return Err(io::Error::other("closed after an error: run the command again")),
        };
        let result = deed(&mut loader).map_err(self.explain)?;
        *access = Access::Open(loader);
        Ok(result)
    }
}

impl<E, L: Loader<Error = E>> BootControl for LoaderBoot<L, E> {
    fn running(&self) -> io::Result<Bank> {
        let path = self.run_dir.join("bank");
        let text = read_word(&path).map_err(|error| {
            io::Error::new(error.kind(), format!("{}, which the initrd writes: {error}", path.display()))
        })?;
        text.parse().map_err(io::Error::other)
    }

    fn boot_id(&self) -> io::Result<String> {
        match read_word(&self.run_dir.join("boot_id")) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => kernel_boot_id(),
            other => other,
        }
    }

    fn armed(&self) -> io::Result<Option<Bank>> {
        self.with(L::next)
    }

    fn set_trial(&mut self, staged: &Staged) -> io::Result<()> {
        self.with(|loader| loader.set_next(staged.bank()))
    }

    fn set_default(&mut self, first: Bank, spare: Spare) -> io::Result<()> {
        self.with(|loader| loader.set_default(first, spare))
    }
}

fn read_word(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(MAX_SMALL_FILE_BYTES).read_to_string(&mut text)?;
    Ok(text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, rc::Rc};

    use super::*;

    /// Fails from the second write on.
    struct Failing(Option<Bank>, Rc<Cell<u32>>);

    impl Loader for Failing {
        type Error = &'static str;
        fn next(&mut self) -> Result<Option<Bank>, &'static str> {
            Ok(self.0)
        }
        fn set_next(&mut self, _: Bank) -> Result<(), &'static str> {
            self.1.set(self.1.get() + 1);
            Err("the medium is gone")
        }
        fn set_default(&mut self, first: Bank, _: Spare) -> Result<(), &'static str> {
            self.1.set(self.1.get() + 1);
            self.0 = Some(first);
            Ok(())
        }
    }

    #[test]
    fn after_an_error_the_loader_is_asked_no_more() {
        let dir = tempfile::tempdir().unwrap();
        let (opened, writes) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
        let (count, noted) = (Rc::clone(&opened), Rc::clone(&writes));
        let open = move || {
            count.set(count.get() + 1);
            Ok(Failing(None, Rc::clone(&noted)))
        };
        let mut boot = LoaderBoot::new(dir.path(), open, |error: &str| io::Error::other(error));
        assert!(boot.running().unwrap_err().to_string().contains("which the initrd writes"));
        std::fs::write(dir.path().join("bank"), "b\n").unwrap();
        assert_eq!(boot.running().unwrap(), Bank::B);
        assert_eq!(boot.boot_id().unwrap(), kernel_boot_id().unwrap());
        std::fs::write(dir.path().join("boot_id"), "17\n").unwrap();
        assert_eq!(boot.boot_id().unwrap(), "17");
        assert_eq!(opened.get(), 0, "nothing was asked of the loader");
        boot.set_default(Bank::A, Spare::Unbootable).unwrap();
        assert_eq!((boot.armed().unwrap(), opened.get()), (Some(Bank::A), 1));
        assert!(boot.with(|loader| loader.set_next(Bank::B)).is_err());
        assert!(boot.set_default(Bank::A, Spare::Unbootable).is_err());
        assert!(boot.armed().is_err());
        assert_eq!((writes.get(), opened.get()), (2, 1));
    }
}
