//! Power cuts while the boot record changes, with whole systems.
//!
//! A machine can be cut at any moment of its own, but not at each write: that is done on simulated storage (`tests`). Here the deed
//! is cut where the machine itself says that it begins, goes on or is done; and, from outside, the last write to the loader's
//! state is taken back, or torn between two sectors. What is reached after a cut must still be there when power comes once more.

use boot_hooks::scenarios::{Deed, Image, Moment, State};

use super::table::Player;
use crate::{
    damage, disk,
    error::{Error, Result},
    limits,
    machine::Kept,
};
use bank_format::loader::Kind;

const SECTOR_BYTES: usize = 512;

/// What the table allows after a cut at each moment.
type Allowed = &'static [(Moment, &'static [State])];

/// What one can see from outside.
#[derive(Debug, Clone, Copy)]
enum Sign {
    /// Words on the serial line.
    Said(&'static str),
    /// The machine resets.
    Reset,
}

/// Plays the deed again and again; after each cut one of the states that its moment allows holds, and stays.
///
/// Nothing is cut in [`Moment::Deciding`]: it lasts a few writes, and the gate says nothing between the first and the last of them.
/// Each of these writes is cut in `tests`, and with U-Boot.
pub(super) fn play(player: &mut Player, deed: Deed, allowed: Allowed) -> Result<()> {
    match deed {
        Deed::Arm => arm(player, allowed),
        Deed::Confirm => {
            let signs = [
                (Moment::Starting, Sign::Said(INITRD_BEGINS)),
                (Moment::Judging, Sign::Said("roro: bank b of")),
                (Moment::Judging, Sign::Said("on-trial: ")),
                (Moment::Decided, Sign::Said("healthy: confirmed")),
            ];
            after_the_reset(player, &signs, allowed)
        }
        Deed::FallBack => {
            let signs = [
                (Moment::Starting, Sign::Said(INITRD_BEGINS)),
                (Moment::Judging, Sign::Said("on-trial: ")),
                (Moment::Decided, Sign::Said("not healthy: ")),
                (Moment::Decided, Sign::Reset),
                (Moment::Decided, Sign::Said("roro: bank a of")),
            ];
            after_the_reset(player, &signs, allowed)
        }
    }
}

/// What the initrd says before it counts.
const INITRD_BEGINS: &str = "roro: initrd ";

/// What the table allows after a cut at this moment.
fn states(allowed: Allowed, moment: Moment) -> Result<&'static [State]> {
    let states = allowed.iter().find(|(other, _)| *other == moment).map(|(_, states)| *states);
    states.ok_or_else(|| Error::Unexpected {
        what: "the table".to_owned(),
        wanted: format!("states after a cut in {moment:?}"),
        seen: format!("{allowed:?}"),
    })
}

fn arm(player: &mut Player, allowed: Allowed) -> Result<()> {
    player.wait_until_quiet()?;
    let before = player.stage.machine.keep("before")?;
    let release = player.will_install(Image::Good)?;
    player.stage.install(release)?;
    player.stage.power_cut()?;
    player.stage.tell("cut after the last write");
    let armed = player.stage.machine.keep("armed")?;
    goes_on(player, states(allowed, Moment::Armed)?)?;

    player.stage.machine.put_back(&armed)?;
    take_back_the_last_write(player, &before, &armed)?;
    player.stage.tell("cut before the last write to the loader's state");
    goes_on(player, states(allowed, Moment::Arming)?)?;

    for sectors in 1..torn_sectors(player, &before, &armed)? {
        player.stage.machine.put_back(&armed)?;
        tear_the_last_write(player, &before, sectors)?;
        player.stage.tell(&format!("the last write is torn after {sectors} of its sectors"));
        goes_on(player, states(allowed, Moment::Arming)?)?;
    }

    player.stage.machine.put_back(&before)?;
    player.power_on()?;
    player.wait_until_quiet()?;
    player.stage.begin_install(release)?;
    player.stage.wait_on_console("\"read-back\"", limits::INSTALL)?;
    player.stage.power_cut()?;
    player.stage.tell("cut while the bank is read back");
    goes_on(player, states(allowed, Moment::Writing)?)
}

fn after_the_reset(player: &mut Player, signs: &[(Moment, Sign)], allowed: Allowed) -> Result<()> {
    player.stage.reboot()?;
    player.stage.machine.power_off()?;
    let base = player.stage.machine.keep("armed")?;
    for (moment, sign) in signs {
        player.stage.machine.put_back(&base)?;
        player.power_on()?;
        match sign {
            Sign::Said(words) => player.stage.expect_on_log(words)?,
            Sign::Reset => player.stage.machine.wait_for_reset(limits::BOOT.saturating_mul(2))?,
        }
        player.stage.power_cut()?;
        player.stage.tell(&format!("cut in {moment:?}, at {sign:?}"));
        goes_on(player, states(allowed, *moment)?)?;
    }
    Ok(())
}

/// Power comes again, and one of the states holds; it comes once more, and the same one holds. Then the machine is off.
fn goes_on(player: &mut Player, states: &[State]) -> Result<()> {
    player.power_on()?;
    let reached = player.expect(states)?;
    player.stage.power_cut()?;
    player.power_on()?;
    player.expect(&[reached])?;
    player.stage.power_cut()
}

fn take_back_the_last_write(player: &mut Player, before: &Kept, _armed: &Kept) -> Result<()> {
    match player.kind() {
        Kind::Grub => tear_the_last_write(player, before, 0),
        Kind::Efi | Kind::SystemdBoot | Kind::UBoot | Kind::Tryboot | Kind::Script => {
            player.stage.machine.put_variables_back(before)
        }
    }
}

/// How many sectors the last write to the loader's state has; one where it cannot be torn.
fn torn_sectors(player: &Player, before: &Kept, armed: &Kept) -> Result<usize> {
    match player.kind() {
        Kind::Grub => {
            let mut changed = 1;
            for copy in damage::grub_copies(&player.stage.machine)? {
                let (old, new) = (disk::read(&before.disk, copy)?, disk::read(&armed.disk, copy)?);
                if old != new {
                    changed = new.len().div_ceil(SECTOR_BYTES);
                }
            }
            Ok(changed)
        }
        // A variable is written whole or not at all: that is the firmware's promise, and its own journal keeps it.
        Kind::Efi | Kind::SystemdBoot | Kind::UBoot | Kind::Tryboot | Kind::Script => Ok(1),
    }
}

/// Of the newest copy of GRUB's state only the first `sectors` sectors were written.
fn tear_the_last_write(player: &Player, before: &Kept, sectors: usize) -> Result<()> {
    let disk = player.stage.machine.disk();
    let newest = damage::newer_grub_copy(&player.stage.machine)?;
    let kept = sectors.saturating_mul(SECTOR_BYTES);
    let old = disk::read(&before.disk, newest)?;
    let at = newest.offset.saturating_add(kept as u64);
    disk::write(&disk, at, old.get(kept..).unwrap_or_default())
}
