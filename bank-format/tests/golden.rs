//! The golden files: one of every structure, as version 1 wrote it. They are never remade for a newer version, which gets
//! files of its own; `cargo run -p image-tool --example golden` made these.
#![expect(clippy::unwrap_used, reason = "tests")]

#[path = "golden/deltas.rs"]
mod deltas;
#[path = "golden/document.rs"]
mod document;
#[path = "golden/streams.rs"]
mod streams;
#[path = "golden/structures.rs"]
mod structures;
#[path = "golden/trust.rs"]
mod trust;

use bank_format::{
    TrustRoot,
    bundle::{Head, HeadReader, Opened},
    signatures::Signature,
    trust::key_id,
};
use ed25519_dalek::{Signer as _, SigningKey};

const BUNDLE: &[u8] = include_bytes!("golden/v1.roro");
const ROOT: &[u8] = include_bytes!("golden/root.json");
const ROOT_2: &[u8] = include_bytes!("golden/root-2.json");
const RECORD: &[u8] = include_bytes!("golden/record.bin");
const DELTA_TABLE: &[u8] = include_bytes!("golden/delta-table.bin");
const PATCH: &[u8] = include_bytes!("golden/patch.bin");
const PATCH_LZ4: &[u8] = include_bytes!("golden/patch-lz4.bin");
const TAIL: &[u8] = include_bytes!("golden/tail.bin");

fn trust_root() -> TrustRoot {
    TrustRoot::from_trusted(ROOT).unwrap()
}

fn head(bytes: &[u8]) -> bank_format::error::Result<Head> {
    let mut reader = HeadReader::default();
    let (_, head) = reader.feed(bytes)?;
    head.ok_or_else(|| reader.truncated())
}

fn open(bytes: &[u8]) -> bank_format::error::Result<Opened> {
    head(bytes)?.verify(&trust_root())
}

/// The test keys follow from one byte each.
fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

fn sign(seed: u8, message: &[u8]) -> Signature {
    let key = key(seed);
    let key_id = key_id(&key.verifying_key().to_bytes()).unwrap();
    Signature { key_id, signature: key.sign(message).to_bytes() }
}
