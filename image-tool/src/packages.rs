//! Debian packages as one tar archive, with a list of what is in it.
//!
//! mmdebstrap resolves, downloads, checks signatures and extracts; nothing is configured, so no maintainer script runs and no
//! root is needed. The list is made from the `.deb` files themselves. Downloads are kept and checked by apt again when used.
//! The extracted archive is kept too, but used again only when the caller says so ([`Reuse::Kept`]): whether a newer package
//! has come is a question to the archive of packages, and only a fresh run answers it.

mod sources;

use std::{
    collections::BTreeSet,
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use bank_format::Digest256;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::{
    appliance::Appliance,
    error::{Error, Result},
    host,
    progress::Progress,
    tree::Content,
};
use sources::Sources;

/// One package of an image.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Package {
    /// Binary package.
    pub name: String,
    /// Version, as Debian writes it.
    pub version: String,
    /// `amd64` or `all`.
    pub architecture: String,
    /// Source package.
    pub source: String,
    /// Version of the source package.
    pub source_version: String,
    /// SHA-256 of the `.deb`.
    pub deb_sha256: Digest256,
    /// Bytes of the `.deb`.
    pub deb_bytes: u64,
}

/// Extracted packages.
#[derive(Debug)]
pub struct Extracted {
    /// Archive with all files.
    pub tar: PathBuf,
    /// Packages whose files are in the archive and not [`Extracted::left_out`], sorted.
    pub packages: Vec<Package>,
    /// Paths that belong to packages of `image.remove_packages`.
    pub left_out: Vec<String>,
}

/// Whether an archive of an earlier run may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reuse {
    /// Ask for the newest packages.
    Newest,
    /// Take what an earlier run with the same wishes extracted, if there is one.
    Kept,
}

/// What a run is given.
#[derive(Debug, Clone)]
pub struct Options {
    /// Archive of packages to use when the appliance names none; else the host's configuration.
    pub mirror: Option<String>,
    /// Where downloads and archives are kept.
    pub cache: PathBuf,
    /// Whether an earlier archive will do.
    pub reuse: Reuse,
}

/// `roro` below the cache directory of the user.
#[must_use]
pub fn default_cache() -> PathBuf {
    let base = env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let home = || env::var_os("HOME").map_or_else(env::temp_dir, |home| PathBuf::from(home).join(".cache"));
    base.unwrap_or_else(home).join("roro")
}

#[derive(Serialize, Deserialize)]
struct Kept {
    packages: Vec<Package>,
    left_out: Vec<String>,
}

/// Gets the packages of an appliance, its kernel and stub included.
pub fn extract(appliance: &Appliance, options: &Options, progress: &dyn Progress) -> Result<Extracted> {
    let wishes = Wishes::of(appliance, options)?;
    let trees = options.cache.join("trees");
    let (tar, list) = (trees.join(format!("{}.tar", wishes.key)), trees.join(format!("{}.json", wishes.key)));
    if options.reuse == Reuse::Kept
        && tar.is_file()
        && let Ok(text) = fs::read(&list)
        && let Ok(kept) = serde_json::from_slice::<Kept>(&text)
    {
        progress.note("packages: those of an earlier build are used");
        return Ok(Extracted { tar, packages: kept.packages, left_out: kept.left_out });
    }
    progress.stage("packages: resolve, download, extract");
    fs::create_dir_all(&trees).map_err(Error::file("create", &trees))?;
    let run = tempfile::Builder::new()
        .prefix("run-")
        .tempdir_in(&options.cache)
        .map_err(Error::file("create a directory in", &options.cache))?;
    let archives = options.cache.join("archives");
    fs::create_dir_all(&archives).map_err(Error::file("create", &archives))?;
    let debs = run.path().join("debs");
    fs::create_dir_all(&debs).map_err(Error::file("create", &debs))?;
    let new_tar = run.path().join("root.tar");
    mmdebstrap(&wishes, run.path(), &archives, &debs, &new_tar)?;

    progress.stage("packages: list");
    let installed = simulated(&new_tar)?;
    let mut kept = Kept { packages: Vec::new(), left_out: Vec::new() };
    let unwanted: BTreeSet<&str> = appliance.image.remove_packages.iter().map(String::as_str).collect();
    for (name, version, architecture) in &installed {
        let file = format!("{name}_{}_{architecture}.deb", version.replace(':', "%3a"));
        let deb = debs.join(&file);
        if unwanted.contains(name.as_str()) {
            kept.left_out.extend(files_of(&deb, run.path())?);
        } else {
            kept.packages.push(describe(&deb)?);
        }
        keep_deb(&deb, &archives, &file, name, architecture)?;
    }
    for name in unwanted {
        if !installed.iter().any(|(found, _, _)| found == name) {
            progress.note(&format!("packages: {name} is left out, but no dependency brings it"));
        }
    }
    kept.packages.sort();
    let text = serde_json::to_vec(&kept).map_err(|error| Error::malformed("package list", error))?;
    let new_list = run.path().join("list.json");
    fs::write(&new_list, text).map_err(Error::file("write", &new_list))?;
    fs::rename(&new_tar, &tar).map_err(Error::file("keep", &tar))?;
    fs::rename(&new_list, &list).map_err(Error::file("keep", &list))?;
    Ok(Extracted { tar, packages: kept.packages, left_out: kept.left_out })
}

