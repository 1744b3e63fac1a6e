//! `run`: plays the scenarios that are named, or all with all boot loaders.

use std::path::PathBuf;

use crate::{
    error::{Error, Result},
    matrix::{self, Begin, Cell, Column, Kept},
    printer, scenarios,
    stage::seconds,
    workshop::{self, Workshop},
};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Scenarios as named by `list`
    #[arg(value_name = "SCENARIO", required_unless_present = "all", conflicts_with = "all")]
    names: Vec<String>,
    /// Play them from the table of all boot loaders, with this one: efi, systemd-boot, grub-efi, grub-bios or u-boot
    #[arg(long, conflicts_with = "all")]
    loader: Option<Column>,
    /// Play every scenario with every boot loader, and show the matrix
    #[arg(long)]
    all: bool,
    /// Go on with a run of all that was interrupted; cells of other images or another testbed are played again
    #[arg(long, requires = "all")]
    r#continue: bool,
    /// Write the matrix into docs/boot.md
    #[arg(long, requires = "all")]
    write_docs: bool,
}

impl Args {
    pub(super) fn run(self) -> Result<()> {
        if !self.all {
            return self.named();
        }
        let begin = if self.r#continue { Begin::WhereItStopped } else { Begin::Anew };
        let kept = Kept::open(Workshop::open()?.cells()?, begin);
        let matrix = matrix::play_all(&kept);
        printer::say(matrix.text());
        if self.write_docs {
            let page: PathBuf = workshop::source_tree().join("docs/boot.md");
            matrix.write_into(&page)?;
            printer::say(format_args!("written into {}", page.display()));
        }
        match matrix.failed() {
            (0, _) => Ok(()),
            (failed, total) => Err(Error::ScenariosFailed { failed, total }),
        }
    }

    fn named(&self) -> Result<()> {
        let mut failed = 0_usize;
        for name in &self.names {
            printer::say(format_args!("--- {name}"));
            let cell = match self.loader {
                Some(column) => {
                    let scenario = boot_hooks::scenarios::by_name(name)
                        .ok_or_else(|| Error::NoScenario { name: name.clone() })?;
                    column.play(scenario)
                }
                None => Cell::of(scenarios::by_name(name)?.play()),
            };
            match cell {
                Cell::Passed(took) => printer::say(format_args!("--- {name} passed after {}", seconds(took))),
                Cell::CannotBe(why) => printer::say(format_args!("--- {name} cannot be: {why}")),
                Cell::Failed(error) => {
                    failed = failed.saturating_add(1);
                    printer::complain_of(&error);
                    printer::say(format_args!("--- {name} FAILED"));
                }
            }
        }
        match failed {
            0 => Ok(()),
            failed => Err(Error::ScenariosFailed { failed, total: self.names.len() }),
        }
    }
}
