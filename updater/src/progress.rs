//! Who watches an install: bars on a terminal, plain lines otherwise, JSON lines for scripts.

use std::{
    io::{IsTerminal, stderr},
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::{
    ports::{Phase, Progress},
    printer::{self, Format},
};

/// The watcher that fits.
#[must_use]
pub fn watcher(format: Format) -> Box<dyn Progress> {
    match format {
        Format::Json => Box::new(Lines::new(Format::Json)),
        Format::Text if stderr().is_terminal() => Box::new(Bars { bar: None }),
        Format::Text => Box::new(Lines::new(Format::Text)),
    }
}

fn title(phase: Phase) -> &'static str {
    match phase {
        Phase::Verify => "checking the bundle",
        Phase::Look => "looking at the banks",
        Phase::Write => "writing the passive bank",
        Phase::ReadBack => "reading it back",
    }
}

struct Bars {
    bar: Option<ProgressBar>,
}

impl Progress for Bars {
    fn begin(&mut self, phase: Phase, total_bytes: u64) {
        self.end();
        if total_bytes > 0 {
            let bar = ProgressBar::new(total_bytes).with_message(title(phase));
            let style = "{msg:26} {wide_bar} {bytes:>11} of {total_bytes} {bytes_per_sec:>13} {eta:>4}";
            if let Ok(style) = ProgressStyle::with_template(style) {
                bar.set_style(style);
            }
            self.bar = Some(bar);
        }
    }

    fn advance(&mut self, bytes: u64) {
        if let Some(bar) = &self.bar {
            bar.inc(bytes);
        }
    }

    fn note(&mut self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| printer::person(text)),
            None => printer::person(text),
        }
    }

    fn end(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish();
        }
    }
}

#[derive(Serialize)]
struct Line<'a> {
    event: &'a str,
    phase: &'a str,
    bytes: u64,
    total_bytes: u64,
}

#[derive(Serialize)]
struct Note<'a> {
    event: &'a str,
    text: &'a str,
}

struct Lines {
    format: Format,
    phase: Phase,
    bytes: u64,
    total_bytes: u64,
    said: Instant,
    pause: Duration,
}

impl Lines {
    fn new(format: Format) -> Self {
        let pause = match format {
            Format::Json => Duration::from_millis(500),
            Format::Text => Duration::from_secs(5),
        };
        Self { format, phase: Phase::Verify, bytes: 0, total_bytes: 0, said: Instant::now(), pause }
    }

    fn say(&mut self) {
        self.said = Instant::now();
        match self.format {
            Format::Json => printer::object(&Line {
                event: "progress",
                phase: self.phase.word(),
                bytes: self.bytes,
                total_bytes: self.total_bytes,
            }),
            Format::Text => {
                let percent = self.bytes.saturating_mul(100).checked_div(self.total_bytes).unwrap_or(0);
                printer::person(&format!("{}: {percent} %", title(self.phase)));
            }
        }
    }
}

impl Progress for Lines {
    fn begin(&mut self, phase: Phase, total_bytes: u64) {
        self.end();
        self.phase = phase;
        self.bytes = 0;
        self.total_bytes = total_bytes;
        match self.format {
            Format::Json => self.say(),
            Format::Text => {
                printer::person(title(phase));
                self.said = Instant::now();
            }
        }
    }

    fn advance(&mut self, bytes: u64) {
        self.bytes = self.bytes.saturating_add(bytes);
        if self.said.elapsed() >= self.pause {
            self.say();
        }
    }

    fn note(&mut self, text: &str) {
        match self.format {
            Format::Json => printer::object(&Note { event: "note", text }),
            Format::Text => printer::person(text),
        }
    }

    fn end(&mut self) {
        if self.format == Format::Json && self.bytes > 0 {
            self.say();
        }
        self.bytes = 0;
    }
}
