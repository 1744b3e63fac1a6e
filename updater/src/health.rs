//! What the health gate examines: the checks that every trial must pass, those that the image and the device declare, and the
//! way back to the update source.
//!
//! [`rounds`] decides when which check is looked at and how it ends, and touches nothing; [`look`] is the one look.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use bank_format::health::{self, Check, Kind};

use crate::{
    config::{Config, UpdateSource, read_small},
    engine::Sources,
    error::{Error, Result, file},
    limits::{BUILT_IN_DEADLINE, BUILT_IN_INTERVAL, MAX_HEALTH_CHECKS, SOURCE_DEADLINE, SOURCE_INTERVAL},
};

pub mod look;
pub mod rounds;

use rounds::Pace;

/// What one check looks at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// No unit of systemd has failed.
    FailedUnits,
    /// The state directory takes a file.
    State,
    /// What was declared.
    Declared(Kind),
}

impl Subject {
    /// One word, as in findings.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::FailedUnits | Self::State => "built-in",
            Self::Declared(kind) => kind.word(),
        }
    }
}

/// One check, ready to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned {
    /// For people.
    pub name: String,
    /// What it looks at.
    pub subject: Subject,
    /// How long, how often.
    pub pace: Pace,
}

impl Planned {
    fn built_in(name: &str, subject: Subject) -> Self {
        let pace = Pace { deadline: BUILT_IN_DEADLINE, interval: BUILT_IN_INTERVAL };
        Self { name: name.into(), subject, pace }
    }

    fn declared(check: Check) -> Self {
        let pace = Pace {
            deadline: Duration::from_secs(check.deadline_seconds),
            interval: Duration::from_secs(check.interval_seconds),
        };
        Self { name: check.name, subject: Subject::Declared(check.kind), pace }
    }
}

/// All that is examined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The checks.
    pub checks: Vec<Planned>,
    /// How long all must hold.
    pub soak: Duration,
}

/// The plan of a device. Where update sources are configured, an image that reaches none of them is never confirmed, unless the
/// configuration says so.
pub fn plan(config: &Config) -> Result<Plan> {
    let mut checks = vec![
        Planned::built_in("no failed unit", Subject::FailedUnits),
        Planned::built_in("state is writable", Subject::State),
    ];
    let (declared, mut soak_seconds) = load(&config.health_dirs)?;
    soak_seconds = soak_seconds.max(config.health.soak_seconds);
    let asks_source = declared.iter().any(|check| check.kind == Kind::UpdateSource);
    checks.extend(declared.into_iter().map(Planned::declared));
    let implied = match config.health.update_source {
        UpdateSource::Reachable => !config.source.is_empty() && !asks_source,
        UpdateSource::Off => false,
    };
    if implied {
        checks.push(Planned {
            name: "update source is reachable".into(),
            subject: Subject::Declared(Kind::UpdateSource),
            pace: Pace { deadline: SOURCE_DEADLINE, interval: SOURCE_INTERVAL },
        });
    }
    Ok(Plan { checks, soak: Duration::from_secs(soak_seconds) })
}

/// The plan of a trial. Where the confirmed release had update sources and the trial has lost them, that is a check which fails: nobody
/// could update such a device again.
pub fn plan_of_trial(config: &Config, before: Sources) -> Result<Plan> {
    let mut plan = plan(config)?;
    let lost = match (before, config.health.update_source) {
        (Sources::Configured, UpdateSource::Reachable) => config.source.is_empty(),
        (Sources::Configured, UpdateSource::Off) | (Sources::None, _) => false,
    };
    if lost {
        let subject = Subject::Declared(Kind::UpdateSource);
        plan.checks.push(Planned::built_in("update sources are still configured", subject));
    }
    Ok(plan)
}

/// The plan that is left when the declarations cannot be read: what every system must pass.
#[must_use]
pub fn bare_plan() -> Plan {
    let checks = vec![
        Planned::built_in("no failed unit", Subject::FailedUnits),
        Planned::built_in("state is writable", Subject::State),
    ];
    Plan { checks, soak: Duration::ZERO }
}

/// Reads all declarations, by directory and then by file name, and the longest soak. A directory that is not there declares nothing.
fn load(directories: &[PathBuf]) -> Result<(Vec<Check>, u64)> {
    let (mut checks, mut soak_seconds) = (Vec::new(), 0);
    for directory in directories {
        for path in toml_files(directory)? {
            let found = health::parse(&read_small(&path)?)
                .map_err(|detail| Error::Config { path: path.clone(), detail })?;
            checks.extend(found.checks);
            soak_seconds = soak_seconds.max(found.soak_seconds);
            if checks.len() > MAX_HEALTH_CHECKS {
                let detail = format!("more than {MAX_HEALTH_CHECKS} checks");
                return Err(Error::Config { path, detail });
            }
        }
    }
    Ok((checks, soak_seconds))
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

#[cfg(test)]
mod tests {
    use super::*;

    fn config(directory: &Path, more: &str) -> Config {
        let text = format!(
            "compatible = \"a\"\nstate_dir = \"s\"\nrecord = \"r\"\nhealth_dirs = [\"none\", \"h\"]\n\
             [boot]\nbackend = \"file\"\npath = \"p\"\n[bank.a]\nroot = \"1\"\n[bank.b]\nroot = \"2\"\n{more}"
        );
        Config::parse(&text, directory).unwrap()
    }

    fn names(plan: &Plan) -> Vec<&str> {
        plan.checks.iter().map(|check| check.name.as_str()).collect()
    }

    #[test]
    fn declarations_are_read_in_order_and_the_longest_soak_counts() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("h")).unwrap();
        let write = |name: &str, text: &str| std::fs::write(dir.path().join("h").join(name), text).unwrap();
        write("20-b.toml", "soak_seconds = 4\n[[check]]\nname = \"b\"\ncommand = [\"/b\"]\n");
        write("10-a.toml", "soak_seconds = 9\n[[check]]\nname = \"a\"\nkind = \"clock\"\n");
        write("notes.txt", "no check");
        let found = plan(&config(dir.path(), "[health]\nsoak_seconds = 5\n")).unwrap();
        assert_eq!(names(&found), ["no failed unit", "state is writable", "a", "b"]);
        assert_eq!(found.soak, Duration::from_secs(9));
        write("30-c.toml", "[[chek]]\n");
        let line = plan(&config(dir.path(), "")).unwrap_err().line();
        assert!(line.contains("30-c.toml") && line.contains("did you mean check?"), "{line}");
    }

    #[test]
    fn the_way_back_to_the_update_source_is_implied() {
        let dir = tempfile::tempdir().unwrap();
        let source = "[[source]]\nurl = \"http://a/\"\n";
        let last = |more: &str| plan(&config(dir.path(), more)).unwrap().checks.pop().unwrap().name;
        assert_eq!(last(source), "update source is reachable");
        assert_eq!(last(""), "state is writable");
        assert_eq!(last(&format!("{source}[health]\nupdate_source = \"off\"\n")), "state is writable");
        std::fs::create_dir(dir.path().join("h")).unwrap();
        let own = "[[check]]\nname = \"way back\"\nkind = \"update_source\"\ndeadline_seconds = 7\n";
        std::fs::write(dir.path().join("h/own.toml"), own).unwrap();
        assert_eq!(last(source), "way back", "its own declaration counts instead");
    }
}
