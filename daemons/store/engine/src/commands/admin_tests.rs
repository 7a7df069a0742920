//! Settings, what an instance tells of itself, and what it does when memory is short.

use crate::client::ClientId;
use crate::commands::tests::Bench;

fn check(bench: &mut Bench, client: ClientId, plays: &[(&str, &str)]) {
    for (said, reply) in plays {
        assert_eq!(bench.say_as(client, said), reply.trim_end(), "{said}");
    }
}

#[test]
fn settings_are_told_and_changed_all_or_none() {
    let mut bench = Bench::new();
    let own = bench.client;
    check(
        &mut bench,
        own,
        &[
            ("CONFIG GET foo", "*0"),
            ("CONFIG GET maxmemory hz", "*4 $2 hz $2 10 $9 maxmemory $1 0"),
            (
                "CONFIG SET foo 1",
                "-ERR Unknown option or number of arguments for CONFIG SET - 'foo'",
            ),
            ("CONFIG SET maxmemory", "-ERR wrong number of arguments for 'config|set' command"),
            (
                "CONFIG SET maxmemory 1 maxmemory 2",
                "-ERR CONFIG SET failed (possibly related to argument 'maxmemory') - duplicate \
                 parameter",
            ),
            (
                "CONFIG SET maxmemory abc",
                "-ERR CONFIG SET failed (possibly related to argument 'maxmemory') - argument must \
                 be a memory value",
            ),
            (
                "CONFIG SET hz abc",
                "-ERR CONFIG SET failed (possibly related to argument 'hz') - argument couldn't be \
                 parsed into an integer",
            ),
            (
                "CONFIG SET slowlog-log-slower-than -5",
                "-ERR CONFIG SET failed (possibly related to argument 'slowlog-log-slower-than') - \
                 argument must be between -1 and 9223372036854775807 inclusive",
            ),
            (
                "CONFIG SET activedefrag maybe",
                "-ERR CONFIG SET failed (possibly related to argument 'activedefrag') - argument \
                 must be 'yes' or 'no'",
            ),
            (
                "CONFIG SET maxmemory-policy foo",
                "-ERR CONFIG SET failed (possibly related to argument 'maxmemory-policy') - \
                 argument(s) must be one of the following: volatile-lru, volatile-lfu, \
                 volatile-random, volatile-ttl, allkeys-lru, allkeys-lfu, allkeys-random, \
                 noeviction",
            ),
            (
                "CONFIG SET databases 4",
                "-ERR CONFIG SET failed (possibly related to argument 'databases') - can't set \
                 immutable config",
            ),
            (
                "CONFIG SET notify-keyspace-events Q",
                "-ERR CONFIG SET failed (possibly related to argument 'notify-keyspace-events') - \
                 Invalid event class character. Use 'Ag$lshzxeKEtmdn'.",
            ),
            ("CONFIG SET hz 20 maxmemory x", {
                "-ERR CONFIG SET failed (possibly related to argument 'maxmemory') - argument must \
                 be a memory value"
            }),
            ("CONFIG GET hz", "*2 $2 hz $2 10"),
            ("CONFIG SET maxmemory 10mb notify-keyspace-events KEA", "+OK"),
            ("CONFIG GET maxmemory", "*2 $9 maxmemory $8 10485760"),
            ("CONFIG GET notify-*", "*2 $22 notify-keyspace-events $3 AKE"),
            ("CONFIG SET list-max-ziplist-size 10", "+OK"),
            (
                "CONFIG GET list-max-*",
                "*4 $22 list-max-listpack-size $2 10 $21 list-max-ziplist-size $2 10",
            ),
        ],
    );
    let limit = "client-output-buffer-limit";
    let words: [&[u8]; 4] = [b"CONFIG", b"SET", limit.as_bytes(), b"pubsub 1mb 2mb 60"];
    assert_eq!(bench.say_words(own, &words), "+OK");
    assert_eq!(
        bench.say("CONFIG GET client-output-*"),
        format!(
            "*2 $26 {limit} $66 normal 0 0 0 slave 268435456 67108864 60 pubsub 1048576 2097152 60"
        )
    );
}

