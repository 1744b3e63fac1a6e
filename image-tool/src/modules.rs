//! Kernel modules: which files a list of names needs, and in which order they load.
//!
//! Each module says itself what it needs (`depends` and `softdep` in its `.modinfo`), so the package of the kernel need not be
//! unpacked. The indexes that `modprobe` and udev read are made by the host's `depmod` over what is kept.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    process::Command,
};

use crate::{
    elf,
    error::{Error, Result},
    host,
    limits::MAX_UKI_PART_BYTES,
    tree::{Kind, Tree},
};

const MODULES: &str = "usr/lib/modules";

/// The modules of one kernel in a tree.
#[derive(Debug)]
pub struct KernelModules<'tree> {
    tree: &'tree Tree,
    /// Kernel release, as `uname -r` tells it.
    pub release: String,
    paths: BTreeMap<String, String>,
    built_in: BTreeSet<String>,
}

impl<'tree> KernelModules<'tree> {
    /// Finds the one kernel of a tree.
    pub fn of(tree: &'tree Tree) -> Result<Self> {
        let mut releases = tree
            .children(MODULES)
            .filter(|(name, _)| tree.get(&format!("{MODULES}/{name}/kernel")).is_some())
            .map(|(name, _)| name.to_owned());
        let release = releases.next().ok_or_else(|| {
            Error::missing("the kernel", "name its package as kernel.package in the appliance")
        })?;
        if let Some(other) = releases.next() {
            let both = format!("{release} and {other} are both there; leave one package out");
            return Err(Error::malformed("kernel", both));
        }
        let base = format!("{MODULES}/{release}");
        let paths = tree
            .below(&base)
            .filter(|(path, _)| path.ends_with(".ko"))
            .map(|(path, _)| (module_name(path), path.to_owned()))
            .collect();
        let built_in = tree.text(&format!("{base}/modules.builtin"))?.lines().map(module_name).collect();
        Ok(Self { tree, release, paths, built_in })
    }

    /// Paths of the named modules and of all that they need, what is needed before what needs it.
    ///
    /// Built-in ones need no file. A name that is not known is an error that names the nearest known one.
    pub fn closure(&self, wanted: &[String]) -> Result<Vec<String>> {
        let mut order = Vec::new();
        let mut done = BTreeSet::new();
        for name in wanted {
            let name = module_name(name);
            if !self.paths.contains_key(&name) && !self.built_in.contains(&name) {
                return Err(self.unknown(&name));
            }
            self.visit(&name, &mut done, &mut order)?;
        }
        Ok(order)
    }

    fn visit(&self, name: &str, done: &mut BTreeSet<String>, order: &mut Vec<String>) -> Result<()> {
        let Some(path) = self.paths.get(name) else { return Ok(()) };
        if !done.insert(name.to_owned()) {
            return Ok(());
        }
        let bytes = self.tree.content(path)?.read(MAX_UKI_PART_BYTES)?;
        let info =
            elf::module_info(&bytes).ok_or_else(|| Error::malformed(path, "it is no kernel module"))?;
        for (key, value) in info {
            match key.as_str() {
                "depends" => {
                    for needed in value.split(',').filter(|needed| !needed.is_empty()) {
                        let needed = module_name(needed);
                        if !self.paths.contains_key(&needed) && !self.built_in.contains(&needed) {
                            return Err(self.unknown(&needed));
                        }
                        self.visit(&needed, done, order)?;
                    }
                }
                // Wishes, not needs: what has no file of that name is an alias that something else may fill.
                "softdep" => {
                    let pre = value.split_once("pre:").map_or("", |(_, rest)| rest);
                    for wished in pre.split("post:").next().unwrap_or_default().split_whitespace() {
                        self.visit(&module_name(wished), done, order)?;
                    }
                }
                _ => {}
            }
        }
        order.push(path.clone());
        Ok(())
    }

    fn unknown(&self, name: &str) -> Error {
        let similarity = |known: &str| strsim::jaro_winkler(name, known);
        let nearest = self.paths.keys().max_by(|a, b| similarity(a).total_cmp(&similarity(b)));
        let hint =
            nearest.map_or_else(String::new, |nearest| format!("; the nearest known one is {nearest}"));
        Error::missing(
            format!("kernel module {name}"),
            format!("kernel {} has none of that name{hint}", self.release),
        )
    }
}

/// Name of a module, as the kernel has it, from a path or a written name.
fn module_name(path: &str) -> String {
    let file = path.rsplit_once('/').map_or(path, |(_, file)| file);
    file.trim_end_matches(".ko").replace('-', "_")
}

