//! Health checks: what the image (and the device) declare in `health.d/*.toml`, strict.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Deserialize;
use toml::{Table, Value};

use crate::{
    config::{check_table, read_small},
    error::{Error, Result, file},
    limits::{MAX_CHECK_SECONDS, MAX_HEALTH_CHECKS},
};

/// One check.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Check {
    /// For people.
    pub name: String,
    /// Program and arguments; exit code 0 is healthy.
    pub command: Vec<String>,
    /// It is killed after this time.
    #[serde(default = "default_deadline_seconds")]
    pub deadline_seconds: u64,
}

fn default_deadline_seconds() -> u64 {
    30
}

impl Check {
    /// When it is killed.
    #[must_use]
    pub fn deadline(&self) -> Duration {
        Duration::from_secs(self.deadline_seconds.min(MAX_CHECK_SECONDS))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HealthFile {
    #[serde(default, rename = "check")]
    checks: Vec<Check>,
}

/// Reads all checks, by directory and then by file name. A directory that is not there declares nothing.
pub fn load(directories: &[PathBuf]) -> Result<Vec<Check>> {
    let mut checks = Vec::new();
    for directory in directories {
        for path in toml_files(directory)? {
            let found =
                parse(&read_small(&path)?).map_err(|detail| Error::Config { path: path.clone(), detail })?;
            checks.extend(found);
            if checks.len() > MAX_HEALTH_CHECKS {
                let detail = format!("more than {MAX_HEALTH_CHECKS} checks");
                return Err(Error::Config { path, detail });
            }
        }
    }
    Ok(checks)
}

fn toml_files(directory: &Path) -> Result<Vec<PathBuf>> {
    let list = || -> io::Result<Vec<PathBuf>> {
        let entries = match std::fs::read_dir(directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other?,
        };
        let mut files = Vec::new();
        for entry in entries {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "toml") {
                files.push(path);
            }
        }
        files.sort();
        Ok(files)
    };
    list().map_err(file("read", directory))
}

fn parse(text: &str) -> Result<Vec<Check>, String> {
    let one_line = |error: toml::de::Error| error.message().replace('\n', " ");
    let table: Table = text.parse().map_err(one_line)?;
    check_table("", &table, &["check"])?;
    if let Some(Value::Array(checks)) = table.get("check") {
        for check in checks.iter().filter_map(Value::as_table) {
            check_table("check.", check, &["name", "command", "deadline_seconds"])?;
        }
    }
    let found: HealthFile = Value::Table(table).try_into().map_err(one_line)?;
    match found.checks.iter().find(|check| check.command.is_empty()) {
        Some(check) => Err(format!("check {:?} has no command", check.name)),
        None => Ok(found.checks),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checks_are_read_in_order_and_strictly() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        write("20-b.toml", "[[check]]\nname = \"b\"\ncommand = [\"/b\"]\ndeadline_seconds = 5\n");
        write("10-a.toml", "[[check]]\nname = \"a\"\ncommand = [\"/a\", \"-x\"]\n");
        write("notes.txt", "no check");
        let checks = load(&[dir.path().join("none"), dir.path().into()]).unwrap();
        let names: Vec<_> =
            checks.iter().map(|check| (check.name.as_str(), check.deadline_seconds)).collect();
        assert_eq!(names, [("a", 30), ("b", 5)]);
        for (bad, expected) in [
            ("[[check]]\nname = \"b\"\ncomand = [\"/b\"]", "did you mean check.command?"),
            ("[[chek]]", "did you mean check?"),
            ("[[check]]\nname = \"b\"\ncommand = []", "no command"),
        ] {
            assert!(parse(bad).unwrap_err().contains(expected), "{bad}");
        }
    }
}
