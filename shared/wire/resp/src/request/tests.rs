use proptest::prelude::*;

use super::*;
use crate::OwnedArgs;

/// What came of some input: commands, and how it ended.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    commands: Vec<OwnedArgs>,
    consumed: usize,
    error: Option<ProtocolError>,
}

/// Reads `input` that arrives in pieces of these lengths, again and again.
fn read(input: &[u8], pieces: &[usize], limits: Limits) -> Outcome {
    let mut parser = RequestParser::new(limits);
    let mut outcome = Outcome { commands: Vec::new(), consumed: 0, error: None };
    let mut arrived = 0;
    let mut pieces = pieces.iter().copied().cycle();
    loop {
        match parser.parse(&input[outcome.consumed..arrived]) {
            Ok(Parsed::Command { args, consumed }) => {
                outcome.commands.push(args.to_owned());
                outcome.consumed += consumed;
            }
            Ok(Parsed::Nothing { consumed }) => outcome.consumed += consumed,
            Ok(Parsed::Incomplete { at_least }) => {
                assert!(at_least > 0);
                if arrived == input.len() {
                    return outcome;
                }
                let piece = pieces.next().expect("there is a piece").max(1);
                arrived = input.len().min(arrived + piece);
            }
            Err(error) => {
                outcome.error = Some(error);
                return outcome;
            }
        }
    }
}

fn whole(input: &[u8]) -> Outcome {
    read(input, &[usize::MAX / 2], Limits::default())
}

fn commands(input: &[u8]) -> Vec<Vec<Vec<u8>>> {
    let outcome = whole(input);
    assert_eq!((outcome.error, outcome.consumed), (None, input.len()), "{}", input.escape_ascii());
    let words = |command: &OwnedArgs| command.args().iter().map(<[u8]>::to_vec).collect();
    outcome.commands.iter().map(words).collect()
}

