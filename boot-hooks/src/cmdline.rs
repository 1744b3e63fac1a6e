//! The kernel command line: which root, where it ends, and what the loader says about the bank.
//!
//! Pure. The line stands in the signed boot image, so a contradiction in it is an error, never a guess.

use std::path::PathBuf;

use bank_format::{
    Bank, Digest256,
    limits::{MAX_IMAGE_BYTES, MAX_SALT_BYTES},
    loader::Kind,
    verity::BLOCK_BYTES,
};

use crate::{
    error::{Error, Result},
    verity::Proof,
};

/// What `/init` becomes at the end.
pub const DEFAULT_INIT: &str = "/usr/lib/systemd/systemd";

/// What the command line says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandLine {
    /// The tree over the root image: `roothash`, `roro.salt`, `roro.blocks`.
    pub root: Proof,
    /// `roro.bank`, given by loaders that leave no other trace.
    pub bank: Option<Bank>,
    /// `roro.loader`: which boot loader is told to go to another bank.
    pub loader: Option<Kind>,
    /// `roro.gave_up`: the bank on which a loader that counts has given up.
    pub gave_up: Option<Bank>,
    /// `roro.recovery=1`: the loader has something to start when no bank can be booted.
    pub has_recovery: bool,
    /// `roro.init`, else [`DEFAULT_INIT`].
    pub init: PathBuf,
}

/// Parses `/proc/cmdline`. Unknown words are the kernel's and systemd's business.
pub fn parse(line: &str) -> Result<CommandLine> {
    let words = words(line);
    let root_hash = one(&words, "roothash")?.ok_or_else(|| missing("roothash"))?;
    let root: Digest256 =
        root_hash.parse().map_err(|_| wrong("roothash", "expected 64 lower-case hex digits"))?;
    let salt = match one(&words, "roro.salt")? {
        None | Some("-") => Vec::new(),
        Some(digits) => hex::decode(digits).map_err(|_| wrong("roro.salt", "expected hex digits"))?,
    };
    if salt.len() > MAX_SALT_BYTES {
        return Err(wrong("roro.salt", "it is longer than 256 bytes"));
    }
    let blocks: u64 = one(&words, "roro.blocks")?
        .ok_or_else(|| missing("roro.blocks"))?
        .parse()
        .map_err(|_| wrong("roro.blocks", "expected a number"))?;
    if blocks == 0 || blocks > MAX_IMAGE_BYTES / BLOCK_BYTES as u64 {
        return Err(wrong("roro.blocks", "it is out of range"));
    }
    let loader = match one(&words, "roro.loader")? {
        None => None,
        Some(kind) => {
            Some(kind.parse().map_err(|_| wrong("roro.loader", "it names no loader that is known"))?)
        }
    };
    let has_recovery = match one(&words, "roro.recovery")? {
        None | Some("0") => false,
        Some("1") => true,
        Some(_) => return Err(wrong("roro.recovery", "expected 0 or 1")),
    };
    let init = PathBuf::from(one(&words, "roro.init")?.unwrap_or(DEFAULT_INIT));
    if !init.is_absolute() {
        return Err(wrong("roro.init", "expected an absolute path"));
    }
    Ok(CommandLine {
        root: Proof { root, salt, blocks },
        bank: bank(&words, "roro.bank")?,
        loader,
        gave_up: bank(&words, "roro.gave_up")?,
        has_recovery,
        init,
    })
}

/// What the line gives to a kernel module, as `modprobe` would read it: the words `MODULE.NAME=VALUE`, without `MODULE.`; `-` and
/// `_` in the name of a module are the same.
#[must_use]
pub fn module_parameters(line: &str, module: &str) -> String {
    let canonical = |name: &str| name.replace('-', "_");
    let ours = |word: &String| {
        let (before, parameter) = word.split_once('.')?;
        (canonical(before) == canonical(module)).then(|| parameter.to_owned())
    };
    words(line).iter().filter_map(ours).collect::<Vec<_>>().join(" ")
}

fn bank(words: &[String], key: &str) -> Result<Option<Bank>> {
    match one(words, key)? {
        None => Ok(None),
        Some(letter) => letter.parse().map(Some).map_err(|_| wrong(key, "expected a or b")),
    }
}

fn missing(key: &str) -> Error {
    Error::CommandLine { detail: format!("{key}= is missing") }
}

