//! What is answered here was taken from redis-server 7.0, but for what 7.2 answers otherwise.

use crate::commands::tests::Bench;

const TOO_LOW: &str =
    "-ERR The ID specified in XADD is equal or smaller than the target stream top item";
const NO_ID: &str = "-ERR Invalid stream ID specified as stream command argument";

fn play(bench: &mut Bench, plays: &[(&str, &str)]) {
    for (said, reply) in plays {
        assert_eq!(bench.say(said), *reply, "{said}");
    }
}

#[test]
fn entries_are_added_above_all_others() {
    play(
        &mut Bench::new(),
        &[
            ("XADD s * a", "-ERR wrong number of arguments for 'xadd' command"),
            ("XADD s * a b c", "-ERR wrong number of arguments for 'xadd' command"),
            ("XADD s NOMKSTREAM * a b", "$-1"),
            ("XADD s 0-0 a b", "-ERR The ID specified in XADD must be greater than 0-0"),
            ("XADD s 0-* a b", "$3 0-1"),
            ("XADD s 5-* a b", "$3 5-0"),
            ("XADD s 5-* a b", "$3 5-1"),
            ("XADD s 5 a b", TOO_LOW),
            ("XADD s 4-* a b", TOO_LOW),
            ("XADD s +06-01 a b", "$3 6-1"),
            ("XADD s 3-3-3 a b", NO_ID),
            ("XADD s - a b", NO_ID),
            ("XADD s (7 a b", NO_ID),
            ("XADD s 18446744073709551616 a b", NO_ID),
            ("XADD s * a b", "$15 1700000000000-0"),
            ("XADD s * a b", "$15 1700000000000-1"),
            (
                "XADD s 18446744073709551615-18446744073709551615 a b",
                "$41 18446744073709551615-18446744073709551615",
            ),
            (
                "XADD s * a b",
                "-ERR The stream has exhausted the last possible ID, unable to add more items",
            ),
            ("XLEN s", ":7"),
            ("TYPE s", "+stream"),
            ("SET str x", "+OK"),
            (
                "XADD str * a b",
                "-WRONGTYPE Operation against a key holding the wrong kind of value",
            ),
        ],
    );
}

#[test]
fn a_stream_is_cut_as_it_is_said() {
    let mut bench = Bench::new();
    bench.engine.keyspace().encoding.stream_node_entries_max = 5;
    for n in 1..=23 {
        bench.say(&format!("XADD s {n} f v"));
    }
    play(
        &mut bench,
        &[
            ("XTRIM s MAXLEN ~ 16", ":5"),
            ("XTRIM s MAXLEN ~ 3 LIMIT 7", ":5"),
            ("XTRIM s MAXLEN ~ 12 LIMIT 0", ":0"),
            ("XTRIM s MAXLEN = 12", ":1"),
            ("XTRIM s MINID ~ 16", ":4"),
            ("XTRIM s MINID 17-1", ":2"),
            ("XADD s MAXLEN 3 24 f v", "$4 24-0"),
            ("XRANGE s - + COUNT 1", "*1 *2 $4 22-0 *2 $1 f $1 v"),
            ("XTRIM s MAXLEN 0", ":3"),
            ("EXISTS s", ":1"),
            ("XTRIM none MAXLEN 0", ":0"),
            ("XTRIM s FOO 1", "-ERR syntax error"),
            ("XTRIM s MAXLEN -1", "-ERR The MAXLEN argument must be >= 0."),
            ("XTRIM s MAXLEN x", "-ERR value is not an integer or out of range"),
            ("XTRIM s MINID -", NO_ID),
            (
                "XTRIM s MAXLEN 5 LIMIT 3",
                "-ERR syntax error, LIMIT cannot be used without the special ~ option",
            ),
            ("XTRIM s MAXLEN ~ 5 LIMIT -3", "-ERR The LIMIT argument must be >= 0."),
            (
                "XTRIM s LIMIT 5",
                "-ERR syntax error, LIMIT cannot be used without specifying a trimming strategy",
            ),
            ("XTRIM s LIMIT 0", "-ERR syntax error, XTRIM must be called with a trimming strategy"),
            (
                "XTRIM s MAXLEN 5 MINID 3",
                "-ERR syntax error, MAXLEN and MINID options at the same time are not compatible",
            ),
        ],
    );
}

