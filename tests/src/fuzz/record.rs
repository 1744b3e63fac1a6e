//! The record: its copies alone and together, what a torn write leaves of them, and the rule over what they say.

#![expect(clippy::unwrap_used, reason = "what is unwrapped was promised")]

use bank_format::{
    Bank, Error,
    limits::{MAX_REASON_BYTES, MAX_RECORD_PAYLOAD_BYTES, MAX_REDIRECTS},
    record::{
        COPY_BYTES, Copy, Loaded, RECORD_BYTES, Record, Store, StoreError, decode_copy, encode_copy,
        reason_line,
    },
    rule::{Decision, boot_failed, decide, failed_behind_the_root, image_is_rotten, stays},
};

use super::{
    Verdict,
    memory::{Memory, halves},
};

const HEAD_BYTES: usize = 32;
/// A write that the power cut tears here, in bytes.
const TORN_AT: [usize; 3] = [512, 1024, 4096];

/// The bytes as a copy, as the payload of one, and their halves as both copies.
pub(super) fn record(bytes: &[u8]) -> Verdict {
    let line = reason_line(&String::from_utf8_lossy(bytes));
    assert!(line.len() <= MAX_REASON_BYTES && !line.contains('\n'));
    let (first, second) = halves(bytes);
    store(bytes, &[]);
    store(first, second);
    store(&with_checksum(first, 1), &with_checksum(second, 2));
    copy(bytes).or(copy(&with_checksum(bytes, 7)))
}

/// A copy with this payload.
fn with_checksum(payload: &[u8], sequence: u64) -> Vec<u8> {
    let payload = &payload[..payload.len().min(COPY_BYTES - HEAD_BYTES)];
    let mut bytes = b"RoroRec1\x01\0\x01\0".to_vec();
    bytes.extend((payload.len() as u32).to_le_bytes());
    bytes.extend(sequence.to_le_bytes());
    let crc = crc32fast::hash(&[&bytes[..], payload].concat());
    bytes.extend(crc.to_le_bytes());
    bytes.extend([0; 4]);
    bytes.extend(payload);
    bytes
}

fn copy(bytes: &[u8]) -> Verdict {
    match decode_copy(&bytes[..bytes.len().min(COPY_BYTES)]) {
        Ok(Copy::Good(sequence, record)) => {
            written_again(&record, sequence);
            for bank in Bank::BOTH {
                obey(&record, bank);
            }
            Verdict::Accepted
        }
        Ok(Copy::Blank) => {
            assert!(bytes.iter().all(|byte| *byte == 0));
            Verdict::Refused
        }
        Ok(Copy::Torn(_)) | Err(Error::NewerFormat { .. }) => Verdict::Refused,
        Err(error) => {
            assert!(matches!(error, Error::NewerFormat { .. }), "{error} stops a boot");
            Verdict::Refused
        }
    }
}

/// What was read is written the same, unless it is longer than what is written.
fn written_again(record: &Record, sequence: u64) {
    match encode_copy(record, sequence) {
        Ok(bytes) => {
            assert!(bytes.len() <= COPY_BYTES && bytes.len().is_multiple_of(4096));
            assert_eq!(decode_copy(&bytes).unwrap(), Copy::Good(sequence, Box::new(record.clone())));
        }
        Err(Error::TooLarge { value, .. }) => assert!(value > MAX_RECORD_PAYLOAD_BYTES as u64),
        Err(error) => assert!(matches!(error, Error::TooLarge { .. }), "{error}"),
    }
}

