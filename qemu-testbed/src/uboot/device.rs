//! The device as its system sees it: a folder with `/dev`, `/etc`, `/run` and `/state`, in which the real agent runs.
//!
//! `/dev/mmcblk0` is the disk that the board starts from: partition table, boot script, environment, boot images. The agent reaches
//! the environment through it, by the `fw_env.config` of the page. The images of the banks and the record are files beside it; a
//! boot image is laid onto the disk when the board is switched on.
//!
//! Promises that the agent touches nothing of this host: it runs with this folder as its root, in process and mount namespaces
//! of its own, where a reboot ends its namespace and nothing else. That end is how the stage knows that it rebooted.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    os::unix::{
        fs::{FileExt, symlink},
        process::ExitStatusExt,
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use bank_format::{
    Bank, Release as Named,
    loader::{UBoot, uboot::PARTITION_ENV_BYTES},
    record::{COPY_BYTES, Medium, RECORD_BYTES, Record, encode_copy},
    release::ReleaseFile,
};
use image_tool::{
    clock,
    disk::table::{self, BOOT_CODE_BYTES, Layout, Partition, Purpose},
    fat::File as FatFile,
    keys::{self, KeygenOptions, ReleaseKeys},
    progress::Silent,
};

use super::{
    images::{self, PRODUCT, Release},
    odd,
    page::Page,
    payload::{self, Behaviour, FIRST_WORD},
};
use crate::{
    error::{Error, Result},
    process,
};

/// Bytes of a partition with a FAT: `image-tool` makes none that is smaller.
const FAT_BYTES: u64 = 4 << 20;
/// Bytes of the partition `loader`.
const LOADER_BYTES: u64 = 64 << 10;
/// Bytes of both copies of the environment.
pub const ENVIRONMENT_BYTES: usize = 2 * PARTITION_ENV_BYTES;
/// Bytes of the partition table at the start of a disk: two blocks, and 128 entries.
const TABLE_BYTES: u64 = 34 * 512;
/// `SIGHUP`: how a process namespace ends whose process 1 asked for a restart (`reboot(2)`).
const RESTARTED: i32 = 1;
const MKIMAGE: &str = "mkimage";

/// How a command of the agent ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// By itself.
    Exited {
        /// Its exit code.
        code: i32,
        /// Its standard output.
        output: String,
    },
    /// It rebooted the machine.
    Rebooted,
}

/// All that survives a power cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contents {
    /// Files by their path in the folder.
    pub files: BTreeMap<PathBuf, Vec<u8>>,
    /// Both copies of the environment.
    pub environment: Vec<u8>,
}

/// The record's file in the folder.
pub const RECORD: &str = "dev/mmcblk0p7";

/// The device.
pub struct Device {
    folder: PathBuf,
    keys: ReleaseKeys,
    layout: Layout,
    compatible: String,
}

impl Device {
    /// A factory device in `folder`: the disk by the page, bank A filled, bank B empty. `agent` is the program for the device.
    pub fn factory(folder: &Path, source: &Path, agent: &Path, page: &Page, tries: u32) -> Result<Self> {
        let root = folder.join("root");
        for name in ["dev", "etc/roro", "run", "state/roro", "tmp", "usr/bin", "usr/lib/roro/health.d"] {
            make_folder(&root.join(name))?;
        }
        let put = |name: &str, bytes: &[u8]| write(&root.join(name), bytes);
        put("dev/null", b"")?;
        put("etc/fw_env.config", page.fw_env_config.as_bytes())?;
        put("etc/roro/updater.toml", format!("tries = {tries}\n{}", page.updater_toml).as_bytes())?;
        let program = root.join("usr/bin/updater");
        fs::copy(agent, &program).map_err(Error::io("copy", agent))?;
        let keys = new_keys(&folder.join("keys"))?;
        put("usr/lib/roro/root.json", keys.root_json())?;
        let factory = Release::FACTORY;
        put("dev/mmcblk0p3", &factory.boot()?)?;
        put("dev/mmcblk0p4", &[0; 4096])?;
        put("dev/mmcblk0p5", &factory.root_with_tree()?)?;
        put("dev/mmcblk0p6", &[0; 4096])?;
        put(RECORD, &factory_record()?)?;
        let layout = make_disk(&root.join("dev/mmcblk0"), folder, source, page)?;
        let compatible = compatible(&page.updater_toml)?;
        Ok(Self { folder: folder.to_owned(), keys, layout, compatible })
    }