#[test]
fn ranges_are_told_in_either_direction() {
    let mut bench = Bench::new();
    for n in 1..=4 {
        bench.say(&format!("XADD s {n} f {n}"));
    }
    play(
        &mut bench,
        &[
            ("XRANGE s 2 (4-0", "*2 *2 $3 2-0 *2 $1 f $1 2 *2 $3 3-0 *2 $1 f $1 3"),
            ("XREVRANGE s + - COUNT 1", "*1 *2 $3 4-0 *2 $1 f $1 4"),
            ("XRANGE s 3 2", "*0"),
            ("XRANGE s - + COUNT 0", "*-1"),
            ("XRANGE none - + COUNT 0", "*0"),
            ("XRANGE s - + COUNT", "-ERR syntax error"),
            ("XRANGE none x +", NO_ID),
            ("XRANGE s (- +", NO_ID),
            ("XRANGE s - (0-0", "-ERR invalid end ID for the interval"),
            (
                "XRANGE s (18446744073709551615-18446744073709551615 +",
                "-ERR invalid start ID for the interval",
            ),
            ("XDEL s 2 9", ":1"),
            (
                "XSETID s 3-9",
                "-ERR The ID specified in XSETID is smaller than the target stream \
                              top item",
            ),
            (
                "XSETID s 9 ENTRIESADDED 2",
                "-ERR The entries_added specified in XSETID is smaller \
                                           than the target stream length",
            ),
            ("XSETID s 9 ENTRIESADDED 9 MAXDELETEDID 8", "+OK"),
            (
                "XSETID s 7",
                "-ERR The ID specified in XSETID is smaller than current \
                            max_deleted_entry_id",
            ),
            ("XSETID none 7", "-ERR no such key"),
            (
                "XINFO STREAM s",
                "*20 $6 length :3 $15 radix-tree-keys :1 $16 radix-tree-nodes :2 \
                $17 last-generated-id $3 9-0 $20 max-deleted-entry-id $3 8-0 $13 entries-added :9 \
                $23 recorded-first-entry-id $3 1-0 $6 groups :0 \
                $11 first-entry *2 $3 1-0 *2 $1 f $1 1 $10 last-entry *2 $3 4-0 *2 $1 f $1 4",
            ),
        ],
    );
}

#[test]
fn a_group_shares_entries_until_they_are_acknowledged() {
    let mut bench = Bench::new();
    play(
        &mut bench,
        &[
            (
                "XGROUP CREATE s g $",
                "-ERR The XGROUP subcommand requires the key to exist. Note that for CREATE you \
                 may want to use the MKSTREAM option to create an empty stream automatically.",
            ),
            ("XGROUP CREATE s g $ MKSTREAM", "+OK"),
            ("XGROUP CREATE s g 0", "-BUSYGROUP Consumer Group name already exists"),
            ("XADD s 1 f a", "$3 1-0"),
            ("XADD s 2 f b", "$3 2-0"),
            ("XADD s 3 f c", "$3 3-0"),
            (
                "XREADGROUP GROUP g x COUNT 2 STREAMS s >",
                "*1 *2 $1 s *2 *2 $3 1-0 *2 $1 f $1 a *2 $3 2-0 *2 $1 f $1 b",
            ),
            ("XREADGROUP GROUP g y STREAMS s >", "*1 *2 $1 s *1 *2 $3 3-0 *2 $1 f $1 c"),
            ("XREADGROUP GROUP g z STREAMS s >", "*-1"),
            ("XREADGROUP GROUP g z STREAMS s 0", "*1 *2 $1 s *0"),
            ("XDEL s 1", ":1"),
            (
                "XREADGROUP GROUP g x STREAMS s 0",
                "*1 *2 $1 s *2 *2 $3 1-0 *-1 *2 $3 2-0 *2 $1 f $1 b",
            ),
            ("XPENDING s g", "*4 :3 $3 1-0 $3 3-0 *2 *2 $1 x $1 2 *2 $1 y $1 1"),
            ("XPENDING s g - + 9 x", "*2 *4 $3 1-0 $1 x :0 :1 *4 $3 2-0 $1 x :0 :2"),
            ("XPENDING s g IDLE 1 - + 9", "*0"),
            ("XACK s g 2 9", ":1"),
            ("XACK s none 2", ":0"),
            (
                "XINFO GROUPS s",
                "*1 *12 $4 name $1 g $9 consumers :3 $7 pending :2 \
                $17 last-delivered-id $3 3-0 $12 entries-read :3 $3 lag :0",
            ),
            ("XGROUP DELCONSUMER s g x", ":1"),
            ("XGROUP CREATECONSUMER s g y", ":0"),
            ("XGROUP SETID s g 2 ENTRIESREAD -1", "+OK"),
            (
                "XINFO GROUPS s",
                "*1 *12 $4 name $1 g $9 consumers :2 $7 pending :1 \
                $17 last-delivered-id $3 2-0 $12 entries-read $-1 $3 lag :1",
            ),
            (
                "XREADGROUP GROUP none x STREAMS s >",
                "-NOGROUP No such key 's' or consumer group 'none' in XREADGROUP with GROUP option",
            ),
            (
                "XREADGROUP GROUP g x STREAMS s",
                "-ERR wrong number of arguments for 'xreadgroup' command",
            ),
            (
                "XREADGROUP GROUP g x STREAMS s t >",
                "-ERR Unbalanced 'xreadgroup' list of streams: for each stream key an ID or '>' \
                 must be specified.",
            ),
            ("XGROUP DESTROY s g", ":1"),
            ("XGROUP DESTROY s g", ":0"),
            ("XGROUP SETID s g 0", "-NOGROUP No such consumer group 'g' for key name 's'"),
            (
                "XGROUP CREATE s g 0 FOO",
                "-ERR unknown subcommand or wrong number of arguments for 'CREATE'. Try XGROUP \
                 HELP.",
            ),
        ],
    );
}

