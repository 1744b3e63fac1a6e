//! Where the two copies of the environment lie: the file `fw_env.config` of U-Boot's own tools.
//!
//! A line is `DEVICE OFFSET SIZE` and may go on with sizes of flash sectors, which only matter to raw flash. The offset is a number as
//! in C (`0x4000`, `16384`); the size is hexadecimal, with or without `0x`, as the tools read it.

use super::{HEAD_BYTES, STRUCTURE};
use crate::{
    error::{Error, Result},
    limits::MAX_UBOOT_ENV_BYTES,
};

/// Where one copy lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Path of a block device or file.
    pub device: String,
    /// Bytes from its start.
    pub offset_bytes: u64,
}

/// Both copies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// Where they lie.
    pub copies: [Place; 2],
    /// Bytes of each.
    pub env_bytes: usize,
}

impl Layout {
    /// Reads a `fw_env.config`. The error names the line.
    pub fn parse(text: &str) -> Result<Self> {
        let mut found = Vec::new();
        for (line, number) in text.lines().zip(1usize..) {
            let line = line.trim();
            if !line.is_empty() && !line.starts_with('#') {
                let place = place(line)
                    .map_err(|why| Error::malformed("fw_env.config", format!("line {number}: {why}")))?;
                found.push(place);
            }
        }
        let [(first, first_bytes), (second, second_bytes)] =
            <[(Place, usize); 2]>::try_from(found).map_err(|found| {
                let lines = found.len();
                Error::malformed(
                    "fw_env.config",
                    format!(
                        "{lines} lines with a device, two are needed: with one copy a power cut while it is written loses the environment"
                    ),
                )
            })?;
        if first_bytes != second_bytes {
            return Err(Error::malformed("fw_env.config", "both copies must have the same size"));
        }
        let apart = first.offset_bytes.abs_diff(second.offset_bytes) >= first_bytes as u64;
        if first.device == second.device && !apart {
            return Err(Error::malformed("fw_env.config", "the copies lie upon each other"));
        }
        Ok(Self { copies: [first, second], env_bytes: first_bytes })
    }
}

fn place(line: &str) -> Result<(Place, usize), String> {
    let mut words = line.split_whitespace();
    let (Some(device), Some(offset), Some(size)) = (words.next(), words.next(), words.next()) else {
        return Err("expected DEVICE OFFSET SIZE".to_owned());
    };
    if device.starts_with("/dev/mtd") || device.starts_with("/dev/ubi") {
        return Err(format!("{device} is raw flash: take a block device or a file, or the backend script"));
    }
    if offset.starts_with('-') {
        return Err(format!("offset {offset}: give it from the start of the device"));
    }
    let offset_bytes = number(offset).ok_or_else(|| format!("offset {offset:?} is no number"))?;
    let hexadecimal = size.strip_prefix("0x").or_else(|| size.strip_prefix("0X")).unwrap_or(size);
    let env_bytes = usize::from_str_radix(hexadecimal, 16)
        .map_err(|_| format!("size {size:?} is no hexadecimal number"))?;
    if !(HEAD_BYTES + 2..=MAX_UBOOT_ENV_BYTES).contains(&env_bytes) {
        return Err(format!("{env_bytes} bytes are no size of a {STRUCTURE}, at most {MAX_UBOOT_ENV_BYTES}"));
    }
    Ok((Place { device: device.to_owned(), offset_bytes }, env_bytes))
}

/// As `strtoll` with base 0 reads it.
fn number(text: &str) -> Option<u64> {
    let hexadecimal = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"));
    let octal = text.strip_prefix('0').filter(|rest| !rest.is_empty());
    let (digits, radix) = match (hexadecimal, octal) {
        (Some(digits), _) => (digits, 16),
        (None, Some(digits)) => (digits, 8),
        (None, None) => (text, 10),
    };
    u64::from_str_radix(digits, radix).ok().filter(|number| i64::try_from(*number).is_ok())
}
