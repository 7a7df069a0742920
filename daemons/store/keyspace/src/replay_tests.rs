//! Whatever is done to databases, and whenever the oldest part of their log goes, what is left of
//! the log makes the same databases again.
//!
//! A play is random operations on a [`Keyspace`] whose journal is cut into segments. Now and then
//! the oldest segment goes, as it does in a store: each of its effects is offered to
//! [`Keyspace::relocate`]. A type of values adds its operations to [`OPERATIONS`] and what it looks
//! like to [`content`].

use std::collections::{BTreeMap, HashSet, VecDeque};

use crate::collection::Encoding;
use crate::effect::{Effects, Journal, Side};
use crate::index::Cursor;
use crate::keyspace::{Found, Keyspace, Type};
use crate::stream;

pub(crate) const DATABASES: usize = 2;

type Random = fastrand::Rng;
type Operation = fn(&mut Keyspace, &mut Random);

/// What is done, each about as often.
const OPERATIONS: &[Operation] = &[
    set_string,
    append_string,
    delete,
    expire,
    persist,
    rename,
    pass_time,
    swap_or_flush,
    set_fields,
    set_fields,
    set_fields,
    delete_fields,
    delete_fields,
    add_members,
    add_members,
    add_members,
    remove_members,
    remove_members,
    pop_members,
    store_members,
    score_members,
    score_members,
    score_members,
    unscore_members,
    unscore_range,
    store_scores,
    push_elements,
    push_elements,
    push_elements,
    pop_elements,
    pop_elements,
    set_element,
    insert_element,
    remove_elements,
    trim_elements,
    change_stream,
    change_stream,
    change_stream,
    change_stream,
    change_stream,
    change_stream,
];

fn change_stream(keys: &mut Keyspace, random: &mut Random) {
    // Streams have keys of their own mostly: a stream that is about to begin is not worth much.
    let key = if random.u8(..4) == 0 { key(random) } else { vec![b'f' + random.u8(..2)] };
    for _ in 0..random.usize(1..6) {
        let db = db(random);
        stream::tests::play(keys, random, db, &key);
    }
}

fn db(random: &mut Random) -> usize {
    // Mostly the first one, so that much happens to the same keys.
    usize::from(random.u8(..8) == 0)
}

fn key(random: &mut Random) -> Vec<u8> {
    vec![b'a' + random.u8(..6)]
}

fn word(random: &mut Random) -> Vec<u8> {
    match random.u8(..8) {
        0 => Vec::new(),
        1..5 => random.i16(-20..20).to_string().into_bytes(),
        5 => vec![random.u8(..2); random.usize(..20)],
        _ => vec![b'm', random.u8(..30)],
    }
}

fn words(random: &mut Random) -> Vec<Vec<u8>> {
    let most = if random.u8(..10) == 0 { 40 } else { 4 };
    (0..random.usize(1..most)).map(|_| word(random)).collect()
}

fn set_string(keys: &mut Keyspace, random: &mut Random) {
    let value = word(random);
    let expire = random.bool().then(|| keys.now() + random.u64(1..500));
    keys.set(db(random), &key(random), &value, expire).expect("there is memory");
}

fn append_string(keys: &mut Keyspace, random: &mut Random) {
    let bytes = vec![random.u8(..); random.usize(1..1500)];
    // Another type refuses.
    let _ = keys.append(db(random), &key(random), &bytes);
}

fn delete(keys: &mut Keyspace, random: &mut Random) {
    keys.delete(db(random), &key(random));
}

fn expire(keys: &mut Keyspace, random: &mut Random) {
    let expire = keys.now() + random.u64(1..2000);
    if let Some(found) = keys.find(db(random), &key(random)) {
        keys.set_expire(found, Some(expire)).expect("there is memory");
    }
}

fn persist(keys: &mut Keyspace, random: &mut Random) {
    if let Some(found) = keys.find(db(random), &key(random)) {
        keys.set_expire(found, None).expect("there is memory");
    }
}

fn rename(keys: &mut Keyspace, random: &mut Random) {
    let (from, to) = ((db(random), key(random)), (db(random), key(random)));
    if let Some(found) = keys.find(from.0, &from.1).filter(|_| from != to) {
        keys.rename(found, to.0, &to.1).expect("there is memory");
    }
}

