//! A file tree in memory: names, modes, owners, links, devices and extended attributes; contents stay where they are.
//!
//! Paths are relative to the root, without a leading slash; the root is the empty path. It promises to be in order by path,
//! so that everything made from it is deterministic. Deliberately absent: times (every file gets the one of the build),
//! hard links (equal contents are stored once anyway), and the file system of the host.

mod content;
mod import;

use std::collections::{BTreeMap, VecDeque};

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

pub use content::Content;

use crate::{
    error::{Error, Result},
    limits::{MAX_LINK_BYTES, MAX_LINKS_FOLLOWED, MAX_NAME_BYTES, MAX_TEXT_BYTES},
};

/// What an entry is.
#[derive(Debug, Clone)]
pub enum Kind {
    /// A directory.
    Directory,
    /// A regular file.
    File(Content),
    /// A symbolic link and its target.
    Symlink(String),
    /// A character device.
    CharDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A block device.
    BlockDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A named pipe.
    Fifo,
}

/// One file of a tree.
#[derive(Debug, Clone)]
pub struct Entry {
    /// What it is.
    pub kind: Kind,
    /// Permission bits, with set-user-id, set-group-id and sticky.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Extended attributes by full name (`security.capability`).
    pub xattrs: BTreeMap<String, Vec<u8>>,
}

impl Entry {
    /// An entry of root without extended attributes.
    #[must_use]
    pub fn new(kind: Kind, mode: u16) -> Self {
        Self { kind, mode, uid: 0, gid: 0, xattrs: BTreeMap::new() }
    }

    /// Whether it is a directory.
    #[must_use]
    pub fn is_directory(&self) -> bool {
        matches!(self.kind, Kind::Directory)
    }
}

/// A file tree.
#[derive(Debug, Clone)]
pub struct Tree {
    entries: BTreeMap<String, Entry>,
}

impl Default for Tree {
    fn default() -> Self {
        Self::new()
    }
}

impl Tree {
    /// A tree with nothing but its root.
    #[must_use]
    pub fn new() -> Self {
        Self { entries: BTreeMap::from([(String::new(), Entry::new(Kind::Directory, 0o755))]) }
    }

