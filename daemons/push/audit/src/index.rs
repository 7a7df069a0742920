//! What is known of each record without reading it: enough to say of most that nothing in them is
//! asked for. The index finds records; what they say is read from the log alone.
//!
//! ```text
//!   Chunk   summaries │ 1 │ 2 │ 3 │ …     range of messages, devices, times; apps; stages;
//!                       │   │             where the record is
//!           filters   │ messages, devices │ messages │ …
//! ```
//!
//! A block's facts are sorted by message and device, and blocks are cut from many facts that were
//! sorted together: so that a block's ranges are narrow. Where a range is not dense, a
//! [filter] tells which of its numbers are there.
//!
//! While a segment is written its index is a list of chunks, each of which never changes; small
//! neighbours become one, so that the list stays short.

use std::sync::Arc;

use bytes::Bytes;

use crate::fact::{Event, Fact, Stages};
use crate::filter;
use crate::query::Query;

/// What a summary is of, and how it is told on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    Facts = crate::record::FACTS,
    Event = crate::record::EVENT,
}

/// What is known of one record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Summary {
    pub(crate) seq: u64,
    pub(crate) kind: Kind,
    /// Where the record is in its segment, and the bytes that it takes there.
    pub(crate) offset: u32,
    pub(crate) stored_bytes: u32,
    pub(crate) facts: u32,
    pub(crate) message_min: u64,
    pub(crate) message_max: u64,
    pub(crate) device_min: u32,
    pub(crate) device_max: u32,
    pub(crate) first_at: u64,
    pub(crate) last_at: u64,
    pub(crate) app_min: u16,
    pub(crate) app_max: u16,
    /// A bit for each app, by its number's lowest six bits.
    pub(crate) app_bits: u64,
    pub(crate) stages: Stages,
    /// Where its filters begin, and the blocks of each: the messages', then the devices'. None
    /// where the range says it all.
    pub(crate) filter_at: u32,
    pub(crate) message_blocks: u16,
    pub(crate) device_blocks: u16,
}

/// A range is dense, and needs no filter, if at least one in so many of its numbers is there.
const DENSE: u64 = 2;

/// Where a record is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) seq: u64,
    pub(crate) offset: u32,
    pub(crate) stored_bytes: u32,
}

impl Summary {
    /// Of a record of which nothing but its place is known.
    fn at(kind: Kind, place: Place) -> Summary {
        Summary {
            seq: place.seq,
            kind,
            offset: place.offset,
            stored_bytes: place.stored_bytes,
            facts: 0,
            message_min: 0,
            message_max: 0,
            device_min: 0,
            device_max: 0,
            first_at: 0,
            last_at: 0,
            app_min: 0,
            app_max: 0,
            app_bits: 0,
            stages: Stages::NONE,
            filter_at: 0,
            message_blocks: 0,
            device_blocks: 0,
        }
    }

    fn of_event(event: &Event, place: Place) -> Summary {
        Summary {
            message_min: event.message,
            message_max: event.message,
            first_at: event.at,
            last_at: event.at,
            app_min: event.app,
            app_max: event.app,
            app_bits: app_bit(event.app),
            ..Summary::at(Kind::Event, place)
        }
    }

    /// Whether the record may hold something that is asked for. `filters` are those of its chunk.
    pub(crate) fn may_match(&self, query: &Query, filters: &[u8]) -> bool {
        if self.first_at >= query.to || self.last_at < query.from {
            return false;
        }
        let takes = match self.kind {
            Kind::Facts => self.stages.bits() & query.stages.bits() != 0,
            Kind::Event => query.takes_events(),
        };
        takes
            && query.app.is_none_or(|app| self.may_have_app(app))
            && query.message.is_none_or(|message| self.may_have_message(message, filters))
            && query.device.is_none_or(|device| self.may_have_device(device, filters))
    }

    fn may_have_app(&self, app: u16) -> bool {
        (self.app_min..=self.app_max).contains(&app) && self.app_bits & app_bit(app) != 0
    }

