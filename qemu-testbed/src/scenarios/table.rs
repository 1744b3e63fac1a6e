//! The table of `boot_hooks::scenarios`, played with whole systems under real boot loaders.
//!
//! Knows the table, its stage and what may rot. Promises that a step is played as the table means it, or fails: an image
//! that hangs must have been seen to hang and been ended by the watchdog, and a machine that resets more often than the rules
//! allow spins. Deliberately absent: what the loaders do; that is what is found out.

use std::time::Duration;

use bank_format::{Bank, PerBank, loader::Kind};
use boot_hooks::scenarios::{Finder, HOPELESS_BOOTS, Image, Scenario, State, Step};
use serde_json::Value;

use super::{beginnings, cuts};
use crate::{
    damage,
    error::{Error, Result},
    firmware::Firmware,
    fork::Fork,
    limits,
    loader::Loader,
    profile::{Profile, RECOVERY_SAYS, Recovery},
    release::Release,
    stage::{Setting, Stage},
    workshop::Workshop,
};

/// Why a scenario cannot exist with this boot loader; nothing where it can.
#[must_use]
pub fn cannot_be(_scenario: &Scenario, _loader: Loader) -> Option<&'static str> {
    None
}

/// Plays a scenario on a stage of its own; gives the time on stage.
pub fn play(scenario: &Scenario, loader: Loader) -> Result<Duration> {
    let usual = Setting::of(loader);
    let recovery = if scenario.recovery { Recovery::Present } else { Recovery::Absent };
    let profile = Profile { tries: scenario.tries, recovery, ..usual.profile };
    let workshop = Workshop::open()?;

    let stage = Stage::set(workshop, &format!("{}-{loader}", scenario.name), Setting { profile, ..usual })?;
    stage.tell(scenario.shows);
    let mut player = Player::new(stage, loader);
    let begun = beginnings::go_on(&mut player, scenario)?;
    for (done, step) in (1..).zip(scenario.steps).skip(begun) {
        player.step(*step)?;
        beginnings::keep(&mut player, scenario, done)?;
    }
    Ok(player.stage.elapsed())
}

/// One who plays.
#[derive(Debug)]
pub(super) struct Player {
    pub(super) stage: Stage,
    pub(super) loader: Loader,
    versions: PerBank<&'static str>,
    /// What was installed last, until it is known what became of it.
    on_trial: Option<Image>,
    /// What the machine was last sent off with.
    sent: Sent,
    /// Where the log stood, and how often the machine had been reset, when the machine was last sent off.
    sent_off: (usize, usize),
}

/// What a machine was sent off with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sent {
    /// It may reset as often as the rules allow.
    Freely,
    /// Nothing is armed: it resets once.
    Quietly,
}

impl Player {
    fn new(stage: Stage, loader: Loader) -> Self {
        Player {
            stage,
            loader,
            versions: factory_versions(),
            on_trial: None,
            sent: Sent::Freely,
            sent_off: (0, 0),
        }
    }

    /// Becomes a machine that runs, is quiet, and holds these versions.
    pub(super) fn go_on_as(&mut self, fork: &Fork, versions: PerBank<&'static str>) -> Result<()> {
        self.stage.machine.go_on_as(fork)?;
        self.versions = versions;
        Ok(())
    }

    fn step(&mut self, step: Step) -> Result<()> {
        match step {
            Step::PowerOn => self.power_on(),
            Step::PowerCut => self.stage.power_cut(),
            Step::Install(image) => self.install(image),
            Step::Rollback => {
                self.wait_until_quiet()?;
                self.stage.rollback()
            }
            Step::Reboot => self.reboot(Sent::Freely),
            Step::QuietReboot => {
                self.wait_until_quiet()?;
                self.reboot(Sent::Quietly)
            }
            Step::Damage(damage) => {
                damage::play(&mut self.stage.machine, self.loader.kind(), damage)?;
                self.stage.tell(&format!("while the machine is off: {damage:?} rots"));
                Ok(())
            }
            Step::CutDuring(deed, allowed) => cuts::play(self, deed, allowed),
            Step::Expect(state) => self.expect(&[state]).map(drop),
        }
    }

    fn reboot(&mut self, sent: Sent) -> Result<()> {
        self.sent = sent;
        self.sent_off = (self.stage.machine.log().mark(), self.stage.machine.resets()?);
        self.stage.reboot()
    }

    pub(super) fn kind(&self) -> Kind {
        self.loader.kind()
    }

    pub(super) fn power_on(&mut self) -> Result<()> {
        self.sent = Sent::Freely;
        self.sent_off = (self.stage.machine.log().mark(), 0);
        self.stage.machine.power_on()?;
        self.stage.tell("power on");
        Ok(())
    }

