//! The plug is pulled.

use bank_format::Bank;

use super::beginnings;
use crate::{error::Result, release::Release, stage::Stage};

pub(super) fn power_cut_during_write_then_same_command_finishes(stage: &mut Stage) -> Result<()> {
    beginnings::first_boot(stage)?;
    stage.half_install(Release::Good)?;
    stage.power_cut()?;
    stage.power_on()?;
    stage.expect_confirmed(Bank::A, "1.0.0")?;
    stage.expect_interrupted("1.1.0")?;
    stage.install(Release::Good)?;
    stage.reboot()?;
    stage.expect_confirmed(Bank::B, "1.1.0")?;
    Ok(())
}
