//! The log itself: what it holds in memory, appending, and the turn. Its lanes of work on files
//! are in modules of their own: committing what was appended (`commit`), preparing the next segment
//! (`prepare`), removing the oldest (`remove`), each with at most one operation under way; and
//! reading what is on disk alone (`fetch`).

use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use sextant_ring::disk::{Disk, View};
use sextant_ring::driver::{File, FileDone, FileOp, Files};
use sextant_ring::time::Time;

use crate::commit::CommitLane;
use crate::error::{AppendError, OpenError, ReadOnly};
use crate::fetch::FetchLane;
use crate::format::{
    self, CHECKPOINT_BYTES, HEADER_BYTES, Key, MARK_BYTES, RESERVED_BYTES, stored_bytes,
};
use crate::hot::Hot;
use crate::options::{Durability, Options};
use crate::position::{Position, SegmentId, Seq};
use crate::prepare::{PrepareLane, Ready};
use crate::recover::{self, Recovery};
use crate::remove::RemoveLane;
use crate::snapshot::SnapshotLane;

/// What an accepted append got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// The record's number.
    pub seq: Seq,
    /// Where it is. It can be read from there at once.
    pub position: Position,
    /// The bytes that it takes there: what [`Log::retire`] gives back.
    pub stored_bytes: u32,
}

/// What changed with a completion.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Progress {
    /// All records up to this one may now be acknowledged; `None` if that did not move.
    pub ackable: Option<Seq>,
    /// A write or sync failed just now: see [`Log::read_only`].
    pub poisoned: bool,
    /// There is room again: an append that was refused may work now.
    pub room: bool,
    /// This segment's file is gone for good.
    pub removed: Option<SegmentId>,
}

/// A segment as its log's user sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentInfo {
    /// Its number.
    pub id: SegmentId,
    /// The size of its file in bytes.
    pub file_bytes: u64,
    /// Bytes of records in it.
    pub stored_bytes: u64,
    /// How many of those were not [retired](Log::retire).
    pub live_bytes: u64,
    /// Records in it.
    pub records: u64,
    /// The latest time of a record in it, in milliseconds since 1970; zero if it has none.
    pub newest_unix_ms: u64,
    /// Whether it is full, durable, and will not change any more.
    pub sealed: bool,
}

pub(crate) struct Segment {
    pub(crate) number: u32,
    pub(crate) path: PathBuf,
    pub(crate) version: u16,
    pub(crate) size: u32,
    pub(crate) key: Key,
    pub(crate) view: View,
    /// Open while it is appended to.
    pub(crate) file: Option<File>,
    /// What the map may be read up to: writes below have completed.
    pub(crate) written: u32,
    /// The first and last record, those included that are not written yet. Without a record,
    /// `last_seq` is the one before `first_seq`.
    pub(crate) first_seq: u64,
    pub(crate) last_seq: u64,
    pub(crate) stored_bytes: u64,
    pub(crate) live_bytes: u64,
    pub(crate) newest_unix_ms: u64,
    pub(crate) sealed: bool,
}

impl Segment {
    fn info(&self) -> SegmentInfo {
        SegmentInfo {
            id: SegmentId(self.number),
            file_bytes: u64::from(self.size),
            stored_bytes: self.stored_bytes,
            live_bytes: self.live_bytes,
            records: self.last_seq + 1 - self.first_seq,
            newest_unix_ms: self.newest_unix_ms,
            sealed: self.sealed,
        }
    }
}

/// The kinds of operations on files, as their tickets name them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lane {
    Commit = 1,
    Prepare = 2,
    Remove = 3,
    /// Closing files, whose outcome nobody waits for.
    Close = 4,
    /// Reading what is on disk alone.
    Read = 5,
    /// Opening a segment for that.
    Reopen = 6,
    /// Making a copy of the log.
    Snapshot = 7,
}

