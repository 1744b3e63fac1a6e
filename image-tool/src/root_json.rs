//! Writes the trust root: TUF `root.json` (specification 1.0, clauses 4.2 and 4.3) in canonical JSON.
//!
//! It promises that what it returns was accepted by [`TrustRoot`] before, by the same rules as on a device.

use std::collections::BTreeMap;

use bank_format::{TrustRoot, json, signatures::Signature, trust::key_id};
use serde_json::{Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{
    error::{Error, Result},
    keys::PrivateKey,
};

const SPEC_VERSION: &str = "1.0.31";

/// Keys and threshold of a role.
#[derive(Debug, Clone)]
pub struct RoleKeys {
    /// Public keys.
    pub public: Vec<[u8; 32]>,
    /// Signatures needed.
    pub threshold: usize,
}

impl RoleKeys {
    /// The public halves of `keys`.
    #[must_use]
    pub fn of(keys: &[PrivateKey], threshold: usize) -> Self {
        Self { public: keys.iter().map(PrivateKey::public).collect(), threshold }
    }
}

/// What a trust root says; its version follows from the root before it.
#[derive(Debug, Clone)]
pub struct RootSpec {
    /// When it expires.
    pub expires_unix_seconds: i64,
    /// Signs the next root.
    pub root: RoleKeys,
    /// Signs releases.
    pub targets: RoleKeys,
    /// Signs the list of metadata versions.
    pub snapshot: RoleKeys,
    /// Signs what is current.
    pub timestamp: RoleKeys,
}

/// Version 1, signed by its own root keys.
pub fn first(spec: &RootSpec, signers: &[PrivateKey]) -> Result<Vec<u8>> {
    let bytes = sign(spec, 1, signers.iter())?;
    TrustRoot::from_trusted(&bytes).map_err(Error::format("make a trust root"))?;
    Ok(bytes)
}

/// Version N + 1 after `current`, signed by root keys of both.
pub fn next(
    current: &[u8],
    spec: &RootSpec,
    old_signers: &[PrivateKey],
    new_signers: &[PrivateKey],
) -> Result<Vec<u8>> {
    let trusted = TrustRoot::from_trusted(current).map_err(Error::format("read the present trust root"))?;
    let version = trusted.version().saturating_add(1);
    let bytes = sign(spec, version, old_signers.iter().chain(new_signers))?;
    trusted.rotate(&bytes).map_err(Error::format("make the next trust root"))?;
    Ok(bytes)
}

/// Signs whatever `spec` says, without asking whether a device would accept it.
pub fn sign<'a>(
    spec: &RootSpec,
    version: u64,
    signers: impl Iterator<Item = &'a PrivateKey>,
) -> Result<Vec<u8>> {
    let signed = signed(spec, version)?;
    let message = json::canonical("trust root", &signed).map_err(Error::format("write a trust root"))?;
    let mut signatures = BTreeMap::new();
    for signer in signers {
        let signature = signer.sign(&message)?;
        signatures.insert(signature.key_id, signature);
    }
    envelope(&signed, signatures.values())
}

fn envelope<'a>(signed: &Value, signatures: impl Iterator<Item = &'a Signature>) -> Result<Vec<u8>> {
    let signatures: Vec<Value> = signatures
        .map(|entry| json!({ "keyid": entry.key_id.to_string(), "sig": hex::encode(entry.signature) }))
        .collect();
    json::canonical("trust root", &json!({ "signatures": signatures, "signed": signed }))
        .map_err(Error::format("write a trust root"))
}

fn signed(spec: &RootSpec, version: u64) -> Result<Value> {
    let expires = OffsetDateTime::from_unix_timestamp(spec.expires_unix_seconds)
        .ok()
        .and_then(|time| time.format(&Rfc3339).ok())
        .ok_or_else(|| Error::usage("the expiry is beyond all time", "choose fewer --expires-days"))?;
    let mut keys = serde_json::Map::new();
    let mut roles = serde_json::Map::new();
    for (name, role) in [
        ("root", &spec.root),
        ("targets", &spec.targets),
        ("snapshot", &spec.snapshot),
        ("timestamp", &spec.timestamp),
    ] {
        let mut ids = Vec::new();
        for public in &role.public {
            let id = key_id(public).map_err(Error::format("name a key"))?.to_string();
            let key = json!({
                "keytype": "ed25519", "scheme": "ed25519", "keyval": { "public": hex::encode(public) }
            });
            keys.insert(id.clone(), key);
            ids.push(id);
        }
        ids.sort();
        roles.insert(name.into(), json!({ "keyids": ids, "threshold": role.threshold }));
    }
    Ok(json!({
        "_type": "root",
        "spec_version": SPEC_VERSION,
        "consistent_snapshot": true,
        "version": version,
        "expires": expires,
        "keys": keys,
        "roles": roles,
    }))
}
