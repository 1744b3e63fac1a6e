//! The one voice: standard output is data, standard error is for people.

use std::io::{self, Write};

use serde::Serialize;

use crate::error::{Error, Kind};

/// How data is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// For people.
    Text,
    /// JSON, one object a line.
    Json,
}

/// Writes a line of data. A reader that went away is no error of ours.
pub fn data(line: &str) {
    let _ = writeln!(io::stdout().lock(), "{line}");
}

/// Writes an object of data.
pub fn object<T: Serialize>(value: &T) {
    if let Ok(line) = serde_json::to_string(value) {
        data(&line);
    }
}

/// Writes a line for people.
pub fn person(line: &str) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}

#[derive(Serialize)]
struct Failure<'a> {
    result: &'a str,
    exit_code: u8,
    reason: String,
    hint: Option<&'a str>,
}

/// Writes an error once: its chain in one line, then the hint; and as an object where data is JSON.
pub fn error(error: &Error, format: Format) {
    let line = error.line();
    match error.kind() {
        // Its exit code says enough: a script that repeats itself has done no wrong.
        Kind::NothingToDo => person(&line),
        Kind::Internal | Kind::Usage | Kind::Rejected | Kind::Device | Kind::TryLater => {
            person(&format!("error: {line}"));
        }
    }
    if let Some(hint) = error.hint() {
        person(&format!("hint: {hint}"));
    }
    if format == Format::Json {
        let kind = error.kind();
        object(&Failure {
            result: kind.word(),
            exit_code: kind.exit_code(),
            reason: line,
            hint: error.hint(),
        });
    }
}
