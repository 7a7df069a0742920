//! Beside a redis-server of Debian: what it saves is read as it says its values are, and what is
//! written here it loads as it was. Without that program there is nothing to compare with.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use sextant_rdb::{
    Elements, Header, Item, Reader, Stream, StreamId, Value as Held, Writer, dump, restore,
};
use sextant_resp::{ReplyLimits, ReplyParser, Value, encode_command};

struct Server {
    child: Child,
    stream: UnixStream,
    replies: ReplyParser,
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself, which is as well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    /// In this folder, from its `dump.rdb` if there is one. None without the program.
    fn start(dir: &Path) -> Option<Server> {
        let socket = dir.join("socket");
        let child = Command::new("redis-server")
            .current_dir(dir)
            .args(["--port", "0", "--unixsocket", "socket", "--save", "", "--appendonly", "no"])
            .args(["--enable-debug-command", "yes"])
            .stdout(Stdio::null())
            .spawn()
            .ok()?;
        let until = Instant::now() + Duration::from_secs(20);
        let stream = loop {
            match UnixStream::connect(&socket) {
                Ok(stream) => break stream,
                Err(error) => assert!(Instant::now() < until, "no server: {error}"),
            }
            std::thread::yield_now();
        };
        let mut server =
            Server { child, stream, replies: ReplyParser::new(ReplyLimits::default()) };
        while matches!(server.call(&["PING"]), Value::Error(_)) {
            assert!(Instant::now() < until, "the server loads for too long");
        }
        Some(server)
    }

    fn call<W: AsRef<[u8]>>(&mut self, words: &[W]) -> Value {
        let mut request = Vec::new();
        encode_command(&mut request, words.iter());
        self.stream.write_all(&request).expect("the server reads");
        let mut buffer = [0; 64 << 10];
        loop {
            if let Some(reply) = self.replies.next_reply().expect("it speaks the protocol") {
                return reply;
            }
            let read = self.stream.read(&mut buffer).expect("the server answers");
            assert!(read > 0, "the server has gone");
            self.replies.push(&buffer[..read]);
        }
    }

    /// A command of words between spaces, which must not fail.
    fn run(&mut self, line: &str) -> Value {
        let words: Vec<&str> = line.split(' ').collect();
        let reply = self.call(&words);
        assert!(!matches!(reply, Value::Error(_)), "{line}: {reply:?}");
        reply
    }

    fn strings(&mut self, words: &[&[u8]]) -> Vec<Bytes> {
        strings(self.call(words))
    }
}

fn strings(reply: Value) -> Vec<Bytes> {
    let Value::Array(items) = reply else { panic!("not an array: {reply:?}") };
    items
        .into_iter()
        .map(|item| match item {
            Value::Bulk(text) | Value::Simple(text) => text,
            other => panic!("not a string: {other:?}"),
        })
        .collect()
}

