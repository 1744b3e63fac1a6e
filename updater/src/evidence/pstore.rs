//! The kernel's last words: pstore, which keeps them in EFI variables or in a part of the memory that survives a reset (ramoops).
//! <https://docs.kernel.org/admin-guide/ramoops.html> names the files; `dmesg-*` are there only after a panic or an oops.

use std::{
    cmp::Reverse,
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use bank_format::record::reason_line;

use crate::{
    limits::{MAX_PSTORE_ENTRIES, MAX_PSTORE_ENTRY_BYTES},
    linux,
};

/// Where the kernel shows its store.
pub const DIRECTORY: &str = "/sys/fs/pstore";

/// One file.
#[derive(Debug)]
struct Entry {
    path: PathBuf,
    /// Written at a panic or an oops.
    is_death: bool,
    /// Which death, in the kernel's count.
    count: u64,
    /// The newest part of a log is part 1.
    part: u64,
    text: String,
}

/// All files.
#[derive(Debug)]
pub struct LastWords {
    entries: Vec<Entry>,
    text: String,
}

/// Reads the store. One that cannot be read has nothing to say. The kernel's own directory is mounted where nobody has done so.
#[must_use]
pub fn read(directory: &Path) -> LastWords {
    let is_empty = std::fs::read_dir(directory).is_ok_and(|mut entries| entries.next().is_none());
    if is_empty && directory == Path::new(DIRECTORY) {
        // Mounted already, or not allowed: then it stays as empty as it is.
        let _ = linux::mount_pstore(directory);
    }
    let mut entries = read_entries(directory).unwrap_or_default();
    entries.sort_by_key(|entry| (!entry.is_death, entry.count, Reverse(entry.part), entry.path.clone()));
    let text = entries.iter().map(|entry| entry.text.as_str()).collect();
    LastWords { entries, text }
}

fn read_entries(directory: &Path) -> io::Result<Vec<Entry>> {
    let mut entries = Vec::new();
    for found in std::fs::read_dir(directory)?.take(MAX_PSTORE_ENTRIES) {
        let path = found?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        let mut bytes = Vec::new();
        if File::open(&path).and_then(|f| f.take(MAX_PSTORE_ENTRY_BYTES).read_to_end(&mut bytes)).is_err() {
            continue;
        }
        let is_death = name.starts_with("dmesg-");
        let body = String::from_utf8_lossy(&bytes);
        let (count, part) = body.lines().next().and_then(numbers_of).unwrap_or((0, 0));
        let text = if name.ends_with(".z") {
            // By a method that this kernel lacks: bytes that tell nobody anything.
            format!("{name}: compressed, {} bytes\n", bytes.len())
        } else if is_death {
            // The parts of one log follow each other without a seam.
            body.split_once('\n').filter(|_| part > 0).map_or(body.as_ref(), |(_, rest)| rest).to_owned()
        } else {
            format!("\n{name}:\n{body}")
        };
        entries.push(Entry { path, is_death, count, part, text });
    }
    Ok(entries)
}

/// `Panic#2 Part1`
fn numbers_of(line: &str) -> Option<(u64, u64)> {
    let (why, part) = line.split_once(" Part")?;
    Some((why.rsplit_once('#')?.1.parse().ok()?, part.trim().parse().ok()?))
}

/// The kernel's own word on why it died, in a log of it.
#[must_use]
pub fn panic_in(log: &str) -> Option<String> {
    let last = log.lines().rev().find_map(|line| line.split_once("Kernel panic - not syncing: "));
    let why = last?.1.trim();
    (!why.is_empty()).then(|| reason_line(&format!("kernel panic: {why}")))
}

impl LastWords {
    /// Whether the kernel has died, or nearly so. The console of the boot before is there after each warm reset; that alone proves
    /// nothing.
    #[must_use]
    pub fn has_died(&self) -> bool {
        self.entries.iter().any(|entry| entry.is_death)
    }

    /// All of it, oldest first.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Removes what was read: the store is small, and a full one keeps no word of the next panic.
    pub fn forget(&self) {
        for entry in &self.entries {
            // One that stays is read again in the next boot.
            let _ = std::fs::remove_file(&entry.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_put_together_and_the_panic_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        write("dmesg-efi_pstore-170000000001001", "Panic#2 Part1\n.3] Kernel panic - not syncing: Fatal\n");
        write("dmesg-efi_pstore-170000000002001", "Panic#2 Part2\n<6>[ 2.1] about to go\n<0>[ 2");
        write("dmesg-efi_pstore-160000000001001", "Oops#1 Part1\n<1>[ 1.0] BUG: unable to handle\n");
        write("dmesg-ramoops-0.enc.z", "\u{1}\u{2}");
        write("console-ramoops-0", "[ 2.2] the console\n");
        let words = read(dir.path());
        assert!(words.has_died());
        assert_eq!(panic_in(words.text()).as_deref(), Some("kernel panic: Fatal"));
        let text = words.text();
        let expected =
            ["BUG: unable", "about to go", "<0>[ 2.3] Kernel panic", "console-ramoops-0:", "the console"];
        let places = expected.map(|word| text.find(word).unwrap_or_else(|| panic!("{word}: {text}")));
        assert!(
            places.is_sorted() && !text.contains("Part1") && text.contains("compressed, 2 bytes"),
            "{text}"
        );
        words.forget();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn the_console_of_the_boot_before_is_no_death() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!read(dir.path()).has_died() && !read(Path::new("/nonexistent/x")).has_died());
        std::fs::write(dir.path().join("console-ramoops-0"), "[ 9.9] reboot: Restarting system\n").unwrap();
        let words = read(dir.path());
        assert!(!words.has_died() && panic_in(words.text()).is_none() && !words.text().is_empty());
    }

    #[test]
    fn a_store_that_is_too_large_is_read_in_part() {
        let dir = tempfile::tempdir().unwrap();
        let huge = vec![b'x'; MAX_PSTORE_ENTRY_BYTES as usize + 1000];
        std::fs::write(dir.path().join("dmesg-ramoops-0"), huge).unwrap();
        assert_eq!(read(dir.path()).text().len(), MAX_PSTORE_ENTRY_BYTES as usize);
        for number in 0..MAX_PSTORE_ENTRIES + 10 {
            std::fs::write(dir.path().join(format!("dmesg-{number}")), "x").unwrap();
        }
        assert_eq!(read(dir.path()).entries.len(), MAX_PSTORE_ENTRIES);
    }
}
