//! The pages on boot loaders, followed as an integrator would: the blocks of the page are the configuration, the program and the
//! loader, with other paths; the agent's real code installs, reboots, confirms and falls back with them.
//!
//! What is played: the initrd, by the rule that it uses, and the firmware of the Raspberry Pi, by its documentation. Whether the real
//! initrd finds its way on the disk of the page is another test's: `qemu-testbed/tests/tryboot_page.rs`.

use std::{
    cell::Cell,
    path::{Path, PathBuf},
    process::Command,
    rc::Rc,
};

use crate::support::{bundle, content, root_json, trust, write};
use bank_format::{
    Bank,
    loader::Spare,
    manifest::Tree,
    record::{Loaded, Outcome, Store},
    rule::{Decision, decide},
};
use updater::{
    Device, Terms,
    config::{Backend, Config, Network},
    device::{NoWork, Purpose},
    engine::{Event, Rearm, State},
    install,
    medium::PathMedium,
    ports::{Access, AfterReboot, Reboot, Silent},
    settle::settle,
};

/// The blocks of a page that are fenced with this word, in their order.
fn blocks(page: &str, word: &str) -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/loaders").join(page);
    let text = std::fs::read_to_string(path).unwrap();
    let (mut found, mut open) = (Vec::new(), None);
    for line in text.lines() {
        match (line.strip_prefix("```"), open.take()) {
            (Some(opened), None) => open = Some((opened.to_owned(), String::new())),
            (Some(_), Some((kind, block))) => {
                if kind == word {
                    found.push(block);
                }
            }
            (None, Some((kind, block))) => open = Some((kind, format!("{block}{line}\n"))),
            (None, None) => (),
        }
    }
    found
}

/// How the power went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Before {
    Reboot,
    PowerCut,
}

/// What stands before the initrd.
trait Firmware {
    /// Starts a bank: the words on its kernel command line.
    fn start(&mut self, before: Before) -> String;
}

struct Downward(Rc<Cell<bool>>);

impl Reboot for Downward {
    fn reboot(&mut self) -> std::io::Result<AfterReboot> {
        self.0.set(true);
        Ok(AfterReboot::GoingDown)
    }
}

struct Board<F> {
    dir: tempfile::TempDir,
    config: Config,
    firmware: F,
    boots: u32,
    going_down: Rc<Cell<bool>>,
}

impl<F: Firmware> Board<F> {
    fn new(dir: tempfile::TempDir, boot: &str, firmware: F) -> Self {
        write(dir.path(), "root.json", &root_json());
        std::fs::create_dir(dir.path().join("run")).unwrap();
        let text = format!(
            "compatible = \"test,any\"\ntrust_root = \"root.json\"\nstate_dir = \"state\"\nrecord = \"record.bin\"\n\
             release_file = \"release.json\"\nrun_dir = \"run\"\n[bank.a]\nroot = \"a.img\"\n[bank.b]\nroot = \"b.img\"\n{boot}"
        );
        let config = Config::load(&write(dir.path(), "updater.toml", text.as_bytes())).unwrap();
        Self { dir, config, firmware, boots: 0, going_down: Rc::default() }
    }

    fn device(&self) -> Device {
        let mut device = Device::open(&self.config, Purpose::Act).unwrap();
        device.ports.reboot = Box::new(Downward(Rc::clone(&self.going_down)));
        device
    }

    /// The firmware, and a kernel that dies before the initrd.
    fn dies(&mut self, before: Before) -> Bank {
        bank_of(&self.firmware.start(before), "roro.bank=").unwrap()
    }

    /// As far as the initrd, which goes on; then the system dies before it is settled.
    fn dies_later(&mut self) -> Bank {
        let words = self.firmware.start(Before::PowerCut);
        let bank = bank_of(&words, "roro.bank=").unwrap();
        assert!(self.initrd(bank, bank_of(&words, "roro.gave_up=")));
        bank
    }

    /// Until a system is up and settled.
    fn boots(&mut self, mut before: Before) -> Device {
        for _ in 0..10 {
            let words = self.firmware.start(before);
            let bank = bank_of(&words, "roro.bank=").unwrap();
            if !self.initrd(bank, bank_of(&words, "roro.gave_up=")) {
                before = Before::PowerCut;
                continue;
            }
            self.boots += 1;
            write(self.dir.path(), "run/bank", format!("{bank}\n").as_bytes());
            write(self.dir.path(), "run/boot_id", format!("boot {}\n", self.boots).as_bytes());
            let mut device = self.device();
            settle(&mut device, Rearm::Allowed).unwrap();
            if !self.going_down.take() {
                return device;
            }
            before = Before::Reboot;
        }
        panic!("the board spins");
    }

