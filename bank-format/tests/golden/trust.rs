//! The trust root: thresholds, rotation, expiry, and every way to lie in it.

use bank_format::{
    Error, TrustRoot, json,
    trust::{Role, key_id},
};
use serde_json::{Value, json};

use super::{ROOT, ROOT_2, key, sign, trust_root};

/// 2100-01-01T00:00:00Z.
const EXPIRES_UNIX_SECONDS: i64 = 4_102_444_800;

fn signed_part(root: &[u8]) -> Value {
    json::parse("root", root).unwrap()["signed"].clone()
}

fn envelope(signed: &Value, signatures: Vec<Value>) -> Vec<u8> {
    serde_json::to_vec(&json!({ "signed": signed, "signatures": signatures })).unwrap()
}

/// Signs by the keys of these seeds.
fn signed(signed: &Value, seeds: &[u8]) -> Vec<u8> {
    let message = json::canonical("root", signed).unwrap();
    let signatures = seeds
        .iter()
        .map(|seed| {
            let entry = sign(*seed, &message);
            json!({ "keyid": entry.key_id, "sig": hex::encode(entry.signature) })
        })
        .collect();
    envelope(signed, signatures)
}

fn changed(change: impl FnOnce(&mut Value)) -> Value {
    let mut value = signed_part(ROOT);
    change(&mut value);
    value
}

#[track_caller]
fn refused(bytes: &[u8], expected: &str) {
    let error = TrustRoot::from_trusted(bytes).unwrap_err();
    assert!(error.to_string().contains(expected), "{expected:?} is not in: {error}");
}

fn id(seed: u8) -> String {
    key_id(&key(seed).verifying_key().to_bytes()).unwrap().to_string()
}

#[test]
fn golden_root() {
    let root = trust_root();
    assert_eq!(root.version(), 1);
    assert_eq!(root.expires(), "2100-01-01T00:00:00Z");
    for (role, seeds, threshold) in [
        (Role::Root, &[1, 2, 3][..], 2),
        (Role::Targets, &[0x11, 0x12, 0x13], 2),
        (Role::Snapshot, &[0x21], 1),
        (Role::Timestamp, &[0x21], 1),
    ] {
        let mut expected: Vec<String> = seeds.iter().map(|seed| id(*seed)).collect();
        expected.sort();
        let (ids, found) = root.role(role);
        assert_eq!(ids.iter().map(ToString::to_string).collect::<Vec<_>>(), expected, "{}", role.name());
        assert_eq!(found, threshold);
    }
    assert_eq!(signed(&signed_part(ROOT), &[2, 1]).len(), ROOT.len(), "the same bytes, but for the order");
}

#[test]
fn the_threshold_counts_distinct_keys_of_the_role() {
    let value = signed_part(ROOT);
    assert!(TrustRoot::from_trusted(&signed(&value, &[1, 3])).is_ok());
    assert!(TrustRoot::from_trusted(&signed(&value, &[0x11, 1, 2, 3])).is_ok());
    for too_few in [&[][..], &[1], &[1, 0x11, 0x12, 0x77], &[2, 2, 2]] {
        let error = TrustRoot::from_trusted(&signed(&value, too_few)).unwrap_err();
        assert!(matches!(error, Error::ThresholdNotMet { role: "root", threshold: 2, .. }), "{error}");
    }
}

#[test]
fn signatures_of_another_length_or_of_other_bytes_do_not_count() {
    let value = signed_part(ROOT);
    let message = json::canonical("root", &value).unwrap();
    let good = |seed| hex::encode(sign(seed, &message).signature);
    let other = hex::encode(sign(2, b"something else").signature);
    for second in ["", "00", "zz", &good(1), &other, &good(2)[2..]] {
        let entries =
            vec![json!({ "keyid": id(1), "sig": good(1) }), json!({ "keyid": id(2), "sig": second })];
        refused(&envelope(&value, entries), "1 valid signatures");
    }
    let long = format!("{}00", good(3));
    let entries =
        [(1, good(1)), (2, good(2)), (3, long)].map(|(seed, sig)| json!({ "keyid": id(seed), "sig": sig }));
    assert!(TrustRoot::from_trusted(&envelope(&value, entries.to_vec())).is_ok());
}

