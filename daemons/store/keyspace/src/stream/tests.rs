use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::node::{NodeLimits, PackedFields};
use super::*;
use crate::effect::{Effect, Effects, Journal};
use crate::keyspace::{Keyspace, Type};

type Plain = Vec<(Vec<u8>, Vec<u8>)>;

fn list(fields: &[(&[u8], &[u8])]) -> FieldList {
    let mut list = FieldList::new();
    fields.iter().for_each(|(name, value)| list.push(name, value));
    list
}

fn plain(entry: Entry<'_>) -> Plain {
    entry.fields().map(|(name, value)| (name.to_vec(), value.to_vec())).collect()
}

fn some_fields(random: &mut fastrand::Rng) -> Plain {
    let names: [&[u8]; 4] = [b"a", b"", b"temperature", b"\0"];
    let usual: &[usize] = if random.u8(0..4) > 0 { &[2, 0] } else { &[1, 1, 3] };
    let size = if random.u8(0..30) == 0 { 5000 } else { 12 };
    let value = |random: &mut fastrand::Rng| vec![random.u8(..); random.usize(0..size)];
    usual.iter().map(|name| (names[*name].to_vec(), value(random))).collect()
}

fn pack(plain: &Plain) -> FieldList {
    let mut list = FieldList::new();
    plain.iter().for_each(|(name, value)| list.push(name, value));
    list
}

/// What the account of memory must come to.
fn check_account(stream: &Stream) {
    let node_bytes: usize = stream.nodes.values().map(Node::bytes).sum();
    assert_eq!(stream.node_bytes, node_bytes as u64);
    let of =
        |(name, group): (&[u8], &Group)| group.memory_bytes() + GROUP_BYTES + name.len() as u64;
    assert_eq!(stream.group_bytes, stream.groups().map(of).sum::<u64>());
    assert_eq!(stream.len, stream.nodes.values().map(|node| node.len() as u64).sum::<u64>());
    assert!(stream.nodes.values().all(|node| node.len() > 0), "no node is empty");
}

#[test]
fn a_stream_holds_what_was_put_in_wherever_it_was_put() {
    for seed in 0..60 {
        let mut random = fastrand::Rng::with_seed(seed);
        let limits = NodeLimits { bytes: random.usize(40..600), entries: random.usize(1..20) };
        let (mut stream, mut oracle) = (Stream::default(), BTreeMap::<StreamId, Plain>::new());
        let near = |random: &mut fastrand::Rng| StreamId::new(random.u64(0..40), random.u64(1..6));
        for _ in 0..600 {
            let id = near(&mut random);
            match random.u8(0..20) {
                0..12 => {
                    let fields = some_fields(&mut random);
                    stream.insert(id, pack(&fields).packed(), limits);
                    oracle.insert(id, fields);
                }
                12..17 => assert_eq!(stream.remove(id), oracle.remove(&id).is_some()),
                17 => {
                    let id = StreamId::new(id.ms / 4, id.seq);
                    stream.remove_up_to(id);
                    oracle.retain(|other, _| *other > id);
                }
                _ => {
                    let trim =
                        Trim { keep: Keep::Newest(random.u64(20..90)), about: false, limit: 0 };
                    let before = oracle.len();
                    let trimmed = stream.trim(trim);
                    let Keep::Newest(count) = trim.keep else { unreachable!() };
                    while oracle.len() as u64 > count {
                        let (id, _) = oracle.pop_first().expect("there is one");
                        assert!(trimmed.is_some_and(|(_, last)| last >= id), "seed {seed}");
                    }
                    assert_eq!(
                        trimmed.map_or(0, |(count, _)| count),
                        (before - oracle.len()) as u64
                    );
                }
            }
            let (from, to) = (near(&mut random), near(&mut random));
            let there: Vec<_> = stream.range(from, to).map(|e| (e.id, plain(e))).collect();
            let within = oracle.range(from..=to.max(from)).filter(|(id, _)| **id <= to);
            let right: Vec<_> = within.map(|(id, fields)| (*id, fields.clone())).collect();
            assert_eq!(there, right, "seed {seed}, {from} to {to}");
            let mut back: Vec<_> = stream.range_back(from, to).map(|e| (e.id, plain(e))).collect();
            back.reverse();
            assert_eq!(back, right, "seed {seed}, {from} to {to}, downwards");
            assert_eq!(stream.first_id(), oracle.keys().next().copied(), "seed {seed}");
            assert_eq!(stream.top_id(), oracle.keys().next_back().copied(), "seed {seed}");
            check_account(&stream);
        }
    }
}

