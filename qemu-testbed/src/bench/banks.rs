//! Two banks on loop devices: the running one holds v1, the target takes the update.
//!
//! A device is detached at once and stays only as long as we hold it open, so that nothing is left behind however we end.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    error::{Error, Result},
    limits, process,
};

/// A loop device over a file of its own.
#[derive(Debug)]
pub struct Loop {
    node: PathBuf,
    backing: PathBuf,
    /// Ends the device when closed.
    _open: File,
}

/// What a bank holds before an install.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Before {
    /// Zeros.
    Wiped,
    /// What the running bank holds.
    Old,
    /// Bytes that no image has.
    Noise,
}

/// Both banks.
#[derive(Debug)]
pub struct Banks {
    /// Holds the old image.
    pub running: Loop,
    /// Takes the new one.
    pub target: Loop,
    noise: PathBuf,
    bytes: u64,
}

impl Loop {
    fn over(backing: PathBuf, bytes: u64) -> Result<Self> {
        // Written out, so that no install pays for finding room.
        fill(&backing, bytes, |_| ())?;
        let attach = |direct: &[&str]| {
            process::run(Command::new("losetup").args(["--find", "--show"]).args(direct).arg(&backing))
        };
        // Not every file system has direct I/O.
        let shown = attach(&["--direct-io=on"]).or_else(|_| attach(&[]))?;
        let node = PathBuf::from(String::from_utf8_lossy(&shown).trim());
        let open = File::open(&node).map_err(Error::io("open", &node))?;
        process::run(Command::new("losetup").arg("--detach").arg(&node))?;
        Ok(Loop { node, backing, _open: open })
    }

    /// `/dev/loopN`.
    #[must_use]
    pub fn node(&self) -> &Path {
        &self.node
    }

    /// `loopN`.
    #[must_use]
    pub fn name(&self) -> String {
        self.node.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    fn write(&self, image: &Path) -> Result<()> {
        let mut command = Command::new("dd");
        command.arg(format!("if={}", image.display())).arg(format!("of={}", self.node.display())).args([
            "bs=4M",
            "oflag=direct",
            "conv=notrunc,fsync",
            "status=none",
        ]);
        process::run(&mut command).map(drop)
    }

    /// Writes out and forgets what is cached of it.
    pub fn forget_cached(&self) -> Result<()> {
        process::run(Command::new("blockdev").arg("--flushbufs").arg(&self.node)).map(drop)
    }

    /// Whether the bank begins with this image.
    pub fn holds(&self, image: &Path) -> Result<bool> {
        self.forget_cached()?;
        let bank = File::open(&self.node).map_err(Error::io("open", &self.node))?;
        let image_file = File::open(image).map_err(Error::io("open", image))?;
        same(bank, image_file).map_err(Error::io("compare with the bank", image))
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        fs::remove_file(&self.backing).ok();
    }
}

impl Banks {
    /// Banks in `folder` with room for images of `image_bytes`, and `old` in the running one.
    pub fn new(folder: &Path, image_bytes: u64, old: &Path) -> Result<Self> {
        let bytes = image_bytes.saturating_add(limits::BENCH_BANK_SPARE_BYTES).next_multiple_of(1 << 20);
        let noise = folder.join("noise");
        fill(&noise, bytes, generator())?;
        let running = Loop::over(folder.join("running.bank"), bytes)?;
        running.write(old)?;
        let target = Loop::over(folder.join("target.bank"), bytes)?;
        Ok(Banks { running, target, noise, bytes })
    }

    /// Gives the target its content before an install, and forgets what is cached of both.
    pub fn reset(&self, before: Before) -> Result<()> {
        match before {
            Before::Wiped => self.wipe()?,
            // With all that a device of that kind keeps behind it.
            Before::Old => self.target.write(&self.running.node)?,
            Before::Noise => self.target.write(&self.noise)?,
        }
        self.running.forget_cached()?;
        self.target.forget_cached()
    }

    fn wipe(&self) -> Result<()> {
        let node = self.target.node();
        let mut device = fs::OpenOptions::new().write(true).open(node).map_err(Error::io("open", node))?;
        zeros(&mut device, self.bytes).and_then(|()| device.sync_all()).map_err(Error::io("wipe", node))
    }
}

fn zeros(into: &mut impl Write, bytes: u64) -> io::Result<()> {
    io::copy(&mut io::repeat(0).take(bytes), into).map(drop)
}

/// Makes a file of so many bytes; `piece` changes each piece of the one before it, beginning with zeros.
fn fill(file: &Path, bytes: u64, mut piece: impl FnMut(&mut [u8])) -> Result<()> {
    let mut out = File::create(file).map_err(Error::io("create", file))?;
    let mut buffer = vec![0_u8; limits::BENCH_PIECE_BYTES];
    let mut left = bytes;
    while left > 0 {
        piece(&mut buffer);
        let count = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        out.write_all(buffer.get(..count).unwrap_or_default()).map_err(Error::io("write", file))?;
        left = left.saturating_sub(count as u64);
    }
    out.sync_all().map_err(Error::io("write", file))
}

/// The generator xorshift64 (Marsaglia 2003): the same noise in every run.
fn generator() -> impl FnMut(&mut [u8]) {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    move |buffer| {
        for word in buffer.chunks_mut(8) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let bytes = state.to_le_bytes();
            word.copy_from_slice(bytes.get(..word.len()).unwrap_or_default());
        }
    }
}

/// Whether `one` begins with all of `other`.
fn same(mut one: impl Read, mut other: impl Read) -> io::Result<bool> {
    let mut wanted = vec![0_u8; limits::BENCH_PIECE_BYTES];
    let mut seen = vec![0_u8; limits::BENCH_PIECE_BYTES];
    loop {
        let count = read_full(&mut other, &mut wanted)?;
        let found = read_full(&mut one, seen.get_mut(..count).unwrap_or_default())?;
        if found != count || wanted.get(..count) != seen.get(..count) {
            return Ok(false);
        }
        if count == 0 {
            return Ok(true);
        }
    }
}

/// Fills the buffer unless the end comes first; gives how much there was.
pub(super) fn read_full(from: &mut impl Read, into: &mut [u8]) -> io::Result<usize> {
    let mut done = 0_usize;
    while let Some(rest) = into.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match from.read(rest)? {
            0 => break,
            count => done = done.saturating_add(count),
        }
    }
    Ok(done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bank_that_differs_anywhere_is_seen() {
        let piece = limits::BENCH_PIECE_BYTES;
        let image: Vec<u8> = (0..piece + 100).map(|at| (at % 251) as u8).collect();
        let bank = [image.clone(), vec![9; 50]].concat();
        assert!(same(&*bank, &*image).unwrap());
        for at in [0, piece - 1, piece, piece + 99] {
            let mut wrong = bank.clone();
            wrong[at] ^= 1;
            assert!(!same(&*wrong, &*image).unwrap(), "{at}");
        }
        assert!(!same(&image[..piece], &*image).unwrap());
    }

    #[test]
    fn noise_is_the_same_in_every_run_and_nowhere_zero() {
        let folder = tempfile::tempdir().unwrap();
        let (one, other) = (folder.path().join("1"), folder.path().join("2"));
        fill(&one, 100_001, generator()).unwrap();
        fill(&other, 100_001, generator()).unwrap();
        let bytes = fs::read(one).unwrap();
        assert_eq!((bytes.len(), &bytes), (100_001, &fs::read(other).unwrap()));
        assert!(bytes.chunks(16).all(|chunk| chunk.iter().any(|byte| *byte != 0)));
    }
}
