//! Makes bundles by hand: properly signed, with any part replaced by a lie.
//!
//! The mint refuses to write nonsense, so what an attacker with a stolen release key, or a bug in the mint, could ship is put
//! together here byte by byte. Two keys from fixed seeds; they protect nothing.

use std::collections::{HashMap, hash_map::Entry};

use bank_format::{
    Digest256, Manifest,
    header::Header,
    manifest::{Build, Image, Index, Tree, Verity},
    release::Version,
    signatures::{self, Signature, signing_message},
    verity::TreeBuilder,
};
use image_tool::{
    keys::PrivateKey,
    root_json::{self, RoleKeys, RootSpec},
};

/// The year 2100: the forged root does not expire while anybody runs these tests.
const EXPIRES: i64 = 4_102_444_800;

/// A key that everybody knows.
#[must_use]
pub fn key(number: u8) -> PrivateKey {
    PrivateKey::from_seed(&[number; 32])
}

/// A trust root whose release role needs `threshold` of keys 1 to `count`; its root key is number 100.
///
/// # Panics
/// When the mint cannot make one.
#[must_use]
pub fn root(count: u8, threshold: usize) -> Vec<u8> {
    let root = [key(100)];
    let release: Vec<PrivateKey> = (1..=count).map(key).collect();
    let spec = RootSpec {
        expires_unix_seconds: EXPIRES,
        root: RoleKeys::of(&root, 1),
        targets: RoleKeys::of(&release, threshold),
        snapshot: RoleKeys::of(&root, 1),
        timestamp: RoleKeys::of(&root, 1),
    };
    root_json::first(&spec, &root).unwrap_or_else(|error| fail(&error))
}

#[expect(clippy::panic, reason = "the judge cannot go on without what it judges")]
fn fail(error: &dyn std::error::Error) -> ! {
    panic!("cannot forge: {error}")
}

/// One row of a chunk table, unchecked.
#[derive(Debug, Clone)]
pub enum Row {
    /// The next chunk in the frames: its length and digest.
    New(u64, Digest256),
    /// So many zeros.
    Zeros(u64),
    /// The same as the chunk of that number.
    Repeat(u64),
}

impl Row {
    /// The honest row of these bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self::New(bytes.len() as u64, Digest256::of(bytes))
    }
}

/// A chunk table, unchecked.
#[derive(Debug, Clone, Default)]
pub struct Table {
    /// Bytes of the image that it claims.
    pub image_bytes: u64,
    /// Of each frame the new chunks in it, and its stored bytes.
    pub frames: Vec<(u64, u64)>,
    /// The chunks.
    pub rows: Vec<Row>,
}

impl Table {
    /// The table's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = b"RoroIdx1".to_vec();
        put(&mut bytes, self.image_bytes);
        put(&mut bytes, self.frames.len() as u64);
        for (chunks, stored) in &self.frames {
            // In lane 0.
            put(&mut bytes, chunks << 1);
            put(&mut bytes, *stored);
        }
        put(&mut bytes, self.rows.len() as u64);
        let mut digests = Vec::new();
        for row in &self.rows {
            match row {
                Row::New(length, digest) => {
                    put(&mut bytes, length << 2);
                    digests.extend(digest.0);
                }
                Row::Zeros(length) => put(&mut bytes, length << 2 | 1),
                Row::Repeat(number) => put(&mut bytes, number << 2 | 2),
            }
        }
        bytes.extend(digests);
        bytes
    }
}

/// A number as the tables have it: seven bits a byte, the lowest first.
fn put(bytes: &mut Vec<u8>, mut value: u64) {
    while value > 127 {
        bytes.push((value & 127) as u8 | 128);
        value >>= 7;
    }
    bytes.push(value as u8);
}

/// A bundle in the making. Everything is public: change what you like, then [`Forge::bytes`].
#[derive(Debug, Clone)]
pub struct Forge {
    /// The manifest; its `index` and `frames_bytes` are filled in from the parts below by [`Forge::fit`].
    pub manifest: Manifest,
    /// A table per image.
    pub tables: Vec<Vec<u8>>,
    /// Frames per image.
    pub frames: Vec<Vec<u8>>,
    /// The deltas section; the manifest's list of deltas is filled in by hand.
    pub deltas: Vec<u8>,
    /// Numbers of the keys that sign.
    pub signers: Vec<u8>,
}

