use bytes::Bytes;
use proptest::prelude::*;

use super::*;

fn word() -> impl Strategy<Value = Bytes> {
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..80).prop_map(Bytes::from),
        any::<i64>().prop_map(|number| number.to_string().into()),
        any::<i16>().prop_map(|number| number.to_string().into()),
    ]
}

fn words() -> impl Strategy<Value = Vec<Bytes>> {
    prop::collection::vec(word(), 1..300)
}

fn id() -> impl Strategy<Value = StreamId> {
    (any::<u64>(), any::<u64>()).prop_map(|(ms, seq)| StreamId { ms, seq })
}

fn entries() -> impl Strategy<Value = Vec<StreamEntry>> {
    let fields = prop::collection::vec((word(), word()), 1..6);
    let entry = (id(), fields).prop_map(|(id, fields)| StreamEntry { id, fields });
    prop::collection::vec(entry, 0..60).prop_map(|mut entries| {
        entries.sort_by_key(|entry| entry.id);
        let names: Vec<Bytes> = match entries.first() {
            Some(first) => first.fields.iter().map(|field| field.0.clone()).collect(),
            None => Vec::new(),
        };
        for entry in entries.iter_mut().skip(1).step_by(2) {
            entry.fields = names.iter().map(|name| (name.clone(), Bytes::from("v"))).collect();
        }
        entries
    })
}

fn group() -> impl Strategy<Value = Group> {
    let pending = (id(), 0..1u64 << 62, any::<u64>())
        .prop_map(|(id, delivered_ms, count)| Pending { id, delivered_ms, count });
    let consumer = (word(), 0..1u64 << 62, prop::collection::vec(id(), 0..5)).prop_map(
        |(name, seen_ms, held)| Consumer { name, seen_ms, active_ms: Some(seen_ms), held },
    );
    (
        word(),
        id(),
        prop::option::of(0..1u64 << 62),
        prop::collection::vec(pending, 0..300),
        prop::collection::vec(consumer, 0..4),
    )
        .prop_map(|(name, last_id, entries_read, pending, consumers)| Group {
            name,
            last_id,
            entries_read,
            pending,
            consumers,
        })
}

fn stream() -> impl Strategy<Value = Value> {
    (entries(), id(), id(), any::<u64>(), prop::collection::vec(group(), 0..3)).prop_map(
        |(entries, last_id, max_deleted, added, groups)| {
            let first_id = entries.first().map(|entry| entry.id).unwrap_or_default();
            let len = entries.len() as u64;
            let state = StreamState { len, last_id, first_id, max_deleted, added };
            Value::Stream(Box::new(Stream { entries, state, groups }))
        },
    )
}

fn value() -> impl Strategy<Value = Value> {
    let score = any::<f64>().prop_filter("a score is a number", |score| !score.is_nan());
    prop_oneof![
        word().prop_map(Value::Text),
        words().prop_map(Value::List),
        words().prop_map(Value::Set),
        prop::collection::vec((word(), score), 1..300).prop_map(Value::ZSet),
        prop::collection::vec((word(), word()), 1..300).prop_map(Value::Hash),
        stream(),
    ]
}

fn header() -> impl Strategy<Value = Header> {
    (
        0..20u64,
        word(),
        prop::option::of(0..1u64 << 62),
        prop::option::of(any::<u64>()),
        prop::option::of(any::<u8>()),
    )
        .prop_map(|(db, key, expire_ms, idle_seconds, frequency)| Header {
            db,
            key,
            kind: Kind::Text,
            expire_ms,
            idle_seconds,
            frequency,
        })
}

/// A file's keys with their values, read in pieces of that many bytes.
pub(crate) fn read_all(file: &[u8], piece: usize) -> Result<Vec<(Header, Value)>, RdbError> {
    let mut reader = Reader::new();
    let mut keys: Vec<(Header, Value)> = Vec::new();
    for piece in file.chunks(piece) {
        reader.push(piece);
        while let Some(item) = reader.next()? {
            match item {
                Item::Begin(header) => {
                    let value = Value::empty(header.kind).expect("no test has a module");
                    keys.push((header, value));
                }
                Item::Elements(elements) => {
                    let (_, value) = keys.last_mut().expect("elements follow a key");
                    assert!(value.extend(elements), "elements are of the kind that was begun");
                }
                _ => {}
            }
        }
    }
    reader.finish().map(|()| keys)
}

