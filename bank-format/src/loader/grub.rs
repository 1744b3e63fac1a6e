//! GRUB's environment blocks on the partition `loader`, as a [`Loader`]. Layout and what `grub.cfg` does with it: `docs/boot.md`.
//!
//! Two copies of the decision, each one write of 4096 bytes: the block, and behind it the line that GRUB's `hashsum` checks. The
//! older copy is written, with the next serial, so a torn write leaves the newer one as it was. GRUB notes what it has tried in a
//! block of its own; this code never changes that one, unless GRUB itself could not write it any more: it has no header, or the
//! [index](super::grub_index) by which GRUB finds it is gone.

use std::collections::BTreeMap;

use super::{
    Loader, LoaderError, Recovery, Spare,
    grub_index::{INDEX_BYTES, INDEX_OFFSET, index},
    guarded::Guarded,
};
use crate::{
    bank::Bank,
    digest::Digest256,
    error::{Error, Result},
    limits::{LOADER_TRIES, MAX_GRUB_SERIAL},
    record::Medium,
};

/// Bytes of an environment block: GRUB knows no other size.
pub const BLOCK_BYTES: usize = 1024;
/// Bytes of the partition `loader`.
pub const LOADER_BYTES: usize = 64 << 10;
/// Where the copies start, in bytes.
pub const COPY_OFFSETS: [u64; 2] = [0, 4096];
/// Where GRUB's own block starts, in bytes.
pub const OWN_OFFSET: u64 = 8192;
/// Bytes of a copy: one write, and no more than any flash or disk writes at once.
const COPY_BYTES: usize = 4096;
const SECTOR_BYTES: usize = 512;
const HEADER: &[u8] = b"# GRUB Environment Block\n";
const STRUCTURE: &str = "GRUB environment block";

const SERIAL: &str = "roro_serial";
const DEFAULT: &str = "roro_default";
const NEXT: &str = "roro_next";
const SPARE: &str = "roro_spare";

/// Makes a block of these variables, in this order, with the escapes of `grub-editenv`. An error where they do not fit, or a name
/// cannot be told from the rest.
pub fn encode_block<'v>(variables: impl IntoIterator<Item = (&'v str, &'v str)>) -> Result<Vec<u8>> {
    let mut block = HEADER.to_vec();
    for (name, value) in variables {
        if name.is_empty() || name.starts_with('#') || name.contains(['=', '\n', '\\', '\0']) {
            return Err(Error::malformed(STRUCTURE, format!("{name:?} is no name of a variable")));
        }
        block.extend(name.bytes());
        block.push(b'=');
        for byte in value.bytes() {
            if matches!(byte, b'\\' | b'\n') {
                block.push(b'\\');
            }
            block.push(byte);
        }
        block.push(b'\n');
    }
    if block.len() > BLOCK_BYTES {
        return Err(Error::TooLarge {
            structure: STRUCTURE,
            value: block.len() as u64,
            limit: BLOCK_BYTES as u64,
        });
    }
    block.resize(BLOCK_BYTES, b'#');
    Ok(block)
}

/// The variables of a block in their order. Bytes that are no UTF-8 become U+FFFD.
pub fn decode_block(block: &[u8]) -> Result<Vec<(String, String)>> {
    if block.len() != BLOCK_BYTES {
        return Err(Error::malformed(STRUCTURE, format!("it has {} bytes, not {BLOCK_BYTES}", block.len())));
    }
    let mut rest = block.strip_prefix(HEADER).ok_or(Error::WrongMagic { structure: STRUCTURE })?;
    let mut variables = Vec::new();
    while !rest.is_empty() {
        if rest.starts_with(b"#") {
            rest = split_line(rest).map_or(&[][..], |(_, behind)| behind);
            continue;
        }
        // As GRUB reads it: a name goes up to the next equals sign, wherever that is.
        let Some(equals) = rest.iter().position(|byte| *byte == b'=') else { break };
        let (name, value) = rest.split_at(equals);
        // A value without an end is one that was cut.
        let Some((value, behind)) = split_line(value.get(1..).unwrap_or_default()) else { break };
        variables.push((text(name), text(&unescape(value))));
        rest = behind;
    }
    Ok(variables)
}

/// The bytes before the next line end that no backslash hides, and those behind it.
fn split_line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut escaped = false;
    let end = bytes.iter().position(|byte| {
        let ends = !escaped && *byte == b'\n';
        escaped = !escaped && *byte == b'\\';
        ends
    })?;
    Some((bytes.get(..end)?, bytes.get(end + 1..)?))
}

fn unescape(value: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(value.len());
    let mut bytes = value.iter();
    while let Some(byte) = bytes.next() {
        out.extend(if *byte == b'\\' { bytes.next() } else { Some(byte) });
    }
    out
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What the next boot starts, and only that one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// As all others.
    Default,
    /// This bank.
    Bank(Bank),
    /// The integrator's `recovery.cfg`.
    Recovery,
}

