//! Bytes that passed the digests of the signed table: the only thing that [`super::BankWriter`] takes.

use bank_format::{Digest256, index::Chunk};

use crate::error::{Error, Result, bundle};

/// Chunks, checked, one behind the other or with gaps in a buffer.
#[derive(Debug)]
pub struct Checked {
    bytes: Vec<u8>,
    parts: Vec<(Chunk, usize)>,
}

impl Checked {
    /// Compares each chunk with its digest; the number is where its bytes begin in `bytes`. One that differs is an error.
    pub fn all(image: &str, bytes: Vec<u8>, parts: Vec<(Chunk, usize)>) -> Result<Self> {
        let mut known: Option<(usize, Digest256)> = None;
        for (chunk, at) in &parts {
            let part = bytes
                .get(*at..)
                .and_then(|rest| rest.get(..chunk.bytes as usize))
                .ok_or(Error::Bug { detail: "a chunk reaches beyond what carries it" })?;
            // A chunk that the image has several times is hashed once.
            if known != Some((*at, chunk.digest)) {
                chunk
                    .digest
                    .check(part, || format!("image {image} at byte {}", chunk.offset))
                    .map_err(bundle)?;
                known = Some((*at, chunk.digest));
            }
        }
        Ok(Self { bytes, parts })
    }

    /// Those chunks that pass; the others are left out.
    #[must_use]
    pub fn some(bytes: Vec<u8>, mut parts: Vec<(Chunk, usize)>) -> Self {
        let mut known: Option<(usize, Digest256)> = None;
        parts.retain(|(chunk, at)| {
            let part = bytes.get(*at..).and_then(|rest| rest.get(..chunk.bytes as usize));
            let is_known = known == Some((*at, chunk.digest));
            if is_known || part.is_some_and(|part| Digest256::of(part) == chunk.digest) {
                known = Some((*at, chunk.digest));
                return true;
            }
            false
        });
        Self { bytes, parts }
    }

    /// The chunks, each with its bytes.
    pub fn parts(&self) -> impl Iterator<Item = (&Chunk, &[u8])> {
        self.parts.iter().map(|(chunk, at)| {
            let part = self.bytes.get(*at..).and_then(|rest| rest.get(..chunk.bytes as usize));
            (chunk, part.unwrap_or_default())
        })
    }

    /// Bytes of the chunks together.
    #[must_use]
    pub fn content_bytes(&self) -> u64 {
        self.parts.iter().map(|(chunk, _)| u64::from(chunk.bytes)).sum()
    }

    /// The buffer, to be used again.
    #[must_use]
    pub fn into_buffer(self) -> Vec<u8> {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use bank_format::index::Source;

    use super::*;

    fn chunk(offset: u64, content: &[u8]) -> Chunk {
        let source = Source::Frame { frame: 0, offset: 0 };
        Chunk { offset, bytes: content.len() as u32, source, digest: Digest256::of(content) }
    }

    #[test]
    fn what_does_not_pass_is_not_handed_on() {
        let parts = || vec![(chunk(0, b"one"), 0), (chunk(3, b"two"), 3), (chunk(6, b"one"), 0)];
        let all = Checked::all("root", b"onetwo".to_vec(), parts()).unwrap();
        let found: Vec<_> = all.parts().map(|(chunk, bytes)| (chunk.offset, bytes)).collect();
        assert_eq!(found, [(0, &b"one"[..]), (3, b"two"), (6, b"one")]);
        assert_eq!(all.content_bytes(), 9);
        assert!(Checked::all("root", b"onetwa".to_vec(), parts()).is_err());
        assert!(Checked::all("root", b"onetw".to_vec(), parts()).is_err(), "too short");
        let some = Checked::some(b"onetwa".to_vec(), parts());
        assert_eq!(some.parts().map(|(chunk, _)| chunk.offset).collect::<Vec<_>>(), [0, 6]);
        assert_eq!(Checked::some(Vec::new(), parts()).content_bytes(), 0);
    }
}