    /// A system is up and settled, and nothing is on trial.
    pub(super) fn wait_until_quiet(&mut self) -> Result<()> {
        self.stage.wait_for_status("a settled system with nothing on trial", |status| {
            status.get("trial").is_none_or(Value::is_null) && status.get("active") == status.get("confirmed")
        })?;
        Ok(())
    }

    pub(super) fn install(&mut self, image: Image) -> Result<()> {
        self.wait_until_quiet()?;
        let active = self.active()?;
        let release = release(image);
        self.stage.install(release)?;
        *self.versions.get_mut(!active) = release.version();
        self.on_trial = Some(image);
        Ok(())
    }

    /// The release is about to be written into the bank that does not run.
    pub(super) fn will_install(&mut self, image: Image) -> Result<Release> {
        let active = self.active()?;
        *self.versions.get_mut(!active) = release(image).version();
        Ok(release(image))
    }

    fn active(&mut self) -> Result<Bank> {
        let status = self.stage.status()?;
        status.get("active").and_then(Value::as_str).and_then(|bank| bank.parse().ok()).ok_or_else(|| {
            Error::Unexpected {
                what: "updater status".to_owned(),
                wanted: "the active bank".to_owned(),
                seen: status.to_string(),
            }
        })
    }

    /// Waits until one of the states holds, and gives it.
    pub(super) fn expect(&mut self, states: &[State]) -> Result<State> {
        let reached = match states {
            [end @ State::Stopped(finder)] => {
                let words = match finder {
                    Finder::Loader => stated_end(self.loader),
                    Finder::Initrd => &[INITRD_STOPS],
                };
                self.expect_end("the stated end", words)?;
                self.hopeless_boots(*finder)?;
                *end
            }
            [end @ State::Recovers(finder)] => {
                if *finder == Finder::Initrd {
                    self.expect_words(&[INITRD_RECOVERS])?;
                }
                self.expect_end("the recovery entry", &[RECOVERY_SAYS])?;
                self.hopeless_boots(*finder)?;
                *end
            }
            _ => self.expect_one_of(states)?,
        };
        let resets = self.resets_since_sent_off()?;
        if resets > limits::RESETS {
            return Err(unexpected("resets until the machine was quiet", limits::RESETS, resets));
        }
        if self.sent == Sent::Quietly && resets != 1 {
            return Err(unexpected("resets of a quiet machine that was rebooted", 1, resets));
        }
        Ok(reached)
    }

    /// Of the only bank there is, each as the initrd says before it goes on.
    fn hopeless_boots(&mut self, finder: Finder) -> Result<()> {
        let wanted = match finder {
            Finder::Loader => return Ok(()),
            Finder::Initrd => HOPELESS_BOOTS as usize,
        };
        let boots = self.stage.machine.log().count_since(self.sent_off.0, "roro: bank a of");
        if boots == wanted { Ok(()) } else { Err(unexpected("boots until the end", wanted, boots)) }
    }

    fn expect_one_of(&mut self, states: &[State]) -> Result<State> {
        let versions = self.versions;
        let wanted = states.iter().map(|state| describe(*state)).collect::<Vec<_>>().join(", or ");
        let status = self
            .stage
            .wait_for_status(&wanted, |status| states.iter().any(|state| holds(*state, status, versions)))?;
        self.stage.tell(&format!(
            "{} runs in bank {}; last result: {}",
            status.pointer("/release/version").unwrap_or(&Value::Null),
            status.get("active").unwrap_or(&Value::Null),
            status.get("last_result").unwrap_or(&Value::Null),
        ));
        let log = self.stage.machine.log();
        let seen = |words: &str| log.count_since(self.sent_off.0, words);
        if let [State::RanAfter { tries, .. }] = states {
            let panics = seen("Kernel panic - not syncing");
            if panics != usize::try_from(*tries).unwrap_or(usize::MAX) {
                return Err(unexpected("boots of the release that panics", tries, panics));
            }
        }
        let hang = match self.on_trial {
            Some(Image::HangsEarly) => "roro-testbed-hangs-early",
            Some(Image::HangsLate) => "roro-testbed-hangs-late",
            Some(Image::Panics) => "Kernel panic - not syncing",
            Some(Image::Good | Image::Unhealthy) | None => "",
        };
        if !hang.is_empty() && seen(hang) == 0 {
            return Err(unexpected("the serial log", hang, "nothing of it"));
        }
        if matches!(self.on_trial, Some(Image::HangsEarly | Image::HangsLate))
            && self.stage.machine.watchdog_bites()? == 0
        {
            return Err(unexpected("the end of the hang", "a bite of the watchdog", "none"));
        }
        self.on_trial = None;
        let reached = states.iter().copied().find(|state| holds(*state, &status, versions));
        reached.ok_or_else(|| unexpected("updater status", wanted, status))
    }

