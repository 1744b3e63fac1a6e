//! Numbers of as many bytes as they need: LEB128, seven bits a byte, the lowest first, the top bit where more follow.
//!
//! One number has one form: a longer one is refused, so that tables which are compared by digest can be made anew. A signed number
//! is folded to an unsigned one first (zigzag: 0, -1, 1, -2, ...).

use crate::{
    error::{Error, Result},
    header::Reader,
};

/// Bytes of the longest form: nine of seven bits, and one bit more.
const MOST_BYTES: u32 = 10;

/// Appends a number.
pub(crate) fn put(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends a signed number.
pub(crate) fn put_signed(out: &mut Vec<u8>, value: i64) {
    put(out, ((value as u64) << 1) ^ ((value >> 63) as u64));
}

impl Reader<'_> {
    /// A number in its shortest form.
    pub(crate) fn varint(&mut self) -> Result<u64> {
        let mut value = 0u64;
        for place in 0..MOST_BYTES {
            let [byte] = self.array()?;
            let bits = u64::from(byte & 0x7f);
            if place == MOST_BYTES - 1 && byte > 1 {
                return Err(Error::malformed(self.structure(), "a number has more than 64 bits"));
            }
            value |= bits << (7 * place);
            if byte < 0x80 {
                return if byte == 0 && place > 0 {
                    Err(Error::malformed(self.structure(), "a number is longer than it needs to be"))
                } else {
                    Ok(value)
                };
            }
        }
        Err(Error::malformed(self.structure(), "a number has more than 64 bits"))
    }

    /// A signed number.
    pub(crate) fn signed_varint(&mut self) -> Result<i64> {
        let folded = self.varint()?;
        Ok((folded >> 1) as i64 ^ -((folded & 1) as i64))
    }

    /// A number of `subject`, refused above `limit`.
    pub(crate) fn at_most(&mut self, subject: &'static str, limit: u32) -> Result<u32> {
        bounded(subject, self.varint()?, limit)
    }

    /// Refuses bytes behind the structure.
    pub(crate) fn end(&self) -> Result<()> {
        if self.rest().is_empty() {
            Ok(())
        } else {
            Err(Error::malformed(self.structure(), "there are bytes behind its end"))
        }
    }
}

/// `value`, refused above `limit`.
pub(crate) fn bounded(structure: &'static str, value: u64, limit: u32) -> Result<u32> {
    u32::try_from(value).ok().filter(|value| *value <= limit).ok_or(Error::TooLarge {
        structure,
        value,
        limit: limit.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(bytes: &[u8]) -> Result<u64> {
        let mut reader = Reader::new("number", bytes);
        let value = reader.varint()?;
        reader.end().map(|()| value)
    }

    #[test]
    fn forms() {
        let cases: &[(u64, &[u8])] = &[
            (0, &[0]),
            (127, &[0x7f]),
            (128, &[0x80, 1]),
            (300, &[0xac, 2]),
            (u64::MAX, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]),
        ];
        for (value, form) in cases {
            let mut bytes = Vec::new();
            put(&mut bytes, *value);
            assert_eq!(&bytes, form);
            assert_eq!(read(form).unwrap(), *value);
        }
        for (value, form) in [(0i64, 0u8), (-1, 1), (1, 2), (-2, 3), (63, 126), (-64, 127)] {
            let mut bytes = Vec::new();
            put_signed(&mut bytes, value);
            assert_eq!(bytes, [form]);
        }
    }

    #[test]
    fn other_forms_are_refused() {
        let bad: &[&[u8]] = &[
            &[],
            &[0x80],
            &[0x80, 0],
            &[0xff, 0x80, 0],
            &[0x80; 10],
            &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2],
            &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x81, 0],
            &[1, 1],
        ];
        for form in bad {
            assert!(read(form).is_err(), "{form:02x?}");
        }
    }

    proptest! {
        #[test]
        fn round_trip(value in any::<u64>(), shift in 0u32..64) {
            let value = value >> shift;
            let mut bytes = Vec::new();
            put(&mut bytes, value);
            prop_assert_eq!(read(&bytes).unwrap(), value);
            let signed = value as i64;
            let mut bytes = Vec::new();
            put_signed(&mut bytes, signed);
            prop_assert_eq!(Reader::new("number", &bytes).signed_varint().unwrap(), signed);
        }

        #[test]
        fn what_is_read_is_written_the_same(bytes in proptest::collection::vec(any::<u8>(), 0..12)) {
            let mut reader = Reader::new("number", &bytes);
            if let Ok(value) = reader.varint() {
                let mut again = Vec::new();
                put(&mut again, value);
                prop_assert_eq!(&again[..], &bytes[..bytes.len() - reader.rest().len()]);
            }
        }
    }
}
