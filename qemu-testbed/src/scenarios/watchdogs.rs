//! Watchdogs beside the one that the table is played with.

use bank_format::Bank;

use crate::{
    error::{Error, Result},
    hardware::Watchdog,
    release::Release,
    stage::Stage,
};

pub(super) fn hang_ends_by_the_chip_set(stage: &mut Stage) -> Result<()> {
    hang_ends(stage, Watchdog::Tco)?;
    if stage.machine.watchdog_bites()? == 0 {
        let (wanted, seen) = ("a bite of the watchdog".to_owned(), "none".to_owned());
        return Err(Error::Unexpected { what: "the end of the hang".to_owned(), wanted, seen });
    }
    Ok(())
}

pub(super) fn hang_ends_by_softdog(stage: &mut Stage) -> Result<()> {
    stage.machine.power_on()?;
    stage.expect_on_log("no hardware watchdog: softdog catches programs that hang")?;
    stage.expect_warning("software-watchdog")?;
    hang_ends(stage, Watchdog::None)?;
    // A timer of the kernel has done it, by a panic: its log is kept.
    stage.expect_evidence(&[("kernel", "Software Watchdog Timer expired")])
}

fn hang_ends(stage: &mut Stage, watchdog: Watchdog) -> Result<()> {
    stage.power_on()?;
    stage.expect_confirmed(Bank::A, "1.0.0")?;
    let driver = watchdog.driver().unwrap_or("softdog");
    let command = "read boot < /run/roro/boot.json; echo $boot";
    let boot = stage.machine.run(command)?.success(command)?;
    if !boot.to_lowercase().contains(&driver.to_lowercase()) {
        return Err(Error::Unexpected { what: command.to_owned(), wanted: driver.to_owned(), seen: boot });
    }
    stage.tell(&format!("the watchdog is {driver}"));
    stage.install(Release::HangingLate)?;
    stage.reboot()?;
    stage.expect_on_log("roro-testbed-hangs-late")?;
    stage.expect_fallback(Bank::A, "1.0.0", &[""])?;
    stage.expect_confirmed(Bank::A, "1.0.0")?;
    Ok(())
}