#[test]
fn trimming_about_removes_whole_nodes_and_no_more_than_its_limit() {
    let limits = NodeLimits { bytes: 4096, entries: 10 };
    let fields = list(&[(b"f", b"v")]);
    let full = || {
        let mut stream = Stream::default();
        (1..=100).for_each(|ms| stream.insert(StreamId::new(ms, 0), fields.packed(), limits));
        stream
    };
    let cases = [
        (Keep::Newest(15), true, 0, 80),
        (Keep::Newest(15), true, 35, 30),
        (Keep::Newest(15), false, 0, 85),
        (Keep::Newest(0), true, 0, 100),
        (Keep::From(StreamId::new(16, 0)), true, 0, 10),
        (Keep::From(StreamId::new(16, 0)), false, 0, 15),
        (Keep::From(StreamId::MIN), false, 0, 0),
        (Keep::From(StreamId::MAX), false, 0, 100),
    ];
    for (keep, about, limit, gone) in cases {
        let mut stream = full();
        let trimmed = stream.trim(Trim { keep, about, limit });
        assert_eq!(trimmed.map_or(0, |(count, _)| count), gone, "{keep:?} {about} {limit}");
        assert_eq!(stream.len(), 100 - gone);
        check_account(&stream);
    }
}

#[test]
fn a_stream_is_freed_in_slices() {
    let mut keys = Keyspace::new(1, 1, Journal::off());
    let fields = list(&[(b"f", b"v")]);
    for ms in 1..=5000 {
        keys.stream_add(0, b"k", StreamId::new(ms, 0), &fields).expect("there is memory");
    }
    keys.group_set(0, b"k", b"g", StreamId::MIN, None).expect("a stream");
    keys.deliver(0, b"k", b"g", b"c", usize::MAX, true).expect("a stream");
    assert!(keys.group_destroy(0, b"k", b"g").expect("a stream"));
    assert!(keys.shed(1000) && keys.shed(1000) && keys.delete(0, b"k"));
    let mut slices = 0;
    while keys.shed(100) {
        slices += 1;
        assert!(slices < 200, "it ends");
    }
    assert!(slices > 50, "{slices} slices");
    assert_eq!(keys.payload_bytes(), 0);
}

/// Everything that can be seen of a stream.
fn seen_of(stream: &Stream) -> String {
    let entries: Vec<_> =
        stream.range(StreamId::MIN, StreamId::MAX).map(|e| (e.id, plain(e))).collect();
    let groups: Vec<_> = stream
        .groups()
        .map(|(name, group)| {
            let pending: Vec<_> = group
                .pending(StreamId::MIN, StreamId::MAX)
                .map(|(id, p)| (id, p.delivered, p.count, group.holder(p).name().to_vec()))
                .collect();
            let consumers: Vec<_> = group
                .consumers()
                .map(|c| {
                    let pending: Vec<_> = c.pending(StreamId::MIN, StreamId::MAX).collect();
                    (c.name().to_vec(), c.active(), pending)
                })
                .collect();
            (name.to_vec(), group.last_id(), group.entries_read(), pending, consumers)
        })
        .collect();
    let state = (stream.last_id(), stream.max_deleted(), stream.added(), stream.len());
    format!("{state:?} {entries:?} {groups:?}")
}

fn dump(keys: &mut Keyspace) -> BTreeMap<Vec<u8>, (Option<u64>, String)> {
    let mut names = Vec::new();
    keys.scan_keys(0, crate::Cursor(0), usize::MAX, |key| names.push(key.to_vec()));
    let mut dump = BTreeMap::new();
    for key in names {
        let found = keys.find(0, &key).expect("it was met");
        let is = match keys.type_of(found) {
            Type::Stream => {
                let stream = keys.stream_at(found).expect("a stream");
                check_account(stream);
                seen_of(stream)
            }
            _ => format!("{:?}", keys.text(found).map(|text| text.bytes().into_owned())),
        };
        dump.insert(key, (keys.expires_at(found), is));
    }
    dump
}

