//! The trust root of this device: the one in the verified image, and the newer ones that were brought since.
//!
//! `STATE_DIR/trust/N.root.json` continues the chain (TUF 5.3): version N + 1, signed by the thresholds of both. The files may lie there
//! before the image knows of them, and outlive a rollback to an image with an older root, so trust never goes back.

use std::{fs::File, io::Read as _, path::Path};

use bank_format::{TrustRoot, limits::MAX_ROOT_BYTES};

use crate::{
    error::{Error, Result, file},
    limits::MAX_ROOT_ROTATIONS,
};

/// Reads the root at `path`, then follows the chain in `state_dir/trust`. A link that does not verify refuses everything:
/// going on without it could mean to trust keys that it revokes.
pub fn load(path: &Path, state_dir: &Path) -> Result<TrustRoot> {
    let refused = |path: &Path| {
        let path = path.to_owned();
        move |source| Error::TrustRoot { path, source }
    };
    let mut root = TrustRoot::from_trusted(&read(path)?).map_err(refused(path))?;
    for _ in 0..MAX_ROOT_ROTATIONS {
        let next = state_dir.join(format!("trust/{}.root.json", root.version().saturating_add(1)));
        if !next.try_exists().map_err(file("look for trust root", &next))? {
            break;
        }
        root = root.rotate(&read(&next)?).map_err(refused(&next))?;
    }
    Ok(root)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_ROOT_BYTES as u64 + 1).read_to_end(&mut bytes))
        .map_err(file("read trust root", path))?;
    Ok(bytes)
}
