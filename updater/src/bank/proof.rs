//! Reading images back: the tree is computed from what the medium gives, and its root is compared; so is the tree that lies behind the data.

use std::sync::Arc;

use bank_format::{
    Bank, Digest256,
    manifest::Tree,
    record::BankRecord,
    verity::{BLOCK_BYTES, Leaves, TreeBuilder},
};

use super::{
    Staged,
    audit::{self, Found},
};
use crate::{
    crew::Crew,
    error::{Error, Refusal, Result, bundle},
    limits::DIRECT_BYTES,
    pages::Pages,
    ports::{Access, BankDisk, ImageFile, Progress},
};

/// Takes a block of the tree, with its number in it.
pub(super) type TakeTreeBlock<'t> = dyn FnMut(&mut dyn ImageFile, u64, &[u8; BLOCK_BYTES]) -> Result<()> + 't;

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
pub(crate) fn fill(file: &mut dyn ImageFile, offset: u64, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read_at(offset + filled as u64, rest)? {
            0 => break,
            read => filled += read,
        }
    }
    Ok(filled)
}

/// Reads all data of the image from the medium, and computes its tree: `take` gets each block of it, with its number in the tree. `held` is what
/// the first bytes will be. Hashing is spread over the cores.
pub(super) fn read_data(
    file: &mut dyn ImageFile,
    expected: &Expected<'_>,
    held: &[u8],
    take: &mut TakeTreeBlock<'_>,
    progress: &mut dyn Progress,
) -> Result<Digest256> {
    let (bank, image) = (expected.bank, expected.image);
    let failed = |source| Error::Bank { deed: "read back", bank, image: image.to_owned(), source };
    // What the page cache says proves nothing about the medium.
    file.forget_cached().map_err(failed)?;
    let mut builder = TreeBuilder::new(expected.bytes, expected.salt).map_err(bundle)?;
    let salt: Arc<[u8]> = expected.salt.into();
    let mut crew: Crew<(Leaves, usize, Pages)> = Crew::new()?;
    let mut tree: Vec<(u64, [u8; BLOCK_BYTES])> = Vec::new();
    let mut spare: Vec<Pages> = Vec::new();
    let mut offset = 0;
    loop {
        while offset < expected.bytes && crew.has_room(DIRECT_BYTES) {
            let wanted = (expected.bytes - offset).min(DIRECT_BYTES as u64) as usize;
            let mut room = spare.pop().unwrap_or_default();
            let buffer = room.bytes_mut().get_mut(..wanted).unwrap_or_default();
            let read = fill(file, offset, buffer).map_err(failed)?;
            if read < wanted {
                let detail = format!("it ends at byte {}", offset + read as u64);
                return Err(Error::ReadBack { bank, image: image.to_owned(), detail });
            }
            if offset == 0 {
                for (to, from) in buffer.iter_mut().zip(held) {
                    *to = *from;
                }
            }
            offset += wanted as u64;
            let salt = Arc::clone(&salt);
            crew.give(DIRECT_BYTES, move |_| {
                let buffer = room.bytes().get(..wanted).unwrap_or_default();
                Ok((Leaves::of(&salt, buffer), wanted, room))
            });
        }
        let Some(hashed) = crew.take() else { break };
        let (leaves, bytes, room) = hashed?;
        progress.advance(bytes as u64);
        spare.push(room);
        builder.push(&leaves, &mut |number, block| tree.push((number, *block))).map_err(bundle)?;
        tree.drain(..).try_for_each(|(number, block)| take(file, number, &block))?;
    }
    let root = builder.finish(&mut |number, block| tree.push((number, *block))).map_err(bundle)?;
    tree.drain(..).try_for_each(|(number, block)| take(file, number, &block))?;
    Ok(root)
}

/// The tree that lies behind the data is the one under the root.
pub(super) fn check_tree(file: &mut dyn ImageFile, expected: &Expected<'_>) -> Result<()> {
    match expected.tree {
        Tree::None => Ok(()),
        Tree::Appended => match audit::tree(file, expected.bytes, expected.salt, expected.root)? {
            Found::AsInstalled => Ok(()),
            Found::Differs { detail, .. } => {
                Err(Error::ReadBack { bank: expected.bank, image: expected.image.to_owned(), detail })
            }
        },
    }
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
        let found = read_data(file.as_mut(), &expected, &[], &mut |_, _, _| Ok(()), progress)?;
        if found != expected.root {
            let detail = format!("verity root {found} instead of {}", expected.root);
            return Err(Error::ReadBack { bank, image: image.clone(), detail });
        }
        check_tree(file.as_mut(), &expected)?;
    }
    Ok(Staged { bank })
}
