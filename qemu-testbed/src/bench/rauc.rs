//! RAUC with two slots on the banks: bus, service, and the indexes of v1 that a device in use would have.
//!
//! Bytes of an adaptive install are seen at the loop device on which RAUC mounts the bundle: nothing else on the host may
//! use loop devices meanwhile.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::Instant,
};

use sha2::{Digest, Sha256};

use crate::{
    bench::{
        banks::{Banks, read_full},
        line::Names,
    },
    error::{Error, Result},
    limits, process,
};

/// How the file system in a bundle is made.
pub const MKSQUASHFS: &str = "-comp zstd -b 131072";
/// Bytes of one block of the index, and of its digest.
const BLOCK_BYTES: usize = 4096;
const DIGEST_BYTES: u64 = 32;
/// Bytes of a block of the file system in the bundle, and the level at which mksquashfs compresses it.
const SQUASH_BYTES: usize = 131_072;
const SQUASH_LEVEL: i32 = 15;

/// The installation.
#[derive(Debug)]
pub struct Rauc {
    folder: PathBuf,
    configuration: PathBuf,
}

/// Bus and service; they end when dropped.
#[derive(Debug)]
pub struct Service {
    bus: Child,
    service: Child,
    /// The address of the bus.
    pub address: String,
}

/// The slot that counts as booted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Booted {
    A,
    B,
}

impl Rauc {
    /// Sets up both slots and installs v1 into each, so that each has its index.
    pub fn install(folder: &Path, names: &Names, banks: &Banks, old: &Path) -> Result<Self> {
        fs::create_dir_all(folder.join("mount")).map_err(Error::io("create", folder))?;
        fs::create_dir_all(folder.join("data")).map_err(Error::io("create", folder))?;
        let configuration = folder.join("system.conf");
        let text = configuration_text(folder, names.get("cert")?, banks);
        fs::write(&configuration, text).map_err(Error::io("write", &configuration))?;
        let rauc = Rauc { folder: folder.to_owned(), configuration };
        rauc.content(old, "adaptive=block-hash-index\n", &folder.join("content"))?;
        let bundle = folder.join("old.raucb");
        let mut command = Command::new("rauc");
        command
            .arg("bundle")
            .arg(format!("--cert={}", names.get("cert")?))
            .arg(format!("--key={}", names.get("key")?))
            .arg(format!("--keyring={}", names.get("cert")?))
            .arg(format!("--mksquashfs-args={MKSQUASHFS}"))
            .arg(folder.join("content"))
            .arg(&bundle);
        process::run(&mut command)?;
        for booted in [Booted::B, Booted::A] {
            let service = rauc.serve(booted, &[])?;
            let mut command = Command::new("rauc");
            command
                .env("DBUS_STARTER_BUS_TYPE", "session")
                .env("DBUS_SESSION_BUS_ADDRESS", &service.address)
                .arg("install")
                .arg(&bundle);
            process::run(&mut command)?;
        }
        process::run(Command::new("cp").arg("-a").arg(folder.join("data")).arg(folder.join("saved")))?;
        Ok(rauc)
    }

    /// A folder that becomes a bundle of this image.
    pub fn content(&self, image: &Path, adaptive: &str, content: &Path) -> Result<()> {
        if content.exists() {
            fs::remove_dir_all(content).map_err(Error::io("remove", content))?;
        }
        fs::create_dir_all(content).map_err(Error::io("create", content))?;
        let inside = content.join("rootfs.img");
        fs::copy(image, &inside).map_err(Error::io("copy", &inside))?;
        let manifest = content.join("manifest.raucm");
        let text = format!(
            "[update]\ncompatible=bench\nversion=1\n[bundle]\nformat=plain\n[image.rootfs]\nfilename=rootfs.img\n{adaptive}"
        );
        fs::write(&manifest, text).map_err(Error::io("write", &manifest))
    }

