//! Streams and their groups.

use crate::families::{Row, exact, row};
use crate::judge::Rule;

pub(crate) const ROWS: &[Row] = &[
    exact("xadd <key> <id> ( <field> <value> )+"),
    exact("xadd <key> <id> ( <field> <value> )+"),
    exact("xadd <key> { nomkstream ; ( maxlen | minid ) ( = | ) <count> } <id> <field> <value>"),
    row("xadd <key> * <field> <value> ;; del <same>", Rule::Kind).rare(),
    exact("xlen <key>"),
    exact("xrange <key> ( - | <id> ) ( + | <id> ) [ count <int> ]"),
    exact("xrevrange <key> ( + | <id> ) ( - | <id> ) [ count <int> ]"),
    exact("xrange <key> - +"),
    exact("xdel <key> <id>+"),
    exact("xtrim <key> ( maxlen | minid ) ( = | ) <count>"),
    exact("xread [ count <count> ] streams <key> <id>"),
    exact("xread [ count <count> ] streams <key> <key> <id> <id>"),
    exact("xread block <timeout> streams <key> ( $ | <id> )").rare(),
    exact("xgroup create <key> <group> ( $ | 0 | <id> ) [ mkstream ] [ entriesread <int> ]"),
    exact("xgroup create <key> <group> 0 mkstream"),
    exact("xgroup setid <key> <group> ( $ | 0 | <id> )"),
    exact("xgroup destroy <key> <group>").rare(),
    exact("xgroup createconsumer <key> <group> <consumer>"),
    exact("xgroup delconsumer <key> <group> <consumer>"),
    exact(
        "xgroup createconsumer <key> g1 c1 ;; xreadgroup group g1 c1 { count <count> ; noack } streams <same> ( > | > | <id> )",
    ),
    exact("xgroup createconsumer <key> g2 c2 ;; xreadgroup group g2 c2 streams <same> >"),
    exact("xack <key> <group> <id>+"),
    exact("xpending <key> <group>"),
    row("xpending <key> <group> - + <count> [ <consumer> ]", Rule::Idle),
    exact(
        "xgroup createconsumer <key> g1 c1 ;; xclaim <same> g1 c1 0 <id>+ { idle 0 ; retrycount 3 ; force ; justid }",
    ),
    exact(
        "xgroup createconsumer <key> g2 c2 ;; xautoclaim <same> g2 c2 0 ( 0 | <id> ) { count <positive> ; justid }",
    ),
    exact("xsetid <key> 99999-1").rare(),
    row("xinfo stream <key>", Rule::Kind),
    exact("xinfo groups <key>"),
    row("xinfo consumers <key> <group>", Rule::Kind),
];
