//! The merged configuration before it has a type: a TOML-like tree in which every value knows
//! where it was written.
//!
//! Layers are laid over each other here: tables merge key by key, everything else (an array too)
//! is replaced by the later layer. A value from the environment or from `--set` is [`Value::Text`]:
//! what it means is decided by the type that asks for it, in [`super::de`].

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use toml::de::{DeTable, DeValue};

/// Where a value of the effective configuration was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nowhere: it is the daemon's default.
    Default,
    /// In a TOML file. `line` counts from 1; 0 stands for the file as a whole.
    File {
        /// The file as it was named on the command line.
        path: Arc<Path>,
        /// The line of the key.
        line: usize,
    },
    /// In this environment variable.
    Env(String),
    /// In this flag of the command line, such as `--set` or `--mqtt`.
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line: 0 } => write!(f, "{}", path.display()),
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Env(name) => write!(f, "environment variable {name}"),
            Self::Flag(name) => write!(f, "flag {name}"),
        }
    }
}

/// One step from a table or array to what it holds.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Step {
    Key(String),
    Index(usize),
}

/// `mqtt.listen[1]`, the way an operator would write it.
pub(super) fn dotted(path: &[Step]) -> String {
    let mut name = String::new();
    for step in path {
        match step {
            Step::Key(key) if name.is_empty() => name.push_str(key),
            Step::Key(key) => {
                name.push('.');
                name.push_str(key);
            }
            Step::Index(index) => name.push_str(&format!("[{index}]")),
        }
    }
    name
}

#[derive(Clone, PartialEq)]
pub(super) enum Value {
    Bool(bool),
    Int(i64),
    Float(f64),
    Str(String),
    /// A string that may stand for any type: from the environment or `--set`.
    Text(String),
    Array(Vec<Node>),
    Table(BTreeMap<String, Node>),
    /// An array element that was found faulty and is passed over, so that the elements behind it
    /// keep their index.
    Skipped,
}

#[derive(Clone)]
pub(super) struct Node {
    pub(super) value: Value,
    pub(super) origin: Origin,
}

/// Without values: before they have a type, nobody can tell which of them are secrets.
impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Node({})", self.origin)
    }
}

/// Equal values are equal configurations, wherever they were written.
impl PartialEq for Node {
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

impl Node {
    pub(super) fn table(origin: Origin) -> Self {
        Self { value: Value::Table(BTreeMap::new()), origin }
    }

    /// A tree in which everything has the one `origin`.
    pub(super) fn from_toml(value: toml::Value, origin: &Origin) -> Self {
        let value = match value {
            toml::Value::String(text) => Value::Str(text),
            toml::Value::Integer(number) => Value::Int(number),
            toml::Value::Float(number) => Value::Float(number),
            toml::Value::Boolean(flag) => Value::Bool(flag),
            toml::Value::Datetime(time) => Value::Str(time.to_string()),
            toml::Value::Array(items) => {
                Value::Array(items.into_iter().map(|item| Self::from_toml(item, origin)).collect())
            }
            toml::Value::Table(table) => Value::Table(
                table
                    .into_iter()
                    .map(|(key, value)| (key, Self::from_toml(value, origin)))
                    .collect(),
            ),
        };
        Self { value, origin: origin.clone() }
    }

    /// The table of a parsed file; each key's origin is its own line.
    pub(super) fn from_document(table: &DeTable<'_>, lines: &Lines<'_>) -> Self {
        Self { value: Value::Table(entries(table, lines)), origin: lines.origin(None) }
    }

    fn from_spanned(value: &DeValue<'_>, origin: Origin, lines: &Lines<'_>) -> Self {
        let value = match value {
            DeValue::String(text) => Value::Str(text.to_string()),
            DeValue::Integer(number) => {
                // The parser has no bound of its own. What does not fit is left as text, and is
                // then refused by the type that wanted a number, with its place.
                match i64::from_str_radix(number.as_str(), number.radix()) {
                    Ok(number) => Value::Int(number),
                    Err(_) => Value::Str(number.to_string()),
                }
            }
            DeValue::Float(number) => match number.as_str().parse() {
                Ok(number) => Value::Float(number),
                Err(_) => Value::Str(number.to_string()),
            },
            DeValue::Boolean(flag) => Value::Bool(*flag),
            DeValue::Datetime(time) => Value::Str(time.to_string()),
            DeValue::Array(items) => Value::Array(
                items
                    .iter()
                    .map(|item| {
                        let origin = lines.origin(Some(item.span().start));
                        Self::from_spanned(item.get_ref(), origin, lines)
                    })
                    .collect(),
            ),
            DeValue::Table(table) => Value::Table(entries(table, lines)),
        };
        Self { value, origin }
    }

