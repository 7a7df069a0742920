//! Keeps an instance: what its databases note goes to its log, and the log says when it is safe.
//!
//! ```text
//!   journal ─ a turn's changes ─► batch n ─► records ─► log ─► durable ─► replies behind gate n
//!      ▲                                                 │
//!      └──────── what the oldest segment alone says ◄────┘  a little each turn: the log stays small
//! ```
//!
//! All changes of a turn are one batch: a record, or several that count only together. So no part
//! of a command, of a transaction or of a script is ever restored without the rest. The databases
//! know which batch last changed what a reply tells, and a reply waits for that one alone: reading
//! what is durable waits for nothing.

use std::collections::VecDeque;
use std::hash::BuildHasher;
use std::path::{Path, PathBuf};

use hashbrown::HashSet;
use sextant_keyspace::{ApplyError, Effect, Effects, Keyspace};
use sextant_ring::disk::Disk;
use sextant_ring::driver::{FileDone, Files};
use sextant_ring::time::{Clock, Time};
use sextant_segment::{
    AppendError, Log, OpenError, Options, ReadError, ReadOnly, Recovery, SegmentId, Seq, Sweep,
    Swept,
};
use tracing::{error, info, warn};

use crate::image;

/// A batch that is in one record.
const WHOLE: u8 = 1;
/// The first, the last, and any other record of a batch that is in several.
const FIRST: u8 = 2;
const MORE: u8 = 3;
const LAST: u8 = 4;

/// Bytes of a batch in one record at most.
pub const PART_BYTES: usize = 256 << 10;
/// What the log must have room for before a command may change anything.
const ROOM_BYTES: usize = PART_BYTES / 2;
/// Bytes of records that one turn goes through to free the oldest segment, and bytes that it
/// appends again for that.
const SWEPT_A_TURN: usize = 128 << 10;
const MOVED_A_TURN: usize = 64 << 10;
/// The image's name in the log's directory, and from which size of the log on there is one.
const IMAGE: &str = "image";
const IMAGE_FROM: u64 = 8 << 20;
/// What a record counts beside its bytes.
const RECORD_COST: usize = 64;
/// A log smaller than this is left as it is.
const COMPACT_FROM: u64 = 4 << 20;

/// Why an instance cannot be restored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RestoreError {
    /// The log cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A record cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A record is whole, and makes no sense.
    #[error("record {seq} cannot be applied: {source}")]
    Apply {
        /// The record's number.
        seq: Seq,
        /// What is wrong with it.
        source: ApplyError,
    },
}

/// Going through the oldest segment for what is still so. A batch belongs to the segment that it
/// begins in: the rest of the last one is read from those behind.
struct Compaction {
    segment: SegmentId,
    sweep: Sweep,
    /// What is being read now: the segment itself, or one behind it.
    reading: SegmentId,
    /// A batch in several records, as far as it was read; `None` outside of one.
    parts: Option<Vec<u8>>,
    /// A batch that was read, and how much of it was gone through.
    read: Vec<u8>,
    done: usize,
    /// What was noted again, by two hashes: once is enough.
    noted: HashSet<u128, foldhash::fast::RandomState>,
    hashers: (foldhash::quality::RandomState, foldhash::quality::RandomState),
    /// All of it was gone through; it goes when this batch is durable.
    ends_with: Option<u64>,
}

impl Compaction {
    /// Takes a record's part of a batch.
    fn take(&mut self, kind: u8, payload: &[u8]) {
        match kind {
            WHOLE => {
                self.parts = None;
                (self.read, self.done) = (payload.to_vec(), 0);
            }
            FIRST => self.parts = Some(payload.to_vec()),
            // What goes on from before the segment went with the segment before.
            MORE | LAST => {
                let Some(parts) = &mut self.parts else { return };
                parts.extend_from_slice(payload);
                if kind == LAST {
                    (self.read, self.done) = (self.parts.take().unwrap_or_default(), 0);
                }
            }
            _ => {}
        }
    }
}

/// How far going through a segment has come.
enum Pass {
    Whole,
    Part,
    TooSoon,
}

