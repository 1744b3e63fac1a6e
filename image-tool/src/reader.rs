//! Reads bundles from files: what they say of themselves, and whether all of it is true.
//!
//! It promises that nothing behind the head is looked at before the signatures were checked, and that memory is bounded
//! by the limits of the format, however large the bundle. Deliberately absent: writing into banks.

use std::{
    collections::VecDeque,
    fs::File,
    io::{BufWriter, Read as _, Write as _},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    rc::Rc,
};

use bank_format::{
    Digest256, TrustRoot,
    bundle::{Claims, Head, HeadReader, Opened},
    delta::{CODEC, DeltaTable, Patch},
    header::Section,
    index::{Chunk, ChunkTable, Source},
    limits::MAX_INDEX_BYTES,
    manifest,
    verity::TreeBuilder,
};

use crate::{
    codec,
    delta::{self, apply::Base},
    error::{Error, Result},
    limits::MAX_CACHED_FRAMES,
    progress::Progress,
};

/// A bundle whose head was read, and nothing checked.
pub struct BundleFile {
    path: PathBuf,
    file: File,
    bytes: u64,
    head: Head,
}

impl BundleFile {
    /// Reads the head.
    pub fn open(path: &Path) -> Result<Self> {
        let mut file = File::open(path).map_err(Error::file("open bundle", path))?;
        let metadata = file.metadata().map_err(Error::file("read", path))?;
        let refused = |source| Error::Rejected { path: path.into(), source };
        let mut reader = HeadReader::default();
        let mut buffer = vec![0; 64 << 10];
        let head = loop {
            let count = file.read(&mut buffer).map_err(Error::file("read bundle", path))?;
            if count == 0 {
                return Err(refused(reader.truncated()));
            }
            let (_, head) = reader.feed(buffer.get(..count).unwrap_or_default()).map_err(refused)?;
            if let Some(head) = head {
                break head;
            }
        };
        Ok(Self { path: path.into(), file, bytes: metadata.len(), head })
    }

    /// Header, manifest and signatures, not checked.
    #[must_use]
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// What the bundle says of itself, not checked.
    pub fn claims(&self) -> Result<Claims> {
        self.head.claims().map_err(|source| self.refused(source))
    }

    /// Refuses a file that is shorter or longer than its header says.
    pub fn check_length(&self) -> Result<()> {
        let expected = self.head.header().total_bytes();
        let found = self.bytes;
        if found < expected {
            let missing_bytes = expected - found;
            return Err(self.refused(bank_format::Error::Truncated { structure: "bundle", missing_bytes }));
        }
        if found > expected {
            return Err(self.refused(bank_format::Error::Malformed {
                structure: "bundle",
                detail: format!("{} bytes behind its end", found - expected),
            }));
        }
        Ok(())
    }

    /// Checks the signatures and the length; everything behind the head is checked as it is read.
    pub fn verify(self, trust: &TrustRoot) -> Result<SignedBundle> {
        let opened = self.head.clone().verify(trust).map_err(|source| self.refused(source))?;
        self.check_length()?;
        Ok(SignedBundle { path: self.path, file: self.file, opened })
    }

    fn refused(&self, source: bank_format::Error) -> Error {
        Error::Rejected { path: self.path.clone(), source }
    }
}

/// A bundle whose signatures were checked. What it hands out was compared with the signed digests.
pub struct SignedBundle {
    path: PathBuf,
    file: File,
    opened: Opened,
}

impl SignedBundle {
    /// The signed manifest, and where things are.
    #[must_use]
    pub fn opened(&self) -> &Opened {
        &self.opened
    }

    /// The chunk table of image number `image`.
    pub fn table(&self, image: usize) -> Result<ChunkTable> {
        let bytes = self.read(self.opened.index_section(image))?;
        self.opened.chunk_table(image, &bytes).map_err(|source| self.refused(source))
    }

    /// Document number `document`.
    pub fn document(&self, document: usize) -> Result<Vec<u8>> {
        let bytes = self.read(self.opened.document_section(document))?;
        self.opened.check_document(document, &bytes).map_err(|source| self.refused(source))?;
        Ok(bytes)
    }

