use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::Reply;

/// Reads `input` that arrives in pieces of these lengths, again and again.
fn read(
    input: &[u8],
    pieces: &[usize],
    limits: ReplyLimits,
) -> (Vec<Value>, Result<usize, ReplyError>) {
    let mut parser = ReplyParser::new(limits);
    let (mut values, mut rest) = (Vec::new(), input);
    let mut pieces = pieces.iter().copied().cycle();
    loop {
        match parser.next_reply() {
            Ok(Some(value)) => values.push(value),
            Ok(None) if rest.is_empty() => return (values, Ok(parser.unread())),
            Ok(None) => {
                let piece = pieces.next().expect("there is a piece").clamp(1, rest.len());
                parser.push(&rest[..piece]);
                rest = &rest[piece..];
            }
            Err(error) => return (values, Err(error)),
        }
    }
}

fn whole(input: &[u8]) -> (Vec<Value>, Result<usize, ReplyError>) {
    read(input, &[usize::MAX], ReplyLimits::default())
}

fn bulk(text: &'static str) -> Value {
    Value::Bulk(Bytes::from_static(text.as_bytes()))
}

#[test]
fn every_type_is_read() {
    let text = |text: &'static str| Bytes::from_static(text.as_bytes());
    for (input, value) in [
        ("+OK\r\n", Value::Simple(text("OK"))),
        ("+\r\n", Value::Simple(text(""))),
        ("-ERR a\nb\r\n", Value::Error(text("ERR a\nb"))),
        ("!5\r\na\r\nbc\r\n", Value::Error(text("a\r\nbc"))),
        (":-9223372036854775808\r\n", Value::Int(i64::MIN)),
        ("$0\r\n\r\n", bulk("")),
        ("$2\r\n\r\n\r\n", bulk("\r\n")),
        ("$-1\r\n", Value::Null),
        ("*-1\r\n", Value::Null),
        ("_\r\n", Value::Null),
        ("*0\r\n", Value::Array(vec![])),
        (
            "*2\r\n*1\r\n:1\r\n_\r\n",
            Value::Array(vec![Value::Array(vec![Value::Int(1)]), Value::Null]),
        ),
        ("~1\r\n$1\r\na\r\n", Value::Set(vec![bulk("a")])),
        (">1\r\n$1\r\na\r\n", Value::Push(vec![bulk("a")])),
        ("%0\r\n", Value::Map(vec![])),
        ("%1\r\n$1\r\na\r\n%0\r\n", Value::Map(vec![(bulk("a"), Value::Map(vec![]))])),
        (",3.5\r\n", Value::Double(3.5)),
        (",1e+20\r\n", Value::Double(1e20)),
        (",-inf\r\n", Value::Double(f64::NEG_INFINITY)),
        ("#t\r\n", Value::Bool(true)),
        ("#f\r\n", Value::Bool(false)),
        ("(-123\r\n", Value::BigNumber(text("-123"))),
        ("=6\r\ntxt:ab\r\n", Value::Verbatim { format: text("txt"), text: text("ab") }),
        (
            "*1\r\n|1\r\n+k\r\n:1\r\n|0\r\n:2\r\n",
            Value::Array(vec![Value::Attribute {
                pairs: vec![(Value::Simple(text("k")), Value::Int(1))],
                of: Box::new(Value::Attribute { pairs: vec![], of: Box::new(Value::Int(2)) }),
            }]),
        ),
    ] {
        for pieces in [1, 100] {
            let read = read(input.as_bytes(), &[pieces], ReplyLimits::default());
            assert_eq!(read, (vec![value.clone()], Ok(0)), "{input:?}");
        }
        assert_eq!(skip(input.as_bytes()), Ok(Some(input.len())), "{input:?}");
        assert_eq!(skip(format!("{input}+OK").as_bytes()), Ok(Some(input.len())), "{input:?}");
    }
    let (values, _) = whole(b",nan\r\n");
    assert!(matches!(values[..], [Value::Double(value)] if value.is_nan()));
}

