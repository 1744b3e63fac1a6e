//! The record: what the device knows about its banks, in two copies.
//!
//! ```text
//! 64 KiB; copy 0 at 0, copy 1 at 32 KiB; a copy:
//! 8   magic "RoroRec1"
//! 2   format
//! 2   min_reader
//! 4   payload bytes
//! 8   sequence
//! 4   CRC-32 of everything above and the payload
//! 4   zero
//! n   payload: JSON
//! ```
//!
//! [`Store::commit`] writes the stale copy, flushes, writes the other, flushes: at every instant one copy is whole, and
//! afterwards either copy alone is enough. Unknown fields are carried along, so that the agent of an older release does
//! not lose what a newer one wrote.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

mod store;

pub use store::{Loaded, Medium, Store, StoreError};

use crate::{
    bank::{Bank, PerBank},
    digest::Digest256,
    error::{Error, Result},
    header::Reader,
    json,
    limits::{MAX_REASON_BYTES, MAX_RECORD_PAYLOAD_BYTES},
    loader::Spare,
    manifest::Tree,
    release::{Release, Version},
};

/// Bytes of the record, both copies.
pub const RECORD_BYTES: usize = 64 << 10;
/// Bytes of one copy.
pub const COPY_BYTES: usize = RECORD_BYTES / 2;
const HEAD_BYTES: usize = 32;
const MAGIC: [u8; 8] = *b"RoroRec1";
const FORMAT: u16 = 1;
const STRUCTURE: &str = "record";

/// What a bank is good for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BankState {
    /// Nothing was ever written here, or it was given up.
    #[default]
    Empty,
    /// A write has begun and has not been verified: not bootable.
    Writing,
    /// Complete and read back, never confirmed.
    Written,
    /// It was confirmed: it boots, and may be fallen back to.
    Confirmed,
    /// Its trial failed.
    Failed,
}

/// How an image in a bank can be checked without the bundle that brought it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageProof {
    /// Bytes of data.
    pub bytes: u64,
    /// Root of the tree over it.
    pub verity_root: Digest256,
    /// Salt, hexadecimal.
    pub salt: String,
    /// Whether the tree lies behind the data; unknown in records of before this was noted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tree: Option<Tree>,
}

/// What a bank holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BankRecord {
    /// What it is good for.
    pub state: BankState,
    /// Which release; in an empty bank, the one that was given up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release: Option<Release>,
    /// SHA-256 of the manifest that brought it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest: Option<Digest256>,
    /// The floor that its release demands at confirm.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub floor: Option<Version>,
    /// Its images by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub images: BTreeMap<String, ImageProof>,
    /// The boot loader could not start it, and its initrd has not run since: no spare that firmware may begin with.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub does_not_start: bool,
    /// What a newer version wrote.
    #[serde(flatten)]
    pub extra: BTreeMap<String, Value>,
}

/// How far a trial is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TrialPhase {
    /// The next reboot tries it.
    Armed,
    /// It was booted at least once.
    Started,
    /// Its health gate passed; the loader is being told.
    Healthy,
    /// It failed, and is not tried again.
    Failed,
}

/// Why a bank is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Purpose {
    /// A release was installed.
    Update,
    /// A person asked for the other bank.
    Rollback,
}

/// A boot that is not yet confirmed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trial {
    /// Which bank.
    pub bank: Bank,
    /// How far.
    pub phase: TrialPhase,
    /// Why.
    pub purpose: Purpose,
    /// Boots that may still be tried.
    pub tries_left: u32,
    /// Boots that were tried.
    pub tries_made: u32,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What a newer version wrote.
    #[serde(flatten)]
    pub extra: BTreeMap<String, Value>,
}

/// A deed that was begun.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    /// `install` or `rollback`.
    pub deed: String,
    /// Of which release.
    pub release: Release,
    /// Into which bank.
    pub bank: Bank,
}

/// How the last deed ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// The trial was confirmed.
    Confirmed,
    /// The trial failed; the old bank runs.
    FellBack,
    /// The release that had been installed was withdrawn before it was tried.
    Cancelled,
    /// The confirmed bank could not be booted any more; the other one runs.
    BankLost,
    /// Both copies of the record were lost; it was made anew from what runs.
    RecordRebuilt,
}

/// How the last deed ended, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastResult {
    /// How.
    pub outcome: Outcome,
    /// Of which release.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release: Option<Release>,
    /// Why, in one line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// File with the log of that boot, on the state partition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<String>,
}