fn pass_time(keys: &mut Keyspace, random: &mut Random) {
    keys.set_now(keys.now() + random.u64(..100));
    if random.bool() {
        keys.expire_due(2);
    }
}

fn swap_or_flush(keys: &mut Keyspace, random: &mut Random) {
    match random.u8(..20) {
        0 => keys.flush(db(random)),
        1..4 => keys.swap(0, 1),
        _ => drop(keys.shed(5)),
    }
}

fn set_fields(keys: &mut Keyspace, random: &mut Random) {
    let (fields, value) = (words(random), word(random));
    let pairs = fields.iter().map(|field| (field.as_slice(), value.as_slice()));
    let _ = keys.hash_set(db(random), &key(random), pairs);
}

fn delete_fields(keys: &mut Keyspace, random: &mut Random) {
    let fields = words(random);
    let _ = keys.hash_delete(db(random), &key(random), fields.iter().map(Vec::as_slice));
}

fn add_members(keys: &mut Keyspace, random: &mut Random) {
    let members = words(random);
    let _ = keys.set_add(db(random), &key(random), members.iter().map(Vec::as_slice));
}

fn remove_members(keys: &mut Keyspace, random: &mut Random) {
    let members = words(random);
    let _ = keys.set_remove(db(random), &key(random), members.iter().map(Vec::as_slice));
}

fn pop_members(keys: &mut Keyspace, random: &mut Random) {
    let _ = keys.set_pop(db(random), &key(random), random.usize(..6));
}

fn store_members(keys: &mut Keyspace, random: &mut Random) {
    let members: HashSet<Vec<u8>> = words(random).into_iter().skip(1).collect();
    let members: Vec<Vec<u8>> = members.into_iter().collect();
    keys.set_store(db(random), &key(random), &members).expect("there is memory");
}

fn score(random: &mut Random) -> f64 {
    match random.u8(..8) {
        0 => f64::NEG_INFINITY,
        1 => -0.0,
        2 => f64::from(random.i32(..)) / 16.0,
        _ => f64::from(random.i8(-3..4)),
    }
}

fn score_members(keys: &mut Keyspace, random: &mut Random) {
    let (db, key) = (db(random), key(random));
    for member in words(random) {
        let score = score(random);
        let _ = keys.zset_put(db, &key, &member, |_| Some(score));
    }
}

fn unscore_members(keys: &mut Keyspace, random: &mut Random) {
    let members = words(random);
    let _ = keys.zset_remove(db(random), &key(random), members.iter().map(Vec::as_slice));
}

fn unscore_range(keys: &mut Keyspace, random: &mut Random) {
    let from = random.u64(..4);
    let _ = keys.zset_remove_range(db(random), &key(random), from..from + random.u64(..4));
}

fn store_scores(keys: &mut Keyspace, random: &mut Random) {
    let members: HashSet<Vec<u8>> = words(random).into_iter().skip(1).collect();
    let mut members: Vec<_> = members.into_iter().map(|member| (member, score(random))).collect();
    keys.zset_store(db(random), &key(random), &mut members).expect("there is memory");
}

fn side(random: &mut Random) -> Side {
    if random.bool() { Side::Left } else { Side::Right }
}

fn push_elements(keys: &mut Keyspace, random: &mut Random) {
    let elements = words(random);
    let (db, key, side) = (db(random), key(random), side(random));
    let _ = keys.list_push(db, &key, side, elements.iter().map(Vec::as_slice));
}

fn pop_elements(keys: &mut Keyspace, random: &mut Random) {
    let (side, count) = (side(random), random.u64(..6));
    let _ = keys.list_pop(db(random), &key(random), side, count, |_| ());
}

/// A list that is there, and its length.
fn some_list(keys: &mut Keyspace, random: &mut Random) -> Option<(usize, Vec<u8>, u64)> {
    let (db, key) = (db(random), key(random));
    let len = keys.list(db, &key).ok()??.len();
    Some((db, key, len))
}

fn set_element(keys: &mut Keyspace, random: &mut Random) {
    let Some((db, key, len)) = some_list(keys, random) else { return };
    keys.list_set(db, &key, random.u64(..len), &word(random)).expect("there is memory");
}

