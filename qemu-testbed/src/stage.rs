//! The stage of a scenario: one machine, the server with the releases, and the sentences a test is written in.
//!
//! Knows the agent's command line and its JSON (docs/architecture.md), never the agent. Each sentence waits for what it
//! names and fails with what it saw instead. Deliberately absent: sleeping.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use bank_format::{Bank, loader::Kind};
use serde_json::Value;

use crate::{
    error::{Error, Result},
    guest::Output,
    hardware::Hardware,
    limits,
    loader::Loader,
    machine::Machine,
    printer,
    profile::{Profile, Recovery, Services, Signed},
    release::Release,
    server::{Pace, Server},
    slots::{self, Held},
    workshop::Workshop,
};

/// On what a scenario is played.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Setting {
    /// The machine.
    pub hardware: Hardware,
    /// Its disk.
    pub profile: Profile,
}

impl Setting {
    /// UEFI that starts the bank itself.
    pub const USUAL: Self = Self {
        hardware: Hardware::USUAL,
        profile: Profile {
            kind: Kind::Efi,
            tries: 1,
            recovery: Recovery::Absent,
            signed: Signed::No,
            services: Services::Few,
        },
    };

    /// The usual one for a boot loader.
    #[must_use]
    pub fn of(loader: Loader) -> Self {
        Self {
            hardware: Hardware { firmware: loader.firmware(), ..Hardware::USUAL },
            profile: Profile::of(loader.kind()),
        }
    }
}

/// One machine with the factory release on its disk, and a server with everything else.
#[derive(Debug)]
pub struct Stage {
    workshop: Workshop,
    name: String,
    setting: Setting,
    /// The machine.
    pub machine: Machine,
    /// The server that the guest fetches from.
    pub server: Server,
    started: Instant,
    /// The folder of this run, and the right to run a machine.
    _held: [Held; 2],
}

impl Stage {
    /// Sets the stage for the scenario `name`: builds what is not built yet, waits for its turn, and puts a new machine
    /// together. It is still off.
    pub fn set(workshop: Workshop, name: &str, setting: Setting) -> Result<Self> {
        let image = workshop.factory_image(setting.profile)?;
        let server = Server::start(workshop.shelf())?;
        let run = slots::lock(&workshop.runs().join(format!("{name}.lock")))?;
        let slot = slots::machine_slot(&workshop.runs(), name)?;
        let machine = Machine::assemble(name, setting.hardware, &image, &workshop.runs().join(name))?;
        let name = name.to_owned();
        Ok(Stage { workshop, name, setting, machine, server, started: Instant::now(), _held: [run, slot] })
    }

    /// On what is played.
    #[must_use]
    pub fn setting(&self) -> Setting {
        self.setting
    }

    /// The programs of the device, as they lie on the host.
    #[must_use]
    pub fn programs(&self) -> &Path {
        self.workshop.binaries()
    }

    /// The folder with a folder for each run.
    #[must_use]
    pub fn runs(&self) -> PathBuf {
        self.workshop.runs()
    }

    /// The time on stage: without what was built before, and without waiting for a turn.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Tells what happens, with the seconds since the beginning.
    pub fn tell(&self, line: &str) {
        printer::say(format_args!("[{} {:>6.1} s] {line}", self.name, self.started.elapsed().as_secs_f64()));
    }

    /// Switches the machine on and waits until one can talk to it.
    pub fn power_on(&mut self) -> Result<()> {
        self.machine.power_on()?;
        self.machine.wait_for_console(limits::BOOT)?;
        self.tell("power on: the system is up");
        Ok(())
    }

    /// The agent's view of the device.
    pub fn status(&mut self) -> Result<Value> {
        let output = self.machine.run("updater status --json")?;
        output.json("updater status")
    }

    /// Installs a release over HTTP, which must work. Gives the closing object.
    pub fn install(&mut self, release: Release) -> Result<Value> {
        self.install_built_for(release, self.setting.profile)
    }

