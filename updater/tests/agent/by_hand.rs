//! `updater health` and `updater status`, as a person or a script runs them. Tools of the system are played by scripts.

use std::{
    io::{BufRead as _, BufReader},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use bank_format::Bank;
use serde_json::Value;
use updater::{evidence::Attempt, gate::Finding};

use crate::{
    pages::tools_are_here,
    support::{device_directory, installed, open, rebooted, write},
};

/// With only these directories to find programs in, and trusting only this certificate, if it is there.
fn updater(directory: &Path, arguments: &[&str]) -> (bool, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_updater"))
        .arg("--config")
        .arg(directory.join("updater.toml"))
        .args(arguments)
        .env("PATH", directory)
        .env("SSL_CERT_FILE", directory.join("own.pem"))
        .output()
        .unwrap();
    (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
}

fn declare(directory: &Path, text: &str) {
    std::fs::create_dir_all(directory.join("health.d")).unwrap();
    write(directory, "health.d/x.toml", text.as_bytes());
}

fn play(directory: &Path, tool: &str, script: &str) {
    let path = write(directory, tool, format!("#!/bin/sh\n{script}\n").as_bytes());
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o755)).unwrap();
}

/// The line of this check in what `updater health --json` prints.
fn line(directory: &Path, check: &str) -> Value {
    let (_, json) = updater(directory, &["--json", "health"]);
    let mut lines = json.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.find(|line| line["check"] == check).unwrap_or_else(|| unreachable!("{check}: {json}"))
}

#[test]
fn health_by_hand_says_each_result_with_its_time() {
    let dir = device_directory();
    let checks = "[[check]]\nname = \"good\"\ncommand = [\"/bin/sh\", \"-c\", \"exit 0\"]\n\
                  [[check]]\nname = \"bad\"\ncommand = [\"/bin/sh\", \"-c\", \"exit 3\"]\ndeadline_seconds = 1\n";
    declare(dir.path(), checks);
    play(dir.path(), "systemctl", "exit 0");
    let (good, text) = updater(dir.path(), &["health"]);
    assert!(!good && text.contains("  bad: exit 3\n"), "{text}");
    for arguments in [&["--json", "health"][..], &["--json", "health", "--soak"]] {
        let (good, json) = updater(dir.path(), arguments);
        let lines: Vec<serde_json::Value> =
            json.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let bad = lines.iter().find(|line| line["check"] == "bad").unwrap();
        assert!(!good && bad["state"] == "failed" && bad["why"] == "exit 3", "{json}");
        assert!(bad["milliseconds"].is_u64() && bad["kind"] == "command", "{json}");
        assert!(lines.iter().any(|line| line["check"] == "good" && line["state"] == "healthy"), "{json}");
    }
}

#[test]
fn a_container_is_what_its_runtime_says() {
    let dir = device_directory();
    declare(
        dir.path(),
        "[[check]]\nname = \"web\"\nkind = \"container\"\ncontainer = \"web\"\ndeadline_seconds = 9\n",
    );
    play(dir.path(), "systemctl", "exit 0");
    assert!(line(dir.path(), "web")["why"].as_str().unwrap().contains("crun cannot be run"));
    play(dir.path(), "crun", r#"[ "$*" = "state web" ] && echo '{"id":"web","status":"running"}'"#);
    assert_eq!(line(dir.path(), "web")["state"], "healthy");
    play(dir.path(), "crun", r#"echo '{"id":"web","status":"stopped"}'"#);
    assert_eq!(line(dir.path(), "web")["why"], "container web is stopped");
    play(dir.path(), "crun", "echo 'container web does not exist' >&2; exit 1");
    assert_eq!(line(dir.path(), "web")["why"], "crun knows no state of it: container web does not exist");
}

/// A server with a certificate of its own, by another TLS than ours.
#[test]
fn a_page_over_https_is_believed_if_its_certificate_is() {
    if !tools_are_here(&["openssl"]) {
        return;
    }
    let dir = device_directory();
    let arguments = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=test \
                     -addext subjectAltName=IP:127.0.0.1 -addext basicConstraints=critical,CA:FALSE \
                     -keyout key.pem -out own.pem";
    let made =
        Command::new("openssl").args(arguments.split_whitespace()).current_dir(dir.path()).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let mut server = Command::new("openssl")
        .args(["s_server", "-accept", "127.0.0.1:0", "-www", "-key", "key.pem", "-cert", "own.pem"])
        .current_dir(dir.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(server.stdout.take().unwrap()).lines().map_while(Result::ok);
    let accepts = lines.find_map(|line| Some(line.strip_prefix("ACCEPT ")?.to_owned())).unwrap();
    declare(
        dir.path(),
        &format!(
            "[[check]]\nname = \"page\"\nkind = \"http\"\nurl = \"https://{accepts}/\"\nbody_contains = \"s_server\"\n"
        ),
    );
    play(dir.path(), "systemctl", "exit 0");
    let good = line(dir.path(), "page");
    let (key, own) = (dir.path().join("key.pem"), dir.path().join("own.pem"));
    std::fs::rename(own, key).unwrap();
    let bad = line(dir.path(), "page");
    server.kill().unwrap();
    server.wait().unwrap();
    assert_eq!(good["state"], "healthy", "{good}");
    assert!(bad["why"].as_str().unwrap().contains("invalid peer certificate"), "{bad}");
}

#[test]
fn status_warns_of_a_software_watchdog_and_shows_the_checks() {
    let dir = device_directory();
    std::fs::create_dir(dir.path().join("run")).unwrap();
    write(dir.path(), "run/boot.json", br#"{"bank":"b","as":"trial","watchdog":"softdog"}"#);
    let status = || serde_json::from_str::<Value>(&updater(dir.path(), &["--json", "status"]).1).unwrap();
    assert_eq!(
        (&status()["health"], &status()["warnings"][0]["code"]),
        (&Value::Null, &"software-watchdog".into())
    );

    declare(dir.path(), "[[check]]\nname = \"kiosk\"\ncommand = [\"/bin/sh\", \"-c\", \"exit 0\"]\n");
    play(dir.path(), "systemctl", "exit 0");
    play(dir.path(), "journalctl", "echo played");
    installed(dir.path(), "1.0.0", 1);
    rebooted(dir.path());
    let attempt = Attempt::begin(
        &crate::support::state_of(dir.path()),
        open(dir.path()).record().banks.b.release.as_ref(),
        Bank::B,
    )
    .unwrap();
    assert_eq!(status()["health"], Value::Null, "its gate has seen nothing yet");
    attempt.keep_checks(&[Finding::of_step("system is up", Ok(()), Duration::ZERO)]).unwrap();
    assert_eq!(status()["health"]["phase"], "judging");
    assert!(updater(dir.path(), &["gate"]).0);
    let health = status()["health"].take();
    assert_eq!(
        (&health["release"]["version"], &health["phase"]),
        (&"1.0.0".into(), &"confirmed".into()),
        "{health}"
    );
    let kiosk = health["checks"].as_array().unwrap().iter().find(|check| check["check"] == "kiosk").unwrap();
    assert_eq!(kiosk["state"], "healthy", "{kiosk}");
    let (_, text) = updater(dir.path(), &["status"]);
    assert!(text.contains("health     demo 1.0.0, confirmed: 5 of 5 checks healthy\n"), "{text}");
    assert!(text.contains("warning    the watchdog is softdog"), "{text}");
}