impl Next {
    fn word(self) -> &'static str {
        match self {
            Self::Default => "none",
            Self::Bank(bank) => bank.letter(),
            Self::Recovery => "recovery",
        }
    }

    fn parse(word: &str) -> Option<Self> {
        let all = [Self::Default, Self::Bank(Bank::A), Self::Bank(Bank::B), Self::Recovery];
        all.into_iter().find(|next| next.word() == word)
    }
}

/// What GRUB is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision {
    /// The bank that starts.
    pub default: Bank,
    /// What the next boot tries.
    pub next: Next,
    /// Whether the bank that is not the default may take over.
    pub spare: Spare,
}

impl Decision {
    fn encode(self, copy: usize, serial: u32) -> Result<Vec<u8>> {
        let serial = serial.to_string();
        let spare = match self.spare {
            Spare::Bootable => "1",
            Spare::Unbootable => "0",
        };
        let mut bytes = encode_block([
            (SERIAL, serial.as_str()),
            (DEFAULT, self.default.letter()),
            (NEXT, self.next.word()),
            (SPARE, spare),
        ])?;
        let line = checksum_sector(copy, &bytes);
        bytes.extend(line);
        bytes.resize(COPY_BYTES, 0);
        Ok(bytes)
    }

    fn decode(copy: usize, bytes: &[u8]) -> Result<(u32, Self)> {
        let (block, rest) = bytes
            .split_at_checked(BLOCK_BYTES)
            .ok_or(Error::Truncated { structure: STRUCTURE, missing_bytes: 1 })?;
        let line = rest.get(..SECTOR_BYTES).unwrap_or_default().split(|byte| *byte == b'\n').next();
        if line.unwrap_or_default().trim_ascii_start() != checksum_line(copy, block).as_bytes() {
            return Err(Error::malformed(STRUCTURE, "checksum does not match"));
        }
        let variables: BTreeMap<String, String> = decode_block(block)?.into_iter().collect();
        let of = |name: &str| variables.get(name).map(String::as_str);
        let broken = |name: &str| Error::malformed(STRUCTURE, format!("{name} is not as it can be"));
        let serial = of(SERIAL).and_then(serial_of).ok_or_else(|| broken(SERIAL))?;
        let default = of(DEFAULT).and_then(bank_of).ok_or_else(|| broken(DEFAULT))?;
        let next = of(NEXT).and_then(Next::parse).ok_or_else(|| broken(NEXT))?;
        let spare = match of(SPARE) {
            Some("1") => Spare::Bootable,
            Some("0") => Spare::Unbootable,
            Some(_) | None => return Err(broken(SPARE)),
        };
        Ok((serial, Self { default, next, spare }))
    }
}

/// `hashsum` reads its list relative to the root device, where a name without a slash is a list of blocks: first `+` count.
fn checksum_line(copy: usize, block: &[u8]) -> String {
    let sector = COPY_OFFSETS.get(copy).copied().unwrap_or_default() / SECTOR_BYTES as u64;
    format!("{}  {sector}+{}", Digest256::of(block), BLOCK_BYTES / SECTOR_BYTES)
}

/// One sector of text: `hashsum` passes over spaces before the digest, and refuses empty lines and anything behind the last one.
fn checksum_sector(copy: usize, block: &[u8]) -> Vec<u8> {
    let line = checksum_line(copy, block);
    let mut sector = vec![b' '; SECTOR_BYTES.saturating_sub(line.len() + 1)];
    sector.extend(line.bytes());
    sector.push(b'\n');
    sector
}

fn serial_of(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|serial| digits && *serial <= MAX_GRUB_SERIAL)
}

fn bank_of(text: &str) -> Option<Bank> {
    Bank::BOTH.into_iter().find(|bank| bank.letter() == text)
}

/// What GRUB has noted in its own block.
#[derive(Debug, Default)]
struct Noted {
    serial: Option<u32>,
    left: Option<u32>,
    tried: bool,
}

impl Noted {
    /// Nothing was tried, and no boot of the default counted.
    fn is_fresh(&self) -> bool {
        self.left.is_none_or(|left| left == LOADER_TRIES) && !self.tried
    }

    fn decode(block: &[u8]) -> Result<Self> {
        let mut noted = Self::default();
        for (name, value) in decode_block(block)? {
            match name.as_str() {
                "serial" => noted.serial = serial_of(&value),
                // `x1` to `x6`, starts beyond those it has, are as little fresh as 0.
                "left" => noted.left = Some(serial_of(&value).unwrap_or_default()),
                "tried" => noted.tried = value == "1",
                _ => (),
            }
        }
        Ok(noted)
    }
}

/// GRUB, told through the partition `loader`.
#[derive(Debug, Clone)]
pub struct Grub<M> {
    medium: Guarded<M>,
}

impl Grub<()> {
    /// The 64 KiB of the partition `loader` on a factory disk: both copies start `default`, and there is no spare.
    pub fn factory(default: Bank) -> Result<Vec<u8>> {
        let decision = Decision { default, next: Next::Default, spare: Spare::Unbootable };
        let mut bytes = decision.encode(0, 2)?;
        bytes.extend(decision.encode(1, 1)?);
        bytes.extend(encode_block([])?);
        bytes.resize(usize::try_from(INDEX_OFFSET).unwrap_or_default(), 0);
        bytes.extend(index());
        bytes.resize(LOADER_BYTES, 0);
        Ok(bytes)
    }
}

