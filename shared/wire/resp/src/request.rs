//! Reads requests from the bytes of a connection.
//!
//! A request is an array of bulk strings, or, from a person at a terminal, a line. What of it has
//! arrived lies in a buffer of the caller's; the parser remembers how far it came, so that a large
//! command in many pieces is read once.
//!
//! ```text
//!   *3\r\n$3\r\nSET\r\n$3\r\nkey\r\n$5000\r\nv v v v v │ what has not arrived
//!                                           ▲
//!                                           at; of 5000 bytes; 1 word left
//! ```
//!
//! As in Redis, the two bytes that end a word are not looked at, nor the one behind a carriage
//! return; and nothing ends a line behind a null character, so that such a line is refused when
//! it has grown too long.

use std::mem;

use memchr::memchr2;

use crate::args::{Args, Span};
use crate::error::ProtocolError;
use crate::{inline, number};

/// The most words of a request, unless told otherwise.
pub const ARGS_MAX: u32 = i32::MAX as u32;
/// The longest word of a request, unless told otherwise: 512 MiB.
pub const BULK_BYTES_MAX: u64 = 512 << 20;
/// The longest request, unless told otherwise: 1 GiB.
pub const REQUEST_BYTES_MAX: u32 = 1 << 30;
/// The longest line: an inline command, or the header of an array or a word.
pub const INLINE_BYTES_MAX: usize = 64 << 10;
/// The most words of a request of a client that has yet to authenticate.
pub const UNAUTHENTICATED_ARGS_MAX: u32 = 10;
/// The longest word of a request of a client that has yet to authenticate.
pub const UNAUTHENTICATED_BULK_BYTES_MAX: u64 = 16 << 10;

/// Two bytes end a word.
const WORD_END_BYTES: usize = 2;
/// The memory for words that is kept from one command to the next: 2 KiB.
const WORDS_KEPT: usize = 256;
/// The memory for the bytes of an inline command that is kept.
const INLINE_BYTES_KEPT: usize = 1024;

/// How much a client may ask at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The most words of a request, its name included.
    pub args_max: u32,
    /// The longest word, bytes: Redis' `proto-max-bulk-len`.
    pub bulk_bytes_max: u64,
    /// The longest request with all that is around its words, bytes. The buffer that it is read
    /// from holds all of it, and it is counted before the bytes are there.
    pub request_bytes_max: u32,
    /// The client has yet to authenticate: no more than [`UNAUTHENTICATED_ARGS_MAX`] words of
    /// [`UNAUTHENTICATED_BULK_BYTES_MAX`].
    pub unauthenticated: bool,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            args_max: ARGS_MAX,
            bulk_bytes_max: BULK_BYTES_MAX,
            request_bytes_max: REQUEST_BYTES_MAX,
            unauthenticated: false,
        }
    }
}

/// What the unread bytes begin with.
#[derive(Debug, PartialEq, Eq)]
pub enum Parsed<'a> {
    /// A command.
    Command {
        /// Its words: at least one.
        args: Args<'a>,
        /// The bytes to take off the buffer.
        consumed: usize,
    },
    /// An empty line or an empty array: nothing to do, and nothing to answer.
    Nothing {
        /// The bytes to take off the buffer.
        consumed: usize,
    },
    /// A part of a command, or no byte at all. The bytes stay where they are.
    Incomplete {
        /// How many more have to arrive before it is worth another try: 1 if that is not known.
        at_least: usize,
    },
}

/// The reader of a connection's requests.
///
/// ```
/// use sextant_resp::{Limits, Parsed, RequestParser};
///
/// let mut parser = RequestParser::new(Limits::default());
/// let unread = b"*2\r\n$3\r\nGET\r\n$5\r\nhello\r\nPING\r\n";
/// let Ok(Parsed::Command { args, consumed }) = parser.parse(unread) else { panic!() };
/// assert_eq!((&args[0], &args[1], consumed), (&b"GET"[..], &b"hello"[..], 24));
/// let Ok(Parsed::Command { args, .. }) = parser.parse(&unread[consumed..]) else { panic!() };
/// assert_eq!(&args[0], b"PING");
/// ```
#[derive(Debug)]
pub struct RequestParser {
    limits: Limits,
    words: Vec<Span>,
    /// What the words of an inline command are ranges of.
    inline: Vec<u8>,
    /// Words that are missing of the array that was begun; 0 between commands.
    left: u32,
    /// Where in the unread bytes the next header begins, or the word whose header was read.
    at: usize,
    /// The length of that word.
    bulk: Option<u32>,
    /// Bytes from `at` on that are known to hold no end of line.
    searched: usize,
}

