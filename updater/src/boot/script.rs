//! A boot loader of which we know nothing, behind a program of the integrator. Protocol: `docs/loaders/script.md`.

use std::{
    io,
    path::{Path, PathBuf},
    process::Command,
};

use bank_format::{
    Bank,
    loader::{Loader, Spare},
};

use crate::{
    limits::{LOADER_PROGRAM_DEADLINE, MAX_LOADER_PROGRAM_OUTPUT_BYTES},
    linux,
    process::{Ended, ask},
};

/// The version of the protocol, `RORO_PROTOCOL` in the environment of the program.
pub const PROTOCOL: &str = "1";

/// The program.
#[derive(Debug, Clone)]
pub struct Script {
    program: PathBuf,
    run_dir: PathBuf,
}

impl Script {
    /// A program, and the directory where the initrd notes what it found.
    #[must_use]
    pub fn new(program: &Path, run_dir: &Path) -> Self {
        Self { program: program.to_owned(), run_dir: run_dir.to_owned() }
    }

    fn ask(&self, words: &[&str]) -> io::Result<String> {
        let asked = || format!("{} {}", self.program.display(), words.join(" "));
        let failed = |how: String| Err(io::Error::other(format!("{}: {how}", asked())));
        let mut command = Command::new(&self.program);
        // Nothing of whoever calls the agent reaches the program: it does the same for a person, a unit and a timer.
        command
            .args(words)
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .env("LC_ALL", "C")
            .env("RORO_PROTOCOL", PROTOCOL)
            .env("RORO_RUN_DIR", &self.run_dir)
            .current_dir("/");
        let answered = ask(command, LOADER_PROGRAM_DEADLINE, MAX_LOADER_PROGRAM_OUTPUT_BYTES)
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", asked())))?;
        let complaint = String::from_utf8_lossy(&answered.complaint);
        let complaint = complaint.lines().map(str::trim).find(|line| !line.is_empty());
        match answered.ended {
            Ended::Exited(status) if status.success() => String::from_utf8(answered.answer)
                .map(|answer| answer.trim().to_owned())
                .or_else(|_| failed("its answer is no text".into())),
            Ended::Exited(status) => {
                let how = linux::describe_exit(status);
                failed(complaint.map_or(how.clone(), |why| format!("{how}: {why}")))
            }
            Ended::TimedOut => failed(format!("no end after {} s", LOADER_PROGRAM_DEADLINE.as_secs())),
        }
    }

    fn tell(&self, words: &[&str]) -> io::Result<()> {
        let answer = self.ask(words)?;
        if answer.is_empty() {
            return Ok(());
        }
        // A program that takes every deed for a question would otherwise pass as one that does it.
        Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("{} answers {answer:?}, expected nothing", words.join(" ")),
        ))
    }
}

fn word(bank: Bank) -> &'static str {
    match bank {
        Bank::A => "a",
        Bank::B => "b",
    }
}

impl Loader for Script {
    type Error = io::Error;

    fn next(&mut self) -> io::Result<Option<Bank>> {
        match self.ask(&["next"])?.as_str() {
            "a" => Ok(Some(Bank::A)),
            "b" => Ok(Some(Bank::B)),
            "none" => Ok(None),
            other => Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("next answers {other:?}, expected a, b or none"),
            )),
        }
    }

    fn set_next(&mut self, bank: Bank) -> io::Result<()> {
        self.tell(&["set-next", word(bank)])
    }

    fn set_default(&mut self, first: Bank, spare: Spare) -> io::Result<()> {
        let spare = match spare {
            Spare::Bootable => "bootable",
            Spare::Unbootable => "unbootable",
        };
        self.tell(&["set-default", word(first), spare])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `install` writes it in another process: one of ours that is spawned meanwhile would inherit the open file, and the kernel
    /// runs no program that somebody has open for writing.
    fn program(dir: &Path, body: &str) -> Script {
        let source = dir.join("source");
        std::fs::write(&source, format!("#!/bin/sh\n{body}\n")).unwrap();
        let program = dir.join("loader");
        let done = Command::new("install").arg("-m755").arg(&source).arg(&program).status().unwrap();
        assert!(done.success());
        Script::new(&program, dir)
    }

    #[test]
    fn words_go_in_and_answers_come_out() {
        let dir = tempfile::tempdir().unwrap();
        let mut script = program(
            dir.path(),
            "echo \"$RORO_PROTOCOL $*\" >> \"$RORO_RUN_DIR/asked\"; case $1 in next) echo b;; esac",
        );
        assert_eq!(script.next().unwrap(), Some(Bank::B));
        script.set_next(Bank::A).unwrap();
        script.set_default(Bank::B, Spare::Bootable).unwrap();
        script.set_default(Bank::A, Spare::Unbootable).unwrap();
        assert_eq!(
            std::fs::read_to_string(dir.path().join("asked")).unwrap(),
            "1 next\n1 set-next a\n1 set-default b bootable\n1 set-default a unbootable\n"
        );
    }

    #[test]
    fn whatever_is_not_the_protocol_is_an_error_in_one_line() {
        let dir = tempfile::tempdir().unwrap();
        for (body, expected) in [
            ("exit 3", "next: exit 3"),
            ("echo; echo '  no disk' >&2; exit 1", "next: exit 1: no disk"),
            ("echo both", "next answers \"both\", expected a, b or none"),
            ("true", "next answers \"\""),
            ("printf '\\377'", "no text"),
            ("kill -9 $$", "killed by signal 9"),
        ] {
            let error = program(dir.path(), body).next().unwrap_err().to_string();
            assert!(error.contains(expected) && !error.contains('\n'), "{error}");
        }
        let error = program(dir.path(), "echo a").set_next(Bank::A).unwrap_err().to_string();
        assert!(error.contains("expected nothing"), "{error}");
        let mut none = Script::new(Path::new("/nonexistent/loader"), dir.path());
        assert!(none.next().unwrap_err().to_string().starts_with("/nonexistent/loader next: "));
    }
}
