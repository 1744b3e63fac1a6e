//! The index of the partition `loader`: by it GRUB sees its own block as the file `/grub.env`.
//!
//! GRUB's `save_env` writes into files only: given a list of blocks it says "sparse file not allowed" (seen with 2.06). So the upper
//! half of the partition is the index of an ISO 9660 file system (ECMA-119), which starts 32 KiB behind the partition's first byte
//! and may name blocks anywhere, also those of GRUB's block. It is the same on every device, and nobody writes it after the
//! factory, unless it was lost. Only what GRUB reads is there: no path tables, no dates.

/// Where the index starts, in bytes: ECMA-119 leaves the first 16 blocks to the system.
pub const INDEX_OFFSET: u64 = 16 * ISO_BLOCK_BYTES as u64;
/// Bytes of the index.
pub const INDEX_BYTES: usize = 3 * ISO_BLOCK_BYTES;

const LOADER_BYTES: usize = 64 << 10;
const BLOCK_BYTES: usize = 1024;
const OWN_OFFSET: u64 = 8192;
const ISO_BLOCK_BYTES: usize = 2048;
const ROOT_FOLDER_BLOCK: u32 = 18;
const FILE: &[u8] = b"GRUB.ENV;1";

/// What lies at [`INDEX_OFFSET`].
#[must_use]
pub fn index() -> Vec<u8> {
    let mut bytes = primary_descriptor();
    bytes.extend(padded(b"\xffCD001\x01".to_vec()));
    bytes.extend(root_folder());
    bytes
}

/// ECMA-119, 8.4.
fn primary_descriptor() -> Vec<u8> {
    let mut bytes = b"\x01CD001\x01\0".to_vec();
    bytes.extend([b' '; 32]);
    bytes.extend(format!("{:<32}", "RORO").bytes());
    bytes.extend([0; 8]);
    bytes.extend(both_ends_u32((LOADER_BYTES / ISO_BLOCK_BYTES) as u32));
    bytes.extend([0; 32]);
    // One volume of one, in blocks of 2048 bytes.
    bytes.extend(both_ends_u16(1));
    bytes.extend(both_ends_u16(1));
    bytes.extend(both_ends_u16(ISO_BLOCK_BYTES as u16));
    bytes.resize(156, 0);
    bytes.extend(entry(b"\0", ROOT_FOLDER_BLOCK, ISO_BLOCK_BYTES, Is::Folder));
    bytes.resize(881, 0);
    bytes.push(1);
    padded(bytes)
}

fn root_folder() -> Vec<u8> {
    let mut bytes = entry(b"\0", ROOT_FOLDER_BLOCK, ISO_BLOCK_BYTES, Is::Folder);
    bytes.extend(entry(b"\x01", ROOT_FOLDER_BLOCK, ISO_BLOCK_BYTES, Is::Folder));
    let block = OWN_OFFSET / ISO_BLOCK_BYTES as u64;
    bytes.extend(entry(FILE, block as u32, BLOCK_BYTES, Is::File));
    padded(bytes)
}

#[derive(Clone, Copy)]
enum Is {
    File,
    Folder,
}

/// A directory record: ECMA-119, 9.1.
fn entry(name: &[u8], block: u32, content_bytes: usize, is: Is) -> Vec<u8> {
    let entry_bytes = (33 + name.len()).next_multiple_of(2);
    let mut bytes = vec![entry_bytes as u8, 0];
    bytes.extend(both_ends_u32(block));
    bytes.extend(both_ends_u32(content_bytes as u32));
    bytes.extend([0; 7]);
    bytes.extend(match is {
        Is::File => [0, 0, 0],
        Is::Folder => [2, 0, 0],
    });
    bytes.extend(both_ends_u16(1));
    bytes.push(name.len() as u8);
    bytes.extend(name);
    bytes.resize(entry_bytes, 0);
    bytes
}

fn both_ends_u32(value: u32) -> [u8; 8] {
    let [a, b, c, d] = value.to_le_bytes();
    [a, b, c, d, d, c, b, a]
}

fn both_ends_u16(value: u16) -> [u8; 4] {
    let [a, b] = value.to_le_bytes();
    [a, b, b, a]
}

fn padded(mut block: Vec<u8>) -> Vec<u8> {
    block.resize(ISO_BLOCK_BYTES, 0);
    block
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_fits_behind_the_blocks_and_names_the_own_block() {
        let bytes = index();
        assert_eq!(bytes.len(), INDEX_BYTES);
        assert!(INDEX_OFFSET as usize + INDEX_BYTES <= LOADER_BYTES);
        assert!(INDEX_OFFSET >= OWN_OFFSET + BLOCK_BYTES as u64);
        // ECMA-119: "CD001", the block size at 128, the root directory record at 156, and its block.
        assert_eq!((&bytes[1..6], &bytes[128..132]), (&b"CD001"[..], &[0, 8, 8, 0][..]));
        assert_eq!((bytes[156], &bytes[158..162], bytes[156 + 25]), (34, &[18, 0, 0, 0][..], 2));
        let name = bytes.windows(FILE.len()).position(|window| window == FILE).unwrap();
        assert_eq!(bytes[name - 31..name - 27], 4_u32.to_le_bytes());
        assert_eq!(bytes[name - 23..name - 19], 1024_u32.to_le_bytes());
    }
}
