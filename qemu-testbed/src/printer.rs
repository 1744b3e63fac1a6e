//! The one place that prints. Standard output is the story or the data; standard error is for trouble.

use std::{
    fmt::Display,
    io::{self, Write},
};

/// A line of the story.
#[expect(clippy::print_stdout, reason = "this module is the printer")]
pub fn say(line: impl Display) {
    println!("{line}");
}

/// A line for a person who has a problem.
#[expect(clippy::print_stderr, reason = "this module is the printer")]
pub fn complain(line: impl Display) {
    eprintln!("{line}");
}

/// An error and everything behind it, each once.
pub fn complain_of(error: &dyn std::error::Error) {
    complain(format_args!("error: {error}"));
    let mut cause = error.source();
    while let Some(error) = cause {
        complain(format_args!("  because: {error}"));
        cause = error.source();
    }
}

/// Bytes of a machine, as they are, for a terminal.
pub fn pass_on(bytes: &[u8]) {
    let mut out = io::stdout().lock();
    // A terminal that is gone takes the input with it, which ends the session.
    out.write_all(bytes).and_then(|()| out.flush()).ok();
}
