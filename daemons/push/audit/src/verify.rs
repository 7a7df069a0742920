//! Verification: every record is read, and its place in the log and in the chain is checked. It
//! trusts no index, opens files for reading alone, and needs nothing of a running audit.
//!
//! ```text
//!   segment   every item whole? ── sealed? ── does the next one follow?
//!   record    is its number the next? ── does it continue the hash of the one before?
//!             ── is it readable, and its time that of its content?
//!   end       is it the head that was published?
//! ```
//!
//! What follows damage is searched for and checked too, so that a report names each place. Of an
//! audit that is written meanwhile the end may be seen half written; it is looked at again then,
//! and told as [torn](Report::torn) at worst.

use std::io;
use std::path::Path;

use sextant_segment::{
    Items, ItemsEnd, Passed, Position, ReadError, Record, SegmentFile, SegmentId, segments_in,
};

use crate::chain::{Hash, Head};
use crate::record::{self, PAYLOAD_BYTES_MAX, Parsing};
use crate::shared::start_of;

/// What a verification has come to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Records that were checked, and the facts and events in them.
    pub records: u64,
    /// Facts in them.
    pub facts: u64,
    /// Events among them.
    pub events: u64,
    /// The first record that is there; zero if there is none.
    pub first_seq: u64,
    /// What the first record continues: [`Hash::NONE`] if it is the log's first, else the hash of
    /// a record that retention has removed. From here on the chain was checked.
    pub anchor: Hash,
    /// The last record, and its hash.
    pub head: Head,
    /// What became of the head that was expected, if one was.
    pub expected: Option<Expected>,
    /// Where the log ends in something that is no whole record, behind all that is: what was being
    /// written when it was read, or when it ended in a crash.
    pub torn: Option<Position>,
    /// What is wrong, in the order of the log: the first thousand places.
    pub damage: Vec<Damage>,
    /// Places that are not listed.
    pub damage_more: u64,
}

impl Report {
    /// Whether nothing is wrong.
    pub fn is_whole(&self) -> bool {
        self.damage.is_empty()
    }
}

/// What became of an expected head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// The record is there, and is the one.
    Met,
    /// The record was removed by retention, so that nothing can be said.
    Removed,
    /// The record is another, or is not there: told as damage.
    Missed,
}

/// Something that is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Where it was found.
    pub position: Position,
    /// What it is.
    pub what: What,
}

impl std::fmt::Display for Damage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.position, self.what)
    }
}

/// What is wrong at a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum What {
    /// A segment's header or length is not what was written.
    #[error("the segment's header or length is damaged")]
    Segment,
    /// A segment is of another log.
    #[error("the segment is of another log")]
    Foreign,
    /// A segment is not there.
    #[error("the segment is missing")]
    SegmentMissing,
    /// A segment ends without a seal, and another follows.
    #[error("the segment's end is missing")]
    Unsealed,
    /// The segment's bytes behind its end were changed.
    #[error("there are bytes behind the segment's end")]
    BehindEnd,
    /// The disk did not give the bytes.
    #[error("it cannot be read: {0}")]
    Io(io::ErrorKind),
    /// Bytes are not what was written. They held the records from `first` on, up to `next` and
    /// without it; none, if what was changed stood between two records.
    #[error("records from {first} up to {next} are changed")]
    Changed {
        /// The first of them.
        first: u64,
        /// The first that is whole again.
        next: u64,
    },
    /// Records are not there, although nothing else is wrong at this place.
    #[error("records from {first} up to {next} are missing")]
    Missing {
        /// The first of them.
        first: u64,
        /// The first that is there again.
        next: u64,
    },
    /// A record stands behind one of a higher or the same number.
    #[error("record {0} is out of order")]
    OutOfOrder(u64),
    /// A record is not the one that the next continues: one of the two was changed, by somebody who
    /// could write its checksum.
    #[error("record {0} is not the one that the next continues")]
    Chain(u64),
    /// A record says something that no audit of this version writes.
    #[error("record {0} cannot be understood")]
    Unreadable(u64),
    /// A record's time is not that of its content.
    #[error("the time of record {0} is not that of its content")]
    Time(u64),
    /// A record is not the one that was expected.
    #[error("record {0} is not the one whose hash was published")]
    NotExpected(u64),
    /// The log ends before the record that was expected.
    #[error("records from {first} up to the published {last} are cut off")]
    CutOff {
        /// The first that is missing.
        first: u64,
        /// The one that was expected.
        last: u64,
    },
}