    /// As [`Stage::install`], of a bundle that was built for another disk.
    pub fn install_built_for(&mut self, release: Release, profile: Profile) -> Result<Value> {
        let command = self.install_command(release, profile)?;
        let output = self.machine.run_within(&command, limits::INSTALL)?;
        let text = output.clone().success(&format!("installing {release}"))?;
        let report = output.json("updater install")?;
        self.tell(&format!(
            "installed {release}: {:.1} MiB fetched, {:.1} MiB written, {:.1} MiB already in place, {} s in the guest",
            mebibytes(&report, "bytes_fetched"),
            mebibytes(&report, "bytes_written"),
            mebibytes(&report, "bytes_skipped"),
            report.get("seconds").unwrap_or(&Value::Null),
        ));
        if report.get("result").and_then(Value::as_str) != Some("installed") {
            return Err(unexpected("the result of updater install", "installed", &text));
        }
        Ok(report)
    }

    /// Tries to install a release that must be refused with exit code 4, giving all of `words` as the reason.
    pub fn expect_refused(&mut self, release: Release, words: &[&str]) -> Result<()> {
        let output = self.try_install(release)?;
        let text = output.text.to_lowercase();
        if output.code != 4 || !words.iter().all(|word| text.contains(word)) {
            let wanted = format!("exit code 4 and the words {words:?}");
            let seen = format!("exit code {} and {}", output.code, output.text.trim());
            return Err(Error::Unexpected { what: format!("installing {release}"), wanted, seen });
        }
        let report = output.json("updater install")?;
        let reason = report.get("reason").and_then(Value::as_str).unwrap_or_default();
        self.tell(&format!("refused {release}: {reason}"));
        Ok(())
    }

    /// Begins to install onto a disk that is held back, and waits until it is in the middle of writing.
    pub fn half_install(&mut self, release: Release) -> Result<()> {
        // It tells of its progress twice a second: this is about half of what is copied at that rate.
        const RATE: &str = "8M";
        const LINES: usize = 16;
        self.machine.run(&format!("updater throttle --disk {RATE}"))?.success("holding the disk back")?;
        let command = self.install_command(release, self.setting.profile)?;
        self.machine.start(&command)?;
        for _ in 0..LINES {
            self.wait_on_console("\"phase\":\"write\"", limits::INSTALL)?;
        }
        self.tell(&format!("{release} is being written"));
        Ok(())
    }

    /// Begins to install, and does not wait for the end.
    pub fn begin_install(&mut self, release: Release) -> Result<()> {
        let command = self.install_command(release, self.setting.profile)?;
        self.machine.start(&command)
    }

    /// Waits for words of a command that was begun.
    pub fn wait_on_console(&mut self, words: &str, virtual_time: Duration) -> Result<()> {
        let deadline = self.machine.deadline(virtual_time);
        self.machine.console.expect(words, deadline).map(drop)
    }

    /// Pulls the plug; the server is fast again afterwards.
    pub fn power_cut(&mut self) -> Result<()> {
        self.machine.power_cut()?;
        self.server.set_pace(Pace::Full);
        self.tell("power cut");
        Ok(())
    }

    /// Asks the agent to reboot and waits for the reset.
    pub fn reboot(&mut self) -> Result<()> {
        self.machine.forget_resets()?;
        self.machine.start("updater reboot")?;
        self.machine.wait_for_reset(limits::BOOT)?;
        self.tell("the machine resets");
        Ok(())
    }

    /// Waits until `version` runs on `bank`, confirmed, with nothing on trial.
    pub fn expect_confirmed(&mut self, bank: Bank, version: &str) -> Result<Value> {
        let wanted = format!("{version} confirmed on {}", bank_name(bank));
        let status = self.wait_for_status(&wanted, |status| {
            runs(status, bank, version)
                && status.get("confirmed").is_some_and(|confirmed| names_bank(confirmed, bank))
                && status.get("trial").is_none_or(Value::is_null)
        })?;
        self.tell(&format!("{version} is confirmed on {}", bank_name(bank)));
        Ok(status)
    }

