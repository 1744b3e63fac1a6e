//! `updater health`.

use std::{sync::Arc, time::Duration};

use super::{Context, Exit};
use crate::{
    error::Result,
    gate::{Finding, Wait, Watch, examine, healthy},
    health::{
        look::Eye,
        plan,
        rounds::{Mode, Standing},
    },
    machine::ThisMachine,
    printer::{self, Format},
};

/// How often each check is looked at.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// As the gate does: until each check is healthy or its deadline is over, then until all have held for the soak time
    #[arg(long)]
    soak: bool,
}

/// What is printed at the end is all that there is to say.
struct Nobody;

impl Watch for Nobody {
    fn progress(&mut self, _: &[Finding], _: &str) {}
}

impl Args {
    /// Makes the checks now; nothing follows from them.
    pub fn run(self, context: &Context) -> Result<Exit> {
        let config = context.load()?;
        let eye = Arc::new(Eye::new(Arc::new(ThisMachine), &config));
        let mode = if self.soak { Mode::Until { soak: Duration::ZERO } } else { Mode::Once };
        let findings = examine(&eye, Ok(plan(&config)?), Wait::No, mode, &mut Nobody);
        for finding in &findings {
            match context.format {
                Format::Json => printer::object(finding),
                Format::Text => printer::data(&line(finding)),
            }
        }
        healthy(&findings)?;
        Ok(Exit::Done)
    }
}

/// For people: how it stands, what it is, why.
pub(super) fn line(finding: &Finding) -> String {
    let state = match finding.state {
        Standing::Healthy => "healthy",
        Standing::Failed => "failed",
        Standing::Waiting => "waiting",
    };
    let why = finding.why.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
    let seconds = finding.milliseconds / 1000;
    let tenths = finding.milliseconds % 1000 / 100;
    format!("{state:<8} {seconds:>4}.{tenths} s  {}{why}", finding.check)
}