/// How far a verification is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Records that were checked.
    pub records: u64,
    /// The segment that is read, counted from one.
    pub segment: u64,
    /// Segments that were there when it began.
    pub segments: u64,
}

/// Records between two reports of progress.
const PROGRESS_RECORDS: u64 = 1024;

/// How much is listed.
const DAMAGE_MAX: usize = 1000;

/// How often an end that looks damaged is looked at again, in one verification.
const LOOKS_MAX: u32 = 16;

/// Unix time of a record, as far as its log keeps it.
const UNIX_MS_MAX: u64 = (1 << 48) - 1;

/// Reads the whole audit in a directory and says what is wrong with it. `expected` is a head that
/// was published. `progress` is told now and then how far it is.
///
/// # Errors
/// When the directory cannot be listed.
pub fn verify(
    dir: &Path,
    expected: Option<Head>,
    mut progress: impl FnMut(Progress),
) -> io::Result<Report> {
    let mut verifier = Verifier {
        dir,
        expected,
        report: Report::default(),
        log_id: None,
        next_seq: None,
        lost: None,
        unsealed: None,
        sealed: None,
        looks: 0,
    };
    let mut segments = segments_in(dir)?;
    let mut told = Progress { records: 0, segment: 0, segments: segments.len() as u64 };
    let mut last: Option<SegmentId> = None;
    while !segments.is_empty() {
        for (at, segment) in segments.iter().copied().enumerate() {
            verifier.follows(last, segment)?;
            last = Some(segment);
            told.segment += 1;
            // Behind the one that is written stands at most one, which was not used yet.
            let is_last = segments.get(at + 1).is_none_or(|next| verifier.is_unused(*next));
            verifier.segment(segment, is_last, &mut |records| {
                progress(Progress { records, ..told });
            })?;
        }
        // While it was read, the log may have gone on in segments that were not there.
        segments = segments_in(dir)?;
        segments.retain(|segment| last.is_none_or(|last| *segment > last));
    }
    verifier.end(last);
    Ok(verifier.report)
}

struct Verifier<'a> {
    dir: &'a Path,
    expected: Option<Head>,
    report: Report,
    log_id: Option<u64>,
    /// The next record's number, once one was seen. Its chain is known if the report's head is the
    /// one before it.
    next_seq: Option<u64>,
    /// Where damage begins whose extent is not known yet.
    lost: Option<Position>,
    /// Where the segment before ends without a seal.
    unsealed: Option<Position>,
    /// The last segment that was read, if it ends with one: then another follows.
    sealed: Option<SegmentId>,
    looks: u32,
}

