//! FAT16 file systems, made without mounting: the boot image of a bank, and the partition of a loader.
//!
//! Source: Microsoft's "FAT: General Overview of On-Disk Format" 1.03. Every file lies in one piece, in the order given, and the first
//! one starts on a 4096-byte border, so that chunks and deltas see aligned data and a loader or a device can know a file by its
//! place. Times and the volume number are constants: the same files give the same bytes.
//! Written here because the crate `fatfs` (0.3) gives `.` and `..` long names, which `fsck.vfat` refuses.

mod names;

use std::collections::BTreeMap;

use crate::{
    error::{Error, Result},
    limits::{MAX_FAT_BYTES, MAX_FAT_ENTRIES},
    tree::Content,
};

/// Where firmware looks for the program of a disk without boot entries.
pub const BOOT_PATH: &str = "EFI/BOOT/BOOTX64.EFI";

const MIB: u64 = 1 << 20;
const SECTOR_BYTES: u64 = 512;
const ALIGN_BYTES: u64 = 4096;
const MIN_IMAGE_BYTES: u64 = 4 * MIB;
const ROOT_ENTRIES: u16 = 64;
const ENTRY_BYTES: u64 = 32;
const TABLES: u64 = 2;
/// A volume with fewer clusters would be FAT12, one with more FAT32.
const CLUSTERS_OF_FAT16: std::ops::RangeInclusive<u64> = 4085..=65_524;
const CLUSTER_BYTES: [u64; 7] = [4096, 2048, 1024, 512, 8192, 16384, 32768];
const FIRST_CLUSTER: u16 = 2;
const END_OF_CHAIN: u16 = 0xffff;
const MEDIA: u8 = 0xf8;
const VOLUME_ID: u32 = 0x524f_524f;
const LABEL: &[u8; 11] = b"RORO-BOOT  ";
const DIRECTORY: u8 = 0x10;
const VOLUME_LABEL: u8 = 0x08;
const ARCHIVE: u8 = 0x20;
/// 1 January 1980, the first day that FAT knows.
const DATE: u16 = 0x0021;

/// A file of a volume.
#[derive(Debug, Clone)]
pub struct File {
    /// Path with slashes, without a leading one.
    pub path: String,
    /// What stands in it.
    pub content: Content,
    /// Bytes of the file: at least those of the content, zeros behind them.
    pub file_bytes: u64,
}

impl File {
    /// A file as long as its content.
    pub fn new(path: impl Into<String>, content: impl Into<Content>) -> Self {
        let content = content.into();
        Self { path: path.into(), file_bytes: content.len_bytes(), content }
    }

    /// A file of a fixed size, whose space is there to be written over.
    pub fn fixed(path: impl Into<String>, content: impl Into<Content>, file_bytes: u64) -> Self {
        Self { path: path.into(), content: content.into(), file_bytes }
    }
}

/// How large a volume becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Size {
    /// As small as it can be, in MiB: what is not there need not travel.
    Least,
    /// These bytes.
    Exactly(u64),
}

/// Where a file lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// First byte, from the start of the volume; 0 where the file is empty.
    pub offset_bytes: u64,
    /// Bytes of the file.
    pub file_bytes: u64,
}

/// A volume: what is not in a piece is zero.
#[derive(Debug, Clone)]
pub struct Volume {
    /// Bytes of the whole.
    pub bytes: u64,
    /// Offset and content, in no order, none over another.
    pub pieces: Vec<(u64, Content)>,
    /// Where each file lies, in the order in which they were given.
    pub extents: Vec<Extent>,
}

impl Volume {
    /// The volume in memory.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let bytes = usize::try_from(self.bytes).map_err(|_| outside())?;
        let mut image = vec![0; bytes];
        for (offset_bytes, content) in &self.pieces {
            let mut at = usize::try_from(*offset_bytes).map_err(|_| outside())?;
            content.for_each_piece(&mut |piece| {
                let place = image.get_mut(at..).and_then(|rest| rest.get_mut(..piece.len()));
                place.ok_or_else(outside)?.copy_from_slice(piece);
                at += piece.len();
                Ok(())
            })?;
        }
        Ok(image)
    }
}

