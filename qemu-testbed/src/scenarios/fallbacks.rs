//! Releases that were installed and must not stay.

use bank_format::Bank;

use super::beginnings;
use crate::{disk, error::Result, release::Release, stage::Stage};

pub(super) fn unhealthy_update_falls_back(stage: &mut Stage) -> Result<()> {
    beginnings::first_boot(stage)?;
    stage.install(Release::Unhealthy)?;
    stage.reboot()?;
    stage.expect_fallback(Bank::A, "1.0.0", &["kiosk answers"])?;
    let findings =
        [("reason", "kiosk answers"), ("checks", "nobody answers at the kiosk"), ("journal", "roro")];
    stage.expect_evidence(&findings)?;
    stage.expect_confirmed(Bank::A, "1.0.0")?;
    Ok(())
}

pub(super) fn kernel_that_panics_falls_back(stage: &mut Stage) -> Result<()> {
    beginnings::first_boot(stage)?;
    stage.install(Release::Panicking)?;
    stage.reboot()?;
    stage.expect_on_log("Kernel panic - not syncing")?;
    // Nothing of the new bank ever ran far enough to leave a better reason.
    stage.expect_fallback(Bank::A, "1.0.0", &["trial"])?;
    stage.expect_confirmed(Bank::A, "1.0.0")?;
    Ok(())
}

pub(super) fn last_words_of_a_panic_are_kept(stage: &mut Stage) -> Result<()> {
    beginnings::first_boot(stage)?;
    stage.install(Release::PanickingLate)?;
    stage.reboot()?;
    stage.expect_on_log("Kernel panic - not syncing: sysrq triggered crash")?;
    stage.expect_fallback(Bank::A, "1.0.0", &[""])?;
    let words = [("kernel", "roro-testbed-panics-late"), ("kernel", "sysrq triggered crash")];
    stage.expect_evidence(&words)?;
    stage.expect_confirmed(Bank::A, "1.0.0")?;
    let left = stage.machine.run("echo /sys/fs/pstore/*")?.success("looking into pstore")?;
    if left.trim() != "/sys/fs/pstore/*" {
        return Err(crate::error::Error::Unexpected {
            what: "the firmware's store of last words".to_owned(),
            wanted: "nothing".to_owned(),
            seen: left,
        });
    }
    Ok(())
}

pub(super) fn flipped_bit_in_root_falls_back(stage: &mut Stage) -> Result<()> {
    beginnings::first_boot(stage)?;
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
