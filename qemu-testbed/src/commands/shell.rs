//! `shell`: boots an image and connects the terminal to it.
//!
//! Shows the serial log until the console's shell is there, then the console. An image without a shell (the default
//! JeOS has none) shows its log for ever. Ctrl-] or the end of input switches the machine off.

use std::{
    io::{self, IsTerminal, Read, Write},
    os::fd::AsFd,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
};

use bank_format::loader::Kind;
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};

use crate::{
    error::{Error, Result},
    guest::BANNER,
    hardware::Hardware,
    machine::Machine,
    packages, printer,
    profile::Profile,
    slots,
    workshop::{self, Workshop},
};

/// Ctrl-], as in telnet.
const LEAVE: u8 = 0x1d;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A factory disk image; by default the testbed's own, built when needed. It is copied, not written
    #[arg(long, value_name = "FILE")]
    image: Option<PathBuf>,
}

impl Args {
    pub(super) fn run(self) -> Result<()> {
        packages::install_missing()?;
        let image = match self.image {
            Some(image) => image,
            None => Workshop::open()?.factory_image(Profile::of(Kind::Efi))?,
        };
        let runs = workshop::runs();
        let _held = slots::lock(&runs.join("shell.lock"))?;
        let mut machine = Machine::assemble("shell", Hardware::USUAL, &image, &runs.join("shell"))?;
        machine.power_on()?;
        printer::say(format_args!("booting {}; Ctrl-] switches the machine off", image.display()));
        let terminal = RawTerminal::enter()?;
        let outcome = converse(&machine);
        drop(terminal);
        printer::say("\nthe machine is off");
        outcome
    }
}

/// Lasts until the person leaves or the machine ends.
fn converse(machine: &Machine) -> Result<()> {
    let (leave, left) = mpsc::channel();
    let mut to_guest =
        machine.console_line()?.try_clone().map_err(Error::io("open the console of", machine.folder()))?;
    let typed_out = leave.clone();
    // Reading a terminal can't be called off: this thread ends with the process.
    thread::spawn(move || {
        let mut input = io::stdin().lock();
        let mut bytes = [0_u8; 256];
        while let Ok(count) = input.read(&mut bytes) {
            let piece = bytes.get(..count).unwrap_or_default();
            let kept = piece.iter().position(|byte| *byte == LEAVE).unwrap_or(count);
            let sent = piece.get(..kept).map(|piece| to_guest.write_all(piece));
            if count == 0 || kept < count || !matches!(sent, Some(Ok(()))) {
                break;
            }
        }
        typed_out.send(()).ok();
    });
    let (mut log, mut console) = (machine.log.follow(), machine.console.follow());
    let shell_is_there = Arc::new(AtomicBool::new(false));
    let quiet = Arc::clone(&shell_is_there);
    thread::spawn(move || {
        while let Some(bytes) = log.next_bytes() {
            if !quiet.load(Ordering::Relaxed) {
                printer::pass_on(&bytes);
            }
        }
        leave.send(()).ok();
    });
    thread::spawn(move || {
        // The firmware speaks on this line too; what matters begins with the banner.
        let mut heard = String::new();
        while let Some(bytes) = console.next_bytes() {
            if shell_is_there.load(Ordering::Relaxed) {
                printer::pass_on(&bytes);
                continue;
            }
            heard.push_str(&String::from_utf8_lossy(&bytes));
            if let Some((_, rest)) = heard.split_once(BANNER) {
                shell_is_there.store(true, Ordering::Relaxed);
                printer::pass_on(rest.as_bytes());
            }
        }
    });
    left.recv().ok();
    Ok(())
}

/// The terminal in raw mode, given back as it was.
struct RawTerminal {
    before: Option<Termios>,
}

impl RawTerminal {
    fn enter() -> Result<Self> {
        let input = io::stdin();
        if !input.is_terminal() {
            return Ok(RawTerminal { before: None });
        }
        let failed = |errno: nix::errno::Errno| Error::io("set the mode of", "standard input")(errno.into());
        let before = tcgetattr(input.as_fd()).map_err(failed)?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        tcsetattr(input.as_fd(), SetArg::TCSANOW, &raw).map_err(failed)?;
        Ok(RawTerminal { before: Some(before) })
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            tcsetattr(io::stdin().as_fd(), SetArg::TCSANOW, before).ok();
        }
    }
}
