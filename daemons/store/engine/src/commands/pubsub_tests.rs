//! What is told to clients that did not just ask: messages, notifications, invalidations; and what
//! CLIENT does to them.

use crate::client::ClientId;
use crate::commands::tests::Bench;
use crate::engine::Next;

fn check(bench: &mut Bench, client: ClientId, plays: &[(&str, &str)]) {
    for (said, reply) in plays {
        assert_eq!(bench.say_as(client, said), reply.trim_end(), "{said}");
    }
}

#[test]
fn messages_reach_channels_and_patterns_and_a_subscribed_connection_has_few_commands() {
    let mut bench = Bench::new();
    let (own, other) = (bench.client, bench.connect());
    check(
        &mut bench,
        own,
        &[
            ("UNSUBSCRIBE", "*3 $11 unsubscribe $-1 :0"),
            (
                "SUBSCRIBE a b a",
                "*3 $9 subscribe $1 a :1 *3 $9 subscribe $1 b :2 *3 $9 subscribe $1 a :2",
            ),
            ("PSUBSCRIBE a*", "*3 $10 psubscribe $2 a* :3"),
            ("SSUBSCRIBE s", "*3 $10 ssubscribe $1 s :1"),
            (
                "GET x",
                "-ERR Can't execute 'get': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / \
                 RESET are allowed in this context",
            ),
            ("PING", "*2 $4 pong $0"),
            ("PING hi", "*2 $4 pong $2 hi"),
        ],
    );
    check(
        &mut bench,
        other,
        &[
            ("PUBLISH a hello", ":2"),
            ("PUBLISH s hello", ":0"),
            ("SPUBLISH s hello", ":1"),
            ("PUBSUB CHANNELS", "*2 $1 a $1 b"),
            ("PUBSUB NUMSUB a x", "*4 $1 a :1 $1 x :0"),
            ("PUBSUB NUMPAT", ":1"),
            ("PUBSUB SHARDNUMSUB s", "*2 $1 s :1"),
            (
                "PUBSUB CHANNELS a b",
                "-ERR unknown subcommand or wrong number of arguments for 'CHANNELS'. Try PUBSUB \
                 HELP.",
            ),
        ],
    );
    assert_eq!(bench.engine.next_told().map(|(id, _)| id), Some(own));
    assert_eq!(
        bench.hear(own),
        "*3 $7 message $1 a $5 hello *4 $8 pmessage $2 a* $1 a $5 hello *3 $8 smessage $1 s $5 hello"
    );
    check(
        &mut bench,
        own,
        &[
            ("UNSUBSCRIBE a zz", "*3 $11 unsubscribe $1 a :2 *3 $11 unsubscribe $2 zz :2"),
            ("PUNSUBSCRIBE", "*3 $12 punsubscribe $2 a* :1"),
            ("RESET", "+RESET"),
            ("GET x", "$-1"),
            ("PUBSUB CHANNELS", "*0"),
        ],
    );
}

#[test]
fn a_push_stands_behind_the_reply_and_what_is_long_is_shared() {
    let mut bench = Bench::new();
    let own = bench.client;
    bench.say("HELLO 3");
    assert_eq!(bench.say("SUBSCRIBE a"), ">3 $9 subscribe $1 a :1");
    assert_eq!(bench.say("GET x"), "_");
    assert_eq!(bench.say("PUBLISH a x"), ":1 >3 $7 message $1 a $1 x");
    let other = bench.connect();
    bench.say_as(other, "SUBSCRIBE a");
    let long = vec![b'x'; 100_000];
    let third = bench.connect();
    assert_eq!(bench.say_words(third, &[b"PUBLISH", b"a", &long]), ":2");
    let mut pieces = Vec::new();
    for id in [own, other] {
        let output = bench.engine.output(id).expect("it is connected");
        output.take(|piece| pieces.extend((piece.len() == long.len()).then(|| piece.as_ptr())));
    }
    assert_eq!(pieces.len(), 2);
    assert_eq!(pieces[0], pieces[1]);
}

#[test]
fn who_does_not_take_its_messages_is_disconnected() {
    let mut bench = Bench::new();
    let slow = bench.connect();
    bench.say_as(slow, "SUBSCRIBE a");
    let long = vec![b'x'; 10 << 20];
    for _ in 0..4 {
        let client = bench.client;
        bench.say_words(client, &[b"PUBLISH", b"a", &long]);
    }
    let (id, executed) = bench.engine.next_told().expect("it was told");
    assert_eq!((id, executed.next), (slow, Next::Close));
    assert!(bench.engine.output(slow).expect("it is connected").is_empty());
}

