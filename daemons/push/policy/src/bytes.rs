//! The bytes of records: numbers are little-endian base-128 varints, strings are preceded by their
//! length.

/// A record that this version does not understand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a record of the policy's has a form that this version does not know")]
pub struct Unreadable;

pub(crate) type Parsed<T> = Result<T, Unreadable>;

/// Appends numbers and texts.
pub(crate) trait Put {
    fn number(&mut self, value: u64);
    fn text(&mut self, value: &str);
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
}

/// Reads what [`Put`] wrote.
pub(crate) struct Take<'a> {
    rest: &'a [u8],
}

impl<'a> Take<'a> {
    pub(crate) fn new(record: &'a [u8]) -> Take<'a> {
        Take { rest: record }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(crate) fn byte(&mut self) -> Parsed<u8> {
        let (byte, rest) = self.rest.split_first().ok_or(Unreadable)?;
        self.rest = rest;
        Ok(*byte)
    }

    pub(crate) fn bytes(&mut self, count: usize) -> Parsed<&'a [u8]> {
        let (bytes, rest) = self.rest.split_at_checked(count).ok_or(Unreadable)?;
        self.rest = rest;
        Ok(bytes)
    }

    pub(crate) fn number(&mut self) -> Parsed<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7F);
            if bits << shift >> shift != bits {
                return Err(Unreadable);
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Unreadable)
    }

    pub(crate) fn small(&mut self) -> Parsed<u16> {
        u16::try_from(self.number()?).map_err(|_| Unreadable)
    }

    pub(crate) fn medium(&mut self) -> Parsed<u32> {
        u32::try_from(self.number()?).map_err(|_| Unreadable)
    }

    pub(crate) fn text(&mut self) -> Parsed<&'a str> {
        let count = usize::try_from(self.number()?).map_err(|_| Unreadable)?;
        std::str::from_utf8(self.bytes(count)?).map_err(|_| Unreadable)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

        #[test]
        fn what_is_put_is_taken(numbers in proptest::collection::vec(any::<u64>(), 0..9), text: String) {
            let mut record = Vec::new();
            numbers.iter().for_each(|number| record.number(*number));
            record.text(&text);
            let mut from = Take::new(&record);
            for number in numbers {
                prop_assert_eq!(from.number(), Ok(number));
            }
            prop_assert_eq!(from.text(), Ok(&*text));
            prop_assert!(from.is_empty());
        }
    }

    #[test]
    fn a_number_of_more_than_64_bits_is_refused() {
        let mut widest = [0xFF; 10];
        widest[9] = 0x01;
        assert_eq!(Take::new(&widest).number(), Ok(u64::MAX));
        widest[9] = 0x02;
        assert_eq!(Take::new(&widest).number(), Err(Unreadable));
        assert_eq!(Take::new(&[0x80; 11]).number(), Err(Unreadable));
    }
}
