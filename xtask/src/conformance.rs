//! `cargo xtask conformance`: which code meets each statement of the MQTT standards, and which
//! test proves it.
//!
//! ```text
//!   conformance.toml   the statements, in words of this project       typed
//!   **/*.rs            tags: [MQTT-3.1.2-24], [3.1.1: MQTT-3.1.2-22]  typed
//!   CONFORMANCE.md     one row a statement: code, tests, state        made of both
//! ```
//!
//! A tag in the broker or in what is shared names the code that meets the statement. A tag in the
//! comment above a test, or within that test, says that it proves it. A tag that the list does not
//! know is an error, and so is a statement without code or without a test of which the list does
//! not say so, and one of which it says so wrongly. What the client of the MQTT crate does proves
//! nothing of a server, and is not looked at beyond its tags being known.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::sh;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Write nothing; fail if the table is not what would be written
    #[arg(long)]
    check: bool,
}

const LIST: &str = "daemons/push/conformance.toml";
const TABLE: &str = "daemons/push/CONFORMANCE.md";
/// Folders that are not looked into: the tags in this one are of its own tests.
const SKIPPED: [&str; 3] = ["target", ".git", "xtask"];
/// Where a tag names code that meets a statement, if it is not in a test.
const SERVER: [&str; 2] = ["daemons/push/", "shared/"];
/// The client's side of the protocol.
const CLIENT: &str = "shared/wire/mqtt/src/client.rs";
/// Words that a paraphrase may have.
const WORDS_MAX: usize = 15;

/// `conformance.toml`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    clients_only: BTreeSet<String>,
    untested: BTreeSet<String>,
    statements: BTreeMap<String, String>,
    not_applicable: BTreeMap<String, String>,
    not_met: BTreeMap<String, String>,
}

/// What the sources say of each tag.
#[derive(Debug, Default)]
struct Found {
    /// Files, from the workspace's folder.
    code: BTreeMap<String, BTreeSet<String>>,
    /// Files and names of tests.
    tests: BTreeMap<String, BTreeSet<(String, String)>>,
    /// Where each tag stands first, whether it counts or not.
    anywhere: BTreeMap<String, String>,
    /// Tags in tests' files that belong to no test.
    astray: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum State {
    Proved,
    Untested,
    NotApplicable,
    NotMet,
}

/// Writes the table.
pub(crate) fn run(args: &Args) -> Result<()> {
    if args.check {
        return check();
    }
    std::fs::write(sh::root().join(TABLE), make()?).with_context(|| TABLE.to_owned())
}

/// Fails where list and sources do not agree, or the table is not what they give.
pub(crate) fn check() -> Result<()> {
    let made = make()?;
    match std::fs::read_to_string(sh::root().join(TABLE)) {
        Ok(present) if present == made => Ok(()),
        _ => bail!("{TABLE} is out of date: `cargo xtask conformance` writes it anew"),
    }
}

fn make() -> Result<String> {
    let list = std::fs::read_to_string(sh::root().join(LIST)).with_context(|| LIST.to_owned())?;
    let list: List = toml::from_str(&list).with_context(|| LIST.to_owned())?;
    let found = search(&sh::root())?;
    let faults = faults(&list, &found);
    if !faults.is_empty() {
        bail!("{LIST} and the sources do not agree:\n  {}", faults.join("\n  "));
    }
    Ok(table(&list, &found))
}

// --- What the sources say ---

fn search(root: &Path) -> Result<Found> {
    let mut found = Found::default();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = folder.read_dir().with_context(|| folder.display().to_string())?;
        for entry in entries {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if path.is_dir() {
                folders.extend((!SKIPPED.contains(&&*name)).then_some(path));
            } else if name.ends_with(".rs") {
                let text = std::fs::read_to_string(&path)?;
                let path = path.strip_prefix(root).unwrap_or(&path);
                read_source(&path.to_string_lossy(), &text, &mut found);
            }
        }
    }
    Ok(found)
}

