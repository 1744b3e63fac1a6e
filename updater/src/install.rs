//! Installing a bundle: head, signatures, preflight, survey and plan; then the passive bank, the read-back, the trial.
//!
//! Every chunk, wherever it comes from, is compared with the signed table before it is written ([`crate::bank::Checked`]). An install that is
//! repeated after an interruption skips what already lies there.

mod base;
mod cutter;
mod patches;
mod plan;
mod pour;
mod preflight;
mod report;
mod source;
mod stream;
mod survey;
mod work;

use std::{collections::BTreeMap, rc::Rc};

use bank_format::{
    TrustRoot,
    bundle::{Head, HeadReader, Opened, Piece},
    header::HEADER_BYTES,
};

pub use preflight::{Verdict, preflight};
pub use report::{InstallReport, InstallResult, PlanReport, PlannedImage, Tally};
pub use source::{FileRanges, Ranges};

use crate::{
    config::Network,
    device::{Device, NoWork},
    engine::{Event, Offer},
    error::{Error, Result, bundle},
    fetch::{self, Served, Stream, backoff},
    limits::MAX_RESTARTS,
    linux,
    ports::{BankDisk, Clock, Phase, Progress},
};
use source::is_url;
use stream::{StreamBytes, StreamFeed};
use survey::{Survey, Surveyed};
use work::{Feed, InstallWork};

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
    let mut tally = Tally::default();
    let outcome = persistently(device, terms, source, &mut tally, progress, &mut Installing)?;
    let seconds = clock.monotonic().saturating_sub(start).as_secs_f64();
    Ok(InstallReport::new(outcome, &tally, seconds, linux::peak_rss_kib()))
}

/// What [`install`] would fetch and write. Nothing is written.
pub fn plan(
    device: &mut Device,
    terms: &Terms,
    source: &str,
    progress: &mut dyn Progress,
) -> Result<PlanReport> {
    let mut tally = Tally::default();
    let report = persistently(device, terms, source, &mut tally, progress, &mut Planning)?;
    let bytes_to_fetch = report.bytes_to_fetch + tally.fetched_bytes;
    Ok(PlanReport { bytes_fetched: tally.fetched_bytes, bytes_to_fetch, ..report })
}

/// What becomes of a bundle that was opened and compared with the device.
trait Deed {
    type Outcome;
    /// It is there already, in whole or in part.
    fn settled(&mut self, device: &mut Device, opened: &Opened, verdict: Settled) -> Result<Self::Outcome>;
    /// It is to be installed.
    fn go(
        &mut self,
        device: &mut Device,
        offer: Offer,
        opened: &Opened,
        survey: (Vec<Surveyed>, Feed<'_, '_>),
        tally: &mut Tally,
        progress: &mut dyn Progress,
    ) -> Result<Self::Outcome>;
}

/// A verdict that asks for nothing to be fetched.
enum Settled {
    NothingToDo { bank: bank_format::Bank, detail: String },
    ArmAgain { bank: bank_format::Bank },
}

/// Until it is done, or until trying again is of no use.
fn persistently<D: Deed>(
    device: &mut Device,
    terms: &Terms,
    source: &str,
    tally: &mut Tally,
    progress: &mut dyn Progress,
    deed: &mut D,
) -> Result<D::Outcome> {
    let clock = Rc::clone(&device.ports.clock);
    terms.trust.check_fresh(clock.unix_seconds()).map_err(bundle)?;
    preflight::running_is_settled(device)?;
    let mut restarts = 0;
    let outcome = loop {
        tally.begin_attempt();
        match attempt(device, terms, source, tally, progress, deed) {
            Err(Error::Fetch { source, .. }) if source.wants_restart() && restarts < MAX_RESTARTS => {
                restarts += 1;
                progress.note(&format!("{}; starting anew from what is verified", source.line()));
                clock.sleep(backoff(restarts, clock.as_ref()));
            }
            // The record now says that the bank is being written, so that all of it is looked at.
            Err(error @ (Error::ReadBack { .. } | Error::Bank { deed: "read back", .. }))
                if tally.trusted && restarts < MAX_RESTARTS =>
            {
                restarts += 1;
                progress.note(&format!("{}; looking at every chunk", error.line()));
            }
            other => break other?,
        }
    };
    progress.end();
    Ok(outcome)
}

fn attempt<D: Deed>(
    device: &mut Device,
    terms: &Terms,
    source: &str,
    tally: &mut Tally,
    progress: &mut dyn Progress,
    deed: &mut D,
) -> Result<D::Outcome> {
    progress.begin(Phase::Verify, 0);
    if !is_url(source) {
        return from_ranges(device, terms, &mut FileRanges::open(source)?, tally, progress, deed);
    }
    let transport = Rc::clone(&device.ports.transport);
    let clock = Rc::clone(&device.ports.clock);
    match fetch::open(transport.as_ref(), clock.as_ref(), &terms.network, source, progress)? {
        Served::Ranges(mut remote) => from_ranges(device, terms, &mut remote, tally, progress, deed),
        Served::Stream(stream) => from_stream(device, terms, stream, tally, progress, deed),
    }
}

