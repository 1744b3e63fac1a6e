//! QEMU's machine protocol, as much as a testbed needs: commands, and the events that tell of resets.
//!
//! <https://www.qemu.org/docs/master/interop/qmp-spec.html>. Events that come while a command waits for its answer
//! are kept for whoever asks later.

use std::{io::Write, os::unix::net::UnixStream, path::Path, time::Instant};

use serde_json::{Value, json};

use crate::{
    error::{Error, Result},
    expect::Transcript,
};

/// A connection to the monitor.
#[derive(Debug)]
pub struct Qmp {
    stream: UnixStream,
    lines: Transcript,
    events: Vec<Value>,
    /// Names of all events that came, taken or not.
    seen: Vec<String>,
}

impl Qmp {
    /// Takes the greeting and leaves negotiation mode. `log` names the file shown in messages.
    pub fn open(stream: UnixStream, log: &Path, deadline: Instant) -> Result<Self> {
        let lines = Transcript::new("qemu monitor", log);
        lines.listen(stream.try_clone().map_err(Error::io("clone the monitor socket of", log))?)?;
        let mut qmp = Qmp { stream, lines, events: Vec::new(), seen: Vec::new() };
        qmp.next(deadline)?;
        qmp.command("qmp_capabilities", deadline)?;
        Ok(qmp)
    }

    /// Runs a command without arguments.
    pub fn command(&mut self, command: &str, deadline: Instant) -> Result<Value> {
        self.command_with(command, &json!({}), deadline)
    }

    /// Runs a command with arguments.
    pub fn command_with(&mut self, command: &str, arguments: &Value, deadline: Instant) -> Result<Value> {
        let failed = |answer: String| Error::Qmp { command: command.to_owned(), answer };
        let line = format!("{}\n", json!({ "execute": command, "arguments": arguments }));
        self.stream.write_all(line.as_bytes()).map_err(|error| failed(error.to_string()))?;
        loop {
            let message = self.next(deadline)?;
            if let Some(answer) = message.get("return") {
                return Ok(answer.clone());
            }
            if message.get("error").is_some() {
                return Err(failed(message.to_string()));
            }
            self.events.push(message);
        }
    }

    /// Waits for an event of this name that nobody has taken yet.
    pub fn event(&mut self, name: &str, deadline: Instant) -> Result<Value> {
        let is_it = |message: &Value| message.get("event").and_then(Value::as_str) == Some(name);
        if let Some(at) = self.events.iter().position(is_it) {
            return Ok(self.events.swap_remove(at));
        }
        loop {
            let message = self.next(deadline)?;
            if is_it(&message) {
                return Ok(message);
            }
            self.events.push(message);
        }
    }

    /// Forgets the events of this name that nobody has waited for.
    pub fn forget(&mut self, name: &str) {
        self.events.retain(|message| message.get("event").and_then(Value::as_str) != Some(name));
    }

    /// How many events of this name came so far, taken or not.
    #[must_use]
    pub fn events_so_far(&self, name: &str) -> usize {
        self.seen.iter().filter(|seen| *seen == name).count()
    }

    fn next(&mut self, deadline: Instant) -> Result<Value> {
        let line = self.lines.expect("\n", deadline)?;
        let message: Value = serde_json::from_str(&line).map_err(|source| Error::Json {
            what: "a qmp message".to_owned(),
            text: line,
            source,
        })?;
        self.seen.extend(message.get("event").and_then(Value::as_str).map(str::to_owned));
        Ok(message)
    }
}
