//! From extracted packages to a root that boots: what their maintainer scripts and an installer would have done.
//!
//! The result is read-only, has no shell and no package manager, and the same bytes for the same packages. What is policy (network,
//! journal, what is left out) stands in the appliance file; here is only what every image needs.

mod accounts;
mod libraries;
mod units;

use bank_format::release::ReleaseFile;
use toml::{Table, Value};

use crate::{
    appliance::{self, Appliance},
    error::{Error, Result},
    limits::MAX_TEXT_BYTES,
    packages::SIMULATED,
    progress::Progress,
    tree::{Content, Kind, Tree, globs},
};
use accounts::Accounts;

/// Units of the doorkeeper: they are part of every image.
const OWN_UNITS: [(&str, &str); 2] = [
    ("roro-settle.service", include_str!("../../boot-hooks/units/roro-settle.service")),
    ("roro-gate.service", include_str!("../../boot-hooks/units/roro-gate.service")),
];
/// Directories of packages from before `/usr` had everything.
const MERGED: [&str; 6] = ["bin", "sbin", "lib", "lib32", "lib64", "libx32"];
const ALWAYS_MERGED: [&str; 3] = ["bin", "sbin", "lib"];
const MOUNT_POINTS: [(&str, u16); 15] = [
    ("boot", 0o755),
    ("dev", 0o755),
    ("home", 0o755),
    ("media", 0o755),
    ("mnt", 0o755),
    ("opt", 0o755),
    ("proc", 0o555),
    ("root", 0o700),
    ("run", 0o755),
    ("srv", 0o755),
    ("state", 0o755),
    ("sys", 0o555),
    ("tmp", 0o1777),
    ("usr/local", 0o755),
    ("var", 0o755),
];
const NSSWITCH: &str = "passwd: files systemd\ngroup: files systemd\nshadow: files\nhosts: files dns\n\
                        networks: files\nprotocols: files\nservices: files\n";
const HOSTS: &str = "127.0.0.1 localhost\n::1 localhost ip6-localhost\n";

/// What an image is given beside its packages.
#[derive(Debug)]
pub struct Inputs<'a> {
    /// The appliance.
    pub appliance: &'a Appliance,
    /// What the image says of itself.
    pub release: &'a ReleaseFile,
    /// The static updater.
    pub updater: Content,
    /// The trust root, as it is signed.
    pub trust_root: &'a [u8],
    /// The list of packages.
    pub packages_text: &'a str,
}

/// Takes away what building left behind and what belongs to packages that are left out; puts everything below `/usr`.
pub fn merge_usr(tree: &mut Tree, left_out: &[String]) -> Result<()> {
    for path in left_out {
        tree.remove_with_empty_parents(path);
    }
    for path in [SIMULATED, "dev", "etc/apt", "etc/fstab", "etc/hostname", "etc/resolv.conf", "var"] {
        tree.remove(path);
    }
    for directory in MERGED {
        let merged = format!("usr/{directory}");
        if tree.get(directory).is_some_and(crate::tree::Entry::is_directory) {
            tree.merge_into(directory, &merged)?;
        }
        if tree.get(&merged).is_some() || ALWAYS_MERGED.contains(&directory) {
            tree.put_directory(&merged, 0o755)?;
            tree.put_link(directory, &merged)?;
        }
    }
    Ok(())
}

/// Makes the root of the image. The tree has gone through [`merge_usr`], and its modules are those that stay.
pub fn finish(tree: &mut Tree, inputs: &Inputs<'_>, progress: &dyn Progress) -> Result<()> {
    let appliance = inputs.appliance;
    Accounts::collect(tree, &appliance.user)?.write(tree)?;
    certificates(tree)?;
    identity(tree, inputs)?;
    tree.remove("boot");
    tree.remove_matching(&globs(&appliance.image.remove)?);
    for (path, mode) in MOUNT_POINTS {
        if tree.get(path).is_some_and(|entry| !entry.is_directory()) {
            tree.remove(path);
        }
        tree.put_directory(path, mode)?;
    }
    own_files(tree, inputs)?;
    for file in &appliance.file {
        let mode = file.mode_bits().unwrap_or(0o644);
        let content = match (&file.content, &file.source) {
            (Some(text), _) => Content::from(text.as_str()),
            (None, Some(source)) => Content::of_file(source)?,
            (None, None) => continue,
        };
        tree.put_file(&file.path, content, mode)?;
    }
    for path in appliance.state.persist.iter().chain(appliance.state.tmpfs.iter().map(|tmpfs| &tmpfs.path)) {
        tree.put_directory(path, 0o755)?;
    }
    tree.put_link("etc/systemd/system/default.target", "/usr/lib/systemd/system/multi-user.target")?;
    for unit in &appliance.image.enable {
        units::enable(tree, unit)?;
    }
    for unit in &appliance.image.mask {
        units::mask(tree, unit)?;
    }
    for missing in libraries::missing(tree)? {
        progress.note(&missing);
    }
    Ok(())
}

