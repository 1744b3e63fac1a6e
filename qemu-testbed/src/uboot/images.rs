//! The releases of the table as images: a kernel that behaves, a root image that is noise, a bundle.

use std::{fs, path::Path};

use bank_format::{
    Digest256,
    manifest::{Build, Tree},
    record::ImageProof,
    release::Version,
    verity::TreeBuilder,
};
use boot_hooks::scenarios::Image;
use image_tool::{
    bundle::{self, BundleSpec, ImageSpec, Older},
    chunker::Packing,
    fat::{self, File, Size},
    keys::ReleaseKeys,
    progress::Silent,
};

use super::{
    odd,
    payload::{self, Behaviour, FIRST_WORD},
};
use crate::error::{Error, Result};

/// Name of the product.
pub const PRODUCT: &str = "board";
/// Bytes of a root image without its tree.
const ROOT_BYTES: usize = 16 << 10;
const BLOCK_BYTES: usize = 4096;
/// Compression: the bytes are noise, and live for seconds.
const LEVEL: i32 = 1;

/// A release: what the table says of it, and its minor version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Release {
    /// How it behaves.
    pub image: Image,
    /// 1.MINOR.0.
    pub minor: u64,
}

impl Release {
    /// What a factory disk carries.
    pub const FACTORY: Self = Self { image: Image::Good, minor: 0 };

    /// As in its manifest.
    #[must_use]
    pub fn version(self) -> Version {
        Version::new(1, self.minor, 0)
    }

    /// What its kernel calls itself.
    #[must_use]
    pub fn name(self) -> String {
        format!("{} {}", self.version(), word(self.image))
    }

    /// The root image without its tree.
    #[must_use]
    pub fn root(self) -> Vec<u8> {
        let mut state = self.minor.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut next = || {
            // xorshift64: Marsaglia 2003.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        };
        (0..ROOT_BYTES / 8).flat_map(|_| next()).collect()
    }

    /// The boot image: a FAT with what the page says.
    pub fn boot(self) -> Result<Vec<u8>> {
        let behaviour = match self.image {
            Image::Good | Image::Unhealthy => Behaviour::PowersOff,
            Image::Panics => Behaviour::Resets,
            Image::HangsEarly | Image::HangsLate => Behaviour::Hangs,
        };
        let (root, _) = tree(&self.root())?;
        let line =
            format!("cmdline={FIRST_WORD}u-boot roothash={root} roro.blocks={}\n", ROOT_BYTES / BLOCK_BYTES);
        let files = [
            File::new("roro/linux", payload::kernel(&self.name(), behaviour)),
            File::new("roro/boot.env", line.into_bytes()),
        ];
        volume(&files)
    }

    /// The root image as it lies in its bank, with the tree behind it.
    pub fn root_with_tree(self) -> Result<Vec<u8>> {
        let mut bytes = self.root();
        let (_, tree) = tree(&bytes)?;
        bytes.extend(tree);
        Ok(bytes)
    }

    /// What the record of a factory disk says about its images.
    pub fn proofs(self) -> Result<[(String, ImageProof); 2]> {
        let proof = |bytes: &[u8], kept: Tree| -> Result<ImageProof> {
            let (verity_root, _) = tree(bytes)?;
            Ok(ImageProof { bytes: bytes.len() as u64, verity_root, salt: String::new(), tree: Some(kept) })
        };
        let (boot, root) = (proof(&self.boot()?, Tree::None)?, proof(&self.root(), Tree::Appended)?);
        Ok([("boot".into(), boot), ("root".into(), root)])
    }

    /// Makes the signed bundle.
    pub fn bundle(self, compatible: &str, keys: &ReleaseKeys, folder: &Path, out: &Path) -> Result<()> {
        let mut images = Vec::new();
        for (name, bytes, tree) in [("root", self.root(), Tree::Appended), ("boot", self.boot()?, Tree::None)]
        {
            let path = folder.join(format!("{name}.img"));
            fs::write(&path, bytes).map_err(Error::io("write", &path))?;
            let salt = Vec::new();
            images.push(ImageSpec { name: name.into(), path, tree, salt, lengths: None });
        }
        let spec = BundleSpec {
            name: PRODUCT.into(),
            version: self.version(),
            compatible: compatible.into(),
            created_unix_seconds: 0,
            floor: None,
            build: Build { tool: bundle::tool(), source: None, commit: None },
            images,
            documents: Vec::new(),
            keys,
            packing: Packing::at_level(LEVEL),
            from: Older::default(),
        };
        bundle::write(&spec, out, &Silent)
            .map(drop)
            .map_err(|source| Error::Mint { release: self.name(), source: Box::new(source) })
    }
}

/// The image that a kernel's word stands for.
pub fn image(word_said: &str) -> Option<Image> {
    let all = [Image::Good, Image::Panics, Image::HangsEarly, Image::HangsLate, Image::Unhealthy];
    all.into_iter().find(|image| word(*image) == word_said)
}

fn word(image: Image) -> &'static str {
    match image {
        Image::Good => "good",
        Image::Panics => "panics",
        Image::HangsEarly => "hangs-early",
        Image::HangsLate => "hangs-late",
        Image::Unhealthy => "unhealthy",
    }
}

/// A FAT volume with these files.
pub fn volume(files: &[File]) -> Result<Vec<u8>> {
    fat::volume(files, Size::Least)
        .and_then(|volume| volume.to_bytes())
        .map_err(|source| Error::Mint { release: "a FAT volume".into(), source: Box::new(source) })
}

/// The root of the tree over the bytes, and the tree.
fn tree(bytes: &[u8]) -> Result<(Digest256, Vec<u8>)> {
    let broken = |error| odd("a hash tree", &error);
    let mut builder = TreeBuilder::new(bytes.len() as u64, &[]).map_err(broken)?;
    let mut blocks = vec![0; usize::try_from(builder.geometry().tree_blocks()).unwrap_or(0) * BLOCK_BYTES];
    let mut emit = |number: u64, block: &[u8; BLOCK_BYTES]| {
        let at = usize::try_from(number).unwrap_or(usize::MAX).saturating_mul(BLOCK_BYTES);
        if let Some(place) = blocks.get_mut(at..).and_then(|rest| rest.get_mut(..BLOCK_BYTES)) {
            place.copy_from_slice(block);
        }
    };
    builder.update(bytes, &mut emit).map_err(broken)?;
    let root = builder.finish(&mut emit).map_err(broken)?;
    Ok((root, blocks))
}
