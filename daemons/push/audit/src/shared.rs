//! What writer and readers share: which segments there are, and their indexes. The writer makes a
//! new snapshot of it whenever that has changed; a reader takes the one that there is, and both go
//! on without each other.
//!
//! ```text
//!   Writer ──publish──► Shared { Arc<Snapshot> } ◄──snapshot── Reader, Reader, …
//!                                   │
//!                 sealed: Segment 1, Segment 2, …      active: Chunk, Chunk, …
//!                           └ index: read when it is first asked for
//! ```

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use sextant_segment::{Items, Passed, Position, ReadError, Record, SegmentFile, SegmentId};

use crate::index::{Chunk, ChunkBuilder, Place};
use crate::query::Query;
use crate::record::{self, PAYLOAD_BYTES_MAX, Parsing};
use crate::sidecar::{self, Head};

pub(crate) struct Shared {
    pub(crate) dir: PathBuf,
    snapshot: Mutex<Arc<Snapshot>>,
    /// Segments whose index was read, in that order, and how many may be.
    read: Mutex<VecDeque<Arc<Segment>>>,
    indexes_kept: usize,
}

/// Which records there are, at one moment.
#[derive(Clone)]
pub(crate) struct Snapshot {
    /// In order.
    pub(crate) sealed: Vec<Arc<Segment>>,
    pub(crate) active: SegmentId,
    pub(crate) chunks: Vec<Arc<Chunk>>,
}

impl Shared {
    pub(crate) fn new(dir: PathBuf, snapshot: Snapshot, indexes_kept: usize) -> Shared {
        let snapshot = Mutex::new(Arc::new(snapshot));
        Shared { dir, snapshot, read: Mutex::default(), indexes_kept }
    }

    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        // A snapshot is replaced in one step: nothing is half done where a thread has panicked.
        self.snapshot.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn publish(&self, snapshot: Snapshot) {
        let snapshot = Arc::new(snapshot);
        *self.snapshot.lock().unwrap_or_else(PoisonError::into_inner) = snapshot;
    }

    /// The index of a sealed segment. The one that was read longest ago goes for it, if there are
    /// too many.
    pub(crate) fn index(&self, segment: &Arc<Segment>) -> Result<Arc<Chunk>, ReadError> {
        let chunk = segment.index(self)?;
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if !segment.is_counted.swap(true, Ordering::Relaxed) {
            read.push_back(segment.clone());
        }
        while read.len() > self.indexes_kept.max(1) {
            let Some(oldest) = read.pop_front() else { break };
            oldest.is_counted.store(false, Ordering::Relaxed);
            oldest.forget();
        }
        Ok(chunk)
    }

    /// Drops what is kept of segments before this one.
    pub(crate) fn forget_before(&self, oldest: SegmentId) {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        read.retain(|segment| segment.id() >= oldest);
    }

    pub(crate) fn open(&self, segment: SegmentId) -> Result<SegmentFile, ReadError> {
        SegmentFile::open(&self.dir, segment, PAYLOAD_BYTES_MAX as u32)
    }
}

/// A sealed segment.
pub(crate) struct Segment {
    pub(crate) head: Head,
    /// If it was read, or could not be written to a file.
    index: Mutex<Option<Arc<Chunk>>>,
    /// The file beside the segment is not what it should be.
    unwritten: AtomicBool,
    /// It is among those whose index was read.
    is_counted: AtomicBool,
}

impl Segment {
    /// One whose index is in a file.
    pub(crate) fn in_file(head: Head) -> Segment {
        let (unwritten, is_counted) = (AtomicBool::new(false), AtomicBool::new(false));
        Segment { head, index: Mutex::new(None), unwritten, is_counted }
    }

    /// One whose index is in memory alone.
    pub(crate) fn in_memory(head: Head, chunk: Arc<Chunk>) -> Segment {
        // One that lacks something serves as long as it has to, and is made anew then.
        let unwritten = AtomicBool::new(!chunk.damaged);
        let is_counted = AtomicBool::new(false);
        Segment { head, index: Mutex::new(Some(chunk)), unwritten, is_counted }
    }

