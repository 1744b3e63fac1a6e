//! What the system learns from early boot: `/run/roro`, and which of systemd's generators have nothing to do.

use std::{
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use bank_format::{Bank, Digest256};

use crate::{
    console,
    disk::{self, Disk},
    error::{Error, Result, chain},
    ledger::Going,
    mapping, paths,
};

const RUN: &str = "/run/roro";
/// systemd's generators that would do again, from `roothash=` and the partition types, what was done here: the one waits for
/// partitions that do not exist, the other mounts boot images for writing.
const DONE_ALREADY: [&str; 2] = ["systemd-gpt-auto-generator", "systemd-veritysetup-generator"];
const GENERATORS: &str = "/run/systemd/system-generators";

/// What there is to say.
#[derive(Debug, Clone, Copy)]
pub struct Word<'a> {
    /// The disk that was booted.
    pub disk: &'a Disk,
    /// The bank that runs.
    pub bank: Bank,
    /// As what.
    pub going: Going,
    /// The root of its tree.
    pub root: Digest256,
    /// The driver of the watchdog that is armed.
    pub watchdog: Option<&'a str>,
}

impl Word<'_> {
    /// `boot.json`: `{"bank","as","roothash","watchdog"}`.
    fn json(&self) -> String {
        let Self { bank, going, root, watchdog, .. } = self;
        let plain = |text: &str| text.replace(['"', '\\'], "");
        let watchdog = watchdog.map_or_else(|| "null".to_owned(), |name| format!("\"{}\"", plain(name)));
        format!("{{\"bank\":\"{bank}\",\"as\":\"{going}\",\"roothash\":\"{root}\",\"watchdog\":{watchdog}}}")
    }
}

/// Tells the system what it runs from: `/run/roro`.
pub fn leave_word(word: &Word<'_>) -> Result<()> {
    let Word { disk, bank, going, .. } = *word;
    let run = PathBuf::from(RUN);
    let links = run.join("dev");
    paths::make_dirs(&links)?;
    for name in disk::NAMES {
        // A missing record is survived, and so has no link.
        if let Ok(partition) = disk.partition(name) {
            let link = links.join(name);
            symlink(&partition.node, &link).map_err(Error::io("link", &link))?;
        }
    }
    link_boot_files(disk, &links)?;
    let generators = Path::new(GENERATORS);
    paths::make_dirs(generators)?;
    for name in DONE_ALREADY {
        let mask = generators.join(name);
        symlink("/dev/null", &mask).map_err(Error::io("mask", &mask))?;
    }
    let write = |name: &str, text: String| {
        let path = run.join(name);
        std::fs::write(&path, text).map_err(Error::io("write", &path))
    };
    write("bank", format!("{bank}\n"))?;
    write("boot.json", format!("{}\n", word.json()))?;
    // The gate's unit runs only where this file is: a gate that dies must reset a trial, never a confirmed bank.
    if going == Going::Trial {
        write("trial", String::new())?;
    }
    Ok(())
}

/// Where the boot images are files in the ESP. An ESP that is damaged is not worth a failed boot: without the devices nothing can be
/// installed, and the agent says so.
fn link_boot_files(disk: &Disk, links: &Path) -> Result<()> {
    let Some(esp) = disk.find(disk::ESP) else { return Ok(()) };
    for bank in Bank::BOTH {
        let name = format!("boot-{bank}");
        if disk.find(&name).is_some() {
            continue;
        }
        match mapping::map_boot_file(esp, bank) {
            Ok(node) => {
                let link = links.join(name);
                symlink(&node, &link).map_err(Error::io("link", &link))?;
            }
            Err(error) => console::warn(&chain(&error)),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boot_json_is_json_whatever_a_driver_calls_itself() {
        let disk = Disk { name: "vda".into(), stay: disk::Stay::Fixed, partitions: Vec::new() };
        let root = Digest256([0xab; 32]);
        let mut word = Word { disk: &disk, bank: Bank::B, going: Going::Trial, root, watchdog: None };
        let expected =
            format!("{{\"bank\":\"b\",\"as\":\"trial\",\"roothash\":\"{root}\",\"watchdog\":null}}");
        assert_eq!(word.json(), expected);
        word.watchdog = Some("a\"\\b");
        assert!(word.json().ends_with("\"watchdog\":\"ab\"}"));
    }
}
