//! Signatures that firmware checks: `[secure_boot]` of the appliance, by `sbsign` of this machine.
//!
//! It promises that what it gives passes `sbverify` with the certificate, and with a key from a file the same bytes for the same epoch: the
//! time in a signature is that of the build, which `faketime` shows to `sbsign`. A decrypted key goes through a pipe and is never a
//! file. Deliberately absent: enrolling keys, which is the device maker's.

use std::{fs, path::PathBuf, process::Command};

use zeroize::Zeroizing;

use crate::{
    appliance::SecureBoot,
    error::{Error, Result},
    host,
    limits::{MAX_KEY_FILE_BYTES, MAX_UKI_PART_BYTES},
    tree::Content,
};

/// What the name of a key in a token begins with (RFC 7512).
pub(crate) const TOKEN_PREFIX: &str = "pkcs11:";
const PACKAGE: &str = "sbsigntool";

/// Signs programs.
pub struct Signer {
    key: Key,
    certificate: PathBuf,
    epoch_seconds: u64,
    /// Variables that the driver of a token wants beside those of this process.
    environment: Vec<(&'static str, PathBuf)>,
}

enum Key {
    /// Decrypted.
    Pem(Zeroizing<Vec<u8>>),
    /// In a token, by its address.
    Token(String),
}

impl Signer {
    /// Opens the key. `epoch_seconds` is the time that signatures carry.
    pub fn open(wish: &SecureBoot, epoch_seconds: u64) -> Result<Self> {
        if !wish.certificate.is_file() {
            return Err(Error::key(&wish.certificate, "no such certificate", "name an X.509 file in PEM"));
        }
        let key = match &wish.key {
            address if address.starts_with(TOKEN_PREFIX) => Key::Token(address.clone()),
            path => Key::Pem(decrypted(&PathBuf::from(path), wish.passphrase_file.as_ref())?),
        };
        Ok(Self { key, certificate: wish.certificate.clone(), epoch_seconds, environment: Vec::new() })
    }

    /// Signs a program.
    pub fn sign(&self, program: &[u8]) -> Result<Vec<u8>> {
        let directory =
            tempfile::tempdir().map_err(Error::file("make a directory in", std::env::temp_dir()))?;
        let [unsigned, signed] = ["unsigned.efi", "signed.efi"].map(|name| directory.path().join(name));
        fs::write(&unsigned, program).map_err(Error::file("write", &unsigned))?;
        let (mut command, input): (Command, &[u8]) = match &self.key {
            Key::Pem(pem) => {
                let mut command = Command::new("faketime");
                command.arg(format!("@{}", self.epoch_seconds)).args(["sbsign", "--key", "/dev/stdin"]);
                (command, pem)
            }
            // A token may want the true time.
            Key::Token(address) => {
                let mut command = Command::new("sbsign");
                command.args(["--engine", "pkcs11", "--key", address]);
                (command, &[])
            }
        };
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.arg("--cert").arg(&self.certificate).arg("--output").arg(&signed).arg(&unsigned);
        let package = match &self.key {
            Key::Pem(_) => "faketime, and sbsigntool",
            Key::Token(_) => PACKAGE,
        };
        match host::run_with_input(&mut command, package, input) {
            Err(Error::Program { message, .. }) if message.contains("key values mismatch") => {
                Err(Error::key(
                    &self.certificate,
                    "it does not belong to the key",
                    "name the certificate of the key in [secure_boot]",
                ))
            }
            result => result.map(drop),
        }?;
        let mut check = Command::new("sbverify");
        check.arg("--cert").arg(&self.certificate).arg(&signed);
        host::run(&mut check, PACKAGE)?;
        Content::of_file(&signed)?.read(MAX_UKI_PART_BYTES)
    }

    /// Signs a program so that it has exactly `file_bytes`, a multiple of 8, signature included.
    ///
    /// Firmware counts from the end of the file where the signature lies, so not a byte may follow it; the zeros that fill the file lie
    /// before it, and are signed.
    pub fn sign_to(&self, program: &[u8], file_bytes: u64) -> Result<Vec<u8>> {
        let padded = |bytes: usize| {
            let mut program = program.to_vec();
            program.resize(program.len().max(bytes), 0);
            program
        };
        let least = program.len().next_multiple_of(8);
        let signature_bytes = self.sign(&padded(least))?.len().saturating_sub(least);
        let needed = (least + signature_bytes) as u64;
        let room = usize::try_from(file_bytes.saturating_sub(signature_bytes as u64)).ok();
        let Some(room) = room.filter(|_| needed <= file_bytes) else {
            return Err(Error::TooLarge {
                subject: "the signed boot image".to_owned(),
                needed,
                available: file_bytes,
                hint: "raise boot_mib in [disk] of the appliance, or take modules out of the initrd",
            });
        };
        let signed = self.sign(&padded(room))?;
        if signed.len() as u64 == file_bytes {
            Ok(signed)
        } else {
            Err(Error::malformed("signature", "its size changes from one time to the next: use an RSA key"))
        }
    }
}

/// The PEM text of a key, without its passphrase.
fn decrypted(path: &PathBuf, passphrase_file: Option<&PathBuf>) -> Result<Zeroizing<Vec<u8>>> {
    let pem = Zeroizing::new(Content::of_file(path)?.read(MAX_KEY_FILE_BYTES)?);
    let has = |word: &[u8]| pem.windows(word.len()).any(|window| window == word);
    if !has(b"PRIVATE KEY-----") {
        return Err(Error::key(path, "it is no private key in PEM", "name a PEM file or a pkcs11: address"));
    }
    if !has(b"ENCRYPTED") {
        return Ok(pem);
    }
    let Some(passphrase_file) = passphrase_file else {
        return Err(Error::key(path, "it is encrypted", "name a passphrase_file in [secure_boot]"));
    };
    if !passphrase_file.is_file() {
        return Err(Error::key(passphrase_file, "no such file", "put the passphrase on its first line"));
    }
    let mut command = Command::new("openssl");
    command.args(["pkey", "-in"]).arg(path).arg("-passin").arg(format!("file:{}", passphrase_file.display()));
    match host::run(&mut command, "openssl") {
        Err(Error::Program { .. }) => Err(Error::key(
            path,
            "the passphrase does not fit",
            format!("check the first line of {}", passphrase_file.display()),
        )),
        result => result.map(Zeroizing::new),
    }
}

#[cfg(test)]
mod tests;