impl<M: Medium> Grub<M> {
    /// The whole partition `loader`.
    #[must_use]
    pub fn new(medium: M) -> Self {
        Self { medium: Guarded::new(medium) }
    }

    /// The medium.
    pub fn medium(&self) -> &M {
        self.medium.medium()
    }

    /// What GRUB will read: the newest whole decision with its serial.
    pub fn decision(&mut self) -> Result<Option<(u32, Decision)>, LoaderError<M::Error>> {
        Ok(self.newest()?.decision)
    }

    /// The newest whole decision with its serial, and the copy to be written next.
    fn newest(&mut self) -> Result<Newest, LoaderError<M::Error>> {
        let mut newest: Newest = Newest { decision: None, stale: 0 };
        let mut unread = None;
        for (copy, offset) in COPY_OFFSETS.into_iter().enumerate() {
            let bytes = match self.medium.read(offset, COPY_BYTES) {
                Ok(bytes) => bytes,
                // A rotten sector under one copy must not take the other with it.
                Err(error) => {
                    unread = Some(error);
                    continue;
                }
            };
            if let Ok((serial, decision)) = Decision::decode(copy, &bytes)
                && newest.decision.is_none_or(|(best, _)| serial > best)
            {
                newest = Newest { decision: Some((serial, decision)), stale: 1 - copy };
            }
        }
        match (newest.decision, unread) {
            (None, Some(error)) => Err(error),
            (Some(_) | None, _) => Ok(newest),
        }
    }

    /// Nothing where it cannot be made out, or cannot be read: a rotten sector here must not keep the decision from its copy.
    fn noted(&mut self) -> Option<Noted> {
        Noted::decode(&self.medium.read(OWN_OFFSET, BLOCK_BYTES).ok()?).ok()
    }

    /// Nothing is written where GRUB would do as it is told here, with all its tries.
    fn decide(&mut self, wanted: Decision) -> Result<(), LoaderError<M::Error>> {
        let newest = self.newest()?;
        let noted = self.noted();
        let known = noted.as_ref().and_then(|noted| noted.serial);
        let fresh = noted.as_ref().is_none_or(Noted::is_fresh);
        let said = newest
            .decision
            .is_some_and(|(serial, decision)| decision == wanted && (fresh || known != Some(serial)));
        if !said {
            let mut serial = newest.decision.map_or(0, |(serial, _)| serial) + 1;
            // A copy that has rotted since may have had this serial: GRUB must not take the new decision for the one it knows.
            if known == Some(serial) {
                serial += 1;
            }
            if serial > MAX_GRUB_SERIAL {
                return Err(
                    Error::malformed(STRUCTURE, "its serials are used up: write the partition anew").into()
                );
            }
            let offset = COPY_OFFSETS.get(newest.stale).copied().unwrap_or_default();
            self.medium.write(offset, &wanted.encode(newest.stale, serial)?)?;
        }
        if noted.is_none() {
            // GRUB writes into the block that is there and cannot make one. After the decision: with a blank block the old one would
            // be as good as new, and its trial be tried again.
            self.medium.write(OWN_OFFSET, &encode_block([])?)?;
        }
        // By the index GRUB finds its own block as a file; it does not save into anything else.
        if self.medium.read(INDEX_OFFSET, INDEX_BYTES).ok() != Some(index()) {
            self.medium.write(INDEX_OFFSET, &index())?;
        }
        Ok(())
    }
}

#[derive(Debug)]
struct Newest {
    decision: Option<(u32, Decision)>,
    stale: usize,
}

impl<M: Medium> Loader for Grub<M> {
    type Error = LoaderError<M::Error>;

    fn next(&mut self) -> Result<Option<Bank>, Self::Error> {
        let Some((serial, decision)) = self.newest()?.decision else { return Ok(None) };
        let used_up = self.noted().is_some_and(|noted| noted.serial == Some(serial) && noted.tried);
        match decision.next {
            Next::Bank(bank) if !used_up => Ok(Some(bank)),
            Next::Bank(_) | Next::Default | Next::Recovery => Ok(None),
        }
    }

    fn set_next(&mut self, bank: Bank) -> Result<(), Self::Error> {
        self.decide(Decision { default: !bank, next: Next::Bank(bank), spare: Spare::Unbootable })
    }

    fn set_default(&mut self, first: Bank, spare: Spare) -> Result<(), Self::Error> {
        self.decide(Decision { default: first, next: Next::Default, spare })
    }

    fn recover(&mut self) -> Result<Recovery, Self::Error> {
        let (default, spare) = match self.newest()?.decision {
            Some((_, decision)) => (decision.default, decision.spare),
            // As the script does when it finds nothing.
            None => (Bank::A, Spare::Unbootable),
        };
        self.decide(Decision { default, next: Next::Recovery, spare }).map(|()| Recovery::Next)
    }
}
