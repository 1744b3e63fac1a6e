//! What rots while the board is off, byte by byte.

use bank_format::{
    Bank,
    loader::uboot::{PARTITION_ENV_BYTES, decode_copy},
    record::COPY_BYTES,
};
use boot_hooks::scenarios::Damage;

use super::{
    device::{Contents, RECORD},
    odd,
    payload::{HEADER_BYTES, MAGIC, MAGIC_AT},
};
use crate::error::Result;

/// Where the sequence number stands in a copy of the record.
const SEQUENCE_AT: usize = 16;
const BLOCK_BYTES: usize = 4096;

/// Damages what is on stable storage.
pub fn wound(contents: &mut Contents, damage: Damage) -> Result<()> {
    match damage {
        Damage::OneRecordCopy => {
            let bytes = file(contents, RECORD);
            let newer = if sequence(bytes, COPY_BYTES) > sequence(bytes, 0) { COPY_BYTES } else { 0 };
            garble(bytes, newer);
        }
        Damage::Record => {
            let bytes = file(contents, RECORD);
            garble(bytes, 0);
            garble(bytes, COPY_BYTES);
        }
        Damage::OneLoaderCopy => {
            let newer = newer_environment(&contents.environment);
            garble(&mut contents.environment, newer * PARTITION_ENV_BYTES);
        }
        Damage::Loader => {
            garble(&mut contents.environment, 0);
            garble(&mut contents.environment, PARTITION_ENV_BYTES);
        }
        Damage::BootImage(bank) => {
            file(contents, boot_image(bank)).iter_mut().take(BLOCK_BYTES).for_each(|byte| *byte = 0);
        }
        Damage::Kernel(bank) => {
            let bytes = file(contents, boot_image(bank));
            let magic = bytes.windows(MAGIC.len()).position(|window| window == MAGIC);
            let header = magic.and_then(|at| at.checked_sub(MAGIC_AT));
            let header = header.ok_or_else(|| odd("the kernel to be damaged", &"there is none"))?;
            // Words of zeros are no instruction (UDF): the kernel dies by an exception, before it says a word.
            bytes.iter_mut().skip(header + HEADER_BYTES).take(16).for_each(|byte| *byte = 0);
        }
        Damage::RootImage(bank) => {
            let name = match bank {
                Bank::A => "dev/mmcblk0p5",
                Bank::B => "dev/mmcblk0p6",
            };
            garble(file(contents, name), BLOCK_BYTES);
        }
    }
    Ok(())
}

fn boot_image(bank: Bank) -> &'static str {
    match bank {
        Bank::A => "dev/mmcblk0p3",
        Bank::B => "dev/mmcblk0p4",
    }
}

fn file<'c>(contents: &'c mut Contents, name: &str) -> &'c mut Vec<u8> {
    contents.files.entry(name.into()).or_default()
}

fn garble(bytes: &mut [u8], at: usize) {
    bytes.iter_mut().skip(at).take(64).for_each(|byte| *byte ^= 0x5a);
}

fn sequence(bytes: &[u8], copy: usize) -> u64 {
    let at = copy + SEQUENCE_AT;
    bytes.get(at..at + 8).unwrap_or_default().iter().rev().fold(0, |all, byte| all << 8 | u64::from(*byte))
}

/// As U-Boot compares serials: 0 comes after 255.
fn newer_environment(environment: &[u8]) -> usize {
    let serial = |copy: usize| {
        let bytes =
            environment.get(copy * PARTITION_ENV_BYTES..).and_then(|rest| rest.get(..PARTITION_ENV_BYTES));
        bytes.and_then(decode_copy).map(|(serial, _)| serial)
    };
    match (serial(0), serial(1)) {
        (Some(u8::MAX), Some(0)) | (None, Some(_)) => 1,
        (Some(0), Some(u8::MAX)) => 0,
        (Some(first), Some(second)) => usize::from(second > first),
        (Some(_), None) | (None, None) => 0,
    }
}