fn request(words: &[&[u8]]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        bytes.extend_from_slice(word);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

const PING: &[u8] = b"PING";

#[test]
fn commands_follow_one_another_in_either_form() {
    let input = b"*2\r\n$4\r\nECHO\r\n$0\r\n\r\nPING\r\nPING\n*1\r\n$4\r\nPING\r\n";
    let ping = vec![PING.to_vec()];
    assert_eq!(commands(input), [vec![b"ECHO".to_vec(), vec![]], ping.clone(), ping.clone(), ping]);
}

#[test]
fn an_empty_line_and_an_empty_array_are_nothing() {
    for nothing in [
        "\r\n",
        "\n",
        "  \r\n",
        "*0\r\n",
        "*-1\r\n",
        "*-5\r\n",
        "*-9223372036854775808\r\n",
        "\r\r\n",
    ] {
        let input = [nothing.as_bytes(), PING, b"\r\n"].concat();
        assert_eq!(commands(&input), [[PING]], "{nothing:?}");
    }
}

#[test]
fn what_ends_a_word_or_a_header_is_not_looked_at() {
    assert_eq!(commands(b"*1\r\n$4\r\nPINGxy*1\rX$4\rYPINGZZ"), [[PING], [PING]]);
}

#[test]
fn bytes_that_are_no_request_are_refused_in_the_servers_words() {
    for (input, text) in [
        (&b"*01\r\n"[..], "invalid multibulk length"),
        (b"*+1\r\n", "invalid multibulk length"),
        (b"*-0\r\n", "invalid multibulk length"),
        (b"*\r\n", "invalid multibulk length"),
        (b"*1 \r\n", "invalid multibulk length"),
        (b"*3000000000\r\n", "invalid multibulk length"),
        (b"*2147483648\r\n", "invalid multibulk length"),
        (b"*9223372036854775808\r\n", "invalid multibulk length"),
        (b"*1\r\nfoo\r\n", "expected '$', got 'f'"),
        (b"*1\r\n\r\n", "expected '$', got ' '"),
        (b"*1\r\n\nxx\r\n", "expected '$', got ' '"),
        (b"*1\r\n\x01\r\n", "expected '$', got '\u{1}'"),
        (b"*1\r\n\xff\r\n", "expected '$', got '\u{ff}'"),
        (b"*1\r\n$-1\r\n", "invalid bulk length"),
        (b"*1\r\n$\r\n", "invalid bulk length"),
        (b"*1\r\n$04\r\n", "invalid bulk length"),
        (b"*1\r\n$x\r\n", "invalid bulk length"),
        (b"*1\r\n$536870913\r\n", "invalid bulk length"),
        (b"*1\r\n$2000000000000\r\n", "invalid bulk length"),
        (b"ECHO \"a\nb\"\r\n", "unbalanced quotes in request"),
        (b"ECHO 'a'b\r\n", "unbalanced quotes in request"),
    ] {
        let error = whole(input).error.map(|error| error.to_string());
        assert_eq!(error.as_deref(), Some(text), "{}", input.escape_ascii());
    }
}

#[test]
fn a_header_that_has_not_ended_waits() {
    for input in ["*", "*1", "*1\r", "*2147483647\r\n", "*1\r\nfoo", "*1\r\n$4\r", "*1\n$4\nPING\n"]
    {
        let outcome = whole(input.as_bytes());
        assert_eq!((outcome.commands.len(), outcome.error), (0, None), "{input:?}");
    }
}

#[test]
fn a_line_has_a_limit_wherever_its_end_is() {
    let line = |start: &str, len: usize| [start.as_bytes(), &vec![b'1'; len]].concat();
    for (start, error) in [
        ("", ProtocolError::TooBigInline),
        ("\0", ProtocolError::TooBigInline),
        ("*", ProtocolError::TooBigMultibulkCount),
        ("*\0", ProtocolError::TooBigMultibulkCount),
        ("*1\r\n$", ProtocolError::TooBigBulkCount),
        ("*1\r\n\0", ProtocolError::TooBigBulkCount),
    ] {
        let before = start.rfind('\n').map_or(0, |at| at + 1);
        let longest = INLINE_BYTES_MAX - (start.len() - before);
        for pieces in [&[usize::MAX / 2][..], &[1000], &[1]] {
            let read = |input: &[u8]| read(input, pieces, Limits::default()).error;
            assert_eq!(read(&line(start, longest)), None, "{start:?}");
            assert_eq!(read(&line(start, longest + 1)), Some(error), "{start:?}");
            let ended = [&line(start, longest + 1)[..], b"\r\n"].concat();
            assert_eq!(read(&ended), Some(error), "{start:?}");
        }
    }
}

#[test]
fn nothing_ends_a_line_behind_a_null_character() {
    for input in [&b"PI\0NG\r\nPING\r\n"[..], b"*\x001\r\n", b"*1\r\n\0$4\r\n"] {
        for piece in [1, 100] {
            let outcome = read(input, &[piece], Limits::default());
            assert_eq!((outcome.commands.len(), outcome.error), (0, None));
        }
    }
}

#[test]
fn a_client_that_is_not_authenticated_may_ask_little() {
    let limits = Limits { unauthenticated: true, ..Limits::default() };
    for (input, text) in [
        ("*11\r\n", Some("unauthenticated multibulk length")),
        ("*10\r\n", None),
        ("*2147483648\r\n", Some("invalid multibulk length")),
        ("*1\r\n$16385\r\n", Some("unauthenticated bulk length")),
        ("*1\r\n$16384\r\n", None),
        ("*1\r\n$536870913\r\n", Some("invalid bulk length")),
    ] {
        let error = read(input.as_bytes(), &[1], limits).error.map(|error| error.to_string());
        assert_eq!(error.as_deref(), text, "{input:?}");
    }
}

#[test]
fn limits_change_between_requests() {
    let mut parser = RequestParser::new(Limits { args_max: 1, ..Limits::default() });
    assert!(matches!(parser.parse(b"*1\r\n$4\r\nPING\r\n"), Ok(Parsed::Command { .. })));
    assert_eq!(parser.parse(b"*2\r\n"), Err(ProtocolError::InvalidMultibulkLength));
    parser.set_limits(Limits { bulk_bytes_max: 3, ..Limits::default() });
    assert_eq!(parser.limits().bulk_bytes_max, 3);
    assert_eq!(parser.parse(b"*2\r\n$4\r\n"), Err(ProtocolError::InvalidBulkLength));
}

#[test]
fn a_request_is_refused_before_its_buffer_would_be_too_large() {
    let request = request(&[b"ECHO", &[b'x'; 100]]);
    let limit = |bytes: usize| Limits { request_bytes_max: bytes as u32, ..Limits::default() };
    assert_eq!(read(&request, &[1], limit(request.len())).commands.len(), 1);
    let refused = read(&request, &[1], limit(request.len() - 1));
    assert_eq!(refused.error, Some(ProtocolError::TooBigRequest));
    assert_eq!(whole(b"*3\r\n$536870912\r\n").error, None);
}

#[test]
fn a_large_word_says_how_much_of_it_is_missing() {
    let mut parser = RequestParser::new(Limits::default());
    let input = b"*2\r\n$4\r\nECHO\r\n$1000\r\nabc";
    assert_eq!(parser.parse(input), Ok(Parsed::Incomplete { at_least: 999 }));
    let input = [&input[..], &[b'x'; 500]].concat();
    assert_eq!(parser.parse(&input), Ok(Parsed::Incomplete { at_least: 499 }));
    let input = [&input[..], &[b'x'; 499]].concat();
    let Ok(Parsed::Command { args, consumed }) = parser.parse(&input) else {
        panic!("it is whole")
    };
    assert_eq!((args[1].len(), consumed), (1000, input.len()));
}

#[test]
fn a_promise_of_many_words_takes_no_memory() {
    let mut parser = RequestParser::new(Limits::default());
    let memory = allocation_counter::measure(|| {
        assert_eq!(parser.parse(b"*2147483647\r\n"), Ok(Parsed::Incomplete { at_least: 1 }));
    });
    assert_eq!(memory.count_total, 0);
}

#[test]
fn commands_after_the_first_allocate_nothing() {
    let set = request(&[b"SET", b"key", &[b'v'; 64]]);
    let mut parser = RequestParser::new(Limits::default());
    let memory = |parser: &mut RequestParser, input: &[u8]| {
        let measured = allocation_counter::measure(|| {
            assert!(matches!(parser.parse(input), Ok(Parsed::Command { .. })));
        });
        measured.count_total
    };
    memory(&mut parser, &set);
    assert_eq!(memory(&mut parser, &set), 0);
    memory(&mut parser, b"SET key value\r\n");
    assert_eq!(memory(&mut parser, b"SET key value\r\n"), 0);
}

#[test]
fn the_memory_of_a_large_command_is_given_back() {
    let words = vec![&b"x"[..]; 10_000];
    let line = [&vec![b'x'; 10_000][..], b"\r\n"].concat();
    let mut parser = RequestParser::new(Limits::default());
    for large in [request(&words), line] {
        assert!(matches!(parser.parse(&large), Ok(Parsed::Command { .. })));
        assert!(parser.memory_bytes() >= 10_000);
    }
    for input in [&b"PING\r\n"[..], b"PING\r\n"] {
        assert!(matches!(parser.parse(input), Ok(Parsed::Command { .. })));
    }
    assert!(parser.memory_bytes() <= 4096, "{}", parser.memory_bytes());
}

#[test]
fn a_large_request_in_small_pieces_is_read_once() {
    let words = vec![&[b'v'; 100][..]; 10_000];
    let request = request(&words);
    let mut parser = RequestParser::new(Limits::default());
    let mut read = 0;
    for arrived in 1..request.len() {
        assert!(matches!(parser.parse(&request[..arrived]), Ok(Parsed::Incomplete { .. })));
        assert!(parser.at >= read, "it never begins again");
        read = parser.at;
    }
    assert!(matches!(parser.parse(&request), Ok(Parsed::Command { .. })));
}

/// Input that is mostly requests, with some bytes changed.
fn inputs() -> impl Strategy<Value = Vec<u8>> {
    let word = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..20),
        prop::collection::vec(Just(b'v'), 1000..1100),
    ];
    let array = prop::collection::vec(word, 0..6)
        .prop_map(|words| request(&words.iter().map(Vec::as_slice).collect::<Vec<_>>()));
    let line = "[ a-z\"'\\\\]{0,20}\r?\n".prop_map(String::into_bytes);
    let part =
        prop_oneof![6 => array, 2 => line, 1 => "[*$0-9\r\n-]{0,9}".prop_map(String::into_bytes)];
    let noise = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..2);
    (prop::collection::vec(part, 0..8), noise).prop_map(|(parts, noise)| {
        let mut input = parts.concat();
        for (at, byte) in noise {
            if !input.is_empty() {
                let at = at.index(input.len());
                input[at] = byte;
            }
        }
        input
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn commands_are_the_same_however_the_input_is_cut(
        input in inputs(),
        pieces in prop::collection::vec(1usize..300, 1..10),
        unauthenticated: bool,
    ) {
        let limits = Limits { unauthenticated, ..Limits::default() };
        let whole = read(&input, &[usize::MAX / 2], limits);
        prop_assert_eq!(&read(&input, &pieces, limits), &whole);
        prop_assert_eq!(&read(&input, &[1], limits), &whole);
    }

    #[test]
    fn words_come_back_as_they_were_sent(
        sent in prop::collection::vec(
            prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 1..20), 1..10),
        pieces in prop::collection::vec(1usize..300, 1..10),
    ) {
        let commands: Vec<OwnedArgs> = sent
            .iter()
            .map(|words| OwnedArgs::from_words(words.iter().map(Vec::as_slice)))
            .collect();
        let input: Vec<u8> = commands
            .iter()
            .flat_map(|command| request(&command.args().iter().collect::<Vec<_>>()))
            .collect();
        let outcome = read(&input, &pieces, Limits::default());
        prop_assert_eq!(outcome, Outcome { commands, consumed: input.len(), error: None });
    }
}
