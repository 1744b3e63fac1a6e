//! Writing the passive bank. [`BankWriter::write_chunk`] is the only door for data, and checks each chunk before it.

use std::collections::BTreeMap;

use bank_format::{
    Bank, Digest256, Manifest, Verified,
    index::Chunk,
    manifest::{Image, Tree},
    record::ImageProof,
    verity::{BLOCK_BYTES, TreeBuilder},
};

use super::{
    PassiveBank, Staged,
    proof::{Expected, fill, read_back},
};
use crate::{
    error::{Error, Result, bundle},
    limits::READ_BACK_BUFFER_BYTES,
    ports::{Access, BankDisk, ImageFile, Progress},
};

struct OpenImage<'a> {
    entry: &'a Image,
    salt: Vec<u8>,
    file: Box<dyn ImageFile>,
}

/// The passive bank, open for writing. An error leaves it unbootable; the next install takes up what is already there.
pub struct BankWriter<'a> {
    bank: Bank,
    images: Vec<OpenImage<'a>>,
    /// First bytes of the last image: written last of all.
    held: Vec<u8>,
    written_bytes: u64,
}

impl<'a> BankWriter<'a> {
    /// Opens the images, and wipes the first block of the last one: a half-written bank never looks bootable to firmware.
    pub fn open(disk: &dyn BankDisk, passive: PassiveBank, manifest: &'a Verified<Manifest>) -> Result<Self> {
        let bank = passive.bank();
        let mut images = Vec::new();
        for entry in &manifest.images {
            let file = disk.open(bank, &entry.name, Access::Write).map_err(|source| Error::Bank {
                deed: "open",
                bank,
                image: entry.name.clone(),
                source,
            })?;
            images.push(OpenImage { entry, salt: entry.salt().map_err(bundle)?, file });
        }
        let held_bytes = images.last().map_or(0, |last| last.entry.bytes.min(BLOCK_BYTES as u64));
        let mut writer = Self { bank, images, held: vec![0; held_bytes as usize], written_bytes: 0 };
        writer.wipe()?;
        Ok(writer)
    }

    fn wipe(&mut self) -> Result<()> {
        let bank = self.bank;
        let zeros = vec![0; self.held.len()];
        if let Some(last) = self.images.last_mut() {
            let image = last.entry.name.clone();
            // Without this flush the old first block could outlive the blocks behind it, and firmware would start a mixture.
            last.file.write_at(0, &zeros).and_then(|()| last.file.flush()).map_err(|source| Error::Bank {
                deed: "wipe the first block of",
                bank,
                image,
                source,
            })?;
        }
        Ok(())
    }

    /// Bytes that were written so far.
    #[must_use]
    pub fn written_bytes(&self) -> u64 {
        self.written_bytes
    }

    /// Whether the chunk lies in its place already. `buffer` is scratch.
    pub fn in_place(&mut self, image: usize, chunk: &Chunk, buffer: &mut Vec<u8>) -> Result<bool> {
        if self.is_last(image) && chunk.offset < self.held.len() as u64 {
            return Ok(false);
        }
        let bank = self.bank;
        let open = self.image(image)?;
        buffer.resize(chunk.bytes as usize, 0);
        let read = fill(open.file.as_mut(), chunk.offset, buffer).map_err(|source| Error::Bank {
            deed: "read",
            bank,
            image: open.entry.name.clone(),
            source,
        })?;
        Ok(read == buffer.len() && Digest256::of(buffer) == chunk.digest)
    }

    /// Checks the bytes against the signed table, then writes them in their place. Not on stable storage before [`Self::finalize`].
    pub fn write_chunk(&mut self, image: usize, chunk: &Chunk, bytes: &[u8]) -> Result<()> {
        let (bank, last) = (self.bank, self.is_last(image));
        let held_bytes = self.held.len() as u64;
        let open = self.image(image)?;
        let name = &open.entry.name;
        if bytes.len() as u64 != u64::from(chunk.bytes) {
            return Err(Error::Bug { detail: "a chunk is written with another length" });
        }
        chunk.digest.check(bytes, || format!("image {name} at byte {}", chunk.offset)).map_err(bundle)?;
        let hold = if last { held_bytes.saturating_sub(chunk.offset).min(bytes.len() as u64) } else { 0 };
        let (first, rest) = bytes.split_at(hold as usize);
        if !rest.is_empty() {
            open.file.write_at(chunk.offset + hold, rest).map_err(|source| Error::Bank {
                deed: "write",
                bank,
                image: name.clone(),
                source,
            })?;
        }
        for (to, from) in self.held.iter_mut().skip(chunk.offset as usize).zip(first) {
            *to = *from;
        }
        self.written_bytes += bytes.len() as u64;
        Ok(())
    }

