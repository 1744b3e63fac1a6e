//! Health checks, as images and devices declare them: `health.d/*.toml`, and `[[health]]` of an appliance.
//!
//! Declarations only, strict: a key that is not known is an error that names the nearest one of its kind. How a check is made is
//! the agent's part. Every key with an example: `docs/health.md`.

use serde::Deserialize;
use toml::{Table, Value};

use crate::limits::{MAX_CHECK_NAME_BYTES, MAX_CHECK_SECONDS, MAX_HEALTH_CHECKS, MAX_SOAK_SECONDS};

const COMMON_KEYS: [&str; 4] = ["name", "kind", "deadline_seconds", "interval_seconds"];
const FILE_KEYS: [&str; 2] = ["check", "soak_seconds"];
/// Every kind, with its own keys.
const KINDS: [(&str, &[&str]); 9] = [
    ("command", &["command"]),
    ("unit", &["unit"]),
    ("http", &["url", "status", "body_contains"]),
    ("tcp", &["address"]),
    ("file", &["path", "max_age_seconds", "contains"]),
    ("free_space", &["path", "min_mib", "min_percent"]),
    ("container", &["container", "unit"]),
    ("clock", &[]),
    ("update_source", &[]),
];
const DEFAULT_DEADLINE_SECONDS: u64 = 30;
const DEFAULT_INTERVAL_SECONDS: u64 = 2;
const DEFAULT_STATUS: u16 = 200;

/// One file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Declarations {
    /// The checks, in their order.
    pub checks: Vec<Check>,
    /// How long all must hold after all were healthy once.
    pub soak_seconds: u64,
}

/// One check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// For people: what is promised when it passes.
    pub name: String,
    /// What is looked at.
    pub kind: Kind,
    /// The whole time that it may take to become healthy.
    pub deadline_seconds: u64,
    /// From the end of one look to the next.
    pub interval_seconds: u64,
}

/// What is looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A program ends with exit code 0.
    Command {
        /// Absolute path, then arguments.
        command: Vec<String>,
    },
    /// A unit of systemd is active.
    Unit {
        /// Its name.
        unit: String,
    },
    /// A server answers.
    Http {
        /// Address, `http` or `https`.
        url: String,
        /// The status that it must have; redirects are not followed.
        status: u16,
        /// What must stand in the first part of the body.
        body_contains: Option<String>,
    },
    /// A port accepts connections.
    Tcp {
        /// `HOST:PORT`, the host as a name or an address.
        address: String,
    },
    /// A file is there.
    File {
        /// Absolute path.
        path: String,
        /// It was written at most so long ago.
        max_age_seconds: Option<u64>,
        /// What must stand in its first part.
        contains: Option<String>,
    },
    /// A file system has room.
    FreeSpace {
        /// A path in it.
        path: String,
        /// How much.
        least: Least,
    },
    /// A container runs, by the word of its runtime.
    Container {
        /// Its name.
        container: String,
        /// The unit that runs it, which must be active as well.
        unit: Option<String>,
    },
    /// The clock is later than the image, and before the year 2100.
    Clock,
    /// At least one of the agent's update sources answers.
    UpdateSource,
}

/// How much room is enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Least {
    /// So many MiB.
    Mib(u64),
    /// So many of a hundred parts of the file system.
    Percent(u64),
}

impl Kind {
    /// As in the declaration.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Command { .. } => "command",
            Self::Unit { .. } => "unit",
            Self::Http { .. } => "http",
            Self::Tcp { .. } => "tcp",
            Self::File { .. } => "file",
            Self::FreeSpace { .. } => "free_space",
            Self::Container { .. } => "container",
            Self::Clock => "clock",
            Self::UpdateSource => "update_source",
        }
    }
}

/// All keys of all kinds, after the key check.
#[derive(Deserialize)]
struct Raw {
    name: String,
    deadline_seconds: Option<u64>,
    interval_seconds: Option<u64>,
    command: Option<Vec<String>>,
    unit: Option<String>,
    url: Option<String>,
    status: Option<u16>,
    body_contains: Option<String>,
    address: Option<String>,
    path: Option<String>,
    max_age_seconds: Option<u64>,
    contains: Option<String>,
    min_mib: Option<u64>,
    min_percent: Option<u64>,
    container: Option<String>,
}

