//! What a disk is built for, and the appliance file that says so.
//!
//! The part of that file which concerns the boot loader is the first block of `toml` in the loader's page in `docs/loaders`: an
//! integrator who follows the page has what is tested here.

use std::path::{Path, PathBuf};

use bank_format::loader::Kind;

use crate::error::{Error, Result};

/// The publicly known test key of Debian's package `ovmf`, without its ending.
const TEST_KEY: &str = "/usr/share/ovmf/PkKek-1-snakeoil";
const PASSPHRASE_FILE: &str = "passphrase";

/// What the recovery entry of the proving ground says.
pub const RECOVERY_SAYS: &str = "roro-testbed-recovery-is-here";

/// Whether a recovery entry is on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recovery {
    /// None.
    Absent,
    /// One that says so on the serial line.
    Present,
}

/// Whether what the firmware starts is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signed {
    /// It is not.
    No,
    /// With the test key that the secure firmware of the proving ground has enrolled.
    WithTestKey,
}

/// How much of the default appliance is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Services {
    /// All that it starts.
    All,
    /// What boots, updates and judges: an emulated boot takes a fifth less.
    Few,
}

/// What nothing in a scenario needs: names, time and logins.
const MASKED: [&str; 13] = [
    "dbus.service",
    "dbus.socket",
    "proc-sys-fs-binfmt_misc.automount",
    "systemd-binfmt.service",
    "systemd-logind.service",
    "systemd-pcrphase-sysinit.service",
    "systemd-pcrphase.service",
    "systemd-resolved.service",
    "systemd-timesyncd.service",
    "systemd-tmpfiles-clean.timer",
    "systemd-update-utmp-runlevel.service",
    "systemd-update-utmp.service",
    "systemd-user-sessions.service",
];

/// What a disk is built for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Profile {
    /// The boot loader.
    pub kind: Kind,
    /// `tries` of the agent.
    pub tries: u32,
    /// The recovery entry.
    pub recovery: Recovery,
    /// The signature.
    pub signed: Signed,
    /// What runs.
    pub services: Services,
}

impl Profile {
    /// The usual one for a boot loader.
    #[must_use]
    pub fn of(kind: Kind) -> Self {
        Self { kind, tries: 1, recovery: Recovery::Absent, signed: Signed::No, services: Services::Few }
    }

    /// The profile of its updates: tries and recovery are matters of the factory disk.
    #[must_use]
    pub fn of_updates(self) -> Self {
        Self { signed: self.signed, services: self.services, ..Self::of(self.kind) }
    }

    /// A word for file names.
    #[must_use]
    pub fn word(self) -> String {
        let mut word = self.kind.word().to_owned();
        if self.tries != 1 {
            word.push_str(&format!("-{}-tries", self.tries));
        }
        if self.recovery == Recovery::Present {
            word.push_str("-recovery");
        }
        if self.signed == Signed::WithTestKey {
            word.push_str("-signed");
        }
        if self.services == Services::All {
            word.push_str("-whole");
        }
        word
    }

    /// The appliance file: `base`, for this boot loader. `source` is the checkout.
    pub fn appliance(self, source: &Path, base: &Path) -> Result<String> {
        let page = page(source, self.kind);
        let text = std::fs::read_to_string(&page).map_err(Error::io("read", &page))?;
        let example = first_block(&text).ok_or_else(|| Error::NoExample { page: page.clone() })?;
        let mut out = format!("extends = \"{}\"\n\n{example}", base.display());
        // The block ends within its table `boot`.
        if self.tries != 1 {
            out.push_str(&format!("tries = {}\n", self.tries));
        }
        if let Some((file, _)) = self.recovery_file() {
            out.push_str(&format!("recovery = \"{file}\"\n"));
        }
        if self.signed == Signed::WithTestKey {
            out.push_str(&format!(
                "\n[secure_boot]\nkey = \"{TEST_KEY}.key\"\ncertificate = \"{TEST_KEY}.pem\"\npassphrase_file = \"{PASSPHRASE_FILE}\"\n"
            ));
        }
        if self.services == Services::Few {
            out.push_str(&format!("\n[image]\nmask = {MASKED:?}\n"));
        }
        Ok(out)
    }

    /// The files that the appliance file names, which lie beside it.
    #[must_use]
    pub fn files(self) -> Vec<(&'static str, Vec<u8>)> {
        let passphrase = (PASSPHRASE_FILE, b"snakeoil\n".to_vec());
        let signed = (self.signed == Signed::WithTestKey).then_some(passphrase);
        self.recovery_file().into_iter().chain(signed).collect()
    }

    /// What starts when no bank can be booted: it says so on the screen, which is the serial line here, and stays.
    fn recovery_file(self) -> Option<(&'static str, Vec<u8>)> {
        match (self.recovery, self.kind) {
            (Recovery::Absent, _) => None,
            (Recovery::Present, Kind::Grub) => {
                let script = format!("echo \"{RECOVERY_SAYS}\"\nwhile true; do sleep 60; done\n");
                Some(("recovery.cfg", script.into_bytes()))
            }
            (
                Recovery::Present,
                Kind::Efi | Kind::SystemdBoot | Kind::UBoot | Kind::Tryboot | Kind::Script,
            ) => Some(("recovery.efi", crate::efi_program::that_says(RECOVERY_SAYS))),
        }
    }
}

/// The page of a loader in the checkout `source`.
#[must_use]
pub fn page(source: &Path, kind: Kind) -> PathBuf {
    source.join("docs/loaders").join(format!("{}.md", kind.word()))
}

/// The first block of `toml` in a page.
fn first_block(page: &str) -> Option<&str> {
    let (_, rest) = page.split_once("\n```toml\n")?;
    rest.split_once("```").map(|(block, _)| block)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_page_has_a_block_for_its_loader() {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        for kind in [Kind::Efi, Kind::SystemdBoot, Kind::Grub] {
            let profile = Profile { tries: 3, ..Profile::of(kind) };
            let text = profile.appliance(source, Path::new("/x/good.toml")).unwrap();
            assert!(text.contains(&format!("[boot]\nloader = \"{kind}\"\n")), "{text}");
            assert!(text.contains("\ntries = 3\n"), "{text}");
            assert_eq!(profile.word(), format!("{kind}-3-tries"));
        }
    }

    #[test]
    fn a_page_without_a_block_is_no_example() {
        assert_eq!(first_block("# a\n\n```sh\nx\n```\n"), None);
        assert_eq!(first_block("# a\n\n```toml\nx = 1\n```\n```toml\ny\n```\n"), Some("x = 1\n"));
    }
}