fn written(keys: &[(Header, Value)]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut writer = Writer::new(&mut out);
    writer.aux(b"redis-ver", b"7.2.0", &mut out);
    for (header, value) in keys {
        writer.key(header, value, &mut out).expect("the key can be written");
    }
    writer.finish(&mut out).expect("every key is whole");
    out
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..Default::default() })]

    #[test]
    fn what_is_written_is_read_again_however_it_is_cut(
        keys in prop::collection::vec((header(), value()), 0..6),
        piece in 1..5000usize,
    ) {
        let keys: Vec<(Header, Value)> = keys
            .into_iter()
            .map(|(header, value)| (Header { kind: value.kind(), ..header }, value))
            .collect();
        prop_assert_eq!(read_all(&written(&keys), piece), Ok(keys));
    }

    #[test]
    fn a_dumped_value_is_restored(value in value()) {
        let payload = dump(&value).expect("the value can be written");
        prop_assert_eq!(restore(&payload), Ok(value));
    }

    #[test]
    fn a_payload_with_one_byte_changed_is_refused(
        value in value(), at in any::<prop::sample::Index>(), change in 1..=u8::MAX,
    ) {
        let mut payload = dump(&value).expect("the value can be written");
        let at = at.index(payload.len());
        payload[at] ^= change;
        prop_assert_eq!(restore(&payload), Err(RestoreError::VersionOrChecksum));
    }

    #[test]
    fn any_bytes_of_a_value_end_in_a_value_or_an_error(
        value_type in 0..25u8, body in prop::collection::vec(any::<u8>(), 0..400),
    ) {
        let _ = restore(&payload(value_type, &body));
    }
}

/// A payload with a right checksum, whatever it holds.
fn payload(value_type: u8, body: &[u8]) -> Vec<u8> {
    let mut payload = vec![value_type];
    payload.extend_from_slice(body);
    payload.extend_from_slice(&VERSION.to_le_bytes());
    let sum = crate::crc64::checksum(&payload);
    payload.extend_from_slice(&sum.to_le_bytes());
    payload
}

fn texts(words: &[&str]) -> Vec<Bytes> {
    words.iter().map(|word| Bytes::copy_from_slice(word.as_bytes())).collect()
}

#[test]
fn the_checksum_is_that_of_redis() {
    assert_eq!(crate::crc64::checksum(b"123456789"), 0xe9c6_d914_c4b8_d9ca);
}

#[test]
fn a_zipmap_of_old_files_is_a_hash() {
    let odd = payload(9, b"\x04\x01\x01a\xff");
    assert_eq!(restore(&odd), Err(RestoreError::Format));
    let good = payload(9, b"\x11\x02\x01a\x02\x00bc\x03def\x02\x01ghx\xff");
    let pairs = [("a", "bc"), ("def", "gh")];
    let pairs = pairs.map(|(name, value)| (Bytes::from(name), Bytes::from(value)));
    assert_eq!(restore(&good), Ok(Value::Hash(pairs.to_vec())));
}

#[test]
fn numbers_of_a_ziplist_of_each_width_are_words() {
    let mut words = Vec::new();
    words.extend_from_slice(b"\x00\xf1");
    words.extend_from_slice(b"\x02\xfd");
    words.extend_from_slice(b"\x02\xfe\x80");
    words.extend_from_slice(b"\x03\xc0\x00\x80");
    words.extend_from_slice(b"\x04\xf0\x00\x00\x80");
    words.extend_from_slice(b"\x05\xd0\x00\x00\x00\x80");
    words.extend_from_slice(b"\x06\xe0\x00\x00\x00\x00\x00\x00\x00\x80");
    words.extend_from_slice(b"\x0a\x02hi");
    let mut node = Vec::new();
    node.extend_from_slice(&(words.len() as u32 + 11).to_le_bytes());
    node.extend_from_slice(&[0; 6]);
    node.extend_from_slice(&words);
    node.push(0xff);
    let mut body = vec![node.len() as u8];
    body.extend_from_slice(&node);
    let min = i64::MIN.to_string();
    let list = texts(&["0", "12", "-128", "-32768", "-8388608", "-2147483648", min.as_str(), "hi"]);
    assert_eq!(restore(&payload(10, &body)), Ok(Value::List(list)));
}