    fn root(&self, name: &str) -> PathBuf {
        self.folder.join("root").join(name)
    }

    /// The disk that the board starts from.
    #[must_use]
    pub fn disk(&self) -> PathBuf {
        self.root("dev/mmcblk0")
    }

    /// The image of a bank.
    #[must_use]
    pub fn image(&self, bank: Bank, name: &str) -> PathBuf {
        let number = match (bank, name) {
            (Bank::A, "boot") => 3,
            (Bank::B, "boot") => 4,
            (Bank::A, _) => 5,
            (Bank::B, _) => 6,
        };
        self.root(&format!("dev/mmcblk0p{number}"))
    }

    /// Lays both boot images onto the disk.
    pub fn seat(&self) -> Result<()> {
        for (bank, name) in [(Bank::A, "boot-a"), (Bank::B, "boot-b")] {
            let mut bytes = read(&self.image(bank, "boot"))?;
            bytes.resize(FAT_BYTES as usize, 0);
            self.on_disk(name, |file, at| file.write_all_at(&bytes, at))?;
        }
        Ok(())
    }

    fn on_disk<T>(&self, name: &str, deed: impl FnOnce(&File, u64) -> std::io::Result<T>) -> Result<T> {
        let disk = self.disk();
        let place = self.layout.place(name).map(|place| place.offset_bytes).unwrap_or_default();
        let file = File::options().read(true).write(true).open(&disk).map_err(Error::io("open", &disk))?;
        deed(&file, place).map_err(Error::io("use", &disk))
    }

    /// What stands between the table and the first partition.
    pub fn before_the_first_partition(&self) -> Result<Vec<u8>> {
        let disk = self.disk();
        let first = self.layout.places.iter().map(|place| place.offset_bytes).min().unwrap_or_default();
        let file = File::open(&disk).map_err(Error::io("open", &disk))?;
        let mut bytes = vec![0; first.saturating_sub(TABLE_BYTES) as usize];
        file.read_exact_at(&mut bytes, TABLE_BYTES).map_err(Error::io("read", &disk))?;
        Ok(bytes)
    }

    /// Both copies of the environment.
    pub fn environment(&self) -> Result<Vec<u8>> {
        let mut bytes = vec![0; ENVIRONMENT_BYTES];
        self.on_disk("loader", |file, at| file.read_exact_at(&mut bytes, at))?;
        Ok(bytes)
    }

    /// Puts both copies of the environment back.
    pub fn set_environment(&self, bytes: &[u8]) -> Result<()> {
        self.on_disk("loader", |file, at| file.write_all_at(bytes, at))
    }

    /// The environment as the initrd reaches it.
    pub fn loader(&self) -> Result<UBoot<Window>> {
        let disk = self.disk();
        let place = self.layout.place("loader").map(|place| place.offset_bytes).unwrap_or_default();
        let window = |copy: usize| Window::open(&disk, place + (copy * PARTITION_ENV_BYTES) as u64);
        Ok(UBoot::new([window(0)?, window(1)?], PARTITION_ENV_BYTES))
    }

    /// The record as the initrd reaches it.
    pub fn record(&self) -> Result<Window> {
        Window::open(&self.root(RECORD), 0)
    }

    /// All that survives a power cut.
    pub fn contents(&self) -> Result<Contents> {
        let mut files = BTreeMap::new();
        let root = self.root("");
        for number in 3..=7 {
            let name = PathBuf::from(format!("dev/mmcblk0p{number}"));
            files.insert(name.clone(), read(&root.join(name))?);
        }
        collect(&root, Path::new("state"), &mut files)?;
        Ok(Contents { files, environment: self.environment()? })
    }

    /// Puts it back.
    pub fn restore(&self, contents: &Contents) -> Result<()> {
        let state = self.root("state");
        fs::remove_dir_all(&state).map_err(Error::io("remove", &state))?;
        make_folder(&state.join("roro"))?;
        for (name, bytes) in &contents.files {
            let path = self.root("").join(name);
            if let Some(folder) = path.parent() {
                make_folder(folder)?;
            }
            write(&path, bytes)?;
        }
        self.set_environment(&contents.environment)
    }

