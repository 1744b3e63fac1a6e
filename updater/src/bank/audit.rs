//! Whether a bank still is what was installed: its images are read again, and compared with what the record knows of them.
//!
//! Where a tree lies behind the data, it is checked first, from the root down; then each block of data against its leaf, which
//! names the block that differs. Memory: one buffer and two tree blocks, however large the image is.

use std::io;

use bank_format::{
    Bank, Digest256,
    manifest::Tree,
    record::{BankRecord, ImageProof},
    verity::{BLOCK_BYTES, DigestPlace, Geometry, TreeBuilder, hash_block},
};
use serde::Serialize;

use super::proof::fill;
use crate::{
    error::{Error, Result, bundle},
    limits::AUDIT_BUFFER_BYTES,
    ports::{Access, BankDisk, ImageFile, Progress},
};

/// How an image was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AuditedImage {
    /// Which.
    pub image: String,
    /// How.
    #[serde(flatten)]
    pub found: Found,
}

/// How an image was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "result", rename_all = "kebab-case")]
pub enum Found {
    /// Every bit is as it was installed.
    AsInstalled,
    /// Something is another.
    Differs {
        /// The first block of 4096 bytes that differs, counted from the start of the image, the tree behind it included; unknown where
        /// there is no tree to say it.
        block: Option<u64>,
        /// What is wrong, in one line.
        detail: String,
    },
}

fn differs(block: u64, detail: impl Into<String>) -> Found {
    Found::Differs { block: Some(block), detail: detail.into() }
}

/// Reads all images of a bank that the record knows. An image that cannot be read is a finding like any other.
pub fn audit(
    disk: &dyn BankDisk,
    bank: Bank,
    known: &BankRecord,
    progress: &mut dyn Progress,
) -> Result<Vec<AuditedImage>> {
    let mut images = Vec::new();
    for (image, proof) in &known.images {
        let found = match disk.open(bank, image, Access::Read) {
            Ok(mut file) => audit_image(file.as_mut(), proof, progress)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Found::Differs { block: None, detail: "it is not there".into() }
            }
            Err(source) => return Err(Error::Bank { deed: "open", bank, image: image.clone(), source }),
        };
        images.push(AuditedImage { image: image.clone(), found });
    }
    Ok(images)
}

fn audit_image(file: &mut dyn ImageFile, proof: &ImageProof, progress: &mut dyn Progress) -> Result<Found> {
    let Ok(salt) = hex::decode(&proof.salt) else {
        return Ok(Found::Differs {
            block: None,
            detail: "its salt in the record is not hexadecimal".into(),
        });
    };
    // What the page cache says proves nothing about the medium. Where that cannot be emptied, the cache is what is read.
    let _ = file.forget_cached();
    let geometry = Geometry::for_bytes(proof.bytes).map_err(bundle)?;
    let mut image = Image { file, salt: &salt, root: proof.verity_root, geometry, leaf: None };
    let found = match proof.tree {
        Some(Tree::Appended) => image.tree().and_then(|()| image.data(proof.bytes, progress)),
        Some(Tree::None) | None => image.whole(proof.bytes, progress)?,
    };
    Ok(found.err().unwrap_or(Found::AsInstalled))
}

/// Whether the tree behind the data of an image is whole, from this root down.
pub(super) fn tree(file: &mut dyn ImageFile, bytes: u64, salt: &[u8], root: Digest256) -> Result<Found> {
    let geometry = Geometry::for_bytes(bytes).map_err(bundle)?;
    let mut image = Image { file, salt, root, geometry, leaf: None };
    Ok(image.tree().err().unwrap_or(Found::AsInstalled))
}

type Checked = Result<(), Found>;

struct Image<'a> {
    file: &'a mut dyn ImageFile,
    salt: &'a [u8],
    root: Digest256,
    geometry: Geometry,
    /// The tree block that was read last.
    leaf: Option<(u64, Box<[u8; BLOCK_BYTES]>)>,
}

