//! An HTTP/1.1 server on loopback that lies in one chosen way.
//!
//! Faults that it can play, one at a time: see [`Behaviour`]. Each stands for something that a broken cache, a captive portal,
//! a dying mobile link or an attacker does. It serves one file at every path, one thread per connection, one request per
//! connection, and notes every request.

use std::{
    io::{BufRead, BufReader, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
};

/// In which way the server lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Behaviour {
    /// Ranges, ETag, all as it should be.
    Honest,
    /// Answers 200 with the whole file, whatever was asked.
    NoRanges,
    /// As [`Behaviour::NoRanges`], in chunked transfer encoding, so without a length.
    Chunked,
    /// Sends the right number of bytes, from another place than asked, and says so.
    WrongContentRange,
    /// Says the right place, sends bytes from another.
    LyingContentRange,
    /// Says that the file is longer than it is.
    LyingTotal,
    /// Closes each connection after so many bytes of body.
    DropsAfter(usize),
    /// Closes each connection before the first byte of body.
    AlwaysDrops,
    /// From this request on, another file with another ETag.
    ChangesAt(usize, Vec<u8>),
    /// From this request on, other bytes of the same length under the same ETag.
    ChangesSilentlyAt(usize, Vec<u8>),
    /// Claims that the body is compressed.
    ClaimsGzip,
    /// Sends garbage behind the promised length.
    Overlong,
    /// Answers so many requests with 503 and `Retry-After: 1`, then is honest.
    BusyFor(usize),
    /// Answers everything with 503 and a `Retry-After` of a year.
    BusyForever,
    /// Redirects to itself without end.
    RedirectLoop,
    /// Redirects once, then is honest.
    RedirectOnce,
    /// Redirects to a file URL.
    RedirectToFile,
    /// 404.
    Missing,
    /// The first request gets its range, later ones the whole file.
    RangesOnlyOnce,
    /// Sends one byte, and then holds the line open without sending more.
    Stalls,
}

/// A request as it came in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Path.
    pub path: String,
    /// The `Range` header.
    pub range: Option<String>,
}

#[derive(Debug)]
struct Shared {
    file: Vec<u8>,
    behaviour: Behaviour,
    requests: Mutex<Vec<Request>>,
    closing: AtomicBool,
    held: Mutex<Vec<TcpStream>>,
}

/// The server; it ends when it is dropped.
#[derive(Debug)]
pub struct HostileServer {
    address: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl HostileServer {
    /// Serves `file` on a free port of 127.0.0.1.
    ///
    /// # Panics
    /// When loopback cannot be listened on: there is no test without it.
    #[must_use]
    pub fn start(file: Vec<u8>, behaviour: Behaviour) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap_or_else(|error| fail("listen", &error));
        let address = listener.local_addr().unwrap_or_else(|error| fail("address", &error));
        let shared = Arc::new(Shared {
            file,
            behaviour,
            requests: Mutex::default(),
            closing: AtomicBool::new(false),
            held: Mutex::default(),
        });
        let for_thread = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if for_thread.closing.load(Ordering::SeqCst) {
                    break;
                }
                let shared = Arc::clone(&for_thread);
                std::thread::spawn(move || {
                    // A client that goes away early is what many of these tests are about.
                    let _ = serve(stream, &shared);
                });
            }
        });
        Self { address, shared, thread: Some(thread) }
    }

    /// The URL of the file.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}/x.roro", self.address)
    }

    /// All requests so far.
    #[must_use]
    pub fn requests(&self) -> Vec<Request> {
        lock(&self.shared.requests).clone()
    }
}

