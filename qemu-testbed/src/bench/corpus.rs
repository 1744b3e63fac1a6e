//! The images: a small Debian 12 (v1), the same with all updates (v2), v1 with one package updated (v3), and v2 once more as a
//! compressed file system, which has no bytes in common with v1.
//!
//! Made with Debian's own tools, so that no image is cut to the measure of ours. An appliance carries an initrd of its own, so the
//! distribution's is left out. The archive moves on: a corpus is kept until its recipe changes, and figures of different corpora
//! cannot be compared.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use sha2::{Digest, Sha256};

use crate::{
    bench::results::Image,
    error::{Error, Result},
    printer, process,
};

const PACKAGES: &str = "systemd,systemd-sysv,udev,dbus,openssl,ca-certificates,iproute2,crun,curl,openssh-client,\
                        python3-minimal,linux-image-cloud-amd64,kmod,cryptsetup-bin,less,nano,libpam-systemd,systemd-resolved";
/// What v3 takes from v2.
const UPDATED: [&str; 2] = ["libssl3", "openssl"];
/// Time of everything in an image.
const EPOCH_SECONDS: &str = "1700000000";
const EROFS_UUID: &str = "11111111-1111-1111-1111-111111111111";
/// Emptied in each tree: caches, logs, documentation, nodes.
const EMPTIED: [&str; 8] = [
    "var/cache/apt",
    "var/lib/apt/lists",
    "var/cache/debconf",
    "var/log",
    "usr/share/doc",
    "usr/share/man",
    "usr/share/locale",
    "dev",
];

/// The images of a run.
#[derive(Debug, Clone)]
pub struct Images {
    /// What devices run.
    pub v1: PathBuf,
    /// All updates.
    pub v2: PathBuf,
    /// One package.
    pub v3: PathBuf,
    /// Nothing in common.
    pub major: Option<PathBuf>,
}

impl Images {
    /// Those of a folder, as [`Images::make`] leaves them.
    pub fn of(folder: &Path) -> Result<Self> {
        let image = |name: &str| {
            let path = folder.join(name);
            fs::metadata(&path).map_err(Error::io("find the image", &path)).map(|_| path)
        };
        Ok(Images {
            v1: image("v1.erofs")?,
            v2: image("v2.erofs")?,
            v3: image("v3.erofs")?,
            major: image("v2.sqfs").ok(),
        })
    }

    /// Makes them below `room`, unless they lie there.
    pub fn make(room: &Path) -> Result<Self> {
        let recipe = Sha256::digest(format!("{PACKAGES} {UPDATED:?} {EMPTIED:?} {EPOCH_SECONDS}"));
        let folder = room.join(format!("corpus-{}", hex::encode(recipe).get(..16).unwrap_or_default()));
        if folder.is_dir() {
            return Self::of(&folder);
        }
        let unfinished = folder.with_extension("unfinished");
        if unfinished.exists() {
            fs::remove_dir_all(&unfinished).map_err(Error::io("remove", &unfinished))?;
        }
        fs::create_dir_all(&unfinished).map_err(Error::io("create", &unfinished))?;
        make_all(&unfinished)?;
        fs::rename(&unfinished, &folder).map_err(Error::io("name", &folder))?;
        Self::of(&folder)
    }

    /// Size of a file.
    pub fn bytes(&self, file: &Path) -> Result<u64> {
        fs::metadata(file).map(|meta| meta.len()).map_err(Error::io("look at", file))
    }

    /// Size of the largest.
    pub fn largest(&self) -> Result<u64> {
        self.named()
            .into_iter()
            .map(|(_, path)| self.bytes(path))
            .try_fold(0, |largest, bytes| Ok(largest.max(bytes?)))
    }

    /// What the results say of them.
    pub fn describe(&self) -> Result<Vec<Image>> {
        let one = |(name, path): (&str, &PathBuf)| {
            let sum = process::run(Command::new("sha256sum").arg(path))?;
            let sum = String::from_utf8_lossy(&sum).split_whitespace().next().unwrap_or_default().to_owned();
            Ok(Image { name: name.to_owned(), bytes: self.bytes(path)?, sha256: sum })
        };
        self.named().into_iter().map(one).collect()
    }

