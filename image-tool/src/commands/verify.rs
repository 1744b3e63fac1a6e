//! `verify`: every byte of a bundle against a trust root.

use std::path::PathBuf;

use crate::{
    commands::{Context, read_trust_root},
    error::{Error, Result},
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
    /// An older release: its deltas are applied to it, and what they make is checked; may be given several times
    #[arg(long, value_name = "OLD.roro")]
    from: Vec<PathBuf>,
}

impl Args {
    /// Checks signatures, documents, every chunk of every image and the verity roots; with `--from` also every patch.
    pub fn run(self, context: &Context) -> Result<()> {
        let root = read_trust_root(&self.root)?;
        let bundle = BundleFile::open(&self.file)?.verify(&root)?;
        bundle.check_all(&context.printer)?;
        for path in &self.from {
            let older = BundleFile::open(path)?.verify(&root)?;
            if bundle.check_deltas_from(&older, &context.printer)? == 0 {
                let message = format!("{} has no delta from {}", self.file.display(), path.display());
                return Err(Error::usage(message, "give the bundle that --from named when it was made"));
            }
        }
        let manifest = bundle.opened().manifest();
        context.printer.data(&format!("good: {} for {}", manifest.release(), manifest.compatible));
        Ok(())
    }
}
