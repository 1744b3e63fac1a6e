//! The trust root: TUF `root.json` (specification 1.0, clauses 4.2, 4.3 and 5.3): keys, roles, thresholds, expiry.
//!
//! A first root is trusted because it lies in the verified image; it must still be signed by its own threshold.
//! Each next root must be signed by the thresholds of both, and be exactly one version later.
//! Deviations: only ed25519 keys are known (others are refused, as a key that cannot verify is no key), and a key id must be
//! the SHA-256 of its key. Unknown fields are ignored but covered by the signature, as the specification demands.

use std::collections::{BTreeMap, BTreeSet};

use ed25519_dalek::VerifyingKey;
use serde::Deserialize;
use serde_json::Value;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{
    digest::Digest256,
    error::{Error, Result},
    json,
    limits::{MAX_KEYS, MAX_ROOT_BYTES},
    signatures::Signature,
};

const STRUCTURE: &str = "trust root";

/// A role that signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Signs the next root.
    Root,
    /// Signs bundle manifests.
    Targets,
    /// Signs the list of metadata versions.
    Snapshot,
    /// Signs what is current.
    Timestamp,
}

impl Role {
    /// All roles.
    pub const ALL: [Self; 4] = [Self::Root, Self::Targets, Self::Snapshot, Self::Timestamp];

    /// The name in TUF metadata.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::Targets => "targets",
            Self::Snapshot => "snapshot",
            Self::Timestamp => "timestamp",
        }
    }
}

#[derive(Deserialize)]
struct Envelope {
    signatures: Vec<JsonSignature>,
    signed: Value,
}

#[derive(Deserialize)]
struct JsonSignature {
    keyid: Digest256,
    sig: String,
}

#[derive(Deserialize)]
struct Signed {
    #[serde(rename = "_type")]
    kind: String,
    spec_version: String,
    version: u64,
    expires: String,
    keys: BTreeMap<Digest256, Value>,
    roles: BTreeMap<String, RoleKeys>,
}

#[derive(Debug, Clone, Deserialize)]
struct RoleKeys {
    keyids: Vec<Digest256>,
    threshold: usize,
}

#[derive(Deserialize)]
struct Key {
    keytype: String,
    scheme: String,
    keyval: KeyValue,
}

#[derive(Deserialize)]
struct KeyValue {
    public: String,
}

/// The keys and thresholds that this device trusts.
#[derive(Debug, Clone)]
pub struct TrustRoot {
    version: u64,
    expires: String,
    expires_unix_seconds: i64,
    roles: BTreeMap<Role, (Vec<(Digest256, VerifyingKey)>, usize)>,
}

/// The key id of an ed25519 public key: SHA-256 of its canonical JSON.
pub fn key_id(public: &[u8; 32]) -> Result<Digest256> {
    let key = serde_json::json!({
        "keytype": "ed25519", "scheme": "ed25519", "keyval": { "public": hex::encode(public) }
    });
    Ok(Digest256::of(&json::canonical("key", &key)?))
}

impl TrustRoot {
    /// Reads the root that the device already trusts. It must be signed by its own threshold; expiry is asked separately.
    pub fn from_trusted(bytes: &[u8]) -> Result<Self> {
        let (root, message, signatures) = Self::parse(bytes)?;
        root.check(Role::Root, STRUCTURE, &message, &signatures)?;
        Ok(root)
    }

    /// Takes the next root: version N + 1, signed by the thresholds of this root and of the next (clause 5.3.4, 5.3.5).
    pub fn rotate(&self, next: &[u8]) -> Result<Self> {
        let (next, message, signatures) = Self::parse(next)?;
        self.check(Role::Root, "next trust root, by this root's keys,", &message, &signatures)?;
        next.check(Role::Root, "next trust root, by its own keys,", &message, &signatures)?;
        let expected = self.version.saturating_add(1);
        if next.version == expected {
            Ok(next)
        } else {
            Err(Error::RootVersion { expected, found: next.version })
        }
    }

    /// Version N.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Key ids and threshold of a role.
    #[must_use]
    pub fn role(&self, role: Role) -> (Vec<Digest256>, usize) {
        self.roles
            .get(&role)
            .map(|(keys, threshold)| (keys.iter().map(|(id, _)| *id).collect(), *threshold))
            .unwrap_or_default()
    }

    /// When it expires, RFC 3339.
    #[must_use]
    pub fn expires(&self) -> &str {
        &self.expires
    }

    /// Fails once the root has expired. `now_unix_seconds` is fixed once for a whole refresh (clause 5.1).
    pub fn check_fresh(&self, now_unix_seconds: i64) -> Result<()> {
        if now_unix_seconds < self.expires_unix_seconds {
            Ok(())
        } else {
            Err(Error::Expired { subject: STRUCTURE, expires: self.expires.clone() })
        }
    }