/// Keeps one instance's databases in its log.
pub struct Keeper {
    log: Log,
    ticket_space: u16,
    /// Where the image is, and up to which record it goes; zero, if there is none.
    image: PathBuf,
    image_after: Seq,
    /// The number of the batch that changes now go into.
    batch: u64,
    /// Batches that may not be acknowledged yet: their numbers, and their last records.
    open: VecDeque<(u64, Seq)>,
    /// Batches up to this one may be acknowledged.
    kept: u64,
    /// What the log had no room for yet of a batch that was begun.
    rest: Vec<u8>,
    rest_begun: bool,
    /// It is not the disk's pace that the rest waits for, but room.
    rest_starves: bool,
    settling: bool,
    compaction: Option<Compaction>,
    subject: Vec<u8>,
}

/// What an opening found.
#[derive(Debug)]
pub struct Restored {
    /// What the log says.
    pub recovery: Recovery,
    /// Records that were read.
    pub records: u64,
    /// Their bytes.
    pub bytes: u64,
    /// An image was read, and of the log only what came after it.
    pub image: bool,
}

/// Applies what a log holds behind a record.
fn replay(
    log: &Log,
    after: Seq,
    keys: &mut Keyspace,
    restored: &mut Restored,
) -> Result<(), RestoreError> {
    keys.begin_replay();
    let mut cursor = log.records();
    let mut parts: Option<Vec<u8>> = None;
    while let Some(record) = cursor.next(log) {
        let record = match record {
            Ok(record) => record,
            // What lies behind the damage of a read-only log is not served.
            Err(error) if log.read_only().is_some() => {
                error!(%error, "the rest of a damaged log is not read");
                break;
            }
            Err(error) => return Err(error.into()),
        };
        if record.seq <= after {
            continue;
        }
        restored.records += 1;
        restored.bytes += record.payload.len() as u64;
        let seq = record.seq;
        let applied = match (record.kind, &mut parts) {
            (WHOLE, _) => {
                parts = None;
                keys.apply(&record.payload)
            }
            (FIRST, _) => {
                parts = Some(record.payload.to_vec());
                Ok(())
            }
            (MORE | LAST, Some(begun)) => {
                begun.extend_from_slice(&record.payload);
                match record.kind {
                    LAST => keys.apply(&parts.take().unwrap_or_default()),
                    _ => Ok(()),
                }
            }
            // The batch's beginning was removed, and what it said was said again.
            _ => Ok(()),
        };
        applied.map_err(|source| RestoreError::Apply { seq, source })?;
    }
    keys.end_replay();
    Ok(())
}

impl Keeper {
    /// Opens the log in a directory, and applies to empty databases what it holds: behind what the
    /// image beside it has, if there is one. Blocks.
    ///
    /// # Errors
    /// See [`RestoreError`].
    pub fn open(
        disk: &dyn Disk,
        dir: &Path,
        options: Options,
        keys: &mut Keyspace,
    ) -> Result<(Keeper, Restored), RestoreError> {
        let path = dir.join(IMAGE);
        let image = image::read(&path, keys);
        let ticket_space = options.ticket_space;
        let (log, recovery) =
            Log::open(disk, dir, Options { whole: image.is_none(), ..options.clone() })?;
        let covers = |(id, seq): (u64, Seq)| {
            // All that came after it has to be there.
            id == log.id() && seq <= log.last() && log.first().0 <= seq.0 + 1
        };
        let Some(after) = image.map_or(Some(Seq(0)), |mark| covers(mark).then_some(mark.1)) else {
            warn!(path = %path.display(), "the image does not fit the log, which is read instead");
            image::remove(&path);
            keys.forget();
            drop(log);
            return Keeper::open(disk, dir, options, keys);
        };
        let mut restored = Restored { recovery, records: 0, bytes: 0, image: after != Seq(0) };
        replay(&log, after, keys, &mut restored)?;
        keys.journal().set_on(log.read_only().is_none());
        let keeper = Keeper {
            log,
            ticket_space,
            image: path,
            image_after: after,
            batch: 1,
            open: VecDeque::new(),
            kept: 0,
            rest: Vec::new(),
            rest_begun: false,
            rest_starves: false,
            settling: false,
            compaction: None,
            subject: Vec::new(),
        };
        keys.set_batch(keeper.batch);
        Ok((keeper, restored))
    }

