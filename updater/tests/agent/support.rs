//! Small bundles, a small server, and hands that note what they do. No network beyond loopback, no root.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet, HashMap},
    io::{self, BufRead as _, BufReader, Write as _},
    net::TcpListener,
    path::{Path, PathBuf},
    rc::Rc,
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use bank_format::{
    Bank, Digest256, Manifest, TrustRoot,
    header::Header,
    index::{ChunkTable, Lane, Source},
    json,
    loader::Spare,
    manifest::{Build, Image, Index, Tree, Verity},
    record::{Record, StoreError},
    release::Version,
    signatures::{self, Signature, signing_message},
    trust::key_id,
    verity::TreeBuilder,
};
use ed25519_dalek::{Signer as _, SigningKey};
use updater::{
    Device, Terms,
    bank::Staged,
    commands::reboot::reboot_and_settle,
    config::{Config, Network},
    device::{NoWork, Purpose},
    engine::Event,
    history::{Entry, HistoryLog},
    install,
    ports::{
        Access, AfterReboot, BankDisk, BootControl, Clock, ImageFile, Reboot, RecordStore, Request, Response,
        Room, Silent, Transport, TransportError,
    },
};

const CHUNK_BYTES: usize = 10_000;
const CHUNKS_PER_FRAME: usize = 3;

fn key() -> SigningKey {
    SigningKey::from_bytes(&[7; 32])
}

pub fn root_json() -> Vec<u8> {
    let public = key().verifying_key().to_bytes();
    let id = key_id(&public).unwrap().to_string();
    let role = serde_json::json!({ "keyids": [id], "threshold": 1 });
    let signed = serde_json::json!({
        "_type": "root", "spec_version": "1.0.31", "version": 1, "expires": "2099-01-01T00:00:00Z",
        "consistent_snapshot": true,
        "keys": { id.clone(): { "keytype": "ed25519", "scheme": "ed25519",
                                "keyval": { "public": hex::encode(public) } } },
        "roles": { "root": role, "targets": role, "snapshot": role, "timestamp": role },
    });
    let message = json::canonical("root", &signed).unwrap();
    let sig = hex::encode(key().sign(&message).to_bytes());
    serde_json::to_vec(&serde_json::json!({ "signed": signed, "signatures": [{ "keyid": id, "sig": sig }] }))
        .unwrap()
}

pub fn trust() -> TrustRoot {
    TrustRoot::from_trusted(&root_json()).unwrap()
}

/// Bytes that compress a little, and differ by seed.
pub fn content(bytes: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..bytes)
        .map(|at| {
            if at % 8 == 0 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            }
            if at % 3 == 0 { (state >> 56) as u8 } else { (at / 1000) as u8 }
        })
        .collect()
}

/// A signed bundle of these images.
pub fn bundle(version: &str, images: &[(&str, &[u8], Tree)]) -> Vec<u8> {
    let mut entries = Vec::new();
    let (mut indexes, mut frames) = (Vec::new(), Vec::new());
    for (name, data, tree) in images {
        let (table, stored) = pack(data);
        let table = table.encode();
        let mut builder = TreeBuilder::new(data.len() as u64, &[1, 2]).unwrap();
        builder.update(data, &mut |_, _| ()).unwrap();
        entries.push(Image {
            name: (*name).into(),
            bytes: data.len() as u64,
            frames_bytes: stored.len() as u64,
            verity: Verity {
                root: builder.finish(&mut |_, _| ()).unwrap(),
                salt: "0102".into(),
                tree: *tree,
            },
            index: Index { bytes: table.len() as u64, sha256: Digest256::of(&table) },
        });
        indexes.extend(table);
        frames.extend(stored);
    }
    let manifest = Manifest {
        format: 1,
        name: "demo".into(),
        version: Version::parse(version).unwrap(),
        compatible: "test,any".into(),
        created_unix_seconds: 0,
        floor: None,
        build: Build { tool: "tests".into(), source: None, commit: None },
        images: entries,
        documents: vec![],
        deltas: vec![],
    };
    let manifest = manifest.encode().unwrap().into_bytes();
    let signature = Signature {
        key_id: key_id(&key().verifying_key().to_bytes()).unwrap(),
        signature: key().sign(&signing_message(&manifest)).to_bytes(),
    };
    let signatures = signatures::encode(&[signature]);
    let sizes = [manifest.len(), signatures.len(), indexes.len(), 0, frames.len(), 0];
    let header = Header::lay_out(sizes.map(|bytes| bytes as u64)).unwrap();
    [header.encode().to_vec(), manifest, signatures, indexes, frames].concat()
}

