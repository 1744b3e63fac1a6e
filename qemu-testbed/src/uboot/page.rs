//! The blocks of `docs/loaders/u-boot.md`: what an integrator is told to write, the stage writes.

use std::{fs, path::Path};

use crate::error::{Error, Result};

const PAGE: &str = "docs/loaders/u-boot.md";

/// What the page shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// Lines that take the place of lines in the boot script.
    pub settings: String,
    /// Variables of the board's own environment, one a line.
    pub board_environment: String,
    /// `/etc/fw_env.config`.
    pub fw_env_config: String,
    /// `/etc/roro/updater.toml`.
    pub updater_toml: String,
}

impl Page {
    /// Reads it from the source tree.
    pub fn open(source: &Path) -> Result<Self> {
        let path = source.join(PAGE);
        let text = fs::read_to_string(&path).map_err(Error::io("read", &path))?;
        let block = |kind: &str| {
            let found = blocks(&text, kind);
            if found.is_empty() { Err(missing(kind)) } else { Ok(found) }
        };
        Ok(Self {
            settings: block("sh")?,
            board_environment: block("text environment of the board")?,
            fw_env_config: block("text fw_env.config")?,
            updater_toml: block("toml")?,
        })
    }

    /// The boot script with the settings of the page.
    pub fn script(&self, shipped: &str) -> Result<String> {
        let mut script: Vec<String> = shipped.lines().map(str::to_owned).collect();
        for setting in self.settings.lines() {
            let name = setting.split_inclusive('=').next().unwrap_or_default();
            let line = script.iter_mut().find(|line| line.starts_with(name));
            *line.ok_or_else(|| missing(&format!("setting {name} in the boot script")))? = setting.to_owned();
        }
        Ok(script.join("\n") + "\n")
    }
}

fn missing(what: &str) -> Error {
    Error::Unexpected { what: PAGE.to_owned(), wanted: what.to_owned(), seen: "none".to_owned() }
}

/// All fenced blocks of this kind, one behind the other.
fn blocks(text: &str, kind: &str) -> String {
    let fence = format!("```{kind}\n");
    let parts = text.split(&fence).skip(1).filter_map(|part| part.split_once("```"));
    parts.map(|(block, _)| block).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_take_the_place_of_those_in_the_script() {
        let page = Page {
            settings: "disk=virtio\n".into(),
            board_environment: String::new(),
            fw_env_config: String::new(),
            updater_toml: String::new(),
        };
        assert_eq!(page.script("# disk=x\ndisk=mmc\nrun\n").unwrap(), "# disk=x\ndisk=virtio\nrun\n");
        assert!(page.script("run\n").is_err());
        assert_eq!(blocks("a\n```sh\nx\n```\n```sh\ny\n```\n```toml\nz\n```\n", "sh"), "x\ny\n");
    }
}
