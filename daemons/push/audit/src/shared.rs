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
    pub(crate) fn new(dir: PathBuf, snapshot: Snapshot) -> Shared {
        Shared { dir, snapshot: Mutex::new(Arc::new(snapshot)) }
    }

    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        // A snapshot is replaced in one step: nothing is half done where a thread has panicked.
        self.snapshot.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn publish(&self, snapshot: Snapshot) {
        let snapshot = Arc::new(snapshot);
        *self.snapshot.lock().unwrap_or_else(PoisonError::into_inner) = snapshot;
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
}

impl Segment {
    /// One whose index is in a file.
    pub(crate) fn in_file(head: Head) -> Segment {
        Segment { head, index: Mutex::new(None), unwritten: AtomicBool::new(false) }
    }

    /// One whose index is in memory alone.
    pub(crate) fn in_memory(head: Head, chunk: Arc<Chunk>) -> Segment {
        // One that lacks something serves as long as it has to, and is made anew then.
        let unwritten = AtomicBool::new(!chunk.damaged);
        Segment { head, index: Mutex::new(Some(chunk)), unwritten }
    }

    pub(crate) fn id(&self) -> SegmentId {
        SegmentId(self.head.segment)
    }

    /// Whether anything in it may be asked for.
    pub(crate) fn may_match(&self, query: &Query) -> bool {
        self.head.first_at < query.to && self.head.last_at >= query.from
    }

    /// Its index, read from the file beside it, or made from the segment if that is no good.
    pub(crate) fn index(&self, shared: &Shared) -> Result<Arc<Chunk>, ReadError> {
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
        if !self.unwritten.swap(false, Ordering::Relaxed) {
            return None;
        }
        self.index.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set_unwritten(&self) {
        self.unwritten.store(true, Ordering::Relaxed);
    }

    /// Gives up the memory of an index that was written: it is read when it is asked for.
    pub(crate) fn forget(&self) {
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