/// Notes the tags of one file.
fn read_source(path: &str, text: &str, found: &mut Found) {
    let is_test_file = path.contains("tests/") || path.ends_with("tests.rs");
    let (code, tests) = match text.split_once("#[cfg(test)]\nmod tests {") {
        _ if is_test_file => ("", text),
        Some((code, tests)) => (code, tests),
        None => (text, ""),
    };
    for tag in tags(text) {
        found.anywhere.entry(tag).or_insert_with(|| path.to_owned());
    }
    if path == CLIENT {
        return;
    }
    if SERVER.iter().any(|folder| path.starts_with(folder)) {
        for tag in tags(code) {
            found.code.entry(tag).or_default().insert(path.to_owned());
        }
    }
    read_tests(path, tests, found);
}

/// Notes the tags above and within the tests of one file.
fn read_tests(path: &str, text: &str, found: &mut Found) {
    /// A test that is being read: its name, and how far its head is indented.
    struct Test {
        name: String,
        indent: usize,
    }
    let mut test: Option<Test> = None;
    let mut above: Vec<String> = Vec::new();
    let mut is_marked = false;
    for line in text.lines() {
        let trimmed = line.trim_start();
        if trimmed.is_empty() {
            continue;
        }
        let indent = line.len() - trimmed.len();
        if let Some(current) = test.as_ref().filter(|test| indent > test.indent) {
            for tag in tags(line) {
                let place = (path.to_owned(), current.name.clone());
                found.tests.entry(tag).or_default().insert(place);
            }
            continue;
        }
        match trimmed {
            _ if trimmed.starts_with("//") => above.extend(tags(line)),
            _ if trimmed.starts_with("#[") => is_marked |= trimmed.starts_with("#[test]"),
            // A signature that takes more lines, or the end of a body.
            _ if test.is_some() && trimmed.starts_with([')', '}']) => {}
            _ => {
                let name = trimmed.strip_prefix("fn ").and_then(|rest| rest.split('(').next());
                test = name.filter(|_| is_marked).map(|name| Test { name: name.into(), indent });
                for tag in above.drain(..).chain(tags(line)) {
                    match &test {
                        Some(test) => {
                            let place = (path.to_owned(), test.name.clone());
                            found.tests.entry(tag).or_default().insert(place);
                        }
                        None => found.astray.push(format!("{tag} in {path}")),
                    }
                }
                is_marked = false;
            }
        }
    }
}

/// The tags in a text, as the list has them.
fn tags(text: &str) -> impl Iterator<Item = String> + '_ {
    text.split('[').skip(1).filter_map(|rest| {
        let tag = rest.split_once(']')?.0;
        let number = tag.strip_prefix("3.1.1: ").unwrap_or(tag).strip_prefix("MQTT-")?;
        let is_number = number.starts_with(|c: char| c.is_ascii_digit())
            && number.chars().all(|c| c.is_ascii_digit() || ".-".contains(c));
        is_number.then(|| tag.to_owned())
    })
}

// --- What it amounts to ---

fn state(list: &List, tag: &str) -> State {
    match () {
        () if list.not_met.contains_key(tag) => State::NotMet,
        () if list.not_applicable.contains_key(tag) => State::NotApplicable,
        () if list.untested.contains(tag) => State::Untested,
        () => State::Proved,
    }
}

/// Where list and sources contradict each other, a sentence each.
fn faults(list: &List, found: &Found) -> Vec<String> {
    let mut faults: Vec<String> =
        found.astray.iter().map(|tag| format!("{tag} belongs to no test")).collect();
    for (tag, path) in &found.anywhere {
        if !list.statements.contains_key(tag) && !list.clients_only.contains(tag) {
            faults.push(format!("{tag} in {path} is in no list"));
        }
    }
    let others = list.untested.iter().chain(list.not_applicable.keys()).chain(list.not_met.keys());
    for tag in others.filter(|tag| !list.statements.contains_key(*tag)) {
        faults.push(format!("{tag} is given a state, and is no statement"));
    }
    for (tag, says) in &list.statements {
        if says.split_whitespace().count() > WORDS_MAX {
            faults.push(format!("{tag} is said in more than {WORDS_MAX} words"));
        }
        let has_code = found.code.contains_key(tag);
        let has_test = found.tests.contains_key(tag);
        let wrong = match (state(list, tag), has_code, has_test) {
            (State::Proved, false, _) => "has no code that names it",
            (State::Proved, true, false) => "has no test, and is not among the untested",
            (State::Untested, false, _) => "is among the untested, and no code names it",
            (State::Untested, true, true) => "is among the untested, and has a test",
            (State::NotApplicable | State::NotMet, true, true) => {
                "has code and a test, and is said not to be met"
            }
            _ => continue,
        };
        faults.push(format!("{tag} {wrong}"));
    }
    faults
}