    /// Writes an image of what the databases hold, for the next start, if the log is
    /// [settled](Keeper::is_settled) and has much to read. Blocks; `beat` is called again and again
    /// meanwhile. An image that cannot be written is done without.
    pub fn write_image(&mut self, keys: &mut Keyspace, beat: &mut dyn FnMut()) {
        let last = self.log.last();
        let is_worth_it = self.log.file_bytes() >= IMAGE_FROM && last > self.image_after;
        if !is_worth_it || self.log.read_only().is_some() || !self.is_settled() {
            return;
        }
        while keys.shed(1 << 16) {
            beat();
        }
        match image::write(&self.image, (self.log.id(), last), keys, beat) {
            Ok(()) => {
                self.image_after = last;
                let _ = self.log.checkpoint(Seq(last.0 + 1));
                self.log.settle();
            }
            Err(error) => warn!(%error, "no image for the next start, which reads the log"),
        }
    }

    /// The upper bits of the log's tickets.
    pub fn ticket_space(&self) -> u16 {
        self.ticket_space
    }

    /// The log.
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// Batches up to this one may be acknowledged.
    pub fn kept(&self) -> u64 {
        self.kept
    }

    /// Whether commands have to wait until the log has caught up. For room they do not wait: those
    /// that write are refused, and those that read go on.
    pub fn is_behind(&self) -> bool {
        (!self.rest.is_empty() && !self.rest_starves) || self.log.is_backlogged()
    }

    /// Whether the log has room for what another command may change.
    pub fn has_room(&mut self) -> bool {
        self.rest.is_empty() && self.log.has_room(ROOM_BYTES)
    }

    /// Whether this batch will never be durable: the disk has failed before it was.
    pub fn is_lost(&self, batch: u64) -> bool {
        batch > self.kept && self.is_poisoned()
    }

    /// Gives the log what was noted since. What it had no room for waits, and with it whoever
    /// waits for that batch.
    pub fn flush(&mut self, keys: &mut Keyspace, unix_ms: u64) {
        if self.is_poisoned() {
            self.give_up(keys);
            return;
        }
        if !self.rest.is_empty() {
            self.append_rest(unix_ms);
            if !self.rest.is_empty() {
                return;
            }
        }
        // A change may need no word, for example of what is gone again.
        if !keys.has_changes() && keys.journal().bytes().is_empty() {
            return;
        }
        // What changes from here on is in the next batch, even while this one waits.
        self.batch += 1;
        keys.set_batch(self.batch);
        let journal = keys.journal();
        if journal.bytes().len() <= PART_BYTES && self.append(WHOLE, journal.bytes(), unix_ms) {
            journal.clear();
            self.end_batch();
            return;
        }
        self.rest.extend_from_slice(journal.bytes());
        journal.clear();
        self.rest_begun = false;
        self.append_rest(unix_ms);
    }

    /// Appends a record, if there is one to append; whether it was taken. What was changed already
    /// may use the room that is kept for making the log smaller.
    fn append(&mut self, kind: u8, bytes: &[u8], unix_ms: u64) -> bool {
        if bytes.is_empty() {
            return true;
        }
        let mut appended = self.log.append(kind, &[bytes], unix_ms);
        if matches!(appended, Err(AppendError::Full)) {
            appended = self.log.relocate(kind, &[bytes], unix_ms);
        }
        self.rest_starves = matches!(appended, Err(AppendError::Full));
        match appended {
            Err(AppendError::TooLarge) => panic!("a part is no longer than a record may be"),
            appended => appended.is_ok(),
        }
    }

    /// Appends what it can of a batch that is too long for one record, or had to wait.
    fn append_rest(&mut self, unix_ms: u64) {
        let rest = std::mem::take(&mut self.rest);
        let mut done = 0;
        while done < rest.len() {
            let end = (done + PART_BYTES).min(rest.len());
            let is_last = end == rest.len();
            let kind = match (self.rest_begun, is_last) {
                (false, true) => WHOLE,
                (false, false) => FIRST,
                (true, false) => MORE,
                (true, true) => LAST,
            };
            if !self.append(kind, &rest[done..end], unix_ms) {
                break;
            }
            (self.rest_begun, done) = (true, end);
        }
        self.rest = rest;
        self.rest.drain(..done);
        if self.rest.is_empty() {
            self.end_batch();
        }
    }

