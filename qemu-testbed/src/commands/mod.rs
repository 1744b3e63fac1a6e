//! The command line: one verb in each file.

mod bench;
mod bench_stage;
mod demo;
mod list;
mod run;
mod setup;
mod shell;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::error::Result;

/// Real firmware, real boots, real power cuts.
#[derive(Debug, Parser)]
#[command(name = "qemu-testbed", version, arg_required_else_help = true)]
pub struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Install the Debian packages that building and booting need
    Setup(setup::Args),
    /// Build, boot, update, break and fall back: the whole story in a few minutes
    Demo(demo::Args),
    /// Play scenarios
    Run(run::Args),
    /// Name the scenarios
    List(list::Args),
    /// Boot an image and talk to it
    Shell(shell::Args),
    /// Measure Roro beside other update tools, and write docs/performance.md (root; an hour or two)
    Bench(bench::Args),
    #[command(hide = true)]
    BenchStage(bench_stage::Args),
}

impl Cli {
    /// Does what was asked for.
    pub fn run(self) -> Result<ExitCode> {
        let done = match self.verb {
            Verb::Setup(args) => args.run(),
            Verb::Demo(args) => args.run(),
            Verb::Run(args) => args.run(),
            Verb::List(args) => args.run(),
            Verb::Shell(args) => args.run(),
            Verb::Bench(args) => args.run(),
            Verb::BenchStage(args) => return args.run(),
        };
        done.map(|()| ExitCode::SUCCESS)
    }
}
