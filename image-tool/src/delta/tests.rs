//! A delta makes the new image, of whatever both are: every patch is applied as a device does, and its chunks are compared.

use std::{
    collections::HashMap,
    io::{Read as _, Write as _},
    num::NonZeroUsize,
    path::Path,
};

use proptest::prelude::*;

use super::*;
use crate::{
    chunker::{self, Input},
    cuts, erofs, segments,
    tree::Tree,
};

/// An image with all that is known of it.
struct Image {
    file: File,
    table: ChunkTable,
    segments: Vec<Segment>,
}

fn packing(threads: usize) -> Packing<'static> {
    let threads = NonZeroUsize::new(threads).unwrap();
    Packing { threads, frame_raw_bytes: 256 << 10, ..Packing::at_level(3) }
}

impl Image {
    fn of(bytes: &[u8]) -> Self {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        Self::in_file(file)
    }

    fn in_file(file: File) -> Self {
        let bytes = file.metadata().unwrap().len();
        let segments = segments::of(&file, bytes, "image").unwrap();
        let lengths = cuts::lengths(&file, bytes, &segments, "image").unwrap();
        let input =
            Input { subject: "image", file: &file, bytes, segments: &segments, lengths: &lengths, salt: &[] };
        let packed = chunker::pack(input, packing(2), &mut std::io::sink(), &mut |_| ()).unwrap();
        Self { table: packed.table, file, segments }
    }

    /// As the mint writes it.
    fn of_tree(files: &HashMap<String, Vec<u8>>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("image.erofs");
        let mut tree = Tree::new();
        for (name, content) in files {
            let parent = Path::new(name).parent().unwrap();
            for above in parent.ancestors().filter(|above| !above.as_os_str().is_empty()) {
                let above = above.to_str().unwrap();
                if tree.get(above).is_none() {
                    tree.put_directory(above, 0o755).unwrap();
                }
            }
            tree.put_file(name, content.clone(), 0o644).unwrap();
        }
        erofs::write(&tree, 1_700_000_000, &path).unwrap();
        Self::in_file(File::open(path).unwrap())
    }

    fn side(&self) -> Side<'_> {
        Side { file: &self.file, subject: "image", table: &self.table, segments: &self.segments }
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut file = &self.file;
        std::io::Seek::rewind(&mut file).unwrap();
        file.read_to_end(&mut bytes).unwrap();
        bytes
    }
}

/// Makes the delta, judges it, and says how many bytes its patches have, and the chunks that neither base nor patches bring.
fn judged(old: &Image, new: &Image) -> (usize, u64) {
    let made = between(&old.side(), &new.side(), packing(2), &|_, _| ()).unwrap();
    let table = DeltaTable::decode(&made.table.encode()).unwrap();
    let chunks = table.chunk_table(&old.table).unwrap();
    assert_eq!(chunks, new.table, "the table of the base becomes that of the image");
    assert_eq!(table.patches_bytes(), made.patches.len() as u64);
    let in_frames = in_frames(&new.table);
    let mut there: HashSet<Digest256> = old.table.chunks().iter().map(|chunk| chunk.digest).collect();
    for patch in table.patches() {
        let stored = &made.patches[patch.offset as usize..][..patch.stored_bytes as usize];
        let base = Base { file: &old.file, bytes: old.table.image_bytes(), subject: "image" };
        let made = apply::apply(stored, base).unwrap();
        let mut rest = made.as_slice();
        let mut cost = 0.0;
        for number in patch.chunk_numbers() {
            let chunk = &chunks.chunks()[number];
            let (bytes, behind) = rest.split_at(chunk.bytes as usize);
            assert_eq!(Digest256::of(bytes), chunk.digest, "chunk {number}");
            there.insert(chunk.digest);
            cost += in_frames[number];
            rest = behind;
        }
        assert!(rest.is_empty());
        assert!(f64::from(patch.stored_bytes) < cost * WORTH, "a patch that saves nothing");
    }
    let missing = chunks
        .chunks()
        .iter()
        .filter(|chunk| chunk.source != Source::Zeros && !there.contains(&chunk.digest));
    (made.patches.len(), missing.map(|chunk| u64::from(chunk.bytes)).sum())
}

