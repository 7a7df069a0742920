//! Paths of store: commands from their bytes to their replies, a thousand keys in turn. What a
//! connection costs besides is not in them.

use sextant_engine::{Engine, Options, Peer};
use sextant_resp::{Limits, Parsed, RequestParser, encode_command};

const KEYS: u64 = 1000;
const VALUE: [u8; 64] = [7; 64];
/// Commands between two looks at what they left.
const TOGETHER: u64 = 16;

fn commands(words: impl Fn(&[u8], &mut Vec<u8>)) -> Vec<u8> {
    let mut bytes = Vec::new();
    for number in 0..KEYS {
        words(format!("key:{number:012}").as_bytes(), &mut bytes);
    }
    bytes
}

/// Executes commands one after the other, from the first again behind the last.
fn execute(times: u64, bytes: &[u8]) {
    let mut engine = Engine::new(&Options { seed: 1, databases: 16, journal: true, clock: || 0 });
    engine.set_now(1_700_000_000_000);
    let client = engine.connect(Peer::default());
    let sets = commands(|key, to| encode_command(to, [&b"SET"[..], key, &VALUE]));
    run(&mut engine, client, KEYS, &sets);
    run(&mut engine, client, times, bytes);
}

fn run(engine: &mut Engine, client: sextant_engine::ClientId, times: u64, bytes: &[u8]) {
    let mut parser = RequestParser::new(Limits::default());
    let mut at = 0;
    for number in 0..times {
        let Ok(Parsed::Command { args, consumed }) = parser.parse(&bytes[at..]) else {
            panic!("a whole command");
        };
        engine.execute(client, args);
        at = (at + consumed) % bytes.len();
        if number % TOGETHER == TOGETHER - 1 {
            let output = engine.output(client).expect("the client is there");
            assert!(!output.bytes().starts_with(b"-"), "no command is refused");
            output.clear();
            engine.keyspace().journal().clear();
        }
    }
}

pub(crate) fn set(times: u64) {
    execute(times, &commands(|key, to| encode_command(to, [&b"SET"[..], key, &VALUE])));
}

pub(crate) fn get(times: u64) {
    execute(times, &commands(|key, to| encode_command(to, [&b"GET"[..], key])));
}
