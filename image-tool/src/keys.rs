//! Private keys: made, kept and read. ed25519 in PKCS#8 PEM, readable by openssl.
//!
//! It promises that a private key is only ever written to a new file of mode 0600 in a directory of mode 0700, is never
//! shown, and is wiped from memory when it is dropped: no type here that holds a secret has `Debug` or `Display`.
//! Deliberately absent: agents and hardware tokens.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{ErrorKind, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use bank_format::{
    Digest256, TrustRoot,
    limits::MAX_ROOT_BYTES,
    signatures::Signature,
    trust::{Role, key_id},
};
use ed25519_dalek::{
    Signer as _, SigningKey,
    pkcs8::{EncodePrivateKey as _, KeypairBytes},
};
use pkcs8::{
    EncryptedPrivateKeyInfoRef, LineEnding, PrivateKeyInfoRef, SecretDocument, der::pem::PemLabel as _,
};
use zeroize::Zeroizing;

use crate::{
    clock,
    error::{Error, Result},
    limits::{MAX_KEY_FILE_BYTES, MAX_KEYS_PER_ROLE, MAX_PASSPHRASE_FILE_BYTES},
    progress::Progress,
    root_json::{self, RoleKeys, RootSpec},
};

/// Name of the trust root in a directory of keys.
pub const ROOT_JSON: &str = "root.json";
/// Days until a trust root expires, unless told otherwise.
pub const EXPIRES_DAYS: u32 = 3650;
const ROOT_PREFIX: &str = "root";
const RELEASE_PREFIX: &str = "release";
const TIMESTAMP_PREFIX: &str = "timestamp";

/// What private keys are encrypted with.
pub struct Passphrase(Zeroizing<Vec<u8>>);

impl Passphrase {
    /// The first line of a file.
    pub fn read(path: &Path) -> Result<Self> {
        let bytes = read_bounded(path, MAX_PASSPHRASE_FILE_BYTES)?;
        let line = bytes.split(|byte| matches!(byte, b'\n' | b'\r')).next().unwrap_or_default();
        if line.is_empty() {
            return Err(Error::usage(
                format!("passphrase file {} starts with an empty line", path.display()),
                "put the passphrase on its first line",
            ));
        }
        Ok(Self(Zeroizing::new(line.to_vec())))
    }

    /// These bytes.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Self {
        Self(Zeroizing::new(bytes.to_vec()))
    }
}

/// A private key.
pub struct PrivateKey(SigningKey);

impl PrivateKey {
    /// A new key from the system's random numbers.
    pub fn generate() -> Result<Self> {
        let mut seed = Zeroizing::new([0; 32]);
        getrandom::fill(seed.as_mut()).map_err(|error| Error::File {
            deed: "read random numbers for",
            path: "a new key".into(),
            source: error.into(),
        })?;
        Ok(Self::from_seed(&seed))
    }