/// An append-only log: see the [crate].
pub struct Log {
    pub(crate) dir: PathBuf,
    pub(crate) options: Options,
    pub(crate) id: u64,
    /// In order of their numbers; the last is the active one. Without gaps unless read-only.
    pub(crate) segments: VecDeque<Segment>,
    /// The sum of their sizes.
    pub(crate) segments_bytes: u64,
    /// The room that appends leave for relocating: no less than is needed.
    relocation_bytes: u64,
    /// The segment after the active one, ready to be used.
    pub(crate) ready: Option<Ready>,
    /// Where the next item of the active segment goes.
    pub(crate) tail: u32,
    pub(crate) next_seq: u64,
    /// What the newest checkpoint says, and whether it has to be written yet.
    pub(crate) needed: u64,
    pub(crate) checkpoint_due: bool,
    /// What it said at the opening.
    pub(crate) from: u64,
    /// Records up to here were written, and up to here synced.
    pub(crate) written: Seq,
    pub(crate) durable: Seq,
    pub(crate) commit: CommitLane,
    pub(crate) prepare: PrepareLane,
    pub(crate) remove: RemoveLane,
    pub(crate) fetch: FetchLane,
    pub(crate) hot: Hot,
    pub(crate) snapshot: SnapshotLane,
    pub(crate) read_only: Option<ReadOnly>,
    closing: bool,
    /// Operations under way.
    under_way: u32,
    /// An append was refused for want of a segment.
    pub(crate) starved: bool,
    /// An append was refused since the disk had not kept up.
    backlogged: bool,
    /// An append was refused since the quota was used up.
    over_quota: bool,
    tickets: u32,
}

impl std::fmt::Debug for Log {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Log")
            .field("dir", &self.dir)
            .field("segments", &self.segments.len())
            .field("next_seq", &self.next_seq)
            .field("written", &self.written)
            .field("durable", &self.durable)
            .field("read_only", &self.read_only)
            .finish_non_exhaustive()
    }
}

/// What [`recover`] hands over.
pub(crate) struct Recovered {
    pub(crate) id: u64,
    pub(crate) segments: VecDeque<Segment>,
    pub(crate) ready: Option<Ready>,
    pub(crate) tail: u32,
    pub(crate) next_seq: u64,
    pub(crate) needed: u64,
    pub(crate) marked: bool,
    pub(crate) read_only: Option<ReadOnly>,
}

impl Log {
    /// Opens the log in a directory, or makes a new one there. Blocks: it reads every segment from
    /// the newest [checkpoint](Log::checkpoint) on, repairs a torn tail, and makes sure that what it found is durable.
    ///
    /// # Errors
    /// See [`OpenError`]. Damage to acknowledged data is no error here: the log opens read-only,
    /// and [`Recovery::read_only`] says so.
    pub fn open(
        disk: &dyn Disk,
        dir: &Path,
        options: Options,
    ) -> Result<(Log, Recovery), OpenError> {
        options.check().map_err(OpenError::Options)?;
        let (found, recovery) = recover::recover(disk, dir, &options)?;
        let last = Seq(found.next_seq - 1);
        let mut log = Log {
            dir: dir.to_owned(),
            hot: Hot::new(options.hot_bytes),
            options,
            id: found.id,
            segments_bytes: found.segments.iter().map(|found| u64::from(found.size)).sum(),
            segments: found.segments,
            relocation_bytes: 0,
            ready: found.ready,
            tail: found.tail,
            next_seq: found.next_seq,
            needed: found.needed,
            checkpoint_due: false,
            from: recovery.from.0,
            written: last,
            durable: last,
            commit: CommitLane::new(found.marked),
            prepare: PrepareLane::default(),
            remove: RemoveLane::default(),
            fetch: FetchLane::default(),
            snapshot: SnapshotLane::default(),
            read_only: found.read_only,
            closing: false,
            under_way: 0,
            starved: false,
            backlogged: false,
            over_quota: false,
            tickets: 0,
        };
        log.count_relocation_bytes();
        assert!(
            log.read_only.is_some() || log.segments.back().is_some_and(|active| !active.sealed),
            "a log that takes appends has a segment to append to"
        );
        Ok((log, recovery))
    }

    /// Takes a record, its payload the concatenation of `parts`. It is copied, can be read at
    /// once, and may be acknowledged once [`Log::ackable`] has reached it: soon, if somebody
    /// [waits](Log::hurry) for that.
    ///
    /// Room is kept for moving the live records of a segment, so that a log which is full can still
    /// be made smaller: see [`Log::relocate`].
    ///
    /// # Errors
    /// See [`AppendError`]; nothing was accepted then.
    pub fn append(
        &mut self,
        kind: u8,
        parts: &[&[u8]],
        unix_ms: u64,
    ) -> Result<Appended, AppendError> {
        let span = self.check_append(parts)?;
        if !self.leaves_room(span) {
            self.over_quota = true;
            return Err(AppendError::Full);
        }
        self.place(kind, parts, unix_ms, span)
    }

