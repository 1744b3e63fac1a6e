//! From an appliance to the images of a bank: packages, root, initrd, kernel image, boot image, in this order.
//!
//! The order is forced: the command line in the boot image carries the verity root of the root image. The same packages, binaries,
//! trust root, version and epoch give the same bytes.

use std::{
    collections::BTreeMap,
    env,
    fs::{self, File},
    io::{BufWriter, Write as _},
    path::{Path, PathBuf},
};

use bank_format::{
    Digest256,
    loader::Kind,
    manifest,
    record::ImageProof,
    release::{ReleaseFile, Version},
    verity::{BLOCK_BYTES, TreeBuilder},
};
use sha2::{Digest as _, Sha256};

use crate::{
    appliance::Appliance,
    cpio, elf, erofs,
    error::{Error, Result},
    initrd,
    limits::{MAX_TEXT_BYTES, MAX_UKI_PART_BYTES},
    loader::{self, Installed, Recovery, Signing},
    modules::{self, KernelModules},
    packages::{self, Package},
    progress::Progress,
    rootfs,
    secure_boot::Signer,
    tree::{Content, Tree},
    uki,
};

/// The image with the system.
pub const ROOT: &str = "root";
/// The image with the kernel, which makes a bank bootable.
pub const BOOT: &str = "boot";

const STUB: &str = "usr/lib/systemd/boot/efi/linuxx64.efi.stub";
const INIT: &str = "boot-hooks";
const AGENT: &str = "updater";
/// Where `cargo device` puts static programs, seen from where the other ones are.
const DEVICE_DIRECTORY: &str = "../x86_64-unknown-linux-gnu/release";

/// What a build is given beside the appliance.
#[derive(Debug, Clone)]
pub struct MintOptions {
    /// Version of the release.
    pub version: Version,
    /// Where the images are written. It exists.
    pub work: PathBuf,
    /// Directory with the static `updater` and `boot-hooks`; else beside the running program, or where `cargo device` puts them.
    pub binaries: Option<PathBuf>,
    /// The trust root that goes into the image, byte for byte.
    pub trust_root: Vec<u8>,
    /// Where packages come from.
    pub packages: packages::Options,
    /// Time of every file, seconds since 1970.
    pub epoch_seconds: u64,
}

/// One image of a bank.
#[derive(Debug, Clone)]
pub struct MintedImage {
    /// `root` or `boot`.
    pub name: &'static str,
    /// The image, without its tree.
    pub path: PathBuf,
    /// Its bytes.
    pub bytes: u64,
    /// Root of its hash tree.
    pub verity_root: Digest256,
    /// Salt of its hash tree.
    pub salt: Vec<u8>,
    /// The hash tree as it lies behind the data.
    pub tree: PathBuf,
}

/// What was made.
#[derive(Debug, Clone)]
pub struct Minted {
    /// What the image says of itself.
    pub release: ReleaseFile,
    /// The system.
    pub root: MintedImage,
    /// Kernel, initrd and command line.
    pub boot: MintedImage,
    /// Packages whose files are in the image.
    pub packages: Vec<Package>,
    /// `name version architecture`, one a line.
    pub packages_text: String,
    /// Command line of the kernel.
    pub command_line: String,
    /// Bytes of the initrd, for the curious.
    pub initrd_bytes: u64,
    /// What the loader has on the disk beside the banks.
    pub installed: Installed,
    /// What starts when no bank can be booted.
    pub recovery: Recovery,
}

impl Minted {
    /// Both images, in the order in which a device writes them.
    pub fn images(&self) -> [&MintedImage; 2] {
        [&self.root, &self.boot]
    }

    /// How the images can be checked, as the record keeps it.
    #[must_use]
    pub fn proofs(&self) -> BTreeMap<String, ImageProof> {
        let proof = |image: &MintedImage, tree| ImageProof {
            bytes: image.bytes,
            verity_root: image.verity_root,
            salt: hex::encode(&image.salt),
            tree: Some(tree),
        };
        let named = |image: &MintedImage, tree| (image.name.to_owned(), proof(image, tree));
        [named(&self.root, manifest::Tree::Appended), named(&self.boot, manifest::Tree::None)].into()
    }
}

