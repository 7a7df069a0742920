//! What reading and writing requests and replies take. Run alone:
//! `cargo nextest run --release -p sextant-resp --run-ignored only --no-capture`.

use std::hint::black_box;
use std::time::{Duration, Instant};

use sextant_resp::{
    Limits, Parsed, Reply, ReplyLimits, ReplyParser, RequestParser, encode_command, skip,
};

/// Commands in a pipeline.
const COMMANDS: usize = 1000;
/// What one socket read gives at most.
const PIECE_BYTES: usize = 16 << 10;

fn request(words: &[&[u8]]) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_command(&mut bytes, words);
    bytes
}

/// The least that `run` takes of many times: what it takes when nothing else runs.
fn least(times: usize, mut run: impl FnMut()) -> Duration {
    let measured = (0..times).map(|_| {
        let begin = Instant::now();
        run();
        begin.elapsed()
    });
    measured.min().expect("at least once")
}

fn say(what: &str, all: Duration, count: usize) {
    println!("{what}: {:.1} ns", all.as_nanos() as f64 / count as f64);
}

/// Reads all of `input`, and gives how many words there were.
fn read(parser: &mut RequestParser, mut input: &[u8]) -> usize {
    let mut words = 0;
    while let Ok(Parsed::Command { args, consumed }) = parser.parse(input) {
        words += black_box(args).len();
        input = &input[consumed..];
    }
    assert!(input.is_empty());
    words
}

#[test]
#[ignore = "measures, and says what it found"]
fn measure_requests() {
    let key = |number: usize| format!("key:{number:012}").into_bytes();
    let mset: Vec<Vec<u8>> = (0..99).map(key).collect();
    let mset: Vec<&[u8]> = [&b"MSET"[..]].into_iter().chain(mset.iter().map(|w| &w[..])).collect();
    let pipeline = |command: &dyn Fn(usize) -> Vec<u8>| -> Vec<u8> {
        (0..COMMANDS).flat_map(command).collect()
    };
    let mut parser = RequestParser::new(Limits::default());
    for (what, input) in [
        ("SET of 64 B", pipeline(&|number| request(&[b"SET", &key(number), &[b'v'; 64]]))),
        ("GET", pipeline(&|number| request(&[b"GET", &key(number)]))),
        ("MSET of 100 words", pipeline(&|_| request(&mset))),
        ("inline GET", pipeline(&|number| [b"GET ", &key(number)[..], b"\r\n"].concat())),
    ] {
        let all = least(300, || {
            black_box(read(&mut parser, black_box(&input)));
        });
        say(what, all, COMMANDS);
    }
    let input = request(&[b"SET", b"key", &vec![b'v'; 1 << 20]]);
    let mut tries = 0;
    let all = least(300, || {
        tries = 0;
        for arrived in (PIECE_BYTES..input.len()).step_by(PIECE_BYTES).chain([input.len()]) {
            let parsed = parser.parse(black_box(&input[..arrived]));
            tries += usize::from(black_box(parsed).is_ok());
        }
    });
    say(&format!("SET of 1 MiB in {tries} pieces of 16 KiB"), all, 1);
}

#[test]
#[ignore = "measures, and says what it found"]
fn measure_replies() {
    let mut reply = Reply::new();
    let value = [b'v'; 64];
    let large = vec![b'v'; 16 << 10];
    let mut each = |what: &str, write: &mut dyn FnMut(&mut Reply, usize)| {
        let all = least(300, || {
            reply.out.clear();
            (0..COMMANDS).for_each(|number| write(black_box(&mut reply), black_box(number)));
        });
        say(what, all, COMMANDS);
    };
    each("+OK", &mut |reply, _| reply.ok());
    each("int of one digit", &mut |reply, number| reply.int((number % 10) as i64));
    each("int of ten digits", &mut |reply, number| reply.int(1_234_567_890 + number as i64));
    each("bulk of 64 B", &mut |reply, _| reply.bulk(&value));
    each("bulk of 16 KiB", &mut |reply, number| {
        if number % 100 == 0 {
            reply.out.clear();
        }
        reply.bulk(&large);
    });
    each("bulk of an integer", &mut |reply, number| reply.bulk_int(123_456 + number as i64));
    each("null", &mut |reply, _| reply.null());
    each("double 3.5", &mut |reply, number| reply.double(0.5 + number as f64));
    each("double of 17 digits", &mut |reply, number| reply.double(0.1 + 0.2 * number as f64));
    each("deferred array of 5", &mut |reply, _| {
        let deferred = reply.deferred_array();
        (0..5).for_each(|number| reply.int(number));
        reply.end_array(deferred, 5);
    });
    each("deferred array of 50", &mut |reply, _| {
        let deferred = reply.deferred_array();
        (0..50).for_each(|number| reply.int(number));
        reply.end_array(deferred, 50);
    });
}

#[test]
#[ignore = "measures, and says what it found"]
fn measure_the_clients_end() {
    let mut out = Vec::new();
    let all = least(300, || {
        out.clear();
        for _ in 0..COMMANDS {
            encode_command(black_box(&mut out), [&b"SET"[..], b"key:000000012345", &[b'v'; 64]]);
        }
    });
    say("write SET of 64 B", all, COMMANDS);
    for (what, reply) in [
        ("+OK", b"+OK\r\n".to_vec()),
        ("bulk of 64 B", [&b"$64\r\n"[..], &[b'v'; 64], b"\r\n"].concat()),
        ("array of 10 integers", [&b"*10\r\n"[..], &b":12345\r\n".repeat(10)].concat()),
    ] {
        let replies = reply.repeat(COMMANDS);
        let all = least(300, || {
            let mut rest = black_box(&replies[..]);
            while let Ok(Some(len)) = skip(rest) {
                rest = &rest[len..];
            }
            assert!(rest.is_empty());
        });
        say(&format!("skip {what}"), all, COMMANDS);
        let mut parser = ReplyParser::new(ReplyLimits::default());
        let all = least(300, || {
            parser.push(&replies);
            while let Ok(Some(value)) = parser.next_reply() {
                black_box(value);
            }
        });
        say(&format!("read {what}"), all, COMMANDS);
    }
}
