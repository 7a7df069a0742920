//! Reading a segment from its start to its end through the ring, a piece at a time: for whoever
//! looks for what is still needed in it, while others are served.
//!
//! ```text
//!   segment  │header│ mark │ record │ record │ mark │ rec│ord │ …   │ seal │
//!                   └──────── chunk in hand ─────────────┘
//!                                     ▲ offset            └─ next chunk begins with this record
//! ```
//!
//! A sweep is a value of its caller: a clone of it from before a record is the way back to it.

use bytes::Bytes;
use sextant_ring::driver::Files;

use crate::error::{FetchError, ReadError};
use crate::format::{self, HEADER_BYTES, Item, Key, NoItem};
use crate::log::Log;
use crate::position::{Position, SegmentId};
use crate::read::{Record, record};

/// What one read takes in, unless a record is longer.
const CHUNK_BYTES: u32 = 256 << 10;

/// A place in a segment that is read through the ring.
#[derive(Clone, Debug)]
pub struct Sweep {
    number: u64,
    segment: u32,
    key: Key,
    /// Where the next item is.
    offset: u32,
    /// Bytes in hand, and where they begin.
    chunk: Bytes,
    chunk_at: u32,
    ended: bool,
}

/// What a sweep has come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Swept {
    /// The next record.
    Record(Record),
    /// The disk has been asked; to be asked again after a later [`Log::handle`].
    Waiting,
    /// There is nothing more.
    Ended,
}

impl Log {
    /// A sweep over what was written of a segment.
    ///
    /// # Errors
    /// [`ReadError::Removed`] and [`ReadError::Nowhere`].
    pub fn sweep(&mut self, segment: SegmentId) -> Result<Sweep, ReadError> {
        let key = self.segment_of(Position { segment, offset: HEADER_BYTES })?.key;
        Ok(Sweep {
            number: self.fetch.next_sweep(),
            segment: segment.0,
            key,
            offset: HEADER_BYTES,
            chunk: Bytes::new(),
            chunk_at: HEADER_BYTES,
            ended: false,
        })
    }
}

impl Sweep {
    /// The next record, if it is in hand; what comes next is asked for otherwise.
    ///
    /// # Errors
    /// See [`ReadError`]; there is nothing more then.
    pub fn next(&mut self, log: &mut Log, files: &mut impl Files) -> Result<Swept, ReadError> {
        while !self.ended {
            let position = self.position();
            let written = match log.segment_of(position) {
                Ok(segment) => segment.written,
                Err(error) => return self.fail(error),
            };
            let Some(room) = written.checked_sub(self.offset).filter(|room| *room > 0) else {
                break;
            };
            let at = (self.offset - self.chunk_at) as usize;
            let rest = self.chunk.slice(at.min(self.chunk.len())..);
            let header_bytes = room.min(format::RECORD_HEADER_BYTES);
            let span = match format::claimed_span(&rest, room) {
                Ok(span) => span,
                Err(_) if rest.len() < header_bytes as usize => header_bytes,
                Err(NoItem::Unwritten | NoItem::Damaged) => {
                    return self.fail(ReadError::Corrupt(position));
                }
            };
            if span as usize > rest.len() {
                match self.read_on(log, span, files)? {
                    true => continue,
                    false => return Ok(Swept::Waiting),
                }
            }
            let bytes = rest.slice(..span as usize);
            let Ok(item) = format::decode(self.key, self.offset, &bytes) else {
                return self.fail(ReadError::Corrupt(position));
            };
            self.offset += span;
            self.ended = matches!(item, Item::Seal { .. });
            if let Some(record) = record(position, item, |payload| bytes.slice(payload)) {
                return Ok(Swept::Record(record));
            }
        }
        self.ended = true;
        Ok(Swept::Ended)
    }

    /// Takes the chunk that begins at the offset, if it has come; asks for it otherwise. `span`
    /// bytes of it are needed to go on.
    fn read_on(
        &mut self,
        log: &mut Log,
        span: u32,
        files: &mut impl Files,
    ) -> Result<bool, ReadError> {
        let position = self.position();
        if let Some(chunk) = log.fetch.take_chunk(self.number, self.offset) {
            let short = chunk.result.as_ref().is_ok_and(|bytes| bytes.len() < span as usize);
            return match chunk.result {
                // The file ends before what was written of it.
                Ok(_) if short => self.fail(ReadError::Corrupt(position)).map(|_| false),
                Ok(bytes) => {
                    (self.chunk, self.chunk_at) = (bytes, self.offset);
                    Ok(true)
                }
                Err(error) => self.fail(error).map(|_| false),
            };
        }
        if log.fetch.is_reading(self.number) {
            return Ok(false);
        }
        match log.fetch_chunk(self.number, position, span.max(CHUNK_BYTES), files) {
            Ok(()) | Err(FetchError::Busy) => Ok(false),
            Err(FetchError::Read(error)) => self.fail(error).map(|_| false),
        }
    }

    fn position(&self) -> Position {
        Position { segment: SegmentId(self.segment), offset: self.offset }
    }

    fn fail(&mut self, error: ReadError) -> Result<Swept, ReadError> {
        self.ended = true;
        Err(error)
    }
}