    /// Waits until the machine is back on `bank` with `version`, telling that a trial failed for a reason with one of
    /// `words` in it, each word an alternative.
    pub fn expect_fallback(&mut self, bank: Bank, version: &str, words: &[&str]) -> Result<Value> {
        let wanted = format!("fallback to {version} on {}", bank_name(bank));
        let status = self.wait_for_status(&wanted, |status| {
            runs(status, bank, version)
                && status.pointer("/last_result/outcome").and_then(Value::as_str) == Some("fell-back")
        })?;
        let reason =
            status.pointer("/last_result/reason").and_then(Value::as_str).unwrap_or_default().to_owned();
        let lower = reason.to_lowercase();
        if !words.iter().any(|word| lower.contains(word)) {
            return Err(unexpected("the reason of the fallback", &format!("one of {words:?}"), &reason));
        }
        self.tell(&format!("fell back to {version} on {}: {reason}", bank_name(bank)));
        Ok(status)
    }

    /// Waits for the file that only the good release carries.
    pub fn expect_news(&mut self) -> Result<()> {
        let command = "read news < /etc/roro-testbed-news; echo $news";
        let news = self.machine.run(command)?.success(command)?;
        if news.trim() != "better than before" {
            return Err(unexpected("the file of the good release", "better than before", &news));
        }
        self.tell(&format!("the device shows its news: {}", news.trim()));
        Ok(())
    }

    /// Looks for words in what the newest entry of the history that has evidence shows of the boot that failed: by part, as
    /// `updater history show` has them.
    pub fn expect_evidence(&mut self, wanted: &[(&str, &str)]) -> Result<()> {
        let listed = self.machine.run("updater history --json")?.success("updater history")?;
        let mut entries = listed.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let with_evidence = entries.rfind(|entry| entry.get("evidence").is_some_and(Value::is_string));
        let number = with_evidence.and_then(|entry| entry.get("number").and_then(Value::as_u64));
        let Some(number) = number else {
            return Err(unexpected("updater history", "an entry with evidence", &listed));
        };
        let command = format!("updater history show {number} --json");
        let shown = self.machine.run(&command)?.json(&command)?;
        for (part, words) in wanted {
            let kept = shown.pointer(&format!("/kept/{part}")).unwrap_or(&Value::Null).to_string();
            if !kept.contains(words) {
                let end: String =
                    kept.chars().rev().take(2000).collect::<Vec<_>>().into_iter().rev().collect();
                return Err(unexpected(&format!("{part} in {command}"), words, &end));
            }
            self.tell(&format!("updater history show {number}: {part} has {words:?}"));
        }
        Ok(())
    }

    /// Waits until status warns of this.
    pub fn expect_warning(&mut self, code: &str) -> Result<()> {
        let status = self.wait_for_status(code, |status| {
            let warnings = status.get("warnings").and_then(Value::as_array);
            warnings
                .is_some_and(|all| all.iter().any(|warning| warning.get("code").is_some_and(|is| is == code)))
        })?;
        self.tell(&format!("status warns: {}", status.get("warnings").unwrap_or(&Value::Null)));
        Ok(())
    }

    /// What `updater audit --passive` finds: `result` and the exit code.
    pub fn expect_audit(&mut self, result: &str, code: u8) -> Result<()> {
        let command = "updater audit --passive --json";
        let output = self.machine.run_within(command, limits::INSTALL)?;
        let found = output.json(command)?;
        if output.code != code || found.get("result").and_then(Value::as_str) != Some(result) {
            return Err(unexpected(command, &format!("exit code {code} and {result}"), &output.text));
        }
        self.tell(&format!("updater audit --passive: {found}"));
        Ok(())
    }

