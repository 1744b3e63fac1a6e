//! Releases that were installed and must not stay.

use bank_format::Bank;

use crate::{disk, error::Result, release::Release, stage::Stage};

pub(super) fn unhealthy_update_falls_back(stage: &mut Stage) -> Result<()> {
    stage.power_on()?;
    stage.expect_confirmed(Bank::A, "1.0.0")?;
    stage.install(Release::Unhealthy)?;
    stage.reboot()?;
    stage.expect_fallback(Bank::A, "1.0.0", &["kiosk answers"])?;
    stage.expect_evidence()?;
    stage.expect_confirmed(Bank::A, "1.0.0")?;
    Ok(())
}

pub(super) fn kernel_that_panics_falls_back(stage: &mut Stage) -> Result<()> {
    stage.power_on()?;
    stage.expect_confirmed(Bank::A, "1.0.0")?;
    stage.install(Release::Panicking)?;
    stage.reboot()?;
    stage.expect_on_log("Kernel panic - not syncing")?;
    // Nothing of the new bank ever ran far enough to leave a better reason.
    stage.expect_fallback(Bank::A, "1.0.0", &["trial"])?;
    stage.expect_confirmed(Bank::A, "1.0.0")?;
    Ok(())
}

pub(super) fn flipped_bit_in_root_falls_back(stage: &mut Stage) -> Result<()> {
    stage.power_on()?;
    stage.expect_confirmed(Bank::A, "1.0.0")?;
    stage.install(Release::Good)?;
    stage.reboot()?;
    stage.machine.power_off()?;
    let root = disk::partition(&stage.machine.disk(), "root-b")?;
    disk::flip_bit(&stage.machine.disk(), root.offset.saturating_add(5_000_003))?;
    stage.tell("one bit of bank B's root image is flipped while the machine is off");
    stage.power_on()?;
    stage.expect_fallback(Bank::A, "1.0.0", &["root", "verity"])?;
    stage.expect_confirmed(Bank::A, "1.0.0")?;
    Ok(())
}