#[test]
fn scores_of_old_files_are_text() {
    let body = b"\x04\x01a\x03-.5\x01b\xfe\x01c\xff\x01d\x041e10";
    let pairs = [("a", -0.5), ("b", f64::INFINITY), ("c", f64::NEG_INFINITY), ("d", 1e10)];
    let pairs = pairs.map(|(member, score)| (Bytes::from(member), score));
    assert_eq!(restore(&payload(3, body)), Ok(Value::ZSet(pairs.to_vec())));
    assert_eq!(restore(&payload(3, b"\x01\x01a\xfd")), Err(RestoreError::Format));
}

#[test]
fn an_old_file_has_no_checksum_and_expires_by_the_second() {
    let file = b"REDIS0003\xfe\x05\xfd\x10\x00\x00\x00\x00\x01k\x01v\xff";
    let keys = read_all(file, 1).expect("the file is whole");
    assert_eq!((keys[0].0.db, keys[0].0.expire_ms), (5, Some(16_000)));
    assert_eq!(keys[0].1, Value::Text("v".into()));
}

#[test]
fn a_length_that_is_only_claimed_is_not_allocated() {
    let mut reader = Reader::new();
    reader.push(b"REDIS0010\x02\x01s\x81\xff\xff\xff\xff\xff\xff\xff\xff\x80\x1f\xff\xff\xffabc");
    assert!(matches!(reader.next(), Ok(Some(Item::Begin(_)))));
    assert_eq!(reader.next(), Ok(None));
    let too_long = payload(0, b"\x81\xff\xff\xff\xff\xff\xff\xff\xffabc");
    assert_eq!(restore(&too_long), Err(RestoreError::Format));
    let packed = payload(0, b"\xc3\x02\x80\x1f\xff\xff\xffab");
    assert_eq!(restore(&packed), Err(RestoreError::Format));
}

#[test]
fn what_is_no_file_or_too_new_or_damaged_is_told_apart() {
    assert_eq!(read_all(b"GIF89a...", 4), Err(RdbError::NotRdb));
    assert_eq!(read_all(b"REDIS0012\xff", 4), Err(RdbError::Version(12)));
    assert_eq!(read_all(b"REDIS0010\x16\x01k", 4), Err(RdbError::Unknown(22)));
    let file = written(&[]);
    assert_eq!(read_all(&file, 3), Ok(Vec::new()));
    assert_eq!(read_all(&file[..file.len() - 1], 3), Err(RdbError::Truncated));
    let mut damaged = file;
    let last = damaged.len() - 1;
    damaged[last] ^= 1;
    assert!(matches!(read_all(&damaged, 3), Err(RdbError::Checksum { .. })));
}

#[test]
fn values_and_aux_of_modules_are_passed_over() {
    let file = b"REDIS0004\xf7\x05\x02\x02\x02\x07\x05\x02ab\x00\
        \x07\x01m\x05\x01\x03\x03abcd\x04abcdefgh\x05\x01x\x00\x00\x01k\x01v\xff";
    let mut reader = Reader::new();
    let mut items = Vec::new();
    for byte in file.chunks(1) {
        reader.push(byte);
        while let Some(item) = reader.next().expect("the file is sound") {
            items.push(item);
        }
    }
    assert!(matches!(&items[0], Item::Begin(header) if header.kind == Kind::Module));
    assert_eq!(items[1], Item::End);
    assert_eq!(items[3], Item::Elements(Elements::Text("v".into())));
    assert_eq!(items.last(), Some(&Item::Done));
}

#[test]
fn a_collection_is_written_piece_by_piece_and_counted() {
    let header = Header {
        db: 0,
        key: "k".into(),
        kind: Kind::List,
        expire_ms: None,
        idle_seconds: None,
        frequency: None,
    };
    let mut out = Vec::new();
    let mut writer = Writer::new(&mut out);
    writer.begin(&header, 3, &mut out).expect("a list can be begun");
    let piece = Elements::List(texts(&["a", "b"]));
    writer.elements(&piece, &mut out).expect("two of three");
    assert_eq!(writer.elements(&piece, &mut out), Err(WriteError::Elements));
    let set = Elements::Set(texts(&["c"]));
    assert_eq!(writer.elements(&set, &mut out), Err(WriteError::Elements));
    writer.elements(&Elements::List(texts(&["c"])), &mut out).expect("the third");
    writer.end().expect("all three are there");
    writer.finish(&mut out).expect("the key is ended");
    let value = Value::List(texts(&["a", "b", "c"]));
    assert_eq!(read_all(&out, 5), Ok(vec![(header, value)]));
}
