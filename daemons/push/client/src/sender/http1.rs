//! One exchange of HTTP/1.1 whose answer is read while its request is still being written.
//!
//! ```text
//!   push ─► out ─► socket ─► input ─► head ─► body ─► next_line
//!           chunks                    status  chunks, a length, or all until the end
//! ```
//!
//! A stream of messages needs this: the daemon answers each line when it is durable, long before
//! the last line is written, and who does not read meanwhile stops the daemon from reading. One
//! thread does both, with a socket that does not block.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::CONNECT_TIME_MAX;

/// The longest head, and the longest trailers, bytes.
const HEAD_BYTES_MAX: usize = 64 << 10;
const HEADERS_MAX: usize = 64;
/// The longest line, bytes.
const LINE_BYTES_MAX: usize = 4 << 20;
const READ_BYTES: usize = 64 << 10;

/// An exchange under way.
pub(super) struct Exchange {
    socket: TcpStream,
    /// What is to be written, from `written` on.
    out: Vec<u8>,
    written: usize,
    /// The peer reads no more; what it said of it may be there to read.
    write_failed: bool,
    answer: Answer,
}

impl Exchange {
    /// Connects, and begins with the head of a request; its body follows in chunks.
    pub(super) fn open(address: &str, head: &str) -> io::Result<Exchange> {
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
        for address in address.to_socket_addrs()? {
            match TcpStream::connect_timeout(&address, CONNECT_TIME_MAX) {
                Ok(socket) => {
                    socket.set_nodelay(true)?;
                    socket.set_nonblocking(true)?;
                    let out = head.as_bytes().to_vec();
                    let answer = Answer::default();
                    return Ok(Exchange { socket, out, written: 0, write_failed: false, answer });
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Writes a part of the body. It may not be empty, which would be the end.
    pub(super) fn push(&mut self, part: &[u8]) {
        assert!(!part.is_empty(), "an empty chunk would end the body");
        self.out.drain(..self.written);
        self.written = 0;
        self.out.extend_from_slice(format!("{:x}\r\n", part.len()).as_bytes());
        self.out.extend_from_slice(part);
        self.out.extend_from_slice(b"\r\n");
    }

    /// Ends the body.
    pub(super) fn finish(&mut self) {
        self.out.extend_from_slice(b"0\r\n\r\n");
    }

    /// How much is not written yet, bytes.
    pub(super) fn unwritten(&self) -> usize {
        if self.write_failed { 0 } else { self.out.len() - self.written }
    }

    /// The answer so far.
    pub(super) fn answer(&mut self) -> &mut Answer {
        &mut self.answer
    }

    /// Writes and reads what can be, after waiting for that.
    ///
    /// # Errors
    ///
    /// Nothing came for the whole wait (`TimedOut`; not if that is zero), the connection broke, or
    /// the peer does not speak HTTP.
    pub(super) fn turn(&mut self, wait: Duration) -> io::Result<()> {
        let mut flags = PollFlags::IN;
        flags.set(PollFlags::OUT, self.unwritten() > 0);
        let timeout = Timespec {
            tv_sec: wait.as_secs().min(i64::MAX as u64) as i64,
            tv_nsec: i64::from(wait.subsec_nanos()),
        };
        let mut fds = [PollFd::new(&self.socket, flags)];
        match poll(&mut fds, Some(&timeout)) {
            Ok(0) if wait.is_zero() => return Ok(()),
            Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
            Err(rustix::io::Errno::INTR) => return Ok(()),
            Ok(_) => {}
            Err(error) => return Err(error.into()),
        }
        let ready = fds[0].revents();
        if ready.contains(PollFlags::OUT) {
            self.write();
        }
        if ready.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
            self.read()?;
        }
        Ok(())
    }

    fn write(&mut self) {
        while self.unwritten() > 0 {
            match self.socket.write(&self.out[self.written..]) {
                Ok(0) => self.write_failed = true,
                Ok(n) => self.written += n,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => self.write_failed = true,
            }
        }
    }

    fn read(&mut self) -> io::Result<()> {
        let mut buffer = vec![0; READ_BYTES];
        match self.socket.read(&mut buffer) {
            Ok(0) => self.answer.end(),
            Ok(n) => self.answer.feed(&buffer[..n]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// What an answer's body is made of, and how far it is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Part {
    #[default]
    Head,
    /// So many bytes, and no more.
    Length(u64),
    /// All until the connection ends.
    Rest,
    ChunkSize,
    Chunk(u64),
    /// The line break behind a chunk.
    ChunkEnd,
    Trailers,
    Ended,
}

/// An answer, read as its bytes come.
#[derive(Debug, Default)]
pub(super) struct Answer {
    part: Part,
    /// What came and is not understood yet; short, save while the body is passed on.
    input: Vec<u8>,
    status: Option<u16>,
    retry_after_s: Option<u64>,
    body: Vec<u8>,
    /// Where no line break was found so far.
    searched: usize,
}

impl Answer {
    /// The status, once the head is there.
    pub(super) fn status(&self) -> Option<u16> {
        self.status
    }

    /// The header `Retry-After`, if it is a number.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        self.retry_after_s.map(Duration::from_secs)
    }

    /// Whether the whole answer is there.
    pub(super) fn is_ended(&self) -> bool {
        self.part == Part::Ended
    }

    /// What is there of the body.
    pub(super) fn body(&self) -> &[u8] {
        &self.body
    }

    /// Takes the next line of the body, if it is there whole; empty lines are passed over.
    pub(super) fn next_line(&mut self) -> io::Result<Option<Vec<u8>>> {
        loop {
            let Some(at) = self.body[self.searched..].iter().position(|&byte| byte == b'\n') else {
                return self.last_line();
            };
            let mut line: Vec<u8> = self.body.drain(..=self.searched + at).collect();
            self.searched = 0;
            line.truncate(line.trim_ascii_end().len());
            if !line.is_empty() {
                return Ok(Some(line));
            }
        }
    }

    /// What is there without a line break: a line if nothing follows.
    fn last_line(&mut self) -> io::Result<Option<Vec<u8>>> {
        if self.is_ended() && !self.body.is_empty() {
            self.searched = 0;
            return Ok(Some(std::mem::take(&mut self.body)));
        }
        if self.body.len() > LINE_BYTES_MAX {
            return Err(invalid("a line of the answer is too long"));
        }
        self.searched = self.body.len();
        Ok(None)
    }

    /// The connection ended.
    fn end(&mut self) -> io::Result<()> {
        match self.part {
            Part::Ended => Ok(()),
            Part::Rest => {
                self.part = Part::Ended;
                Ok(())
            }
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    /// Takes what came.
    fn feed(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.input.extend_from_slice(bytes);
        let input = std::mem::take(&mut self.input);
        let mut rest = input.as_slice();
        while self.step(&mut rest)? {}
        if self.part != Part::Ended {
            self.input = rest.to_vec();
        }
        Ok(())
    }

    /// Understands one more thing, if it is there whole.
    fn step(&mut self, rest: &mut &[u8]) -> io::Result<bool> {
        match self.part {
            Part::Head => return self.read_head(rest),
            Part::Length(left) => {
                let left = left - self.take_body(rest, left);
                self.part = if left == 0 { Part::Ended } else { Part::Length(left) };
                return Ok(false);
            }
            Part::Rest => {
                self.take_body(rest, u64::MAX);
                return Ok(false);
            }
            Part::ChunkSize => match httparse::parse_chunk_size(rest) {
                Ok(httparse::Status::Complete((used, size))) => {
                    *rest = &rest[used..];
                    self.part = if size == 0 { Part::Trailers } else { Part::Chunk(size) };
                }
                Ok(httparse::Status::Partial) if rest.len() <= HEAD_BYTES_MAX => return Ok(false),
                _ => return Err(invalid("a chunk has no size")),
            },
            Part::Chunk(left) => {
                let left = left - self.take_body(rest, left);
                self.part = if left == 0 { Part::ChunkEnd } else { Part::Chunk(left) };
                return Ok(left == 0);
            }
            Part::ChunkEnd => {
                if rest.len() < 2 {
                    return Ok(false);
                }
                *rest = rest.strip_prefix(b"\r\n").ok_or_else(|| invalid("a chunk goes on"))?;
                self.part = Part::ChunkSize;
            }
            Part::Trailers => {
                let Some(at) = rest.iter().position(|&byte| byte == b'\n') else {
                    return match rest.len() <= HEAD_BYTES_MAX {
                        true => Ok(false),
                        false => Err(invalid("a trailer is too long")),
                    };
                };
                let is_last = rest[..at].trim_ascii().is_empty();
                *rest = &rest[at + 1..];
                self.part = if is_last { Part::Ended } else { Part::Trailers };
                return Ok(!is_last);
            }
            Part::Ended => return Ok(false),
        }
        Ok(true)
    }

    fn take_body(&mut self, rest: &mut &[u8], at_most: u64) -> u64 {
        let taken = usize::try_from(at_most).unwrap_or(usize::MAX).min(rest.len());
        self.body.extend_from_slice(&rest[..taken]);
        *rest = &rest[taken..];
        taken as u64
    }

    fn read_head(&mut self, rest: &mut &[u8]) -> io::Result<bool> {
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut head = httparse::Response::new(&mut headers);
        let used = match head.parse(rest) {
            Ok(httparse::Status::Complete(used)) => used,
            Ok(httparse::Status::Partial) if rest.len() <= HEAD_BYTES_MAX => return Ok(false),
            Ok(httparse::Status::Partial) => return Err(invalid("the head is too long")),
            Err(error) => return Err(invalid(&error.to_string())),
        };
        let Some(status) = head.code else { return Err(invalid("there is no status")) };
        *rest = &rest[used..];
        // 100 Continue and its like precede the answer.
        if (100..200).contains(&status) {
            return Ok(true);
        }
        let value = |name: &str| {
            let found = head.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
            found.and_then(|header| std::str::from_utf8(header.value).ok()).map(str::trim)
        };
        self.status = Some(status);
        self.retry_after_s = value("retry-after").and_then(|text| text.parse().ok());
        let is_chunked = value("transfer-encoding")
            .is_some_and(|coding| coding.to_ascii_lowercase().ends_with("chunked"));
        self.part = match value("content-length") {
            _ if is_chunked => Part::ChunkSize,
            _ if status == 204 || status == 304 => Part::Ended,
            Some(length) => match length.parse() {
                Ok(0) => Part::Ended,
                Ok(length) => Part::Length(length),
                Err(_) => return Err(invalid("the length is no number")),
            },
            None => Part::Rest,
        };
        Ok(true)
    }
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(bytes: &[u8], cuts: &[usize]) -> io::Result<(Answer, Vec<Vec<u8>>)> {
        let mut answer = Answer::default();
        let mut lines = Vec::new();
        let mut rest = bytes;
        for &cut in cuts.iter().chain([&usize::MAX]) {
            let (now, later) = rest.split_at(cut.min(rest.len()));
            answer.feed(now)?;
            while let Some(line) = answer.next_line()? {
                lines.push(line);
            }
            rest = later;
        }
        Ok((answer, lines))
    }

    const CHUNKED: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nRetry-After: 7\r\n\
        transfer-encoding: chunked\r\n\r\n4\r\none\n\r\n6;x=y\r\ntwo\n\nt\r\n5\r\nhree\n\r\n\
        0\r\nx: y\r\n\r\n";

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn an_answer_is_the_same_in_whatever_pieces_it_comes(
            cuts in proptest::collection::vec(0usize..20, 0..40)
        ) {
            let (answer, lines) = read(CHUNKED, &cuts).unwrap();
            prop_assert_eq!(lines, [b"one".to_vec(), b"two".to_vec(), b"three".to_vec()]);
            prop_assert!(answer.is_ended());
            prop_assert_eq!(answer.status(), Some(200));
            prop_assert_eq!(answer.retry_after(), Some(Duration::from_secs(7)));
        }

        #[test]
        fn no_bytes_make_it_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
            in_body in any::<bool>(),
            cuts in proptest::collection::vec(0usize..40, 0..8),
        ) {
            let head: &[u8] = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
            let bytes = if in_body { [head, &bytes].concat() } else { bytes };
            let _ = read(&bytes, &cuts);
        }
    }

    #[test]
    fn an_answer_without_length_goes_on_until_the_connection_ends() {
        let (mut answer, lines) = read(b"HTTP/1.1 200 OK\r\n\r\none\ntw", &[]).unwrap();
        assert_eq!(lines, [b"one"]);
        answer.feed(b"o").unwrap();
        assert!(!answer.is_ended());
        answer.end().unwrap();
        assert_eq!(answer.next_line().unwrap().unwrap(), b"two");
        assert_eq!(answer.next_line().unwrap(), None);
    }

    #[test]
    fn an_answer_that_is_cut_off_is_an_error() {
        let head = b"HTTP/1.1 422 No\r\ncontent-length: 5\r\n\r\nab";
        let (mut answer, _) = read(head, &[]).unwrap();
        assert_eq!(answer.end().unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        answer.feed(b"cde").unwrap();
        assert!(answer.is_ended());
    }
}
