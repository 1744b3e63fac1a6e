//! The machine itself, before any image exists: firmware, serial log, power switch.

use std::{fs::File, path::Path};

use qemu_testbed::{hardware::Hardware, limits, machine::Machine};

#[test]
fn firmware_speaks_again_after_a_power_cut() {
    let folder = tempfile::tempdir().unwrap();
    let image = folder.path().join("empty.img");
    File::create(&image).unwrap().set_len(16 << 20).unwrap();
    let mut machine =
        Machine::assemble("empty", Hardware::USUAL, &image, &folder.path().join("run")).unwrap();
    for _ in 0..2 {
        machine.power_on().unwrap();
        let deadline = machine.deadline(limits::BOOT);
        machine.log().expect("BdsDxe", deadline).unwrap();
        machine.power_cut().unwrap();
    }
    let kept = std::fs::read_to_string(machine.folder().join("serial.log")).unwrap();
    assert!(kept.matches("BdsDxe").count() >= 2, "{kept}");
    let disk = machine.disk();
    drop(machine);
    assert!(!Path::new(&disk).exists(), "the disk of a dropped machine is removed");
}
