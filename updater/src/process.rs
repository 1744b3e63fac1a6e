//! Other programs, each with a deadline. A program that does not end in time is killed with its whole process group.

use std::{
    io::{self, Read},
    os::unix::process::CommandExt,
    process::{Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread,
    time::Duration,
};

use crate::{linux, notify};

/// Which part of the output is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// Its first bytes.
    First(usize),
    /// Its last bytes.
    Last(usize),
}

/// How a program ended.
#[derive(Debug)]
pub enum Ended {
    /// By itself.
    Exited(ExitStatus),
    /// It was killed at its deadline.
    TimedOut,
}

/// How a program ended, and what it said on both its outputs.
#[derive(Debug)]
pub struct Finished {
    /// How.
    pub ended: Ended,
    /// What was kept.
    pub output: Vec<u8>,
}

impl Finished {
    /// Whether it ended by itself with exit code 0.
    #[must_use]
    pub fn succeeded(&self) -> bool {
        matches!(self.ended, Ended::Exited(status) if status.success())
    }

    /// Its output as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.output).into_owned()
    }
}

/// Runs a program to its end, at most until the deadline.
pub fn run(program: &str, arguments: &[&str], deadline: Duration, keep: Keep) -> io::Result<Finished> {
    let (reader, writer) = io::pipe()?;
    let mut command = Command::new(program);
    command.args(arguments).stdout(writer.try_clone()?).stderr(writer);
    let (ended, [output]) = attend(command, [(reader, keep)], deadline)?;
    Ok(Finished { ended, output })
}

/// How a program ended, and what it said on each output.
#[derive(Debug)]
pub struct Answered {
    /// How.
    pub ended: Ended,
    /// The first bytes of its standard output.
    pub answer: Vec<u8>,
    /// The first bytes of its standard error.
    pub complaint: Vec<u8>,
}

/// As [`run`], for a program that answers on its standard output. `limit_bytes` of each output are kept.
pub fn ask(mut command: Command, deadline: Duration, limit_bytes: usize) -> io::Result<Answered> {
    let keep = Keep::First(limit_bytes);
    let ((answer, stdout), (complaint, stderr)) = (io::pipe()?, io::pipe()?);
    command.stdout(stdout).stderr(stderr);
    let (ended, [answer, complaint]) = attend(command, [(answer, keep), (complaint, keep)], deadline)?;
    Ok(Answered { ended, answer, complaint })
}

fn attend<const N: usize>(
    mut command: Command,
    outputs: [(io::PipeReader, Keep); N],
    deadline: Duration,
) -> io::Result<(Ended, [Vec<u8>; N])> {
    // A program of ours must not speak to the service manager in our name.
    for variable in notify::VARIABLES {
        command.env_remove(variable);
    }
    let mut child = command.stdin(Stdio::null()).process_group(0).spawn()?;
    // It holds the writing ends of the pipes: without this the readers would never see the end.
    drop(command);
    let leader = child.id();
    let listeners = outputs.map(|(reader, keep)| Listener::start(reader, keep));
    let (has_ended, end) = mpsc::channel();
    thread::spawn(move || {
        let _ = has_ended.send(child.wait());
    });
    let ended = match end.recv_timeout(deadline) {
        Ok(status) => Ended::Exited(status?),
        Err(_) => {
            linux::kill_group(leader);
            Ended::TimedOut
        }
    };
    Ok((ended, listeners.map(Listener::end)))
}

struct Listener {
    kept: Arc<Mutex<Vec<u8>>>,
    all_said: mpsc::Receiver<()>,
}

impl Listener {
    fn start(reader: io::PipeReader, keep: Keep) -> Self {
        let kept = Arc::new(Mutex::new(Vec::new()));
        let (said_all, all_said) = mpsc::channel();
        let sink = Arc::clone(&kept);
        thread::spawn(move || {
            collect(reader, keep, &sink);
            let _ = said_all.send(());
        });
        Self { kept, all_said }
    }

    fn end(self) -> Vec<u8> {
        // A grandchild that left the group may keep the pipe open: its words are not waited for.
        let _ = self.all_said.recv_timeout(Duration::from_secs(1));
        std::mem::take(&mut *self.kept.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn collect(mut reader: impl Read, keep: Keep, sink: &Mutex<Vec<u8>>) {
    let mut buffer = [0; 4096];
    loop {
        let read = match reader.read(&mut buffer) {
            Ok(0) | Err(_) => return,
            Ok(read) => read,
        };
        let part = buffer.get(..read).unwrap_or_default();
        let mut kept = sink.lock().unwrap_or_else(PoisonError::into_inner);
        match keep {
            Keep::First(limit) => {
                let room = limit.saturating_sub(kept.len()).min(part.len());
                kept.extend_from_slice(part.get(..room).unwrap_or_default());
            }
            Keep::Last(limit) => {
                kept.extend_from_slice(part);
                let surplus = kept.len().saturating_sub(limit);
                kept.drain(..surplus);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, seconds: u64, keep: Keep) -> Finished {
        run("/bin/sh", &["-c", script], Duration::from_secs(seconds), keep).unwrap()
    }

    #[test]
    fn output_is_bounded_from_either_end() {
        let finished = shell("printf abc; printf def >&2; exit 3", 10, Keep::First(4));
        assert_eq!(finished.output, b"abcd");
        assert!(!finished.succeeded());
        assert_eq!(shell("printf abcdef", 10, Keep::Last(2)).output, b"ef");
        assert!(run("/nonexistent/program", &[], Duration::from_secs(1), Keep::First(1)).is_err());
    }

    #[test]
    fn a_program_that_hangs_is_killed_with_its_children() {
        let finished = shell("echo started; sleep 1000 & wait", 0, Keep::First(100));
        assert!(matches!(finished.ended, Ended::TimedOut));
    }
}