    /// What the initrd leaves in `/run/roro`, and what the image of this release says of itself.
    pub fn come_up(&self, bank: Bank, boot: u32, going: &str, release: Release) -> Result<()> {
        let run = self.root("run");
        fs::remove_dir_all(&run).map_err(Error::io("remove", &run))?;
        let links = run.join("roro/dev");
        make_folder(&links)?;
        for (name, node) in
            [("boot-a", "p3"), ("boot-b", "p4"), ("root-a", "p5"), ("root-b", "p6"), ("record", "p7")]
        {
            let link = links.join(name);
            symlink(format!("/dev/mmcblk0{node}"), &link).map_err(Error::io("link", &link))?;
        }
        write(&run.join("roro/bank"), format!("{bank}\n").as_bytes())?;
        write(&run.join("roro/boot_id"), format!("boot-{boot}\n").as_bytes())?;
        let json = format!("{{\"bank\":\"{bank}\",\"as\":\"{going}\",\"watchdog\":\"i6300esb\"}}\n");
        write(&run.join("roro/boot.json"), json.as_bytes())?;
        let (name, version) = (PRODUCT.to_owned(), release.version());
        let file = ReleaseFile { name, version, compatible: self.compatible.clone() };
        let text = serde_json::to_string(&file).map_err(|error| odd("release.json", &error))?;
        write(&self.root("usr/lib/roro/release.json"), text.as_bytes())?;
        let command = match release.image {
            boot_hooks::scenarios::Image::Unhealthy => "--no-such-option",
            boot_hooks::scenarios::Image::Good
            | boot_hooks::scenarios::Image::Panics
            | boot_hooks::scenarios::Image::HangsEarly
            | boot_hooks::scenarios::Image::HangsLate => "--version",
        };
        let check = format!(
            "[[check]]\nname = \"agent answers\"\ncommand = [\"/usr/bin/updater\", \"{command}\"]\n\
             deadline_seconds = 2\ninterval_seconds = 1\n"
        );
        write(&self.root("usr/lib/roro/health.d/agent.toml"), check.as_bytes())
    }

    /// Makes the bundle of a release; gives its path as the device sees it.
    pub fn bundle(&self, release: Release) -> Result<String> {
        let out = self.root("tmp/release.roro");
        release.bundle(&self.compatible, &self.keys, &self.folder, &out)?;
        Ok("/tmp/release.roro".to_owned())
    }

    /// Runs a command of the agent on the device.
    pub fn agent(&self, arguments: &[&str]) -> Result<Ended> {
        let namespaces = ["--map-root-user", "--mount", "--pid", "--fork", "--kill-child"];
        let output = process::tied("unshare")
            .args(namespaces)
            .arg(format!("--root={}", self.root("").display()))
            .arg("/usr/bin/updater")
            .args(arguments)
            .env_clear()
            .stdin(Stdio::null())
            .output()
            .map_err(|source| Error::Start { program: "unshare".to_owned(), source })?;
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        let log = self.folder.join("agent.log");
        let said = format!("updater {}: {}\n{words}", arguments.join(" "), output.status);
        append(&log, &said)?;
        match (output.status.signal(), output.status.code()) {
            (Some(RESTARTED), _) => Ok(Ended::Rebooted),
            (_, Some(code)) => {
                Ok(Ended::Exited { code, output: String::from_utf8_lossy(&output.stdout).into_owned() })
            }
            (_, None) => Err(Error::Program {
                program: format!("updater {}", arguments.join(" ")),
                status: output.status.to_string(),
                last_words: process::last_words(&words),
            }),
        }
    }

    /// The end of what the agent said on its error output.
    #[must_use]
    pub fn last_words(&self) -> String {
        let text = fs::read_to_string(self.folder.join("agent.log")).unwrap_or_default();
        process::last_words(&text)
    }
}

/// A place in a file, written through.
#[derive(Debug)]
pub struct Window {
    file: File,
    start_bytes: u64,
}

impl Window {
    fn open(path: &Path, start_bytes: u64) -> Result<Self> {
        let file = File::options().read(true).write(true).open(path).map_err(Error::io("open", path))?;
        Ok(Self { file, start_bytes })
    }
}