/// `name version architecture` of each package, sorted, as it lies in the image.
#[must_use]
pub fn list_text(packages: &[Package]) -> String {
    packages.iter().map(|p| format!("{} {} {}\n", p.name, p.version, p.architecture)).collect()
}

struct Wishes {
    suite: String,
    components: String,
    packages: Vec<String>,
    mirror: Option<String>,
    host: Sources,
    key: String,
}

impl Wishes {
    fn of(appliance: &Appliance, options: &Options) -> Result<Self> {
        let base = &appliance.base;
        let mirror = base.mirror.clone().or_else(|| options.mirror.clone());
        let host = match mirror {
            Some(_) => Sources::default(),
            None => host_sources(&base.suite, &base.components)?,
        };
        let mut packages = base.packages.clone();
        packages.extend([appliance.kernel.package.clone(), appliance.kernel.stub_package.clone()]);
        packages.sort();
        packages.dedup();
        let components = base.components.join(",");
        let mut key = Sha256::new();
        let mut unwanted = appliance.image.remove_packages.clone();
        unwanted.sort();
        let words = [&base.suite, &components, mirror.as_ref().unwrap_or(&host.one_line), &host.deb822];
        for word in words.into_iter().chain(&packages).chain([&"left out".to_owned()]).chain(&unwanted) {
            key.update((word.len() as u64).to_le_bytes());
            key.update(word);
        }
        let key = hex::encode(key.finalize()).chars().take(16).collect();
        Ok(Self { suite: base.suite.clone(), components, packages, mirror, host, key })
    }
}

fn host_sources(suite: &str, components: &[String]) -> Result<Sources> {
    let mut sources = Sources::default();
    let mut files = vec![PathBuf::from("/etc/apt/sources.list")];
    if let Ok(entries) = fs::read_dir("/etc/apt/sources.list.d") {
        files.extend(entries.filter_map(|entry| entry.ok().map(|entry| entry.path())));
    }
    files.sort();
    for file in files.iter().filter(|file| file.is_file()) {
        let text = fs::read_to_string(file).map_err(Error::file("read", file))?;
        match file.extension().and_then(|extension| extension.to_str()) {
            Some("list") => sources.add_one_line(&text, suite, components),
            Some("sources") => sources.add_deb822(&text, suite, components),
            _ => {}
        }
    }
    Ok(sources)
}

fn mmdebstrap(wishes: &Wishes, run: &Path, archives: &Path, debs: &Path, tar: &Path) -> Result<()> {
    let (archives, debs) = (shell_word(archives)?, shell_word(debs)?);
    let packages = wishes.packages.join(" ");
    let mut command = Command::new("mmdebstrap");
    command
        .args(["--variant=extract", "--format=tar", "--skip=chroot/mount"])
        .arg(format!("--components={}", wishes.components))
        .arg(format!("--include={}", wishes.packages.join(",")))
        .arg("--setup-hook=mkdir -p \"$1/var/cache/apt/archives\"")
        .arg(format!("--setup-hook=sync-in {archives} /var/cache/apt/archives"))
        // What apt would install into this empty system is exactly what was extracted.
        .arg(format!(
            "--extract-hook=APT_CONFIG=\"$MMDEBSTRAP_APT_CONFIG\" apt-get --simulate -qq install {packages} > \"$1/{SIMULATED}\""
        ))
        .arg(format!("--extract-hook=sync-out /var/cache/apt/archives {debs}"));
    for setting in proxies()? {
        command.arg(format!("--aptopt={setting}"));
    }
    command.arg(&wishes.suite).arg(tar);
    match &wishes.mirror {
        Some(mirror) => {
            command.args(mirror.lines().map(str::trim).filter(|line| !line.is_empty()));
        }
        None => {
            let forms = [("host.list", &wishes.host.one_line), ("host.sources", &wishes.host.deb822)];
            for (name, text) in forms.into_iter().filter(|(_, text)| !text.is_empty()) {
                let file = run.join(name);
                fs::write(&file, text).map_err(Error::file("write", &file))?;
                command.arg(file);
            }
        }
    }
    match host::run(&mut command, "mmdebstrap") {
        Err(Error::Program { program, message }) if message.contains("unable to pick chroot mode") => {
            let hint = "hint: without root it needs user namespaces and the Debian package uidmap";
            Err(Error::Program { program, message: format!("{message}\n  {hint}") })
        }
        result => result.map(|_| ()),
    }
}