#[test]
fn what_waits_for_long_is_claimed() {
    let mut bench = Bench::new();
    bench.say("XGROUP CREATE s g 0 MKSTREAM");
    for n in 1..=5 {
        bench.say(&format!("XADD s {n} f v"));
    }
    bench.say("XREADGROUP GROUP g x STREAMS s >");
    bench.pass(100);
    play(
        &mut bench,
        &[
            ("XCLAIM s g y 101 1", "*0"),
            ("XCLAIM s g y 100 1 9", "*1 *2 $3 1-0 *2 $1 f $1 v"),
            ("XCLAIM s g y 0 2 JUSTID RETRYCOUNT 7 IDLE 30", "*1 $3 2-0"),
            ("XPENDING s g - + 2", "*2 *4 $3 1-0 $1 y :0 :2 *4 $3 2-0 $1 y :30 :7"),
            ("XDEL s 4", ":1"),
            ("XAUTOCLAIM s g z 50 - COUNT 1", "*3 $3 4-0 *1 *2 $3 3-0 *2 $1 f $1 v *0"),
            ("XAUTOCLAIM s g z 50 4 JUSTID", "*3 $3 0-0 *1 $3 5-0 *1 $3 4-0"),
            ("XAUTOCLAIM s g z 50 - COUNT 0", "-ERR COUNT must be > 0"),
            ("XAUTOCLAIM s g z x -", "-ERR Invalid min-idle-time argument for XAUTOCLAIM"),
            ("XCLAIM s g y 0 1 FOO", "-ERR Unrecognized XCLAIM option 'FOO'"),
            ("XCLAIM s none y 0 1", "-NOGROUP No such key 's' or consumer group 'none'"),
            ("XACK s g 1", ":1"),
            ("XCLAIM s g y 0 1", "*0"),
            ("XCLAIM s g y 0 1 FORCE JUSTID LASTID 7", "*1 $3 1-0"),
            (
                "XINFO CONSUMERS s g",
                "*3 *8 $4 name $1 x $7 pending :0 $4 idle :100 \
                $8 inactive :100 *8 $4 name $1 y $7 pending :2 $4 idle :0 $8 inactive :0 \
                *8 $4 name $1 z $7 pending :2 $4 idle :0 $8 inactive :0",
            ),
            (
                "XINFO STREAM s FULL COUNT 1",
                "*18 $6 length :4 $15 radix-tree-keys :1 \
                $16 radix-tree-nodes :2 $17 last-generated-id $3 5-0 $20 max-deleted-entry-id \
                $3 4-0 $13 entries-added :5 $23 recorded-first-entry-id $3 1-0 \
                $7 entries *1 *2 $3 1-0 *2 $1 f $1 v $6 groups *1 *14 $4 name $1 g \
                $17 last-delivered-id $3 7-0 $12 entries-read :5 $3 lag :0 $9 pel-count :4 \
                $7 pending *1 *4 $3 1-0 $1 y :1700000000100 :1 $9 consumers *3 \
                *10 $4 name $1 x $9 seen-time :1700000000000 $11 active-time :1700000000000 \
                $9 pel-count :0 $7 pending *0 \
                *10 $4 name $1 y $9 seen-time :1700000000100 $11 active-time :1700000000100 \
                $9 pel-count :2 $7 pending *1 *3 $3 1-0 :1700000000100 :1 \
                *10 $4 name $1 z $9 seen-time :1700000000100 $11 active-time :1700000000100 \
                $9 pel-count :2 $7 pending *1 *3 $3 3-0 :1700000000100 :2",
            ),
        ],
    );
}

