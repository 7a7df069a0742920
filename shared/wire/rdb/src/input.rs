//! Numbers and strings as a file writes them, read from bytes that may not all be there yet.
//!
//! ```text
//!   00LLLLLL                     a length below 64
//!   01LLLLLL LLLLLLLL            below 16384
//!   10000000 4 bytes  10000001 8 bytes, the highest first
//!   11000000 i8  11000001 i16  11000010 i32    a string that is a number
//!   11000011 length length bytes               a string packed with LZF
//! ```

use bytes::Bytes;

use crate::error::{RdbError, Stop, corrupt};
use crate::lzf;

/// The most bytes of one string or packed node, which is what Redis takes in one request.
pub const STRING_BYTES_MAX: u64 = 512 << 20;

/// What has arrived, and how much of it is read.
pub(crate) struct Input<'a> {
    bytes: &'a [u8],
    pub(crate) at: usize,
}

/// A length, or how a string is written that has none.
enum Length {
    Plain(u64),
    Special(u8),
}

impl<'a> Input<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Input<'a> {
        Input { bytes, at: 0 }
    }

    /// Reads a part as a whole or, when it has not all arrived, nothing of it.
    pub(crate) fn whole<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, Stop>,
    ) -> Result<T, Stop> {
        let start = self.at;
        let got = read(self);
        if matches!(got, Err(Stop::More)) {
            self.at = start;
        }
        got
    }

    pub(crate) fn take(&mut self, len: usize) -> Result<&'a [u8], Stop> {
        let rest = &self.bytes[self.at..];
        let taken = rest.get(..len).ok_or(Stop::More)?;
        self.at += len;
        Ok(taken)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], Stop> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    pub(crate) fn byte(&mut self) -> Result<u8, Stop> {
        Ok(self.array::<1>()?[0])
    }

    pub(crate) fn is_at_end(&self) -> bool {
        self.at == self.bytes.len()
    }

    fn length_or_special(&mut self) -> Result<Length, Stop> {
        let first = self.byte()?;
        Ok(Length::Plain(match (first >> 6, first) {
            (0, _) => u64::from(first),
            (1, _) => u64::from(first & 0x3f) << 8 | u64::from(self.byte()?),
            (2, 0x80) => u64::from(u32::from_be_bytes(self.array()?)),
            (2, 0x81) => u64::from_be_bytes(self.array()?),
            (2, _) => return corrupt("a length has no meaning"),
            _ => return Ok(Length::Special(first & 0x3f)),
        }))
    }

    /// A length, or a number that is written as one.
    pub(crate) fn length(&mut self) -> Result<u64, Stop> {
        match self.length_or_special()? {
            Length::Plain(length) => Ok(length),
            Length::Special(_) => corrupt("a string where a length belongs"),
        }
    }

    fn string_length(&mut self) -> Result<usize, Stop> {
        let length = self.length()?;
        bounded(length)
    }

    pub(crate) fn string(&mut self) -> Result<Bytes, Stop> {
        let number = match self.length_or_special()? {
            Length::Plain(length) => {
                let len = bounded(length)?;
                return Ok(Bytes::copy_from_slice(self.take(len)?));
            }
            Length::Special(0) => i64::from(i8::from_le_bytes(self.array()?)),
            Length::Special(1) => i64::from(i16::from_le_bytes(self.array()?)),
            Length::Special(2) => i64::from(i32::from_le_bytes(self.array()?)),
            Length::Special(3) => {
                let packed = self.string_length()?;
                let len = self.string_length()?;
                return Ok(lzf::unpack(self.take(packed)?, len as u64)?.into());
            }
            Length::Special(_) => return corrupt("a string has an encoding of no meaning"),
        };
        Ok(decimal(number))
    }

    /// Passes over a string, as cheaply as its length is read.
    pub(crate) fn skip_string(&mut self) -> Result<(), Stop> {
        let len = match self.length_or_special()? {
            Length::Plain(length) => bounded(length)?,
            Length::Special(special @ 0..=2) => 1 << special,
            Length::Special(3) => {
                let packed = self.string_length()?;
                self.string_length()?;
                packed
            }
            Length::Special(_) => return corrupt("a string has an encoding of no meaning"),
        };
        self.take(len)?;
        Ok(())
    }

    /// Two strings that belong together. The first is not copied before the second is there, as
    /// that would be done again with every piece of the second that arrives.
    pub(crate) fn two_strings(&mut self) -> Result<(Bytes, Bytes), Stop> {
        self.whole(|input| {
            let start = input.at;
            input.skip_string()?;
            input.skip_string()?;
            input.at = start;
            Ok((input.string()?, input.string()?))
        })
    }

    /// A score as decimal text, as files of versions 1 to 7 have it.
    pub(crate) fn score_text(&mut self) -> Result<f64, Stop> {
        let len = self.byte()?;
        match len {
            253 => corrupt("a score is not a number"),
            254 => Ok(f64::INFINITY),
            255 => Ok(f64::NEG_INFINITY),
            _ => {
                let text = self.take(usize::from(len))?;
                let score = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok());
                checked_score(score.unwrap_or(f64::NAN))
            }
        }
    }

    pub(crate) fn score(&mut self) -> Result<f64, Stop> {
        checked_score(f64::from_le_bytes(self.array()?))
    }
}

/// The length of a string, refused before anyone waits for its bytes.
fn bounded(length: u64) -> Result<usize, Stop> {
    if length > STRING_BYTES_MAX {
        return Err(RdbError::TooLong(length).into());
    }
    Ok(length as usize)
}

pub(crate) fn checked_score(score: f64) -> Result<f64, Stop> {
    if score.is_nan() { corrupt("a score is not a number") } else { Ok(score) }
}

/// A number as the text that a client sees.
pub(crate) fn decimal(number: i64) -> Bytes {
    Bytes::copy_from_slice(itoa::Buffer::new().format(number).as_bytes())
}
