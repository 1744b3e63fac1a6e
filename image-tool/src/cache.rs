//! What was packed before: frames and patches, by what they are made of, so that an unchanged part is not packed again.
//!
//! It promises nothing but time: whoever takes something out of it proves that it is what was asked for, and packs anew where it is not. An entry
//! appears whole or not at all, is known by the SHA-256 of all that it depends on, and carries the digest of its bytes. The oldest entries go
//! when there is no room. A cache that cannot be read or written is one that holds nothing.

use std::{
    ffi::OsStr,
    fs,
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
    time::SystemTime,
};

use bank_format::Digest256;
use sha2::{Digest as _, Sha256};

use crate::{
    clock,
    error::{Error, Result},
    limits::{MAX_CACHE_BYTES, MAX_CACHE_ENTRY_BYTES},
};

/// Raise it whenever the same frame or patch comes out with other bytes than before.
const CODING: u32 = 1;
const DIGEST_BYTES: usize = 32;

/// Names an entry: the digest of everything that its bytes depend on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key(Digest256);

/// A key in the making.
pub struct KeyBuilder(Sha256);

impl KeyBuilder {
    /// For a thing of this kind. Coders and their versions are part of every key.
    #[must_use]
    pub fn new(kind: &str) -> Self {
        let builder = Self(Sha256::new()).text("roro cache").text(kind).number(CODING.into());
        builder.number(zstd::zstd_safe::version_number().into()).text(&lz4::version().to_string())
    }

    /// Adds a number.
    #[must_use]
    pub fn number(mut self, number: u64) -> Self {
        self.0.update(number.to_le_bytes());
        self
    }

    /// Adds bytes, and how many they are: so no two lists of parts have one key.
    #[must_use]
    pub fn bytes(self, bytes: &[u8]) -> Self {
        let mut builder = self.number(bytes.len() as u64);
        builder.0.update(bytes);
        builder
    }

    /// Adds a text.
    #[must_use]
    pub fn text(self, text: &str) -> Self {
        self.bytes(text.as_bytes())
    }

    /// The key.
    #[must_use]
    pub fn finish(self) -> Key {
        Key(Digest256(self.0.finalize().into()))
    }
}

/// A directory of entries.
#[derive(Debug, Clone)]
pub struct Cache {
    directory: PathBuf,
    most_bytes: u64,
}

impl Cache {
    /// Kept in this directory, which is made when it is not there.
    pub fn open(directory: &Path) -> Result<Self> {
        fs::create_dir_all(directory).map_err(Error::file("make directory", directory))?;
        Ok(Self { directory: directory.to_owned(), most_bytes: MAX_CACHE_BYTES })
    }

    /// The bytes that were kept under this key. The caller proves that they are right.
    #[must_use]
    pub fn get(&self, key: Key) -> Option<Vec<u8>> {
        let path = self.path(key);
        let file = fs::File::open(&path).ok()?;
        let mut bytes = Vec::new();
        file.take(MAX_CACHE_ENTRY_BYTES + 1).read_to_end(&mut bytes).ok()?;
        let split = bytes.len().checked_sub(DIGEST_BYTES)?;
        let digest = bytes.split_off(split);
        if Digest256::of(&bytes).0 != digest.as_slice() {
            self.forget(key);
            return None;
        }
        // What is used stays longest; where that cannot be noted, it is younger than it looks.
        let _ = fs::File::options().append(true).open(&path).and_then(|file| file.set_modified(clock::now()));
        Some(bytes)
    }

    /// Keeps bytes under this key.
    pub fn put(&self, key: Key, bytes: &[u8]) {
        // A full disk, say: then it is packed again the next time.
        let _ = self.try_put(key, bytes);
    }

    fn try_put(&self, key: Key, bytes: &[u8]) -> io::Result<()> {
        let path = self.path(key);
        let directory = path.parent().unwrap_or(&self.directory);
        fs::create_dir_all(directory)?;
        let mut file = tempfile::NamedTempFile::new_in(directory)?;
        file.write_all(bytes)?;
        file.write_all(&Digest256::of(bytes).0)?;
        file.persist(&path)?;
        Ok(())
    }

    /// Takes out what turned out to be wrong.
    pub fn forget(&self, key: Key) {
        // Another build may have been faster.
        let _ = fs::remove_file(self.path(key));
    }