    fn may_have_message(&self, message: u64, filters: &[u8]) -> bool {
        (self.message_min..=self.message_max).contains(&message)
            && filter::may_have(self.filter(filters, 0, self.message_blocks), message)
    }

    fn may_have_device(&self, device: u32, filters: &[u8]) -> bool {
        let before = self.message_blocks;
        (self.device_min..=self.device_max).contains(&device)
            && filter::may_have(self.filter(filters, before, self.device_blocks), device.into())
    }

    /// One of its filters; none if it has none, or the place that it names does not exist.
    fn filter<'a>(&self, filters: &'a [u8], before: u16, blocks: u16) -> &'a [u8] {
        let start = self.filter_at as usize + usize::from(before) * filter::BLOCK_BYTES;
        let end = start + usize::from(blocks) * filter::BLOCK_BYTES;
        filters.get(start..end).unwrap_or_default()
    }
}

fn app_bit(app: u16) -> u64 {
    1 << (app % 64)
}

/// Summaries of records that follow each other in one segment, and their filters.
#[derive(Debug, Default)]
pub(crate) struct Chunk {
    pub(crate) summaries: Vec<Summary>,
    pub(crate) filters: Filters,
    /// Some record in between could not be read, and has no summary.
    pub(crate) damaged: bool,
}

/// The bytes of filters: in memory, or in a file that is mapped.
#[derive(Debug)]
pub(crate) enum Filters {
    Owned(Vec<u8>),
    Mapped(Bytes),
}

impl Default for Filters {
    fn default() -> Filters {
        Filters::Owned(Vec::new())
    }
}

impl std::ops::Deref for Filters {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Filters::Owned(bytes) => bytes,
            Filters::Mapped(bytes) => bytes,
        }
    }
}

/// A chunk that grows.
#[derive(Debug, Default)]
pub(crate) struct ChunkBuilder {
    summaries: Vec<Summary>,
    filters: Vec<u8>,
    messages: Vec<u64>,
    devices: Vec<u32>,
}

impl ChunkBuilder {
    pub(crate) fn push_event(&mut self, event: &Event, place: Place) {
        self.summaries.push(Summary::of_event(event, place));
    }

    /// Adds a block of facts, which are sorted by message and device.
    pub(crate) fn push_facts(&mut self, facts: &[Fact], place: Place) {
        let (Some(first), Some(last)) = (facts.first(), facts.last()) else { return };
        let mut summary = Summary {
            facts: facts.len() as u32,
            message_min: first.message,
            message_max: last.message,
            device_min: u32::MAX,
            first_at: u64::MAX,
            app_min: u16::MAX,
            filter_at: u32::try_from(self.filters.len()).expect("a chunk is of one segment"),
            ..Summary::at(Kind::Facts, place)
        };
        self.messages.clear();
        self.devices.clear();
        let mut stages = 0;
        for fact in facts {
            if self.messages.last() != Some(&fact.message) {
                self.messages.push(fact.message);
            }
            if self.devices.last() != Some(&fact.device) {
                self.devices.push(fact.device);
            }
            stages |= 1 << fact.stage.code();
            summary.device_min = summary.device_min.min(fact.device);
            summary.device_max = summary.device_max.max(fact.device);
            summary.first_at = summary.first_at.min(fact.at);
            summary.last_at = summary.last_at.max(fact.at);
            summary.app_min = summary.app_min.min(fact.app);
            summary.app_max = summary.app_max.max(fact.app);
            summary.app_bits |= app_bit(fact.app);
        }
        summary.stages = Stages::from_bits(stages);
        self.put_filters(&mut summary);
        self.summaries.push(summary);
    }

    fn put_filters(&mut self, summary: &mut Summary) {
        let messages = self.messages.len() as u64;
        if !is_dense(summary.message_max - summary.message_min, messages) {
            summary.message_blocks = put_filter(&mut self.filters, self.messages.iter().copied());
        }
        // Of several messages' devices some may be the same: then their number says nothing.
        let devices = if messages == 1 { self.devices.len() as u64 } else { 1 };
        if !is_dense(u64::from(summary.device_max - summary.device_min), devices) {
            let devices = self.devices.iter().map(|device| u64::from(*device));
            summary.device_blocks = put_filter(&mut self.filters, devices);
        }
    }