    /// Decodes image number `image` from its start to its end; `sink` gets each chunk after it was checked, and the
    /// verity root is compared at the end.
    pub fn read_image(&self, image: usize, sink: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let table = self.table(image)?;
        let entry =
            self.opened.manifest().images.get(image).ok_or(Error::Bug { what: "an image is gone" })?;
        let salt = entry.salt().map_err(|source| self.refused(source))?;
        let mut tree = TreeBuilder::new(entry.bytes, &salt).map_err(|source| self.refused(source))?;
        let mut frames = Frames { bundle: self, image, table: &table, recent: VecDeque::new() };
        let mut zeros = Vec::new();
        for (number, chunk) in table.chunks().iter().enumerate() {
            let subject = || format!("chunk {number} of image {}", entry.name);
            let content;
            let bytes = match chunk.source {
                Source::Zeros => {
                    zeros.resize(zeros.len().max(chunk.bytes as usize), 0);
                    zeros.get(..chunk.bytes as usize).unwrap_or_default()
                }
                Source::Frame { frame, offset } => {
                    content = frames.content(frame as usize)?;
                    slice(&content, offset, chunk)
                }
            };
            chunk.digest.check(bytes, subject).map_err(|source| self.refused(source))?;
            tree.update(bytes, &mut |_, _| ()).map_err(|source| self.refused(source))?;
            sink(bytes)?;
        }
        let found = tree.finish(&mut |_, _| ()).map_err(|source| self.refused(source))?;
        self.compare_root(&entry.name, entry.verity.root, found)
    }

    /// Decodes image number `image` into a file.
    pub fn unpack(&self, image: usize, file: &mut File) -> Result<()> {
        let mut out = BufWriter::with_capacity(1 << 20, file);
        let fail = || Error::file("unpack an image of", &self.path);
        self.read_image(image, &mut |bytes| out.write_all(bytes).map_err(fail()))?;
        out.flush().map_err(fail())
    }

    /// Checks all of it: every document, every table, every chunk of every image, every verity root.
    pub fn check_all(&self, progress: &dyn Progress) -> Result<()> {
        let manifest = self.opened.manifest();
        for document in 0..manifest.documents.len() {
            self.document(document)?;
        }
        for (number, image) in manifest.images.iter().enumerate() {
            progress.stage(&format!("check image {}", image.name));
            let mut done_bytes = 0;
            self.read_image(number, &mut |bytes| {
                done_bytes += bytes.len() as u64;
                progress.advance(done_bytes, image.bytes);
                Ok(())
            })?;
        }
        for number in 0..manifest.deltas.len() {
            self.delta_table(number)?;
        }
        Ok(())
    }

    /// Checks all deltas from an older release: each makes the chunk table of its image, and each patch what it is for. Returns how many
    /// there are. Images of the older release wait in files without names.
    pub fn check_deltas_from(&self, older: &Self, progress: &dyn Progress) -> Result<usize> {
        let manifest = self.opened.manifest();
        let mut checked = 0;
        for (number, delta) in manifest.deltas.iter().enumerate() {
            let is_base = |image: &manifest::Image| image.verity.root == delta.base;
            let Some(base) = older.opened.manifest().images.iter().position(is_base) else { continue };
            let Some(image) = manifest.images.iter().position(|image| image.name == delta.image) else {
                continue;
            };
            let Some(table) = self.delta_table(number)? else { continue };
            progress.stage(&format!("check the delta of image {} from {}", delta.image, delta.base_version));
            let chunks = table.chunk_table(&older.table(base)?).map_err(|source| self.refused(source))?;
            self.opened.check_table(image, &chunks).map_err(|source| self.refused(source))?;
            let mut file =
                tempfile::tempfile().map_err(Error::file("make a file in", std::env::temp_dir()))?;
            older.unpack(base, &mut file)?;
            let subject = older.path.display().to_string();
            let bytes = older.table(base)?.image_bytes();
            let base = Base { file: &file, bytes, subject: &subject };
            let patches = self.opened.delta_sections(number).map_or(0, |sections| sections.patches.offset);
            for (done, patch) in table.patches().iter().enumerate() {
                let section = Section { offset: patches + patch.offset, bytes: patch.stored_bytes.into() };
                let made = delta::apply::apply(&self.read(Some(section))?, base)?;
                self.check_made(&made, patch, &chunks, &delta.image)?;
                progress.advance(done as u64 + 1, table.patches().len() as u64);
            }
            checked += 1;
        }
        Ok(checked)
    }

