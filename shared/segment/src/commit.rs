//! The lane that makes appends durable. Records gather in batches; one batch at a time is written,
//! and synced by the log's durability. While it is out the next one gathers: a group commit with a
//! pipeline of two.
//!
//! ```text
//!           append                    start_commit              commit_done
//!   waiting ──────► [mark│record…] ─────────────────► Writing ───────────────► written, durable
//!                   [mark│record…]                       │ error
//!                                                        └──────► poisoned, for good
//! ```
//!
//! A batch begins with a durable mark, filled in as late as possible: when it is written. It never
//! spans segments. The batch that seals a segment is synced whatever the durability, before
//! anything is written to the next; recovery relies on that.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use sextant_ring::buf::IoBuf;
use sextant_ring::driver::{FileDone, FileOp, FileOutput, Files, OpenMode};
use sextant_ring::time::Time;

use crate::format::{self, MARK_BYTES, RESERVED_BYTES, SEAL_BYTES};
use crate::log::{Lane, Log, Segment};
use crate::options::Durability;
use crate::position::Seq;

/// What one write covers, before it is written.
pub(crate) struct Batch {
    pub(crate) segment: u32,
    pub(crate) offset: u32,
    /// Begins with room for the mark.
    pub(crate) bytes: BytesMut,
    pub(crate) first_seq: u64,
    /// The one before `first_seq` if the batch has no record.
    pub(crate) last_seq: u64,
    seals: bool,
}

/// A batch whose write is under way or has failed. The driver has a copy of its bytes; this one
/// is for readers, now and while it is among the newest.
struct Writing {
    segment: u32,
    offset: u32,
    bytes: Bytes,
    /// Of the memory that the bytes are in.
    capacity: usize,
    last_seq: u64,
    seals: bool,
    synced: bool,
    only_mark: bool,
}

enum Stage {
    Idle,
    SyncingDir { segment: u32 },
    Opening { segment: u32 },
    Writing(Writing),
    Syncing { segment: u32, up_to: u64 },
}

pub(crate) struct CommitLane {
    waiting: VecDeque<Batch>,
    stage: Stage,
    /// Appended, and the write not completed.
    pending_bytes: u64,
    /// When the oldest waiting append has to be written, unless that is at once.
    due: Option<Time>,
    /// Somebody waits for the records up to this one.
    awaited: u64,
    /// The caller asked that everything be durable and marked.
    pub(crate) settling: bool,
    /// The names that this process found in the directory will be there after a crash. An earlier
    /// process may have ended between a renaming or removal and its sync.
    pub(crate) names_durable: bool,
    /// The log ends in a mark that covers all of it.
    pub(crate) marked: bool,
    /// An operation of this lane is under way.
    pub(crate) in_flight: bool,
    /// Memory kept for the next commit.
    buf: Option<IoBuf>,
    spare: Option<BytesMut>,
}

impl CommitLane {
    pub(crate) fn new(marked: bool) -> CommitLane {
        CommitLane {
            waiting: VecDeque::new(),
            stage: Stage::Idle,
            pending_bytes: 0,
            due: None,
            awaited: 0,
            settling: false,
            names_durable: false,
            marked,
            in_flight: false,
            buf: None,
            spare: None,
        }
    }

    pub(crate) fn pending_bytes(&self) -> u64 {
        self.pending_bytes
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.is_free()
    }

    fn is_free(&self) -> bool {
        matches!(self.stage, Stage::Idle)
    }

    /// When the waiting appends are due, unless the lane is busy and will be asked again anyway.
    pub(crate) fn due(&self) -> Option<Time> {
        self.due.filter(|_| self.is_free() && !self.waiting.is_empty())
    }

    /// Whether a record would join the batch that gathers now.
    pub(crate) fn joins(&self, segment: u32, span: u32, bytes_max: u32) -> bool {
        self.waiting.back().is_some_and(|batch| {
            batch.segment == segment
                && !batch.seals
                && batch.bytes.len() as u64 + u64::from(span) <= u64::from(bytes_max)
        })
    }

    /// The batch for `span` more bytes in the active segment: the one that gathers, or a new one,
    /// whose mark moves `tail`.
    pub(crate) fn open_batch(
        &mut self,
        active: &Segment,
        tail: &mut u32,
        next_seq: u64,
        span: u32,
        bytes_max: u32,
    ) -> &mut Batch {
        if !self.joins(active.number, span, bytes_max) {
            self.begin_batch(active.number, tail, next_seq);
        }
        self.pending_bytes += u64::from(span);
        let batch = self.waiting.back_mut().expect("there is one, or it was just begun");
        assert_eq!(u64::from(batch.offset) + batch.bytes.len() as u64, u64::from(*tail));
        batch
    }

