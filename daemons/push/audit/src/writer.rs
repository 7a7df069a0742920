//! Writing the audit: facts gather, are sorted, cut into blocks and appended to the log, each block
//! with the hash of the record before.
//!
//! ```text
//!   facts() ──► batch ──full, or old──► sorted ──► blocks ──► log ──► published to readers
//!   event() ─────────────────────────────────────► record ──►  │
//!                                                   flush() ───┴──► durable
//! ```
//!
//! An event does not wait for facts that gather: the chain is the order of the log. What gathers is
//! lost with the process; whoever cannot derive it anew flushes.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sextant_ring::time::Time;
use sextant_segment::{AppendError, BlockingLog, ReadOnly, SegmentId, Seq};

use crate::chain::{Hash, Head};
use crate::fact::{Event, EventError, Fact};
use crate::index::{Chunk, ChunkBuilder, Place, push_chunk};
use crate::open::{self, Opened};
use crate::options::Options;
use crate::reader::Reader;
use crate::record::{EVENT, FACTS, Payload};
use crate::shared::{Segment, Shared, Snapshot};
use crate::{OpenError, sidecar};

const SIDECAR_RETRY_MS: u64 = 60_000;

/// Why something was not written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// Resource: the quota is used up, or the disk has no room. Nothing of this call was taken; what
    /// was taken before is kept, and written when there is room.
    #[error("the audit is full")]
    Full,
    /// Local: a write or sync failed, and nothing is taken until the audit is opened again.
    #[error("the audit takes nothing any more: {0}")]
    Failed(#[from] ReadOnly),
    /// The caller's: more facts than [`Options::batch_facts`] at once.
    #[error("more facts at once than may gather")]
    TooMany,
    /// The caller's: the event cannot be written.
    #[error(transparent)]
    Event(#[from] EventError),
}

/// Writes the audit. One thread owns it, which may wait for the disk.
pub struct Writer {
    pub(crate) log: BlockingLog,
    pub(crate) log_id: u64,
    pub(crate) shared: Arc<Shared>,
    pub(crate) options: Options,
    /// The end of the chain.
    pub(crate) head: Head,
    pub(crate) snapshot: Snapshot,
    /// The active segment's first record.
    pub(crate) first_seq: u64,
    /// Records of the active segment that readers do not know of yet.
    pub(crate) unpublished: ChunkBuilder,
    batch: Vec<Fact>,
    /// When a tick first saw what gathers now.
    gathers_since: Option<u64>,
    /// The time of the last tick, and when files of indexes that could not be written are tried
    /// again.
    now_ms: u64,
    sidecars_at: u64,
    payload: Payload,
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer")
            .field("log", &self.log)
            .field("head", &self.head)
            .field("gathering", &self.batch.len())
            .finish_non_exhaustive()
    }
}

