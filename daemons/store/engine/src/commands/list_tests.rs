//! Lists, sorted sets and places as a client sees them; the replies are those of redis-server.

use super::tests::Bench;

fn check(plays: &[(&str, &str)]) {
    let mut bench = Bench::new();
    for (said, reply) in plays {
        assert_eq!(bench.say(said), reply.trim_end(), "{said}");
    }
}

#[test]
fn lists_are_pushed_popped_and_read() {
    const BELOW: &str = "-ERR value is out of range, must be positive";
    check(&[
        ("RPUSH k a b c", ":3"),
        ("LPUSH k 1", ":4"),
        ("LPUSHX no x", ":0"),
        ("LRANGE k 0 -1", "*4 $1 1 $1 a $1 b $1 c"),
        ("LPOP k abc", BELOW),
        ("LPOP k 0", "*0"),
        ("LPOP k 1 2", "-ERR wrong number of arguments for 'lpop' command"),
        ("LPOP no 5", "*-1"),
        ("RPOP no", "$-1"),
        ("LINDEX k -1", "$1 c"),
        ("LSET k 0 one", "+OK"),
        ("LSET k 9 x", "-ERR index out of range"),
        ("LSET no 0 x", "-ERR no such key"),
        ("LINSERT k AFTER a x", ":5"),
        ("LINSERT k BEFORE zz x", ":-1"),
        ("LPOS k x", ":2"),
        ("LPOS k x RANK -1 COUNT 0", "*1 :2"),
        ("LPOS k x MAXLEN 2", "$-1"),
        ("LREM k 0 x", ":1"),
        ("LTRIM k 1 -1", "+OK"),
        ("LMOVE k l RIGHT LEFT", "$1 c"),
        ("RPOPLPUSH k l", "$1 b"),
        ("LMPOP 2 no k LEFT COUNT 5", "*2 $1 k *1 $1 a"),
        ("EXISTS k", ":0"),
        ("LMPOP 0 k LEFT", "-ERR numkeys should be greater than 0"),
        ("LLEN l", ":2"),
        ("GET l", "-WRONGTYPE Operation against a key holding the wrong kind of value"),
    ]);
}

#[test]
fn members_are_added_ranked_and_taken_by_score() {
    check(&[
        ("ZADD z 1 a 2 b 2.5 c", ":3"),
        ("ZADD z NX XX 1 a", "-ERR XX and NX options at the same time are not compatible"),
        ("ZADD z GT CH 0 a 5 b", ":1"),
        ("ZADD z INCR 1 a b", "-ERR syntax error"),
        ("ZADD z NX INCR 1 a", "$-1"),
        ("ZINCRBY z 0.5 a", "$3 1.5"),
        ("ZRANGE z 0 -1 WITHSCORES", "*6 $1 a $3 1.5 $1 c $3 2.5 $1 b $1 5"),
        ("ZRANGE z 5 2 BYSCORE REV LIMIT 0 1", "*1 $1 b"),
        ("ZRANGEBYSCORE z (1.5 +inf", "*2 $1 c $1 b"),
        ("ZREVRANK z b", ":0"),
        ("ZRANK z b WITHSCORE", "*2 :2 $1 5"),
        ("ZRANK z no WITHSCORE", "*-1"),
        ("ZCOUNT z 1 (5", ":2"),
        ("ZCOUNT z x 5", "-ERR min or max is not a float"),
        ("ZLEXCOUNT z x 5", "-ERR min or max not valid string range item"),
        ("ZMSCORE z a no", "*2 $3 1.5 $-1"),
        ("ZPOPMIN z", "*2 $1 a $3 1.5"),
        ("ZADD y 10 b 20 d", ":2"),
        ("ZUNION 2 z y WEIGHTS 1 2 WITHSCORES", "*6 $1 c $3 2.5 $1 b $2 25 $1 d $2 40"),
        ("ZINTERCARD 2 z y LIMIT 1", ":1"),
        ("ZDIFFSTORE w 2 z y", ":1"),
        ("ZINTER 0 z", "-ERR at least 1 input key is needed for 'zinter' command"),
        ("ZRANGESTORE v z 0 0", ":1"),
        ("ZREMRANGEBYRANK z 0 -1", ":2"),
        ("EXISTS z", ":0"),
        ("ZMPOP 2 z v MAX COUNT 2", "*2 $1 v *1 *2 $1 c $3 2.5"),
        ("ZSCAN w 0", "*2 $1 0 *2 $1 c $3 2.5"),
    ]);
}

#[test]
fn places_are_found_around_others() {
    check(&[
        ("GEOADD g 13.361389 38.115556 p 15.087269 37.502669 c", ":2"),
        ("GEOADD g 200 2 m", "-ERR invalid longitude,latitude pair 200.000000,2.000000"),
        ("GEODIST g p c", "$11 166274.1516"),
        ("GEODIST g p c mi", "$8 103.3182"),
        ("GEOHASH g p no", "*2 $11 sqc8b49rny0 $-1"),
        ("GEOPOS g p", "*1 *2 $20 13.36138933897018433 $20 38.11555639549629859"),
        (
            "GEOSEARCH g FROMLONLAT 15 37 BYBOX 400 400 km ASC WITHDIST WITHHASH",
            "*2 *3 $1 c $7 56.4413 :3479447370796909 *3 $1 p $8 190.4424 :3479099956230698",
        ),
        ("GEORADIUS g 15 37 200 km DESC COUNT 1", "*1 $1 p"),
        ("GEORADIUS g 15 37 200 km STOREDIST d", ":2"),
        ("ZSCORE d c", "$16 56.4412578701582"),
        ("GEOSEARCH g FROMMEMBER x BYRADIUS 1 km", "-ERR could not decode requested zset member"),
        (
            "geosearch g BYRADIUS 1 km ASC ASC",
            "-ERR exactly one of FROMMEMBER or FROMLONLAT can be specified for geosearch",
        ),
    ]);
}