    /// [`Log::append`] for what survives of the oldest segment, before that is removed: it may use
    /// the room that was kept for this.
    ///
    /// # Errors
    /// See [`AppendError`]; nothing was accepted then.
    pub fn relocate(
        &mut self,
        kind: u8,
        parts: &[&[u8]],
        unix_ms: u64,
    ) -> Result<Appended, AppendError> {
        let span = self.check_append(parts)?;
        self.place(kind, parts, unix_ms, span)
    }

    /// The bytes that a record will take, if it may be taken as far as memory goes.
    fn check_append(&mut self, parts: &[&[u8]]) -> Result<u32, AppendError> {
        if self.read_only.is_some() {
            return Err(AppendError::ReadOnly);
        }
        let payload_bytes = parts.iter().fold(0usize, |sum, part| sum.saturating_add(part.len()));
        if payload_bytes > self.options.record_bytes_max as usize {
            return Err(AppendError::TooLarge);
        }
        let span = stored_bytes(payload_bytes);
        if self.commit.pending_bytes() + u64::from(span) > u64::from(self.options.backlog_bytes_max)
        {
            self.backlogged = true;
            return Err(AppendError::Backlog);
        }
        Ok(span)
    }

    fn place(
        &mut self,
        kind: u8,
        parts: &[&[u8]],
        unix_ms: u64,
        span: u32,
    ) -> Result<Appended, AppendError> {
        if !self.fits(span) {
            self.seal_and_switch()?;
            assert!(self.fits(span), "a record that is not too large fits in an empty segment");
        }
        if self.is_bare() {
            self.put_checkpoint();
        }
        let (seq, tail) = (self.next_seq, &mut self.tail);
        let active = self.segments.back_mut().expect("a log that takes appends has a segment");
        let batch = self.commit.open_batch(active, tail, seq, span, self.options.commit_bytes_max);
        let position = Position { segment: SegmentId(active.number), offset: *tail };
        format::put_record(&mut batch.bytes, active.key, *tail, (seq, unix_ms, kind), parts);
        batch.last_seq = seq;
        *tail += span;
        assert!(*tail <= active.size - RESERVED_BYTES, "the seal always finds room");
        active.last_seq = seq;
        active.stored_bytes += u64::from(span);
        active.live_bytes += u64::from(span);
        active.newest_unix_ms = active.newest_unix_ms.max(unix_ms);
        self.next_seq += 1;
        self.commit.settling = false;
        self.commit.marked = false;
        Ok(Appended { seq: Seq(seq), position, stored_bytes: span })
    }

    /// Whether a record finds room in the active segment.
    pub(crate) fn fits(&self, span: u32) -> bool {
        let active = self.active();
        let joins = self.commit.joins(active.number, span, self.options.commit_bytes_max);
        let mark = if joins { 0 } else { MARK_BYTES };
        let first = if self.is_bare() { MARK_BYTES + CHECKPOINT_BYTES } else { 0 };
        let need = u64::from(first) + u64::from(mark) + u64::from(span) + u64::from(RESERVED_BYTES);
        u64::from(self.tail) + need <= u64::from(active.size)
    }

    /// Whether the longest record would be refused with
    /// [`AppendError::Backlog`](crate::AppendError::Backlog) now: for whoever takes things in, to
    /// wait with that.
    pub fn is_backlogged(&self) -> bool {
        let span = stored_bytes(self.options.record_bytes_max as usize);
        let after = self.commit.pending_bytes() + u64::from(span);
        let coming = || self.prepare.is_under_way() || self.can_prepare();
        self.read_only.is_none()
            && (after > u64::from(self.options.backlog_bytes_max)
                || (!self.fits(span) && self.ready.is_none() && coming()))
    }

