//! What goes well.

use bank_format::Bank;

use crate::{error::Result, release::Release, stage::Stage};

pub(super) fn first_boot(stage: &mut Stage) -> Result<()> {
    stage.power_on()?;
    stage.expect_confirmed(Bank::A, "1.0.0")?;
    Ok(())
}

pub(super) fn good_update_confirmed(stage: &mut Stage) -> Result<()> {
    stage.power_on()?;
    stage.expect_confirmed(Bank::A, "1.0.0")?;
    stage.install(Release::Good)?;
    stage.reboot()?;
    stage.expect_confirmed(Bank::B, "1.1.0")?;
    stage.expect_news()?;
    stage.reboot()?;
    stage.expect_confirmed(Bank::B, "1.1.0")?;
    Ok(())
}

pub(super) fn rollback_on_request(stage: &mut Stage) -> Result<()> {
    stage.power_on()?;
    stage.expect_confirmed(Bank::A, "1.0.0")?;
    stage.install(Release::Good)?;
    stage.reboot()?;
    stage.expect_confirmed(Bank::B, "1.1.0")?;
    stage.rollback()?;
    stage.reboot()?;
    stage.expect_confirmed(Bank::A, "1.0.0")?;
    Ok(())
}
