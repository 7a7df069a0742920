//! The lane that reads what is on disk alone, while everybody else is served: through the ring,
//! where a bad sector is the error of one read, and a slow disk delays nobody but whoever asked.
//!
//! ```text
//!   fetch ──► request ─┬─ its segment's file is open ──────────► Read ──► handle ──► next_fetched
//!                      └─ Open first; at most FILES_MAX open ──►  │ ▲
//!                                                                 └─┘ longer than was thought: again
//! ```
//!
//! What is under way has limits, [`Log::FETCHES_MAX`] and [`Log::FETCH_BYTES_MAX`]; past them
//! [`FetchError::Busy`] sends the caller back to its own queue. Files stay open for the next read
//! of their segment, the least recently used one is closed for another.

use std::collections::VecDeque;
use std::io;

use bytes::Bytes;
use sextant_ring::buf::IoBuf;
use sextant_ring::driver::{File, FileDone, FileOp, FileOutput, Files, OpenMode};

use crate::error::{FetchError, ReadError};
use crate::format::{self, ALIGN, HEADER_BYTES, Key, NoItem, RECORD_HEADER_BYTES, stored_bytes};
use crate::log::{Lane, Log};
use crate::position::{Position, SegmentId};
use crate::read::{Record, record};

/// Segments whose files are kept open for reading.
const FILES_MAX: usize = 4;

/// Buffers that are kept for the next reads, and the largest that is.
const SPARE_MAX: usize = 16;
const SPARE_BYTES_MAX: usize = 64 << 10;

/// What came of a [`Log::fetch`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// What the caller named it.
    pub token: u64,
    /// Where the record is, or was to be.
    pub position: Position,
    /// The record, or why there is none. An error concerns this record alone.
    pub result: Result<Record, ReadError>,
}

/// What a read is for.
#[derive(Clone, Copy)]
enum Want {
    Record {
        token: u64,
    },
    /// A piece of a segment, for the sweep of this number.
    Chunk {
        sweep: u64,
    },
}

struct Request {
    segment: u32,
    offset: u32,
    /// Bytes that are read.
    len: u32,
    /// Bytes that were written from `offset` to the end of what was written of the segment.
    room: u32,
    key: Key,
    want: Want,
    /// Of its read, once that is under way.
    ticket: Option<u32>,
}

impl Request {
    fn position(&self) -> Position {
        Position { segment: SegmentId(self.segment), offset: self.offset }
    }
}

/// A segment's file, open for reading.
struct Reading {
    segment: u32,
    /// `None` while it is being opened, by the operation of this ticket.
    file: Option<File>,
    ticket: u32,
    /// Larger is more recent.
    used: u64,
}

/// A piece of a segment, read for a sweep.
pub(crate) struct Chunk {
    pub(crate) sweep: u64,
    pub(crate) offset: u32,
    pub(crate) result: Result<Bytes, ReadError>,
}

#[derive(Default)]
pub(crate) struct FetchLane {
    requests: Vec<Request>,
    files: Vec<Reading>,
    done: VecDeque<Fetched>,
    chunks: VecDeque<Chunk>,
    /// What all requests read.
    bytes: u64,
    spare: Vec<IoBuf>,
    uses: u64,
    sweeps: u64,
}

/// A read buffer that became the memory of what was read.
struct Owned(IoBuf);

impl AsRef<[u8]> for Owned {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl FetchLane {
    /// Whether one more read of this length would be too much.
    fn is_busy(&self, len: u32) -> bool {
        let many = self.requests.len() + self.done.len() >= Log::FETCHES_MAX;
        let long = self.bytes + u64::from(len) > u64::from(Log::FETCH_BYTES_MAX);
        many || (long && !self.requests.is_empty())
    }

    fn buf(&mut self, len: u32) -> IoBuf {
        let at = self.spare.iter().position(|buf| buf.capacity() >= len as usize);
        at.map_or_else(|| IoBuf::with_capacity(len as usize), |at| self.spare.swap_remove(at))
    }