fn outside() -> Error {
    Error::Bug { what: "a part of a FAT volume lies outside" }
}

/// Makes the boot image around one program.
pub fn boot_image(program: &[u8]) -> Result<Vec<u8>> {
    volume(&[File::new(BOOT_PATH, program.to_vec())], Size::Least)?.to_bytes()
}

/// Makes a volume.
pub fn volume(files: &[File], size: Size) -> Result<Volume> {
    let directories = Directories::of(files)?;
    let geometry = Geometry::for_files(files, &directories, size)?;
    let mut writer = Writer {
        table: vec![0xff00 | u16::from(MEDIA), END_OF_CHAIN],
        volume: Volume { bytes: geometry.image_bytes, pieces: Vec::new(), extents: Vec::new() },
        geometry,
    };
    let mut starts = BTreeMap::new();
    for file in files {
        let (cluster, offset_bytes) = writer.allocate(file.file_bytes)?;
        starts.insert(file.path.as_str(), (cluster, file.file_bytes));
        writer.volume.extents.push(Extent { offset_bytes, file_bytes: file.file_bytes });
        if file.content.len_bytes() > 0 {
            writer.volume.pieces.push((offset_bytes, file.content.clone()));
        }
    }
    let mut offsets = BTreeMap::new();
    for (path, children) in directories.0.iter().filter(|(path, _)| !path.is_empty()) {
        let (cluster, offset_bytes) = writer.allocate(directory_bytes(children)?)?;
        starts.insert(path, (cluster, 0));
        offsets.insert(path.as_str(), offset_bytes);
    }
    for (path, children) in &directories.0 {
        let start = |path: &str| starts.get(path).copied().unwrap_or_default();
        let mut entries = match path.rsplit_once('/') {
            None if path.is_empty() => entry(LABEL, VOLUME_LABEL, 0, 0).to_vec(),
            parent => {
                let above = parent.map_or(0, |(above, _)| start(above).0);
                [
                    entry(b".          ", DIRECTORY, start(path).0, 0),
                    entry(b"..         ", DIRECTORY, above, 0),
                ]
                .concat()
            }
        };
        for (child, name) in names::of_directory(children)? {
            let whole = join(path, child);
            let (cluster, file_bytes) = start(&whole);
            let attributes = if directories.0.contains_key(&whole) { DIRECTORY } else { ARCHIVE };
            let file_bytes = u32::try_from(file_bytes)
                .map_err(|_| Error::malformed(&whole, "more than 4 GiB, which FAT cannot hold"))?;
            entries.extend(name.long_entries.concat());
            entries.extend(entry(&name.short, attributes, cluster, file_bytes));
        }
        let root_at = writer.geometry.root_offset_bytes();
        let at = offsets.get(path.as_str()).copied().unwrap_or(root_at);
        writer.volume.pieces.push((at, entries.into()));
    }
    writer.finish()
}

/// Directories by path, the root as the empty one, each with the names in it.
struct Directories(BTreeMap<String, Vec<String>>);

impl Directories {
    fn of(files: &[File]) -> Result<Self> {
        let mut all: BTreeMap<String, Vec<String>> = BTreeMap::from([(String::new(), Vec::new())]);
        for file in files {
            if file.content.len_bytes() > file.file_bytes {
                return Err(Error::TooLarge {
                    subject: format!("the content of {}", file.path),
                    needed: file.content.len_bytes(),
                    available: file.file_bytes,
                    hint: "raise boot_mib in [disk] of the appliance, or take modules out of the initrd",
                });
            }
            let mut above = String::new();
            for part in file.path.split('/') {
                let path = join(&above, part);
                let siblings = all.entry(above).or_default();
                if siblings.iter().any(|known| known != part && known.eq_ignore_ascii_case(part)) {
                    return Err(Error::malformed(&path, "another name there differs in case only"));
                }
                if !siblings.iter().any(|known| known == part) {
                    siblings.push(part.to_owned());
                } else if path == file.path {
                    return Err(Error::malformed(&path, "it is there twice"));
                }
                above = path;
            }
        }
        if let Some(path) = files.iter().map(|file| &file.path).find(|path| all.contains_key(*path)) {
            return Err(Error::malformed(path, "it is a file and a directory"));
        }
        if all.values().map(Vec::len).sum::<usize>() > MAX_FAT_ENTRIES {
            return Err(Error::malformed("FAT volume", format!("more than {MAX_FAT_ENTRIES} files")));
        }
        let root = all.get("").map(|names| directory_bytes_of_root(names)).transpose()?.unwrap_or_default();
        if root > u64::from(ROOT_ENTRIES) * ENTRY_BYTES {
            return Err(Error::malformed("FAT volume", "too many files in its root directory"));
        }
        Ok(Self(all))
    }
}

