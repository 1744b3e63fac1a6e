//! The state partition, and the paths that are not the image's: persisted ones, tmpfs ones, and the machine's id.
//!
//! Sources: `/usr/lib/roro/state.list` of the verified image, `machine-id(5)`. Content of the image is taken before anything is
//! mounted over it. Deliberately absent: repairing a file system; a state that cannot be mounted is a reason.

use std::{
    fs::{self, File},
    io::{self, Read as _},
    path::{Component, Path, PathBuf},
};

use nix::unistd::syncfs;

use crate::{
    console,
    error::{Error, Result, chain},
    limits,
    linux::{self, Access, Trust},
    paths::{self, Missing},
    seed,
};

/// Where the image declares its paths.
pub const LIST: &str = "usr/lib/roro/state.list";
const FILE_SYSTEMS: [&str; 3] = ["ext4", "xfs", "btrfs"];
const STAGE: &str = "/run/roro/stage";
const MACHINE_ID_DIGITS: usize = 32;
/// Paths that are mounts of their own; nothing may be laid over or under them.
const RESERVED: [&str; 5] = ["/dev", "/proc", "/run", "/state", "/sys"];

/// What the image declares.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StateList {
    /// Paths that live on the state partition, parents first.
    pub persist: Vec<PathBuf>,
    /// Paths that start anew with each boot, with their size, parents first.
    pub tmpfs: Vec<(PathBuf, String)>,
}

/// Parses the state list.
pub fn parse(text: &str) -> Result<StateList> {
    let mut list = StateList::default();
    for (at, line) in text.lines().enumerate() {
        let wrong = |detail: String| Error::StateList { line: at + 1, detail };
        if at >= limits::MAX_STATE_LINES {
            return Err(wrong(format!("more than {} lines", limits::MAX_STATE_LINES)));
        }
        let line = line.trim();
        match line.split_once(' ') {
            None if line.is_empty() => (),
            Some(("persist", path)) => list.persist.push(checked(path).map_err(wrong)?),
            Some(("tmpfs", rest)) => {
                let (path, size) =
                    rest.trim().rsplit_once(' ').ok_or_else(|| wrong("expected tmpfs PATH SIZE".into()))?;
                if !is_size(size) {
                    return Err(wrong(format!("{size:?} is no size: write it like 64M")));
                }
                list.tmpfs.push((checked(path).map_err(wrong)?, size.to_owned()));
            }
            _ => return Err(wrong(format!("expected persist PATH or tmpfs PATH SIZE, found {line:?}"))),
        }
    }
    list.persist.sort();
    list.tmpfs.sort();
    let nested = |pair: &[PathBuf]| matches!(pair, [above, below] if below.starts_with(above));
    if let Some([above, below]) = list.persist.windows(2).find(|pair| nested(pair)) {
        let detail = format!("{} lies in {}, which is persisted already", below.display(), above.display());
        return Err(Error::StateList { line: 0, detail });
    }
    Ok(list)
}

fn checked(text: &str) -> std::result::Result<PathBuf, String> {
    let path = Path::new(text.trim());
    let mut steps = path.components();
    let rooted = steps.next() == Some(Component::RootDir);
    let plain = steps.all(|step| matches!(step, Component::Normal(_)));
    if !rooted || !plain || path == Path::new("/") {
        return Err(format!("{text:?} is no absolute path without dots"));
    }
    match RESERVED.iter().find(|reserved| path.starts_with(reserved)) {
        Some(reserved) => Err(format!("{text:?} lies in {reserved}, which is a mount of its own")),
        None => Ok(path.components().collect()),
    }
}

fn is_size(text: &str) -> bool {
    let digits = text.strip_suffix(['K', 'M', 'G', '%']).unwrap_or(text);
    (1..=9).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit())
}

/// Mounts the state partition for writing.
pub fn mount(partition: &Path, target: &Path) -> Result<()> {
    mount_first(partition, target, &FILE_SYSTEMS, Access::ReadWrite, Trust::Data)
}

/// Mounts with the first type that the kernel accepts.
pub fn mount_first(
    partition: &Path,
    target: &Path,
    kinds: &[&str],
    access: Access,
    trust: Trust,
) -> Result<()> {
    let mut tried = Vec::new();
    for kind in kinds {
        match linux::mount_fs(partition, target, kind, access, trust, "") {
            Ok(()) => return Ok(()),
            Err(error) => tried.push(format!("{kind}: {error}")),
        }
    }
    Err(Error::NoFileSystem { subject: partition.display().to_string(), tried: tried.join(", ") })
}

