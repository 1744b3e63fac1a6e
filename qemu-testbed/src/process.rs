//! Starting other programs, in one place.
//!
//! Promises that no child outlives us by accident: `setpriv` (util-linux, essential on Debian) asks the kernel to kill
//! the program when the thread that started it ends, so even a test that is killed leaves no QEMU behind.
//! Hence a machine must live on the thread that powers it on, which scenarios do.

use std::process::{Command, Stdio};

use crate::error::{Error, Result};

/// A command that dies with the calling thread.
#[must_use]
pub fn tied(program: &str) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--", program]);
    command
}

/// Runs a command to its end; gives its standard output. Its error output is shown when it fails.
pub fn run(command: &mut Command) -> Result<Vec<u8>> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|source| Error::Start { program: program.clone(), source })?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    Err(Error::Program {
        program,
        status: output.status.to_string(),
        last_words: last_words(&String::from_utf8_lossy(&output.stderr)),
    })
}

/// The last few lines of what a program said.
#[must_use]
pub fn last_words(text: &str) -> String {
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    if lines.is_empty() {
        return "it said nothing".to_owned();
    }
    lines.get(lines.len().saturating_sub(8)..).unwrap_or_default().join("\n")
}
