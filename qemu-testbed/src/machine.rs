//! A machine: QEMU with real firmware, a disk of its own, two serial lines and a power switch.
//!
//! Knows files, QEMU and its options, nothing of what runs inside. Promises: the factory image is never written; disk
//! and firmware variables survive a power cut; a machine that is dropped, or whose test is killed, leaves no process
//! behind. A power cut is SIGKILL of QEMU: whatever the guest had not written is gone, as with a pulled plug.
//! What the *disk* may still lose or tear is not played here but in `tests`, where every write can be cut.

use std::{
    fs::{self, File},
    io::Read,
    os::{
        fd::AsFd,
        unix::net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tempfile::TempDir;

use crate::{
    accelerator::Accelerator,
    error::{Error, Result},
    expect::Transcript,
    firmware::escaped,
    hardware::Hardware,
    limits, process,
    qmp::Qmp,
};

/// Names the file with the memory of a machine to the commands that QEMU runs for it: a path in the environment needs no quoting.
pub(crate) const MEMORY_VARIABLE: &str = "RORO_TESTBED_MEMORY";

/// One machine, on or off.
#[derive(Debug)]
pub struct Machine {
    name: String,
    folder: PathBuf,
    hardware: Hardware,
    accelerator: Accelerator,
    power: Option<Powered>,
    pub(crate) log: Transcript,
    pub(crate) console: Transcript,
    /// Whether the guest's shell has shown its prompt since it last started.
    pub(crate) console_ready: bool,
    pub(crate) console_commands: u32,
}

#[derive(Debug)]
struct Powered {
    child: Child,
    qmp: Qmp,
    console: UnixStream,
    readers: Vec<JoinHandle<()>>,
    /// Sockets must have short paths (`sun_path` holds 108 bytes), which a build folder need not have.
    _sockets: TempDir,
}

impl Machine {
    /// Puts a machine together in `folder`, switched off: a copy of `image` as its disk, fresh firmware variables.
    /// What an earlier machine left in `folder` is removed.
    pub fn assemble(name: &str, hardware: Hardware, image: &Path, folder: &Path) -> Result<Self> {
        if folder.exists() {
            fs::remove_dir_all(folder).map_err(Error::io("remove the earlier run in", folder))?;
        }
        fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
        let mut machine = Machine {
            name: name.to_owned(),
            folder: folder.to_owned(),
            accelerator: Accelerator::that_works(),
            power: None,
            log: Transcript::new("serial log", &folder.join("serial.log")),
            console: Transcript::new("console", &folder.join("console.log")),
            console_ready: false,
            console_commands: 0,
            hardware,
        };
        copy_sparse(image, &machine.disk())?;
        machine.forget_variables()?;
        Ok(machine)
    }

    /// The disk: a raw file, to be looked at or damaged while the machine is off.
    #[must_use]
    pub fn disk(&self) -> PathBuf {
        self.folder.join("disk.img")
    }

    /// What it is called: no other machine that runs has this name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The folder with the logs of this machine.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// What runs the guest.
    #[must_use]
    pub fn accelerator(&self) -> Accelerator {
        self.accelerator
    }

    /// The point in time at which a wait of `virtual_time` is over.
    #[must_use]
    pub fn deadline(&self, virtual_time: Duration) -> Instant {
        self.accelerator.deadline(virtual_time)
    }

    /// The line with the words of kernel and system.
    pub fn log(&mut self) -> &mut Transcript {
        &mut self.log
    }

    /// Switches on. Nothing the guest says from its first byte on is lost.
    pub fn power_on(&mut self) -> Result<()> {
        if self.power.is_some() { Ok(()) } else { self.power_on_with(&[]) }
    }

    /// Starts QEMU, with further options. What was said before is read by nobody any more.
    pub(crate) fn power_on_with(&mut self, further: &[&str]) -> Result<()> {
        self.log.skip_to_end();
        self.console.skip_to_end();
        let sockets = tempfile::Builder::new()
            .prefix("roro-")
            .tempdir()
            .map_err(Error::io("create a folder in", std::env::temp_dir()))?;
        let listen = |name: &str| {
            let path = sockets.path().join(name);
            UnixListener::bind(&path).map_err(Error::io("listen on", path))
        };
        let (log, console, monitor) = (listen("log")?, listen("console")?, listen("monitor")?);
        let words = self.folder.join("qemu.log");
        let words_file =
            File::options().create(true).append(true).open(&words).map_err(Error::io("open", &words))?;
        let mut child = process::tied("qemu-system-x86_64")
            .args(self.options(sockets.path()))
            .args(further)
            .env(MEMORY_VARIABLE, self.memory())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(words_file)
            .spawn()
            .map_err(|source| Error::Start { program: "qemu-system-x86_64".to_owned(), source })?;
        match self.connect(&mut child, &log, &console, &monitor) {
            Ok((qmp, console, readers)) => {
                self.power = Some(Powered { child, qmp, console, readers, _sockets: sockets });
                self.console_ready = false;
                Ok(())
            }
            Err(error) => {
                child.kill().ok();
                child.wait().ok();
                Err(error)
            }
        }
    }

    /// Pulls the plug: QEMU gets no chance to finish anything.
    pub fn power_cut(&mut self) -> Result<()> {
        let Some(mut powered) = self.power.take() else {
            return Err(Error::MachineOff { machine: self.name.clone() });
        };
        let killed = powered.child.kill().and_then(|()| powered.child.wait());
        for reader in powered.readers {
            reader.join().ok();
        }
        killed.map(drop).map_err(Error::io("kill the qemu of", &self.folder))
    }

    /// Switches off between two instructions of the guest; all that it wrote is in the disk file.
    pub fn power_off(&mut self) -> Result<()> {
        let deadline = self.deadline(limits::QMP);
        self.qmp()?.command("stop", deadline)?;
        self.power_cut()
    }

    /// Gives the firmware an empty variable store, as a dead battery or a firmware update does. The machine must be off.
    pub fn forget_variables(&mut self) -> Result<()> {
        self.hardware.firmware.fresh_vars(&self.vars())
    }

    /// Waits until the guest resets itself, or is reset by its firmware or watchdog.
    pub fn wait_for_reset(&mut self, virtual_time: Duration) -> Result<()> {
        let deadline = self.deadline(virtual_time);
        self.qmp()?.event("RESET", deadline)?;
        self.console_ready = false;
        Ok(())
    }

    /// Whether it goes on without a reset, from now on and for so long. One that has ended meanwhile is an error.
    pub fn stands_still(&mut self, virtual_time: Duration) -> Result<bool> {
        self.forget_resets()?;
        match self.wait_for_reset(virtual_time) {
            Ok(()) => Ok(false),
            // It still answers.
            Err(_) => self.resets().map(|_| true),
        }
    }

    /// The next reset that is waited for is one that comes from now on.
    pub fn forget_resets(&mut self) -> Result<()> {
        // Those that came before are told first.
        self.resets()?;
        self.qmp()?.forget("RESET");
        Ok(())
    }

    /// How often the machine was reset since it was switched on.
    pub fn resets(&mut self) -> Result<usize> {
        self.events("RESET")
    }

    /// How often the watchdog has bitten since the machine was switched on.
    pub fn watchdog_bites(&mut self) -> Result<usize> {
        self.events("WATCHDOG")
    }

    fn events(&mut self, name: &str) -> Result<usize> {
        let deadline = self.deadline(limits::QMP);
        let qmp = self.qmp()?;
        // Any answer brings all events before it.
        qmp.command("query-status", deadline)?;
        Ok(qmp.events_so_far(name))
    }

    /// A writer to the console, for the one who types there.
    pub(crate) fn console_line(&self) -> Result<&UnixStream> {
        self.power
            .as_ref()
            .map(|powered| &powered.console)
            .ok_or_else(|| Error::MachineOff { machine: self.name.clone() })
    }

    /// Where the memory of a machine passes through that is forked, or is a fork.
    pub(crate) fn memory(&self) -> PathBuf {
        self.folder.join("memory")
    }

    pub(crate) fn qmp(&mut self) -> Result<&mut Qmp> {
        match self.power.as_mut() {
            Some(powered) => Ok(&mut powered.qmp),
            None => Err(Error::MachineOff { machine: self.name.clone() }),
        }
    }

    /// The firmware's variable store; a file that is there for UEFI machines only.
    #[must_use]
    pub fn vars(&self) -> PathBuf {
        self.folder.join("vars.fd")
    }

    /// Keeps disk and variables as they are, under `name`, to be put back later. A machine that runs stands still meanwhile.
    pub fn keep(&mut self, name: &str) -> Result<Kept> {
        let kept = Kept {
            disk: self.folder.join(format!("{name}.img")),
            vars: self.folder.join(format!("{name}.fd")),
        };
        let deadline = self.deadline(limits::QMP);
        if let Some(powered) = self.power.as_mut() {
            powered.qmp.command("stop", deadline)?;
        }
        copy_sparse(&self.disk(), &kept.disk)?;
        if self.vars().exists() {
            copy_sparse(&self.vars(), &kept.vars)?;
        }
        if let Some(powered) = self.power.as_mut() {
            powered.qmp.command("cont", deadline)?;
        }
        Ok(kept)
    }

    /// Puts disk and variables back as they were kept. The machine must be off.
    pub fn put_back(&mut self, kept: &Kept) -> Result<()> {
        copy_sparse(&kept.disk, &self.disk())?;
        self.put_variables_back(kept)
    }

    /// Puts only the firmware's variables back. The machine must be off.
    pub fn put_variables_back(&mut self, kept: &Kept) -> Result<()> {
        if kept.vars.exists() { copy_sparse(&kept.vars, &self.vars()) } else { Ok(()) }
    }

    fn options(&self, sockets: &Path) -> Vec<String> {
        let socket = |id: &str| {
            let path = escaped(&sockets.join(id));
            let log = escaped(&self.folder.join(match id {
                "log" => "serial.log",
                other => other,
            }));
            match id {
                "monitor" => format!("socket,id={id},path={path}"),
                "console" => format!("socket,id={id},path={path},logfile={log}.log,logappend=on"),
                _ => format!("socket,id={id},path={path},logfile={log},logappend=on"),
            }
        };
        let mut options: Vec<String> = self.accelerator.options().map(str::to_owned).into();
        options.extend(self.hardware.options(&self.vars()));
        options.extend(["-name".to_owned(), escaped(Path::new(&self.name))]);
        options.extend(["-m".to_owned(), limits::MACHINE_MEMORY_MIB.to_string()]);
        options.extend(
            ["-nodefaults", "-no-user-config", "-display", "none", "-rtc", "base=utc"].map(str::to_owned),
        );
        // No host fsync on a guest flush: the fault played here is the death of QEMU, which the host's page cache
        // survives in either mode, so the flush would cost time and prove nothing.
        options.extend([
            "-drive".to_owned(),
            format!("if=virtio,format=raw,cache=unsafe,file={}", escaped(&self.disk())),
        ]);
        options.extend(
            ["-netdev", "user,id=net", "-device", "virtio-net-pci,netdev=net,romfile="].map(str::to_owned),
        );
        for (id, line) in [
            ("log", ["-serial", "chardev:log"]),
            ("console", ["-serial", "chardev:console"]),
            ("monitor", ["-mon", "chardev=monitor,mode=control"]),
        ] {
            options.extend(["-chardev".to_owned(), socket(id)]);
            options.extend(line.map(str::to_owned));
        }
        options
    }

    fn connect(
        &self,
        child: &mut Child,
        log: &UnixListener,
        console: &UnixListener,
        monitor: &UnixListener,
    ) -> Result<(Qmp, UnixStream, Vec<JoinHandle<()>>)> {
        let deadline = Instant::now() + limits::QEMU_START;
        let log = self.accept(child, log, deadline)?;
        let console = self.accept(child, console, deadline)?;
        let monitor = self.accept(child, monitor, deadline)?;
        let heard = console.try_clone().map_err(Error::io("clone the console socket of", &self.folder))?;
        let readers = vec![self.log.listen(log)?, self.console.listen(heard)?];
        let qmp = Qmp::open(monitor, &self.folder.join("qemu.log"), deadline)?;
        Ok((qmp, console, readers))
    }

    /// Waits for QEMU to connect; notices when it ends instead.
    fn accept(&self, child: &mut Child, listener: &UnixListener, deadline: Instant) -> Result<UnixStream> {
        let io = |source| Error::Io { deed: "wait for qemu in", subject: self.folder.clone(), source };
        loop {
            let mut wanted = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
            if poll(&mut wanted, PollTimeout::from(50_u8)).map_err(|errno| io(errno.into()))? > 0 {
                return listener.accept().map(|(stream, _)| stream).map_err(io);
            }
            if child.try_wait().map_err(io)?.is_some() || Instant::now() >= deadline {
                return Err(self.ended());
            }
        }
    }

    fn ended(&self) -> Error {
        let mut words = String::new();
        let file = File::open(self.folder.join("qemu.log"));
        file.and_then(|file| file.take(limits::QEMU_WORDS_BYTES).read_to_string(&mut words)).ok();
        Error::MachineEnded { machine: self.name.clone(), last_words: process::last_words(&words) }
    }
}

/// Disk and variables of a machine at one moment. Its files go with it.
#[derive(Debug)]
pub struct Kept {
    /// The disk.
    pub disk: PathBuf,
    vars: PathBuf,
}

impl Drop for Kept {
    fn drop(&mut self) {
        fs::remove_file(&self.disk).ok();
        fs::remove_file(&self.vars).ok();
    }
}

pub(crate) fn copy_sparse(from: &Path, to: &Path) -> Result<()> {
    process::run(Command::new("cp").args(["--reflink=auto", "--sparse=always", "--"]).arg(from).arg(to))
        .map(drop)
}

impl Drop for Machine {
    /// The process goes, and so does the disk, which is large; the logs stay.
    fn drop(&mut self) {
        if self.power.is_some() {
            self.power_cut().ok();
        }
        fs::remove_file(self.disk()).ok();
    }
}
