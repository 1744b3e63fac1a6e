//! What was done to the storage since some moment, and what of it is safe.

use std::path::PathBuf;

use super::contents::{Contents, Inode, Node, Place, Tree, put};

/// Who writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writer {
    /// Initrd or agent, through the kernel's cache.
    System,
    /// The boot loader, straight to the drive.
    Loader,
}

/// What becomes of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Naming {
    /// A file is made, or another one takes the place of what has the name.
    Put(PathBuf, Node),
    /// A file gets another name, in the place of what has it.
    Rename(PathBuf, PathBuf),
    /// The name is gone.
    Remove(PathBuf),
}

/// One deed on the storage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Deed {
    /// Bytes were written.
    Write {
        /// Where.
        place: Place,
        /// From this byte on.
        offset: usize,
        /// What.
        bytes: Vec<u8>,
        /// By whom.
        writer: Writer,
    },
    /// A place was flushed.
    Flush(Place),
    /// A firmware variable was set, or removed.
    Variable(String, Option<Vec<u8>>),
    /// Bytes were written to a file.
    Data {
        /// Which.
        inode: Inode,
        /// From this byte on.
        offset: usize,
        /// What.
        bytes: Vec<u8>,
    },
    /// A file was flushed.
    Sync(Inode),
    /// A name came, went or moved.
    Name(Naming),
    /// The names were flushed.
    SyncNames,
}

/// How a deed arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arrival {
    /// As it was meant.
    Whole,
    /// The file became longer, and holds zeros there: what some file systems make of data that was not flushed.
    Zeros,
}

impl Contents {
    /// Does it.
    pub(super) fn apply(&mut self, deed: &Deed, arrival: Arrival) {
        match deed {
            Deed::Write { place, offset, bytes, .. } => self.write(*place, *offset, bytes),
            Deed::Variable(key, Some(value)) => {
                self.variables_mut().insert(key.clone(), value.clone());
            }
            Deed::Variable(key, None) => {
                self.variables_mut().remove(key);
            }
            Deed::Data { inode, offset, bytes } => {
                let mut file = (**self.files_mut().inodes.entry(*inode).or_default()).clone();
                match arrival {
                    Arrival::Whole => put(&mut file, *offset, bytes),
                    Arrival::Zeros => put(&mut file, *offset, &vec![0; bytes.len()]),
                }
                self.files_mut().inodes.insert(*inode, file.into());
            }
            Deed::Name(naming) => self.files_mut().name(naming),
            Deed::Flush(_) | Deed::Sync(_) | Deed::SyncNames => (),
        }
    }
}

impl Tree {
    pub(super) fn name(&mut self, naming: &Naming) {
        match naming {
            Naming::Put(path, node) => {
                self.names.insert(path.clone(), *node);
            }
            Naming::Rename(from, to) => {
                if let Some(node) = self.names.remove(from) {
                    self.names.insert(to.clone(), node);
                }
            }
            Naming::Remove(path) => {
                self.names.remove(path);
            }
        }
    }
}

/// Numbers of the deeds that are not safe after these deeds: writes, which may arrive in any order, and names, of which the first ones
/// arrive, as a journal has them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Open {
    pub writes: Vec<usize>,
    pub names: Vec<usize>,
}

impl Open {
    /// One more deed was done: those that it made safe, in their order.
    pub(super) fn after(&mut self, log: &[Deed], number: usize) -> Vec<usize> {
        let Some(deed) = log.get(number) else { return Vec::new() };
        match deed {
            Deed::Write { .. } | Deed::Data { .. } => self.writes.push(number),
            Deed::Name(_) => self.names.push(number),
            Deed::Variable(..) => return vec![number],
            Deed::SyncNames => return std::mem::take(&mut self.names),
            Deed::Flush(_) | Deed::Sync(_) => {
                let is_safe = |write: &usize| match (log.get(*write), deed) {
                    (Some(Deed::Write { place, writer, .. }), Deed::Flush(flushed)) => {
                        // The loader's went past the cache: whatever empties the drive's empties it of them as well.
                        place == flushed || *writer == Writer::Loader
                    }
                    (Some(Deed::Write { writer, .. }), Deed::Sync(_)) => *writer == Writer::Loader,
                    (Some(Deed::Data { inode, .. }), Deed::Sync(synced)) => inode == synced,
                    (_, _) => false,
                };
                let (safe, open) = self.writes.iter().partition(|write| is_safe(write));
                self.writes = open;
                return safe;
            }
        }
        Vec::new()
    }
}
