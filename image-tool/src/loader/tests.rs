use std::{fs, path::Path, process::Command};

use super::*;
use crate::disk::table::{self, BOOT_CODE_BYTES, Layout};

const SIZES: Disk = Disk { boot_mib: 5, root_mib: 2, state_mib: 1 };

fn uki() -> Uki {
    Uki { bytes: vec![5; 10_001], sections: vec![(".linux".to_owned(), 4096, 5905)] }
}

fn image(loader: BootLoader) -> Vec<u8> {
    let command_line = "quiet roro.loader=x roothash=00";
    let parts = Kernel { uki: &uki(), kernel: &[1; 9000], initrd: &[2; 5000], command_line };
    boot_image(loader, &parts, Signing::Nobody, 5 << 20).unwrap()
}

/// A disk for a loader, without record and state.
fn disk(loader: BootLoader, installed: &Installed, recovery: &Recovery, path: &Path) -> Layout {
    let root = vec![(0, Content::from("root"))];
    let parts = partitions(installed, recovery, &SIZES, vec![(0, image(loader).into())], root).unwrap();
    let boot_code = match installed {
        Installed::Efi | Installed::SystemdBoot { .. } => [0; BOOT_CODE_BYTES],
        Installed::Grub(grub) => grub.boot_code().unwrap(),
    };
    table::write(path, "test,any", &parts, &boot_code).unwrap()
}

/// Runs a judge; `None` where it is not installed, which is a failure in CI.
fn judge(program: &str, arguments: &[&std::ffi::OsStr]) -> Option<String> {
    let Ok(output) = Command::new(program).args(arguments).output() else {
        assert!(std::env::var_os("CI").is_none(), "{program} is missing: run `qemu-testbed setup` first");
        return None;
    };
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{program}: {told}{}", String::from_utf8_lossy(&output.stderr));
    Some(told)
}

fn table_is_whole(path: &Path) {
    if let Some(told) = judge("sgdisk", &["--verify".as_ref(), path.as_ref()]) {
        assert!(told.contains("No problems found"), "{told}");
    }
}

fn fat_is_whole(directory: &Path, volume: &[u8]) {
    let path = directory.join("volume");
    fs::write(&path, volume).unwrap();
    judge("fsck.vfat", &["-n".as_ref(), path.as_ref()]);
}

fn names(layout: &Layout) -> Vec<&str> {
    layout.places.iter().map(|place| place.name.as_str()).collect()
}

/// The bytes of a partition.
fn part<'a>(bytes: &'a [u8], layout: &Layout, name: &str) -> &'a [u8] {
    let place = layout.place(name).unwrap();
    &bytes[place.offset_bytes as usize..][..place.len_bytes as usize]
}

/// The content of a file of a volume; `None` where mtools is not installed.
fn content(directory: &Path, volume: &[u8], path: &str) -> Option<Vec<u8>> {
    let image = directory.join("volume");
    fs::write(&image, volume).unwrap();
    judge("mtype", &["-V".as_ref()])?;
    let out = Command::new("mtype").arg("-i").arg(&image).arg(format!("::{path}")).output().unwrap();
    assert!(out.status.success(), "{path}: {}", String::from_utf8_lossy(&out.stderr));
    Some(out.stdout)
}

#[test]
fn systemd_boot_has_two_files_of_fixed_size_on_its_partition() {
    let dir = tempfile::tempdir().unwrap();
    let installed = Installed::SystemdBoot { program: vec![0xee; 3000].into() };
    let path = dir.path().join("disk.img");
    let recovery = Some(b"MZ recovery".to_vec().into());
    let layout = disk(BootLoader::SystemdBoot, &installed, &recovery, &path);
    assert_eq!(names(&layout), ["esp", "root-a", "root-b"]);
    table_is_whole(&path);
    let bytes = fs::read(&path).unwrap();
    let esp = part(&bytes, &layout, "esp");
    fat_is_whole(dir.path(), esp);

    // The device finds them like this, and maps their blocks.
    for path in UKI_PATHS {
        let read = |offset: u64, buffer: &mut [u8]| {
            buffer.copy_from_slice(&esp[offset as usize..][..buffer.len()]);
            Ok::<(), std::convert::Infallible>(())
        };
        let found = bank_format::fat::find_file(read, path).unwrap();
        assert_eq!((found.file_bytes, found.offset_bytes % 4096), (5 << 20, 0));
    }
    let [a, b] = UKI_PATHS.map(|path| content(dir.path(), esp, path));
    let (Some(a), Some(b)) = (a, b) else { return };
    assert_eq!((a.len(), b.len()), (5 << 20, 5 << 20));
    let boot = image(BootLoader::SystemdBoot);
    assert_eq!(boot.len(), 12_288);
    assert_eq!(&boot[..10_001], &uki().bytes[..]);
    assert_eq!(&a[..boot.len()], &boot[..]);
    assert!(a[boot.len()..].iter().chain(&b).all(|byte| *byte == 0));
    let file = |path: &str| content(dir.path(), esp, path).unwrap();
    assert_eq!(file(fat::BOOT_PATH), [0xee; 3000]);
    assert_eq!(file("loader/entries/roro-recovery.conf"), RECOVERY_CONF.as_bytes());
    assert_eq!(file(RECOVERY_PATH), b"MZ recovery");
}

