//! A glance at commands that have arrived and are not executed yet: which word of each is its key,
//! most likely. For whoever can ask for memory in time; nothing is checked, and what is not plain
//! is passed over.

use std::ops::Range;

use crate::number::short_line;

/// Commands with more words are not looked through.
const WORDS_MAX: u32 = 8;

/// The second word of the command that begins at `from`, and where the next one begins. `None` if
/// the command is not whole, has but one word or many, or is of another form.
///
/// ```
/// let unread = b"*2\r\n$3\r\nGET\r\n$5\r\nhello\r\nPING\r\n";
/// assert_eq!(sextant_resp::key_ahead(unread, 0), Some((17..22, 24)));
/// assert_eq!(sextant_resp::key_ahead(unread, 24), None);
/// ```
#[inline]
pub fn key_ahead(buf: &[u8], from: usize) -> Option<(Range<usize>, usize)> {
    let (words, mut at) = number_line(buf, from, b'*')?;
    if !(2..=WORDS_MAX).contains(&words) {
        return None;
    }
    let mut key = 0..0;
    for word in 0..words {
        let (bytes, start) = number_line(buf, at, b'$')?;
        let end = start + bytes as usize;
        if word == 1 {
            key = start..end;
        }
        at = end + 2;
    }
    (at <= buf.len()).then_some((key, at))
}

/// The number of a header of a kind, and where its line ends.
#[inline]
fn number_line(buf: &[u8], at: usize, kind: u8) -> Option<(u32, usize)> {
    let line = buf.get(at..)?;
    let (first, rest) = line.split_first()?;
    let (number, taken) = short_line(rest).filter(|_| *first == kind)?;
    Some((number, at + 1 + taken))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_found_in_what_is_whole_and_plain() {
        let buf = b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$2\r\nvv\r\n*2\r\n$3\r\nGET\r\n$2\r\nkk\r\n*1\r\n$4\r\nPING\r\n";
        let (key, next) = key_ahead(buf, 0).expect("a plain command");
        assert_eq!(&buf[key], b"k");
        let (key, next) = key_ahead(buf, next).expect("a plain command");
        assert_eq!(&buf[key], b"kk");
        assert_eq!(key_ahead(buf, next), None);
        for cut in 0..28 {
            assert_eq!(key_ahead(&buf[..cut], 0), None, "{cut}");
        }
        assert_eq!(key_ahead(b"*2\r\n$3\r\nGET\r\n$999999999\r\nx", 0), None);
        assert_eq!(key_ahead(b"GET k\r\n", 0), None);
    }
}
