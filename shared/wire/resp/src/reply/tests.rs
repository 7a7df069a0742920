use super::*;

/// What `write` writes in RESP2 and in RESP3.
fn written(write: impl Fn(&mut Reply)) -> [String; 2] {
    [false, true].map(|resp3| {
        let mut reply = Reply { resp3, ..Reply::new() };
        write(&mut reply);
        String::from_utf8(reply.out).expect("text")
    })
}

#[track_caller]
fn same(write: impl Fn(&mut Reply), expected: &str) {
    assert_eq!(written(write), [expected, expected]);
}

#[test]
fn what_both_versions_have_is_written_alike() {
    same(Reply::ok, "+OK\r\n");
    same(|reply| reply.simple("QUEUED"), "+QUEUED\r\n");
    same(|reply| reply.error("ERR no such key"), "-ERR no such key\r\n");
    same(|reply| reply.bulk(b""), "$0\r\n\r\n");
    same(|reply| reply.bulk(b"a\r\nb"), "$4\r\na\r\nb\r\n");
    same(|reply| reply.bulk(&[b'x'; 10]), "$10\r\nxxxxxxxxxx\r\n");
    same(|reply| reply.bulk_parts(&[b"a", b"", b"bc"]), "$3\r\nabc\r\n");
    same(|reply| reply.array(0), "*0\r\n");
    same(|reply| reply.array(1000), "*1000\r\n");
    same(
        |reply| {
            reply.bulk_head(2);
            reply.out.extend_from_slice(b"ab");
            reply.crlf();
        },
        "$2\r\nab\r\n",
    );
}

#[test]
fn integers_of_every_length_are_written() {
    let powers = (0..19).map(|power| 10i64.pow(power));
    let around = powers.flat_map(|power| [power - 1, power, -power]);
    for value in around.chain([i64::MIN, i64::MAX, 42, -42]) {
        let digits = value.to_string();
        same(|reply| reply.int(value), &format!(":{digits}\r\n"));
        same(|reply| reply.bulk_int(value), &format!("${}\r\n{digits}\r\n", digits.len()));
    }
}

#[test]
fn what_only_resp3_has_is_something_else_in_resp2() {
    for (write, resp2, resp3) in [
        ((|reply| reply.null()) as fn(&mut Reply), "$-1\r\n", "_\r\n"),
        (|reply| reply.null_array(), "*-1\r\n", "_\r\n"),
        (|reply| reply.map(2), "*4\r\n", "%2\r\n"),
        (|reply| reply.set(12), "*12\r\n", "~12\r\n"),
        (|reply| reply.push(3), "*3\r\n", ">3\r\n"),
        (|reply| reply.double(3.0), "$1\r\n3\r\n", ",3\r\n"),
        (|reply| reply.double(3.5), "$3\r\n3.5\r\n", ",3.5\r\n"),
        (|reply| reply.double(f64::NEG_INFINITY), "$4\r\n-inf\r\n", ",-inf\r\n"),
        (|reply| reply.double(1e20), "$5\r\n1e+20\r\n", ",1e+20\r\n"),
        (|reply| reply.double(f64::NAN), "$3\r\nnan\r\n", ",nan\r\n"),
        (|reply| reply.bool(true), ":1\r\n", "#t\r\n"),
        (|reply| reply.bool(false), ":0\r\n", "#f\r\n"),
        (|reply| reply.big_number("-123"), "$4\r\n-123\r\n", "(-123\r\n"),
        (|reply| reply.verbatim("txt", b"a\nb"), "$3\r\na\nb\r\n", "=7\r\ntxt:a\nb\r\n"),
    ] {
        assert_eq!(written(write), [resp2, resp3]);
    }
}

#[test]
fn an_attribute_is_written_only_where_there_are_such() {
    let with_attribute = |reply: &mut Reply| {
        if reply.attribute(1) {
            reply.bulk(b"ttl");
            reply.int(10);
        }
        reply.ok();
    };
    assert_eq!(written(with_attribute), ["+OK\r\n", "|1\r\n$3\r\nttl\r\n:10\r\n+OK\r\n"]);
}

#[test]
fn a_line_stays_one_line() {
    same(|reply| reply.error("\r\nERR a\r\nb\n\n"), "-ERR a  b\r\n");
    same(|reply| reply.simple("a\rb\n"), "+a b \r\n");
    same(|reply| reply.error("\n"), "-\r\n");
}

#[test]
fn bytes_that_are_no_request_are_answered_with_the_byte_that_was_wrong() {
    let answered = |error: ProtocolError| {
        let mut reply = Reply::new();
        reply.protocol_error(&error);
        reply.out
    };
    let long = ProtocolError::InvalidBulkLength;
    assert_eq!(answered(long), b"-ERR Protocol error: invalid bulk length\r\n");
    for (byte, shown) in [(b'\xFF', b'\xFF'), (b'\r', b' '), (b',', b',')] {
        let expected = [&b"-ERR Protocol error: expected '$', got '"[..], &[shown], b"'\r\n"];
        assert_eq!(answered(ProtocolError::ExpectedDollar(byte)), expected.concat());
    }
}

#[test]
fn a_length_may_follow_what_it_counts() {
    for n in [0usize, 1, 9, 10, 99, 100, 12_345] {
        let array = written(|reply| {
            reply.bulk(b"before");
            let deferred = reply.deferred_array();
            (0..n).for_each(|value| reply.int(value as i64));
            reply.end_array(deferred, n);
            reply.bulk(b"after");
        });
        let [expected, _] = written(|reply| {
            reply.bulk(b"before");
            reply.array(n);
            (0..n).for_each(|value| reply.int(value as i64));
            reply.bulk(b"after");
        });
        assert_eq!(array, [expected.clone(), expected]);
    }
}

#[test]
fn deferred_lengths_nest_and_may_be_of_maps_and_sets() {
    let nested = written(|reply| {
        let map = reply.deferred_array();
        for key in 0..6 {
            reply.int(key);
            let set = reply.deferred_array();
            (0..11).for_each(|value| reply.int(value));
            reply.end_set(set, 11);
        }
        reply.end_map(map, 6);
    });
    let expected = written(|reply| {
        reply.map(6);
        for key in 0..6 {
            reply.int(key);
            reply.set(11);
            (0..11).for_each(|value| reply.int(value));
        }
    });
    assert_eq!(nested, expected);
}

#[test]
#[should_panic(expected = "begun here, and not ended")]
fn a_deferred_length_whose_place_was_taken_away_is_a_bug() {
    let mut reply = Reply::new();
    reply.ok();
    let deferred = reply.deferred_array();
    reply.out.drain(..5);
    reply.end_array(deferred, 0);
}
