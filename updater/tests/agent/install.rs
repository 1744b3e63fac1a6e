//! Installs from end to end: into files, from a file and from servers with and without ranges; and the order of deeds.

use std::{path::Path, process::Command, rc::Rc};

use crate::support::{
    Log, MemoryDisk, Noting, Serve, Server, StoppedClock, bundle, content, device_directory, trust, write,
};
use bank_format::{
    Bank, Release,
    manifest::Tree,
    record::{BankState, Record},
    release::Version,
    verity::TreeBuilder,
};
use serde_json::Value;
use updater::{
    Device, Error, InstallReport, Terms,
    config::Network,
    device::Ports,
    engine::{Engine, Origin},
    install,
    ports::Silent,
};

pub struct Ran {
    pub code: i32,
    pub last: Value,
    pub errors: String,
}

pub fn updater(directory: &Path, arguments: &[&str]) -> Ran {
    let output = Command::new(env!("CARGO_BIN_EXE_updater"))
        .env_remove("http_proxy")
        .env_remove("HTTP_PROXY")
        .arg("--config")
        .arg(directory.join("updater.toml"))
        .arg("--json")
        .args(arguments)
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let last = text.lines().last().map_or(Value::Null, |line| serde_json::from_str(line).unwrap());
    Ran { code: output.status.code().unwrap(), last, errors: String::from_utf8(output.stderr).unwrap() }
}

#[test]
fn a_release_is_installed_tried_and_confirmed_and_the_file_is_the_image() {
    let dir = device_directory();
    let image = content(777_777, 1);
    let file = write(dir.path(), "1.roro", &bundle("1.0.0", &[("root", &image, Tree::None)]));
    let done = updater(dir.path(), &["install", file.to_str().unwrap()]);
    assert_eq!(done.code, 0, "{}", done.errors);
    assert_eq!(std::fs::read(dir.path().join("b.img")).unwrap(), image);
    let keys: Vec<&str> = done.last.as_object().unwrap().keys().map(String::as_str).collect();
    for key in [
        "result",
        "release",
        "bank",
        "bytes_fetched",
        "bytes_copied",
        "bytes_patched",
        "bytes_skipped",
        "bytes_written",
        "seconds",
        "readback_seconds",
        "peak_rss_kib",
    ] {
        assert!(keys.contains(&key), "{key} in {keys:?}");
    }
    assert_eq!(updater(dir.path(), &["install", file.to_str().unwrap()]).code, 3, "already there");
    assert_eq!(updater(dir.path(), &["confirm"]).code, 3, "not booted yet");
    assert_eq!(updater(dir.path(), &["reboot"]).last["bank"], "b");
    assert_eq!(updater(dir.path(), &["install", file.to_str().unwrap()]).code, 75, "itself on trial");
    let warned = |dir: &Path| {
        let status = updater(dir, &["status"]).last;
        let warnings = status["warnings"].as_array().unwrap().clone();
        warnings.into_iter().map(|mut warning| warning["code"].take()).collect::<Vec<_>>()
    };
    assert_eq!(warned(dir.path()), ["few-tries-left"]);
    assert_eq!(updater(dir.path(), &["confirm"]).code, 0);
    assert!(warned(dir.path()).is_empty());
    let told = r#"{"default":"b","next":"a","booted":"b","boots":7}"#;
    write(dir.path(), "boot.state", told.as_bytes());
    assert_eq!(warned(dir.path()), ["loader-differs"], "somebody else has armed it");
    assert_eq!(updater(dir.path(), &["settle"]).code, 0);
    assert!(warned(dir.path()).is_empty());
    assert_eq!(updater(dir.path(), &["confirm"]).code, 3);
    let status = updater(dir.path(), &["status"]).last;
    assert_eq!(status["confirmed"], "b");
    assert_eq!(status["release"]["version"], "1.0.0");
    assert_eq!(status["floor"], "1.0.0");
    assert_eq!(status["last_result"]["outcome"], "confirmed");
}

#[test]
fn a_trial_that_nobody_confirms_falls_back() {
    let dir = device_directory();
    let file = write(dir.path(), "1.roro", &bundle("1.0.0", &[("root", &content(9000, 1), Tree::None)]));
    for (arguments, bank) in
        [(&["install", file.to_str().unwrap()][..], "b"), (&["reboot"], "b"), (&["reboot"], "a")]
    {
        let done = updater(dir.path(), arguments);
        assert_eq!((done.code, &done.last["bank"]), (0, &Value::from(bank)), "{}", done.errors);
    }
    let status = updater(dir.path(), &["status"]).last;
    assert_eq!(status["last_result"]["outcome"], "fell-back");
    assert_eq!(status["passive"]["state"], "failed");
    assert_eq!(status["warnings"][0]["code"], "passive-failed");
    assert_eq!(updater(dir.path(), &["rollback"]).code, 4, "no way back to a failed bank");
}

