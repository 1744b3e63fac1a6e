//! Cuts an image into chunks, and packs them into frames on all cores.
//!
//! It streams: at any time a few frames are in memory, however large the image. It promises the same frames and the same
//! table for any number of threads: what is in a frame follows from the image alone, and frames are written in order.
//! Deliberately absent: choosing the boundaries; who knows the file system inside the image passes them in.

use std::{
    collections::HashMap,
    io::{self, Read, Write},
    num::NonZeroUsize,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, Sender, SyncSender, channel, sync_channel},
    },
    thread,
};

use bank_format::{
    Digest256,
    index::{ChunkTable, Source},
    verity::TreeBuilder,
};

use crate::{
    codec,
    error::{Error, Result},
    limits::{CHUNK_BYTES, FRAME_RAW_BYTES},
};

/// How to pack.
#[derive(Debug, Clone, Copy)]
pub struct Packing {
    /// zstd level, 1 to 22.
    pub level: i32,
    /// Threads that compress.
    pub threads: NonZeroUsize,
    /// Decompressed bytes of a frame at most.
    pub frame_raw_bytes: u32,
}

impl Packing {
    /// Level 19 on all cores: twice the time of a middle level, and nobody waits for it twice.
    pub const LEVEL: i32 = 19;

    /// All cores of this machine.
    #[must_use]
    pub fn at_level(level: i32) -> Self {
        let threads = thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        Self { level, threads, frame_raw_bytes: FRAME_RAW_BYTES }
    }
}

/// What became of an image.
#[derive(Debug, Clone)]
pub struct Packed {
    /// The chunk table.
    pub table: ChunkTable,
    /// Root of the hash tree over the image.
    pub verity_root: Digest256,
    /// Chunks that are all zeros, and carried by no frame.
    pub zero_chunks: usize,
    /// Chunks that were there before, and are stored once.
    pub repeated_chunks: usize,
}

/// Lengths of the chunks of an image: cut at each of the sorted `boundaries` (byte offsets, such as where files begin),
/// and every 64 KiB from there.
pub fn chunk_lengths(image_bytes: u64, boundaries: &[u64]) -> impl Iterator<Item = u32> {
    let mut at = 0;
    let mut boundaries = boundaries.iter().copied().peekable();
    std::iter::from_fn(move || {
        while boundaries.next_if(|boundary| *boundary <= at).is_some() {}
        let end = boundaries.peek().copied().unwrap_or(image_bytes).min(image_bytes);
        let bytes = end.saturating_sub(at).min(u64::from(CHUNK_BYTES));
        at += bytes;
        // At most CHUNK_BYTES, so it fits.
        u32::try_from(bytes).ok().filter(|bytes| *bytes > 0)
    })
}

/// An image to be packed.
pub struct Input<'a> {
    /// Names it in errors.
    pub subject: &'a str,
    /// Its bytes.
    pub reader: &'a mut dyn Read,
    /// How many they are.
    pub bytes: u64,
    /// Where chunks should begin, see [`chunk_lengths`].
    pub boundaries: &'a [u64],
    /// Salt of its hash tree.
    pub salt: &'a [u8],
}

/// Reads an image, writes its frames to `frames`, and returns its table. `advance` hears how many bytes were read.
pub fn pack(
    input: Input<'_>,
    packing: Packing,
    frames: &mut (dyn Write + Send),
    advance: &mut dyn FnMut(u64),
) -> Result<Packed> {
    let threads = packing.threads.get();
    thread::scope(|scope| {
        let (jobs, queue) = sync_channel::<Job>(threads);
        let queue = Arc::new(Mutex::new(queue));
        for _ in 0..threads {
            let queue = Arc::clone(&queue);
            scope.spawn(move || work(&queue, packing.level));
        }
        // Bounds the memory: a frame is read only when there is room among those on their way.
        let (order, arrivals) = sync_channel::<OnItsWay>(2 * threads);
        let writer = scope.spawn(move || write_in_order(arrivals, frames));
        let line = Line { jobs, order };
        let cut = Cutter::new(input.bytes, input.salt, packing.frame_raw_bytes, line)
            .and_then(|cutter| cutter.run(input, advance));
        // When the line broke, the writer knows why.
        let sizes = writer.join().map_err(|_| Error::Bug { what: "the writer of frames panicked" })??;
        cut?.finish(&sizes)
    })
}

struct Job {
    content: Vec<u8>,
    reply: Sender<io::Result<Vec<u8>>>,
}

struct OnItsWay {
    raw_bytes: u32,
    stored: Receiver<io::Result<Vec<u8>>>,
}

/// Compresses until the line closes.
fn work(queue: &Mutex<Receiver<Job>>, level: i32) {
    loop {
        let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(Job { content, reply }) = job else {
            return;
        };
        // Nobody listens after an error of the writer; it tells that itself.
        let _ = reply.send(codec::compress(content, level));
    }
}

