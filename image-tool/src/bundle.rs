//! Writes bundles: images are cut and packed, the manifest is signed, the file appears whole or not at all.
//!
//! It promises the same bytes for the same images, keys and options. Nothing unsigned can be written: the only door is
//! [`write()`], which signs, and which reads the bundle back as a device would before it gives it its name.

use std::{
    fs::File,
    io::{self, BufWriter, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
};

use bank_format::{
    Digest256, Manifest,
    header::Header,
    index::ChunkTable,
    limits::{MAX_DOCUMENT_BYTES, MAX_DOCUMENTS, MAX_IMAGES},
    manifest::{self, Build, Delta, Document, Image, Index, Tree, Verity},
    release::Version,
    signatures,
};
use tempfile::NamedTempFile;

use crate::{
    chunker::{self, Input, Packing},
    cuts,
    error::{Error, Result},
    keys::ReleaseKeys,
    progress::Progress,
    reader::BundleFile,
    segments::{self, Segment},
};

pub use older::Older;

/// An image that goes into a bundle.
#[derive(Debug, Clone)]
pub struct ImageSpec {
    /// `root`, `boot`, or what the device's configuration calls it.
    pub name: String,
    /// The file.
    pub path: PathBuf,
    /// Whether the device keeps the hash tree behind the data.
    pub tree: Tree,
    /// Salt of the tree.
    pub salt: Vec<u8>,
    /// Lengths of its chunks, where somebody knows better than `cuts`; they add up to its bytes.
    pub lengths: Option<Vec<u32>>,
}

/// What goes into a bundle.
pub struct BundleSpec<'a> {
    /// Name of the product.
    pub name: String,
    /// Its version.
    pub version: Version,
    /// Which devices it fits.
    pub compatible: String,
    /// When the sources were fixed.
    pub created_unix_seconds: u64,
    /// The floor that it demands at confirm.
    pub floor: Option<Version>,
    /// Where it comes from.
    pub build: Build,
    /// The images in the order in which a device writes them; the one that makes a bank bootable is last.
    pub images: Vec<ImageSpec>,
    /// Name and content: `packages`, ...
    pub documents: Vec<(String, Vec<u8>)>,
    /// Who signs.
    pub keys: &'a ReleaseKeys,
    /// How frames are packed.
    pub packing: Packing<'a>,
    /// Older releases that deltas are made from.
    pub from: Older,
}

/// What became of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageSummary {
    /// Its name.
    pub name: String,
    /// Bytes of the image.
    pub bytes: u64,
    /// Bytes of its frames in the bundle.
    pub stored_bytes: u64,
    /// Its chunks.
    pub chunks: usize,
    /// Those of them that are all zeros.
    pub zero_chunks: usize,
    /// Those of them that were there before.
    pub repeated_chunks: usize,
    /// Root of its hash tree.
    pub verity_root: Digest256,
    /// Versions of older releases, and the bytes of the delta from each.
    pub deltas: Vec<(Version, u64)>,
    /// The chunk table as it is stored: it also goes behind the image in a bank.
    pub table: Vec<u8>,
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// The bundle.
    pub path: PathBuf,
    /// Its bytes.
    pub bytes: u64,
    /// SHA-256 of the manifest: names this very bundle.
    pub manifest_digest: Digest256,
    /// Keys that signed.
    pub signatures: usize,
    /// Its images.
    pub images: Vec<ImageSummary>,
}

/// `image-tool VERSION`, for [`Build::tool`].
#[must_use]
pub fn tool() -> String {
    concat!("image-tool ", env!("CARGO_PKG_VERSION")).into()
}