    fn named(&self) -> Vec<(&'static str, &PathBuf)> {
        let mut named = vec![("v1", &self.v1), ("v2", &self.v2), ("v3", &self.v3)];
        named.extend(self.major.as_ref().map(|path| ("major", path)));
        named
    }
}

fn make_all(folder: &Path) -> Result<()> {
    printer::say("making the images with mmdebstrap");
    let policy = process::run(Command::new("apt-cache").arg("policy").env("LC_ALL", "C"))?;
    let policy = String::from_utf8_lossy(&policy);
    let archive = |suite: &str| {
        archive_of(&policy, suite).ok_or_else(|| Error::Unexpected {
            what: "apt's sources".to_owned(),
            wanted: format!("an archive with {suite} (Debian 12 has it in its sources.list)"),
            seen: "none".to_owned(),
        })
    };
    let (main, security) = (archive("bookworm")?, archive("bookworm-security")?);
    let plain = format!("deb {main} bookworm main\n");
    let updated = format!("{plain}deb {main} bookworm-updates main\ndeb {security} bookworm-security main\n");
    for (name, sources) in [("v1", &plain), ("v2", &updated)] {
        tree(folder, name, sources)?;
    }
    one_package(folder)?;
    for name in ["v1", "v2", "v3"] {
        erofs(folder, name)?;
    }
    squashfs(folder)?;
    for name in ["v1", "v2", "v3", "debs"] {
        let tree = folder.join(name);
        fs::remove_dir_all(&tree).map_err(Error::io("remove", &tree))?;
    }
    Ok(())
}

fn tree(folder: &Path, name: &str, sources: &str) -> Result<()> {
    let list = folder.join(format!("{name}.sources.list"));
    fs::write(&list, sources).map_err(Error::io("write", &list))?;
    let archive = folder.join(format!("{name}.tar"));
    let mut fetch = Command::new("mmdebstrap");
    fetch
        .env("LC_ALL", "C")
        .env("SOURCE_DATE_EPOCH", EPOCH_SECONDS)
        .args(["--variant=minbase", &format!("--include={PACKAGES}"), "bookworm"])
        .args([&archive, &list]);
    process::run(&mut fetch)?;
    let tree = folder.join(name);
    fs::create_dir(&tree).map_err(Error::io("create", &tree))?;
    let mut unpack = Command::new("tar");
    unpack
        .args(["--numeric-owner", "--xattrs", "--xattrs-include=*", "-xpf"])
        .arg(&archive)
        .arg("-C")
        .arg(&tree);
    process::run(&mut unpack)?;
    fs::remove_file(&archive).map_err(Error::io("remove", &archive))?;
    let mut query = Command::new("dpkg-query");
    query.arg(format!("--admindir={}", tree.join("var/lib/dpkg").display()));
    let listed = process::run(query.args(["--show", "--showformat=${Package}\t${Version}\n"]))?;
    let packages = folder.join(format!("{name}.packages"));
    fs::write(&packages, listed).map_err(Error::io("write", &packages))?;
    clean(&tree)
}

fn clean(tree: &Path) -> Result<()> {
    for name in EMPTIED {
        let folder = tree.join(name);
        for entry in fs::read_dir(&folder).into_iter().flatten() {
            remove(&entry.map_err(Error::io("list", &folder))?.path())?;
        }
    }
    let boot = tree.join("boot");
    for entry in fs::read_dir(&boot).into_iter().flatten() {
        let entry = entry.map_err(Error::io("list", &boot))?;
        if entry.file_name().to_string_lossy().starts_with("initrd.img-") {
            remove(&entry.path())?;
        }
    }
    Ok(())
}

fn remove(path: &Path) -> Result<()> {
    let is_folder = fs::symlink_metadata(path).map_err(Error::io("look at", path))?.is_dir();
    if is_folder { fs::remove_dir_all(path) } else { fs::remove_file(path) }
        .map_err(Error::io("remove", path))
}

