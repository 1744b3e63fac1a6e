//! The partition table of the disk that holds the record: both copies whole, and the backup at the end of the disk.
//!
//! The rule is [`bank_format::gpt::mend`]: one copy in each boot. It promises to write only where the kernel runs from the very table
//! that it would write, and to hold nothing up: what cannot be done is said. Deliberately absent: partitions of other disks, and hosts
//! whose record is a file.

use std::{
    fs::File,
    io::{self, Seek as _, SeekFrom},
    os::unix::fs::FileTypeExt as _,
    path::Path,
};

use bank_format::gpt::{Mended, mend};

use crate::{boot::partition, medium::PathMedium, ports::Access, printer};

/// Mends the table of the disk that the record is on, and says what was done.
pub fn look_after(record: &Path) {
    match mend_disk_of(record) {
        Ok(Mended::Whole | Mended::NoTable) => (),
        Ok(Mended::Backup) => {
            printer::person("partition table: its backup was written to the end of the disk")
        }
        Ok(Mended::Primary) => printer::person("partition table: its first copy was written anew"),
        Err(error) => {
            printer::person(&format!("warning: the partition table is not as it ought to be: {error}"))
        }
    }
}

/// The same, and nothing is said.
pub fn mend_disk_of(record: &Path) -> io::Result<Mended> {
    if !std::fs::metadata(record)?.file_type().is_block_device() {
        return Ok(Mended::NoTable);
    }
    let shown = partition::shown(record)?;
    shown.entry()?;
    let disk_bytes = File::open(&shown.disk)?.seek(SeekFrom::End(0))?;
    let mut medium = PathMedium::open(&shown.disk, Access::Write)?;
    mend(&mut medium, disk_bytes, shown.block_bytes)?
        .map_err(|refusal| io::Error::new(io::ErrorKind::InvalidData, refusal.to_string()))
}

#[cfg(test)]
mod tests {
    use std::{
        os::unix::fs::{FileExt as _, MetadataExt as _},
        process::Command,
    };

    use super::*;

    /// A loop device, freed at the end.
    struct Loop(String);

    impl Drop for Loop {
        fn drop(&mut self) {
            let _freed = Command::new("losetup").arg("--detach").arg(&self.0).status();
        }
    }

    fn tool(program: &str, arguments: &[&str]) -> String {
        let done = Command::new(program).args(arguments).output().unwrap();
        let said = String::from_utf8_lossy(&done.stdout).into_owned();
        assert!(
            done.status.success(),
            "{program} {arguments:?}: {said}{}",
            String::from_utf8_lossy(&done.stderr)
        );
        said
    }

    #[test]
    fn a_table_rots_on_a_disk_larger_than_its_image_and_another_tool_finds_it_whole_again() {
        let is_root = std::fs::metadata("/proc/self").unwrap().uid() == 0;
        if !is_root || !Path::new("/dev/loop-control").exists() {
            println!("not run: loop devices need root");
            return;
        }
        if !Path::new("/usr/sbin/sgdisk").exists() && !Path::new("/sbin/sgdisk").exists() {
            assert!(std::env::var_os("CI").is_none(), "install the Debian package gdisk");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk.img");
        let image = path.to_str().unwrap();
        File::create_new(image).unwrap().set_len(8 << 20).unwrap();
        tool("sgdisk", &["-n1:2048:+1M", "-c1:root-a", "-n3:8192:+1M", "-c3:record", image]);
        let file = std::fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
        file.set_len(20 << 20).unwrap();

        let device = Loop(tool("losetup", &["--find", "--show", "--partscan", image]).trim().to_owned());
        // Where the kernel has no part of its own that reads such tables; elsewhere it is there already.
        let _there_already = Command::new("addpart").args([&device.0, "3", "8192", "2048"]).output();
        let record = format!("{}p3", device.0);
        if !Path::new(&record).exists() {
            assert!(std::env::var_os("CI").is_none(), "no device nodes of partitions appear in /dev");
            return;
        }
        let deeds = || {
            let mut deeds = Vec::new();
            while deeds.last() != Some(&Mended::Whole) && deeds.len() < 4 {
                deeds.push(mend_disk_of(Path::new(&record)).unwrap());
            }
            deeds
        };
        let verify = || tool("sgdisk", &["--verify", &device.0]);
        assert!(verify().contains("doesn't reside"), "{}", verify());
        assert_eq!(deeds(), [Mended::Backup, Mended::Primary, Mended::Whole]);
        assert!(verify().contains("No problems found"), "{}", verify());

        let whole_disk = std::fs::OpenOptions::new().read(true).write(true).open(&device.0).unwrap();
        let mut before = vec![0; 34 * 512];
        whole_disk.read_exact_at(&mut before, 0).unwrap();
        whole_disk.write_all_at(&[0xa5; 1200], 512).unwrap();
        assert_eq!(deeds(), [Mended::Primary, Mended::Whole]);
        let mut after = vec![0; 34 * 512];
        whole_disk.read_exact_at(&mut after, 0).unwrap();
        assert!(before == after);
        assert!(verify().contains("No problems found"), "{}", verify());
    }

    #[test]
    fn a_record_in_a_file_has_no_table() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert_eq!(mend_disk_of(file.path()).unwrap(), Mended::NoTable);
        assert!(mend_disk_of(Path::new("/dev/roro-none")).is_err());
    }
}