/// What `update-ca-certificates` does: all certificates in one file, in order by name.
fn certificates(tree: &mut Tree) -> Result<()> {
    let mut bundle = Vec::new();
    for (path, entry) in tree.below("usr/share/ca-certificates") {
        if let Kind::File(content) = &entry.kind
            && path.ends_with(".crt")
        {
            bundle.extend(content.read(MAX_TEXT_BYTES)?);
            if !bundle.ends_with(b"\n") {
                bundle.push(b'\n');
            }
        }
    }
    if bundle.is_empty() {
        return Ok(());
    }
    tree.put_file("etc/ssl/certs/ca-certificates.crt", bundle, 0o644)
}

fn identity(tree: &mut Tree, inputs: &Inputs<'_>) -> Result<()> {
    let release = inputs.release;
    let mut os_release = tree.text("usr/lib/os-release")?;
    if !os_release.ends_with('\n') {
        os_release.push('\n');
    }
    os_release.push_str(&format!("IMAGE_ID=\"{}\"\nIMAGE_VERSION=\"{}\"\n", release.name, release.version));
    tree.put_file("usr/lib/os-release", os_release.as_str(), 0o644)?;
    tree.put_link("etc/os-release", "../usr/lib/os-release")?;
    tree.put_file("etc/hostname", format!("{}\n", release.name).as_str(), 0o644)?;
    tree.put_file("etc/hosts", HOSTS, 0o644)?;
    tree.put_file("etc/nsswitch.conf", NSSWITCH, 0o644)?;
    // The initrd binds the device's own over it.
    tree.put_file("etc/machine-id", "", 0o444)?;
    tree.put_link("etc/resolv.conf", "../run/systemd/resolve/resolv.conf")?;
    tree.put_link("etc/mtab", "../proc/self/mounts")?;
    if tree.get("usr/sbin/init").is_none() {
        tree.put_link("usr/sbin/init", "../lib/systemd/systemd")?;
    }
    if tree.resolve("usr/sbin/init").is_none() {
        return Err(Error::missing("systemd", "name it in base.packages of the appliance"));
    }
    Ok(())
}

fn own_files(tree: &mut Tree, inputs: &Inputs<'_>) -> Result<()> {
    let appliance = inputs.appliance;
    tree.put_file("usr/bin/updater", inputs.updater.clone(), 0o755)?;
    let release =
        serde_json::to_string(inputs.release).map_err(|error| Error::malformed("release", error))?;
    tree.put_file("usr/lib/roro/release.json", format!("{release}\n").as_str(), 0o644)?;
    tree.put_file("usr/lib/roro/root.json", inputs.trust_root.to_vec(), 0o644)?;
    tree.put_file("usr/lib/roro/packages.txt", inputs.packages_text, 0o644)?;
    tree.put_directory("usr/lib/roro/health.d", 0o755)?;
    if !appliance.health.is_empty() {
        tree.put_file("usr/lib/roro/health.d/appliance.toml", health(appliance)?.as_str(), 0o644)?;
    }
    let mut state = String::new();
    for tmpfs in &appliance.state.tmpfs {
        state.push_str(&format!("tmpfs {} {}\n", tmpfs.path, tmpfs.size));
    }
    for path in &appliance.state.persist {
        state.push_str(&format!("persist {path}\n"));
    }
    tree.put_file("usr/lib/roro/state.list", state.as_str(), 0o644)?;
    tree.put_file("etc/roro/updater.toml", agent_configuration(appliance)?.as_str(), 0o644)?;
    for (name, text) in OWN_UNITS {
        tree.put_file(&format!("usr/lib/systemd/system/{name}"), text, 0o644)?;
        units::enable(tree, name)?;
    }
    Ok(())
}

fn health(appliance: &Appliance) -> Result<String> {
    let table = Table::from_iter([("check".to_owned(), Value::Array(appliance.health.clone()))]);
    toml::to_string(&table).map_err(|error| Error::malformed("health checks", error))
}