/// Keeps only these modules of a tree and makes the indexes anew.
pub fn reduce(tree: &mut Tree, release: &str, keep: &[String]) -> Result<()> {
    let base = format!("{MODULES}/{release}");
    let keep: BTreeSet<&str> = keep.iter().map(String::as_str).collect();
    let gone: Vec<String> = tree
        .below(&format!("{base}/kernel"))
        .filter(|(path, entry)| !entry.is_directory() && !keep.contains(path))
        .map(|(path, _)| path.to_owned())
        .collect();
    for path in gone {
        tree.remove(&path);
    }
    prune_empty(tree, &base);

    let work = tempfile::tempdir().map_err(Error::file("create", std::env::temp_dir()))?;
    for (path, entry) in tree.below(&base) {
        let relative = path.strip_prefix("usr/").unwrap_or(path);
        let target = work.path().join(relative);
        match &entry.kind {
            Kind::Directory => fs::create_dir_all(&target).map_err(Error::file("create", &target))?,
            Kind::File(content) => write_out(content, &target)?,
            _ => {}
        }
    }
    host::run(Command::new(depmod()).arg("-b").arg(work.path()).arg(release), "kmod")?;
    let made = work.path().join("lib/modules").join(release);
    let entries = fs::read_dir(&made).map_err(Error::file("read", &made))?;
    for entry in entries {
        let entry = entry.map_err(Error::file("read", &made))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with("modules.") {
            let bytes = fs::read(entry.path()).map_err(Error::file("read", entry.path()))?;
            tree.put_file(&format!("{base}/{name}"), bytes, 0o644)?;
        }
    }
    Ok(())
}

/// `depmod` lies where ordinary users do not look.
fn depmod() -> &'static str {
    let places = ["/sbin/depmod", "/usr/sbin/depmod"];
    places.into_iter().find(|place| Path::new(place).exists()).unwrap_or("depmod")
}

fn write_out(content: &crate::tree::Content, target: &Path) -> Result<()> {
    if let Some(parent) = target.parent() {
        fs::create_dir_all(parent).map_err(Error::file("create", parent))?;
    }
    let bytes = content.read(MAX_UKI_PART_BYTES)?;
    fs::write(target, bytes).map_err(Error::file("write", target))
}

/// Takes directories away that hold nothing any more.
fn prune_empty(tree: &mut Tree, base: &str) {
    let mut directories: Vec<String> =
        tree.below(base).filter(|(_, entry)| entry.is_directory()).map(|(path, _)| path.to_owned()).collect();
    directories.sort_by_key(|path| std::cmp::Reverse(path.len()));
    for directory in directories {
        if tree.children(&directory).next().is_none() {
            tree.remove(&directory);
        }
    }
}

#[cfg(test)]
mod tests {
    use object::write::{Object, StandardSegment};

    use super::*;

    fn module(info: &str) -> Vec<u8> {
        let mut object =
            Object::new(object::BinaryFormat::Elf, object::Architecture::X86_64, object::Endianness::Little);
        let segment = object.segment_name(StandardSegment::Data).to_vec();
        let section = object.add_section(segment, b".modinfo".to_vec(), object::SectionKind::ReadOnlyData);
        object.append_section_data(section, info.as_bytes(), 1);
        object.write().unwrap()
    }

    fn sample() -> Tree {
        let mut tree = Tree::new();
        let base = "usr/lib/modules/6.1/kernel";
        for (name, info) in [
            (
                "fs/ext4",
                "license=GPL\0depends=jbd2,mbcache\0softdep=pre: crypto-crc32c lib-crc post: never\0",
            ),
            ("fs/jbd2", "depends=\0"),
            ("fs/mbcache", "depends=\0"),
            ("lib/lib-crc", "depends=\0"),
            ("fs/never", "depends=\0"),
            ("net/broken", "depends=gone\0"),
        ] {
            tree.put_file(&format!("{base}/{name}.ko"), module(info), 0o644).unwrap();
        }
        tree.put_file("usr/lib/modules/6.1/modules.builtin", "kernel/net/unix/unix.ko\n", 0o644).unwrap();
        tree
    }

    #[test]
    fn what_is_needed_comes_first_and_once() {
        let tree = sample();
        let modules = KernelModules::of(&tree).unwrap();
        let found = modules.closure(&["ext4".into(), "jbd2".into(), "unix".into()]).unwrap();
        let names: Vec<String> = found.iter().map(|path| module_name(path)).collect();
        assert_eq!(names, ["jbd2", "mbcache", "lib_crc", "ext4"]);
    }

    #[test]
    fn unknown_names_are_told_with_the_nearest() {
        let tree = sample();
        let modules = KernelModules::of(&tree).unwrap();
        let told = modules.closure(&["ext3".into()]).unwrap_err().to_string();
        assert!(told.contains("nearest known one is ext4"), "{told}");
        assert!(modules.closure(&["broken".into()]).unwrap_err().to_string().contains("gone"));
    }
}
