//! The store daemon, by Redis' own tools where they can tell, else by single commands.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sextant_resp::{encode_command, skip};
use sextant_tests::{Daemon, Kind, Options, command};

fn start(config: &str) -> Daemon {
    Daemon::start_with(Options { kind: Kind::Store, ..Options::config(config) })
}

/// What `redis-cli` prints for a command.
fn cli(addr: SocketAddr, words: &[&str]) -> String {
    let output = command("redis-cli")
        .args(["-h", &addr.ip().to_string(), "-p", &addr.port().to_string()])
        .args(words)
        .output()
        .unwrap();
    String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
}

/// A connection that says many commands before it hears.
struct Client {
    stream: TcpStream,
    heard: Vec<u8>,
}

impl Client {
    fn connect(addr: SocketAddr) -> Client {
        let stream = TcpStream::connect(addr).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        Client { stream, heard: Vec::new() }
    }

    /// A reply's bytes; none, if the connection has ended.
    fn reply(&mut self) -> Option<Vec<u8>> {
        loop {
            if let Some(length) = skip(&self.heard).unwrap() {
                return Some(self.heard.drain(..length).collect());
            }
            let mut chunk = [0; 16 << 10];
            match self.stream.read(&mut chunk) {
                Ok(count) if count > 0 => self.heard.extend_from_slice(&chunk[..count]),
                _ => return None,
            }
        }
    }

    fn say(&mut self, words: &[&[u8]]) -> Vec<u8> {
        let mut bytes = Vec::new();
        encode_command(&mut bytes, words.iter().copied());
        self.stream.write_all(&bytes).unwrap();
        self.reply().unwrap()
    }
}

#[test]
fn redis_cli_gets_what_it_has_set_of_each_type() {
    let daemon = start("");
    let addr = daemon.redis();
    let plays: &[(&[&str], &str)] = &[
        (&["SET", "greeting", "hello", "EX", "100"], "OK"),
        (&["GET", "greeting"], "hello"),
        (&["APPEND", "greeting", " world"], "11"),
        (&["RPUSH", "list", "a", "b", "c"], "3"),
        (&["LRANGE", "list", "0", "-1"], "a\nb\nc"),
        (&["HSET", "hash", "field", "value", "n", "1"], "2"),
        (&["HINCRBY", "hash", "n", "41"], "42"),
        (&["SADD", "set", "1", "2", "3"], "3"),
        (&["SISMEMBER", "set", "2"], "1"),
        (&["ZADD", "ranks", "1.5", "one", "2", "two"], "2"),
        (&["ZRANGE", "ranks", "0", "-1", "WITHSCORES"], "one\n1.5\ntwo\n2"),
        (&["XADD", "stream", "1-1", "field", "value"], "1-1"),
        (&["XRANGE", "stream", "-", "+"], "1-1\nfield\nvalue"),
        (&["TYPE", "ranks"], "zset"),
        (&["DBSIZE"], "6"),
    ];
    for (words, printed) in plays {
        assert_eq!(&cli(addr, words), printed, "{words:?}");
    }
}

#[test]
fn redis_benchmark_runs_all_its_tests() {
    let daemon = start("");
    let addr = daemon.redis();
    for pipeline in ["1", "16"] {
        let output = command("redis-benchmark")
            .args(["-h", &addr.ip().to_string(), "-p", &addr.port().to_string()])
            .args(["-n", "2000", "-r", "1000", "-P", pipeline, "--csv"])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let tests = said.lines().filter(|line| line.starts_with('"')).count();
        assert!(output.status.success() && tests > 15, "{said}");
        let complained = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!complained.contains("Error"), "{complained}");
    }
}

#[test]
fn nothing_that_was_acknowledged_is_lost_by_kill_9() {
    const AT_ONCE: usize = 64;
    let mut daemon = start("");
    for round in 0..3 {
        let addr = daemon.redis();
        let killed = AtomicBool::new(false);
        let acknowledged: Vec<u64> = std::thread::scope(|scope| {
            let writers: Vec<_> = (0..4u64)
                .map(|writer| {
                    let killed = &killed;
                    scope.spawn(move || write_until(addr, writer, round, AT_ONCE, killed))
                })
                .collect();
            std::thread::sleep(Duration::from_millis(700));
            daemon.kill();
            killed.store(true, Ordering::Release);
            writers.into_iter().map(|writer| writer.join().unwrap()).collect()
        });
        daemon.start_again();
        let mut client = Client::connect(daemon.redis());
        for (writer, count) in acknowledged.iter().enumerate() {
            assert!(*count > 0, "writer {writer} was acknowledged something");
            for number in 0..*count {
                let (key, value) = pair(writer as u64, round, number);
                let held = client.say(&[b"GET", key.as_bytes()]);
                let reply = format!("${}\r\n{value}\r\n", value.len());
                assert_eq!(held, reply.as_bytes(), "{key} was acknowledged");
            }
        }
    }
}

