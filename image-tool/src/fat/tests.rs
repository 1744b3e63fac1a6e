use std::{path::Path, process::Command};

use super::*;

const SIZES: [usize; 7] = [1, 10_000, 3 << 20, (7 << 20) + 1, 16_700_000, 25 << 20, 300 << 20];

fn program(bytes: usize) -> Vec<u8> {
    let mut program = vec![7; bytes];
    program.iter_mut().take(5000).enumerate().for_each(|(at, byte)| *byte = at as u8);
    program
}

/// What a tool says of a volume; `None` where it is not installed, which is a failure in CI.
fn told_by(tool: &str, arguments: &[&str], volume: &Path, behind: &[&str]) -> Option<String> {
    let Ok(output) = Command::new(tool).args(arguments).arg(volume).args(behind).output() else {
        assert!(std::env::var_os("CI").is_none(), "{tool} is missing: run `qemu-testbed setup` first");
        return None;
    };
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{told}{}", String::from_utf8_lossy(&output.stderr));
    Some(told)
}

#[test]
fn the_program_lies_in_one_piece_on_a_border() {
    for bytes in SIZES {
        let program = program(bytes);
        let made = volume(&[File::new(BOOT_PATH, program.clone())], Size::Least).unwrap();
        let image = made.to_bytes().unwrap();
        assert_eq!(image, boot_image(&program).unwrap());
        assert_eq!(image.len() % (1 << 20), 0);
        assert!(image.len() < bytes + bytes / 500 + (5 << 20), "{bytes}");
        let at = made.extents[0].offset_bytes as usize;
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
        let Some(told) = told_by("fsck.vfat", &["-nv"], file.path(), &[]) else { return };
        assert!(told.contains("4 files"), "{told}");
    }
}

/// Names in both cases, long names, files of fixed sizes, many files in a directory: mtools reads each as it was given.
#[test]
fn many_files_are_read_back_by_mtools() {
    let mut files = vec![
        File::fixed("EFI/Linux/roro-a.efi", program(100_000), 2 << 20),
        File::fixed("EFI/Linux/roro-b.efi", Vec::new(), 2 << 20),
        File::new("EFI/Linux/roro-recovery.efi", program(5000)),
        File::new(BOOT_PATH, program(70_000)),
        File::new("loader/loader.conf", "timeout 0\n"),
        File::new("empty", ""),
    ];
    files.extend((0..150).map(|number| File::new(format!("many/file-{number}"), program(number * 50 + 1))));
    let made = volume(&files, Size::Exactly(9 << 20)).unwrap();
    let image = made.to_bytes().unwrap();
    assert_eq!(image.len(), 9 << 20);
    let disk = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(disk.path(), &image).unwrap();
    let Some(told) = told_by("fsck.vfat", &["-nv"], disk.path(), &[]) else { return };
    assert!(told.contains("162 files"), "{told}");
    let Some(listed) = told_by("mdir", &["-b", "-/", "-i"], disk.path(), &["::"]) else { return };
    for (file, extent) in files.iter().zip(&made.extents) {
        assert!(listed.lines().any(|line| line == format!("::/{}", file.path)), "{}: {listed}", file.path);
        let at = extent.offset_bytes as usize;
        let mut expected = file.content.read(1 << 30).unwrap();
        expected.resize(file.file_bytes as usize, 0);
        assert!(image[at..at + file.file_bytes as usize] == expected[..], "{}", file.path);
    }
    for file in files.iter().take(8) {
        let output =
            Command::new("mtype").arg("-i").arg(disk.path()).arg(format!("::{}", file.path)).output();
        let mut expected = file.content.read(1 << 30).unwrap();
        expected.resize(file.file_bytes as usize, 0);
        assert!(output.unwrap().stdout == expected, "{}", file.path);
    }
}

#[test]
fn what_fat_cannot_hold_is_refused() {
    let refused = |files: &[File], size| volume(files, size).unwrap_err().to_string();
    let file = |path: &str| File::new(path, "x");
    let cases: [(&[File], Size, &str); 8] = [
        (&[file("a"), file("A")], Size::Least, "case only"),
        (&[file("a"), file("a")], Size::Least, "twice"),
        (&[file("a"), file("a/b")], Size::Least, "a file and a directory"),
        (&[file("a b")], Size::Least, "letters, digits"),
        (&[file("a/../b")], Size::Least, "letters, digits"),
        (&[File::fixed("a", "xyz", 2)], Size::Least, "needs 3 bytes"),
        (&[File::fixed("a", "", 5 << 20)], Size::Exactly(4 << 20), "FAT volume needs"),
        (&[File::fixed("a", "", 3 << 30)], Size::Least, "FAT volume needs"),
    ];
    for (files, size, expected) in cases {
        let told = refused(files, size);
        assert!(told.contains(expected), "{told}");
    }
    let many: Vec<File> = (0..64).map(|number| file(&format!("F{number}"))).collect();
    assert!(refused(&many, Size::Least).contains("root directory"));
}
