//! From the tree to the daemon's type, by `serde`, with every fault at its place.
//!
//! A struct tells its field names when it asks to be deserialised; a key that is none of them is
//! an unknown key. It is noted, with the names that would have been right, and not shown to the
//! struct, so that one pass finds all unknown keys. This holds for optional structs, for arrays
//! of them and at every depth, and it needs no attribute on the type. (Inside an untagged or
//! internally tagged enum `serde` buffers and asks no names: there `deny_unknown_fields` on the
//! variant is what finds them.)

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;

use serde::de::value::{StrDeserializer, StringDeserializer};
use serde::de::{
    self, DeserializeSeed, EnumAccess, Expected, IntoDeserializer, MapAccess, SeqAccess,
    Unexpected, VariantAccess, Visitor,
};
use toml::de::DeTable;

use super::tree::{Lines, Node, Origin, Step, Value, dotted};

/// A key that no type asked for.
#[derive(Debug)]
pub(super) struct Unknown {
    pub(super) origin: Origin,
    /// The names that the struct around it knows; empty where the type has no fixed names.
    pub(super) beside: &'static [&'static str],
}

/// What a pass over the tree learns besides the value.
#[derive(Debug, Default)]
pub(super) struct Findings {
    pub(super) unknown: BTreeMap<Vec<Step>, Unknown>,
    /// The dotted name of every key that some struct knows.
    pub(super) known: BTreeSet<String>,
}

/// A value that does not fit its type.
#[derive(Debug)]
pub(super) struct Misfit {
    pub(super) what: String,
    /// The innermost value that had the fault.
    pub(super) place: Option<(Vec<Step>, Origin)>,
    /// The name that was probably meant, where a name was wrong.
    pub(super) nearest: Option<String>,
    /// The key that a table lacks, if that is the fault.
    pub(super) missing: Option<&'static str>,
}

impl Misfit {
    fn new(what: String) -> Self {
        Self { what, place: None, nearest: None, missing: None }
    }

    fn at(mut self, path: &[Step], origin: &Origin) -> Self {
        self.place.get_or_insert_with(|| (path.to_vec(), origin.clone()));
        self
    }
}

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for Misfit {}

impl de::Error for Misfit {
    fn custom<T: fmt::Display>(what: T) -> Self {
        Self::new(what.to_string())
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        let expected = in_words(expected);
        // Where there is more than one value it may be a secret that is written as one.
        let found = match found {
            Unexpected::Str(_) if matches!(expected.as_str(), "a table" | "an array" | "a map") => {
                "a string".to_owned()
            }
            found => kind(found),
        };
        Self::new(format!("expected {expected}, found {found}"))
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::new(format!("expected {}, found {}", in_words(expected), kind(found)))
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        let mut misfit =
            Self::new(format!("expected one of {}, found \"{variant}\"", quoted(expected)));
        misfit.nearest = nearest(variant, expected.iter().copied()).map(str::to_owned);
        misfit
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        let mut misfit = Self::new(format!("unknown key `{field}`"));
        misfit.nearest = nearest(field, expected.iter().copied()).map(str::to_owned);
        misfit
    }

    fn missing_field(field: &'static str) -> Self {
        let mut misfit = Self::new(format!("the key `{field}` is missing"));
        misfit.missing = Some(field);
        misfit
    }
}

fn quoted(names: &[&str]) -> String {
    names.iter().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(", ")
}

/// `serde` names Rust types; an operator thinks in numbers.
fn in_words(expected: &dyn Expected) -> String {
    let name = expected.to_string();
    match name.as_str() {
        "u8" => "a whole number from 0 to 255".to_owned(),
        "u16" => "a whole number from 0 to 65535".to_owned(),
        "u32" => format!("a whole number from 0 to {}", u32::MAX),
        "u64" | "usize" => "a whole number, 0 or more".to_owned(),
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number".to_owned(),
        "f32" | "f64" => "a number".to_owned(),
        "a boolean" => "true or false".to_owned(),
        "a sequence" => "an array".to_owned(),
        _ => match name.strip_prefix("struct ") {
            Some(_) => "a table".to_owned(),
            None => name,
        },
    }
}

fn kind(found: Unexpected<'_>) -> String {
    match found {
        Unexpected::Bool(flag) => flag.to_string(),
        Unexpected::Unsigned(number) => number.to_string(),
        Unexpected::Signed(number) => number.to_string(),
        Unexpected::Float(number) => number.to_string(),
        Unexpected::Str(text) => format!("\"{text}\""),
        Unexpected::Seq => "an array".to_owned(),
        Unexpected::Map => "a table".to_owned(),
        other => other.to_string(),
    }
}

