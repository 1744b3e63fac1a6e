//! `build`: an appliance becomes a bundle, a factory disk and a package list.

use std::path::PathBuf;

use bank_format::release::Version;

use crate::{
    chunker::Packing,
    commands::{Context, ReleaseArgs, bundle, parse_version, read_passphrase},
    error::Result,
    keys::ReleaseKeys,
    packages::{self, Reuse},
    release::{self, BuildOptions},
};

/// Arguments.
#[derive(clap::Args)]
pub struct Args {
    /// The appliance file, or `jeos` for the built-in one (docs/appliance.md)
    appliance: PathBuf,
    /// Semantic version of the release
    #[arg(long, value_parser = parse_version)]
    version: Version,
    /// Where NAME-VERSION.roro, .img and .packages.txt go; made when it is not there
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Archive of Debian packages, where the appliance names none; else that of this machine
    #[arg(long, value_name = "URL")]
    mirror: Option<String>,
    /// Directory with the static programs `updater` and `boot-hooks`; else where `cargo device` puts them
    #[arg(long, value_name = "DIR")]
    binaries: Option<PathBuf>,
    /// Take the packages of an earlier run with the same wishes, if there is one, instead of the newest
    #[arg(long)]
    reuse_packages: bool,
    /// Once this release is confirmed, nothing older than this version is accepted any more
    #[arg(long, value_name = "VERSION", value_parser = parse_version)]
    floor: Option<Version>,
    #[command(flatten)]
    publishing: ReleaseArgs,
}

impl Args {
    /// Builds the release.
    pub fn run(self, context: &Context) -> Result<()> {
        let printer = &context.printer;
        bundle::check_floor(self.floor.as_ref(), &self.version)?;
        let passphrase = read_passphrase(self.publishing.passphrase_file.as_deref())?;
        let keys = ReleaseKeys::load(&self.publishing.keys, passphrase.as_ref(), printer)?;
        let cache = self.publishing.packed(printer);
        let options = BuildOptions {
            epoch_seconds: release::epoch_seconds(&self.appliance)?,
            appliance: self.appliance,
            version: self.version,
            floor: self.floor,
            keys: &keys,
            out: self.out,
            binaries: self.binaries,
            packages: packages::Options {
                mirror: self.mirror,
                cache: self.publishing.cache_directory(),
                reuse: if self.reuse_packages { Reuse::Kept } else { Reuse::Newest },
            },
            packing: Packing { cache: cache.as_ref(), ..Packing::at_level(self.publishing.level) },
            from: self.publishing.older(),
        };
        let built = release::build(&options, printer)?;
        bundle::tell(printer, &built.summary);
        printer.data(&built.disk.display().to_string());
        printer.data(&built.packages.display().to_string());
        Ok(())
    }
}