fn from_ranges<D: Deed>(
    device: &mut Device,
    terms: &Terms,
    ranges: &mut dyn Ranges,
    tally: &mut Tally,
    progress: &mut dyn Progress,
    deed: &mut D,
) -> Result<D::Outcome> {
    let result = go_by_ranges(device, terms, ranges, tally, progress, deed);
    tally.fetched_bytes += ranges.fetched_bytes();
    result
}

fn go_by_ranges<D: Deed>(
    device: &mut Device,
    terms: &Terms,
    ranges: &mut dyn Ranges,
    tally: &mut Tally,
    progress: &mut dyn Progress,
    deed: &mut D,
) -> Result<D::Outcome> {
    let opened = read_head(ranges, progress)?.verify(&terms.trust).map_err(bundle)?;
    check_total(&opened, ranges.total_bytes())?;
    let offer = match settled_or_offer(preflight(device, terms, &opened)?) {
        Ok(offer) => offer,
        Err(settled) => return deed.settled(device, &opened, settled),
    };
    let disk = Rc::clone(&device.ports.disk);
    let mut survey = Survey::new(device, disk.as_ref(), &opened);
    let images = (0..opened.manifest().images.len())
        .map(|image| survey.by_ranges(image, ranges, progress))
        .collect::<Result<Vec<_>>>()?;
    deed.go(device, offer, &opened, (images, Feed::Ranges(ranges)), tally, progress)
}

fn from_stream<D: Deed>(
    device: &mut Device,
    terms: &Terms,
    stream: Stream<'_>,
    tally: &mut Tally,
    progress: &mut dyn Progress,
    deed: &mut D,
) -> Result<D::Outcome> {
    let mut bytes = StreamBytes::new(stream);
    let opened = bytes.head(tally)?.verify(&terms.trust).map_err(bundle)?;
    check_total(&opened, bytes.total_bytes())?;
    let offer = match settled_or_offer(preflight(device, terms, &opened)?) {
        Ok(offer) => offer,
        Err(settled) => return deed.settled(device, &opened, settled),
    };
    let mut feed = StreamFeed::new(bytes, &opened);
    let disk = Rc::clone(&device.ports.disk);
    let mut survey = Survey::new(device, disk.as_ref(), &opened);
    let mut images = Vec::new();
    for image in 0..opened.manifest().images.len() {
        match feed.next(tally)? {
            Piece::Index { table, .. } => images.push(survey.by_stream(image, table, progress)?),
            Piece::Frame { .. } | Piece::End => return Err(NO_SUCH_IMAGE),
        }
    }
    deed.go(device, offer, &opened, (images, Feed::Stream(Box::new(feed))), tally, progress)
}

fn settled_or_offer(verdict: Verdict) -> Result<Offer, Settled> {
    match verdict {
        Verdict::Install(offer) => Ok(offer),
        Verdict::NothingToDo { bank, detail } => Err(Settled::NothingToDo { bank, detail }),
        Verdict::ArmAgain { bank } => Err(Settled::ArmAgain { bank }),
    }
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

struct Installing;

impl Deed for Installing {
    type Outcome = report::Outcome;

    fn settled(&mut self, device: &mut Device, opened: &Opened, settled: Settled) -> Result<report::Outcome> {
        let release = opened.manifest().release();
        let (result, bank) = match settled {
            Settled::NothingToDo { bank, detail } => (InstallResult::NothingToDo { detail }, bank),
            Settled::ArmAgain { bank } => {
                let boot_id = device.boot_id()?;
                device.handle(Event::Arm { boot_id }, &mut NoWork)?;
                (InstallResult::Installed, bank)
            }
        };
        Ok(report::Outcome { result, release, bank })
    }

    fn go(
        &mut self,
        device: &mut Device,
        offer: Offer,
        opened: &Opened,
        (images, feed): (Vec<Surveyed>, Feed<'_, '_>),
        tally: &mut Tally,
        progress: &mut dyn Progress,
    ) -> Result<report::Outcome> {
        let bank = !device.running();
        let disk: Rc<dyn BankDisk> = Rc::clone(&device.ports.disk);
        let clock: Rc<dyn Clock> = Rc::clone(&device.ports.clock);
        tally.trusted = images.iter().any(|image| image.trusting);
        let mut work = InstallWork {
            disk: disk.as_ref(),
            clock: clock.as_ref(),
            active: device.running(),
            opened,
            images,
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
        Ok(report::Outcome { result: InstallResult::Installed, release: opened.manifest().release(), bank })
    }
}

struct Planning;

impl Deed for Planning {
    type Outcome = PlanReport;

    fn settled(&mut self, _: &mut Device, opened: &Opened, settled: Settled) -> Result<PlanReport> {
        let (Settled::NothingToDo { bank, .. } | Settled::ArmAgain { bank }) = settled;
        Ok(PlanReport::new(opened, bank, Vec::new()))
    }

    fn go(
        &mut self,
        device: &mut Device,
        _: Offer,
        opened: &Opened,
        (images, feed): (Vec<Surveyed>, Feed<'_, '_>),
        tally: &mut Tally,
        _: &mut dyn Progress,
    ) -> Result<PlanReport> {
        let report = PlanReport::new(opened, !device.running(), images);
        Ok(match feed {
            Feed::Ranges(_) => report,
            Feed::Stream(_) => report.of_a_stream(opened, tally.fetched_bytes),
        })
    }
}
