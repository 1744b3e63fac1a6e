//! The fixed head of a bundle: 128 bytes that say where the sections are.
//!
//! The header is not signed, and needs not be: every field follows from the signed manifest and the number of
//! signatures, and [`crate::bundle::Head::verify`] compares all of them. All numbers are little-endian.

use crate::{
    error::{Error, Result},
    limits::MAX_MANIFEST_BYTES,
    signatures,
};

/// Bytes of the header.
pub const HEADER_BYTES: usize = 128;
/// The first bytes of every bundle: a byte that is no text, the name, and line ends that careless transfers change.
pub const MAGIC: [u8; 8] = *b"\x89RORO\r\n\x1a";
/// The format that this code writes and reads.
pub const FORMAT: u16 = 1;
const STRUCTURE: &str = "bundle header";

/// A run of bytes in the bundle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Section {
    /// Bytes from the start of the bundle.
    pub offset: u64,
    /// Bytes.
    pub bytes: u64,
}

impl Section {
    /// First byte behind the section; `None` beyond 64 bits.
    #[must_use]
    pub fn end(&self) -> Option<u64> {
        self.offset.checked_add(self.bytes)
    }
}

/// Where the sections of a bundle are. They follow each other without gaps, in the order of the fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The signed TOML.
    pub manifest: Section,
    /// Key ids and signatures.
    pub signatures: Section,
    /// One chunk table per image.
    pub indexes: Section,
    /// Package list, SBOM.
    pub documents: Section,
    /// Compressed chunks.
    pub frames: Section,
    /// Patches against base releases.
    pub deltas: Section,
}

impl Header {
    /// Lays sections of these sizes behind the header.
    pub fn lay_out(bytes: [u64; 6]) -> Result<Self> {
        let mut offset = HEADER_BYTES as u64;
        let mut sections = [Section::default(); 6];
        for (section, bytes) in sections.iter_mut().zip(bytes) {
            *section = Section { offset, bytes };
            offset =
                section.end().ok_or_else(|| Error::malformed(STRUCTURE, "sections end beyond 64 bits"))?;
        }
        let [manifest, signatures, indexes, documents, frames, deltas] = sections;
        Ok(Self { manifest, signatures, indexes, documents, frames, deltas })
    }

    /// The sections in their order.
    #[must_use]
    pub fn sections(&self) -> [Section; 6] {
        [self.manifest, self.signatures, self.indexes, self.documents, self.frames, self.deltas]
    }

    /// Bytes of the whole bundle.
    #[must_use]
    pub fn total_bytes(&self) -> u64 {
        self.deltas.offset.saturating_add(self.deltas.bytes)
    }

    /// The 128 bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = Vec::with_capacity(HEADER_BYTES);
        bytes.extend(MAGIC);
        bytes.extend(FORMAT.to_le_bytes());
        bytes.extend(FORMAT.to_le_bytes());
        bytes.extend((HEADER_BYTES as u32).to_le_bytes());
        for section in self.sections() {
            bytes.extend(section.offset.to_le_bytes());
            bytes.extend(section.bytes.to_le_bytes());
        }
        bytes.extend(self.total_bytes().to_le_bytes());
        bytes.extend(0u32.to_le_bytes());
        bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
        let mut out = [0; HEADER_BYTES];
        for (to, from) in out.iter_mut().zip(bytes) {
            *to = from;
        }
        out
    }

    /// Reads a header. Anything but the canonical layout is refused.
    pub fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<Self> {
        let mut reader = Reader::new(STRUCTURE, bytes);
        if reader.array::<8>()? != MAGIC {
            return Err(Error::WrongMagic { structure: "Roro bundle" });
        }
        let format = reader.u16()?;
        let min_reader = reader.u16()?;
        if min_reader > FORMAT {
            return Err(Error::NewerFormat { structure: "bundle", min_reader, supported: FORMAT });
        }
        if format != FORMAT || min_reader == 0 {
            return Err(Error::malformed(STRUCTURE, format!("format {format} does not exist")));
        }
        let header_bytes = reader.u32()?;
        let mut sections = [Section::default(); 6];
        for section in &mut sections {
            *section = Section { offset: reader.u64()?, bytes: reader.u64()? };
        }
        let total_bytes = reader.u64()?;
        let reserved = reader.u32()?;
        let crc = reader.u32()?;
        let covered = bytes.get(..HEADER_BYTES - 4).unwrap_or_default();
        if crc32fast::hash(covered) != crc {
            return Err(Error::malformed(
                STRUCTURE,
                "checksum does not match: the file is damaged, fetch it again",
            ));
        }
        let header = Self::lay_out(sections.map(|section| section.bytes))?;
        if header.sections() != sections
            || total_bytes != header.total_bytes()
            || reserved != 0
            || header_bytes as usize != HEADER_BYTES
        {
            return Err(Error::malformed(STRUCTURE, "sections overlap, leave gaps or are out of order"));
        }
        if header.manifest.bytes > MAX_MANIFEST_BYTES {
            return Err(Error::TooLarge {
                structure: "manifest",
                value: header.manifest.bytes,
                limit: MAX_MANIFEST_BYTES,
            });
        }
        if header.signatures.bytes > signatures::MAX_SECTION_BYTES {
            return Err(Error::TooLarge {
                structure: "signatures",
                value: header.signatures.bytes,
                limit: signatures::MAX_SECTION_BYTES,
            });
        }
        Ok(header)
    }
}