#[test]
fn news_of_keys_are_published_once_they_are_durable() {
    let mut bench = Bench::new();
    let hears = bench.connect();
    assert!(bench.engine.notices.set(b"KEA"));
    bench.say_as(hears, "PSUBSCRIBE __key*@0__:*");
    bench.engine.keyspace().set_batch(7);
    bench.say("SET k v");
    assert_eq!(
        bench.hear(hears),
        "*4 $8 pmessage $12 __key*@0__:* $16 __keyspace@0__:k $3 set \
         *4 $8 pmessage $12 __key*@0__:* $18 __keyevent@0__:set $1 k"
    );
    assert_eq!(bench.engine.next_told().map(|(id, told)| (id, told.gate)), Some((hears, 7)));
}

#[test]
fn a_reader_is_told_once_when_a_key_changes() {
    let mut bench = Bench::new();
    let other = bench.connect();
    let own = bench.client;
    bench.say("HELLO 3");
    check(
        &mut bench,
        own,
        &[
            ("CLIENT TRACKING on", "+OK"),
            ("GET a", "_"),
            ("CLIENT GETREDIR", ":0"),
            ("CLIENT TRACKINGINFO", "%3 $5 flags ~1 $2 on $8 redirect :0 $8 prefixes *0"),
        ],
    );
    bench.say_as(other, "SET a 1");
    bench.say_as(other, "SET a 2");
    assert_eq!(bench.hear(own), ">2 $10 invalidate *1 $1 a");
    bench.say("GET a");
    assert_eq!(bench.say("SET a 3"), "+OK >2 $10 invalidate *1 $1 a");
    bench.say_as(other, "FLUSHALL");
    assert_eq!(bench.hear(own), ">2 $10 invalidate _");
    bench.say("CLIENT TRACKING off");
    bench.say("GET a");
    bench.say_as(other, "SET a 1");
    assert_eq!(bench.hear(own), "");
    assert!(bench.engine.tracked.is_off());
}

#[test]
fn tracking_has_its_modes() {
    let mut bench = Bench::new();
    let (own, other) = (bench.client, bench.connect());
    bench.say("HELLO 3");
    check(
        &mut bench,
        own,
        &[
            ("CLIENT TRACKING on prefix a", "-ERR PREFIX option requires BCAST mode to be enabled"),
            (
                "CLIENT TRACKING on bcast optin",
                "-ERR OPTIN and OPTOUT are not compatible with BCAST",
            ),
            (
                "CLIENT TRACKING on bcast prefix foo prefix fo",
                "-ERR Prefix 'foo' overlaps with another provided prefix 'fo'. Prefixes for a \
                 single client must not overlap.",
            ),
            (
                "CLIENT TRACKING on redirect 99",
                "-ERR The client ID you want redirect to does not exist",
            ),
            ("CLIENT TRACKING on bcast noloop prefix a prefix b", "+OK"),
            (
                "CLIENT TRACKING on bcast prefix ab",
                "-ERR Prefix 'ab' overlaps with an existing prefix 'a'. Prefixes for a single \
                 client must not overlap.",
            ),
            ("SET a1 x", "+OK"),
        ],
    );
    bench.say_as(other, "MSET a1 1 a2 2 c 3 b 4");
    assert_eq!(bench.hear(own), ">2 $10 invalidate *2 $2 a1 $2 a2 >2 $10 invalidate *1 $1 b");
    check(
        &mut bench,
        own,
        &[
            ("CLIENT TRACKING off", "+OK"),
            (
                "CLIENT CACHING yes",
                "-ERR CLIENT CACHING can be called only when the client is in tracking mode with \
                 OPTIN or OPTOUT mode enabled",
            ),
            ("CLIENT TRACKING on optin", "+OK"),
            ("GET a", "_"),
            ("CLIENT CACHING yes", "+OK"),
            ("GET b", "$1 4"),
            ("GET c", "$1 3"),
        ],
    );
    bench.say_as(other, "MSET a 1 b 1 c 1");
    assert_eq!(bench.hear(own), ">2 $10 invalidate *1 $1 b");
}

#[test]
fn another_connection_hears_of_changes_until_it_is_gone() {
    let mut bench = Bench::new();
    let (own, hears, other) = (bench.client, bench.connect(), bench.connect());
    bench.say_as(hears, "SUBSCRIBE __redis__:invalidate");
    assert_eq!(bench.say(&format!("CLIENT TRACKING on redirect {}", hears.0)), "+OK");
    bench.say("GET a");
    bench.say_as(other, "SET a 1");
    assert_eq!(bench.hear(hears), "*3 $7 message $20 __redis__:invalidate *1 $1 a");
    bench.say("HELLO 3");
    bench.say("GET a");
    bench.engine.disconnect(hears);
    bench.say_as(other, "SET a 1");
    assert_eq!(bench.hear(own), format!(">2 $21 tracking-redir-broken :{}", hears.0));
}

