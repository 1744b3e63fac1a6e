//! An expect-style reader: a thread feeds what a machine says, and a test waits for words in it.
//!
//! Knows bytes and deadlines, nothing of QEMU. Promises that nothing is polled and nothing sleeps: waiting ends
//! the moment the words arrive, the stream ends or the deadline passes. An error shows the end of the log and
//! where all of it lies. Deliberately absent: regular expressions, a terminal emulation.

use std::{
    io::Read,
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crate::{
    error::{Error, Result},
    limits,
};

/// Everything one line of a machine ever said, and how far we have read.
#[derive(Debug)]
pub struct Transcript {
    place: &'static str,
    file: PathBuf,
    shared: Arc<Shared>,
    cursor: usize,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    text: Vec<u8>,
    /// Bytes dropped from the front of `text`; positions count from the very beginning.
    dropped: usize,
    open: bool,
}

impl State {
    fn end(&self) -> usize {
        self.dropped.saturating_add(self.text.len())
    }

    fn since(&self, position: usize) -> &[u8] {
        self.text.get(position.saturating_sub(self.dropped)..).unwrap_or_default()
    }

    fn feed(&mut self, bytes: &[u8]) {
        self.text.extend_from_slice(bytes);
        if self.text.len() > limits::TRANSCRIPT_BYTES {
            let surplus = self.text.len() / 2;
            self.text.drain(..surplus);
            self.dropped = self.dropped.saturating_add(surplus);
        }
    }
}

/// Which of several patterns came first, and what stood before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Index into the patterns.
    pub which: usize,
    /// The text between the last position and the match.
    pub before: String,
}

/// Reads everything, as it comes.
#[derive(Debug)]
pub struct Follower {
    shared: Arc<Shared>,
    position: usize,
}