/// The numbers of partitions are settings of `grub.cfg`.
#[test]
fn grub_has_its_parts_where_both_firmwares_and_its_script_look() {
    let dir = tempfile::tempdir().unwrap();
    let grub = match grub::Grub::of_the_host() {
        Ok(grub) => grub,
        Err(error) => {
            assert!(std::env::var_os("CI").is_none(), "{error}");
            return;
        }
    };
    let installed = Installed::Grub(grub);
    let [path, again] = ["1.img", "2.img"].map(|name| dir.path().join(name));
    let layout = disk(BootLoader::Grub, &installed, &Some("halt\n".into()), &path);
    assert_eq!(names(&layout), ["bios", "esp", "loader", "boot-a", "boot-b", "root-a", "root-b"]);
    table_is_whole(&path);
    let bytes = fs::read(&path).unwrap();
    let made_again = Installed::Grub(grub::Grub::of_the_host().unwrap());
    disk(BootLoader::Grub, &made_again, &Some("halt\n".into()), &again);
    assert!(fs::read(&again).unwrap() == bytes, "not the same twice");

    // The first sector reads sector 2048, and the core's first one the rest behind it.
    assert_eq!(bytes[0x5c..0x64], 2048u64.to_le_bytes());
    assert_eq!(part(&bytes, &layout, "bios")[0x1f4..0x1fc], 2049u64.to_le_bytes());
    let esp = part(&bytes, &layout, "esp");
    fat_is_whole(dir.path(), esp);
    let Some(script) = content(dir.path(), esp, "grub/grub.cfg") else { return };
    for line in ["set part_loader=3\n", "set part_a=4\n", "set part_b=5\n"] {
        assert!(String::from_utf8_lossy(&script).contains(line), "{line}");
    }
    assert!(content(dir.path(), esp, fat::BOOT_PATH).unwrap().starts_with(b"MZ"));
    assert_eq!(content(dir.path(), esp, "grub/recovery.cfg").unwrap(), b"halt\n");

    let boot = part(&bytes, &layout, "boot-a");
    fat_is_whole(dir.path(), &boot[..image(BootLoader::Grub).len()]);
    let file = |path: &str| content(dir.path(), boot, path).unwrap();
    assert_eq!(file("roro/boot.cfg"), b"set cmdline='quiet roro.loader=x roothash=00'\n");
    assert_eq!((file("roro/linux"), file("roro/initrd")), (vec![1; 9000], vec![2; 5000]));

    let block = dir.path().join("grubenv");
    fs::write(&block, &part(&bytes, &layout, "loader")[..1024]).unwrap();
    if let Some(told) = judge("grub-editenv", &[block.as_ref(), "list".as_ref()]) {
        assert!(told.contains("roro_default=a\n") && told.contains("roro_next=none\n"), "{told}");
    }
}

#[test]
fn firmware_gets_a_partition_for_its_recovery_and_only_an_efi_program() {
    let program = Some(b"MZ recovery".to_vec().into());
    assert!(recovery_partition(&Installed::Efi, &None).unwrap().is_none());
    let partition = recovery_partition(&Installed::Efi, &program).unwrap().unwrap();
    assert_eq!((partition.name.as_str(), partition.bytes), ("recovery", 4 << 20));
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), "halt\n").unwrap();
    let boot = |loader| Boot { loader, recovery: Some(file.path().to_owned()), ..Boot::default() };
    let told = recovery(&boot(BootLoader::Efi), Signing::Nobody).unwrap_err().to_string();
    assert!(told.contains("an EFI program"), "{told}");
    assert_eq!(recovery(&boot(BootLoader::Grub), Signing::Nobody).unwrap().unwrap().len_bytes(), 5);
}
