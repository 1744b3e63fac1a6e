//! The Raspberry Pi's firmware as a [`Loader`]: `autoboot.txt` and the one-shot reboot flag.
//!
//! Source: "autoboot.txt" in the Raspberry Pi documentation: `boot_partition` in `[all]` is where the firmware starts, the one in
//! `[tryboot]` where it starts when the machine was rebooted with the flag `tryboot`; the flag is cleared before anything is
//! started, so any reset falls back. The section `[tryboot]` always names the other bank: so a confirm is one write of one
//! sector, in place, and the file system around the file is never written.

use super::{Loader, LoaderError, Spare, guarded::Guarded};
use crate::{
    bank::{Bank, PerBank},
    error::{Error, Result},
    limits::MAX_AUTOBOOT_BYTES,
    record::Medium,
};

const STRUCTURE: &str = "autoboot.txt";
const ALL: &str = "[all]";
const TRYBOOT: &str = "[tryboot]";
const ENABLED: &str = "tryboot_a_b";
const PARTITION: &str = "boot_partition";

/// The flag that the firmware is given at the next orderly reboot, and only then (`reboot "0 tryboot"`).
pub trait RebootFlag {
    /// What can go wrong there.
    type Error;
    /// Whether the next reboot carries it.
    fn armed(&mut self) -> Result<bool, Self::Error>;
    /// The next reboot carries it.
    fn arm(&mut self) -> Result<(), Self::Error>;
    /// The next reboot does not carry it.
    fn disarm(&mut self) -> Result<(), Self::Error>;
}

/// What an `autoboot.txt` says, and the lines that are not Roro's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Autoboot {
    lines: Vec<String>,
}

impl Autoboot {
    /// The file for partitions by number.
    #[must_use]
    pub fn new(default: u32, tryboot: u32) -> Self {
        let mut made = Self { lines: Vec::new() };
        made.set(default, tryboot);
        made
    }

    /// Reads a file; line ends of both kinds, padding at the end.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        if bytes.len() > MAX_AUTOBOOT_BYTES {
            return Err(Error::TooLarge {
                structure: STRUCTURE,
                value: bytes.len() as u64,
                limit: MAX_AUTOBOOT_BYTES as u64,
            });
        }
        let text = std::str::from_utf8(bytes).map_err(|_| Error::malformed(STRUCTURE, "it is no text"))?;
        if text.contains('\0') {
            return Err(Error::malformed(STRUCTURE, "it is no text"));
        }
        let mut lines: Vec<String> = text.lines().map(|line| line.trim().to_owned()).collect();
        while lines.last().is_some_and(String::is_empty) {
            lines.pop();
        }
        Ok(Self { lines })
    }

    /// The partition that starts without the flag.
    #[must_use]
    pub fn default_partition(&self) -> Option<u32> {
        self.value(ALL, PARTITION)?.parse().ok()
    }

    /// The partition that starts with the flag.
    #[must_use]
    pub fn tryboot_partition(&self) -> Option<u32> {
        self.value(TRYBOOT, PARTITION)?.parse().ok()
    }

    fn is(&self, default: u32, tryboot: u32) -> bool {
        self.default_partition() == Some(default)
            && self.tryboot_partition() == Some(tryboot)
            && self.value(ALL, ENABLED) == Some("1")
    }

    /// The lines of a section with their places; what stands before any section belongs to `[all]`.
    fn section(&self, wanted: &'static str) -> impl Iterator<Item = (usize, &str)> {
        let mut section = ALL;
        self.lines.iter().enumerate().filter_map(move |(at, line)| {
            if line.starts_with('[') {
                section = line;
            }
            section.eq_ignore_ascii_case(wanted).then_some((at, line.as_str()))
        })
    }

    /// The last one counts, as in all files of this firmware.
    fn value(&self, section: &'static str, key: &str) -> Option<&str> {
        self.section(section).filter_map(|(_, line)| value_of(line, key)).last()
    }

    fn set(&mut self, default: u32, tryboot: u32) {
        self.put(ALL, ENABLED, 1);
        self.put(ALL, PARTITION, default);
        self.put(TRYBOOT, PARTITION, tryboot);
    }

    fn put(&mut self, section: &'static str, key: &str, value: u32) {
        let line = format!("{key}={value}");
        let there: Vec<usize> = self
            .section(section)
            .filter(|(_, line)| value_of(line, key).is_some())
            .map(|(at, _)| at)
            .collect();
        let end = self.section(section).last().map(|(at, _)| at + 1);
        match (there.last().and_then(|at| self.lines.get_mut(*at)), end) {
            (Some(old), _) => *old = line,
            (None, Some(end)) => self.lines.insert(end, line),
            (None, None) => self.lines.extend([section.to_owned(), line]),
        }
    }

    /// The file, filled with empty lines up to `file_bytes`: its length never changes.
    pub fn render(&self, file_bytes: usize) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        for line in &self.lines {
            bytes.extend(line.bytes());
            bytes.push(b'\n');
        }
        if bytes.len() > file_bytes || file_bytes > MAX_AUTOBOOT_BYTES {
            return Err(Error::malformed(
                STRUCTURE,
                format!(
                    "{} bytes do not fit into the {file_bytes} that the file has: make it with {MAX_AUTOBOOT_BYTES} bytes, filled with empty lines",
                    bytes.len()
                ),
            ));
        }
        bytes.resize(file_bytes, b'\n');
        Ok(bytes)
    }
}

