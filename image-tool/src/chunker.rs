//! Cuts an image into chunks, and packs them into frames on all cores.
//!
//! It streams: at any time a few frames are in memory, however large the image. It promises the same frames and the same
//! table for any number of threads: what is in a frame follows from the image alone, and frames are written in order.
//! Where it is cut is decided in `cuts`. What lies between files goes into frames of its own.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, BufReader, Read, Seek as _, Write},
    num::NonZeroUsize,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, Sender, SyncSender, channel, sync_channel},
    },
    thread,
};

use bank_format::{
    Digest256,
    index::{ChunkTable, Lane, Source},
    limits::MAX_CHUNK_BYTES,
    verity::TreeBuilder,
};

use crate::{
    cache::{Cache, KeyBuilder},
    codec,
    error::{Error, Result},
    limits::FRAME_RAW_BYTES,
    segments::{self, Segment},
};

/// How to pack.
#[derive(Debug, Clone, Copy)]
pub struct Packing<'a> {
    /// zstd level, 1 to 22.
    pub level: i32,
    /// Threads that compress.
    pub threads: NonZeroUsize,
    /// Decompressed bytes of a frame at most.
    pub frame_raw_bytes: u32,
    /// What was packed before.
    pub cache: Option<&'a Cache>,
}

impl Packing<'_> {
    /// Level 19 on all cores: twice the time of a middle level, and nobody waits for it twice.
    pub const LEVEL: i32 = 19;

    /// All cores of this machine.
    #[must_use]
    pub fn at_level(level: i32) -> Self {
        let threads = thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        Self { level, threads, frame_raw_bytes: FRAME_RAW_BYTES, cache: None }
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

/// An image to be packed.
pub struct Input<'a> {
    /// Names it in errors.
    pub subject: &'a str,
    /// The image, from its start.
    pub file: &'a File,
    /// Its bytes.
    pub bytes: u64,
    /// What lies where in it.
    pub segments: &'a [Segment],
    /// Lengths of its chunks, which add up to its bytes.
    pub lengths: &'a [u32],
    /// Salt of its hash tree.
    pub salt: &'a [u8],
}