/// Makes the images.
pub fn mint(appliance: &Appliance, options: &MintOptions, progress: &dyn Progress) -> Result<Minted> {
    let binaries = Binaries::find(options.binaries.as_deref())?;
    let extracted = packages::extract(appliance, &options.packages, progress)?;
    let packages_text = packages::list_text(&extracted.packages);
    let release = ReleaseFile {
        name: appliance.name.clone(),
        version: options.version.clone(),
        compatible: appliance.compatible.clone(),
    };

    progress.stage("root: arrange files");
    let mut tree = Tree::new();
    tree.import_tar(&extracted.tar)?;
    rootfs::merge_usr(&mut tree, &extracted.left_out)?;
    let kernel = KernelModules::of(&tree)?;
    let kernel_release = kernel.release.clone();
    let initrd_tree = initrd::build(binaries.init, &kernel, &tree, &appliance.kernel.initrd_modules)?;
    let kept = kernel.closure(&appliance.kernel.modules)?;
    let kernel_image = tree.content(&format!("boot/vmlinuz-{kernel_release}"))?.read(MAX_UKI_PART_BYTES)?;
    let stub = tree.content(STUB)?.read(MAX_UKI_PART_BYTES)?;
    let signer = appliance.secure_boot.as_ref().map(|wish| Signer::open(wish, options.epoch_seconds));
    let signer = signer.transpose()?;
    let signing = signer.as_ref().map_or(Signing::Nobody, Signing::By);
    let installed = loader::install(appliance.boot.loader, &tree, signing)?;
    let recovery = loader::recovery(&appliance.boot, signing)?;
    modules::reduce(&mut tree, &kernel_release, &kept)?;
    let inputs = rootfs::Inputs {
        appliance,
        release: &release,
        updater: binaries.agent,
        trust_root: &options.trust_root,
        packages_text: &packages_text,
    };
    rootfs::finish(&mut tree, &inputs, progress)?;

    progress.stage("root: write image");
    let salt: [u8; 32] = Sha256::digest(&appliance.compatible).into();
    let path = options.work.join("root.erofs");
    erofs::write(&tree, options.epoch_seconds, &path)?;
    let root = finish_image(ROOT, path, &salt)?;
    check_size(&root, appliance.disk.root_mib, "root_mib")?;

    progress.stage("boot: write image");
    let initrd = cpio::pack(&initrd_tree, options.epoch_seconds)?;
    let command_line = command_line(&appliance.kernel.cmdline, appliance.boot.loader.kind(), &root);
    let os_release = String::from_utf8(tree.content("usr/lib/os-release")?.read(MAX_TEXT_BYTES)?)
        .map_err(|_| Error::malformed("os-release", "it is not UTF-8 text"))?;
    let built = uki::build(&uki::Parts {
        stub: &stub,
        os_release: &os_release,
        command_line: &command_line,
        kernel_release: &kernel_release,
        kernel: &kernel_image,
        initrd: &initrd,
    })?;
    let parts =
        loader::Kernel { uki: &built, kernel: &kernel_image, initrd: &initrd, command_line: &command_line };
    let space_bytes = u64::from(appliance.disk.boot_mib) << 20;
    let image = loader::boot_image(appliance.boot.loader, &parts, signing, space_bytes)?;
    let path = options.work.join("boot.img");
    fs::write(&path, image).map_err(Error::file("write", &path))?;
    let boot = finish_image(BOOT, path, &salt)?;
    check_size(&boot, appliance.disk.boot_mib, "boot_mib")?;
    Ok(Minted {
        release,
        root,
        boot,
        packages: extracted.packages,
        packages_text,
        command_line,
        initrd_bytes: initrd.len() as u64,
        installed,
        recovery,
    })
}

/// What the kernel is started with. `gpt` makes it look for the backup of a partition table at the end of the disk, where `updater settle`
/// keeps it, if the first copy is damaged.
fn command_line(own: &str, kind: Kind, root: &MintedImage) -> String {
    format!(
        "{} gpt roro.loader={kind} roothash={} roro.salt={} roro.blocks={}",
        own.trim(),
        root.verity_root,
        hex::encode(&root.salt),
        root.bytes / BLOCK_BYTES as u64,
    )
}

