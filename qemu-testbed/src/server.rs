//! A plain static web server on the loopback: the "no server ever computes anything" of the architecture.
//!
//! Serves one folder, GET and HEAD, with single ranges (RFC 9110, 14). Counts what it did, can be slowed down and can
//! say when so many bytes are out, so that a power cut hits in the middle of a write without guessing at times.
//! Deliberately absent: writing, listing, several ranges in one request, TLS.

use std::{
    fs::File,
    io::{BufRead, BufReader, Read, Seek, SeekFrom, Take, Write},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    path::{Component, Path, PathBuf},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use crate::{
    error::{Error, Result},
    limits,
};

/// How fast the server is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// As fast as it can.
    Full,
    /// So many bytes in a second, over all connections together.
    BytesPerSecond(u64),
}

/// What the server did so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Served {
    /// Requests answered, errors included.
    pub requests: u64,
    /// Bytes of bodies sent.
    pub body_bytes: u64,
}

/// A running server; it ends when dropped.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    folder: PathBuf,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    served: Served,
    pace: Pace,
    /// When the next piece may go out.
    next_piece: Instant,
    open: bool,
}

impl Server {
    /// Serves the files of `folder` on a free port of 127.0.0.1.
    pub fn start(folder: &Path) -> Result<Self> {
        Self::start_at(folder, 0)
    }

    /// The same on this port of 127.0.0.1; 0 is any.
    pub fn start_at(folder: &Path, port: u16) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))
            .map_err(Error::io("open a port to serve", folder))?;
        let address = listener.local_addr().map_err(Error::io("open a port to serve", folder))?;
        let state =
            State { served: Served::default(), pace: Pace::Full, next_piece: Instant::now(), open: true };
        let shared =
            Arc::new(Shared { folder: folder.to_owned(), state: Mutex::new(state), changed: Condvar::new() });
        let ours = Arc::clone(&shared);
        thread::Builder::new()
            .name("server".to_owned())
            .spawn(move || {
                for stream in listener.incoming().flatten() {
                    if !ours.lock().open {
                        return;
                    }
                    let ours = Arc::clone(&ours);
                    // A client that goes away in the middle is daily bread here, not an error to report.
                    thread::spawn(move || ours.converse(&stream).ok());
                }
            })
            .map_err(Error::io("start a thread to serve", folder))?;
        Ok(Server { address, shared })
    }

    /// The port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// The address of a file as a guest on QEMU's user network sees it: 10.0.2.2 is the host's loopback.
    #[must_use]
    pub fn url_from_guest(&self, file: &str) -> String {
        format!("http://10.0.2.2:{}/{file}", self.port())
    }

    /// Changes the pace of everything from now on.
    pub fn set_pace(&self, pace: Pace) {
        self.shared.lock().pace = pace;
        self.shared.changed.notify_all();
    }

    /// What it did so far.
    #[must_use]
    pub fn served(&self) -> Served {
        self.shared.lock().served
    }

    /// Waits until `body_bytes` were sent in all. Gives what was sent when that came true or the deadline passed.
    #[must_use]
    pub fn wait_for_bytes(&self, body_bytes: u64, deadline: Instant) -> Served {
        let mut state = self.shared.lock();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if state.served.body_bytes >= body_bytes || left == Duration::ZERO {
                return state.served;
            }
            state = self.shared.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.lock().open = false;
        self.shared.changed.notify_all();
        // Wakes the listener, which then sees that it is over.
        TcpStream::connect(self.address).ok();
    }
}

/// The head of a request, as far as we care.
struct Request {
    method: String,
    target: String,
    range: Option<String>,
    keep_alive: bool,
}

/// The part of a file that is asked for.
#[derive(Debug, PartialEq, Eq)]
enum Part {
    Whole,
    Range { first: u64, last: u64 },
    OutOfRange,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn converse(&self, stream: &TcpStream) -> std::io::Result<()> {
        let mut reader = BufReader::new(stream);
        while let Some(request) = read_request(&mut (&mut reader).take(limits::REQUEST_HEAD_BYTES as u64))? {
            self.lock().served.requests += 1;
            self.answer(&request, stream)?;
            if !request.keep_alive {
                break;
            }
        }
        stream.shutdown(Shutdown::Both)
    }

