//! The sequence of early boot, and its end: in the root, in a reset, or halted with a message.
//!
//! Each step has a name; a failure is written down as `step: what: why`. Process 1 never returns: every error and every panic
//! ends in `end`. The table of decisions is in `docs/boot.md`.

use std::{
    any::Any,
    convert::Infallible,
    fs::File,
    os::unix::fs::symlink,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    process::{self, ExitCode},
};

use bank_format::Bank;

use crate::{
    cmdline::{self, CommandLine},
    console,
    disk::{self, Clues, Disk, Places, Standing},
    error::{Error, Result, chain},
    ledger::{Going, Ledger, Ruling},
    limits,
    linux::{self, Access, Trust, uevent::Events},
    paths,
    record_medium::RecordPartition,
    state, switch,
    vars::{self, EfiVars},
    verity::Proof,
    watchdog::Watchdog,
};

const ROOT: &str = "/sysroot";
const ROOT_FILE_SYSTEMS: [&str; 3] = ["erofs", "squashfs", "ext4"];
const RUN: &str = "/run/roro";
/// systemd's generators that would do again, from `roothash=` and the partition types, what was done here: the one waits for
/// partitions that do not exist, the other mounts boot images for writing.
const DONE_ALREADY: [&str; 2] = ["systemd-gpt-auto-generator", "systemd-veritysetup-generator"];
const GENERATORS: &str = "/run/systemd/system-generators";
const MODULES: &str = "/modules";
const PROGRESS_STEPS: u64 = 4;

/// How a boot ends that does not end in the root.
#[derive(Debug)]
enum End {
    Reset(String),
    Halt(String),
}

/// What the failure path needs to know.
struct Boot {
    step: &'static str,
    watchdog: Watchdog,
    ledger: Option<Ledger<RecordPartition>>,
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
    let mut boot = Boot { step: "mounts", watchdog: Watchdog::default(), ledger: None };
    let outcome = catch_unwind(AssertUnwindSafe(|| boot.sequence()));
    let end = match outcome {
        Ok(Ok(end)) => end,
        Ok(Err(error)) => boot.failed(&chain(&error)),
        Err(panic) => boot.failed(&format!("this is a bug in Roro: {}", panic_text(panic.as_ref()))),
    };
    let _panic_on_the_last_line = catch_unwind(|| end_with(&end));
    end_machine(&end)
}

fn end_with(end: &End) {
    match end {
        End::Reset(reason) => console::fail(&format!("{reason}; resetting")),
        End::Halt(reason) => console::fail(&format!("{reason}; halted: write the factory image again")),
    }
}

fn end_machine(end: &End) -> ExitCode {
    nix::unistd::sync();
    let refused: std::io::Result<Infallible> = match end {
        End::Reset(_) => linux::restart(),
        End::Halt(_) => {
            Events::pause(limits::HALT_MESSAGE);
            linux::halt()
        }
    };
    // Process 1 that ends is a kernel panic, which resets where `panic=` is on the command line: the last way out.
    let Err(error) = refused;
    console::fail(&format!("the kernel does not end the machine: {error}"));
    ExitCode::FAILURE
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("it panicked")
}

impl Boot {
    fn failed(&mut self, why: &str) -> End {
        let reason = format!("initrd, {}: {why}", self.step);
        if let Some(ledger) = self.ledger.as_mut()
            && let Err(error) = ledger.note_failure(&reason)
        {
            console::fail(&format!("the reason cannot be recorded: {error}"));
        }
        End::Reset(reason)
    }

    fn sequence(&mut self) -> Result<End> {
        mount_kernel()?;
        console::note(concat!("initrd ", env!("CARGO_PKG_VERSION")));
        self.step = "modules";
        load_modules()?;
        let has_efi = mount_efivars();
        self.watchdog = Watchdog::start();
        self.step = "command line";
        let line =
            paths::read_text(Path::new("/proc/cmdline"), limits::MAX_CMDLINE_BYTES)?.unwrap_or_default();
        let command_line = cmdline::parse(&line)?;
        self.step = "disk";
        let Standing { disk, bank } = self.find(&command_line, has_efi)?;
        self.step = "record";
        let medium = disk.partition(disk::RECORD).and_then(|part| RecordPartition::open(&part.node));
        let (ledger, ruling, warning) = Ledger::open(medium, bank)?;
        self.ledger = Some(ledger);
        if let Some(warning) = warning {
            console::warn(&warning);
        }
        match ruling {
            Ruling::Boot(going) => {
                console::note(&format!("bank {bank} of {}, {going}", disk.name));
                match self.go_on(&command_line, &disk, bank, going)? {}
            }
            Ruling::Redirect(to, reason) => {
                self.step = "redirect";
                if has_efi {
                    vars::redirect(&mut EfiVars::mounted(), &disk.boot_partitions()?, to)?;
                }
                Ok(End::Reset(format!("{reason}: going to bank {to}")))
            }
            Ruling::Stop(reason) => Ok(End::Halt(reason)),
        }
    }