/// The one of `known` that `wrong` was most likely meant to be.
pub(super) fn nearest<'a>(wrong: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let wrong = wrong.to_lowercase().replace('-', "_");
    known
        .map(|name| (strsim::damerau_levenshtein(&wrong, name), name))
        .filter(|(distance, name)| *distance <= name.len().max(wrong.len()).div_ceil(3))
        .min()
        .map(|(_, name)| name)
}

/// The deserialiser of one node.
pub(super) struct NodeDe<'a> {
    node: &'a Node,
    path: Vec<Step>,
    findings: &'a RefCell<Findings>,
}

impl<'a> NodeDe<'a> {
    pub(super) fn new(node: &'a Node, findings: &'a RefCell<Findings>) -> Self {
        Self { node, path: Vec::new(), findings }
    }

    fn child(&self, step: Step, node: &'a Node) -> Self {
        let mut path = self.path.clone();
        path.push(step);
        Self { node, path, findings: self.findings }
    }

    fn fault(&self, what: impl fmt::Display) -> Misfit {
        Misfit::new(what.to_string()).at(&self.path, &self.node.origin)
    }

    /// Runs `visit` and gives its error this node's place, unless one below it has a place.
    fn placed<T>(&self, visit: impl FnOnce(&Self) -> Result<T, Misfit>) -> Result<T, Misfit> {
        visit(self).map_err(|misfit| misfit.at(&self.path, &self.node.origin))
    }