    /// The log takes nothing more: what it has not taken is in memory alone, and nobody is told.
    fn give_up(&mut self, keys: &mut Keyspace) {
        keys.journal().set_on(false);
        keys.journal().clear();
        self.rest = Vec::new();
    }

    /// Whether the disk has failed since the opening. A log that was damaged before has all that
    /// the databases have.
    fn is_poisoned(&self) -> bool {
        self.log.read_only().is_some_and(|reason| !matches!(reason, ReadOnly::Corrupt(_)))
    }

    /// The batch before the one that changes now go into was appended.
    fn end_batch(&mut self) {
        self.open.push_back((self.batch - 1, self.log.last()));
        self.rest_begun = false;
        self.take_kept();
    }

    /// Starts what is due on the disk: once at each turn's end, after [`Keeper::flush`].
    pub fn commit(&mut self, files: &mut impl Files, now: Time) {
        // What was appended since took it back.
        if self.settling {
            self.log.settle();
        }
        self.log.commit(files, now);
        self.take_kept();
    }

    /// When [`Keeper::commit`] has to be called again although nothing happened until then.
    pub fn deadline(&self) -> Option<Time> {
        self.log.deadline()
    }

    /// Takes what an operation on a file came to.
    pub fn handle(&mut self, done: FileDone, files: &mut impl Files, clock: Clock) {
        let progress = self.log.handle(done, files, clock.now);
        if progress.poisoned {
            error!(reason = ?self.log.read_only(), "the log takes nothing more");
        }
        self.take_kept();
    }

    fn take_kept(&mut self) {
        let ackable = self.log.ackable();
        while let Some((batch, _)) = self.open.front().filter(|(_, last)| *last <= ackable) {
            self.kept = *batch;
            self.open.pop_front();
        }
    }

    /// One turn's share of keeping the log small; returns whether there is more to do at once.
    pub fn compact(&mut self, keys: &mut Keyspace, files: &mut impl Files) -> bool {
        if self.compaction.is_none() && !self.begin_compaction(keys) {
            return false;
        }
        if self.log.is_backlogged() || !self.rest.is_empty() {
            return false;
        }
        let mut compaction = self.compaction.take().expect("one is under way");
        if compaction.ends_with.is_none() {
            match self.sweep_some(&mut compaction, keys, files) {
                // Whatever is still so is noted by the batch that is being filled.
                Ok(Pass::Whole) => {
                    let nothing_waits = keys.journal().bytes().is_empty();
                    compaction.ends_with = Some(self.batch - u64::from(nothing_waits));
                }
                Ok(Pass::Part) => {}
                // The end of its last batch is not written yet: it begins anew later.
                Ok(Pass::TooSoon) => return false,
                Err(error) => {
                    error!(%error, "the oldest segment cannot be freed");
                    return false;
                }
            }
        }
        let Some(batch) = compaction.ends_with.filter(|batch| *batch < self.batch) else {
            let goes_on = compaction.ends_with.is_none();
            self.compaction = Some(compaction);
            return goes_on;
        };
        assert!(batch < self.batch, "what is still so was appended");
        let last = self.log.last();
        match self.log.remove_when_durable(compaction.segment, last) {
            // What came after the image is not whole any more.
            Ok(()) if self.log.first() > self.image_after => self.drop_image(),
            Ok(()) => {}
            Err(error) => error!(%error, "the oldest segment cannot be freed"),
        }
        false
    }

    fn drop_image(&mut self) {
        if std::mem::take(&mut self.image_after) != Seq(0) {
            image::remove(&self.image);
        }
    }

