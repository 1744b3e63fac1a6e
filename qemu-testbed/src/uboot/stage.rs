//! The machine of the table: the board with its U-Boot, the initrd's part, and the agent on its device.
//!
//! What is real: U-Boot and its script, the environment, kernels that start and die, the watchdog; the initrd's ledger, its check
//! of the root image and its redirect; the agent, with its health gate. What is played: the kernel's hand-over to the initrd
//! and the units that start the agent. A kernel of a system that runs switches the board off; what its system does happens here.

use std::{collections::BTreeMap, fs::File};

use bank_format::{
    Bank,
    loader::{Loader as _, Recovery},
};
use boot_hooks::{
    cmdline::{self, CommandLine},
    ledger::{Going, Ledger, Redirect, Ruling},
    scenarios::{
        self, Damage, Deed, Image,
        Moment::{Armed, Arming, Decided, Deciding, Judging, Starting},
    },
};

use super::{
    board::Board,
    cuts::{Moment, Wrote},
    damage,
    device::{Contents, Device, Ended},
    images::{self, Release},
    odd,
    payload::GREETING,
};
use crate::{
    error::{Error, Result},
    limits,
};

/// What the script says when nothing can be started.
const NOTHING_BOOTS: &str = "no bank can be booted";
/// What U-Boot says first.
const UBOOT_STARTS: &str = "U-Boot 20";
/// What the recovery kernel calls itself.
const RECOVERY: &str = "recovery";

/// How a machine is when it is quiet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quiet {
    /// A system is up, settled and judged.
    Up(Bank),
    /// U-Boot has nothing to start, and says so.
    Stopped,
    /// The initrd found that nothing boots.
    StoppedByInitrd,
    /// The recovery system was started.
    Recovers,
}

/// How a boot ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Up(Bank),
    /// The system resets the machine.
    Resets,
    /// The kernel died or hangs: the machine is left alone until something resets it.
    Dead,
    Stopped,
}

/// A kernel that has said its word.
#[derive(Debug)]
struct Started {
    release: Release,
    line: CommandLine,
    bank: Bank,
}

/// The machine.
pub struct Stage {
    device: Device,
    board: Board,
    /// Boots since the factory; names each.
    boots: u32,
    newest_minor: u64,
    /// How often the kernel of a release (its minor version) was started.
    pub kernel_starts: BTreeMap<u64, u32>,
    /// How often a kernel of a bank was started since power came, or since the last reboot.
    pub starts: u32,
    /// What happened, for a person who reads why a test failed.
    pub journal: Vec<String>,
    moments: Vec<Moment>,
}

impl Stage {
    /// A device and its board, off.
    #[must_use]
    pub fn new(device: Device, board: Board) -> Self {
        Self {
            device,
            board,
            boots: 0,
            newest_minor: 0,
            kernel_starts: BTreeMap::new(),
            starts: 0,
            journal: Vec::new(),
            moments: Vec::new(),
        }
    }

    /// The number of the newest release that was installed.
    #[must_use]
    pub fn newest_minor(&self) -> u64 {
        self.newest_minor
    }

    fn note(&mut self, words: impl Into<String>) {
        self.journal.push(words.into());
    }

    /// A moment at which the power may go.
    fn moment(&mut self, words: &str, wrote: Wrote, stretches: [scenarios::Moment; 2]) -> Result<()> {
        self.note(words);
        let contents = self.device.contents()?;
        self.moments.push(Moment { words: words.to_owned(), wrote, stretches, contents });
        Ok(())
    }

    /// Forgets the moments so far, but for the present.
    pub fn begin_deed(&mut self, deed: Deed) -> Result<()> {
        self.moments.clear();
        let first = deed.moments().first().copied().unwrap_or(Starting);
        self.moment("the deed begins", Wrote::Nothing, [first; 2])
    }

    /// The moments since the deed began.
    pub fn end_deed(&mut self) -> Vec<Moment> {
        std::mem::take(&mut self.moments)
    }

    /// The plug is pulled, and what was written stays.
    pub fn cut_power(&mut self) -> Result<()> {
        self.note("power cut");
        self.board.power_cut()
    }

    /// The machine, off, with these contents.
    pub fn restore(&mut self, contents: &Contents) -> Result<()> {
        self.board.power_cut()?;
        self.device.restore(contents)
    }

    /// What stands on the disk between its table and the first partition.
    pub fn before_the_first_partition(&self) -> Result<Vec<u8>> {
        self.device.before_the_first_partition()
    }

    /// Something rots. The machine must be off.
    pub fn damage(&mut self, what: Damage) -> Result<()> {
        self.note(format!("damage: {what:?}"));
        let mut contents = self.device.contents()?;
        damage::wound(&mut contents, what)?;
        self.device.restore(&contents)
    }