/// Bytes that neither repeat nor shrink.
fn noise(bytes: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    (0..bytes).map(|_| next()).collect()
}

/// Like a program: words of four bytes, some of which are addresses that a linker moves.
fn program(bytes: usize, seed: u64, moved_by: u32) -> Vec<u8> {
    let random = noise(bytes, seed);
    let words = random.chunks_exact(4).enumerate().map(|(number, word)| {
        let word = u32::from_le_bytes(word.try_into().unwrap());
        if number % 8 == 0 { (word & 0x000f_ffff).wrapping_add(moved_by) } else { word }
    });
    words.flat_map(u32::to_le_bytes).collect()
}

/// A kernel as Debian packs it: a head, LZ4 blocks of the legacy format, and something behind them.
fn kernel(content: &[u8]) -> Vec<u8> {
    let mut bytes = noise(20_000, 77);
    bytes.extend(lz4::MAGIC);
    for part in content.chunks(lz4::BLOCK_BYTES) {
        let packed = lz4::pack(part, 9).unwrap();
        bytes.extend((packed.len() as u32).to_le_bytes());
        bytes.extend(packed);
    }
    bytes.extend(noise(3_000, 78));
    bytes
}

/// Something that LZ4 can pack: words of a vocabulary.
fn words(bytes: usize, seed: u64) -> Vec<u8> {
    let vocabulary: Vec<Vec<u8>> =
        (0..200).map(|number| noise(3 + number % 9, number as u64 + 500)).collect();
    let order = noise(bytes / 4, seed);
    let mut text: Vec<u8> = order.iter().flat_map(|at| vocabulary[usize::from(*at) % 200].clone()).collect();
    text.truncate(bytes);
    text
}

fn tree(files: &[(&str, Vec<u8>)]) -> HashMap<String, Vec<u8>> {
    files.iter().map(|(name, content)| ((*name).to_owned(), content.clone())).collect()
}

#[test]
fn equal_images_have_an_empty_delta() {
    let bytes = [noise(300_000, 1), vec![0; 100_000], noise(50_000, 2)].concat();
    assert_eq!(judged(&Image::of(&bytes), &Image::of(&bytes)), (0, 0));
}

#[test]
fn images_with_nothing_in_common_have_no_patches() {
    let (patches, missing) = judged(&Image::of(&noise(700_000, 3)), &Image::of(&noise(600_000, 4)));
    assert_eq!((patches, missing), (0, 600_000));
    let old = Image::of_tree(&tree(&[("usr/lib/a.so.1", noise(200_000, 5))]));
    let new = Image::of_tree(&tree(&[("opt/b", noise(200_000, 6))]));
    let (patches, missing) = judged(&old, &new);
    assert!(patches < 2_000 && missing >= 200_000, "{patches} bytes of patches, {missing} missing");
}

#[test]
fn libraries_and_modules_of_another_version_are_found() {
    let old = Image::of_tree(&tree(&[
        ("usr/lib/x86_64-linux-gnu/libthing.so.1.2.3", program(400_000, 10, 0x10_0000)),
        ("usr/lib/modules/6.1.0-41-amd64/kernel/drivers/net/card.ko", program(300_000, 11, 0x20_0000)),
        ("usr/lib/modules/6.1.0-41-amd64/kernel/fs/other.ko", program(100_000, 12, 0x20_0000)),
        ("usr/share/same", noise(200_000, 13)),
    ]));
    let new = Image::of_tree(&tree(&[
        ("usr/lib/x86_64-linux-gnu/libthing.so.1.3.0", program(400_000, 10, 0x10_0040)),
        ("usr/lib/modules/6.1.0-42-amd64/kernel/drivers/net/card.ko", program(300_000, 11, 0x20_1000)),
        ("usr/lib/modules/6.1.0-42-amd64/kernel/fs/other.ko", program(100_000, 12, 0x20_1000)),
        ("usr/share/same", noise(200_000, 13)),
    ]));
    let (patches, missing) = judged(&old, &new);
    assert_eq!(missing, 0);
    assert!(patches < 30_000, "{patches} bytes for 800,000 in which every eighth word moved");
}

