//! A reboot by a program of the integrator, where there is no systemd to ask.

use std::{io, path::PathBuf};

use crate::{
    limits::{MAX_LOADER_PROGRAM_OUTPUT_BYTES, TOOL_DEADLINE},
    linux,
    ports::{AfterReboot, Reboot},
    process::{Ended, Keep, run},
};

/// Runs the program and believes its exit code: 0 says that the machine goes down.
#[derive(Debug, Clone)]
pub struct ProgramReboot {
    program: PathBuf,
}

impl ProgramReboot {
    /// Which.
    #[must_use]
    pub fn new(program: PathBuf) -> Self {
        Self { program }
    }
}

impl Reboot for ProgramReboot {
    fn reboot(&mut self) -> io::Result<AfterReboot> {
        linux::sync_all();
        let program = self.program.display().to_string();
        let said = run(&program, &[], TOOL_DEADLINE, Keep::First(MAX_LOADER_PROGRAM_OUTPUT_BYTES))
            .map_err(|error| io::Error::new(error.kind(), format!("{program}: {error}")))?;
        match said.ended {
            Ended::Exited(status) if status.success() => Ok(AfterReboot::GoingDown),
            Ended::Exited(status) => {
                Err(io::Error::other(format!("{program}: {}", linux::describe_exit(status))))
            }
            Ended::TimedOut => {
                Err(io::Error::other(format!("{program}: no end after {} s", TOOL_DEADLINE.as_secs())))
            }
        }
    }
}
