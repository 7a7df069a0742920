//! The client's end: commands are written, and replies are read as they arrive.
//!
//! Where a reply ends is found first, by a walk through what has arrived that goes on where it
//! stopped. It needs no memory for values within values: a count of what is still to come will do.
//!
//! ```text
//!   arrived      *2\r\n%1\r\n$1\r\na\r\n:1\r\n
//!   still to come 2     3          2      1     ← one more value
//! ```

use bytes::BytesMut;

use crate::error::ReplyError;
use crate::number::{self, CRLF};
use crate::value::{self, Value};

/// Appends a command of these words.
pub fn encode_command<W>(out: &mut Vec<u8>, words: W)
where
    W: IntoIterator<Item: AsRef<[u8]>, IntoIter: ExactSizeIterator>,
{
    let words = words.into_iter();
    number::put_count(out, b'*', words.len());
    words.for_each(|word| number::put_bulk(out, word.as_ref()));
}

/// Where the reply that `buf` begins with ends: how many bytes it has. None if not all of it has
/// arrived. What its values are is not looked at.
///
/// # Errors
/// These bytes are no reply.
pub fn skip(buf: &[u8]) -> Result<Option<usize>, ReplyError> {
    let mut scan = Scan::default();
    Ok(scan.advance(buf, usize::MAX)?.then_some(scan.at))
}

/// How far a reply was walked through.
#[derive(Debug)]
struct Scan {
    /// Where the next element begins.
    at: usize,
    /// Values that are still to come; 0 at the reply's end.
    open: u64,
    /// Bytes from `at` on that are known to hold no end of line.
    searched: usize,
}

impl Default for Scan {
    fn default() -> Scan {
        Scan { at: 0, open: 1, searched: 0 }
    }
}

impl Scan {
    /// Walks on, and tells whether the reply's end was met. `buf` begins with the same bytes as
    /// before.
    fn advance(&mut self, buf: &[u8], bytes_max: usize) -> Result<bool, ReplyError> {
        // What is past the limit is not looked at, so that it makes no other error.
        let arrived = buf.len();
        let buf = &buf[..arrived.min(bytes_max)];
        while self.open > 0 {
            let (end, values) = self.element(buf)?;
            let Some(end) = end.filter(|end| *end <= buf.len()) else {
                let too_long = arrived > bytes_max || end.is_some_and(|end| end > bytes_max);
                return if too_long { Err(ReplyError::TooLong) } else { Ok(false) };
            };
            // An attribute is no value itself.
            let itself = u64::from(buf[self.at] != b'|');
            self.open = (self.open - itself).checked_add(values).ok_or(ReplyError::Length)?;
            (self.at, self.searched) = (end, 0);
        }
        Ok(true)
    }

    /// Behind the end of the element at `at`, if its header has arrived, and how many values it
    /// says will follow.
    #[inline]
    fn element(&mut self, buf: &[u8]) -> Result<(Option<usize>, u64), ReplyError> {
        let Some(kind) = buf.get(self.at) else { return Ok((None, 0)) };
        let count = match kind {
            b'+' | b'-' | b':' | b',' | b'(' | b'#' | b'_' => return Ok((self.line_end(buf)?, 0)),
            b'$' | b'!' | b'=' | b'*' | b'~' | b'>' | b'%' | b'|' => self.count(buf)?,
            other => return Err(ReplyError::Type(*other)),
        };
        let Some((count, end)) = count else { return Ok((None, 0)) };
        match (kind, count) {
            (_, None) => Ok((Some(end), 0)),
            (b'$' | b'!' | b'=', Some(len)) => Ok((Some(string_end(buf, end, len)?), 0)),
            (b'%' | b'|', Some(pairs)) => Ok((Some(end), 2 * u64::from(pairs))),
            (_, Some(values)) => Ok((Some(end), u64::from(values))),
        }
    }

