//! Both ends against another implementation of the protocol, both ways, in both versions.

use bytes::Bytes;
use proptest::prelude::*;
use redis_protocol::resp2;
use redis_protocol::resp2::types::{OwnedFrame as Frame2, Resp2Frame};
use redis_protocol::resp3;
use redis_protocol::resp3::types::{
    FrameMap, FrameSet, OwnedFrame as Frame3, Resp3Frame, VerbatimStringFormat,
};
use sextant_resp::{
    Limits, Parsed, Reply, ReplyLimits, ReplyParser, RequestParser, Value, encode_command,
};

fn read(bytes: &[u8]) -> Value {
    let mut parser = ReplyParser::new(ReplyLimits::default());
    parser.push(bytes);
    let value = parser.next_reply().expect("a reply").expect("all of it");
    assert_eq!(parser.unread(), 0);
    value
}

fn text(bytes: &Bytes) -> String {
    String::from_utf8(bytes.to_vec()).expect("text")
}

/// What a value of RESP2 is to the other implementation.
fn frame2(value: &Value) -> Frame2 {
    match value {
        Value::Simple(text) => Frame2::SimpleString(text.to_vec()),
        Value::Error(error) => Frame2::Error(text(error)),
        Value::Int(value) => Frame2::Integer(*value),
        Value::Bulk(bytes) => Frame2::BulkString(bytes.to_vec()),
        Value::Array(values) => Frame2::Array(values.iter().map(frame2).collect()),
        Value::Null => Frame2::Null,
        other => panic!("not in RESP2: {other:?}"),
    }
}

fn write2(reply: &mut Reply, frame: &Frame2) {
    match frame {
        Frame2::SimpleString(text) => reply.simple(text),
        Frame2::Error(text) => reply.error(text),
        Frame2::Integer(value) => reply.int(*value),
        Frame2::BulkString(bytes) => reply.bulk(bytes),
        Frame2::Array(frames) => {
            reply.array(frames.len());
            frames.iter().for_each(|frame| write2(reply, frame));
        }
        Frame2::Null => reply.null(),
    }
}

fn frame3(value: &Value) -> Frame3 {
    let attributes = None;
    match value {
        Value::Simple(text) => Frame3::SimpleString { data: text.to_vec(), attributes },
        Value::Error(error) => Frame3::SimpleError { data: text(error), attributes },
        Value::Int(data) => Frame3::Number { data: *data, attributes },
        Value::Bulk(bytes) => Frame3::BlobString { data: bytes.to_vec(), attributes },
        Value::Null => Frame3::Null,
        Value::Array(values) => {
            Frame3::Array { data: values.iter().map(frame3).collect(), attributes }
        }
        Value::Map(pairs) => {
            let pairs = pairs.iter().map(|(key, value)| (frame3(key), frame3(value)));
            Frame3::Map { data: pairs.collect::<FrameMap<_, _>>(), attributes }
        }
        Value::Set(values) => {
            Frame3::Set { data: values.iter().map(frame3).collect::<FrameSet<_>>(), attributes }
        }
        Value::Double(data) => Frame3::Double { data: *data, attributes },
        Value::Bool(data) => Frame3::Boolean { data: *data, attributes },
        Value::BigNumber(digits) => Frame3::BigNumber { data: digits.to_vec(), attributes },
        Value::Verbatim { format, text } => Frame3::VerbatimString {
            data: text.to_vec(),
            format: match &format[..] {
                b"txt" => VerbatimStringFormat::Text,
                _ => VerbatimStringFormat::Markdown,
            },
            attributes,
        },
        other => panic!("not made here: {other:?}"),
    }
}

fn write3(reply: &mut Reply, frame: &Frame3) {
    match frame {
        Frame3::SimpleString { data, .. } => reply.simple(data),
        Frame3::SimpleError { data, .. } => reply.error(data),
        Frame3::Number { data, .. } => reply.int(*data),
        Frame3::BlobString { data, .. } => reply.bulk(data),
        Frame3::Null => reply.null(),
        Frame3::Array { data, .. } => {
            reply.array(data.len());
            data.iter().for_each(|frame| write3(reply, frame));
        }
        Frame3::Map { data, .. } => {
            reply.map(data.len());
            for (key, value) in data {
                write3(reply, key);
                write3(reply, value);
            }
        }
        Frame3::Set { data, .. } => {
            reply.set(data.len());
            data.iter().for_each(|frame| write3(reply, frame));
        }
        Frame3::Double { data, .. } => reply.double(*data),
        Frame3::Boolean { data, .. } => reply.bool(*data),
        Frame3::BigNumber { data, .. } => {
            reply.big_number(std::str::from_utf8(data).expect("digits"));
        }
        Frame3::VerbatimString { data, format, .. } => {
            let format = match format {
                VerbatimStringFormat::Text => "txt",
                VerbatimStringFormat::Markdown => "mkd",
            };
            reply.verbatim(format, data);
        }
        other => panic!("not made here: {other:?}"),
    }
}

