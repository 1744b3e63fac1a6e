//! The programs of ours that are measured, built from this tree, and bita, which no Debian package has.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{error::Result, process, workshop};

/// The release of bita that is measured.
const BITA: &str = "0.15.0";

/// The programs.
#[derive(Debug)]
pub struct Programs {
    /// The mint.
    pub image_tool: PathBuf,
    /// The agent, static, as it goes onto devices.
    pub updater: PathBuf,
    /// bita, or why there is none.
    pub bita: Result<PathBuf, String>,
}

impl Programs {
    /// Builds what is not built.
    pub fn build(source: &Path) -> Result<Self> {
        let target = workshop::target_folder(source);
        let updater = workshop::device_programs(source, &target)?.join("updater");
        let mut mint = cargo();
        mint.args(["build", "--release", "--quiet", "-p", "image-tool"]).current_dir(source);
        process::run(&mut mint)?;
        let root = target.join("testbed/bita");
        let program = root.join("bin/bita");
        let bita = match is_version(&program) {
            true => Ok(program),
            false => {
                let mut install = cargo();
                install
                    .args(["install", "bita", "--locked", "--quiet", "--force", "--version", BITA])
                    .arg("--root")
                    .arg(&root);
                process::run(&mut install).map(|_| program).map_err(|error| error.to_string())
            }
        };
        Ok(Programs { image_tool: target.join("release/image-tool"), updater, bita })
    }
}

fn cargo() -> Command {
    Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

fn is_version(program: &Path) -> bool {
    let said = process::run(Command::new(program).arg("--version")).unwrap_or_default();
    String::from_utf8_lossy(&said).split_whitespace().any(|word| word == BITA)
}
