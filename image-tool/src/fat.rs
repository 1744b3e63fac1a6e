//! The boot image: a FAT16 file system with `EFI/BOOT/BOOTX64.EFI` in it, made without mounting.
//!
//! Source: Microsoft's "FAT: General Overview of On-Disk Format" 1.03. The image is as large as it must be, rounded up to a MiB, not
//! as large as its partition: what is not there need not travel. The program lies in one piece and starts on a 4096-byte
//! border of the image, so that chunks and deltas see aligned data. Times and the volume number are constants.
//! Written here because the crate `fatfs` (0.3) gives `.` and `..` long names, which `fsck.vfat` refuses.

use crate::error::{Error, Result};

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

struct Geometry {
    image_bytes: u64,
    cluster_bytes: u64,
    reserved_sectors: u64,
    table_sectors: u64,
    data_offset_bytes: u64,
}

impl Geometry {
    fn for_program(program_bytes: u64) -> Result<Self> {
        let mut image_bytes =
            (program_bytes + program_bytes / 1024 + 64 * 1024).next_multiple_of(MIB).max(MIN_IMAGE_BYTES);
        loop {
            let fitting = CLUSTER_BYTES.iter().find_map(|cluster| Self::with_clusters(image_bytes, *cluster));
            let Some(found) = fitting else {
                return Err(Error::TooLarge {
                    subject: "the boot image".to_owned(),
                    needed: image_bytes,
                    available: 65_524 * 32_768,
                    hint: "take modules out of the initrd",
                });
            };
            let clusters = program_bytes.div_ceil(found.cluster_bytes) + 2;
            if found.data_offset_bytes + clusters * found.cluster_bytes <= image_bytes {
                return Ok(found);
            }
            image_bytes += MIB;
        }
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

/// Where the program starts in the image around it.
pub fn program_offset_bytes(program_bytes: u64) -> Result<u64> {
    Geometry::for_program(program_bytes).map(|geometry| geometry.data_offset_bytes)
}

/// Makes the image around one program.
pub fn boot_image(program: &[u8]) -> Result<Vec<u8>> {
    let geometry = Geometry::for_program(program.len() as u64)?;
    let program_clusters = (program.len() as u64).div_ceil(geometry.cluster_bytes).max(1) as u16;
    let outer_cluster = FIRST_CLUSTER + program_clusters;
    let inner_cluster = outer_cluster + 1;

    let mut table: Vec<u16> = vec![0xff00 | u16::from(MEDIA), END_OF_CHAIN];
    table.extend(FIRST_CLUSTER + 1..FIRST_CLUSTER + program_clusters);
    table.extend([END_OF_CHAIN; 3]);
    let table: Vec<u8> = table.into_iter().flat_map(u16::to_le_bytes).collect();
    let program_bytes =
        u32::try_from(program.len()).map_err(|_| Error::malformed("UKI", "more than 4 GiB"))?;

    let mut image = vec![
        0;
        usize::try_from(geometry.image_bytes)
            .map_err(|_| Error::malformed("UKI", "it is too large"))?
    ];
    let mut put = |offset_bytes: u64, bytes: &[u8]| {
        let place =
            usize::try_from(offset_bytes).ok().and_then(|at| image.get_mut(at..)?.get_mut(..bytes.len()));
        match place {
            Some(place) => {
                place.copy_from_slice(bytes);
                Ok(())
            }
            None => Err(Error::malformed("boot image", "a part lies outside: this is a bug in Roro")),
        }
    };
    put(0, &geometry.boot_sector())?;
    let tables_at = geometry.reserved_sectors * SECTOR_BYTES;
    for copy in 0..TABLES {
        put(tables_at + copy * geometry.table_sectors * SECTOR_BYTES, &table)?;
    }
    let root_at = tables_at + TABLES * geometry.table_sectors * SECTOR_BYTES;
    let root =
        [entry(LABEL, VOLUME_LABEL, 0, 0), entry(b"EFI        ", DIRECTORY, outer_cluster, 0)].concat();
    put(root_at, &root)?;
    let cluster_at = |cluster: u16| {
        geometry.data_offset_bytes + u64::from(cluster - FIRST_CLUSTER) * geometry.cluster_bytes
    };
    put(cluster_at(FIRST_CLUSTER), program)?;
    let outer = [
        entry(b".          ", DIRECTORY, outer_cluster, 0),
        entry(b"..         ", DIRECTORY, 0, 0),
        entry(b"BOOT       ", DIRECTORY, inner_cluster, 0),
    ];
    put(cluster_at(outer_cluster), &outer.concat())?;
    let inner = [
        entry(b".          ", DIRECTORY, inner_cluster, 0),
        entry(b"..         ", DIRECTORY, outer_cluster, 0),
        entry(b"BOOTX64 EFI", ARCHIVE, FIRST_CLUSTER, program_bytes),
    ];
    put(cluster_at(inner_cluster), &inner.concat())?;
    Ok(image)
}

fn entry(name: &[u8; 11], attributes: u8, cluster: u16, size_bytes: u32) -> Vec<u8> {
    let mut out = name.to_vec();
    out.extend([attributes, 0, 0, 0, 0]);
    out.extend(DATE.to_le_bytes());
    out.extend(DATE.to_le_bytes());
    out.extend([0, 0, 0, 0]);
    out.extend(DATE.to_le_bytes());
    out.extend(cluster.to_le_bytes());
    out.extend(size_bytes.to_le_bytes());
    out
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    const SIZES: [usize; 7] = [1, 10_000, 3 << 20, (7 << 20) + 1, 16_700_000, 25 << 20, 300 << 20];

    fn program(bytes: usize) -> Vec<u8> {
        let mut program = vec![7; bytes];
        program.iter_mut().take(5000).enumerate().for_each(|(at, byte)| *byte = at as u8);
        program
    }

    #[test]
    fn the_program_lies_in_one_piece_on_a_border() {
        for bytes in SIZES {
            let program = program(bytes);
            let image = boot_image(&program).unwrap();
            assert_eq!(image.len() % (1 << 20), 0);
            assert!(image.len() < bytes + bytes / 500 + (5 << 20), "{bytes}");
            let at = program_offset_bytes(bytes as u64).unwrap() as usize;
            assert_eq!(at % 4096, 0);
            assert!(image[at..at + bytes] == program[..]);
        }
    }

    /// `fsck.vfat` is the judge where it is installed.
    #[test]
    fn fsck_accepts_it() {
        for bytes in SIZES {
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), boot_image(&program(bytes)).unwrap()).unwrap();
            let Ok(fsck) = Command::new("fsck.vfat").arg("-nv").arg(file.path()).output() else {
                assert!(
                    std::env::var_os("CI").is_none(),
                    "fsck.vfat is missing: run `qemu-testbed setup` first"
                );
                return;
            };
            let told = String::from_utf8_lossy(&fsck.stdout);
            assert!(fsck.status.success() && told.contains("4 files"), "{told}");
        }
    }
}