    fn answer(&self, request: &Request, mut stream: &TcpStream) -> std::io::Result<()> {
        let wants_body = match request.method.as_str() {
            "GET" => true,
            "HEAD" => false,
            _ => return stream.write_all(b"HTTP/1.1 405 Method Not Allowed\r\nContent-Length: 0\r\n\r\n"),
        };
        let Some(mut file) = self.open(&request.target) else {
            return stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
        };
        let length = file.metadata()?.len();
        let (status, first, count) = match part(request.range.as_deref(), length) {
            Part::Whole => ("200 OK".to_owned(), 0, length),
            Part::Range { first, last } => (
                format!("206 Partial Content\r\nContent-Range: bytes {first}-{last}/{length}"),
                first,
                last.saturating_sub(first).saturating_add(1),
            ),
            Part::OutOfRange => {
                let head = format!(
                    "HTTP/1.1 416 Range Not Satisfiable\r\nContent-Range: bytes */{length}\r\nContent-Length: 0\r\n\r\n"
                );
                return stream.write_all(head.as_bytes());
            }
        };
        let head = format!(
            "HTTP/1.1 {status}\r\nAccept-Ranges: bytes\r\nContent-Type: application/octet-stream\r\nContent-Length: {count}\r\n\r\n"
        );
        stream.write_all(head.as_bytes())?;
        if !wants_body {
            return Ok(());
        }
        file.seek(SeekFrom::Start(first))?;
        self.send(&mut file.take(count), stream)
    }

    fn send(&self, body: &mut Take<File>, mut stream: &TcpStream) -> std::io::Result<()> {
        let mut piece = vec![0_u8; limits::SERVER_PIECE_BYTES];
        loop {
            let count = body.read(&mut piece)?;
            let Some(bytes) = piece.get(..count).filter(|bytes| !bytes.is_empty()) else { return Ok(()) };
            self.await_turn(count as u64)?;
            stream.write_all(bytes)?;
            self.lock().served.body_bytes += count as u64;
            self.changed.notify_all();
        }
    }