#[test]
fn rotation_goes_one_version_on_by_both_thresholds() {
    let next = trust_root().rotate(ROOT_2).unwrap();
    assert_eq!(next.version(), 2);
    let (ids, _) = next.role(Role::Targets);
    assert!(ids.iter().any(|known| known.to_string() == id(0x14)));
    assert!(!ids.iter().any(|known| known.to_string() == id(0x13)), "the old key has retired");

    let value = signed_part(ROOT_2);
    let rotate = |bytes: &[u8]| trust_root().rotate(bytes).unwrap_err().to_string();
    assert!(trust_root().rotate(&signed(&value, &[1, 2])).is_ok(), "keys 1 and 2 are in both");
    assert!(rotate(&signed(&value, &[1, 4])).contains("by this root's keys"), "one old key is missing");
    assert!(rotate(&signed(&value, &[1, 3])).contains("by its own keys"), "one new key is missing");
    assert!(rotate(&signed(&value, &[])).contains("0 valid signatures"));

    for version in [1, 3, u64::MAX] {
        let mut other = value.clone();
        other["version"] = version.into();
        let error = trust_root().rotate(&signed(&other, &[1, 2])).unwrap_err();
        assert!(matches!(error, Error::RootVersion { expected: 2, found } if found == version), "{error}");
    }
    assert!(matches!(next.rotate(ROOT_2), Err(Error::RootVersion { expected: 3, found: 2 })), "a replay");
    assert!(matches!(next.rotate(ROOT), Err(Error::RootVersion { expected: 3, found: 1 })), "a step back");
}

#[test]
fn expiry() {
    let root = trust_root();
    root.check_fresh(0).unwrap();
    root.check_fresh(EXPIRES_UNIX_SECONDS - 1).unwrap();
    for now in [EXPIRES_UNIX_SECONDS, i64::MAX] {
        assert!(matches!(root.check_fresh(now), Err(Error::Expired { .. })));
    }
    for bad in [json!("2100-01-01"), json!("never"), json!(""), json!(5)] {
        let value = changed(|root| root["expires"] = bad.clone());
        assert!(TrustRoot::from_trusted(&signed(&value, &[1, 2])).is_err(), "{bad}");
    }
    let value = changed(|root| root["expires"] = "1969-12-31T23:59:59Z".into());
    assert!(TrustRoot::from_trusted(&signed(&value, &[1, 2])).unwrap().check_fresh(0).is_err());
}

#[test]
fn roots_that_cannot_be_are_refused_even_when_signed() {
    type Change = fn(&mut Value);
    let changes: [(&str, Change); 12] = [
        ("threshold 0", |root| root["roles"]["targets"]["threshold"] = 0.into()),
        ("threshold 4", |root| root["roles"]["targets"]["threshold"] = 4.into()),
        ("of 0 keys", |root| root["roles"]["targets"]["keyids"] = json!([])),
        ("names a key twice", |root| {
            let first = root["roles"]["targets"]["keyids"][0].clone();
            root["roles"]["targets"]["keyids"] = json!([first, first]);
        }),
        ("a key that is not there", |root| {
            root["roles"]["targets"]["keyids"][0] = "0".repeat(64).into();
        }),
        ("no snapshot role", |root| {
            root["roles"].as_object_mut().unwrap().remove("snapshot");
        }),
        ("metadata of type \"targets\"", |root| root["_type"] = "targets".into()),
        ("specification \"2.0\"", |root| root["spec_version"] = "2.0".into()),
        ("version 0", |root| root["version"] = 0.into()),
        ("its id is not the SHA-256", |root| {
            let keys = root["keys"].as_object_mut().unwrap();
            let (_, key) = keys.iter().next().map(|(id, key)| (id.clone(), key.clone())).unwrap();
            keys.insert("0".repeat(64), key);
        }),
        ("cannot read trust root", |root| root["version"] = (-1).into()),
        ("cannot read trust root", |root| root["keys"] = json!([])),
    ];
    for (expected, change) in changes {
        refused(&signed(&changed(change), &[1, 2]), expected);
    }
    let many = changed(|root| {
        for seed in 100..165 {
            let public = hex::encode(key(seed).verifying_key().to_bytes());
            root["keys"][id(seed)] = json!({
                "keytype": "ed25519", "scheme": "ed25519", "keyval": { "public": public }
            });
        }
    });
    refused(&signed(&many, &[1, 2]), "keys, at most");
    refused(&vec![b' '; 1 << 20], "too large");
}

