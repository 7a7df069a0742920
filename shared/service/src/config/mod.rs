//! Configuration in layers: the daemon's defaults, a TOML file, the environment, flags.
//!
//! ```text
//!   T::default() ◄── FILE ◄── SEXTANT_PUSH_MQTT__LISTEN=… ◄── --set mqtt.listen=…, --mqtt …
//!        later layers win, key by key; an array is replaced as a whole
//! ```
//!
//! A daemon describes its settings once, as a type: every key that exists, its type and its
//! default come from there, and [`load`] gives back a checked value of it or **every** fault it
//! found: unknown keys with the nearest name that exists, values that do not fit, and what
//! [`Config::check`] has to say, each with the file and line, variable or flag it stands in. A
//! key that nobody knows is never passed over.
//!
//! In the environment `__` separates levels (`SEXTANT_PUSH_AUTH__USERS__0__PASSWORD` is
//! `auth.users[0].password`). There and in `--set` a value is plain text that is read as the type
//! wants it: a list is `a,b` or `["a", "b"]`, a table `{ a = 1 }`.
//!
//! What a daemon does about a change at run time is its own affair; [`Loaded::changed_keys`] tells
//! it what changed.

mod de;
mod durability;
mod print;
mod quantity;
mod secret;
mod tree;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;
use toml::de::DeTable;

use de::{Findings, NodeDe, inline, nearest};
use tree::{Lines, Node, Step, Value, dotted};

pub use durability::{Durability, DurabilityError};
pub use quantity::{Bytes, QuantityError, Span};
pub use secret::{REDACTED, Secret};
pub use tree::Origin;

/// A configuration file larger than this is not one.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// No key of ours is nested deeper; without a bound a variable's name could exhaust the stack.
const KEY_LEVELS_MAX: usize = 16;
/// Faults past this many are not worth reading; it also bounds the passes over the tree.
const FAULTS_MAX: usize = 64;

/// The settings of a daemon.
///
/// Every key has a default, or is an `Option`. Elements of arrays and values of maps have no
/// defaults of their own unless `#[serde(default)]` gives them some. Defaults must survive being
/// written as TOML and read back (a test of the daemon's should load it with no sources).
pub trait Config: Default + Serialize + DeserializeOwned {
    /// Adds what the types alone cannot know: ranges, and keys that contradict each other.
    fn check(&self, faults: &mut Faults<'_>) {
        let _ = faults;
    }
}

/// Where [`load`] looks, besides the defaults. `Debug` shows no values, which may be secrets.
#[derive(Clone, Default)]
pub struct Sources {
    /// The TOML file, if any. It must exist.
    pub file: Option<PathBuf>,
    /// The environment; what does not begin with the daemon's prefix is passed over.
    pub env: Vec<(OsString, OsString)>,
    /// `key=value` of `--set`, in order.
    pub sets: Vec<String>,
    /// The daemon's own flags.
    pub flags: Vec<Flag>,
}

impl fmt::Debug for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sources").field("file", &self.file).finish_non_exhaustive()
    }
}

impl Sources {
    /// The environment of this process, and no file or flags.
    pub fn from_env() -> Self {
        Self { env: std::env::vars_os().collect(), ..Self::default() }
    }
}

/// A flag that sets one key. `Debug` does not show the value, which may be a secret.
#[derive(Clone)]
pub struct Flag {
    /// As the operator wrote it, such as `--mqtt`.
    pub name: &'static str,
    /// The dotted key, such as `mqtt.listen`.
    pub key: &'static str,
    /// The value it sets.
    pub value: toml::Value,
}

impl fmt::Debug for Flag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Flag({} sets {})", self.name, self.key)
    }
}

impl Flag {
    /// The flag `name` that sets `key` to `value`.
    pub fn new(name: &'static str, key: &'static str, value: impl Into<toml::Value>) -> Self {
        Self { name, key, value: value.into() }
    }
}

