//! Reading images back: the tree is computed from what the medium gives, and its root is compared; so is the tree that lies behind the data.

use std::sync::Arc;

use bank_format::{
    Bank, Digest256,
    index::Chunk,
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

/// Reads chunks that lie one behind the other from `offset` on, each with its place in the buffer. Those that cannot be read, or lie behind the end,
/// are left out: a bad place costs the chunk that has it, not its neighbours.
pub(crate) fn fill_parts(
    file: &mut dyn ImageFile,
    offset: u64,
    buffer: &mut [u8],
    parts: &mut Vec<(Chunk, usize)>,
) {
    match fill(file, offset, buffer) {
        Ok(read) => parts.retain(|(chunk, at)| at + chunk.bytes as usize <= read),
        Err(_) => parts.retain(|(chunk, at)| {
            let part = buffer.get_mut(*at..).and_then(|rest| rest.get_mut(..chunk.bytes as usize));
            part.is_some_and(|part| {
                fill(file, offset + *at as u64, part).is_ok_and(|read| read == part.len())
            })
        }),
    }
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
    let mut crew: Crew<(Leaves, usize, Pages)> = Crew::new();
    let mut tree: Vec<(u64, [u8; BLOCK_BYTES])> = Vec::new();
    let mut spare: Vec<Pages> = Vec::new();
    let piece_bytes = expected.bytes.min(DIRECT_BYTES as u64) as usize;
    let mut offset = 0;
    loop {
        while offset < expected.bytes && crew.has_room(piece_bytes) {
            let wanted = (expected.bytes - offset).min(DIRECT_BYTES as u64) as usize;
            let mut pages = spare.pop().unwrap_or_else(|| Pages::for_content(expected.bytes));
            let buffer = pages.bytes_mut().get_mut(..wanted).unwrap_or_default();
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
            crew.give(piece_bytes, move |_| {
                let buffer = pages.bytes().get(..wanted).unwrap_or_default();
                Ok((Leaves::of(&salt, buffer), wanted, pages))
            });
        }
        let Some(hashed) = crew.take() else { break };
        let (leaves, bytes, pages) = hashed?;
        progress.advance(bytes as u64);
        spare.push(pages);
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

#[cfg(test)]
mod tests {
    use bank_format::index::Source;

    use super::*;

    /// A disk of sevens, one byte of which cannot be read.
    struct Scratched(u64);

    impl ImageFile for Scratched {
        fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> std::io::Result<usize> {
            if (offset..offset + buffer.len() as u64).contains(&self.0) {
                return Err(std::io::Error::other("a bad place"));
            }
            buffer.fill(7);
            Ok(buffer.len())
        }
        fn write_at(&mut self, _: u64, _: &[u8]) -> std::io::Result<()> {
            unreachable!("it is only read")
        }
        fn flush(&mut self) -> std::io::Result<()> {
            unreachable!("it is only read")
        }
        fn forget_cached(&mut self) -> std::io::Result<()> {
            unreachable!("it is only read")
        }
        fn set_bytes(&mut self, _: u64) -> std::io::Result<()> {
            unreachable!("it is only read")
        }
    }

    #[test]
    fn a_bad_place_costs_its_chunk_and_no_other() {
        let chunk = |at: u64| Chunk {
            offset: 1000 + at,
            bytes: 10,
            digest: Digest256::of(&[7; 10]),
            source: Source::Zeros,
        };
        let mut parts: Vec<(Chunk, usize)> = (0..3).map(|n| (chunk(n * 10), n as usize * 10)).collect();
        let mut buffer = [0; 30];
        fill_parts(&mut Scratched(1015), 1000, &mut buffer, &mut parts);
        let offsets: Vec<u64> = parts.iter().map(|(chunk, _)| chunk.offset).collect();
        assert_eq!(offsets, [1000, 1020]);
        assert_eq!((buffer[9], buffer[20]), (7, 7));
    }
}