/// `/etc/roro/updater.toml`: the paths that the initrd promises, then what the appliance says.
fn agent_configuration(appliance: &Appliance) -> Result<String> {
    let text = |value: &str| Value::String(value.to_owned());
    let bank = |name: &str| {
        Value::Table(Table::from_iter([
            ("root".to_owned(), Value::String(format!("/run/roro/dev/root-{name}"))),
            ("boot".to_owned(), Value::String(format!("/run/roro/dev/boot-{name}"))),
        ]))
    };
    let backend = appliance.boot.loader.kind().word();
    let mut table = Table::from_iter([
        ("compatible".to_owned(), text(&appliance.compatible)),
        ("trust_root".to_owned(), text("/usr/lib/roro/root.json")),
        ("state_dir".to_owned(), text("/state/roro")),
        ("record".to_owned(), text("/run/roro/dev/record")),
        ("boot".to_owned(), Value::Table(Table::from_iter([("backend".to_owned(), text(backend))]))),
        (
            "bank".to_owned(),
            Value::Table(Table::from_iter([("a".to_owned(), bank("a")), ("b".to_owned(), bank("b"))])),
        ),
    ]);
    if let Some(tries) = appliance.boot.tries {
        table.insert("tries".to_owned(), Value::Integer(tries.into()));
    }
    appliance::merge(&mut table, appliance.updater.clone());
    toml::to_string(&table).map_err(|error| Error::malformed("configuration of the agent", error))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use bank_format::release::Version;

    use super::*;
    use crate::progress::Silent;

    fn packages() -> Tree {
        let mut tree = Tree::new();
        tree.put_file("lib/systemd/systemd", "elf", 0o755).unwrap();
        tree.put_file("usr/lib/os-release", "ID=debian", 0o644).unwrap();
        tree.put_file("usr/share/ca-certificates/b.crt", "B", 0o644).unwrap();
        tree.put_file("usr/share/ca-certificates/a.crt", "A\n", 0o644).unwrap();
        tree.put_file("usr/share/doc/x", "doc", 0o644).unwrap();
        tree.put_file("usr/bin/perl", "perl", 0o755).unwrap();
        tree.put_file("bin/mount", "elf", 0o4755).unwrap();
        let unit = "[Install]\nWantedBy=multi-user.target\n";
        for name in ["systemd-networkd", "systemd-resolved", "systemd-timesyncd", "systemd-pstore"] {
            tree.put_file(&format!("lib/systemd/system/{name}.service"), unit, 0o644).unwrap();
        }
        tree
    }

    #[test]
    fn extracted_packages_become_a_root() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kiosk.toml");
        let text = "extends = \"jeos\"\nname = \"kiosk\"\n[[file]]\npath = \"/etc/motd\"\ncontent = \"hello\"\nmode = \"0600\"\n\
                    [[health]]\nname = \"works\"\ncommand = [\"/usr/bin/k\", \"--x\"]\ndeadline_seconds = 5\n\
                    [[health]]\nname = \"page\"\nkind = \"http\"\nurl = \"http://127.0.0.1/\"\n\
                    [state]\npersist = [\"/var/lib/kiosk\"]\n[boot]\nloader = \"systemd-boot\"\ntries = 2\n[updater.boot]\npath = \"x\"\n";
        std::fs::write(&path, text).unwrap();
        let appliance = Appliance::load(Path::new(&path)).unwrap();
        let release = ReleaseFile {
            name: appliance.name.clone(),
            version: Version::new(1, 2, 3),
            compatible: appliance.compatible.clone(),
        };
        let inputs = Inputs {
            appliance: &appliance,
            release: &release,
            updater: "static".into(),
            trust_root: b"{}",
            packages_text: "a 1 amd64\n",
        };
        let mut tree = packages();
        merge_usr(&mut tree, &["usr/bin/perl".to_owned()]).unwrap();
        finish(&mut tree, &inputs, &Silent).unwrap();
        let read = |path: &str| tree.text(path).unwrap();
        assert_eq!(read("sbin/init"), "elf");
        assert_eq!(read("etc/ssl/certs/ca-certificates.crt"), "A\nB\n");
        assert!(read("etc/os-release").ends_with("IMAGE_ID=\"kiosk\"\nIMAGE_VERSION=\"1.2.3\"\n"));
        assert!(tree.get("usr/share/doc").is_none() && tree.get("usr/bin/perl").is_none());
        assert!(read("usr/lib/roro/state.list").ends_with("persist /var/lib/kiosk\n"));
        assert!(read("usr/lib/roro/release.json").contains("\"version\":\"1.2.3\""));
        let checks =
            bank_format::health::parse(&read("usr/lib/roro/health.d/appliance.toml")).unwrap().checks;
        let words: Vec<_> = checks.iter().map(|check| (check.kind.word(), check.deadline_seconds)).collect();
        assert_eq!(words, [("command", 5), ("http", 30)]);
        let agent: Table = read("etc/roro/updater.toml").parse().unwrap();
        assert_eq!(agent["tries"].as_integer(), Some(2));
        assert_eq!(agent["boot"]["backend"].as_str(), Some("systemd-boot"));
        assert_eq!(agent["boot"]["path"].as_str(), Some("x"));
        assert_eq!(agent["bank"]["b"]["root"].as_str(), Some("/run/roro/dev/root-b"));
        assert_eq!(tree.get("etc/motd").unwrap().mode, 0o600);
        assert_eq!(tree.get("tmp").unwrap().mode, 0o1777);
        assert!(tree.get("var/lib/kiosk").unwrap().is_directory());
    }
}