    /// Whether the initrd goes on.
    fn initrd(&self, bank: Bank, gave_up: Option<Bank>) -> bool {
        let Some(medium) = PathMedium::open(&self.config.record, Access::Write).ok() else { return true };
        let (mut store, loaded) = Store::open(medium).unwrap();
        let Loaded::Record(record) = loaded else { return true };
        let (decision, next) = decide(&record, bank, gave_up);
        store.commit(&next).unwrap();
        match decision {
            Decision::Boot(_) => true,
            Decision::Redirect { to, .. } => {
                // The initrd does not call the program of a script, which lies in the root: it resets, and no more.
                if !matches!(self.config.boot.backend, Backend::Script { .. }) {
                    updater::boot::open(&self.config).set_default(to, Spare::Unbootable).unwrap();
                }
                false
            }
            Decision::Stop { reason } => panic!("{reason}"),
        }
    }

    fn installs(&self, version: &str, seed: u64) {
        let file = bundle(version, &[("root", &content(40_000, seed), Tree::None)]);
        let file = write(self.dir.path(), "x.roro", &file);
        let terms = Terms { compatible: "test,any".into(), trust: trust(), network: Network::default() };
        install(&mut self.device(), &terms, file.to_str().unwrap(), &mut Silent).unwrap();
    }

    fn asks_for_a_reboot(&self) {
        self.device().handle(Event::RebootRequested, &mut NoWork).unwrap();
        assert!(self.going_down.take());
    }

    /// An install, its trial and its confirm; good boots; a power cut.
    fn takes_a_good_release(&mut self, version: &str, into: Bank) {
        self.installs(version, 1);
        assert_eq!(self.device().armed().unwrap(), Some(into));
        self.asks_for_a_reboot();
        let mut device = self.boots(Before::Reboot);
        assert_eq!(device.engine().state(), State::Trial(into));
        device.handle(Event::Confirm, &mut NoWork).unwrap();
        for before in [Before::Reboot, Before::PowerCut, Before::Reboot] {
            let device = self.boots(before);
            assert_eq!((device.running(), device.engine().state()), (into, State::Confirmed));
        }
    }

    /// A release that is sick, then one that dies without a word.
    fn gives_up_bad_releases(&mut self, stays_in: Bank) {
        self.installs("2.0.0", 2);
        self.asks_for_a_reboot();
        let mut device = self.boots(Before::Reboot);
        assert_eq!(device.engine().state(), State::Trial(!stays_in));
        let failed = Event::GateFailed { reason: "the kiosk is dark".into(), evidence: None };
        device.handle(failed, &mut NoWork).unwrap();
        assert!(self.going_down.take());
        self.has_fallen_back(stays_in, Before::Reboot, "the kiosk is dark");

        self.installs("2.1.0", 3);
        self.asks_for_a_reboot();
        assert_eq!(self.dies(Before::Reboot), !stays_in);
        self.has_fallen_back(stays_in, Before::PowerCut, "without a word");
    }

    fn has_fallen_back(&mut self, to: Bank, before: Before, why: &str) {
        let device = self.boots(before);
        let last = device.record().last_result.clone().unwrap();
        assert_eq!((device.running(), last.outcome), (to, Outcome::FellBack));
        assert!(last.reason.unwrap().contains(why));
        assert_eq!(self.boots(Before::PowerCut).running(), to, "and stays there");
    }
}

fn bank_of(words: &str, key: &str) -> Option<Bank> {
    words.split_whitespace().find_map(|word| word.strip_prefix(key)).map(|bank| bank.parse().unwrap())
}

