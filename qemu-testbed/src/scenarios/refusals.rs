//! Bundles that must not get in.

use bank_format::Bank;

use super::beginnings;
use crate::{
    error::{Error, Result},
    release::Release,
    stage::Stage,
};

pub(super) fn tampered_bundle_is_refused_before_the_first_write(stage: &mut Stage) -> Result<()> {
    beginnings::first_boot(stage)?;
    let before = stage.passive_bank_on_disk()?;
    stage.power_on()?;
    stage.expect_refused(Release::TamperedManifest, &["signature"])?;
    let after = stage.passive_bank_on_disk()?;
    if before == after {
        stage.tell("bank B is as it was, byte for byte");
        return Ok(());
    }
    let what = "bank B after a refused bundle".to_owned();
    Err(Error::Unexpected { what, wanted: before.join(" "), seen: after.join(" ") })
}

pub(super) fn tampered_frame_is_never_activated(stage: &mut Stage) -> Result<()> {
    beginnings::first_boot(stage)?;
    stage.expect_refused(Release::TamperedFrame, &["frame"])?;
    stage.reboot()?;
    stage.expect_confirmed(Bank::A, "1.0.0")?;
    stage.install(Release::Good)?;
    stage.reboot()?;
    stage.expect_confirmed(Bank::B, "1.1.0")?;
    Ok(())
}

pub(super) fn wrong_key_is_refused(stage: &mut Stage) -> Result<()> {
    refused(stage, Release::ForeignKeys, "signature")
}

pub(super) fn wrong_compatible_is_refused(stage: &mut Stage) -> Result<()> {
    refused(stage, Release::OtherDevice, "this device is")
}

pub(super) fn below_the_floor_is_refused(stage: &mut Stage) -> Result<()> {
    refused(stage, Release::BelowFloor, "floor")
}

/// Refused for the reason named by `word`, and the device is as it was.
fn refused(stage: &mut Stage, release: Release, word: &str) -> Result<()> {
    beginnings::first_boot(stage)?;
    stage.expect_refused(release, &[word])?;
    stage.expect_confirmed(Bank::A, "1.0.0")?;
    Ok(())
}
