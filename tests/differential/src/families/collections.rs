//! Hashes and sets.

use crate::families::{Row, exact, row};
use crate::judge::Rule;

pub(crate) const HASHES: &[Row] = &[
    exact("hset <key> ( <field> <value> )+"),
    exact("hset <key> <field> <int>"),
    exact("hset <key> <pairs>").rare(),
    exact("hmset <key> ( <field> <value> )+"),
    exact("hsetnx <key> <field> <value>"),
    exact("hget <key> <field>"),
    exact("hmget <key> <field>+"),
    row("hgetall <key>", Rule::Pairs),
    row("hkeys <key>", Rule::Unordered),
    row("hvals <key>", Rule::Unordered),
    exact("hlen <key>"),
    exact("hexists <key> <field>"),
    exact("hstrlen <key> <field>"),
    exact("hdel <key> <field>+"),
    exact("hincrby <key> <field> <int>"),
    exact("hset <key> f1 ( <plain> | <small> ) ;; hincrbyfloat <same> f1 <plain>"),
    exact("hset <key> f1 ( abc | 1 ) ;; hincrbyfloat <same> f1 ( nan | abc | inf | <int> <int> )"),
    row("hrandfield <key> [ <int> [ withvalues ] ]", Rule::Random),
    row("hscan <key> 0 count 100000 { match <pattern> }", Rule::ScanAllPairs),
    row("hscan <key> ( 0 | 1 | x ) { match <pattern> ; count <int> }", Rule::Scan).rare(),
];

pub(crate) const SETS: &[Row] = &[
    exact("sadd <key> <member>+"),
    exact("sadd <key> <small>+"),
    exact("sadd <key> <elements>"),
    exact("sadd <key> <many>").rare(),
    exact("srem <key> <member>+"),
    exact("sismember <key> <member>"),
    exact("smismember <key> <member>+"),
    exact("scard <key>"),
    row("smembers <key>", Rule::Unordered),
    exact("smove <key> <key> <member>"),
    row("spop <key> ;; del <same>", Rule::Random),
    row("spop <key> <count> ;; del <same>", Rule::Random),
    row("spop <key> 100000", Rule::Unordered).rare(),
    row("srandmember <key> [ <small> ]", Rule::Random),
    row("sinter <key>+", Rule::Unordered),
    exact("sintercard <keys> [ limit <int> ]"),
    exact("sinterstore <key> <key>+"),
    row("sunion <key>+", Rule::Unordered),
    exact("sunionstore <key> <key>+"),
    row("sdiff <key>+", Rule::Unordered),
    exact("sdiffstore <key> <key>+"),
    row("sscan <key> 0 count 100000 { match <pattern> }", Rule::ScanAll),
    row("sscan <key> ( 0 | 1 | x ) { match <pattern> ; count <int> }", Rule::Scan).rare(),
];
