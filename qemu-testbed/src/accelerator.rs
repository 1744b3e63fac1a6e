//! KVM or TCG: decided by starting a guest, not by looking at `/dev/kvm`.
//!
//! A device node proves nothing: nested hosts exist whose KVM runs real-mode code and dies in the firmware.
//! So the probe starts the real firmware, without a disk, with the very options of the machines to come, and waits
//! for its first words on the serial line. Everything else runs on TCG, where time limits are stretched.

use std::{
    io::Read,
    path::Path,
    process::Stdio,
    sync::{OnceLock, mpsc},
    thread,
    time::{Duration, Instant},
};

use crate::{firmware::Firmware, hardware::Hardware, limits, process};

/// How guests run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accelerator {
    /// The hardware runs them.
    Kvm,
    /// QEMU translates them.
    Tcg,
}

impl Accelerator {
    /// The one that works here. The first call probes; the answer holds for this process.
    #[must_use]
    pub fn that_works() -> Self {
        static ANSWER: OnceLock<Accelerator> = OnceLock::new();
        *ANSWER.get_or_init(|| if kvm_runs_firmware() { Accelerator::Kvm } else { Accelerator::Tcg })
    }

    /// The QEMU options for it.
    #[must_use]
    pub fn options(self) -> [&'static str; 6] {
        match self {
            Accelerator::Kvm => ["-accel", "kvm", "-cpu", "host", "-smp", "2"],
            // Emulated processors that wait for each other cost a fifth more; machines side by side use the host's cores better.
            Accelerator::Tcg => ["-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "1"],
        }
    }

    /// The point in time at which a wait of `virtual_time` is over.
    #[must_use]
    pub fn deadline(self, virtual_time: Duration) -> Instant {
        let factor = match self {
            Accelerator::Kvm => 2,
            Accelerator::Tcg => 10,
        };
        Instant::now() + virtual_time.saturating_mul(factor)
    }

    /// For people.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Accelerator::Kvm => "KVM",
            Accelerator::Tcg => "TCG (no KVM that runs a guest)",
        }
    }
}

/// Whether the firmware says something on its serial line, under KVM, within [`limits::PROBE`].
fn kvm_runs_firmware() -> bool {
    let firmware = Firmware::Uefi;
    let Some(vars) = firmware.vars_template().filter(|_| Path::new("/dev/kvm").exists()) else {
        return false;
    };
    let child = process::tied("qemu-system-x86_64")
        .args(Accelerator::Kvm.options())
        .args(["-m", "256", "-nodefaults", "-no-user-config", "-display", "none", "-snapshot"])
        .args(Hardware::USUAL.options(vars))
        .args(["-serial", "stdio"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    let Ok(mut child) = child else { return false };
    let (sender, receiver) = mpsc::channel();
    if let Some(mut output) = child.stdout.take() {
        // The thread ends with the child, which ends below.
        thread::spawn(move || {
            let mut byte = [0_u8; 1];
            let spoke = output.read(&mut byte).is_ok_and(|count| count > 0);
            sender.send(spoke).ok();
        });
    }
    let spoke = receiver.recv_timeout(limits::PROBE).unwrap_or(false);
    child.kill().ok();
    child.wait().ok();
    spoke
}
