//! What the tests share: small limits, random facts, and a look at everything.

use std::path::Path;

use fastrand::Rng;
use sextant_audit::{
    Content, Entry, Event, EventKind, Fact, Opened, Options, Query, Reader, Retention, Stage,
    Writer, verify,
};

/// Segments of 128 KiB, batches of 500.
pub(crate) fn small() -> Options {
    Options {
        batch_facts: 500,
        batch_ms: 100,
        segment_bytes_min: 128 << 10,
        segment_bytes_max: 128 << 10,
        bytes_max: 1 << 30,
        indexes_kept: 2,
        retention: Retention::default(),
    }
}

pub(crate) fn open(dir: &Path, options: &Options) -> (Writer, Reader, Opened) {
    Writer::open(dir, options.clone()).expect("it opens")
}

/// A generator whose seed is told.
pub(crate) fn rng() -> Rng {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    Rng::with_seed(seed)
}

/// One of few messages, devices and apps, so that questions meet answers; now and then one of many.
pub(crate) fn any_fact(rng: &mut Rng, now: u64) -> Fact {
    let rare = rng.u8(..10) == 0;
    Fact {
        message: if rare { rng.u64(..) } else { rng.u64(1..40) },
        at: now + rng.u64(..50),
        device: if rare { rng.u32(..) } else { rng.u32(..200) },
        app: if rare { rng.u16(..) } else { rng.u16(..4) },
        stage: Stage::ALL[rng.usize(..Stage::ALL.len())],
        reason: if rng.bool() { 0 } else { rng.u8(..) },
    }
}

pub(crate) fn any_event(rng: &mut Rng, now: u64) -> Event {
    let detail = format!("{{\"n\":{}}}", rng.u32(..)).into_bytes().into();
    Event {
        message: rng.u64(..40),
        at: now + rng.u64(..50),
        app: rng.u16(..4),
        kind: EventKind(rng.u8(..)),
        actor: "somebody".into(),
        detail,
    }
}

/// The message that is sent to so many devices at a time: a fact for each stage and device.
pub(crate) fn broadcast(message: u64, devices: u32, at: u64) -> Vec<Fact> {
    let stages = [Stage::Queued, Stage::Sent, Stage::Acknowledged];
    let facts = (0..devices).flat_map(|device| {
        stages.map(|stage| Fact { message, at, device, app: 1, stage, reason: 0 })
    });
    facts.collect()
}

/// All that a question asks for, page by page.
pub(crate) fn all(reader: &Reader, query: &Query) -> Vec<Entry> {
    let mut query = query.clone();
    let mut entries = Vec::new();
    loop {
        let page = reader.query(&query);
        assert_eq!(page.unreadable, [], "nothing is damaged");
        assert!(page.entries.len() <= query.limit.max(1));
        entries.extend(page.entries);
        query.after = page.after;
        if query.after.is_none() {
            return entries;
        }
    }
}

pub(crate) fn all_facts(reader: &Reader) -> Vec<Fact> {
    let mut facts = Vec::new();
    let scanned = reader.scan_facts(0, |_, fact| facts.push(*fact));
    assert_eq!((scanned.unreadable, scanned.facts), (Vec::new(), facts.len() as u64));
    facts
}

/// In an order that does not depend on how they were written.
pub(crate) fn sorted(mut facts: Vec<Fact>) -> Vec<Fact> {
    facts.sort_by_key(|fact| {
        let Fact { message, at, device, app, stage, reason } = *fact;
        (message, device, at, app, stage, reason)
    });
    facts
}

pub(crate) fn fact_of(entry: &Entry) -> Fact {
    *entry.fact().expect("no event is asked for")
}

pub(crate) fn event_of(entry: &Entry) -> Option<Event> {
    match &entry.content {
        Content::Event(event) => Some(event.clone()),
        Content::Fact(_) => None,
    }
}

/// Checks that nothing is wrong with an audit, and that it ends with its writer's head.
pub(crate) fn check(dir: &Path, writer: &Writer) {
    let report = verify(dir, Some(writer.head()), |_| ()).expect("it can be listed");
    assert!(report.is_whole(), "{:?}", report.damage);
    assert_eq!((report.head, report.torn), (writer.head(), None));
}
