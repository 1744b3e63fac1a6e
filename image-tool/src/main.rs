//! `image-tool`: the command line of the mint. What it does is in the library.

use std::process::ExitCode;

use clap::Parser as _;
use image_tool::commands::{Cli, Context};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let context = Context::default();
    let result = cli.run(&context);
    context.printer.clear();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            context.printer.error(&error);
            ExitCode::from(error.kind().exit_code())
        }
    }
}