    fn begin_batch(&mut self, segment: u32, tail: &mut u32, next_seq: u64) {
        let mut bytes = self.spare.take().unwrap_or_default();
        bytes.clear();
        bytes.resize(MARK_BYTES as usize, 0);
        self.waiting.push_back(Batch {
            segment,
            offset: *tail,
            bytes,
            first_seq: next_seq,
            last_seq: next_seq - 1,
            seals: false,
        });
        *tail += MARK_BYTES;
        self.pending_bytes += u64::from(MARK_BYTES);
    }

    /// Ends the active segment with a seal, in the batch that gathers if it is of this segment.
    pub(crate) fn seal(&mut self, active: &Segment, tail: &mut u32, next_seq: u64) {
        if self.waiting.back().is_none_or(|batch| batch.segment != active.number) {
            self.begin_batch(active.number, tail, next_seq);
        }
        let batch = self.waiting.back_mut().expect("there is one, or it was just begun");
        assert!(!batch.seals, "a segment is sealed once");
        batch.bytes.extend_from_slice(&format::seal(active.key, *tail, next_seq));
        batch.seals = true;
        *tail += SEAL_BYTES;
        self.pending_bytes += u64::from(SEAL_BYTES);
    }

    /// The bytes from `offset` of a segment on that are not written yet.
    pub(crate) fn pending(&self, segment: u32, offset: u32) -> Option<Pending<'_>> {
        if let Stage::Writing(writing) = &self.stage
            && writing.segment == segment
            && offset >= writing.offset
            && let at = (offset - writing.offset) as usize
            && at < writing.bytes.len()
        {
            return Some(Pending::Writing(writing.bytes.slice(at..)));
        }
        let batch = self.waiting.iter().find(|batch| {
            batch.segment == segment
                && offset >= batch.offset
                && ((offset - batch.offset) as usize) < batch.bytes.len()
        })?;
        Some(Pending::Waiting(&batch.bytes[(offset - batch.offset) as usize..]))
    }

    /// A batch's bytes to be read by many, and the memory that they take: no more than twice as
    /// much as they are.
    fn share(&mut self, bytes: BytesMut) -> (Bytes, usize) {
        let capacity = bytes.capacity();
        if capacity <= 2 * bytes.len() {
            return (bytes.freeze(), capacity);
        }
        let exact = Bytes::copy_from_slice(&bytes);
        let capacity = exact.len();
        self.spare = Some(bytes);
        (exact, capacity)
    }

    fn take_buf(&mut self, bytes: &[u8]) -> IoBuf {
        let kept = self.buf.take().filter(|buf| buf.capacity() >= bytes.len());
        let mut buf = kept.unwrap_or_else(|| IoBuf::with_capacity(bytes.len().next_power_of_two()));
        buf.clear();
        assert_eq!(buf.push(bytes), bytes.len(), "the buffer was chosen to hold them");
        buf
    }
}

/// Where bytes are that are not written yet.
pub(crate) enum Pending<'a> {
    Writing(Bytes),
    Waiting(&'a [u8]),
}

impl Log {
    pub(crate) fn start_commit(&mut self, files: &mut impl Files, now: Time) {
        if !self.commit.is_free() {
            return;
        }
        if !self.commit.names_durable {
            if !self.commit.waiting.is_empty() || self.remove.is_wanted() {
                self.commit.stage = Stage::SyncingDir { segment: self.active().number };
                let path = self.dir.clone();
                self.submit(files, Lane::Commit, FileOp::SyncDir { path });
            }
            return;
        }
        let forced = self.commit.settling || self.removal_waits_for_sync();
        let Some(front) = self.commit.waiting.front() else {
            if forced {
                self.sync_or_mark(files);
            }
            return;
        };
        let (patience, awaited) = match self.options.durability {
            Durability::Every(interval) => (interval, false),
            Durability::Always | Durability::Os => {
                (self.options.linger, front.first_seq <= self.commit.awaited)
            }
        };
        if !patience.is_zero() {
            let due = *self.commit.due.get_or_insert(now + patience);
            let full = front.seals || self.commit.waiting.len() > 1;
            if now < due && !full && !forced && !awaited {
                return;
            }
        }
        self.write_front(files, forced);
    }

    /// Says that somebody waits until what was appended so far may be acknowledged: the next
    /// [commit](Log::commit) writes it, rather than that after its time to
    /// [linger](crate::Options::linger).
    pub fn hurry(&mut self) {
        self.commit.awaited = self.last().0;
    }

    /// With nothing waiting: makes durable what was written, then says so in the log.
    fn sync_or_mark(&mut self, files: &mut impl Files) {
        if self.durable < self.written {
            let active = self.active();
            let (segment, up_to) = (active.number, self.written.0);
            let file = active.file.expect("what was written since the last sync was written here");
            self.commit.stage = Stage::Syncing { segment, up_to };
            self.submit(files, Lane::Commit, FileOp::Sync { file });
        } else if self.commit.settling && self.mark_wanted() {
            let number = self.active().number;
            self.commit.begin_batch(number, &mut self.tail, self.next_seq);
            self.write_front(files, true);
        }
    }