/// One thing that is wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The dotted key, such as `auth.users[1].name`; empty for a file as a whole.
    pub key: String,
    /// Where it was written.
    pub origin: Origin,
    /// What is wrong.
    pub what: String,
    /// What was probably meant.
    pub nearest: Option<String>,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.origin)?;
        if !self.key.is_empty() {
            write!(f, "`{}`: ", self.key)?;
        }
        f.write_str(&self.what)?;
        match &self.nearest {
            Some(name) => write!(f, "; did you mean `{name}`?"),
            None => Ok(()),
        }
    }
}

/// A configuration that cannot be run with: all of its faults, one a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// Never empty.
    pub faults: Vec<Fault>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, fault) in self.faults.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{fault}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

/// Collects what [`Config::check`] finds.
#[derive(Debug)]
pub struct Faults<'a> {
    tree: &'a Node,
    found: Vec<Fault>,
}

impl Faults<'_> {
    /// Says that the value of the dotted `key` (`mqtt.listen[0]` for an element) will not do, and
    /// why.
    pub fn add(&mut self, key: &str, what: impl fmt::Display) {
        let origin = origin_of(self.tree, key);
        let what = what.to_string();
        self.found.push(Fault { key: key.to_owned(), origin, what, nearest: None });
    }

    /// Adds a fault unless `holds`.
    pub fn require(&mut self, key: &str, holds: bool, what: impl fmt::Display) {
        if !holds {
            self.add(key, what);
        }
    }
}

/// The origin of `key`, or of what is nearest above it.
fn origin_of(tree: &Node, key: &str) -> Origin {
    let mut path: Vec<Step> = Vec::new();
    for part in key.split('.') {
        let mut pieces = part.split('[');
        path.push(Step::Key(pieces.next().unwrap_or_default().to_owned()));
        for index in pieces {
            if let Ok(index) = index.trim_end_matches(']').parse() {
                path.push(Step::Index(index));
            }
        }
    }
    (1..=path.len())
        .rev()
        .find_map(|len| tree.get(&path[..len]))
        .map_or(Origin::Default, |node| node.origin.clone())
}

/// A configuration to run with, and where each of its values came from.
#[derive(Debug)]
pub struct Loaded<T> {
    /// The checked settings.
    pub value: T,
    tree: Node,
}

impl<T: Config> Loaded<T> {
    /// The effective configuration as TOML. Secrets are redacted; a value that is not a default
    /// carries a comment that says where it was set.
    pub fn to_toml(&self) -> String {
        print::print(&as_table(&self.value), &self.tree)
    }

    /// Where `key` was set.
    pub fn origin(&self, key: &str) -> Origin {
        origin_of(&self.tree, key)
    }

    /// What has to be done about the keys in which `newer` differs, given the keys (or tables) that
    /// the daemon can take over while it runs.
    pub fn changes(&self, newer: &Self, live: &[&str]) -> Changes {
        let is_live = |key: &String| {
            live.iter().any(|live| {
                key.strip_prefix(live).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
            })
        };
        let (live, restart) = self.changed_keys(newer).into_iter().partition(is_live);
        Changes { live, restart }
    }

    /// The dotted keys in which `newer` differs, secrets among them.
    pub fn changed_keys(&self, newer: &Self) -> Vec<String> {
        let mut found = Vec::new();
        self.tree.differences(&newer.tree, &mut Vec::new(), &mut found);
        found
    }
}

/// What a reload found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Changed keys that take effect now.
    pub live: Vec<String>,
    /// Changed keys that take effect at the next start; the daemon says so in its log.
    pub restart: Vec<String>,
}

/// The prefix of `daemon`'s environment variables: `SEXTANT_PUSH_` for `push`.
pub fn env_prefix(daemon: &str) -> String {
    format!("SEXTANT_{}_", daemon.to_uppercase())
}

