//! The one place that prints: data to standard output, words for people to standard error.
//!
//! On a terminal stages are bars; elsewhere each is a plain line, so that logs stay readable. Words may come from a bundle that
//! nobody vouched for: control characters never reach the terminal. A reader that closes the pipe early is no error.

use std::{
    error::Error as _,
    io::{self, IsTerminal as _, Write},
    sync::{Mutex, PoisonError},
};

use indicatif::{ProgressBar, ProgressStyle};

use crate::{error::Error, progress::Progress};

fn write_line(out: &mut dyn Write, line: &str) {
    let _ = writeln!(out, "{}", plain(line));
}

/// Without control characters, but for line ends.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' { '\u{fffd}' } else { c }).collect()
}

/// Prints.
#[derive(Default)]
pub struct Printer {
    bar: Mutex<Option<ProgressBar>>,
}

impl Printer {
    /// One line of data.
    pub fn data(&self, line: &str) {
        self.clear();
        write_line(&mut io::stdout(), line);
    }

    /// One line for people.
    pub fn say(&self, line: &str) {
        self.clear();
        write_line(&mut io::stderr(), line);
    }

    /// An error with its causes, and what to do.
    pub fn error(&self, error: &Error) {
        self.clear();
        let mut line = format!("error: {error}");
        let mut source = error.source();
        while let Some(cause) = source {
            line = format!("{line}: {}", cause.to_string().trim_end());
            source = cause.source();
        }
        self.say(&line);
        if let Some(hint) = error.hint() {
            self.say(&format!("hint: {hint}"));
        }
    }

    /// Takes the bar off the screen.
    pub fn clear(&self) {
        if let Some(bar) = self.bar.lock().unwrap_or_else(PoisonError::into_inner).take() {
            bar.finish_and_clear();
        }
    }
}

impl Progress for Printer {
    fn stage(&self, what: &str) {
        self.clear();
        if !io::stderr().is_terminal() {
            write_line(&mut io::stderr(), what);
            return;
        }
        let bar = ProgressBar::new_spinner().with_message(what.to_owned());
        bar.enable_steady_tick(std::time::Duration::from_millis(120));
        *self.bar.lock().unwrap_or_else(PoisonError::into_inner) = Some(bar);
    }

    fn note(&self, what: &str) {
        let line = format!("note: {what}");
        match &*self.bar.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(bar) => bar.suspend(|| write_line(&mut io::stderr(), &line)),
            None => write_line(&mut io::stderr(), &line),
        }
    }

    fn advance(&self, done_bytes: u64, total_bytes: u64) {
        let bar = self.bar.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(bar) = &*bar else { return };
        if bar.length() != Some(total_bytes) {
            bar.set_length(total_bytes);
            let template = "{msg} {wide_bar} {bytes}/{total_bytes} {eta}";
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style);
            }
        }
        bar.set_position(done_bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escape_sequences_do_not_reach_the_terminal() {
        assert_eq!(plain("a\u{1b}[31mb\u{9b}c\nd"), "a\u{fffd}[31mb\u{fffd}c\nd");
    }
}
