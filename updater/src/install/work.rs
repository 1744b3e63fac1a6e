//! The deeds of an install on the passive bank: wipe, write, read back.

use std::collections::BTreeMap;

use bank_format::{
    Bank,
    bundle::{Opened, Piece},
    record::ImageProof,
};

use super::{
    NO_SUCH_IMAGE, plan::Run, pour::Pour, report::Tally, source::Ranges, stream::StreamFeed, survey::Surveyed,
};
use crate::{
    bank::{BankWriter, PassiveBank, Staged},
    device::BankWork,
    error::{Error, Result},
    ports::{Access, BankDisk, Clock, Phase, Progress},
};

/// Where patches and frames come from.
pub enum Feed<'a, 'o> {
    /// From any place of the bundle.
    Ranges(&'a mut dyn Ranges),
    /// In their order.
    Stream(Box<StreamFeed<'a, 'o>>),
}

/// An install under way.
pub struct InstallWork<'w, 'a, 'o> {
    /// The banks.
    pub disk: &'w dyn BankDisk,
    /// Time.
    pub clock: &'w dyn Clock,
    /// The bank that runs.
    pub active: Bank,
    /// The bundle.
    pub opened: &'o Opened,
    /// Its images.
    pub images: Vec<Surveyed>,
    /// Its bytes.
    pub feed: Feed<'a, 'o>,
    /// The passive bank, once it is open.
    pub writer: Option<BankWriter<'o>>,
    /// What was read back.
    pub proofs: BTreeMap<String, ImageProof>,
    /// What is counted.
    pub tally: &'w mut Tally,
    /// Who watches.
    pub progress: &'w mut dyn Progress,
}

const NOT_OPEN: Error = Error::Bug { detail: "the passive bank is not open" };

impl InstallWork<'_, '_, '_> {
    fn total_bytes(&self) -> u64 {
        self.images.iter().map(|image| image.table.image_bytes()).sum()
    }

    fn write_image(&mut self, number: usize) -> Result<()> {
        let writer = self.writer.as_mut().ok_or(NOT_OPEN)?;
        let Surveyed { table, plan, patches, patches_section, .. } =
            self.images.get_mut(number).ok_or(NO_SUCH_IMAGE)?;
        let name = self.opened.manifest().images.get(number).map_or("", |entry| entry.name.as_str());
        let progress = &mut *self.progress;
        let active = self.disk.open(self.active, name, Access::Read).ok();
        let mut pour = Pour::new((number, name), table, plan, writer, active, self.tally)?;
        pour.stay_and_zeros(progress)?;
        match &mut self.feed {
            Feed::Ranges(ranges) => {
                let runs = pour.plan.patch_runs(patches);
                ranges.expect(&places(patches_section.offset, &runs));
                for run in runs {
                    let mut cutter = pour.patches_of(&run, patches);
                    let offset = patches_section.offset + run.offset;
                    ranges.read(offset, run.bytes, progress, &mut |bytes, progress| {
                        cutter.feed(bytes, &mut |number, stored| match patches.get(number) {
                            Some(patch) => pour.patch(patch, stored, progress),
                            None => Ok(()),
                        })
                    })?;
                }
                pour.all_copies(progress)?;
                pour.fetch_the_rest();
                let section = self.opened.frames_section(number).ok_or(NO_SUCH_IMAGE)?;
                let runs = pour.plan.frame_runs(pour.table);
                ranges.expect(
                    &runs.iter().map(|run| (section.offset + run.offset, run.bytes)).collect::<Vec<_>>(),
                );
                for run in runs {
                    let mut cutter = pour.frames_of(&run);
                    ranges.read(
                        section.offset + run.offset,
                        run.bytes,
                        progress,
                        &mut |bytes, progress| {
                            cutter.feed(bytes, &mut |number, stored| pour.frame(number, stored, progress))
                        },
                    )?;
                }
            }
            Feed::Stream(feed) => {
                // What is lost must be known before the frames go by.
                pour.all_copies(progress)?;
                pour.fetch_the_rest();
                for frame in 0..pour.table.frames().len() {
                    match feed.next(pour.tally)? {
                        Piece::Frame { bytes, .. } => pour.frame(frame, bytes, progress)?,
                        Piece::Index { .. } | Piece::End => return Err(NO_SUCH_IMAGE),
                    }
                }
            }
        }
        pour.drain(progress)?;
        pour.check_done()
    }
}

/// Offsets and bytes in the bundle.
fn places(section_offset: u64, runs: &[Run]) -> Vec<(u64, u64)> {
    runs.iter().map(|run| (section_offset + run.offset, run.bytes)).collect()
}

impl BankWork for InstallWork<'_, '_, '_> {
    fn wipe(&mut self, passive: PassiveBank) -> Result<()> {
        self.writer = Some(BankWriter::open(self.disk, passive, self.opened.manifest())?);
        Ok(())
    }

    fn write(&mut self) -> Result<()> {
        self.progress.begin(Phase::Write, self.total_bytes());
        (0..self.images.len()).try_for_each(|number| self.write_image(number))
    }

    fn read_back(&mut self) -> Result<Staged> {
        let writer = self.writer.take().ok_or(NOT_OPEN)?;
        self.progress.begin(Phase::ReadBack, self.total_bytes());
        let start = self.clock.monotonic();
        let tables: Vec<_> = self.images.iter().map(|image| &image.table).collect();
        let (staged, proofs, written_bytes) = writer.finalize(self.disk, &tables, self.progress)?;
        self.tally.written_bytes += written_bytes;
        self.tally.readback_seconds = self.clock.monotonic().saturating_sub(start).as_secs_f64();
        self.proofs = proofs;
        Ok(staged)
    }
}
