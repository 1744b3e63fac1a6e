//! Reading a tar archive into a tree. Contents stay in the archive; only their place is kept.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufReader, Seek as _},
    path::Path,
    sync::Arc,
};

use tar::EntryType;

use super::{Content, Entry, Kind, Tree, clean_path};
use crate::{
    error::{Error, Result},
    limits::{MAX_TREE_ENTRIES, MAX_XATTR_BYTES},
};

const XATTR_KEY: &str = "SCHILY.xattr.";

impl Tree {
    /// Adds what a tar archive holds. Later entries of the same path replace earlier ones.
    ///
    /// A hard link becomes a file with the same content; the EROFS writer stores equal contents once.
    pub fn import_tar(&mut self, path: &Path) -> Result<()> {
        let file = File::open(path).map_err(Error::file("open", path))?;
        let mut reader = file.try_clone().map_err(Error::file("open", path))?;
        let shared: (Arc<File>, Arc<Path>) = (Arc::new(file), path.into());
        reader.rewind().map_err(Error::file("read", path))?;
        let mut archive = tar::Archive::new(BufReader::new(reader));
        let entries = archive.entries_with_seek().map_err(Error::file("read", path))?;
        for entry in entries {
            let mut entry = entry.map_err(Error::file("read", path))?;
            if let Some((name, made)) = self.read_entry(&mut entry, path, &shared)? {
                self.put_raw(&name, made)?;
            }
            if self.len() > MAX_TREE_ENTRIES {
                return Err(Error::malformed(
                    path.display(),
                    format!("more than {MAX_TREE_ENTRIES} entries"),
                ));
            }
        }
        Ok(())
    }

    fn read_entry<R: std::io::Read>(
        &self,
        entry: &mut tar::Entry<'_, R>,
        path: &Path,
        (file, shared_path): &(Arc<File>, Arc<Path>),
    ) -> Result<Option<(String, Entry)>> {
        let raw = entry.path_bytes().into_owned();
        let name = text(path, &raw)?;
        let name = clean_path(&name).map_err(|why| Error::malformed(path.display(), why))?;
        let bad = |what: &str| Error::malformed(path.display(), format!("{name}: {what}"));
        let header = entry.header();
        let mode = header.mode().map_err(|_| bad("its mode is no number"))? & 0o7777;
        let uid = header.uid().map_err(|_| bad("its owner is no number"))?;
        let gid = header.gid().map_err(|_| bad("its group is no number"))?;
        let device = || -> Result<(u32, u32)> {
            let read =
                |value: std::io::Result<Option<u32>>| value.ok().flatten().ok_or_else(|| bad("bad device"));
            Ok((read(header.device_major())?, read(header.device_minor())?))
        };
        let target = || -> Result<String> {
            let link = entry.link_name_bytes().ok_or_else(|| bad("a link without target"))?;
            text(path, &link)
        };
        let kind = match header.entry_type() {
            EntryType::Directory => Kind::Directory,
            EntryType::Regular | EntryType::Continuous => Kind::File(Content::Slice {
                file: Arc::clone(file),
                path: Arc::clone(shared_path),
                offset_bytes: entry.raw_file_position(),
                len_bytes: entry.size(),
            }),
            EntryType::Symlink => Kind::Symlink(target()?),
            EntryType::Link => {
                let target = clean_path(&target()?).map_err(|why| bad(&why))?;
                let linked = self.get(&target).ok_or_else(|| bad("a hard link to nothing"))?;
                return Ok(Some((name, linked.clone())));
            }
            EntryType::Char => {
                let (major, minor) = device()?;
                Kind::CharDevice { major, minor }
            }
            EntryType::Block => {
                let (major, minor) = device()?;
                Kind::BlockDevice { major, minor }
            }
            EntryType::Fifo => Kind::Fifo,
            EntryType::XGlobalHeader => return Ok(None),
            _ => return Err(bad("an entry of unknown type")),
        };
        let mode = u16::try_from(mode).map_err(|_| bad("its mode is too large"))?;
        let uid = u32::try_from(uid).map_err(|_| bad("its owner is too large"))?;
        let gid = u32::try_from(gid).map_err(|_| bad("its group is too large"))?;
        let xattrs = xattrs(entry, path)?;
        Ok(Some((name, Entry { kind, mode, uid, gid, xattrs })))
    }
}

fn xattrs<R: std::io::Read>(entry: &mut tar::Entry<'_, R>, path: &Path) -> Result<BTreeMap<String, Vec<u8>>> {
    let mut found = BTreeMap::new();
    let Some(extensions) = entry.pax_extensions().map_err(Error::file("read", path))? else {
        return Ok(found);
    };
    for extension in extensions {
        let extension = extension.map_err(Error::file("read", path))?;
        let Ok(key) = extension.key() else { continue };
        if let Some(name) = key.strip_prefix(XATTR_KEY) {
            found.insert(name.to_owned(), extension.value_bytes().to_vec());
        }
    }
    if found.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>() > MAX_XATTR_BYTES {
        return Err(Error::malformed(path.display(), "an entry with too many extended attributes"));
    }
    Ok(found)
}

fn text(path: &Path, bytes: &[u8]) -> Result<String> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Ok(text.to_owned()),
        Err(_) => {
            let shown = String::from_utf8_lossy(bytes).into_owned();
            Err(Error::malformed(path.display(), format!("the name {shown} is not UTF-8")))
        }
    }
}
