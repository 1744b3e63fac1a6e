//! The command line: arguments, exit codes, and nothing else.

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand, error::ErrorKind};

use crate::{
    commands::{
        Context, Exit, audit, confirm, gate, health, history, install, reboot, rollback, settle, status,
        throttle,
    },
    config::DEFAULT_PATH,
    error::Kind,
    linux,
    printer::{self, Format},
};

/// Rolls releases onto this device, and off again.
#[derive(Debug, Parser)]
#[command(
    name = "updater",
    version,
    after_help = "Exit codes: 0 done, 1 internal, 2 usage, 3 nothing to do, \
    4 rejected, 5 device or I/O, 75 try later."
)]
struct Arguments {
    /// Configuration of this device
    #[arg(long, global = true, default_value = DEFAULT_PATH)]
    config: PathBuf,
    /// Data as JSON, one object a line
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// What runs, what is on trial, what was interrupted, how the last deed ended
    Status(status::Args),
    /// Install a bundle into the passive bank, and arm its trial
    Install(install::Args),
    /// How much of network and disk an install may take; also while one is under way
    Throttle(throttle::Args),
    /// Reboot, into the trial if one is armed
    Reboot(reboot::Args),
    /// Make the running trial permanent
    Confirm(confirm::Args),
    /// Withdraw, reject, or go back to the other bank
    Rollback(rollback::Args),
    /// What happened on this device
    History(history::Args),
    /// Whether the other bank still is what was installed
    Audit(audit::Args),
    /// Make the checks of the health gate, without consequences
    Health(health::Args),
    /// Early in each boot: settle what became of a trial (run by a unit)
    Settle(settle::Args),
    /// On a trial boot: confirm it or reject it (run by a unit)
    Gate(gate::Args),
}

/// Parses the arguments, runs the command, says how it ended.
#[must_use]
pub fn main() -> ExitCode {
    linux::give_memory_back();
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let asked = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
            let _ = error.print();
            return if asked { ExitCode::SUCCESS } else { ExitCode::from(Kind::Usage.exit_code()) };
        }
    };
    let format = if arguments.json { Format::Json } else { Format::Text };
    let context = Context { config: arguments.config, format };
    let result = match arguments.command {
        Command::Status(args) => args.run(&context),
        Command::Install(args) => args.run(&context),
        Command::Throttle(args) => args.run(&context),
        Command::Reboot(args) => args.run(&context),
        Command::Confirm(args) => args.run(&context),
        Command::Rollback(args) => args.run(&context),
        Command::History(args) => args.run(&context),
        Command::Audit(args) => args.run(&context),
        Command::Health(args) => args.run(&context),
        Command::Settle(args) => args.run(&context),
        Command::Gate(args) => args.run(&context),
    };
    match result {
        Ok(Exit::Done) => ExitCode::SUCCESS,
        Ok(Exit::Rejected) => ExitCode::from(Kind::Rejected.exit_code()),
        Ok(Exit::NothingToDo) => ExitCode::from(Kind::NothingToDo.exit_code()),
        Err(error) => {
            printer::error(&error, format);
            ExitCode::from(error.kind().exit_code())
        }
    }
}