/// Reads a file of `health.d`. The error is one line.
pub fn parse(text: &str) -> Result<Declarations, String> {
    let table: Table = text.parse().map_err(|error| one_line(&error))?;
    check_keys("", &table, &FILE_KEYS)?;
    let checks = match table.get("check") {
        None => Vec::new(),
        Some(Value::Array(checks)) => checks.iter().map(parse_check).collect::<Result<Vec<_>, String>>()?,
        Some(_) => return Err("check is a list of tables: [[check]]".into()),
    };
    if checks.len() > MAX_HEALTH_CHECKS {
        return Err(format!("more than {MAX_HEALTH_CHECKS} checks"));
    }
    let soak_seconds = match table.get("soak_seconds") {
        None => 0,
        Some(value) => check_soak(value.as_integer().and_then(|seconds| u64::try_from(seconds).ok()))?,
    };
    Ok(Declarations { checks, soak_seconds })
}

/// The bound on a soak time, wherever it is declared.
pub fn check_soak(seconds: Option<u64>) -> Result<u64, String> {
    seconds
        .filter(|seconds| *seconds <= MAX_SOAK_SECONDS)
        .ok_or_else(|| format!("soak_seconds is 0 to {MAX_SOAK_SECONDS}"))
}

/// Reads one check. The error is one line.
pub fn parse_check(value: &Value) -> Result<Check, String> {
    let table = value.as_table().ok_or("a check is a table: [[check]]")?;
    let word = match table.get("kind") {
        None => "command",
        Some(Value::String(word)) => word,
        Some(_) => return Err("kind is a word, such as \"http\"".into()),
    };
    let Some((word, own)) = KINDS.into_iter().find(|(known, _)| *known == word) else {
        let nearest = nearest(word, KINDS.into_iter().map(|(known, _)| known));
        return Err(format!("kind {word:?} is not known, did you mean {nearest:?}?"));
    };
    let known: Vec<&str> = COMMON_KEYS.iter().chain(own).copied().collect();
    check_keys("check.", table, &known).map_err(|why| match known_elsewhere(table, &known) {
        Some((key, kind)) => {
            format!("key check.{key} is for kind = \"{kind}\", and this check has kind {word:?}")
        }
        None => why,
    })?;
    let raw: Raw = value.clone().try_into().map_err(|error| one_line(&error))?;
    let name = raw.name.clone();
    complete(raw, word).map_err(|why| format!("check {name:?}: {why}"))
}