    fn find(&self, command_line: &CommandLine, has_efi: bool) -> Result<Standing> {
        let loader_partition = if has_efi {
            vars::loader_partition(&EfiVars::mounted()).unwrap_or_else(|error| {
                console::warn(&format!("the loader's partition is unknown: {}", chain(&error)));
                None
            })
        } else {
            None
        };
        let clues = Clues { loader_partition, bank: command_line.bank, root: &command_line.root };
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
        self.step = "root image";
        self.open_root(&command_line.root, disk, bank, going)?;
        self.step = "state";
        let state_partition = disk.partition(disk::STATE)?;
        state::mount(&state_partition.node, &root.join("state"))?;
        let list =
            paths::read_small(&root.join(state::LIST), limits::MAX_STATE_LIST_BYTES)?.unwrap_or_default();
        state::lay_out(root, &state::parse(&String::from_utf8_lossy(&list))?)?;
        self.step = "run";
        leave_word(disk, bank, going, &command_line.root)?;
        self.step = "switch";
        self.watchdog.alive();
        switch::check(root, &command_line.init)?;
        switch::switch(root, &command_line.init)
    }

    fn open_root(&self, proof: &Proof, disk: &Disk, bank: Bank, going: Going) -> Result<()> {
        let partition = disk.root(bank)?;
        let node = &partition.node;
        let image = File::open(node).map_err(Error::io("open", node))?;
        let refused = |finding| Error::RootRefused { bank, finding };
        proof.check_top(&image, node)?.map_err(refused)?;
        if going.checks_whole_image() {
            let mut next = 1;
            let mut progress = |done: u64| {
                self.watchdog.alive();
                if done.saturating_mul(PROGRESS_STEPS) >= proof.blocks.saturating_mul(next) {
                    console::note(&format!("checking the root image: {done} of {} blocks", proof.blocks));
                    next += 1;
                }
            };
            proof.check_whole(&image, node, &mut progress)?.map_err(refused)?;
        }
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

/// A module that fails is noted: what is missed without it gives a better reason later.
fn load_modules() -> Result<()> {
    let directory = Path::new(MODULES);
    let list = paths::read_text(&directory.join("load"), limits::MAX_MODULE_LIST_BYTES)?.unwrap_or_default();
    for name in list.lines().map(str::trim).filter(|name| !name.is_empty()) {
        let loaded = File::open(directory.join(name)).and_then(|module| linux::load_module(&module));
        if let Err(error) = loaded {
            console::warn(&format!("module {name}: {error}"));
        }
    }
    Ok(())
}

/// Whether the variables of the firmware are there.
fn mount_efivars() -> bool {
    if !Path::new("/sys/firmware/efi").exists() {
        return false;
    }
    let vars = EfiVars::mounted();
    let kind = "efivarfs";
    match linux::mount_fs(Path::new(kind), vars.directory(), kind, Access::ReadWrite, Trust::Kernel, "") {
        Ok(()) => true,
        Err(error) => {
            console::warn(&format!("no EFI variables: {error}"));
            false
        }
    }
}

/// Tells the system what it runs from: `/run/roro`.
fn leave_word(disk: &Disk, bank: Bank, going: Going, proof: &Proof) -> Result<()> {
    let run = PathBuf::from(RUN);
    let links = run.join("dev");
    paths::make_dirs(&links)?;
    for name in disk::NAMES {
        // A missing record is survived, and so has no link.
        if let Ok(partition) = disk.partition(name) {
            let link = links.join(name);
            symlink(&partition.node, &link).map_err(Error::io("link", &link))?;
        }
    }
    let generators = Path::new(GENERATORS);
    paths::make_dirs(generators)?;
    for name in DONE_ALREADY {
        let mask = generators.join(name);
        symlink("/dev/null", &mask).map_err(Error::io("mask", &mask))?;
    }
    let write = |name: &str, text: String| {
        let path = run.join(name);
        std::fs::write(&path, text).map_err(Error::io("write", &path))
    };
    let roothash = proof.root;
    write("bank", format!("{bank}\n"))?;
    write("boot.json", format!("{{\"bank\":\"{bank}\",\"as\":\"{going}\",\"roothash\":\"{roothash}\"}}\n"))?;
    // The gate's unit runs only where this file is: a gate that dies must reset a trial, never a confirmed bank.
    if going == Going::Trial {
        write("trial", String::new())?;
    }
    Ok(())
}
