//! Asking the audit. A [`Reader`] goes through the index of a snapshot, and reads the records that
//! may hold an answer from their segments, through files of its own: the writer goes on meanwhile.
//!
//! A record is read with its checksum, and tried fact by fact: what the index says is never taken
//! for an answer.

use std::cmp::Reverse;
use std::io;
use std::path::Path;
use std::sync::Arc;

use sextant_segment::{ReadError, Record, SegmentFile, SegmentId};

use crate::fact::{Event, Fact};
use crate::index::{Chunk, Summary};
use crate::open;
use crate::query::{Content, Cursor, Entry, Page, Query};
use crate::record::{self, Parsing};
use crate::shared::{Segment, Shared, Snapshot, next_record, start_of};

/// Asks the audit, from any thread. What was handed to the writer is found once it has cut it into
/// a block: after [`Options::batch_ms`](crate::Options::batch_ms) and a tick.
#[derive(Clone)]
pub struct Reader {
    pub(crate) shared: Arc<Shared>,
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader").field("dir", &self.shared.dir).finish_non_exhaustive()
    }
}

/// What is gone through one behind the other.
enum Part<'a> {
    Sealed(&'a Arc<Segment>),
    Active(SegmentId, &'a Arc<Chunk>),
}

impl Part<'_> {
    fn segment(&self) -> SegmentId {
        match self {
            Part::Sealed(segment) => segment.id(),
            Part::Active(segment, _) => *segment,
        }
    }

    /// The numbers of its records: from the first to the last.
    fn seqs(&self) -> (u64, u64) {
        match self {
            Part::Sealed(segment) => {
                (segment.head.first_seq, segment.head.next_seq().saturating_sub(1))
            }
            Part::Active(_, chunk) => {
                let first = chunk.summaries.first().map_or(u64::MAX, |summary| summary.seq);
                (first, chunk.summaries.last().map_or(0, |summary| summary.seq))
            }
        }
    }

    fn index(&self, shared: &Shared) -> Result<Arc<Chunk>, ReadError> {
        match self {
            Part::Sealed(segment) => shared.index(segment),
            Part::Active(_, chunk) => Ok((*chunk).clone()),
        }
    }
}

fn parts(snapshot: &Snapshot) -> impl DoubleEndedIterator<Item = Part<'_>> {
    let sealed = snapshot.sealed.iter().map(Part::Sealed);
    sealed.chain(snapshot.chunks.iter().map(|chunk| Part::Active(snapshot.active, chunk)))
}

impl Reader {
    /// A reader of an audit that nobody writes, damaged or not: it never writes either. Segments
    /// without an index are read whole.
    ///
    /// # Errors
    /// When the directory cannot be listed.
    pub fn open(dir: &Path) -> io::Result<Reader> {
        open::at_rest(dir)
    }

    /// Answers a question, as far as one page goes. Damage is told in the page, and nothing is
    /// told of segments that retention has removed meanwhile.
    pub fn query(&self, query: &Query) -> Page {
        let snapshot = self.shared.snapshot();
        let mut search = Search { shared: &self.shared, query, page: Page::default(), file: None };
        let ended = match query.newest_first {
            false => parts(&snapshot).all(|part| search.part(&part)),
            true => parts(&snapshot).rev().all(|part| search.part(&part)),
        };
        let mut page = search.page;
        assert_eq!(ended, page.after.is_none(), "a page that ended early says where to go on");
        if query.message.is_some() && query.after.is_none() && ended {
            match query.newest_first {
                false => page.entries.sort_by_key(Entry::at),
                true => page.entries.sort_by_key(|entry| Reverse(entry.at())),
            }
        }
        page
    }

    /// Gives every fact from the record `from_seq` on, in the order of the log: for whoever adds
    /// them up anew. Up to what was cut when it began.
    pub fn scan_facts(&self, from_seq: u64, mut each: impl FnMut(u64, &Fact)) -> Scanned {
        let snapshot = self.shared.snapshot();
        let mut scanned = Scanned { next_seq: from_seq, facts: 0, unreadable: Vec::new() };
        let mut last_segment = None;
        for part in parts(&snapshot) {
            // The chunks of the active segment are of one file.
            if last_segment == Some(part.segment()) || part.seqs().1 < from_seq {
                continue;
            }
            last_segment = Some(part.segment());
            let last = match part {
                Part::Sealed(_) => part.seqs().1,
                Part::Active(..) => parts(&snapshot).next_back().map_or(0, |part| part.seqs().1),
            };
            match self.shared.open(part.segment()) {
                Ok(file) => scanned.segment(&file, from_seq..=last, &mut each),
                Err(ReadError::Removed(_)) => {}
                Err(error) => scanned.complain(error),
            }
        }
        scanned
    }
}