    /// Runs until it is quiet.
    pub fn power_on(&mut self) -> Result<Quiet> {
        self.starts = 0;
        for _ in 0..limits::BOARD_STARTS {
            if !self.board.is_on() {
                self.board.power_cut()?;
                self.device.seat()?;
                self.board.power_on()?;
            }
            let seen = self.board.wait_for(&[GREETING, NOTHING_BOOTS], limits::BOARD_BOOT)?;
            if seen.which == 1 {
                return self.nothing_boots();
            }
            let word = self.board.wait_for(&["\n"], limits::BOARD_BOOT)?.before;
            match self.boot(word.trim())? {
                Some(End::Up(bank)) => {
                    self.board.power_cut()?;
                    return Ok(Quiet::Up(bank));
                }
                Some(End::Resets) => self.board.power_cut()?,
                Some(End::Dead) => {
                    self.board.wait_for(&[UBOOT_STARTS], limits::BOARD_BOOT)?;
                    self.note("reset by the kernel or by the watchdog");
                }
                Some(End::Stopped) => {
                    self.board.power_cut()?;
                    return Ok(Quiet::StoppedByInitrd);
                }
                None => {
                    self.board.power_cut()?;
                    return Ok(Quiet::Recovers);
                }
            }
        }
        Err(self.unexpected("a machine that is quiet", format!("{} starts", limits::BOARD_STARTS)))
    }

    /// The recovery system comes, or nothing does: then the board must keep still, whatever its watchdog thinks.
    fn nothing_boots(&mut self) -> Result<Quiet> {
        self.note("U-Boot says that no bank can be booted");
        let announced =
            self.board.wait_for(&["recovery command", "restarting in 5 minutes"], limits::BOARD_BOOT)?;
        if announced.which == 0 {
            self.board.wait_for(&[GREETING], limits::BOARD_BOOT)?;
            let word = self.board.wait_for(&["\n"], limits::BOARD_BOOT)?.before;
            self.board.power_cut()?;
            return if word.starts_with(RECOVERY) {
                Ok(Quiet::Recovers)
            } else {
                Err(self.unexpected("the recovery system", word))
            };
        }
        // Several times what the watchdog allows.
        let next = self.board.wait_for(&["restarting in 4 minutes", UBOOT_STARTS], limits::BOARD_BOOT)?;
        self.board.power_cut()?;
        if next.which == 0 {
            Ok(Quiet::Stopped)
        } else {
            Err(self.unexpected("a pause of 5 minutes", "a reset"))
        }
    }

    fn unexpected(&self, wanted: &str, seen: impl std::fmt::Display) -> Error {
        Error::Unexpected {
            what: "the board".to_owned(),
            wanted: wanted.to_owned(),
            seen: format!("{seen}; its serial line ends with\n{}", self.board.tail()),
        }
    }

    /// Nothing for the recovery system.
    fn boot(&mut self, word: &str) -> Result<Option<End>> {
        self.note(format!("kernel: {word}"));
        if word.starts_with(RECOVERY) {
            return Ok(None);
        }
        self.boots += 1;
        self.starts += 1;
        let started = started(word)?;
        *self.kernel_starts.entry(started.release.minor).or_default() += 1;
        self.moment(
            "U-Boot has counted and started a kernel",
            Wrote::RecordThenEnvironment,
            [Starting, Starting],
        )?;
        if started.release.image == Image::Panics {
            return Ok(Some(End::Dead));
        }
        let going = match self.initrd(&started)? {
            Ok(going) => going,
            Err(end) => return Ok(Some(end)),
        };
        self.moment("the initrd has counted", Wrote::RecordThenEnvironment, [Starting, Judging])?;
        if started.release.image == Image::HangsEarly {
            return Ok(Some(End::Dead));
        }
        self.system(&started, going).map(Some)
    }

    /// From the start of `/init` to the switch into the root; the inner error is an end before that.
    fn initrd(&mut self, started: &Started) -> Result<Result<Going, End>> {
        let broken = |error: &dyn std::fmt::Display| odd("the initrd", error);
        let (mut ledger, ruling, warning) =
            Ledger::open(Ok(self.device.record()?), started.bank, started.line.gave_up)
                .map_err(|error| broken(&error))?;
        self.note(format!("initrd: {ruling:?} {}", warning.unwrap_or_default()));
        let going = match ruling {
            Ruling::Boot(going) => going,
            Ruling::Redirect(redirect, _) => return self.redirect(redirect).map(Err),
            Ruling::Stop(_) => {
                let recovery = if started.line.has_recovery {
                    self.device.loader()?.recover().map_err(|error| broken(&error))?
                } else {
                    Recovery::NotConfigured
                };
                self.note(format!("no bank can be booted; recovery: {recovery:?}"));
                return Ok(Err(match recovery {
                    Recovery::Next => End::Resets,
                    Recovery::NotConfigured => End::Stopped,
                }));
            }
        };
        let path = self.device.image(started.bank, "root");
        let image = File::open(&path).map_err(Error::io("open", &path))?;
        let proof = &started.line.root;
        let checked = if going.checks_whole_image() {
            proof.check_whole(&image, &path, &mut |_| ())
        } else {
            proof.check_top(&image, &path)
        };
        let Err(finding) = checked.map_err(|error| broken(&error))? else { return Ok(Ok(going)) };
        let reason = format!("initrd, root image: {finding}");
        self.note(reason.clone());
        if let Some(redirect) = ledger.image_is_rotten(&reason).map_err(|error| broken(&error))? {
            return self.redirect(redirect).map(Err);
        }
        ledger.note_failure(&reason).map_err(|error| broken(&error))?;
        Ok(Err(End::Resets))
    }