/// Lays out everything that the image declares. `root` is the mounted image, with the state partition at `state` below it.
/// `alive` is called at each step forward.
pub fn lay_out(root: &Path, list: &StateList, alive: &dyn Fn()) -> Result<()> {
    let state = root.join("state");
    let backs: Vec<PathBuf> =
        list.persist.iter().map(|path| back(root, &state, path, alive)).collect::<Result<_>>()?;
    for (path, size) in &list.tmpfs {
        mount_tmpfs(root, path, size, alive)?;
    }
    for (path, back) in list.persist.iter().zip(&backs) {
        let under_tmpfs = list.tmpfs.iter().any(|(above, _)| path.starts_with(above));
        let missing = if under_tmpfs { Missing::MakeDirectories } else { Missing::Keep };
        let target = paths::plain(root, path, missing)?;
        linux::bind(back, &target).map_err(Error::io("mount persisted path on", &target))?;
    }
    let etc_is_fresh = list.tmpfs.iter().any(|(path, _)| Path::new("/etc").starts_with(path));
    give_machine_id(root, &state, if etc_is_fresh { Etc::Writable } else { Etc::OfTheImage })
}

/// What backs a persisted path; made from the image's content the first time, and where something else stands there: that is set aside,
/// as the other bank would fail on it alike.
fn back(root: &Path, state: &Path, path: &Path, alive: &dyn Fn()) -> Result<PathBuf> {
    let below = Path::new("persist").join(path.strip_prefix("/").unwrap_or(path));
    let parent = below.parent().unwrap_or(&below);
    let parent = paths::directories(state, parent)?;
    let back = parent.join(below.file_name().unwrap_or_default());
    let content = paths::plain(root, path, Missing::Keep)?;
    if let Ok(found) = fs::symlink_metadata(&back) {
        // A mount needs a directory on a directory, and a file on a file.
        if found.is_dir() != content.is_file() && (found.is_dir() || found.is_file()) {
            return Ok(back);
        }
        paths::set_aside(&back)?;
    }
    let fresh = parent.join(".seed");
    paths::remove_tree_if_there(&fresh)?;
    if content.exists() {
        seed::copy(&content, &fresh, alive)?;
    } else {
        fs::create_dir(&fresh).map_err(Error::io("create", &fresh))?;
    }
    // Without this flush a power cut could leave the final name with half of the content behind it.
    File::open(&parent)
        .and_then(|dir| syncfs(&dir).map_err(io::Error::from))
        .map_err(Error::io("flush", &parent))?;
    fs::rename(&fresh, &back).map_err(Error::io("rename", &fresh))?;
    paths::flush_parent(&back)?;
    Ok(back)
}

/// A tmpfs starts with the image's content: it is filled beside, then moved over it.
fn mount_tmpfs(root: &Path, path: &Path, size: &str, alive: &dyn Fn()) -> Result<()> {
    let target = paths::plain(root, path, Missing::Keep)?;
    let stage = Path::new(STAGE);
    paths::make_dirs(stage)?;
    let options = format!("size={size},mode=0755");
    linux::mount_fs(Path::new("tmpfs"), stage, "tmpfs", Access::ReadWrite, Trust::Data, &options)
        .map_err(Error::io("mount tmpfs for", path))?;
    seed::copy_into(&target, stage, alive)?;
    linux::move_mount(stage, &target).map_err(Error::io("mount tmpfs on", &target))?;
    fs::remove_dir(stage).map_err(Error::io("remove", stage))
}

/// Whether `/etc` can be written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Etc {
    /// It is a tmpfs of ours.
    Writable,
    /// It is the image's: something must be mounted over the file.
    OfTheImage,
}

