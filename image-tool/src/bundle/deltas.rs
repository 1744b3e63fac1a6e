//! The deltas of a bundle: from each older release to each image of this one.

use std::{
    fs::File,
    io::{BufWriter, Write as _},
    path::Path,
};

use bank_format::{
    Digest256,
    delta::CODEC,
    limits::{MAX_DELTAS, MAX_WINDOW_LOG},
    manifest::Delta,
};
use zstd::{bulk::Compressor, zstd_safe::CParameter};

use super::{
    BundleSpec, PackedImage,
    older::{self, OlderBundle},
};
use crate::{
    delta::{self, Side},
    error::{Error, Result},
    limits::PATCH_LEVEL,
    progress::Progress,
    reader::SignedBundle,
    segments,
};

/// Writes all deltas to `out`, one behind the other; images of older releases wait in files without names in `dir`.
pub(super) fn make(
    spec: &BundleSpec<'_>,
    packed: &[PackedImage],
    dir: &Path,
    out: &mut File,
    progress: &dyn Progress,
) -> Result<Vec<Delta>> {
    let mut entries: Vec<Delta> = Vec::new();
    let mut out = BufWriter::new(out);
    for OlderBundle { path, bundle: base } in older::open(spec, progress)? {
        for image in packed {
            let manifest = base.opened().manifest();
            let name = &image.summary.name;
            let Some(number) = manifest.images.iter().position(|other| other.name == *name) else { continue };
            let Some(root) = manifest.images.get(number).map(|image| image.verity.root) else { continue };
            if entries.iter().any(|entry| entry.image == *name && entry.base == root) {
                continue;
            }
            progress.stage(&format!("delta of image {name} from {}", manifest.version));
            let made = from_base(spec, image, &base, (number, &path), dir, progress)?;
            let table = compress(&made.table.encode())?;
            let fail = || Error::file("write deltas to", dir);
            out.write_all(&table).map_err(fail())?;
            out.write_all(&made.patches).map_err(fail())?;
            entries.push(Delta {
                image: name.clone(),
                codec: CODEC.to_owned(),
                base: root,
                base_version: manifest.version.clone(),
                bytes: (table.len() + made.patches.len()) as u64,
                table_bytes: table.len() as u64,
                table_sha256: Digest256::of(&table),
            });
        }
    }
    out.flush().map_err(Error::file("write deltas to", dir))?;
    if entries.len() > MAX_DELTAS {
        return Err(Error::usage(
            format!("{} deltas", entries.len()),
            format!("a bundle holds at most {MAX_DELTAS}: give --from fewer times"),
        ));
    }
    Ok(entries)
}

fn from_base(
    spec: &BundleSpec<'_>,
    image: &PackedImage,
    base: &SignedBundle,
    (number, path): (usize, &Path),
    dir: &Path,
    progress: &dyn Progress,
) -> Result<delta::Made> {
    let subject = path.display().to_string();
    let mut file = tempfile::tempfile_in(dir).map_err(Error::file("make a file in", dir))?;
    base.unpack(number, &mut file)?;
    let table = base.table(number)?;
    let segments = segments::of(&file, table.image_bytes(), &subject)?;
    let old = Side { file: &file, subject: &subject, table: &table, segments: &segments };
    let new =
        Side { file: &image.file, subject: &image.subject, table: &image.table, segments: &image.segments };
    delta::between(&old, &new, spec.packing, &|done, total| progress.advance(done, total))
}

/// Always one zstd frame, also where that is longer.
fn compress(table: &[u8]) -> Result<Vec<u8>> {
    let fail = |source| Error::Frame { deed: "compress", frame: 0, source };
    let mut compressor = Compressor::new(PATCH_LEVEL).map_err(fail)?;
    compressor.set_parameter(CParameter::WindowLog(MAX_WINDOW_LOG)).map_err(fail)?;
    compressor.compress(table).map_err(fail)
}