/// Does something by chance to a stream, or to its key.
fn play(keys: &mut Keyspace, random: &mut fastrand::Rng) {
    let key: &[u8] = random.choice([&b"k"[..], b"l"]).expect("one of two");
    let group: &[u8] = random.choice([&b"g"[..], b"", b"h\0"]).expect("one of three");
    let consumer: &[u8] = random.choice([&b"c"[..], b"", b"bob"]).expect("one of three");
    let Ok(stream) = keys.stream(0, key) else {
        keys.delete(0, key);
        return;
    };
    let (last, top, added, len, deleted) = stream.map_or_else(Default::default, |stream| {
        let top = stream.top_id().unwrap_or_default();
        (stream.last_id(), top, stream.added(), stream.len(), stream.max_deleted())
    });
    let some =
        |random: &mut fastrand::Rng| StreamId::new(random.u64(0..=last.ms + 1), random.u64(0..3));
    keys.set_now(keys.now() + random.u64(0..3));
    match random.u8(0..60) {
        0..20 => {
            let step = StreamId::new(last.ms + random.u64(1..3), random.u64(0..3));
            let id = random.choice([last.next().expect("small"), step]).expect("one of two");
            let fields = pack(&some_fields(random));
            keys.stream_add(0, key, id, &fields).expect("a stream");
        }
        20..24 => {
            let ids = [some(random), last];
            keys.stream_delete(0, key, &ids[..random.usize(1..3)]).expect("a stream");
        }
        24..26 => {
            let (count, id) = (random.u64(0..15), some(random));
            let keep = if random.bool() { Keep::Newest(count) } else { Keep::From(id) };
            let trim = Trim { keep, about: random.bool(), limit: 0 };
            keys.stream_trim(0, key, trim).expect("a stream");
        }
        26..28 => {
            let id = top.max(some(random));
            let (added, deleted) = (len + random.u64(0..=added - len), deleted.min(id));
            keys.stream_set_state(0, key, id, added, deleted).expect("a stream");
        }
        28..32 => {
            let read = random.bool().then(|| random.u64(0..9));
            let id = some(random);
            keys.group_set(0, key, group, id, read).expect("a stream");
        }
        32 => drop(keys.group_destroy(0, key, group).expect("a stream")),
        33..35 => drop(keys.consumer_ensure(0, key, group, consumer).expect("a stream")),
        35 => drop(keys.consumer_delete(0, key, group, consumer).expect("a stream")),
        36..43 => {
            let (count, keep) = (random.usize(0..5), random.u8(0..5) > 0);
            keys.deliver(0, key, group, consumer, count, keep).expect("a stream");
        }
        43..46 => {
            let above = some(random);
            keys.deliver_again(0, key, group, consumer, above, 3).expect("a stream");
        }
        46..49 => {
            let claimed = [(some(random), random.u64(0..50), random.u64(0..5))];
            keys.claim(0, key, group, consumer, &claimed).expect("a stream");
        }
        49..55 => {
            let ids = [some(random), some(random), some(random)];
            keys.acknowledge(0, key, group, &ids).expect("a stream");
        }
        55 => drop(keys.delete(0, key)),
        56 => keys.set(0, key, b"text", None).expect("there is memory"),
        57 => {
            if let Some(found) = keys.find(0, b"l") {
                keys.rename(found, 0, b"k").map(drop).unwrap_or_default();
            }
        }
        58 => {
            if let Some(found) = keys.find(0, key) {
                keys.set_expire(found, Some(1 << 40)).expect("there is memory");
            }
        }
        _ => drop(keys.shed(1000)),
    }
}

