//! Readers of streams: the same pieces however the input is cut, and no panic whatever it holds.

use bank_format::{
    Error,
    bundle::{BodyReader, HeadReader, Opened, Piece},
    error::Result,
    index::ChunkTable,
};
use proptest::prelude::*;

use super::{BUNDLE, head, open, trust_root};

/// A piece that can be compared.
#[derive(Debug, PartialEq)]
pub(crate) enum Seen {
    Index(usize, ChunkTable),
    Frame(usize, usize, Vec<u8>),
}

/// Reads the body of a bundle in slices of `slice` bytes.
pub(crate) fn pieces(opened: &Opened, bundle: &[u8], slice: usize) -> Result<Vec<Seen>> {
    let start = opened.header().indexes.offset as usize;
    body(opened, bundle.get(start..).unwrap_or_default().chunks(slice))
}

fn body<'a>(opened: &Opened, slices: impl Iterator<Item = &'a [u8]>) -> Result<Vec<Seen>> {
    let mut reader = BodyReader::new(opened);
    let mut seen = Vec::new();
    for mut slice in slices {
        loop {
            let (used, piece) = reader.feed(slice)?;
            slice = &slice[used..];
            match piece {
                Some(Piece::Index { image, table }) => seen.push(Seen::Index(image, table)),
                Some(Piece::Frame { image, frame, bytes }) => seen.push(Seen::Frame(image, frame, bytes)),
                Some(Piece::End) => return Ok(seen),
                None => {
                    assert!(slice.is_empty(), "it wants more, and left some");
                    break;
                }
            }
        }
    }
    // The last frame may end with the input: then the end is told without a byte more.
    match reader.feed(&[])? {
        (0, Some(Piece::End)) => Ok(seen),
        _ => Err(reader.truncated()),
    }
}

#[test]
fn pieces_of_the_golden_bundle() {
    let opened = open(BUNDLE).unwrap();
    let seen = pieces(&opened, BUNDLE, BUNDLE.len()).unwrap();
    let shape: Vec<String> = seen
        .iter()
        .map(|piece| match piece {
            Seen::Index(image, table) => format!("index {image}: {} chunks", table.chunks().len()),
            Seen::Frame(image, frame, bytes) => format!("frame {image}.{frame}: {} bytes", bytes.len()),
        })
        .collect();
    let expected = [
        "index 0: 5 chunks",
        "index 1: 1 chunks",
        "frame 0.0: 51 bytes",
        "frame 0.1: 200 bytes",
        "frame 0.2: 18 bytes",
        "frame 1.0: 47 bytes",
    ];
    assert_eq!(shape, expected);
}

#[test]
fn every_cut_is_reported_with_what_is_missing() {
    let opened = open(BUNDLE).unwrap();
    let start = opened.header().indexes.offset as usize;
    for end in 0..BUNDLE.len() {
        let cut = &BUNDLE[..end];
        let missing =
            if end < start { head(cut).unwrap_err() } else { pieces(&opened, cut, 100).unwrap_err() };
        assert!(matches!(missing, Error::Truncated { missing_bytes: 1.., .. }), "{end}: {missing}");
    }
}

/// Sorted places to cut the bundle.
fn cuts() -> impl Strategy<Value = Vec<usize>> {
    proptest::collection::btree_set(1..BUNDLE.len(), 0..40).prop_map(|cuts| cuts.into_iter().collect())
}

fn cut<'a>(bytes: &'a [u8], cuts: &[usize]) -> Vec<&'a [u8]> {
    let ends = cuts.iter().copied().filter(|at| *at < bytes.len()).chain([bytes.len()]);
    let mut start = 0;
    ends.map(|end| {
        let part = &bytes[start..end];
        start = end;
        part
    })
    .collect()
}

/// As a device reads: the head, the signatures, then the body; the input in slices.
fn read(slices: &[&[u8]]) -> Result<Vec<Seen>> {
    let mut reader = HeadReader::default();
    let mut slices = slices.iter().copied();
    while let Some(slice) = slices.next() {
        let (used, head) = reader.feed(slice)?;
        if let Some(head) = head {
            let opened = head.verify(&trust_root())?;
            return body(&opened, std::iter::once(&slice[used..]).chain(slices));
        }
        assert_eq!(used, slice.len(), "it wants more, and left some");
    }
    Err(reader.truncated())
}

proptest! {
    #[test]
    fn any_slicing_gives_the_same_pieces(cuts in cuts()) {
        let whole = read(&[BUNDLE]).unwrap();
        prop_assert_eq!(read(&cut(BUNDLE, &cuts)).unwrap(), whole);
    }

    #[test]
    fn mutations_never_panic_and_only_frames_wait_for_their_check(
        flips in proptest::collection::vec((0..BUNDLE.len(), 1u8..), 1..6),
        cuts in cuts(),
    ) {
        let mut bytes = BUNDLE.to_vec();
        for (at, mask) in flips {
            bytes[at] ^= mask;
        }
        if let Ok(seen) = read(&cut(&bytes, &cuts)) {
            let tables = |seen: &[Seen]| seen.iter().filter(|piece| matches!(piece, Seen::Index(..))).count();
            let whole = read(&[BUNDLE]).unwrap();
            prop_assert_eq!(seen.len(), whole.len());
            prop_assert_eq!(tables(&seen), 2);
            let start = head(BUNDLE).unwrap().header().documents.offset as usize;
            prop_assert!(bytes[..start] == BUNDLE[..start], "a signed byte was changed and accepted");
        }
    }

    #[test]
    fn a_spliced_body_is_refused_or_the_same(at in 0..BUNDLE.len(), from in 0..BUNDLE.len(), bytes in 1..200usize) {
        let mut spliced = BUNDLE.to_vec();
        let part: Vec<u8> = BUNDLE.iter().skip(from).take(bytes).copied().collect();
        let end = (at + part.len()).min(spliced.len());
        spliced.splice(at..end, part);
        let _ = read(&[&spliced]);
    }
}
