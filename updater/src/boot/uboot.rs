//! Where U-Boot's environment lies on this board.

use std::{io, path::Path};

use bank_format::loader::{
    UBoot,
    uboot::{Layout, PARTITION_ENV_BYTES, Variables},
};

use crate::{
    config::{Environment, read_small},
    error::Error,
    medium::PathMedium,
    ports::Access,
};

/// What this board's U-Boot has built in, beside `fw_env.config`, as libubootenv has it in `/etc`.
const INITIAL_ENV: &str = "u-boot-initial-env";

pub(super) fn open(environment: &Environment) -> io::Result<UBoot<PathMedium>> {
    match environment {
        Environment::Partition(path) => {
            let second = named(path)?.starting_at(PARTITION_ENV_BYTES as u64);
            Ok(UBoot::new([named(path)?, second], PARTITION_ENV_BYTES))
        }
        Environment::Config(path) => {
            let text = read_small(path).map_err(|error| io::Error::other(error.line()))?;
            let layout = Layout::parse(&text).map_err(|error| {
                io::Error::new(io::ErrorKind::InvalidData, format!("{}: {error}", path.display()))
            })?;
            let directory = path.parent().unwrap_or(Path::new("/"));
            let [first, second] = layout.copies;
            let open = |device: &str| named(&directory.join(device));
            let copies = [
                open(&first.device)?.starting_at(first.offset_bytes),
                open(&second.device)?.starting_at(second.offset_bytes),
            ];
            let loader = UBoot::new(copies, layout.env_bytes);
            Ok(match initial(&directory.join(INITIAL_ENV))? {
                Some(initial) => loader.with_initial(initial),
                None => loader,
            })
        }
    }
}

fn initial(path: &Path) -> io::Result<Option<Variables>> {
    match read_small(path) {
        Ok(text) => Ok(Some(Variables::from_lines(&text))),
        Err(Error::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io::Error::other(error.line())),
    }
}

pub(super) fn named(path: &Path) -> io::Result<PathMedium> {
    PathMedium::open(path, Access::Write)
        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bank_format::{
        Bank,
        loader::{Loader as _, Spare},
    };

    #[test]
    fn both_ways_to_name_the_place_lead_to_the_same_environment() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("env"), vec![0; 2 * PARTITION_ENV_BYTES]).unwrap();
        std::fs::write(dir.path().join("fw_env.config"), "# two copies\nenv 0x0 0x4000\nenv 0x4000 0x4000\n")
            .unwrap();
        std::fs::write(dir.path().join(INITIAL_ENV), "bootcmd=run distro_bootcmd\nbootdelay=2\n").unwrap();
        let by_config = Environment::Config(dir.path().join("fw_env.config"));
        let by_place = Environment::Partition(dir.path().join("env"));
        open(&by_config).unwrap().set_default(Bank::B, Spare::Bootable).unwrap();
        let mut other = open(&by_place).unwrap();
        let variables = other.variables().unwrap();
        assert_eq!(variables.get("BOOT_ORDER").as_deref(), Some("B A"));
        assert_eq!(
            variables.get("bootcmd").as_deref(),
            Some("run distro_bootcmd"),
            "what was built in is kept"
        );
        other.set_next(Bank::A).unwrap();
        assert_eq!(open(&by_config).unwrap().next().unwrap(), Some(Bank::A));
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("fw_env.config");
        for (text, expected) in [
            ("/dev/roro-none 0 0x4000\n/dev/roro-none 0x4000 0x4000\n", "/dev/roro-none: "),
            ("x\n", "line 1"),
        ] {
            std::fs::write(&path, text).unwrap();
            let error = open(&Environment::Config(path.clone())).unwrap_err().to_string();
            assert!(error.contains(expected) && !error.contains('\n'), "{error}");
        }
    }
}