#[test]
fn what_is_left_of_the_log_tells_of_all_streams_whatever_was_removed_of_it() {
    for seed in 0..300 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut keys = Keyspace::new(seed, 1, Journal::default());
        keys.encoding.stream_node_bytes_max = random.usize(30..300);
        keys.encoding.stream_node_entries_max = random.usize(1..12);
        let mut segments = vec![Vec::new()];
        for step in 0..400 {
            play(&mut keys, &mut random);
            let current: &mut Vec<u8> = segments.last_mut().expect("there is one");
            current.extend_from_slice(keys.journal().bytes());
            keys.journal().clear();
            if step % 25 == 24 {
                segments.push(Vec::new());
            }
            if segments.len() > 2 && random.u8(0..20) == 0 {
                let oldest = segments.remove(0);
                let (once, mut subjects) = (random.bool(), BTreeSet::new());
                for effect in Effects::new(&oldest) {
                    let (effect, mut subject) = (effect.expect("an effect"), Vec::new());
                    Keyspace::subject(effect, &mut subject);
                    if (!once || !subjects.contains(&subject)) && keys.relocate(effect) {
                        subjects.insert(subject);
                    }
                }
                let current = segments.last_mut().expect("there is one");
                current.extend_from_slice(keys.journal().bytes());
                keys.journal().clear();
            }
        }
        let mut again = Keyspace::new(seed + 1, 1, Journal::default());
        again.encoding = keys.encoding;
        again.begin_replay();
        segments.iter().for_each(|segment| again.apply(segment).expect("effects"));
        again.end_replay();
        again.set_now(keys.now());
        assert_eq!(dump(&mut again), dump(&mut keys), "seed {seed}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_a_log_says_of_streams_is_applied_or_refused(
        effects in prop::collection::vec(
            (0u32..3, 0u8..12, prop::collection::vec(0u8..3, 0..40),
             prop::collection::vec(0u8..3, 0..40)),
            0..60,
        ),
    ) {
        let mut keys = Keyspace::new(1, 1, Journal::default());
        keys.begin_replay();
        for (object, item, name, value) in &effects {
            let mut journal = Journal::default();
            let (object, item) = (*object, *item);
            journal.note(Effect::Stream { object, item, name, value });
            let _refused = keys.apply(journal.bytes());
        }
        keys.end_replay();
        for (object, item, name, value) in &effects {
            let (object, item) = (*object, *item);
            keys.relocate(Effect::Stream { object, item, name, value });
        }
        while keys.shed(10) {}
        prop_assert!(PackedFields::check(b"").is_none());
    }
}

/// What an entry costs beside its bytes, and how long adding, finding and reading take.
#[test]
#[ignore = "a measurement"]
fn measure_entries() {
    const ENTRIES: u64 = 1_000_000;
    let shapes: [&[(&[u8], &[u8])]; 3] = [
        &[(b"f", b"v")],
        &[(b"sensor", b"17"), (b"temperature", b"21.5")],
        &[(b"payload", &[b'x'; 100])],
    ];
    for fields in shapes {
        let fields = list(fields);
        let mut keys = Keyspace::new(1, 1, Journal::default());
        let begin = std::time::Instant::now();
        for n in 0..ENTRIES {
            let id = StreamId::new(1_700_000_000_000 + n * 7, 0);
            keys.stream_add(0, b"k", id, &fields).expect("there is memory");
            if n % 64 == 0 {
                keys.journal().clear();
            }
        }
        let added = begin.elapsed().as_nanos() as u64 / ENTRIES;
        let bytes = keys.payload_bytes() as f64 / ENTRIES as f64;
        let stream = keys.stream(0, b"k").expect("a stream").expect("it is there");
        let begin = std::time::Instant::now();
        let all = stream.range(StreamId::MIN, StreamId::MAX);
        let read: usize = all.map(|entry| entry.fields().len()).sum();
        let walked = begin.elapsed().as_nanos() as u64 / ENTRIES;
        let begin = std::time::Instant::now();
        for n in 0..ENTRIES / 10 {
            let n = n.wrapping_mul(2_654_435_761) % ENTRIES;
            assert!(stream.has(StreamId::new(1_700_000_000_000 + n * 7, 0)));
        }
        let found = begin.elapsed().as_nanos() as u64 / (ENTRIES / 10);
        println!(
            "{bytes:.1} B an entry; add {added} ns, walk {walked} ns, find {found} ns; {read}"
        );
    }
}
