//! `bundle`: ready-made images become a signed bundle.

use std::{fs, path::PathBuf, time::UNIX_EPOCH};

use bank_format::{
    manifest::{Build, Tree},
    release::Version,
};

use crate::{
    bundle::{self, BundleSpec, ImageSpec, Summary},
    chunker::Packing,
    clock,
    commands::{
        Context, ReleaseArgs, human_bytes, parse_compatible, parse_name, parse_version, read_passphrase,
    },
    error::{Error, Result},
    keys::ReleaseKeys,
    printer::Printer,
};

/// Arguments.
#[derive(clap::Args)]
pub struct Args {
    /// Name of the product
    #[arg(long, value_parser = parse_name)]
    name: String,
    /// Which devices it fits: what their configuration calls `compatible`
    #[arg(long, value_parser = parse_compatible)]
    compatible: String,
    /// Semantic version
    #[arg(long, value_parser = parse_version)]
    version: Version,
    /// An image, in the order in which a device writes them: the one that makes a bank bootable comes last
    #[arg(long = "image", value_name = "NAME=FILE", required = true, value_parser = parse_image)]
    images: Vec<(String, PathBuf)>,
    /// A document that travels along, such as a package list
    #[arg(long = "document", value_name = "NAME=FILE", value_parser = parse_image)]
    documents: Vec<(String, PathBuf)>,
    /// Once this release is confirmed, nothing older than this version is accepted any more
    #[arg(long, value_name = "VERSION", value_parser = parse_version)]
    floor: Option<Version>,
    #[command(flatten)]
    publishing: ReleaseArgs,
    /// The bundle; one that is there is replaced
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

fn parse_image(text: &str) -> Result<(String, PathBuf), String> {
    let (name, path) = text
        .split_once('=')
        .filter(|(_, path)| !path.is_empty())
        .ok_or_else(|| format!("expected NAME=FILE, such as root={text}"))?;
    Ok((parse_name(name)?, path.into()))
}

impl Args {
    /// Writes the bundle.
    pub fn run(self, context: &Context) -> Result<()> {
        let printer = &context.printer;
        check_floor(self.floor.as_ref(), &self.version)?;
        let passphrase = read_passphrase(self.publishing.passphrase_file.as_deref())?;
        let keys = ReleaseKeys::load(&self.publishing.keys, passphrase.as_ref(), printer)?;
        let cache = self.publishing.packed(printer);
        let mut documents = Vec::new();
        for (name, path) in &self.documents {
            documents.push((name.clone(), fs::read(path).map_err(Error::file("read document", path))?));
        }
        let spec = BundleSpec {
            created_unix_seconds: created(&self.images)?,
            name: self.name,
            version: self.version,
            compatible: self.compatible,
            floor: self.floor,
            build: Build { tool: bundle::tool(), source: None, commit: None },
            images: self
                .images
                .into_iter()
                .map(|(name, path)| ImageSpec {
                    name,
                    path,
                    tree: Tree::None,
                    salt: Vec::new(),
                    lengths: None,
                })
                .collect(),
            documents,
            keys: &keys,
            packing: Packing { cache: cache.as_ref(), ..Packing::at_level(self.publishing.level) },
            from: self.publishing.older(),
        };
        let summary = bundle::write(&spec, &self.out, printer)?;
        tell(printer, &summary);
        Ok(())
    }
}

/// Refuses a release that could never be confirmed under its own floor.
pub(crate) fn check_floor(floor: Option<&Version>, version: &Version) -> Result<()> {
    if floor.is_some_and(|floor| floor > version) {
        return Err(Error::usage(
            "--floor is above --version",
            "a release cannot demand more than it is: lower the floor",
        ));
    }
    Ok(())
}

/// `SOURCE_DATE_EPOCH`, or when the newest image was changed: so the same images make the same bundle.
fn created(images: &[(String, PathBuf)]) -> Result<u64> {
    if let Some(epoch) = clock::source_date_epoch()? {
        return Ok(epoch);
    }
    let mut newest = 0;
    for (_, path) in images {
        let changed = fs::metadata(path)
            .and_then(|metadata| metadata.modified())
            .map_err(Error::file("open image", path))?;
        newest = newest.max(changed.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()));
    }
    Ok(newest)
}

/// The name of the bundle as data, the rest for people.
pub(crate) fn tell(printer: &Printer, summary: &Summary) {
    printer.data(&summary.path.display().to_string());
    for image in &summary.images {
        printer.say(&format!(
            "image {}: {}, {} in the bundle; {} chunks, {} of them zeros, {} repeated; verity root {}",
            image.name,
            human_bytes(image.bytes),
            human_bytes(image.stored_bytes),
            image.chunks,
            image.zero_chunks,
            image.repeated_chunks,
            image.verity_root,
        ));
        for (version, bytes) in &image.deltas {
            printer.say(&format!("image {}: {} from {version}", image.name, human_bytes(*bytes)));
        }
    }
    let (bytes, signatures) = (human_bytes(summary.bytes), summary.signatures);
    printer.say(&format!("bundle: {bytes}, {signatures} signatures, manifest {}", summary.manifest_digest));
}
