//! Texts: the trust root and the declarations of health checks.

#![expect(clippy::unwrap_used, reason = "what is unwrapped was promised")]

use std::sync::OnceLock;

use bank_format::{
    Digest256, Error, TrustRoot,
    health::{self, Kind, Least},
    json,
    limits::{
        MAX_CHECK_NAME_BYTES, MAX_CHECK_SECONDS, MAX_HEALTH_CHECKS, MAX_KEYS, MAX_ROOT_BYTES,
        MAX_SOAK_SECONDS,
    },
    trust::{Role, key_id},
};
use ed25519_dalek::{Signer as _, SigningKey};
use serde_json::{Value, json};

use super::Verdict;

const ROOT: &[u8] = include_bytes!("../../../bank-format/tests/golden/root.json");
/// Root keys of the golden root, and of the one after it. Anybody can read them here.
const ROOT_KEYS: [u8; 3] = [1, 2, 4];

/// The bytes as they stand, and their `signed` part with good signatures.
pub(super) fn trust_root(bytes: &[u8]) -> Verdict {
    let as_it_stands = read_root(bytes);
    let signed = json::parse("root", bytes).ok().and_then(|value| match value {
        Value::Object(mut parts) => parts.remove("signed"),
        _ => None,
    });
    let put_right = signed.map_or(Verdict::Refused, |signed| read_root(&sign(&signed)));
    as_it_stands.or(put_right)
}

fn sign(signed: &Value) -> Vec<u8> {
    static KEYS: OnceLock<[(SigningKey, Digest256); 3]> = OnceLock::new();
    let keys = KEYS.get_or_init(|| {
        ROOT_KEYS.map(|seed| {
            let key = SigningKey::from_bytes(&[seed; 32]);
            let id = key_id(&key.verifying_key().to_bytes()).unwrap();
            (key, id)
        })
    });
    let message = json::canonical("root", signed).unwrap();
    let signatures = keys.each_ref().map(|(key, id)| {
        let signature = key.sign(&message).to_bytes();
        let text: String = signature.iter().map(|byte| format!("{byte:02x}")).collect();
        json!({ "keyid": id, "sig": text })
    });
    serde_json::to_vec(&json!({ "signatures": signatures, "signed": signed })).unwrap()
}

fn read_root(bytes: &[u8]) -> Verdict {
    static GOLDEN: OnceLock<TrustRoot> = OnceLock::new();
    let golden = GOLDEN.get_or_init(|| TrustRoot::from_trusted(ROOT).unwrap());
    let rotated = golden.rotate(bytes);
    let root = TrustRoot::from_trusted(bytes);
    if let Ok(next) = &rotated {
        assert_eq!(next.version(), golden.version() + 1);
        assert!(root.is_ok(), "what is rotated to is signed by its own keys as well");
    }
    if let Ok(root) = &root {
        assert!(bytes.len() <= MAX_ROOT_BYTES);
        assert!(root.version() > 0);
        for role in Role::ALL {
            let (keys, threshold) = root.role(role);
            assert!((1..=keys.len()).contains(&threshold) && keys.len() <= MAX_KEYS);
            assert!(keys.iter().enumerate().all(|(at, key)| !keys[..at].contains(key)));
            let unsigned = root.check(role, "nothing", b"nothing", &[]);
            assert!(matches!(unsigned, Err(Error::ThresholdNotMet { .. })), "good without a signature");
        }
        assert!(root.check_fresh(i64::MAX).is_err(), "it never expires");
        let again = root.rotate(bytes);
        assert!(matches!(again, Err(Error::RootVersion { .. })), "rotated to itself");
    }
    Verdict::of(&root)
}

/// The bytes as a file of `health.d`.
pub(super) fn health(bytes: &[u8]) -> Verdict {
    let parsed = health::parse(&String::from_utf8_lossy(bytes));
    match &parsed {
        Ok(found) => {
            assert!(found.checks.len() <= MAX_HEALTH_CHECKS && found.soak_seconds <= MAX_SOAK_SECONDS);
            found.checks.iter().for_each(check_declared);
        }
        Err(error) => assert!(!error.contains(['\n', '\r']), "an error of several lines: {error:?}"),
    }
    Verdict::of(&parsed)
}

fn check_declared(check: &health::Check) {
    assert!((1..=MAX_CHECK_NAME_BYTES).contains(&check.name.len()));
    assert!(!check.name.contains(char::is_control));
    assert!((1..=MAX_CHECK_SECONDS).contains(&check.deadline_seconds));
    assert!((1..=MAX_CHECK_SECONDS).contains(&check.interval_seconds));
    match &check.kind {
        Kind::Command { command } => assert!(command[0].starts_with('/')),
        Kind::Unit { unit } => assert!(!unit.starts_with('-')),
        Kind::Http { url, status, .. } => {
            assert!(url.starts_with("http") && (100..=599).contains(status));
        }
        Kind::Tcp { address } => assert!(address.contains(':')),
        Kind::File { path, .. } | Kind::FreeSpace { path, least: Least::Mib(_) } => {
            assert!(path.starts_with('/'));
        }
        Kind::FreeSpace { path, least: Least::Percent(percent) } => {
            assert!(path.starts_with('/') && *percent <= 100);
        }
        Kind::Container { container, .. } => assert!(!container.starts_with('-')),
        Kind::Clock | Kind::UpdateSource => (),
    }
}