    /// Reads text as inline TOML (an array or a table) and hands it on as if it had been written
    /// so.
    fn with_inline<T>(
        &self,
        text: &str,
        then: impl FnOnce(NodeDe<'_>) -> Result<T, Misfit>,
    ) -> Result<T, Misfit> {
        let node = inline(text, &self.node.origin).map_err(|what| self.fault(what))?;
        then(NodeDe { node: &node, path: self.path.clone(), findings: self.findings })
    }

    fn visit_any<'de, V: Visitor<'de>>(&self, visitor: V) -> Result<V::Value, Misfit> {
        self.placed(|de| match &de.node.value {
            Value::Bool(flag) => visitor.visit_bool(*flag),
            Value::Int(number) => visitor.visit_i64(*number),
            Value::Float(number) => visitor.visit_f64(*number),
            Value::Str(text) => visitor.visit_str(text),
            Value::Text(text) => de.visit_guess(text, visitor),
            Value::Array(items) => visitor.visit_seq(Items { de, items, next: 0 }),
            Value::Table(entries) => visitor.visit_map(Entries::all(de, entries)),
            Value::Skipped => unreachable!("a skipped element is never handed out"),
        })
    }

    /// Text for a type that takes several kinds: what TOML would take it for, else a string.
    fn visit_guess<'de, V: Visitor<'de>>(
        &self,
        text: &str,
        visitor: V,
    ) -> Result<V::Value, Misfit> {
        if let Ok(flag) = text.parse() {
            visitor.visit_bool(flag)
        } else if let Ok(number) = text.parse() {
            visitor.visit_i64(number)
        } else if text.starts_with(['[', '{']) {
            self.with_inline(text, |de| de.visit_any(visitor))
        } else {
            visitor.visit_str(text)
        }
    }

    fn visit_items<'de, V: Visitor<'de>>(&self, visitor: V) -> Result<V::Value, Misfit> {
        let Value::Text(text) = &self.node.value else {
            return self.visit_any(visitor);
        };
        if text.starts_with('[') {
            return self.with_inline(text, |de| de.visit_any(visitor));
        }
        let items = text
            .split(',')
            .map(str::trim)
            .filter(|item| !item.is_empty())
            .map(|item| Node {
                value: Value::Text(item.to_owned()),
                origin: self.node.origin.clone(),
            })
            .collect();
        let node = Node { value: Value::Array(items), origin: self.node.origin.clone() };
        NodeDe { node: &node, path: self.path.clone(), findings: self.findings }.visit_any(visitor)
    }

    fn visit_number<'de, V: Visitor<'de>>(&self, visitor: V) -> Result<V::Value, Misfit> {
        match &self.node.value {
            Value::Text(text) => self.placed(|_| match text.replace('_', "").parse::<i64>() {
                Ok(number) => visitor.visit_i64(number),
                Err(_) => visitor.visit_str(text),
            }),
            _ => self.visit_any(visitor),
        }
    }
}

/// Reads a value written in TOML: an array, a table, a quoted string. All of it has the one
/// origin.
pub(super) fn inline(text: &str, origin: &Origin) -> Result<Node, String> {
    let document = format!("value = {text}");
    let table = DeTable::parse(&document).map_err(|error| error.message().to_owned())?;
    let lines = Lines::new(Path::new(""), &document);
    let Value::Table(mut entries) = Node::from_document(table.get_ref(), &lines).value else {
        unreachable!("a document is a table");
    };
    match (entries.remove("value"), entries.is_empty()) {
        (Some(mut node), true) => {
            relabel(&mut node, origin);
            Ok(node)
        }
        _ => Err("expected one value, found more".to_owned()),
    }
}

fn relabel(node: &mut Node, origin: &Origin) {
    node.origin = origin.clone();
    match &mut node.value {
        Value::Array(items) => items.iter_mut().for_each(|item| relabel(item, origin)),
        Value::Table(entries) => entries.values_mut().for_each(|entry| relabel(entry, origin)),
        _ => {}
    }
}

impl<'de> de::Deserializer<'de> for NodeDe<'_> {
    type Error = Misfit;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        self.visit_any(visitor)
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        match &self.node.value {
            Value::Text(text) => self.placed(|_| match text.parse() {
                Ok(flag) => visitor.visit_bool(flag),
                Err(_) => visitor.visit_str(text),
            }),
            _ => self.visit_any(visitor),
        }
    }

    fn deserialize_i8<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        self.visit_number(visitor)
    }

    fn deserialize_i16<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        self.visit_number(visitor)
    }

    fn deserialize_i32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        self.visit_number(visitor)
    }

    fn deserialize_i64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        self.visit_number(visitor)
    }

    fn deserialize_u8<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        self.visit_number(visitor)
    }

    fn deserialize_u16<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        self.visit_number(visitor)
    }

    fn deserialize_u32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        self.visit_number(visitor)
    }

    fn deserialize_u64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        self.visit_number(visitor)
    }

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        self.deserialize_f64(visitor)
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        match &self.node.value {
            Value::Text(text) => self.placed(|_| match text.parse() {
                Ok(number) => visitor.visit_f64(number),
                Err(_) => visitor.visit_str(text),
            }),
            _ => self.visit_any(visitor),
        }
    }

    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        self.deserialize_str(visitor)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        match &self.node.value {
            Value::Text(text) => self.placed(|_| visitor.visit_str(text)),
            _ => self.visit_any(visitor),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        self.deserialize_str(visitor)
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        self.deserialize_str(visitor)
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        visitor.visit_some(self)
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        self.visit_any(visitor)
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Misfit> {
        self.visit_any(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Misfit> {
        let (path, origin) = (self.path.clone(), self.node.origin.clone());
        visitor.visit_newtype_struct(self).map_err(|misfit| misfit.at(&path, &origin))
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        self.visit_items(visitor)
    }

    fn deserialize_tuple<V: Visitor<'de>>(
        self,
        _len: usize,
        visitor: V,
    ) -> Result<V::Value, Misfit> {
        self.visit_items(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _len: usize,
        visitor: V,
    ) -> Result<V::Value, Misfit> {
        self.visit_items(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        match &self.node.value {
            Value::Text(text) if text.starts_with('{') => {
                self.with_inline(text, |de| de.visit_any(visitor))
            }
            _ => self.visit_any(visitor),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Misfit> {
        match &self.node.value {
            Value::Text(text) if text.starts_with('{') => {
                self.with_inline(text, |de| de.deserialize_struct(name, fields, visitor))
            }
            Value::Table(entries) => self.placed(|de| {
                let known = Entries::known(de, entries, fields);
                visitor.visit_map(known)
            }),
            _ => self.visit_any(visitor),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Misfit> {
        match &self.node.value {
            Value::Text(text) if text.starts_with('{') => {
                self.with_inline(text, |de| de.deserialize_enum(name, variants, visitor))
            }
            Value::Str(text) | Value::Text(text) => {
                let variant: StrDeserializer<'_, Misfit> = text.as_str().into_deserializer();
                self.placed(|_| visitor.visit_enum(variant))
            }
            Value::Table(entries) if entries.len() == 1 => self.placed(|de| {
                let (name, content) =
                    entries.iter().next().ok_or_else(|| de.fault("no variant"))?;
                let content = de.child(Step::Key(name.clone()), content);
                visitor.visit_enum(Variant { name, content })
            }),
            _ => Err(self.fault("expected the name of a choice, or a table with one such key")),
        }
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        self.deserialize_str(visitor)
    }

    /// A value that the type around it has no use for: its key is unknown.
    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        let unknown = Unknown { origin: self.node.origin.clone(), beside: &[] };
        self.findings.borrow_mut().unknown.insert(self.path.clone(), unknown);
        visitor.visit_unit()
    }
}

struct Items<'a, 'b> {
    de: &'b NodeDe<'a>,
    items: &'a [Node],
    next: usize,
}

impl<'de> SeqAccess<'de> for Items<'_, '_> {
    type Error = Misfit;

    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Misfit> {
        while let Some(item) = self.items.get(self.next) {
            let index = self.next;
            self.next += 1;
            if item.value != Value::Skipped {
                return seed.deserialize(self.de.child(Step::Index(index), item)).map(Some);
            }
        }
        Ok(None)
    }
}

struct Entries<'a, 'b> {
    de: &'b NodeDe<'a>,
    entries: Vec<(&'a String, &'a Node)>,
    value: Option<NodeDe<'a>>,
}

impl<'a, 'b> Entries<'a, 'b> {
    fn all(de: &'b NodeDe<'a>, entries: &'a BTreeMap<String, Node>) -> Self {
        Self { de, entries: entries.iter().rev().collect(), value: None }
    }

    /// The entries that `fields` names; the others go to the findings.
    fn known(
        de: &'b NodeDe<'a>,
        entries: &'a BTreeMap<String, Node>,
        fields: &'static [&'static str],
    ) -> Self {
        let mut findings = de.findings.borrow_mut();
        let mut path = de.path.clone();
        for field in fields {
            path.push(Step::Key((*field).to_owned()));
            findings.known.insert(dotted(&path));
            path.pop();
        }
        let mut known = Vec::new();
        for (key, node) in entries.iter().rev() {
            if fields.contains(&key.as_str()) {
                known.push((key, node));
            } else {
                path.push(Step::Key(key.clone()));
                let unknown = Unknown { origin: node.origin.clone(), beside: fields };
                findings.unknown.insert(path.clone(), unknown);
                path.pop();
            }
        }
        Self { de, entries: known, value: None }
    }
}

impl<'de> MapAccess<'de> for Entries<'_, '_> {
    type Error = Misfit;

    fn next_key_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Misfit> {
        let Some((key, node)) = self.entries.pop() else {
            return Ok(None);
        };
        let value = self.de.child(Step::Key(key.clone()), node);
        let name: StringDeserializer<Misfit> = key.clone().into_deserializer();
        let key = seed.deserialize(name).map_err(|e| e.at(&value.path, &node.origin))?;
        self.value = Some(value);
        Ok(Some(key))
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Misfit> {
        let value = self.value.take().ok_or_else(|| self.de.fault("a value without its key"))?;
        let (path, origin) = (value.path.clone(), value.node.origin.clone());
        seed.deserialize(value).map_err(|misfit| misfit.at(&path, &origin))
    }
}

struct Variant<'a> {
    name: &'a str,
    content: NodeDe<'a>,
}

impl<'de, 'a> EnumAccess<'de> for Variant<'a> {
    type Error = Misfit;
    type Variant = NodeDe<'a>;

    fn variant_seed<S: DeserializeSeed<'de>>(
        self,
        seed: S,
    ) -> Result<(S::Value, Self::Variant), Misfit> {
        let name: StrDeserializer<'_, Misfit> = self.name.into_deserializer();
        Ok((seed.deserialize(name)?, self.content))
    }
}

impl<'de> VariantAccess<'de> for NodeDe<'_> {
    type Error = Misfit;

    fn unit_variant(self) -> Result<(), Misfit> {
        Err(self.fault("this choice takes no value"))
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, Misfit> {
        seed.deserialize(self)
    }

    fn tuple_variant<V: Visitor<'de>>(self, _len: usize, visitor: V) -> Result<V::Value, Misfit> {
        self.visit_items(visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Misfit> {
        de::Deserializer::deserialize_struct(self, "variant", fields, visitor)
    }
}