    /// Whether the log would take a record of so many payload bytes, as far as its quota and the
    /// disk's room go: for whoever has to know before it does what the record tells. That the disk
    /// has yet to catch up ([`Log::is_backlogged`]) does not count.
    pub fn has_room(&mut self, payload_bytes: usize) -> bool {
        if self.read_only.is_some() || payload_bytes > self.options.record_bytes_max as usize {
            return false;
        }
        let span = stored_bytes(payload_bytes);
        let coming = self.prepare.is_under_way() || self.can_prepare();
        let has_segment = self.fits(span) || self.ready.is_some() || coming;
        // Whoever asks waits for room: the disk is tried again without an append that is refused.
        self.starved |= !has_segment;
        has_segment && self.leaves_room(span)
    }

    /// Ends the active segment and goes on in the next, if that is ready.
    fn seal_and_switch(&mut self) -> Result<(), AppendError> {
        let Some(ready) = self.ready.take() else {
            self.starved = true;
            let coming = self.prepare.is_under_way() || self.can_prepare();
            return Err(if coming { AppendError::Backlog } else { AppendError::Full });
        };
        let active = self.segments.back_mut().expect("a log that takes appends has a segment");
        self.commit.seal(active, &mut self.tail, self.next_seq);
        assert!(self.tail <= active.size, "the seal is within the segment");
        assert_eq!(ready.number, active.number + 1, "segments follow without a gap");
        self.segments_bytes += u64::from(ready.size);
        self.segments.push_back(Segment {
            number: ready.number,
            path: self.dir.join(format::file_name(ready.number)),
            version: ready.version,
            size: ready.size,
            key: Key::new(self.id, ready.number),
            view: ready.view,
            file: ready.file,
            written: HEADER_BYTES,
            first_seq: self.next_seq,
            last_seq: self.next_seq - 1,
            stored_bytes: 0,
            live_bytes: 0,
            newest_unix_ms: 0,
            sealed: false,
        });
        self.tail = HEADER_BYTES;
        Ok(())
    }

    /// Starts what is due: the next commit, the preparation of a segment, the removal of one.
    /// Once at each turn's end.
    pub fn commit(&mut self, files: &mut impl Files, now: Time) {
        if self.read_only.is_some() {
            return;
        }
        self.place_checkpoint();
        self.start_commit(files, now);
        self.start_prepare(files, now);
        self.start_remove(files, now);
    }

    /// When [`Log::commit`] has to be called again although nothing happened until then.
    pub fn deadline(&self) -> Option<Time> {
        if self.read_only.is_some() {
            return None;
        }
        let prepare = self.prepare.retry_at().filter(|_| self.starved);
        [self.commit.due(), prepare, self.remove.retry_at()].into_iter().flatten().min()
    }

    /// Whether an operation with this ticket is this log's.
    pub fn owns(&self, ticket: u64) -> bool {
        (ticket >> 48) as u16 == self.options.ticket_space
    }

    /// Takes what an operation came to. Tickets of other owners are the caller's mistake.
    pub fn handle(&mut self, done: FileDone, files: &mut impl Files, now: Time) -> Progress {
        assert!(self.owns(done.ticket), "ticket {:#x} is not this log's", done.ticket);
        self.under_way -= 1;
        let before = (self.ackable(), self.read_only.is_some());
        let mut progress = Progress::default();
        match (done.ticket >> 32) as u16 {
            lane if lane == Lane::Commit as u16 => self.commit_done(done, files),
            lane if lane == Lane::Prepare as u16 => self.prepare_done(done, files, now),
            lane if lane == Lane::Remove as u16 => {
                progress.removed = self.remove_done(done, files, now);
            }
            lane if lane == Lane::Read as u16 => self.read_done(done, files),
            lane if lane == Lane::Reopen as u16 => self.reopen_done(done, files),
            lane if lane == Lane::Snapshot as u16 => self.snapshot_done(done, files),
            lane => assert_eq!(lane, Lane::Close as u16, "a ticket names one of the lanes"),
        }
        if self.closing {
            self.release_files(files);
        }
        progress.ackable = Some(self.ackable()).filter(|seq| *seq != before.0);
        progress.poisoned = self.read_only.is_some() && !before.1;
        progress.room = self.take_room(progress.removed.is_some());
        progress
    }

