//! The sequence of early boot, and its end: in the root, or in one of the ends of [`crate::ending`].
//!
//! Each step has a name; a failure is written down as `step: what: why`. Process 1 never returns: every error and every panic
//! ends the machine. The table of decisions is in `docs/boot.md`.

use std::{
    any::Any,
    convert::Infallible,
    fs::File,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    process::{self, ExitCode},
};

use bank_format::{
    Bank,
    loader::{Kind, Recovery},
};

use crate::{
    cmdline::{self, CommandLine},
    console,
    disk::{self, Clues, Disk, Places, Standing},
    ending::End,
    error::{Error, Result, chain},
    handover::{self, Word},
    ledger::{Counting, Going, Ledger, Redirect, Ruling},
    limits,
    linux::{self, Access, Trust},
    loader::BootLoader,
    medium::DeviceMedium,
    modules, paths, state, switch,
    vars::{self, EfiVars},
    verity::{self, Finding, Proof},
    watchdog::Watchdog,
};

const ROOT: &str = "/sysroot";
const ROOT_FILE_SYSTEMS: [&str; 3] = ["erofs", "squashfs", "ext4"];
const PROGRESS_STEPS: u64 = 4;
/// Where Raspberry Pi firmware says which partition it has started: a big-endian number.
const STARTED_PARTITION: &str = "/proc/device-tree/chosen/bootloader/partition";

/// How far it has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Mounts,
    Modules,
    CommandLine,
    Disk,
    Record,
    RootImage,
    State,
    Run,
    Switch,
}

impl Step {
    /// In messages.
    fn word(self) -> &'static str {
        match self {
            Self::Mounts => "mounts",
            Self::Modules => "modules",
            Self::CommandLine => "command line",
            Self::Disk => "disk",
            Self::Record => "record",
            Self::RootImage => "root image",
            Self::State => "state",
            Self::Run => "run",
            Self::Switch => "switch",
        }
    }

    /// Whether the root image was proven good before.
    fn is_behind_the_root(self) -> bool {
        match self {
            Self::Mounts
            | Self::Modules
            | Self::CommandLine
            | Self::Disk
            | Self::Record
            | Self::RootImage => false,
            Self::State | Self::Run | Self::Switch => true,
        }
    }
}

/// What the failure path needs to know.
struct Boot {
    step: Step,
    watchdog: Watchdog,
    loader: Option<BootLoader>,
    ledger: Option<Ledger<DeviceMedium>>,
}

/// Whether the loader knows where to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    Yes,
    No,
}

/// Whether there are EFI variables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Firmware {
    Efi,
    Other,
}

/// Fails unless this process is `/init`: it deletes its root file system and restarts machines.
pub fn refuse_outside_an_initrd() -> Result<()> {
    if process::id() != 1 {
        return Err(Error::NotAnInitrd { detail: "this is not process 1" });
    }
    if !switch::root_is_initramfs() {
        return Err(Error::NotAnInitrd { detail: "the root is no initramfs" });
    }
    Ok(())
}

/// Process 1. Does not return unless the kernel refuses to end the machine.
pub fn run() -> ExitCode {
    let mut boot = Boot { step: Step::Mounts, watchdog: Watchdog::default(), loader: None, ledger: None };
    let outcome = catch_unwind(AssertUnwindSafe(|| boot.sequence()));
    let end = match outcome {
        Ok(Ok(end)) => end,
        Ok(Err(error)) => boot.failed(&error),
        Err(panic) => boot.noted(&format!("this is a bug in Roro: {}", panic_text(panic.as_ref()))),
    };
    end.carry_out(&boot.watchdog)
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("it panicked")
}

impl Boot {
    fn failed(&mut self, error: &Error) -> End {
        if let Error::RootRefused { .. } = error
            && let Some(ledger) = self.ledger.as_mut()
        {
            let reason = format!("initrd, {}: {}", self.step.word(), chain(error));
            match ledger.image_is_rotten(&reason) {
                Ok(Some(redirect)) => return self.redirected(redirect, &reason),
                Ok(None) => (),
                Err(why) => console::warn(&format!("the other bank cannot take over: {why}")),
            }
        }
        self.noted(&chain(error))
    }

