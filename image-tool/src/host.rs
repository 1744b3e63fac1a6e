//! The one place where programs of the host are started. Their output is caught; when they fail, its end is told.

use std::process::{Command, Output, Stdio};

use crate::error::{Error, Result};

/// Runs a program to its end and returns what it wrote to standard output.
///
/// `package` is the Debian package named in the hint when the program is not there.
pub fn run(command: &mut Command, package: &'static str) -> Result<Vec<u8>> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output: Output = command.stdin(Stdio::null()).output().map_err(|source| Error::Start {
        program: program.clone(),
        package,
        source,
    })?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let text = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<&str> = text.lines().collect();
    let last = lines.get(lines.len().saturating_sub(12)..).unwrap_or_default().join("\n  ");
    Err(Error::Program { program, message: format!("{}\n  {last}", output.status) })
}
