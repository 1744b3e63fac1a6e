//! Installing a bundle: head, signatures, preflight, tables; then the passive bank, the read-back, the trial.
//!
//! Every chunk, wherever it comes from, passes the check in [`BankWriter::write_chunk`] before it is written.
//! An install that is repeated after an interruption skips what already lies there.

mod frames;
mod plan;
mod preflight;
mod report;
mod source;

use std::{collections::BTreeMap, rc::Rc};

use bank_format::{
    Bank, TrustRoot,
    bundle::{BodyReader, Head, HeadReader, Opened, Piece},
    header::HEADER_BYTES,
    index::ChunkTable,
    record::ImageProof,
};

pub use preflight::{Verdict, preflight};
pub use report::{InstallReport, InstallResult, Tally};
pub use source::{FileRanges, Ranges};

use crate::{
    bank::{BankWriter, PassiveBank, Staged},
    config::Network,
    device::{BankWork, Device, NoWork},
    engine::Event,
    error::{Error, Result, bundle},
    fetch::{self, Served, Stream, backoff},
    limits::{BUFFER_BYTES, MAX_RESTARTS},
    linux,
    ports::{Access, BankDisk, Clock, ImageFile, Phase, Progress},
};
use frames::FrameDecoder;
use plan::ImageJob;
use source::is_url;

/// What an install is measured by.
#[derive(Debug, Clone)]
pub struct Terms {
    /// Which bundles fit.
    pub compatible: String,
    /// Whose signatures count.
    pub trust: TrustRoot,
    /// How the network is used.
    pub network: Network,
}

/// Installs `source`, a path or an http(s) address, into the passive bank and arms its trial.
pub fn install(
    device: &mut Device,
    terms: &Terms,
    source: &str,
    progress: &mut dyn Progress,
) -> Result<InstallReport> {
    let clock = Rc::clone(&device.ports.clock);
    let start = clock.monotonic();
    terms.trust.check_fresh(clock.unix_seconds()).map_err(bundle)?;
    preflight::running_is_settled(device)?;
    let mut tally = Tally::default();
    let mut restarts = 0;
    let outcome = loop {
        match attempt(device, terms, source, &mut tally, progress) {
            Err(Error::Fetch { source, .. }) if source.wants_restart() && restarts < MAX_RESTARTS => {
                restarts += 1;
                progress.note(&format!("{}; starting anew from what is verified", source.line()));
                clock.sleep(backoff(restarts, clock.as_ref()));
            }
            other => break other?,
        }
    };
    progress.end();
    let seconds = clock.monotonic().saturating_sub(start).as_secs_f64();
    Ok(InstallReport::new(outcome, &tally, seconds, linux::peak_rss_kib()))
}

fn attempt(
    device: &mut Device,
    terms: &Terms,
    source: &str,
    tally: &mut Tally,
    progress: &mut dyn Progress,
) -> Result<report::Outcome> {
    progress.begin(Phase::Verify, 0);
    if !is_url(source) {
        return from_ranges(device, terms, &mut FileRanges::open(source)?, tally, progress);
    }
    let transport = Rc::clone(&device.ports.transport);
    let clock = Rc::clone(&device.ports.clock);
    match fetch::open(transport.as_ref(), clock.as_ref(), &terms.network, source, progress)? {
        Served::Ranges(mut remote) => from_ranges(device, terms, &mut remote, tally, progress),
        Served::Stream(stream) => from_stream(device, terms, stream, tally, progress),
    }
}

fn from_ranges(
    device: &mut Device,
    terms: &Terms,
    ranges: &mut dyn Ranges,
    tally: &mut Tally,
    progress: &mut dyn Progress,
) -> Result<report::Outcome> {
    let result = go_by_ranges(device, terms, ranges, tally, progress);
    tally.fetched_bytes += ranges.fetched_bytes();
    result
}

fn go_by_ranges(
    device: &mut Device,
    terms: &Terms,
    ranges: &mut dyn Ranges,
    tally: &mut Tally,
    progress: &mut dyn Progress,
) -> Result<report::Outcome> {
    let opened = read_head(ranges, progress)?.verify(&terms.trust).map_err(bundle)?;
    check_total(&opened, ranges.total_bytes())?;
    let verdict = preflight(device, terms, &opened)?;
    run(device, verdict, &opened, tally, progress, |_, progress| {
        let mut tables = Vec::new();
        for (image, entry) in opened.manifest().images.iter().enumerate() {
            let section = opened.index_section(image).ok_or(NO_SUCH_IMAGE)?;
            let mut bytes = Vec::with_capacity(entry.index.bytes as usize);
            ranges.read(section.offset, section.bytes, progress, &mut |data, _| {
                bytes.extend_from_slice(data);
                Ok(())
            })?;
            tables.push(opened.chunk_table(image, &bytes).map_err(bundle)?);
        }
        Ok((tables, Feed::Ranges(ranges)))
    })
}