    fn check_made(&self, made: &[u8], patch: &Patch, table: &ChunkTable, image: &str) -> Result<()> {
        let mut rest = made;
        for number in patch.chunk_numbers() {
            let chunk = table.chunks().get(number).ok_or(Error::Bug { what: "a patch makes no chunk" })?;
            let (bytes, behind) = rest.split_at_checked(chunk.bytes as usize).unwrap_or((rest, &[]));
            let subject = || format!("chunk {number} of image {image}, out of a patch");
            chunk.digest.check(bytes, subject).map_err(|source| self.refused(source))?;
            rest = behind;
        }
        if rest.is_empty() {
            return Ok(());
        }
        let detail = format!("a patch makes {} bytes too many", rest.len());
        Err(self.refused(bank_format::Error::Malformed { structure: "patch", detail }))
    }

    /// The table of a delta; nothing where its coding is not known. What its patches make is known only with the base.
    fn delta_table(&self, number: usize) -> Result<Option<DeltaTable>> {
        let stored = self.read(self.opened.delta_sections(number).map(|sections| sections.table))?;
        let refused = |source| self.refused(source);
        self.opened.check_delta_table(number, &stored).map_err(refused)?;
        let is_known = |delta: &manifest::Delta| delta.codec == CODEC;
        if !self.opened.manifest().deltas.get(number).is_some_and(is_known) {
            return Ok(None);
        }
        let plain = codec::decompress(&stored, MAX_INDEX_BYTES).map_err(|source| Error::Frame {
            deed: "decode",
            frame: number,
            source,
        })?;
        self.opened.delta_table(number, &plain).map(Some).map_err(refused)
    }

    fn compare_root(&self, image: &str, expected: Digest256, found: Digest256) -> Result<()> {
        if found == expected {
            return Ok(());
        }
        let subject = format!("verity root of image {image}");
        Err(self.refused(bank_format::Error::DigestMismatch { subject, expected, found }))
    }

    /// Reads a section. Its size comes from the signed manifest, within the limits of the format.
    fn read(&self, section: Option<Section>) -> Result<Vec<u8>> {
        let section = section.ok_or(Error::Bug { what: "a section of the bundle is gone" })?;
        let bytes = usize::try_from(section.bytes)
            .map_err(|_| Error::Bug { what: "a section is longer than memory" })?;
        let mut buffer = vec![0; bytes];
        self.file
            .read_exact_at(&mut buffer, section.offset)
            .map_err(Error::file("read bundle", &self.path))?;
        Ok(buffer)
    }

    fn refused(&self, source: bank_format::Error) -> Error {
        Error::Rejected { path: self.path.clone(), source }
    }
}

fn slice<'a>(content: &'a [u8], offset: u32, chunk: &Chunk) -> &'a [u8] {
    let offset = offset as usize;
    content.get(offset..offset + chunk.bytes as usize).unwrap_or_default()
}

/// The last frames that were decoded: repeated chunks point back at them.
struct Frames<'a> {
    bundle: &'a SignedBundle,
    image: usize,
    table: &'a ChunkTable,
    recent: VecDeque<(usize, Rc<Vec<u8>>)>,
}

impl Frames<'_> {
    fn content(&mut self, number: usize) -> Result<Rc<Vec<u8>>> {
        if let Some((_, content)) = self.recent.iter().find(|(recent, _)| *recent == number) {
            return Ok(Rc::clone(content));
        }
        let frame = self.table.frames().get(number).ok_or(Error::Bug { what: "a frame is gone" })?;
        let frames = self.bundle.opened.frames_section(self.image);
        let section = frames.map(|frames| Section {
            offset: frames.offset.saturating_add(frame.offset),
            bytes: frame.stored_bytes.into(),
        });
        let stored = self.bundle.read(section)?;
        let content = codec::decode(stored, frame).map_err(|source| Error::Frame {
            deed: "decode",
            frame: number,
            source,
        })?;
        let content = Rc::new(content);
        self.recent.push_back((number, Rc::clone(&content)));
        if self.recent.len() > MAX_CACHED_FRAMES {
            self.recent.pop_front();
        }
        Ok(content)
    }
}
