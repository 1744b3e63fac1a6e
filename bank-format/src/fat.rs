//! Where a file lies on a FAT file system, so that its content can be overwritten in place.
//!
//! Source: Microsoft's "FAT: General Overview of On-Disk Format" 1.03. Reads only: the boot sector, the directories on the way and the
//! file's chain of clusters; FAT12, FAT16 and FAT32, short and long names, upper and lower case alike. Deliberately absent: any
//! write to the file system itself, and the code pages of short names (their letters beyond ASCII are not known). A file that is not
//! in one piece is refused, as one write must do.

use crate::{
    error::{Error, Result},
    limits::{MAX_FAT_CHAIN, MAX_FAT_ENTRIES},
};

const STRUCTURE: &str = "FAT file system";
const ENTRY_BYTES: usize = 32;
const FIRST_CLUSTER: u32 = 2;
const VOLUME_LABEL: u8 = 0x08;
const DIRECTORY: u8 = 0x10;
const LONG_NAME: u8 = 0x0f;
/// UTF-16 units of a part of a long name, and where they stand.
const LONG_NAME_UNITS: [usize; 13] = [1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30];
const MOST_LONG_NAME_PARTS: u8 = 20;

/// Where a file lies, from the start of the file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// First byte.
    pub offset_bytes: u64,
    /// Bytes of the content.
    pub file_bytes: u64,
    /// Bytes up to the end of its last cluster.
    pub space_bytes: u64,
}

/// Why a file was not found.
#[derive(Debug, thiserror::Error)]
pub enum FatError<E> {
    /// The medium failed.
    #[error("cannot read the FAT file system")]
    Read {
        /// The medium's words.
        source: E,
    },
    /// It is not there.
    #[error("there is no file {path}")]
    NotFound {
        /// What was looked for.
        path: String,
    },
    /// Its clusters do not follow each other.
    #[error("{path} is not in one piece: copy it anew onto an empty file system")]
    Scattered {
        /// Which file.
        path: String,
    },
    /// It is no FAT, or a broken one.
    #[error(transparent)]
    Format(#[from] Error),
}

/// Finds a file by its path, parts separated by `/`. `read` fills its buffer from an offset of the file system.
pub fn find_file<E>(
    read: impl FnMut(u64, &mut [u8]) -> Result<(), E>,
    path: &str,
) -> Result<Extent, FatError<E>> {
    let mut volume = Volume::open(read)?;
    let not_found = || FatError::NotFound { path: path.to_owned() };
    let mut parts = path.split('/').filter(|part| !part.is_empty()).peekable();
    let mut folder = volume.root;
    while let Some(part) = parts.next() {
        let entry = volume.find(folder, part)?.ok_or_else(not_found)?;
        match (entry.is, parts.peek()) {
            (Is::Folder, Some(_)) => folder = Folder::Chain(entry.first_cluster),
            (Is::File, None) => return volume.extent(&entry, path),
            (Is::Folder, None) | (Is::File, Some(_)) => return Err(not_found()),
        }
    }
    Err(not_found())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Fat12,
    Fat16,
    Fat32,
}

#[derive(Debug, Clone, Copy)]
enum Folder {
    /// The root of FAT12 and FAT16: so many entries from an offset.
    Fixed {
        offset_bytes: u64,
        entries: u32,
    },
    Chain(u32),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Is {
    File,
    Folder,
}

#[derive(Debug)]
struct Entry {
    is: Is,
    first_cluster: u32,
    file_bytes: u32,
}

struct Volume<R> {
    read: R,
    kind: Kind,
    table_offset_bytes: u64,
    data_offset_bytes: u64,
    cluster_bytes: u64,
    /// Clusters are counted from 2 up to this, which is excluded.
    end_cluster: u32,
    root: Folder,
}

fn broken(detail: &str) -> Error {
    Error::malformed(STRUCTURE, detail)
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    let found = bytes.get(at..).and_then(<[u8]>::first_chunk);
    found.map_or(0, |bytes| u16::from_le_bytes(*bytes))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let found = bytes.get(at..).and_then(<[u8]>::first_chunk);
    found.map_or(0, |bytes| u32::from_le_bytes(*bytes))
}

impl<E, R: FnMut(u64, &mut [u8]) -> Result<(), E>> Volume<R> {
    fn open(mut read: R) -> Result<Self, FatError<E>> {
        let mut boot = [0; 512];
        read(0, &mut boot).map_err(|source| FatError::Read { source })?;
        let sector_bytes = u64::from(u16_at(&boot, 11));
        let [_, _, _, _, _, _, _, _, _, _, _, _, _, sectors_per_cluster, ..] = boot;
        if u16_at(&boot, 510) != 0xaa55
            || !matches!(sector_bytes, 512 | 1024 | 2048 | 4096)
            || !sectors_per_cluster.is_power_of_two()
        {
            return Err(broken("its first sector is none of a FAT").into());
        }
        let reserved = u64::from(u16_at(&boot, 14));
        let tables = u64::from(boot.get(16).copied().unwrap_or_default());
        let root_entries = u16_at(&boot, 17);
        let sectors = match u16_at(&boot, 19) {
            0 => u64::from(u32_at(&boot, 32)),
            few => u64::from(few),
        };
        let small_table = u16_at(&boot, 22);
        let table_sectors = match small_table {
            0 => u64::from(u32_at(&boot, 36)),
            few => u64::from(few),
        };
        let root_sectors = (u64::from(root_entries) * ENTRY_BYTES as u64).div_ceil(sector_bytes);
        // None of these can overflow: each factor has 32 bits at most, and the first one 8.
        let root_sector = reserved + tables * table_sectors;
        let data_sector = root_sector + root_sectors;
        let data_sectors =
            sectors.checked_sub(data_sector).ok_or_else(|| broken("it ends before its files begin"))?;
        let clusters = u32::try_from(data_sectors / u64::from(sectors_per_cluster))
            .map_err(|_| broken("it has too many clusters"))?;
        let kind = match (small_table, clusters) {
            (0, _) => Kind::Fat32,
            (_, ..4085) => Kind::Fat12,
            (_, 4085..) => Kind::Fat16,
        };
        let root = match kind {
            Kind::Fat32 => Folder::Chain(u32_at(&boot, 44)),
            Kind::Fat12 | Kind::Fat16 => {
                Folder::Fixed { offset_bytes: root_sector * sector_bytes, entries: u32::from(root_entries) }
            }
        };
        Ok(Self {
            read,
            kind,
            table_offset_bytes: reserved * sector_bytes,
            data_offset_bytes: data_sector * sector_bytes,
            cluster_bytes: u64::from(sectors_per_cluster) * sector_bytes,
            end_cluster: clusters.saturating_add(FIRST_CLUSTER),
            root,
        })
    }

