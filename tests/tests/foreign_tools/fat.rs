//! `mkfs.vfat` and mtools: where they put a file is where it is found.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    os::unix::fs::FileExt as _,
    path::Path,
};

use bank_format::fat::{Extent, FatError, find_file};

use crate::{Random, STATES, Tool, report, scratch};

/// Files that are put into one file system at once.
const FILES: usize = 50;
/// Small files in front of them, some of which go again, so that what comes next may lie in pieces.
const GAPS: usize = 60;
const FOLDERS: [&str; 4] = ["", "EFI/", "EFI/roro/", "A longer folder name/UPPER/"];
const CHARACTERS: &str = "abcXYZ019 _-.éÜ";

fn find(volume: &Path, path: &str) -> Result<Extent, FatError<std::io::Error>> {
    let file = File::open(volume).expect("the volume is there");
    find_file(|offset, buffer| file.read_exact_at(buffer, offset), path)
}

/// Short ones, long ones, and such as need a long entry for their letters only.
fn name(random: &mut Random) -> String {
    let most = *random.of(&[3, 8, 30]);
    let extension = *random.of(&["", ".txt", ".CFG", ".conf"]);
    let name = format!("{}{}{extension}", random.of(&["a", "B", "n"]), random.text(CHARACTERS, most));
    let name = name.trim_end_matches(['.', ' ']).to_owned();
    // A short name is in a code page of DOS, which is not looked into.
    if name.is_ascii() { name } else { format!("{name}, a long name") }
}

/// Files below `source`, other names in any case of letters, with random content.
fn files(random: &mut Random, source: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut taken = BTreeSet::new();
    let mut files = BTreeMap::new();
    while files.len() < FILES {
        let path = format!("{}{}", random.of(&FOLDERS), name(random));
        if taken.insert(path.to_lowercase()) {
            let content: Vec<u8> = (0..1 + random.below(12_000)).map(|_| random.below(256) as u8).collect();
            fs::write(source.join(&path), &content).expect("it is written");
            files.insert(path, content);
        }
    }
    files
}

#[test]
fn files_of_mtools_are_found_where_they_lie() {
    let (Some(mkfs), Some(mcopy), Some(mdel), Some(mshowfat)) = (
        Tool::find("mkfs.vfat", "dosfstools"),
        Tool::find("mcopy", "mtools"),
        Tool::find("mdel", "mtools"),
        Tool::find("mshowfat", "mtools"),
    ) else {
        return;
    };
    let [mcopy, mshowfat] = [mcopy, mshowfat].map(|tool| tool.with("LC_ALL", "C.UTF-8"));
    let scratch = scratch();
    let [volume, source, gaps] = ["volume", "source", "gaps"].map(|name| scratch.path().join(name));
    let image = volume.to_str().unwrap();
    fs::create_dir(&gaps).unwrap();
    let mut random = Random::new(7);
    let (mut whole, mut scattered) = (0, 0);
    while whole + scattered < STATES {
        let (width, kibibytes) = *random.of(&[("12", 1024), ("12", 2880), ("16", 16384), ("32", 65536)]);
        let _ = fs::remove_file(&volume);
        mkfs.run(["-F", width, "-C", image, &kibibytes.to_string()]);
        let gap = |number| gaps.join(format!("gap{number}")).into_os_string();
        for number in 0..GAPS {
            fs::write(gap(number), vec![b'x'; 1 + random.below(4000)]).unwrap();
        }
        mcopy.run(["-i", image].map(Into::into).into_iter().chain((0..GAPS).map(gap)).chain(["::".into()]));
        let gone: Vec<String> =
            (0..GAPS).filter(|_| random.below(2) == 0).map(|number| format!("::gap{number}")).collect();
        if !gone.is_empty() {
            mdel.run(["-i", image].into_iter().chain(gone.iter().map(String::as_str)));
        }

        let _ = fs::remove_dir_all(&source);
        for folder in FOLDERS {
            fs::create_dir_all(source.join(folder)).unwrap();
        }
        let files = files(&mut random, &source);
        let all = fs::read_dir(&source).unwrap().map(|entry| entry.unwrap().path().into_os_string());
        mcopy.run(["-s", "-i", image].map(Into::into).into_iter().chain(all).chain(["::".into()]));
        // It prints a line for each, with the runs of its clusters: `<5-9>`, or several.
        let places: Vec<String> = files.keys().map(|path| format!("::{path}")).collect();
        let said = mshowfat.run(["-i", image].into_iter().chain(places.iter().map(String::as_str)));
        assert_eq!(said.lines().count(), files.len(), "{said}");
        for ((path, content), line) in files.iter().zip(said.lines()) {
            let (named, runs) = line.split_once(" <").unwrap();
            assert_eq!(named, format!("::/{path}"));
            let pieces = 1 + runs.matches('<').count();
            let asked = if random.below(2) == 0 { path.to_uppercase() } else { path.clone() };
            match find(&volume, &asked) {
                Ok(found) => {
                    assert_eq!(pieces, 1, "FAT{width}: {path}: {line}");
                    assert_eq!(found.file_bytes, content.len() as u64, "FAT{width}: {path}");
                    assert!(
                        found.space_bytes >= found.file_bytes && found.space_bytes < found.file_bytes + 65536
                    );
                    let mut read = vec![0; content.len()];
                    File::open(&volume).unwrap().read_exact_at(&mut read, found.offset_bytes).unwrap();
                    assert!(read == *content, "FAT{width}: {path} lies elsewhere");
                    whole += 1;
                }
                Err(FatError::Scattered { .. }) => {
                    assert!(pieces > 1, "FAT{width}: {path} is in one piece: {line}");
                    scattered += 1;
                }
                Err(other) => panic!("FAT{width}: {path}: {other}"),
            }
        }
        assert!(matches!(find(&volume, "EFI/absent.txt"), Err(FatError::NotFound { .. })));
        assert!(matches!(find(&volume, "EFI"), Err(FatError::NotFound { .. })));
    }
    report(&format!("mtools, {whole} files in one piece and {scattered} in several"), whole + scattered);
    assert!(whole > STATES / 2 && scattered > STATES / 20, "{whole} in one piece, {scattered} in several");
}

#[test]
fn the_program_in_our_own_boot_image_is_found() {
    let program: Vec<u8> = (0..300_000_u32).map(|number| number.to_le_bytes()[1]).collect();
    let image = image_tool::fat::boot_image(&program).unwrap();
    let read = |offset: u64, buffer: &mut [u8]| {
        let start = usize::try_from(offset).unwrap();
        buffer.copy_from_slice(&image[start..][..buffer.len()]);
        Ok::<(), ()>(())
    };
    let found = find_file(read, image_tool::fat::BOOT_PATH).unwrap();
    assert_eq!(found.file_bytes, program.len() as u64);
    let start = usize::try_from(found.offset_bytes).unwrap();
    assert!(image[start..].starts_with(&program));
}