    /// Bus and service with the state of a device that runs v1 from the first slot.
    pub fn start(&self, prefix: &[String]) -> Result<Service> {
        let data = self.folder.join("data");
        fs::remove_dir_all(&data).map_err(Error::io("remove", &data))?;
        process::run(Command::new("cp").arg("-a").arg(self.folder.join("saved")).arg(&data))?;
        self.serve(Booted::A, prefix)
    }

    fn serve(&self, booted: Booted, prefix: &[String]) -> Result<Service> {
        let socket = self.folder.join("bus");
        fs::remove_file(&socket).ok();
        let address = format!("unix:path={}", socket.display());
        let bus =
            quiet(process::tied("dbus-daemon"), &["--session", "--nofork", &format!("--address={address}")])?;
        let slot = match booted {
            Booted::A => "A",
            Booted::B => "B",
        };
        let mut words = prefix.iter().map(String::as_str).chain(["rauc"]);
        let mut command = process::tied(words.next().unwrap_or("rauc"));
        command
            .args(words)
            .env("DBUS_STARTER_BUS_TYPE", "session")
            .env("DBUS_SESSION_BUS_ADDRESS", &address)
            .arg("--conf")
            .arg(&self.configuration);
        let deadline = Instant::now() + limits::BENCH_SERVICE_START;
        while !socket.exists() && Instant::now() < deadline {
            thread::sleep(limits::BENCH_LOOK_AGAIN);
        }
        let service = quiet(command, &["service", &format!("--override-boot-slot={slot}")])?;
        let service = Service { bus, service, address };
        while !service.is_there()? {
            if Instant::now() > deadline {
                return Err(Error::Unexpected {
                    what: "the service of rauc".to_owned(),
                    wanted: "its name on the bus".to_owned(),
                    seen: "nothing".to_owned(),
                });
            }
            thread::sleep(limits::BENCH_LOOK_AGAIN);
        }
        Ok(service)
    }
}

fn quiet(mut command: Command, arguments: &[&str]) -> Result<Child> {
    let program = format!("{command:?}");
    command
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|source| Error::Start { program, source })
}

impl Service {
    /// The process that does the work.
    #[must_use]
    pub fn process(&self) -> u32 {
        self.service.id()
    }

    fn is_there(&self) -> Result<bool> {
        let output = Command::new("dbus-send")
            .env("DBUS_SESSION_BUS_ADDRESS", &self.address)
            .args(["--session", "--print-reply", "--dest=org.freedesktop.DBus", "/"])
            .args(["org.freedesktop.DBus.NameHasOwner", "string:de.pengutronix.rauc"])
            .output()
            .map_err(|source| Error::Start { program: "dbus-send".to_owned(), source })?;
        Ok(String::from_utf8_lossy(&output.stdout).contains("boolean true"))
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        for child in [&mut self.service, &mut self.bus] {
            child.kill().and_then(|()| child.wait()).ok();
        }
    }
}

fn configuration_text(folder: &Path, cert: &str, banks: &Banks) -> String {
    let slot = |number: u32, node: &Path, name: &str| {
        format!("[slot.rootfs.{number}]\ndevice={}\ntype=raw\nbootname={name}\n", node.display())
    };
    let folder = folder.display();
    format!(
        "[system]\ncompatible=bench\nbootloader=noop\nmountprefix={folder}/mount\ndata-directory={folder}/data\n\
         max-bundle-download-size=4294967296\n[keyring]\npath={cert}\n{}{}",
        slot(0, banks.running.node(), "A"),
        slot(1, banks.target.node(), "B"),
    )
}

/// Bytes read so far from loop devices other than the banks.
pub fn mounted_reads(banks: &Banks) -> Result<u64> {
    let file = "/proc/diskstats";
    let text = fs::read_to_string(file).map_err(Error::io("read", file))?;
    Ok(loop_reads(&text, &[&banks.running.name(), &banks.target.name()]))
}