/// Reads an image, writes its frames to `frames`, and returns its table. `advance` hears how many bytes were read.
pub fn pack(
    input: Input<'_>,
    packing: Packing<'_>,
    frames: &mut (dyn Write + Send),
    advance: &mut dyn FnMut(u64),
) -> Result<Packed> {
    let threads = packing.threads.get();
    thread::scope(|scope| {
        let (jobs, queue) = sync_channel::<Job>(threads);
        let queue = Arc::new(Mutex::new(queue));
        for _ in 0..threads {
            let queue = Arc::clone(&queue);
            scope.spawn(move || work(&queue, packing));
        }
        // Bounds the memory: a frame is read only when there is room among those on their way.
        let (order, arrivals) = sync_channel::<OnItsWay>(2 * threads);
        let writer = scope.spawn(move || write_in_order(arrivals, frames));
        let line = Line { jobs, order };
        let cut = Cutter::new(input.bytes, input.salt, packing.frame_raw_bytes, line)
            .and_then(|cutter| cutter.run(&input, advance));
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
fn work(queue: &Mutex<Receiver<Job>>, packing: Packing<'_>) {
    loop {
        let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(Job { content, reply }) = job else {
            return;
        };
        // Nobody listens after an error of the writer; it tells that itself.
        let _ = reply.send(packed(content, packing));
    }
}

/// The stored bytes of a frame, from the cache if it has them.
fn packed(content: Vec<u8>, packing: Packing<'_>) -> io::Result<Vec<u8>> {
    let Some(cache) = packing.cache else { return codec::compress(content, packing.level) };
    let level = packing.level.unsigned_abs().into();
    let key = KeyBuilder::new("frame").number(level).bytes(&Digest256::of(&content).0).finish();
    if let Some(kept) = cache.get(key).filter(|kept| codec::holds(kept, &content)) {
        return Ok(kept);
    }
    let stored = codec::compress(content, packing.level)?;
    cache.put(key, &stored);
    Ok(stored)
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

/// A frame that is being filled.
#[derive(Default)]
struct Open {
    content: Vec<u8>,
    /// Numbers of the chunks in it, and where each begins.
    chunks: Vec<(usize, u32)>,
}

struct Cutter {
    tree: TreeBuilder,
    line: Line,
    frame_raw_bytes: u32,
    main: Open,
    aside: Open,
    /// Lanes of the frames that were sent.
    lanes: Vec<Lane>,
    /// Number of the first chunk of a digest.
    seen: HashMap<Digest256, usize>,
    zeros: HashMap<u32, Digest256>,
    chunks: Vec<Row>,
    zero_chunks: usize,
    repeated_chunks: usize,
}

/// A chunk, whose frame has its number once it is full.
struct Row {
    bytes: u32,
    digest: Digest256,
    source: Option<Source>,
    repeats: Option<usize>,
}

/// What the cutter knows when it is through.
struct Cut {
    chunks: Vec<(u32, Source, Digest256)>,
    lanes: Vec<Lane>,
    verity_root: Digest256,
    zero_chunks: usize,
    repeated_chunks: usize,
}

impl Cut {
    fn finish(self, sizes: &[(u32, u32)]) -> Result<Packed> {
        let frames: Vec<_> =
            self.lanes.iter().zip(sizes).map(|(lane, (stored, raw))| (*lane, *stored, *raw)).collect();
        let table = ChunkTable::new(&frames, &self.chunks).map_err(Error::format("make a chunk table"))?;
        let Self { verity_root, zero_chunks, repeated_chunks, .. } = self;
        Ok(Packed { table, verity_root, zero_chunks, repeated_chunks })
    }
}

impl Cutter {
    fn new(image_bytes: u64, salt: &[u8], frame_raw_bytes: u32, line: Line) -> Result<Self> {
        Ok(Self {
            tree: TreeBuilder::new(image_bytes, salt).map_err(Error::format("hash an image"))?,
            line,
            frame_raw_bytes,
            main: Open::default(),
            aside: Open::default(),
            lanes: Vec::new(),
            seen: HashMap::new(),
            zeros: HashMap::new(),
            chunks: Vec::new(),
            zero_chunks: 0,
            repeated_chunks: 0,
        })
    }

    fn run(mut self, input: &Input<'_>, advance: &mut dyn FnMut(u64)) -> Result<Cut> {
        let Input { subject, file, segments, lengths, .. } = input;
        let mut reader = BufReader::with_capacity(1 << 20, *file);
        reader.rewind().map_err(Error::file("read", subject))?;
        let mut chunk = Vec::with_capacity(MAX_CHUNK_BYTES as usize);
        let mut done_bytes = 0;
        let mut segment = 0;
        for bytes in lengths.iter().copied() {
            chunk.clear();
            Read::take(&mut reader, u64::from(bytes))
                .read_to_end(&mut chunk)
                .map_err(Error::file("read", subject))?;
            if chunk.len() != bytes as usize {
                return Err(Error::malformed(subject, "it became shorter while it was read"));
            }
            self.tree.update(&chunk, &mut |_, _| ()).map_err(Error::format("hash an image"))?;
            while segments.get(segment).is_some_and(|segment| segment.end_bytes() <= done_bytes) {
                segment += 1;
            }
            self.chunk(segments::lane(segments, segment), bytes, &chunk)?;
            done_bytes += u64::from(bytes);
            advance(done_bytes);
        }
        self.send_frame(Lane::Main)?;
        self.send_frame(Lane::Aside)?;
        let verity_root = self.tree.finish(&mut |_, _| ()).map_err(Error::format("hash an image"))?;
        let sources: Vec<Option<Source>> = self.chunks.iter().map(|row| row.source).collect();
        let chunks = self.chunks.iter().map(|row| {
            let source = row.source.or_else(|| *sources.get(row.repeats?)?);
            Some((row.bytes, source?, row.digest))
        });
        Ok(Cut {
            chunks: chunks.collect::<Option<_>>().ok_or(Error::Bug { what: "a chunk is in no frame" })?,
            lanes: self.lanes,
            verity_root,
            zero_chunks: self.zero_chunks,
            repeated_chunks: self.repeated_chunks,
        })
    }

    fn chunk(&mut self, lane: Lane, bytes: u32, chunk: &[u8]) -> Result<()> {
        if chunk.iter().all(|byte| *byte == 0) {
            let digest = *self.zeros.entry(bytes).or_insert_with(|| Digest256::of(chunk));
            self.zero_chunks += 1;
            self.chunks.push(Row { bytes, digest, source: Some(Source::Zeros), repeats: None });
            return Ok(());
        }
        let digest = Digest256::of(chunk);
        let number = self.chunks.len();
        if let Some(first) = self.seen.get(&digest) {
            self.repeated_chunks += 1;
            self.chunks.push(Row { bytes, digest, source: None, repeats: Some(*first) });
            return Ok(());
        }
        if self.open(lane).content.len() + chunk.len() > self.frame_raw_bytes as usize {
            self.send_frame(lane)?;
        }
        let open = self.open(lane);
        let offset =
            u32::try_from(open.content.len()).map_err(|_| Error::Bug { what: "a frame is too long" })?;
        open.chunks.push((number, offset));
        open.content.extend_from_slice(chunk);
        self.seen.insert(digest, number);
        self.chunks.push(Row { bytes, digest, source: None, repeats: None });
        Ok(())
    }

    fn open(&mut self, lane: Lane) -> &mut Open {
        match lane {
            Lane::Main => &mut self.main,
            Lane::Aside => &mut self.aside,
        }
    }

    fn send_frame(&mut self, lane: Lane) -> Result<()> {
        let Open { content, chunks } = std::mem::take(self.open(lane));
        if content.is_empty() {
            return Ok(());
        }
        let too_long = |_| Error::Bug { what: "a frame is too long" };
        let frame = u32::try_from(self.lanes.len()).map_err(too_long)?;
        self.lanes.push(lane);
        for (number, offset) in chunks {
            if let Some(row) = self.chunks.get_mut(number) {
                row.source = Some(Source::Frame { frame, offset });
            }
        }
        let raw_bytes = u32::try_from(content.len()).map_err(too_long)?;
        let (reply, stored) = channel();
        // Only the writer closes the line early, and its error is the one that is told.
        let closed = || Error::Bug { what: "the line of frames closed early" };
        self.line.order.send(OnItsWay { raw_bytes, stored }).map_err(|_| closed())?;
        self.line.jobs.send(Job { content, reply }).map_err(|_| closed())
    }
}
