//! The kernel modules of the initrd, in the order of `/modules/load`.
//!
//! Watchdog drivers stand first there: from then on a driver that hangs ends in a reset. The software watchdog, wherever it stands, is
//! loaded only where no other came up. Deliberately absent: aliases, dependencies (the list has them in order), unloading.

use std::{ffi::CString, fs::File, path::Path};

use crate::{
    cmdline, console,
    error::Result,
    limits, linux, paths,
    watchdog::{SOFTWARE, Watchdog},
};

const MODULES: &str = "/modules";
/// A hang that the software watchdog ends becomes a panic, so that the log of that boot survives in pstore.
const SOFTWARE_PARAMETERS: &str = "soft_panic=1";

/// Loads all. A module that fails is noted: what is missed without it gives a better reason later.
pub fn load(command_line: &str, watchdog: &mut Watchdog) -> Result<()> {
    let directory = Path::new(MODULES);
    let list = paths::read_text(&directory.join("load"), limits::MAX_MODULE_LIST_BYTES)?.unwrap_or_default();
    let (software, others): (Vec<&str>, Vec<&str>) = list
        .lines()
        .map(str::trim)
        .filter(|file| !file.is_empty())
        .partition(|file| module_of(file) == SOFTWARE);
    for file in others {
        load_one(&directory.join(file), command_line, "");
        watchdog.start();
        watchdog.alive();
    }
    if watchdog.name().is_none() {
        for file in software {
            load_one(&directory.join(file), command_line, SOFTWARE_PARAMETERS);
        }
        watchdog.start();
    }
    if watchdog.name().is_none() {
        console::warn("no watchdog: a system that hangs stays as it is");
    }
    Ok(())
}

fn load_one(path: &Path, command_line: &str, ours: &str) {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    // The command line comes last, so that it prevails.
    let parameters = format!("{ours} {}", cmdline::module_parameters(command_line, module_of(&name)));
    let loaded = CString::new(parameters.trim())
        .map_err(std::io::Error::from)
        .and_then(|parameters| linux::load_module(&File::open(path)?, &parameters));
    if let Err(error) = loaded {
        console::warn(&format!("module {name}: {error}"));
    }
}

/// `softdog` of `softdog.ko.xz`.
fn module_of(file: &str) -> &str {
    file.split('.').next().unwrap_or(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_a_module() {
        assert_eq!(
            (module_of("softdog.ko"), module_of("dm-verity.ko.xz"), module_of("x")),
            ("softdog", "dm-verity", "x")
        );
    }
}