/// Sectors in the sixth column (Documentation/admin-guide/iostats.rst), always of 512 bytes.
fn loop_reads(diskstats: &str, except: &[&str]) -> u64 {
    let sectors = diskstats.lines().filter_map(|line| {
        let mut words = line.split_whitespace().skip(2);
        let name = words.next()?;
        let is_counted = name.starts_with("loop") && !except.contains(&name);
        let sectors: u64 = words.nth(2)?.parse().ok()?;
        is_counted.then_some(sectors)
    });
    sectors.fold(0_u64, |sum, sectors| sum.saturating_add(sectors)).saturating_mul(512)
}

/// What an index of blocks would have to fetch if RAUC read nothing twice and nothing ahead: the blocks of the file system in the
/// bundle that hold a block which v1 does not have, compressed as there, and the index.
pub fn computed_bytes(old: &Path, new: &Path) -> Result<u64> {
    let mut known = std::collections::HashSet::new();
    pieces(old, |piece| {
        known.extend(piece.chunks(BLOCK_BYTES).map(digest));
        Ok(())
    })?;
    known.insert(digest(&[0; BLOCK_BYTES]));
    let (mut fetched, mut blocks) = (0_u64, 0_u64);
    pieces(new, |piece| {
        let digests: Vec<_> = piece.chunks(BLOCK_BYTES).map(digest).collect();
        blocks = blocks.saturating_add(digests.len() as u64);
        if digests.iter().any(|digest| !known.contains(digest)) {
            let packed = zstd::bulk::compress(piece, SQUASH_LEVEL)?;
            fetched = fetched.saturating_add(packed.len().min(piece.len()) as u64);
            known.extend(digests);
        }
        Ok(())
    })?;
    Ok(fetched.saturating_add(blocks.saturating_mul(DIGEST_BYTES)))
}

fn pieces(image: &Path, mut each: impl FnMut(&[u8]) -> io::Result<()>) -> Result<()> {
    let mut read_all = || {
        let mut file = File::open(image)?;
        let mut piece = vec![0_u8; SQUASH_BYTES];
        loop {
            match read_full(&mut file, &mut piece)? {
                0 => return Ok(()),
                count => each(piece.get(..count).unwrap_or_default())?,
            }
        }
    };
    read_all().map_err(Error::io("read the blocks of", image))
}

fn digest(block: &[u8]) -> [u8; 32] {
    Sha256::digest(block).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_of_the_mounted_bundle_are_told_from_those_of_the_banks() {
        let stats = "   7       0 loop0 10 0 1000 1 0 0 0 0 0 0\n\
                        7       1 loop1 10 0 500 1 0 0 0 0 0 0\n\
                        7       2 loop2 10 0 30 1 0 0 0 0 0 0\n\
                      254       0 vda 10 0 7000 1 0 0 0 0 0 0\n";
        assert_eq!(loop_reads(stats, &["loop0", "loop1"]), 30 * 512);
        assert_eq!(loop_reads(stats, &[]), 1530 * 512);
    }

    #[test]
    fn only_blocks_that_the_old_image_has_not_are_fetched() {
        let folder = tempfile::tempdir().unwrap();
        let (old, new) = (folder.path().join("old"), folder.path().join("new"));
        // Incompressible: each byte of a block counts.
        let mut state = 1_u64;
        let mut image: Vec<u8> = std::iter::repeat_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        })
        .take(4 * SQUASH_BYTES)
        .collect();
        fs::write(&old, &image).unwrap();
        let index = (image.len() / BLOCK_BYTES) as u64 * DIGEST_BYTES;
        fs::write(&new, &image).unwrap();
        assert_eq!(computed_bytes(&old, &new).unwrap(), index);
        image[SQUASH_BYTES + 5] ^= 1;
        image[3 * SQUASH_BYTES..][..BLOCK_BYTES].fill(0);
        fs::write(&new, &image).unwrap();
        assert_eq!(computed_bytes(&old, &new).unwrap(), index + SQUASH_BYTES as u64);
    }
}