    /// Whether nothing was added.
    pub(crate) fn is_empty(&self) -> bool {
        self.summaries.is_empty()
    }

    /// What was added, of which nothing is kept here.
    pub(crate) fn finish(&mut self) -> Chunk {
        Chunk {
            summaries: std::mem::take(&mut self.summaries),
            filters: Filters::Owned(std::mem::take(&mut self.filters)),
            damaged: false,
        }
    }
}

fn is_dense(span: u64, count: u64) -> bool {
    span < count.saturating_mul(DENSE)
}

/// Appends a filter, and tells its blocks.
fn put_filter(filters: &mut Vec<u8>, keys: impl ExactSizeIterator<Item = u64>) -> u16 {
    let blocks = filter::blocks_for(keys.len());
    let start = filters.len();
    filters.resize(start + blocks * filter::BLOCK_BYTES, 0);
    keys.for_each(|key| filter::insert(&mut filters[start..], key));
    u16::try_from(blocks).expect("a block of facts has few of them")
}

/// Chunks up to this many summaries become one with a neighbour that is no larger.
const MERGED_SUMMARIES_MAX: usize = 512;

impl Chunk {
    /// All of a segment's chunks as one.
    pub(crate) fn of_all(chunks: &[Arc<Chunk>]) -> Chunk {
        chunks.iter().fold(Chunk::default(), |all, chunk| all.and(chunk))
    }

    /// This one, and another behind it.
    fn and(mut self, behind: &Chunk) -> Chunk {
        let Filters::Owned(filters) = &mut self.filters else {
            panic!("what is in a file is not added to");
        };
        let shift = u32::try_from(filters.len()).expect("a chunk is of one segment");
        filters.extend_from_slice(&behind.filters);
        self.summaries.extend(
            behind
                .summaries
                .iter()
                .map(|summary| Summary { filter_at: summary.filter_at + shift, ..*summary }),
        );
        self.damaged |= behind.damaged;
        self
    }

    /// Facts in its records.
    pub(crate) fn facts(&self) -> u64 {
        self.summaries.iter().map(|summary| u64::from(summary.facts)).sum()
    }

    /// The first and the last time in it.
    pub(crate) fn times(&self) -> (u64, u64) {
        let first = self.summaries.iter().map(|summary| summary.first_at).min();
        let last = self.summaries.iter().map(|summary| summary.last_at).max();
        (first.unwrap_or(u64::MAX), last.unwrap_or(0))
    }
}

