//! Fetching a bundle from a server that may lie, drip, break or change its file: what is asked, what is believed, when to try again.
//!
//! The network itself is behind [`Transport`], time behind [`Clock`]. Nothing that comes from here is trusted: the
//! signatures and the chunk table decide. What is checked here makes a bad server cost little, and end in a clear word.

mod answer;
mod error;
#[cfg(test)]
mod tests;

use std::{cell::Cell, collections::VecDeque, time::Duration};

pub use answer::{ContentRange, Identity};
pub use error::FetchError;

use crate::{
    config::Network,
    error::{Error, Result},
    http::server_of,
    limits::{
        BUFFER_BYTES, FIRST_PAUSE, MAX_AHEAD_BYTES, MAX_PAUSE, MAX_REQUESTS_AHEAD, MAX_RETRY_AFTER,
        PROBE_BYTES, PROGRESS_BYTES, RATE_WINDOW,
    },
    ports::{Clock, Progress, Request, Response, Started, Transport, TransportError},
};
use answer::{check_encoding, retry_after};

/// Takes bytes as they come.
pub type Sink<'s> = dyn FnMut(&[u8], &mut dyn Progress) -> Result<()> + 's;

/// How the server serves.
pub enum Served<'a> {
    /// By ranges.
    Ranges(Remote<'a>),
    /// Only the whole file.
    Stream(Stream<'a>),
}

/// Why an attempt ended.
enum Attempt {
    /// The sink's error: no fault of the network.
    Sink(Error),
    /// Try again, perhaps after the pause the server asked for.
    Again(FetchError, Option<Duration>),
    /// Trying again is of no use.
    Fatal(FetchError),
}

impl Attempt {
    fn of_transport(error: TransportError) -> Self {
        match error {
            TransportError::Network { source } => Self::Again(FetchError::Network { source }, None),
            TransportError::Refused { detail } => Self::Fatal(FetchError::Refused { detail }),
        }
    }
}

/// A file on a server that knows ranges.
pub struct Remote<'a> {
    wire: Wire<'a>,
    identity: Identity,
    /// The first bytes, from the probe.
    prefix: Vec<u8>,
    /// Ranges (first byte, last byte) that are read next.
    expected: VecDeque<(u64, u64)>,
    /// Requests that were sent for the first of those.
    ahead: VecDeque<((u64, u64), Started)>,
}

struct Wire<'a> {
    transport: &'a dyn Transport,
    clock: &'a dyn Clock,
    network: &'a Network,
    url: String,
    received: Cell<u64>,
}

/// Asks for the first bytes, and finds out how the server serves.
pub fn open<'a>(
    transport: &'a dyn Transport,
    clock: &'a dyn Clock,
    network: &'a Network,
    url: &str,
    progress: &mut dyn Progress,
) -> Result<Served<'a>> {
    let wire = Wire { transport, clock, network, url: url.to_owned(), received: Cell::new(0) };
    let mut failures = 0;
    loop {
        match probe(&wire, progress) {
            Ok(Probe::Ranges(identity, prefix)) => {
                let (expected, ahead) = (VecDeque::new(), VecDeque::new());
                return Ok(Served::Ranges(Remote { wire, identity, prefix, expected, ahead }));
            }
            Ok(Probe::Stream(identity, response)) => {
                let meter = Meter::new(network);
                return Ok(Served::Stream(Stream { wire, identity, response, received: 0, meter }));
            }
            Err(attempt) => wire.pause_or_give_up(attempt, &mut failures, progress)?,
        }
    }
}

enum Probe {
    Ranges(Identity, Vec<u8>),
    Stream(Identity, Response),
}

fn probe(wire: &Wire<'_>, progress: &mut dyn Progress) -> Result<Probe, Attempt> {
    let mut response = wire.send(0, PROBE_BYTES - 1)?;
    check_encoding(&response).map_err(Attempt::Fatal)?;
    match response.status {
        206 => {
            let range = ContentRange::of(&response).map_err(Attempt::Fatal)?;
            range.check(0, PROBE_BYTES - 1).map_err(Attempt::Fatal)?;
            let mut prefix = Vec::new();
            wire.body(&mut response, range.bytes(), progress, &mut |bytes, _| {
                prefix.extend_from_slice(bytes);
                Ok(())
            })?;
            Ok(Probe::Ranges(Identity::of(&response, range.total), prefix))
        }
        200 => {
            let total = response.header("content-length").and_then(|value| value.parse().ok());
            Ok(Probe::Stream(Identity::of(&response, total), response))
        }
        416 => Err(Attempt::Fatal(FetchError::Empty)),
        status => Err(of_status(status, &response, wire.clock)),
    }
}

