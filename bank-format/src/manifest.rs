//! The manifest: the TOML that is signed exactly as it stands.
//!
//! `Verified<Manifest>` has one constructor, [`crate::bundle::Head::verify`]; what opens a bank asks for it.
//! The plain [`Manifest`] is what the mint fills in before it signs.

use std::{collections::BTreeSet, ops::Deref};

use serde::{Deserialize, Serialize};

use crate::{
    delta::CODEC,
    digest::Digest256,
    error::{Error, Result},
    limits::{
        MAX_DELTAS, MAX_DOCUMENT_BYTES, MAX_DOCUMENTS, MAX_IMAGE_BYTES, MAX_IMAGES, MAX_INDEX_BYTES,
        MAX_MANIFEST_BYTES, MAX_SALT_BYTES,
    },
    release::{Release, Version, check_compatible, check_name},
    verity::{BLOCK_BYTES, Geometry},
};

const STRUCTURE: &str = "manifest";
/// The format that this code writes and reads.
pub const FORMAT: u16 = 1;

/// A value whose signatures were checked. Nothing outside this crate can make one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified<T>(T);

impl<T> Verified<T> {
    pub(crate) fn vouch(value: T) -> Self {
        Self(value)
    }
}

impl<T> Deref for Verified<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.0
    }
}

/// What a bundle carries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// 1.
    pub format: u16,
    /// Name of the product.
    pub name: String,
    /// Semantic version.
    pub version: Version,
    /// Which devices it fits; compared with the device's configuration as a whole.
    pub compatible: String,
    /// When the sources were fixed (`SOURCE_DATE_EPOCH`), seconds since 1970.
    pub created_unix_seconds: u64,
    /// The floor rises to this at confirm, even above what the other bank carries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub floor: Option<Version>,
    /// Where it comes from.
    pub build: Build,
    /// The images, in the order in which they are written; the one that makes a bank bootable is last.
    #[serde(rename = "image")]
    pub images: Vec<Image>,
    /// Package list, SBOM.
    #[serde(default, rename = "document", skip_serializing_if = "Vec::is_empty")]
    pub documents: Vec<Document>,
    /// Patches against base releases.
    #[serde(default, rename = "delta", skip_serializing_if = "Vec::is_empty")]
    pub deltas: Vec<Delta>,
}

/// How the release was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Build {
    /// Tool and version.
    pub tool: String,
    /// Repository or file that says how.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Its commit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
}

/// One image of a bank.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Image {
    /// `root`, `boot`, or what the device's configuration calls it.
    pub name: String,
    /// Bytes of data, without the tree.
    pub bytes: u64,
    /// Bytes of its frames in the bundle.
    pub frames_bytes: u64,
    /// The tree over the data.
    pub verity: Verity,
    /// Its chunk table.
    pub index: Index,
}

/// The hash tree over an image: dm-verity format 1, SHA-256, 4096-byte blocks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Verity {
    /// Root digest: the digest of the whole image.
    pub root: Digest256,
    /// Salt, hexadecimal, may be empty.
    pub salt: String,
    /// Whether the device writes the tree behind the data.
    pub tree: Tree,
}

/// Where the tree is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tree {
    /// Computed for the comparison, and not kept.
    None,
    /// Computed while writing, and written behind the data.
    Appended,
}

/// Size and digest of a chunk table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Index {
    /// Bytes.
    pub bytes: u64,
    /// SHA-256 of the table.
    pub sha256: Digest256,
}

/// A document in the bundle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Document {
    /// `packages`, `sbom-cyclonedx`, ...
    pub name: String,
    /// Bytes.
    pub bytes: u64,
    /// SHA-256 of the bytes.
    pub sha256: Digest256,
}

/// Patches that make chunks of one image out of a base release. A reader that does not know the codec fetches frames instead.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Delta {
    /// Which image it makes.
    pub image: String,
    /// Name of the coding, such as [`CODEC`]; any other is left alone.
    pub codec: String,
    /// Verity root of the base image.
    pub base: Digest256,
    /// Version of the base release, for people.
    pub base_version: Version,
    /// Bytes of this delta in the section: its table, then its patches.
    pub bytes: u64,
    /// Bytes of the table at its start, as it is stored.
    pub table_bytes: u64,
    /// SHA-256 of the table as it is stored.
    pub table_sha256: Digest256,
}

impl Image {
    /// The salt's bytes.
    pub fn salt(&self) -> Result<Vec<u8>> {
        let salt = hex::decode(&self.verity.salt).map_err(|_| {
            Error::malformed(STRUCTURE, format!("salt of image {} is not hexadecimal", self.name))
        })?;
        if salt.len() > MAX_SALT_BYTES {
            return Err(Error::TooLarge {
                structure: "verity salt",
                value: salt.len() as u64,
                limit: MAX_SALT_BYTES as u64,
            });
        }
        Ok(salt)
    }

    /// Bytes that the image takes in a bank, its tree included where it is kept.
    pub fn bank_bytes(&self) -> Result<u64> {
        match self.verity.tree {
            Tree::None => Ok(self.bytes),
            Tree::Appended => Ok(Geometry::for_bytes(self.bytes)?.total_bytes()),
        }
    }
}

