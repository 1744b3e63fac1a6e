//! The state partition's files as the agent meets them: its own port, on simulated storage.

use std::{
    io,
    path::{Path, PathBuf},
};

use updater::files::{Files, OpenFile};

use super::{
    At, Storage,
    contents::{Inode, Node},
    fault::Asked,
    log::{Deed, Naming},
};

/// A hand on the files.
#[derive(Debug, Clone)]
pub struct StateFiles(pub(super) Storage);

#[derive(Debug)]
struct Handle {
    storage: Storage,
    inode: Inode,
    at: usize,
}

fn missing() -> io::Error {
    io::Error::from(io::ErrorKind::NotFound)
}

impl StateFiles {
    fn node(&self, path: &Path) -> Option<Node> {
        self.0.with(|contents| contents.files().names.get(path).copied())
    }

    fn below(&self, directory: &Path) -> Vec<PathBuf> {
        self.0.with(|contents| {
            let names = contents.files().names.keys();
            names.filter(|path| path.starts_with(directory) && *path != directory).cloned().collect()
        })
    }

    fn made(&self, path: &Path) -> io::Result<Inode> {
        self.0.may(At::Files, Asked::Write)?;
        let inode = self.0.with(|contents| contents.files().unused_inode());
        self.0.record(Deed::Name(Naming::Put(path.into(), Node::File(inode))));
        Ok(inode)
    }
}

impl Files for StateFiles {
    fn read(&self, path: &Path, from: u64, most_bytes: u64) -> io::Result<Vec<u8>> {
        self.0.may(At::Files, Asked::Read)?;
        self.0.with(|contents| {
            let bytes = contents.files().file(path).ok_or_else(missing)?;
            let rest = bytes.get(from as usize..).unwrap_or_default();
            Ok(rest.get(..rest.len().min(most_bytes as usize)).unwrap_or_default().to_vec())
        })
    }

    fn bytes(&self, path: &Path) -> io::Result<u64> {
        self.0
            .with(|contents| contents.files().file(path).map(|bytes| bytes.len() as u64).ok_or_else(missing))
    }

    fn is_directory(&self, path: &Path) -> bool {
        self.node(path) == Some(Node::Directory)
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<PathBuf>> {
        if !self.is_directory(directory) {
            return Err(missing());
        }
        Ok(self.below(directory).into_iter().filter(|path| path.parent() == Some(directory)).collect())
    }

    fn make_directories(&self, path: &Path) -> io::Result<()> {
        let mut parents: Vec<&Path> = path.ancestors().filter(|parent| parent.parent().is_some()).collect();
        parents.reverse();
        for parent in parents {
            if self.node(parent).is_none() {
                self.make_directory(parent)?;
            }
        }
        Ok(())
    }

    fn make_directory(&self, path: &Path) -> io::Result<()> {
        if self.node(path).is_some() {
            return Err(io::Error::from(io::ErrorKind::AlreadyExists));
        }
        self.0.may(At::Files, Asked::Write)?;
        self.0.record(Deed::Name(Naming::Put(path.into(), Node::Directory)));
        Ok(())
    }

    /// A file that is there is emptied: a new one takes its name, which is the same to whoever reads it.
    fn create(&self, path: &Path) -> io::Result<Box<dyn OpenFile>> {
        let inode = self.made(path)?;
        Ok(Box::new(Handle { storage: self.0.clone(), inode, at: 0 }))
    }

    fn append(&self, path: &Path) -> io::Result<Box<dyn OpenFile>> {
        let (inode, at) = match self.node(path) {
            Some(Node::File(inode)) => (inode, self.bytes(path)? as usize),
            Some(Node::Directory) => return Err(io::Error::from(io::ErrorKind::IsADirectory)),
            None => (self.made(path)?, 0),
        };
        Ok(Box::new(Handle { storage: self.0.clone(), inode, at }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.node(from).ok_or_else(missing)?;
        self.0.may(At::Files, Asked::Write)?;
        self.0.record(Deed::Name(Naming::Rename(from.into(), to.into())));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.node(path).ok_or_else(missing)?;
        self.0.may(At::Files, Asked::Write)?;
        self.0.record(Deed::Name(Naming::Remove(path.into())));
        Ok(())
    }

    fn remove_directory(&self, path: &Path) -> io::Result<()> {
        self.node(path).ok_or_else(missing)?;
        let mut gone = self.below(path);
        gone.reverse();
        gone.push(path.into());
        gone.iter().try_for_each(|path| self.remove(path))
    }

    fn sync_directory_of(&self, _: &Path) -> io::Result<()> {
        self.0.may(At::Files, Asked::Flush)?;
        self.0.record(Deed::SyncNames);
        Ok(())
    }
}

impl OpenFile for Handle {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.storage.may(At::Files, Asked::Write)?;
        self.storage.record(Deed::Data { inode: self.inode, offset: self.at, bytes: bytes.to_vec() });
        self.at += bytes.len();
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        self.storage.may(At::Files, Asked::Flush)?;
        self.storage.record(Deed::Sync(self.inode));
        Ok(())
    }
}
