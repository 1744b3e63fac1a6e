//! The board: QEMU's `virt` with Debian's U-Boot for it, one disk, one serial line, a watchdog and a power switch.
//!
//! Knows files and QEMU. Promises what [`crate::machine`] promises: a power cut is SIGKILL, and a board that is dropped leaves no
//! process behind. U-Boot's own environment lies in the second flash, is never written, and brings the boot command.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    process::{Child, Stdio},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use crate::{
    error::{Error, Result},
    expect::{Seen, Transcript},
    firmware::escaped,
    process,
};

/// Debian's package `u-boot-qemu`.
const UBOOT: &str = "/usr/lib/u-boot/qemu_arm64/u-boot.bin";
const QEMU: &str = "qemu-system-aarch64";
/// Bytes of one flash of `virt`.
const FLASH_BYTES: u64 = 64 << 20;
/// `CONFIG_ENV_SIZE` of this U-Boot.
const OWN_ENVIRONMENT_BYTES: usize = 0x4_0000;
/// What this U-Boot has built in and cannot do without: where to load, and the console.
const BUILT_IN: &str = "\
baudrate=115200
fdt_addr_r=0x43000000
fdt_high=0xffffffff
initrd_high=0xffffffff
kernel_addr_r=0x40400000
ramdisk_addr_r=0x44000000
scriptaddr=0x40200000
stderr=pl011@9000000
stdin=pl011@9000000
stdout=pl011@9000000
";

/// One board, on or off.
#[derive(Debug)]
pub struct Board {
    folder: PathBuf,
    disk: PathBuf,
    power: Option<(Child, JoinHandle<()>)>,
    serial: Transcript,
}

impl Board {
    /// A board that is off, with this disk. Logs and flash lie in `folder`.
    pub fn assemble(folder: &Path, disk: &Path, environment: &str) -> Result<Self> {
        let board = Self {
            folder: folder.to_owned(),
            disk: disk.to_owned(),
            power: None,
            serial: Transcript::new("serial line", &folder.join("serial.log")),
        };
        let flash = board.flash();
        write_flash(&flash, environment).map_err(Error::io("write", &flash))?;
        Ok(board)
    }

    fn flash(&self) -> PathBuf {
        self.folder.join("flash.img")
    }

    /// Switches on.
    pub fn power_on(&mut self) -> Result<()> {
        if self.power.is_some() {
            return Ok(());
        }
        let words = self.folder.join("qemu.log");
        let words =
            File::options().create(true).append(true).open(&words).map_err(Error::io("open", words))?;
        let mut child = process::tied(QEMU)
            .args(self.options())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(words)
            .spawn()
            .map_err(|source| Error::Start { program: QEMU.to_owned(), source })?;
        self.serial.skip_to_end();
        match child.stdout.take() {
            Some(said) => {
                let reader = self.serial.listen(said)?;
                self.power = Some((child, reader));
                Ok(())
            }
            None => Err(Error::MachineOff { machine: QEMU.to_owned() }),
        }
    }

    fn options(&self) -> Vec<String> {
        let log = escaped(&self.folder.join("serial.log"));
        let words = [
            "-M",
            "virt",
            "-cpu",
            "cortex-a57",
            "-accel",
            "tcg",
            // Time passes by instructions: a busy host cannot make the watchdog bite, and a pause costs a fraction of its seconds.
            "-icount",
            "shift=6,sleep=off",
            "-m",
            "128",
            "-nodefaults",
            "-no-user-config",
            "-display",
            "none",
            "-serial",
            "chardev:serial",
            "-device",
            "virtio-blk-pci,drive=disk",
            // The address that the page gives to `roro_watchdog`.
            "-device",
            "i6300esb,addr=05",
            "-watchdog-action",
            "reset",
            "-bios",
            UBOOT,
        ];
        let mut options: Vec<String> = words.map(str::to_owned).into();
        options.extend([
            "-chardev".to_owned(),
            format!("stdio,id=serial,signal=off,logfile={log},logappend=on"),
            "-drive".to_owned(),
            format!("if=pflash,unit=1,format=raw,file={}", escaped(&self.flash())),
            "-drive".to_owned(),
            format!("if=none,id=disk,format=raw,cache=unsafe,file={}", escaped(&self.disk)),
        ]);
        options
    }

    /// Waits for the first of these words on the serial line.
    pub fn wait_for(&mut self, words: &[&str], at_most: Duration) -> Result<Seen> {
        self.serial.expect_any(words, Instant::now() + at_most)
    }

    /// Whether QEMU still runs.
    pub fn is_on(&mut self) -> bool {
        self.power.as_mut().is_some_and(|(child, _)| matches!(child.try_wait(), Ok(None)))
    }

    /// The end of what was said.
    #[must_use]
    pub fn tail(&self) -> String {
        self.serial.tail()
    }

    /// Pulls the plug, if it is in.
    pub fn power_cut(&mut self) -> Result<()> {
        let Some((mut child, reader)) = self.power.take() else { return Ok(()) };
        let killed = child.kill().and_then(|()| child.wait());
        reader.join().ok();
        killed.map(drop).map_err(Error::io("kill the qemu of", &self.folder))
    }
}

impl Drop for Board {
    fn drop(&mut self) {
        self.power_cut().ok();
        std::fs::remove_file(self.flash()).ok();
    }
}

/// One copy without a serial: `u32 LE CRC-32 of the data`, data. Lines of the page come after those built in.
fn write_flash(path: &Path, environment: &str) -> io::Result<()> {
    let mut data: Vec<u8> = Vec::new();
    for line in BUILT_IN.lines().chain(environment.lines()).filter(|line| line.contains('=')) {
        data.extend(line.bytes());
        data.push(0);
    }
    data.resize(OWN_ENVIRONMENT_BYTES - 4, 0);
    let mut file = File::options().read(true).write(true).create(true).truncate(true).open(path)?;
    file.set_len(FLASH_BYTES)?;
    file.seek(SeekFrom::Start(0))?;
    file.write_all(&crc32(&data).to_le_bytes())?;
    file.write_all(&data)
}

/// CRC-32 as in zlib, bit by bit: a quarter of a MiB, once for each board.
fn crc32(data: &[u8]) -> u32 {
    !data.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(
            crc ^ u32::from(*byte),
            |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 },
        )
    })
}

/// Whether U-Boot and its QEMU are installed: the suites of other rooms need neither.
pub fn installed() -> Result<()> {
    let mut magic = [0; 4];
    let found = File::open(UBOOT).and_then(|mut file| file.read_exact(&mut magic));
    found.map_err(Error::io("read", UBOOT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_that_of_zlib() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }
}
