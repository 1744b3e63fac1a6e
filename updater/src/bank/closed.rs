//! Closing a bank that nobody wants: failed, withdrawn, or never armed. Firmware that forgets its variables starts whatever looks
//! bootable, and a kernel that dies before the initrd is then started for ever: no one is there to send the firmware back.
//!
//! Only the first block of the image `boot` is wiped; the rest stays for whoever looks into it, and the same release installed again
//! finds its other chunks in place.

use std::io;

use bank_format::{
    Bank,
    barrier::{Barrier, holds},
    record::Record,
    verity::BLOCK_BYTES,
};

use super::{PassiveBank, proof::fill};
use crate::{
    error::{Error, Result},
    ports::{Access, BankDisk},
};

/// The image that boot loaders start.
const BOOT: &str = "boot";

/// Closes the passive bank, unless it is confirmed or on trial. Nothing is written where it is closed already.
pub fn close_unwanted(disk: &dyn BankDisk, record: &Record, running: Bank) -> Result<()> {
    let Some(passive) = PassiveBank::unwanted(record, running) else { return Ok(()) };
    let bank = passive.bank();
    if !disk.images(bank).contains(BOOT) {
        return Ok(());
    }
    close(disk, bank).map_err(|source| Error::Bank {
        deed: "wipe the first block of",
        bank,
        image: BOOT.into(),
        source,
    })
}

fn close(disk: &dyn BankDisk, bank: Bank) -> io::Result<()> {
    let mut first = vec![0; BLOCK_BYTES];
    let filled = match disk.open(bank, BOOT, Access::Read) {
        Ok(mut image) => fill(image.as_mut(), 0, &mut first)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if first.iter().all(|byte| *byte == 0) {
        return Ok(());
    }
    let mut image = disk.open(bank, BOOT, Access::Write)?;
    image.write_at(0, &vec![0; filled])?;
    // Without it the wipe could wait in memory for days, and a power cut bring the bank back.
    if holds(Barrier::BankClosed) { image.flush() } else { Ok(()) }
}
