//! Reading a bundle, in any slicing of the input.
//!
//! `HeadReader -> Head -> Opened`, then either pieces by their place ([`Opened::index_section`] and so on, for servers with
//! ranges) or [`BodyReader`] (for a stream). Only [`Head::verify`] makes an [`Opened`], so nothing behind the head is
//! looked at before the signatures were checked.

use crate::{
    delta::{CODEC, DeltaTable},
    digest::Digest256,
    error::{Error, Result},
    header::{HEADER_BYTES, Header, Section},
    index::ChunkTable,
    limits::MAX_FRAME_STORED_BYTES,
    manifest::{Delta, Image, Manifest, Verified},
    signatures::{self, Signature, signing_message},
    trust::{Role, TrustRoot},
};

/// Header, manifest and signatures, not yet checked.
#[derive(Debug, Clone)]
pub struct Head {
    header: Header,
    manifest: Vec<u8>,
    signatures: Vec<Signature>,
}

/// What nobody has vouched for; good for messages, and for nothing else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    /// The manifest as it stands.
    pub manifest: Manifest,
    /// Who claims to have signed it.
    pub key_ids: Vec<Digest256>,
}

impl Head {
    /// Where the sections are said to be.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The manifest's bytes.
    #[must_use]
    pub fn manifest_bytes(&self) -> &[u8] {
        &self.manifest
    }

    /// What the bundle says of itself, unverified.
    pub fn claims(&self) -> Result<Claims> {
        Ok(Claims {
            manifest: Manifest::decode(&self.manifest)?,
            key_ids: self.signatures.iter().map(|signature| signature.key_id).collect(),
        })
    }

    /// Checks the signatures by the `targets` role, then reads the manifest and compares the header with it.
    pub fn verify(self, trust: &TrustRoot) -> Result<Opened> {
        trust.check(Role::Targets, "manifest", &signing_message(&self.manifest), &self.signatures)?;
        let manifest = Manifest::decode(&self.manifest)?;
        let [indexes, documents, frames, deltas] = manifest.section_bytes()?;
        let expected = Header::lay_out([
            self.manifest.len() as u64,
            signatures::section_bytes(self.signatures.len()),
            indexes,
            documents,
            frames,
            deltas,
        ])?;
        if expected != self.header {
            return Err(Error::malformed(
                "bundle header",
                "its sections are not those of the signed manifest",
            ));
        }
        let manifest_digest = Digest256::of(&self.manifest);
        Ok(Opened { header: self.header, manifest_digest, manifest: Verified::vouch(manifest) })
    }
}

/// Collects the head from a stream.
#[derive(Debug, Default)]
pub struct HeadReader {
    bytes: Vec<u8>,
    header: Option<Header>,
}

impl HeadReader {
    /// Takes what it needs from `input`; returns how many bytes it took, and the head once it is complete.
    pub fn feed(&mut self, input: &[u8]) -> Result<(usize, Option<Head>)> {
        let mut used = self.take(input, HEADER_BYTES);
        let header = match self.header {
            Some(header) => header,
            None => {
                let Some(bytes) = self.bytes.first_chunk::<HEADER_BYTES>() else { return Ok((used, None)) };
                let header = Header::decode(bytes)?;
                self.header = Some(header);
                header
            }
        };
        let head_bytes = header.indexes.offset as usize;
        used += self.take(input.get(used..).unwrap_or_default(), head_bytes);
        if self.bytes.len() < head_bytes {
            return Ok((used, None));
        }
        let part = |section: Section| {
            let start = section.offset as usize;
            self.bytes.get(start..start + section.bytes as usize).unwrap_or_default()
        };
        let head = Head {
            header,
            manifest: part(header.manifest).to_vec(),
            signatures: signatures::decode(part(header.signatures))?,
        };
        Ok((used, Some(head)))
    }

    /// Says what is missing when the input ends before the head does.
    #[must_use]
    pub fn truncated(&self) -> Error {
        let wanted = self.header.map_or(HEADER_BYTES as u64, |header| header.indexes.offset);
        Error::Truncated {
            structure: "bundle",
            missing_bytes: wanted.saturating_sub(self.bytes.len() as u64),
        }
    }

    fn take(&mut self, input: &[u8], up_to: usize) -> usize {
        let wanted = up_to.saturating_sub(self.bytes.len()).min(input.len());
        self.bytes.extend_from_slice(input.get(..wanted).unwrap_or_default());
        wanted
    }
}

/// Where a delta is in the bundle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeltaSections {
    /// Its table, as it is stored.
    pub table: Section,
    /// Its patches, one behind the other.
    pub patches: Section,
}

/// A bundle whose signatures were checked.
#[derive(Debug, Clone)]
pub struct Opened {
    header: Header,
    manifest_digest: Digest256,
    manifest: Verified<Manifest>,
}