#[test]
fn bytes_that_are_no_reply_are_refused() {
    for (input, error) in [
        ("x\r\n", ReplyError::Type(b'x')),
        ("+a\rb", ReplyError::End),
        ("$1\r\nabc", ReplyError::End),
        ("$1\rx", ReplyError::End),
        ("$01\r\n", ReplyError::Length),
        ("$-2\r\n", ReplyError::Length),
        ("~-1\r\n", ReplyError::Length),
        ("*4294967296\r\n", ReplyError::Length),
        ("$?\r\n", ReplyError::Length),
        (":\r\n", ReplyError::Integer),
        (":9223372036854775808\r\n", ReplyError::Integer),
        (",x\r\n", ReplyError::Double),
        ("#x\r\n", ReplyError::Bool),
        ("_x\r\n", ReplyError::Null),
        ("(\r\n", ReplyError::BigNumber),
        ("(1x\r\n", ReplyError::BigNumber),
        ("=2\r\nab\r\n", ReplyError::Verbatim),
    ] {
        assert_eq!(whole(input.as_bytes()), (vec![], Err(error)), "{input:?}");
    }
}

#[test]
fn values_lie_in_one_another_only_so_deep() {
    let nested = |depth: usize| [&b"*1\r\n".repeat(depth)[..], b":1\r\n"].concat();
    let limits = ReplyLimits { depth_max: 3, ..ReplyLimits::default() };
    assert_eq!(read(&nested(3), &[1], limits).1, Ok(0));
    assert_eq!(read(&nested(4), &[1], limits).1, Err(ReplyError::TooDeep));
    let million = nested(1_000_000);
    assert_eq!(whole(&million).1, Err(ReplyError::TooDeep));
    assert_eq!(skip(&million), Ok(Some(million.len())));
    let attributes = b"|0\r\n".repeat(4);
    assert_eq!(whole(&[&attributes[..], b":1\r\n"].concat()).1, Ok(0));
    assert_eq!(read(&attributes, &[1], limits).1, Ok(attributes.len()));
}

#[test]
fn a_reply_is_refused_when_it_will_be_too_long() {
    let limits = ReplyLimits { reply_bytes_max: 16, ..ReplyLimits::default() };
    for (input, fits) in [
        (&b"$9\r\n123456789\r\n"[..], true),
        (b"$11\r\n", false),
        (b"+12345678901234\r\n", false),
        (b"+1234567890123\r\n", true),
        (b"+12345678901234567", false),
        (b"*100\r\n+1\r\n+2\r\n+3\r", false),
        (b"*3\r\n+1\r\n+2\r\n+3\r\n", true),
    ] {
        for piece in [1, 100] {
            let (_, end) = read(input, &[piece], limits);
            let expected = if fits { Ok(0) } else { Err(ReplyError::TooLong) };
            assert_eq!(end, expected, "{}", input.escape_ascii());
        }
    }
}

#[test]
fn a_promise_of_many_values_takes_no_memory() {
    let mut parser = ReplyParser::new(ReplyLimits::default());
    parser.push(b"*1000000000\r\n*1000000000\r\n");
    let memory = allocation_counter::measure(|| assert_eq!(parser.next_reply(), Ok(None)));
    assert_eq!(memory.count_total, 0);
}

#[test]
fn commands_are_written_as_the_server_reads_them() {
    let mut out = Vec::new();
    encode_command(&mut out, ["SET", "key", ""]);
    encode_command(&mut out, &[b"PING".to_vec()]);
    assert_eq!(out, b"*3\r\n$3\r\nSET\r\n$3\r\nkey\r\n$0\r\n\r\n*1\r\n$4\r\nPING\r\n");
}

