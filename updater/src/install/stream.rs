//! Bundles that can only be read from their start to their end.

use bank_format::bundle::{BodyReader, Head, HeadReader, Opened, Piece};

use super::report::Tally;
use crate::{
    error::{Result, bundle},
    fetch::Stream,
    limits::BUFFER_BYTES,
};

/// The bytes as they come.
pub struct StreamBytes<'a> {
    stream: Stream<'a>,
    buffer: Vec<u8>,
    filled: usize,
    used: usize,
}

impl<'a> StreamBytes<'a> {
    /// Before the first one.
    #[must_use]
    pub fn new(stream: Stream<'a>) -> Self {
        Self { stream, buffer: vec![0; BUFFER_BYTES], filled: 0, used: 0 }
    }

    /// Bytes of the file, if the server says so.
    #[must_use]
    pub fn total_bytes(&self) -> Option<u64> {
        self.stream.total_bytes()
    }

    /// Reads the head, which the stream begins with.
    pub fn head(&mut self, tally: &mut Tally) -> Result<Head> {
        let mut reader = HeadReader::default();
        loop {
            let Some(input) = self.more(tally)? else { return Err(bundle(reader.truncated())) };
            let (used, head) = reader.feed(input).map_err(bundle)?;
            self.used += used;
            if let Some(head) = head {
                return Ok(head);
            }
        }
    }

    /// Bytes that were not used yet; `None` at the end.
    fn more(&mut self, tally: &mut Tally) -> Result<Option<&[u8]>> {
        if self.used >= self.filled {
            self.filled = self.stream.next(&mut self.buffer)?;
            self.used = 0;
            tally.fetched_bytes += self.filled as u64;
        }
        Ok(self.buffer.get(self.used..self.filled).filter(|bytes| !bytes.is_empty()))
    }
}

/// What is behind the head, piece by piece.
pub struct StreamFeed<'a, 'o> {
    bytes: StreamBytes<'a>,
    body: BodyReader<'o>,
}

impl<'a, 'o> StreamFeed<'a, 'o> {
    /// Goes on behind the head.
    #[must_use]
    pub fn new(bytes: StreamBytes<'a>, opened: &'o Opened) -> Self {
        Self { bytes, body: BodyReader::new(opened) }
    }

    /// The next piece, whole.
    pub fn next(&mut self, tally: &mut Tally) -> Result<Piece> {
        loop {
            let (used, piece) = match self.bytes.more(tally)? {
                Some(input) => self.body.feed(input).map_err(bundle)?,
                None => return Err(self.bytes.stream.interrupted()),
            };
            self.bytes.used += used;
            if let Some(piece) = piece {
                return Ok(piece);
            }
        }
    }
}