/// Whatever a record says, the rule ends: a bank that is started again and again is not sent away for ever.
fn obey(record: &Record, bank: Bank) {
    for gave_up in [None, Some(bank), Some(!bank)] {
        let mut now = record.clone();
        let mut redirects = 0;
        loop {
            let (decision, next) = decide(&now, bank, gave_up);
            match decision {
                Decision::Redirect { to, reason } => {
                    assert_ne!(to, bank, "sent where it stands");
                    assert!(!reason.contains('\n'));
                    redirects += 1;
                    assert!(redirects <= MAX_REDIRECTS + 1, "sent away for ever");
                }
                Decision::Boot(_) | Decision::Stop { .. } => {
                    written_again(&next, 1);
                    break;
                }
            }
            now = next;
        }
    }
    let told = [
        Some(boot_failed(record, bank, "reason")),
        stays(record, bank),
        image_is_rotten(record, bank, "reason"),
        failed_behind_the_root(record, bank, "reason"),
    ];
    for next in told.iter().flatten() {
        written_again(next, 1);
        assert!(next.floor >= record.floor, "the floor sinks");
    }
}

/// What the whole copies with the highest sequence say.
fn newest(medium: &[u8]) -> Vec<Record> {
    let copies: Vec<(u64, Record)> = medium
        .chunks(COPY_BYTES)
        .filter_map(|copy| match decode_copy(copy) {
            Ok(Copy::Good(sequence, record)) => Some((sequence, *record)),
            Ok(Copy::Blank | Copy::Torn(_)) | Err(_) => None,
        })
        .collect();
    let highest = copies.iter().map(|(sequence, _)| *sequence).max();
    copies.into_iter().filter(|(sequence, _)| Some(*sequence) == highest).map(|(_, record)| record).collect()
}

/// Both copies on their medium: what was committed is read, by either copy alone, and a torn write leaves the old or the new.
fn store(first: &[u8], second: &[u8]) {
    let mut medium = Memory::of_bytes(first, COPY_BYTES);
    medium.bytes.extend(Memory::of_bytes(second, COPY_BYTES).bytes);
    assert_eq!(medium.bytes.len(), RECORD_BYTES);
    let before = medium.clone();
    let newest = newest(&before.bytes);
    let (mut store, old) = match Store::open(medium) {
        Ok((store, Loaded::Record(record))) => (store, record),
        Ok((_, Loaded::Blank)) => {
            assert!(before.bytes.iter().all(|byte| *byte == 0), "what was there is lost, not blank");
            return;
        }
        Ok((_, Loaded::Lost(_))) | Err(StoreError::Format(Error::NewerFormat { .. })) => return,
        Err(error) => return assert!(matches!(error, StoreError::Format(_)), "{error}"),
    };
    assert!(newest.contains(&*old), "not what the newest whole copy says");
    let mut new = *old.clone();
    new.redirects = new.redirects.wrapping_add(1);
    match store.commit(&new) {
        Ok(()) => (),
        Err(StoreError::Format(Error::TooLarge { .. })) => {
            return assert_eq!(store.into_medium(), before, "refused, and written");
        }
        Err(error) => return assert!(matches!(error, StoreError::Format(_)), "{error}"),
    }
    let after = store.into_medium();
    let [stale, other] = &after.writes[..] else { return assert_eq!(after.writes.len(), 2) };
    assert_ne!(stale.0, other.0, "one copy was written twice");
    let load = |bytes: Vec<u8>| match Store::open(Memory::new(bytes)) {
        Ok((_, Loaded::Record(record))) => Some(*record),
        Ok((_, Loaded::Blank | Loaded::Lost(_))) | Err(_) => None,
    };
    assert_eq!(load(after.bytes.clone()).as_ref(), Some(&new));
    for (offset, _) in &after.writes {
        let mut one = after.bytes.clone();
        one[*offset..][..COPY_BYTES].fill(0xee);
        assert_eq!(load(one).as_ref(), Some(&new), "the other copy alone");
    }
    for torn_at in TORN_AT {
        let mut torn = before.clone();
        torn.put(stale.0, &stale.1[..torn_at.min(stale.1.len())]);
        let found = load(torn.bytes);
        assert!(found.as_ref() == Some(&*old) || found.as_ref() == Some(&new), "torn at {torn_at}");
    }
}