    /// Waits until the pace allows the next piece.
    fn await_turn(&self, count: u64) -> std::io::Result<()> {
        let mut state = self.lock();
        let mut turn: Option<Instant> = None;
        loop {
            if !state.open {
                return Err(std::io::ErrorKind::ConnectionAborted.into());
            }
            let Pace::BytesPerSecond(rate) = state.pace else { return Ok(()) };
            let now = Instant::now();
            let mine = *turn.get_or_insert_with(|| {
                let mine = state.next_piece.max(now);
                state.next_piece = mine + Duration::from_secs_f64(count as f64 / rate.max(1) as f64);
                mine
            });
            let left = mine.saturating_duration_since(now);
            if left == Duration::ZERO {
                return Ok(());
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Opens the regular file that a target names; anything that is not plain names below the folder is not found.
    fn open(&self, target: &str) -> Option<File> {
        let path = Path::new(target.split(['?', '#']).next()?.trim_start_matches('/'));
        if !path.components().all(|component| matches!(component, Component::Normal(_))) {
            return None;
        }
        let file = File::open(self.folder.join(path)).ok()?;
        file.metadata().is_ok_and(|meta| meta.is_file()).then_some(file)
    }
}

fn read_request(reader: &mut impl BufRead) -> std::io::Result<Option<Request>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace();
    let (Some(method), Some(target)) = (words.next(), words.next()) else { return Ok(None) };
    let keep_alive = words.next() == Some("HTTP/1.1");
    let mut request =
        Request { method: method.to_owned(), target: target.to_owned(), range: None, keep_alive };
    loop {
        let mut header = String::new();
        if reader.read_line(&mut header)? == 0 {
            return Ok(None);
        }
        let header = header.trim_end();
        if header.is_empty() {
            return Ok(Some(request));
        }
        let Some((name, value)) = header.split_once(':') else { continue };
        match name.to_ascii_lowercase().as_str() {
            "range" => request.range = Some(value.trim().to_owned()),
            "connection" if value.trim().eq_ignore_ascii_case("close") => request.keep_alive = false,
            _ => {}
        }
    }
}

/// RFC 9110, 14.1.2: one range of bytes; what we do not understand is ignored, as 14.2 allows.
fn part(range: Option<&str>, length: u64) -> Part {
    let Some((from, to)) =
        range.and_then(|range| range.strip_prefix("bytes=")).and_then(|range| range.split_once('-'))
    else {
        return Part::Whole;
    };
    let end = length.saturating_sub(1);
    match (from.parse::<u64>(), to.parse::<u64>()) {
        (Ok(first), _) if first >= length => Part::OutOfRange,
        (Ok(first), Ok(last)) if first <= last => Part::Range { first, last: last.min(end) },
        (Ok(first), Err(_)) if to.is_empty() => Part::Range { first, last: end },
        (Err(_), Ok(count)) if from.is_empty() => match count {
            0 => Part::OutOfRange,
            count => Part::Range { first: length.saturating_sub(count), last: end },
        },
        _ => Part::Whole,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(server: &Server, request: &str) -> String {
        let mut stream = TcpStream::connect(server.address).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    fn get(server: &Server, target: &str, header: &str) -> String {
        ask(server, &format!("GET {target} HTTP/1.1\r\nHost: x\r\n{header}Connection: close\r\n\r\n"))
    }

    fn served() -> (tempfile::TempDir, Server) {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("x.roro"), "0123456789").unwrap();
        let server = Server::start(folder.path()).unwrap();
        (folder, server)
    }

    #[test]
    fn files_and_ranges_are_served_and_counted() {
        let (_folder, server) = served();
        let whole = get(&server, "/x.roro", "");
        assert!(whole.starts_with("HTTP/1.1 200 OK\r\n") && whole.ends_with("\r\n\r\n0123456789"), "{whole}");
        let some = get(&server, "/x.roro", "Range: bytes=2-4\r\n");
        assert!(some.contains("Content-Range: bytes 2-4/10\r\n") && some.ends_with("\r\n\r\n234"), "{some}");
        assert!(get(&server, "/x.roro", "Range: bytes=10-\r\n").starts_with("HTTP/1.1 416 "));
        assert_eq!(server.served(), Served { requests: 3, body_bytes: 13 });
    }

    #[test]
    fn one_connection_serves_many_requests() {
        let (_folder, server) = served();
        let head = "HEAD /x.roro HTTP/1.1\r\n\r\n";
        let answer = ask(&server, &format!("{head}{head}GET /x.roro HTTP/1.0\r\n\r\n"));
        assert_eq!(answer.matches("200 OK").count(), 3, "{answer}");
        assert_eq!(answer.matches("0123456789").count(), 1, "{answer}");
    }

    #[test]
    fn nothing_outside_the_folder_is_found() {
        let (_folder, server) = served();
        for target in ["/../x.roro", "/", "//etc/passwd/", "/nothing", "/x.roro/.."] {
            assert!(get(&server, target, "").starts_with("HTTP/1.1 404 "), "{target}");
        }
    }

    #[test]
    fn ranges_follow_the_rfc() {
        for (range, wanted) in [
            ("bytes=0-0", Part::Range { first: 0, last: 0 }),
            ("bytes=5-99", Part::Range { first: 5, last: 9 }),
            ("bytes=-3", Part::Range { first: 7, last: 9 }),
            ("bytes=-99", Part::Range { first: 0, last: 9 }),
            ("bytes=-0", Part::OutOfRange),
            ("bytes=10-11", Part::OutOfRange),
            ("bytes=4-2", Part::Whole),
            ("bytes=0-1,3-4", Part::Whole),
            ("lines=0-1", Part::Whole),
        ] {
            assert_eq!(part(Some(range), 10), wanted, "{range}");
        }
    }

    #[test]
    fn a_slow_server_can_be_watched_and_released() {
        let (folder, server) = served();
        std::fs::write(folder.path().join("big"), vec![7_u8; 10 * limits::SERVER_PIECE_BYTES]).unwrap();
        server.set_pace(Pace::BytesPerSecond(1));
        let mut stream = TcpStream::connect(server.address).unwrap();
        stream.write_all(b"GET /big HTTP/1.0\r\n\r\n").unwrap();
        let piece = limits::SERVER_PIECE_BYTES as u64;
        let soon = || Instant::now() + Duration::from_secs(10);
        assert_eq!(server.wait_for_bytes(1, soon()).body_bytes, piece);
        server.set_pace(Pace::Full);
        assert_eq!(server.wait_for_bytes(10 * piece, soon()).body_bytes, 10 * piece);
    }
}
