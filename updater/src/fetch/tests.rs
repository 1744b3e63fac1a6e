//! Servers that lie, drip, break and change their file. Fault model: [`Script`] answers each request by its next line.

use std::{cell::RefCell, io, io::Read, rc::Rc};

use super::*;
use crate::{error::Kind, ports::Silent};

#[derive(Clone)]
enum Line {
    /// Honest, with this ETag.
    Honest(&'static str),
    /// Honest, but the connection breaks after so many bytes.
    Breaks(usize),
    /// Honest, but the body ends after so many bytes.
    EndsAfter(usize),
    /// One byte in ten seconds.
    Drips,
    /// This status, with this `Retry-After`.
    Status(u16, &'static str),
    /// 206 with this `Content-Range`.
    Range(&'static str),
    /// 206, compressed.
    Gzip,
    /// 200 and the whole file.
    Whole,
    /// Connection refused.
    Down,
}

struct Script {
    file: Vec<u8>,
    lines: RefCell<Vec<Line>>,
    asked: RefCell<Vec<(u64, u64)>>,
    clock: Rc<FakeClock>,
}

#[derive(Default)]
struct FakeClock {
    now: Cell<Duration>,
    slept: RefCell<Vec<Duration>>,
}

impl Clock for FakeClock {
    fn unix_seconds(&self) -> i64 {
        0
    }
    fn monotonic(&self) -> Duration {
        self.now.get()
    }
    fn sleep(&self, pause: Duration) {
        self.slept.borrow_mut().push(pause);
        self.now.set(self.now.get() + pause);
    }
}

struct Body {
    bytes: io::Cursor<Vec<u8>>,
    breaks: bool,
    drips: Option<Rc<FakeClock>>,
}

impl Read for Body {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let room = match &self.drips {
            Some(clock) => {
                clock.now.set(clock.now.get() + Duration::from_secs(10));
                &mut buffer[..1]
            }
            None => buffer,
        };
        match self.bytes.read(room)? {
            0 if self.breaks => Err(io::ErrorKind::ConnectionReset.into()),
            read => Ok(read),
        }
    }
}

impl Transport for Script {
    fn get(&self, request: &Request<'_>) -> Result<Response, TransportError> {
        self.asked.borrow_mut().push((request.first, request.last));
        let mut lines = self.lines.borrow_mut();
        let line = if lines.len() > 1 { lines.remove(0) } else { lines[0].clone() };
        let last = (request.last as usize).min(self.file.len() - 1);
        let part = self.file[(request.first as usize).min(last)..=last].to_vec();
        let honest = format!("bytes {}-{last}/{}", request.first, self.file.len());
        let answer = |status, headers: &[(&str, &str)], bytes: Vec<u8>| Response {
            status,
            headers: headers.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect(),
            body: Box::new(Body { bytes: io::Cursor::new(bytes), breaks: false, drips: None }),
        };
        Ok(match line {
            Line::Honest(tag) => answer(206, &[("content-range", &honest), ("etag", tag)], part),
            Line::EndsAfter(bytes) => {
                answer(206, &[("content-range", &honest)], part[..bytes.min(part.len())].to_vec())
            }
            Line::Breaks(bytes) => {
                let bytes = io::Cursor::new(part[..bytes.min(part.len())].to_vec());
                let body = Box::new(Body { bytes, breaks: true, drips: None });
                Response { body, ..answer(206, &[("content-range", &honest)], vec![]) }
            }
            Line::Drips => {
                let drips = Some(Rc::clone(&self.clock));
                let body = Box::new(Body { bytes: io::Cursor::new(part), breaks: false, drips });
                Response { body, ..answer(206, &[("content-range", &honest)], vec![]) }
            }
            Line::Status(status, after) => answer(status, &[("retry-after", after)], vec![]),
            Line::Range(range) => answer(206, &[("content-range", range)], part),
            Line::Gzip => answer(206, &[("content-range", &honest), ("content-encoding", "gzip")], part),
            Line::Whole => answer(200, &[], self.file.clone()),
            Line::Down => {
                return Err(TransportError::Network { source: "connection refused".into() });
            }
        })
    }
}

struct Fetched {
    bytes: Result<Vec<u8>>,
    asked: Vec<(u64, u64)>,
    slept: Vec<Duration>,
}

/// Reads 300 000 bytes from the middle of a file of 500 000, from a server that follows the script.
fn fetch(lines: &[Line]) -> Fetched {
    let clock = Rc::new(FakeClock::default());
    let file: Vec<u8> = (0..500_000u32).map(|n| (n / 7) as u8).collect();
    let script = Script {
        file: file.clone(),
        lines: RefCell::new(lines.to_vec()),
        asked: RefCell::default(),
        clock: Rc::clone(&clock),
    };
    let network = Network { retries: 3, ..Network::default() };
    let read = || -> Result<Vec<u8>> {
        match open(&script, clock.as_ref(), &network, "http://x/", &mut Silent)? {
            Served::Ranges(mut remote) => {
                let mut bytes = Vec::new();
                remote.read(100_000, 300_000, &mut Silent, &mut |part, _| {
                    bytes.extend_from_slice(part);
                    Ok(())
                })?;
                assert_eq!(bytes, file[100_000..400_000], "each byte once and in order");
                Ok(bytes)
            }
            Served::Stream(mut stream) => {
                let mut bytes = Vec::new();
                let mut buffer = [0; 1000];
                loop {
                    match stream.next(&mut buffer)? {
                        0 => return Ok(bytes),
                        read => bytes.extend_from_slice(&buffer[..read]),
                    }
                }
            }
        }
    };
    let bytes = read();
    Fetched { bytes, asked: script.asked.take(), slept: clock.slept.take() }
}

const FINE: Line = Line::Honest("\"1\"");

#[test]
fn a_broken_connection_is_taken_up_at_the_missing_byte() {
    for broken in [Line::Breaks(1000), Line::EndsAfter(1000)] {
        let fetched = fetch(&[FINE, broken, FINE]);
        assert!(fetched.bytes.is_ok());
        assert_eq!(fetched.asked, [(0, PROBE_BYTES - 1), (100_000, 399_999), (101_000, 399_999)]);
        assert_eq!(fetched.slept.len(), 1);
    }
}

#[test]
fn a_server_that_is_down_for_a_moment_is_asked_again() {
    let fetched = fetch(&[Line::Down, Line::Status(503, "7"), FINE, Line::Status(500, ""), FINE]);
    assert!(fetched.bytes.is_ok());
    assert_eq!(fetched.slept[1], Duration::from_secs(7), "as the server asked");
}

#[test]
fn a_server_that_stays_bad_ends_in_the_right_word() {
    for (lines, kind, word) in [
        (vec![Line::Down], Kind::TryLater, "connection"),
        (vec![Line::Status(503, "")], Kind::TryLater, "status 503"),
        (vec![Line::Status(503, "86400")], Kind::TryLater, "status 503"),
        (vec![Line::Status(404, "")], Kind::Device, "status 404"),
        (vec![FINE, Line::Status(403, "")], Kind::Device, "status 403"),
        (vec![Line::Status(416, "")], Kind::Rejected, "empty"),
        (vec![FINE, Line::EndsAfter(0)], Kind::TryLater, "ended after 0 bytes"),
        (vec![FINE, Line::Drips], Kind::TryLater, "too slow"),
        (vec![Line::Range("bytes 5-9/500000")], Kind::Device, "answer is wrong"),
        (vec![Line::Range("bytes 0-99999999/100000000")], Kind::Device, "answer is wrong"),
        (vec![FINE, Line::Range("bytes 0-9/500000")], Kind::Device, "answer is wrong"),
        (vec![FINE, Line::Range("nonsense")], Kind::Device, "answer is wrong"),
        (vec![Line::Gzip], Kind::Device, "gzip"),
        (vec![FINE, Line::Gzip], Kind::Device, "gzip"),
    ] {
        let error = fetch(&lines).bytes.unwrap_err();
        assert_eq!(error.kind(), kind, "{}", error.line());
        assert!(error.line().contains(word), "{}", error.line());
        assert!(error.hint().is_some());
    }
}

#[test]
fn a_file_that_changes_half_way_asks_for_a_restart() {
    for lines in [
        vec![FINE, Line::Honest("\"2\"")],
        vec![FINE, Line::Range("bytes 100000-399999/500001")],
        vec![FINE, Line::Whole],
        vec![FINE, Line::Status(416, "")],
    ] {
        match fetch(&lines).bytes.unwrap_err() {
            Error::Fetch { source, .. } => assert!(source.wants_restart(), "{source}"),
            other => panic!("{other}"),
        }
    }
}

#[test]
fn a_server_without_ranges_streams() {
    assert_eq!(fetch(&[Line::Whole]).bytes.unwrap().len(), 500_000);
}

#[test]
fn one_byte_for_each_connection_ends_somewhere() {
    let fetched = fetch(&[FINE, Line::EndsAfter(1)]);
    assert!(fetched.bytes.is_err());
    assert!(fetched.asked.len() < 10, "{}", fetched.asked.len());
}

#[test]
fn pauses_grow_and_end() {
    let clock = FakeClock::default();
    let pauses: Vec<Duration> = (1..40).map(|failures| backoff(failures, &clock)).collect();
    assert!(pauses.is_sorted());
    assert!(pauses.iter().all(|pause| *pause <= MAX_PAUSE));
}

/// Sends ahead, and keeps the answer until it is asked for.
struct Eager(Script);

impl Transport for Eager {
    fn get(&self, request: &Request<'_>) -> Result<Response, TransportError> {
        self.0.get(request)
    }
    fn start(&self, request: &Request<'_>) -> Option<Started> {
        let answer = self.0.get(request);
        Some(Box::new(move || answer))
    }
}

/// Reads ten ranges that were announced. Gives what was asked, in its order.
fn fetch_ahead(lines: &[Line]) -> (Result<()>, Vec<(u64, u64)>) {
    let clock = Rc::new(FakeClock::default());
    let file: Vec<u8> = (0..500_000u32).map(|n| (n / 7) as u8).collect();
    let (lines, asked) = (RefCell::new(lines.to_vec()), RefCell::default());
    let script = Eager(Script { file: file.clone(), lines, asked, clock: Rc::clone(&clock) });
    let network = Network { retries: 3, ..Network::default() };
    let read = || -> Result<()> {
        let Served::Ranges(mut remote) = open(&script, clock.as_ref(), &network, "http://x/", &mut Silent)?
        else {
            panic!("a stream")
        };
        let ranges: Vec<(u64, u64)> = (1..11).map(|n| (n * 40_000, 3000 + n)).collect();
        remote.expect(&ranges);
        for (offset, bytes) in ranges {
            let mut found = Vec::new();
            remote.read(offset, bytes, &mut Silent, &mut |part, _| {
                found.extend_from_slice(part);
                Ok(())
            })?;
            assert_eq!(found, file[offset as usize..(offset + bytes) as usize]);
        }
        Ok(())
    };
    let result = read();
    (result, script.0.asked.take())
}

#[test]
fn ranges_that_are_announced_are_asked_for_ahead_and_each_once() {
    let (result, asked) = fetch_ahead(&[FINE]);
    result.unwrap();
    let mut expected = vec![(0, PROBE_BYTES - 1)];
    expected.extend((1..11).map(|n| (n * 40_000, n * 40_000 + 3000 + n - 1)));
    assert_eq!(asked, expected);
}

#[test]
fn answers_that_were_asked_for_ahead_are_believed_no_more_than_others() {
    for broken in [
        Line::Breaks(1000),
        Line::EndsAfter(10),
        Line::Status(503, ""),
        Line::Range("bytes 0-2999/500000"),
        Line::Down,
    ] {
        for place in 1..6 {
            let mut lines = vec![FINE; 12];
            lines[place] = broken.clone();
            let (result, asked) = fetch_ahead(&lines);
            result.unwrap();
            assert!(asked.len() < 11 + 6, "at most what was on its way is asked for again: {asked:?}");
        }
    }
    let mut lines = vec![FINE; 12];
    lines[4] = Line::Honest("\"2\"");
    assert!(fetch_ahead(&lines).0.is_err(), "another file");
}
