//! Reading images back: the recomputed tree is compared with the root, and with the tree that lies behind the data.

use bank_format::{
    Bank, Digest256,
    manifest::Tree,
    record::BankRecord,
    verity::{BLOCK_BYTES, TreeBuilder},
};

use super::Staged;
use crate::{
    error::{Error, Refusal, Result, bundle},
    limits::READ_BACK_BUFFER_BYTES,
    ports::{Access, BankDisk, ImageFile, Progress},
};

/// What an image must read as.
pub(super) struct Expected<'a> {
    pub bank: Bank,
    pub image: &'a str,
    pub bytes: u64,
    pub salt: &'a [u8],
    pub root: Digest256,
    pub tree: Tree,
}

/// Reads up to `buffer.len()` bytes at `offset`, less only at the end.
pub(super) fn fill(file: &mut dyn ImageFile, offset: u64, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read_at(offset + filled as u64, rest)? {
            0 => break,
            read => filled += read,
        }
    }
    Ok(filled)
}

/// Reads the whole image from the medium and compares.
pub(super) fn read_back(
    file: &mut dyn ImageFile,
    expected: &Expected<'_>,
    progress: &mut dyn Progress,
) -> Result<()> {
    let (bank, image) = (expected.bank, expected.image);
    let failed = |deed| {
        let image = image.to_owned();
        move |source| Error::Bank { deed, bank, image, source }
    };
    let differs = |detail: String| Error::ReadBack { bank, image: image.to_owned(), detail };
    // What the page cache says proves nothing about the medium.
    file.forget_cached().map_err(failed("read back"))?;
    let mut builder = TreeBuilder::new(expected.bytes, expected.salt).map_err(bundle)?;
    let tree_offset = builder.geometry().tree_offset_bytes();
    let mut tree: Vec<(u64, [u8; BLOCK_BYTES])> = Vec::new();
    let mut buffer = vec![0; READ_BACK_BUFFER_BYTES];
    let mut offset = 0;
    while offset < expected.bytes {
        let wanted = (expected.bytes - offset).min(READ_BACK_BUFFER_BYTES as u64) as usize;
        let part = buffer.get_mut(..wanted).unwrap_or_default();
        let read = fill(file, offset, part).map_err(failed("read back"))?;
        if read < wanted {
            return Err(differs(format!("it ends at byte {}", offset + read as u64)));
        }
        builder.update(part, &mut |number, block| tree.push((number, *block))).map_err(bundle)?;
        offset += wanted as u64;
        progress.advance(wanted as u64);
        compare_tree(file, expected, tree_offset, &mut tree)?;
    }
    let found = builder.finish(&mut |number, block| tree.push((number, *block))).map_err(bundle)?;
    compare_tree(file, expected, tree_offset, &mut tree)?;
    if found == expected.root {
        Ok(())
    } else {
        Err(differs(format!("verity root {found} instead of {}", expected.root)))
    }
}

fn compare_tree(
    file: &mut dyn ImageFile,
    expected: &Expected<'_>,
    tree_offset: u64,
    blocks: &mut Vec<(u64, [u8; BLOCK_BYTES])>,
) -> Result<()> {
    for (number, block) in blocks.drain(..) {
        if expected.tree == Tree::None {
            continue;
        }
        let mut found = [0; BLOCK_BYTES];
        let (bank, image) = (expected.bank, expected.image.to_owned());
        let offset = tree_offset + number * BLOCK_BYTES as u64;
        let read = fill(file, offset, &mut found).map_err(|source| Error::Bank {
            deed: "read back",
            bank,
            image,
            source,
        })?;
        if read < BLOCK_BYTES || found != block {
            return Err(Error::ReadBack {
                bank: expected.bank,
                image: expected.image.to_owned(),
                detail: format!("block {number} of its tree is another"),
            });
        }
    }
    Ok(())
}

/// Reads a bank back against what the record knows of it: the way back to an older release.
pub fn prove(
    disk: &dyn BankDisk,
    bank: Bank,
    known: &BankRecord,
    progress: &mut dyn Progress,
) -> Result<Staged> {
    let no_way = |why: String| Error::Refused(Refusal::NoWayBack { bank, why });
    if known.images.is_empty() {
        return Err(no_way("the record holds no proof of its images".into()));
    }
    if disk.images(bank) != known.images.keys().cloned().collect() {
        return Err(no_way("its images are not those of the configuration".into()));
    }
    for (image, proof) in &known.images {
        let mut file = disk.open(bank, image, Access::Read).map_err(|source| Error::Bank {
            deed: "open",
            bank,
            image: image.clone(),
            source,
        })?;
        let salt = hex::decode(&proof.salt).map_err(|_| no_way("its salt is not hexadecimal".into()))?;
        let expected = Expected {
            bank,
            image,
            bytes: proof.bytes,
            salt: &salt,
            root: proof.verity_root,
            // Where an older record does not say whether a tree lies behind, the initrd checks it before it is used.
            tree: proof.tree.unwrap_or(Tree::None),
        };
        read_back(file.as_mut(), &expected, progress)?;
    }
    Ok(Staged { bank })
}
