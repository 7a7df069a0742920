//! A segment's file as others than the log's owner read it: another thread, or another process,
//! while the log is written or at rest. Nothing is mapped, nothing is written, and every byte that
//! is handed out passed its checksum.
//!
//! ```text
//!   SegmentFile ─┬─ read(offset)         one record that somebody knows to be there
//!                └─ items()              all from the start on, as far as they are whole
//!                     └─ skip_damage()    and past what is damaged
//! ```
//!
//! A reader beside the owner sees what was written; of a write that is under way it may see a part,
//! which looks like a torn tail. Which of these two it is, and whether damage is anybody's loss,
//! is for the reader to judge by the [marks](Passed::Mark): see `FORMAT.md`.

use std::fs;
use std::io;
use std::path::Path;

use bytes::Bytes;

use crate::blocking::fill_at;
use crate::error::ReadError;
use crate::format::{
    self, ALIGN, HEADER_BYTES, Item, Key, NoItem, RECORD_HEADER_BYTES, SegmentHeader, stored_bytes,
};
use crate::position::{Position, SegmentId, Seq};
use crate::read::{Record, record};

/// What one read takes in, unless a record is longer.
const CHUNK_BYTES: u32 = 1 << 20;

/// What is read and summed up, at most, to find whole items behind damage on one way through a
/// segment: whoever made the bytes may have made each of them look like the start of a long item.
const SKIP_BYTES: u64 = 256 << 20;

/// The segments that a directory holds, in order. A segment that is only prepared is among them.
///
/// # Errors
/// The system's.
pub fn segments_in(dir: &Path) -> io::Result<Vec<SegmentId>> {
    let mut segments = Vec::new();
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        let number = name.to_str().and_then(format::number_of);
        segments.extend(number.map(SegmentId));
    }
    segments.sort_unstable();
    Ok(segments)
}

/// A segment's file, open for reading.
#[derive(Debug)]
pub struct SegmentFile {
    file: fs::File,
    segment: SegmentId,
    log_id: u64,
    size: u32,
    key: Key,
    record_bytes_max: u32,
}

impl SegmentFile {
    /// Opens a segment of the log in a directory. `record_bytes_max` is the longest payload that
    /// is read: what is longer is taken for damage.
    ///
    /// # Errors
    /// [`ReadError::Removed`] if there is no such file; [`ReadError::Corrupt`] if its header or
    /// length is not a segment's, or of a later version; [`ReadError::Io`].
    pub fn open(
        dir: &Path,
        segment: SegmentId,
        record_bytes_max: u32,
    ) -> Result<SegmentFile, ReadError> {
        let position = Position { segment, offset: 0 };
        let failed = |error: io::Error| match error.kind() {
            io::ErrorKind::NotFound => ReadError::Removed(position),
            kind => ReadError::Io { position, kind },
        };
        let file = fs::File::open(dir.join(format::file_name(segment.0))).map_err(failed)?;
        let mut bytes = [0; HEADER_BYTES as usize];
        let filled = fill_at(&file, 0, &mut bytes).map_err(failed)?;
        let header = SegmentHeader::decode(&bytes[..filled])
            .ok()
            .filter(|header| header.number == segment.0)
            .ok_or(ReadError::Corrupt(position))?;
        let len = file.metadata().map_err(failed)?.len();
        if len != u64::from(header.size) {
            return Err(ReadError::Corrupt(position));
        }
        let SegmentHeader { log_id, size, number, .. } = header;
        let key = Key::new(log_id, number);
        Ok(SegmentFile { file, segment, log_id, size, key, record_bytes_max })
    }

    /// The identity of its log, which no client may see.
    pub fn log_id(&self) -> u64 {
        self.log_id
    }

    /// The length of the file in bytes.
    pub fn file_bytes(&self) -> u32 {
        self.size
    }