/// Writes the frames in the order in which they were cut; returns `(stored, raw)` bytes of each.
fn write_in_order(arrivals: Receiver<OnItsWay>, frames: &mut dyn Write) -> Result<Vec<(u32, u32)>> {
    let mut sizes = Vec::new();
    for OnItsWay { raw_bytes, stored } in arrivals {
        let stored = stored
            .recv()
            .map_err(|_| Error::Bug { what: "a compressor panicked" })?
            .map_err(|source| Error::Frame { deed: "compress", frame: sizes.len(), source })?;
        frames.write_all(&stored).map_err(Error::file("write frames of", "the bundle"))?;
        let stored_bytes = u32::try_from(stored.len()).map_err(|_| Error::Bug { what: "a frame grew" })?;
        sizes.push((stored_bytes, raw_bytes));
    }
    Ok(sizes)
}

/// Where the cutter puts full frames.
struct Line {
    jobs: SyncSender<Job>,
    order: SyncSender<OnItsWay>,
}

struct Cutter {
    tree: TreeBuilder,
    line: Line,
    frame_raw_bytes: u32,
    /// Content of the frame that is being filled, and its number.
    content: Vec<u8>,
    frame: u32,
    seen: HashMap<Digest256, Source>,
    zeros: HashMap<u32, Digest256>,
    cut: Cut,
}

#[derive(Default)]
struct Cut {
    chunks: Vec<(u32, Source, Digest256)>,
    verity_root: Option<Digest256>,
    zero_chunks: usize,
    repeated_chunks: usize,
}

impl Cut {
    fn finish(self, sizes: &[(u32, u32)]) -> Result<Packed> {
        let table = ChunkTable::new(sizes, &self.chunks).map_err(Error::format("make a chunk table"))?;
        let verity_root = self.verity_root.ok_or(Error::Bug { what: "an image has no verity root" })?;
        let Self { zero_chunks, repeated_chunks, .. } = self;
        Ok(Packed { table, verity_root, zero_chunks, repeated_chunks })
    }
}

impl Cutter {
    fn new(image_bytes: u64, salt: &[u8], frame_raw_bytes: u32, line: Line) -> Result<Self> {
        Ok(Self {
            tree: TreeBuilder::new(image_bytes, salt).map_err(Error::format("hash an image"))?,
            line,
            frame_raw_bytes,
            content: Vec::new(),
            frame: 0,
            seen: HashMap::new(),
            zeros: HashMap::new(),
            cut: Cut::default(),
        })
    }

    fn run(mut self, input: Input<'_>, advance: &mut dyn FnMut(u64)) -> Result<Cut> {
        let Input { subject, reader, bytes: image_bytes, boundaries, .. } = input;
        let mut chunk = Vec::with_capacity(CHUNK_BYTES as usize);
        let mut done_bytes = 0;
        for bytes in chunk_lengths(image_bytes, boundaries) {
            chunk.clear();
            Read::take(&mut *reader, u64::from(bytes))
                .read_to_end(&mut chunk)
                .map_err(Error::file("read", subject))?;
            if chunk.len() != bytes as usize {
                return Err(Error::malformed(subject, "it became shorter while it was read"));
            }
            self.tree.update(&chunk, &mut |_, _| ()).map_err(Error::format("hash an image"))?;
            self.chunk(bytes, &chunk)?;
            done_bytes += u64::from(bytes);
            advance(done_bytes);
        }
        self.send_frame()?;
        self.cut.verity_root =
            Some(self.tree.finish(&mut |_, _| ()).map_err(Error::format("hash an image"))?);
        Ok(self.cut)
    }

    fn chunk(&mut self, bytes: u32, chunk: &[u8]) -> Result<()> {
        if chunk.iter().all(|byte| *byte == 0) {
            let digest = *self.zeros.entry(bytes).or_insert_with(|| Digest256::of(chunk));
            self.cut.zero_chunks += 1;
            self.cut.chunks.push((bytes, Source::Zeros, digest));
            return Ok(());
        }
        let digest = Digest256::of(chunk);
        if let Some(source) = self.seen.get(&digest) {
            self.cut.repeated_chunks += 1;
            self.cut.chunks.push((bytes, *source, digest));
            return Ok(());
        }
        if self.content.len() + chunk.len() > self.frame_raw_bytes as usize {
            self.send_frame()?;
        }
        let offset =
            u32::try_from(self.content.len()).map_err(|_| Error::Bug { what: "a frame is too long" })?;
        let source = Source::Frame { frame: self.frame, offset };
        self.content.extend_from_slice(chunk);
        self.seen.insert(digest, source);
        self.cut.chunks.push((bytes, source, digest));
        Ok(())
    }

    fn send_frame(&mut self) -> Result<()> {
        if self.content.is_empty() {
            return Ok(());
        }
        let content = std::mem::take(&mut self.content);
        let raw_bytes =
            u32::try_from(content.len()).map_err(|_| Error::Bug { what: "a frame is too long" })?;
        let (reply, stored) = channel();
        self.frame += 1;
        // Only the writer closes the line early, and its error is the one that is told.
        let closed = || Error::Bug { what: "the line of frames closed early" };
        self.line.order.send(OnItsWay { raw_bytes, stored }).map_err(|_| closed())?;
        self.line.jobs.send(Job { content, reply }).map_err(|_| closed())
    }
}