    fn noted(&mut self, why: &str) -> End {
        let reason = format!("initrd, {}: {why}", self.step.word());
        let behind_the_root = self.step.is_behind_the_root();
        let noted = self.ledger.as_mut().map_or(Ok(None), |ledger| {
            if behind_the_root {
                ledger.note_failure_behind_the_root(&reason)
            } else {
                ledger.note_failure(&reason).map(|()| None)
            }
        });
        match noted {
            Ok(None) => (),
            Ok(Some(here_again)) => {
                // A loader that counts boots would turn to the other bank, which would fail alike.
                self.tell(here_again);
                return self.stopped(reason);
            }
            Err(error) => console::fail(&format!("the reason cannot be recorded: {error}")),
        }
        End::Reset(reason, self.counting())
    }

    /// The record has decided already, so a loader that cannot be told is no reason of its own: the decision is made again in the next
    /// boot, as often as the record allows.
    fn redirected(&self, redirect: Redirect, reason: &str) -> End {
        self.tell(redirect);
        self.going(redirect, reason)
    }

    fn going(&self, redirect: Redirect, reason: &str) -> End {
        End::Reset(format!("{reason}: going to bank {}", redirect.to), self.counting())
    }

    fn tell(&self, redirect: Redirect) -> Told {
        match self.loader.as_ref().map(|loader| loader.redirect(redirect)) {
            Some(Err(error)) => {
                console::warn(&chain(&error));
                Told::No
            }
            Some(Ok(())) | None => Told::Yes,
        }
    }

    /// The loader does not know where to go: whether this bank boots in the meantime.
    fn stays(&mut self) -> bool {
        let stays = self.ledger.as_mut().map_or(Ok(false), Ledger::stays);
        stays.unwrap_or_else(|why| {
            console::warn(&format!("this bank cannot stay: {why}"));
            false
        })
    }

    fn stopped(&self, reason: String) -> End {
        let recovery = self.loader.as_ref().map_or(Ok(Recovery::NotConfigured), BootLoader::recover);
        let recovery = recovery.unwrap_or_else(|error| {
            console::warn(&chain(&error));
            Recovery::NotConfigured
        });
        End::Stop(reason, recovery)
    }

    fn counting(&self) -> Counting {
        self.ledger.as_ref().map_or(Counting::Uncounted, Ledger::counting)
    }

    fn sequence(&mut self) -> Result<End> {
        mount_kernel()?;
        console::note(concat!("initrd ", env!("CARGO_PKG_VERSION")));
        let line =
            paths::read_text(Path::new("/proc/cmdline"), limits::MAX_CMDLINE_BYTES)?.unwrap_or_default();
        self.step = Step::Modules;
        modules::load(&line, &mut self.watchdog)?;
        let firmware = mount_efivars();
        self.step = Step::CommandLine;
        let command_line = cmdline::parse(&line)?;
        self.step = Step::Disk;
        let Standing { disk, bank } = self.find(&command_line, firmware)?;
        let kind = command_line.loader.unwrap_or(match firmware {
            Firmware::Efi => Kind::Efi,
            Firmware::Other => Kind::Script,
        });
        let has_recovery = command_line.has_recovery;
        self.loader = Some(BootLoader { kind, disk: disk.clone(), has_recovery });
        self.step = Step::Record;
        let medium = disk.partition(disk::RECORD).and_then(|part| DeviceMedium::open(&part.node));
        let (ledger, ruling, warning) = Ledger::open(medium, bank, command_line.gave_up)?;
        self.ledger = Some(ledger);
        if let Some(warning) = warning {
            console::warn(&warning);
        }
        match ruling {
            Ruling::Boot(going) => {
                console::note(&format!("bank {bank} of {}, {going}", disk.name));
                match self.go_on(&command_line, &disk, bank, going)? {}
            }
            Ruling::Redirect(redirect, reason) => {
                if self.tell(redirect) == Told::No && self.stays() {
                    let going = Going::LastResort;
                    console::note(&format!("bank {bank} of {}, {going}", disk.name));
                    match self.go_on(&command_line, &disk, bank, going)? {}
                }
                Ok(self.going(redirect, &reason))
            }
            Ruling::Stop(reason) => Ok(self.stopped(reason)),
        }
    }

    fn find(&self, command_line: &CommandLine, firmware: Firmware) -> Result<Standing> {
        let unknown =
            |error: &Error| console::warn(&format!("what the loader has started: {}", chain(error)));
        let (mut loader_partition, mut entry) = (None, None);
        if firmware == Firmware::Efi {
            let vars = EfiVars::mounted();
            loader_partition = vars::loader_partition(&vars).inspect_err(unknown).ok().flatten();
            entry = vars::loader_entry(&vars).inspect_err(unknown).ok().flatten();
        }
        let clues = Clues {
            loader_partition,
            bank: entry.or(command_line.bank),
            partition_number: started_partition(),
            root: &command_line.root,
        };
        Places::of_the_kernel().find(&clues, &mut || self.watchdog.alive())
    }

