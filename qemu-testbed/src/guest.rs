//! Talking to a running guest: a shell on its second serial line.
//!
//! Knows the testbed's own appliance (`appliances/testbed.toml`): a unit announces the shell with [`BANNER`] and the
//! shell prompts with [`PROMPT`]. Promises that output is told apart from what the tty echoes: the marks are written
//! in two quoted halves, so that they never stand literally in a command line. Deliberately absent: a terminal.

use std::{io::Write, time::Duration};

use serde_json::Value;

use crate::{
    error::{Error, Result},
    limits,
    machine::Machine,
};

/// Said when the console's shell starts.
pub const BANNER: &str = "roro-console-is-here";
/// Said when the console's shell waits for a line.
pub const PROMPT: &str = "roro-console>";

/// What a command in the guest did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Its exit code.
    pub code: u8,
    /// What it wrote, standard output and standard error as they came, lines ended by `\n`.
    pub text: String,
}

impl Output {
    /// The text, if the command ended with 0.
    pub fn success(self, command: &str) -> Result<String> {
        if self.code == 0 {
            return Ok(self.text);
        }
        let seen = format!("exit code {} and {:?}", self.code, self.text.trim());
        Err(Error::Unexpected { what: command.to_owned(), wanted: "exit code 0".to_owned(), seen })
    }

    /// The last line that is a JSON object: what `--json` ends with.
    pub fn json(&self, what: &str) -> Result<Value> {
        let line =
            self.text.lines().rev().find(|line| line.trim_start().starts_with('{')).unwrap_or_default();
        serde_json::from_str(line).map_err(|source| Error::Json {
            what: what.to_owned(),
            text: self.text.clone(),
            source,
        })
    }
}

impl Machine {
    /// Runs a command line in the guest and waits for its end.
    pub fn run(&mut self, command: &str) -> Result<Output> {
        self.run_within(command, limits::COMMAND)
    }

    /// As [`Machine::run`], for commands that take their time.
    pub fn run_within(&mut self, command: &str, virtual_time: Duration) -> Result<Output> {
        let number = self.type_command(command)?;
        let deadline = self.deadline(virtual_time);
        let (begin, end) = (format!("@@BEGIN{number}@@"), format!("@@END{number}:"));
        let restarted = || Error::GuestRestarted { command: command.to_owned() };
        let mut text = String::new();
        for mark in [begin.as_str(), end.as_str()] {
            let seen = self.console.expect_any(&[mark, BANNER], deadline)?;
            if seen.which > 0 {
                // Keep the banner's meaning: a shell has started and will prompt.
                self.console_ready = false;
                self.console.expect(PROMPT, deadline)?;
                self.console_ready = true;
                return Err(restarted());
            }
            text = seen.before;
        }
        let code = self.console.expect("\n", deadline)?;
        self.console.expect(PROMPT, deadline)?;
        let text = text.replace('\r', "");
        let text = text.strip_prefix('\n').unwrap_or(&text).to_owned();
        let code = code.trim().parse().map_err(|_| Error::Unexpected {
            what: format!("the exit code of {command}"),
            wanted: "a number".to_owned(),
            seen: code,
        })?;
        Ok(Output { code, text })
    }

    /// Types a command whose end nobody waits for, such as one that the power cut will hit.
    pub fn start(&mut self, command: &str) -> Result<()> {
        self.type_command(command).map(drop)
    }

    /// Waits until the guest's shell is there.
    pub fn wait_for_console(&mut self, virtual_time: Duration) -> Result<()> {
        if self.console_ready {
            return Ok(());
        }
        let deadline = self.deadline(virtual_time);
        self.console.expect(BANNER, deadline)?;
        self.console.expect(PROMPT, deadline)?;
        self.console_ready = true;
        Ok(())
    }

    /// The guest is about to restart: what its shell said so far is over.
    pub fn forget_console(&mut self) {
        self.console_ready = false;
    }

    fn type_command(&mut self, command: &str) -> Result<u32> {
        self.wait_for_console(limits::BOOT)?;
        self.console_commands = self.console_commands.wrapping_add(1);
        let number = self.console_commands;
        let line = format!("echo \"@@\"\"BEGIN{number}@@\"; {command}; echo \"@@\"\"END{number}:$?\"\n");
        if line.len() > limits::CONSOLE_LINE_BYTES {
            return Err(Error::ConsoleLine { length: line.len() });
        }
        let folder = self.folder().to_owned();
        self.console_line()?
            .write_all(line.as_bytes())
            .map_err(Error::io("write to the console of", folder))?;
        Ok(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_the_last_object_line() {
        let output = Output { code: 0, text: "{\"a\":1}\nwarning\n{\"a\":2}\n".to_owned() };
        assert_eq!(output.json("test").unwrap()["a"], 2);
        let error = Output { code: 0, text: "nothing".to_owned() }.json("status").unwrap_err();
        assert!(error.to_string().starts_with("status is no JSON"), "{error}");
    }

    #[test]
    fn a_failed_command_says_what_it_wrote() {
        let error =
            Output { code: 4, text: "rejected\n".to_owned() }.success("updater install X").unwrap_err();
        assert_eq!(
            error.to_string(),
            "updater install X: expected exit code 0, saw exit code 4 and \"rejected\""
        );
    }
}