impl Drop for HostileServer {
    fn drop(&mut self) {
        self.shared.closing.store(true, Ordering::SeqCst);
        for stream in lock(&self.shared.held).drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
        drop(TcpStream::connect(self.address));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[expect(clippy::panic, reason = "the judge has no way to go on without its server")]
fn fail(deed: &str, error: &dyn std::error::Error) -> ! {
    panic!("the hostile server cannot {deed}: {error}")
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn serve(stream: TcpStream, shared: &Shared) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let first = lines.next().transpose()?.unwrap_or_default();
    let path = first.split(' ').nth(1).unwrap_or("/").to_owned();
    let mut range = None;
    for line in lines {
        let line = line?;
        if line.is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("range")
        {
            range = Some(value.trim().to_owned());
        }
    }
    let number = {
        let mut requests = lock(&shared.requests);
        requests.push(Request { path: path.clone(), range: range.clone() });
        requests.len() - 1
    };
    answer(stream, shared, number, &path, range.as_deref())
}

fn answer(
    mut stream: TcpStream,
    shared: &Shared,
    number: usize,
    path: &str,
    range: Option<&str>,
) -> std::io::Result<()> {
    use Behaviour as B;
    let (file, etag) = match &shared.behaviour {
        B::ChangesAt(at, other) if number >= *at => (other, "\"two\""),
        B::ChangesSilentlyAt(at, other) if number >= *at => (other, "\"one\""),
        _ => (&shared.file, "\"one\""),
    };
    match &shared.behaviour {
        B::Missing => return stream.write_all(&head("404 Not Found", 0, &[])),
        B::BusyForever => {
            return stream.write_all(&head("503 Service Unavailable", 0, &["Retry-After: 31536000"]));
        }
        B::BusyFor(times) if number < *times => {
            return stream.write_all(&head("503 Service Unavailable", 0, &["Retry-After: 1"]));
        }
        B::RedirectLoop => return stream.write_all(&head("302 Found", 0, &[&format!("Location: {path}x")])),
        B::RedirectOnce if number == 0 => {
            return stream.write_all(&head("302 Found", 0, &["Location: /other"]));
        }
        B::RedirectToFile => {
            return stream.write_all(&head("302 Found", 0, &["Location: file:///etc/passwd"]));
        }
        _ => (),
    }
    let whole = match &shared.behaviour {
        B::NoRanges | B::Chunked => true,
        B::RangesOnlyOnce => number > 0,
        _ => false,
    };
    let asked = range.filter(|_| !whole).and_then(|range| parse_range(range, file.len()));
    let etag = format!("ETag: {etag}");
    let Some((start, end)) = asked else {
        if shared.behaviour == B::Chunked {
            stream
                .write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n")?;
            for part in file.chunks(1000) {
                stream.write_all(format!("{:x}\r\n", part.len()).as_bytes())?;
                stream.write_all(part)?;
                stream.write_all(b"\r\n")?;
            }
            return stream.write_all(b"0\r\n\r\n");
        }
        stream.write_all(&head("200 OK", file.len(), &[&etag]))?;
        return send(stream, shared, file);
    };
    let shift = |by: usize| (start + by).min(file.len().saturating_sub(end - start));
    let (said, sent) = match &shared.behaviour {
        B::WrongContentRange => (shift(7), shift(7)),
        B::LyingContentRange => (start, shift(7)),
        _ => (start, start),
    };
    let total = if shared.behaviour == B::LyingTotal { file.len() + 1000 } else { file.len() };
    let place = format!("Content-Range: bytes {said}-{}/{total}", said + (end - start) - 1);
    let mut headers = vec![etag.as_str(), place.as_str()];
    if shared.behaviour == B::ClaimsGzip {
        headers.push("Content-Encoding: gzip");
    }
    stream.write_all(&head("206 Partial Content", end - start, &headers))?;
    send(stream, shared, file.get(sent..sent + (end - start)).unwrap_or_default())
}

fn send(mut stream: TcpStream, shared: &Shared, body: &[u8]) -> std::io::Result<()> {
    match &shared.behaviour {
        Behaviour::DropsAfter(bytes) => stream.write_all(body.get(..*bytes).unwrap_or(body)),
        Behaviour::AlwaysDrops => Ok(()),
        Behaviour::Overlong => {
            stream.write_all(body)?;
            stream.write_all(&[0xaa; 5000])
        }
        Behaviour::Stalls => {
            stream.write_all(body.get(..1).unwrap_or_default())?;
            lock(&shared.held).push(stream);
            Ok(())
        }
        _ => stream.write_all(body),
    }
}

fn head(status: &str, length: usize, headers: &[&str]) -> Vec<u8> {
    let mut text = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n");
    for header in headers {
        text.push_str(header);
        text.push_str("\r\n");
    }
    text.push_str("\r\n");
    text.into_bytes()
}

/// First byte and the one behind the last, within the file.
fn parse_range(range: &str, length: usize) -> Option<(usize, usize)> {
    let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
    let first: usize = first.parse().ok()?;
    let end = last.parse::<usize>().map_or(length, |last| last.saturating_add(1)).min(length);
    (first < end).then_some((first, end))
}
