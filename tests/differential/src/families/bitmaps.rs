//! Bits of strings, and HyperLogLog.

use crate::families::{Row, exact};

pub(crate) const ROWS: &[Row] = &[
    exact("setbit <key> <offset> <bit>"),
    exact("setbit <key> <offset> <bit>"),
    exact("getbit <key> <offset>"),
    exact("bitcount <key>"),
    exact("bitcount <key> <int> <int> [ ( byte | bit | x ) ]"),
    exact("bitpos <key> <bit> [ <int> [ <int> [ ( byte | bit | x ) ] ] ]"),
    exact("bitop ( and | or | xor | not | nope ) <key> <key>"),
    exact("bitop ( and | or | xor ) <key> <key>+"),
    exact(
        "bitfield <key> ( get <bits> <bitat> | set <bits> <bitat> <int> | incrby <bits> <bitat> <int> | overflow ( wrap | sat | fail | x ) )+",
    ),
    exact("bitfield <key> overflow ( sat | fail | wrap ) ( incrby <bits> <bitat> <int> )+"),
    exact("bitfield_ro <key> ( get <bits> <bitat> )+"),
    exact("bitfield_ro <key> ( get <bits> <bitat> | set <bits> <bitat> <int> )+"),
    exact("bitfield <key>").rare(),
    exact("setrange <key> <offset> <value>"),
];

pub(crate) const HYPERLOGLOG: &[Row] = &[
    exact("pfadd <key> <elements>"),
    exact("pfadd <key> <elements>"),
    exact("pfadd <key> <member>"),
    exact("pfadd <key>").rare(),
    exact("pfadd <key> <many>").rare(),
    exact("pfcount <key>"),
    exact("pfcount <key>+"),
    exact("pfmerge <key> <key>+"),
    exact("pfmerge <key>").rare(),
    exact("get <key>"),
    exact("pfdebug ( encoding | decode | todense | getreg ) <key>").rare(),
    exact("pfselftest").rare(),
    exact("setrange <key> <offset> <value>").rare(),
    exact("setrange <key> <positive> <value>").rare(),
    exact("set <key> HYLL").rare(),
];