#[test]
fn servers_with_and_without_ranges_bring_the_same_bytes() {
    let image = content(900_000, 2);
    let file = bundle("1.0.0", &[("root", &image, Tree::None)]);
    for serve in [Serve::Ranges, Serve::Whole] {
        let dir = device_directory();
        let server = Server::start(file.clone(), serve);
        let done = updater(dir.path(), &["install", &server.url]);
        assert_eq!(done.code, 0, "{serve:?}: {}", done.errors);
        assert_eq!(std::fs::read(dir.path().join("b.img")).unwrap(), image, "{serve:?}");
        assert_eq!(done.last["bytes_fetched"], file.len(), "{serve:?}: nothing is fetched twice");
        let requests = server.requests.lock().unwrap().len();
        assert_eq!(requests, if serve == Serve::Whole { 1 } else { 2 }, "the probe, and one run of frames");
    }
}

#[test]
fn what_lies_in_the_active_bank_or_in_place_is_not_fetched() {
    let dir = device_directory();
    let old = content(600_000, 3);
    let mut new = old.clone();
    new[300_000] ^= 1;
    let (old_file, new_file) = (
        write(dir.path(), "1.roro", &bundle("1.0.0", &[("root", &old, Tree::None)])),
        bundle("1.1.0", &[("root", &new, Tree::None)]),
    );
    for arguments in [&["install", old_file.to_str().unwrap()][..], &["reboot"], &["confirm"]] {
        assert_eq!(updater(dir.path(), arguments).code, 0);
    }
    let server = Server::start(new_file.clone(), Serve::Ranges);
    let done = updater(dir.path(), &["install", &server.url]).last;
    assert_eq!(std::fs::read(dir.path().join("a.img")).unwrap(), new);
    assert_eq!(done["bytes_copied"], 590_000, "all but the chunk that changed");
    assert!(done["bytes_fetched"].as_u64().unwrap() < new_file.len() as u64);
    updater(dir.path(), &["rollback"]);
    let again = updater(dir.path(), &["install", &server.url]).last;
    assert_eq!(again["bytes_skipped"], 590_000, "all but the chunk whose first block was wiped: {again}");
}

#[test]
fn refusals_are_one_line_and_touch_nothing() {
    let dir = device_directory();
    let good = bundle("1.0.0", &[("root", &content(50_000, 4), Tree::None)]);
    let mut tampered = good.clone();
    tampered[200] ^= 1;
    let cases = [
        (tampered, 4, "bundle is refused"),
        (good[..good.len() - 1].to_vec(), 4, "cut short"),
        ([&good[..], b"x"].concat(), 4, "behind its end"),
        (b"hello".to_vec(), 4, "cut short"),
        (vec![b'x'; 1000], 4, "not a Roro bundle"),
        (bundle("1.0.0", &[("disk", &content(50, 4), Tree::None)]), 4, "images disk, this device has root"),
    ];
    for (bytes, code, expected) in cases {
        let file = write(dir.path(), "x.roro", &bytes);
        let refused = updater(dir.path(), &["install", file.to_str().unwrap()]);
        assert_eq!(refused.code, code, "{}", refused.errors);
        let mut lines = refused.errors.lines();
        let first = lines.next().unwrap();
        assert!(first.starts_with("error: ") && first.contains(expected), "{first}");
        assert!(lines.all(|line| line.starts_with("hint: ")), "{}", refused.errors);
        assert!(!dir.path().join("b.img").exists());
    }
    assert_eq!(updater(dir.path(), &["install", "/nonexistent.roro"]).code, 5);
    assert_eq!(updater(dir.path(), &["instal"]).code, 2);
}

#[test]
fn a_frame_with_a_flipped_bit_is_never_written_and_the_trial_not_armed() {
    let dir = device_directory();
    let mut file = bundle("1.0.0", &[("root", &content(50_000, 5), Tree::None)]);
    let last = file.len() - 10;
    file[last] ^= 0x20;
    let path = write(dir.path(), "x.roro", &file);
    let refused = updater(dir.path(), &["install", path.to_str().unwrap()]);
    assert_eq!(refused.code, 4, "{}", refused.errors);
    let status = updater(dir.path(), &["status"]).last;
    assert_eq!(status["trial"], Value::Null);
    assert_eq!(status["interrupted"]["release"]["version"], "1.0.0");
    assert_eq!(status["passive"]["state"], "writing");
}

