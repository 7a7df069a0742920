//! What commands are about, as rules name it.

use crate::command::{Flags, Group, Spec};

/// A category of commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Category(usize);

const NAMES: [&str; 21] = [
    "keyspace",
    "read",
    "write",
    "set",
    "sortedset",
    "list",
    "hash",
    "string",
    "bitmap",
    "hyperloglog",
    "geo",
    "stream",
    "pubsub",
    "admin",
    "fast",
    "slow",
    "blocking",
    "dangerous",
    "connection",
    "transaction",
    "scripting",
];

/// Commands that can do harm, though they are not only for operators.
const DANGEROUS: [&str; 11] = [
    "flushall",
    "flushdb",
    "info",
    "keys",
    "migrate",
    "restore",
    "restore-asking",
    "role",
    "sort",
    "sort_ro",
    "swapdb",
];

/// Commands about keys as such, which are in other groups.
const KEYSPACE: [&str; 4] = ["dbsize", "flushall", "flushdb", "swapdb"];

impl Category {
    /// All of them.
    pub(crate) fn all() -> impl Iterator<Item = Category> {
        (0..NAMES.len()).map(Category)
    }

    pub(crate) fn name(self) -> &'static str {
        NAMES[self.0]
    }

    /// The category of a name, in whatever case.
    pub(crate) fn named(name: &[u8]) -> Option<Category> {
        let at = NAMES.iter().position(|known| name.eq_ignore_ascii_case(known.as_bytes()));
        at.map(Category)
    }

    /// Whether a command is in it.
    pub(crate) fn has(self, spec: &Spec) -> bool {
        let (flags, group) = (spec.flags, spec.group);
        match self.name() {
            "keyspace" => {
                group == Group::Generic && spec.name != "wait" || KEYSPACE.contains(&spec.name)
            }
            "read" => flags.has(Flags::READONLY) && group != Group::Scripting,
            "write" => flags.has(Flags::WRITE),
            "set" => group == Group::Set,
            "sortedset" => group == Group::SortedSet,
            "list" => group == Group::List,
            "hash" => group == Group::Hash,
            "string" => group == Group::String,
            "bitmap" => group == Group::Bitmap,
            "hyperloglog" => group == Group::HyperLogLog,
            "geo" => group == Group::Geo,
            "stream" => group == Group::Stream,
            "pubsub" => group == Group::PubSub,
            "admin" => flags.has(Flags::ADMIN),
            "fast" => flags.has(Flags::FAST),
            "slow" => !flags.has(Flags::FAST),
            "blocking" => flags.has(Flags::BLOCKING),
            "dangerous" => flags.has(Flags::ADMIN) || DANGEROUS.contains(&spec.name),
            "connection" => group == Group::Connection,
            "transaction" => group == Group::Transactions,
            "scripting" => group == Group::Scripting,
            other => panic!("{other} is no category"),
        }
    }

    /// The categories of a command.
    pub(crate) fn of(spec: &Spec) -> Vec<Category> {
        Category::all().filter(|category| category.has(spec)).collect()
    }
}
