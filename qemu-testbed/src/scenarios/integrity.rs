//! Rot that is found while the system runs.

use bank_format::Bank;

use super::beginnings;
use crate::{
    disk,
    error::{Error, Result},
    limits,
    release::Release,
    stage::Stage,
};

/// A block of a program that the running system has no need to read.
const BLOCK_BYTES: u64 = 4096;

pub(super) fn rot_under_a_running_system_restarts_into_the_other_bank(stage: &mut Stage) -> Result<()> {
    beginnings::first_boot(stage)?;
    stage.install(Release::Good)?;
    stage.reboot()?;
    stage.expect_confirmed(Bank::B, "1.1.0")?;

    let program = stage.programs().join("updater");
    let bytes = std::fs::metadata(&program).map_err(Error::io("look at", &program))?.len();
    let middle = (bytes / 2).next_multiple_of(BLOCK_BYTES);
    let block = disk::read(&program, disk::Extent { offset: middle, bytes: BLOCK_BYTES })?;
    let disk_file = stage.machine.disk();
    let root = disk::partition(&disk_file, "root-b")?;
    let at = disk::find(&disk_file, root, |window| window == block, block.len())?;
    disk::flip_bit(&disk_file, at.saturating_add(1234))?;
    stage.tell("one bit of the running root image is flipped, in the middle of /usr/bin/updater");

    // Loading it as a kernel module reads all of it; the kernel would then say that it is none.
    let command = "echo 3 > /proc/sys/vm/drop_caches; insmod /usr/bin/updater";
    match stage.machine.run(command) {
        Err(Error::GuestRestarted { .. }) => {}
        Err(error) => return Err(error),
        Ok(output) => {
            let wanted = "a restart before wrong data is served".to_owned();
            return Err(Error::Unexpected { what: command.to_owned(), wanted, seen: output.text });
        }
    }
    stage.tell("reading it has restarted the machine");
    stage.wait_for_status("bank A, because bank B is lost", |status| {
        status.get("active").is_some_and(|bank| bank == "a")
            && status.pointer("/last_result/outcome").is_some_and(|outcome| outcome == "bank-lost")
    })?;
    stage.expect_confirmed(Bank::A, "1.0.0")?;
    Ok(())
}

pub(super) fn audit_finds_a_flipped_bit(stage: &mut Stage) -> Result<()> {
    beginnings::first_boot(stage)?;
    stage.install(Release::Good)?;
    stage.expect_audit("as-installed", 0)?;
    let disk_file = stage.machine.disk();
    let root = disk::partition(&disk_file, "root-b")?;
    disk::flip_bit(&disk_file, root.offset.saturating_add(5_000_003))?;
    stage.tell("one bit of the other bank's root image is flipped");
    let command = "echo 3 > /proc/sys/vm/drop_caches";
    stage.machine.run_within(command, limits::COMMAND)?.success(command)?;
    stage.expect_audit("differs", 4)
}
