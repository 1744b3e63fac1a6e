//! U-Boot's redundant environment as a [`Loader`]. Variables and what the boot script does with them: `docs/boot.md`.
//!
//! Two copies, each `u32 LE CRC-32 of the data`, `u8 serial`, data (`name=value\0...\0\0`). A change builds the whole block and
//! writes it over the older copy, with the next serial, as `fw_setenv` does: a torn write leaves the newer one as it was.
//! Variables that are not Roro's are carried along as they are. The names are those of RAUC, so that a device with RAUC's
//! environment is taken over as it stands.

use super::{Loader, LoaderError, Spare, guarded::Guarded};
use crate::{
    bank::Bank,
    error::{Error, Result},
    limits::{LOADER_TRIES, MAX_UBOOT_ENV_BYTES},
    record::Medium,
};

mod layout;

pub use layout::{Layout, Place};

/// Bytes of each copy where the environment has the partition `loader` to itself: one at 0, the other behind it.
pub const PARTITION_ENV_BYTES: usize = 16 << 10;
/// CRC and serial before the data.
const HEAD_BYTES: usize = 5;
const STRUCTURE: &str = "U-Boot environment";
const ORDER: &str = "BOOT_ORDER";
const TRIAL: &str = "roro_trial";

/// What the bank is called in `BOOT_ORDER`.
#[must_use]
pub fn name_of_bank(bank: Bank) -> &'static str {
    match bank {
        Bank::A => "A",
        Bank::B => "B",
    }
}

/// The variable with the boots that are left to the bank, hexadecimal.
#[must_use]
pub fn left_of_bank(bank: Bank) -> &'static str {
    match bank {
        Bank::A => "BOOT_A_LEFT",
        Bank::B => "BOOT_B_LEFT",
    }
}

/// The variables, in the order in which they stand.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Variables(Vec<Vec<u8>>);

impl Variables {
    /// Reads the data of a copy: all up to the first empty string.
    #[must_use]
    pub fn decode(data: &[u8]) -> Self {
        let entries = data.split(|byte| *byte == 0).take_while(|entry| !entry.is_empty());
        Self(entries.map(<[u8]>::to_vec).collect())
    }

    /// Reads lines of `name=value` as `mkenvimage` does (`u-boot-initial-env` is such a file): lines that are empty or begin with `#`
    /// are passed over, and a backslash before the end of a line makes that end a part of the value.
    #[must_use]
    pub fn from_lines(text: &str) -> Self {
        let mut entries = Vec::new();
        let mut entry = String::new();
        for line in text.split_inclusive('\n').filter(|line| *line != "\n" && !line.starts_with('#')) {
            if let Some(begun) = line.strip_suffix("\\\n") {
                entry.push_str(begun);
                entry.push('\n');
            } else {
                entry.push_str(line.trim_end_matches('\n'));
                entries.push(std::mem::take(&mut entry));
            }
        }
        entries.push(entry);
        entries.retain(|entry| entry.contains('=') && !entry.contains('\0'));
        Self(entries.into_iter().map(String::into_bytes).collect())
    }

    /// One copy: CRC, serial, data, zeros up to `env_bytes`.
    pub fn encode(&self, env_bytes: usize, serial: u8) -> Result<Vec<u8>> {
        let mut data = self.0.join(&0);
        data.extend([0, 0]);
        let limit = env_bytes.saturating_sub(HEAD_BYTES);
        if data.len() > limit || env_bytes > MAX_UBOOT_ENV_BYTES {
            return Err(Error::TooLarge {
                structure: STRUCTURE,
                value: data.len() as u64,
                limit: limit.min(MAX_UBOOT_ENV_BYTES) as u64,
            });
        }
        data.resize(limit, 0);
        let mut copy = crc32fast::hash(&data).to_le_bytes().to_vec();
        copy.push(serial);
        copy.extend(data);
        Ok(copy)
    }