impl Medium for Window {
    type Error = std::io::Error;
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> std::io::Result<()> {
        self.file.read_exact_at(buffer, self.start_bytes + offset)
    }
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> std::io::Result<()> {
        self.file.write_all_at(bytes, self.start_bytes + offset)
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn factory_record() -> Result<Vec<u8>> {
    let release = Named { name: PRODUCT.into(), version: Release::FACTORY.version() };
    let proofs = BTreeMap::from(Release::FACTORY.proofs()?);
    let record = Record::founded_on(Bank::A, Some(release), proofs);
    let mut bytes = Vec::with_capacity(RECORD_BYTES);
    for sequence in [1, 2] {
        bytes.extend(encode_copy(&record, sequence).map_err(|error| odd("the record", &error))?);
        bytes.resize(bytes.len().next_multiple_of(COPY_BYTES), 0);
    }
    Ok(bytes)
}

/// The disk of the page: script, environment, room for two boot images.
fn make_disk(disk: &Path, folder: &Path, source: &Path, page: &Page) -> Result<Layout> {
    let mint = |source| Error::Mint { release: "the disk of the board".into(), source: Box::new(source) };
    let shipped = source.join("boot-hooks/loaders/u-boot.cmd");
    let text = fs::read_to_string(&shipped).map_err(Error::io("read", &shipped))?;
    let (script, compiled) = (folder.join("u-boot.cmd"), folder.join("boot.scr"));
    write(&script, page.script(&text)?.as_bytes())?;
    let mut command = Command::new(MKIMAGE);
    process::run(command.args(["-A", "arm64", "-T", "script", "-d"]).args([&script, &compiled]))?;
    let recovery = payload::kernel("recovery good", Behaviour::PowersOff);
    let files = [FatFile::new("boot.scr", read(&compiled)?), FatFile::new("recovery", recovery)];
    let copies: Result<Vec<Vec<u8>>> = [2, 1]
        .into_iter()
        .map(|serial| factory_environment(serial).map_err(|error| odd("the environment", &error)))
        .collect();
    let partition = |name: &str, bytes: u64| Partition::empty(name, bytes, Purpose::Linux);
    let partitions = [
        partition("script", FAT_BYTES).with(images::volume(&files)?),
        partition("loader", LOADER_BYTES).with(copies?.concat()),
        partition("boot-a", FAT_BYTES),
        partition("boot-b", FAT_BYTES),
    ];
    table::write(disk, PRODUCT, &partitions, &[0; BOOT_CODE_BYTES]).map_err(mint)
}

/// As an integrator makes it, with a variable of the board's own, long enough that the variables of Roro lie in another sector than
/// the checksum: so a write can be torn between them.
fn factory_environment(serial: u8) -> bank_format::error::Result<Vec<u8>> {
    let bytes = UBoot::factory(Bank::A, PARTITION_ENV_BYTES, serial)?;
    let (_, known) = bank_format::loader::uboot::decode_copy(&bytes).unwrap_or_default();
    let mut variables = bank_format::loader::uboot::Variables::default();
    // U-Boot sorts when it exports: this name comes first.
    variables.set("AAA_serial_number", &"0123456789".repeat(60));
    for (name, value) in known.pairs() {
        variables.set(&name, &value);
    }
    variables.encode(PARTITION_ENV_BYTES, serial)
}

/// The command that the board runs when nothing boots.
#[must_use]
pub fn recovery_command() -> String {
    format!(
        "roro_recovery=load virtio 0:1 ${{kernel_addr_r}} recovery; setenv bootargs {FIRST_WORD}u-boot; \
         booti ${{kernel_addr_r}} - ${{fdtcontroladdr}}\n"
    )
}

fn compatible(toml: &str) -> Result<String> {
    let line = toml.lines().find_map(|line| line.strip_prefix("compatible = "));
    line.map(|value| value.trim_matches('"').to_owned()).ok_or_else(|| odd("compatible of the page", &"none"))
}

fn new_keys(folder: &Path) -> Result<ReleaseKeys> {
    keys::generate(&KeygenOptions::new(folder, clock::now_unix_seconds()))
        .and_then(|_| ReleaseKeys::load(folder, None, &Silent))
        .map_err(|source| Error::Mint { release: "keys".into(), source: Box::new(source) })
}

fn collect(root: &Path, below: &Path, files: &mut BTreeMap<PathBuf, Vec<u8>>) -> Result<()> {
    let folder = root.join(below);
    for entry in fs::read_dir(&folder).map_err(Error::io("list", &folder))? {
        let entry = entry.map_err(Error::io("list", &folder))?;
        let name = below.join(entry.file_name());
        if entry.path().is_dir() {
            collect(root, &name, files)?;
        } else {
            files.insert(name, read(&entry.path())?);
        }
    }
    Ok(())
}

fn make_folder(path: &Path) -> Result<()> {
    fs::create_dir_all(path).map_err(Error::io("create", path))
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).map_err(Error::io("read", path))
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    fs::write(path, bytes).map_err(Error::io("write", path))
}

fn append(path: &Path, text: &str) -> Result<()> {
    use std::io::Write as _;
    let file = File::options().create(true).append(true).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes())).map_err(Error::io("write", path))
}
