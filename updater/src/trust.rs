//! The trust root of this device: the one in the verified image, and the newer ones that were brought since.
//!
//! `STATE_DIR/trust/N.root.json` continues the chain (TUF 5.3): version N + 1, signed by the thresholds of both. The files may lie there
//! before the image knows of them, and outlive a rollback to an image with an older root, so trust never goes back.

use std::path::Path;

use bank_format::{TrustRoot, limits::MAX_ROOT_BYTES};

use crate::{
    error::{Error, Result, file},
    files::{DiskFiles, Files, State},
    limits::MAX_ROOT_ROTATIONS,
};

/// Reads the root at `path`, then follows the chain in `trust` of the state directory. A link that does not verify refuses everything:
/// going on without it could mean to trust keys that it revokes.
pub fn load(path: &Path, state: &State) -> Result<TrustRoot> {
    let refused = |path: &Path| {
        let path = path.to_owned();
        move |source| Error::TrustRoot { path, source }
    };
    let mut root = TrustRoot::from_trusted(&read(&DiskFiles, path)?).map_err(refused(path))?;
    for _ in 0..MAX_ROOT_ROTATIONS {
        let next = state.directory().join(format!("trust/{}.root.json", root.version().saturating_add(1)));
        match state.files().bytes(&next) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => break,
            other => other.map_err(file("look for trust root", &next))?,
        };
        root = root.rotate(&read(state.files().as_ref(), &next)?).map_err(refused(&next))?;
    }
    Ok(root)
}

fn read(files: &dyn Files, path: &Path) -> Result<Vec<u8>> {
    files.read(path, 0, MAX_ROOT_BYTES as u64 + 1).map_err(file("read trust root", path))
}