/// Writes a bundle to `out`; one that is there is replaced in one step, once the new one is complete and on the disk.
pub fn write(spec: &BundleSpec<'_>, out: &Path, progress: &dyn Progress) -> Result<Summary> {
    check(spec)?;
    let dir = match out.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        Some(_) | None => Path::new("."),
    };
    // Frames come behind the manifest, which depends on them: they wait in a file without a name, on the disk of the bundle.
    let mut frames = tempfile::tempfile_in(dir).map_err(Error::file("make a file in", dir))?;
    let mut packed = Vec::new();
    for image in &spec.images {
        packed.push(pack(spec, image, &mut frames, progress)?);
    }
    let mut deltas = tempfile::tempfile_in(dir).map_err(Error::file("make a file in", dir))?;
    let entries = deltas::make(spec, &packed, dir, &mut deltas, progress)?;
    let manifest = manifest(spec, &packed, &entries).encode().map_err(Error::format("write the manifest"))?;
    let signed = spec.keys.sign(&signatures::signing_message(manifest.as_bytes()))?;
    let signatures = signatures::encode(&signed);
    let frames_bytes = frames.stream_position().map_err(Error::file("measure", "the frames"))?;
    let documents_bytes = spec.documents.iter().map(|(_, bytes)| bytes.len() as u64).sum();
    let header = Header::lay_out([
        manifest.len() as u64,
        signatures.len() as u64,
        packed.iter().map(|image| image.summary.table.len() as u64).sum(),
        documents_bytes,
        frames_bytes,
        entries.iter().map(|delta| delta.bytes).sum(),
    ])
    .map_err(Error::format("lay out the bundle"))?;

    progress.stage("write the bundle");
    let mut file = NamedTempFile::new_in(dir).map_err(Error::file("make a file in", dir))?;
    let mut parts: Vec<&[u8]> = Vec::new();
    let head = header.encode();
    parts.extend([&head[..], manifest.as_bytes(), &signatures]);
    parts.extend(packed.iter().map(|image| image.summary.table.as_slice()));
    parts.extend(spec.documents.iter().map(|(_, bytes)| bytes.as_slice()));
    frames.rewind().map_err(Error::file("read", "the frames"))?;
    deltas.rewind().map_err(Error::file("read", "the deltas"))?;
    write_all(file.as_file_mut(), &parts, [&mut frames, &mut deltas]).map_err(Error::file("write", out))?;
    // As a device would open it; a bundle that it would refuse never gets its name.
    let checked = BundleFile::open(file.path())?.verify(spec.keys.root())?;
    let manifest_digest = checked.opened().manifest_digest();
    publish(file, out)?;
    if let Some(cache) = spec.packing.cache {
        cache.trim();
    }
    let told: Vec<Vec<(Version, u64)>> = packed
        .iter()
        .map(|image| {
            let of_image = entries.iter().filter(|delta| delta.image == image.summary.name);
            of_image.map(|delta| (delta.base_version.clone(), delta.bytes)).collect()
        })
        .collect();
    Ok(Summary {
        path: out.to_path_buf(),
        bytes: header.total_bytes(),
        manifest_digest,
        signatures: signed.len(),
        images: packed
            .into_iter()
            .zip(told)
            .map(|(image, deltas)| ImageSummary { deltas, ..image.summary })
            .collect(),
    })
}

fn check(spec: &BundleSpec<'_>) -> Result<()> {
    if spec.images.is_empty() {
        return Err(Error::usage("a bundle needs an image", "add --image root=FILE"));
    }
    for (what, count, limit) in
        [("images", spec.images.len(), MAX_IMAGES), ("documents", spec.documents.len(), MAX_DOCUMENTS)]
    {
        if count > limit {
            return Err(Error::usage(format!("{count} {what}"), format!("a bundle holds at most {limit}")));
        }
    }
    for (name, bytes) in &spec.documents {
        if bytes.len() as u64 > MAX_DOCUMENT_BYTES {
            return Err(Error::TooLarge {
                subject: format!("document {name}"),
                needed: bytes.len() as u64,
                available: MAX_DOCUMENT_BYTES,
                hint: "ship it outside the bundle",
            });
        }
    }
    Ok(())
}

/// An image whose frames are written.
struct PackedImage {
    summary: ImageSummary,
    table: ChunkTable,
    file: File,
    subject: String,
    segments: Vec<Segment>,
}

