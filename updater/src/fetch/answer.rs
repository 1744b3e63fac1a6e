//! What a server says about the bytes it sends, and whether it fits what was asked. Pure.

use std::time::Duration;

use time::{OffsetDateTime, format_description::well_known::Rfc2822};

use super::FetchError;
use crate::ports::Response;

fn wrong(detail: impl Into<String>) -> FetchError {
    FetchError::Protocol { detail: detail.into() }
}

/// `Content-Range: bytes FIRST-LAST/TOTAL` (RFC 9110, 14.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ContentRange {
    /// First byte.
    pub first: u64,
    /// Last byte, included.
    pub last: u64,
    /// Bytes of the whole file, unless the server does not know.
    pub total: Option<u64>,
}

impl ContentRange {
    /// Reads the header of a 206.
    pub fn of(response: &Response) -> Result<Self, FetchError> {
        let value = response
            .header("content-range")
            .ok_or_else(|| wrong("a part of the file that does not say which part"))?;
        Self::parse(value).ok_or_else(|| wrong(format!("Content-Range {value:?} cannot be read")))
    }

    fn parse(value: &str) -> Option<Self> {
        let digits = |text: &str| {
            if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse::<u64>().ok() } else { None }
        };
        let (range, total) = value.trim().strip_prefix("bytes ")?.trim().split_once('/')?;
        let (first, last) = range.split_once('-')?;
        let total = if total == "*" { None } else { Some(digits(total)?) };
        let (first, last) = (digits(first)?, digits(last)?);
        let sound = first <= last && last < u64::MAX && total.is_none_or(|total| last < total);
        sound.then_some(Self { first, last, total })
    }

    /// Bytes of the part.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.last - self.first + 1
    }

    /// The part must begin where it was asked for, and must not be longer. It may be shorter.
    pub fn check(&self, first: u64, last: u64) -> Result<(), FetchError> {
        if self.first == first && self.last <= last {
            Ok(())
        } else {
            Err(wrong(format!("asked for bytes {first}-{last}, it sends {}-{}", self.first, self.last)))
        }
    }
}

/// What must not change while a file is fetched in parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    etag: Option<String>,
    last_modified: Option<String>,
    /// Bytes of the file.
    pub total_bytes: Option<u64>,
}

impl Identity {
    /// From the fields of an answer.
    #[must_use]
    pub fn of(response: &Response, total_bytes: Option<u64>) -> Self {
        let field = |name| response.header(name).map(str::to_owned);
        Self { etag: field("etag"), last_modified: field("last-modified"), total_bytes }
    }

    /// Compares what both answers tell.
    pub fn same_as(&self, other: &Self) -> Result<(), FetchError> {
        fn differ<T: PartialEq>(one: &Option<T>, two: &Option<T>) -> bool {
            matches!((one, two), (Some(one), Some(two)) if one != two)
        }
        if differ(&self.total_bytes, &other.total_bytes) {
            return Err(FetchError::Changed { what: "length" });
        }
        // Weak tags of one file may differ between the servers behind one name: equal is equal, different says nothing.
        let strong = |tag: &Option<String>| tag.clone().filter(|tag| !tag.starts_with("W/"));
        if differ(&strong(&self.etag), &strong(&other.etag)) {
            return Err(FetchError::Changed { what: "ETag" });
        }
        if differ(&self.last_modified, &other.last_modified) {
            return Err(FetchError::Changed { what: "Last-Modified" });
        }
        Ok(())
    }
}

/// Encoded bodies are refused: offsets would mean nothing in them, and nobody asked.
pub(super) fn check_encoding(response: &Response) -> Result<(), FetchError> {
    match response.header("content-encoding") {
        None | Some("" | "identity") => Ok(()),
        Some(other) => Err(wrong(format!("it sends the file with Content-Encoding {other:?}, unasked"))),
    }
}

/// `Retry-After`: seconds, or an HTTP date.
pub(super) fn retry_after(response: &Response, now_unix_seconds: i64) -> Option<Duration> {
    let value = response.header("retry-after")?.trim();
    if let Ok(seconds) = value.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let when = OffsetDateTime::parse(value, &Rfc2822).ok()?.unix_timestamp();
    Some(Duration::from_secs(u64::try_from(when.saturating_sub(now_unix_seconds)).unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn response(headers: &[(&str, &str)]) -> Response {
        Response {
            status: 206,
            headers: headers.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect(),
            body: Box::new(std::io::empty()),
        }
    }

    #[test]
    fn ranges_that_lie_are_refused() {
        let good = ContentRange::parse("bytes 5-9/10").unwrap();
        assert_eq!(good, ContentRange { first: 5, last: 9, total: Some(10) });
        assert_eq!(good.bytes(), 5);
        assert!(good.check(5, 9).is_ok());
        assert!(good.check(5, 20).is_ok(), "less than asked for");
        assert!(good.check(4, 9).is_err());
        assert!(good.check(5, 8).is_err(), "more than asked for");
        for bad in [
            "bytes 5-4/10",
            "bytes 5-10/10",
            "bytes -5/10",
            "bytes */10",
            "bytes 5-9",
            "items 5-9/10",
            "bytes +5-9/10",
            "bytes 0-18446744073709551615/*",
            "bytes 0-99999999999999999999/*",
            "",
        ] {
            assert_eq!(ContentRange::parse(bad), None, "{bad}");
        }
        assert_eq!(ContentRange::parse("bytes 0-3/*").unwrap().total, None);
        assert!(ContentRange::of(&response(&[])).is_err());
    }

    #[test]
    fn a_file_that_changes_is_noticed() {
        let of = |headers: &[(&str, &str)], total| Identity::of(&response(headers), total);
        let first = of(&[("etag", "\"1\""), ("last-modified", "x")], Some(10));
        assert!(first.same_as(&first).is_ok());
        assert!(first.same_as(&of(&[("etag", "\"2\"")], Some(10))).is_err());
        assert!(first.same_as(&of(&[("etag", "\"1\"")], Some(11))).is_err());
        assert!(first.same_as(&of(&[("last-modified", "y")], None)).is_err());
        assert!(first.same_as(&of(&[], None)).is_ok(), "what is not said cannot differ");
        assert!(of(&[("etag", "W/\"1\"")], None).same_as(&of(&[("etag", "W/\"2\"")], None)).is_ok());
    }

    #[test]
    fn pauses_that_servers_ask_for() {
        let at = |value| retry_after(&response(&[("retry-after", value)]), 784_111_770);
        assert_eq!(at("120"), Some(Duration::from_secs(120)));
        assert_eq!(at("Sun, 06 Nov 1994 08:49:37 GMT"), Some(Duration::from_secs(7)));
        assert_eq!(at("Sun, 06 Nov 1993 08:49:37 GMT"), Some(Duration::ZERO));
        assert_eq!(at("soon"), None);
        assert!(check_encoding(&response(&[("content-encoding", "gzip")])).is_err());
        assert!(check_encoding(&response(&[("content-encoding", "identity")])).is_ok());
    }

    proptest! {
        #[test]
        fn never_panics(text in ".{0,40}") {
            let _ = ContentRange::parse(&text);
            let _ = retry_after(&response(&[("retry-after", &text)]), 0);
        }
    }
}
