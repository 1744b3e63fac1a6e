//! The signatures section: key ids and ed25519 signatures over the manifest.
//!
//! `u32` count, then for each signature 32 bytes of key id (SHA-256 of the key's canonical JSON, as in TUF) and
//! 64 bytes of signature, sorted by key id, no key id twice. What is signed is [`signing_message`].

use crate::{
    digest::Digest256,
    error::{Error, Result},
    header::Reader,
    limits::MAX_SIGNATURES,
};

/// Bytes of one signature with its key id.
pub const ENTRY_BYTES: u64 = 96;
/// Bytes of the largest section.
pub const MAX_SECTION_BYTES: u64 = 4 + ENTRY_BYTES * MAX_SIGNATURES as u64;
const STRUCTURE: &str = "signatures";
const DOMAIN: &[u8] = b"roro bundle manifest v1\0";

/// A signature and the key that made it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signature {
    /// Which key.
    pub key_id: Digest256,
    /// ed25519 signature, 64 bytes.
    pub signature: [u8; 64],
}

/// The bytes that a release key signs: a domain, so that no signature made for something else fits, then the manifest.
#[must_use]
pub fn signing_message(manifest: &[u8]) -> Vec<u8> {
    [DOMAIN, manifest].concat()
}

/// Bytes of a section with `count` signatures.
#[must_use]
pub fn section_bytes(count: usize) -> u64 {
    4 + ENTRY_BYTES * count as u64
}

/// The section's bytes; sorts the signatures.
#[must_use]
pub fn encode(signatures: &[Signature]) -> Vec<u8> {
    let mut sorted = signatures.to_vec();
    sorted.sort_by_key(|signature| signature.key_id);
    let mut bytes = Vec::new();
    bytes.extend((sorted.len() as u32).to_le_bytes());
    for entry in sorted {
        bytes.extend(entry.key_id.0);
        bytes.extend(entry.signature);
    }
    bytes
}

/// Reads the section. It may be empty: the threshold is checked elsewhere, and is never zero.
pub fn decode(bytes: &[u8]) -> Result<Vec<Signature>> {
    let mut reader = Reader::new(STRUCTURE, bytes);
    let count = reader.u32()? as usize;
    if count > MAX_SIGNATURES {
        return Err(Error::TooLarge {
            structure: STRUCTURE,
            value: count as u64,
            limit: MAX_SIGNATURES as u64,
        });
    }
    let mut signatures: Vec<Signature> = Vec::with_capacity(count);
    for _ in 0..count {
        let entry = Signature { key_id: Digest256(reader.array()?), signature: reader.array()? };
        if signatures.last().is_some_and(|last| last.key_id >= entry.key_id) {
            return Err(Error::malformed(STRUCTURE, "key ids are not sorted, or one signed twice"));
        }
        signatures.push(entry);
    }
    if reader.rest().is_empty() {
        Ok(signatures)
    } else {
        Err(Error::malformed(STRUCTURE, "bytes behind the last signature"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn entry(n: u8) -> Signature {
        Signature { key_id: Digest256([n; 32]), signature: [n; 64] }
    }

    #[test]
    fn round_trip_and_refusals() {
        let bytes = encode(&[entry(2), entry(1)]);
        assert_eq!(bytes.len() as u64, section_bytes(2));
        assert_eq!(decode(&bytes).unwrap(), [entry(1), entry(2)]);
        assert_eq!(decode(&encode(&[])).unwrap(), []);
        assert!(decode(&encode(&[entry(1), entry(1)])).is_err(), "duplicate signature by one key");
        assert!(decode(&bytes[..bytes.len() - 1]).is_err());
        assert!(decode(&[bytes.clone(), vec![0]].concat()).is_err());
        assert!(decode(&u32::MAX.to_le_bytes()).is_err());
        assert!(decode(&[]).is_err());
    }

    proptest! {
        #[test]
        fn never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = decode(&bytes);
        }
    }
}
