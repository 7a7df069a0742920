//! Random facts, events and questions, against a plain list of what was written.

use std::cmp::Reverse;

use fastrand::Rng;
use sextant_audit::{Content, Entry, Event, Fact, Page, Query, Stage, Stages};

use crate::rig::{
    all, all_facts, any_event, any_fact, broadcast, check, event_of, fact_of, open, rng, small,
    sorted,
};

#[derive(Default)]
struct Written {
    facts: Vec<Fact>,
    events: Vec<Event>,
}

impl Written {
    fn facts_for(&self, query: &Query) -> Vec<Fact> {
        let takes = |fact: &&Fact| {
            query.message.is_none_or(|message| message == fact.message)
                && query.device.is_none_or(|device| device == fact.device)
                && query.app.is_none_or(|app| app == fact.app)
                && (query.from..query.to).contains(&fact.at)
                && query.stages.has(fact.stage)
        };
        self.facts.iter().filter(takes).copied().collect()
    }

    fn events_for(&self, query: &Query) -> Vec<Event> {
        let takes = |event: &&Event| {
            query.events
                && query.device.is_none()
                && query.message.is_none_or(|message| message == event.message)
                && query.app.is_none_or(|app| app == event.app)
                && (query.from..query.to).contains(&event.at)
        };
        self.events.iter().filter(takes).cloned().collect()
    }
}

fn any_query(rng: &mut Rng, now: u64) -> Query {
    let mut stages = Stages::ALL;
    if rng.u8(..4) == 0 {
        stages = Stage::ALL.into_iter().filter(|_| rng.bool()).collect();
    }
    let (from, to) = match rng.u8(..3) {
        0 => (now.saturating_sub(rng.u64(..3000)), now.saturating_sub(rng.u64(..3000))),
        1 => (now.saturating_sub(rng.u64(..3000)), u64::MAX),
        _ => (0, u64::MAX),
    };
    let message = rng.bool().then(|| rng.u64(..45));
    let device = rng.bool().then(|| rng.u32(..210));
    // Of a page of one entry each block is read once for each entry in it.
    let limits = if message.is_some() && device.is_some() { 0..4 } else { 2..4 };
    Query {
        message,
        device,
        app: rng.bool().then(|| rng.u16(..5)),
        from,
        to,
        stages,
        events: rng.bool(),
        newest_first: rng.bool(),
        limit: [1, 7, 500, 10_000][rng.usize(limits)],
        after: None,
    }
}

/// Whether entries are in the order that they should be in.
fn check_order(entries: &[Entry], query: &Query, one_page: bool) {
    let by_time = query.message.is_some() && one_page;
    let place = |entry: &Entry| (entry.seq, entry.index);
    let in_order = match (query.newest_first, by_time) {
        (false, false) => entries.is_sorted_by(|a, b| place(a) < place(b)),
        (true, false) => entries.is_sorted_by(|a, b| place(a) > place(b)),
        (false, true) => entries.is_sorted_by_key(|entry| (entry.at(), place(entry))),
        (true, true) => entries.is_sorted_by_key(|entry| Reverse((entry.at(), place(entry)))),
    };
    assert!(in_order, "{query:?}");
}

