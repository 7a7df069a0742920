//! Keys, whatever they hold, and when they expire.

use crate::families::{Row, exact, row};
use crate::judge::Rule;

pub(crate) const ROWS: &[Row] = &[
    exact("del <key>+"),
    exact("unlink <key>"),
    exact("exists <key>+"),
    exact("touch <key>+"),
    exact("type <key>"),
    exact("rename <key> <key>"),
    exact("renamenx <key> <key>"),
    exact("move <key> <db>"),
    row("keys <pattern>", Rule::Unordered),
    row("scan 0 count 100000 { match <pattern> ; type <type> }", Rule::ScanAll),
    row("scan ( 0 | 1 | x ) { match <pattern> ; count <int> ; type <type> }", Rule::Scan).rare(),
    row("randomkey", Rule::Shape),
    exact("dbsize"),
    exact("flushdb [ ( sync | async | x ) ]").rare(),
    exact("flushall [ ( sync | async | x ) ]").rare(),
    exact("swapdb <db> <db>").rare(),
    exact("expire <key> <seconds> { nx ; xx ; gt ; lt }"),
    exact("pexpire <key> <millis> [ ( nx | xx | gt | lt ) ]"),
    exact("expireat <key> <at> { nx ; xx ; gt ; lt }"),
    exact("pexpireat <key> <at_ms> [ ( nx | xx | gt | lt ) ]"),
    exact("pexpire <key> 20").passing(40),
    exact("expireat <key> 1000 [ ( nx | xx | gt | lt ) ]").rare(),
    row("ttl <key>", Rule::Near(3)),
    row("pttl <key>", Rule::Near(3000)),
    row("expiretime <key>", Rule::Near(3)),
    row("pexpiretime <key>", Rule::Near(3000)),
    exact("persist <key>"),
];

/// What is done with values of every type.
pub(crate) const VALUES: &[Row] = &[
    exact(
        "sort <key> { by ( nosort | <pattern> | w_* ) ; limit <int> <int> ; ( asc | desc ) ; alpha ; get ( # | * | w_* ) }",
    ),
    exact("copy <key> <key> { db <db> ; replace }"),
    exact("sort <key> { limit <int> <int> ; ( asc | desc ) ; alpha } store <key>"),
    exact("sort_ro <key> { limit <int> <int> ; ( asc | desc ) ; alpha }"),
    row("object encoding <key>", Rule::Shape),
    row("object freq <key>", Rule::Shape).rare(),
    row("object idletime <key>", Rule::Near(3)).rare(),
    row("object refcount <key>", Rule::Shape).rare(),
    row("dump <key>", Rule::Dump),
    exact("restore <key> <int> <value> { replace ; absttl ; idletime 1 ; freq 1 }").rare(),
    exact("wait 0 0").rare(),
];
