//! The images of a simulated release, and what a machine can see of them: bytes that say how the release behaves.
//!
//! ```text
//! boot   block 0: magic, behaviour, version, verity root of the root image; block 1: the kernel, and the version again
//! root   noise
//! ```

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use bank_format::{Bank, Digest256, manifest::Tree, release::Version};
use boot_hooks::scenarios::Image;

use crate::{
    forge::{Forge, noise, verity_root},
    loaders::LOADABLE,
    storage::{Contents, Place, Storage},
};

/// Bytes of a block.
pub const BLOCK_BYTES: usize = 4096;
/// Bytes of a boot image.
pub const BOOT_BYTES: usize = 2 * BLOCK_BYTES;
/// Bytes of a root image.
pub const ROOT_BYTES: usize = 3 * BLOCK_BYTES;
/// Bytes of a bank behind its image: room for a tree, and for a tail, its table and its head.
pub const TAIL_BYTES: usize = 3 * BLOCK_BYTES;
const KERNEL: &[u8] = b"kernel";
const BEHAVIOUR_AT: usize = 16;
const VERSION_AT: usize = 17;
const ROOT_AT: usize = 32;

/// Every behaviour, in the order of the number that stands for it.
const IMAGES: [Image; 5] =
    [Image::Good, Image::Panics, Image::HangsEarly, Image::HangsLate, Image::Unhealthy];

/// A release: its behaviour, and its minor version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Release {
    /// How it behaves.
    pub image: Image,
    /// 1.MINOR.0.
    pub minor: u8,
}

impl Release {
    /// What a factory disk carries.
    pub const FACTORY: Self = Self { image: Image::Good, minor: 0 };

    /// As in its manifest.
    #[must_use]
    pub fn version(self) -> Version {
        Version::new(1, u64::from(self.minor), 0)
    }

    /// The root image.
    #[must_use]
    pub fn root(self) -> Vec<u8> {
        noise(u32::from(self.minor) + 1, ROOT_BYTES)
    }

    /// The boot image.
    #[must_use]
    pub fn boot(self) -> Vec<u8> {
        let mut bytes = vec![0; BOOT_BYTES];
        let behaviour = IMAGES.iter().position(|image| *image == self.image).unwrap_or_default() as u8;
        let root = verity_root(&self.root());
        for (at, part) in [
            (0, LOADABLE),
            (BEHAVIOUR_AT, &[behaviour]),
            (VERSION_AT, &[self.minor]),
            (ROOT_AT, &root.0),
            (BLOCK_BYTES, KERNEL),
            (BLOCK_BYTES + KERNEL.len(), &[self.minor]),
        ] {
            bytes.splice(at..at + part.len(), part.iter().copied());
        }
        bytes
    }

    /// The signed bundle. Signing takes longer than all else that a machine does with it: each is made once.
    #[must_use]
    pub fn bundle(self) -> Vec<u8> {
        static MADE: Mutex<BTreeMap<Release, Vec<u8>>> = Mutex::new(BTreeMap::new());
        let mut made = MADE.lock().unwrap_or_else(PoisonError::into_inner);
        made.entry(self).or_insert_with(|| self.make_bundle()).clone()
    }

    fn make_bundle(self) -> Vec<u8> {
        let version = self.version().to_string();
        let mut forge = Forge::honest(&self.root(), &version);
        if let Some(root) = forge.manifest.images.first_mut() {
            root.verity.tree = Tree::Appended;
        }
        let boot = Forge::honest(&self.boot(), &version);
        forge.tables.extend(boot.tables);
        forge.frames.extend(boot.frames);
        for mut image in boot.manifest.images {
            image.name = "boot".into();
            forge.manifest.images.push(image);
        }
        forge.bytes()
    }
}

/// What a boot image does once it is started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Started {
    /// Which release.
    pub release: Release,
    /// Whether the kernel comes as far as the initrd.
    pub kernel_lives: bool,
    /// What the root image must hash to.
    pub root: Digest256,
}

/// The boot image of a bank, as the loader hands over to it.
#[must_use]
pub fn started(storage: &Storage, bank: Bank) -> Started {
    storage.with(|contents| started_in(contents, bank))
}

/// The same of contents.
#[must_use]
pub fn started_in(contents: &Contents, bank: Bank) -> Started {
    let bytes = contents.bytes(Place::Boot(bank));
    let byte = |at: usize| bytes.get(at).copied().unwrap_or_default();
    let image = IMAGES.get(usize::from(byte(BEHAVIOUR_AT))).copied().unwrap_or(Image::Panics);
    let mut root = Digest256([0; 32]);
    for (to, at) in root.0.iter_mut().zip(ROOT_AT..) {
        *to = byte(at);
    }
    let kernel = bytes.get(BLOCK_BYTES..BLOCK_BYTES + KERNEL.len());
    Started {
        release: Release { image, minor: byte(VERSION_AT) },
        kernel_lives: kernel == Some(KERNEL) && image != Image::Panics,
        root,
    }
}

/// The version that stands in a bank's boot image, for loaders that sort by it.
#[must_use]
pub fn version_of(storage: &Storage, bank: Bank) -> u8 {
    started(storage, bank).release.minor
}

/// Whether the root image of a bank is what its boot image says.
#[must_use]
pub fn root_is_whole(storage: &Storage, bank: Bank, expected: Digest256) -> bool {
    verity_root(&storage.head(Place::Root(bank), 0, ROOT_BYTES)) == expected
}