// --- The table ---

/// The order of the standard: by version, then by numbers.
fn order(tag: &str) -> (bool, Vec<u32>) {
    let number = tag.rsplit("MQTT-").next().unwrap_or(tag);
    let numbers = number.split(['.', '-']).filter_map(|number| number.parse().ok()).collect();
    (tag.starts_with("3.1.1"), numbers)
}

fn table(list: &List, found: &Found) -> String {
    let mut out = String::from(
        "<!-- Made by `cargo xtask conformance` of conformance.toml and of the tags in the \
         sources. -->\n\
         # Conformance of sextant-push with MQTT 5.0 and 3.1.1\n\n\
         Each numbered statement of the standards that a server must meet, in words of ours (the \
         standards' own are [there](https://docs.oasis-open.org/mqtt/mqtt/v5.0/mqtt-v5.0.html)), \
         with the code that names it and the tests that prove it. Those of MQTT 3.1.1 are listed \
         where they ask for something else than MQTT 5 does.\n\n",
    );
    let mut tags: Vec<&String> = list.statements.keys().collect();
    tags.sort_by_key(|tag| order(tag));
    summary(list, &tags, &mut out);
    let mut chapter = None;
    for tag in tags {
        let (is_old, numbers) = order(tag);
        if chapter.replace((is_old, numbers[0])) != Some((is_old, numbers[0])) {
            let title = match is_old {
                true => format!("MQTT 3.1.1, chapter {}", numbers[0]),
                false => format!("MQTT 5.0, chapter {}", numbers[0]),
            };
            _ = write!(out, "\n## {title}\n\n| statement | asks | code | tests |\n|-|-|-|-|\n");
        }
        out += &row(list, found, tag);
    }
    out
}

fn summary(list: &List, tags: &[&String], out: &mut String) {
    let rows = [
        (State::Proved, "met, with a test"),
        (State::Untested, "met, untested"),
        (State::NotApplicable, "about what this broker never does"),
        (State::NotMet, "not met"),
    ];
    *out += "| | MQTT 5.0 | MQTT 3.1.1 |\n|-|-:|-:|\n";
    for (wanted, words) in rows {
        let count = |is_old: bool| {
            tags.iter().filter(|tag| state(list, tag) == wanted && order(tag).0 == is_old).count()
        };
        _ = writeln!(out, "| {words} | {} | {} |", count(false), count(true));
    }
    let left_out = list.clients_only.len();
    _ = writeln!(out, "| left out, for only a client can meet or break them | {left_out} | |");
}

fn row(list: &List, found: &Found, tag: &str) -> String {
    let says = &list.statements[tag];
    let code: Vec<String> =
        found.code.get(tag).into_iter().flatten().map(|path| link(path, short(path))).collect();
    let tests: Vec<String> = found
        .tests
        .get(tag)
        .into_iter()
        .flatten()
        .map(|(path, name)| link(path, &format!("`{name}`")))
        .collect();
    let remark = match state(list, tag) {
        State::Proved => tests.join("<br>"),
        State::Untested => "**untested**".to_owned(),
        State::NotApplicable => format!("cannot come about: {}", list.not_applicable[tag]),
        State::NotMet => format!("**not met**: {}", list.not_met[tag]),
    };
    format!("| {tag} | {says} | {} | {remark} |\n", code.join("<br>"))
}