/// What a scan has come to.
#[derive(Clone, Debug)]
pub struct Scanned {
    /// The record that a later scan goes on with.
    pub next_seq: u64,
    /// How many facts were given.
    pub facts: u64,
    /// Where something could not be read, and was left out: the first thousand places.
    pub unreadable: Vec<ReadError>,
}

/// How much of what could not be read is listed.
const UNREADABLE_MAX: usize = 1000;

impl Scanned {
    fn segment(
        &mut self,
        file: &SegmentFile,
        seqs: std::ops::RangeInclusive<u64>,
        each: &mut impl FnMut(u64, &Fact),
    ) {
        let mut items = file.items();
        while let Some(record) = next_record(&mut items) {
            let record = match record {
                Ok(record) if record.seq.0 > *seqs.end() => break,
                Ok(record) if record.seq.0 < *seqs.start() => continue,
                Ok(record) => record,
                Err(error) => {
                    self.complain(error);
                    match items.skip_damage() {
                        Ok(true) => continue,
                        _ => break,
                    }
                }
            };
            self.next_seq = record.seq.0.saturating_add(1);
            if let Err(error) = self.record(&record, each) {
                self.complain(error);
            }
        }
    }

    fn complain(&mut self, error: ReadError) {
        if self.unreadable.len() < UNREADABLE_MAX {
            self.unreadable.push(error);
        }
    }

    fn record(
        &mut self,
        record: &Record,
        each: &mut impl FnMut(u64, &Fact),
    ) -> Result<(), ReadError> {
        let corrupt = |_| ReadError::Corrupt(record.position);
        let (_, parsing) = record::parse(record.kind, &record.payload).map_err(corrupt)?;
        if let Parsing::Facts(facts) = parsing {
            for fact in facts {
                each(record.seq.0, &fact.map_err(corrupt)?);
                self.facts += 1;
            }
        }
        Ok(())
    }
}

/// The way to one page.
struct Search<'a> {
    shared: &'a Shared,
    query: &'a Query,
    page: Page,
    /// The segment that was read from last.
    file: Option<(SegmentId, SegmentFile)>,
}