fn from_stream(
    device: &mut Device,
    terms: &Terms,
    stream: Stream<'_>,
    tally: &mut Tally,
    progress: &mut dyn Progress,
) -> Result<report::Outcome> {
    let mut bytes = StreamBytes { stream, buffer: vec![0; BUFFER_BYTES], filled: 0, used: 0 };
    let mut reader = HeadReader::default();
    let head = loop {
        let Some(input) = bytes.more(tally)? else { return Err(bundle(reader.truncated())) };
        let (used, head) = reader.feed(input).map_err(bundle)?;
        bytes.used += used;
        if let Some(head) = head {
            break head;
        }
    };
    let opened = head.verify(&terms.trust).map_err(bundle)?;
    check_total(&opened, bytes.stream.total_bytes())?;
    let verdict = preflight(device, terms, &opened)?;
    run(device, verdict, &opened, tally, progress, |tally, _| {
        let mut feed = StreamFeed { bytes, body: BodyReader::new(&opened) };
        let mut tables = Vec::new();
        for _ in &opened.manifest().images {
            match feed.next(tally)? {
                Piece::Index { table, .. } => tables.push(table),
                Piece::Frame { .. } | Piece::End => return Err(NO_SUCH_IMAGE),
            }
        }
        Ok((tables, Feed::Stream(Box::new(feed))))
    })
}

const NO_SUCH_IMAGE: Error = Error::Bug { detail: "there is no image of that number" };

/// A file that is longer or shorter than its signed head says was torn or glued together.
fn check_total(opened: &Opened, found_bytes: Option<u64>) -> Result<()> {
    let expected = opened.header().total_bytes();
    match found_bytes {
        Some(found) if found < expected => Err(bundle(bank_format::Error::Truncated {
            structure: "bundle",
            missing_bytes: expected - found,
        })),
        Some(found) if found > expected => Err(bundle(bank_format::Error::Malformed {
            structure: "bundle",
            detail: format!("{} bytes behind its end", found - expected),
        })),
        Some(_) | None => Ok(()),
    }
}

/// Reads the fixed header, and then as much as it says; no byte twice.
fn read_head(ranges: &mut dyn Ranges, progress: &mut dyn Progress) -> Result<Head> {
    let mut reader = HeadReader::default();
    let mut offset = 0;
    let mut wanted = HEADER_BYTES as u64;
    loop {
        let left = ranges.total_bytes().map_or(wanted, |total| total.saturating_sub(offset));
        if left.min(wanted) == 0 {
            return Err(bundle(reader.truncated()));
        }
        let mut head = None;
        ranges.read(offset, left.min(wanted), progress, &mut |bytes, _| {
            head = reader.feed(bytes).map_err(bundle)?.1;
            Ok(())
        })?;
        if let Some(head) = head {
            return Ok(head);
        }
        offset += left.min(wanted);
        wanted = match reader.truncated() {
            bank_format::Error::Truncated { missing_bytes, .. } => missing_bytes,
            _ => 0,
        };
    }
}

/// Where frames come from.
enum Feed<'a, 'o> {
    Ranges(&'a mut dyn Ranges),
    Stream(Box<StreamFeed<'a, 'o>>),
}

struct StreamBytes<'a> {
    stream: Stream<'a>,
    buffer: Vec<u8>,
    filled: usize,
    used: usize,
}

impl StreamBytes<'_> {
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

struct StreamFeed<'a, 'o> {
    bytes: StreamBytes<'a>,
    body: BodyReader<'o>,
}

