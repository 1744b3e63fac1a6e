//! The server of all peers and of Roro: nginx on the loopback, one process, and its log as the count of bytes.
//!
//! nginx logs a request in the same turn of its loop in which it sends the last byte of it. So when a later request of ours
//! is answered, all requests before it are in the log: that is how a count is closed, not by waiting.

use std::{
    fs::{self, File},
    io::{Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::Instant,
};

use crate::{
    error::{Error, Result},
    limits, process,
};

/// The request that closes a count.
const MARK: &str = "/-mark";

/// A running server; it ends when dropped.
#[derive(Debug)]
pub struct Web {
    child: Child,
    prefix: Vec<String>,
    log: PathBuf,
    counted: u64,
}

/// What went over the wire, heads of requests and answers included.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Wire {
    /// Bytes sent by the server.
    pub sent: u64,
    /// Bytes of the requests.
    pub asked: u64,
    /// How many requests.
    pub requests: u64,
}

impl Wire {
    /// Both directions.
    #[must_use]
    pub fn bytes(self) -> u64 {
        self.sent.saturating_add(self.asked)
    }
}

impl Web {
    /// Serves `shelf`, with notes in `folder`; `prefix` leads into the network where it serves.
    pub fn start(shelf: &Path, folder: &Path, prefix: &[String]) -> Result<Self> {
        fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
        let file = folder.join("nginx.conf");
        fs::write(&file, configuration(shelf, folder)).map_err(Error::io("write", &file))?;
        let log = folder.join("access.log");
        File::create(&log).map_err(Error::io("create", &log))?;
        let errors = folder.join("error.log");
        let errors_file = File::create(&errors).map_err(Error::io("create", &errors))?;
        let mut words = prefix.iter().map(String::as_str).chain(["nginx"]);
        let child = process::tied(words.next().unwrap_or("nginx"))
            .args(words)
            .arg("-p")
            .arg(folder)
            .arg("-c")
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(errors_file)
            .spawn()
            .map_err(|source| Error::Start { program: "nginx".to_owned(), source })?;
        let mut web = Web { child, prefix: prefix.to_vec(), log, counted: 0 };
        let deadline = Instant::now() + limits::BENCH_SERVICE_START;
        while !web.mark()? {
            let has_ended = web.child.try_wait().map_err(Error::io("wait for", &file))?.is_some();
            if has_ended || Instant::now() > deadline {
                let said = fs::read_to_string(&errors).unwrap_or_default();
                return Err(Error::Program {
                    program: "nginx".to_owned(),
                    status: "no answer".to_owned(),
                    last_words: process::last_words(&said),
                });
            }
            thread::sleep(limits::BENCH_LOOK_AGAIN);
        }
        Ok(web)
    }

    /// Where it serves, as everybody in its network sees it.
    #[must_use]
    pub fn url() -> String {
        format!("http://127.0.0.1:{}", limits::BENCH_PORT)
    }

    /// Forgets what was counted so far.
    pub fn begin(&mut self) -> Result<()> {
        self.count().map(drop)
    }

    /// What was asked and sent since the last count.
    pub fn count(&mut self) -> Result<Wire> {
        self.mark()?;
        let read = || -> std::io::Result<(String, u64)> {
            let mut log = File::open(&self.log)?;
            log.seek(SeekFrom::Start(self.counted))?;
            let mut text = String::new();
            log.read_to_string(&mut text)?;
            Ok((text, log.stream_position()?))
        };
        let (text, end) = read().map_err(Error::io("read", &self.log))?;
        self.counted = end;
        Ok(total(&text))
    }

    /// Whether it answers.
    fn mark(&self) -> Result<bool> {
        let mut words = self.prefix.iter().map(String::as_str).chain(["curl"]);
        let mut command = Command::new(words.next().unwrap_or("curl"));
        command.args(words).args(["--silent", "--output", "/dev/null", &format!("{}{MARK}", Web::url())]);
        let status =
            command.status().map_err(|source| Error::Start { program: "curl".to_owned(), source })?;
        Ok(status.success())
    }
}

impl Drop for Web {
    fn drop(&mut self) {
        self.child.kill().and_then(|()| self.child.wait()).ok();
    }
}

/// One process, so that the order of the log is the order of what happened; several ranges in a request are allowed.
fn configuration(shelf: &Path, folder: &Path) -> String {
    let (shelf, folder) = (shelf.display(), folder.display());
    let port = limits::BENCH_PORT;
    format!(
        "daemon off; master_process off; user root; pid \"{folder}/pid\"; error_log \"{folder}/error.log\" warn;\n\
         events {{ worker_connections 512; }}\n\
         http {{\n\
           log_format bytes '$bytes_sent $request_length $uri';\n\
           access_log \"{folder}/access.log\" bytes;\n\
           sendfile on; tcp_nopush on; keepalive_requests 100000000;\n\
           types {{ }} default_type application/octet-stream;\n\
           client_body_temp_path \"{folder}/client\"; proxy_temp_path \"{folder}/proxy\";\n\
           fastcgi_temp_path \"{folder}/fastcgi\"; uwsgi_temp_path \"{folder}/uwsgi\"; scgi_temp_path \"{folder}/scgi\";\n\
           server {{ listen 127.0.0.1:{port}; root \"{shelf}\"; }}\n\
         }}\n"
    )
}

fn total(log: &str) -> Wire {
    let mut wire = Wire::default();
    for line in log.lines() {
        let mut words = line.split_whitespace();
        let (Some(sent), Some(asked), Some(path)) = (words.next(), words.next(), words.next()) else {
            continue;
        };
        if path == MARK {
            continue;
        }
        wire.sent = wire.sent.saturating_add(sent.parse().unwrap_or(0));
        wire.asked = wire.asked.saturating_add(asked.parse().unwrap_or(0));
        wire.requests = wire.requests.saturating_add(1);
    }
    wire
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_is_added_up_without_our_own_marks() {
        let log = "1000 90 /v2/roro/new.roro\n340 80 /-mark\n500 110 /v2/roro/new.roro\n340 80 /-mark\n";
        let wire = total(log);
        assert_eq!(wire, Wire { sent: 1500, asked: 200, requests: 2 });
        assert_eq!(wire.bytes(), 1700);
    }
}