    /// The value of a variable; of several the last, as U-Boot has it (`himport_r` in its `lib/hashtable.c`).
    #[must_use]
    pub fn get(&self, name: &str) -> Option<String> {
        let value = value_of(self.0.iter().rev().find(|entry| is_of(entry, name))?, name)?;
        Some(String::from_utf8_lossy(value).into_owned())
    }

    /// All that have a name, in their order. Bytes that are no UTF-8 become U+FFFD.
    pub fn pairs(&self) -> impl Iterator<Item = (String, String)> {
        self.0.iter().filter_map(|entry| {
            let text = String::from_utf8_lossy(entry);
            text.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()))
        })
    }

    /// Sets a variable in its place, or at the end. Other entries of that name go: one behind it would be what U-Boot reads.
    pub fn set(&mut self, name: &str, value: &str) {
        let place = self.0.iter().position(|entry| is_of(entry, name)).unwrap_or(self.0.len());
        self.remove(name);
        self.0.insert(place, format!("{name}={value}").into_bytes());
    }

    /// Removes a variable; done as well when there is none.
    pub fn remove(&mut self, name: &str) {
        self.0.retain(|entry| !is_of(entry, name));
    }

    fn tell(&mut self, first: Bank, left: [u32; 2], trial: Option<Bank>) {
        self.set(ORDER, &format!("{} {}", name_of_bank(first), name_of_bank(!first)));
        for (bank, left) in [first, !first].into_iter().zip(left) {
            self.set(left_of_bank(bank), &format!("{left:x}"));
        }
        match trial {
            Some(bank) => self.set(TRIAL, bank.letter()),
            None => self.remove(TRIAL),
        }
    }

    fn left(&self, bank: Bank) -> Option<u32> {
        let text = self.get(left_of_bank(bank))?;
        let digits = text.strip_prefix("0x").unwrap_or(&text);
        u32::from_str_radix(digits, 16).ok()
    }
}

/// Whether an entry sets this variable or, without a value, takes it away.
fn is_of(entry: &[u8], name: &str) -> bool {
    entry == name.as_bytes() || value_of(entry, name).is_some()
}

fn value_of<'e>(entry: &'e [u8], name: &str) -> Option<&'e [u8]> {
    entry.strip_prefix(name.as_bytes())?.strip_prefix(b"=")
}

/// The serial and the variables of one copy, if its checksum is right.
#[must_use]
pub fn decode_copy(bytes: &[u8]) -> Option<(u8, Variables)> {
    let (crc, rest) = bytes.split_first_chunk::<4>()?;
    let (serial, data) = rest.split_first()?;
    (crc32fast::hash(data) == u32::from_le_bytes(*crc)).then(|| (*serial, Variables::decode(data)))
}

/// Whether serial `second` is newer than `first`, as U-Boot has it: 0 follows 255, else the larger; the first of two equal ones.
fn second_is_newer(first: u8, second: u8) -> bool {
    match (first, second) {
        (u8::MAX, 0) => true,
        (0, u8::MAX) => false,
        (first, second) => second > first,
    }
}

/// U-Boot, told through its environment.
#[derive(Debug, Clone)]
pub struct UBoot<M> {
    copies: [Guarded<M>; 2],
    env_bytes: usize,
    initial: Variables,
}

impl UBoot<()> {
    /// One copy for a factory disk: `default` starts, there is no spare. Copy 0 takes serial 2, copy 1 serial 1.
    pub fn factory(default: Bank, env_bytes: usize, serial: u8) -> Result<Vec<u8>> {
        let mut variables = Variables::default();
        variables.tell(default, [LOADER_TRIES, 0], None);
        variables.encode(env_bytes, serial)
    }
}

impl<M: Medium> UBoot<M> {
    /// Both copies, each medium from the start of its copy, `env_bytes` long.
    #[must_use]
    pub fn new(copies: [M; 2], env_bytes: usize) -> Self {
        Self { copies: copies.map(Guarded::new), env_bytes, initial: Variables::default() }
    }