#[test]
fn a_kernel_is_compared_unpacked() {
    // More than one block, and in the second version something is inserted before everything else, so that every block differs as it is packed.
    let content = [words(150_000, 20), vec![0; lz4::BLOCK_BYTES], words(150_000, 21)].concat();
    let mut newer = content.clone();
    newer.splice(1000..1000, noise(300, 22));
    newer.splice(lz4::BLOCK_BYTES + 200_000..lz4::BLOCK_BYTES + 200_100, noise(200, 23));
    let old = Image::of_tree(&tree(&[("boot/vmlinuz-6.1.0-41", kernel(&content))]));
    let new = Image::of_tree(&tree(&[("boot/vmlinuz-6.1.0-42", kernel(&newer))]));
    assert_eq!(new.segments.iter().map(|segment| segment.packed.len()).sum::<usize>(), 2);
    let (patches, missing) = judged(&old, &new);
    assert_eq!(missing, 0);
    assert!(patches < 10_000, "{patches} bytes for 500 new ones");
}

#[test]
fn a_block_that_does_not_come_out_as_it_is_stays_packed() {
    let content = words(600_000, 23);
    let changed = |content: &[u8]| {
        let mut bytes = kernel(content);
        // Level 3 is none that is tried.
        let packed = lz4::pack(content, 3).unwrap();
        bytes.truncate(20_000 + lz4::MAGIC.len());
        bytes.extend((packed.len() as u32).to_le_bytes());
        bytes.extend(packed);
        bytes
    };
    let mut newer = content.clone();
    newer.splice(300_000..300_000, [1, 2, 3]);
    let old = Image::of_tree(&tree(&[("vmlinuz", changed(&content))]));
    let new = Image::of_tree(&tree(&[("vmlinuz", changed(&newer))]));
    let (_, missing) = judged(&old, &new);
    assert_eq!(missing, 0, "half of it is as it was, which is worth a patch");
}

#[test]
fn the_same_bytes_for_any_number_of_threads() {
    // A patch of files, one of what lies between them, one of each block.
    let files = |moved_by| {
        tree(&[
            ("a", program(200_000, 30, moved_by)),
            ("boot/vmlinuz", kernel(&program(100_000, 31, moved_by))),
            ("boot/vmlinuz.old", kernel(&program(100_000, 32, moved_by))),
        ])
    };
    let (old, new) = (Image::of_tree(&files(0x1000)), Image::of_tree(&files(0x1100)));
    let with = |threads| {
        let made = between(&old.side(), &new.side(), packing(threads), &|_, _| ()).unwrap();
        (made.table.encode(), made.patches)
    };
    let first = with(1);
    assert!(DeltaTable::decode(&first.0).unwrap().patches().len() >= 3);
    for threads in [2, 3, 16] {
        assert!(with(threads) == first, "{threads} threads");
    }
}

#[test]
fn a_patch_that_was_kept_is_proven_before_it_is_used() {
    let directory = tempfile::tempdir().unwrap();
    let cache = Cache::open(directory.path()).unwrap();
    let old = Image::of(&program(900_000, 40, 0x1000));
    let new = Image::of(&program(900_000, 40, 0x1100));
    let with = |cache| {
        let packing = Packing { cache, ..packing(2) };
        let made = between(&old.side(), &new.side(), packing, &|_, _| ()).unwrap();
        (made.table.encode(), made.patches)
    };
    let expected = with(None);
    assert!(with(Some(&cache)) == expected, "while it fills");
    let entries = || -> Vec<std::path::PathBuf> {
        let shelves = std::fs::read_dir(directory.path()).unwrap();
        shelves
            .flat_map(|shelf| std::fs::read_dir(shelf.unwrap().path()).unwrap())
            .map(|e| e.unwrap().path())
            .collect()
    };
    assert!(!entries().is_empty());
    assert!(with(Some(&cache)) == expected, "out of it");
    // A patch that makes something else, with the digest of its bytes: somebody meant it.
    for entry in entries() {
        let mut lie = expected.1[..expected.1.len() - 1].to_vec();
        lie.extend(Digest256::of(&lie).0);
        std::fs::write(entry, lie).unwrap();
    }
    assert!(with(Some(&cache)) == expected, "out of a cache that lies");
    assert!(with(Some(&cache)) == expected, "it was written over");
}