impl Verifier<'_> {
    fn damage(&mut self, position: Position, what: What) {
        if self.report.damage.len() < DAMAGE_MAX {
            self.report.damage.push(Damage { position, what });
        } else {
            self.report.damage_more += 1;
        }
    }

    /// Checks that a segment follows the last one.
    fn follows(&mut self, last: Option<SegmentId>, segment: SegmentId) -> io::Result<()> {
        let Some(last) = last.filter(|last| last.0.saturating_add(1) < segment.0) else {
            return Ok(());
        };
        if self.is_removed(SegmentId(last.0 + 1))? {
            self.begin_anew();
        } else {
            self.damage(start_of(SegmentId(last.0 + 1)), What::SegmentMissing);
            self.unsealed = None;
        }
        Ok(())
    }

    /// Whether retention has removed a segment: nothing is left of it and before it.
    fn is_removed(&self, segment: SegmentId) -> io::Result<bool> {
        Ok(segments_in(self.dir)?.first().is_none_or(|first| *first > segment))
    }

    /// Forgets what came before: retention has overtaken.
    fn begin_anew(&mut self) {
        (self.next_seq, self.lost, self.unsealed) = (None, None, None);
        (self.report.first_seq, self.report.anchor) = (0, Hash::NONE);
    }

    fn segment(
        &mut self,
        segment: SegmentId,
        is_last: bool,
        progress: &mut dyn FnMut(u64),
    ) -> io::Result<()> {
        let start = start_of(segment);
        let file = match SegmentFile::open(self.dir, segment, PAYLOAD_BYTES_MAX as u32) {
            Ok(file) => file,
            Err(ReadError::Removed(_)) if self.is_removed(segment)? => {
                self.begin_anew();
                return Ok(());
            }
            Err(error) => {
                let what = match error {
                    ReadError::Removed(_) => What::SegmentMissing,
                    ReadError::Io { kind, .. } => What::Io(kind),
                    _ => What::Segment,
                };
                self.damage(start, what);
                self.unsealed = None;
                return Ok(());
            }
        };
        if *self.log_id.get_or_insert(file.log_id()) != file.log_id() {
            self.damage(start, What::Foreign);
            return Ok(());
        }
        if segment == SegmentId(1) {
            self.next_seq = Some(1);
        }
        self.sealed = None;
        self.items(&file, file.items(), is_last, progress);
        Ok(())
    }

    /// Whether nothing was written to a segment.
    fn is_unused(&self, segment: SegmentId) -> bool {
        let file = SegmentFile::open(self.dir, segment, PAYLOAD_BYTES_MAX as u32);
        file.is_ok_and(|file| {
            let mut items = file.items();
            items.next().is_none() && items.is_rest_zero().unwrap_or(false)
        })
    }

    /// Goes on in the segment before, which had no seal although the next one is written to: it has
    /// got one since, unless something is wrong.
    fn finish_before(&mut self, end: Position, progress: &mut dyn FnMut(u64)) {
        match SegmentFile::open(self.dir, end.segment, PAYLOAD_BYTES_MAX as u32) {
            Ok(file) => {
                self.report.torn = None;
                self.items(&file, file.items_from(end.offset), false, progress);
                self.sealed = None;
            }
            Err(ReadError::Removed(_)) => self.begin_anew(),
            Err(_) => self.unsealed = Some(end),
        }
        if let Some(end) = self.unsealed.take() {
            self.damage(end, What::Unsealed);
        }
    }

    /// Goes through a segment's items, and past damage.
    fn items<'a>(
        &mut self,
        file: &'a SegmentFile,
        mut items: Items<'a>,
        is_last: bool,
        progress: &mut dyn FnMut(u64),
    ) {
        loop {
            let place = items.place();
            match items.next() {
                Some(Ok(passed)) => {
                    if let Some(end) = self.unsealed.take() {
                        self.finish_before(end, progress);
                    }
                    self.passed(place, &passed, progress);
                }
                Some(Err(_)) => {}
                None => match self.ended(file, &mut items, is_last) {
                    Ok(true) => {}
                    Ok(false) => return,
                    Err(ReadError::Io { kind, .. }) => return self.damage(place, What::Io(kind)),
                    Err(_) => return self.damage(place, What::Io(io::ErrorKind::InvalidData)),
                },
            }
        }
    }

    /// Judges how a way through a segment has ended; tells whether there is more of it.
    fn ended<'a>(
        &mut self,
        file: &'a SegmentFile,
        items: &mut Items<'a>,
        is_last: bool,
    ) -> Result<bool, ReadError> {
        let place = items.place();
        let is_sealed = items.end() == Some(ItemsEnd::Sealed);
        self.sealed = is_sealed.then_some(place.segment);
        if items.is_rest_zero()? {
            self.unsealed = (!is_sealed).then_some(place);
            return Ok(false);
        }
        if is_sealed {
            self.damage(place, What::BehindEnd);
            return Ok(false);
        }
        if is_last && self.looks < LOOKS_MAX {
            // More may have been written since.
            self.looks += 1;
            *items = file.items_from(place.offset);
            return Ok(true);
        }
        let is_found = items.skip_damage()?;
        if is_found || !is_last {
            self.lost.get_or_insert(place);
        }
        if is_found {
            return Ok(true);
        }
        if is_last {
            self.report.torn = Some(place);
        } else {
            self.unsealed = Some(place);
        }
        Ok(false)
    }

    fn passed(&mut self, place: Position, passed: &Passed, progress: &mut dyn FnMut(u64)) {
        match passed {
            Passed::Record(record) => {
                self.record(record);
                if self.report.records.is_multiple_of(PROGRESS_RECORDS) {
                    progress(self.report.records);
                }
            }
            Passed::Mark { next, .. } | Passed::Seal { next } => {
                self.numbers(place, next.0);
            }
            _ => {}
        }
    }

    /// Checks that the next record has the number that it should have; tells whether it has, or a
    /// higher one.
    fn numbers(&mut self, place: Position, next: u64) -> bool {
        let expected = self.next_seq.unwrap_or(next);
        let lost = self.lost.take();
        if next < expected {
            self.damage(place, What::OutOfOrder(next));
            return false;
        }
        match lost {
            Some(lost) => self.damage(lost, What::Changed { first: expected, next }),
            None if next > expected => self.damage(place, What::Missing { first: expected, next }),
            None => {}
        }
        self.next_seq = Some(next);
        true
    }

    fn record(&mut self, record: &Record) {
        let (place, seq) = (record.position, record.seq.0);
        self.report.records += 1;
        if self.report.first_seq == 0 {
            self.first(record);
        }
        if !self.numbers(place, seq) {
            return;
        }
        self.next_seq = Some(seq.saturating_add(1));
        match record::parse(record.kind, &record.payload) {
            Ok((before, parsing)) => {
                self.continues(place, seq, before);
                self.content(record, parsing);
            }
            Err(_) => self.damage(place, What::Unreadable(seq)),
        }
        let hash = Hash::of(&[&record.payload]);
        self.report.head = Head { seq, hash };
        if let Some(expected) = self.expected.filter(|expected| expected.seq == seq) {
            let is_met = expected.hash == hash;
            self.report.expected = Some(if is_met { Expected::Met } else { Expected::Missed });
            if !is_met {
                self.damage(place, What::NotExpected(seq));
            }
        }
    }

    /// Takes the first record that is there.
    fn first(&mut self, record: &Record) {
        let seq = record.seq.0;
        self.report.first_seq = seq;
        if let Ok((before, _)) = record::parse(record.kind, &record.payload) {
            self.report.anchor = before;
            if seq == 1 && before != Hash::NONE {
                self.damage(record.position, What::Chain(0));
            }
        }
    }

    /// Checks that a record continues the one before it, if that is known.
    fn continues(&mut self, place: Position, seq: u64, before: Hash) {
        let head = self.report.head;
        if head.seq != 0 && head.seq.checked_add(1) == Some(seq) && head.hash != before {
            self.damage(place, What::Chain(head.seq));
        }
    }

    fn content(&mut self, record: &Record, parsing: Parsing<'_>) {
        let seq = record.seq.0;
        let at = match parsing {
            Parsing::Event(event) => {
                self.report.events += 1;
                event.at
            }
            Parsing::Facts(mut facts) => {
                let last_at = facts.last_at;
                let whole = facts.try_fold(0, |count, fact| fact.map(|_| count + 1));
                match whole {
                    Ok(count) => self.report.facts += count,
                    Err(_) => return self.damage(record.position, What::Unreadable(seq)),
                }
                last_at
            }
        };
        if record.unix_ms != at.min(UNIX_MS_MAX) {
            self.damage(record.position, What::Time(seq));
        }
    }

    fn end(&mut self, last: Option<SegmentId>) {
        let place = last.map_or(start_of(SegmentId(1)), start_of);
        let next = self.next_seq.unwrap_or(1);
        if let Some(sealed) = self.sealed {
            self.damage(start_of(SegmentId(sealed.0.saturating_add(1))), What::SegmentMissing);
        }
        if let Some(lost) = self.lost.take() {
            self.damage(lost, What::Changed { first: next, next });
        }
        let Some(expected) = self.expected.filter(|_| self.report.expected.is_none()) else {
            return;
        };
        self.report.expected = Some(match expected.seq {
            0 => Expected::Met,
            seq if seq < self.report.first_seq => Expected::Removed,
            seq if seq >= next => {
                self.damage(place, What::CutOff { first: next, last: expected.seq });
                Expected::Missed
            }
            // Damage took it, which is told.
            _ => Expected::Missed,
        });
    }
}