    /// Whether an append that was refused before may work now; told once.
    fn take_room(&mut self, removed: bool) -> bool {
        let backlog = self.backlogged
            && self.commit.pending_bytes() <= u64::from(self.options.backlog_bytes_max) / 2;
        let segment = self.starved && self.ready.is_some();
        let quota = self.over_quota && removed;
        self.backlogged &= !backlog;
        self.starved &= !segment;
        self.over_quota &= !quota;
        backlog || segment || quota
    }

    /// The last record that may be acknowledged, by the log's [`Durability`].
    pub fn ackable(&self) -> Seq {
        match self.options.durability {
            Durability::Always => self.durable,
            Durability::Every(_) => self.last(),
            Durability::Os => self.written,
        }
    }

    /// The last record that no crash can take any more.
    pub fn durable(&self) -> Seq {
        self.durable
    }

    /// The first record that is left and that nobody asked to remove; the next one's number if
    /// there is none.
    pub fn first(&self) -> Seq {
        let skip = self.remove.queued_in(&self.segments);
        Seq(self.segments.get(skip).map_or(self.next_seq, |segment| segment.first_seq))
    }

    /// The last record that was accepted; zero if there is none.
    pub fn last(&self) -> Seq {
        Seq(self.next_seq - 1)
    }

    /// The log's identity, which no client may see: [`Options::id`].
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Why the log takes no appends, if it does not.
    pub fn read_only(&self) -> Option<ReadOnly> {
        self.read_only
    }

    /// Asks that all that was appended be made durable, whatever the [`Durability`], and marked as
    /// such in the log, so that later damage to it is told from a torn tail. For an orderly end:
    /// go on with [`Log::commit`] and [`Log::handle`] until [`Log::is_settled`].
    pub fn settle(&mut self) {
        self.commit.settling = true;
    }

    /// Whether nothing is left to write, sync or mark. True of a log that is read-only.
    pub fn is_settled(&self) -> bool {
        self.read_only.is_some()
            || (self.commit.is_idle()
                && !self.checkpoint_due
                && self.durable == self.last()
                && !self.mark_wanted())
    }

    /// Gives up all that is open, for good: the log takes no more appends, and what was appended
    /// and not written is lost. For an orderly end [settle](Log::settle) first. Operations that
    /// are under way go on; feed them to [`Log::handle`] until [`Log::is_closed`].
    pub fn close(&mut self, files: &mut impl Files) {
        self.closing = true;
        self.read_only.get_or_insert(ReadOnly::Closed);
        self.release_files(files);
    }

    /// Whether a log that was [closed](Log::close) has nothing open and nothing under way.
    pub fn is_closed(&self) -> bool {
        self.closing && self.under_way == 0 && self.open_files() == 0
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.closing
    }

    /// Files that are open: of the segment that is appended to, of one that is ready, and of at
    /// most four that were read from. Sealed segments need none.
    pub fn open_files(&self) -> usize {
        let segments = self.segments.iter().filter(|segment| segment.file.is_some()).count();
        let ready = self.ready.as_ref().is_some_and(|ready| ready.file.is_some());
        segments + usize::from(ready) + self.fetch.open_files()
    }

    /// Memory that keeps the newest bytes, see [`Options::hot_bytes`].
    pub fn hot_bytes(&self) -> usize {
        self.hot.bytes()
    }

    fn release_files(&mut self, files: &mut impl Files) {
        self.close_unused(files);
        if self.commit.in_flight {
            return;
        }
        let ready = self.ready.as_mut().and_then(|ready| ready.file.take());
        let open = self.segments.iter_mut().filter_map(|segment| segment.file.take());
        for file in open.chain(ready).collect::<Vec<_>>() {
            self.submit(files, Lane::Close, FileOp::Close { file });
        }
    }

    /// Bytes of all segment files, one under preparation included.
    pub fn file_bytes(&self) -> u64 {
        let ready = self.ready.as_ref().map_or(0, |ready| u64::from(ready.size));
        self.segments_bytes + ready + self.prepare.file_bytes() + self.remove.file_bytes()
    }

    /// The segments, oldest first, without those whose removal was asked for.
    pub fn segments(&self) -> impl Iterator<Item = SegmentInfo> {
        let skip = self.remove.queued_in(&self.segments);
        self.segments.iter().skip(skip).map(Segment::info)
    }