fn bytes() -> impl Strategy<Value = Bytes> + Clone {
    prop::collection::vec(any::<u8>(), 0..60).prop_map(Bytes::from)
}

fn line() -> impl Strategy<Value = Bytes> + Clone {
    // Not empty, and without space around it: the other implementation wants that of an error.
    "[A-Z]{1,9}( [a-z]{1,9}){0,3}".prop_map(Bytes::from)
}

/// What both versions have.
fn leaf2() -> impl Strategy<Value = Value> + Clone {
    prop_oneof![
        line().prop_map(Value::Simple),
        line().prop_map(Value::Error),
        any::<i64>().prop_map(Value::Int),
        bytes().prop_map(Value::Bulk),
        Just(Value::Null),
    ]
}

fn values2() -> impl Strategy<Value = Value> {
    leaf2().prop_recursive(4, 40, 12, |inner| {
        prop::collection::vec(inner, 0..12).prop_map(Value::Array)
    })
}

fn values3() -> impl Strategy<Value = Value> {
    // What may be a key to the other implementation.
    let key = prop_oneof![
        line().prop_map(Value::Simple),
        any::<i64>().prop_map(Value::Int),
        bytes().prop_map(Value::Bulk),
    ];
    let verbatim = (prop_oneof![Just("txt"), Just("mkd")], bytes()).prop_map(|(format, text)| {
        Value::Verbatim { format: Bytes::from_static(format.as_bytes()), text }
    });
    let leaf = prop_oneof![
        5 => leaf2(),
        1 => any::<f64>().prop_map(Value::Double),
        1 => (-1000i32..1000).prop_map(|value| Value::Double(f64::from(value) / 8.0)),
        1 => any::<bool>().prop_map(Value::Bool),
        1 => "-?[1-9][0-9]{0,40}".prop_map(Bytes::from).prop_map(Value::BigNumber),
        1 => verbatim,
    ];
    leaf.prop_recursive(4, 40, 12, move |inner| {
        let pairs = prop::collection::vec((key.clone(), inner.clone()), 0..6);
        prop_oneof![
            prop::collection::vec(inner, 0..12).prop_map(Value::Array),
            prop::collection::vec(key.clone(), 0..12).prop_map(Value::Set),
            pairs.prop_map(Value::Map),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn replies_of_resp2_mean_the_same_to_both(value in values2()) {
        let frame = frame2(&value);
        let mut theirs = vec![0; frame.encode_len(false)];
        let len = resp2::encode::encode(&mut theirs, &frame, false).expect("room");
        prop_assert_eq!(frame2(&read(&theirs[..len])), frame.clone());
        let mut ours = Reply::new();
        write2(&mut ours, &frame);
        let decoded = resp2::decode::decode(&ours.out).expect("a reply");
        prop_assert_eq!(decoded, Some((frame, ours.out.len())));
        prop_assert_eq!(ours.out, &theirs[..len]);
    }

    #[test]
    fn replies_of_resp3_mean_the_same_to_both(value in values3()) {
        let frame = frame3(&value);
        let mut theirs = vec![0; frame.encode_len(false)];
        let len = resp3::encode::complete::encode(&mut theirs, &frame, false).expect("room");
        prop_assert_eq!(frame3(&read(&theirs[..len])), frame.clone());
        let mut ours = Reply { resp3: true, ..Reply::new() };
        write3(&mut ours, &frame);
        let decoded = resp3::decode::complete::decode(&ours.out).expect("a reply");
        prop_assert_eq!(decoded, Some((frame, ours.out.len())));
    }

    #[test]
    fn requests_mean_the_same_to_both(
        words in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 1..30),
    ) {
        let frame = Frame2::Array(words.iter().cloned().map(Frame2::BulkString).collect());
        let mut theirs = vec![0; frame.encode_len(false)];
        let len = resp2::encode::encode(&mut theirs, &frame, false).expect("room");
        let mut parser = RequestParser::new(Limits::default());
        let Ok(Parsed::Command { args, consumed }) = parser.parse(&theirs[..len]) else {
            return Err(TestCaseError::fail("it is a command"));
        };
        prop_assert_eq!(consumed, len);
        prop_assert!(args.iter().eq(&words));
        let mut ours = Vec::new();
        encode_command(&mut ours, &words);
        prop_assert_eq!(ours, &theirs[..len]);
    }
}
