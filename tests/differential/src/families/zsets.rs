//! Sorted sets, and places on earth.

use crate::families::{Row, exact, row};
use crate::judge::Rule;

const F: Rule = Rule::Floats;

pub(crate) const ROWS: &[Row] = &[
    row("zadd <key> { ( nx | xx ) ; ( gt | lt ) ; ch } ( <float> <member> )+", F),
    row("zadd <key> ( <float> <member> )+", F),
    row("zadd <key> ( <small> <member> )+", F),
    row("zadd <key> { ( nx | xx ) ; ( gt | lt ) ; ch ; incr } <float> <member>", F),
    row("zadd <key> <pairs_reversed>", F).rare(),
    row("zadd <key> ( 0 <member> )+", F),
    exact("zrem <key> <member>+"),
    row("zscore <key> <member>", F),
    row("zmscore <key> <member>+", F),
    row("zincrby <key> <float> <member>", F),
    exact("zcard <key>"),
    exact("zcount <key> <min> <max>"),
    exact("zlexcount <key> <lexmin> <lexmax>"),
    row("zrank <key> <member>", F),
    row("zrevrank <key> <member>", F),
    row("zrange <key> <int> <int> { rev ; withscores }", F),
    row("zrange <key> <min> <max> byscore { rev ; limit <int> <int> ; withscores }", F),
    row("zrange <key> <lexmin> <lexmax> bylex { rev ; limit <int> <int> }", F),
    row(
        "zrange <key> ( <int> <int> | <min> <max> ) { byscore ; bylex ; rev ; limit <int> <int> ; withscores }",
        F,
    ),
    exact("zrangestore <key> <key> <int> <int> [ rev ]"),
    exact("zrangestore <key> <key> <min> <max> byscore { rev ; limit <int> <int> }"),
    row("zrevrange <key> <int> <int> [ withscores ]", F),
    row("zrangebyscore <key> <min> <max> { withscores ; limit <int> <int> }", F),
    row("zrevrangebyscore <key> <max> <min> { withscores ; limit <int> <int> }", F),
    exact("zrangebylex <key> <lexmin> <lexmax> [ limit <int> <int> ]"),
    exact("zrevrangebylex <key> <lexmax> <lexmin> [ limit <int> <int> ]"),
    exact("zremrangebyrank <key> <int> <int>"),
    exact("zremrangebyscore <key> <min> <max>"),
    exact("zremrangebylex <key> <lexmin> <lexmax>"),
    row("zpopmin <key> [ <count> ]", F),
    row("zpopmax <key> [ <count> ]", F),
    row("zmpop <keys> ( min | max | x ) [ count <int> ]", F),
    row("zrandmember <key> [ <small> [ withscores ] ]", Rule::Random),
    exact("zunionstore <key> <keys> { weights <weights> ; aggregate ( sum | min | max | x ) }"),
    exact("zinterstore <key> <keys> { weights <weights> ; aggregate ( sum | min | max ) }"),
    exact("zdiffstore <key> <keys>"),
    row("zunion <keys> { weights <weights> ; aggregate ( sum | min | max ) ; withscores }", F),
    row("zinter <keys> { weights <weights> ; aggregate ( sum | min | max ) ; withscores }", F),
    row("zdiff <keys> [ withscores ]", F),
    exact("zintercard <keys> [ limit <int> ]"),
    row("zscan <key> 0 count 100000 { match <pattern> }", Rule::ScanAllPairs),
    row("zscan <key> ( 0 | 1 | x ) { match <pattern> ; count <int> }", Rule::Scan).rare(),
];

pub(crate) const GEO: &[Row] = &[
    exact("geoadd <key> { ( nx | xx ) ; ch } ( <lon> <lat> <member> )+"),
    exact("geoadd <key> 13.361389 38.115556 a 15.087269 37.502669 b"),
    row("geodist <key> <member> <member> [ <unit> ]", F),
    exact("geohash <key> <member>+"),
    row("geopos <key> <member>+", F),
    row(
        "geosearch <key> { frommember <member> ; fromlonlat <lon> <lat> ; byradius <radius> <unit> ; bybox <radius> <radius> <unit> ; ( asc | desc ) ; count <count> ; withcoord ; withdist ; withhash }",
        F,
    ),
    row(
        "geosearch <key> fromlonlat 15 37 byradius <radius> km asc { count <count> ; withcoord ; withdist ; withhash }",
        F,
    ),
    row(
        "geosearch <key> frommember a bybox <radius> <radius> km asc { withcoord ; withdist ; withhash }",
        F,
    ),
    exact(
        "geosearchstore <key> <key> fromlonlat 15 37 byradius <radius> km { asc ; count <positive> ; storedist }",
    ),
    row(
        "georadius <key> <lon> <lat> <radius> <unit> asc { withcoord ; withdist ; withhash ; count <count> }",
        F,
    ),
    row(
        "georadius_ro <key> <lon> <lat> <radius> <unit> asc { withcoord ; withdist ; withhash }",
        F,
    ),
    row(
        "georadiusbymember <key> <member> <radius> <unit> asc { withcoord ; withdist ; store <key> }",
        F,
    ),
    row("georadiusbymember_ro <key> <member> <radius> <unit> asc { withcoord ; withdist }", F),
];