#[test]
fn questions_are_answered_as_by_a_plain_list() {
    let mut rng = rng();
    let dir = tempfile::tempdir().expect("a temporary directory");
    let options = small();
    let (mut writer, mut reader, _) = open(dir.path(), &options);
    let (mut written, mut now) = (Written::default(), 1_000_000);
    let (mut answered, mut segments) = (0, 0);
    for round in 0..60 {
        for _ in 0..rng.u32(..40) {
            now += rng.u64(..20);
            match rng.u8(..10) {
                0 => {
                    let event = any_event(&mut rng, now);
                    writer.event(&event).expect("there is room");
                    written.events.push(event);
                }
                1 => {
                    let facts = broadcast(rng.u64(1..40), rng.u32(1..160), now);
                    writer.facts(&facts).expect("there is room");
                    written.facts.extend(facts);
                }
                _ => {
                    let facts: Vec<Fact> =
                        (0..rng.u32(..400)).map(|_| any_fact(&mut rng, now)).collect();
                    writer.facts(&facts).expect("there is room");
                    written.facts.extend(facts);
                }
            }
            if rng.u8(..5) == 0 {
                writer.tick(now).expect("nothing fails");
            }
        }
        if round % 10 == 9 {
            let head = writer.close().expect("nothing fails");
            let opened;
            (writer, reader, opened) = open(dir.path(), &options);
            assert_eq!((opened.head, opened.torn_bytes, opened.indexes_rebuilt), (head, 0, 0));
            assert_eq!(opened.facts, written.facts.len() as u64);
            segments = std::fs::read_dir(dir.path()).expect("it is there").count() / 2;
        }
        writer.flush().expect("nothing fails");
        for _ in 0..12 {
            let query = any_query(&mut rng, now);
            let found = all(&reader, &query);
            check_order(&found, &query, reader.query(&query).after.is_none());
            let events: Vec<Event> = found.iter().filter_map(event_of).collect();
            let mut expected_events = written.events_for(&query);
            let key = |event: &Event| (event.at, event.detail.clone());
            assert_eq!(events.len(), expected_events.len(), "{query:?}");
            let mut events = events;
            events.sort_by_key(key);
            expected_events.sort_by_key(key);
            assert_eq!(events, expected_events);
            let facts = found.iter().filter(|entry| matches!(entry.content, Content::Fact(_)));
            let facts: Vec<Fact> = facts.map(fact_of).collect();
            assert_eq!(sorted(facts), sorted(written.facts_for(&query)), "{query:?}");
            answered += found.len();
        }
    }
    assert!(answered > 10_000 && segments > 3, "{answered} found, in {segments} segments");
    assert_eq!(sorted(all_facts(&reader)), sorted(written.facts.clone()));
    check(dir.path(), &writer);
    let mut lines = Vec::new();
    let exported = reader.export(&Query::default(), &mut lines).expect("memory takes it");
    let all_entries = (written.facts.len() + written.events.len()) as u64;
    assert_eq!((exported.entries, exported.unreadable), (all_entries, Vec::new()));
    assert_eq!(lines.iter().filter(|byte| **byte == b'\n').count() as u64, all_entries);
}

#[test]
fn while_the_oldest_go_questions_are_answered_of_what_is_left() {
    let mut rng = rng();
    let dir = tempfile::tempdir().expect("a temporary directory");
    let retention = sextant_audit::Retention { bytes_max: Some(768 << 10), age_max: None };
    let options = sextant_audit::Options { retention, ..small() };
    let (mut writer, mut reader, _) = open(dir.path(), &options);
    let (mut written, mut now) = (0, 1_000_000);
    for round in 0..40 {
        for _ in 0..20 {
            now += 100;
            let facts: Vec<Fact> = (0..500).map(|_| any_fact(&mut rng, now)).collect();
            writer.facts(&facts).expect("retention makes room");
            writer.tick(now).expect("nothing fails");
            written += facts.len();
        }
        writer.flush().expect("nothing fails");
        if round % 8 == 7 {
            drop(writer);
            (writer, reader, _) = open(dir.path(), &options);
        }
        let left = Written { facts: all_facts(&reader), events: Vec::new() };
        for _ in 0..10 {
            let query = any_query(&mut rng, now);
            let found: Vec<Fact> = all(&reader, &query).iter().map(fact_of).collect();
            assert_eq!(sorted(found), sorted(left.facts_for(&query)), "{query:?}");
        }
        assert!(left.facts.len() >= written.min(40_000), "{} of {written}", left.facts.len());
        check(dir.path(), &writer);
    }
    assert!(all_facts(&reader).len() < written / 2, "the oldest went");
}

#[test]
fn a_clock_that_is_set_back_lets_nothing_wait_for_it() {
    let mut rng = rng();
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (mut writer, ..) = open(dir.path(), &small());
    writer.facts(&[any_fact(&mut rng, 1000)]).expect("there is room");
    for (now, gathering) in [(1_000_000, 1), (5000, 1), (5099, 1), (5100, 0)] {
        writer.tick(now).expect("nothing fails");
        assert_eq!(writer.gathering(), gathering, "at {now}");
    }
}

#[test]
fn a_broadcast_is_found_by_message_and_by_device_through_few_blocks() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let options = sextant_audit::Options { batch_facts: 60_000, ..small() };
    let (mut writer, reader, _) = open(dir.path(), &options);
    for message in 1..=30 {
        writer.facts(&broadcast(message, 10_000, 1000 * message)).expect("there is room");
    }
    writer.flush().expect("nothing fails");
    let life = Query { message: Some(17), device: Some(777), ..Query::default() };
    let page = reader.query(&life);
    assert_eq!((page.entries.len(), page.after), (3, None));
    assert!(page.records_read <= 2, "{}", page.records_read);
    let device = Query { device: Some(777), ..Query::default() };
    let page = reader.query(&device);
    assert_eq!(page.entries.len(), 90);
    assert!(page.records_read <= 60, "{}", page.records_read);
    let app = Query { app: Some(2), ..Query::default() };
    let page = reader.query(&app);
    assert_eq!((page.entries.len(), page.records_read), (0, 0));
}