/// Reads and merges all layers of `daemon`'s configuration and checks the result.
///
/// # Errors
///
/// All faults of all layers, as far as they can be told apart; the operator's to mend.
pub fn load<T: Config>(daemon: &str, sources: &Sources) -> Result<Loaded<T>, ConfigError> {
    let mut defaults =
        Node::from_toml(toml::Value::Table(as_table(&T::default())), &Origin::Default);
    drop_redacted(&mut defaults);
    let mut tree = defaults.clone();
    let mut faults = Vec::new();
    if let Some(path) = &sources.file {
        match read_file(path) {
            Ok(layer) => tree.merge(layer),
            Err(found) => faults.extend(found),
        }
    }
    lay_environment(&mut tree, daemon, &sources.env, &mut faults);
    for set in &sources.sets {
        lay_set(&mut tree, set, &mut faults);
    }
    for flag in &sources.flags {
        let origin = Origin::Flag(flag.name.to_owned());
        let keys: Vec<&str> = flag.key.split('.').collect();
        tree.set(&keys, Node::from_toml(flag.value.clone(), &origin));
    }
    let value = typed::<T>(&mut tree, &defaults, &mut faults);
    match value {
        Some(value) if faults.is_empty() => {
            let mut check = Faults { tree: &tree, found: Vec::new() };
            value.check(&mut check);
            let faults = check.found;
            if faults.is_empty() { Ok(Loaded { value, tree }) } else { Err(ConfigError { faults }) }
        }
        _ => {
            faults.truncate(FAULTS_MAX);
            Err(ConfigError { faults })
        }
    }
}

/// Reads `T` off the tree. Each fault is noted and mended, and the tree read again, until it
/// fits: so one wrong value does not hide the next.
fn typed<T: Config>(tree: &mut Node, defaults: &Node, faults: &mut Vec<Fault>) -> Option<T> {
    let findings = RefCell::new(Findings::default());
    let mut taken_out: BTreeSet<Vec<Step>> = BTreeSet::new();
    let mut value = None;
    for _ in 0..FAULTS_MAX {
        match T::deserialize(NodeDe::new(tree, &findings)) {
            Ok(fitting) => {
                value = Some(fitting);
                break;
            }
            Err(misfit) => {
                let (path, origin) = misfit.place.unwrap_or((Vec::new(), Origin::Default));
                // A key that is missing because it was faulty was reported as that.
                let known = misfit.missing.is_some_and(|field| {
                    let mut key = path.clone();
                    key.push(Step::Key(field.to_owned()));
                    taken_out.contains(&key)
                });
                if !known {
                    let (key, nearest) = (dotted(&path), misfit.nearest);
                    faults.push(Fault { key, origin, what: misfit.what, nearest });
                }
                if !tree.repair(&path, defaults) {
                    break;
                }
                taken_out.insert(path);
            }
        }
    }
    faults.extend(unknown_keys(&findings.into_inner()));
    value
}

fn unknown_keys(findings: &Findings) -> Vec<Fault> {
    // Where else each name exists, for a key that was put in the wrong table.
    let mut elsewhere: BTreeMap<&str, &str> = BTreeMap::new();
    for key in &findings.known {
        let name = key.rsplit('.').next().unwrap_or(key);
        elsewhere.entry(name).or_insert(key);
    }
    let fault = |(path, unknown): (&Vec<Step>, &de::Unknown)| {
        let key = dotted(path);
        let name = match path.last() {
            Some(Step::Key(name)) => name.as_str(),
            _ => "",
        };
        let beside = nearest(name, unknown.beside.iter().copied()).map(|sibling| {
            let mut path = path.clone();
            path.pop();
            path.push(Step::Key(sibling.to_owned()));
            dotted(&path)
        });
        let nearest = beside.or_else(|| elsewhere.get(name).map(|key| (*key).to_owned()));
        Fault { key, origin: unknown.origin.clone(), what: "unknown key".to_owned(), nearest }
    };
    findings.unknown.iter().map(fault).collect()
}

/// The settings as TOML. That they can be written so is a property of the type, not of what an
/// operator wrote, and each daemon's tests show it for its own.
fn as_table<T: Config>(settings: &T) -> toml::Table {
    match toml::Table::try_from(settings) {
        Ok(table) => table,
        Err(error) => panic!("the settings type cannot be written as TOML: {error}"),
    }
}