impl Follower {
    /// Waits for the next bytes; nothing when the line has ended.
    pub fn next_bytes(&mut self) -> Option<Vec<u8>> {
        let mut state = self.shared.state.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let bytes = state.since(self.position).to_vec();
            if !bytes.is_empty() {
                self.position = state.end();
                return Some(bytes);
            }
            if !state.open {
                return None;
            }
            state = self.shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Why waiting ended without a match.
enum Vain {
    Deadline,
    Closed,
}

impl Transcript {
    /// An empty transcript. `place` names it in messages; `file` is where the whole log can be read.
    #[must_use]
    pub fn new(place: &'static str, file: &Path) -> Self {
        Transcript { place, file: file.to_owned(), shared: Arc::default(), cursor: 0 }
    }

    /// Feeds everything `source` says from a thread of its own, until it ends.
    /// The thread ends with the stream; nobody needs to join it, but a caller that wants every last byte may.
    pub fn listen(&self, mut source: impl Read + Send + 'static) -> Result<JoinHandle<()>> {
        self.lock().open = true;
        let shared = Arc::clone(&self.shared);
        thread::Builder::new()
            .name(self.place.to_owned())
            .spawn(move || {
                let mut piece = [0_u8; 4096];
                loop {
                    let count = match source.read(&mut piece) {
                        Ok(count) => count,
                        Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                        Err(_) => 0,
                    };
                    let mut state = shared.state.lock().unwrap_or_else(PoisonError::into_inner);
                    match piece.get(..count) {
                        Some(bytes) if count > 0 => state.feed(bytes),
                        _ => state.open = false,
                    }
                    let open = state.open;
                    drop(state);
                    shared.changed.notify_all();
                    if !open {
                        return;
                    }
                }
            })
            .map_err(Error::io("start a reader for", &self.file))
    }

    /// Waits for `pattern` and reads past it. Gives the text before it.
    pub fn expect(&mut self, pattern: &str, deadline: Instant) -> Result<String> {
        self.expect_any(&[pattern], deadline).map(|seen| seen.before)
    }

    /// Waits for `pattern`, but fails at once when one of `hopeless` comes first.
    pub fn expect_unless(&mut self, pattern: &str, hopeless: &[&str], deadline: Instant) -> Result<String> {
        let mut patterns = vec![pattern];
        patterns.extend_from_slice(hopeless);
        let seen = self.expect_any(&patterns, deadline)?;
        match patterns.get(seen.which) {
            Some(word) if seen.which > 0 => Err(Error::Hopeless {
                place: self.place,
                seen: (*word).to_owned(),
                wanted: format!("{pattern:?}"),
                log: self.file.clone(),
                tail: self.tail(),
            }),
            _ => Ok(seen.before),
        }
    }

    /// Waits for the first of several patterns and reads past it.
    pub fn expect_any(&mut self, patterns: &[&str], deadline: Instant) -> Result<Seen> {
        let mut start = self.cursor;
        let longest = patterns.iter().map(|pattern| pattern.len()).max().unwrap_or(0);
        let cursor = self.cursor;
        let found = self.wait(deadline, |state| {
            let from = start.max(state.dropped);
            let text = state.since(from);
            let hit = patterns
                .iter()
                .enumerate()
                .filter_map(|(which, pattern)| {
                    find(text, pattern.as_bytes()).map(|at| (at, which, pattern.len()))
                })
                .min();
            // What was searched once need not be searched again, but for a pattern cut by the end.
            start = state.end().saturating_sub(longest).max(from);
            let (at, which, length) = hit?;
            let position = from.saturating_add(at);
            let span = position.saturating_sub(cursor.max(state.dropped));
            let before = state.since(cursor).get(..span).unwrap_or_default();
            Some((
                Seen { which, before: String::from_utf8_lossy(before).into_owned() },
                position.saturating_add(length),
            ))
        });
        match found {
            Ok((seen, position)) => {
                self.cursor = position;
                Ok(seen)
            }
            Err(vain) => {
                let words: Vec<_> = patterns.iter().map(|word| format!("{word:?}")).collect();
                Err(self.not_seen(&words.join(" or "), &vain))
            }
        }
    }

    /// Waits until more is said than was known when `mark` was taken, at most until `deadline`. Silence is no error.
    pub fn wait_for_more(&self, mark: usize, deadline: Instant) {
        let _ = self.wait(deadline, |state| (state.end() > mark).then_some(()));
    }

    /// The end of what was said so far, for [`Transcript::wait_for_more`] and [`Transcript::contains_since`].
    #[must_use]
    pub fn mark(&self) -> usize {
        self.lock().end()
    }

    /// Whether `pattern` was said after `mark`.
    #[must_use]
    pub fn contains_since(&self, mark: usize, pattern: &str) -> bool {
        find(self.lock().since(mark), pattern.as_bytes()).is_some()
    }

    /// How often `pattern` was said after `mark`.
    #[must_use]
    pub fn count_since(&self, mark: usize, pattern: &str) -> usize {
        let state = self.lock();
        state.since(mark).windows(pattern.len().max(1)).filter(|window| *window == pattern.as_bytes()).count()
    }

    /// Forgets what has not been read: the next wait looks only at what comes from now on.
    pub fn skip_to_end(&mut self) {
        self.cursor = self.mark();
    }

    /// The last lines, without control characters.
    #[must_use]
    pub fn tail(&self) -> String {
        let state = self.lock();
        let start = state.text.len().saturating_sub(64 << 10);
        let text = plain(&String::from_utf8_lossy(state.text.get(start..).unwrap_or_default()));
        drop(state);
        let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
        let from = lines.len().saturating_sub(limits::TAIL_LINES);
        lines.get(from..).unwrap_or_default().iter().map(|line| format!("  | {line}\n")).collect()
    }

    /// A second reader of the same line, from here on, for showing it to a person.
    #[must_use]
    pub fn follow(&self) -> Follower {
        Follower { shared: Arc::clone(&self.shared), position: self.mark() }
    }

    /// Where the whole log lies.
    #[must_use]
    pub fn file(&self) -> &Path {
        &self.file
    }

    fn not_seen(&self, wanted: &str, vain: &Vain) -> Error {
        let why = match vain {
            Vain::Deadline => "no sign in time of",
            Vain::Closed => "the machine ended before",
        };
        Error::NotSeen {
            place: self.place,
            why: why.to_owned(),
            wanted: wanted.to_owned(),
            log: self.file.clone(),
            tail: self.tail(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<T>(&self, deadline: Instant, mut look: impl FnMut(&State) -> Option<T>) -> Result<T, Vain> {
        let mut state = self.lock();
        loop {
            if let Some(found) = look(&state) {
                return Ok(found);
            }
            if !state.open {
                return Err(Vain::Closed);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left == Duration::ZERO {
                return Err(Vain::Deadline);
            }
            let (next, _) =
                self.shared.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner);
            state = next;
        }
    }
}

fn find(text: &[u8], pattern: &[u8]) -> Option<usize> {
    if pattern.is_empty() {
        return Some(0);
    }
    text.windows(pattern.len()).position(|window| window == pattern)
}

/// The text without escape sequences and carriage returns.
#[must_use]
pub fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '\u{1b}' => {
                if characters.next_if_eq(&'[').is_some() {
                    // CSI: parameters, then one final byte (ECMA-48, 5.4).
                    while characters.next_if(|next| !('\u{40}'..='\u{7e}').contains(next)).is_some() {}
                    characters.next();
                }
            }
            '\n' | '\t' => out.push(character),
            other if other.is_control() => {}
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use std::{io::Write, os::unix::net::UnixStream};

    use super::*;

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(10)
    }

    fn spoken() -> (UnixStream, Transcript) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let transcript = Transcript::new("test line", Path::new("test.log"));
        transcript.listen(theirs).unwrap();
        (ours, transcript)
    }

    #[test]
    fn words_split_over_writes_are_found_and_read_past() {
        let (mut line, mut transcript) = spoken();
        for piece in ["hel", "lo wor", "ld, hello again"] {
            line.write_all(piece.as_bytes()).unwrap();
        }
        assert_eq!(transcript.expect("hello", soon()).unwrap(), "");
        assert_eq!(transcript.expect("hello", soon()).unwrap(), " world, ");
        drop(line);
        let error = transcript.expect("hello", soon()).unwrap_err().to_string();
        assert!(error.contains("ended before") && error.contains("test.log"), "{error}");
    }

    #[test]
    fn the_earliest_of_several_patterns_wins() {
        let (mut line, mut transcript) = spoken();
        line.write_all(b"first panic then ready").unwrap();
        let seen = transcript.expect_any(&["ready", "panic"], soon()).unwrap();
        assert_eq!(seen, Seen { which: 1, before: "first ".to_owned() });
        assert!(transcript.expect_unless("ready", &["panic"], soon()).is_ok());
    }

    #[test]
    fn a_hopeless_word_ends_the_wait_at_once() {
        let (mut line, mut transcript) = spoken();
        line.write_all(b"Kernel panic - not syncing").unwrap();
        let error = transcript.expect_unless("ready", &["Kernel panic"], soon()).unwrap_err();
        assert!(matches!(error, Error::Hopeless { .. }), "{error}");
    }

    #[test]
    fn a_deadline_ends_the_wait() {
        let (_line, mut transcript) = spoken();
        let error = transcript.expect("ready", Instant::now()).unwrap_err().to_string();
        assert!(error.contains("no sign in time of \"ready\""), "{error}");
    }

    #[test]
    fn a_flood_drops_the_oldest_bytes_only() {
        let mut state = State::default();
        for _ in 0..9 {
            state.feed(&vec![b'x'; limits::TRANSCRIPT_BYTES / 8]);
        }
        state.feed(b"end");
        assert!(state.text.len() <= limits::TRANSCRIPT_BYTES);
        assert_eq!(state.end(), limits::TRANSCRIPT_BYTES / 8 * 9 + 3);
        assert_eq!(state.since(state.end() - 3), b"end");
        assert_eq!(state.since(0), &state.text[..]);
    }

    #[test]
    fn escapes_do_not_reach_a_message() {
        assert_eq!(plain("[\u{1b}[0;32m  OK  \u{1b}[0m] up\r\n"), "[  OK  ] up\n");
    }
}
