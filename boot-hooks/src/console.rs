//! What early boot says: to the kernel log, and to the console where the kernel would keep it to itself.
//!
//! It never fails: a machine without a console boots as well. Deliberately absent: levels beyond the three that a person needs.

use std::{
    fs::{self, File, OpenOptions},
    io::Write as _,
};

use crate::{error::Error, limits::MAX_KMSG_BYTES};

/// Something that happened as it should.
pub fn note(text: &str) {
    say(6, text);
}

/// Something that is wrong, and that the boot survives.
pub fn warn(text: &str) {
    say(4, text);
}

/// Why the boot ends here.
pub fn fail(text: &str) {
    say(2, text);
}

/// Tells a person who started this program by hand why it does nothing.
#[expect(clippy::print_stderr, reason = "the one line that is not written by process 1")]
pub fn refuse(error: &Error) {
    eprintln!("{error}");
}

fn say(level: u8, text: &str) {
    let line = first_bytes(text, MAX_KMSG_BYTES).replace('\n', "; ");
    // Each message opens the log anew: the kernel limits the rate per opened file.
    let logged = write_to("/dev/kmsg", &format!("<{level}>roro: {line}\n"));
    if !logged || level >= kernel_console_level() {
        write_to("/dev/console", &format!("roro: {line}\r\n"));
    }
}

fn write_to(path: &str, line: &str) -> bool {
    let opened: std::io::Result<File> = OpenOptions::new().write(true).open(path);
    opened.and_then(|mut file| file.write_all(line.as_bytes())).is_ok()
}

/// Messages of a lower level than this reach the console through the kernel log.
fn kernel_console_level() -> u8 {
    let text = fs::read_to_string("/proc/sys/kernel/printk").unwrap_or_default();
    text.split_whitespace().next().and_then(|level| level.parse().ok()).unwrap_or(0)
}

fn first_bytes(text: &str, limit: usize) -> &str {
    let end = (0..=limit.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    text.get(..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lines_are_cut_between_characters() {
        assert_eq!(first_bytes("abc", 10), "abc");
        assert_eq!(first_bytes("aé", 2), "a");
        assert_eq!(first_bytes("aé", 3), "aé");
    }
}
