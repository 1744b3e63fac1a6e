//! Evidence of failed trials: `STATE/evidence/NAME-VERSION-N.log`. The newest few are kept.

use std::{
    io,
    path::{Path, PathBuf},
};

use bank_format::Release;

use crate::{
    error::{Result, file},
    limits::MAX_EVIDENCE_FILES,
    linux,
};

/// Keeps a log with its reason, and says where. Older files beyond the limit are removed.
pub fn keep(state_dir: &Path, release: Option<&Release>, reason: &str, log: &[u8]) -> Result<PathBuf> {
    let directory = state_dir.join("evidence");
    let write = || -> io::Result<PathBuf> {
        std::fs::create_dir_all(&directory)?;
        let mut files = numbered(&directory)?;
        let number = files.last().map_or(1, |(number, _)| number.saturating_add(1));
        // Room first: a full state partition must not cost the newest evidence.
        let surplus = (files.len() + 1).saturating_sub(MAX_EVIDENCE_FILES);
        for (_, old) in files.drain(..surplus) {
            std::fs::remove_file(old)?;
        }
        let name = match release {
            Some(release) => format!("{}-{}-{number}.log", release.name, release.version),
            None => format!("unknown-{number}.log"),
        };
        let path = directory.join(name);
        let mut bytes = format!("reason: {reason}\n\n").into_bytes();
        bytes.extend_from_slice(log);
        linux::replace_file(&path, &bytes)?;
        Ok(path)
    };
    write().map_err(file("keep evidence in", &directory))
}

/// The files by their number.
fn numbered(directory: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        let number = path
            .file_name()
            .and_then(|name| name.to_str())
            .and_then(|name| name.strip_suffix(".log")?.rsplit_once('-')?.1.parse().ok());
        if let Some(number) = number {
            files.push((number, path));
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bank_format::release::Version;

    #[test]
    fn the_newest_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let release = Release { name: "demo".into(), version: Version::new(1, 2, 0) };
        for n in 1..=12 {
            let path = keep(dir.path(), Some(&release), "why", format!("log {n}").as_bytes()).unwrap();
            assert!(path.ends_with(format!("evidence/demo-1.2.0-{n}.log")), "{}", path.display());
        }
        let left = numbered(&dir.path().join("evidence")).unwrap();
        assert_eq!(left.iter().map(|(n, _)| *n).collect::<Vec<_>>(), (5..=12).collect::<Vec<_>>());
        assert_eq!(std::fs::read_to_string(&left[7].1).unwrap(), "reason: why\n\nlog 12");
    }
}