fn sum(values: impl Iterator<Item = u64>) -> Result<u64> {
    values
        .into_iter()
        .try_fold(0u64, u64::checked_add)
        .ok_or_else(|| Error::malformed(STRUCTURE, "sizes add up beyond 64 bits"))
}

impl Manifest {
    /// Name and version.
    #[must_use]
    pub fn release(&self) -> Release {
        Release { name: self.name.clone(), version: self.version.clone() }
    }

    /// The image of that name.
    #[must_use]
    pub fn image(&self, name: &str) -> Option<&Image> {
        self.images.iter().find(|image| image.name == name)
    }

    /// Bytes of the indexes, documents, frames and deltas sections.
    pub fn section_bytes(&self) -> Result<[u64; 4]> {
        Ok([
            sum(self.images.iter().map(|image| image.index.bytes))?,
            sum(self.documents.iter().map(|document| document.bytes))?,
            sum(self.images.iter().map(|image| image.frames_bytes))?,
            sum(self.deltas.iter().map(|delta| delta.bytes))?,
        ])
    }

    /// The TOML to sign.
    pub fn encode(&self) -> Result<String> {
        self.check()?;
        toml::to_string(self)
            .map_err(|source| Error::Encode { structure: STRUCTURE, source: Box::new(source) })
    }

    /// Reads TOML whose signatures the caller checks; outside this crate that is [`crate::bundle::Head::verify`].
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self> {
        let text = std::str::from_utf8(bytes).map_err(|_| Error::malformed(STRUCTURE, "it is not UTF-8"))?;
        let manifest: Self = toml::from_str(text)
            .map_err(|source| Error::Toml { structure: STRUCTURE, source: Box::new(source) })?;
        manifest.check()?;
        Ok(manifest)
    }

    fn check(&self) -> Result<()> {
        if self.format != FORMAT {
            return Err(Error::malformed(STRUCTURE, format!("format {} does not exist", self.format)));
        }
        check_name("name", &self.name)?;
        check_compatible(&self.compatible)?;
        for (structure, count, limit) in [
            ("list of images", self.images.len(), MAX_IMAGES),
            ("list of documents", self.documents.len(), MAX_DOCUMENTS),
            ("list of deltas", self.deltas.len(), MAX_DELTAS),
        ] {
            if count > limit {
                return Err(Error::TooLarge { structure, value: count as u64, limit: limit as u64 });
            }
        }
        if self.images.is_empty() {
            return Err(Error::malformed(STRUCTURE, "it has no image"));
        }
        let mut names = BTreeSet::new();
        for image in &self.images {
            image.check()?;
            if !names.insert(&image.name) {
                return Err(Error::malformed(STRUCTURE, format!("image {} stands twice", image.name)));
            }
        }
        let mut names = BTreeSet::new();
        for document in &self.documents {
            check_name("document name", &document.name)?;
            if document.bytes > MAX_DOCUMENT_BYTES {
                return Err(Error::TooLarge {
                    structure: "document",
                    value: document.bytes,
                    limit: MAX_DOCUMENT_BYTES,
                });
            }
            if !names.insert(&document.name) {
                return Err(Error::malformed(STRUCTURE, format!("document {} stands twice", document.name)));
            }
        }
        let mut ways = BTreeSet::new();
        for delta in &self.deltas {
            if self.image(&delta.image).is_none() {
                return Err(Error::malformed(
                    STRUCTURE,
                    format!("there is no image {} for a delta", delta.image),
                ));
            }
            delta.check()?;
            if !ways.insert((&delta.image, &delta.codec, delta.base)) {
                let detail = format!("a delta for image {} stands twice", delta.image);
                return Err(Error::malformed(STRUCTURE, detail));
            }
        }
        self.section_bytes().map(|_| ())?;
        let bytes = toml::to_string(self).map_or(0, |text| text.len() as u64);
        if bytes > MAX_MANIFEST_BYTES {
            return Err(Error::TooLarge { structure: STRUCTURE, value: bytes, limit: MAX_MANIFEST_BYTES });
        }
        Ok(())
    }
}

impl Image {
    fn check(&self) -> Result<()> {
        check_name("image name", &self.name)?;
        if self.bytes == 0 {
            return Err(Error::malformed(STRUCTURE, format!("image {} is empty", self.name)));
        }
        for (structure, value, limit) in
            [("image", self.bytes, MAX_IMAGE_BYTES), ("chunk table", self.index.bytes, MAX_INDEX_BYTES)]
        {
            if value > limit {
                return Err(Error::TooLarge { structure, value, limit });
            }
        }
        if self.frames_bytes > self.bytes {
            return Err(Error::malformed(
                STRUCTURE,
                format!("frames of image {} are longer than the image", self.name),
            ));
        }
        if self.verity.tree == Tree::Appended && !self.bytes.is_multiple_of(BLOCK_BYTES as u64) {
            return Err(Error::malformed(
                STRUCTURE,
                format!("image {} with a tree behind it does not end on a block", self.name),
            ));
        }
        self.salt().map(|_| ())
    }
}