#[test]
fn a_reader_waits_for_what_comes_after_it_began_to() {
    let mut bench = Bench::new();
    let (reader, other) = (bench.connect(), bench.connect());
    bench.say("XADD s 1 f old");
    assert_eq!(bench.say_as(reader, "XREAD BLOCK 1000 STREAMS s t $ $"), "");
    // What is no entry above the end ends nothing, and does not prolong the waiting.
    bench.pass(400);
    bench.say("XDEL s 1");
    bench.say("XGROUP CREATE s g 0");
    bench.say("XGROUP CREATE t g 0 MKSTREAM");
    bench.say("DEL t");
    assert_eq!(bench.hear(reader), "");
    assert_eq!(bench.engine.deadline(), Some(1_700_000_001_000));
    bench.say("XADD s 2 f new");
    assert_eq!(bench.hear(reader), "*1 *2 $1 s *1 *2 $3 2-0 *2 $1 f $3 new");
    assert_eq!(
        bench.say_as(reader, "XREAD COUNT 1 STREAMS s 0"),
        "*1 *2 $1 s *1 *2 $3 2-0 *2 $1 f $3 new"
    );
    assert_eq!(bench.say_as(reader, "XREAD BLOCK 50 STREAMS s 2"), "");
    bench.pass(50);
    bench.engine.tick();
    assert_eq!(bench.hear(reader), "*-1");
    bench.say_as(other, "MULTI");
    bench.say_as(other, "XREAD BLOCK 0 STREAMS s $");
    assert_eq!(bench.say_as(other, "EXEC"), "*1 *-1");
    assert_eq!(bench.say("XREAD BLOCK -1 STREAMS s $"), "-ERR timeout is negative");
    assert_eq!(
        bench.say("XREAD STREAMS s >"),
        "-ERR The > ID can be specified only when calling XREADGROUP using the GROUP <group> \
         <consumer> option."
    );
    bench.engine.output(reader).expect("it is there").resp3 = true;
    assert_eq!(
        bench.say_as(reader, "XREAD STREAMS none s 0 0"),
        "%1 $1 s *1 *2 $3 2-0 *2 $1 f $3 new"
    );
    assert_eq!(bench.say_as(reader, "XREAD STREAMS s 5"), "_");
}

#[test]
fn consumers_that_wait_get_an_entry_each_and_are_told_when_their_group_is_gone() {
    let mut bench = Bench::new();
    let (one, two) = (bench.connect(), bench.connect());
    bench.say("XGROUP CREATE s g 0 MKSTREAM");
    bench.say_as(one, "XREADGROUP GROUP g x BLOCK 0 STREAMS s >");
    bench.say_as(two, "XREADGROUP GROUP g y BLOCK 0 STREAMS s >");
    bench.say("XADD s 1 f a");
    assert_eq!(bench.hear(one), "*1 *2 $1 s *1 *2 $3 1-0 *2 $1 f $1 a");
    assert_eq!(bench.hear(two), "");
    bench.say("XADD s 2 f b");
    assert_eq!(bench.hear(two), "*1 *2 $1 s *1 *2 $3 2-0 *2 $1 f $1 b");
    assert_eq!(bench.say("XPENDING s g"), "*4 :2 $3 1-0 $3 2-0 *2 *2 $1 x $1 1 *2 $1 y $1 1");
    const GONE: &str =
        "-NOGROUP No such key 's' or consumer group 'g' in XREADGROUP with GROUP option";
    bench.say_as(one, "XREADGROUP GROUP g x BLOCK 0 STREAMS s >");
    bench.say("XGROUP DESTROY s g");
    assert_eq!(bench.hear(one), GONE);
    bench.say("XGROUP CREATE s g $");
    bench.say_as(one, "XREADGROUP GROUP g x BLOCK 0 STREAMS s >");
    bench.say("DEL s");
    assert_eq!(bench.hear(one), GONE);
    bench.say("XGROUP CREATE s g $ MKSTREAM");
    bench.say_as(two, "XREADGROUP GROUP g x BLOCK 0 STREAMS s >");
    bench.say("SET s x");
    assert_eq!(
        bench.hear(two),
        "-WRONGTYPE Operation against a key holding the wrong kind of value"
    );
}