    /// Expects status to name an install of `version` as interrupted.
    pub fn expect_interrupted(&mut self, version: &str) -> Result<()> {
        let status = self.status()?;
        let interrupted = status.get("interrupted").unwrap_or(&Value::Null).to_string();
        if !interrupted.contains(version) {
            return Err(unexpected("interrupted in updater status", version, &status.to_string()));
        }
        self.tell(&format!("status names what was interrupted: {interrupted}"));
        Ok(())
    }

    /// Asks the agent for the other bank.
    pub fn rollback(&mut self) -> Result<()> {
        self.machine.run("updater rollback --json")?.success("updater rollback")?;
        self.tell("rollback asked for");
        Ok(())
    }

    /// Waits for words of kernel or system on the serial log.
    pub fn expect_on_log(&mut self, words: &str) -> Result<()> {
        let deadline = self.machine.deadline(limits::BOOT);
        self.machine.log().expect(words, deadline)?;
        self.tell(&format!("seen on the serial line: {words}"));
        Ok(())
    }

    /// Looks at the status whenever the machine says something new, until it is as wanted.
    pub fn wait_for_status(&mut self, wanted: &str, is_it: impl Fn(&Value) -> bool) -> Result<Value> {
        let deadline = self.machine.deadline(limits::BOOT.saturating_mul(3));
        let mut last = Value::Null;
        loop {
            let mark = self.machine.log().mark();
            match self.status() {
                Ok(status) if is_it(&status) => return Ok(status),
                Ok(status) => last = status,
                // A trial that is given up restarts in the middle of a command; an agent that is busy says so.
                Err(Error::GuestRestarted { .. } | Error::Json { .. }) => {}
                Err(error) => return Err(error),
            }
            if Instant::now() >= deadline {
                return Err(unexpected(
                    &format!("updater status (serial log: {})", self.machine.log().file().display()),
                    wanted,
                    &last.to_string(),
                ));
            }
            let look_again = self.machine.deadline(limits::LOOK_AGAIN).min(deadline);
            self.machine.log().wait_for_more(mark, look_again);
        }
    }

    /// Shuts the guest down in order, switches off and gives the digests of bank B's partitions.
    pub fn passive_bank_on_disk(&mut self) -> Result<[String; 2]> {
        self.reboot()?;
        self.machine.power_off()?;
        let disk = self.machine.disk();
        Ok([crate::disk::digest(&disk, "boot-b")?, crate::disk::digest(&disk, "root-b")?])
    }

    fn try_install(&mut self, release: Release) -> Result<Output> {
        let command = self.install_command(release, self.setting.profile)?;
        self.machine.run_within(&command, limits::INSTALL)
    }

    fn install_command(&self, release: Release, profile: Profile) -> Result<String> {
        let bundle = self.workshop.bundle(release, profile)?;
        let name = bundle.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(format!("updater install {} --json", self.server.url_from_guest(&name)))
    }
}

/// How long a deed took, for a table.
#[must_use]
pub fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

fn unexpected(what: &str, wanted: &str, seen: &str) -> Error {
    Error::Unexpected { what: what.to_owned(), wanted: wanted.to_owned(), seen: seen.to_owned() }
}

fn runs(status: &Value, bank: Bank, version: &str) -> bool {
    let release = status.get("release").unwrap_or(&Value::Null);
    let running = release.get("version").unwrap_or(release).as_str().unwrap_or_default();
    running.rsplit(' ').next() == Some(version)
        && status.get("active").is_some_and(|active| names_bank(active, bank))
}

fn names_bank(value: &Value, bank: Bank) -> bool {
    value.as_str() == Some(bank.letter())
}

fn mebibytes(report: &Value, key: &str) -> f64 {
    report.get(key).and_then(Value::as_f64).unwrap_or(0.0) / f64::from(1 << 20)
}

fn bank_name(bank: Bank) -> &'static str {
    match bank {
        Bank::A => "bank A",
        Bank::B => "bank B",
    }
}
