//! What a run ran on: machine, system, versions.

use std::{collections::BTreeMap, fs, path::Path, process::Command, thread};

use crate::{
    bench::results::Host,
    error::{Error, Result},
    packages::{self, Package},
    process,
};

/// The host now.
pub fn describe(source: &Path) -> Result<Host> {
    let read = |file: &str| fs::read_to_string(file).map_err(Error::io("read", file));
    let date = process::run(Command::new("date").args(["-u", "+%F"]))?;
    // A tree without git still has figures.
    let git = Command::new("git").args(["describe", "--always", "--dirty"]).current_dir(source).output();
    let commit = git.ok().filter(|output| output.status.success()).map(|output| output.stdout);
    Ok(Host {
        date: text(&date),
        commit: commit.map_or_else(|| "unknown".to_owned(), |commit| text(&commit)),
        processor: field(&read("/proc/cpuinfo")?, "model name", ':').unwrap_or_else(|| "unknown".to_owned()),
        cores: thread::available_parallelism().map_or(1, usize::from),
        memory_mib: memory_mib(&read("/proc/meminfo")?),
        kernel: read("/proc/sys/kernel/osrelease")?.trim().to_owned(),
        system: field(&read("/etc/os-release")?, "PRETTY_NAME", '=').unwrap_or_else(|| "unknown".to_owned()),
        load: read("/proc/loadavg")?.split_whitespace().next().unwrap_or_default().to_owned(),
    })
}

/// Versions of what was measured, by Debian package; `more` are programs with what they say of themselves.
pub fn versions(packages: &[Package], more: &[(&str, &Path)]) -> Result<BTreeMap<String, String>> {
    let mut versions = BTreeMap::new();
    for package in packages {
        if let Some(version) = packages::version(package.name)? {
            versions.insert(package.name.to_owned(), version);
        }
    }
    for (name, program) in more {
        let said = process::run(Command::new(program).arg("--version"))?;
        versions.insert((*name).to_owned(), last_word(&text(&said)));
    }
    Ok(versions)
}

/// `bita 0.15.0` says its version last.
fn last_word(said: &str) -> String {
    said.lines().next().and_then(|line| line.split_whitespace().last()).unwrap_or("unknown").to_owned()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim().to_owned()
}

fn field(lines: &str, name: &str, separator: char) -> Option<String> {
    let value = lines.lines().find_map(|line| {
        let (key, value) = line.split_once(separator)?;
        (key.trim() == name).then_some(value)
    })?;
    Some(value.trim().trim_matches('"').to_owned())
}

fn memory_mib(lines: &str) -> u64 {
    let total = field(lines, "MemTotal", ':').unwrap_or_default();
    let kib = total.split_whitespace().next().and_then(|word| word.parse::<u64>().ok());
    kib.unwrap_or(0) >> 10
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_the_system_are_read() {
        let processors = "processor\t: 0\nmodel name\t: Some CPU @ 2.00GHz\nmodel name\t: Other\n";
        assert_eq!(field(processors, "model name", ':').as_deref(), Some("Some CPU @ 2.00GHz"));
        let system = "NAME=\"Debian\"\nPRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\n";
        assert_eq!(field(system, "PRETTY_NAME", '=').as_deref(), Some("Debian GNU/Linux 12 (bookworm)"));
        assert_eq!(memory_mib("MemTotal:       24684544 kB\nMemFree: 1 kB\n"), 24106);
        assert_eq!(last_word("bita 0.15.0\n"), "0.15.0");
    }
}