/// Writes a value as a server does.
fn write(reply: &mut Reply, value: &Value) {
    match value {
        Value::Simple(text) => reply.simple(text),
        Value::Error(text) => reply.error(text),
        Value::Int(value) => reply.int(*value),
        Value::Bulk(bytes) => reply.bulk(bytes),
        Value::Array(values) => {
            let deferred = reply.deferred_array();
            values.iter().for_each(|value| write(reply, value));
            reply.end_array(deferred, values.len());
        }
        Value::Map(pairs) => {
            reply.map(pairs.len());
            write_pairs(reply, pairs);
        }
        Value::Set(values) => {
            reply.set(values.len());
            values.iter().for_each(|value| write(reply, value));
        }
        Value::Push(values) => {
            reply.push(values.len());
            values.iter().for_each(|value| write(reply, value));
        }
        Value::Double(value) => reply.double(*value),
        Value::Bool(value) => reply.bool(*value),
        Value::BigNumber(digits) => {
            reply.big_number(std::str::from_utf8(digits).expect("digits"));
        }
        Value::Verbatim { format, text } => {
            reply.verbatim(std::str::from_utf8(format).expect("letters"), text);
        }
        Value::Attribute { pairs, of } => {
            assert!(reply.attribute(pairs.len()));
            write_pairs(reply, pairs);
            write(reply, of);
        }
        Value::Null => reply.null(),
    }
}

fn write_pairs(reply: &mut Reply, pairs: &[(Value, Value)]) {
    for (key, value) in pairs {
        write(reply, key);
        write(reply, value);
    }
}

fn values() -> impl Strategy<Value = Value> {
    let bytes = || prop::collection::vec(any::<u8>(), 0..40).prop_map(Bytes::from);
    let line = || "[ -~]{0,30}".prop_map(Bytes::from);
    let leaf = prop_oneof![
        line().prop_map(Value::Simple),
        line().prop_map(Value::Error),
        any::<i64>().prop_map(Value::Int),
        bytes().prop_map(Value::Bulk),
        Just(Value::Null),
        any::<f64>().prop_map(Value::Double),
        any::<bool>().prop_map(Value::Bool),
        "-?[0-9]{1,40}".prop_map(Bytes::from).prop_map(Value::BigNumber),
        bytes().prop_map(|text| Value::Verbatim { format: Bytes::from_static(b"txt"), text }),
    ];
    leaf.prop_recursive(4, 40, 6, |inner| {
        let many = || prop::collection::vec(inner.clone(), 0..12);
        let pairs = || prop::collection::vec((inner.clone(), inner.clone()), 0..6);
        let attribute = (pairs(), inner.clone());
        prop_oneof![
            many().prop_map(Value::Array),
            many().prop_map(Value::Set),
            many().prop_map(Value::Push),
            pairs().prop_map(Value::Map),
            attribute.prop_map(|(pairs, of)| Value::Attribute { pairs, of: Box::new(of) }),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn values_come_back_as_they_were_written_however_they_are_cut(
        values in prop::collection::vec(values(), 0..6),
        pieces in prop::collection::vec(1usize..60, 1..10),
    ) {
        let mut reply = Reply { resp3: true, ..Reply::new() };
        values.iter().for_each(|value| write(&mut reply, value));
        let read = read(&reply.out, &pieces, ReplyLimits::default());
        prop_assert_eq!(read, (values.clone(), Ok(0)));
        let mut rest = &reply.out[..];
        for _ in 0..values.len() {
            let end = skip(rest).expect("a reply").expect("all of it");
            for short in (0..end).rev().take(20) {
                prop_assert_eq!(skip(&rest[..short]), Ok(None));
            }
            rest = &rest[end..];
        }
        prop_assert!(rest.is_empty());
    }

    #[test]
    fn bytes_mean_the_same_however_they_are_cut(
        input in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..60),
            "([+:$*_,#=~%|>-][0-9-]{0,2}\r\n){0,9}".prop_map(String::into_bytes),
        ],
        pieces in prop::collection::vec(1usize..9, 1..10),
    ) {
        let limits = ReplyLimits { depth_max: 3, ..ReplyLimits::default() };
        let whole = read(&input, &[usize::MAX], limits);
        let cut = read(&input, &pieces, limits);
        prop_assert_eq!(format!("{cut:?}"), format!("{whole:?}"));
    }
}