    /// Whether the log's last records are not covered by a mark, and there is room for one.
    pub(crate) fn mark_wanted(&self) -> bool {
        let end = u64::from(self.tail) + u64::from(MARK_BYTES + RESERVED_BYTES);
        !self.commit.marked && self.next_seq > 1 && end <= u64::from(self.active().size)
    }

    fn write_front(&mut self, files: &mut impl Files, forced: bool) {
        let number = self.commit.waiting.front().expect("asked for with a batch waiting").segment;
        let durable = self.durable.0;
        let segment = self.segment(number).expect("a segment stays while it has batches");
        let (key, written) = (segment.key, segment.written);
        let Some(file) = segment.file else {
            let path = segment.path.clone();
            self.commit.stage = Stage::Opening { segment: number };
            self.submit(files, Lane::Commit, FileOp::Open { path, mode: OpenMode::Write });
            return;
        };
        let mut batch = self.commit.waiting.pop_front().expect("seen above");
        assert_eq!(batch.offset, written, "batches are written one behind the other");
        assert_eq!(batch.first_seq, self.written.0 + 1, "batches are written in order");
        let mark = format::mark(key, batch.offset, batch.first_seq, durable);
        batch.bytes[..MARK_BYTES as usize].copy_from_slice(&mark);
        if self.commit.waiting.is_empty() {
            self.commit.due = None;
        }
        let buf = self.commit.take_buf(&batch.bytes);
        let offset = u64::from(batch.offset);
        let synced = forced || batch.seals || self.options.durability != Durability::Os;
        let only_mark = batch.bytes.len() == MARK_BYTES as usize;
        let (bytes, capacity) = self.commit.share(batch.bytes);
        self.commit.stage = Stage::Writing(Writing {
            segment: number,
            offset: batch.offset,
            only_mark,
            bytes,
            capacity,
            last_seq: batch.last_seq,
            seals: batch.seals,
            synced,
        });
        let op = match synced {
            true => FileOp::WriteSync { file, offset, buf },
            false => FileOp::Write { file, offset, buf },
        };
        self.submit(files, Lane::Commit, op);
    }

    pub(crate) fn commit_done(&mut self, done: FileDone, files: &mut impl Files) {
        self.commit.in_flight = false;
        if let Some(buf) = done.buf {
            self.commit.buf = Some(buf);
        }
        let stage = std::mem::replace(&mut self.commit.stage, Stage::Idle);
        match (stage, done.result) {
            (Stage::Opening { segment }, Ok(FileOutput::Opened(file))) => {
                let segment = self.segment_mut(segment).expect("a segment stays while it is open");
                segment.file = Some(file);
            }
            (Stage::Writing(writing), Ok(FileOutput::Done)) => self.batch_done(writing, files),
            (Stage::Syncing { up_to, .. }, Ok(FileOutput::Done)) => self.durable = Seq(up_to),
            (Stage::SyncingDir { .. }, Ok(FileOutput::Done)) => self.commit.names_durable = true,
            (
                Stage::SyncingDir { segment }
                | Stage::Opening { segment }
                | Stage::Syncing { segment, .. },
                Err(error),
            ) => self.poison(segment, &error),
            (Stage::Writing(writing), Err(error)) => {
                self.poison(writing.segment, &error);
                // Its records can still be read.
                self.commit.stage = Stage::Writing(writing);
            }
            (Stage::Idle, _) | (_, Ok(_)) => panic!("a completion that nobody asked for"),
        }
    }

    fn batch_done(&mut self, writing: Writing, files: &mut impl Files) {
        self.commit.pending_bytes -= writing.bytes.len() as u64;
        self.commit.marked = writing.only_mark;
        self.written = Seq(writing.last_seq);
        if writing.synced {
            self.durable = self.written;
        }
        let segment = self.segment_mut(writing.segment).expect("a segment stays while written");
        segment.written = writing.offset + writing.bytes.len() as u32;
        segment.sealed = writing.seals;
        if writing.seals {
            let file = segment.file.take().expect("it was just written to");
            self.submit(files, Lane::Close, FileOp::Close { file });
            self.count_relocation_bytes();
        }
        let Writing { segment, offset, bytes, capacity, .. } = writing;
        let spare = self.hot.push(segment, offset, bytes, capacity);
        let commit_bytes_max = self.options.commit_bytes_max as usize;
        let spare = spare.filter(|bytes| bytes.capacity() <= 2 * commit_bytes_max);
        self.commit.spare = spare.or(self.commit.spare.take());
    }
}