fn join(directory: &str, name: &str) -> String {
    if directory.is_empty() { name.to_owned() } else { format!("{directory}/{name}") }
}

/// Bytes of a directory with these names, `.` and `..` included.
fn directory_bytes(children: &[String]) -> Result<u64> {
    Ok(directory_bytes_of_root(children)? + ENTRY_BYTES)
}

/// The root has a label in place of `.` and `..`.
fn directory_bytes_of_root(children: &[String]) -> Result<u64> {
    let names = names::of_directory(children)?;
    let rows: usize = names.iter().map(|(_, name)| name.long_entries.len() + 1).sum();
    Ok((rows as u64 + 1) * ENTRY_BYTES)
}

struct Geometry {
    image_bytes: u64,
    cluster_bytes: u64,
    reserved_sectors: u64,
    table_sectors: u64,
    data_offset_bytes: u64,
}

impl Geometry {
    fn for_files(files: &[File], directories: &Directories, size: Size) -> Result<Self> {
        let too_large = |needed| Error::TooLarge {
            subject: "a FAT volume".to_owned(),
            needed,
            available: match size {
                Size::Least => MAX_FAT_BYTES,
                Size::Exactly(bytes) => bytes,
            },
            hint: "raise boot_mib in [disk] of the appliance, or take modules out of the initrd",
        };
        let mut lengths: Vec<u64> = files.iter().map(|file| file.file_bytes).collect();
        for (_, children) in directories.0.iter().filter(|(path, _)| !path.is_empty()) {
            lengths.push(directory_bytes(children)?);
        }
        let content_bytes: u64 =
            lengths.iter().try_fold(0u64, |sum, len| sum.checked_add(*len)).unwrap_or(u64::MAX);
        if content_bytes > MAX_FAT_BYTES {
            return Err(too_large(content_bytes));
        }
        let fits = |found: &Self| {
            let clusters: u64 = lengths.iter().map(|len| len.div_ceil(found.cluster_bytes)).sum();
            found.data_offset_bytes + clusters * found.cluster_bytes <= found.image_bytes
        };
        let fitting =
            |image_bytes| CLUSTER_BYTES.iter().find_map(|cluster| Self::with_clusters(image_bytes, *cluster));
        let mut image_bytes = match size {
            Size::Exactly(bytes) => {
                return fitting(bytes).filter(fits).ok_or_else(|| too_large(content_bytes));
            }
            Size::Least => {
                let file_bytes = files.iter().map(|file| file.file_bytes).sum::<u64>();
                (file_bytes + file_bytes / 1024 + 64 * 1024).next_multiple_of(MIB).max(MIN_IMAGE_BYTES)
            }
        };
        while let Some(found) = fitting(image_bytes) {
            if fits(&found) {
                return Ok(found);
            }
            image_bytes += MIB;
        }
        Err(too_large(image_bytes))
    }

    fn with_clusters(image_bytes: u64, cluster_bytes: u64) -> Option<Self> {
        let most_clusters = image_bytes / cluster_bytes;
        let table_sectors = ((most_clusters + 2) * 2).div_ceil(SECTOR_BYTES);
        let behind_reserved = TABLES * table_sectors * SECTOR_BYTES + u64::from(ROOT_ENTRIES) * ENTRY_BYTES;
        let data_offset_bytes = (SECTOR_BYTES + behind_reserved).next_multiple_of(ALIGN_BYTES);
        let clusters = image_bytes.checked_sub(data_offset_bytes)? / cluster_bytes;
        let reserved_sectors = (data_offset_bytes - behind_reserved) / SECTOR_BYTES;
        CLUSTERS_OF_FAT16.contains(&clusters).then_some(Self {
            image_bytes,
            cluster_bytes,
            reserved_sectors,
            table_sectors,
            data_offset_bytes,
        })
    }