fn of_status(status: u16, response: &Response, clock: &dyn Clock) -> Attempt {
    let error = FetchError::Status { status };
    if error.is_passing() {
        Attempt::Again(error, retry_after(response, clock.unix_seconds()))
    } else {
        Attempt::Fatal(error)
    }
}

impl Remote<'_> {
    /// Bytes of the file, if the server says so.
    #[must_use]
    pub fn total_bytes(&self) -> Option<u64> {
        self.identity.total_bytes
    }

    /// Bytes that came over the network so far.
    #[must_use]
    pub fn fetched_bytes(&self) -> u64 {
        self.wire.received.get()
    }

    /// Says which ranges (offset, bytes) are read next, in that order: they are asked for while an earlier one is read.
    pub fn expect(&mut self, next: &[(u64, u64)]) {
        self.ahead.clear();
        self.expected = next
            .iter()
            .filter_map(|(offset, bytes)| Some((self.behind_prefix(*offset), offset.checked_add(*bytes)?)))
            .filter(|(first, end)| first < end && end - first <= MAX_AHEAD_BYTES)
            .map(|(first, end)| (first, end - 1))
            .collect();
    }

    /// What lies before it is known already.
    fn behind_prefix(&self, offset: u64) -> u64 {
        offset.max(self.prefix.len() as u64)
    }

    /// The answer to a request; one that was sent ahead, if there is one.
    fn answer(&mut self, first: u64, last: u64) -> Result<Response, Attempt> {
        if self.expected.front() == Some(&(first, last)) {
            self.expected.pop_front();
        }
        let is_next = self.ahead.front().is_some_and(|(range, _)| *range == (first, last));
        let sent = if is_next { self.ahead.pop_front() } else { None };
        let answer = match sent {
            Some((_, started)) => started().map_err(Attempt::of_transport),
            None => self.wire.send(first, last),
        };
        // Asked for while this one is read.
        while self.ahead.len() < MAX_REQUESTS_AHEAD {
            let Some((first, last)) = self.expected.get(self.ahead.len()).copied() else { break };
            let request = Request { url: &self.wire.url, first, last };
            let Some(started) = self.wire.transport.start(&request) else { break };
            self.ahead.push_back(((first, last), started));
        }
        answer
    }

    /// Hands `bytes` bytes from `offset` to the sink, in order and each once, however often the connection breaks.
    pub fn read(
        &mut self,
        offset: u64,
        bytes: u64,
        progress: &mut dyn Progress,
        sink: &mut Sink<'_>,
    ) -> Result<()> {
        let mut done = 0;
        if let Some(known) = self.prefix.get(usize::try_from(offset).unwrap_or(usize::MAX)..) {
            let known = known.get(..(known.len() as u64).min(bytes) as usize).unwrap_or_default();
            sink(known, progress)?;
            done = known.len() as u64;
        }
        let mut failures = 0;
        let mut at_last_failure = done;
        while done < bytes {
            let result = self.part(offset + done, bytes - done, progress, &mut |data, progress| {
                done += data.len() as u64;
                sink(data, progress)
            });
            if let Err(attempt) = result {
                if done - at_last_failure >= PROGRESS_BYTES {
                    failures = 0;
                }
                at_last_failure = done;
                // What was asked for ahead may have suffered the same, and each range is asked for in its turn again.
                self.ahead.clear();
                self.expected.clear();
                self.wire.pause_or_give_up(attempt, &mut failures, progress)?;
            }
        }
        Ok(())
    }

    /// One request. The server may answer with less than was asked for.
    fn part(
        &mut self,
        first: u64,
        bytes: u64,
        progress: &mut dyn Progress,
        sink: &mut Sink<'_>,
    ) -> Result<(), Attempt> {
        let last = first.saturating_add(bytes - 1);
        let mut response = self.answer(first, last)?;
        check_encoding(&response).map_err(Attempt::Fatal)?;
        match response.status {
            206 => {
                let range = ContentRange::of(&response).map_err(|error| Attempt::Again(error, None))?;
                range.check(first, last).map_err(|error| Attempt::Again(error, None))?;
                let now = Identity::of(&response, range.total);
                self.identity.same_as(&now).map_err(Attempt::Fatal)?;
                self.wire.body(&mut response, range.bytes(), progress, sink)
            }
            200 => {
                let total = response.header("content-length").and_then(|value| value.parse().ok());
                self.identity.same_as(&Identity::of(&response, total)).map_err(Attempt::Fatal)?;
                Err(Attempt::Fatal(FetchError::RangesLost))
            }
            416 => Err(Attempt::Fatal(FetchError::Changed { what: "length" })),
            status => Err(of_status(status, &response, self.wire.clock)),
        }
    }
}

/// A file on a server that only knows the whole of it.
pub struct Stream<'a> {
    wire: Wire<'a>,
    identity: Identity,
    response: Response,
    received: u64,
    meter: Meter,
}