impl Delta {
    /// What holds for every coding, and for the one that is known: an unknown one is left alone.
    fn check(&self) -> Result<()> {
        if self.table_bytes > self.bytes {
            let detail = format!("the table of a delta for image {} is longer than the delta", self.image);
            return Err(Error::malformed(STRUCTURE, detail));
        }
        if self.codec == CODEC && self.table_bytes > MAX_INDEX_BYTES {
            return Err(Error::TooLarge {
                structure: "delta table",
                value: self.table_bytes,
                limit: MAX_INDEX_BYTES,
            });
        }
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn sample() -> Manifest {
        Manifest {
            format: 1,
            name: "demo".into(),
            version: Version::new(1, 2, 3),
            compatible: "example,kiosk-x86".into(),
            created_unix_seconds: 1_700_000_000,
            floor: None,
            build: Build { tool: "image-tool 0.1.0".into(), source: None, commit: None },
            images: vec![Image {
                name: "root".into(),
                bytes: 8192,
                frames_bytes: 100,
                verity: Verity { root: Digest256([1; 32]), salt: "0102".into(), tree: Tree::Appended },
                index: Index { bytes: 50, sha256: Digest256([2; 32]) },
            }],
            documents: vec![],
            deltas: vec![],
        }
    }

    #[test]
    fn round_trip() {
        let text = sample().encode().unwrap();
        assert_eq!(Manifest::decode(text.as_bytes()).unwrap(), sample());
    }

    fn delta(codec: &str) -> Delta {
        Delta {
            image: "root".into(),
            codec: codec.into(),
            base: Digest256([3; 32]),
            base_version: Version::new(1, 2, 2),
            bytes: 60,
            table_bytes: 50,
            table_sha256: Digest256([4; 32]),
        }
    }

    #[test]
    fn deltas_of_any_codec_are_carried_and_nonsense_is_refused() {
        let mut manifest = sample();
        manifest.deltas = vec![delta(CODEC), delta("from-the-future")];
        let text = manifest.encode().unwrap();
        assert_eq!(Manifest::decode(text.as_bytes()).unwrap(), manifest);
        assert_eq!(manifest.section_bytes().unwrap()[3], 120);
        manifest.deltas[1].bytes = 1 << 62;
        manifest.deltas[1].table_bytes = 1 << 62;
        assert!(manifest.encode().is_ok(), "its sizes are nobody's business");

        type Spoil = fn(&mut Vec<Delta>);
        let spoils: [(&str, Spoil); 6] = [
            ("no such image", |deltas| deltas[0].image = "boot".into()),
            ("table longer than the delta", |deltas| deltas[0].table_bytes = 61),
            ("table too large", |deltas| (deltas[0].bytes, deltas[0].table_bytes) = (1 << 40, 1 << 40)),
            ("twice", |deltas| deltas.push(deltas[0].clone())),
            ("too many", |deltas| {
                deltas.extend(
                    (0..=MAX_DELTAS as u64)
                        .map(|n| Delta { base: Digest256::of(&n.to_le_bytes()), ..delta(CODEC) }),
                );
            }),
            ("longer than 64 bits", |deltas| deltas[1].bytes = u64::MAX),
        ];
        for (name, spoil) in spoils {
            let mut manifest = sample();
            manifest.deltas = vec![delta(CODEC), delta("from-the-future")];
            spoil(&mut manifest.deltas);
            assert!(manifest.encode().is_err(), "{name}");
        }
    }

    #[test]
    fn what_cannot_be_is_refused() {
        type Spoil = fn(&mut Manifest);
        let spoils: [(&str, Spoil); 12] = [
            ("other format", |m| m.format = 2),
            ("path as name", |m| m.name = "../etc".into()),
            ("blank in compatible", |m| m.compatible = "a b".into()),
            ("no image", |m| m.images.clear()),
            ("image twice", |m| m.images.push(m.images[0].clone())),
            ("empty image", |m| m.images[0].bytes = 0),
            ("2^63", |m| m.images[0].bytes = 1 << 62),
            ("frames longer than the image", |m| m.images[0].frames_bytes = 8193),
            ("odd image with tree", |m| m.images[0].bytes = 8191),
            ("salt not hex", |m| m.images[0].verity.salt = "zz".into()),
            ("salt too long", |m| m.images[0].verity.salt = "00".repeat(257)),
            ("index too large", |m| m.images[0].index.bytes = 1 << 40),
        ];
        for (name, spoil) in spoils {
            let mut manifest = sample();
            spoil(&mut manifest);
            assert!(manifest.encode().is_err(), "{name}");
        }
        let text = sample().encode().unwrap();
        for (from, to) in [
            ("format = 1", "format = 1\nsurprise = 1"),
            ("format = 1", "format = 1\nformat = 1"),
            ("bytes = 8192", "bytes = -1"),
            ("bytes = 8192", "bytes = 99999999999999999999"),
            ("1.2.3", "1.2"),
        ] {
            assert!(text.contains(from));
            assert!(Manifest::decode(text.replacen(from, to, 1).as_bytes()).is_err(), "{to}");
        }
    }
}