    fn table_offset_bytes(&self) -> u64 {
        self.reserved_sectors * SECTOR_BYTES
    }

    fn root_offset_bytes(&self) -> u64 {
        self.table_offset_bytes() + TABLES * self.table_sectors * SECTOR_BYTES
    }

    fn boot_sector(&self) -> Vec<u8> {
        let short = |value: u64| (value as u16).to_le_bytes(); // each fits: bounded by the cluster counts of FAT16
        let sectors = self.image_bytes / SECTOR_BYTES;
        let mut out = vec![0xeb, 0x3c, 0x90];
        out.extend(b"RORO    ");
        out.extend(short(SECTOR_BYTES));
        out.push((self.cluster_bytes / SECTOR_BYTES) as u8);
        out.extend(short(self.reserved_sectors));
        out.push(TABLES as u8);
        out.extend(ROOT_ENTRIES.to_le_bytes());
        out.extend(short(if sectors < 65_536 { sectors } else { 0 }));
        out.push(MEDIA);
        out.extend(short(self.table_sectors));
        out.extend([32, 0, 64, 0]); // sectors per track and heads, which nobody asks for any more
        out.extend(0u32.to_le_bytes());
        out.extend((if sectors < 65_536 { 0 } else { sectors as u32 }).to_le_bytes());
        out.extend([0x80, 0, 0x29]);
        out.extend(VOLUME_ID.to_le_bytes());
        out.extend(LABEL);
        out.extend(b"FAT16   ");
        out.resize(510, 0);
        out.extend([0x55, 0xaa]);
        out
    }
}

struct Writer {
    geometry: Geometry,
    table: Vec<u16>,
    volume: Volume,
}

impl Writer {
    /// A chain of clusters in a row; gives the first, and where it lies. What is empty has none, and number 0.
    fn allocate(&mut self, bytes: u64) -> Result<(u16, u64)> {
        if bytes == 0 {
            return Ok((0, 0));
        }
        let number = |count: u64| u16::try_from(count).map_err(|_| outside());
        let clusters = bytes.div_ceil(self.geometry.cluster_bytes);
        let first = self.table.len() as u64;
        let behind = number(first + clusters)?;
        let first = number(first)?;
        self.table.extend(first + 1..behind);
        self.table.push(END_OF_CHAIN);
        let offset = u64::from(first - FIRST_CLUSTER) * self.geometry.cluster_bytes;
        Ok((first, self.geometry.data_offset_bytes + offset))
    }

    fn finish(mut self) -> Result<Volume> {
        let table: Vec<u8> = self.table.into_iter().flat_map(u16::to_le_bytes).collect();
        self.volume.pieces.push((0, self.geometry.boot_sector().into()));
        for copy in 0..TABLES {
            let at = self.geometry.table_offset_bytes() + copy * self.geometry.table_sectors * SECTOR_BYTES;
            self.volume.pieces.push((at, table.clone().into()));
        }
        Ok(self.volume)
    }
}

fn entry(name: &[u8; 11], attributes: u8, cluster: u16, size_bytes: u32) -> [u8; 32] {
    let mut out = name.to_vec();
    out.extend([attributes, 0, 0, 0, 0]);
    out.extend(DATE.to_le_bytes());
    out.extend(DATE.to_le_bytes());
    out.extend([0, 0, 0, 0]);
    out.extend(DATE.to_le_bytes());
    out.extend(cluster.to_le_bytes());
    out.extend(size_bytes.to_le_bytes());
    let mut row = [0; 32];
    row.iter_mut().zip(out).for_each(|(to, from)| *to = from);
    row
}

#[cfg(test)]
mod tests;
