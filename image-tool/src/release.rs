//! The whole road of a build: an appliance becomes a bundle, a factory disk and a package list.
//!
//! It promises that each output appears under its name only when it is complete, the bundle last. The same packages,
//! appliance, programs, keys and `epoch_seconds` give the same bytes.

use std::{
    fs,
    path::{Path, PathBuf},
    time::UNIX_EPOCH,
};

use bank_format::{
    manifest::{Build, Tree},
    release::Version,
};

use crate::{
    appliance::Appliance,
    bundle::{self, BundleSpec, ImageSpec, Older, Summary},
    chunker::Packing,
    clock,
    disk::{self, Tables},
    error::{Error, Result},
    keys::ReleaseKeys,
    mint::{self, MintOptions, Minted, MintedImage},
    packages,
    progress::Progress,
};

/// Name of the package list among the documents of a bundle.
pub const PACKAGES_DOCUMENT: &str = "packages";

/// What a build is given.
pub struct BuildOptions<'a> {
    /// The appliance file.
    pub appliance: PathBuf,
    /// Version of the release.
    pub version: Version,
    /// The floor that it demands at confirm.
    pub floor: Option<Version>,
    /// Who signs; their root.json goes into the image.
    pub keys: &'a ReleaseKeys,
    /// Where the outputs go; made when it is not there.
    pub out: PathBuf,
    /// Where the static programs for the device are; else where `cargo device` puts them.
    pub binaries: Option<PathBuf>,
    /// Where packages come from.
    pub packages: packages::Options,
    /// How the bundle is packed.
    pub packing: Packing<'a>,
    /// Older releases that deltas are made from.
    pub from: Older,
    /// Time of every file, seconds since 1970; see [`epoch_seconds`].
    pub epoch_seconds: u64,
}

/// What was made.
#[derive(Debug, Clone)]
pub struct Built {
    /// The bundle, `NAME-V.roro`.
    pub bundle: PathBuf,
    /// The factory disk, `NAME-V.img`.
    pub disk: PathBuf,
    /// The package list, `NAME-V.packages.txt`.
    pub packages: PathBuf,
    /// What is in the bundle.
    pub summary: Summary,
    /// The images as they were minted. Their files are gone.
    pub minted: Minted,
}

/// `SOURCE_DATE_EPOCH`, or else when the appliance file was changed; of the built-in one, when this program was built.
pub fn epoch_seconds(appliance: &Path) -> Result<u64> {
    if let Some(epoch) = clock::source_date_epoch()? {
        return Ok(epoch);
    }
    let program;
    let path = if appliance.exists() {
        appliance
    } else {
        program = std::env::current_exe().map_err(Error::file("find", "the running program"))?;
        &program
    };
    let changed = fs::metadata(path)
        .and_then(|metadata| metadata.modified())
        .map_err(Error::file("read the time of", path))?;
    Ok(changed.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()))
}

/// Builds a release.
pub fn build(options: &BuildOptions<'_>, progress: &dyn Progress) -> Result<Built> {
    let appliance = Appliance::load(&options.appliance)?;
    fs::create_dir_all(&options.out).map_err(Error::file("make directory", &options.out))?;
    let work = tempfile::Builder::new()
        .prefix(".build-")
        .tempdir_in(&options.out)
        .map_err(Error::file("make a directory in", &options.out))?;
    let mint_options = MintOptions {
        version: options.version.clone(),
        work: work.path().to_owned(),
        binaries: options.binaries.clone(),
        trust_root: options.keys.root_json().to_vec(),
        packages: options.packages.clone(),
        epoch_seconds: options.epoch_seconds,
    };
    let minted = mint::mint(&appliance, &mint_options, progress)?;

    let stem = format!("{}-{}", appliance.name, options.version);
    let output = |extension: &str| options.out.join(format!("{stem}.{extension}"));
    let built_list = work.path().join("packages");
    fs::write(&built_list, &minted.packages_text).map_err(Error::file("write", &built_list))?;
    let built_bundle = work.path().join("bundle");
    let mut summary = bundle::write(&spec(options, &appliance, &minted), &built_bundle, progress)?;
    let tables = compare(&summary, &minted)?;
    let built_disk = work.path().join("disk");
    progress.stage("disk: write the factory disk");
    disk::write(&minted, tables, &appliance.disk, options.epoch_seconds, &built_disk)?;

    let built =
        [(built_disk, output("img")), (built_list, output("packages.txt")), (built_bundle, output("roro"))];
    for (from, to) in &built {
        fs::rename(from, to).map_err(Error::file("name", to))?;
    }
    let [(_, disk), (_, packages), (_, bundle)] = built;
    summary.path.clone_from(&bundle);
    Ok(Built { bundle, disk, packages, summary, minted })
}

fn spec<'a>(options: &BuildOptions<'a>, appliance: &Appliance, minted: &Minted) -> BundleSpec<'a> {
    let image = |image: &MintedImage, tree| ImageSpec {
        name: image.name.to_owned(),
        path: image.path.clone(),
        tree,
        salt: image.salt.clone(),
        lengths: None,
    };
    let source = options.appliance.file_name().map(|name| name.to_string_lossy().into_owned());
    BundleSpec {
        name: appliance.name.clone(),
        version: options.version.clone(),
        compatible: appliance.compatible.clone(),
        created_unix_seconds: options.epoch_seconds,
        floor: options.floor.clone(),
        build: Build { tool: bundle::tool(), source, commit: None },
        // The boot image comes last: it makes the bank bootable.
        images: vec![image(&minted.root, Tree::Appended), image(&minted.boot, Tree::None)],
        documents: vec![(PACKAGES_DOCUMENT.to_owned(), minted.packages_text.clone().into_bytes())],
        keys: options.keys,
        packing: options.packing,
        from: options.from.clone(),
    }
}

/// The command line carries the root that was minted; a bundle with another one could never boot. Returns the chunk tables of the images.
fn compare<'a>(summary: &'a Summary, minted: &Minted) -> Result<Tables<'a>> {
    let same = minted.images().iter().zip(&summary.images).all(|(minted, packed)| {
        minted.name == packed.name && minted.bytes == packed.bytes && minted.verity_root == packed.verity_root
    });
    match summary.images.as_slice() {
        [root, boot] if same => Ok(Tables { root: &root.table, boot: &boot.table }),
        _ => Err(Error::Bug { what: "the bundle does not hold the images that were minted" }),
    }
}