impl Forge {
    /// An honest bundle of one image `root`, every chunk stored as it is in a frame of its own, equal ones once.
    #[must_use]
    pub fn honest(image: &[u8], version: &str) -> Self {
        let mut table = Table { image_bytes: image.len() as u64, ..Table::default() };
        let mut frames = Vec::new();
        let mut seen = HashMap::new();
        for (chunk, number) in image.chunks(4096).zip(0..) {
            table.rows.push(match seen.entry(chunk) {
                Entry::Occupied(first) => Row::Repeat(*first.get()),
                Entry::Vacant(place) => {
                    place.insert(number);
                    table.frames.push((1, chunk.len() as u64));
                    frames.extend_from_slice(chunk);
                    Row::of(chunk)
                }
            });
        }
        Self::with_table(image, version, &table, frames)
    }

    /// A bundle of one image `root` whose signed table and frames are what they are; signed by key 1.
    #[must_use]
    pub fn with_table(image: &[u8], version: &str, table: &Table, frames: Vec<u8>) -> Self {
        let mut forge = Self {
            manifest: Manifest {
                format: 1,
                name: "demo".into(),
                version: Version::parse(version).unwrap_or_else(|error| fail(&error)),
                compatible: "test,any".into(),
                created_unix_seconds: 1_700_000_000,
                floor: None,
                build: Build { tool: "forge".into(), source: None, commit: None },
                images: vec![Image {
                    name: "root".into(),
                    bytes: image.len() as u64,
                    frames_bytes: 0,
                    verity: Verity { root: verity_root(image), salt: String::new(), tree: Tree::None },
                    index: Index { bytes: 0, sha256: Digest256([0; 32]) },
                }],
                documents: Vec::new(),
                deltas: Vec::new(),
            },
            tables: vec![table.encode()],
            frames: vec![frames],
            deltas: Vec::new(),
            signers: vec![1],
        };
        forge.fit();
        forge
    }

    /// Makes the manifest say the sizes and digests of the tables and frames as they are now.
    pub fn fit(&mut self) {
        for ((image, table), frames) in self.manifest.images.iter_mut().zip(&self.tables).zip(&self.frames) {
            image.index = Index { bytes: table.len() as u64, sha256: Digest256::of(table) };
            image.frames_bytes = frames.len() as u64;
        }
    }

    /// The bundle, signed by [`Forge::signers`].
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let text = self.manifest.encode().unwrap_or_else(|error| fail(&error));
        self.bytes_with_manifest(text.as_bytes())
    }

    /// The bundle with this text as its signed manifest.
    #[must_use]
    pub fn bytes_with_manifest(&self, manifest: &[u8]) -> Vec<u8> {
        let message = signing_message(manifest);
        let signed: Vec<Signature> = self
            .signers
            .iter()
            .map(|number| key(*number).sign(&message).unwrap_or_else(|error| fail(&error)))
            .collect();
        self.assemble(manifest, &signatures::encode(&signed))
    }

    /// The bundle with this signatures section.
    #[must_use]
    pub fn assemble(&self, manifest: &[u8], signatures: &[u8]) -> Vec<u8> {
        let indexes = self.tables.concat();
        let frames = self.frames.concat();
        let sizes = [manifest.len(), signatures.len(), indexes.len(), 0, frames.len(), self.deltas.len()];
        let header = Header::lay_out(sizes.map(|size| size as u64)).unwrap_or_else(|error| fail(&error));
        [&header.encode()[..], manifest, signatures, &indexes, &frames, &self.deltas].concat()
    }
}

/// Root of the tree over an image without salt.
#[must_use]
pub fn verity_root(image: &[u8]) -> Digest256 {
    let mut builder = TreeBuilder::new(image.len() as u64, &[]).unwrap_or_else(|error| fail(&error));
    let mut drop_block = |_, _: &[u8; 4096]| ();
    builder.update(image, &mut drop_block).unwrap_or_else(|error| fail(&error));
    builder.finish(&mut drop_block).unwrap_or_else(|error| fail(&error))
}

/// Bytes that do not compress and differ by seed.
#[must_use]
pub fn noise(seed: u32, bytes: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2_654_435_761) | 1;
    (0..bytes)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            (state >> 8) as u8
        })
        .collect()
}