#[test]
fn facts_wait_for_their_batch_and_an_event_for_none() {
    let mut rng = rng();
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (mut writer, reader, _) = open(dir.path(), &small());
    let fact = any_fact(&mut rng, 1000);
    writer.facts(&[fact]).expect("there is room");
    writer.tick(5000).expect("nothing fails");
    let event = any_event(&mut rng, 1000);
    assert_eq!(writer.event(&event), Ok(1));
    writer.tick(5099).expect("nothing fails");
    assert_eq!(writer.gathering(), 1);
    let found = all(&reader, &Query::default());
    assert_eq!(found.iter().map(event_of).collect::<Vec<_>>(), [Some(event)]);
    writer.tick(5100).expect("nothing fails");
    assert_eq!((writer.gathering(), writer.head().seq), (0, 2));
    assert_eq!(all_facts(&reader), [fact]);
    // Those that come fill the batch: what was there goes.
    writer.facts(&vec![fact; 499]).expect("there is room");
    writer.facts(&[fact; 2]).expect("there is room");
    assert_eq!((writer.gathering(), writer.head().seq), (2, 3));
    let many = writer.facts(&vec![fact; 501]);
    assert_eq!(many, Err(sextant_audit::WriteError::TooMany));
    let mut event = any_event(&mut rng, 1000);
    event.detail = b"[]"[..].into();
    assert!(writer.event(&event).is_err());
    assert_eq!(writer.close().expect("nothing fails").seq, 4);
}

#[test]
fn a_page_does_bounded_work_and_says_where_to_go_on() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (mut writer, reader, _) = open(dir.path(), &small());
    let mut rng = rng();
    let facts = 3000;
    for n in 0..facts {
        let fact = Fact { message: 5, device: n % 2, ..any_fact(&mut rng, 1000) };
        writer.facts(&[fact]).expect("there is room");
        writer.tick(u64::from(n) * 200).expect("nothing fails");
        writer.tick(u64::from(n) * 200 + 100).expect("nothing fails");
    }
    // Each of the pair of blocks around holds what is asked for, and none holds both.
    for newest_first in [false, true] {
        let stages = Stages::NONE.with(Stage::Dropped);
        let query =
            Query { message: Some(5), from: 5000, stages, newest_first, ..Query::default() };
        assert!(all(&reader, &query).is_empty());
        let query = Query { message: Some(5), limit: 10_000, newest_first, ..Query::default() };
        let page = reader.query(&query);
        assert_eq!(page.entries.len(), Page::RECORDS_MAX as usize);
        assert!(page.after.is_some());
        assert_eq!(all(&reader, &query).len(), facts as usize);
    }
}

#[test]
fn of_many_segments_a_page_asks_a_bounded_number_of_indexes() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (mut writer, reader, _) = open(dir.path(), &small());
    let mut rng = rng();
    let blocks = 1600;
    for block in 0..blocks {
        let facts: Vec<Fact> =
            (0..500).map(|_| Fact { message: rng.u64(2..), ..any_fact(&mut rng, 1000) }).collect();
        writer.facts(&facts[1..]).expect("there is room");
        if block % 400 == 7 {
            writer.facts(&[Fact { message: 1, ..facts[0] }]).expect("there is room");
        }
    }
    writer.flush().expect("nothing fails");
    let message = Query { message: Some(1), ..Query::default() };
    for newest_first in [false, true] {
        let mut query = Query { newest_first, ..message.clone() };
        let (mut found, mut pages) = (0, 0);
        loop {
            let page = reader.query(&query);
            assert!(page.indexes_read <= Page::INDEXES_MAX);
            assert_eq!(page.unreadable, []);
            (found, pages) = (found + page.entries.len(), pages + 1);
            query.after = page.after;
            if query.after.is_none() {
                break;
            }
            assert_eq!(page.indexes_read, Page::INDEXES_MAX);
        }
        assert_eq!(found, 4, "in {pages} pages");
        assert!(pages > 1);
    }
}