    /// The key of RFC 8032 that follows from 32 secret bytes.
    #[must_use]
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(SigningKey::from_bytes(seed))
    }

    /// The public key.
    #[must_use]
    pub fn public(&self) -> [u8; 32] {
        self.0.verifying_key().to_bytes()
    }

    /// Its id in a trust root.
    pub fn key_id(&self) -> Result<Digest256> {
        key_id(&self.public()).map_err(Error::format("name a key"))
    }

    /// Signs a message.
    pub fn sign(&self, message: &[u8]) -> Result<Signature> {
        Ok(Signature { key_id: self.key_id()?, signature: self.0.sign(message).to_bytes() })
    }

    /// PKCS#8 PEM; with a passphrase encrypted by PBES2 (scrypt, AES-256-CBC, parameters that openssl takes too).
    pub fn to_pem(&self, passphrase: Option<&Passphrase>) -> Result<Zeroizing<String>> {
        let bug = |_| Error::Bug { what: "a private key cannot be written as PKCS#8" };
        // Version 1, without the public key: openssl does not read version 2.
        let keypair = KeypairBytes { secret_key: self.0.to_bytes(), public_key: None };
        let plain = keypair.to_pkcs8_der().map_err(bug)?;
        let Some(passphrase) = passphrase else {
            return plain
                .to_pem(PrivateKeyInfoRef::PEM_LABEL, LineEnding::LF)
                .map_err(|_| Error::Bug { what: "a private key cannot be written as PEM" });
        };
        // The crate's choice of costs is the most that openssl takes without being allowed more memory.
        let info: PrivateKeyInfoRef<'_> = plain
            .decode_msg()
            .map_err(|_| Error::Bug { what: "a private key just written cannot be read" })?;
        let encrypted = info.encrypt(&*passphrase.0).map_err(bug)?;
        encrypted
            .to_pem(EncryptedPrivateKeyInfoRef::PEM_LABEL, LineEnding::LF)
            .map_err(|_| Error::Bug { what: "a private key cannot be written as PEM" })
    }

    /// Reads what [`Self::to_pem`] wrote, or `openssl genpkey -algorithm ed25519`. `path` is for messages.
    pub fn from_pem(path: &Path, pem: &str, passphrase: Option<&Passphrase>) -> Result<Self> {
        let bad = |message: &str| {
            Error::key(path, message, "give an ed25519 key in PKCS#8 PEM, as `image-tool keygen` makes it")
        };
        let (label, document) = SecretDocument::from_pem(pem).map_err(|_| bad("it is no PEM file"))?;
        let plain = if label == EncryptedPrivateKeyInfoRef::PEM_LABEL {
            let Some(passphrase) = passphrase else {
                return Err(Error::key(path, "it is encrypted", "add --passphrase-file FILE"));
            };
            let info: EncryptedPrivateKeyInfoRef<'_> =
                document.decode_msg().map_err(|_| bad("it is no encrypted PKCS#8 key"))?;
            info.decrypt(&*passphrase.0).map_err(|_| {
                Error::key(path, "the passphrase does not fit", "check the first line of the passphrase file")
            })?
        } else if label == PrivateKeyInfoRef::PEM_LABEL {
            document
        } else {
            return Err(bad(&format!("it holds {label:?}")));
        };
        let info: PrivateKeyInfoRef<'_> = plain.decode_msg().map_err(|_| bad("it is no PKCS#8 key"))?;
        let keypair = KeypairBytes::try_from(info).map_err(|_| bad("it is no ed25519 key"))?;
        Ok(Self::from_seed(&keypair.secret_key))
    }

    /// Reads a key file. One that others may read is refused, as ssh does.
    pub fn load(path: &Path, passphrase: Option<&Passphrase>) -> Result<Self> {
        let mode = fs::metadata(path).map_err(Error::file("read", path))?.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(Error::key(
                path,
                format!("its permissions {mode:04o} are too open: others can read it"),
                format!("run: chmod 600 {}", path.display()),
            ));
        }
        let bytes = read_bounded(path, MAX_KEY_FILE_BYTES)?;
        let pem = std::str::from_utf8(&bytes).map_err(|_| {
            Error::key(path, "it is no PEM file", "give a key as `image-tool keygen` makes it")
        })?;
        Self::from_pem(path, pem, passphrase)
    }
}

/// What `keygen` makes.
pub struct KeygenOptions {
    /// Where; made when it is not there.
    pub dir: PathBuf,
    /// Keys of the root role.
    pub root_keys: usize,
    /// Signatures that a next root needs.
    pub root_threshold: usize,
    /// Keys of the targets role, which signs releases.
    pub release_keys: usize,
    /// Signatures that a release needs.
    pub release_threshold: usize,
    /// Days until the trust root expires, from [`Self::now_unix_seconds`].
    pub expires_days: u32,
    /// Encrypts the private keys.
    pub passphrase: Option<Passphrase>,
    /// From when the expiry counts.
    pub now_unix_seconds: u64,
    /// The keys that these replace: their directory, and what their files are encrypted with.
    pub rotate: Option<(PathBuf, Option<Passphrase>)>,
}

impl KeygenOptions {
    /// One key of each kind, not encrypted.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>, now_unix_seconds: u64) -> Self {
        Self {
            dir: dir.into(),
            root_keys: 1,
            root_threshold: 1,
            release_keys: 1,
            release_threshold: 1,
            expires_days: EXPIRES_DAYS,
            passphrase: None,
            now_unix_seconds,
            rotate: None,
        }
    }

    fn check(&self) -> Result<()> {
        for (role, keys, threshold) in [
            ("root", self.root_keys, self.root_threshold),
            ("release", self.release_keys, self.release_threshold),
        ] {
            if !(1..=MAX_KEYS_PER_ROLE).contains(&keys) {
                return Err(Error::usage(
                    format!("--{role}-keys is {keys}"),
                    format!("choose 1 to {MAX_KEYS_PER_ROLE}"),
                ));
            }
            if !(1..=keys).contains(&threshold) {
                return Err(Error::usage(
                    format!("--{role}-threshold {threshold} of --{role}-keys {keys}"),
                    format!("choose a threshold of 1 to {keys}"),
                ));
            }
        }
        Ok(())
    }
}