    /// Whether the oldest segment shall go: most of the log says what is no longer so.
    fn begin_compaction(&mut self, keys: &Keyspace) -> bool {
        let Some(oldest) = self.log.oldest().filter(|oldest| oldest.sealed) else { return false };
        if self.log.read_only().is_some() || self.log.file_bytes() < COMPACT_FROM {
            return false;
        }
        let stored: u64 = self.log.segments().map(|segment| segment.stored_bytes).sum();
        // About what it would take to say all that is so.
        let live = keys.payload_bytes() + keys.payload_bytes() / 4;
        if stored < 2 * live + COMPACT_FROM / 2 {
            return false;
        }
        let Ok(sweep) = self.log.sweep(oldest.id) else { return false };
        self.compaction = Some(Compaction {
            segment: oldest.id,
            sweep,
            reading: oldest.id,
            parts: None,
            read: Vec::new(),
            done: 0,
            noted: HashSet::default(),
            hashers: Default::default(),
            ends_with: None,
        });
        true
    }

    /// Goes through some records; returns whether that was all.
    fn sweep_some(
        &mut self,
        compaction: &mut Compaction,
        keys: &mut Keyspace,
        files: &mut impl Files,
    ) -> Result<Pass, ReadError> {
        let noted_max = keys.journal().bytes().len() + MOVED_A_TURN;
        let mut swept = 0;
        while swept < SWEPT_A_TURN && keys.journal().bytes().len() < noted_max {
            if compaction.done < compaction.read.len() {
                let from = compaction.done;
                self.relocate_some(compaction, keys, noted_max);
                swept += compaction.done - from;
                continue;
            }
            // Behind the segment only the rest of its last batch is of interest.
            if compaction.reading != compaction.segment && compaction.parts.is_none() {
                return Ok(Pass::Whole);
            }
            match compaction.sweep.next(&mut self.log, files)? {
                Swept::Record(record) => {
                    swept += record.payload.len() + RECORD_COST;
                    compaction.take(record.kind, &record.payload);
                }
                Swept::Waiting => return Ok(Pass::Part),
                Swept::Ended if compaction.parts.is_none() => return Ok(Pass::Whole),
                Swept::Ended => {
                    let next = SegmentId(compaction.reading.0 + 1);
                    if !self.log.segments().any(|segment| segment.id == next) {
                        return Ok(Pass::TooSoon);
                    }
                    (compaction.sweep, compaction.reading) = (self.log.sweep(next)?, next);
                }
            }
        }
        Ok(Pass::Part)
    }

    /// Goes through effects of a batch that was read.
    fn relocate_some(&mut self, compaction: &mut Compaction, keys: &mut Keyspace, max: usize) {
        let read = std::mem::take(&mut compaction.read);
        let mut effects = Effects::new(&read[compaction.done..]);
        while keys.journal().bytes().len() < max {
            match effects.next() {
                Some(Ok(effect)) => self.relocate(compaction, keys, effect),
                Some(Err(_)) => warn!("an effect in the oldest segment cannot be read"),
                None => break,
            }
        }
        compaction.done = read.len() - effects.rest().len();
        compaction.read = read;
    }

    fn relocate(&mut self, compaction: &mut Compaction, keys: &mut Keyspace, effect: Effect<'_>) {
        Keyspace::subject(effect, &mut self.subject);
        if self.subject.is_empty() {
            keys.relocate(effect);
            return;
        }
        let (one, other) = &compaction.hashers;
        let (one, other) = (one.hash_one(&self.subject), other.hash_one(&self.subject));
        let hash = u128::from(one) << 64 | u128::from(other);
        if !compaction.noted.contains(&hash) && keys.relocate(effect) {
            compaction.noted.insert(hash);
        }
    }

    /// Begins an orderly end: everything is to be durable.
    pub fn settle(&mut self) {
        self.settling = true;
    }

    /// Whether it is.
    pub fn is_settled(&self) -> bool {
        self.rest.is_empty() && self.log.is_settled()
    }

    /// Gives up what is open.
    pub fn close(&mut self, files: &mut impl Files) {
        self.log.close(files);
    }

    /// Whether nothing is open and nothing under way.
    pub fn is_closed(&self) -> bool {
        self.log.is_closed()
    }

    /// Tells what an opening found.
    pub fn tell(&self, name: &str, restored: &Restored) {
        info!(
            instance = name,
            records = restored.records,
            bytes = restored.bytes,
            image = restored.image,
            torn_bytes = restored.recovery.torn_bytes,
            "log opened"
        );
        if let Some(reason) = self.log.read_only() {
            error!(instance = name, %reason, "the log is damaged: it is read, not written");
        }
    }
}
