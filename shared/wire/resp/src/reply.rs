//! Writes replies, in the version of the protocol that the client speaks.
//!
//! ```text
//!               RESP2                      RESP3
//!   null        $-1  (of an array *-1)     _
//!   map of n    array of 2n                %n
//!   set, push   array                      ~n, >n
//!   double      bulk string                ,3.5
//!   bool        :1, :0                     #t, #f
//!   verbatim    bulk string                =15  txt:…
//! ```
//!
//! Nothing is checked against what was announced: who says `array(3)` writes three values.

use crate::double::DoubleBuf;
use crate::error::{ProtocolError, printed};
use crate::number::{self, CRLF, HEAD_BYTES_MAX, Head};

/// Stands where a length will. No reply begins so.
const PLACEHOLDER: &[u8; 4] = b"*?\r\n";
/// The name of a verbatim string's format, with the colon behind it.
const FORMAT_BYTES: usize = 4;

/// The replies of a connection that were not sent yet.
///
/// ```
/// use sextant_resp::Reply;
///
/// let mut reply = Reply::new();
/// reply.map(1);
/// reply.bulk(b"score");
/// reply.double(3.5);
/// assert_eq!(reply.out, b"*2\r\n$5\r\nscore\r\n$3\r\n3.5\r\n");
///
/// reply.out.clear();
/// reply.resp3 = true;
/// reply.map(1);
/// reply.bulk(b"score");
/// reply.double(3.5);
/// assert_eq!(reply.out, b"%1\r\n$5\r\nscore\r\n,3.5\r\n");
/// ```
#[derive(Clone, Debug, Default)]
pub struct Reply {
    /// The bytes. They may be taken away between two replies.
    pub out: Vec<u8>,
    /// The client asked for RESP3.
    pub resp3: bool,
}

/// A header whose length is known only when what follows is written. The latest that was begun
/// ends first, and until then nothing before it is taken out of [`Reply::out`].
#[derive(Debug)]
#[must_use = "a header without a length is no reply"]
pub struct Deferred {
    at: usize,
}

impl Reply {
    /// No replies yet, in RESP2.
    pub fn new() -> Reply {
        Reply::default()
    }

    /// A status: `+text`. It is one line: its ends of lines become spaces.
    pub fn simple(&mut self, text: impl AsRef<[u8]>) {
        self.line(b'+', text.as_ref());
    }

    /// `+OK`.
    #[inline]
    pub fn ok(&mut self) {
        self.out.extend_from_slice(b"+OK\r\n");
    }

    /// An error: `-text`, which begins with its code, such as `ERR`. It is one line: ends of lines
    /// around it are left out, and those within become spaces.
    pub fn error(&mut self, text: impl AsRef<[u8]>) {
        let is_end = |byte: &u8| matches!(byte, b'\r' | b'\n');
        let mut text = text.as_ref();
        while let [rest @ .., last] = text
            && is_end(last)
        {
            text = rest;
        }
        while let [first, rest @ ..] = text
            && is_end(first)
        {
            text = rest;
        }
        self.line(b'-', text);
    }

    /// What is answered to bytes that are no request, before the connection is closed.
    pub fn protocol_error(&mut self, error: &ProtocolError) {
        let mut text = b"ERR Protocol error: ".to_vec();
        if let ProtocolError::ExpectedDollar(byte) = error {
            // The byte itself, also where it is no character.
            text.extend_from_slice(b"expected '$', got '");
            text.extend_from_slice(&[*byte, b'\'']);
        } else {
            text.extend_from_slice(error.to_string().as_bytes());
        }
        self.error(text);
    }

    fn line(&mut self, kind: u8, text: &[u8]) {
        self.out.reserve(1 + text.len() + CRLF.len());
        self.out.push(kind);
        let start = self.out.len();
        self.out.extend_from_slice(text);
        if memchr::memchr2(b'\r', b'\n', text).is_some() {
            self.out[start..].iter_mut().for_each(|byte| *byte = printed(*byte));
        }
        self.out.extend_from_slice(CRLF);
    }

    /// An integer: `:value`.
    #[inline]
    pub fn int(&mut self, value: i64) {
        number::put_head(&mut self.out, b':', value);
    }

    /// A header with a length of memory.
    #[inline]
    fn count(&mut self, kind: u8, count: usize) {
        number::put_count(&mut self.out, kind, count);
    }

    /// A bulk string.
    #[inline]
    pub fn bulk(&mut self, bytes: &[u8]) {
        number::put_bulk(&mut self.out, bytes);
    }

    /// A bulk string whose bytes are those of `parts`, one behind the other.
    pub fn bulk_parts(&mut self, parts: &[&[u8]]) {
        let len = parts.iter().map(|part| part.len()).sum();
        self.out.reserve(HEAD_BYTES_MAX + len + CRLF.len());
        self.count(b'$', len);
        parts.iter().for_each(|part| self.out.extend_from_slice(part));
        self.out.extend_from_slice(CRLF);
    }

    /// The header of a bulk string of `len` bytes. Those and then [`Reply::crlf`] follow, here or
    /// by another way.
    #[inline]
    pub fn bulk_head(&mut self, len: usize) {
        self.count(b'$', len);
    }

    /// What ends a bulk string that began with [`Reply::bulk_head`].
    #[inline]
    pub fn crlf(&mut self) {
        self.out.extend_from_slice(CRLF);
    }

    /// An integer as a bulk string.
    #[inline]
    pub fn bulk_int(&mut self, value: i64) {
        self.bulk(itoa::Buffer::new().format(value).as_bytes());
    }