/// A secret's default cannot be read back from what it shows.
fn drop_redacted(node: &mut Node) {
    if let Value::Table(entries) = &mut node.value {
        entries.retain(|_, entry| entry.value != Value::Str(REDACTED.to_owned()));
        entries.values_mut().for_each(drop_redacted);
    }
}

fn read_file(path: &Path) -> Result<Node, Vec<Fault>> {
    let whole = |what: String| {
        let origin = Origin::File { path: path.into(), line: 0 };
        vec![Fault { key: String::new(), origin, what, nearest: None }]
    };
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(|error| whole(format!("cannot open: {error}")))?;
    file.take(FILE_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| whole(format!("cannot read: {error}")))?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(whole(format!("larger than {}", Bytes::new(FILE_BYTES_MAX))));
    }
    let text = String::from_utf8(bytes).map_err(|_| whole("not UTF-8".to_owned()))?;
    let lines = Lines::new(path, &text);
    let (table, errors) = DeTable::parse_recoverable(&text);
    if errors.is_empty() {
        return Ok(Node::from_document(table.get_ref(), &lines));
    }
    let mut errors: Vec<(usize, &str)> = errors
        .iter()
        .map(|error| (error.span().map_or(0, |span| span.start), error.message()))
        .collect();
    errors.sort_unstable();
    let fault = |(offset, message): (usize, &str)| Fault {
        key: String::new(),
        origin: lines.origin(Some(offset)),
        what: message.to_owned(),
        nearest: None,
    };
    Err(errors.into_iter().map(fault).collect())
}

fn lay_environment(
    tree: &mut Node,
    daemon: &str,
    env: &[(OsString, OsString)],
    faults: &mut Vec<Fault>,
) {
    let prefix = env_prefix(daemon);
    let mut variables: Vec<(String, &OsString)> = env
        .iter()
        .filter_map(|(name, value)| Some((name.to_str()?.to_owned(), value)))
        .filter(|(name, _)| name.starts_with(&prefix))
        .collect();
    // In a fixed order in which 2 comes before 10, so that arrays are filled from 0 up.
    variables.sort_by_cached_key(|(name, _)| -> Vec<(Option<u64>, String)> {
        name.split("__").map(|part| (part.parse().ok(), part.to_owned())).collect()
    });
    for (name, value) in variables {
        let key = name[prefix.len()..].to_lowercase().replace("__", ".");
        let origin = Origin::Env(name);
        let Some(value) = value.to_str() else {
            let what = "not UTF-8".to_owned();
            faults.push(Fault { key, origin, what, nearest: None });
            continue;
        };
        let keys: Vec<&str> = key.split('.').collect();
        if keys.len() > KEY_LEVELS_MAX {
            let what = format!("more than {KEY_LEVELS_MAX} levels");
            faults.push(Fault { key, origin, what, nearest: None });
            continue;
        }
        tree.set(&keys, Node { value: Value::Text(value.to_owned()), origin });
    }
}

fn lay_set(tree: &mut Node, set: &str, faults: &mut Vec<Fault>) {
    let origin = Origin::Flag("--set".to_owned());
    let mut fault = |key: &str, what: String| {
        let origin = Origin::Flag("--set".to_owned());
        faults.push(Fault { key: key.to_owned(), origin, what, nearest: None });
    };
    let Some((key, value)) = set.split_once('=') else {
        return fault(set, "expected KEY=VALUE".to_owned());
    };
    let (key, value) = (key.trim(), value.trim());
    let keys: Vec<&str> = key.split('.').collect();
    if keys.iter().any(|key| key.is_empty()) {
        return fault(key, "expected a dotted key such as mqtt.listen".to_owned());
    }
    if keys.len() > KEY_LEVELS_MAX {
        return fault(key, format!("more than {KEY_LEVELS_MAX} levels"));
    }
    let node = if value.starts_with(['"', '\'']) {
        match inline(value, &origin) {
            Ok(node) => node,
            Err(what) => return fault(key, what),
        }
    } else {
        Node { value: Value::Text(value.to_owned()), origin }
    };
    tree.set(&keys, node);
}

#[cfg(test)]
mod tests;
