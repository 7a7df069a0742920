//! What is said: a line a command, a table a family, and why some commands are not compared.

mod bitmaps;
mod collections;
mod generic;
mod lists;
mod servers;
mod streams;
mod strings;
mod zsets;

use std::collections::HashSet;

use sextant_engine::Engine;

use crate::judge::Rule;
use crate::template::Template;

/// A line of a table.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// What a command of it may look like: see [`template`](crate::template).
    pub line: &'static str,
    /// How its reply is compared.
    pub rule: Rule,
    /// It is said ten times less often.
    pub rare: bool,
    /// Milliseconds to pass behind it.
    pub pass_ms: u64,
}

impl Row {
    pub(crate) const fn rare(self) -> Row {
        Row { rare: true, ..self }
    }

    /// Time passes before anything else is said.
    pub(crate) const fn passing(self, pass_ms: u64) -> Row {
        Row { pass_ms, rare: true, ..self }
    }

    /// The command's name, as [`Engine::commands`] has it, if it is one of these.
    pub fn name(&self, known: &HashSet<String>) -> Option<String> {
        let mut words = self.line.split_whitespace();
        let name = words.next()?.to_owned();
        let sub = words.next().map(|sub| format!("{name}|{sub}"));
        sub.filter(|sub| known.contains(sub)).or(known.contains(&name).then_some(name))
    }
}

pub(crate) const fn row(line: &'static str, rule: Rule) -> Row {
    Row { line, rule, rare: false, pass_ms: 0 }
}

pub(crate) const fn exact(line: &'static str) -> Row {
    row(line, Rule::Exact)
}

/// Commands that belong together.
#[derive(Clone, Copy, Debug)]
pub struct Family {
    /// As `SEXTANT_DIFF_ONLY` names it.
    pub name: &'static str,
    /// Its lines.
    pub rows: &'static [Row],
    /// It is part of every game.
    pub always: bool,
}

/// All tables.
pub const FAMILIES: &[Family] = &[
    Family { name: "generic", rows: generic::ROWS, always: true },
    Family { name: "values", rows: generic::VALUES, always: false },
    Family { name: "transactions", rows: servers::TRANSACTIONS, always: false },
    Family { name: "connection", rows: servers::CONNECTION, always: false },
    Family { name: "server", rows: servers::SERVER, always: false },
    Family { name: "pubsub", rows: servers::PUBSUB, always: false },
    Family { name: "scripting", rows: servers::SCRIPTING, always: false },
    Family { name: "strings", rows: strings::ROWS, always: true },
    Family { name: "bitmaps", rows: bitmaps::ROWS, always: false },
    Family { name: "hyperloglog", rows: bitmaps::HYPERLOGLOG, always: false },
    Family { name: "hashes", rows: collections::HASHES, always: false },
    Family { name: "sets", rows: collections::SETS, always: false },
    Family { name: "lists", rows: lists::ROWS, always: false },
    Family { name: "blocking", rows: lists::BLOCKING, always: false },
    Family { name: "zsets", rows: zsets::ROWS, always: false },
    Family { name: "geo", rows: zsets::GEO, always: false },
    Family { name: "streams", rows: streams::ROWS, always: false },
];

/// Families in which no difference is left: a plain run of the tests plays these. The others are
/// played when `SEXTANT_DIFF_ONLY` names them, or says `all`.
pub const SETTLED: &[&str] =
    &["generic", "transactions", "connection", "server", "pubsub", "strings", "bitmaps", "streams"];

/// Commands that are not compared, and why.
pub const EXEMPT: &[(&str, &str)] = &[
    ("shutdown", "it ends the process"),
    ("monitor", "its lines tell addresses and the time"),
    ("debug", "what it tells is of the inside"),
    ("save", "nothing is saved here: the log is always written"),
    ("bgsave", "nothing is saved here: the log is always written"),
    ("bgrewriteaof", "nothing is rewritten here"),
    ("command|getkeys", "7.0 wants a word more than 7.2"),
    ("command|getkeysandflags", "7.0 wants a word more than 7.2"),
    ("lastsave", "its reply is a time"),
    ("auth", "neither has users; ACL has tests of its own"),
    ("acl", "neither has users; ACL has tests of its own"),
    ("latency", "what it tells is measured"),
    ("slowlog", "what it tells is measured"),
    ("memory", "what it tells is measured"),
    ("module", "there are none"),
    ("replicaof", "there are no replicas"),
    ("slaveof", "there are no replicas"),
    ("failover", "there are no replicas"),
    ("psync", "there are no replicas"),
    ("sync", "there are no replicas"),
    ("replconf", "there are no replicas"),
    ("cluster", "an instance is told of in its own words"),
    ("readonly", "it asks for a cluster"),
    ("readwrite", "it asks for a cluster"),
    ("asking", "it asks for a cluster"),
    ("waitaof", "7.0 does not have it"),
    ("client|no-touch", "7.0 does not have it"),
    ("client|setinfo", "7.0 does not have it"),
];

/// Names of commands that the engine has.
pub fn known() -> HashSet<String> {
    Engine::commands().map(|command| command.name).collect()
}

/// Commands of the engine that no line says and no reason exempts. A command that has subcommands
/// is said if they are.
pub fn unsaid() -> Vec<String> {
    let known = known();
    let rows = FAMILIES.iter().flat_map(|family| family.rows);
    let commands = rows.flat_map(|row| row.line.split(";;"));
    let said: HashSet<String> = commands.filter_map(|line| exact(line).name(&known)).collect();
    let exempt: HashSet<&str> = EXEMPT.iter().map(|(name, _)| *name).collect();
    let is_said = |name: &String| {
        let container = name.split('|').next().unwrap_or_default();
        let has_subs = || known.iter().any(|other| other.starts_with(&format!("{name}|")));
        // Each container answers HELP, in lines of its own.
        said.contains(name)
            || exempt.contains(&**name)
            || exempt.contains(container)
            || has_subs()
            || name.ends_with("|help")
    };
    let mut unsaid: Vec<String> = known.iter().filter(|name| !is_said(name)).cloned().collect();
    unsaid.sort();
    unsaid
}

/// A row that can be said.
#[derive(Debug)]
pub struct Line {
    /// As [`Engine::commands`] has it.
    pub name: String,
    /// The family's name.
    pub family: &'static str,
    /// The row.
    pub row: Row,
    /// Its words.
    pub template: Template,
}

/// All lines whose commands the engine has.
pub fn lines() -> Vec<Line> {
    let known = known();
    let line = |family: &'static str, row: &Row| {
        let name = row.name(&known)?;
        // What follows in a play has to be known as well.
        let first = |line: &str| line.split_whitespace().next().map(str::to_owned);
        let all = row.line.split(";;").filter_map(first).all(|name| known.contains(&name));
        all.then(|| Line { name, family, row: *row, template: Template::parse(row.line) })
    };
    FAMILIES
        .iter()
        .flat_map(|family| family.rows.iter().map(|row| (family.name, row)))
        .filter_map(|(family, row)| line(family, row))
        .collect()
}