/// What `keygen` made.
#[derive(Debug)]
pub struct Generated {
    /// The trust root.
    pub root_json: PathBuf,
    /// The private keys.
    pub private: Vec<PathBuf>,
    /// The trust root, read back.
    pub root: TrustRoot,
}

/// Makes keys and the trust root that names them. Files that are there are never overwritten.
pub fn generate(options: &KeygenOptions) -> Result<Generated> {
    options.check()?;
    let make = |count: usize| (0..count).map(|_| PrivateKey::generate()).collect::<Result<Vec<_>>>();
    let root_keys = make(options.root_keys)?;
    let release_keys = make(options.release_keys)?;
    let timestamp_key = make(1)?;
    let spec = RootSpec {
        expires_unix_seconds: i64::try_from(options.now_unix_seconds)
            .ok()
            .and_then(|now| now.checked_add(i64::from(options.expires_days) * 86_400))
            .ok_or_else(|| Error::usage("the expiry is beyond all time", "choose fewer --expires-days"))?,
        root: RoleKeys::of(&root_keys, options.root_threshold),
        targets: RoleKeys::of(&release_keys, options.release_threshold),
        snapshot: RoleKeys::of(&timestamp_key, 1),
        timestamp: RoleKeys::of(&timestamp_key, 1),
    };
    let root_json = match &options.rotate {
        None => root_json::first(&spec, &root_keys)?,
        Some((old_dir, passphrase)) => {
            let old = read_root_json(old_dir)?;
            let old_keys = load_all(old_dir, ROOT_PREFIX, passphrase.as_ref())?;
            root_json::next(&old, &spec, &old_keys, &root_keys)?
        }
    };
    let root = TrustRoot::from_trusted(&root_json).map_err(Error::format("check the new trust root"))?;

    let mut files = Vec::new();
    for (prefix, keys) in
        [(ROOT_PREFIX, &root_keys), (RELEASE_PREFIX, &release_keys), (TIMESTAMP_PREFIX, &timestamp_key)]
    {
        for (number, key) in keys.iter().enumerate() {
            let path = options.dir.join(format!("{prefix}-{}.pem", number + 1));
            files.push((path, key.to_pem(options.passphrase.as_ref())?));
        }
    }
    let root_path = options.dir.join(ROOT_JSON);
    for path in files.iter().map(|(path, _)| path).chain([&root_path]) {
        if fs::symlink_metadata(path).is_ok() {
            return Err(Error::usage(
                format!("{} is there already, and keys are never overwritten", path.display()),
                "choose another directory, or move the old keys away",
            ));
        }
    }
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&options.dir)
        .map_err(Error::file("make directory", &options.dir))?;
    for (path, pem) in &files {
        write_new(path, 0o600, pem.as_bytes())?;
    }
    write_new(&root_path, 0o644, &root_json)?;
    File::open(&options.dir).and_then(|dir| dir.sync_all()).map_err(Error::file("flush", &options.dir))?;
    Ok(Generated { root_json: root_path, private: files.into_iter().map(|(path, _)| path).collect(), root })
}

/// The keys that sign releases, and the trust root that says so.
pub struct ReleaseKeys {
    keys: Vec<PrivateKey>,
    root_json: Vec<u8>,
    root: TrustRoot,
}

impl ReleaseKeys {
    /// All `release-*.pem` of a directory, as `keygen` made it. Keys that its root.json does not name are told and left out.
    pub fn load(dir: &Path, passphrase: Option<&Passphrase>, progress: &dyn Progress) -> Result<Self> {
        let root_json = read_root_json(dir)?;
        let root = TrustRoot::from_trusted(&root_json)
            .map_err(|source| Error::TrustRoot { path: dir.join(ROOT_JSON), source })?;
        let now = i64::try_from(clock::now_unix_seconds()).unwrap_or(i64::MAX);
        if root.check_fresh(now).is_err() {
            let expires = root.expires();
            progress.note(&format!("root.json expired at {expires}: devices refuse what is signed by it"));
        }
        let (members, _) = root.role(Role::Targets);
        let mut keys = Vec::new();
        for (path, key) in load_named(dir, RELEASE_PREFIX, passphrase)? {
            if members.contains(&key.key_id()?) {
                keys.push(key);
            } else {
                progress.note(&format!("{} is no release key of root.json: left out", path.display()));
            }
        }
        let keys = Self { keys, root_json, root };
        keys.check(dir)?;
        Ok(keys)
    }