impl Opened {
    /// Where the sections are.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The signed manifest.
    #[must_use]
    pub fn manifest(&self) -> &Verified<Manifest> {
        &self.manifest
    }

    /// SHA-256 of the manifest's bytes: names this very bundle.
    #[must_use]
    pub fn manifest_digest(&self) -> Digest256 {
        self.manifest_digest
    }

    /// The chunk table of image number `image` in the bundle.
    #[must_use]
    pub fn index_section(&self, image: usize) -> Option<Section> {
        nth(self.header.indexes, self.manifest.images.iter().map(|image| image.index.bytes), image)
    }

    /// The frames of image number `image` in the bundle.
    #[must_use]
    pub fn frames_section(&self, image: usize) -> Option<Section> {
        nth(self.header.frames, self.manifest.images.iter().map(|image| image.frames_bytes), image)
    }

    /// Document number `document` in the bundle.
    #[must_use]
    pub fn document_section(&self, document: usize) -> Option<Section> {
        nth(self.header.documents, self.manifest.documents.iter().map(|document| document.bytes), document)
    }

    /// Delta number `delta` in the bundle, whatever its codec.
    #[must_use]
    pub fn delta_sections(&self, delta: usize) -> Option<DeltaSections> {
        let whole = nth(self.header.deltas, self.manifest.deltas.iter().map(|delta| delta.bytes), delta)?;
        let table = Section { offset: whole.offset, bytes: self.manifest.deltas.get(delta)?.table_bytes };
        let patches = Section { offset: table.end()?, bytes: whole.bytes.checked_sub(table.bytes)? };
        Some(DeltaSections { table, patches })
    }

    /// Compares the bytes with the signed digest, then reads the chunk table of image number `image`.
    pub fn chunk_table(&self, image: usize, bytes: &[u8]) -> Result<ChunkTable> {
        let image = self.image(image)?;
        image.index.sha256.check(bytes, || format!("chunk table of image {}", image.name))?;
        let table = ChunkTable::decode(bytes)?;
        check_sizes(image, &table)?;
        Ok(table)
    }

    /// Compares a table that was made here, of a delta and its base, with the signed digest of image number `image`: a table has one
    /// form, so if it passes it is the one that was signed.
    pub fn check_table(&self, image: usize, table: &ChunkTable) -> Result<()> {
        let image = self.image(image)?;
        image.index.sha256.check(&table.encode(), || format!("chunk table made for image {}", image.name))?;
        check_sizes(image, table)
    }

    /// Compares the stored bytes of the table of delta number `delta` with the signed digest, before anything decompresses them.
    pub fn check_delta_table(&self, delta: usize, stored: &[u8]) -> Result<()> {
        let entry = self.delta(delta)?;
        entry.table_sha256.check(stored, || format!("delta table of image {}", entry.image))
    }

    /// Reads the table of delta number `delta`, decompressed: its stored bytes passed [`Opened::check_delta_table`].
    pub fn delta_table(&self, delta: usize, bytes: &[u8]) -> Result<DeltaTable> {
        let entry = self.delta(delta)?;
        if entry.codec != CODEC {
            return Err(Error::malformed("delta", format!("its codec {} is not known", entry.codec)));
        }
        let table = DeltaTable::decode(bytes)?;
        let image_bytes = self.manifest.image(&entry.image).map(|image| image.bytes);
        if image_bytes != Some(table.image_bytes())
            || entry.table_bytes.checked_add(table.patches_bytes()) != Some(entry.bytes)
        {
            let detail = format!("its sizes are not those of the delta for image {}", entry.image);
            return Err(Error::malformed("delta table", detail));
        }
        Ok(table)
    }

    /// Compares a document's bytes with the signed digest.
    pub fn check_document(&self, document: usize, bytes: &[u8]) -> Result<()> {
        let entry = self
            .manifest
            .documents
            .get(document)
            .ok_or_else(|| Error::malformed("document", "there is no such document"))?;
        entry.sha256.check(bytes, || format!("document {}", entry.name))
    }

    fn image(&self, number: usize) -> Result<&Image> {
        self.manifest
            .images
            .get(number)
            .ok_or_else(|| Error::malformed("image", format!("there is no image number {number}")))
    }

    fn delta(&self, number: usize) -> Result<&Delta> {
        self.manifest
            .deltas
            .get(number)
            .ok_or_else(|| Error::malformed("delta", format!("there is no delta number {number}")))
    }
}

fn check_sizes(image: &Image, table: &ChunkTable) -> Result<()> {
    if table.image_bytes() != image.bytes || table.stored_bytes() != image.frames_bytes {
        let detail = format!("its sizes are not those of image {}", image.name);
        return Err(Error::malformed("chunk table", detail));
    }
    Ok(())
}