/// What the device knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The bank to boot when nothing is on trial.
    pub confirmed: Bank,
    /// What the banks hold.
    pub banks: PerBank<BankRecord>,
    /// The lowest version that may still be installed or booted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub floor: Option<Version>,
    /// The boot that is not yet confirmed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trial: Option<Trial>,
    /// Boots of the confirmed bank since one was settled.
    #[serde(default)]
    pub unsettled_boots: u32,
    /// Why the last early boot of the confirmed bank failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot_failure: Option<String>,
    /// A boot went on and has not ended in order since.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unclean: bool,
    /// Redirects since a boot went on.
    #[serde(default)]
    pub redirects: u32,
    /// Times that one bank took the other's place since a boot was settled.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub losses: u32,
    /// The deed that was begun and has not ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interrupted: Option<Intent>,
    /// How the last one ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_result: Option<LastResult>,
    /// What a newer version wrote.
    #[serde(flatten)]
    pub extra: BTreeMap<String, Value>,
}

impl Record {
    /// A record founded on the release that runs, or that a factory disk carries, in `bank`.
    #[must_use]
    pub fn founded_on(bank: Bank, release: Option<Release>, images: BTreeMap<String, ImageProof>) -> Self {
        let mut banks = PerBank::<BankRecord>::default();
        let floor = release.as_ref().map(|release| release.version.clone());
        *banks.get_mut(bank) =
            BankRecord { state: BankState::Confirmed, release, images, ..Default::default() };
        Self {
            confirmed: bank,
            banks,
            floor,
            trial: None,
            unsettled_boots: 0,
            boot_failure: None,
            unclean: false,
            redirects: 0,
            losses: 0,
            interrupted: None,
            last_result: None,
            extra: BTreeMap::new(),
        }
    }

    /// Whether this bank may take the place of the other: it was confirmed once, and the floor has not risen above it.
    #[must_use]
    pub fn may_take_over(&self, bank: Bank) -> bool {
        let here = self.banks.get(bank);
        let below = here.release.as_ref().is_some_and(|release| Some(&release.version) < self.floor.as_ref());
        match here.state {
            BankState::Confirmed => !below,
            BankState::Empty | BankState::Writing | BankState::Written | BankState::Failed => false,
        }
    }

    /// What the boot loader is told of this bank as the spare of the other.
    #[must_use]
    pub fn as_spare(&self, bank: Bank) -> Spare {
        if self.may_take_over(bank) && !self.banks.get(bank).does_not_start {
            Spare::Bootable
        } else {
            Spare::Unbootable
        }
    }