#[test]
fn slow_commands_and_errors_are_counted_and_kept() {
    let mut bench = Bench::new();
    let own = bench.client;
    bench.say("CONFIG SET slowlog-log-slower-than 0 latency-monitor-threshold 1");
    bench.say("CONFIG RESETSTAT");
    check(
        &mut bench,
        own,
        &[
            ("SLOWLOG RESET", "+OK"),
            ("SET k v", "+OK"),
            ("NOPE", "-ERR unknown command 'NOPE', with args beginning with:"),
            ("SLOWLOG GET 1", "*1 *6 :2 :1700000000 :0 *3 $3 SET $1 k $1 v $0  $0"),
            ("SLOWLOG GET -2", "-ERR count should be greater than or equal to -1"),
            ("LATENCY LATEST", "*0"),
            ("LATENCY RESET", ":0"),
            ("LATENCY HISTOGRAM set", "*2 $3 set *4 $5 calls :1 $14 histogram_usec *2 :1 :1"),
        ],
    );
    let info = bench.say("INFO commandstats errorstats stats keyspace");
    for part in [
        "cmdstat_set:calls=1,usec=0,usec_per_call=0.00,rejected_calls=0,failed_calls=0",
        "errorstat_ERR:count=2",
        "db0:keys=1,expires=0",
        "total_error_replies:2",
    ] {
        assert!(info.contains(part), "{part} {info}");
    }
    assert!(bench.say("INFO").contains("redis_version:7.2.0"));
}

#[test]
fn one_who_monitors_sees_what_others_do() {
    let mut bench = Bench::new();
    let watcher = bench.connect();
    assert_eq!(bench.say_as(watcher, "MONITOR"), "+OK");
    bench.say("SET k \"x\\\x01");
    bench.say("CONFIG GET hz");
    bench.say("AUTH secret");
    let line = "+1700000000.000000 [0 ] \"SET\" \"k\" \"\\\"x\\\\\\x01\"";
    assert_eq!(bench.hear(watcher), line);
    bench.say_as(watcher, "RESET");
    bench.say("GET k");
    assert_eq!(bench.hear(watcher), "");
}

#[test]
fn commands_tell_of_themselves() {
    let mut bench = Bench::new();
    let own = bench.client;
    check(
        &mut bench,
        own,
        &[
            ("COMMAND GETKEYS MSET a b c d", "*2 $1 a $1 c"),
            ("COMMAND GETKEYS PING", "-ERR The command has no key arguments"),
            ("COMMAND GETKEYS foo", "-ERR Invalid command specified"),
            ("COMMAND GETKEYS GET", "-ERR Invalid number of arguments specified for command"),
            ("COMMAND GETKEYSANDFLAGS GET a", "*1 *2 $1 a *2 +RO +access"),
            ("COMMAND LIST FILTERBY PATTERN mse*", "*2 $4 mset $6 msetnx"),
            ("COMMAND LIST FILTERBY module x", "*0"),
            (
                "COMMAND INFO get nope",
                "*2 *10 $3 get :2 *2 +readonly +fast :1 :1 :1 *3 +@read +@string +@fast *0 *1 *6 \
                 $5 flags *2 +RO +access $12 begin_search *4 $4 type $5 index $4 spec *2 $5 index \
                 :1 $9 find_keys *4 $4 type $5 range $4 spec *6 $7 lastkey :0 $7 keystep :1 $5 \
                 limit :0 *0 $-1",
            ),
            ("OBJECT ENCODING nokey", "$-1"),
            ("SET a 12", "+OK"),
            ("OBJECT ENCODING a", "$3 int"),
            ("OBJECT REFCOUNT a", ":1"),
            ("OBJECT IDLETIME a", ":0"),
            ("MEMORY USAGE nokey", "$-1"),
            ("WAIT 0 0", ":0"),
            ("WAITAOF 1 0 0", "*2 :1 :0"),
            ("WAIT 0 -1", "-ERR timeout is negative"),
            ("ROLE", "*3 $6 master :0 *0"),
            ("CLUSTER INFO", "-ERR This instance has cluster support disabled"),
            ("FAILOVER", "-ERR FAILOVER requires connected replicas."),
            ("DEBUG SLEEP 0", "+OK"),
        ],
    );
    bench.pass(7000);
    assert_eq!(bench.say("OBJECT IDLETIME a"), ":7");
    bench.say("CLIENT NO-TOUCH on");
    bench.say("GET a");
    assert_eq!(bench.say("OBJECT IDLETIME a"), ":7");
    bench.say("CLIENT NO-TOUCH off");
    bench.say("GET a");
    assert_eq!(bench.say("OBJECT IDLETIME a"), ":0");
    assert!(bench.say("OBJECT FREQ a").starts_with("-ERR An LFU maxmemory policy"));
    for said in ["COMMAND", "COMMAND DOCS", "CONFIG GET *", "CLIENT HELP", "MEMORY STATS"] {
        assert!(bench.say(said).len() > 100, "{said}");
    }
}