fn shell(script: &Path) -> String {
    let output = Command::new("sh").arg(script).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The loader of `script.md`, as the page has it.
struct PageLoader(PathBuf);

impl Firmware for PageLoader {
    fn start(&mut self, _: Before) -> String {
        shell(&self.0)
    }
}

fn script_board() -> Board<PageLoader> {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("state-of-the-loader").display().to_string();
    let program = dir.path().join("loader").display().to_string();
    let [sh_program, sh_loader] =
        [0, 1].map(|at| blocks("script.md", "sh")[at].replace("/boot/loader/state", &place));
    // Another process writes it: a child that is forked meanwhile would inherit the open file, and the kernel runs no program
    // that somebody has open for writing.
    let source = write(dir.path(), "loader.source", sh_program.as_bytes());
    assert!(Command::new("install").arg("-m755").arg(source).arg(&program).status().unwrap().success());
    write(dir.path(), "state-of-the-loader", b"default=a spare=none next=none left=3\n");
    let loader = PageLoader(write(dir.path(), "loader.sh", sh_loader.as_bytes()));
    let boot = blocks("script.md", "toml")[0].replace("/usr/lib/roro/loader", &program);
    Board::new(dir, &boot, loader)
}

#[test]
fn the_program_of_the_page_on_scripts_is_a_loader_like_any_other() {
    let mut board = script_board();
    assert_eq!(board.boots(Before::PowerCut).running(), Bank::A);
    board.takes_a_good_release("1.0.0", Bank::B);
    board.gives_up_bad_releases(Bank::B);
    board.takes_a_good_release("2.2.0", Bank::A);

    // The confirmed bank rots after good boots: its kernel dies before anybody but the loader can count.
    for _ in 0..3 {
        assert_eq!(board.dies(Before::PowerCut), Bank::A);
    }
    let device = board.boots(Before::PowerCut);
    assert_eq!(device.running(), Bank::B);
    assert_eq!(device.record().last_result.as_ref().unwrap().outcome, Outcome::BankLost);
    assert_eq!(board.boots(Before::Reboot).running(), Bank::B);
}

#[test]
fn what_the_program_of_the_page_does_not_know_fails() {
    let board = script_board();
    for arguments in [&["boot"][..], &[], &["set-next", "c"], &["set-default", "a"]] {
        let output = Command::new(board.dir.path().join("loader")).args(arguments).output().unwrap();
        assert!(!output.status.success() && !output.stderr.is_empty(), "{arguments:?}");
    }
}

/// The firmware of the Raspberry Pi. The file is read by mtools; the parameter reaches it through an orderly reboot only, and is
/// gone before anything starts.
struct RaspberryPi {
    image: PathBuf,
    parameter: PathBuf,
}

impl Firmware for RaspberryPi {
    fn start(&mut self, before: Before) -> String {
        let parameter = std::fs::read_to_string(&self.parameter).unwrap_or_default();
        let _ = std::fs::remove_file(&self.parameter);
        let tryboot = before == Before::Reboot && parameter.trim() == "0 tryboot";
        let output = Command::new("mtype").arg("-i").arg(&self.image).arg("::autoboot.txt").output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let (all, tried) = text.split_once("[tryboot]").unwrap();
        assert!(all.contains("tryboot_a_b=1"));
        let section = if tryboot { tried } else { all };
        let partition = section.lines().find_map(|line| line.strip_prefix("boot_partition=")).unwrap();
        // The initrd finds the bank by the number that the firmware leaves in the device tree.
        format!("roro.loader=tryboot roro.bank={}", if partition.trim() == "2" { "a" } else { "b" })
    }
}

/// Whether the tools that the page calls are here. In CI they must be.
pub fn tools_are_here(tools: &[&str]) -> bool {
    let absent: Vec<_> =
        tools.iter().filter(|tool| Command::new(tool).arg("--help").output().is_err()).collect();
    assert!(absent.is_empty() || std::env::var_os("CI").is_none(), "not installed: {absent:?}");
    for tool in &absent {
        eprintln!("not followed: {tool} is not installed");
    }
    absent.is_empty()
}

fn raspberry_pi() -> Board<RaspberryPi> {
    let dir = tempfile::tempdir().unwrap();
    let factory = write(dir.path(), "factory.sh", blocks("tryboot.md", "sh")[0].as_bytes());
    let output = Command::new("sh").arg("-e").arg(&factory).current_dir(dir.path()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let (image, parameter) = (dir.path().join("autoboot.img"), dir.path().join("reboot-param"));
    let boot = blocks("tryboot.md", "toml")[0].replace("/dev/mmcblk0p1", "autoboot.img")
        + "reboot_parameter = \"reboot-param\"\n";
    Board::new(dir, &boot, RaspberryPi { image, parameter })
}

#[test]
fn the_page_on_tryboot_leads_to_a_board_that_updates() {
    if !tools_are_here(&["mkfs.vfat", "mcopy", "mtype"]) {
        return;
    }
    let mut board = raspberry_pi();
    let image = board.firmware.image.clone();
    let before = std::fs::read(&image).unwrap();
    assert_eq!(board.boots(Before::PowerCut).running(), Bank::A);
    board.takes_a_good_release("1.0.0", Bank::B);
    board.gives_up_bad_releases(Bank::B);
    board.takes_a_good_release("2.2.0", Bank::A);
    for _ in 0..3 {
        assert_eq!(board.dies_later(), Bank::A);
    }
    let device = board.boots(Before::PowerCut);
    assert_eq!((device.running(), device.record().confirmed), (Bank::B, Bank::B), "the initrd has counted");

    let after = std::fs::read(&image).unwrap();
    let changed: Vec<usize> = (0..before.len() / 512)
        .filter(|sector| before[sector * 512..][..512] != after[sector * 512..][..512])
        .collect();
    assert_eq!((before.len(), changed.len()), (after.len(), 1), "one sector, and never the FAT: {changed:?}");
}

#[test]
fn a_trial_that_a_power_cut_forgot_is_settled() {
    if !tools_are_here(&["mkfs.vfat", "mcopy", "mtype"]) {
        return;
    }
    let mut board = raspberry_pi();
    board.boots(Before::PowerCut);
    board.installs("1.0.0", 1);
    // Nobody has sent the board there yet: the agent does it now, once.
    assert_eq!(board.boots(Before::PowerCut).engine().state(), State::Trial(Bank::B));
}
