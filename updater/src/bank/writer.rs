//! Writing the passive bank. [`BankWriter::write`] is the only door for data, and takes nothing that was not checked.

use std::collections::BTreeMap;

use bank_format::{
    Bank, Digest256, Manifest, Verified,
    barrier::{Barrier, holds},
    index::{Chunk, ChunkTable},
    manifest::{Image, Tree},
    record::ImageProof,
    verity::{BLOCK_BYTES, Geometry},
};

use super::{
    Checked, PassiveBank, Staged,
    proof::{Expected, check_tree, fill, read_data},
    tail,
};
use crate::{
    error::{Error, Result, bundle},
    ports::{Access, BankDisk, ImageFile, Progress},
};

struct OpenImage<'a> {
    entry: &'a Image,
    salt: Vec<u8>,
    file: Box<dyn ImageFile>,
}

impl OpenImage<'_> {
    fn failed(&self, bank: Bank, deed: &'static str) -> impl Fn(std::io::Error) -> Error + use<> {
        let image = self.entry.name.clone();
        move |source| Error::Bank { deed, bank, image: image.clone(), source }
    }
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
    /// Opens the images, and wipes the first block of the last one: a half-written bank never looks bootable to firmware. What the tails say
    /// of the banks is over, too.
    pub fn open(disk: &dyn BankDisk, passive: PassiveBank, manifest: &'a Verified<Manifest>) -> Result<Self> {
        let bank = passive.bank();
        let mut images = Vec::new();
        for entry in &manifest.images {
            tail::wipe(disk, bank, entry);
            let file = disk.open(bank, &entry.name, Access::Write).map_err(|source| Error::Bank {
                deed: "open",
                bank,
                image: entry.name.clone(),
                source,
            })?;
            images.push(OpenImage { entry, salt: entry.salt().map_err(bundle)?, file });
        }
        let held = if holds(Barrier::BankFirstBlockLast) { BLOCK_BYTES as u64 } else { 0 };
        let held_bytes = images.last().map_or(0, |last| last.entry.bytes.min(held));
        let mut writer = Self { bank, images, held: vec![0; held_bytes as usize], written_bytes: 0 };
        writer.wipe()?;
        Ok(writer)
    }

    fn wipe(&mut self) -> Result<()> {
        let zeros = vec![0; self.held.len()];
        if let Some(last) = self.images.last_mut() {
            let failed = last.failed(self.bank, "wipe the first block of");
            // Without this flush the old first block could outlive the blocks behind it, and firmware would start a mixture.
            let file = last.file.as_mut();
            file.write_at(0, &zeros).and_then(|()| flushed(file, Barrier::BankWipe)).map_err(failed)?;
        }
        Ok(())
    }

    /// Writes chunks in their places. Not on stable storage before [`Self::finalize`].
    pub fn write(&mut self, image: usize, checked: &Checked) -> Result<()> {
        let (bank, held_bytes) = (self.bank, self.held_in(image));
        for (chunk, bytes) in checked.parts() {
            let hold = held_bytes.saturating_sub(chunk.offset).min(bytes.len() as u64);
            let (first, rest) = bytes.split_at(hold as usize);
            if !rest.is_empty() {
                let open = self.image(image)?;
                let failed = open.failed(bank, "write");
                open.file.write_at(chunk.offset + hold, rest).map_err(failed)?;
            }
            for (to, from) in self.held.iter_mut().skip(chunk.offset as usize).zip(first) {
                *to = *from;
            }
            self.written_bytes += bytes.len() as u64;
        }
        Ok(())
    }

    /// Writes a chunk of zeros in its place.
    pub fn write_zeros(&mut self, image: usize, chunk: &Chunk) -> Result<()> {
        let (bank, bytes) = (self.bank, u64::from(chunk.bytes));
        // What is held was zeros from the start.
        let hold = self.held_in(image).saturating_sub(chunk.offset).min(bytes);
        if hold < bytes {
            let open = self.image(image)?;
            let failed = open.failed(bank, "write");
            open.file.zero_at(chunk.offset + hold, bytes - hold).map_err(failed)?;
        }
        self.written_bytes += bytes;
        Ok(())
    }

    /// Bytes at the start of the image that are held back.
    #[must_use]
    pub fn held_in(&self, image: usize) -> u64 {
        if image + 1 == self.images.len() { self.held.len() as u64 } else { 0 }
    }

    /// All chunks are written. Reads the data back from the medium, writes the trees and reads them back, then the first block of the last image, and
    /// reads that back as well; tails come last. `tables` are the chunk tables of the images, in their order. The last number is the bytes that were written in all.
    pub fn finalize(
        mut self,
        disk: &dyn BankDisk,
        tables: &[&ChunkTable],
        progress: &mut dyn Progress,
    ) -> Result<(Staged, BTreeMap<String, ImageProof>, u64)> {
        let bank = self.bank;
        for open in &mut self.images {
            let bytes = open.entry.bank_bytes().map_err(bundle)?;
            let failed = open.failed(bank, "resize");
            open.file.set_bytes(bytes).map_err(failed)?;
        }
        // Without this flush the read-back would prove the page cache, and the first block, which makes the bank bootable, could reach the
        // medium before what it leads to.
        self.flush(Barrier::BankData)?;
        let mut proofs = BTreeMap::new();
        for (number, table) in (0..self.images.len()).zip(tables) {
            self.prove_data(number, table, progress)?;
            let entry = self.image(number)?.entry;
            let proof = ImageProof {
                bytes: entry.bytes,
                verity_root: entry.verity.root,
                salt: entry.verity.salt.clone(),
                tree: Some(entry.verity.tree),
            };
            proofs.insert(entry.name.clone(), proof);
        }
        // As above, for the trees.
        self.flush(Barrier::BankTrees)?;
        for number in 0..self.images.len() {
            self.prove_tree(number)?;
        }
        self.make_bootable()?;
        for (open, table) in self.images.iter().zip(tables) {
            tail::write(disk, bank, open.entry, table);
        }
        Ok((Staged { bank }, proofs, self.written_bytes))
    }

    fn flush(&mut self, barrier: Barrier) -> Result<()> {
        let bank = self.bank;
        self.images.iter_mut().try_for_each(|open| {
            let failed = open.failed(bank, "flush");
            flushed(open.file.as_mut(), barrier).map_err(failed)
        })
    }

    /// Reads the data of an image back, writes its tree and its tail.
    fn prove_data(&mut self, number: usize, table: &ChunkTable, progress: &mut dyn Progress) -> Result<()> {
        let bank = self.bank;
        let held = self.held.clone();
        let held = held.get(..self.held_in(number) as usize).unwrap_or_default();
        let open = self.image(number)?;
        let entry = open.entry;
        let expected = expected(bank, entry, &open.salt);
        let tree_offset = Geometry::for_bytes(entry.bytes).map_err(bundle)?.tree_offset_bytes();
        let mut tree_bytes = 0;
        let failed = open.failed(bank, "write the tree of");
        let found = read_data(
            open.file.as_mut(),
            &expected,
            held,
            &mut |file, number, block| {
                if entry.verity.tree == Tree::None {
                    return Ok(());
                }
                tree_bytes += block.len() as u64;
                file.write_at(tree_offset + number * BLOCK_BYTES as u64, block).map_err(&failed)
            },
            progress,
        )?;
        if found != entry.verity.root {
            return Err(why_not(open.file.as_mut(), &expected, held, table, found));
        }
        self.written_bytes += tree_bytes;
        Ok(())
    }

    /// Reads back what was written behind the data.
    fn prove_tree(&mut self, number: usize) -> Result<()> {
        let bank = self.bank;
        let open = self.image(number)?;
        let failed = open.failed(bank, "read back");
        open.file.forget_cached().map_err(failed)?;
        check_tree(open.file.as_mut(), &expected(bank, open.entry, &open.salt))
    }

    /// Writes the block that was held, and reads it back. Where that fails, it is wiped again as far as that can be done.
    fn make_bootable(&mut self) -> Result<()> {
        let bank = self.bank;
        let Some(last) = self.images.last_mut() else { return Ok(()) };
        let failed = last.failed(bank, "write the first block of");
        let file = last.file.as_mut();
        let mut first = vec![0; self.held.len()];
        // Without this flush the record would call a bank written that does not start.
        let read = file
            .write_at(0, &self.held)
            .and_then(|()| flushed(file, Barrier::BankFirstBlock))
            .and_then(|()| file.forget_cached())
            .and_then(|()| fill(file, 0, &mut first));
        if read.as_ref().is_ok_and(|read| *read == first.len()) && first == self.held {
            return Ok(());
        }
        let _ = file.write_at(0, &vec![0; self.held.len()]).and_then(|()| file.flush());
        read.map_err(failed)?;
        let image = last.entry.name.clone();
        Err(Error::ReadBack { bank, image, detail: "its first block is another".into() })
    }

    fn image(&mut self, number: usize) -> Result<&mut OpenImage<'a>> {
        self.images.get_mut(number).ok_or(Error::Bug { detail: "there is no image of that number" })
    }
}