    fn bytes(&mut self, offset: u64, buffer: &mut [u8]) -> Result<(), FatError<E>> {
        (self.read)(offset, buffer).map_err(|source| FatError::Read { source })
    }

    fn cluster_offset(&self, cluster: u32) -> Result<u64, FatError<E>> {
        if !(FIRST_CLUSTER..self.end_cluster).contains(&cluster) {
            return Err(broken("a chain leads to a cluster that is not there").into());
        }
        Ok(self.data_offset_bytes + u64::from(cluster - FIRST_CLUSTER) * self.cluster_bytes)
    }

    /// The cluster behind this one, or nothing at the end of the chain.
    fn following(&mut self, cluster: u32) -> Result<Option<u32>, FatError<E>> {
        let cluster_number = u64::from(cluster);
        let (at, width) = match self.kind {
            Kind::Fat12 => (cluster_number + cluster_number / 2, 2),
            Kind::Fat16 => (cluster_number * 2, 2),
            Kind::Fat32 => (cluster_number * 4, 4),
        };
        let mut buffer = [0; 4];
        let (buffer_part, _) = buffer.split_at_mut(width);
        self.bytes(self.table_offset_bytes + at, buffer_part)?;
        let value = u32::from_le_bytes(buffer);
        let (value, end) = match self.kind {
            Kind::Fat12 if cluster % 2 == 1 => (value >> 4, 0xff8),
            Kind::Fat12 => (value & 0xfff, 0xff8),
            Kind::Fat16 => (value, 0xfff8),
            Kind::Fat32 => (value & 0x0fff_ffff, 0x0fff_fff8),
        };
        Ok((value < end).then_some(value))
    }