    /// These keys, and the trust root that names them.
    pub fn new(keys: Vec<PrivateKey>, root_json: Vec<u8>) -> Result<Self> {
        let root = TrustRoot::from_trusted(&root_json).map_err(Error::format("check the trust root"))?;
        let keys = Self { keys, root_json, root };
        keys.check(Path::new("in memory"))?;
        Ok(keys)
    }

    fn check(&self, subject: &Path) -> Result<()> {
        let (_, threshold) = self.root.role(Role::Targets);
        if self.keys.len() < threshold {
            return Err(Error::key(
                subject,
                format!("{} of its release keys are here, {threshold} must sign", self.keys.len()),
                "bring the missing release-*.pem into the directory",
            ));
        }
        Ok(())
    }

    /// The bytes of root.json, which go into the image.
    #[must_use]
    pub fn root_json(&self) -> &[u8] {
        &self.root_json
    }

    /// The trust root.
    #[must_use]
    pub fn root(&self) -> &TrustRoot {
        &self.root
    }

    /// One signature by each key.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<Signature>> {
        self.keys.iter().map(|key| key.sign(message)).collect()
    }

    /// How many keys sign.
    #[must_use]
    pub fn count(&self) -> usize {
        self.keys.len()
    }
}

fn read_root_json(dir: &Path) -> Result<Vec<u8>> {
    if !dir.is_dir() {
        return Err(Error::key(
            dir,
            "there is no such directory",
            format!("make keys first: image-tool keygen {}", dir.display()),
        ));
    }
    let path = dir.join(ROOT_JSON);
    match read_bounded(&path, MAX_ROOT_BYTES as u64) {
        Ok(bytes) => Ok(bytes.to_vec()),
        Err(Error::File { source, .. }) if source.kind() == ErrorKind::NotFound => Err(Error::key(
            dir,
            "it holds no root.json",
            "make keys with `image-tool keygen DIR`, and name that directory",
        )),
        Err(error) => Err(error),
    }
}

fn load_all(dir: &Path, prefix: &str, passphrase: Option<&Passphrase>) -> Result<Vec<PrivateKey>> {
    Ok(load_named(dir, prefix, passphrase)?.into_iter().map(|(_, key)| key).collect())
}

/// All `PREFIX-*.pem` of a directory, by name; at least one.
fn load_named(
    dir: &Path,
    prefix: &str,
    passphrase: Option<&Passphrase>,
) -> Result<Vec<(PathBuf, PrivateKey)>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(dir).map_err(Error::file("read directory", dir))? {
        let path = entry.map_err(Error::file("read directory", dir))?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let stem = name.strip_suffix(".pem").and_then(|stem| stem.strip_prefix(prefix));
        if stem.is_some_and(|rest| rest.starts_with('-')) {
            paths.push(path);
        }
    }
    paths.sort();
    if paths.is_empty() {
        return Err(Error::key(
            dir,
            format!("it holds no {prefix}-*.pem"),
            "make keys with `image-tool keygen DIR`, and name that directory",
        ));
    }
    paths.into_iter().map(|path| PrivateKey::load(&path, passphrase).map(|key| (path, key))).collect()
}

fn read_bounded(path: &Path, limit: u64) -> Result<Zeroizing<Vec<u8>>> {
    let file = File::open(path).map_err(Error::file("open", path))?;
    // Room for all of it at once: growing would leave copies behind that are not wiped.
    let mut bytes = Zeroizing::new(Vec::with_capacity(limit as usize + 1));
    file.take(limit + 1).read_to_end(&mut bytes).map_err(Error::file("read", path))?;
    if bytes.len() as u64 > limit {
        return Err(Error::malformed(path.display(), format!("it has more than {limit} bytes")));
    }
    Ok(bytes)
}

fn write_new(path: &Path, mode: u32, bytes: &[u8]) -> Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .map_err(Error::file("make", path))?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(Error::file("write", path))
}

#[cfg(test)]
pub(crate) mod tests;
