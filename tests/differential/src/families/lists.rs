//! Lists, and commands that wait.

use crate::families::{Row, exact};

pub(crate) const ROWS: &[Row] = &[
    exact("lpush <key> <value>+"),
    exact("rpush <key> <value>+"),
    exact("rpush <key> <member>+"),
    exact("rpush <key> <many>").rare(),
    exact("lpushx <key> <value>+"),
    exact("rpushx <key> <value>+"),
    exact("lpop <key> [ <count> ]"),
    exact("rpop <key> [ <count> ]"),
    exact("llen <key>"),
    exact("lindex <key> <int>"),
    exact("lset <key> <int> <value>"),
    exact("lrange <key> <int> <int>"),
    exact("lrange <key> 0 -1"),
    exact("ltrim <key> <int> <int>"),
    exact("linsert <key> ( before | after | x ) <member> <value>"),
    exact("lrem <key> <int> <member>"),
    exact("lpos <key> <member> { rank <int> ; count <int> ; maxlen <int> }"),
    exact("lmove <key> <key> ( left | right ) ( left | right | x )"),
    exact("rpoplpush <key> <key>"),
    exact("lmpop <keys> ( left | right | x ) [ count <int> ]"),
];

pub(crate) const BLOCKING: &[Row] = &[
    exact("blpop <key>+ <timeout>"),
    exact("brpop <key>+ <timeout>"),
    exact("brpoplpush <key> <key> <timeout>"),
    exact("blmove <key> <key> ( left | right ) ( left | right ) <timeout>"),
    exact("blmpop <timeout> <keys> ( left | right ) [ count <positive> ]"),
    exact("bzpopmin <key>+ <timeout>"),
    exact("bzpopmax <key>+ <timeout>"),
    exact("bzmpop <timeout> <keys> ( min | max ) [ count <positive> ]"),
    exact("rpush <key> <member>+"),
    exact("lpush <key> <member>+"),
    exact("rpush <key> <member>+"),
    exact("lmove <key> <key> ( left | right ) ( left | right )"),
    exact("zadd <key> <small> <member>"),
    exact("multi ;; rpush <key> <member>+ ;; del <same> ;; rpush <key> <member> ;; exec"),
    exact("set <key> <value>").rare(),
];