    fn find(&mut self, folder: Folder, name: &str) -> Result<Option<Entry>, FatError<E>> {
        let mut search = Search { wanted: name.to_lowercase(), long: LongName::default() };
        let mut seen = 0;
        let mut run = match folder {
            Folder::Fixed { offset_bytes, entries } => (offset_bytes, entries, None),
            Folder::Chain(first) => (self.cluster_offset(first)?, self.entries_in_cluster(), Some(first)),
        };
        loop {
            let (offset, entries, cluster) = run;
            for at in 0..entries {
                seen += 1;
                if seen > MAX_FAT_ENTRIES {
                    return Err(broken("a directory does not end").into());
                }
                let mut entry = [0; ENTRY_BYTES];
                self.bytes(offset + u64::from(at) * ENTRY_BYTES as u64, &mut entry)?;
                match search.look_at(&entry) {
                    Look::On => (),
                    Look::End => return Ok(None),
                    Look::Found(found) => return Ok(Some(found)),
                }
            }
            let Some(cluster) = cluster else { return Ok(None) };
            let Some(next) = self.following(cluster)? else { return Ok(None) };
            run = (self.cluster_offset(next)?, self.entries_in_cluster(), Some(next));
        }
    }

    fn entries_in_cluster(&self) -> u32 {
        (self.cluster_bytes / ENTRY_BYTES as u64) as u32 // at most 128 sectors of 4096 bytes
    }

    fn extent(&mut self, entry: &Entry, path: &str) -> Result<Extent, FatError<E>> {
        if entry.first_cluster == 0 {
            return Err(broken(&format!("{path} is empty")).into());
        }
        let offset_bytes = self.cluster_offset(entry.first_cluster)?;
        let mut cluster = entry.first_cluster;
        let mut clusters = 1;
        while let Some(next) = self.following(cluster)? {
            if next != cluster.saturating_add(1) {
                return Err(FatError::Scattered { path: path.to_owned() });
            }
            self.cluster_offset(next)?;
            cluster = next;
            clusters += 1;
            if clusters > MAX_FAT_CHAIN {
                return Err(broken(&format!("{path} does not end")).into());
            }
        }
        let space_bytes = u64::from(clusters) * self.cluster_bytes;
        let file_bytes = u64::from(entry.file_bytes);
        if file_bytes > space_bytes {
            return Err(broken(&format!("{path} is longer than its clusters")).into());
        }
        Ok(Extent { offset_bytes, file_bytes, space_bytes })
    }
}

enum Look {
    On,
    End,
    Found(Entry),
}

struct Search {
    wanted: String,
    long: LongName,
}

impl Search {
    fn look_at(&mut self, entry: &[u8; ENTRY_BYTES]) -> Look {
        let [first, ..] = *entry;
        let attributes = entry.get(11).copied().unwrap_or_default();
        match first {
            0 => return Look::End,
            0xe5 => {
                self.long = LongName::default();
                return Look::On;
            }
            _ => (),
        }
        if attributes & 0x3f == LONG_NAME {
            self.long.take(entry);
            return Look::On;
        }
        let long = std::mem::take(&mut self.long).of(entry);
        if attributes & VOLUME_LABEL != 0 {
            return Look::On;
        }
        let matches = [long, Some(short_name(entry))]
            .into_iter()
            .flatten()
            .any(|name| name.to_lowercase() == self.wanted);
        if !matches {
            return Look::On;
        }
        let is = if attributes & DIRECTORY == 0 { Is::File } else { Is::Folder };
        let first_cluster = u32::from(u16_at(entry, 20)) << 16 | u32::from(u16_at(entry, 26));
        Look::Found(Entry { is, first_cluster, file_bytes: u32_at(entry, 28) })
    }
}

fn short_name(entry: &[u8; ENTRY_BYTES]) -> String {
    let part = |range: std::ops::Range<usize>| {
        String::from_utf8_lossy(entry.get(range).unwrap_or_default()).trim_end_matches(' ').to_owned()
    };
    let (name, extension) = (part(0..8), part(8..11));
    if extension.is_empty() { name } else { format!("{name}.{extension}") }
}

/// The parts of a long name, which stand before their short entry, the last part first.
#[derive(Default)]
struct LongName {
    units: Vec<u16>,
    next_part: u8,
    checksum: u8,
}

impl LongName {
    fn take(&mut self, entry: &[u8; ENTRY_BYTES]) {
        let [order, ..] = *entry;
        let checksum = entry.get(13).copied().unwrap_or_default();
        let part = order & 0x3f;
        if order & 0x40 != 0 && (1..=MOST_LONG_NAME_PARTS).contains(&part) {
            *self = Self { units: Vec::new(), next_part: part, checksum };
        } else if part == 0 || part != self.next_part || checksum != self.checksum {
            *self = Self::default();
            return;
        }
        self.next_part = part - 1;
        let mut units: Vec<u16> = LONG_NAME_UNITS.iter().map(|at| u16_at(entry, *at)).collect();
        units.append(&mut self.units);
        self.units = units;
    }

