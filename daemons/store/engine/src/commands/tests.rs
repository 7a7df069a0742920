//! A client's view of the engine, without a connection.

use sextant_resp::OwnedArgs;

use crate::client::{ClientId, Peer};
use crate::engine::{Engine, Next, Options};

/// An engine with a client.
pub(crate) struct Bench {
    pub(crate) engine: Engine,
    pub(crate) client: ClientId,
}

impl Bench {
    pub(crate) fn new() -> Bench {
        let options = Options { seed: 42, databases: 16, journal: true, clock: || 0 };
        let mut engine = Engine::new(&options);
        engine.set_now(1_700_000_000_000);
        let client = engine.connect(Peer::default());
        Bench { engine, client }
    }

    /// Another client.
    pub(crate) fn connect(&mut self) -> ClientId {
        self.engine.connect(Peer::default())
    }

    /// Says a command, its words between spaces; the reply's lines, joined by spaces.
    pub(crate) fn say(&mut self, command: &str) -> String {
        self.say_as(self.client, command)
    }

    pub(crate) fn say_as(&mut self, client: ClientId, command: &str) -> String {
        let words: Vec<&[u8]> = command.split(' ').map(str::as_bytes).collect();
        self.say_words(client, &words)
    }

    pub(crate) fn say_words(&mut self, client: ClientId, words: &[&[u8]]) -> String {
        let command = OwnedArgs::from_words(words.iter().copied());
        self.engine.execute(client, command.args());
        self.hear(client)
    }

    /// What was sent to a client since.
    pub(crate) fn hear(&mut self, client: ClientId) -> String {
        let mut sent = Vec::new();
        let output = self.engine.output(client).expect("the client is there");
        output.take(|bytes| sent.extend_from_slice(&bytes));
        let text = String::from_utf8_lossy(&sent).into_owned();
        text.trim_end().replace("\r\n", " ")
    }

    /// Says commands, a word `""` being an empty one, and compares what is heard.
    pub(crate) fn play(&mut self, plays: &[(&str, &str)]) {
        for (said, reply) in plays {
            assert_eq!(self.say_quoted(said), *reply, "{said}");
        }
    }

    /// The same where elements may come in another order.
    pub(crate) fn play_in_any_order(&mut self, plays: &[(&str, &str)]) {
        let sorted = |reply: &str| {
            let mut words: Vec<String> = reply.split(' ').map(str::to_owned).collect();
            words.sort();
            words
        };
        for (said, reply) in plays {
            assert_eq!(sorted(&self.say_quoted(said)), sorted(reply), "{said}");
        }
    }

    fn say_quoted(&mut self, said: &str) -> String {
        let words = said.split(' ').map(|text| if text == "\"\"" { "" } else { text });
        let words: Vec<&[u8]> = words.map(str::as_bytes).collect();
        self.say_words(self.client, &words)
    }

    pub(crate) fn pass(&mut self, ms: u64) {
        let now = self.engine.keys.now();
        self.engine.set_now(now + ms);
    }
}

#[test]
fn strings_are_set_and_got() {
    let mut bench = Bench::new();
    let plays = [
        ("GET k", "$-1"),
        ("SET k v", "+OK"),
        ("GET k", "$1 v"),
        ("SET k w NX", "$-1"),
        ("SET k w XX GET", "$1 v"),
        ("APPEND k xyz", ":4"),
        ("GETRANGE k -3 -2", "$2 xy"),
        ("SETRANGE k 6 !", ":7"),
        ("STRLEN k", ":7"),
        ("INCR k", "-ERR value is not an integer or out of range"),
        ("INCRBY n 41", ":41"),
        ("INCR n", ":42"),
        ("INCRBYFLOAT n 0.5", "$4 42.5"),
        ("MSET a 1 b 2 c", "-ERR wrong number of arguments for 'mset' command"),
        ("MSET a 1 b 2", "+OK"),
        ("MGET a x b", "*3 $1 1 $-1 $1 2"),
        ("MSETNX b 3 d 4", ":0"),
        ("GETDEL a", "$1 1"),
        ("EXISTS a b n n", ":3"),
        ("SET k v EX 0", "-ERR invalid expire time in 'set' command"),
        ("SET k v EX 10 PX 10", "-ERR syntax error"),
        ("NOPE a b", "-ERR unknown command 'NOPE', with args beginning with: 'a' 'b' "),
        ("GET", "-ERR wrong number of arguments for 'get' command"),
    ];
    for (said, reply) in plays {
        assert_eq!(bench.say(said), reply.trim_end(), "{said}");
    }
}