    fn keep_buf(&mut self, buf: IoBuf) {
        if self.spare.len() < SPARE_MAX && buf.capacity() <= SPARE_BYTES_MAX {
            self.spare.push(buf);
        }
    }

    fn add(&mut self, request: Request) {
        self.bytes += u64::from(request.len);
        self.requests.push(request);
    }

    fn take(&mut self, at: usize) -> Request {
        let request = self.requests.swap_remove(at);
        self.bytes -= u64::from(request.len);
        request
    }

    /// Gives whoever asked what came of it.
    fn finish(&mut self, request: &Request, result: Result<Record, ReadError>) {
        match request.want {
            Want::Record { token } => {
                let position = request.position();
                self.done.push_back(Fetched { token, position, result });
            }
            Want::Chunk { sweep } => {
                let result = result.map(|_| Bytes::new());
                self.give_chunk(Chunk { sweep, offset: request.offset, result });
            }
        }
    }

    /// Keeps a chunk for its sweep. One whose sweep was dropped goes when newer ones come.
    fn give_chunk(&mut self, chunk: Chunk) {
        const CHUNKS_MAX: usize = 4;
        if self.chunks.len() == CHUNKS_MAX {
            self.chunks.pop_front();
        }
        self.chunks.push_back(chunk);
    }

    /// A number for a new sweep.
    pub(crate) fn next_sweep(&mut self) -> u64 {
        self.sweeps += 1;
        self.sweeps
    }

    pub(crate) fn take_chunk(&mut self, sweep: u64, offset: u32) -> Option<Chunk> {
        let is_it = |chunk: &Chunk| chunk.sweep == sweep && chunk.offset == offset;
        let at = self.chunks.iter().position(is_it)?;
        self.chunks.remove(at)
    }

    pub(crate) fn is_reading(&self, sweep: u64) -> bool {
        self.requests
            .iter()
            .any(|request| matches!(request.want, Want::Chunk { sweep: of } if of == sweep))
    }

    fn is_used(&self, segment: u32) -> bool {
        self.requests.iter().any(|request| request.segment == segment)
    }

    pub(crate) fn open_files(&self) -> usize {
        self.files.len()
    }
}

impl Log {
    /// Records that may be fetched at once, those included whose outcome was not taken yet.
    pub const FETCHES_MAX: usize = 64;
    /// Bytes that may be fetched at once, unless a single record is longer.
    pub const FETCH_BYTES_MAX: u32 = 4 << 20;

    /// Starts reading a record that [`Log::read`] found to be [cold](crate::Read::Cold).
    /// [`Log::next_fetched`] gives it under the name `token`, after some later [`Log::handle`].
    ///
    /// `stored_bytes` is what the record takes ([`Appended::stored_bytes`](crate::Appended)); if it
    /// is not known, a guess: a record that is longer takes a second read. A record longer than
    /// `record_bytes_max`, which may have been higher once, is found only with its true length.
    ///
    /// # Errors
    /// See [`FetchError`]; nothing was started then.
    pub fn fetch(
        &mut self,
        position: Position,
        stored_bytes: u32,
        token: u64,
        files: &mut impl Files,
    ) -> Result<(), FetchError> {
        let segment = self.segment_of(position)?;
        let offset = position.offset;
        if offset < HEADER_BYTES || !offset.is_multiple_of(ALIGN) || offset >= segment.written {
            return Err(ReadError::Nowhere(position).into());
        }
        let (room, key) = (segment.written - offset, segment.key);
        let len = stored_bytes.clamp(RECORD_HEADER_BYTES, room.max(RECORD_HEADER_BYTES));
        let want = Want::Record { token };
        let segment = position.segment.0;
        self.request(Request { segment, offset, len, room, key, want, ticket: None }, files)
    }

    /// The outcome of a [`Log::fetch`] that has ended, in the order in which they ended.
    pub fn next_fetched(&mut self) -> Option<Fetched> {
        self.fetch.done.pop_front()
    }