    /// The whole name, if it belongs to this short entry.
    fn of(self, entry: &[u8; ENTRY_BYTES]) -> Option<String> {
        let checksum = entry.iter().take(11).fold(0u8, |sum, byte| sum.rotate_right(1).wrapping_add(*byte));
        if self.units.is_empty() || self.next_part != 0 || checksum != self.checksum {
            return None;
        }
        let units: Vec<u16> = self.units.into_iter().take_while(|unit| *unit != 0).collect();
        String::from_utf16(&units).ok()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A FAT16 of 5000 clusters of one sector each, with this root directory.
    fn volume(root: &[[u8; 32]], table: &[(usize, u16)]) -> Vec<u8> {
        let mut disk = vec![0; 5100 * 512];
        disk[11..13].copy_from_slice(&512u16.to_le_bytes());
        disk[13] = 1;
        disk[14] = 1;
        disk[16] = 2;
        disk[17] = 16;
        disk[19..21].copy_from_slice(&5100u16.to_le_bytes());
        disk[22] = 20;
        disk[510..512].copy_from_slice(&[0x55, 0xaa]);
        for (cluster, next) in table {
            disk[512 + cluster * 2..][..2].copy_from_slice(&next.to_le_bytes());
        }
        disk[41 * 512..][..root.len() * 32].copy_from_slice(root.as_flattened());
        disk
    }

    fn entry(name: &[u8; 11], cluster: u16, bytes: u32) -> [u8; 32] {
        let mut entry = [0; 32];
        entry[..11].copy_from_slice(name);
        entry[26..28].copy_from_slice(&cluster.to_le_bytes());
        entry[28..].copy_from_slice(&bytes.to_le_bytes());
        entry
    }

    fn find(disk: &[u8], path: &str) -> Result<Extent, FatError<()>> {
        let read = |offset: u64, buffer: &mut [u8]| {
            let end = usize::try_from(offset).ok().and_then(|at| disk.get(at..)?.get(..buffer.len()));
            buffer.copy_from_slice(end.ok_or(())?);
            Ok(())
        };
        find_file(read, path)
    }

    #[test]
    fn a_file_in_one_piece_is_found_and_another_is_refused() {
        let files = [
            entry(b"WHOLE   TXT", 2, 700),
            entry(b"PIECES  TXT", 4, 700),
            entry(b"CIRCLE  TXT", 6, 700),
            entry(b"SHORT   TXT", 8, 700),
            entry(b"EMPTY   TXT", 0, 0),
        ];
        let chains = [(2, 3), (3, 0xffff), (4, 9), (9, 0xffff), (6, 7), (7, 6), (8, 0xfff8)];
        let disk = volume(&files, &chains);
        let expected = Extent { offset_bytes: 42 * 512, file_bytes: 700, space_bytes: 1024 };
        assert_eq!(find(&disk, "/whole.TXT").unwrap(), expected);
        assert!(matches!(find(&disk, "pieces.txt"), Err(FatError::Scattered { .. })));
        assert!(matches!(find(&disk, "circle.txt"), Err(FatError::Scattered { .. })));
        assert!(matches!(find(&disk, "short.txt"), Err(FatError::Format(_))));
        assert!(matches!(find(&disk, "empty.txt"), Err(FatError::Format(_))));
        for absent in ["", "/", "other", "whole.txt/x", "wholetxt"] {
            assert!(matches!(find(&disk, absent), Err(FatError::NotFound { .. })), "{absent}");
        }
    }

    proptest! {
        #[test]
        fn never_panics_and_always_ends(
            noise in proptest::collection::vec((0usize..5100 * 512, any::<u8>()), 0..60),
            head in proptest::collection::vec((0usize..64, any::<u8>()), 0..6),
            long in proptest::collection::vec(any::<[u8; 32]>(), 0..8),
        ) {
            let mut root = long;
            root.push(entry(b"WHOLE   TXT", 2, 700));
            let mut disk = volume(&root, &[(2, 3), (3, 0xffff)]);
            for (at, byte) in noise.into_iter().chain(head) {
                disk[at] = byte;
            }
            let _ = find(&disk, "whole.txt");
            let _ = find(&disk[..disk.len() / 2], "some folder/a longer name.conf");
        }
    }
}