/// A line as long as no line may be.
struct LineTooLong;

impl RequestParser {
    /// The parser of a new connection.
    pub fn new(limits: Limits) -> RequestParser {
        RequestParser {
            limits,
            words: Vec::new(),
            inline: Vec::new(),
            left: 0,
            at: 0,
            bulk: None,
            searched: 0,
        }
    }

    /// The limits.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Changes the limits for what was not read yet.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// The memory that it takes, apart from its own fields. Between commands 4 KiB at most.
    pub fn memory_bytes(&self) -> usize {
        self.words.capacity() * size_of::<Span>() + self.inline.capacity()
    }

    /// Looks at the unread bytes. `buf` begins where the last command or nothing that was returned
    /// ended; behind [`Parsed::Incomplete`] it begins with the same bytes as before, wherever they
    /// lie by now.
    ///
    /// # Errors
    /// Nothing that follows can be understood; the connection must be closed.
    #[inline]
    pub fn parse<'a>(&'a mut self, buf: &'a [u8]) -> Result<Parsed<'a>, ProtocolError> {
        if self.left == 0 {
            self.forget();
            match buf.first() {
                None => return Ok(Parsed::Incomplete { at_least: 1 }),
                Some(b'*') => {}
                Some(_) => return self.line_command(buf),
            }
            match self.count(buf)? {
                None => return Ok(Parsed::Incomplete { at_least: 1 }),
                Some(0) => return Ok(Parsed::Nothing { consumed: mem::take(&mut self.at) }),
                Some(count) => self.left = count,
            }
        }
        self.bulks(buf)
    }

    /// Forgets the last command, and memory that only a large one needs.
    #[inline]
    fn forget(&mut self) {
        self.at = 0;
        self.words.clear();
        if self.words.capacity() > WORDS_KEPT {
            self.words.shrink_to(WORDS_KEPT);
        }
    }

    /// Reads the count of words at the start; none are wanted if it is below 1.
    #[inline]
    fn count(&mut self, buf: &[u8]) -> Result<Option<u32>, ProtocolError> {
        let count = match number::short_line(&buf[1..]) {
            Some((count, taken)) => {
                (self.at, self.searched) = (1 + taken, 0);
                i64::from(count)
            }
            None => match self.number(buf) {
                Ok(None) => return Ok(None),
                Ok(Some(Some(count))) => count,
                Ok(Some(None)) => return Err(ProtocolError::InvalidMultibulkLength),
                Err(LineTooLong) => return Err(ProtocolError::TooBigMultibulkCount),
            },
        };
        if count > i64::from(self.limits.args_max) {
            Err(ProtocolError::InvalidMultibulkLength)
        } else if count > i64::from(UNAUTHENTICATED_ARGS_MAX) && self.limits.unauthenticated {
            Err(ProtocolError::UnauthenticatedMultibulk)
        } else {
            Ok(Some(count.max(0) as u32))
        }
    }

    /// Reads the words that are missing.
    #[inline]
    fn bulks<'a>(&'a mut self, buf: &'a [u8]) -> Result<Parsed<'a>, ProtocolError> {
        while self.left > 0 {
            let len = match self.bulk.take() {
                Some(len) => len,
                None => match self.bulk_len(buf)? {
                    Some(len) => len,
                    None => return Ok(Parsed::Incomplete { at_least: 1 }),
                },
            };
            let end = self.at + len as usize + WORD_END_BYTES;
            if end > buf.len() {
                self.bulk = Some(len);
                return Ok(Parsed::Incomplete { at_least: end - buf.len() });
            }
            self.words.push(Span { start: self.at as u32, len });
            self.at = end;
            self.left -= 1;
        }
        let consumed = mem::take(&mut self.at);
        Ok(Parsed::Command { args: Args::new(&buf[..consumed], &self.words), consumed })
    }