    /// SeaBIOS resets a machine that was reset once or twice more before it starts anything: there the starts are counted.
    fn resets_since_sent_off(&mut self) -> Result<usize> {
        let (mark, before) = self.sent_off;
        match self.loader.firmware() {
            Firmware::Uefi | Firmware::SecureUefi => Ok(self.stage.machine.resets()?.saturating_sub(before)),
            Firmware::Bios => Ok(self.stage.machine.log().count_since(mark, GRUB_STARTS)),
        }
    }

    fn expect_words<'w>(&mut self, words: &[&'w str]) -> Result<&'w str> {
        let machine = &mut self.stage.machine;
        let deadline = machine.deadline(limits::BOOT.saturating_mul(3));
        let seen = machine.log().expect_any(words, deadline)?;
        Ok(words.get(seen.which).copied().unwrap_or_default())
    }

    /// Waits for words on the serial line, and then that nothing spins.
    fn expect_end(&mut self, wanted: &str, words: &[&str]) -> Result<()> {
        let said = self.expect_words(words)?;
        let machine = &mut self.stage.machine;
        if !machine.stands_still(limits::STANDSTILL)? {
            return Err(unexpected(wanted, "a machine that stays as it is", "a reset"));
        }
        self.stage.tell(&format!("{wanted} was reached, and the machine stays there: {said}"));
        Ok(())
    }
}

/// How the initrd ends its message where there is no recovery entry, and where there is one. No loader says it like that.
const INITRD_STOPS: &str = "; trying once more in 5 minutes";
const INITRD_RECOVERS: &str = "; recovery starts in 10 s";

/// What the script for GRUB says before each kernel.
const GRUB_STARTS: &str = "Roro: starting bank ";

/// How each loader says that it has nothing to start.
fn stated_end(loader: Loader) -> &'static [&'static str] {
    match loader {
        // Nothing of ours runs there: OVMF says so, or goes on to what it has itself, its setup or its shell.
        Loader::Efi => &["No bootable option or device was found", "\"UiApp\"", "\"EFI Internal Shell\""],
        Loader::SystemdBoot => &["No loader found"],
        Loader::GrubEfi | Loader::GrubBios => &["no bank can be booted"],
    }
}

/// What the banks of a factory disk hold.
pub(super) fn factory_versions() -> PerBank<&'static str> {
    PerBank { a: Release::Factory.version(), b: "" }
}

/// The release that behaves so.
pub(super) fn release(image: Image) -> Release {
    match image {
        Image::Good => Release::Good,
        Image::Panics => Release::Panicking,
        Image::HangsEarly => Release::HangingEarly,
        Image::HangsLate => Release::HangingLate,
        Image::Unhealthy => Release::Unhealthy,
    }
}

fn holds(state: State, status: &Value, versions: PerBank<&str>) -> bool {
    let (bank, last) = match state {
        State::Runs { bank, last } => (bank, last),
        State::RanAfter { bank, .. } => (bank, Some(bank_format::record::Outcome::FellBack)),
        State::Stopped(_) | State::Recovers(_) => return false,
    };
    let is_bank = |key: &str| status.get(key).and_then(Value::as_str) == Some(bank.letter());
    let outcome = status.pointer("/last_result/outcome").unwrap_or(&Value::Null);
    is_bank("active")
        && is_bank("confirmed")
        && status.get("trial").is_none_or(Value::is_null)
        && status.pointer("/release/version").and_then(Value::as_str) == Some(*versions.get(bank))
        && serde_json::to_value(last).is_ok_and(|last| last == *outcome)
}

fn describe(state: State) -> String {
    match state {
        State::Runs { bank, last: None } => format!("bank {bank} as on the first day"),
        State::Runs { bank, last: Some(last) } => {
            format!("bank {bank} ({})", serde_json::to_value(last).unwrap_or_default())
        }
        State::RanAfter { bank, tries } => format!("bank {bank} after {tries} tries"),
        State::Stopped(_) => "the stated end".to_owned(),
        State::Recovers(_) => "the recovery entry".to_owned(),
    }
}

fn unexpected(what: &str, wanted: impl ToString, seen: impl ToString) -> Error {
    Error::Unexpected { what: what.to_owned(), wanted: wanted.to_string(), seen: seen.to_string() }
}