impl StreamFeed<'_, '_> {
    fn next(&mut self, tally: &mut Tally) -> Result<Piece> {
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

/// Goes through with a verdict. `tables` reads the chunk tables: before anything on the device is touched.
fn run<'a, 'o>(
    device: &mut Device,
    verdict: Verdict,
    opened: &'o Opened,
    tally: &mut Tally,
    progress: &mut dyn Progress,
    tables: impl FnOnce(&mut Tally, &mut dyn Progress) -> Result<(Vec<ChunkTable>, Feed<'a, 'o>)>,
) -> Result<report::Outcome> {
    let release = opened.manifest().release();
    let outcome = |result, bank| report::Outcome { result, release, bank };
    match verdict {
        Verdict::NothingToDo { bank, detail } => Ok(outcome(InstallResult::NothingToDo { detail }, bank)),
        Verdict::ArmAgain { bank } => {
            let boot_id = device.boot_id()?;
            device.handle(Event::Arm { boot_id }, &mut NoWork)?;
            Ok(outcome(InstallResult::Installed, bank))
        }
        Verdict::Install(offer) => {
            let bank = !device.running();
            let (tables, feed) = tables(tally, progress)?;
            let disk = Rc::clone(&device.ports.disk);
            let clock = Rc::clone(&device.ports.clock);
            let mut work = InstallWork {
                disk: disk.as_ref(),
                clock: clock.as_ref(),
                active: device.running(),
                opened,
                tables,
                feed,
                writer: None,
                proofs: BTreeMap::new(),
                tally,
                progress,
            };
            device.handle(Event::BeginInstall(offer), &mut work)?;
            let proofs = std::mem::take(&mut work.proofs);
            device.handle(Event::Written(proofs), &mut NoWork)?;
            let boot_id = device.boot_id()?;
            device.handle(Event::Arm { boot_id }, &mut NoWork)?;
            Ok(outcome(InstallResult::Installed, bank))
        }
    }
}

struct InstallWork<'w, 'a, 'o> {
    disk: &'w dyn BankDisk,
    clock: &'w dyn Clock,
    active: Bank,
    opened: &'o Opened,
    tables: Vec<ChunkTable>,
    feed: Feed<'a, 'o>,
    writer: Option<BankWriter<'o>>,
    proofs: BTreeMap<String, ImageProof>,
    tally: &'w mut Tally,
    progress: &'w mut dyn Progress,
}

const NOT_OPEN: Error = Error::Bug { detail: "the passive bank is not open" };

impl BankWork for InstallWork<'_, '_, '_> {
    fn wipe(&mut self, passive: PassiveBank) -> Result<()> {
        self.writer = Some(BankWriter::open(self.disk, passive, self.opened.manifest())?);
        Ok(())
    }

    fn write(&mut self) -> Result<()> {
        let writer = self.writer.as_mut().ok_or(NOT_OPEN)?;
        let total = self.tables.iter().map(ChunkTable::image_bytes).sum();
        self.progress.begin(Phase::Write, total);
        let mut decoder = FrameDecoder::new()?;
        for (image, table) in self.tables.iter().enumerate() {
            let name = self.opened.manifest().images.get(image).map_or("", |entry| entry.name.as_str());
            let mut active = self.disk.open(self.active, name, Access::Read).ok();
            let active = active.as_mut().map(|file| -> &mut dyn ImageFile { file.as_mut() });
            let mut job = ImageJob::plan(writer, (image, name), table, active, self.tally, self.progress)?;
            match &mut self.feed {
                Feed::Ranges(ranges) => {
                    let section = self.opened.frames_section(image).ok_or(NO_SUCH_IMAGE)?;
                    for run in job.runs() {
                        let mut frames = job.frames_of(&run);
                        let offset = section.offset + run.offset;
                        ranges.read(offset, run.bytes, self.progress, &mut |bytes, progress| {
                            frames.feed(bytes, &mut |frame, stored| {
                                job.take_frame(frame, stored, &mut decoder, writer, progress)
                            })
                        })?;
                    }
                }
                Feed::Stream(feed) => {
                    for frame in 0..table.frames().len() {
                        match feed.next(self.tally)? {
                            Piece::Frame { bytes, .. } => {
                                job.take_frame(frame, &bytes, &mut decoder, writer, self.progress)?;
                            }
                            Piece::Index { .. } | Piece::End => return Err(NO_SUCH_IMAGE),
                        }
                    }
                }
            }
            job.check_done()?;
            writer.seal_image(image)?;
        }
        self.tally.written_bytes += writer.written_bytes();
        Ok(())
    }

    fn read_back(&mut self) -> Result<Staged> {
        let writer = self.writer.take().ok_or(NOT_OPEN)?;
        let total = self.tables.iter().map(ChunkTable::image_bytes).sum();
        self.progress.begin(Phase::ReadBack, total);
        let start = self.clock.monotonic();
        let (staged, proofs) = writer.finalize(self.progress)?;
        self.tally.readback_seconds = self.clock.monotonic().saturating_sub(start).as_secs_f64();
        self.proofs = proofs;
        Ok(staged)
    }
}