fn device(disk: &MemoryDisk, log: &Log) -> Device {
    let noting = Noting { log: Rc::clone(log) };
    let release = Release { name: "demo".into(), version: Version::new(1, 0, 0) };
    let record = Record::founded_on(Bank::A, Some(release), Default::default());
    let ports = Ports {
        disk: Rc::new(disk.clone()),
        boot: Box::new(noting.clone()),
        store: Box::new(noting.clone()),
        reboot: Box::new(noting.clone()),
        clock: Rc::new(StoppedClock),
        transport: Rc::new(noting.clone()),
        history: Box::new(noting),
    };
    Device::new(ports, Engine::new(record, Origin::Stored, Bank::A, 1))
}

fn install_into(device: &mut Device, file: &Path) -> updater::Result<InstallReport> {
    let terms = Terms { compatible: "test,any".into(), trust: trust(), network: Network::default() };
    install(device, &terms, file.to_str().unwrap(), &mut Silent)
}

#[test]
fn boot_record_is_the_last_thing_written() {
    let log = Log::default();
    let disk =
        MemoryDisk { names: vec!["root".into(), "boot".into()], log: Rc::clone(&log), ..Default::default() };
    let (root, boot) = (content(8192 * 20, 6), content(30_000, 7));
    let images = [("root", &root[..], Tree::Appended), ("boot", &boot[..], Tree::None)];
    let dir = tempfile::tempdir().unwrap();
    let file = write(dir.path(), "x.roro", &bundle("1.1.0", &images));
    let mut device = device(&disk, &log);
    install_into(&mut device, &file).unwrap();

    let mut deeds = log.borrow().clone();
    deeds.dedup();
    let root_writes = deeds.iter().filter(|deed| *deed == "write root-b").count();
    assert!(root_writes >= 1);
    assert_eq!(
        deeds,
        [
            "commit Writing trial none",
            "set-default a Unbootable",
            "history install-started",
            "write-first boot-b",
            "flush boot-b",
            "write-first root-b",
            "write root-b",
            "forget root-a",
            "write boot-b",
            "forget boot-a",
            "flush root-b",
            "flush boot-b",
            "forget root-b",
            "write root-b",
            "forget boot-b",
            "flush root-b",
            "flush boot-b",
            "forget root-b",
            "forget boot-b",
            "write-first boot-b",
            "flush boot-b",
            "forget boot-b",
            "commit Written trial none",
            "commit Written trial Armed",
            "history armed",
            "set-trial b",
        ]
    );
    let images = disk.images.borrow();
    assert_eq!(images[&(Bank::B, "boot".into())], boot);
    let written = &images[&(Bank::B, "root".into())];
    let mut tree = vec![0; written.len() - root.len()];
    let mut builder = TreeBuilder::new(root.len() as u64, &[1, 2]).unwrap();
    let mut emit = |number: u64, block: &[u8; 4096]| {
        tree[number as usize * 4096..][..4096].copy_from_slice(block);
    };
    builder.update(&root, &mut emit).unwrap();
    builder.finish(&mut emit).unwrap();
    assert_eq!(written[..root.len()], root);
    assert_eq!(written[root.len()..], tree);
    assert_eq!(device.record().banks.b.state, BankState::Written);
}

#[test]
fn below_the_floor_wrong_device_and_the_running_release() {
    let log = Log::default();
    let disk = MemoryDisk { names: vec!["root".into()], log: Rc::clone(&log), ..Default::default() };
    let dir = tempfile::tempdir().unwrap();
    let image = content(100, 1);
    let mut device = device(&disk, &log);
    for (version, expected) in [("0.9.0", "below the floor 1.0.0"), ("1.0.0-rc.1", "below the floor 1.0.0")] {
        let file = write(dir.path(), "x.roro", &bundle(version, &[("root", &image, Tree::None)]));
        let error = install_into(&mut device, &file).unwrap_err();
        assert!(error.line().contains(expected), "{}", error.line());
    }
    let file = write(dir.path(), "x.roro", &bundle("1.0.0", &[("root", &image, Tree::None)]));
    assert_eq!(install_into(&mut device, &file).unwrap().result, "nothing-to-do");
    let terms = Terms { compatible: "other".into(), trust: trust(), network: Network::default() };
    let error = install(&mut device, &terms, file.to_str().unwrap(), &mut Silent).unwrap_err();
    assert!(matches!(error, Error::Refused(_)), "{error}");
    assert!(log.borrow().is_empty(), "nothing was touched: {:?}", log.borrow());
}
