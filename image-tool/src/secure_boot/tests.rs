//! With the key that Debian's package ovmf ships for trying: its passphrase is `snakeoil`.

use std::path::Path;

use super::*;

const KEY: &str = "/usr/share/ovmf/PkKek-1-snakeoil.key";
const CERTIFICATE: &str = "/usr/share/ovmf/PkKek-1-snakeoil.pem";
const PROGRAM: &str = "/usr/lib/systemd/boot/efi/linuxx64.efi.stub";
const EPOCH_SECONDS: u64 = 1_700_000_000;

/// Whether all tools are here; in CI they must be.
fn tools() -> bool {
    let programs = ["/usr/bin/sbsign", "/usr/bin/faketime", "/usr/bin/openssl"];
    let missing: Vec<_> =
        programs.iter().chain(&[KEY, PROGRAM]).filter(|path| !Path::new(path).exists()).collect();
    assert!(
        missing.is_empty() || std::env::var_os("CI").is_none(),
        "{missing:?} are missing: run `qemu-testbed setup` first"
    );
    missing.is_empty()
}

fn wish(directory: &Path, passphrase: &str) -> SecureBoot {
    let file = directory.join("passphrase");
    fs::write(&file, format!("{passphrase}\n")).unwrap();
    SecureBoot { key: KEY.to_owned(), certificate: CERTIFICATE.into(), passphrase_file: Some(file) }
}

fn verifies(program: &[u8]) -> bool {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), program).unwrap();
    host::run(Command::new("sbverify").args(["--cert", CERTIFICATE]).arg(file.path()), PACKAGE).is_ok()
}

#[test]
fn a_signed_program_verifies_is_the_same_twice_and_not_once_altered() {
    if !tools() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let signer = Signer::open(&wish(dir.path(), "snakeoil"), EPOCH_SECONDS).unwrap();
    let program = fs::read(PROGRAM).unwrap();
    let signed = signer.sign(&program).unwrap();
    assert!(verifies(&signed) && !verifies(&program));
    assert!(signer.sign(&program).unwrap() == signed);
    let time_of_the_build = b"231114221320Z";
    let has = signed.windows(time_of_the_build.len()).any(|window| window == time_of_the_build);
    assert!(has, "the time of day is in it");
    let mut altered = signed;
    altered[5000] ^= 1;
    assert!(!verifies(&altered));
}

#[test]
fn the_signature_of_a_fixed_file_ends_with_it() {
    if !tools() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let signer = Signer::open(&wish(dir.path(), "snakeoil"), EPOCH_SECONDS).unwrap();
    let program = fs::read(PROGRAM).unwrap();
    let signed = signer.sign_to(&program, 1 << 20).unwrap();
    assert_eq!(signed.len(), 1 << 20);
    assert!(verifies(&signed));
    let optional = u32::from_le_bytes(signed[0x3c..0x40].try_into().unwrap()) as usize + 24;
    let field = |at: usize| u32::from_le_bytes(signed[at..at + 4].try_into().unwrap());
    // The fifth data directory: where the certificates lie, and how many bytes they have.
    assert_eq!(field(optional + 144) + field(optional + 148), 1 << 20);
    let mut altered = signed.clone();
    altered[900_000] ^= 1;
    assert!(!verifies(&altered), "what fills the file is signed too");
    let told = signer.sign_to(&program, program.len() as u64).unwrap_err().to_string();
    assert!(told.contains("the signed boot image needs"), "{told}");
}

#[test]
fn keys_that_do_not_open_or_fit_are_refused_in_words() {
    if !tools() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let told = |wish: &SecureBoot| {
        let result =
            Signer::open(wish, EPOCH_SECONDS).and_then(|signer| signer.sign(&fs::read(PROGRAM).unwrap()));
        let error = result.map(drop).unwrap_err();
        format!("{error}; {}", error.hint().unwrap_or_default())
    };
    let good = wish(dir.path(), "snakeoil");
    let secret = told(&SecureBoot { passphrase_file: None, ..good.clone() });
    assert!(secret.contains("it is encrypted; name a passphrase_file"), "{secret}");
    let other = dir.path().join("other");
    let [key, certificate] = ["key", "pem"].map(|extension| other.with_extension(extension));
    let mut make = Command::new("openssl");
    make.args([
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-subj",
        "/CN=other",
        "-days",
        "30",
        "-keyout",
    ]);
    host::run(make.arg(&key).arg("-out").arg(&certificate), "openssl").unwrap();
    let foreign = told(&SecureBoot { certificate, ..good.clone() });
    assert!(foreign.contains("does not belong to the key"), "{foreign}");
    let no_key = told(&SecureBoot { key: CERTIFICATE.to_owned(), ..good.clone() });
    assert!(no_key.contains("no private key"), "{no_key}");
    let absent = told(&SecureBoot { certificate: dir.path().join("x"), ..good });
    assert!(absent.contains("no such certificate"), "{absent}");
    let wrong = told(&wish(dir.path(), "wrong"));
    assert!(wrong.contains("the passphrase does not fit"), "{wrong}");
}

/// A token in software that holds the key plays the one in a safe.
#[test]
fn a_key_in_a_token_signs_too() {
    const DRIVERS: [&str; 2] = ["/usr/bin/softhsm2-util", "/usr/lib/x86_64-linux-gnu/engines-3/pkcs11.so"];
    let missing = DRIVERS.iter().any(|path| !Path::new(path).exists());
    assert!(!missing || std::env::var_os("CI").is_none(), "{DRIVERS:?}: run `qemu-testbed setup` first");
    if missing || !tools() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let [tokens, settings, pem, pin] = ["tokens", "settings", "pem", "pin"].map(|name| dir.path().join(name));
    fs::create_dir(&tokens).unwrap();
    fs::write(&settings, format!("directories.tokendir = {}\n", tokens.display())).unwrap();
    fs::write(&pin, "1234").unwrap();
    let opened = wish(dir.path(), "snakeoil");
    let key = decrypted(&KEY.into(), opened.passphrase_file.as_ref()).unwrap();
    fs::write(&pem, key).unwrap();
    let steps = [
        "--init-token --free --label roro --pin 1234 --so-pin 1234".to_owned(),
        format!("--import {} --token roro --label db --id 01 --pin 1234", pem.display()),
    ];
    for step in steps {
        let mut command = Command::new("softhsm2-util");
        command.env("SOFTHSM2_CONF", &settings).args(step.split_whitespace());
        host::run(&mut command, "softhsm2").unwrap();
    }
    let address = format!("pkcs11:token=roro;object=db?pin-source=file:{}", pin.display());
    let wish = SecureBoot { key: address, passphrase_file: None, ..opened };
    let mut signer = Signer::open(&wish, EPOCH_SECONDS).unwrap();
    signer.environment =
        vec![("SOFTHSM2_CONF", settings), ("PKCS11_MODULE_PATH", "/usr/lib/softhsm/libsofthsm2.so".into())];
    assert!(verifies(&signer.sign_to(&fs::read(PROGRAM).unwrap(), 1 << 20).unwrap()));
}
