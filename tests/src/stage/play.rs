//! Plays a scenario: step by step, and for [`Step::CutDuring`] once for every state that a power cut can leave.

use bank_format::{Bank, loader::Kind, record::Outcome};
use boot_hooks::scenarios::{Deed, Finder, HOPELESS_BOOTS, Image, Moment, Scenario, State, Step};

use super::{Machine, Played, Quiet, exceptions};
use crate::loaders::Recovery;

/// What a scenario came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// States after a power cut that were played.
    pub cuts: usize,
}

/// Plays it on a fresh machine with this loader.
pub fn play(kind: Kind, scenario: &Scenario) -> Played<Tally> {
    let recovery = if scenario.recovery { Recovery::Configured } else { Recovery::Absent };
    let mut machine = Machine::factory(kind, scenario.tries, recovery)?;
    let mut player = Player { quiet: Quiet::Stopped, tally: Tally::default() };
    let exception = exceptions::of(kind, scenario.name);
    let mut damaged = false;
    for (number, step) in scenario.steps.iter().enumerate() {
        let told = |why: String, machine: &Machine| {
            let journal = machine.journal.join("\n    ");
            format!("{} with {kind}, step {number}, {step:?}: {why}\n    {journal}", scenario.name)
        };
        player.step(&mut machine, step).map_err(|why| told(why, &machine))?;
        damaged |= matches!(step, Step::Damage(_));
        let Some(exception) = exception.filter(|_| damaged && *step == Step::PowerOn) else { continue };
        return if player.quiet == exception.instead {
            Ok(player.tally)
        } else {
            let why = format!("it is {:?}, and the exception says {:?}", player.quiet, exception.instead);
            Err(told(why, &machine))
        };
    }
    match exception {
        Some(exception) => Err(format!("{exception:?} has no place in this scenario")),
        None => Ok(player.tally),
    }
}

struct Player {
    quiet: Quiet,
    tally: Tally,
}

impl Player {
    fn step(&mut self, machine: &mut Machine, step: &Step) -> Played<()> {
        match step {
            Step::PowerOn => self.quiet = machine.power_on()?,
            Step::PowerCut => machine.cut_power(),
            Step::Install(image) => machine.install(*image)?,
            Step::Rollback => machine.roll_back()?,
            Step::Reboot => self.quiet = machine.reboot()?,
            Step::Damage(damage) => machine.damage(*damage),
            Step::QuietReboot => {
                self.quiet = machine.reboot()?;
                if machine.starts != 1 {
                    return Err(format!("the loader started {} times after one reboot", machine.starts));
                }
            }
            Step::CutDuring(deed, allowed) => self.tally.cuts += cut_during(machine, *deed, allowed)?,
            Step::Expect(state) => holds(machine, self.quiet, *state)?,
        }
        Ok(())
    }
}

fn cut_during(machine: &mut Machine, deed: Deed, allowed: &[(Moment, &[State])]) -> Played<usize> {
    machine.storage().begin_log();
    machine.moments.clear();
    machine.moments.extend(deed.moments().first().map(|first| (*first, 0)));
    match deed {
        Deed::Arm => machine.install(Image::Good)?,
        Deed::Confirm | Deed::FallBack => {
            machine.reboot()?;
        }
    }
    let (moments, begins): (Vec<Moment>, Vec<usize>) = machine.moments.drain(..).unzip();
    if moments != deed.moments() {
        return Err(format!("the moments of this deed were {moments:?}"));
    }
    let cuts = machine.storage().after_power_cuts_of(&begins);
    let count = cuts.len();
    for (stretch, cut, contents) in cuts {
        let (moment, states) = allowed.get(stretch).ok_or("the table knows no such moment")?;
        let mut after = machine.with_contents(contents);
        let before = after.journal.len();
        let outcome = after.power_on().and_then(|quiet| {
            let found = one_of(&after, quiet, states)?;
            // What was reached stays, whatever the loader still remembers of the interrupted deed.
            after.cut_power();
            let again = after.power_on()?;
            holds(&after, again, found).map_err(|why| format!("at first {found:?}, then {why}"))
        });
        outcome.map_err(|why| {
            let journal = after.journal.get(before..).unwrap_or_default().join("\n    ");
            format!("power cut in {moment:?}, {cut}: {why}\n    {journal}")
        })?;
    }
    Ok(count)
}

fn one_of(machine: &Machine, quiet: Quiet, states: &[State]) -> Played<State> {
    let mut all = Vec::new();
    for state in states {
        match holds(machine, quiet, *state) {
            Ok(()) => return Ok(*state),
            Err(why) => all.push(why),
        }
    }
    Err(all.join("; "))
}

/// Whether this state holds.
pub fn holds(machine: &Machine, quiet: Quiet, state: State) -> Played<()> {
    match state {
        State::Runs { bank, last } => runs(machine, quiet, bank, last),
        State::RanAfter { bank, tries } => {
            runs(machine, quiet, bank, Some(Outcome::FellBack))?;
            let tried = machine.kernel_starts.get(&machine.newest_minor()).copied().unwrap_or_default();
            if tried == tries { Ok(()) } else { Err(format!("it was tried {tried} times, not {tries}")) }
        }
        State::Stopped(Finder::Loader) if quiet == Quiet::Stopped => Ok(()),
        State::Stopped(Finder::Initrd) if quiet == Quiet::StoppedByInitrd => hopeless_boots(machine, 1),
        State::Recovers(Finder::Loader) if quiet == Quiet::Recovers && !machine.asked_for_recovery => Ok(()),
        // The loader starts once more, for the recovery entry.
        State::Recovers(Finder::Initrd) if quiet == Quiet::Recovers && machine.asked_for_recovery => {
            hopeless_boots(machine, 2)
        }
        State::Stopped(_) | State::Recovers(_) => Err(format!("{state:?} was expected, it is {quiet:?}")),
    }
}

fn hopeless_boots(machine: &Machine, further: u32) -> Played<()> {
    let boots = machine.starts - further;
    if boots == HOPELESS_BOOTS {
        Ok(())
    } else {
        Err(format!("{boots} boots were tried before the end, not {HOPELESS_BOOTS}"))
    }
}

fn runs(machine: &Machine, quiet: Quiet, bank: Bank, last: Option<Outcome>) -> Played<()> {
    if quiet != Quiet::Up(bank) {
        return Err(format!("bank {bank} was expected, it is {quiet:?}"));
    }
    let status = machine.status()?;
    let outcome = status.last_result.as_ref().map(|last| last.outcome);
    let found = (status.active, status.confirmed, status.trial.is_some(), outcome);
    let expected = (bank, bank, false, last);
    if found == expected {
        Ok(())
    } else {
        Err(format!("active, confirmed, trial, last are {found:?}, not {expected:?}"))
    }
}