impl Stream<'_> {
    /// Bytes of the file, if the server says so.
    #[must_use]
    pub fn total_bytes(&self) -> Option<u64> {
        self.identity.total_bytes
    }

    /// The next bytes; 0 at the end. A stream that breaks cannot be taken up: the install starts anew, from what is verified.
    pub fn next(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let received = self.received;
        let read = self.meter.read(self.wire.clock, &mut self.response, buffer).map_err(|error| {
            let source = match error {
                FetchError::Network { .. } => FetchError::Interrupted { received_bytes: received },
                other => other,
            };
            self.wire.failed(source)
        })?;
        self.received += read as u64;
        if read == 0 && self.identity.total_bytes.is_some_and(|total| self.received < total) {
            return Err(self.interrupted());
        }
        Ok(read)
    }

    /// The stream ended too early.
    #[must_use]
    pub fn interrupted(&self) -> Error {
        self.wire.failed(FetchError::Interrupted { received_bytes: self.received })
    }
}

impl Wire<'_> {
    fn failed(&self, source: FetchError) -> Error {
        Error::Fetch { server: server_of(&self.url), source }
    }

    fn send(&self, first: u64, last: u64) -> Result<Response, Attempt> {
        self.transport.get(&Request { url: &self.url, first, last }).map_err(Attempt::of_transport)
    }

    /// Reads exactly `bytes` bytes of the body; what a server sends beyond is not looked at.
    fn body(
        &self,
        response: &mut Response,
        bytes: u64,
        progress: &mut dyn Progress,
        sink: &mut Sink<'_>,
    ) -> Result<(), Attempt> {
        let mut meter = Meter::new(self.network);
        let mut buffer = vec![0; BUFFER_BYTES];
        let mut received = 0;
        while received < bytes {
            let wanted = (bytes - received).min(BUFFER_BYTES as u64) as usize;
            let part = buffer.get_mut(..wanted).unwrap_or_default();
            let read = meter.read(self.clock, response, part).map_err(|error| Attempt::Again(error, None))?;
            if read == 0 {
                return Err(Attempt::Again(FetchError::Interrupted { received_bytes: received }, None));
            }
            received += read as u64;
            self.received.set(self.received.get() + read as u64);
            sink(part.get(..read).unwrap_or_default(), progress).map_err(Attempt::Sink)?;
        }
        Ok(())
    }

    /// Waits before the next attempt, or ends with the error.
    fn pause_or_give_up(
        &self,
        attempt: Attempt,
        failures: &mut u32,
        progress: &mut dyn Progress,
    ) -> Result<()> {
        match attempt {
            Attempt::Sink(error) => Err(error),
            Attempt::Fatal(error) => Err(self.failed(error)),
            Attempt::Again(error, asked) => {
                *failures += 1;
                if *failures > self.network.retries || asked.is_some_and(|asked| asked > MAX_RETRY_AFTER) {
                    return Err(self.failed(error));
                }
                let pause = asked.unwrap_or_default().max(backoff(*failures, self.clock));
                progress.note(&format!("{}; next attempt in {:.1} s", error.line(), pause.as_secs_f64()));
                self.clock.sleep(pause);
                Ok(())
            }
        }
    }
}

/// Doubled with each failure, and jittered by up to a half, so that a fleet does not come back in step.
#[must_use]
pub fn backoff(failures: u32, clock: &dyn Clock) -> Duration {
    let doubled = FIRST_PAUSE.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(MAX_PAUSE);
    let jitter = clock.monotonic().subsec_nanos() % 1000;
    doubled / 2 + doubled.saturating_mul(jitter) / 2000
}

/// Measures the rate of what the server sends; the time that we take to write does not count.
struct Meter {
    min_bytes_per_second: u64,
    window: Duration,
    bytes: u64,
}

impl Meter {
    fn new(network: &Network) -> Self {
        Self { min_bytes_per_second: network.min_bytes_per_second, window: Duration::ZERO, bytes: 0 }
    }

    fn read(
        &mut self,
        clock: &dyn Clock,
        response: &mut Response,
        buffer: &mut [u8],
    ) -> Result<usize, FetchError> {
        let before = clock.monotonic();
        let read = loop {
            match response.body.read(buffer) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => (),
                other => break other.map_err(|source| FetchError::Network { source: Box::new(source) })?,
            }
        };
        self.window += clock.monotonic().saturating_sub(before);
        self.bytes += read as u64;
        if self.window >= RATE_WINDOW {
            if self.bytes < self.min_bytes_per_second.saturating_mul(self.window.as_secs()) {
                return Err(FetchError::TooSlow { bytes: self.bytes, seconds: self.window.as_secs() });
            }
            self.window = Duration::ZERO;
            self.bytes = 0;
        }
        Ok(read)
    }
}