    /// Counts the distinct keys of `role` whose signature over `message` verifies strictly, and compares with the threshold.
    pub fn check(
        &self,
        role: Role,
        subject: &'static str,
        message: &[u8],
        signatures: &[Signature],
    ) -> Result<()> {
        let Some((keys, threshold)) = self.roles.get(&role) else {
            return Err(Error::malformed(STRUCTURE, format!("it has no {} role", role.name())));
        };
        let mut valid = BTreeSet::new();
        for entry in signatures {
            let Some((_, key)) = keys.iter().find(|(id, _)| *id == entry.key_id) else { continue };
            let signature = ed25519_dalek::Signature::from_bytes(&entry.signature);
            if key.verify_strict(message, &signature).is_ok() {
                valid.insert(key.to_bytes());
            }
        }
        if valid.len() >= *threshold {
            Ok(())
        } else {
            let role = role.name();
            Err(Error::ThresholdNotMet { subject, role, valid: valid.len(), threshold: *threshold })
        }
    }

    fn parse(bytes: &[u8]) -> Result<(Self, Vec<u8>, Vec<Signature>)> {
        if bytes.len() > MAX_ROOT_BYTES {
            return Err(Error::TooLarge {
                structure: STRUCTURE,
                value: bytes.len() as u64,
                limit: MAX_ROOT_BYTES as u64,
            });
        }
        let as_json = |source| Error::Json { structure: STRUCTURE, source };
        let envelope: Envelope = serde_json::from_value(json::parse(STRUCTURE, bytes)?).map_err(as_json)?;
        let message = json::canonical(STRUCTURE, &envelope.signed)?;
        let signed: Signed = serde_json::from_value(envelope.signed).map_err(as_json)?;
        let mut signatures = Vec::new();
        for entry in envelope.signatures {
            let mut signature = [0; 64];
            // A signature of another length belongs to another kind of key: it cannot count, but is no reason to refuse.
            if hex::decode_to_slice(&entry.sig, &mut signature).is_ok() {
                signatures.push(Signature { key_id: entry.keyid, signature });
            }
        }
        Ok((Self::from_signed(signed)?, message, signatures))
    }

    fn from_signed(signed: Signed) -> Result<Self> {
        let bad = |detail: String| Error::malformed(STRUCTURE, detail);
        if signed.kind != "root" {
            return Err(bad(format!("it is metadata of type {:?}", signed.kind)));
        }
        if !signed.spec_version.starts_with("1.") {
            return Err(bad(format!("TUF specification {:?} is not known, 1.x is", signed.spec_version)));
        }
        if signed.version == 0 {
            return Err(bad("version 0 does not exist".into()));
        }
        if signed.keys.len() > MAX_KEYS {
            return Err(bad(format!("it has {} keys, at most {MAX_KEYS}", signed.keys.len())));
        }
        let expires = OffsetDateTime::parse(&signed.expires, &Rfc3339)
            .map_err(|_| bad(format!("expiry {:?} is no RFC 3339 time", signed.expires)))?;
        let mut keys = BTreeMap::new();
        for (id, value) in signed.keys {
            keys.insert(id, parse_key(&id, &value)?);
        }
        let mut roles = BTreeMap::new();
        for role in Role::ALL {
            let name = role.name();
            let entry = signed.roles.get(name).ok_or_else(|| bad(format!("it has no {name} role")))?;
            let ids: BTreeSet<_> = entry.keyids.iter().collect();
            if ids.len() != entry.keyids.len() {
                return Err(bad(format!("the {name} role names a key twice")));
            }
            if entry.threshold == 0 || entry.threshold > ids.len() {
                return Err(bad(format!(
                    "the {name} role has threshold {} of {} keys",
                    entry.threshold,
                    ids.len()
                )));
            }
            let mut members = Vec::new();
            for id in &entry.keyids {
                let key = keys
                    .get(id)
                    .ok_or_else(|| bad(format!("the {name} role names a key that is not there")))?;
                members.push((*id, *key));
            }
            roles.insert(role, (members, entry.threshold));
        }
        Ok(Self {
            version: signed.version,
            expires: signed.expires,
            expires_unix_seconds: expires.unix_timestamp(),
            roles,
        })
    }
}

fn parse_key(id: &Digest256, value: &Value) -> Result<VerifyingKey> {
    let bad = |detail: &str| Error::malformed(STRUCTURE, format!("key {id}: {detail}"));
    if Digest256::of(&json::canonical(STRUCTURE, value)?) != *id {
        return Err(bad("its id is not the SHA-256 of the key"));
    }
    let key: Key = serde_json::from_value(value.clone())
        .map_err(|source| Error::Json { structure: STRUCTURE, source })?;
    if key.keytype != "ed25519" || key.scheme != "ed25519" {
        return Err(bad("only ed25519 keys are known"));
    }
    let mut bytes = [0; 32];
    hex::decode_to_slice(&key.keyval.public, &mut bytes).map_err(|_| bad("it is not 64 hex digits"))?;
    let key = VerifyingKey::from_bytes(&bytes).map_err(|_| bad("it is no point of the curve"))?;
    if key.is_weak() { Err(bad("it is a weak key")) } else { Ok(key) }
}
