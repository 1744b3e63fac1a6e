//! `demo`: the story of a device, told in plain lines, on real firmware.
//!
//! Promises exit code 0 only when everything in its table was seen to happen.

use std::time::{Duration, Instant};

use bank_format::Bank;
use serde_json::Value;

use crate::{
    error::Result,
    packages, printer,
    profile::{Profile, Services},
    release::Release,
    stage::{Setting, Stage, seconds},
    workshop::Workshop,
};

/// On what it is shown: all that a device runs.
const WHOLE: Setting =
    Setting { profile: Profile { services: Services::All, ..Setting::USUAL.profile }, ..Setting::USUAL };

#[derive(Debug, clap::Args)]
pub(super) struct Args {}

/// One line of the closing table.
struct Deed {
    what: &'static str,
    seen: String,
    took: Duration,
}

/// The deeds so far.
struct Story {
    started: Instant,
    deeds: Vec<Deed>,
}

impl Story {
    fn chapter<T>(&mut self, title: &'static str, play: impl FnOnce() -> Result<(T, String)>) -> Result<T> {
        printer::say(format_args!("\n{}. {title}", self.deeds.len().saturating_add(1)));
        let started = Instant::now();
        let (value, seen) = play()?;
        self.deeds.push(Deed { what: title, seen, took: started.elapsed() });
        Ok(value)
    }

    fn table(&self) {
        let width = self.deeds.iter().map(|deed| deed.what.len()).max().unwrap_or(0);
        printer::say("");
        for deed in &self.deeds {
            printer::say(format_args!("  {:<width$}  {:>8}  {}", deed.what, seconds(deed.took), deed.seen));
        }
        printer::say(format_args!("  {:<width$}  {:>8}", "all together", seconds(self.started.elapsed())));
    }
}

impl Args {
    pub(super) fn run(self) -> Result<()> {
        let mut story = Story { started: Instant::now(), deeds: Vec::new() };
        story.chapter("what this machine needs", || {
            Ok((
                (),
                match packages::install_missing()? {
                    0 => "everything was there".to_owned(),
                    count => format!("installed {count} Debian packages"),
                },
            ))
        })?;
        let workshop = story.chapter("programs for the device", || {
            printer::say(
                "cargo device builds updater and boot-hooks, static; the first time that takes minutes",
            );
            Ok((Workshop::open()?, "static binaries".to_owned()))
        })?;
        story.chapter("three releases and a forgery", || {
            printer::say("the first build fetches the Debian packages of the image");
            for release in [Release::Factory, Release::Good, Release::Unhealthy, Release::TamperedManifest] {
                let started = Instant::now();
                let bundle = workshop.bundle(release, WHOLE.profile)?;
                let bytes = std::fs::metadata(&bundle).map(|meta| meta.len()).unwrap_or(0);
                let mebibytes = bytes as f64 / f64::from(1 << 20);
                printer::say(format_args!("{release}: {mebibytes:.1} MiB, {}", seconds(started.elapsed())));
            }
            Ok(((), "built and signed".to_owned()))
        })?;
        let mut stage = story.chapter("first boot", || {
            let mut stage = Stage::set(workshop, "demo", WHOLE)?;
            stage.tell(&format!("q35 with OVMF, running on {}", stage.machine.accelerator().name()));
            stage.power_on()?;
            stage.expect_confirmed(Bank::A, "1.0.0")?;
            Ok((stage, "1.0.0 confirmed on bank A".to_owned()))
        })?;
        story.chapter("a good update over HTTP", || {
            stage.install(Release::Good)?;
            stage.reboot()?;
            stage.expect_confirmed(Bank::B, "1.1.0")?;
            stage.expect_news()?;
            Ok(((), "1.1.0 confirmed on bank B".to_owned()))
        })?;
        story.chapter("an update that cannot become healthy", || {
            stage.install(Release::Unhealthy)?;
            stage.reboot()?;
            let status = stage.expect_fallback(Bank::B, "1.1.0", &["kiosk answers"])?;
            let last = status.get("last_result").unwrap_or(&Value::Null);
            stage.tell(&format!("updater status --json says of it: {last}"));
            stage.expect_confirmed(Bank::B, "1.1.0")?;
            let reason = status.pointer("/last_result/reason").and_then(Value::as_str).unwrap_or_default();
            Ok(((), format!("back on 1.1.0, bank B: {reason}")))
        })?;
        story.chapter("a tampered bundle", || {
            stage.expect_refused(Release::TamperedManifest, &["signature"])?;
            stage.expect_confirmed(Bank::B, "1.1.0")?;
            Ok(((), "refused; still 1.1.0 on bank B".to_owned()))
        })?;
        story.table();
        printer::say(format_args!("  the machine's log: {}", stage.machine.log().file().display()));
        Ok(())
    }
}