    fn go_on(
        &mut self,
        command_line: &CommandLine,
        disk: &Disk,
        bank: Bank,
        going: Going,
    ) -> Result<Infallible> {
        let root = Path::new(ROOT);
        self.step = Step::RootImage;
        self.open_root(&command_line.root, disk, bank, going)?;
        self.step = Step::State;
        self.watchdog.alive();
        let state_partition = disk.partition(disk::STATE)?;
        state::mount(&state_partition.node, &root.join("state"))?;
        self.watchdog.alive();
        let list =
            paths::read_small(&root.join(state::LIST), limits::MAX_STATE_LIST_BYTES)?.unwrap_or_default();
        state::lay_out(root, &state::parse(&String::from_utf8_lossy(&list))?, &|| self.watchdog.alive())?;
        self.step = Step::Run;
        let watchdog = self.watchdog.name();
        handover::leave_word(&Word { disk, bank, going, root: command_line.root.root, watchdog })?;
        self.step = Step::Switch;
        self.watchdog.alive();
        switch::check(root, &command_line.init)?;
        switch::switch(root, &command_line.init)
    }

    fn open_root(&self, proof: &Proof, disk: &Disk, bank: Bank, going: Going) -> Result<()> {
        let partition = disk.root(bank)?;
        let node = &partition.node;
        let image = File::open(node).map_err(Error::io("open", node))?;
        let refused = |finding| Error::RootRefused { bank, finding };
        let whole = going.checks_whole_image();
        let mut look = || {
            let top = proof.check_top(&image, node)?;
            if top.is_err() || !whole {
                return Ok(top);
            }
            let mut next = 1;
            let mut progress = |done: u64| {
                self.watchdog.alive();
                if done.saturating_mul(PROGRESS_STEPS) >= proof.blocks.saturating_mul(next) {
                    console::note(&format!("checking the root image: {done} of {} blocks", proof.blocks));
                    next += 1;
                }
            };
            proof.check_whole(&image, node, &mut progress)
        };
        let forget = |finding: &Finding| {
            console::warn(&format!("the root image, at the first reading: {finding}; reading it again"));
            self.watchdog.alive();
            verity::forget_cached(&image);
        };
        verity::twice(&mut look, forget)?.map_err(refused)?;
        drop(image);
        let mapped = proof.map(&partition.device)?;
        let root = Path::new(ROOT);
        paths::make_dirs(root)?;
        state::mount_first(&mapped, root, &ROOT_FILE_SYSTEMS, Access::ReadOnly, Trust::Full)
    }
}

fn mount_kernel() -> Result<()> {
    for (target, kind, trust, options) in [
        ("/dev", "devtmpfs", Trust::Devices, "mode=0755"),
        ("/proc", "proc", Trust::Kernel, ""),
        ("/sys", "sysfs", Trust::Kernel, ""),
        ("/run", "tmpfs", Trust::Data, "mode=0755,size=20%"),
    ] {
        let path = Path::new(target);
        paths::make_dirs(path)?;
        match linux::mount_fs(Path::new(kind), path, kind, Access::ReadWrite, trust, options) {
            // The kernel may have mounted /dev already (CONFIG_DEVTMPFS_MOUNT).
            Err(error) if error.kind() == std::io::ErrorKind::ResourceBusy => (),
            done => done.map_err(Error::io("mount", path))?,
        }
    }
    Ok(())
}

/// Whether the variables of the firmware are there.
fn mount_efivars() -> Firmware {
    if !Path::new("/sys/firmware/efi").exists() {
        return Firmware::Other;
    }
    let vars = EfiVars::mounted();
    let kind = "efivarfs";
    match linux::mount_fs(Path::new(kind), vars.directory(), kind, Access::ReadWrite, Trust::Kernel, "") {
        Ok(()) => Firmware::Efi,
        Err(error) => {
            console::warn(&format!("no EFI variables: {error}"));
            Firmware::Other
        }
    }
}

fn started_partition() -> Option<u32> {
    let bytes = paths::read_small(Path::new(STARTED_PARTITION), limits::MAX_SYSFS_BYTES).ok()??;
    Some(u32::from_be_bytes(bytes.try_into().ok()?))
}