fn complete(raw: Raw, word: &str) -> Result<Check, String> {
    if raw.name.trim().is_empty() || raw.name.contains(char::is_control) {
        return Err("a name is one line, and not empty".into());
    }
    if raw.name.len() > MAX_CHECK_NAME_BYTES {
        return Err(format!("a name has at most {MAX_CHECK_NAME_BYTES} bytes"));
    }
    let seconds = |value: Option<u64>, default: u64, key: &str| {
        Some(value.unwrap_or(default))
            .filter(|seconds| (1..=MAX_CHECK_SECONDS).contains(seconds))
            .ok_or_else(|| format!("{key} is 1 to {MAX_CHECK_SECONDS}"))
    };
    let deadline_seconds = seconds(raw.deadline_seconds, DEFAULT_DEADLINE_SECONDS, "deadline_seconds")?;
    let interval_seconds = seconds(raw.interval_seconds, DEFAULT_INTERVAL_SECONDS, "interval_seconds")?;
    let absolute = |path: Option<String>| {
        path.filter(|path| path.starts_with('/')).ok_or("path is an absolute path".to_owned())
    };
    let unit_name = |unit: String| {
        let fits = |c: char| c.is_ascii_alphanumeric() || ".-_@:\\".contains(c);
        if unit.contains('.') && !unit.starts_with('-') && unit.chars().all(fits) {
            Ok(unit)
        } else {
            Err(format!("unit {unit:?} is no name such as \"kiosk.service\""))
        }
    };
    let kind = match word {
        "unit" => Kind::Unit { unit: unit_name(raw.unit.ok_or("it needs unit")?)? },
        "http" => {
            let is_web = |url: &String| url.starts_with("http://") || url.starts_with("https://");
            let url = raw.url.filter(is_web).ok_or("url begins with http:// or https://")?;
            let status = raw.status.unwrap_or(DEFAULT_STATUS);
            if !(100..=599).contains(&status) {
                return Err("status is 100 to 599".into());
            }
            Kind::Http { url, status, body_contains: raw.body_contains }
        }
        "tcp" => {
            let address = raw.address.ok_or("it needs address")?;
            let (host, port) = address.rsplit_once(':').ok_or("address has no port")?;
            let host = host.trim_start_matches('[').trim_end_matches(']');
            let fits = |c: char| c.is_ascii_alphanumeric() || ".-".contains(c);
            let is_name = !host.is_empty() && host.chars().all(fits);
            if !is_name && host.parse::<std::net::IpAddr>().is_err() {
                return Err(format!("address {address:?} is not HOST:PORT"));
            }
            port.parse::<u16>()
                .ok()
                .filter(|port| *port > 0)
                .ok_or_else(|| format!("port {port:?} is not 1 to 65535"))?;
            Kind::Tcp { address }
        }
        "file" => Kind::File {
            path: absolute(raw.path)?,
            max_age_seconds: raw.max_age_seconds,
            contains: raw.contains,
        },
        "free_space" => Kind::FreeSpace {
            path: absolute(raw.path)?,
            least: match (raw.min_mib, raw.min_percent) {
                (Some(mib), None) => Least::Mib(mib),
                (None, Some(percent)) if percent <= 100 => Least::Percent(percent),
                (None, Some(_)) => return Err("min_percent is 0 to 100".into()),
                (Some(_), Some(_)) | (None, None) => {
                    return Err("it needs either min_mib or min_percent".into());
                }
            },
        },
        "container" => {
            let fits = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
            let container = raw.container.ok_or("it needs container")?;
            if container.is_empty() || container.starts_with(['-', '.']) || !container.chars().all(fits) {
                return Err(format!("container {container:?} is no name"));
            }
            Kind::Container { container, unit: raw.unit.map(unit_name).transpose()? }
        }
        "clock" => Kind::Clock,
        "update_source" => Kind::UpdateSource,
        // The only word that is left of those in KINDS.
        _ => {
            let command = raw.command.unwrap_or_default();
            if !command.first().is_some_and(|program| program.starts_with('/')) {
                return Err("the command starts with an absolute path".into());
            }
            Kind::Command { command }
        }
    };
    Ok(Check { name: raw.name, kind, deadline_seconds, interval_seconds })
}

/// A key that is right for another kind, and that kind: the `kind` was forgotten or is wrong.
fn known_elsewhere<'a>(table: &'a Table, known: &[&str]) -> Option<(&'a str, &'static str)> {
    let key = table.keys().find(|key| !known.contains(&key.as_str()))?;
    let (kind, _) = KINDS.into_iter().find(|(_, keys)| keys.contains(&key.as_str()))?;
    Some((key, kind))
}

fn check_keys(prefix: &str, table: &Table, known: &[&str]) -> Result<(), String> {
    let Some(key) = table.keys().find(|key| !known.contains(&key.as_str())) else { return Ok(()) };
    let nearest = nearest(key, known.iter().copied());
    // A key in quotes may have ends of lines in it.
    let key = key.escape_debug();
    Err(format!("key {prefix}{key} is not known, did you mean {prefix}{nearest}?"))
}

fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> &'a str {
    known.min_by_key(|known| strsim::damerau_levenshtein(word, known)).unwrap_or_default()
}

