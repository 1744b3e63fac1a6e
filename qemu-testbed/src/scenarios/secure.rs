//! Secure Boot: firmware that starts only what is signed.

use bank_format::Bank;

use super::beginnings;
use crate::{
    damage, disk,
    error::Result,
    profile::{Profile, Signed},
    release::Release,
    stage::Stage,
};

/// How OVMF says that it does not start an image.
const REFUSED: &str = "Access Denied";
/// The firmware entry that starts systemd-boot when the first one has returned.
const SECOND_TRY: &str = "\"Roro (second try)\"";

pub(super) fn signed_system_boots_and_updates(stage: &mut Stage) -> Result<()> {
    begin(stage)?;
    stage.install(Release::Good)?;
    stage.reboot()?;
    stage.expect_confirmed(Bank::B, "1.1.0")?;
    Ok(())
}

pub(super) fn unsigned_kernel_image_is_refused_by_firmware(stage: &mut Stage) -> Result<()> {
    begin(stage)?;
    let unsigned = Profile { signed: Signed::No, ..stage.setting().profile };
    stage.install_built_for(Release::Good, unsigned)?;
    stage.reboot()?;
    stage.expect_on_log(REFUSED)?;
    stage.expect_fallback(Bank::A, "1.0.0", &[""])?;
    stage.expect_confirmed(Bank::A, "1.0.0")?;
    Ok(())
}

/// systemd-boot returns to the firmware, tries no other entry and does not reset: the firmware's second entry starts it again.
pub(super) fn unsigned_kernel_image_under_systemd_boot_falls_back(stage: &mut Stage) -> Result<()> {
    begin(stage)?;
    let unsigned = Profile { signed: Signed::No, ..stage.setting().profile };
    stage.install_built_for(Release::Good, unsigned)?;
    stage.reboot()?;
    stage.expect_on_log(REFUSED)?;
    stage.expect_on_log(SECOND_TRY)?;
    stage.expect_fallback(Bank::A, "1.0.0", &[""])?;
    stage.expect_confirmed(Bank::A, "1.0.0")?;
    Ok(())
}

pub(super) fn altered_kernel_image_is_refused_by_firmware(stage: &mut Stage) -> Result<()> {
    begin(stage)?;
    stage.install(Release::Good)?;
    stage.reboot()?;
    stage.machine.power_off()?;
    let image = damage::boot_image(&stage.machine, stage.setting().profile.kind, Bank::B)?;
    disk::flip_bit(&stage.machine.disk(), image.offset.saturating_add(image.bytes / 4))?;
    stage.tell("one bit of the signed kernel image is flipped");
    stage.machine.power_on()?;
    stage.expect_on_log(REFUSED)?;
    stage.expect_fallback(Bank::A, "1.0.0", &[""])?;
    stage.expect_confirmed(Bank::A, "1.0.0")?;
    Ok(())
}

/// The kernel itself says that the firmware has checked it.
fn begin(stage: &mut Stage) -> Result<()> {
    beginnings::first_boot(stage)?;
    let command = "read state < /sys/kernel/security/lockdown; echo $state";
    let state = stage.machine.run(command)?.success(command)?;
    if !state.contains("[integrity]") && !state.contains("[confidentiality]") {
        return Err(crate::error::Error::Unexpected {
            what: command.to_owned(),
            wanted: "a kernel that is locked down".to_owned(),
            seen: state,
        });
    }
    stage.tell(&format!("the kernel is locked down: {}", state.trim()));
    Ok(())
}