    /// Starts reading a piece of a segment for a sweep.
    pub(crate) fn fetch_chunk(
        &mut self,
        sweep: u64,
        position: Position,
        len: u32,
        files: &mut impl Files,
    ) -> Result<(), FetchError> {
        let segment = self.segment_of(position)?;
        let room = segment.written.saturating_sub(position.offset);
        let (key, offset) = (segment.key, position.offset);
        let (want, segment) = (Want::Chunk { sweep }, position.segment.0);
        let len = len.min(room);
        self.request(Request { segment, offset, len, room, key, want, ticket: None }, files)
    }

    fn request(&mut self, request: Request, files: &mut impl Files) -> Result<(), FetchError> {
        if self.is_closing() {
            return Err(ReadError::Closed(request.position()).into());
        }
        if self.fetch.is_busy(request.len) {
            return Err(FetchError::Busy);
        }
        self.fetch.add(request);
        self.drive_fetches(files);
        Ok(())
    }

    /// Starts what can be started: reads of files that are open, the opening of files that are not.
    fn drive_fetches(&mut self, files: &mut impl Files) {
        let mut at = 0;
        while at < self.fetch.requests.len() {
            let request = &self.fetch.requests[at];
            let segment = request.segment;
            if request.ticket.is_some() {
                at += 1;
                continue;
            }
            match self.fetch.files.iter().position(|reading| reading.segment == segment) {
                Some(open) => {
                    if let Some(file) = self.fetch.files[open].file {
                        self.fetch.uses += 1;
                        self.fetch.files[open].used = self.fetch.uses;
                        self.start_read(at, file, files);
                    }
                    at += 1;
                }
                None if self.segment(segment).is_none() => {
                    let request = self.fetch.take(at);
                    let gone = ReadError::Removed(request.position());
                    self.fetch.finish(&request, Err(gone));
                }
                None => {
                    self.open_segment(segment, files);
                    at += 1;
                }
            }
        }
        self.close_unused(files);
    }

    fn start_read(&mut self, at: usize, file: File, files: &mut impl Files) {
        let request = &self.fetch.requests[at];
        let (offset, len) = (u64::from(request.offset), request.len);
        let buf = self.fetch.buf(len);
        let ticket = self.submit(files, Lane::Read, FileOp::Read { file, offset, buf });
        self.fetch.requests[at].ticket = Some(ticket);
    }

    /// Opens a segment's file for reading, if one more may be open.
    fn open_segment(&mut self, number: u32, files: &mut impl Files) {
        if self.fetch.files.len() >= FILES_MAX {
            let idle = (0..self.fetch.files.len())
                .filter(|at| {
                    let reading = &self.fetch.files[*at];
                    reading.file.is_some() && !self.fetch.is_used(reading.segment)
                })
                .min_by_key(|at| self.fetch.files[*at].used);
            let Some(idle) = idle else { return };
            self.close_reading(idle, files);
        }
        let segment = self.segment(number).expect("the caller has looked");
        let path = segment.path.clone();
        let ticket = self.submit(files, Lane::Reopen, FileOp::Open { path, mode: OpenMode::Read });
        self.fetch.uses += 1;
        let used = self.fetch.uses;
        self.fetch.files.push(Reading { segment: number, file: None, ticket, used });
    }

    fn close_reading(&mut self, at: usize, files: &mut impl Files) {
        let reading = self.fetch.files.swap_remove(at);
        let file = reading.file.expect("only an open file is closed");
        self.submit(files, Lane::Close, FileOp::Close { file });
    }

    /// Closes the files of segments that were removed, whose room on the disk is not free before;
    /// all files of a log that is closed.
    pub(crate) fn close_unused(&mut self, files: &mut impl Files) {
        for at in (0..self.fetch.files.len()).rev() {
            let Reading { segment, file, .. } = self.fetch.files[at];
            let unwanted = self.is_closing() || self.segment(segment).is_none();
            if file.is_some() && unwanted && !self.fetch.is_used(segment) {
                self.close_reading(at, files);
            }
        }
    }

