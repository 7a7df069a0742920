//! What there is to know of each command, for whoever lists them: COMMAND, the README's table, and
//! the tests that try each.

use crate::command::{Flags, Group, Keys, Spec};
use crate::commands::FAMILIES;

/// A command, or a subcommand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandInfo {
    /// In lower case; a subcommand's with its command before it: `config|get`.
    pub name: String,
    /// Words, its name among them; if negative, at least so many. A subcommand's counts both of
    /// its names.
    pub arity: i32,
    /// Its properties, in the words of Redis' COMMAND.
    pub flags: Vec<&'static str>,
    /// What it is about, in the words of Redis' COMMAND DOCS.
    pub group: &'static str,
    /// The version of Redis that had it first.
    pub since: &'static str,
    /// What it does, in a line.
    pub summary: &'static str,
    /// The place of its first key; 0 if it has none, or none in a fixed place.
    pub first_key: i32,
    /// The place of its last key, from the end if negative.
    pub last_key: i32,
    /// From one key to the next.
    pub key_step: i32,
}

const FLAG_NAMES: [(Flags, &str); 11] = [
    (Flags::WRITE, "write"),
    (Flags::READONLY, "readonly"),
    (Flags::DENYOOM, "denyoom"),
    (Flags::ADMIN, "admin"),
    (Flags::PUBSUB, "pubsub"),
    (Flags::NOSCRIPT, "noscript"),
    (Flags::BLOCKING, "blocking"),
    (Flags::FAST, "fast"),
    (Flags::NO_AUTH, "no_auth"),
    (Flags::ALLOW_BUSY, "allow_busy"),
    (Flags::MOVABLE_KEYS, "movablekeys"),
];

impl Group {
    /// As COMMAND DOCS says it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Group::Generic => "generic",
            Group::String => "string",
            Group::List => "list",
            Group::Set => "set",
            Group::SortedSet => "sorted-set",
            Group::Hash => "hash",
            Group::PubSub => "pubsub",
            Group::Transactions => "transactions",
            Group::Connection => "connection",
            Group::Server => "server",
            Group::Scripting => "scripting",
            Group::HyperLogLog => "hyperloglog",
            Group::Geo => "geo",
            Group::Stream => "stream",
            Group::Bitmap => "bitmap",
        }
    }
}

impl CommandInfo {
    pub(crate) fn of(spec: &Spec, container: Option<&Spec>) -> CommandInfo {
        let name = match container {
            Some(container) => format!("{}|{}", container.name, spec.name),
            None => spec.name.to_owned(),
        };
        let named = FLAG_NAMES.iter().filter(|(flag, _)| spec.flags.has(*flag));
        let (first_key, last_key, key_step) = match spec.keys {
            Keys::At { first, last, step } => (first as i32, last, step as i32),
            _ => (0, 0, 0),
        };
        CommandInfo {
            name,
            arity: spec.arity,
            flags: named.map(|(_, name)| *name).collect(),
            group: spec.group.name(),
            since: spec.since,
            summary: spec.summary,
            first_key,
            last_key,
            key_step,
        }
    }

    /// All commands, each followed by its subcommands.
    pub(crate) fn all() -> impl Iterator<Item = CommandInfo> {
        FAMILIES.iter().flat_map(|family| family.iter()).flat_map(|spec| {
            let subs = spec.subs.iter().map(move |sub| CommandInfo::of(sub, Some(spec)));
            std::iter::once(CommandInfo::of(spec, None)).chain(subs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_tells_where_its_keys_are_and_what_it_may_do() {
        let set = CommandInfo::all().find(|info| info.name == "mset").expect("it is in the table");
        assert_eq!((set.arity, set.first_key, set.last_key, set.key_step), (-3, 1, -1, 2));
        assert_eq!((set.group, set.flags), ("string", vec!["write", "denyoom"]));
        assert!(CommandInfo::all().all(|info| info.summary.ends_with('.')));
    }
}