/// Where the list of packages lies in the archive.
pub(crate) const SIMULATED: &str = "roro-simulated";

/// Proxies of the host's apt, which mmdebstrap does not look at by itself.
fn proxies() -> Result<Vec<String>> {
    let mut command = Command::new("apt-config");
    command.args(["dump", "--no-empty", "--format", "%F \"%v\";%n", "Acquire"]);
    let text = host::run(&mut command, "apt")?;
    let text = String::from_utf8_lossy(&text);
    Ok(text.lines().filter(|line| line.contains("::Proxy")).map(str::to_owned).collect())
}

/// Reads "Inst name (version origin [architecture])" lines out of the archive.
fn simulated(tar: &Path) -> Result<Vec<(String, String, String)>> {
    let mut tree = crate::tree::Tree::new();
    tree.import_tar(tar)?;
    let text = tree.text(SIMULATED)?;
    let mut found = BTreeSet::new();
    for line in text.lines().filter_map(|line| line.strip_prefix("Inst ")) {
        let parse = || {
            let (name, rest) = line.split_once(' ')?;
            let (_, rest) = rest.split_once('(')?;
            let (version, rest) = rest.split_once(' ')?;
            let (_, rest) = rest.split_once('[')?;
            let (architecture, _) = rest.split_once(']')?;
            Some((name.to_owned(), version.to_owned(), architecture.to_owned()))
        };
        found.insert(parse().ok_or_else(|| Error::malformed("simulation of apt-get", line))?);
    }
    Ok(found.into_iter().collect())
}

/// What a `.deb` says of itself.
fn describe(deb: &Path) -> Result<Package> {
    let mut command = Command::new("dpkg-deb");
    command.arg("--show").arg("--showformat=${Package}\\n${Version}\\n${Architecture}\\n${source:Package}\\n${source:Version}\\n").arg(deb);
    let text = String::from_utf8_lossy(&host::run(&mut command, "dpkg")?).into_owned();
    let mut fields = text.lines().map(str::to_owned);
    let mut next =
        || fields.next().ok_or_else(|| Error::malformed(deb.display(), "dpkg-deb tells too little"));
    let (name, version, architecture, source, source_version) = (next()?, next()?, next()?, next()?, next()?);
    let mut digest = Sha256::new();
    let content = Content::of_file(deb)?;
    content.for_each_piece(&mut |piece| {
        digest.update(piece);
        Ok(())
    })?;
    let deb_sha256 = Digest256(digest.finalize().into());
    Ok(Package {
        name,
        version,
        architecture,
        source,
        source_version,
        deb_sha256,
        deb_bytes: content.len_bytes(),
    })
}

/// Paths of files, links and devices in a `.deb`; directories are shared and stay.
fn files_of(deb: &Path, run: &Path) -> Result<Vec<String>> {
    let bytes = host::run(Command::new("dpkg-deb").arg("--fsys-tarfile").arg(deb), "dpkg")?;
    let spool = run.join("one.tar");
    fs::write(&spool, bytes).map_err(Error::file("write", &spool))?;
    let mut tree = crate::tree::Tree::new();
    tree.import_tar(&spool)?;
    Ok(tree.iter().filter(|(_, entry)| !entry.is_directory()).map(|(path, _)| path.to_owned()).collect())
}

/// Moves a download into the cache and takes other versions of the same package out of it.
fn keep_deb(deb: &Path, archives: &Path, file: &str, name: &str, architecture: &str) -> Result<()> {
    for entry in fs::read_dir(archives).map_err(Error::file("read", archives))? {
        let path = entry.map_err(Error::file("read", archives))?.path();
        let found = path.file_name().and_then(|found| found.to_str()).unwrap_or_default();
        let same = found.starts_with(&format!("{name}_")) && found.ends_with(&format!("_{architecture}.deb"));
        if same && found != file {
            // Another build may have been faster; that the file is gone is all we want.
            fs::remove_file(&path).or_else(|error| match error.kind() {
                std::io::ErrorKind::NotFound => Ok(()),
                _ => Err(Error::file("remove", &path)(error)),
            })?;
        }
    }
    let target = archives.join(file);
    fs::rename(deb, &target).map_err(Error::file("keep", &target))
}

/// A path as one word of a hook.
fn shell_word(path: &Path) -> Result<String> {
    let text = path.to_str().unwrap_or_default();
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_alphanumeric() || b"/._-+@=,".contains(&b)) {
        return Err(Error::malformed(
            path.display(),
            "mmdebstrap needs a path of letters, digits and dashes; choose another one with --cache",
        ));
    }
    Ok(text.to_owned())
}