    /// The oldest segment whose removal was not asked for. `None` only of a log whose every
    /// segment is damaged.
    pub fn oldest(&self) -> Option<SegmentInfo> {
        self.segments().next()
    }

    /// Counts bytes as no longer needed in the segment of `position`: those of a record
    /// ([`Appended::stored_bytes`], [`Record::stored_bytes`](crate::Record::stored_bytes)) or a
    /// part of them, such as a fact in a block. After an opening every record counts as live.
    pub fn retire(&mut self, position: Position, bytes: u32) {
        if let Some(segment) = self.segment_mut(position.segment.0) {
            segment.live_bytes = segment.live_bytes.saturating_sub(u64::from(bytes));
        }
    }

    pub(crate) fn active(&self) -> &Segment {
        self.segments.back().expect("a log that takes appends has a segment")
    }

    pub(crate) fn segment(&self, number: u32) -> Option<&Segment> {
        let at = self.segments.binary_search_by_key(&number, |segment| segment.number).ok()?;
        self.segments.get(at)
    }

    pub(crate) fn segment_mut(&mut self, number: u32) -> Option<&mut Segment> {
        let at = self.segments.binary_search_by_key(&number, |segment| segment.number).ok()?;
        self.segments.get_mut(at)
    }

    /// Whether the live records of any one sealed segment can still be moved once a record of
    /// `span` bytes was taken. If that seems not so, it is computed anew: records were retired.
    pub(crate) fn leaves_room(&mut self, span: u32) -> bool {
        let Some(room) = self.room_after(span) else { return true };
        if room < self.relocation_bytes {
            self.count_relocation_bytes();
        }
        room >= self.relocation_bytes
    }

    /// What moving the records of a sealed segment takes at most. Each may come to have a commit
    /// of its own, and the active segment's end may be too short for the one that comes next.
    pub(crate) fn count_relocation_bytes(&mut self) {
        let sealed = self.segments().filter(|info| info.sealed && info.live_bytes > 0);
        let most = sealed.map(|info| info.live_bytes + u64::from(MARK_BYTES) * info.records).max();
        let record = u64::from(stored_bytes(self.options.record_bytes_max as usize));
        self.relocation_bytes = most.map_or(0, |most| most + record);
    }

    /// The bytes of records that can be taken after a next one of `span` bytes, within the quota;
    /// `None` if it depends on a segment that is not there yet.
    fn room_after(&self, span: u32) -> Option<u64> {
        let record = u64::from(stored_bytes(self.options.record_bytes_max as usize));
        let first = u64::from(MARK_BYTES + CHECKPOINT_BYTES);
        let overhead = u64::from(HEADER_BYTES + MARK_BYTES + RESERVED_BYTES) + first + record;
        let usable = |size: u64| size.saturating_sub(overhead);
        let ready = self.ready.as_ref().map_or(0, |ready| usable(u64::from(ready.size)));
        let rest = u64::from(self.active().size - self.tail);
        let span = u64::from(span + MARK_BYTES);
        let after = match rest.checked_sub(span + u64::from(RESERVED_BYTES)) {
            Some(rest) => rest + ready,
            None if self.ready.is_some() => ready.saturating_sub(span),
            None => return None,
        };
        let next = u64::from(self.wanted_segment_bytes());
        let left = self.options.bytes_max.saturating_sub(self.file_bytes());
        Some(after + usable(self.prepare.file_bytes()) + left / next * usable(next))
    }

    pub(crate) fn poison(&mut self, number: u32, error: &std::io::Error) {
        let segment = SegmentId(number);
        tracing::error!(
            dir = %self.dir.display(), %segment, %error,
            "a write or sync failed: the log is read-only until it is opened again"
        );
        self.read_only = Some(ReadOnly::Poisoned { segment, kind: error.kind() });
    }

    /// Starts an operation, and tells the part of its ticket that is its own.
    pub(crate) fn submit(&mut self, files: &mut impl Files, lane: Lane, op: FileOp) -> u32 {
        self.tickets = self.tickets.wrapping_add(1);
        self.under_way += 1;
        self.commit.in_flight |= lane == Lane::Commit;
        let space = u64::from(self.options.ticket_space) << 48;
        files.submit(space | (lane as u64) << 32 | u64::from(self.tickets), op);
        self.tickets
    }
}
