//! `bootctl`, in a small root directory of its own whose `/sys` is made up: there it believes that systemd-boot has started it.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Stdio},
};

use bank_format::{
    Bank,
    efi::{LOADER_VENDOR, VarStore as _},
    loader::{Loader as _, SystemdBoot, bank_of_entry},
};
use updater::boot::efi::EfiVars;

use crate::{Random, STATES, Tool, report, scratch};

/// Runs the commands that it reads, and ends the answer to each with a line `=STATUS`. The variables lie in a directory outside.
const GUEST: &str = r#"
set -e
mount -t tmpfs none "$1"
cd "$1"
mkdir -p usr etc proc dev run tmp boot esp sys/firmware/efi/efivars
mount -t tmpfs none esp
mkdir -p esp/EFI/Linux esp/loader
mount --rbind /usr usr
mount --rbind /proc proc
mount --rbind /dev dev
for link in bin sbin lib lib64; do ln -s "usr/$link" "$link"; done
echo 64 > sys/firmware/efi/fw_platform_size
mount --bind "$2" sys/firmware/efi/efivars
exec chroot . /bin/sh -c 'while read -r line; do eval "bootctl --esp-path=/esp $line" 2>/tmp/said </dev/null; status=$?; test $status = 0 || cat /tmp/said; echo "=$status"; done'
"#;

/// `bootctl` behind a pipe.
struct Bootctl {
    child: Child,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Bootctl {
    fn start(unshare: &Tool, root: &Path, variables: &Path) -> Option<Self> {
        // Where a person may make no name spaces, root still may.
        let person: &[&str] = &["--user", "--map-root-user", "--mount"];
        [person, &["--mount"]].into_iter().find_map(|words| Self::start_with(unshare, words, root, variables))
    }

    fn start_with(unshare: &Tool, words: &[&str], root: &Path, variables: &Path) -> Option<Self> {
        let mut command = unshare.command(words);
        command
            .args(["/bin/sh", "-c", GUEST, "sh"])
            .args([root, variables])
            .env("SYSTEMD_RELAX_ESP_CHECKS", "1");
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("unshare starts");
        let commands = child.stdin.take().expect("a pipe");
        let answers = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut made = Self { child, commands, answers };
        made.ask("--version").map(|_| made)
    }

    /// What it says; nothing when it is gone.
    fn ask(&mut self, arguments: &str) -> Option<String> {
        writeln!(self.commands, "{arguments}").ok()?;
        let mut said = String::new();
        loop {
            let mut line = String::new();
            if self.answers.read_line(&mut line).ok()? == 0 {
                return None;
            }
            if let Some(status) = line.strip_prefix('=') {
                assert_eq!(status.trim(), "0", "bootctl {arguments}: {said}");
                return Some(said);
            }
            said += &line;
        }
    }
}

impl Drop for Bootctl {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect()
}

/// Whose entry it names; ours with the zero at the end. `bootctl` leaves what was longer before behind it, as no firmware would.
fn entry_of(vars: &EfiVars, name: &str) -> Option<Option<Bank>> {
    let value = vars.read(name, LOADER_VENDOR).map_err(std::io::Error::from).expect("it can be read")?;
    let bank = bank_of_entry(&value);
    if let Some(bank) = bank {
        let written = String::from_utf16_lossy(
            &value.chunks(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect::<Vec<_>>(),
        );
        assert!(written.to_lowercase().starts_with(&format!("roro-{bank}.efi\0")), "{written:?}");
    }
    Some(bank)
}

/// The entry that `bootctl list` marks as the one that starts next: the one-shot, else the default.
fn starts_next(list: &str) -> Option<&str> {
    let marked = list.lines().find(|line| line.contains("(default)"))?;
    marked.trim().strip_prefix("title: ")?.split(' ').next()
}

#[test]
fn bootctl_and_we_read_each_others_variables() {
    let (Some(_), Some(unshare)) =
        (Tool::find("bootctl", "systemd-boot"), Tool::find("unshare", "util-linux"))
    else {
        return;
    };
    let scratch = scratch();
    let [root, directory] = ["root", "efivars"].map(|name| scratch.path().join(name));
    fs::create_dir(&root).unwrap();
    fs::create_dir(&directory).unwrap();
    let mut vars = EfiVars::new(&directory);
    for (name, value) in [
        ("LoaderInfo", utf16("systemd-boot 252")),
        ("LoaderFeatures", 0xfff_u64.to_le_bytes().to_vec()),
        ("LoaderEntries", [utf16("roro-a.efi"), utf16("roro-b.efi")].concat()),
    ] {
        vars.write(name, LOADER_VENDOR, &value).map_err(std::io::Error::from).unwrap();
    }
    let Some(mut bootctl) = Bootctl::start(&unshare, &root, &directory) else {
        assert!(std::env::var_os("CI").is_none(), "no user namespaces: bootctl cannot be given its own /sys");
        eprintln!("left out: no user namespaces on this machine");
        return;
    };
    let mut random = Random::new(6);
    let mut told = (None, None);
    for state in 0..STATES {
        if random.below(2) == 0 {
            // We write, the tool reads.
            let bank = random.bank();
            let mut loader = SystemdBoot::new(vars.clone());
            let done = if random.below(2) == 0 {
                loader.set_next(bank)
            } else {
                loader.set_default(bank, random.spare())
            };
            done.map_err(std::io::Error::from).unwrap();
            told = (entry_of(&vars, "LoaderEntryOneShot"), entry_of(&vars, "LoaderEntryDefault"));
        } else {
            // The tool writes, we read: entries of ours in any case of letters, entries of others, and none.
            let once = random.below(2) == 0;
            let (verb, slot) = if once { ("set-oneshot", &mut told.0) } else { ("set-default", &mut told.1) };
            let bank = random.bank();
            let (name, expected) = match random.below(5) {
                0 => (String::new(), None),
                1 => (format!("x{}", random.text("abcXYZ019+-_.", 40)), Some(None)),
                2 => (format!("RORO-{bank}.efi"), Some(Some(bank))),
                _ => (format!("roro-{bank}.efi"), Some(Some(bank))),
            };
            let word = if name.is_empty() { "''".to_owned() } else { name };
            bootctl.ask(&format!("{verb} {word}")).unwrap();
            *slot = expected;
            let found = (entry_of(&vars, "LoaderEntryOneShot"), entry_of(&vars, "LoaderEntryDefault"));
            assert_eq!(found, told, "state {state}: {verb} {word}");
        }
        let next = SystemdBoot::new(vars.clone()).next().map_err(std::io::Error::from).unwrap();
        assert_eq!(next, told.0.flatten(), "state {state}");
        let expected = match told {
            (Some(Some(bank)), _) | (None | Some(None), Some(Some(bank))) => Some(format!("roro-{bank}.efi")),
            // It names none of ours then, or the first of its list.
            (None | Some(None), None | Some(None)) => None,
        };
        if let Some(expected) = expected {
            let list = bootctl.ask("--no-pager list").unwrap();
            assert_eq!(starts_next(&list), Some(expected.as_str()), "state {state}: {list}");
        }
    }
    report("bootctl", STATES);
}