fn insert_element(keys: &mut Keyspace, random: &mut Random) {
    let Some((db, key, len)) = some_list(keys, random) else { return };
    for _ in 0..random.u8(1..4) {
        keys.list_insert(db, &key, random.u64(..=len), &word(random)).expect("there is memory");
    }
}

fn remove_elements(keys: &mut Keyspace, random: &mut Random) {
    let (side, element) = (side(random), word(random));
    let _ = keys.list_remove(db(random), &key(random), side, &element, random.u64(..4));
}

fn trim_elements(keys: &mut Keyspace, random: &mut Random) {
    let Some((db, key, len)) = some_list(keys, random) else { return };
    let from = random.u64(..len.min(3));
    keys.list_trim(db, &key, from..len - random.u64(..len.min(3))).expect("there is memory");
}

/// A value as a client could see it, however it is kept.
fn content(keys: &Keyspace, found: Found) -> Vec<Vec<u8>> {
    const RIGHT: &str = "the type was asked for";
    match keys.type_of(found) {
        Type::String => vec![keys.text(found).expect(RIGHT).bytes().into_owned()],
        Type::Hash => {
            let fields = keys.fields(found).expect(RIGHT).iter();
            let fields: BTreeMap<_, _> = fields
                .map(|(field, value)| {
                    let own = |word: crate::packed::Word<'_>| word.as_bytes(&mut [0; 20]).to_vec();
                    (own(field), own(value))
                })
                .collect();
            fields.into_iter().flat_map(|(field, value)| [field, value]).collect()
        }
        Type::Set => {
            let members = keys.members(found).expect(RIGHT).iter();
            let mut members: Vec<_> =
                members.map(|member| member.as_bytes(&mut [0; 20]).to_vec()).collect();
            members.sort();
            members
        }
        Type::Zset => {
            let (scores, mut content) = (keys.scores(found).expect(RIGHT), Vec::new());
            scores.each_in(0..scores.len(), false, |member, score| {
                content.push(member.as_bytes(&mut [0; 20]).to_vec());
                content.push(score.to_string().into_bytes());
            });
            content
        }
        Type::List => {
            let elements = keys.elements(found).expect(RIGHT).iter_from(0);
            elements.map(|element| element.as_bytes(&mut [0; 20]).to_vec()).collect()
        }
        Type::Stream => {
            vec![stream::tests::seen_of(keys.stream_at(found).expect(RIGHT)).into_bytes()]
        }
    }
}

pub(crate) type Dump = BTreeMap<(usize, Vec<u8>), (Type, Vec<Vec<u8>>, Option<u64>)>;

pub(crate) fn dump(keys: &mut Keyspace) -> Dump {
    let mut dump = Dump::new();
    for db in 0..keys.databases() {
        let mut names = Vec::new();
        keys.scan_keys(db, Cursor(0), usize::MAX, |key| names.push(key.to_vec()));
        for key in names {
            let found = keys.peek(db, &key).expect("it was met just now");
            let value = (keys.type_of(found), content(keys, found), keys.expires_at(found));
            dump.insert((db, key), value);
        }
    }
    dump
}

/// Says where they differ, without saying all that is alike.
fn compare(made: &Dump, right: &Dump, seed: u64) {
    for at in made.keys().chain(right.keys()) {
        let tell = |dump: &Dump| {
            dump.get(at).map(|(kind, content, expire)| {
                let words = content.iter().map(|word| word[..word.len().min(20)].escape_ascii());
                (*kind, words.map(|word| word.to_string()).collect::<Vec<_>>(), *expire)
            })
        };
        let same = made.get(at) == right.get(at);
        assert!(same, "seed {seed}, {at:?}: {:?}, and not {:?}", tell(made), tell(right));
    }
}

/// So small that most collections become large.
fn small() -> Encoding {
    Encoding {
        hash_entries_max: 6,
        hash_value_max: 10,
        set_ints_max: 8,
        set_entries_max: 6,
        set_value_max: 10,
        zset_entries_max: 6,
        zset_value_max: 10,
        list_max: 4,
        stream_node_bytes_max: 120,
        stream_node_entries_max: 5,
    }
}