    /// What the environment begins with when no copy of it is whole: what U-Boot itself has built in (`u-boot-initial-env`). Without it
    /// that would be nothing but the variables of Roro, and a board whose boot command lies in the environment would lose it.
    #[must_use]
    pub fn with_initial(mut self, initial: Variables) -> Self {
        self.initial = initial;
        self
    }

    /// The media.
    pub fn media(&self) -> [&M; 2] {
        self.copies.each_ref().map(Guarded::medium)
    }

    /// What U-Boot will read: the newer whole copy, else the built-in variables.
    pub fn variables(&mut self) -> Result<Variables, LoaderError<M::Error>> {
        Ok(self.newest()?.variables)
    }

    fn newest(&mut self) -> Result<Newest, LoaderError<M::Error>> {
        if !(HEAD_BYTES + 2..=MAX_UBOOT_ENV_BYTES).contains(&self.env_bytes) {
            let detail = format!("{} bytes are no size for it", self.env_bytes);
            return Err(Error::malformed(STRUCTURE, detail).into());
        }
        let mut found = Vec::new();
        let mut unread = None;
        for (copy, medium) in self.copies.iter_mut().enumerate() {
            match medium.read(0, self.env_bytes) {
                Ok(bytes) => {
                    found.extend(decode_copy(&bytes).map(|(serial, variables)| (copy, serial, variables)));
                }
                // A rotten sector under one copy must not take the other with it.
                Err(error) => unread = Some(error),
            }
        }
        if let ([(_, first, _), (_, second, _)], true) = (found.as_slice(), found.len() == 2) {
            let older = if second_is_newer(*first, *second) { 0 } else { 1 };
            found.remove(older);
        }
        match (found.pop(), unread) {
            (Some((copy, serial, variables)), _) => {
                Ok(Newest { whole: true, serial, stale: 1 - copy, variables })
            }
            (None, Some(error)) => Err(error),
            (None, None) => Ok(Newest { whole: false, serial: 0, stale: 0, variables: self.initial.clone() }),
        }
    }

    fn tell(
        &mut self,
        first: Bank,
        left: [u32; 2],
        trial: Option<Bank>,
    ) -> Result<(), LoaderError<M::Error>> {
        let newest = self.newest()?;
        let mut wanted = newest.variables.clone();
        wanted.tell(first, left, trial);
        if newest.whole && wanted == newest.variables {
            return Ok(());
        }
        let bytes = wanted.encode(self.env_bytes, newest.serial.wrapping_add(1))?;
        match self.copies.get_mut(newest.stale) {
            Some(copy) => copy.write(0, &bytes),
            None => Err(Error::malformed(STRUCTURE, "it has two copies: this is a bug in Roro").into()),
        }
    }
}

#[derive(Debug)]
struct Newest {
    whole: bool,
    serial: u8,
    stale: usize,
    variables: Variables,
}

impl<M: Medium> Loader for UBoot<M> {
    type Error = LoaderError<M::Error>;

    fn next(&mut self) -> Result<Option<Bank>, Self::Error> {
        let variables = self.variables()?;
        let trial: Option<Bank> = variables.get(TRIAL).and_then(|text| text.parse().ok());
        Ok(trial.filter(|bank| variables.left(*bank).is_some_and(|left| left > 0)))
    }

    fn set_next(&mut self, bank: Bank) -> Result<(), Self::Error> {
        self.tell(bank, [1, LOADER_TRIES], Some(bank))
    }

    fn set_default(&mut self, first: Bank, spare: Spare) -> Result<(), Self::Error> {
        let spare = match spare {
            Spare::Bootable => LOADER_TRIES,
            Spare::Unbootable => 0,
        };
        self.tell(first, [LOADER_TRIES, spare], None)
    }
}