    /// Takes out the entries that were not used for longest, until the rest has room.
    pub fn trim(&self) {
        let mut entries = self.entries();
        let mut bytes: u64 = entries.iter().map(|entry| entry.bytes).sum();
        entries.sort_by(|a, b| (a.used, &a.path).cmp(&(b.used, &b.path)));
        for entry in entries {
            if bytes <= self.most_bytes {
                break;
            }
            let _ = fs::remove_file(&entry.path);
            bytes -= entry.bytes;
        }
    }

    fn entries(&self) -> Vec<Entry> {
        let below = |directory: &Path| fs::read_dir(directory).into_iter().flatten().flatten();
        let is_ours = |name: &OsStr| name.len() == 2;
        let shelves = below(&self.directory).filter(|shelf| is_ours(&shelf.file_name()));
        shelves
            .flat_map(|shelf| below(&shelf.path()))
            .filter_map(|entry| {
                let metadata = entry.metadata().ok().filter(fs::Metadata::is_file)?;
                Some(Entry { path: entry.path(), bytes: metadata.len(), used: metadata.modified().ok()? })
            })
            .collect()
    }

    fn path(&self, key: Key) -> PathBuf {
        let name = hex::encode(key.0.0);
        let (shelf, rest) = name.split_at(2);
        self.directory.join(shelf).join(rest)
    }
}

struct Entry {
    path: PathBuf,
    bytes: u64,
    used: SystemTime,
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn key(number: u64) -> Key {
        KeyBuilder::new("test").number(number).finish()
    }

    fn cache(most_bytes: u64) -> (tempfile::TempDir, Cache) {
        let directory = tempfile::tempdir().unwrap();
        let cache = Cache { most_bytes, ..Cache::open(&directory.path().join("new")).unwrap() };
        (directory, cache)
    }

    #[test]
    fn what_was_put_comes_back_unless_a_byte_of_it_is_wrong() {
        let (_directory, cache) = cache(1 << 20);
        assert_eq!(cache.get(key(1)), None);
        cache.put(key(1), b"content");
        cache.put(key(2), b"");
        assert_eq!(cache.get(key(1)).unwrap(), b"content");
        assert_eq!(cache.get(key(2)).unwrap(), b"");
        let whole = fs::read(cache.path(key(1))).unwrap();
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            fs::write(cache.path(key(1)), damaged).unwrap();
            assert_eq!(cache.get(key(1)), None, "byte {at}");
            assert!(!cache.path(key(1)).exists(), "it is taken out");
        }
        fs::write(cache.path(key(1)), &whole[..20]).unwrap();
        assert_eq!(cache.get(key(1)), None, "cut short");
    }

    #[test]
    fn lists_of_parts_have_keys_of_their_own() {
        let of = |parts: &[&str]| {
            parts.iter().fold(KeyBuilder::new("x"), |builder, part| builder.text(part)).finish()
        };
        assert_ne!(of(&["ab", "c"]), of(&["a", "bc"]));
        assert_ne!(of(&["ab"]), of(&["ab", ""]));
        assert_ne!(KeyBuilder::new("x").finish(), KeyBuilder::new("y").finish());
    }

    #[test]
    fn the_entry_that_was_not_used_for_longest_goes_first() {
        let (_directory, cache) = cache(250);
        let start = clock::now() - Duration::from_secs(1000);
        for number in 0..4 {
            cache.put(key(number), &[number as u8; 68]);
            let file = fs::File::options().append(true).open(cache.path(key(number))).unwrap();
            file.set_modified(start + Duration::from_secs(number)).unwrap();
        }
        assert!(cache.get(key(0)).is_some(), "and is the youngest now");
        cache.trim();
        let left: Vec<u64> = (0..4).filter(|number| cache.get(key(*number)).is_some()).collect();
        assert_eq!(left, [0, 3]);
    }

    #[test]
    fn a_cache_that_cannot_be_written_holds_nothing() {
        let (directory, cache) = cache(250);
        fs::remove_dir(&cache.directory).unwrap();
        fs::write(&cache.directory, "a file").unwrap();
        cache.put(key(1), b"content");
        assert_eq!(cache.get(key(1)), None);
        cache.trim();
        assert!(Cache::open(&cache.directory).is_err());
        drop(directory);
    }
}