impl Search<'_> {
    /// Goes through a part; tells whether to go on behind it.
    fn part(&mut self, part: &Part<'_>) -> bool {
        let (first, last) = part.seqs();
        let is_passed = self.query.after.is_some_and(|after| match self.query.newest_first {
            false => last < after.seq,
            true => first > after.seq,
        });
        if is_passed || matches!(part, Part::Sealed(segment) if !segment.may_match(self.query)) {
            return true;
        }
        if matches!(part, Part::Sealed(segment) if !segment.is_read()) {
            if self.page.indexes_read == Page::INDEXES_MAX {
                return self.stop_before(if self.query.newest_first { last } else { first });
            }
            self.page.indexes_read += 1;
        }
        let chunk = match part.index(self.shared) {
            Ok(chunk) => chunk,
            Err(ReadError::Removed(_)) => return true,
            Err(error) => {
                self.page.unreadable.push(error);
                return true;
            }
        };
        if chunk.damaged {
            self.page.unreadable.push(ReadError::Corrupt(start_of(part.segment())));
        }
        let segment = part.segment();
        match self.query.newest_first {
            false => {
                let after = self.query.after.map_or(0, |after| after.seq);
                let begin = chunk.summaries.partition_point(|summary| summary.seq < after);
                let mut summaries = chunk.summaries[begin..].iter();
                summaries.all(|summary| self.summary(segment, summary, &chunk))
            }
            true => {
                let after = self.query.after.map_or(u64::MAX, |after| after.seq);
                let end = chunk.summaries.partition_point(|summary| summary.seq <= after);
                let mut summaries = chunk.summaries[..end].iter().rev();
                summaries.all(|summary| self.summary(segment, summary, &chunk))
            }
        }
    }

    /// Looks into a record if something may be there; tells whether to go on behind it.
    fn summary(&mut self, segment: SegmentId, summary: &Summary, chunk: &Chunk) -> bool {
        if self.page.summaries_seen == Page::SUMMARIES_MAX {
            return self.stop_before(summary.seq);
        }
        self.page.summaries_seen += 1;
        if !summary.may_match(self.query, &chunk.filters) {
            return true;
        }
        if self.page.records_read == Page::RECORDS_MAX {
            return self.stop_before(summary.seq);
        }
        self.page.records_read += 1;
        let read = self.read(segment, summary).and_then(|record| {
            let position = record.position;
            let parsed = record::parse(record.kind, &record.payload);
            let taken = parsed.and_then(|(_, parsing)| self.take(summary.seq, parsing));
            taken.map_err(|_| ReadError::Corrupt(position))
        });
        match read {
            Ok(goes_on) => goes_on,
            Err(ReadError::Removed(_)) => true,
            Err(error) => {
                self.page.unreadable.push(error);
                true
            }
        }
    }

    fn read(&mut self, segment: SegmentId, summary: &Summary) -> Result<Record, ReadError> {
        let file = match self.file.take() {
            Some((open, file)) if open == segment => file,
            _ => self.shared.open(segment)?,
        };
        let record = file.read(summary.offset, summary.stored_bytes);
        self.file = Some((segment, file));
        let is_it = |record: &Record| record.seq.0 == summary.seq;
        record.and_then(|record| match is_it(&record) {
            true => Ok(record),
            false => Err(ReadError::Corrupt(record.position)),
        })
    }

    /// Takes what is asked for out of a record; tells whether there is room for more.
    fn take(&mut self, seq: u64, parsing: Parsing<'_>) -> Result<bool, record::Unreadable> {
        let here = self.query.after.filter(|after| after.seq == seq).map(|after| after.index);
        match (parsing, self.query.newest_first) {
            (Parsing::Event(event), newest_first) => {
                // Of an event there is one entry, so that a page ends before it or behind it.
                let is_done = here.is_some_and(|index| (index > 0) != newest_first);
                Ok(is_done || self.take_event(seq, event))
            }
            (Parsing::Facts(facts), false) => {
                for (index, fact) in (0..).zip(facts) {
                    let fact = fact?;
                    // They are sorted: behind the message nothing is asked for.
                    if self.query.message.is_some_and(|message| fact.message > message) {
                        break;
                    }
                    let is_new = here.is_none_or(|from| index >= from);
                    if is_new && self.query.takes(&fact) && !self.put_fact(seq, index, fact) {
                        return Ok(self.stop(Cursor { seq, index: index + 1 }));
                    }
                }
                Ok(true)
            }
            (Parsing::Facts(facts), true) => {
                let mut found: Vec<(u32, Fact)> = Vec::new();
                for (index, fact) in (0..).zip(facts) {
                    let fact = fact?;
                    if self.query.message.is_some_and(|message| fact.message > message) {
                        break;
                    }
                    if here.is_none_or(|to| index < to) && self.query.takes(&fact) {
                        found.push((index, fact));
                    }
                }
                for (index, fact) in found.into_iter().rev() {
                    if !self.put_fact(seq, index, fact) {
                        return Ok(self.stop(Cursor { seq, index }));
                    }
                }
                Ok(true)
            }
        }
    }

    fn take_event(&mut self, seq: u64, event: Event) -> bool {
        if !self.query.takes_event(&event) {
            return true;
        }
        self.page.entries.push(Entry { seq, index: 0, content: Content::Event(event) });
        if self.page.entries.len() < self.query.limit() {
            return true;
        }
        let index = u32::from(!self.query.newest_first);
        self.stop(Cursor { seq, index })
    }

    /// Adds a fact; tells whether there is room for another.
    fn put_fact(&mut self, seq: u64, index: u32, fact: Fact) -> bool {
        self.page.entries.push(Entry { seq, index, content: Content::Fact(fact) });
        self.page.entries.len() < self.query.limit()
    }

    fn stop_before(&mut self, seq: u64) -> bool {
        let index = if self.query.newest_first { u32::MAX } else { 0 };
        self.stop(Cursor { seq, index })
    }

    fn stop(&mut self, cursor: Cursor) -> bool {
        self.page.after = Some(cursor);
        false
    }
}
