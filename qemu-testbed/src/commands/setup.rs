//! `setup`: the Debian packages.

use crate::{error::Result, packages, printer};

#[derive(Debug, clap::Args)]
pub(super) struct Args {}

impl Args {
    pub(super) fn run(self) -> Result<()> {
        match packages::install_missing()? {
            0 => printer::say("nothing to install: everything that is needed is there"),
            count => printer::say(format_args!("installed {count} packages")),
        }
        Ok(())
    }
}