    /// No value, where there might be one.
    #[inline]
    pub fn null(&mut self) {
        self.out.extend_from_slice(if self.resp3 { b"_\r\n" } else { b"$-1\r\n" });
    }

    /// No array, where there might be one.
    #[inline]
    pub fn null_array(&mut self) {
        self.out.extend_from_slice(if self.resp3 { b"_\r\n" } else { b"*-1\r\n" });
    }

    /// An array; `n` values follow.
    #[inline]
    pub fn array(&mut self, n: usize) {
        self.count(b'*', n);
    }

    /// A map; `n` pairs of key and value follow, 2n values.
    #[inline]
    pub fn map(&mut self, n: usize) {
        let (kind, count) = self.kind(b'%', n);
        self.count(kind, count);
    }

    /// A set; `n` values follow.
    #[inline]
    pub fn set(&mut self, n: usize) {
        let (kind, count) = self.kind(b'~', n);
        self.count(kind, count);
    }

    /// What the server says unasked; `n` values follow, the first a string that tells what it is.
    #[inline]
    pub fn push(&mut self, n: usize) {
        let (kind, count) = self.kind(b'>', n);
        self.count(kind, count);
    }

    /// The type and the count that say so in the client's version.
    #[inline]
    fn kind(&self, kind: u8, n: usize) -> (u8, usize) {
        match kind {
            _ if self.resp3 => (kind, n),
            b'%' => (b'*', n.checked_mul(2).expect("two values a pair, all in memory")),
            _ => (b'*', n),
        }
    }

    /// Facts about the value that follows: `n` pairs of key and value, and then the value itself.
    /// RESP2 has nothing of the kind: then it is false, and no pairs are written.
    #[must_use = "no pairs are written if it is false"]
    pub fn attribute(&mut self, n: usize) -> bool {
        if self.resp3 {
            self.count(b'|', n);
        }
        self.resp3
    }

    /// A floating point number, printed as [`DoubleBuf`] does.
    pub fn double(&mut self, value: f64) {
        let mut printed = DoubleBuf::new();
        let printed = printed.format(value);
        if self.resp3 {
            self.line(b',', printed);
        } else {
            self.bulk(printed);
        }
    }

    /// Yes or no; 1 or 0 in RESP2.
    pub fn bool(&mut self, value: bool) {
        self.out.extend_from_slice(match (self.resp3, value) {
            (true, true) => b"#t\r\n",
            (true, false) => b"#f\r\n",
            (false, true) => b":1\r\n",
            (false, false) => b":0\r\n",
        });
    }

    /// An integer of any size, in its digits; a bulk string in RESP2.
    pub fn big_number(&mut self, digits: &str) {
        if self.resp3 {
            self.line(b'(', digits.as_bytes());
        } else {
            self.bulk(digits.as_bytes());
        }
    }

    /// Text for a person, in a format of three letters: `txt` or `mkd`. A bulk string in RESP2.
    ///
    /// # Panics
    /// `format` has another length.
    pub fn verbatim(&mut self, format: &str, text: &[u8]) {
        assert_eq!(format.len() + 1, FORMAT_BYTES, "a format has three letters");
        if self.resp3 {
            self.count(b'=', FORMAT_BYTES + text.len());
            self.out.extend_from_slice(format.as_bytes());
            self.out.push(b':');
            self.out.extend_from_slice(text);
            self.out.extend_from_slice(CRLF);
        } else {
            self.bulk(text);
        }
    }

    /// Begins an array, or what its end makes of it, whose length is known only when its values
    /// are written. To end it moves what was written since by a few bytes if that is more than
    /// nine values, and is free otherwise.
    pub fn deferred_array(&mut self) -> Deferred {
        let at = self.out.len();
        self.out.extend_from_slice(PLACEHOLDER);
        Deferred { at }
    }

    /// Ends `deferred` as an array of the `n` values that were written since.
    ///
    /// # Panics
    /// It does not stand where it was begun.
    pub fn end_array(&mut self, deferred: Deferred, n: usize) {
        self.end(deferred, b'*', n);
    }

    /// Ends `deferred` as a map of the `n` pairs that were written since.
    ///
    /// # Panics
    /// It does not stand where it was begun.
    pub fn end_map(&mut self, deferred: Deferred, n: usize) {
        self.end(deferred, b'%', n);
    }

    /// Ends `deferred` as a set of the `n` values that were written since.
    ///
    /// # Panics
    /// It does not stand where it was begun.
    pub fn end_set(&mut self, deferred: Deferred, n: usize) {
        self.end(deferred, b'~', n);
    }

    #[expect(clippy::needless_pass_by_value, reason = "it can be ended once")]
    fn end(&mut self, deferred: Deferred, kind: u8, n: usize) {
        let (kind, count) = self.kind(kind, n);
        let head = Head::new(kind, i64::try_from(count).expect("fewer than bytes of memory"));
        let head = head.as_bytes();
        let (at, values) = (deferred.at, deferred.at + PLACEHOLDER.len());
        assert_eq!(self.out.get(at..values), Some(&PLACEHOLDER[..]), "begun here, and not ended");
        let end = self.out.len();
        let more = head.len() - PLACEHOLDER.len();
        if more > 0 {
            self.out.resize(end + more, 0);
            self.out.copy_within(values..end, values + more);
        }
        self.out[at..at + head.len()].copy_from_slice(head);
    }
}

#[cfg(test)]
mod tests;