fn one_line(error: &toml::de::Error) -> String {
    error.message().split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(body: &str) -> Result<Check, String> {
        parse(&format!("[[check]]\nname = \"x\"\n{body}\n")).map(|file| file.checks[0].clone())
    }

    #[test]
    fn every_kind_is_read() {
        let text = r#"
            soak_seconds = 20
            [[check]]
            name = "self test"
            command = ["/usr/bin/kiosk", "--self-test"]
            deadline_seconds = 5
            interval_seconds = 1
            [[check]]
            name = "page"
            kind = "http"
            url = "http://127.0.0.1:8080/"
            [[check]]
            name = "room"
            kind = "free_space"
            path = "/state"
            min_percent = 10
            [[check]]
            name = "web"
            kind = "container"
            container = "web"
            unit = "web.service"
            [[check]]
            name = "time"
            kind = "clock"
        "#;
        let found = parse(text).unwrap();
        assert_eq!(found.soak_seconds, 20);
        assert_eq!((found.checks[0].deadline_seconds, found.checks[0].interval_seconds), (5, 1));
        assert_eq!((found.checks[1].deadline_seconds, found.checks[1].interval_seconds), (30, 2));
        let words: Vec<_> = found.checks.iter().map(|check| check.kind.word()).collect();
        assert_eq!(words, ["command", "http", "free_space", "container", "clock"]);
        let Kind::Http { status, body_contains, .. } = &found.checks[1].kind else { panic!("no http") };
        assert_eq!((*status, body_contains), (200, &None));
        assert_eq!(parse("").unwrap(), Declarations::default());
    }

    #[test]
    fn what_cannot_be_is_refused_in_one_line() {
        for (body, expected) in [
            ("comand = [\"/b\"]", "did you mean check.command?"),
            ("kind = \"htp\"", "did you mean \"http\"?"),
            (
                "kind = \"http\"\nurl = \"http://a/\"\nbody_contain = \"x\"",
                "did you mean check.body_contains?",
            ),
            (
                "url = \"http://a/\"",
                "key check.url is for kind = \"http\", and this check has kind \"command\"",
            ),
            ("kind = \"http\"\nurl = \"ftp://a/\"", "http:// or https://"),
            ("kind = \"http\"\nurl = \"http://a/\"\nstatus = 20", "100 to 599"),
            ("kind = \"tcp\"\naddress = \"a b:80\"", "HOST:PORT"),
            ("kind = \"tcp\"\naddress = \"2001::g:80\"", "HOST:PORT"),
            ("kind = \"tcp\"\naddress = \"127.0.0.1:0\"", "1 to 65535"),
            ("kind = \"unit\"\nunit = \"--all\"", "no name"),
            ("kind = \"file\"\npath = \"x\"", "absolute"),
            ("kind = \"free_space\"\npath = \"/\"", "either min_mib or min_percent"),
            ("kind = \"free_space\"\npath = \"/\"\nmin_percent = 101", "0 to 100"),
            ("kind = \"container\"\ncontainer = \"-x\"", "no name"),
            ("command = []", "absolute path"),
            ("command = [\"relative\"]", "absolute path"),
            ("command = [\"/b\"]\ndeadline_seconds = 0", "1 to 3600"),
            ("command = [\"/b\"]\ninterval_seconds = -1", "integer"),
            ("kind = 7", "a word"),
        ] {
            let error = one(body).unwrap_err();
            assert!(error.contains(expected) && !error.contains('\n'), "{body}: {error}");
        }
        for (text, expected) in [
            ("[[chek]]", "did you mean check?"),
            ("\"ch\\neck\" = 1", "key ch\\neck is not known"),
            ("check = 1", "list of tables"),
            ("soak_seconds = -1", "soak_seconds is 0 to"),
            ("[[check]]\ncommand = [\"/b\"]", "name"),
            ("[[check", ""),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(expected) && !error.contains('\n'), "{text}: {error}");
        }
        assert!(parse(&"[[check]]\nname = \"x\"\nkind = \"clock\"\n".repeat(MAX_HEALTH_CHECKS + 1)).is_err());
        let named =
            |bytes| parse(&format!("[[check]]\nname = \"{}\"\nkind = \"clock\"\n", "x".repeat(bytes)));
        assert!(named(MAX_CHECK_NAME_BYTES).is_ok() && named(MAX_CHECK_NAME_BYTES + 1).is_err());
        for address in ["[::1]:80", "::1:80", "localhost:80", "broker.example:1883"] {
            assert!(one(&format!("kind = \"tcp\"\naddress = \"{address}\"")).is_ok(), "{address}");
        }
    }
}