    /// Behind the end of the line at `at`, if that has arrived.
    fn line_end(&mut self, buf: &[u8]) -> Result<Option<usize>, ReplyError> {
        let from = self.at + self.searched;
        let found = memchr::memchr(b'\r', &buf[from..]).map(|at| from + at);
        let Some(end) = found.filter(|end| end + 1 < buf.len()) else {
            self.searched = found.unwrap_or(buf.len()) - self.at;
            return Ok(None);
        };
        if buf[end + 1] == b'\n' { Ok(Some(end + CRLF.len())) } else { Err(ReplyError::End) }
    }

    /// The length or the count in the header at `at`, none for a null, and where the header ends.
    #[inline]
    fn count(&mut self, buf: &[u8]) -> Result<Option<(Option<u32>, usize)>, ReplyError> {
        if let Some((count, taken)) = number::short_line(&buf[self.at + 1..]) {
            let end = self.at + 1 + taken;
            return if buf[end - 1] == b'\n' {
                Ok(Some((Some(count), end)))
            } else {
                Err(ReplyError::End)
            };
        }
        let Some(end) = self.line_end(buf)? else { return Ok(None) };
        let line = &buf[self.at + 1..end - CRLF.len()];
        if line == b"-1" && matches!(buf[self.at], b'$' | b'*') {
            return Ok(Some((None, end)));
        }
        Ok(Some((Some(value::count(line)? as u32), end)))
    }
}

/// Behind the end of the string of `len` bytes at `start`, which may be past the end of `buf`.
#[inline]
fn string_end(buf: &[u8], start: usize, len: u32) -> Result<usize, ReplyError> {
    let end = start + len as usize;
    match buf.get(end..end + CRLF.len()) {
        Some(CRLF) | None => Ok(end + CRLF.len()),
        Some(_) => Err(ReplyError::End),
    }
}

/// How much a server may reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplyLimits {
    /// How deep values may lie in one another: 1 for an array of strings.
    pub depth_max: usize,
    /// The longest reply, bytes.
    pub reply_bytes_max: usize,
}

impl Default for ReplyLimits {
    /// 128 deep, 1 GiB long.
    fn default() -> ReplyLimits {
        ReplyLimits { depth_max: 128, reply_bytes_max: 1 << 30 }
    }
}

/// The reader of a connection's replies.
///
/// ```
/// use sextant_resp::{ReplyLimits, ReplyParser, Value};
///
/// let mut parser = ReplyParser::new(ReplyLimits::default());
/// parser.push(b"*2\r\n:1\r\n");
/// assert_eq!(parser.next_reply(), Ok(None));
/// parser.push(b"_\r\n+OK\r\n");
/// assert_eq!(parser.next_reply(), Ok(Some(Value::Array(vec![Value::Int(1), Value::Null]))));
/// assert_eq!(parser.next_reply(), Ok(Some(Value::Simple("OK".into()))));
/// assert_eq!(parser.next_reply(), Ok(None));
/// ```
#[derive(Debug)]
pub struct ReplyParser {
    limits: ReplyLimits,
    unread: BytesMut,
    scan: Scan,
}

impl ReplyParser {
    /// The parser of a new connection.
    pub fn new(limits: ReplyLimits) -> ReplyParser {
        ReplyParser { limits, unread: BytesMut::new(), scan: Scan::default() }
    }

    /// Takes bytes that arrived.
    pub fn push(&mut self, bytes: &[u8]) {
        self.unread.extend_from_slice(bytes);
    }

    /// Bytes that were not read as replies yet.
    pub fn unread(&self) -> usize {
        self.unread.len()
    }

    /// Takes the next reply, if all of it has arrived.
    ///
    /// # Errors
    /// Nothing that follows can be understood; the connection must be closed.
    pub fn next_reply(&mut self) -> Result<Option<Value>, ReplyError> {
        if !self.scan.advance(&self.unread, self.limits.reply_bytes_max)? {
            return Ok(None);
        }
        let reply = self.unread.split_to(self.scan.at).freeze();
        self.scan = Scan::default();
        value::read(&reply, self.limits.depth_max).map(Some)
    }
}

#[cfg(test)]
mod tests;
