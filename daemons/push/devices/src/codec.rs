//! Numbers and texts in bytes, as rows and records write them: little-endian base-128 varints, and
//! texts preceded by their length.
//!
//! A value of an attribute that is a number is a varint `n`. If `n` is odd, it is 1, and the number
//! follows as an IEEE 754 double; else `n / 2` is a whole number, with its sign in the lowest bit.

use crate::device::Number;

/// Bytes that were not written here, or by a later version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unreadable;

type Parsed<T> = Result<T, Unreadable>;

/// Whole numbers below this are written as such.
const WHOLE: f64 = (1u64 << 52) as f64;

pub(crate) trait Put {
    fn number(&mut self, value: u64);
    fn text(&mut self, value: &str);
    fn signed(&mut self, value: i64);
    fn value(&mut self, value: Number);
}

impl Put for Vec<u8> {
    fn number(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.push(value as u8);
    }

    fn text(&mut self, value: &str) {
        self.number(value.len() as u64);
        self.extend_from_slice(value.as_bytes());
    }

    fn signed(&mut self, value: i64) {
        self.number(zigzag(value));
    }

    fn value(&mut self, value: Number) {
        let value = value.get();
        if value.fract() == 0.0 && value.abs() < WHOLE {
            self.number(zigzag(value as i64) << 1);
        } else {
            self.number(1);
            self.extend_from_slice(&value.to_le_bytes());
        }
    }
}

fn zigzag(value: i64) -> u64 {
    (value.cast_unsigned() << 1) ^ (value >> 63).cast_unsigned()
}

fn unzigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -((value & 1).cast_signed())
}

/// Reads what [`Put`] wrote.
pub(crate) struct Take<'a> {
    rest: &'a [u8],
}

impl<'a> Take<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Take<'a> {
        Take { rest: bytes }
    }

    /// Nothing is left.
    pub(crate) fn end(&self) -> Parsed<()> {
        if self.rest.is_empty() { Ok(()) } else { Err(Unreadable) }
    }

    pub(crate) fn byte(&mut self) -> Parsed<u8> {
        let (first, rest) = self.rest.split_first().ok_or(Unreadable)?;
        self.rest = rest;
        Ok(*first)
    }

    pub(crate) fn number(&mut self) -> Parsed<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let part = u64::from(byte & 0x7F);
            if shift == 63 && part > 1 {
                return Err(Unreadable);
            }
            value |= part << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Unreadable)
    }

    pub(crate) fn medium(&mut self) -> Parsed<u32> {
        u32::try_from(self.number()?).map_err(|_| Unreadable)
    }

    pub(crate) fn small(&mut self) -> Parsed<u16> {
        u16::try_from(self.number()?).map_err(|_| Unreadable)
    }

    pub(crate) fn signed(&mut self) -> Parsed<i64> {
        self.number().map(unzigzag)
    }

    /// A count of things that take a byte or more each.
    pub(crate) fn count(&mut self) -> Parsed<usize> {
        let count = usize::try_from(self.number()?).map_err(|_| Unreadable)?;
        if count <= self.rest.len() { Ok(count) } else { Err(Unreadable) }
    }

    fn bytes(&mut self, len: usize) -> Parsed<&'a [u8]> {
        let (bytes, rest) = self.rest.split_at_checked(len).ok_or(Unreadable)?;
        self.rest = rest;
        Ok(bytes)
    }

    pub(crate) fn text(&mut self) -> Parsed<&'a str> {
        let len = self.count()?;
        std::str::from_utf8(self.bytes(len)?).map_err(|_| Unreadable)
    }

    pub(crate) fn value(&mut self) -> Parsed<Number> {
        let value = match self.number()? {
            1 => {
                let bytes = self.bytes(8)?.try_into().map_err(|_| Unreadable)?;
                f64::from_le_bytes(bytes)
            }
            n if n & 1 == 0 => unzigzag(n >> 1) as f64,
            _ => return Err(Unreadable),
        };
        Number::new(value).ok_or(Unreadable)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

        #[test]
        fn what_was_put_is_taken(number: u64, signed: i64, text: String, value: f64, whole: i32) {
            let values = [value, f64::from(whole), -0.0, WHOLE, -WHOLE, WHOLE - 1.0];
            let values = values.into_iter().filter_map(Number::new).collect::<Vec<_>>();
            let mut bytes = Vec::new();
            bytes.number(number);
            bytes.signed(signed);
            bytes.text(&text);
            values.iter().for_each(|value| bytes.value(*value));
            let mut from = Take::new(&bytes);
            prop_assert_eq!(from.number(), Ok(number));
            prop_assert_eq!(from.signed(), Ok(signed));
            prop_assert_eq!(from.text(), Ok(&*text));
            for value in values {
                prop_assert_eq!(from.value(), Ok(value));
            }
            prop_assert_eq!(from.end(), Ok(()));
        }
    }
}
