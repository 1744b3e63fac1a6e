//! Beginnings that scenarios share: what several of them begin with is played once in a process, and forked.
//!
//! A fork is the machine itself, memory included (`crate::fork`), so nothing is skipped: it has happened, once, to a machine like this
//! one. Knows the table. Deliberately absent: forks of moments at which a machine is not quiet.

use std::{
    fs,
    path::{Path, PathBuf},
};

use bank_format::{Bank, PerBank};
use boot_hooks::scenarios::{self, Scenario, State, Step};
use sha2::{Digest, Sha256};

use super::table::{self, Player};
use crate::{
    error::{Error, Result},
    fork::{self, Fork},
    release::Release,
    stage::Stage,
};

/// A factory machine has booted for the first time, and is confirmed on bank A.
pub(super) fn first_boot(stage: &mut Stage) -> Result<()> {
    let folder = folder(stage, &[Step::PowerOn]);
    if let Some(fork) = Fork::at(&folder) {
        stage.machine.go_on_as(&fork)?;
        stage.tell("goes on from a fork of the first boot");
        return Ok(());
    }
    stage.power_on()?;
    stage.expect_confirmed(Bank::A, Release::Factory.version())?;
    keep_fork(stage, &folder)
}

/// Puts the player behind the longest beginning that is known; gives the number of steps that are done.
pub(super) fn go_on(player: &mut Player, scenario: &Scenario) -> Result<usize> {
    for steps in (1..scenario.steps.len()).rev().filter(|steps| is_shared(scenario, *steps)) {
        let beginning = scenario.steps.get(..steps).unwrap_or_default();
        if let Some(fork) = Fork::at(&folder(&player.stage, beginning)) {
            let (_, versions) = after(beginning);
            player.go_on_as(&fork, versions)?;
            player.stage.tell(&format!("goes on from a fork, {steps} steps on"));
            return Ok(steps);
        }
    }
    Ok(0)
}

/// Forks the machine if others begin like this.
pub(super) fn keep(player: &mut Player, scenario: &Scenario, steps: usize) -> Result<()> {
    if !is_shared(scenario, steps) {
        return Ok(());
    }
    player.wait_until_quiet()?;
    let folder = folder(&player.stage, scenario.steps.get(..steps).unwrap_or_default());
    keep_fork(&mut player.stage, &folder)
}

fn keep_fork(stage: &mut Stage, folder: &Path) -> Result<()> {
    // Whoever plays the same beginning at the same time may have been quicker.
    if folder.exists() {
        return Ok(());
    }
    let room = folder.parent().unwrap_or(folder);
    fs::create_dir_all(room).map_err(Error::io("create", room))?;
    stage.machine.fork(folder)?;
    stage.tell("forked, for those who begin like this");
    Ok(())
}

/// Whether several scenarios begin so, and the machine runs and is quiet then.
fn is_shared(scenario: &Scenario, steps: usize) -> bool {
    let beginning = scenario.steps.get(..steps).unwrap_or_default();
    let quiet = matches!(beginning, [Step::PowerOn] | [.., Step::Expect(State::Runs { .. })]);
    let alike = |other: &&Scenario| {
        other.tries == scenario.tries
            && other.recovery == scenario.recovery
            && other.steps.len() > steps
            && other.steps.starts_with(beginning)
    };
    quiet && scenarios::ALL.iter().filter(alike).count() > 1
}

/// Where the fork of a machine lies that was put together like this one, and has come so far.
fn folder(stage: &Stage, beginning: &[Step]) -> PathBuf {
    let text = format!("{:?} {beginning:?}", stage.setting());
    let word: String = hex::encode(Sha256::digest(text.as_bytes())).chars().take(12).collect();
    fork::room(&stage.runs()).join(word)
}

/// Which bank runs after these steps, and which versions the banks hold.
fn after(steps: &[Step]) -> (Bank, PerBank<&'static str>) {
    let mut state = (Bank::A, table::factory_versions());
    for step in steps {
        match step {
            Step::Install(image) => *state.1.get_mut(!state.0) = table::release(*image).version(),
            Step::Expect(State::Runs { bank, .. }) => state.0 = *bank,
            Step::PowerOn
            | Step::PowerCut
            | Step::Rollback
            | Step::Reboot
            | Step::QuietReboot
            | Step::Damage(_)
            | Step::CutDuring(..)
            | Step::Expect(State::RanAfter { .. } | State::Stopped(_) | State::Recovers(_)) => {}
        }
    }
    state
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_shares_its_first_boot_and_its_good_trial() {
        let named = |name| scenarios::by_name(name).unwrap();
        assert!(is_shared(named("trial_panics"), 1));
        assert!(is_shared(named("late_root_rot"), 4));
        assert!(!is_shared(named("late_root_rot"), 5), "it is off then");
        assert!(!is_shared(named("tries_are_used_up"), 1), "nobody else has three tries");
    }

    #[test]
    fn what_the_banks_hold_follows_from_the_steps() {
        let steps = scenarios::by_name("late_root_rot").unwrap().steps;
        let (active, versions) = after(&steps[..4]);
        assert_eq!(active, Bank::B);
        assert_eq!((versions.a, versions.b), ("1.0.0", "1.1.0"));
    }
}