/// v3: the packages of v2's archive, unpacked over v1.
fn one_package(folder: &Path) -> Result<()> {
    let (tree, debs) = (folder.join("v3"), folder.join("debs"));
    process::run(Command::new("cp").arg("-a").arg(folder.join("v1")).arg(&tree))?;
    let state = debs.join("apt");
    for name in ["lists/partial", "cache/archives/partial", "state"] {
        fs::create_dir_all(state.join(name)).map_err(Error::io("create", &state))?;
    }
    let status = state.join("status");
    fs::write(&status, "").map_err(Error::io("write", &status))?;
    let packages = folder.join("v2.packages");
    let listed = fs::read_to_string(&packages).map_err(Error::io("read", &packages))?;
    let options = [
        ("Dir::Etc::sourcelist", folder.join("v2.sources.list")),
        ("Dir::Etc::sourceparts", "/dev/null".into()),
        ("Dir::Etc::preferencesparts", "/dev/null".into()),
        ("Dir::Etc::preferences", "/dev/null".into()),
        ("Dir::State", state.join("state")),
        ("Dir::State::lists", state.join("lists")),
        ("Dir::State::status", status),
        ("Dir::Cache", state.join("cache")),
        ("APT::Sandbox::User", "root".into()),
    ];
    let apt_get = || {
        let mut command = Command::new("apt-get");
        command.current_dir(&debs).arg("-qq");
        for (name, value) in &options {
            command.arg("-o").arg(format!("{name}={}", value.display()));
        }
        command
    };
    process::run(apt_get().arg("update"))?;
    let wanted: Vec<String> = UPDATED.iter().filter_map(|name| pinned(&listed, name)).collect();
    process::run(apt_get().arg("download").args(&wanted))?;
    for entry in fs::read_dir(&debs).map_err(Error::io("list", &debs))? {
        let path = entry.map_err(Error::io("list", &debs))?.path();
        if path.extension().is_some_and(|extension| extension == "deb") {
            process::run(Command::new("dpkg-deb").arg("-x").arg(&path).arg(&tree))?;
        }
    }
    clean(&tree)
}

fn erofs(folder: &Path, name: &str) -> Result<()> {
    let mut make = Command::new("mkfs.erofs");
    make.env_remove("SOURCE_DATE_EPOCH");
    make.args([&format!("-T{EPOCH_SECONDS}"), "-U", EROFS_UUID])
        .arg(folder.join(format!("{name}.erofs")))
        .arg(folder.join(name));
    process::run(&mut make).map(drop)
}

fn squashfs(folder: &Path) -> Result<()> {
    let mut make = Command::new("mksquashfs");
    make.env_remove("SOURCE_DATE_EPOCH");
    make.arg(folder.join("v2"))
        .arg(folder.join("v2.sqfs"))
        .args(["-comp", "zstd", "-b", "131072", "-mkfs-time", EPOCH_SECONDS, "-all-time", EPOCH_SECONDS])
        .args(["-noappend", "-quiet", "-no-progress"]);
    process::run(&mut make).map(drop)
}

/// The first archive in `apt-cache policy` that has the suite.
fn archive_of(policy: &str, suite: &str) -> Option<String> {
    let wanted = format!("{suite}/main");
    policy.lines().find_map(|line| {
        let mut words = line.split_whitespace().skip(1);
        let address = words.next()?;
        (words.next()? == wanted).then(|| address.to_owned())
    })
}

/// `NAME=VERSION` of a package in a list of names and versions.
fn pinned(list: &str, name: &str) -> Option<String> {
    let mut pairs = list.lines().filter_map(|line| line.split_once('\t'));
    pairs.find(|(package, _)| *package == name).map(|(package, version)| format!("{package}={version}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archives_are_found_in_what_apt_says() {
        let policy = "Package files:\n 100 /var/lib/dpkg/status\n     release a=now\n \
            500 http://security.example/debian-security bookworm-security/main amd64 Packages\n     release v=12\n \
            500 http://archive.example/debian bookworm-updates/main amd64 Packages\n \
            500 http://archive.example/debian bookworm/main amd64 Packages\n";
        assert_eq!(archive_of(policy, "bookworm").as_deref(), Some("http://archive.example/debian"));
        let security = archive_of(policy, "bookworm-security");
        assert_eq!(security.as_deref(), Some("http://security.example/debian-security"));
        assert_eq!(archive_of(policy, "trixie"), None);
    }

    #[test]
    fn the_version_of_a_package_is_that_of_the_list() {
        let list = "openssl\t3.0.15-1\nlibssl3\t3.0.16-1~deb12u1\n";
        assert_eq!(pinned(list, "libssl3").as_deref(), Some("libssl3=3.0.16-1~deb12u1"));
        assert_eq!(pinned(list, "libssl"), None);
    }
}