impl Image<'_> {
    /// Reads `buffer` from `offset`, or says in which block that cannot be done.
    fn read(&mut self, offset: u64, buffer: &mut [u8]) -> Checked {
        let first = offset / BLOCK_BYTES as u64;
        match fill(self.file, offset, buffer) {
            Ok(read) if read == buffer.len() => return Ok(()),
            Ok(read) => return Err(differs(first + (read / BLOCK_BYTES) as u64, "the image ends there")),
            Err(_) => (),
        }
        // Block by block: one bad sector must be named, and a moment of weakness is none.
        for (block, part) in (first..).zip(buffer.chunks_mut(BLOCK_BYTES)) {
            match fill(self.file, block * BLOCK_BYTES as u64, part) {
                Ok(read) if read == part.len() => (),
                Ok(_) => return Err(differs(block, "the image ends there")),
                Err(error) => return Err(differs(block, format!("it cannot be read: {error}"))),
            }
        }
        Ok(())
    }

    fn tree_block(&mut self, number: u64) -> Result<Box<[u8; BLOCK_BYTES]>, Found> {
        let mut block = Box::new([0; BLOCK_BYTES]);
        self.read(self.geometry.tree_offset_bytes() + number * BLOCK_BYTES as u64, block.as_mut())?;
        Ok(block)
    }

    fn digest(&mut self, place: Option<DigestPlace>) -> Result<Digest256, Found> {
        let Some(place) = place else { return Ok(self.root) };
        let block = match self.leaf.take() {
            Some((number, block)) if number == place.tree_block => block,
            Some(_) | None => self.tree_block(place.tree_block)?,
        };
        let mut digest = [0; 32];
        for (to, from) in digest.iter_mut().zip(block.iter().skip(place.offset_bytes)) {
            *to = *from;
        }
        self.leaf = Some((place.tree_block, block));
        Ok(Digest256(digest))
    }

    /// Every block of the tree, from the root down: a leaf that is checked so can be believed.
    fn tree(&mut self) -> Checked {
        let geometry = self.geometry.clone();
        for (number, place) in geometry.from_the_top() {
            let expected = self.digest(place)?;
            let block = self.tree_block(number)?;
            if hash_block(self.salt, block.as_ref()) != expected {
                return Err(differs(geometry.data_blocks + number, "a block of its hash tree is another"));
            }
        }
        Ok(())
    }

    /// Every block of data, against its leaf.
    fn data(&mut self, bytes: u64, progress: &mut dyn Progress) -> Checked {
        let mut buffer = vec![0; AUDIT_BUFFER_BYTES];
        let mut offset = 0;
        while offset < bytes {
            let wanted = (bytes - offset).min(AUDIT_BUFFER_BYTES as u64) as usize;
            let part = buffer.get_mut(..wanted).unwrap_or_default();
            self.read(offset, part)?;
            for (number, block) in (offset / BLOCK_BYTES as u64..).zip(part.chunks(BLOCK_BYTES)) {
                let mut padded = [0; BLOCK_BYTES];
                for (to, from) in padded.iter_mut().zip(block) {
                    *to = *from;
                }
                if hash_block(self.salt, &padded) != self.digest(self.geometry.place_of(number))? {
                    return Err(differs(number, "a block of data is another"));
                }
            }
            offset += wanted as u64;
            progress.advance(wanted as u64);
        }
        Ok(())
    }

    /// All data against the root: there is no tree that could say where it differs.
    fn whole(&mut self, bytes: u64, progress: &mut dyn Progress) -> Result<Checked> {
        let mut builder = TreeBuilder::new(bytes, self.salt).map_err(bundle)?;
        let mut buffer = vec![0; AUDIT_BUFFER_BYTES];
        let mut offset = 0;
        while offset < bytes {
            let wanted = (bytes - offset).min(AUDIT_BUFFER_BYTES as u64) as usize;
            let part = buffer.get_mut(..wanted).unwrap_or_default();
            if let Err(found) = self.read(offset, part) {
                return Ok(Err(found));
            }
            builder.update(part, &mut |_, _| ()).map_err(bundle)?;
            offset += wanted as u64;
            progress.advance(wanted as u64);
        }
        let found = builder.finish(&mut |_, _| ()).map_err(bundle)?;
        Ok(if found == self.root {
            Ok(())
        } else {
            let detail = format!("verity root {found} instead of {}", self.root);
            Err(Found::Differs { block: None, detail })
        })
    }
}