    /// Reads the length of the next word.
    #[inline]
    fn bulk_len(&mut self, buf: &[u8]) -> Result<Option<u32>, ProtocolError> {
        let short = match buf.get(self.at..) {
            Some([b'$', rest @ ..]) => number::short_line(rest),
            _ => None,
        };
        let len = match short {
            Some((len, taken)) => {
                self.at += 1 + taken;
                self.searched = 0;
                u64::from(len)
            }
            None => match self.long_bulk_len(buf)? {
                Some(len) => len,
                None => return Ok(None),
            },
        };
        if len > self.limits.bulk_bytes_max {
            return Err(ProtocolError::InvalidBulkLength);
        }
        if len > UNAUTHENTICATED_BULK_BYTES_MAX && self.limits.unauthenticated {
            return Err(ProtocolError::UnauthenticatedBulk);
        }
        let end = (self.at + WORD_END_BYTES) as u64 + len;
        if end > u64::from(self.limits.request_bytes_max) {
            return Err(ProtocolError::TooBigRequest);
        }
        Ok(Some(len as u32))
    }

    /// The same where a short look did not suffice.
    #[cold]
    fn long_bulk_len(&mut self, buf: &[u8]) -> Result<Option<u64>, ProtocolError> {
        let start = self.at;
        let number = match self.number(buf) {
            Ok(None) => return Ok(None),
            Ok(Some(number)) => number,
            Err(LineTooLong) => return Err(ProtocolError::TooBigBulkCount),
        };
        if buf[start] != b'$' {
            return Err(ProtocolError::ExpectedDollar(buf[start]));
        }
        match number.map(u64::try_from) {
            Some(Ok(len)) => Ok(Some(len)),
            _ => Err(ProtocolError::InvalidBulkLength),
        }
    }

    /// Takes the line of a header, and reads the number behind its first byte, if it is one. The
    /// line of no byte at all has none.
    #[cold]
    fn number(&mut self, buf: &[u8]) -> Result<Option<Option<i64>>, LineTooLong> {
        let Some(end) = self.line_end(buf, b'\r')? else { return Ok(None) };
        if end + WORD_END_BYTES > buf.len() {
            // What is missing is the byte behind it.
            self.searched = end - self.at;
            return Ok(None);
        }
        let number = buf[self.at..end].get(1..).and_then(number::integer);
        self.at = end + WORD_END_BYTES;
        Ok(Some(number))
    }

    /// Where the line at `at` ends, if its end has arrived.
    fn line_end(&mut self, buf: &[u8], ends: u8) -> Result<Option<usize>, LineTooLong> {
        let line = &buf[self.at..];
        let found = memchr2(ends, 0, &line[self.searched..]).map(|at| self.searched + at);
        let end = found.filter(|at| line[*at] == ends);
        if end.unwrap_or(line.len()) > INLINE_BYTES_MAX {
            return Err(LineTooLong);
        }
        // At a null character the search ends again next time.
        self.searched = if end.is_some() { 0 } else { found.unwrap_or(line.len()) };
        Ok(end.map(|end| self.at + end))
    }

    /// Reads an inline command.
    #[cold]
    fn line_command<'a>(&'a mut self, buf: &'a [u8]) -> Result<Parsed<'a>, ProtocolError> {
        let end = match self.line_end(buf, b'\n') {
            Ok(Some(end)) => end,
            Ok(None) => return Ok(Parsed::Incomplete { at_least: 1 }),
            Err(LineTooLong) => return Err(ProtocolError::TooBigInline),
        };
        let line = &buf[..end];
        self.inline.clear();
        if self.inline.capacity() > INLINE_BYTES_KEPT {
            self.inline.shrink_to(INLINE_BYTES_KEPT);
        }
        inline::split(line.strip_suffix(b"\r").unwrap_or(line), &mut self.inline, &mut self.words)?;
        let consumed = end + 1;
        if self.words.is_empty() {
            return Ok(Parsed::Nothing { consumed });
        }
        Ok(Parsed::Command { args: Args::new(&self.inline, &self.words), consumed })
    }
}

#[cfg(test)]
mod tests;