fn wrong(key: &str, why: &str) -> Error {
    Error::CommandLine { detail: format!("{key}=: {why}") }
}

/// The value of `key`; the same word twice is fine, two different values are not.
fn one<'a>(words: &'a [String], key: &str) -> Result<Option<&'a str>> {
    let mut found: Option<&str> = None;
    for word in words {
        if let Some(value) = word.strip_prefix(key).and_then(|rest| rest.strip_prefix('=')) {
            if found.is_some_and(|other| other != value) {
                return Err(wrong(key, "it is given twice with different values"));
            }
            found = Some(value);
        }
    }
    Ok(found)
}

/// Splits like the kernel: white space separates, double quotes hold a word together and vanish.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quoted = false;
    for letter in line.chars() {
        match letter {
            '"' => quoted = !quoted,
            space if space.is_ascii_whitespace() && !quoted => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
            }
            other => word.push(other),
        }
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "1f65315156301a8ff941960b0db2a92584851b087843d69a56411c85114e2807";

    #[test]
    fn a_whole_line() {
        let line = format!(
            "console=ttyS0 panic=5 roothash={HASH} roro.salt=0102 roro.blocks=300 roro.bank=b roro.init=\"/bin/my init\" x=\"a b\"\n"
        );
        let parsed = parse(&line).unwrap();
        assert_eq!(parsed.root.root.to_string(), HASH);
        assert_eq!((parsed.root.salt.as_slice(), parsed.root.blocks), (&[1u8, 2][..], 300));
        assert_eq!(parsed.bank, Some(Bank::B));
        assert_eq!(parsed.init, PathBuf::from("/bin/my init"));
    }

    #[test]
    fn what_a_loader_says() {
        let line = format!(
            "roothash={HASH} roro.blocks=1 roro.loader=u-boot roro.gave_up=a roro.recovery=1 roro.bank=b"
        );
        let parsed = parse(&line).unwrap();
        assert_eq!(
            (parsed.loader, parsed.gave_up, parsed.has_recovery),
            (Some(Kind::UBoot), Some(Bank::A), true)
        );
    }

    #[test]
    fn modules_get_their_words() {
        let line =
            "ramoops.mem_size=1 console=ttyS0 efi-pstore.pstore_disable=0 ramoops.ecc=1 a.b ramoopsx.y=1";
        assert_eq!(module_parameters(line, "ramoops"), "mem_size=1 ecc=1");
        assert_eq!(module_parameters(line, "efi_pstore"), "pstore_disable=0");
        assert_eq!(module_parameters(line, "erofs"), "");
    }

    #[test]
    fn what_may_be_left_out() {
        let parsed = parse(&format!("roothash={HASH} roro.salt=- roro.blocks=1")).unwrap();
        assert!(parsed.root.salt.is_empty());
        assert_eq!((parsed.bank, parsed.init), (None, PathBuf::from(DEFAULT_INIT)));
        assert_eq!((parsed.loader, parsed.gave_up, parsed.has_recovery), (None, None, false));
        assert!(parse(&format!("roothash={HASH} roothash={HASH} roro.blocks=1")).is_ok());
    }

    #[test]
    fn contradictions_and_nonsense_are_refused() {
        let upper = HASH.to_uppercase();
        let other = HASH.replace("1f", "2f");
        for line in [
            String::new(),
            "roothash=12 roro.blocks=1".into(),
            format!("roothash={upper} roro.blocks=1"),
            format!("roothash={HASH}"),
            format!("roothash={HASH} roro.blocks=0"),
            format!("roothash={HASH} roro.blocks=268435457"),
            format!("roothash={HASH} roro.blocks=-1"),
            format!("roothash={HASH} roothash={other} roro.blocks=1"),
            format!("roothash={HASH} roro.blocks=1 roro.salt=123"),
            format!("roothash={HASH} roro.blocks=1 roro.salt={}", "00".repeat(257)),
            format!("roothash={HASH} roro.blocks=1 roro.bank=c"),
            format!("roothash={HASH} roro.blocks=1 roro.init=init"),
            format!("roothash={HASH} roro.blocks=1 roro.loader=lilo"),
            format!("roothash={HASH} roro.blocks=1 roro.gave_up=c"),
            format!("roothash={HASH} roro.blocks=1 roro.recovery=yes"),
        ] {
            assert!(parse(&line).is_err(), "{line}");
        }
    }
}
