//! What SORT answers, as Redis answered the same words.

use sextant_keyspace::Side;

use crate::commands::tests::Bench;

fn bench() -> Bench {
    let mut bench = Bench::new();
    let lists = [("l", "b a c"), ("n", "1 -inf +inf 3.5 0x10 1e2"), ("m", "2  1")];
    for (key, elements) in lists {
        let elements = elements.split(' ').map(str::as_bytes);
        let pushed = bench.engine.keys.list_push(0, key.as_bytes(), Side::Right, elements);
        pushed.expect("there is memory");
    }
    for (member, score) in [("a", 3.0), ("b", 2.0), ("c", 1.0)] {
        let scored = bench.engine.keys.zset_put(0, b"z", member.as_bytes(), |_| Some(score));
        scored.expect("there is memory");
    }
    bench
}

#[test]
fn sort_answers_as_redis_does() {
    let mut bench = bench();
    bench.play(&[
        ("SADD i 3 1 2", ":3"),
        ("SADD s c", ":1"),
        ("SET str x", "+OK"),
        ("EXISTS d", ":0"),
        ("SORT i", "*3 $1 1 $1 2 $1 3"),
        ("SORT i DESC", "*3 $1 3 $1 2 $1 1"),
        ("SORT i LIMIT 0 1", "*1 $1 1"),
        ("SORT i LIMIT 1", "-ERR syntax error"),
        ("SORT i LIMIT a b", "-ERR value is not an integer or out of range"),
        ("SORT i FOO", "-ERR syntax error"),
        ("SORT s", "-ERR One or more scores can't be converted into double"),
        ("SORT s ALPHA", "*1 $1 c"),
        ("SORT nokey", "*0"),
        ("SORT str", "-WRONGTYPE Operation against a key holding the wrong kind of value"),
        ("SORT i BY nosort", "*3 $1 1 $1 2 $1 3"),
        ("SORT i BY w_* GET # GET o_*", "*6 $1 1 $-1 $1 2 $-1 $1 3 $-1"),
        ("SORT i STORE d", ":3"),
        ("SORT d BY nosort", "*3 $1 1 $1 2 $1 3"),
        ("SORT nokey STORE d", ":0"),
        ("SORT d BY nosort", "*0"),
        ("EXISTS d", ":0"),
        ("SORT_RO i STORE d", "-ERR syntax error"),
        ("SORT_RO i", "*3 $1 1 $1 2 $1 3"),
        ("SORT l ALPHA", "*3 $1 a $1 b $1 c"),
        ("SORT l BY nosort", "*3 $1 b $1 a $1 c"),
        ("SORT l BY nosort LIMIT 1 2", "*2 $1 a $1 c"),
        ("SORT l BY nosort DESC", "*3 $1 c $1 a $1 b"),
        ("SORT l BY nosort DESC LIMIT 0 1", "*1 $1 c"),
        ("SORT l BY nosort LIMIT -1 1", "*1 $1 b"),
        ("SORT l BY nosort LIMIT 1 -1", "*2 $1 a $1 c"),
        ("SORT l LIMIT 5 5 ALPHA", "*0"),
        ("SORT l ALPHA LIMIT -5 2", "*2 $1 a $1 b"),
        ("SORT l ALPHA LIMIT 0 0", "*0"),
        ("SORT z BY nosort", "*3 $1 c $1 b $1 a"),
        ("SORT z BY nosort DESC", "*3 $1 a $1 b $1 c"),
        ("SORT z BY nosort LIMIT 1 1", "*1 $1 b"),
        ("SORT z BY nosort DESC LIMIT 0 2", "*2 $1 a $1 b"),
        ("SORT z ALPHA", "*3 $1 a $1 b $1 c"),
        ("SORT z BY nosort LIMIT -1 2", "*2 $1 c $1 b"),
        ("SORT z BY nosort LIMIT 2 -1", "*1 $1 a"),
        ("SORT s BY nosort", "*1 $1 c"),
        ("SORT s BY nosort ALPHA", "*1 $1 c"),
        ("MSET w_a 3 w_b 1 w_c 2", "+OK"),
        ("SORT l BY w_*", "*3 $1 b $1 c $1 a"),
        ("SORT l BY w_* GET w_* GET #", "*6 $1 1 $1 b $1 2 $1 c $1 3 $1 a"),
        ("SORT l BY w_* ALPHA DESC", "*3 $1 a $1 c $1 b"),
        ("HSET h_a f 1", ":1"),
        ("HSET h_b f 3", ":1"),
        ("HSET h_c f 2", ":1"),
        ("SORT l BY h_*->f", "*3 $1 a $1 c $1 b"),
        ("SORT l BY h_*->f GET h_*->f GET h_*->g", "*6 $1 1 $-1 $1 2 $-1 $1 3 $-1"),
        ("SORT l BY h_*->", "*3 $1 a $1 b $1 c"),
        ("SORT l ALPHA GET h_*->", "*3 $-1 $-1 $-1"),
        ("SORT l BY x_*->f", "*3 $1 a $1 b $1 c"),
        ("SORT l BY *x", "*3 $1 a $1 b $1 c"),
        ("SORT l GET # ALPHA STORE d", ":3"),
        ("SORT d BY nosort", "*3 $1 a $1 b $1 c"),
        ("TYPE d", "+list"),
        ("SORT l ALPHA GET nokey_* STORE d", ":3"),
        ("SORT d BY nosort", "*3 $0  $0  $0"),
        ("SORT l BY l_* DESC", "*3 $1 c $1 b $1 a"),
        ("SORT l BY str_*", "*3 $1 a $1 b $1 c"),
        ("SET w_a foo", "+OK"),
        ("SORT l BY w_*", "-ERR One or more scores can't be converted into double"),
        ("SORT l ALPHA GET w_", "*3 $-1 $-1 $-1"),
        ("SORT l GET", "-ERR syntax error"),
        ("SORT l BY", "-ERR syntax error"),
        ("SORT l STORE", "-ERR syntax error"),
        ("SORT l ALPHA ASC DESC", "*3 $1 c $1 b $1 a"),
        ("SORT l BY w_* BY nosort", "*3 $1 b $1 a $1 c"),
        ("SORT l BY nosort BY h_*->f", "*3 $1 b $1 a $1 c"),
        ("SORT n", "*6 $4 -inf $1 1 $3 3.5 $4 0x10 $3 1e2 $4 +inf"),
        ("SORT n", "*6 $4 -inf $1 1 $3 3.5 $4 0x10 $3 1e2 $4 +inf"),
        ("SORT m", "*3 $0  $1 1 $1 2"),
        ("SORT n LIMIT 1 2", "*2 $1 1 $3 3.5"),
        ("SADD abc b a", ":2"),
        ("SORT abc BY nosort STORE d", ":2"),
        ("SORT d BY nosort", "*2 $1 a $1 b"),
        ("SADD bad 1e400", ":1"),
        ("SORT bad", "-ERR One or more scores can't be converted into double"),
        ("SORT i GET", "-ERR syntax error"),
        ("SORT l BY nosort GET # GET w_*", "*6 $1 b $1 1 $1 a $3 foo $1 c $1 2"),
    ]);
}

#[test]
fn sort_answers_as_redis_does_in_resp3() {
    let mut bench = bench();
    bench.say("SADD i 3 1 2");
    bench.say("MSET w_a foo w_b 1 w_c 2");
    bench.say("HELLO 3");
    bench.play(&[
        ("SORT i", "*3 $1 1 $1 2 $1 3"),
        ("SORT l ALPHA GET w_* GET zz_*", "*6 $3 foo _ $1 1 _ $1 2 _"),
        ("SORT nokey", "*0"),
    ]);
}
