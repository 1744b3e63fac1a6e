//! The workshop: builds what scenarios need, once, and keeps it under `target/testbed`.
//!
//! Knows the mint, cargo and the source tree it was built from. Promises that parallel processes share one build (a lock
//! on a file), and that what is kept fits its inputs: the shelf is named after the digest of everything that goes into an
//! image. A release is complete the moment it has its name. Deliberately absent: any knowledge of machines.

use std::{
    env, fs,
    io::{self, Read},
    path::{Path, PathBuf},
    process::Command,
};

use bank_format::{
    header::{HEADER_BYTES, Header},
    loader::Kind,
    release::Version,
};
use image_tool::{
    bundle::Older,
    chunker::Packing,
    keys::{self, KeygenOptions, ReleaseKeys},
    packages::{self, Reuse},
    progress::Silent,
    release::BuildOptions,
};
use sha2::{Digest, Sha256};

use crate::{
    disk,
    error::{Error, Result},
    firmware::Firmware,
    fork, process,
    profile::{self, Profile},
    release::{Keys, Place, Recipe, Release},
    slots,
};

/// Compression for releases that live for minutes: the time is worth more than the bytes.
const LEVEL: i32 = 3;
/// Time of every file in an image: 2026-01-01, so that a build depends on its inputs only.
const EPOCH_SECONDS: u64 = 1_767_225_600;
const PREFIX: &str = "releases-";

/// Where releases are made and kept.
#[derive(Debug, Clone)]
pub struct Workshop {
    source: PathBuf,
    binaries: PathBuf,
    room: PathBuf,
    /// Name of the folder below `room` with what was made from these inputs: `served/`, keys, the factory disk.
    digest: String,
    shelf: PathBuf,
}

impl Workshop {
    /// Opens the workshop: installs the packages it needs, builds the programs for the device, finds the shelf.
    pub fn open() -> Result<Self> {
        let source = source_tree();
        let target = target_folder(&source);
        let room = target.join("testbed");
        let _lock = slots::lock(&room.join("workshop.lock"))?;
        fork::clean_up(&room.join("runs"))?;
        crate::packages::install_missing()?;
        let binaries = device_programs(&source, &target)?;
        let digest = format!("{PREFIX}{}", inputs_digest(&source, &binaries)?);
        let shelf = room.join(&digest).join("served");
        if !shelf.is_dir() {
            // Shelves of earlier inputs would fill the disk.
            for entry in fs::read_dir(&room).map_err(Error::io("list", &room))?.flatten() {
                if entry.file_name().to_string_lossy().starts_with(PREFIX) {
                    fs::remove_dir_all(entry.path()).map_err(Error::io("remove", entry.path()))?;
                }
            }
            fs::create_dir_all(&shelf).map_err(Error::io("create", &shelf))?;
        }
        Ok(Workshop { source, binaries, room, digest, shelf })
    }

    /// The folder that a server serves.
    #[must_use]
    pub fn shelf(&self) -> &Path {
        &self.shelf
    }

    /// The source tree that everything is built from.
    #[must_use]
    pub fn source(&self) -> &Path {
        &self.source
    }

    /// The folder with the programs for the device.
    #[must_use]
    pub fn binaries(&self) -> &Path {
        &self.binaries
    }

    /// Where cells of the matrix are kept that have passed: as long as neither the images nor what plays them has changed.
    pub fn cells(&self) -> Result<PathBuf> {
        let name = format!("cells-{}.json", players_digest()?);
        Ok(self.room.join(&self.digest).join(name))
    }

    /// The folder with a folder for each run.
    #[must_use]
    pub fn runs(&self) -> PathBuf {
        self.room.join("runs")
    }

    /// The disk image of the factory release.
    pub fn factory_image(&self, profile: Profile) -> Result<PathBuf> {
        let _lock = slots::lock(&self.room.join("workshop.lock"))?;
        self.make(Release::Factory, profile)?;
        Ok(self.image(profile))
    }

    /// The bundle of a release, made now if it is not on the shelf.
    pub fn bundle(&self, release: Release, profile: Profile) -> Result<PathBuf> {
        let _lock = slots::lock(&self.room.join("workshop.lock"))?;
        self.make(release, profile.of_updates())
    }

    fn make(&self, release: Release, profile: Profile) -> Result<PathBuf> {
        let bundle = self.shelf.join(format!("{}-{}.roro", profile.word(), release.file_stem()));
        if bundle.is_file() {
            return Ok(bundle);
        }
        match release.recipe() {
            Recipe::Build { appliance, keys } => self.build(release, profile, appliance, keys, &bundle)?,
            Recipe::Flip(place) => self.flip(place, profile, &bundle)?,
        }
        Ok(bundle)
    }

    fn build(
        &self,
        release: Release,
        profile: Profile,
        appliance: &str,
        keys: Keys,
        bundle: &Path,
    ) -> Result<()> {
        let mint = |source| Error::Mint { release: release.to_string(), source: Box::new(source) };
        let version = Version::parse(release.version()).map_err(|error| {
            Error::io("parse the version of", release.file_stem())(io::Error::other(error))
        })?;
        let out = tempfile::Builder::new()
            .prefix("build-")
            .tempdir_in(&self.room)
            .map_err(Error::io("create a folder in", &self.room))?;
        let base = self.source.join("qemu-testbed/appliances").join(format!("{appliance}.toml"));
        let file = out.path().join("appliance.toml");
        fs::write(&file, profile.appliance(&self.source, &base)?).map_err(Error::io("write", &file))?;
        for (name, bytes) in profile.files() {
            let file = out.path().join(name);
            fs::write(&file, bytes).map_err(Error::io("write", &file))?;
        }
        let options = BuildOptions {
            appliance: file,
            version,
            floor: None,
            keys: &self.keys(keys).map_err(mint)?,
            out: out.path().to_owned(),
            binaries: Some(self.binaries.clone()),
            // One set of packages for all releases: what changes between them is what the scenario is about.
            packages: packages::Options {
                mirror: None,
                cache: packages::default_cache(),
                reuse: Reuse::Kept,
            },
            packing: Packing::at_level(LEVEL),
            from: Older::default(),
            epoch_seconds: EPOCH_SECONDS,
        };
        let built = image_tool::release::build(&options, &Silent).map_err(mint)?;
        if release == Release::Factory {
            let image = self.image(profile);
            fs::rename(&built.disk, &image).map_err(Error::io("name", &image))?;
        }
        fs::rename(&built.bundle, bundle).map_err(Error::io("name", bundle))
    }