/// Equal chunks are stored once, and zeros are no special case: a table need not know them.
fn pack(data: &[u8]) -> (ChunkTable, Vec<u8>) {
    let (mut frames, mut chunks, mut stored) = (Vec::new(), Vec::new(), Vec::new());
    let mut seen = HashMap::new();
    for raw in data.chunks(CHUNK_BYTES * CHUNKS_PER_FRAME) {
        let frame = frames.len() as u32;
        let mut content = Vec::new();
        for bytes in raw.chunks(CHUNK_BYTES) {
            let digest = Digest256::of(bytes);
            let source = *seen.entry(digest).or_insert_with(|| {
                let offset = content.len() as u32;
                content.extend_from_slice(bytes);
                Source::Frame { frame, offset }
            });
            chunks.push((bytes.len() as u32, source, digest));
        }
        if content.is_empty() {
            continue;
        }
        let packed = zstd::bulk::compress(&content, 3).unwrap();
        let packed = if packed.len() < content.len() { packed } else { content.clone() };
        frames.push((Lane::Main, packed.len() as u32, content.len() as u32));
        stored.extend(packed);
    }
    (ChunkTable::new(&frames, &chunks).unwrap(), stored)
}

/// The state directory of a device.
pub fn state_of(directory: &Path) -> updater::files::State {
    updater::files::State::on_disk(&directory.join("state"))
}

/// A directory with a configuration for the `file` backend, one image `root`.
pub fn device_directory() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("root.json"), root_json()).unwrap();
    std::fs::write(
        dir.path().join("updater.toml"),
        r#"
            compatible = "test,any"
            trust_root = "root.json"
            state_dir = "state"
            run_dir = "run"
            record = "record.bin"
            release_file = "release.json"
            health_dirs = ["health.d"]
            [boot]
            backend = "file"
            path = "boot.state"
            [bank.a]
            root = "a.img"
            [bank.b]
            root = "b.img"
        "#,
    )
    .unwrap();
    dir
}

/// How the server serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Serve {
    Ranges,
    Whole,
}

/// Serves one file until it is dropped; the list has the `Range` of each request.
pub struct Server {
    pub url: String,
    pub requests: Arc<Mutex<Vec<String>>>,
}

impl Server {
    pub fn start(file: Vec<u8>, serve: Serve) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/x.roro", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&requests);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let _ = answer(stream, &file, serve, &log);
            }
        });
        Self { url, requests }
    }
}

fn answer(
    mut stream: std::net::TcpStream,
    file: &[u8],
    serve: Serve,
    log: &Mutex<Vec<String>>,
) -> io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut range = String::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? <= 2 {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("range: bytes=") {
            range = value.trim().into();
        }
    }
    log.lock().unwrap().push(range.clone());
    let (first, last) = range.split_once('-').unwrap();
    let first: usize = first.parse().unwrap();
    let last: usize = last.parse::<usize>().unwrap().min(file.len() - 1);
    match serve {
        Serve::Ranges => {
            let body = &file[first..=last];
            write!(
                stream,
                "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes {first}-{last}/{}\r\n\
                 Content-Length: {}\r\nConnection: close\r\n\r\n",
                file.len(),
                body.len()
            )?;
            stream.write_all(body)
        }
        Serve::Whole => {
            write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", file.len())?;
            stream.write_all(file)
        }
    }
}

/// Everything that reaches a medium, in order.
pub type Log = Rc<RefCell<Vec<String>>>;

/// Bytes by bank and image.
pub type Images = Rc<RefCell<BTreeMap<(Bank, String), Vec<u8>>>>;

/// Banks in memory that note each deed. Fault model: none; what is written is there at once.
#[derive(Clone, Default)]
pub struct MemoryDisk {
    pub images: Images,
    pub names: Vec<String>,
    pub log: Log,
}

impl BankDisk for MemoryDisk {
    fn images(&self, _: Bank) -> BTreeSet<String> {
        self.names.iter().cloned().collect()
    }
    fn room(&self, _: Bank, _: &str) -> io::Result<Room> {
        Ok(Room::Grows)
    }
    fn open(&self, bank: Bank, image: &str, _: Access) -> io::Result<Box<dyn ImageFile>> {
        self.images.borrow_mut().entry((bank, image.into())).or_default();
        Ok(Box::new(MemoryImage { disk: self.clone(), key: (bank, image.into()) }))
    }
}

struct MemoryImage {
    disk: MemoryDisk,
    key: (Bank, String),
}

impl MemoryImage {
    fn note(&self, deed: &str) {
        let (bank, image) = &self.key;
        self.disk.log.borrow_mut().push(format!("{deed} {image}-{bank}"));
    }
}