fn value_of<'l>(line: &'l str, key: &str) -> Option<&'l str> {
    line.split_once('=').filter(|(name, _)| name.trim() == key).map(|(_, value)| value.trim())
}

/// The Raspberry Pi's firmware, told through `autoboot.txt`.
#[derive(Debug, Clone)]
pub struct Tryboot<M, F> {
    file: Guarded<M>,
    file_bytes: usize,
    partitions: PerBank<u32>,
    flag: F,
}

impl<M: Medium, F: RebootFlag<Error = M::Error>> Tryboot<M, F> {
    /// The medium from the start of the file's content, which lies in one piece and within one sector; its length; the numbers of the
    /// banks' boot partitions; and the flag.
    #[must_use]
    pub fn new(file: M, file_bytes: usize, partitions: PerBank<u32>, flag: F) -> Self {
        Self { file: Guarded::new(file), file_bytes, partitions, flag }
    }

    /// The medium.
    pub fn medium(&self) -> &M {
        self.file.medium()
    }

    /// The reboot flag.
    pub fn flag(&self) -> &F {
        &self.flag
    }

    fn point_at(&mut self, first: Bank) -> Result<(), LoaderError<M::Error>> {
        if self.file_bytes > MAX_AUTOBOOT_BYTES {
            return Err(Error::TooLarge {
                structure: STRUCTURE,
                value: self.file_bytes as u64,
                limit: MAX_AUTOBOOT_BYTES as u64,
            }
            .into());
        }
        let bytes = self.file.read(0, self.file_bytes)?;
        let (default, tryboot) = (*self.partitions.get(first), *self.partitions.get(!first));
        // What names no partition is rotten: nothing in it is worth keeping.
        let found = Autoboot::parse(&bytes).ok().filter(|text| text.default_partition().is_some());
        let mut text = found.unwrap_or(Autoboot { lines: Vec::new() });
        if text.is(default, tryboot) {
            return Ok(());
        }
        text.set(default, tryboot);
        let wanted = text.render(self.file_bytes)?;
        self.file.write(0, &wanted)
    }

    fn withdraw(&mut self) -> Result<(), LoaderError<M::Error>> {
        if self.flag_is_armed()? {
            self.flag.disarm().map_err(|source| LoaderError::Medium { deed: "withdraw", source })?;
        }
        Ok(())
    }

    fn flag_is_armed(&mut self) -> Result<bool, LoaderError<M::Error>> {
        self.flag.armed().map_err(|source| LoaderError::Medium { deed: "read", source })
    }
}

impl<M: Medium, F: RebootFlag<Error = M::Error>> Loader for Tryboot<M, F> {
    type Error = LoaderError<M::Error>;

    fn next(&mut self) -> Result<Option<Bank>, Self::Error> {
        if !self.flag_is_armed()? {
            return Ok(None);
        }
        let bytes = self.file.read(0, self.file_bytes.min(MAX_AUTOBOOT_BYTES))?;
        let tried = Autoboot::parse(&bytes).ok().and_then(|text| text.tryboot_partition());
        Ok(Bank::BOTH.into_iter().find(|bank| tried == Some(*self.partitions.get(*bank))))
    }

    fn set_next(&mut self, bank: Bank) -> Result<(), Self::Error> {
        // Whatever was armed before means another bank as soon as the file is changed.
        self.point_at(!bank)?;
        if self.flag_is_armed()? {
            return Ok(());
        }
        self.flag.arm().map_err(|source| LoaderError::Medium { deed: "arm", source })
    }

    fn set_default(&mut self, first: Bank, _: Spare) -> Result<(), Self::Error> {
        // The flag first: with a changed file it would try the bank that was the default.
        self.withdraw()?;
        self.point_at(first)
    }
}