    pub(crate) fn reopen_done(&mut self, done: FileDone, files: &mut impl Files) {
        let ticket = done.ticket as u32;
        let at = self.fetch.files.iter().position(|reading| reading.ticket == ticket);
        let at = at.expect("a completion of what was asked for");
        match done.result {
            Ok(FileOutput::Opened(file)) => self.fetch.files[at].file = Some(file),
            Ok(_) => panic!("opening a file opens it"),
            Err(error) => {
                let segment = self.fetch.files.swap_remove(at).segment;
                self.fail_requests(segment, error.kind());
            }
        }
        self.drive_fetches(files);
    }

    /// Fails what waits for a file that cannot be opened.
    fn fail_requests(&mut self, segment: u32, kind: io::ErrorKind) {
        let removed = self.segment(segment).is_none();
        while let Some(at) = self.fetch.requests.iter().position(|held| held.segment == segment) {
            let request = self.fetch.take(at);
            assert!(request.ticket.is_none(), "nothing is read from a file that was not opened");
            let position = request.position();
            let error = match removed {
                true => ReadError::Removed(position),
                false => ReadError::Io { position, kind },
            };
            self.fetch.finish(&request, Err(error));
        }
    }

    pub(crate) fn read_done(&mut self, done: FileDone, files: &mut impl Files) {
        let ticket = Some(done.ticket as u32);
        let at = self.fetch.requests.iter().position(|request| request.ticket == ticket);
        let mut request = self.fetch.take(at.expect("a completion of what was asked for"));
        let position = request.position();
        match (done.result, done.buf) {
            (Err(error), buf) => {
                let kind = error.kind();
                tracing::error!(dir = %self.dir.display(), %position, %error, "a read failed");
                self.fetch.finish(&request, Err(ReadError::Io { position, kind }));
                buf.into_iter().for_each(|buf| self.fetch.keep_buf(buf));
            }
            (Ok(_), None) => panic!("a read gives its buffer back"),
            (Ok(_), Some(buf)) => match request.want {
                Want::Chunk { sweep } => {
                    let bytes = Bytes::from_owner(Owned(buf));
                    let there = bytes.len().min(request.room as usize);
                    let result = Ok(bytes.slice(..there));
                    self.fetch.give_chunk(Chunk { sweep, offset: request.offset, result });
                }
                Want::Record { .. } => match self.judge(&request, &buf) {
                    Judged::Longer(span) => {
                        (request.len, request.ticket) = (span, None);
                        self.fetch.add(request);
                        self.fetch.keep_buf(buf);
                    }
                    Judged::Is(result) => {
                        self.fetch.finish(&request, result);
                        self.fetch.keep_buf(buf);
                    }
                },
            },
        }
        self.drive_fetches(files);
    }

    /// What was read in answer to a request for a record.
    fn judge(&self, request: &Request, bytes: &[u8]) -> Judged {
        let position = request.position();
        let corrupt = Judged::Is(Err(ReadError::Corrupt(position)));
        let bytes = &bytes[..bytes.len().min(request.room as usize)];
        let span = match format::claimed_span(bytes, request.room) {
            Ok(span) => span,
            Err(NoItem::Unwritten | NoItem::Damaged) => return corrupt,
        };
        if span as usize > bytes.len() {
            let longest = stored_bytes(self.options.record_bytes_max as usize);
            let may_be = span > request.len && span <= longest;
            return if may_be { Judged::Longer(span) } else { corrupt };
        }
        let bytes = &bytes[..span as usize];
        let Ok(item) = format::decode(request.key, request.offset, bytes) else { return corrupt };
        let found = record(position, item, |payload| Bytes::copy_from_slice(&bytes[payload]));
        Judged::Is(found.ok_or(ReadError::Nowhere(position)))
    }
}

/// What bytes that were read turn out to be.
enum Judged {
    /// The start of a record of this length.
    Longer(u32),
    Is(Result<Record, ReadError>),
}
