//! Plays a scenario: step by step, and for a cut once for every state that it can leave.

use std::{
    fs,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use bank_format::{Bank, record::Outcome};
use boot_hooks::scenarios::{self, Deed, Finder, HOPELESS_BOOTS, Image, Scenario, State, Step};

use super::{
    board::{self, Board},
    cuts,
    device::{self, Device},
    odd,
    page::Page,
    stage::{Quiet, Stage},
};
use crate::{
    error::{Error, Result},
    slots,
    workshop::Workshop,
};

/// Why a scenario cannot end as the table says; nothing where it can. It is played all the same, to its other end.
#[must_use]
pub fn cannot_be(scenario: &Scenario) -> Option<&'static str> {
    matches!(scenario.steps.last(), Some(Step::Expect(State::Recovers(Finder::Initrd)))).then_some(
        "the initrd has no word for U-Boot that starts the recovery command: it tries once more after 5 minutes",
    )
}

/// Plays it on a fresh board; gives the time on stage.
pub fn play(scenario: &Scenario) -> Result<Duration> {
    let more = if scenario.recovery { device::recovery_command() } else { String::new() };
    on_a_fresh_board(&format!("u-boot-{}", scenario.name), scenario.tries, &more, &[], |player| {
        for (number, step) in scenario.steps.iter().enumerate() {
            player.step(step).map_err(|error| player.told(scenario, number, step, &error))?;
        }
        Ok(())
    })
}

/// The boot script looks for its partition where there is none: a bank is started all the same, and nothing is written to the blocks
/// between the table and the first partition, where a boot ROM may have its loader.
pub fn play_without_its_partition() -> Result<Duration> {
    let wrong = [("roro_part_loader=2", "roro_part_loader=9")];
    on_a_fresh_board("u-boot-without-its-partition", 1, "", &wrong, |player| {
        agree("the board", &Quiet::Up(Bank::A), &player.stage.power_on()?)?;
        let outside = player.stage.before_the_first_partition()?;
        agree("bytes written to none's land", &None, &outside.iter().position(|byte| *byte != 0))
    })
}

/// Lets `deeds` happen on a fresh board, whose environment has more, and whose boot script has these lines in place of the page's.
fn on_a_fresh_board(
    name: &str,
    tries: u32,
    more_environment: &str,
    lines: &[(&str, &str)],
    deeds: impl FnOnce(&mut Player) -> Result<()>,
) -> Result<Duration> {
    let workshop = workshop()?;
    board::installed()?;
    let _run = slots::lock(&workshop.runs().join(format!("{name}.lock")))?;
    let _slot = slots::machine_slot(&workshop.runs(), name)?;
    let started = Instant::now();
    let folder = workshop.runs().join(name);
    if folder.exists() {
        fs::remove_dir_all(&folder).map_err(Error::io("remove the earlier run in", &folder))?;
    }
    fs::create_dir_all(&folder).map_err(Error::io("create", &folder))?;
    let mut page = Page::open(workshop.source())?;
    for (shown, wanted) in lines {
        page.settings = page.settings.replace(shown, wanted);
    }
    let agent = workshop.binaries().join("updater");
    let device = Device::factory(&folder, workshop.source(), &agent, &page, tries)?;
    let mut environment = page.board_environment;
    environment.push_str(more_environment);
    let board = Board::assemble(&folder, &device.disk(), &environment)?;
    let mut player = Player { stage: Stage::new(device, board), quiet: Quiet::Stopped };
    deeds(&mut player)?;
    fs::remove_dir_all(&folder).map_err(Error::io("remove the run in", &folder))?;
    Ok(started.elapsed())
}

/// Opened once: it builds the programs for the device.
fn workshop() -> Result<Workshop> {
    static OPEN: Mutex<Option<Workshop>> = Mutex::new(None);
    let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(workshop) = open.as_ref() {
        return Ok(workshop.clone());
    }
    let workshop = Workshop::open()?;
    *open = Some(workshop.clone());
    Ok(workshop)
}

struct Player {
    stage: Stage,
    quiet: Quiet,
}

impl Player {
    fn step(&mut self, step: &Step) -> Result<()> {
        match step {
            Step::PowerOn => self.quiet = self.stage.power_on()?,
            Step::PowerCut => self.stage.cut_power()?,
            Step::Install(image) => self.stage.install(*image)?,
            Step::Rollback => self.stage.roll_back()?,
            Step::Reboot => self.quiet = self.stage.reboot()?,
            Step::Damage(damage) => self.stage.damage(*damage)?,
            Step::QuietReboot => {
                self.quiet = self.stage.reboot()?;
                agree("starts after one reboot", &1, &self.stage.starts)?;
            }
            Step::CutDuring(deed, allowed) => self.cut_during(*deed, allowed)?,
            // See `cannot_be`.
            Step::Expect(State::Recovers(Finder::Initrd)) => self.holds(State::Stopped(Finder::Initrd))?,
            Step::Expect(state) => self.holds(*state)?,
        }
        Ok(())
    }