/// A log in segments, the oldest first.
#[derive(Default)]
struct Log {
    segments: VecDeque<Vec<u8>>,
    current: Vec<u8>,
}

impl Log {
    fn take(&mut self, keys: &mut Keyspace) {
        self.current.extend_from_slice(keys.journal().bytes());
        keys.journal().clear();
    }

    fn cut(&mut self) {
        self.segments.push_back(std::mem::take(&mut self.current));
    }

    /// Gives the oldest segment up. What was noted again already is not, or is.
    fn relocate(&mut self, keys: &mut Keyspace, once: bool) {
        let Some(oldest) = self.segments.pop_front() else { return };
        let (mut subjects, mut subject) = (HashSet::new(), Vec::new());
        for effect in Effects::new(&oldest) {
            let effect = effect.expect("the journal wrote it");
            Keyspace::subject(effect, &mut subject);
            let told = once && !subject.is_empty() && subjects.contains(&subject);
            if !told && keys.relocate(effect) {
                subjects.insert(subject.clone());
            }
        }
        self.take(keys);
    }
}

/// Databases that random operations were done to.
pub(crate) fn played(seed: u64, operations: usize) -> Keyspace {
    let mut random = Random::with_seed(seed);
    let mut keys = Keyspace::new(seed, DATABASES, Journal::default());
    keys.set_now(1000);
    keys.encoding = if random.u8(..4) == 0 { Encoding::default() } else { small() };
    for _ in 0..operations {
        OPERATIONS[random.usize(..OPERATIONS.len())](&mut keys, &mut random);
    }
    keys.journal().clear();
    keys
}

fn play(seed: u64, operations: usize) {
    let mut random = Random::with_seed(seed);
    let mut keys = Keyspace::new(seed, DATABASES, Journal::default());
    keys.set_now(1000);
    keys.encoding = if random.u8(..4) == 0 { Encoding::default() } else { small() };
    let (mut log, once, cut) = (Log::default(), random.bool(), random.usize(1..30));
    for at in 0..operations {
        let operation = OPERATIONS[random.usize(..OPERATIONS.len())];
        operation(&mut keys, &mut random);
        log.take(&mut keys);
        if at % cut == 0 {
            log.cut();
        }
        if random.usize(..cut * 2) == 0 {
            log.relocate(&mut keys, once);
        }
    }
    while random.bool() {
        log.relocate(&mut keys, once);
    }
    log.cut();
    let mut again = Keyspace::new(!seed, DATABASES, Journal::default());
    again.begin_replay();
    for segment in &log.segments {
        again.apply(segment).expect("the journal wrote it");
    }
    again.end_replay();
    while again.shed(20) {}
    again.set_now(keys.now());
    compare(&dump(&mut again), &dump(&mut keys), seed);
    while keys.shed(20) {}
    let holds = |keys: &mut Keyspace| keys.payload_bytes() > 0;
    assert_eq!(holds(&mut again), holds(&mut keys), "seed {seed}");
}

#[test]
fn what_is_left_of_a_log_makes_the_same_databases() {
    let from = fastrand::u64(..u64::MAX / 2);
    (from..from + 400).for_each(|seed| play(seed, 400));
}

#[test]
fn no_bytes_of_a_log_make_a_panic() {
    let from = fastrand::u64(..u64::MAX / 2);
    for seed in from..from + 100 {
        let mut random = Random::with_seed(seed);
        let mut keys = Keyspace::new(seed, DATABASES, Journal::default());
        keys.encoding = small();
        for _ in 0..100 {
            OPERATIONS[random.usize(..OPERATIONS.len())](&mut keys, &mut random);
        }
        let mut log = keys.journal().bytes().to_vec();
        for _ in 0..random.usize(1..20) {
            // Numbers stay small, so that no table of objects grows beyond the test's memory.
            let at = random.usize(..log.len());
            log[at] = random.u8(..0x20);
        }
        let mut again = Keyspace::new(seed, DATABASES, Journal::default());
        again.begin_replay();
        let _ = again.apply(&log);
        again.end_replay();
        println!("seed {seed}");
        dump(&mut again);
        (0..50).for_each(|_| OPERATIONS[random.usize(..OPERATIONS.len())](&mut again, &mut random));
    }
}