/// If this fails because patches have become better, raise `CODING` in `cache.rs`, and put the new digest here.
#[test]
fn the_coding_of_patches_is_the_one_that_the_cache_knows() {
    let old = Image::of(&program(200_000, 50, 0x1000));
    let new = Image::of(&[program(200_000, 50, 0x1100), words(5_000, 51)].concat());
    let made = between(&old.side(), &new.side(), packing(1), &|_, _| ()).unwrap();
    let digest = Digest256::of(&made.patches).to_string();
    assert_eq!(
        digest,
        "e2a85de8998162155abb352416e41725cffde692d19f45935502118048441447",
        "{} bytes",
        made.patches.len()
    );
}

/// An older image, and what became of it: parts that moved, changed, came and went.
fn lives() -> impl Strategy<Value = (Vec<u8>, Vec<u8>)> {
    let part = prop_oneof![
        (1usize..200_000).prop_map(|bytes| vec![0; bytes]),
        (1usize..60_000, any::<u64>()).prop_map(|(bytes, seed)| noise(bytes, seed)),
        (1usize..20_000, 0u64..4).prop_map(|(bytes, seed)| words(bytes, seed)),
        (1usize..60_000, 0u64..4, any::<u32>()).prop_map(|(bytes, seed, by)| program(bytes, seed, by)),
        proptest::collection::vec(any::<u8>(), 1..300),
    ];
    let parts = proptest::collection::vec((part, 0..6u8), 1..6);
    (parts, any::<u64>()).prop_map(|(parts, seed)| {
        let (mut old, mut new) = (Vec::new(), Vec::new());
        for (bytes, fate) in parts {
            match fate {
                0 => old.extend(bytes),
                1 => new.extend(bytes),
                2 => {
                    new.splice(0..0, bytes.clone());
                    old.extend(bytes);
                }
                3 => {
                    let mut changed = bytes.clone();
                    for at in (0..changed.len()).step_by(997) {
                        changed[at] ^= seed as u8;
                    }
                    new.extend(changed);
                    old.extend(bytes);
                }
                _ => {
                    new.extend(&bytes);
                    old.extend(bytes);
                }
            }
        }
        for image in [&mut old, &mut new] {
            if image.is_empty() {
                image.push(1);
            }
        }
        (old, new)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..Default::default() })]

    #[test]
    fn any_two_images((old, new) in lives()) {
        let (old, new) = (Image::of(&old), Image::of(&new));
        judged(&old, &new);
        judged(&new, &old);
    }

    #[test]
    fn any_two_trees(
        sizes in proptest::collection::vec((1usize..60_000, 0u64..30, 0u8..5), 1..8),
    ) {
        let (mut old, mut new) = (HashMap::new(), HashMap::new());
        for (number, (bytes, seed, fate)) in sizes.into_iter().enumerate() {
            let name = format!("usr/lib/{seed}/file-{number}");
            let content = program(bytes, seed, 0);
            if fate != 0 {
                old.insert(name.clone(), content.clone());
            }
            match fate {
                1 => (),
                2 => drop(new.insert(format!("{name}.7"), content)),
                3 => drop(new.insert(name, program(bytes, seed, 0x40))),
                _ => drop(new.insert(name, content)),
            }
        }
        let (old, new) = (Image::of_tree(&old), Image::of_tree(&new));
        judged(&old, &new);
        prop_assert!(new.bytes().len() as u64 == new.table.image_bytes());
    }
}