/// A path without what all paths of its crate begin with.
fn short(path: &str) -> &str {
    path.trim_start_matches("daemons/push/src/").trim_start_matches("shared/wire/")
}

/// A link to a file of the workspace, from the table's folder.
fn link(path: &str, text: &str) -> String {
    match path.strip_prefix("daemons/push/") {
        Some(here) => format!("[{text}]({here})"),
        None => format!("[{text}](../../{path})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str, text: &str) -> Found {
        let mut found = Found::default();
        read_source(path, text, &mut found);
        found
    }

    fn list(statements: &[&str]) -> List {
        List {
            clients_only: BTreeSet::new(),
            untested: BTreeSet::new(),
            statements: statements
                .iter()
                .map(|tag| (tag.to_string(), "It is so.".into()))
                .collect(),
            not_applicable: BTreeMap::new(),
            not_met: BTreeMap::new(),
        }
    }

    const SOURCE: &str = "// [MQTT-1.2.3-4], [3.1.1: MQTT-5.6.7-8], [`Link`], [MQTT-x]\nfn f() {}\n\
        #[cfg(test)]\nmod tests {\n    // [MQTT-1.2.3-4]\n    #[test]\n    fn above() {\n    }\n\n    \
        /// Words.\n    #[test]\n    fn within() {\n        // [3.1.1: MQTT-5.6.7-8]\n    }\n}\n";

    #[test]
    fn a_tag_belongs_to_code_or_to_the_test_below_or_around_it() {
        let found = found("shared/x/src/a.rs", SOURCE);
        let [new, old] = ["MQTT-1.2.3-4", "3.1.1: MQTT-5.6.7-8"];
        assert_eq!(found.code.keys().collect::<Vec<_>>(), [old, new]);
        let test = |tag: &str| found.tests[tag].first().map(|(_, name)| name.clone());
        assert_eq!(test(new).as_deref(), Some("above"));
        assert_eq!(test(old).as_deref(), Some("within"));
        assert_eq!(faults(&list(&[new, old]), &found), [""; 0]);
    }

    #[test]
    fn a_tag_above_no_test_is_a_fault() {
        let found = found("tests/it/a.rs", "// [MQTT-1.2.3-4]\nfn helper() {\n}\n");
        assert_eq!(found.astray, ["MQTT-1.2.3-4 in tests/it/a.rs"]);
    }

    #[test]
    fn list_and_sources_have_to_agree() {
        let found = found("shared/x/src/a.rs", SOURCE);
        let mut list = list(&["MQTT-1.2.3-4", "MQTT-9.9.9-9"]);
        list.untested.insert("MQTT-1.2.3-4".into());
        list.not_met.insert("MQTT-0.0.0-1".into(), "why".into());
        let faults = faults(&list, &found).join("\n");
        for fault in [
            "3.1.1: MQTT-5.6.7-8 in shared/x/src/a.rs is in no list",
            "MQTT-0.0.0-1 is given a state, and is no statement",
            "MQTT-1.2.3-4 is among the untested, and has a test",
            "MQTT-9.9.9-9 has no code that names it",
        ] {
            assert!(faults.contains(fault), "{fault} is not in {faults}");
        }
    }

    #[test]
    fn the_table_is_in_the_order_of_the_standard() {
        let found = found("shared/x/src/a.rs", SOURCE);
        let mut list = list(&["MQTT-1.2.10-1", "MQTT-1.2.3-4", "3.1.1: MQTT-1.0.0-1"]);
        list.not_met.insert("MQTT-1.2.10-1".into(), "it is too hard".into());
        let table = table(&list, &found);
        let at = |tag: &str| table.find(&format!("| {tag} |")).expect("a row");
        assert!(at("MQTT-1.2.3-4") < at("MQTT-1.2.10-1"), "{table}");
        assert!(at("MQTT-1.2.10-1") < at("3.1.1: MQTT-1.0.0-1"), "{table}");
        assert!(table.contains("| not met | 1 | 0 |"), "{table}");
        assert!(table.contains("**not met**: it is too hard"), "{table}");
    }
}
