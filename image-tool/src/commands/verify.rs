//! `verify`: every byte of a bundle against a trust root.

use std::path::PathBuf;

use crate::{
    commands::{Context, read_trust_root},
    error::Result,
    reader::BundleFile,
};

/// Arguments.
#[derive(clap::Args)]
pub struct Args {
    /// The bundle
    file: PathBuf,
    /// The trust root: a root.json that you trust
    #[arg(long, value_name = "ROOT_JSON")]
    root: PathBuf,
}

impl Args {
    /// Checks signatures, documents, every chunk of every image and the verity roots.
    pub fn run(self, context: &Context) -> Result<()> {
        let root = read_trust_root(&self.root)?;
        let bundle = BundleFile::open(&self.file)?.verify(&root)?;
        bundle.check_all(&context.printer)?;
        let manifest = bundle.opened().manifest();
        context.printer.data(&format!("good: {} for {}", manifest.release(), manifest.compatible));
        Ok(())
    }
}