fn pack(
    spec: &BundleSpec<'_>,
    image: &ImageSpec,
    frames: &mut File,
    progress: &dyn Progress,
) -> Result<PackedImage> {
    let mut file = File::open(&image.path).map_err(Error::file("open image", &image.path))?;
    if file.metadata().is_ok_and(|metadata| metadata.is_dir()) {
        return Err(Error::usage(
            format!("image {} is a directory: {}", image.name, image.path.display()),
            "give an image file; `image-tool build` makes images out of trees",
        ));
    }
    // Seeking also measures a block device.
    let bytes = file
        .seek(SeekFrom::End(0))
        .and_then(|bytes| file.rewind().map(|()| bytes))
        .map_err(Error::file("measure image", &image.path))?;
    if bytes == 0 {
        return Err(Error::usage(
            format!("image {} is empty: {}", image.name, image.path.display()),
            "give a file with at least one byte",
        ));
    }
    progress.stage(&format!("pack image {}", image.name));
    let subject = image.path.display().to_string();
    let segments = segments::of(&file, bytes, &subject)?;
    let lengths = match &image.lengths {
        Some(lengths) => lengths.clone(),
        None => cuts::lengths(&file, bytes, &segments, &subject)?,
    };
    let mut writer = BufWriter::with_capacity(1 << 20, frames);
    let packed = chunker::pack(
        Input {
            subject: &subject,
            file: &file,
            bytes,
            segments: &segments,
            lengths: &lengths,
            salt: &image.salt,
        },
        spec.packing,
        &mut writer,
        &mut |done| progress.advance(done, bytes),
    )?;
    writer.flush().map_err(Error::file("write frames of", &image.path))?;
    let summary = ImageSummary {
        name: image.name.clone(),
        bytes,
        stored_bytes: packed.table.stored_bytes(),
        chunks: packed.table.chunks().len(),
        zero_chunks: packed.zero_chunks,
        repeated_chunks: packed.repeated_chunks,
        verity_root: packed.verity_root,
        deltas: Vec::new(),
        table: packed.table.encode(),
    };
    Ok(PackedImage { summary, table: packed.table, file, subject, segments })
}

fn manifest(spec: &BundleSpec<'_>, packed: &[PackedImage], deltas: &[Delta]) -> Manifest {
    let images = spec.images.iter().zip(packed);
    Manifest {
        format: manifest::FORMAT,
        name: spec.name.clone(),
        version: spec.version.clone(),
        compatible: spec.compatible.clone(),
        created_unix_seconds: spec.created_unix_seconds,
        floor: spec.floor.clone(),
        build: spec.build.clone(),
        images: images
            .map(|(image, PackedImage { summary, .. })| Image {
                name: image.name.clone(),
                bytes: summary.bytes,
                frames_bytes: summary.stored_bytes,
                verity: Verity {
                    root: summary.verity_root,
                    salt: hex::encode(&image.salt),
                    tree: image.tree,
                },
                index: Index { bytes: summary.table.len() as u64, sha256: Digest256::of(&summary.table) },
            })
            .collect(),
        documents: spec
            .documents
            .iter()
            .map(|(name, bytes)| Document {
                name: name.clone(),
                bytes: bytes.len() as u64,
                sha256: Digest256::of(bytes),
            })
            .collect(),
        deltas: deltas.to_vec(),
    }
}

fn write_all(file: &mut File, parts: &[&[u8]], behind: [&mut File; 2]) -> io::Result<()> {
    for part in parts {
        file.write_all(part)?;
    }
    for part in behind {
        io::copy(part, file)?;
    }
    // Before the rename: otherwise a power cut could leave the name with nothing behind it.
    file.sync_all()
}

/// Gives a finished file its name, with the permissions that any other new file would get.
fn publish(file: NamedTempFile, out: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    file.as_file()
        .set_permissions(std::fs::Permissions::from_mode(0o644))
        .map_err(Error::file("set the permissions of", out))?;
    file.persist(out).map_err(|error| Error::File { deed: "name", path: out.into(), source: error.error })?;
    Ok(())
}

mod deltas;
mod older;
#[cfg(test)]
mod tests;