fn pairs(words: &[Bytes]) -> BTreeMap<Bytes, Bytes> {
    words.chunks(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect()
}

/// Every type in every encoding that the server has of it.
fn fill(server: &mut Server) {
    server.run("SET int 12345");
    server.run("SET negative -7");
    server.run("SET wide 9223372036854775807");
    server.run("SET text hello");
    server.run(&format!("SET long {}", "abcabcabd".repeat(5000)));
    server.run("SET empty ");
    server.run("SET expires soon PXAT 4102444800123");
    for (count, name) in [(20, "small"), (3000, "large")] {
        for n in 0..count {
            let text = format!("element-{n}-{}", "x".repeat(n % 90));
            server.run(&format!("RPUSH list-{name} {text}"));
            server.run(&format!("RPUSH numbers-{name} {}", (n as i64 - 7) << (n % 50)));
            server.run(&format!("SADD set-{name} {text}"));
            server.run(&format!("SADD ints-{name} {}", n * 7919));
            server.run(&format!("HSET hash-{name} field-{n} {text}"));
            server.run(&format!("ZADD zset-{name} {}.5 {text}", n as i64 - 10));
            server.run(&format!("XADD stream-{name} {}-{n} name {text} other {n}", n + 1));
        }
    }
    server.run("SADD wide-ints 1 70000 9223372036854775807 -9223372036854775808");
    server.run("HSET listpack a 1 b -1 c 5000 d -5000 e 100000 f -10000000 g 4000000000 h x");
    server.run(&format!("HSET listpack i {}", "y".repeat(60)));
    server.run("ZADD scores inf a -inf b 0.1 c 1e300 d -0 e 17 f");
    server.run("DEBUG QUICKLIST-PACKED-THRESHOLD 200b");
    server.run(&format!("RPUSH list-plain short {} 17 {}", "p".repeat(300), "q".repeat(9000)));
    server.run("DEBUG QUICKLIST-PACKED-THRESHOLD 0");
    server.run("XADD mixed 5-1 a 1 b 2");
    server.run("XADD mixed 5-2 a 3 b 4");
    server.run("XADD mixed 5-3 c 5");
    server.run(&format!("XADD mixed 18446744073709551615-1 a {} c 5", "z".repeat(5000)));
    server.run("XDEL mixed 5-2");
    server.run("XGROUP CREATE mixed none $ ENTRIESREAD 2");
    server.run("XGROUP CREATE stream-large readers 0");
    server.run("XREADGROUP GROUP readers one COUNT 700 STREAMS stream-large >");
    server.run("XREADGROUP GROUP readers two COUNT 5 STREAMS stream-large >");
    server.run("XGROUP CREATECONSUMER stream-large readers idle");
    server.run("XACK stream-large readers 3-2");
    server.run("XADD gone 1-1 a b");
    server.run("XTRIM gone MAXLEN 0");
    server.call(&[
        "FUNCTION",
        "LOAD",
        "#!lua name=l\nredis.register_function('f', function() end)",
    ]);
    server.run("SELECT 9");
    server.run("SET elsewhere 1 EX 100000");
    server.run("SELECT 0");
}

struct File {
    keys: Vec<(Header, Held)>,
    functions: Vec<Bytes>,
    done: bool,
}

fn read(bytes: &[u8], piece: usize) -> File {
    let mut file = File { keys: Vec::new(), functions: Vec::new(), done: false };
    let mut reader = Reader::new();
    for piece in bytes.chunks(piece) {
        reader.push(piece);
        while let Some(item) = reader.next().expect("the file is sound") {
            match item {
                Item::Begin(header) => {
                    let value = Held::empty(header.kind).expect("no modules here");
                    file.keys.push((header, value));
                }
                Item::Elements(elements) => {
                    let (_, value) = file.keys.last_mut().expect("a key is begun");
                    assert!(value.extend(elements), "elements are of the key's kind");
                }
                Item::Function(source) => file.functions.push(source),
                Item::Done => file.done = true,
                _ => {}
            }
        }
    }
    reader.finish().expect("the file is whole");
    file
}

fn compare(server: &mut Server, header: &Header, value: &Held) {
    server.run(&format!("SELECT {}", header.db));
    let key = &header.key[..];
    let expire = i64::try_from(header.expire_ms.unwrap_or(u64::MAX)).unwrap_or(-1);
    assert_eq!(server.call(&[b"PEXPIRETIME", key]), Value::Int(expire));
    match value {
        Held::Text(text) => assert_eq!(server.call(&[b"GET", key]), Value::Bulk(text.clone())),
        Held::List(list) => {
            assert_eq!(&server.strings(&[b"LRANGE", key, b"0", b"-1"]), list);
        }
        Held::Set(set) => {
            let (mut mine, mut its) = (set.clone(), server.strings(&[b"SMEMBERS", key]));
            mine.sort();
            its.sort();
            assert_eq!(mine, its);
        }
        Held::Hash(hash) => {
            let its = pairs(&server.strings(&[b"HGETALL", key]));
            assert_eq!((its.len(), hash.iter().cloned().collect()), (hash.len(), its));
        }
        Held::ZSet(zset) => {
            let its = pairs(&server.strings(&[b"ZRANGE", key, b"0", b"-1", b"WITHSCORES"]));
            assert_eq!(its.len(), zset.len());
            for (member, score) in zset {
                let its = std::str::from_utf8(&its[member]).expect("a score is text");
                assert_eq!(its.parse(), Ok(*score));
            }
        }
        Held::Stream(stream) => compare_stream(server, key, stream),
    }
}

fn text(id: StreamId) -> String {
    format!("{}-{}", id.ms, id.seq)
}

fn compare_stream(server: &mut Server, key: &[u8], stream: &Stream) {
    let Value::Array(its) = server.call(&[b"XRANGE", key, b"-", b"+"]) else {
        panic!("a range is an array");
    };
    let mine = stream.entries.iter().map(|entry| {
        let fields = entry.fields.iter().flat_map(|(name, value)| [name, value]);
        let fields = fields.map(|word| Value::Bulk(word.clone())).collect();
        Value::Array(vec![Value::Bulk(text(entry.id).into()), Value::Array(fields)])
    });
    assert_eq!(mine.collect::<Vec<_>>(), its);
    let said = format!("{:?}", server.call(&[&b"XINFO"[..], b"STREAM", key]));
    for told in [
        format!("b\"length\"), Int({})", stream.state.len),
        format!("b\"last-generated-id\"), Bulk(b\"{}\")", text(stream.state.last_id)),
        format!("b\"max-deleted-entry-id\"), Bulk(b\"{}\")", text(stream.state.max_deleted)),
        format!("b\"entries-added\"), Int({})", stream.state.added),
        format!("b\"groups\"), Int({})", stream.groups.len()),
    ] {
        assert!(said.contains(&told), "{told} is not in {said}");
    }
}

/// What the server says of groups and consumers, with every time.
fn groups(server: &mut Server) -> String {
    let mut said = String::new();
    for key in ["stream-large", "mixed", "stream-small", "gone"] {
        let words = ["XINFO", "STREAM", key, "FULL", "COUNT", "0"];
        let Value::Array(items) = server.call(&words) else { panic!("not an array") };
        // How its nodes lie is its own.
        let told = items.chunks(2).filter(|pair| !format!("{:?}", pair[0]).contains("radix"));
        said.push_str(&format!("{:?}\n", told.collect::<Vec<_>>()));
    }
    said
}

fn write(file: &File) -> Vec<u8> {
    let mut out = Vec::new();
    let mut writer = Writer::new(&mut out);
    writer.aux(b"redis-ver", b"7.2.0", &mut out);
    for source in &file.functions {
        writer.function(source, &mut out).expect("a source is short");
    }
    for (number, (header, value)) in file.keys.iter().enumerate() {
        let pieces = match value {
            Held::List(list) if number % 2 == 0 => list.chunks(100),
            _ => [].chunks(1),
        };
        if pieces.len() == 0 {
            writer.key(header, value, &mut out).expect("what was read can be written");
            continue;
        }
        let Held::List(list) = value else { unreachable!("only a list has pieces") };
        writer.begin(header, list.len() as u64, &mut out).expect("a list can be begun");
        for piece in pieces {
            let piece = Elements::List(piece.to_vec());
            writer.elements(&piece, &mut out).expect("the list is as long");
        }
        writer.end().expect("all pieces are there");
    }
    writer.finish(&mut out).expect("all keys are ended");
    out
}

#[test]
fn what_a_server_saves_is_read_and_what_is_written_it_loads() {
    let dir = tempfile::tempdir().expect("a folder");
    let Some(mut server) = Server::start(dir.path()) else { return };
    fill(&mut server);
    server.run("SAVE");
    let saved = std::fs::read(dir.path().join("dump.rdb")).expect("the server saved");
    let file = read(&saved, 1 << 20);
    assert_eq!((file.done, file.functions.len()), (true, 1));
    assert_eq!(file.keys.len(), 28);
    assert_eq!(read(&saved, 7).keys, file.keys);
    for (header, value) in &file.keys {
        compare(&mut server, header, value);
    }
    server.run("SELECT 0");

    let other = tempfile::tempdir().expect("a folder");
    std::fs::write(other.path().join("dump.rdb"), write(&file)).expect("room for a file");
    let mut loaded = Server::start(other.path()).expect("the program was there before");
    assert_eq!(loaded.run("DEBUG DIGEST"), server.run("DEBUG DIGEST"));
    assert_eq!(loaded.run("FUNCTION LIST"), server.run("FUNCTION LIST"));
    assert_eq!(groups(&mut loaded), groups(&mut server));
}

#[test]
fn a_value_passes_between_servers_by_dump_and_restore() {
    let dir = tempfile::tempdir().expect("a folder");
    let Some(mut server) = Server::start(dir.path()) else { return };
    fill(&mut server);
    server.run("PERSIST expires");
    for key in server.strings(&[b"KEYS", b"*"]) {
        let Value::Bulk(its) = server.call(&[b"DUMP", &key[..]]) else { panic!("no payload") };
        let value = restore(&its).expect("the server's payload is sound");
        let mine = dump(&value).expect("what was read can be written");
        let reply = server.call(&[&b"RESTORE"[..], b"copy", b"0", &mine[..], b"REPLACE"]);
        assert_eq!(reply, Value::Simple("OK".into()), "{key:?}");
        let digests = strings(server.call(&[&b"DEBUG"[..], b"DIGEST-VALUE", &key[..], b"copy"]));
        assert_eq!(digests[0], digests[1], "{key:?}");
    }
}
