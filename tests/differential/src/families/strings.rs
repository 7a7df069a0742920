//! Strings, and counting.

use crate::families::{Row, exact};

pub(crate) const ROWS: &[Row] = &[
    exact("get <key>"),
    exact("set <key> <value>"),
    exact("set <key> <int>"),
    exact(
        "set <key> <value> { ( nx | xx ) ; get ; ( ex <seconds> | px <millis> | exat <at> | pxat <at_ms> | keepttl ) }",
    ),
    exact("set <key> <value> ( nx | xx | get | keepttl | ex <seconds> | ex <int> <int> | px )+"),
    exact("setnx <key> <value>"),
    exact("setex <key> <seconds> <value>"),
    exact("psetex <key> <millis> <value>"),
    exact("set <key> <value> px 20").passing(40),
    exact("set <key> <value> ( exat 1000 | pxat 1000 )").passing(1),
    exact("getex <key> ( exat 1000 | pxat 1000 )").rare(),
    exact("getset <key> <value>"),
    exact("getdel <key>"),
    exact("getex <key> [ ( ex <seconds> | px <millis> | exat <at> | pxat <at_ms> | persist ) ]"),
    exact("getex <key> ( persist | ex <seconds> | exat <at> )+"),
    exact("mget <key>+"),
    exact("mset ( <key> <value> )+"),
    exact("msetnx ( <key> <value> )+"),
    exact("append <key> <value>"),
    exact("append <key> <value>"),
    exact("strlen <key>"),
    exact("getrange <key> <int> <int>"),
    exact("substr <key> <int> <int>"),
    exact("setrange <key> <offset> <value>"),
    exact("incr <key>"),
    exact("decr <key>"),
    exact("incrby <key> <int>"),
    exact("decrby <key> <int>"),
    exact("set <key> ( <plain> | <small> ) ;; incrbyfloat <same> <plain>"),
    exact("set <key> ( abc | 1 ) ;; incrbyfloat <same> ( nan | abc | inf | -inf | <int> <int> )"),
    exact("lcs <key> <key> { len ; idx ; minmatchlen <small> ; withmatchlen }"),
    exact(
        "set <key> ( ohmytext | mynewtext | abcabcabc | xaybzc ) ;; lcs <same> <key> [ idx [ withmatchlen ] ]",
    ),
];