/// Fills an instance far past its memory; which of the first, used, and the later keys are left.
fn fill(policy: &str, expire: bool) -> (Bench, usize, usize) {
    let mut bench = Bench::new();
    let own = bench.client;
    let value = vec![b'x'; 1000];
    bench.say("SET first v");
    let limit = bench.engine.keys.memory_bytes() + (1 << 20);
    bench.say(&format!("CONFIG SET maxmemory {limit} maxmemory-policy {policy}"));
    let mut refused = 0;
    for n in 0..3000 {
        let key = format!("k{n}").into_bytes();
        let ttl = format!("{}", 1000 + n).into_bytes();
        let words: [&[u8]; 5] = [b"SET", &key, &value, b"EX", &ttl];
        let words = if expire { &words[..] } else { &words[..3] };
        refused += usize::from(bench.say_words(own, words).starts_with("-OOM"));
        bench.say("GET first");
        bench.pass(1000);
    }
    let over = bench.engine.keys.memory_bytes().saturating_sub(limit);
    assert!(over < 100_000, "{policy} is {over} bytes over");
    let left = bench.say("DBSIZE")[1..].parse().expect("a number");
    (bench, refused, left)
}

#[test]
fn keys_go_when_memory_is_short_and_those_in_use_stay() {
    for policy in ["allkeys-lru", "allkeys-lfu", "allkeys-random"] {
        let (mut bench, refused, left) = fill(policy, false);
        assert_eq!(refused, 0, "{policy}");
        assert!((300..1500).contains(&left), "{policy} {left}");
        assert_eq!(bench.engine.counts().evicted as usize + left, 3001, "{policy}");
        if policy != "allkeys-random" {
            assert_eq!(bench.say("GET first"), "$1 v", "{policy}");
        }
    }
}

#[test]
fn keys_that_expire_go_and_others_do_not() {
    for policy in ["volatile-lru", "volatile-lfu", "volatile-random", "volatile-ttl"] {
        let (mut bench, refused, left) = fill(policy, true);
        assert_eq!(refused, 0, "{policy}");
        assert!((300..1500).contains(&left), "{policy} {left}");
        assert_eq!(bench.say("GET first"), "$1 v", "{policy}");
        if policy == "volatile-ttl" {
            assert_eq!(bench.say("EXISTS k2999"), ":1");
        }
        let (_, refused, _) = fill(policy, false);
        assert!(refused > 1500, "{policy} has nothing to let go of");
    }
    let (mut bench, refused, _) = fill("noeviction", false);
    assert!(refused > 1500);
    assert_eq!(bench.say("SET x y"), "-OOM command not allowed when used memory > 'maxmemory'.");
    assert_eq!(bench.say("DEL k1"), ":1");
}