#[test]
fn a_key_whose_time_has_come_is_gone_for_whoever_looks() {
    let mut bench = Bench::new();
    bench.say("SET k v PX 100");
    assert_eq!(bench.say("PTTL k"), ":100");
    assert_eq!(bench.say("TTL k"), ":0");
    bench.pass(99);
    assert_eq!(bench.say("GET k"), "$1 v");
    bench.pass(1);
    assert_eq!(bench.say("GET k"), "$-1");
    assert_eq!(bench.say("TTL k"), ":-2");
    bench.say("SET j v PX 100");
    bench.say("PERSIST j");
    bench.pass(1000);
    assert_eq!((bench.say("TTL j"), bench.say("DBSIZE")), (":-1".into(), ":1".into()));
    // Nobody has to look.
    bench.say("SET i v PX 100");
    bench.pass(100);
    while bench.engine.tick() {}
    assert_eq!((bench.say("DBSIZE"), bench.engine.counts().expired), (":1".into(), 2));
}

#[test]
fn a_transaction_is_done_as_a_whole_or_not_at_all() {
    let mut bench = Bench::new();
    let other = bench.connect();
    bench.say("WATCH k");
    assert_eq!(bench.say("MULTI"), "+OK");
    assert_eq!(bench.say("SET k 1"), "+QUEUED");
    assert_eq!(bench.say("INCR k"), "+QUEUED");
    assert_eq!(bench.say("EXEC"), "*2 +OK :2");
    bench.say("WATCH k");
    bench.say_as(other, "SET k 9");
    bench.say("MULTI");
    bench.say("SET k 1");
    assert_eq!(bench.say("EXEC"), "*-1");
    bench.say("MULTI");
    assert_eq!(bench.say("NOPE"), "-ERR unknown command 'NOPE', with args beginning with:");
    assert_eq!(bench.say("EXEC"), "-EXECABORT Transaction discarded because of previous errors.");
    assert_eq!(bench.say("GET k"), "$1 9");
    assert_eq!(bench.say("EXEC"), "-ERR EXEC without MULTI");
}

#[test]
fn a_scan_goes_through_all_keys() {
    let mut bench = Bench::new();
    for n in 0..1000 {
        bench.say(&format!("SET key:{n} v"));
    }
    let (mut cursor, mut keys) = ("0".to_owned(), std::collections::HashSet::new());
    for _ in 0..1000 {
        let reply = bench.say(&format!("SCAN {cursor} COUNT 20 MATCH key:*"));
        let words: Vec<&str> = reply.split(' ').collect();
        cursor = words[2].to_owned();
        keys.extend(words[4..].iter().filter(|w| w.starts_with("key:")).map(ToString::to_string));
        if cursor == "0" {
            break;
        }
    }
    assert_eq!((cursor.as_str(), keys.len()), ("0", 1000));
    assert_eq!(bench.say("KEYS key:99?").split(' ').count(), 21);
    assert_eq!(bench.say("SWAPDB 0 1"), "+OK");
    assert_eq!(bench.say("DBSIZE"), ":0");
    assert_eq!(bench.say("SELECT 1"), "+OK");
    assert_eq!(bench.say("FLUSHALL"), "+OK");
    assert_eq!(bench.say("DBSIZE"), ":0");
}

#[test]
fn a_reply_says_which_batch_it_depends_on() {
    let mut bench = Bench::new();
    let execute = |bench: &mut Bench, words: &[&[u8]]| {
        let command = OwnedArgs::from_words(words.iter().copied());
        let other = bench.connect();
        let executed = bench.engine.execute(other, command.args());
        assert_eq!(executed.next, Next::Ready);
        executed.gate
    };
    bench.engine.keyspace().set_batch(5);
    assert_eq!(execute(&mut bench, &[b"SET", b"k", b"v"]), 5);
    bench.engine.keyspace().set_batch(6);
    assert_eq!(execute(&mut bench, &[b"GET", b"k"]), 5, "what it saw is in that batch");
    assert_eq!(execute(&mut bench, &[b"GET", b"other"]), 0);
    assert_eq!(execute(&mut bench, &[b"PING"]), 0);
}