/// Little-endian fields out of a slice, each read bounded.
#[derive(Debug, Clone)]
pub(crate) struct Reader<'a> {
    structure: &'static str,
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(structure: &'static str, bytes: &'a [u8]) -> Self {
        Self { structure, rest: bytes }
    }

    pub(crate) fn structure(&self) -> &'static str {
        self.structure
    }

    pub(crate) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        match self.rest.split_first_chunk::<N>() {
            Some((head, rest)) => {
                self.rest = rest;
                Ok(*head)
            }
            None => Err(Error::Truncated {
                structure: self.structure,
                missing_bytes: (N - self.rest.len().min(N)) as u64,
            }),
        }
    }

    pub(crate) fn u16(&mut self) -> Result<u16> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    pub(crate) fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(crate) fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_flipped_bit_is_refused() {
        let good = Header::lay_out([10, 100, 1000, 0, 5000, 0]).unwrap().encode();
        assert!(Header::decode(&good).is_ok());
        for bit in 0..HEADER_BYTES * 8 {
            let mut bad = good;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(Header::decode(&bad).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_newer_format_is_named_before_the_rest_is_read() {
        let mut bytes = Header::lay_out([1, 1, 1, 1, 1, 1]).unwrap().encode();
        bytes[8] = 9;
        bytes[10] = 9;
        assert!(matches!(Header::decode(&bytes), Err(Error::NewerFormat { min_reader: 9, .. })));
    }

    #[test]
    fn sizes_of_two_to_the_63_do_not_wrap() {
        assert!(Header::lay_out([1 << 63, 1 << 63, 0, 0, 0, 0]).is_err());
        let huge = Header::lay_out([1, 1, 1 << 62, 0, 1 << 62, 0]).unwrap().encode();
        assert!(Header::decode(&huge).is_ok(), "large sections are refused later, against the manifest");
        let manifest = Header::lay_out([1 << 62, 1, 0, 0, 0, 0]).unwrap().encode();
        assert!(matches!(Header::decode(&manifest), Err(Error::TooLarge { .. })));
    }

    proptest! {
        #[test]
        fn never_panics(bytes in proptest::array::uniform32(any::<u8>()), more in proptest::collection::vec(any::<u8>(), 96)) {
            let mut all = [0; HEADER_BYTES];
            all[..32].copy_from_slice(&bytes);
            all[32..].copy_from_slice(&more);
            let _ = Header::decode(&all);
            all[..8].copy_from_slice(&MAGIC);
            let crc = crc32fast::hash(&all[..124]).to_le_bytes();
            all[124..].copy_from_slice(&crc);
            let _ = Header::decode(&all);
        }

        #[test]
        fn round_trip(sizes in proptest::array::uniform4(0u64..1 << 40), manifest in 0u64..MAX_MANIFEST_BYTES) {
            let header = Header::lay_out([manifest, 100, sizes[0], sizes[1], sizes[2], sizes[3]]).unwrap();
            prop_assert_eq!(Header::decode(&header.encode()).unwrap(), header);
        }
    }
}
