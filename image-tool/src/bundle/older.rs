//! Older releases that deltas are made from: named one by one, or the newest in a directory.

use std::{
    fs,
    path::{Path, PathBuf},
};

use bank_format::release::Version;

use super::BundleSpec;
use crate::{
    error::{Error, Result},
    progress::Progress,
    reader::{BundleFile, SignedBundle},
};

/// Which older releases.
#[derive(Debug, Clone)]
pub struct Older {
    /// Bundles, and directories of bundles.
    pub paths: Vec<PathBuf>,
    /// How many releases of a directory at most.
    pub most: usize,
}

impl Older {
    /// Devices that were offline for longer than so many releases take the way without a delta.
    pub const MOST: usize = 4;
}

impl Default for Older {
    fn default() -> Self {
        Self { paths: Vec::new(), most: Self::MOST }
    }
}

/// A bundle that a delta can be made from, and its name.
pub(super) struct OlderBundle {
    /// Where it lies.
    pub(super) path: PathBuf,
    /// The bundle.
    pub(super) bundle: SignedBundle,
}

/// Opens them: those that were named as they were named, those of a directory from the newest on.
pub(super) fn open(spec: &BundleSpec<'_>, progress: &dyn Progress) -> Result<Vec<OlderBundle>> {
    let mut all = Vec::new();
    for path in &spec.from.paths {
        if path.is_dir() {
            all.extend(newest_of(spec, path, progress)?);
        } else {
            all.push(named(spec, path)?);
        }
    }
    Ok(all)
}

fn named(spec: &BundleSpec<'_>, path: &Path) -> Result<OlderBundle> {
    let bundle = BundleFile::open(path)?.verify(spec.keys.root())?;
    let manifest = bundle.opened().manifest();
    if manifest.name != spec.name || manifest.compatible != spec.compatible {
        return Err(Error::usage(
            format!("{} is {} for {}", path.display(), manifest.name, manifest.compatible),
            format!("--from takes older releases of {} for {}", spec.name, spec.compatible),
        ));
    }
    Ok(OlderBundle { path: path.to_owned(), bundle })
}

/// Who gives a directory wants what is of use in it: other products, and this release or a later one, are passed over.
fn newest_of(spec: &BundleSpec<'_>, directory: &Path, progress: &dyn Progress) -> Result<Vec<OlderBundle>> {
    let fail = || Error::file("read", directory);
    let mut found: Vec<(Version, PathBuf)> = Vec::new();
    for entry in fs::read_dir(directory).map_err(fail())? {
        let path = entry.map_err(fail())?.path();
        if path.extension().is_none_or(|extension| extension != "roro") || !path.is_file() {
            continue;
        }
        // Claims are enough to choose by; what is chosen is verified.
        match BundleFile::open(&path).and_then(|bundle| bundle.claims()) {
            Ok(claims) => {
                let manifest = claims.manifest;
                let is_ours = manifest.name == spec.name && manifest.compatible == spec.compatible;
                if is_ours && manifest.version < spec.version {
                    found.push((manifest.version, path));
                }
            }
            Err(error) => progress.note(&format!("no delta from {}: {error}", path.display())),
        }
    }
    found.sort_by(|(a, at), (b, bt)| b.cmp(a).then_with(|| at.cmp(bt)));
    let mut chosen = Vec::new();
    for (_, path) in found {
        if chosen.len() == spec.from.most {
            break;
        }
        match named(spec, &path) {
            Ok(older) => chosen.push(older),
            Err(error) => progress.note(&format!("no delta from {}: {error}", path.display())),
        }
    }
    Ok(chosen)
}