fn give_machine_id(root: &Path, state: &Path, etc: Etc) -> Result<()> {
    let name = Path::new("machine-id");
    let folder = paths::directories(state, Path::new("roro"))?;
    let known = paths::plain(&folder, name, Missing::Keep)
        .and_then(|ours| paths::read_text(&ours, limits::MAX_SYSFS_BYTES))
        .unwrap_or_else(|error| {
            console::warn(&chain(&error));
            None
        });
    let ours = folder.join(name);
    if !known.is_some_and(|id| is_machine_id(&id)) {
        let id = new_machine_id(Path::new("/dev/random"))?;
        paths::remove_tree_if_there(&ours.with_extension("new"))?;
        paths::set_aside(&ours)?;
        paths::write_whole(&ours, format!("{id}\n").as_bytes(), 0o444)?;
        console::note("this machine got its id");
    }
    let target = paths::plain(root, Path::new("etc/machine-id"), Missing::Keep)?;
    match etc {
        // systemd takes a machine-id that is a mount in a writable /etc for one that waits to be committed.
        Etc::Writable => {
            paths::remove_if_there(&target)?;
            seed::copy(&ours, &target, &|| ())
        }
        Etc::OfTheImage if target.exists() => {
            linux::bind(&ours, &target).map_err(Error::io("mount machine id on", &target))
        }
        Etc::OfTheImage => {
            console::warn("the image has no /etc/machine-id: this boot gets a passing one");
            Ok(())
        }
    }
}

fn is_machine_id(text: &str) -> bool {
    let digits = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    text.len() == MACHINE_ID_DIGITS && digits && text.bytes().any(|byte| byte != b'0')
}