    fn keys(&self, keys: Keys) -> image_tool::Result<ReleaseKeys> {
        let folder = self.room.join(&self.digest).join(match keys {
            Keys::Ours => "keys",
            Keys::Foreign => "foreign-keys",
        });
        if !folder.join("root.json").is_file() {
            keys::generate(&KeygenOptions::new(&folder, image_tool::clock::now_unix_seconds()))?;
        }
        ReleaseKeys::load(&folder, None, &Silent)
    }

    fn image(&self, profile: Profile) -> PathBuf {
        self.room.join(&self.digest).join(format!("{}-factory.img", profile.word()))
    }

    fn flip(&self, place: Place, profile: Profile, bundle: &Path) -> Result<()> {
        let good = self.make(Release::Good, profile)?;
        let unfinished = bundle.with_extension("unfinished");
        fs::copy(&good, &unfinished).map_err(Error::io("copy", &good))?;
        let section = match place {
            Place::Manifest => header(&good)?.manifest,
            Place::Frame => header(&good)?.frames,
        };
        // Past the first bytes: inside a word of the manifest, inside the content of a frame.
        disk::flip_bit(&unfinished, section.offset.saturating_add(section.bytes.min(64) / 2))?;
        fs::rename(&unfinished, bundle).map_err(Error::io("name", bundle))
    }
}

/// As [`Workshop::runs`], for one who needs no workshop.
#[must_use]
pub fn runs() -> PathBuf {
    target_folder(&source_tree()).join("testbed/runs")
}

fn header(bundle: &Path) -> Result<Header> {
    let mut bytes = [0_u8; HEADER_BYTES];
    let mut file = fs::File::open(bundle).map_err(Error::io("open", bundle))?;
    file.read_exact(&mut bytes).map_err(Error::io("read", bundle))?;
    Header::decode(&bytes).map_err(|error| Error::io("decode", bundle)(io::Error::other(error)))
}

/// The checkout this testbed was built from: it makes no sense without.
#[must_use]
pub fn source_tree() -> PathBuf {
    let room = Path::new(env!("CARGO_MANIFEST_DIR"));
    room.parent().unwrap_or(room).to_owned()
}

/// Where cargo builds.
pub(crate) fn target_folder(source: &Path) -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| source.join("target"), |folder| source.join(folder))
}

/// Builds the programs that go onto the device (`cargo device`, see `.cargo/config.toml`); gives their folder.
pub(crate) fn device_programs(source: &Path, target: &Path) -> Result<PathBuf> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    // RUSTFLAGS would take the place of the flags that make them static.
    let mut command = Command::new(cargo);
    process::run(command.arg("device").current_dir(source).env_remove("RUSTFLAGS"))?;
    Ok(target.join("x86_64-unknown-linux-gnu/release"))
}

/// What goes into an image: the mint's sources, the appliances, and the programs for the device.
fn inputs_digest(source: &Path, binaries: &Path) -> Result<String> {
    let mut files = vec![binaries.join("updater"), binaries.join("boot-hooks"), source.join("Cargo.lock")];
    files.push(source.join("boot-hooks/loaders/grub.cfg"));
    files.extend([Kind::Efi, Kind::SystemdBoot, Kind::Grub].map(|kind| profile::page(source, kind)));
    let folders = [
        "image-tool/src",
        "image-tool/appliances",
        "bank-format/src",
        "boot-hooks/units",
        "qemu-testbed/appliances",
    ];
    for folder in folders {
        collect(&source.join(folder), &mut files)?;
    }
    Ok(short(digest(files)?))
}

/// What plays: this program, and the machines and firmware of the host.
fn players_digest() -> Result<String> {
    let program = env::current_exe().map_err(Error::io("find", "/proc/self/exe"))?;
    let firmware = [Firmware::Uefi, Firmware::SecureUefi];
    let parts = firmware.iter().flat_map(|firmware| [firmware.code(), firmware.vars_template()]).flatten();
    let mut hasher = digest(parts.map(Path::to_owned).chain([program]).collect())?;
    hasher.update(process::run(Command::new("qemu-system-x86_64").arg("--version"))?);
    Ok(short(hasher))
}

fn short(hasher: Sha256) -> String {
    hex::encode(hasher.finalize()).chars().take(16).collect()
}

fn digest(mut files: Vec<PathBuf>) -> Result<Sha256> {
    files.sort();
    let mut hasher = Sha256::new();
    for file in files {
        hasher.update(file.to_string_lossy().as_bytes());
        let bytes = fs::read(&file).map_err(Error::io("read", &file))?;
        hasher.update(Sha256::digest(&bytes));
    }
    Ok(hasher)
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).map_err(Error::io("list", folder))? {
        let path = entry.map_err(Error::io("list", folder))?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else {
            files.push(path);
        }
    }
    Ok(())
}