fn pair(writer: u64, round: u32, number: u64) -> (String, String) {
    (format!("{round}:{writer}:{number}"), format!("value {number} of {writer}"))
}

/// Writes keys until the connection ends; how many were acknowledged, from the first on.
fn write_until(addr: SocketAddr, writer: u64, round: u32, most: usize, killed: &AtomicBool) -> u64 {
    let mut client = Client::connect(addr);
    let (mut under_way, mut next, mut done) = (VecDeque::new(), 0, 0);
    loop {
        let mut bytes = Vec::new();
        while under_way.len() < most {
            let (key, value) = pair(writer, round, next);
            encode_command(&mut bytes, [&b"SET"[..], key.as_bytes(), value.as_bytes()]);
            under_way.push_back(next);
            next += 1;
        }
        let sent = client.stream.write_all(&bytes);
        match client.reply() {
            Some(reply) => {
                assert_eq!(reply, b"+OK\r\n");
                done = under_way.pop_front().unwrap() + 1;
            }
            None => return done,
        }
        if sent.is_err() && killed.load(Ordering::Acquire) && client.heard.is_empty() {
            return done;
        }
    }
}

#[test]
fn an_orderly_restart_keeps_everything_by_an_image() {
    const KEYS: u64 = 60_000;
    let mut daemon = start("[default]\ndurability = \"os\"\n");
    let mut client = Client::connect(daemon.redis());
    let value = [b'v'; 200];
    for number in 0..KEYS {
        let key = number.to_string();
        client.say(&[b"SET", key.as_bytes(), &value]);
    }
    for number in 0..300 {
        let member = format!("member {number}");
        client.say(&[b"ZADD", b"ranks", number.to_string().as_bytes(), member.as_bytes()]);
        client.say(&[b"RPUSH", b"list", member.as_bytes()]);
        client.say(&[b"HSET", b"hash", member.as_bytes(), b"1"]);
        client.say(&[b"SADD", b"set", member.as_bytes()]);
        client.say(&[b"XADD", b"stream", b"*", b"field", member.as_bytes()]);
    }
    client.say(&[b"APPEND", b"long", &vec![b'x'; 300_000]]);
    let looks: [&[&[u8]]; 7] = [
        &[b"DBSIZE"],
        &[b"ZRANGE", b"ranks", b"0", b"-1", b"WITHSCORES"],
        &[b"LRANGE", b"list", b"0", b"-1"],
        &[b"HGET", b"hash", b"member 77"],
        &[b"SCARD", b"set"],
        &[b"XRANGE", b"stream", b"-", b"+"],
        &[b"GET", b"long"],
    ];
    let before = looks.map(|words| client.say(words));
    daemon.stop();
    let image = daemon.data().join("instances/default/log/image");
    assert!(image.is_file(), "an image is left: {}", daemon.log());
    daemon.start_again();
    let mut client = Client::connect(daemon.redis());
    assert!(looks.map(|words| client.say(words)) == before, "all is as it was");
    assert!(daemon.log().contains("image=true"), "{}", daemon.log());
    // And behind the image the log goes on.
    client.say(&[b"SET", b"after", b"the image"]);
    daemon.kill();
    daemon.start_again();
    let mut client = Client::connect(daemon.redis());
    assert_eq!(client.say(&[b"GET", b"after"]), b"$9\r\nthe image\r\n");
    assert_eq!(client.say(&[b"LLEN", b"list"]), b":300\r\n");
}

#[test]
fn it_serves_on_epoll_and_on_unix_sockets_too() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("store.sock").display().to_string();
    for driver in ["io_uring", "epoll"] {
        let config = format!("driver = \"{driver}\"\n[default]\nunix_socket = \"{socket}\"\n");
        let mut daemon = start(&config);
        assert_eq!(cli(daemon.redis(), &["SET", "k", driver]), "OK");
        let output = command("redis-cli").args(["-s", &socket, "GET", "k"]).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim_end(), driver);
        daemon.stop();
    }
}