/// A random UUID of version 4 without dashes. `/dev/random` waits until the kernel is seeded, which takes it a second at most
/// (`try_to_generate_entropy`): machines of one make must not get one id.
fn new_machine_id(random: &Path) -> Result<String> {
    let mut bytes = [0; MACHINE_ID_DIGITS / 2];
    File::open(random).and_then(|mut file| file.read_exact(&mut bytes)).map_err(Error::io("read", random))?;
    let [_, _, _, _, _, _, version, _, variant, ..] = &mut bytes;
    *version = (*version & 0x0f) | 0x40;
    *variant = (*variant & 0x3f) | 0x80;
    Ok(hex::encode(bytes))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_list_is_sorted_parents_first() {
        let text = "persist /var/lib/kiosk\ntmpfs /var/tmp 10%\n\ntmpfs /var 64M\npersist /etc/my app\n";
        let list = parse(text).unwrap();
        assert_eq!(list.persist, [PathBuf::from("/etc/my app"), "/var/lib/kiosk".into()]);
        assert_eq!(list.tmpfs, [("/var".into(), "64M".into()), ("/var/tmp".into(), "10%".into())]);
        assert_eq!(parse("").unwrap(), StateList::default());
    }

    #[test]
    fn lines_that_would_mislead_the_boot_are_refused() {
        for text in [
            "persist",
            "persist /",
            "persist var/lib",
            "persist /var/../etc",
            "persist /state/x",
            "tmpfs /run 1M",
            "tmpfs /proc/x 1M",
            "tmpfs /var",
            "tmpfs /var 64M,mode=0777",
            "tmpfs /var M",
            "bind /var /x",
            "persist /var/lib\npersist /var/lib/x",
            "persist /var/lib\npersist /var/lib",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
        assert!(parse(&"\n".repeat(limits::MAX_STATE_LINES)).is_ok());
        assert!(parse(&"\n".repeat(limits::MAX_STATE_LINES + 1)).is_err());
    }

    #[test]
    fn persisted_path_is_seeded_once_and_an_interrupted_seed_is_redone() {
        let dir = tempfile::tempdir().unwrap();
        let (root, state) = (dir.path().join("root"), dir.path().join("state"));
        fs::create_dir_all(root.join("var/lib/x")).unwrap();
        fs::write(root.join("var/lib/x/default"), "1").unwrap();
        fs::create_dir_all(state.join("persist/var/lib/.seed/half")).unwrap();
        let path = Path::new("/var/lib/x");
        let backing = back(&root, &state, path, &|| ()).unwrap();
        assert_eq!(backing, state.join("persist/var/lib/x"));
        assert_eq!(fs::read_to_string(backing.join("default")).unwrap(), "1");
        assert!(!backing.join("half").exists());
        fs::write(backing.join("default"), "mine").unwrap();
        back(&root, &state, path, &|| ()).unwrap();
        assert_eq!(fs::read_to_string(backing.join("default")).unwrap(), "mine");
        let absent = back(&root, &state, Path::new("/var/lib/y"), &|| ()).unwrap();
        assert!(absent.is_dir());
        symlink("/etc", state.join("persist/srv")).unwrap();
        assert!(back(&root, &state, Path::new("/srv"), &|| ()).unwrap().is_dir(), "no link is followed");
        assert!(state.join("persist/srv.bad").is_symlink());
    }

    /// Each of these once stopped both banks, whose root was good.
    #[test]
    fn what_is_not_due_there_is_set_aside_and_the_path_seeded_anew() {
        let dir = tempfile::tempdir().unwrap();
        let (root, state) = (dir.path().join("root"), dir.path().join("state"));
        fs::create_dir_all(root.join("var/lib/x")).unwrap();
        fs::write(root.join("var/lib/x/default"), "1").unwrap();
        fs::create_dir_all(root.join("etc")).unwrap();
        fs::write(root.join("etc/conf"), "shipped").unwrap();
        fs::create_dir_all(state.join("persist/etc/conf")).unwrap();
        fs::write(state.join("persist/var"), "a file where a directory is due").unwrap();
        let backing = back(&root, &state, Path::new("/var/lib/x"), &|| ()).unwrap();
        assert_eq!(fs::read_to_string(backing.join("default")).unwrap(), "1");
        fs::remove_dir_all(&backing).unwrap();
        fs::write(&backing, "a file").unwrap();
        assert!(back(&root, &state, Path::new("/var/lib/x"), &|| ()).unwrap().join("default").exists());
        assert_eq!(fs::read_to_string(state.join("persist/var/lib/x.bad")).unwrap(), "a file");
        let backing = back(&root, &state, Path::new("/etc/conf"), &|| ()).unwrap();
        assert_eq!(fs::read_to_string(backing).unwrap(), "shipped");
    }

    #[test]
    fn machine_ids() {
        let id = new_machine_id(Path::new("/dev/urandom")).unwrap();
        assert!(is_machine_id(&id), "{id}");
        assert_eq!(&id[12..13], "4");
        for bad in ["", "uninitialized", &"0".repeat(32), &"A".repeat(32), &"1".repeat(33)] {
            assert!(!is_machine_id(bad), "{bad}");
        }
    }

    #[test]
    fn a_machine_id_that_cannot_be_read_is_replaced() {
        type Spoil = fn(&Path);
        let spoils: [Spoil; 5] = [
            |id| fs::write(id, "f".repeat(5000)).unwrap(),
            |id| fs::create_dir(id).unwrap(),
            |id| symlink("/etc/hostname", id).unwrap(),
            |id| fs::create_dir_all(id.with_extension("new").join("x")).unwrap(),
            |id| {
                fs::remove_dir(id.parent().unwrap()).unwrap();
                fs::write(id.parent().unwrap(), "").unwrap();
            },
        ];
        for (at, spoil) in spoils.into_iter().enumerate() {
            let dir = tempfile::tempdir().unwrap();
            let (root, state) = (dir.path().join("root"), dir.path().join("root/state"));
            fs::create_dir_all(root.join("etc")).unwrap();
            fs::create_dir_all(state.join("roro")).unwrap();
            spoil(&state.join("roro/machine-id"));
            give_machine_id(&root, &state, Etc::Writable).unwrap();
            let id = fs::read_to_string(state.join("roro/machine-id")).unwrap();
            assert!(is_machine_id(id.trim()), "{at}");
            assert_eq!(fs::read_to_string(root.join("etc/machine-id")).unwrap(), id, "{at}");
        }
    }

    #[test]
    fn machine_id_is_made_once_and_written_into_a_fresh_etc() {
        let dir = tempfile::tempdir().unwrap();
        let (root, state) = (dir.path().join("root"), dir.path().join("root/state"));
        fs::create_dir_all(root.join("etc")).unwrap();
        fs::create_dir_all(&state).unwrap();
        fs::write(root.join("etc/machine-id"), "").unwrap();
        give_machine_id(&root, &state, Etc::Writable).unwrap();
        let first = fs::read_to_string(root.join("etc/machine-id")).unwrap();
        assert!(is_machine_id(first.trim()));
        give_machine_id(&root, &state, Etc::Writable).unwrap();
        assert_eq!(fs::read_to_string(root.join("etc/machine-id")).unwrap(), first);
        assert_eq!(fs::read_to_string(state.join("roro/machine-id")).unwrap(), first);
    }
}