    /// Reads the record at an offset. `stored_bytes` is what it takes there; if that is too little,
    /// it takes a second read.
    ///
    /// # Errors
    /// [`ReadError::Corrupt`], [`ReadError::Nowhere`] and [`ReadError::Io`].
    pub fn read(&self, offset: u32, stored_bytes: u32) -> Result<Record, ReadError> {
        let position = Position { segment: self.segment, offset };
        if offset < HEADER_BYTES || !offset.is_multiple_of(ALIGN) || offset >= self.size {
            return Err(ReadError::Nowhere(position));
        }
        let mut bytes = self.bytes_at(offset, stored_bytes.max(RECORD_HEADER_BYTES))?;
        let span = self.claimed_span(offset, &bytes).map_err(|_| ReadError::Corrupt(position))?;
        if span as usize > bytes.len() {
            bytes = self.bytes_at(offset, span)?;
        }
        let item = format::decode(self.key, offset, &bytes);
        let item = item.map_err(|_| ReadError::Corrupt(position))?;
        let found = record(position, item, |payload| bytes.slice(payload));
        found.ok_or(ReadError::Nowhere(position))
    }

    /// The items from the segment's start on.
    pub fn items(&self) -> Items<'_> {
        self.items_from(HEADER_BYTES)
    }

    /// The items from an offset on, where one begins or will: to go on where an earlier way through
    /// the segment has [ended](Items::place).
    pub fn items_from(&self, offset: u32) -> Items<'_> {
        let offset = offset.clamp(HEADER_BYTES, self.size);
        Items {
            file: self,
            offset,
            chunk: Bytes::new(),
            chunk_at: offset,
            end: None,
            skip_bytes_left: SKIP_BYTES,
        }
    }

    /// So many bytes at an offset, no more than the longest record takes; fewer at the file's end.
    fn bytes_at(&self, offset: u32, len: u32) -> Result<Bytes, ReadError> {
        let longest = stored_bytes(self.record_bytes_max as usize).max(CHUNK_BYTES);
        let len = len.min(longest).min(self.size - offset);
        let mut bytes = vec![0; len as usize];
        let filled = fill_at(&self.file, u64::from(offset), &mut bytes).map_err(|error| {
            let position = Position { segment: self.segment, offset };
            ReadError::Io { position, kind: error.kind() }
        })?;
        bytes.truncate(filled);
        Ok(Bytes::from(bytes))
    }

    /// The length that the item at an offset claims, if it can be true.
    fn claimed_span(&self, offset: u32, bytes: &[u8]) -> Result<u32, NoItem> {
        let span = format::claimed_span(bytes, self.size - offset)?;
        let longest = stored_bytes(self.record_bytes_max as usize);
        if span <= longest { Ok(span) } else { Err(NoItem::Damaged) }
    }
}

/// What is passed on the way through a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Passed {
    /// A record.
    Record(Record),
    /// The start of a commit.
    Mark {
        /// The number of the next record.
        next: Seq,
        /// The last record that was durable when the commit was written: what of the records up to
        /// here is damaged or missing was lost to no crash.
        durable: Seq,
    },
    /// The segment's end: nothing is written behind it, ever.
    Seal {
        /// The number of the next segment's first record.
        next: Seq,
    },
}

/// Why there is nothing more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ItemsEnd {
    /// Its seal was passed.
    Sealed,
    /// What follows was not written yet, or looks so: see [`Items::is_rest_zero`].
    Unwritten,
    /// What follows is no whole item: see [`Items::skip_damage`].
    Damaged,
}

/// A way through a segment's items.
#[derive(Debug)]
pub struct Items<'a> {
    file: &'a SegmentFile,
    offset: u32,
    chunk: Bytes,
    chunk_at: u32,
    end: Option<ItemsEnd>,
    skip_bytes_left: u64,
}

