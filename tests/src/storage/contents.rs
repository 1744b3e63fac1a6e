//! What lies on the storage of a machine. A clone shares everything until one of both is changed, and remembers its hash, so that a million
//! states cost no more than what differs in them.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, OnceLock},
};

use bank_format::Bank;
use twox_hash::XxHash3_128;

/// A place that keeps bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// The partition `record`.
    Record,
    /// The partition `loader` of GRUB.
    Loader,
    /// Copy 0 or 1 of U-Boot's environment.
    Environment(u8),
    /// The file `autoboot.txt`.
    Autoboot,
    /// The boot image of a bank.
    Boot(Bank),
    /// The root image of a bank.
    Root(Bank),
}

impl Place {
    const COUNT: usize = 9;

    fn number(self) -> usize {
        let of = |bank| usize::from(bank == Bank::B);
        match self {
            Self::Record => 0,
            Self::Loader => 1,
            Self::Environment(copy) => 2 + usize::from(copy & 1),
            Self::Autoboot => 4,
            Self::Boot(bank) => 5 + of(bank),
            Self::Root(bank) => 7 + of(bank),
        }
    }
}

/// A value whose hash is computed once.
#[derive(Debug, Default)]
struct Hashed<T> {
    value: T,
    hash: OnceLock<u128>,
}

impl<T: Clone> Clone for Hashed<T> {
    fn clone(&self) -> Self {
        Self { value: self.value.clone(), hash: OnceLock::new() }
    }
}

impl<T: Clone> Hashed<T> {
    fn change(this: &mut Arc<Self>) -> &mut T {
        let inner = Arc::make_mut(this);
        inner.hash = OnceLock::new();
        &mut inner.value
    }

    fn hash(&self, of: impl FnOnce(&T) -> u128) -> u128 {
        *self.hash.get_or_init(|| of(&self.value))
    }
}

/// Bytes of a file, under a number of its own: names come and go.
pub type Inode = u32;

/// What a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Node {
    /// A file.
    File(Inode),
    /// A directory.
    Directory,
}

/// The files of the state partition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tree {
    /// What is where.
    pub names: BTreeMap<PathBuf, Node>,
    /// The bytes of the files.
    pub inodes: BTreeMap<Inode, Arc<Vec<u8>>>,
}

impl Tree {
    /// The bytes of the file of that name. One whose data did not arrive is empty.
    #[must_use]
    pub fn file(&self, path: &std::path::Path) -> Option<&[u8]> {
        match self.names.get(path)? {
            Node::File(inode) => {
                Some(self.inodes.get(inode).map(|bytes| bytes.as_slice()).unwrap_or_default())
            }
            Node::Directory => None,
        }
    }

    /// A number that no file has.
    #[must_use]
    pub fn unused_inode(&self) -> Inode {
        let of_name = |node: &Node| match node {
            Node::File(inode) => *inode,
            Node::Directory => 0,
        };
        let named = self.names.values().map(of_name).max().unwrap_or(0);
        named.max(self.inodes.keys().last().copied().unwrap_or(0)) + 1
    }

    /// Bytes of all files that have a name.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.names.keys().filter_map(|path| self.file(path)).map(<[u8]>::len).sum()
    }
}

/// All that is kept without power.
#[derive(Debug, Clone, Default)]
pub struct Contents {
    places: [Arc<Hashed<Vec<u8>>>; Place::COUNT],
    variables: Arc<Hashed<BTreeMap<String, Vec<u8>>>>,
    files: Arc<Hashed<Tree>>,
}

impl Contents {
    /// These places, and nothing else.
    #[must_use]
    pub fn of(places: impl IntoIterator<Item = (Place, Vec<u8>)>) -> Self {
        let mut contents = Self::default();
        for (place, bytes) in places {
            *contents.bytes_mut(place) = bytes;
        }
        contents
    }

    /// The bytes of a place.
    #[must_use]
    pub fn bytes(&self, place: Place) -> &[u8] {
        self.places.get(place.number()).map(|hashed| hashed.value.as_slice()).unwrap_or_default()
    }

    /// The bytes of a place, to be changed.
    pub fn bytes_mut(&mut self, place: Place) -> &mut Vec<u8> {
        #[expect(clippy::indexing_slicing, reason = "a place has a number below their count")]
        Hashed::change(&mut self.places[place.number()])
    }

    /// Firmware variables, as `NAME-VENDOR`.
    #[must_use]
    pub fn variables(&self) -> &BTreeMap<String, Vec<u8>> {
        &self.variables.value
    }

    /// Firmware variables, to be changed.
    pub fn variables_mut(&mut self) -> &mut BTreeMap<String, Vec<u8>> {
        Hashed::change(&mut self.variables)
    }

    /// The files.
    #[must_use]
    pub fn files(&self) -> &Tree {
        &self.files.value
    }

    /// The files, to be changed.
    pub fn files_mut(&mut self) -> &mut Tree {
        Hashed::change(&mut self.files)
    }

    /// Writes into a place; what reaches behind its end makes it longer.
    pub fn write(&mut self, place: Place, offset: usize, bytes: &[u8]) {
        put(self.bytes_mut(place), offset, bytes);
    }

    /// The same for the same contents, and another for others.
    #[must_use]
    pub fn fingerprint(&self) -> u128 {
        let mut all = Vec::with_capacity(16 * (Place::COUNT + 2));
        for place in &self.places {
            all.extend(place.hash(|bytes| XxHash3_128::oneshot(bytes)).to_le_bytes());
        }
        all.extend(self.variables.hash(of_variables).to_le_bytes());
        all.extend(self.files.hash(of_files).to_le_bytes());
        XxHash3_128::oneshot(&all)
    }
}

impl PartialEq for Contents {
    fn eq(&self, other: &Self) -> bool {
        let mut places = self.places.iter().zip(&other.places);
        places.all(|(one, other)| Arc::ptr_eq(one, other) || one.value == other.value)
            && self.variables.value == other.variables.value
            && self.files.value == other.files.value
    }
}

/// Writes into bytes; what reaches behind their end makes them longer.
pub(super) fn put(into: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset + bytes.len();
    if into.len() < end {
        into.resize(end, 0);
    }
    if let Some(there) = into.get_mut(offset..end) {
        there.copy_from_slice(bytes);
    }
}

fn of_variables(variables: &BTreeMap<String, Vec<u8>>) -> u128 {
    let mut hasher = XxHash3_128::new();
    for (name, value) in variables {
        field(&mut hasher, name.as_bytes());
        field(&mut hasher, value);
    }
    hasher.finish_128()
}

/// A file without a name is no content.
fn of_files(tree: &Tree) -> u128 {
    let mut hasher = XxHash3_128::new();
    for (path, node) in &tree.names {
        field(&mut hasher, path.as_os_str().as_encoded_bytes());
        match node {
            Node::File(_) => field(&mut hasher, tree.file(path).unwrap_or_default()),
            Node::Directory => field(&mut hasher, b"/"),
        }
    }
    hasher.finish_128()
}

fn field(hasher: &mut XxHash3_128, bytes: &[u8]) {
    hasher.write(&bytes.len().to_le_bytes());
    hasher.write(bytes);
}