    /// Number of entries, the root included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is nothing but the root.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.len() <= 1
    }

    /// Entries by path, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Entry)> {
        self.entries.iter().map(|(path, entry)| (path.as_str(), entry))
    }

    /// The entry at exactly this path; no link is followed.
    #[must_use]
    pub fn get(&self, path: &str) -> Option<&Entry> {
        self.entries.get(path.trim_start_matches('/'))
    }

    /// Everything below a directory, in order, by full path.
    pub fn below<'tree>(&'tree self, directory: &str) -> impl Iterator<Item = (&'tree str, &'tree Entry)> {
        let prefix = prefix_of(directory);
        self.entries
            .range(prefix.clone()..)
            .take_while(move |(path, _)| path.starts_with(&prefix))
            .filter(|(path, _)| !path.is_empty())
            .map(|(path, entry)| (path.as_str(), entry))
    }

    /// What lies directly in a directory, in order, by name.
    pub fn children<'tree>(&'tree self, directory: &str) -> impl Iterator<Item = (&'tree str, &'tree Entry)> {
        let skip = prefix_of(directory).len();
        self.below(directory)
            .filter_map(move |(path, entry)| path.get(skip..).map(|name| (name, entry)))
            .filter(|(name, _)| !name.contains('/'))
    }

    /// Puts an entry, and the directories above it; links on the way are followed.
    /// What a directory holds stays when a directory is put over it.
    pub fn put(&mut self, path: &str, entry: Entry) -> Result<()> {
        let path = clean_path(path).map_err(|why| Error::malformed(path, why))?;
        let path = match path.rsplit_once('/') {
            Some((parent, name)) => clean_path(&format!("{}/{name}", self.resolve_partly(parent)?))
                .map_err(|why| Error::malformed(&path, why))?,
            None => path,
        };
        self.put_raw(&path, entry)
    }

    /// As [`Tree::put`], without following links: what an archive means.
    fn put_raw(&mut self, path: &str, entry: Entry) -> Result<()> {
        if let Kind::Symlink(target) = &entry.kind
            && (target.is_empty() || target.len() > MAX_LINK_BYTES)
        {
            return Err(Error::malformed(path, "the target of the link is empty or too long"));
        }
        let mut above = path;
        while let Some((parent, _)) = above.rsplit_once('/') {
            match self.entries.get(parent).map(Entry::is_directory) {
                Some(true) => break,
                Some(false) => return Err(Error::malformed(path, format!("{parent} is not a directory"))),
                None => self.entries.insert(parent.to_owned(), Entry::new(Kind::Directory, 0o755)),
            };
            above = parent;
        }
        if let Some(old) = self.entries.get(path)
            && old.is_directory()
            && !entry.is_directory()
            && self.below(path).next().is_some()
        {
            return Err(Error::malformed(path, "it is a directory that is not empty"));
        }
        self.entries.insert(path.to_owned(), entry);
        Ok(())
    }

    /// Puts a file of root.
    pub fn put_file(&mut self, path: &str, content: impl Into<Content>, mode: u16) -> Result<()> {
        self.put(path, Entry::new(Kind::File(content.into()), mode))
    }

    /// Puts a symbolic link.
    pub fn put_link(&mut self, path: &str, target: &str) -> Result<()> {
        self.put(path, Entry::new(Kind::Symlink(target.to_owned()), 0o777))
    }

    /// Makes sure that a directory is there; an existing one keeps its mode.
    pub fn put_directory(&mut self, path: &str, mode: u16) -> Result<()> {
        if let Some(found) = self.resolve(path)
            && self.entries.get(&found).is_some_and(Entry::is_directory)
        {
            return Ok(());
        }
        self.put(path, Entry::new(Kind::Directory, mode))
    }

    /// Takes an entry and everything below it away; the root stays with all it has. Returns how many entries that were.
    pub fn remove(&mut self, path: &str) -> usize {
        let path = path.trim_matches('/');
        if path.is_empty() {
            return 0;
        }
        let mut gone: Vec<String> = self.below(path).map(|(found, _)| found.to_owned()).collect();
        gone.push(path.to_owned());
        gone.iter().filter(|path| self.entries.remove(*path).is_some()).count()
    }

    /// As [`Tree::remove`], and the directories above it that hold nothing any more.
    pub fn remove_with_empty_parents(&mut self, path: &str) -> usize {
        let mut gone = self.remove(path);
        let mut path = path.trim_matches('/');
        while let Some((parent, _)) = path.rsplit_once('/') {
            if gone == 0 || self.children(parent).next().is_some() {
                break;
            }
            gone += self.remove(parent);
            path = parent;
        }
        gone
    }

    /// Takes away what a set of globs matches, with everything below it. Returns how many entries that were.
    pub fn remove_matching(&mut self, globs: &GlobSet) -> usize {
        let hits: Vec<String> =
            self.entries.keys().filter(|path| !path.is_empty() && globs.is_match(path)).cloned().collect();
        hits.iter().map(|path| self.remove(path)).sum()
    }

    /// Moves everything below one directory below another one, and takes the first away.
    pub fn merge_into(&mut self, from: &str, into: &str) -> Result<()> {
        let moved: Vec<(String, Entry)> =
            self.below(from).map(|(path, entry)| (path.to_owned(), entry.clone())).collect();
        let skip = prefix_of(from).len();
        self.remove(from);
        for (path, entry) in moved {
            let rest = path.get(skip..).unwrap_or_default();
            let target = format!("{into}/{rest}");
            if entry.is_directory() && self.get(&target).is_some_and(Entry::is_directory) {
                continue;
            }
            // A link that only led to the other side is now where it leads.
            if let Kind::Symlink(leads_to) = &entry.kind
                && lexical_target(&path, leads_to) == target
            {
                continue;
            }
            self.put_raw(&target, entry)?;
        }
        Ok(())
    }

    /// Where a path leads when every link is followed; `None` when it leads nowhere.
    #[must_use]
    pub fn resolve(&self, path: &str) -> Option<String> {
        let found = self.resolve_partly(path).ok()?;
        self.entries.contains_key(&found).then_some(found)
    }

    /// Follows links as far as there are any; what is not there is taken as it stands.
    fn resolve_partly(&self, path: &str) -> Result<String> {
        let mut todo: VecDeque<String> = path.split('/').map(str::to_owned).collect();
        let mut done: Vec<String> = Vec::new();
        let mut links = 0;
        while let Some(part) = todo.pop_front() {
            match part.as_str() {
                "" | "." => continue,
                ".." => {
                    done.pop();
                    continue;
                }
                _ => done.push(part),
            }
            let here = done.join("/");
            if let Some(Entry { kind: Kind::Symlink(target), .. }) = self.entries.get(&here) {
                links += 1;
                if links > MAX_LINKS_FOLLOWED {
                    return Err(Error::malformed(path, "links that lead in a circle"));
                }
                done.pop();
                if target.starts_with('/') {
                    done.clear();
                }
                for part in target.split('/').rev() {
                    todo.push_front(part.to_owned());
                }
            }
        }
        Ok(done.join("/"))
    }

    /// The content of the file that a path leads to.
    pub fn content(&self, path: &str) -> Result<&Content> {
        let found = self
            .resolve(path)
            .ok_or_else(|| Error::missing(path, "no package of the appliance brings this file"))?;
        match self.entries.get(&found).map(|entry| &entry.kind) {
            Some(Kind::File(content)) => Ok(content),
            _ => Err(Error::malformed(path, "it is not a regular file")),
        }
    }

    /// The text of the file that a path leads to.
    pub fn text(&self, path: &str) -> Result<String> {
        let bytes = self.content(path)?.read(MAX_TEXT_BYTES)?;
        String::from_utf8(bytes).map_err(|_| Error::malformed(path, "it is not UTF-8 text"))
    }

    /// Sum of the sizes of all files.
    #[must_use]
    pub fn file_bytes(&self) -> u64 {
        self.entries
            .values()
            .map(|entry| match &entry.kind {
                Kind::File(content) => content.len_bytes(),
                _ => 0,
            })
            .sum()
    }
}

