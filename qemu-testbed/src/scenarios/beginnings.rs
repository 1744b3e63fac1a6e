//! Beginnings that scenarios share: what several of them begin with is played once in a process, and forked.
//!
//! A fork is the machine itself, memory included (`crate::fork`), so nothing is skipped: it has happened, once, to a machine like this
//! one. Knows the table. Deliberately absent: forks of moments at which a machine is not quiet.

use std::{fs, path::PathBuf, process};

use bank_format::{Bank, PerBank};
use boot_hooks::scenarios::{self, Scenario, State, Step};
use sha2::{Digest, Sha256};

use super::table::{self, Player};
use crate::{
    error::{Error, Result},
    fork::Fork,
    workshop::Workshop,
};

const PREFIX: &str = "forks-";

/// Puts the player behind the longest beginning that is known; gives the number of steps that are done.
pub(super) fn go_on(player: &mut Player, scenario: &Scenario) -> Result<usize> {
    for steps in (1..scenario.steps.len()).rev().filter(|steps| is_shared(scenario, *steps)) {
        if let Some(fork) = Fork::at(&folder(player, scenario, steps)) {
            let (_, versions) = after(scenario.steps.get(..steps).unwrap_or_default());
            player.go_on_as(&fork, versions)?;
            player.stage.tell(&format!("goes on from a fork, {steps} steps on"));
            return Ok(steps);
        }
    }
    Ok(0)
}

/// Forks the machine if others begin like this.
pub(super) fn keep(player: &mut Player, scenario: &Scenario, steps: usize) -> Result<()> {
    let folder = folder(player, scenario, steps);
    if !is_shared(scenario, steps) || folder.exists() {
        return Ok(());
    }
    player.wait_until_quiet()?;
    let parent = folder.parent().unwrap_or(&folder).to_owned();
    fs::create_dir_all(&parent).map_err(Error::io("create", &parent))?;
    player.stage.machine.fork(&folder)?;
    player.stage.tell(&format!("forked, {steps} steps on"));
    Ok(())
}

/// Removes what processes left that are gone.
pub(super) fn clean_up(workshop: &Workshop) -> Result<()> {
    let room = workshop.runs();
    for entry in fs::read_dir(&room).map_err(Error::io("list", &room))?.flatten() {
        let name = entry.file_name();
        let owner = name.to_string_lossy().strip_prefix(PREFIX).and_then(|owner| owner.parse::<u32>().ok());
        if owner.is_some_and(|owner| !PathBuf::from(format!("/proc/{owner}")).exists()) {
            fs::remove_dir_all(entry.path()).map_err(Error::io("remove", entry.path()))?;
        }
    }
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

fn folder(player: &Player, scenario: &Scenario, steps: usize) -> PathBuf {
    let beginning = scenario.steps.get(..steps).unwrap_or_default();
    let text = format!("{:?} {} {} {beginning:?}", player.loader, scenario.tries, scenario.recovery);
    let word: String = hex::encode(Sha256::digest(text.as_bytes())).chars().take(12).collect();
    player.stage.runs().join(format!("{PREFIX}{}", process::id())).join(word)
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
            | Step::Damage(_)
            | Step::CutDuring(..)
            | Step::Expect(State::RanAfter { .. } | State::Stopped | State::Recovers) => {}
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