/// Adds a chunk behind others, so that there are few: each that is small is larger than the one
/// behind it.
pub(crate) fn push_chunk(chunks: &mut Vec<Arc<Chunk>>, mut chunk: Chunk) {
    let is_small = |chunk: &Chunk| chunk.summaries.len() <= MERGED_SUMMARIES_MAX;
    while let Some(before) = chunks.last()
        && is_small(before)
        && before.summaries.len() <= chunk.summaries.len()
    {
        chunk = Chunk::default().and(before).and(&chunk);
        chunks.pop();
    }
    chunks.push(Arc::new(chunk));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fact::{EventKind, Stage};

    const PLACE: Place = Place { seq: 1, offset: 512, stored_bytes: 100 };

    fn fact(message: u64, device: u32) -> Fact {
        Fact { message, at: 1000 + message % 10, device, app: 3, stage: Stage::Sent, reason: 0 }
    }

    fn chunk_of(facts: &[Fact]) -> Chunk {
        let mut builder = ChunkBuilder::default();
        builder.push_facts(facts, PLACE);
        builder.finish()
    }

    fn may_match(chunk: &Chunk, query: &Query) -> bool {
        chunk.summaries.iter().any(|summary| summary.may_match(query, &chunk.filters))
    }

    fn of_message(message: u64) -> Query {
        Query { message: Some(message), ..Query::default() }
    }

    fn of_device(device: u32) -> Query {
        Query { device: Some(device), ..Query::default() }
    }

    #[test]
    fn dense_ranges_need_no_filter_and_others_say_what_is_not_there() {
        let broadcast: Vec<Fact> = (100..1100).map(|device| fact(7, device)).collect();
        let chunk = chunk_of(&broadcast);
        assert_eq!(chunk.filters.len(), 0);
        assert!(may_match(&chunk, &of_device(100)) && may_match(&chunk, &of_device(1099)));
        assert!(!may_match(&chunk, &of_device(99)) && !may_match(&chunk, &of_device(1100)));
        assert!(may_match(&chunk, &of_message(7)) && !may_match(&chunk, &of_message(8)));

        let singles: Vec<Fact> = (0..1000).map(|n| fact(n * 1000, n as u32 * 777 % 9973)).collect();
        let chunk = chunk_of(&singles);
        assert!(chunk.filters.len() <= 2 * (1000 * 16 / 8 + filter::BLOCK_BYTES));
        assert!(singles.iter().all(|fact| may_match(&chunk, &of_message(fact.message))));
        assert!(singles.iter().all(|fact| may_match(&chunk, &of_device(fact.device))));
        let wrong = (0..1000).filter(|n| may_match(&chunk, &of_message(n * 1000 + 1))).count();
        assert!(wrong < 20, "{wrong} of 1000");
    }

    #[test]
    fn what_is_of_another_time_app_or_stage_is_not_read() {
        let chunk = chunk_of(&[fact(1, 5), fact(9, 5)]);
        let matches = |query: Query| may_match(&chunk, &query);
        let all = Query::default;
        assert!(matches(all()));
        assert!(matches(Query { from: 1009, ..all() }) && !matches(Query { from: 1010, ..all() }));
        assert!(matches(Query { to: 1002, ..all() }) && !matches(Query { to: 1001, ..all() }));
        assert!(
            matches(Query { app: Some(3), ..all() }) && !matches(Query { app: Some(67), ..all() })
        );
        let stages = Stages::NONE.with(Stage::Clicked);
        assert!(!matches(Query { stages, ..all() }));
    }

    #[test]
    fn an_event_is_of_its_message_and_of_no_device() {
        let (actor, detail) = ("".into(), (*b"{}").into());
        let event = Event { message: 4, at: 6, app: 1, kind: EventKind(2), actor, detail };
        let mut builder = ChunkBuilder::default();
        builder.push_event(&event, PLACE);
        let chunk = builder.finish();
        assert!(may_match(&chunk, &of_message(4)) && !may_match(&chunk, &of_message(5)));
        assert!(!may_match(&chunk, &of_device(0)));
        assert!(!may_match(&chunk, &Query { events: false, ..Query::default() }));
        let stages = Stages::NONE;
        assert!(may_match(&chunk, &Query { stages, ..Query::default() }), "it has none");
    }

    #[test]
    fn many_small_chunks_become_few_in_the_same_order() {
        let mut chunks = Vec::new();
        for seq in 0..20_000u64 {
            let mut builder = ChunkBuilder::default();
            let facts = [fact(seq * 10, 1), fact(seq * 10 + 7, 1 << 20)];
            builder.push_facts(&facts, Place { seq, ..PLACE });
            push_chunk(&mut chunks, builder.finish());
        }
        assert!(chunks.len() < 20_000 / 512 + 12, "{}", chunks.len());
        let all = Chunk::of_all(&chunks);
        assert!(all.summaries.iter().map(|summary| summary.seq).eq(0..20_000));
        assert_eq!((all.facts(), all.times()), (40_000, (1000, 1007)));
        for seq in (0..20_000).step_by(379) {
            let asked = of_message(seq * 10 + 7);
            let found = |chunk: &Chunk| {
                let may = chunk.summaries.iter().filter(|s| s.may_match(&asked, &chunk.filters));
                may.map(|summary| summary.seq).collect::<Vec<u64>>()
            };
            assert_eq!(found(&all), [seq]);
            assert_eq!(chunks.iter().flat_map(|chunk| found(chunk)).collect::<Vec<u64>>(), [seq]);
        }
    }
}