/// Computes the hash tree of an image and lays it beside it.
fn finish_image(name: &'static str, path: PathBuf, salt: &[u8]) -> Result<MintedImage> {
    let wrong = |source| Error::Format { deed: "compute the hash tree", source };
    let content = Content::of_file(&path)?;
    let bytes = content.len_bytes();
    let mut builder = TreeBuilder::new(bytes, salt).map_err(wrong)?;
    let tree_bytes = builder.geometry().tree_blocks() as usize * BLOCK_BYTES;
    let mut blocks = vec![0; tree_bytes];
    let mut emit = |number: u64, block: &[u8; BLOCK_BYTES]| {
        let place =
            usize::try_from(number).ok().and_then(|number| blocks.chunks_mut(BLOCK_BYTES).nth(number));
        if let Some(place) = place {
            place.copy_from_slice(block);
        }
    };
    content.for_each_piece(&mut |piece| builder.update(piece, &mut emit).map_err(wrong))?;
    let verity_root = builder.finish(&mut emit).map_err(wrong)?;
    let tree = path.with_extension("verity");
    let file = File::create(&tree).map_err(Error::file("create", &tree))?;
    let mut out = BufWriter::new(file);
    out.write_all(&blocks).and_then(|()| out.flush()).map_err(Error::file("write", &tree))?;
    Ok(MintedImage { name, path, bytes, verity_root, salt: salt.to_vec(), tree })
}

/// Refuses an image that its partition cannot hold: better here than on the device. Behind the root image lies its tree.
fn check_size(image: &MintedImage, partition_mib: u32, key: &'static str) -> Result<()> {
    let needed = match image.name {
        ROOT => {
            let tree_bytes = Content::of_file(&image.tree)?.len_bytes();
            image.bytes.next_multiple_of(BLOCK_BYTES as u64) + tree_bytes
        }
        _ => image.bytes,
    };
    let available = u64::from(partition_mib) << 20;
    if needed <= available {
        return Ok(());
    }
    let hint = match key {
        "root_mib" => "raise root_mib in [disk] of the appliance, or take packages out",
        _ => "raise boot_mib in [disk] of the appliance, or take modules out of the initrd",
    };
    Err(Error::TooLarge { subject: format!("the {} image", image.name), needed, available, hint })
}

/// The static programs that go onto the device.
struct Binaries {
    init: Content,
    agent: Content,
}

impl Binaries {
    fn find(given: Option<&Path>) -> Result<Self> {
        let places = match given {
            Some(place) => vec![place.to_owned()],
            None => {
                let own = env::current_exe().map_err(Error::file("find", "the running program"))?;
                let beside = own.parent().unwrap_or(Path::new("/")).to_owned();
                vec![beside.join(DEVICE_DIRECTORY), beside]
            }
        };
        Ok(Self { init: find_static(INIT, &places)?, agent: find_static(AGENT, &places)? })
    }
}

fn find_static(name: &str, places: &[PathBuf]) -> Result<Content> {
    const HINT: &str = "build it with `cargo device`, or name its directory with --binaries";
    let Some(path) = places.iter().map(|place| place.join(name)).find(|path| path.is_file()) else {
        return Err(Error::missing(format!("the static program {name}"), HINT));
    };
    let content = Content::of_file(&path)?;
    match elf::is_static(&content.read(MAX_UKI_PART_BYTES)?) {
        Some(true) => Ok(content),
        Some(false) => Err(Error::malformed(path.display(), format!("it needs shared libraries; {HINT}"))),
        None => Err(Error::malformed(path.display(), format!("it is no program for this device; {HINT}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_that_need_libraries_or_are_not_there_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let places = [dir.path().to_owned()];
        assert!(find_static("updater", &places).unwrap_err().to_string().contains("cargo device"));
        fs::write(dir.path().join("updater"), "#!/bin/sh\n").unwrap();
        assert!(find_static("updater", &places).unwrap_err().to_string().contains("no program"));
        fs::copy(env::current_exe().unwrap(), dir.path().join("updater")).unwrap();
        let refused = find_static("updater", &places);
        assert_eq!(refused.is_ok(), cfg!(target_feature = "crt-static"));
    }

    #[test]
    fn an_image_gets_the_tree_of_the_kernel() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.img");
        fs::write(&path, vec![1; 4096 * 200]).unwrap();
        let image = finish_image(ROOT, path, b"salt").unwrap();
        let tree = fs::read(&image.tree).unwrap();
        assert_eq!(tree.len(), 3 * 4096);
        assert_eq!(bank_format::verity::hash_block(b"salt", &tree[..4096]), image.verity_root);
        let words = command_line(" quiet\n", Kind::Grub, &image);
        let expected = format!(
            "quiet gpt roro.loader=grub roothash={} roro.salt=73616c74 roro.blocks=200",
            image.verity_root
        );
        assert_eq!(words, expected);
        assert!(check_size(&image, 1, "root_mib").is_ok());
        assert!(check_size(&image, 0, "root_mib").is_err());
    }
}