/// Puts a key object into the root role under the id that fits it.
fn with_root_key(key: &Value) -> Value {
    changed(|root| {
        let id = bank_format::Digest256::of(&json::canonical("key", key).unwrap()).to_string();
        root["keys"][id.clone()] = key.clone();
        root["roles"]["root"]["keyids"].as_array_mut().unwrap().push(id.into());
    })
}

#[test]
fn keys_that_verify_nothing_or_everything_are_refused() {
    let object = |kind: &str, scheme: &str, public: &str| json!({ "keytype": kind, "scheme": scheme, "keyval": { "public": public } });
    // The neutral point: a signature by it can fit any message.
    let weak = format!("01{}", "00".repeat(31));
    let off_curve = format!("02{}", "00".repeat(31));
    for (key, expected) in [
        (object("ed25519", "ed25519", &weak), "weak key"),
        (object("ed25519", "ed25519", &off_curve), "no point of the curve"),
        (object("ed25519", "ed25519", "00"), "not 64 hex digits"),
        (object("rsa", "rsassa-pss-sha256", "00"), "only ed25519"),
        (object("ed25519", "ed448", &"11".repeat(32)), "only ed25519"),
        (json!({ "keytype": "ed25519" }), "cannot read"),
    ] {
        refused(&signed(&with_root_key(&key), &[1, 2]), expected);
    }
}

/// A field more makes another id for the same key: two signatures by it are still one.
#[test]
fn one_key_under_two_ids_counts_once() {
    let public = hex::encode(key(1).verifying_key().to_bytes());
    let twin = json!({
        "keytype": "ed25519", "scheme": "ed25519", "keyval": { "public": public }, "comment": "twin"
    });
    let value = with_root_key(&twin);
    let twin_id = bank_format::Digest256::of(&json::canonical("key", &twin).unwrap());
    let message = json::canonical("root", &value).unwrap();
    let signature = hex::encode(sign(1, &message).signature);
    let both =
        vec![json!({ "keyid": id(1), "sig": signature }), json!({ "keyid": twin_id, "sig": signature })];
    refused(&envelope(&value, both), "1 valid signatures");
}

#[test]
fn unknown_fields_are_covered_by_the_signature() {
    let value = changed(|root| root["x-from-the-future"] = json!({ "b": [1, "two"], "a": null }));
    assert!(TrustRoot::from_trusted(&signed(&value, &[1, 2])).is_ok());
    let mut spoiled = json::parse("root", &signed(&value, &[1, 2])).unwrap();
    spoiled["signed"]["x-from-the-future"]["a"] = 1.into();
    refused(&serde_json::to_vec(&spoiled).unwrap(), "0 valid signatures");
}

#[test]
fn every_flipped_byte_of_a_root_is_refused_or_without_effect() {
    let good = trust_root();
    for at in 0..ROOT.len() {
        for mask in [0x01, 0x20, 0x80] {
            let mut bytes = ROOT.to_vec();
            bytes[at] ^= mask;
            if let Ok(root) = TrustRoot::from_trusted(&bytes) {
                for role in Role::ALL {
                    assert_eq!(root.role(role), good.role(role), "byte {at}");
                }
                assert_eq!((root.version(), root.expires()), (good.version(), good.expires()));
            }
        }
    }
}
