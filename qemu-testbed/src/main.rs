//! The command line of the proving ground; everything else is in the library.

use std::process::ExitCode;

use clap::Parser;
use qemu_testbed::{commands::Cli, printer};

fn main() -> ExitCode {
    match Cli::parse().run() {
        Ok(code) => code,
        Err(error) => {
            printer::complain_of(&error);
            ExitCode::from(error.exit_code())
        }
    }
}
