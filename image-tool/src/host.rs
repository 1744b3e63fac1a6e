//! The one place where programs of the host are started. Their output is caught; when they fail, its end is told.

use std::{
    io::{self, Write as _},
    process::{Command, Output, Stdio},
};

use crate::error::{Error, Result};

/// Runs a program to its end and returns what it wrote to standard output.
///
/// `package` is the Debian package named in the hint when the program is not there.
pub fn run(command: &mut Command, package: &'static str) -> Result<Vec<u8>> {
    run_with_input(command, package, &[])
}

/// As [`run`], with something to read on standard input: less than a pipe holds, 64 KiB.
pub fn run_with_input(command: &mut Command, package: &'static str, input: &[u8]) -> Result<Vec<u8>> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = output(command, input).map_err(|source| Error::Start {
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

fn output(command: &mut Command, input: &[u8]) -> io::Result<Output> {
    if input.is_empty() {
        return command.stdin(Stdio::null()).output();
    }
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    if let Some(mut pipe) = child.stdin.take() {
        match pipe.write_all(input) {
            // It ended without reading: why, it says itself.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
            result => result?,
        }
    }
    child.wait_with_output()
}