    /// All chunks of the image are written: computes its tree, compares the root, writes the tree where it is kept.
    pub fn seal_image(&mut self, image: usize) -> Result<()> {
        let (bank, last) = (self.bank, self.is_last(image));
        let held = if last { self.held.clone() } else { Vec::new() };
        let open = self.image(image)?;
        let entry = open.entry;
        let failed = |deed| {
            let image = entry.name.clone();
            move |source| Error::Bank { deed, bank, image, source }
        };
        open.file.set_bytes(entry.bank_bytes().map_err(bundle)?).map_err(failed("resize"))?;
        if entry.verity.tree == Tree::None {
            return Ok(());
        }
        let mut builder = TreeBuilder::new(entry.bytes, &open.salt).map_err(bundle)?;
        let tree_offset = builder.geometry().tree_offset_bytes();
        let mut tree: Vec<(u64, [u8; BLOCK_BYTES])> = Vec::new();
        let mut buffer = vec![0; READ_BACK_BUFFER_BYTES];
        let mut offset = 0;
        let mut tree_bytes = 0;
        while offset < entry.bytes {
            let wanted = (entry.bytes - offset).min(READ_BACK_BUFFER_BYTES as u64) as usize;
            let part = buffer.get_mut(..wanted).unwrap_or_default();
            let read = fill(open.file.as_mut(), offset, part).map_err(failed("read"))?;
            if read < wanted {
                let image = entry.name.clone();
                return Err(Error::ReadBack { bank, image, detail: "it ends early".into() });
            }
            if offset == 0 {
                for (to, from) in part.iter_mut().zip(&held) {
                    *to = *from;
                }
            }
            builder.update(part, &mut |number, block| tree.push((number, *block))).map_err(bundle)?;
            offset += wanted as u64;
            for (number, block) in tree.drain(..) {
                open.file
                    .write_at(tree_offset + number * BLOCK_BYTES as u64, &block)
                    .map_err(failed("write the tree of"))?;
                tree_bytes += BLOCK_BYTES as u64;
            }
        }
        let found = builder.finish(&mut |number, block| tree.push((number, *block))).map_err(bundle)?;
        for (number, block) in tree.drain(..) {
            open.file
                .write_at(tree_offset + number * BLOCK_BYTES as u64, &block)
                .map_err(failed("write the tree of"))?;
            tree_bytes += BLOCK_BYTES as u64;
        }
        self.written_bytes += tree_bytes;
        if found == entry.verity.root {
            Ok(())
        } else {
            let image = entry.name.clone();
            Err(Error::VerityRoot { image, expected: entry.verity.root, found })
        }
    }

    /// Flushes, writes the first block of the last image, flushes, and reads everything back from the medium.
    pub fn finalize(mut self, progress: &mut dyn Progress) -> Result<(Staged, BTreeMap<String, ImageProof>)> {
        let bank = self.bank;
        let flush = |deed, images: &mut [OpenImage<'_>]| {
            images.iter_mut().try_for_each(|open| {
                let image = open.entry.name.clone();
                open.file.flush().map_err(|source| Error::Bank { deed, bank, image, source })
            })
        };
        // Without this flush the first block, which makes the bank bootable, could reach the medium before what it leads to.
        flush("flush", &mut self.images)?;
        if let Some(last) = self.images.last_mut() {
            let image = last.entry.name.clone();
            last.file.write_at(0, &self.held).map_err(|source| Error::Bank {
                deed: "write the first block of",
                bank,
                image,
                source,
            })?;
        }
        // Without this flush the read-back would prove the page cache, and the record would call torn bytes written.
        flush("flush", &mut self.images)?;
        let mut proofs = BTreeMap::new();
        for open in &mut self.images {
            let expected = Expected {
                bank,
                image: &open.entry.name,
                bytes: open.entry.bytes,
                salt: &open.salt,
                root: open.entry.verity.root,
                tree: open.entry.verity.tree,
            };
            read_back(open.file.as_mut(), &expected, progress)?;
            let proof = ImageProof {
                bytes: open.entry.bytes,
                verity_root: open.entry.verity.root,
                salt: open.entry.verity.salt.clone(),
                tree: Some(open.entry.verity.tree),
            };
            proofs.insert(open.entry.name.clone(), proof);
        }
        Ok((Staged { bank }, proofs))
    }

    fn is_last(&self, image: usize) -> bool {
        image + 1 == self.images.len()
    }

    fn image(&mut self, number: usize) -> Result<&mut OpenImage<'a>> {
        self.images.get_mut(number).ok_or(Error::Bug { detail: "there is no image of that number" })
    }
}