#[test]
fn the_table_of_readers_is_bounded() {
    let mut bench = Bench::new();
    bench.say("HELLO 3");
    bench.say("CLIENT TRACKING on");
    bench.engine.tracked.keys_max = 10;
    for n in 0..100 {
        let reply = bench.say(&format!("GET k{n}"));
        let expected = match n {
            0..10 => "_".to_owned(),
            _ => format!("_ >2 $10 invalidate *1 $2 k{}", n - 10).replace("$2 k10", "$3 k10"),
        };
        assert!(reply == expected || n > 20, "{n} {reply}");
        assert!(bench.engine.tracked.counts().0 <= 10);
    }
}

#[test]
fn clients_are_named_listed_and_killed() {
    let mut bench = Bench::new();
    let (own, other) = (bench.client, bench.connect());
    check(
        &mut bench,
        own,
        &[
            ("CLIENT ID", ":1"),
            ("CLIENT GETNAME", "$-1"),
            (
                "CLIENT SETNAME a\nb",
                "-ERR Client names cannot contain spaces, newlines or special characters.",
            ),
            ("CLIENT SETNAME me", "+OK"),
            ("CLIENT GETNAME", "$2 me"),
            ("CLIENT SETINFO lib-name x", "+OK"),
            ("CLIENT SETINFO foo x", "-ERR Unrecognized option 'foo'"),
            ("CLIENT KILL x:1", "-ERR No such client"),
            ("CLIENT KILL ID 0", "-ERR client-id should be greater than 0"),
            ("CLIENT KILL ID 99", ":0"),
            ("CLIENT KILL TYPE foo", "-ERR Unknown client type 'foo'"),
            ("CLIENT KILL USER nobody", "-ERR No such user 'nobody'"),
            ("CLIENT KILL ID 1 TYPE", "-ERR syntax error"),
            ("CLIENT KILL ID 1", ":0"),
            ("CLIENT LIST ID 1 x", "-ERR Invalid client ID"),
            ("CLIENT LIST TYPE pubsub", "$0"),
            ("CLIENT PAUSE -1", "-ERR timeout is negative"),
            ("CLIENT PAUSE 1 foo", "-ERR CLIENT PAUSE mode must be WRITE or ALL"),
            ("CLIENT UNBLOCK 99", ":0"),
            ("CLIENT KILL ID 2", ":1"),
        ],
    );
    let list = bench.say("CLIENT LIST");
    assert!(list.contains("name=me") && list.contains("cmd=client|list"), "{list}");
    let told = bench.engine.next_told().map(|(id, told)| (id, told.next));
    assert_eq!(told, Some((other, Next::Close)));
}

#[test]
fn a_pause_holds_up_who_writes() {
    let mut bench = Bench::new();
    let other = bench.connect();
    bench.say("CLIENT PAUSE 1000 WRITE");
    assert_eq!(bench.say_as(other, "GET k"), "$-1");
    assert_eq!(bench.say_as(other, "SET k v"), "");
    assert!(bench.engine.is_waiting(other));
    assert_eq!(bench.engine.deadline(), Some(bench.engine.keys.now() + 1000));
    bench.pass(999);
    bench.engine.tick();
    assert!(bench.engine.is_waiting(other));
    bench.say("CLIENT UNPAUSE");
    bench.engine.tick();
    assert!(!bench.engine.is_waiting(other));
    assert_eq!(bench.hear(other), "+OK");
    let told = bench.engine.next_told().map(|(id, told)| (id, told.next));
    assert_eq!(told, Some((other, Next::Ready)));
    assert_eq!(bench.say("GET k"), "$1 v");
}

#[test]
fn replies_are_left_out_where_they_are_not_wanted() {
    let mut bench = Bench::new();
    let own = bench.client;
    check(
        &mut bench,
        own,
        &[
            ("CLIENT REPLY SKIP", ""),
            ("SET k v", ""),
            ("GET k", "$1 v"),
            ("CLIENT REPLY OFF", ""),
            ("SET k w", ""),
            ("NOPE", ""),
            ("CLIENT REPLY ON", "+OK"),
            ("GET k", "$1 w"),
        ],
    );
}
