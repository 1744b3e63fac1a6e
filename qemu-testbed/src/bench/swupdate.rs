//! The archive that SWUpdate installs: a description, its signature, and one file (SWUpdate's manual, "sw-description").

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    path::Path,
    process::{Command, Stdio},
};

use crate::{
    bench::line::Names,
    error::{Error, Result},
    limits, process,
};

/// Makes `new.swu` of `image` in the shelf.
pub fn archive(names: &Names, image: &str, description: &str) -> Result<()> {
    let shelf = Path::new(names.get("shelf")?);
    let content = Path::new(names.get("scratch")?).join("swu");
    if image == "new.zhead" {
        cut_head(&shelf.join("new.zck"), &shelf.join(image))?;
    }
    if content.exists() {
        fs::remove_dir_all(&content).map_err(Error::io("remove", &content))?;
    }
    fs::create_dir_all(&content).map_err(Error::io("create", &content))?;
    let inside = content.join("img");
    fs::copy(shelf.join(image), &inside).map_err(Error::io("copy", &inside))?;
    let sum = process::run(Command::new("sha256sum").arg(&inside))?;
    let sum = String::from_utf8_lossy(&sum);
    let text = format!(
        "software = {{\n  version = \"2.0\";\n  hardware-compatibility: [ \"1.0\" ];\n  images: ( {{ filename = \"img\"; \
         device = \"{}\"; sha256 = \"{}\"; {} }} );\n}}\n",
        names.get("target")?,
        sum.split_whitespace().next().unwrap_or_default(),
        names.fill(description)?
    );
    let file = content.join("sw-description");
    fs::write(&file, text).map_err(Error::io("write", &file))?;
    let mut sign = Command::new("openssl");
    sign.current_dir(&content)
        .args(["cms", "-sign", "-in", "sw-description", "-out", "sw-description.sig"])
        .args(["-signer", names.get("cert")?, "-inkey", names.get("key")?])
        .args(["-outform", "DER", "-nosmimecap", "-binary"]);
    process::run(&mut sign)?;
    pack(&content, &shelf.join("new.swu"))
}

/// The order counts: SWUpdate reads it as a stream.
fn pack(content: &Path, archive: &Path) -> Result<()> {
    let out = File::create(archive).map_err(Error::io("create", archive))?;
    let mut cpio = process::tied("cpio")
        .args(["--quiet", "-o", "-H", "crc"])
        .current_dir(content)
        .stdin(Stdio::piped())
        .stdout(out)
        .spawn()
        .map_err(|source| Error::Start { program: "cpio".to_owned(), source })?;
    if let Some(mut list) = cpio.stdin.take() {
        list.write_all(b"sw-description\nsw-description.sig\nimg\n").map_err(Error::io("list", archive))?;
    }
    let status = cpio.wait().map_err(Error::io("wait for", archive))?;
    if status.success() {
        return Ok(());
    }
    let last_words = "see above".to_owned();
    Err(Error::Program { program: "cpio".to_owned(), status: status.to_string(), last_words })
}

/// The head of a zchunk file is what the delta handler wants in the archive.
fn cut_head(file: &Path, head: &Path) -> Result<()> {
    let said = process::run(Command::new("zck_read_header").arg("-v").arg(file))?;
    let said = String::from_utf8_lossy(&said);
    let bytes = head_bytes(&said).ok_or_else(|| Error::Unexpected {
        what: "zck_read_header -v".to_owned(),
        wanted: "a line Header size".to_owned(),
        seen: process::last_words(&said),
    })?;
    let mut from =
        File::open(file).map_err(Error::io("open", file))?.take(bytes.min(limits::BENCH_HEAD_BYTES));
    let mut to = File::create(head).map_err(Error::io("create", head))?;
    io::copy(&mut from, &mut to).map_err(Error::io("write", head)).map(drop)
}

fn head_bytes(said: &str) -> Option<u64> {
    said.lines().find_map(|line| line.trim().strip_prefix("Header size:"))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_size_of_a_head_is_read() {
        let said = "Overall checksum type: SHA-256\nHeader size: 123456\nData size: 9\n";
        assert_eq!(head_bytes(said), Some(123_456));
        assert_eq!(head_bytes("Data size: 9\n"), None);
    }
}