impl ImageFile for MemoryImage {
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let images = self.disk.images.borrow();
        let known = images[&self.key].get(offset as usize..).unwrap_or_default();
        let read = known.len().min(buffer.len()).min(5000);
        buffer[..read].copy_from_slice(&known[..read]);
        Ok(read)
    }
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.note(if offset == 0 { "write-first" } else { "write" });
        let mut images = self.disk.images.borrow_mut();
        let image = images.get_mut(&self.key).unwrap();
        let end = offset as usize + bytes.len();
        if image.len() < end {
            image.resize(end, 0);
        }
        image[offset as usize..end].copy_from_slice(bytes);
        Ok(())
    }
    fn flush(&mut self) -> io::Result<()> {
        self.note("flush");
        Ok(())
    }
    fn forget_cached(&mut self) -> io::Result<()> {
        self.note("forget");
        Ok(())
    }
    fn set_bytes(&mut self, bytes: u64) -> io::Result<()> {
        self.disk.images.borrow_mut().get_mut(&self.key).unwrap().resize(bytes as usize, 0);
        Ok(())
    }
}

/// A loader, a record, a history that only note.
#[derive(Clone, Default)]
pub struct Noting {
    pub log: Log,
}

impl BootControl for Noting {
    fn running(&self) -> io::Result<Bank> {
        Ok(Bank::A)
    }
    fn boot_id(&self) -> io::Result<String> {
        Ok("boot".into())
    }
    fn armed(&self) -> io::Result<Option<Bank>> {
        Ok(None)
    }
    fn set_trial(&mut self, staged: &Staged) -> io::Result<()> {
        self.log.borrow_mut().push(format!("set-trial {}", staged.bank()));
        Ok(())
    }
    fn set_default(&mut self, first: Bank, spare: Spare) -> io::Result<()> {
        self.log.borrow_mut().push(format!("set-default {first} {spare:?}"));
        Ok(())
    }
}

impl RecordStore for Noting {
    fn commit(&mut self, record: &Record) -> Result<(), StoreError<io::Error>> {
        let trial = record.trial.as_ref().map_or("none".into(), |trial| format!("{:?}", trial.phase));
        self.log.borrow_mut().push(format!("commit {:?} trial {trial}", record.banks.b.state));
        Ok(())
    }
}

impl HistoryLog for Noting {
    fn append(&mut self, entry: &Entry) -> updater::Result<()> {
        self.log.borrow_mut().push(format!("history {}", entry.event.word()));
        Ok(())
    }
    fn entries(&self) -> updater::Result<Vec<Entry>> {
        Ok(Vec::new())
    }
}

impl Reboot for Noting {
    fn reboot(&mut self) -> io::Result<AfterReboot> {
        self.log.borrow_mut().push("reboot".into());
        Ok(AfterReboot::GoingDown)
    }
}

impl Transport for Noting {
    fn get(&self, _: &Request<'_>) -> Result<Response, TransportError> {
        Err(TransportError::Refused { detail: "no network here".into() })
    }
}

/// Time stands still, and nobody waits.
#[derive(Debug, Clone, Copy)]
pub struct StoppedClock;

impl Clock for StoppedClock {
    fn unix_seconds(&self) -> i64 {
        1_700_000_000
    }
    fn monotonic(&self) -> Duration {
        Duration::ZERO
    }
    fn sleep(&self, _: Duration) {}
}

pub fn write(directory: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = directory.join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

pub fn config(directory: &Path) -> Config {
    Config::load(&directory.join("updater.toml")).unwrap()
}

pub fn open(directory: &Path) -> Device {
    Device::open(&config(directory), Purpose::Act).unwrap()
}

/// Installs a release; its trial is armed.
pub fn installed(directory: &Path, version: &str, seed: u64) {
    let file = bundle(version, &[("root", &content(60_000, seed), Tree::None)]);
    let file = write(directory, "x.roro", &file);
    let terms = Terms { compatible: "test,any".into(), trust: trust(), network: Network::default() };
    install(&mut open(directory), &terms, file.to_str().unwrap(), &mut Silent).unwrap();
}

/// Reboots, and settles the boots that follow.
pub fn rebooted(directory: &Path) -> Device {
    let mut device = open(directory);
    reboot_and_settle(&config(directory), &mut device).unwrap();
    open(directory)
}

pub fn confirmed(directory: &Path, version: &str, seed: u64) {
    installed(directory, version, seed);
    rebooted(directory).handle(Event::Confirm, &mut NoWork).unwrap();
}