    fn redirect(&mut self, redirect: Redirect) -> Result<End> {
        let mut loader = self.device.loader()?;
        loader.redirect(redirect.to, redirect.spare).map_err(|error| odd("the redirect", &error))?;
        self.moment("the initrd has redirected", Wrote::RecordThenEnvironment, [Starting, Starting])?;
        Ok(End::Resets)
    }

    /// From the first process of the system on.
    fn system(&mut self, started: &Started, going: Going) -> Result<End> {
        self.device.come_up(started.bank, self.boots, &going.to_string(), started.release)?;
        if self.agent(&["settle"])? == Ended::Rebooted {
            self.moment("settled, and the agent reboots", Wrote::RecordThenEnvironment, [Judging, Judging])?;
            return self.go_down();
        }
        self.moment("settled", Wrote::RecordThenEnvironment, [Judging, Judging])?;
        if going != Going::Trial {
            return Ok(End::Up(started.bank));
        }
        if started.release.image == Image::HangsLate {
            return Ok(End::Dead);
        }
        if self.agent(&["gate"])? == Ended::Rebooted {
            self.moment("the gate has rejected", Wrote::RecordThenEnvironment, [Deciding, Decided])?;
            return self.go_down();
        }
        self.moment("the gate has confirmed", Wrote::EnvironmentThenRecord, [Deciding, Decided])?;
        Ok(End::Up(started.bank))
    }

    /// An orderly shutdown: the unit's last command.
    fn go_down(&mut self) -> Result<End> {
        self.agent(&["settle", "--ending"])?;
        self.moment("shut down in order", Wrote::RecordThenEnvironment, [Starting, Starting])?;
        Ok(End::Resets)
    }

    /// A command of the agent, which must reboot or end well.
    fn agent(&mut self, arguments: &[&str]) -> Result<Ended> {
        let ended = self.device.agent(arguments)?;
        self.note(format!("updater {}: {ended:?}", arguments.join(" ")));
        match &ended {
            Ended::Rebooted | Ended::Exited { code: 0, .. } => Ok(ended),
            Ended::Exited { code, .. } => Err(Error::Unexpected {
                what: format!("updater {}", arguments.join(" ")),
                wanted: "exit code 0".to_owned(),
                seen: format!("{code}: {}", self.device.last_words()),
            }),
        }
    }

    /// The agent reboots; runs until it is quiet.
    pub fn reboot(&mut self) -> Result<Quiet> {
        if self.agent(&["reboot"])? != Ended::Rebooted {
            return Err(self.unexpected("a reboot", "none"));
        }
        self.go_down()?;
        self.power_on()
    }

    /// The agent installs a release, newer than all before, and arms it.
    pub fn install(&mut self, image: Image) -> Result<()> {
        self.newest_minor += 1;
        let bundle = self.device.bundle(Release { image, minor: self.newest_minor })?;
        self.agent(&["install", &bundle])?;
        self.moment("installed and armed", Wrote::RecordThenEnvironment, [Arming, Armed])
    }

    /// The agent is asked for the other bank, and arms it.
    pub fn roll_back(&mut self) -> Result<()> {
        self.agent(&["rollback"]).map(drop)
    }

    /// What `updater status --json` says.
    pub fn status(&mut self) -> Result<serde_json::Value> {
        match self.agent(&["status", "--json"])? {
            Ended::Exited { output, .. } => serde_json::from_str(&output).map_err(|source| Error::Json {
                what: "updater status".to_owned(),
                text: output.clone(),
                source,
            }),
            Ended::Rebooted => Err(self.unexpected("a status", "a reboot")),
        }
    }
}

/// `VERSION WORD COMMAND-LINE`, as a kernel says it.
fn started(word: &str) -> Result<Started> {
    let not = |why: &str| odd("the word of a kernel", &format!("{word:?}: {why}"));
    let mut parts = word.splitn(3, ' ');
    let (Some(version), Some(image), Some(line)) = (parts.next(), parts.next(), parts.next()) else {
        return Err(not("three parts were expected"));
    };
    let minor = version.split('.').nth(1).and_then(|minor| minor.parse().ok());
    let minor = minor.ok_or_else(|| not("no version"))?;
    let image = images::image(image).ok_or_else(|| not("no behaviour"))?;
    let line = cmdline::parse(line).map_err(|error| odd("the command line of a kernel", &error))?;
    let bank = line.bank.ok_or_else(|| not("no bank"))?;
    Ok(Started { release: Release { image, minor }, line, bank })
}