#[test]
fn who_waits_for_a_list_gets_an_element_in_turn() {
    let mut bench = Bench::new();
    let (first, second, mover) = (bench.connect(), bench.connect(), bench.connect());
    assert_eq!(bench.say_as(first, "BLPOP k l 0"), "");
    assert_eq!(bench.say_as(second, "BRPOP l 0"), "");
    assert_eq!(bench.say_as(mover, "BLMOVE m l LEFT LEFT 0"), "");
    assert_eq!(bench.say("RPUSH l a"), ":1");
    assert_eq!(bench.hear(first), "*2 $1 l $1 a");
    assert_eq!((bench.hear(second), bench.say("EXISTS l")), (String::new(), ":0".to_owned()));
    // What one moves is what another waits for.
    assert_eq!(bench.say("RPUSH m x y"), ":2");
    assert_eq!((bench.hear(mover), bench.hear(second)), ("$1 x".into(), "*2 $1 l $1 x".into()));
    assert_eq!((bench.say("EXISTS l"), bench.say("LLEN m")), (":0".into(), ":1".into()));
    // What a transaction takes away again was never there.
    assert_eq!(bench.say_as(first, "BLMPOP 0 1 k LEFT COUNT 2"), "");
    for said in ["MULTI", "RPUSH k 1", "DEL k", "EXEC"] {
        bench.say(said);
    }
    assert_eq!(bench.hear(first), "");
    // Another type is none to wake up for.
    assert_eq!(bench.say("SET k v"), "+OK");
    assert_eq!((bench.hear(first), bench.say("DEL k")), (String::new(), ":1".into()));
    for said in ["MULTI", "RPUSH k 1", "RPUSH k 2 3", "EXEC"] {
        bench.say(said);
    }
    assert_eq!(bench.hear(first), "*2 $1 k *2 $1 1 $1 2");
}

#[test]
fn who_waits_gives_up_in_time_and_not_at_all_in_a_transaction() {
    let mut bench = Bench::new();
    let (one, other) = (bench.connect(), bench.connect());
    assert_eq!(bench.say_as(one, "BLMOVE a b LEFT LEFT 1.5"), "");
    assert_eq!(bench.say_as(other, "BZPOPMIN z y 2"), "");
    bench.pass(1499);
    while bench.engine.tick() {}
    assert_eq!(bench.hear(one), "");
    bench.pass(1);
    while bench.engine.tick() {}
    assert_eq!((bench.hear(one), bench.hear(other)), ("*-1".into(), String::new()));
    assert_eq!(bench.say("ZADD y 7 m 8 n"), ":2");
    assert_eq!(bench.hear(other), "*3 $1 y $1 m $1 7");
    assert_eq!(bench.say_as(other, "BZMPOP 0 2 z y MAX"), "*2 $1 y *1 *2 $1 n $1 8");
    let waits = ["BLPOP a 0", "BLMOVE a b LEFT RIGHT 0", "BLMPOP 0 1 a LEFT", "BZPOPMAX z 0"];
    bench.say("MULTI");
    assert!(waits.iter().all(|said| bench.say(said) == "+QUEUED"));
    assert_eq!(bench.say("EXEC"), "*4 *-1 $-1 *-1 *-1");
    assert_eq!(bench.say("BLPOP a -1"), "-ERR timeout is negative");
    assert_eq!(bench.say("BLPOP a x"), "-ERR timeout is not a float or out of range");
    assert_eq!(bench.say("BLPOP a 1e30"), "-ERR timeout is out of range");
}

#[test]
fn scores_are_numbers_in_the_third_version() {
    let mut bench = Bench::new();
    bench.say("HELLO 3");
    let plays = [
        ("ZADD z 1.5 a 2 b", ":2"),
        ("ZSCORE z a", ",1.5"),
        ("ZSCORE z no", "_"),
        ("ZRANGE z 0 -1 WITHSCORES", "*2 *2 $1 a ,1.5 *2 $1 b ,2"),
        ("ZPOPMIN z", "*2 $1 a ,1.5"),
        ("ZPOPMIN z 3", "*1 *2 $1 b ,2"),
        ("LPOP no 1", "_"),
        ("ZMPOP 1 z MIN", "_"),
        ("GEOADD g 13.361389 38.115556 p", ":1"),
        ("GEOPOS g p no", "*2 *2 ,13.36138933897018433 ,38.11555639549629859 _"),
    ];
    for (said, reply) in plays {
        assert_eq!(bench.say(said), reply, "{said}");
    }
}
