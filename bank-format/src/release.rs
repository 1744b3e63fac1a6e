//! Releases, versions and the floor.

use std::fmt;

pub use semver::Version;
use serde::{Deserialize, Serialize};

use crate::{
    error::{Error, Result},
    limits::MAX_NAME_BYTES,
};

/// What a bank holds: a name and a semantic version.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Release {
    /// Name of the product, as in the manifest.
    pub name: String,
    /// Semantic version (<https://semver.org>).
    pub version: Version,
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.name, self.version)
    }
}

/// The file `/usr/lib/roro/release.json`: what an image says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseFile {
    /// Name of the product.
    pub name: String,
    /// Semantic version.
    pub version: Version,
    /// Which devices it fits.
    pub compatible: String,
}

/// A name that may become part of a file name or a message: letters, digits, `.`, `_`, `-`, at most 128 bytes,
/// not starting with a dot or a dash.
pub fn check_name(structure: &'static str, name: &str) -> Result<()> {
    let fits = (1..=MAX_NAME_BYTES).contains(&name.len())
        && !name.starts_with(['.', '-'])
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
    if fits {
        Ok(())
    } else {
        Err(Error::malformed(structure, "a name has 1 to 128 letters, digits, dots, dashes or underscores"))
    }
}

/// A `compatible` string: printable ASCII without blanks, at most 128 bytes, usually `vendor,device`.
pub fn check_compatible(text: &str) -> Result<()> {
    if (1..=MAX_NAME_BYTES).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic()) {
        Ok(())
    } else {
        Err(Error::malformed("compatible", "expected 1 to 128 printable characters without blanks"))
    }
}

/// The floor after `confirmed` was confirmed while `other` lies bootable in the other bank.
///
/// It never falls, and never rises above what the other bootable bank carries, unless the release demands it
/// (`demanded`, the manifest's `floor`), and then not above the release itself.
#[must_use]
pub fn floor_after_confirm(
    old_floor: Option<&Version>,
    confirmed: &Version,
    other: Option<&Version>,
    demanded: Option<&Version>,
) -> Version {
    let mut floor = confirmed.clone();
    if let Some(other) = other {
        floor = floor.min(other.clone());
    }
    if let Some(demanded) = demanded {
        floor = floor.max(demanded.clone().min(confirmed.clone()));
    }
    match old_floor {
        Some(old) => floor.max(old.clone()),
        None => floor,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v(text: &str) -> Version {
        Version::parse(text).unwrap()
    }

    #[test]
    fn the_floor_rises_with_care() {
        let cases = [
            // old, confirmed, other, demanded, expected
            (None, "1.0.0", None, None, "1.0.0"),
            (Some("1.0.0"), "1.1.0", Some("1.0.0"), None, "1.0.0"),
            (Some("1.0.0"), "1.2.0", Some("1.1.0"), None, "1.1.0"),
            (Some("1.0.0"), "1.2.0", Some("1.1.0"), Some("1.2.0"), "1.2.0"),
            (Some("1.0.0"), "1.2.0", Some("1.1.0"), Some("9.0.0"), "1.2.0"),
            (Some("1.1.0"), "1.1.0", Some("1.0.0"), None, "1.1.0"),
            (Some("2.0.0"), "1.1.0", None, None, "2.0.0"),
        ];
        for (old, confirmed, other, demanded, expected) in cases {
            let found = floor_after_confirm(
                old.map(v).as_ref(),
                &v(confirmed),
                other.map(v).as_ref(),
                demanded.map(v).as_ref(),
            );
            assert_eq!(found, v(expected), "{old:?} {confirmed} {other:?} {demanded:?}");
        }
    }

    #[test]
    fn names_that_could_be_paths_are_refused() {
        for bad in ["", "a/b", "../x", ".hidden", "-x", "a b", "a\0", &"x".repeat(129), "ü"] {
            assert!(check_name("name", bad).is_err(), "{bad:?}");
        }
        for good in ["a", "jeos", "root", "a-1.b_c"] {
            assert!(check_name("name", good).is_ok(), "{good:?}");
        }
    }
}