fn flushed(file: &mut dyn ImageFile, barrier: Barrier) -> std::io::Result<()> {
    if holds(barrier) { file.flush() } else { Ok(()) }
}

fn expected<'e>(bank: Bank, entry: &'e Image, salt: &'e [u8]) -> Expected<'e> {
    let (root, tree) = (entry.verity.root, entry.verity.tree);
    Expected { bank, image: &entry.name, bytes: entry.bytes, salt, root, tree }
}

/// Another root than the signed one: either the medium gives other chunks than were written, or the table contradicts the manifest.
fn why_not(
    file: &mut dyn ImageFile,
    expected: &Expected<'_>,
    held: &[u8],
    table: &ChunkTable,
    found: Digest256,
) -> Error {
    let (bank, image) = (expected.bank, expected.image.to_owned());
    let mut buffer = Vec::new();
    for chunk in table.chunks() {
        buffer.resize(chunk.bytes as usize, 0);
        let read = match fill(file, chunk.offset, &mut buffer) {
            Ok(read) => read,
            Err(source) => return Error::Bank { deed: "read back", bank, image, source },
        };
        for (to, from) in buffer.iter_mut().zip(held.iter().skip(chunk.offset as usize)) {
            *to = *from;
        }
        if read < buffer.len() || Digest256::of(&buffer) != chunk.digest {
            let detail = format!("{} bytes at byte {} are others", chunk.bytes, chunk.offset);
            return Error::ReadBack { bank, image, detail };
        }
    }
    Error::VerityRoot { image, expected: expected.root, found }
}
