//! An engine without a core: the model that keeps no log, and a look at what was restored.

use std::collections::BTreeMap;

use sextant_engine::{ClientId, Engine, Options, Peer};
use sextant_resp::{OwnedArgs, ReplyLimits, ReplyParser, Value};

use crate::client::{Words, words};
use crate::rig::DATABASES;

/// Everything in all databases: by database and key, the type, the value and the time to expire.
pub(crate) type Dump = BTreeMap<(usize, Vec<u8>), (Value, Value, Value)>;

pub(crate) struct Local {
    engine: Engine,
    client: ClientId,
}

impl Local {
    /// An engine that remembers nothing.
    pub(crate) fn model(unix_ms: u64) -> Local {
        let options = Options { seed: 1, databases: DATABASES, journal: false, clock: || 0 };
        let mut engine = Engine::new(&options);
        engine.set_now(unix_ms);
        Local::over(engine)
    }

    pub(crate) fn over(mut engine: Engine) -> Local {
        let client = engine.connect(Peer::default());
        Local { engine, client }
    }

    pub(crate) fn into_engine(mut self) -> Engine {
        self.engine.disconnect(self.client);
        self.engine
    }

    pub(crate) fn set_now(&mut self, unix_ms: u64) {
        self.engine.set_now(unix_ms);
    }

    pub(crate) fn run(&mut self, command: &Words) -> Value {
        let args = OwnedArgs::from_words(command.iter().map(Vec::as_slice));
        self.engine.execute(self.client, args.args());
        let mut parser = ReplyParser::new(ReplyLimits::default());
        let output = self.engine.output(self.client).expect("it is connected");
        output.take(|bytes| parser.push(&bytes));
        parser.next_reply().expect("a reply can be read").expect("there is one")
    }

    pub(crate) fn ask(&mut self, text: &str) -> Value {
        self.run(&words(text))
    }

    pub(crate) fn dump(&mut self) -> Dump {
        let mut dump = Dump::new();
        for db in 0..DATABASES {
            self.ask(&format!("SELECT {db}"));
            let Value::Array(keys) = self.ask("KEYS *") else { panic!("keys are an array") };
            for key in keys {
                let key = key.as_bytes().expect("a key is a string").to_vec();
                let mut ask = |command: &[&str]| {
                    let mut command = command.to_vec();
                    let rest = command.split_off(1);
                    let mut all = vec![command[0].as_bytes().to_vec(), key.clone()];
                    all.extend(rest.iter().map(|word| word.as_bytes().to_vec()));
                    self.run(&all)
                };
                let (kind, expire) = (ask(&["TYPE"]), ask(&["PEXPIRETIME"]));
                let value = match kind.as_bytes().expect("a type is a word") {
                    b"string" => ask(&["GET"]),
                    b"hash" => sorted(ask(&["HGETALL"]), 2),
                    b"set" => sorted(ask(&["SMEMBERS"]), 1),
                    b"list" => ask(&["LRANGE", "0", "-1"]),
                    b"zset" => ask(&["ZRANGE", "0", "-1", "WITHSCORES"]),
                    b"stream" => ask(&["XRANGE", "-", "+"]),
                    // Its time came between the two questions.
                    _ => continue,
                };
                dump.insert((db, key), (kind, value, expire));
            }
        }
        self.ask("SELECT 0");
        dump
    }
}

/// The same in an order that does not depend on how it is kept.
fn sorted(value: Value, together: usize) -> Value {
    let Value::Array(values) = value else { return value };
    let bytes = |value: &Value| value.as_bytes().expect("a string").to_vec();
    let mut groups: Vec<Vec<Vec<u8>>> =
        values.chunks(together).map(|group| group.iter().map(bytes).collect()).collect();
    groups.sort();
    Value::Array(groups.into_iter().flatten().map(|word| Value::Bulk(word.into())).collect())
}