fn prefix_of(directory: &str) -> String {
    match directory.trim_matches('/') {
        "" => String::new(),
        path => format!("{path}/"),
    }
}

/// Where a link at `path` leads when no directory on the way is a link.
fn lexical_target(path: &str, leads_to: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
    let from = if leads_to.starts_with('/') { "" } else { parent };
    for part in from.split('/').chain(leads_to.split('/')) {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// A path without leading slash, empty parts or dots; parts that climb or are too long are refused with the reason.
pub(crate) fn clean_path(path: &str) -> Result<String, String> {
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => return Err(format!("{path}: a path must not climb with ..")),
            part if part.len() > MAX_NAME_BYTES || part.contains('\0') => {
                return Err(format!("{path}: a name has at most {MAX_NAME_BYTES} bytes and no zero byte"));
            }
            part => parts.push(part),
        }
    }
    Ok(parts.join("/"))
}

/// Globs as the appliance file has them: `*` stays within one directory, `**` crosses them.
pub fn globs(patterns: &[String]) -> Result<GlobSet> {
    let mut set = GlobSetBuilder::new();
    for pattern in patterns {
        let glob = GlobBuilder::new(pattern.trim_start_matches('/'))
            .literal_separator(true)
            .build()
            .map_err(|error| Error::malformed(format!("glob {pattern}"), error.kind()))?;
        set.add(glob);
    }
    set.build().map_err(|error| Error::malformed("globs", error.kind()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Tree {
        let mut tree = Tree::new();
        tree.put_file("usr/lib/a.so", "a", 0o644).unwrap();
        tree.put_file("lib/b.so", "b", 0o644).unwrap();
        tree.put_file("usr/share/doc/x/y", "doc", 0o644).unwrap();
        tree
    }

    #[test]
    fn merging_leaves_both_sides_reachable() {
        let mut tree = sample();
        tree.put_link("lib/a.so", "../usr/lib/a.so").unwrap();
        tree.put_link("usr/lib/b.so", "/lib/b.so").unwrap();
        tree.merge_into("lib", "usr/lib").unwrap();
        tree.put_link("lib", "usr/lib").unwrap();
        assert_eq!(tree.text("lib/b.so").unwrap(), "b");
        assert_eq!(tree.text("/lib/a.so").unwrap(), "a");
        tree.put_file("lib/c.so", "c", 0o644).unwrap();
        assert!(tree.get("usr/lib/c.so").is_some());
    }

    #[test]
    fn globs_take_whole_subtrees_and_stay_in_their_directory() {
        let mut tree = sample();
        assert_eq!(tree.remove_matching(&globs(&["usr/share/doc".into()]).unwrap()), 3);
        assert_eq!(tree.remove_matching(&globs(&["usr/*.so".into()]).unwrap()), 0);
        assert_eq!(tree.remove_matching(&globs(&["usr/**/*.so".into()]).unwrap()), 1);
        assert!(globs(&["[".into()]).is_err());
        assert_eq!(tree.remove_with_empty_parents("lib/b.so"), 2);
        assert_eq!(tree.remove_with_empty_parents("lib/b.so"), 0);
    }

    #[test]
    fn links_are_followed_and_circles_end() {
        let mut tree = sample();
        tree.put_link("run/x", "../usr/./lib/a.so").unwrap();
        tree.put_link("c1", "c2").unwrap();
        tree.put_link("c2", "/c1").unwrap();
        assert_eq!(tree.resolve("run/x").as_deref(), Some("usr/lib/a.so"));
        assert_eq!(tree.resolve("c1"), None);
        assert_eq!(tree.resolve("nowhere"), None);
    }

    #[test]
    fn paths_that_climb_and_files_over_directories_are_refused() {
        let mut tree = sample();
        assert!(tree.put_file("../etc/passwd", "", 0o644).is_err());
        assert!(tree.put_file("usr/lib", "", 0o644).is_err());
        assert!(tree.put_file("usr/lib/a.so/b", "", 0o644).is_err());
        assert!(tree.put_file(&"x".repeat(256), "", 0o644).is_err());
    }

    #[test]
    fn a_tar_keeps_everything_but_times() {
        let mut builder = tar::Builder::new(Vec::new());
        let mut put = |kind: tar::EntryType, path: &str, link: &str, data: &[u8]| {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(kind);
            header.set_mode(0o4755);
            header.set_uid(7);
            header.set_gid(8);
            header.set_mtime(1);
            header.set_size(data.len() as u64);
            if link.is_empty() {
                builder.append_data(&mut header, path, data).unwrap();
            } else {
                builder.append_link(&mut header, path, link).unwrap();
            }
        };
        put(tar::EntryType::Regular, "./bin/su", "", b"set-user-id");
        put(tar::EntryType::Link, "./bin/hard", "./bin/su", b"");
        put(tar::EntryType::Symlink, "./bin/soft", "su", b"");
        let spool = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(spool.path(), builder.into_inner().unwrap()).unwrap();
        let mut tree = Tree::new();
        tree.import_tar(spool.path()).unwrap();
        let entry = tree.get("bin/su").unwrap();
        assert_eq!((entry.mode, entry.uid, entry.gid), (0o4755, 7, 8));
        assert_eq!(tree.text("bin/hard").unwrap(), "set-user-id");
        assert_eq!(tree.text("bin/soft").unwrap(), "set-user-id");
    }
}
