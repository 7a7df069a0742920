//! Decimal numbers as they stand in the headers of requests and replies, read and written: one
//! spelling each, so no leading zeros, no plus sign and no spaces.

/// What ends every line.
pub(crate) const CRLF: &[u8] = b"\r\n";
/// The longest header: a byte of type, the longest number, and the end of the line.
pub(crate) const HEAD_BYTES_MAX: usize = 1 + 20 + CRLF.len();
/// The most digits of a number that surely fits a `u32`.
const SHORT_DIGITS_MAX: usize = 9;

/// The number at the start of `bytes` and what it takes with the two bytes that end its line, if
/// it is what is met all day: at most nine digits, a carriage return, and one more byte. Anything
/// else is for a closer look.
#[inline]
pub(crate) fn short_line(bytes: &[u8]) -> Option<(u32, usize)> {
    let mut value = 0;
    for (at, byte) in bytes.iter().take(SHORT_DIGITS_MAX + 1).enumerate() {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            let one_spelling = at == 1 || at > 1 && bytes[0] != b'0';
            let ends = *byte == b'\r' && at + 1 < bytes.len();
            return (one_spelling && ends).then_some((value, at + 2));
        }
        if at == SHORT_DIGITS_MAX {
            break;
        }
        value = value * 10 + u32::from(digit);
    }
    None
}

/// The number that `digits` spell, if they do and it fits.
pub(crate) fn integer(digits: &[u8]) -> Option<i64> {
    let (negative, digits) = match digits.split_first()? {
        (b'-', digits) => (true, digits),
        _ => (false, digits),
    };
    match digits {
        [b'0'] if !negative => return Some(0),
        [b'1'..=b'9', ..] => {}
        _ => return None,
    }
    // Downwards, where there is room for the least of all numbers.
    let mut value = 0i64;
    for byte in digits {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        value = value.checked_mul(10)?.checked_sub(i64::from(digit))?;
    }
    if negative { Some(value) } else { value.checked_neg() }
}

/// A line of a type and a number.
pub(crate) struct Head {
    bytes: [u8; HEAD_BYTES_MAX],
    len: usize,
}

impl Head {
    #[inline]
    pub(crate) fn new(kind: u8, number: i64) -> Head {
        let mut bytes = [0; HEAD_BYTES_MAX];
        bytes[0] = kind;
        let mut digits = itoa::Buffer::new();
        let digits = digits.format(number).as_bytes();
        let end = 1 + digits.len();
        bytes[1..end].copy_from_slice(digits);
        bytes[end..end + CRLF.len()].copy_from_slice(CRLF);
        Head { bytes, len: end + CRLF.len() }
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// Appends a line of a type and a number.
#[inline]
pub(crate) fn put_head(out: &mut Vec<u8>, kind: u8, number: i64) {
    if let digit @ 0..=9 = number {
        out.extend_from_slice(&[kind, b'0' + digit as u8, b'\r', b'\n']);
    } else if let two @ 10..=99 = number {
        let (tens, ones) = (two as u8 / 10, two as u8 % 10);
        out.extend_from_slice(&[kind, b'0' + tens, b'0' + ones, b'\r', b'\n']);
    } else {
        out.reserve(HEAD_BYTES_MAX);
        out.push(kind);
        out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
        out.extend_from_slice(CRLF);
    }
}

/// Appends a line of a type and a length of memory.
#[inline]
pub(crate) fn put_count(out: &mut Vec<u8>, kind: u8, count: usize) {
    put_head(out, kind, i64::try_from(count).expect("a length in memory is below 2^63"));
}

/// Appends a bulk string.
#[inline]
pub(crate) fn put_bulk(out: &mut Vec<u8>, bytes: &[u8]) {
    out.reserve(HEAD_BYTES_MAX + bytes.len() + CRLF.len());
    put_count(out, b'$', bytes.len());
    out.extend_from_slice(bytes);
    out.extend_from_slice(CRLF);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_number_has_one_spelling() {
        for wrong in ["", "-", "+1", "01", "-0", "-01", "00", " 1", "1 ", "1a", "0x1", "--1"] {
            assert_eq!(integer(wrong.as_bytes()), None, "{wrong:?}");
            let line = format!("{wrong}\r\n");
            assert_eq!(short_line(line.as_bytes()), None, "{wrong:?}");
        }
        assert_eq!(integer(b"9223372036854775808"), None);
        assert_eq!(integer(b"-9223372036854775809"), None);
    }

    #[test]
    fn a_short_line_is_whole_or_nothing() {
        assert_eq!(short_line(b"0\r\n"), Some((0, 3)));
        assert_eq!(short_line(b"999999999\r\nrest"), Some((999_999_999, 11)));
        assert_eq!(short_line(b"1000000000\r\n"), None);
        assert_eq!(short_line(b"12\r"), None);
        assert_eq!(short_line(b"12"), None);
        assert_eq!(short_line(b"12\n"), None);
    }

    proptest! {
        #[test]
        fn every_number_is_read_as_it_is_printed(value: i64, small in 0u32..2_000_000_000) {
            for value in [value, i64::MIN, i64::MAX, 0, i64::from(small)] {
                prop_assert_eq!(integer(value.to_string().as_bytes()), Some(value));
            }
            let digits = small.to_string();
            let line = format!("{digits}\r\n");
            let short = (digits.len() <= 9).then_some((small, line.len()));
            prop_assert_eq!(short_line(line.as_bytes()), short);
        }
    }
}
