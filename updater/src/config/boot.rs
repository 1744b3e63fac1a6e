//! The table `[boot]`: which boot loader, and the one thing or two that it needs. What a loader has no use for is an error.

use std::path::PathBuf;

use bank_format::PerBank;
use serde::Deserialize;

pub(super) const KEYS: [&str; 7] =
    ["backend", "path", "config", "program", "partitions", "reboot_parameter", "reboot_program"];

/// The boot loader, and how the machine reboots.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Raw")]
pub struct Boot {
    /// Which, with what it needs.
    pub backend: Backend,
    /// The program that reboots, instead of systemd.
    pub reboot_program: Option<PathBuf>,
}

/// The kinds of boot loader, each with the place of its state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Backend {
    /// UEFI boot variables.
    Efi {
        /// Their directory, unless it is efivarfs.
        variables: Option<PathBuf>,
    },
    /// systemd-boot's variables.
    SystemdBoot {
        /// Their directory, unless it is efivarfs.
        variables: Option<PathBuf>,
    },
    /// GRUB's blocks.
    Grub {
        /// The partition, unless it is the one that the initrd has found.
        partition: Option<PathBuf>,
    },
    /// U-Boot's redundant environment.
    UBoot(Environment),
    /// Raspberry Pi firmware.
    Tryboot {
        /// The FAT partition with `autoboot.txt`, or that file.
        path: PathBuf,
        /// Numbers of the partitions that the firmware starts.
        partitions: PerBank<u32>,
        /// Where the parameter of the next reboot is left.
        reboot_parameter: PathBuf,
    },
    /// A program of the integrator.
    Script {
        /// Which.
        program: PathBuf,
    },
    /// No boot loader: the same rule, kept in a file.
    File {
        /// That file.
        path: PathBuf,
    },
}

/// Where U-Boot's environment lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Environment {
    /// As this `fw_env.config` says.
    Config(PathBuf),
    /// On a partition of its own: two copies of [`PARTITION_ENV_BYTES`](bank_format::loader::uboot::PARTITION_ENV_BYTES), one behind the other.
    Partition(PathBuf),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Kind {
    Efi,
    SystemdBoot,
    Grub,
    UBoot,
    Tryboot,
    Script,
    File,
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Self::Efi => "efi",
            Self::SystemdBoot => "systemd-boot",
            Self::Grub => "grub",
            Self::UBoot => "u-boot",
            Self::Tryboot => "tryboot",
            Self::Script => "script",
            Self::File => "file",
        }
    }
}

/// As it is written.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    backend: Kind,
    path: Option<PathBuf>,
    config: Option<PathBuf>,
    program: Option<PathBuf>,
    partitions: Option<PerBank<u32>>,
    reboot_parameter: Option<PathBuf>,
    reboot_program: Option<PathBuf>,
}

const REBOOT_PARAMETER: &str = "/run/systemd/reboot-param";

impl TryFrom<Raw> for Boot {
    type Error = String;

    fn try_from(mut raw: Raw) -> Result<Self, String> {
        let backend = match raw.backend {
            Kind::Efi => Backend::Efi { variables: raw.path.take() },
            Kind::SystemdBoot => Backend::SystemdBoot { variables: raw.path.take() },
            Kind::Grub => Backend::Grub { partition: raw.path.take() },
            Kind::UBoot => Backend::UBoot(match (raw.config.take(), raw.path.take()) {
                (Some(config), None) => Environment::Config(config),
                (None, Some(partition)) => Environment::Partition(partition),
                (Some(_), Some(_)) => {
                    return Err("backend \"u-boot\" takes boot.config or boot.path, not both".into());
                }
                (None, None) => {
                    return Err("backend \"u-boot\" needs boot.config, the fw_env.config of this board, or boot.path, a partition for the environment".into());
                }
            }),
            Kind::Tryboot => Backend::Tryboot {
                path: raw.path.take().ok_or(
                    "backend \"tryboot\" needs boot.path: the FAT partition that holds autoboot.txt",
                )?,
                partitions: partitions(raw.partitions.take())?,
                reboot_parameter: raw.reboot_parameter.take().unwrap_or_else(|| REBOOT_PARAMETER.into()),
            },
            Kind::Script => Backend::Script {
                program: raw.program.take().ok_or(
                    "backend \"script\" needs boot.program: the program that speaks to the boot loader",
                )?,
            },
            Kind::File => Backend::File {
                path: raw
                    .path
                    .take()
                    .ok_or("backend \"file\" needs boot.path: the file to keep its state in")?,
            },
        };
        let simulated = matches!(backend, Backend::File { .. });
        let reboot_program = if simulated { None } else { raw.reboot_program.take() };
        raw.nothing_left()?;
        Ok(Self { backend, reboot_program })
    }
}

