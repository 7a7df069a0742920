//! Opening the audit: the log, the indexes of its sealed segments as far as they can be used, and
//! the index of the active one, which is made from its records; with them the end of the chain.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sextant_segment::{
    BlockingLog, Corruption, ReadError, Record, SegmentFile, SegmentId, SegmentInfo, segments_in,
};

use crate::chain::{Hash, Head};
use crate::index::Chunk;
use crate::options::Options;
use crate::reader::Reader;
use crate::shared::{Segment, Shared, Snapshot, index_of, start_of};
use crate::sidecar;
use crate::writer::{Writer, head_of};

/// What opening an audit found and did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened {
    /// There was none before.
    pub created: bool,
    /// Records that are there.
    pub records: u64,
    /// Facts in them.
    pub facts: u64,
    /// The first record that is there; the next one's number if there is none.
    pub first_seq: u64,
    /// The end of the chain.
    pub head: Head,
    /// Bytes of a torn tail that were cut: what had not been flushed when the audit ended.
    pub torn_bytes: u64,
    /// Indexes of sealed segments that were made anew.
    pub indexes_rebuilt: u32,
}

/// Why an audit could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The operator's: limits that do not fit together.
    #[error("the audit's limits do not fit together: {0}")]
    Options(&'static str),
    /// The log could not be opened.
    #[error(transparent)]
    Log(sextant_segment::OpenError),
    /// What was durable is damaged. The chain is not continued behind damage: [`verify`](crate::verify())
    /// tells all there is to tell, [`Reader::open`] reads what is whole, and a new audit begins in
    /// another directory.
    #[error("the audit is damaged: {0}")]
    Damaged(Corruption),
    /// A record cannot be read, or is of a later version.
    #[error("a record of the audit cannot be understood: {0}")]
    Unreadable(ReadError),
    /// The system's.
    #[error("{}: {source}", path.display())]
    Io {
        /// What was worked on.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

pub(crate) fn open(dir: &Path, options: Options) -> Result<(Writer, Reader, Opened), OpenError> {
    options.check().map_err(OpenError::Options)?;
    let in_dir = |source: io::Error| OpenError::Io { path: dir.to_owned(), source };
    let id = getrandom::u64().map_err(|error| in_dir(io::Error::other(error)))?;
    let opened = BlockingLog::open(dir, options.log(id));
    let (log, recovery) = opened.map_err(OpenError::Log)?;
    if let Some(corruption) = recovery.read_only {
        return Err(OpenError::Damaged(corruption));
    }
    let infos: Vec<SegmentInfo> = log.log().segments().collect();
    remove_strays(dir, &infos).map_err(in_dir)?;
    let Some((active, sealed)) = infos.split_last() else {
        panic!("a log that takes appends has a segment to append to");
    };
    let first_seq = log.log().first().0;
    let start = Snapshot { sealed: Vec::new(), active: active.id, chunks: Vec::new() };
    let shared = Shared::new(dir.to_owned(), start.clone(), options.indexes_kept);
    let file = shared.open(active.id).map_err(OpenError::Unreadable)?;
    let mut finder = Finder { shared: &shared, log_id: file.log_id(), seq: first_seq, rebuilt: 0 };
    let sealed = sealed.iter().map(|info| finder.sealed(info)).collect::<Result<Vec<_>, _>>();
    let sealed = sealed.map_err(OpenError::Unreadable)?;
    let Finder { log_id, seq: active_seq, rebuilt, .. } = finder;
    let indexed = index_of(&file).map_err(OpenError::Unreadable)?;
    if indexed.chunk.damaged || indexed.records != active.records {
        return Err(OpenError::Unreadable(ReadError::Corrupt(start_of(active.id))));
    }
    let last = match indexed.last {
        Some(record) => Some(record),
        None => last_record(&shared, sealed.last()).map_err(OpenError::Unreadable)?,
    };
    let head = last
        .map_or(Head::default(), |last| Head { seq: last.seq.0, hash: Hash::of(&[&last.payload]) });
    if head.seq != recovery.last.0 {
        return Err(OpenError::Unreadable(ReadError::Corrupt(start_of(active.id))));
    }
    let facts =
        sealed.iter().map(|segment| segment.head.facts).sum::<u64>() + indexed.chunk.facts();
    let opened = Opened {
        created: recovery.created,
        records: recovery.last.0 + 1 - first_seq,
        facts,
        first_seq,
        head,
        torn_bytes: recovery.torn_bytes,
        indexes_rebuilt: rebuilt,
    };
    shared.publish(Snapshot { sealed, chunks: vec![Arc::new(indexed.chunk)], ..start });
    let shared = Arc::new(shared);
    let mut writer = Writer::new(log, log_id, shared.clone(), options, head, active_seq);
    writer.write_sidecars();
    Ok((writer, Reader { shared }, opened))
}

/// A reader of segments that nobody writes to.
pub(crate) fn at_rest(dir: &Path) -> io::Result<Reader> {
    let none = Snapshot { sealed: Vec::new(), active: SegmentId(u32::MAX), chunks: Vec::new() };
    let shared = Shared::new(dir.to_owned(), none.clone(), Options::default().indexes_kept);
    let mut sealed: Vec<Arc<Segment>> = Vec::new();
    for segment in segments_in(dir)? {
        let next_seq = sealed.last().map_or(1, |last| last.head.next_seq());
        sealed.push(Arc::new(segment_at_rest(&shared, segment, next_seq)));
    }
    shared.publish(Snapshot { sealed, ..none });
    Ok(Reader { shared: Arc::new(shared) })
}

/// A segment by its index, or by what can be read of it. `next_seq` is what it should begin with.
fn segment_at_rest(shared: &Shared, segment: SegmentId, next_seq: u64) -> Segment {
    let file = shared.open(segment);
    let log_id = file.as_ref().ok().map(SegmentFile::log_id);
    if let Ok(head) = sidecar::head(&shared.dir, segment)
        && log_id.is_none_or(|log_id| log_id == head.log_id)
    {
        return Segment::in_file(head);
    }
    let Ok(indexed) = file.and_then(|file| index_of(&file)) else {
        // A question meets the error, and tells it.
        let head = head_of(segment, 0, next_seq, 0, &Chunk::default());
        return Segment::in_file(sidecar::Head { first_at: 0, last_at: u64::MAX, ..head });
    };
    let chunk = indexed.chunk;
    let first_seq = chunk.summaries.first().map_or(next_seq, |first| first.seq);
    let end_seq = chunk.summaries.last().map_or(next_seq, |last| last.seq.saturating_add(1));
    let head = head_of(segment, log_id.unwrap_or(0), first_seq, end_seq - first_seq, &chunk);
    Segment::in_memory(head, Arc::new(chunk))
}

/// Goes through the sealed segments in order.
struct Finder<'a> {
    shared: &'a Shared,
    log_id: u64,
    /// The next segment's first record.
    seq: u64,
    rebuilt: u32,
}

impl Finder<'_> {
    fn sealed(&mut self, info: &SegmentInfo) -> Result<Arc<Segment>, ReadError> {
        let first_seq = self.seq;
        self.seq += info.records;
        let fits = |head: &sidecar::Head| {
            (head.log_id, head.first_seq, head.records) == (self.log_id, first_seq, info.records)
        };
        match sidecar::head(&self.shared.dir, info.id) {
            Ok(head) if fits(&head) => return Ok(Arc::new(Segment::in_file(head))),
            Ok(_) => tracing::warn!(segment = info.id.0, "an index of something else is replaced"),
            Err(error) => tracing::warn!(segment = info.id.0, %error, "an index is made anew"),
        }
        self.rebuilt += 1;
        let indexed = index_of(&self.shared.open(info.id)?)?;
        let head = head_of(info.id, self.log_id, first_seq, info.records, &indexed.chunk);
        Ok(Arc::new(Segment::in_memory(head, Arc::new(indexed.chunk))))
    }
}

/// The last record of the last sealed segment, while the active one has none.
fn last_record(
    shared: &Shared,
    segment: Option<&Arc<Segment>>,
) -> Result<Option<Record>, ReadError> {
    let Some(segment) = segment else { return Ok(None) };
    let file = shared.open(segment.id())?;
    let index = shared.index(segment)?;
    let last_seq = segment.head.first_seq + segment.head.records - 1;
    let found = index.summaries.last().map(|last| file.read(last.offset, last.stored_bytes));
    match found {
        Some(Ok(record)) if record.seq.0 == last_seq => Ok(Some(record)),
        // The index is only an index.
        _ => Ok(index_of(&file)?.last),
    }
}

/// Removes the indexes of segments that are gone, and what was not finished.
fn remove_strays(dir: &Path, infos: &[SegmentInfo]) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let Some((name, segment)) = name
            .to_str()
            .and_then(|name| sidecar::segment_of(name).map(|segment: SegmentId| (name, segment)))
        else {
            continue;
        };
        let is_sealed = infos.iter().any(|info| info.id == segment && info.sealed);
        if !is_sealed || name.ends_with(".new") {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}
