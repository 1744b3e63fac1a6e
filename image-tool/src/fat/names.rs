//! Names in a FAT directory: the short one that everybody reads, and a long one where that is not the whole name.

use crate::error::{Error, Result};

/// A name as rows of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name {
    /// Eight and three letters, padded with blanks.
    pub short: [u8; 11],
    /// The rows before the short one, in their order on disk; none where the short name says it all.
    pub long_entries: Vec<[u8; 32]>,
}

const LETTERS_PER_ROW: usize = 13;
/// A long name has at most 255 letters.
const MAX_LETTERS: usize = 255;
const LAST_ROW: u8 = 0x40;
const LONG_NAME: u8 = 0x0f;
/// Where the letters of a row stand.
const PLACES: [usize; LETTERS_PER_ROW] = [1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30];

/// Gives the names of a directory their short forms, all different.
pub fn of_directory(children: &[String]) -> Result<Vec<(&str, Name)>> {
    let mut taken: Vec<[u8; 11]> = Vec::new();
    let mut names = Vec::new();
    for child in children {
        check(child)?;
        let exact = exact(&child.to_ascii_uppercase());
        let short = match exact.filter(|short| !taken.contains(short)) {
            Some(short) => short,
            None => (1..=9)
                .map(|number| numbered(child, number))
                .find(|short| !taken.contains(short))
                .ok_or_else(|| Error::malformed(child, "too many names there begin alike"))?,
        };
        taken.push(short);
        let whole = exact.is_some_and(|exact| exact == short) && !child.contains(|c: char| c.is_lowercase());
        let long_entries = if whole { Vec::new() } else { long(child, &short) };
        names.push((child.as_str(), Name { short, long_entries }));
    }
    Ok(names)
}

fn check(name: &str) -> Result<()> {
    let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
    let dots = name.starts_with('.') || name.ends_with('.');
    if name.is_empty() || dots || name.len() > MAX_LETTERS || !name.bytes().all(fits) {
        return Err(Error::malformed(
            format!("{name:?}"),
            "a name on a boot partition has letters, digits, dots and dashes",
        ));
    }
    Ok(())
}

/// The short form that is the name itself.
fn exact(upper: &str) -> Option<[u8; 11]> {
    let (stem, extension) = upper.rsplit_once('.').unwrap_or((upper, ""));
    let fits = !stem.contains('.') && stem.len() <= 8 && extension.len() <= 3;
    fits.then(|| padded(stem, extension))
}

/// `ROROREC~1EFI` and the like.
fn numbered(name: &str, number: u8) -> [u8; 11] {
    let upper = name.to_ascii_uppercase();
    let (stem, extension) = upper.rsplit_once('.').unwrap_or((&upper, ""));
    let stem: String = stem.chars().filter(|c| *c != '.').take(6).collect();
    let extension: String = extension.chars().take(3).collect();
    padded(&format!("{stem}~{number}"), &extension)
}

fn padded(stem: &str, extension: &str) -> [u8; 11] {
    let mut short = [b' '; 11];
    short.iter_mut().zip(stem.bytes()).for_each(|(to, from)| *to = from);
    short.iter_mut().skip(8).zip(extension.bytes()).for_each(|(to, from)| *to = from);
    short
}

fn long(name: &str, short: &[u8; 11]) -> Vec<[u8; 32]> {
    let checksum = short.iter().fold(0u8, |sum, byte| sum.rotate_right(1).wrapping_add(*byte));
    let letters: Vec<u16> = name.encode_utf16().collect();
    let rows = letters.chunks(LETTERS_PER_ROW).zip(1u8..).map(|(part, number)| {
        let mut row = [0; 32];
        let last = usize::from(number) * LETTERS_PER_ROW >= letters.len();
        let mut put = |at: usize, byte: u8| {
            if let Some(place) = row.get_mut(at) {
                *place = byte;
            }
        };
        put(0, if last { number | LAST_ROW } else { number });
        put(11, LONG_NAME);
        put(13, checksum);
        // Behind the end: one zero, then all ones.
        let behind = std::iter::once(0).chain(std::iter::repeat(0xffff));
        for (place, letter) in PLACES.into_iter().zip(part.iter().copied().chain(behind)) {
            let [low, high] = letter.to_le_bytes();
            put(place, low);
            put(place + 1, high);
        }
        row
    });
    let mut rows: Vec<[u8; 32]> = rows.collect();
    rows.reverse();
    rows
}