fn partitions(given: Option<PerBank<u32>>) -> Result<PerBank<u32>, String> {
    let numbers = given.ok_or(
        "backend \"tryboot\" needs boot.partitions: the numbers of both boot partitions, like { a = 2, b = 3 }",
    )?;
    if numbers.a == numbers.b || numbers.a == 0 || numbers.b == 0 {
        return Err(format!(
            "boot.partitions {} and {}: they count from 1, and must differ",
            numbers.a, numbers.b
        ));
    }
    Ok(numbers)
}

impl Raw {
    fn nothing_left(&self) -> Result<(), String> {
        let left = [
            ("path", self.path.is_some()),
            ("config", self.config.is_some()),
            ("program", self.program.is_some()),
            ("partitions", self.partitions.is_some()),
            ("reboot_parameter", self.reboot_parameter.is_some()),
            ("reboot_program", self.reboot_program.is_some()),
        ];
        match left.into_iter().find(|(_, given)| *given) {
            Some((key, _)) => {
                Err(format!("boot.{key} means nothing to backend {:?}: remove it", self.backend.word()))
            }
            None => Ok(()),
        }
    }
}

impl Boot {
    /// The paths, to be made absolute.
    pub(super) fn paths_mut(&mut self) -> Vec<&mut PathBuf> {
        let mut paths: Vec<&mut PathBuf> = match &mut self.backend {
            Backend::Efi { variables: path }
            | Backend::SystemdBoot { variables: path }
            | Backend::Grub { partition: path } => path.iter_mut().collect(),
            Backend::UBoot(Environment::Config(path) | Environment::Partition(path))
            | Backend::Script { program: path }
            | Backend::File { path } => vec![path],
            Backend::Tryboot { path, reboot_parameter, .. } => vec![path, reboot_parameter],
        };
        paths.extend(&mut self.reboot_program);
        paths
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Boot, String> {
        toml::from_str(text).map_err(|error| error.message().to_owned())
    }

    #[test]
    fn each_loader_takes_what_it_needs() {
        for (text, expected) in [
            ("backend = \"efi\"", Backend::Efi { variables: None }),
            (
                "backend = \"systemd-boot\"\npath = \"v\"",
                Backend::SystemdBoot { variables: Some("v".into()) },
            ),
            ("backend = \"grub\"", Backend::Grub { partition: None }),
            ("backend = \"u-boot\"\nconfig = \"c\"", Backend::UBoot(Environment::Config("c".into()))),
            ("backend = \"u-boot\"\npath = \"p\"", Backend::UBoot(Environment::Partition("p".into()))),
            (
                "backend = \"tryboot\"\npath = \"p\"\npartitions = { a = 2, b = 3 }",
                Backend::Tryboot {
                    path: "p".into(),
                    partitions: PerBank { a: 2, b: 3 },
                    reboot_parameter: REBOOT_PARAMETER.into(),
                },
            ),
            ("backend = \"script\"\nprogram = \"p\"", Backend::Script { program: "p".into() }),
            ("backend = \"file\"\npath = \"p\"", Backend::File { path: "p".into() }),
        ] {
            assert_eq!(parse(text).unwrap(), Boot { backend: expected, reboot_program: None }, "{text}");
        }
        let with_program = parse("backend = \"grub\"\nreboot_program = \"r\"").unwrap();
        assert_eq!(with_program.reboot_program, Some("r".into()));
    }

    #[test]
    fn what_is_missing_or_idle_is_named_in_one_line() {
        for (text, expected) in [
            ("backend = \"u-boot\"", "needs boot.config"),
            ("backend = \"u-boot\"\nconfig = \"c\"\npath = \"p\"", "not both"),
            ("backend = \"script\"", "needs boot.program"),
            ("backend = \"tryboot\"\npartitions = { a = 2, b = 3 }", "needs boot.path"),
            ("backend = \"tryboot\"\npath = \"p\"", "needs boot.partitions"),
            ("backend = \"tryboot\"\npath = \"p\"\npartitions = { a = 2, b = 2 }", "must differ"),
            ("backend = \"tryboot\"\npath = \"p\"\npartitions = { a = 0, b = 2 }", "count from 1"),
            ("backend = \"file\"", "needs boot.path"),
            (
                "backend = \"file\"\npath = \"p\"\nreboot_program = \"r\"",
                "reboot_program means nothing to backend \"file\"",
            ),
            (
                "backend = \"efi\"\nprogram = \"p\"",
                "boot.program means nothing to backend \"efi\": remove it",
            ),
            ("backend = \"grub\"\nconfig = \"c\"", "boot.config means nothing to backend \"grub\""),
            ("backend = \"script\"\nprogram = \"p\"\npath = \"p\"", "boot.path means nothing"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(expected) && !error.contains('\n'), "{error}");
        }
    }
}