impl Writer {
    /// Opens the audit in a directory, or makes a new one there. Reads one segment of it, or more
    /// where files of indexes are missing. Locking the directory against other processes is left to
    /// whoever owns the data directory.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(dir: &Path, options: Options) -> Result<(Writer, Reader, Opened), OpenError> {
        open::open(dir, options)
    }

    pub(crate) fn new(
        log: BlockingLog,
        log_id: u64,
        shared: Arc<Shared>,
        options: Options,
        head: Head,
        first_seq: u64,
    ) -> Writer {
        let snapshot = Snapshot::clone(&shared.snapshot());
        Writer {
            log,
            log_id,
            shared,
            head,
            snapshot,
            first_seq,
            unpublished: ChunkBuilder::default(),
            batch: Vec::with_capacity(options.batch_facts),
            options,
            gathers_since: None,
            now_ms: 0,
            sidecars_at: 0,
            payload: Payload::default(),
        }
    }

    /// Takes facts, all of them or none. They gather; when as many have as may, those that gathered
    /// before are written.
    ///
    /// # Errors
    /// See [`WriteError`].
    pub fn facts(&mut self, facts: &[Fact]) -> Result<(), WriteError> {
        if facts.len() > self.options.batch_facts {
            return Err(WriteError::TooMany);
        }
        if self.batch.len() + facts.len() > self.options.batch_facts {
            self.cut()?;
        }
        self.batch.extend_from_slice(facts);
        Ok(())
    }

    /// Writes an event, before the facts that gather, and tells its record's number.
    ///
    /// # Errors
    /// See [`WriteError`].
    pub fn event(&mut self, event: &Event) -> Result<u64, WriteError> {
        event.check()?;
        self.payload.set_event(event);
        let place = self.append(EVENT, event.at)?;
        self.unpublished.push_event(event, place);
        self.written()?;
        Ok(place.seq)
    }

    /// Does what is due at a time, in milliseconds since 1970: facts that have gathered long enough
    /// are written, and what may not stay goes. Several times in [`Options::batch_ms`].
    ///
    /// # Errors
    /// See [`WriteError`].
    pub fn tick(&mut self, now_ms: u64) -> Result<(), WriteError> {
        self.now_ms = now_ms;
        self.log.tick(Time::ZERO + Duration::from_millis(now_ms))?;
        // A clock that was set back starts the wait anew.
        let since = self.gathers_since.map_or(now_ms, |since| since.min(now_ms));
        self.gathers_since = Some(since).filter(|_| !self.batch.is_empty());
        let is_due = self.gathers_since.is_some() && now_ms - since >= self.options.batch_ms;
        // What goes makes room for what is due.
        self.retain(now_ms);
        let cut = if is_due { self.cut() } else { Ok(()) };
        self.write_sidecars();
        cut
    }

    /// Writes all that has gathered, and returns once everything is durable.
    ///
    /// # Errors
    /// See [`WriteError`].
    pub fn flush(&mut self) -> Result<(), WriteError> {
        self.cut()?;
        Ok(self.log.flush()?)
    }

    /// The end of the chain, as far as it is written.
    pub fn head(&self) -> Head {
        self.head
    }

    /// What the records of all segments take, in bytes: what was written, without indexes and the
    /// room that a segment has left.
    pub fn stored_bytes(&self) -> u64 {
        self.log.log().segments().map(|info| info.stored_bytes).sum()
    }

    /// Facts that have gathered and are not written.
    pub fn gathering(&self) -> usize {
        self.batch.len()
    }

    /// Writes all that has gathered, and ends the log in order.
    ///
    /// # Errors
    /// See [`WriteError`]; what had gathered is lost then.
    pub fn close(mut self) -> Result<Head, WriteError> {
        let cut = self.cut();
        self.log.close()?;
        cut.map(|()| self.head)
    }

    /// Sorts what has gathered, and appends it in blocks. What found no room goes on gathering.
    fn cut(&mut self) -> Result<(), WriteError> {
        let mut batch = std::mem::take(&mut self.batch);
        batch.sort_by_key(|fact| (fact.message, fact.device, fact.at));
        let mut cut = 0;
        let mut outcome = Ok(());
        while cut < batch.len() {
            let taken = self.payload.set_facts(&batch[cut..]);
            let block = &batch[cut..cut + taken];
            let last_at = block.iter().map(|fact| fact.at).max().unwrap_or(0);
            match self.append(FACTS, last_at) {
                Ok(place) => self.unpublished.push_facts(block, place),
                Err(error) => {
                    outcome = Err(error);
                    break;
                }
            }
            cut += taken;
        }
        batch.drain(..cut);
        self.batch = batch;
        if outcome.is_ok() {
            self.gathers_since = None;
        }
        outcome.and(self.written())
    }

    /// Appends a record to log and chain.
    fn append(&mut self, kind: u8, at: u64) -> Result<Place, WriteError> {
        let before = self.head.hash;
        let [head, body] = self.payload.parts();
        let parts: [&[u8]; 3] = [&before.0, head, body];
        let appended = self.log.append(kind, &parts, at).map_err(|error| match error {
            AppendError::Full | AppendError::Backlog => WriteError::Full,
            _ => self.log.log().read_only().map_or(WriteError::Full, WriteError::Failed),
        })?;
        assert_eq!(appended.seq.0, self.head.seq + 1, "the chain has every record of the log");
        self.head = Head { seq: appended.seq.0, hash: Hash::of(&parts) };
        if appended.position.segment != self.snapshot.active {
            self.begin_segment(appended.position.segment, appended.seq);
        }
        Ok(Place {
            seq: appended.seq.0,
            offset: appended.position.offset,
            stored_bytes: appended.stored_bytes,
        })
    }

    /// Closes the index of a segment that is full: what comes is of the next one.
    fn begin_segment(&mut self, segment: SegmentId, first: Seq) {
        let mut chunks = std::mem::take(&mut self.snapshot.chunks);
        if !self.unpublished.is_empty() {
            push_chunk(&mut chunks, self.unpublished.finish());
        }
        let chunk = Chunk::of_all(&chunks);
        let records = first.0 - self.first_seq;
        let head = head_of(self.snapshot.active, self.log_id, self.first_seq, records, &chunk);
        self.snapshot.sealed.push(Arc::new(Segment::in_memory(head, Arc::new(chunk))));
        self.snapshot.active = segment;
        self.first_seq = first.0;
        // What is refused here was refused before: the log takes nothing any more.
        let _ = self.log.log_mut().checkpoint(first);
    }

    /// Hands what was appended to the kernel, and then to readers.
    fn written(&mut self) -> Result<(), WriteError> {
        self.log.write()?;
        if !self.unpublished.is_empty() {
            push_chunk(&mut self.snapshot.chunks, self.unpublished.finish());
            self.shared.publish(self.snapshot.clone());
            self.write_sidecars();
        }
        Ok(())
    }

    fn retain(&mut self, now_ms: u64) {
        if self.log.retain(now_ms).is_none() {
            return;
        }
        let Some(oldest) = self.log.log().oldest().map(|info| info.id) else { return };
        let going = self.snapshot.sealed.partition_point(|segment| segment.id() < oldest);
        let gone: Vec<SegmentId> =
            self.snapshot.sealed.drain(..going).map(|segment| segment.id()).collect();
        self.shared.publish(self.snapshot.clone());
        self.shared.forget_before(oldest);
        gone.into_iter().for_each(|segment| sidecar::remove(&self.shared.dir, segment));
    }

    /// Writes the indexes of sealed segments that are in memory alone. What fails is tried again
    /// in a minute: it serves from memory until then.
    pub(crate) fn write_sidecars(&mut self) {
        if self.now_ms < self.sidecars_at {
            return;
        }
        for segment in &self.snapshot.sealed {
            let Some(chunk) = segment.take_unwritten() else { continue };
            match sidecar::write(&self.shared.dir, segment.head, &chunk) {
                Ok(()) => segment.forget(),
                Err(error) => {
                    let segment_id = segment.head.segment;
                    tracing::warn!(segment = segment_id, %error, "an index could not be written");
                    segment.set_unwritten();
                    self.sidecars_at = self.now_ms.saturating_add(SIDECAR_RETRY_MS);
                    return;
                }
            }
        }
    }
}

/// What a sidecar says first of a segment.
pub(crate) fn head_of(
    segment: SegmentId,
    log_id: u64,
    first_seq: u64,
    records: u64,
    chunk: &Chunk,
) -> sidecar::Head {
    let (first_at, last_at) = chunk.times();
    let (segment, facts) = (segment.0, chunk.facts());
    sidecar::Head { segment, log_id, first_seq, records, facts, first_at, last_at }
}