fn nth(section: Section, mut sizes: impl Iterator<Item = u64>, number: usize) -> Option<Section> {
    let mut offset = section.offset;
    for _ in 0..number {
        offset = offset.checked_add(sizes.next()?)?;
    }
    Some(Section { offset, bytes: sizes.next()? })
}

/// A piece of a bundle's body, whole.
#[derive(Debug)]
pub enum Piece {
    /// The checked chunk table of an image.
    Index {
        /// Number of the image.
        image: usize,
        /// Its table.
        table: ChunkTable,
    },
    /// A frame as it is stored; its chunks are checked after decoding.
    Frame {
        /// Number of the image.
        image: usize,
        /// Number of the frame in the image's table.
        frame: usize,
        /// The stored bytes.
        bytes: Vec<u8>,
    },
    /// All frames were read; deltas may follow and are of no use to a stream.
    End,
}

enum Wanted {
    Index { image: usize, bytes: u64 },
    Skip { bytes: u64 },
    Frame { image: usize, frame: usize, bytes: u64 },
    Nothing,
}

/// Cuts the body of a bundle into pieces while it streams by. Holds at most one chunk table or one frame at a time,
/// besides the tables.
pub struct BodyReader<'a> {
    opened: &'a Opened,
    frame_sizes: Vec<Vec<u32>>,
    wanted: Wanted,
    pending: Vec<u8>,
}

impl<'a> BodyReader<'a> {
    /// Starts behind the signatures.
    #[must_use]
    pub fn new(opened: &'a Opened) -> Self {
        let mut reader =
            Self { opened, frame_sizes: Vec::new(), wanted: Wanted::Nothing, pending: Vec::new() };
        reader.wanted = reader.index(0);
        reader
    }

    /// Takes bytes until one piece is whole; returns how many it took, and the piece.
    pub fn feed(&mut self, input: &[u8]) -> Result<(usize, Option<Piece>)> {
        let mut used = 0;
        loop {
            let rest = input.get(used..).unwrap_or_default();
            match self.wanted {
                Wanted::Nothing => return Ok((used, Some(Piece::End))),
                Wanted::Skip { bytes } => {
                    let skip = bytes.min(rest.len() as u64);
                    used += skip as usize;
                    self.wanted = match bytes - skip {
                        0 => self.frame(0, 0),
                        bytes => Wanted::Skip { bytes },
                    };
                }
                Wanted::Index { bytes, .. } | Wanted::Frame { bytes, .. } => {
                    let missing = bytes.saturating_sub(self.pending.len() as u64).min(rest.len() as u64);
                    self.pending.extend_from_slice(rest.get(..missing as usize).unwrap_or_default());
                    used += missing as usize;
                    if (self.pending.len() as u64) < bytes {
                        return Ok((used, None));
                    }
                    return self.piece().map(|piece| (used, Some(piece)));
                }
            }
            if used == input.len() && !matches!(self.wanted, Wanted::Nothing) {
                return Ok((used, None));
            }
        }
    }

    /// Says what is missing when the input ends before the body does.
    #[must_use]
    pub fn truncated(&self) -> Error {
        let missing = match self.wanted {
            Wanted::Nothing => 0,
            Wanted::Skip { bytes } => bytes,
            Wanted::Index { bytes, .. } | Wanted::Frame { bytes, .. } => {
                bytes.saturating_sub(self.pending.len() as u64)
            }
        };
        Error::Truncated { structure: "bundle", missing_bytes: missing }
    }

    fn piece(&mut self) -> Result<Piece> {
        let bytes = std::mem::take(&mut self.pending);
        match self.wanted {
            Wanted::Index { image, .. } => {
                let table = self.opened.chunk_table(image, &bytes)?;
                self.frame_sizes.push(table.frames().iter().map(|frame| frame.stored_bytes).collect());
                self.wanted = self.index(image + 1);
                Ok(Piece::Index { image, table })
            }
            Wanted::Frame { image, frame, .. } => {
                self.wanted = self.frame(image, frame + 1);
                Ok(Piece::Frame { image, frame, bytes })
            }
            Wanted::Skip { .. } | Wanted::Nothing => Ok(Piece::End),
        }
    }

    fn index(&self, image: usize) -> Wanted {
        match self.opened.manifest.images.get(image) {
            Some(entry) => Wanted::Index { image, bytes: entry.index.bytes },
            None => Wanted::Skip { bytes: self.opened.header.documents.bytes },
        }
    }

    fn frame(&self, mut image: usize, mut frame: usize) -> Wanted {
        while let Some(sizes) = self.frame_sizes.get(image) {
            if let Some(bytes) = sizes.get(frame) {
                debug_assert!(*bytes <= MAX_FRAME_STORED_BYTES);
                return Wanted::Frame { image, frame, bytes: u64::from(*bytes) };
            }
            image += 1;
            frame = 0;
        }
        Wanted::Nothing
    }
}