    /// A system is up: whatever early boot counted is over.
    pub fn settle(&mut self) {
        self.unsettled_boots = 0;
        self.boot_failure = None;
        self.redirects = 0;
        self.losses = 0;
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks like this")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// Cuts a reason to one line that fits the record.
#[must_use]
pub fn reason_line(text: &str) -> String {
    let mut line: String =
        text.lines().map(str::trim).filter(|l| !l.is_empty()).collect::<Vec<_>>().join("; ");
    if line.len() > MAX_REASON_BYTES {
        let end = (0..=MAX_REASON_BYTES).rev().find(|at| line.is_char_boundary(*at)).unwrap_or(0);
        line.truncate(end);
    }
    line
}

/// The bytes of one copy, padded with zeros to a multiple of 4096.
pub fn encode_copy(record: &Record, sequence: u64) -> Result<Vec<u8>> {
    let payload = serde_json::to_vec(record)
        .map_err(|source| Error::Encode { structure: STRUCTURE, source: Box::new(source) })?;
    if payload.len() > MAX_RECORD_PAYLOAD_BYTES {
        return Err(Error::TooLarge {
            structure: STRUCTURE,
            value: payload.len() as u64,
            limit: MAX_RECORD_PAYLOAD_BYTES as u64,
        });
    }
    let mut bytes = Vec::with_capacity(COPY_BYTES);
    bytes.extend(MAGIC);
    bytes.extend(FORMAT.to_le_bytes());
    bytes.extend(FORMAT.to_le_bytes());
    bytes.extend((payload.len() as u32).to_le_bytes());
    bytes.extend(sequence.to_le_bytes());
    let mut crc = crc32fast::Hasher::new();
    crc.update(&bytes);
    crc.update(&payload);
    bytes.extend(crc.finalize().to_le_bytes());
    bytes.extend(0u32.to_le_bytes());
    bytes.extend(payload);
    bytes.resize(bytes.len().next_multiple_of(4096), 0);
    Ok(bytes)
}

/// What one copy says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Copy {
    /// A whole record with its sequence number.
    Good(u64, Box<Record>),
    /// Only zeros: never written.
    Blank,
    /// Torn or damaged.
    Torn(String),
}

/// Reads one copy of [`COPY_BYTES`] bytes. A copy of a newer format is an error: it must not be taken for a torn one.
pub fn decode_copy(bytes: &[u8]) -> Result<Copy> {
    if bytes.iter().all(|byte| *byte == 0) {
        return Ok(Copy::Blank);
    }
    match decode_head(bytes) {
        Ok((sequence, payload)) => Ok(match decode_payload(payload) {
            Ok(record) => Copy::Good(sequence, Box::new(record)),
            Err(error) => Copy::Torn(error.to_string()),
        }),
        Err(error @ Error::NewerFormat { .. }) => Err(error),
        Err(error) => Ok(Copy::Torn(error.to_string())),
    }
}

fn decode_head(bytes: &[u8]) -> Result<(u64, &[u8])> {
    let mut reader = Reader::new(STRUCTURE, bytes);
    if reader.array::<8>()? != MAGIC {
        return Err(Error::WrongMagic { structure: STRUCTURE });
    }
    let _format = reader.u16()?;
    let min_reader = reader.u16()?;
    let payload_bytes = reader.u32()? as usize;
    let sequence = reader.u64()?;
    let crc = reader.u32()?;
    let _zero = reader.u32()?;
    let payload = reader
        .rest()
        .get(..payload_bytes)
        .ok_or_else(|| Error::malformed(STRUCTURE, "its length is beyond it"))?;
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(bytes.get(..HEAD_BYTES - 8).unwrap_or_default());
    hasher.update(payload);
    if hasher.finalize() != crc {
        return Err(Error::malformed(STRUCTURE, "checksum does not match"));
    }
    if min_reader > FORMAT {
        return Err(Error::NewerFormat { structure: STRUCTURE, min_reader, supported: FORMAT });
    }
    Ok((sequence, payload))
}

fn decode_payload(payload: &[u8]) -> Result<Record> {
    serde_json::from_value(json::parse(STRUCTURE, payload)?)
        .map_err(|source| Error::Json { structure: STRUCTURE, source })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(crate) fn record(version: u64) -> Record {
        let release = Release { name: "demo".into(), version: Version::new(version, 0, 0) };
        Record::founded_on(Bank::A, Some(release), BTreeMap::new())
    }

    #[test]
    fn unknown_fields_are_carried_along_and_a_newer_format_is_refused() {
        let mut value = serde_json::to_value(record(1)).unwrap();
        value["later"] = serde_json::json!({"x": 1});
        value["banks"]["a"]["later"] = 7.into();
        let with_more: Record = serde_json::from_value(value.clone()).unwrap();
        assert_eq!(serde_json::to_value(&with_more).unwrap(), value);
        let mut bytes = encode_copy(&record(1), 1).unwrap();
        bytes.resize(COPY_BYTES, 0);
        bytes[10] = 2;
        let payload_bytes = u32::from_le_bytes(bytes[12..16].try_into().unwrap()) as usize;
        let mut crc = crc32fast::Hasher::new();
        crc.update(&bytes[..24]);
        crc.update(&bytes[32..32 + payload_bytes]);
        bytes[24..28].copy_from_slice(&crc.finalize().to_le_bytes());
        assert!(matches!(decode_copy(&bytes), Err(Error::NewerFormat { .. })));
    }

    #[test]
    fn reasons_become_one_line_of_bounded_length() {
        assert_eq!(reason_line("a\n\n  b \n"), "a; b");
        assert_eq!(reason_line(&"é".repeat(2000)).len(), MAX_REASON_BYTES);
    }

    proptest! {
        #[test]
        fn never_panics(mut bytes in proptest::collection::vec(any::<u8>(), 0..600), magic in any::<bool>()) {
            if magic && bytes.len() > 8 {
                bytes[..8].copy_from_slice(&MAGIC);
            }
            let _ = decode_copy(&bytes);
        }
    }
}