    fn cut_during(&mut self, deed: Deed, allowed: &[(scenarios::Moment, &[State])]) -> Result<()> {
        self.stage.begin_deed(deed)?;
        match deed {
            Deed::Arm => self.stage.install(Image::Good)?,
            Deed::Confirm | Deed::FallBack => self.quiet = self.stage.reboot()?,
        }
        let cuts = cuts::after_power_cuts(&self.stage.end_deed())?;
        if !cuts.iter().any(|cut| cut.words.contains("environment torn")) {
            return Err(odd("the power cuts of this deed", &"none tears the environment"));
        }
        for moment in deed.moments() {
            if !cuts.iter().any(|cut| cut.stretch == *moment) {
                return Err(odd("the power cuts of this deed", &format!("none is in {moment:?}")));
            }
        }
        for cuts::Cut { stretch, words, contents } in cuts {
            let states = allowed.iter().find(|(moment, _)| *moment == stretch).map(|(_, states)| *states);
            let states = states.ok_or_else(|| odd("the table's moments", &format!("{stretch:?} is none")))?;
            let words = format!("in {stretch:?}, {words}");
            let begins = self.stage.journal.len();
            self.stage.restore(&contents)?;
            self.start_twice(states).map_err(|error| self.cut(&words, begins, &error))?;
        }
        Ok(())
    }

    /// What was reached stays, whatever the loader still remembers of the interrupted deed.
    fn start_twice(&mut self, states: &[State]) -> Result<()> {
        self.quiet = self.stage.power_on()?;
        let reached = self.one_of(states)?;
        self.stage.cut_power()?;
        self.quiet = self.stage.power_on()?;
        self.holds(reached)
    }

    fn cut(&self, words: &str, begins: usize, error: &Error) -> Error {
        Error::Unexpected {
            what: format!("power cut {words}"),
            wanted: "one of the states of the table".to_owned(),
            seen: format!("{error}\n{}", lines(self.stage.journal.get(begins..).unwrap_or_default())),
        }
    }

    fn one_of(&mut self, states: &[State]) -> Result<State> {
        let mut all = String::new();
        for state in states {
            match self.holds(*state) {
                Ok(()) => return Ok(*state),
                Err(error) => all.push_str(&format!("{state:?}: {error}; ")),
            }
        }
        Err(odd("the state that was reached", &all))
    }

    fn holds(&mut self, state: State) -> Result<()> {
        match state {
            State::Runs { bank, last } => self.runs(bank, last),
            State::RanAfter { bank, tries } => {
                self.runs(bank, Some(Outcome::FellBack))?;
                let newest = self.stage.newest_minor();
                let tried = self.stage.kernel_starts.get(&newest).copied().unwrap_or_default();
                agree("starts of the release", &tries, &tried)
            }
            State::Stopped(Finder::Loader) => agree("the board", &Quiet::Stopped, &self.quiet),
            State::Stopped(Finder::Initrd) => {
                agree("the board", &Quiet::StoppedByInitrd, &self.quiet)?;
                // The last one is that which says so.
                agree("starts until the end", &(HOPELESS_BOOTS + 1), &self.stage.starts)
            }
            State::Recovers(Finder::Loader) => agree("the board", &Quiet::Recovers, &self.quiet),
            State::Recovers(Finder::Initrd) => Err(odd("this state", &"no such end with U-Boot")),
        }
    }

    fn runs(&mut self, bank: Bank, last: Option<Outcome>) -> Result<()> {
        agree("the board", &Quiet::Up(bank), &self.quiet)?;
        let status = self.stage.status()?;
        let at = |pointer: &str| status.pointer(pointer).cloned().unwrap_or_default();
        let outcome = serde_json::to_value(last).unwrap_or_default();
        agree("active bank", &bank.letter().into(), &at("/active"))?;
        agree("confirmed bank", &bank.letter().into(), &at("/confirmed"))?;
        agree("trial", &serde_json::Value::Null, &at("/trial"))?;
        agree("outcome of the last deed", &outcome, &at("/last_result/outcome"))
    }

    fn told(&self, scenario: &Scenario, number: usize, step: &Step, error: &Error) -> Error {
        Error::Unexpected {
            what: format!("{} with u-boot, step {number}, {step:?}", scenario.name),
            wanted: "what the table says".to_owned(),
            seen: format!("{error}\n{}", lines(&self.stage.journal)),
        }
    }
}

fn agree<T: PartialEq + std::fmt::Debug>(what: &str, wanted: &T, seen: &T) -> Result<()> {
    if wanted == seen {
        return Ok(());
    }
    let (wanted, seen) = (format!("{wanted:?}"), format!("{seen:?}"));
    Err(Error::Unexpected { what: what.to_owned(), wanted, seen })
}

fn lines(journal: &[String]) -> String {
    journal.iter().map(|line| format!("  - {line}\n")).collect()
}
