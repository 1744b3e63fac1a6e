//! The one place where the mint asks for the time: `SOURCE_DATE_EPOCH` first, so that outputs can be made again.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::error::{Error, Result};

/// `SOURCE_DATE_EPOCH`, seconds since 1970; `None` when it is not set.
pub fn source_date_epoch() -> Result<Option<u64>> {
    let Some(value) = std::env::var_os("SOURCE_DATE_EPOCH") else {
        return Ok(None);
    };
    value.to_str().and_then(|text| text.trim().parse().ok()).map(Some).ok_or_else(|| {
        Error::usage(format!("SOURCE_DATE_EPOCH is {value:?}"), "set it to seconds since 1970, or unset it")
    })
}

/// `SOURCE_DATE_EPOCH`, or else the clock, seconds since 1970.
pub fn epoch_unix_seconds() -> Result<u64> {
    Ok(source_date_epoch()?.unwrap_or_else(now_unix_seconds))
}

/// The clock, for what was used last.
#[must_use]
pub fn now() -> SystemTime {
    SystemTime::now()
}

/// The clock, seconds since 1970, whatever `SOURCE_DATE_EPOCH` says: for the question whether something has expired.
#[must_use]
pub fn now_unix_seconds() -> u64 {
    now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