impl Items<'_> {
    /// Where the next item is, or would be.
    pub fn place(&self) -> Position {
        Position { segment: self.file.segment, offset: self.offset }
    }

    /// How it ended, once there was nothing more.
    pub fn end(&self) -> Option<ItemsEnd> {
        self.end
    }

    /// Goes past what is damaged, or seems not to be written, to the next item that is whole;
    /// tells whether there is one. If there is none, or looking for it took as long as it may, it
    /// has ended for good.
    ///
    /// # Errors
    /// [`ReadError::Io`].
    pub fn skip_damage(&mut self) -> Result<bool, ReadError> {
        if !matches!(self.end, Some(ItemsEnd::Damaged | ItemsEnd::Unwritten)) {
            return Ok(false);
        }
        let mut offset = self.offset.next_multiple_of(ALIGN);
        while offset + ALIGN < self.file.size && self.skip_bytes_left > 0 {
            offset += ALIGN;
            let header = self.bytes_at(offset, RECORD_HEADER_BYTES)?;
            if !format::resembles_item(&header) {
                continue;
            }
            let Ok(span) = self.file.claimed_span(offset, &header) else { continue };
            let chunk_at = self.chunk_at;
            let bytes = self.bytes_at(offset, span)?;
            let read = if self.chunk_at == chunk_at { 0 } else { self.chunk.len() as u64 };
            let work = u64::from(span) + read;
            self.skip_bytes_left = self.skip_bytes_left.saturating_sub(work);
            if format::decode(self.file.key, offset, &bytes).is_ok() {
                (self.offset, self.end) = (offset, None);
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether nothing but zeros follows, to the end of the file.
    ///
    /// # Errors
    /// [`ReadError::Io`].
    pub fn is_rest_zero(&mut self) -> Result<bool, ReadError> {
        let mut offset = self.offset;
        while offset < self.file.size {
            let bytes = self.file.bytes_at(offset, CHUNK_BYTES)?;
            if bytes.is_empty() || bytes.iter().any(|byte| *byte != 0) {
                return Ok(false);
            }
            offset += bytes.len() as u32;
        }
        Ok(true)
    }

    /// Bytes at an offset, from the chunk in hand or a new one.
    fn bytes_at(&mut self, offset: u32, len: u32) -> Result<Bytes, ReadError> {
        let in_hand = |chunk: &Bytes, chunk_at: u32| {
            let at = offset.checked_sub(chunk_at)? as usize;
            let end = at.checked_add(len as usize)?;
            (end <= chunk.len()).then(|| chunk.slice(at..end))
        };
        if let Some(bytes) = in_hand(&self.chunk, self.chunk_at) {
            return Ok(bytes);
        }
        self.chunk = self.file.bytes_at(offset, len.max(CHUNK_BYTES))?;
        self.chunk_at = offset;
        Ok(self.chunk.slice(..self.chunk.len().min(len as usize)))
    }

    /// The item at the offset; `None` for one that is no concern of a reader.
    fn take(&mut self) -> Result<Option<Passed>, Stop> {
        let position = self.place();
        let header = self.bytes_at(self.offset, RECORD_HEADER_BYTES)?;
        let span = self.file.claimed_span(self.offset, &header)?;
        let bytes = self.bytes_at(self.offset, span)?;
        let item = format::decode(self.file.key, self.offset, &bytes)?;
        self.offset += span;
        Ok(match item {
            Item::Mark { seq, durable } => {
                Some(Passed::Mark { next: Seq(seq), durable: Seq(durable) })
            }
            Item::Seal { seq } => {
                self.end = Some(ItemsEnd::Sealed);
                Some(Passed::Seal { next: Seq(seq) })
            }
            Item::Checkpoint { .. } => None,
            Item::Record { .. } => {
                record(position, item, |payload| bytes.slice(payload)).map(Passed::Record)
            }
        })
    }
}

/// Why an item could not be taken.
enum Stop {
    NoItem(NoItem),
    Read(ReadError),
}

impl From<NoItem> for Stop {
    fn from(no_item: NoItem) -> Stop {
        Stop::NoItem(no_item)
    }
}

impl From<ReadError> for Stop {
    fn from(error: ReadError) -> Stop {
        Stop::Read(error)
    }
}

impl Iterator for Items<'_> {
    type Item = Result<Passed, ReadError>;

    /// The next item; an error where damage begins, once, and nothing more then until
    /// [`Items::skip_damage`].
    fn next(&mut self) -> Option<Self::Item> {
        while self.end.is_none() {
            match self.take() {
                Ok(Some(passed)) => return Some(Ok(passed)),
                Ok(None) => {}
                Err(Stop::NoItem(NoItem::Unwritten)) => self.end = Some(ItemsEnd::Unwritten),
                Err(Stop::NoItem(NoItem::Damaged)) => {
                    self.end = Some(ItemsEnd::Damaged);
                    return Some(Err(ReadError::Corrupt(self.place())));
                }
                Err(Stop::Read(error)) => {
                    self.end = Some(ItemsEnd::Damaged);
                    return Some(Err(error));
                }
            }
        }
        None
    }
}
