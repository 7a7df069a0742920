//! What a command costs: an ignored test that prints it.

use std::time::Instant;

use sextant_resp::{Limits, Parsed, RequestParser, encode_command};

use crate::client::Peer;
use crate::engine::{Engine, Options};

/// `cargo nextest run --release -p sextant-engine --run-ignored only measure_commands --no-capture`
#[test]
#[ignore = "a measurement"]
fn measure_commands() {
    const KEYS: usize = 1000;
    const ROUNDS: usize = 2000;
    for journal in [false, true] {
        let mut engine = Engine::new(&Options { seed: 1, databases: 16, journal, clock: || 0 });
        engine.set_now(1_700_000_000_000);
        let client = engine.connect(Peer::default());
        let value = [b'v'; 64];
        let (mut sets, mut gets) = (Vec::new(), Vec::new());
        for n in 0..KEYS {
            let key = format!("key:{n:012}");
            encode_command(&mut sets, [&b"SET"[..], key.as_bytes(), &value]);
            encode_command(&mut gets, [&b"GET"[..], key.as_bytes()]);
        }
        for (name, bytes) in [("SET", &sets), ("GET", &gets)] {
            let mut parser = RequestParser::new(Limits::default());
            let began = Instant::now();
            for _ in 0..ROUNDS {
                let mut at = 0;
                while at < bytes.len() {
                    let Ok(Parsed::Command { args, consumed }) = parser.parse(&bytes[at..]) else {
                        panic!("a command")
                    };
                    engine.execute(client, args);
                    at += consumed;
                }
                engine.output(client).expect("it is there").clear();
                engine.keyspace().journal().clear();
            }
            let each = began.elapsed().as_nanos() / (KEYS * ROUNDS) as u128;
            println!("{name}, journal {journal}: {each} ns");
        }
    }
}