    /// Lays `over` upon `self`.
    pub(super) fn merge(&mut self, over: Self) {
        match (&mut self.value, over.value) {
            (Value::Table(under), Value::Table(over_entries)) => {
                for (key, node) in over_entries {
                    match under.get_mut(&key) {
                        Some(existing) => existing.merge(node),
                        None => {
                            under.insert(key, node);
                        }
                    }
                }
                self.origin = over.origin;
            }
            (_, value) => *self = Self { value, origin: over.origin },
        }
    }

    /// Puts `node` at `keys` below `self`, with the tables on the way to it. A number addresses
    /// an element of an array that is already there, or the one after its last.
    pub(super) fn set(&mut self, keys: &[&str], node: Self) {
        let Some((first, rest)) = keys.split_first() else {
            return self.merge(node);
        };
        if let Value::Array(items) = &mut self.value
            && let Ok(index) = first.parse::<usize>()
            && index <= items.len()
        {
            if index == items.len() {
                items.push(Self::table(node.origin.clone()));
            }
            return items[index].set(rest, node);
        }
        if !matches!(self.value, Value::Table(_)) {
            *self = Self::table(node.origin.clone());
        }
        let Value::Table(entries) = &mut self.value else {
            unreachable!("the value was made a table above");
        };
        let child =
            entries.entry((*first).to_owned()).or_insert_with(|| Self::table(node.origin.clone()));
        child.set(rest, node);
    }

    pub(super) fn get(&self, path: &[Step]) -> Option<&Self> {
        path.iter().try_fold(self, |node, step| match (&node.value, step) {
            (Value::Table(entries), Step::Key(key)) => entries.get(key),
            (Value::Array(items), Step::Index(index)) => items.get(*index),
            _ => None,
        })
    }

    fn get_mut(&mut self, path: &[Step]) -> Option<&mut Self> {
        path.iter().try_fold(self, |node, step| match (&mut node.value, step) {
            (Value::Table(entries), Step::Key(key)) => entries.get_mut(key),
            (Value::Array(items), Step::Index(index)) => items.get_mut(*index),
            _ => None,
        })
    }

    /// Takes a faulty value out, so that what is beside it can be read too: the default comes
    /// back where there is one, an array element is passed over. Says whether anything changed.
    pub(super) fn repair(&mut self, path: &[Step], defaults: &Self) -> bool {
        if let Some(default) = defaults.get(path) {
            let default = default.clone();
            return match self.get_mut(path) {
                Some(node) if *node != default => {
                    *node = default;
                    true
                }
                _ => false,
            };
        }
        let Some((last, parent)) = path.split_last() else {
            return false;
        };
        match (self.get_mut(parent).map(|node| &mut node.value), last) {
            (Some(Value::Table(entries)), Step::Key(key)) => entries.remove(key).is_some(),
            (Some(Value::Array(items)), Step::Index(index)) => match items.get_mut(*index) {
                Some(item) if item.value != Value::Skipped => {
                    item.value = Value::Skipped;
                    true
                }
                _ => false,
            },
            _ => false,
        }
    }

    /// The dotted names of the leaves in which two trees differ.
    pub(super) fn differences(&self, other: &Self, path: &mut Vec<Step>, found: &mut Vec<String>) {
        let (Value::Table(mine), Value::Table(theirs)) = (&self.value, &other.value) else {
            if self != other {
                found.push(dotted(path));
            }
            return;
        };
        let mut keys: Vec<&String> = mine.keys().chain(theirs.keys()).collect();
        keys.sort();
        keys.dedup();
        for key in keys {
            path.push(Step::Key(key.clone()));
            match (mine.get(key), theirs.get(key)) {
                (Some(a), Some(b)) => a.differences(b, path, found),
                _ => found.push(dotted(path)),
            }
            path.pop();
        }
    }
}

fn entries(table: &DeTable<'_>, lines: &Lines<'_>) -> BTreeMap<String, Node> {
    table
        .iter()
        .map(|(key, value)| {
            let origin = lines.origin(Some(key.span().start));
            (key.get_ref().to_string(), Node::from_spanned(value.get_ref(), origin, lines))
        })
        .collect()
}

/// Turns byte offsets of one file into lines.
pub(super) struct Lines<'a> {
    path: Arc<Path>,
    text: &'a str,
}

impl<'a> Lines<'a> {
    pub(super) fn new(path: &Path, text: &'a str) -> Self {
        Self { path: Arc::from(path), text }
    }

    pub(super) fn origin(&self, offset: Option<usize>) -> Origin {
        let line = offset.map_or(0, |offset| {
            let before = &self.text.as_bytes()[..offset.min(self.text.len())];
            1 + before.iter().filter(|byte| **byte == b'\n').count()
        });
        Origin::File { path: Arc::clone(&self.path), line }
    }
}