    pub(crate) fn id(&self) -> SegmentId {
        SegmentId(self.head.segment)
    }

    /// Whether anything in it may be asked for.
    pub(crate) fn may_match(&self, query: &Query) -> bool {
        self.head.first_at < query.to && self.head.last_at >= query.from
    }

    /// Whether its index is in memory.
    pub(crate) fn is_read(&self) -> bool {
        self.index.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Its index, read from the file beside it, or made from the segment if that is no good.
    fn index(&self, shared: &Shared) -> Result<Arc<Chunk>, ReadError> {
        let mut index = self.index.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(chunk) = &*index {
            return Ok(chunk.clone());
        }
        let chunk = match sidecar::load(&shared.dir, &self.head) {
            Ok(chunk) => Arc::new(chunk),
            Err(error) => {
                let file = shared.open(self.id())?;
                tracing::warn!(segment = self.head.segment, %error, "an index is made anew");
                let chunk = index_of(&file)?.chunk;
                self.unwritten.store(!chunk.damaged, Ordering::Relaxed);
                Arc::new(chunk)
            }
        };
        *index = Some(chunk.clone());
        Ok(chunk)
    }

    /// The index, if it has to be written; told once.
    pub(crate) fn take_unwritten(&self) -> Option<Arc<Chunk>> {
        if !self.unwritten.load(Ordering::Relaxed) {
            return None;
        }
        self.unwritten.store(false, Ordering::Relaxed);
        self.index.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set_unwritten(&self) {
        self.unwritten.store(true, Ordering::Relaxed);
    }

    /// Gives up the memory of an index that was written: it is read when it is asked for.
    pub(crate) fn forget(&self) {
        if self.unwritten.load(Ordering::Relaxed) {
            return;
        }
        *self.index.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// What a way through a segment's records has found.
pub(crate) struct Indexed {
    pub(crate) chunk: Chunk,
    pub(crate) records: u64,
    pub(crate) last: Option<Record>,
}

/// Makes the index of a segment from what it holds. Damage is passed over, and noted.
pub(crate) fn index_of(file: &SegmentFile) -> Result<Indexed, ReadError> {
    let mut builder = ChunkBuilder::default();
    let mut facts = Vec::new();
    let mut items = file.items();
    let (mut records, mut damaged, mut last) = (0, false, None);
    while let Some(record) = next_record(&mut items) {
        let Ok(record) = record else {
            damaged = true;
            if !items.skip_damage()? {
                break;
            }
            continue;
        };
        let follows = last.as_ref().is_none_or(|last: &Record| last.seq < record.seq);
        if !follows {
            damaged = true;
            continue;
        }
        records += 1;
        let (offset, stored_bytes) = (record.position.offset, record.stored_bytes());
        let place = Place { seq: record.seq.0, offset, stored_bytes };
        match record::parse(record.kind, &record.payload) {
            Ok((_, Parsing::Event(event))) => builder.push_event(&event, place),
            Ok((_, Parsing::Facts(block))) => {
                facts.clear();
                facts.reserve(block.left());
                for fact in block {
                    match fact {
                        Ok(fact) => facts.push(fact),
                        Err(_) => damaged = true,
                    }
                }
                builder.push_facts(&facts, place);
            }
            Err(_) => damaged = true,
        }
        last = Some(record);
    }
    let mut chunk = builder.finish();
    chunk.damaged = damaged;
    Ok(Indexed { chunk, records, last })
}

/// The next record, or the error where damage begins.
pub(crate) fn next_record(items: &mut Items<'_>) -> Option<Result<Record, ReadError>> {
    loop {
        match items.next()? {
            Ok(Passed::Record(record)) => return Some(Ok(record)),
            Ok(_) => {}
            Err(error) => return Some(Err(error)),
        }
    }
}

/// The start of a segment, where a complaint concerns all of it.
pub(crate) fn start_of(segment: SegmentId) -> Position {
    Position { segment, offset: 0 }
}
