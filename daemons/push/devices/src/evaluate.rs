//! Which devices of an app an expression names.
//!
//! A part of an expression is either a set of devices or all but a set. So `not vip` takes nothing
//! away from anything before something is there that it is taken from, and `city:sz and not vip`
//! never looks at all devices. The parts of an `and` are taken from what is likely the smallest to
//! the largest, and no more once nothing is left; what has to look at devices one by one, which
//! are comparisons, looks at those only that are left, if they are few.

use std::borrow::Cow;

use roaring::{MultiOps, RoaringBitmap};

use crate::app::App;
use crate::column::{Column, MUCH_SMALLER};
use crate::expression::{Compare, Expression, Leaf, Node, Pattern, TextKey};
use crate::posting::Posting;
use crate::registry::Registry;
use crate::syntax::Version;
use crate::terms::{APP_VERSION, LANGUAGE, PLATFORM, TAGS, TIME_ZONE};

/// How many tags and values one evaluation looks at.
pub const WORDS_MAX: u64 = 1_000_000;
/// How many devices one evaluation looks at in comparisons and behind patterns, each as often as
/// it is: however many there are, it takes no more than about half a second.
pub const LOOKS_MAX: u64 = 300_000_000;

/// Why an expression has no devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EvaluateError {
    /// There is no app of this number.
    #[error("there is no such app")]
    UnknownApp,
    /// Its patterns cover too many tags and values, or it has too many comparisons for so many
    /// devices.
    #[error(
        "the expression looks at more than {WORDS_MAX} tags and values, or more than {LOOKS_MAX} \
         times at a device"
    )]
    TooBroad,
}

/// How many devices a part of an expression names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explained {
    /// `and`, `or`, `not`, or the condition.
    pub part: String,
    /// How many devices of the app.
    pub devices: u64,
    /// Its parts.
    pub parts: Vec<Explained>,
}

impl Registry {
    /// The devices of an app that an expression names.
    ///
    /// # Errors
    /// See [`EvaluateError`].
    pub fn evaluate(
        &self,
        app: u16,
        expression: &Expression,
    ) -> Result<RoaringBitmap, EvaluateError> {
        let mut evaluation = self.evaluation(app)?;
        let set = evaluation.set(&expression.0, None)?;
        Ok(evaluation.devices(set).into_owned())
    }

    /// How many devices of an app an expression and each of its parts name.
    ///
    /// # Errors
    /// See [`EvaluateError`].
    pub fn explain(&self, app: u16, expression: &Expression) -> Result<Explained, EvaluateError> {
        self.evaluation(app)?.explain(&expression.0).map(|(_, explained)| explained)
    }

    fn evaluation(&self, app: u16) -> Result<Evaluation<'_>, EvaluateError> {
        let number = app;
        let app = self.apps.get(usize::from(app)).ok_or(EvaluateError::UnknownApp)?;
        Ok(Evaluation { registry: self, number, app, words_left: WORDS_MAX, looks_left: LOOKS_MAX })
    }
}

/// Devices of the app.
enum Set<'a> {
    Of(Cow<'a, RoaringBitmap>),
    AllBut(Cow<'a, RoaringBitmap>),
}

impl<'a> Set<'a> {
    fn empty() -> Set<'a> {
        Set::Of(Cow::Owned(RoaringBitmap::new()))
    }

    fn negate(self) -> Set<'a> {
        match self {
            Set::Of(set) => Set::AllBut(set),
            Set::AllBut(set) => Set::Of(set),
        }
    }

    fn and(self, other: Set<'a>) -> Set<'a> {
        match (self, other) {
            (Set::Of(a), Set::Of(b)) => Set::Of(intersection(a, b)),
            (Set::Of(a), Set::AllBut(b)) | (Set::AllBut(b), Set::Of(a)) => {
                Set::Of(difference(a, &b))
            }
            (Set::AllBut(a), Set::AllBut(b)) => Set::AllBut(union(a, b)),
        }
    }

    fn or(self, other: Set<'a>) -> Set<'a> {
        match (self, other) {
            (Set::Of(a), Set::Of(b)) => Set::Of(union(a, b)),
            (Set::Of(a), Set::AllBut(b)) | (Set::AllBut(b), Set::Of(a)) => {
                Set::AllBut(difference(b, &a))
            }
            (Set::AllBut(a), Set::AllBut(b)) => Set::AllBut(intersection(a, b)),
        }
    }
}

type Bitmap<'a> = Cow<'a, RoaringBitmap>;

fn intersection<'a>(a: Bitmap<'a>, b: Bitmap<'a>) -> Bitmap<'a> {
    Cow::Owned(match (a, b) {
        (Cow::Owned(a), b) => a & &*b,
        (a, Cow::Owned(b)) => b & &*a,
        (a, b) => &*a & &*b,
    })
}

fn union<'a>(a: Bitmap<'a>, b: Bitmap<'a>) -> Bitmap<'a> {
    Cow::Owned(match (a, b) {
        (Cow::Owned(a), b) => a | &*b,
        (a, Cow::Owned(b)) => b | &*a,
        (a, b) => &*a | &*b,
    })
}

fn difference<'a>(a: Bitmap<'a>, b: &RoaringBitmap) -> Bitmap<'a> {
    Cow::Owned(match a {
        Cow::Owned(a) => a - b,
        Cow::Borrowed(a) => a - b,
    })
}

/// The union of postings, of which there may be very many small ones.
#[derive(Default)]
struct Union<'a> {
    few: Vec<u32>,
    many: Vec<&'a RoaringBitmap>,
}

impl<'a> Union<'a> {
    fn add(&mut self, posting: &'a Posting) {
        match posting {
            Posting::Few(numbers) => self.few.extend(numbers),
            Posting::Many(bitmap) => self.many.push(bitmap),
        }
    }

    fn done(mut self) -> Bitmap<'a> {
        self.few.sort_unstable();
        match (&*self.many, self.few.is_empty()) {
            ([one], true) => Cow::Borrowed(one),
            _ => {
                let few = self.few.into_iter().collect::<RoaringBitmap>();
                Cow::Owned(self.many.union() | few)
            }
        }
    }
}

struct Evaluation<'a> {
    registry: &'a Registry,
    number: u16,
    app: &'a App,
    words_left: u64,
    looks_left: u64,
}

impl<'a> Evaluation<'a> {
    fn devices(&self, set: Set<'a>) -> Bitmap<'a> {
        match set {
            Set::Of(set) => set,
            Set::AllBut(set) => Cow::Owned(&self.app.devices - &*set),
        }
    }

    fn len(&self, set: &Set<'_>) -> u64 {
        match set {
            Set::Of(set) => set.len(),
            Set::AllBut(set) => self.app.devices.len() - set.len(),
        }
    }

    /// The devices of a part, or, if only those `within` are asked for, a set that says the right
    /// thing of those.
    fn set(
        &mut self,
        node: &Node,
        within: Option<&RoaringBitmap>,
    ) -> Result<Set<'a>, EvaluateError> {
        match node {
            Node::And(parts) => self.all(parts, within),
            Node::Or(parts) => {
                let mut any = Set::empty();
                for part in parts {
                    any = any.or(self.set(part, within)?);
                }
                Ok(any)
            }
            Node::Not(part) => self.set(part, within).map(Set::negate),
            Node::Leaf(leaf) => self.leaf(leaf, within).map(Set::Of),
        }
    }

    fn all(
        &mut self,
        parts: &[Node],
        within: Option<&RoaringBitmap>,
    ) -> Result<Set<'a>, EvaluateError> {
        let mut parts = parts.iter().map(|part| (self.estimate(part), part)).collect::<Vec<_>>();
        parts.sort_by_key(|(estimate, _)| *estimate);
        let mut parts = parts.into_iter().map(|(_, part)| part);
        let mut all = match parts.next() {
            Some(first) => self.set(first, within)?,
            None => return Ok(Set::empty().negate()),
        };
        for part in parts {
            let next = match &all {
                Set::Of(set) if set.is_empty() => return Ok(all),
                Set::Of(set) => self.set(part, Some(set))?,
                Set::AllBut(_) => self.set(part, within)?,
            };
            all = all.and(next);
        }
        Ok(all)
    }

    /// At most how many devices a part names, or something above that.
    fn estimate(&self, node: &Node) -> u64 {
        let everyone = self.app.devices.len();
        match node {
            Node::And(parts) => {
                parts.iter().map(|part| self.estimate(part)).min().unwrap_or(everyone)
            }
            Node::Or(parts) => {
                parts.iter().map(|part| self.estimate(part)).fold(0, u64::saturating_add)
            }
            Node::Not(_) => everyone + 2,
            Node::Leaf(leaf) => match leaf {
                Leaf::Tag(pattern) if !pattern.is_prefix => self.estimate_word(TAGS, pattern),
                Leaf::Text(TextKey::Platform, pattern) if !pattern.is_prefix => {
                    self.estimate_word(PLATFORM, pattern)
                }
                Leaf::Text(TextKey::TimeZone, pattern) if !pattern.is_prefix => {
                    self.estimate_word(TIME_ZONE, pattern)
                }
                Leaf::Attribute(key, pattern) if pattern.number.is_none() && !pattern.is_prefix => {
                    self.app.terms.key(key).map_or(0, |key| self.estimate_word(key, pattern))
                }
                Leaf::Alias(_) => self.registry.limits().devices_per_alias as u64,
                Leaf::Test(true) => self.app.tests.len(),
                Leaf::Number(key, ..) => {
                    self.app.terms.key(key).map_or(0, |key| self.app.terms.numbers(key).len())
                }
                Leaf::Registered(..) => everyone + 1,
                _ => everyone,
            },
        }
    }

    fn estimate_word(&self, key: u32, pattern: &Pattern) -> u64 {
        let term = self.app.terms.find(key, &pattern.text);
        term.map_or(0, |term| self.app.terms.devices(term).len())
    }

    fn leaf(
        &mut self,
        leaf: &Leaf,
        within: Option<&RoaringBitmap>,
    ) -> Result<Bitmap<'a>, EvaluateError> {
        match leaf {
            Leaf::Tag(pattern) => self.words(TAGS, pattern),
            Leaf::Text(TextKey::Platform, pattern) => self.words(PLATFORM, pattern),
            Leaf::Text(TextKey::AppVersion, pattern) => self.words(APP_VERSION, pattern),
            Leaf::Text(TextKey::TimeZone, pattern) => self.words(TIME_ZONE, pattern),
            Leaf::Text(TextKey::Language, pattern) => {
                self.words_if(LANGUAGE, |text| is_language(text, pattern))
            }
            Leaf::Version(compare, than) => {
                let holds = |version| compare.holds(version, than.value);
                self.words_if(APP_VERSION, |text| Version::parse(text).is_some_and(holds))
            }
            Leaf::Attribute(key, pattern) => self.attribute(key, pattern),
            Leaf::Number(key, compare, than) => {
                let Some(key) = self.app.terms.key(key) else { return Ok(Cow::default()) };
                let column = self.app.terms.numbers(key);
                self.look(column.len())?;
                Ok(Cow::Owned(compare_numbers(column, *compare, than.get(), within)))
            }
            Leaf::Alias(alias) => {
                Ok(Cow::Owned(self.registry.with_alias(self.number, alias).collect()))
            }
            Leaf::Test(true) => Ok(self.app.tests.to_bitmap()),
            Leaf::Test(false) => Ok(Cow::Owned(&self.app.devices - &*self.app.tests.to_bitmap())),
            Leaf::Registered(compare, than) => {
                let devices = within.unwrap_or(&self.app.devices);
                self.look(devices.len())?;
                let wanted = |second| than.value.holds(*compare, i64::from(second));
                Ok(Cow::Owned(self.registry.store.registered(devices, wanted)))
            }
        }
    }

    fn look(&mut self, devices: u64) -> Result<(), EvaluateError> {
        self.looks_left = self.looks_left.checked_sub(devices).ok_or(EvaluateError::TooBroad)?;
        Ok(())
    }

    fn add_word(
        &mut self,
        union: &mut Union<'a>,
        devices: &'a Posting,
    ) -> Result<(), EvaluateError> {
        union.add(devices);
        self.look(devices.len())
    }

    fn look_at_word(&mut self) -> Result<(), EvaluateError> {
        self.words_left = self.words_left.checked_sub(1).ok_or(EvaluateError::TooBroad)?;
        Ok(())
    }

    fn words(&mut self, key: u32, pattern: &Pattern) -> Result<Bitmap<'a>, EvaluateError> {
        let app = self.app;
        if !pattern.is_prefix {
            let term = app.terms.find(key, &pattern.text);
            return Ok(term.map_or_else(Cow::default, |term| app.terms.devices(term).to_bitmap()));
        }
        let mut union = Union::default();
        for (_, devices) in app.terms.beginning(key, &pattern.text) {
            self.look_at_word()?;
            self.add_word(&mut union, devices)?;
        }
        Ok(union.done())
    }

    fn words_if(
        &mut self,
        key: u32,
        wanted: impl Fn(&str) -> bool,
    ) -> Result<Bitmap<'a>, EvaluateError> {
        let mut union = Union::default();
        for (text, devices) in self.app.terms.beginning(key, "") {
            self.look_at_word()?;
            if wanted(text) {
                self.add_word(&mut union, devices)?;
            }
        }
        Ok(union.done())
    }

    fn attribute(&mut self, key: &str, pattern: &Pattern) -> Result<Bitmap<'a>, EvaluateError> {
        let Some(key) = self.app.terms.key(key) else { return Ok(Cow::default()) };
        let texts = self.words(key, pattern)?;
        let column = self.app.terms.numbers(key);
        self.look(column.len())?;
        let numbers = match pattern.number {
            _ if column.is_empty() => return Ok(texts),
            Some(number) => column.select(|value| value == number.get()),
            None if pattern.is_prefix && pattern.text.is_empty() => column.select(|_| true),
            None => return Ok(texts),
        };
        Ok(union(texts, Cow::Owned(numbers)))
    }

    fn explain(&mut self, node: &Node) -> Result<(Set<'a>, Explained), EvaluateError> {
        let explain = |evaluation: &mut Self, parts: &[Node]| {
            let both = parts.iter().map(|part| evaluation.explain(part));
            both.collect::<Result<(Vec<_>, Vec<_>), _>>()
        };
        let (part, set, parts) = match node {
            Node::And(nodes) => {
                let (sets, parts) = explain(self, nodes)?;
                let all = sets.into_iter().reduce(Set::and).unwrap_or_else(Set::empty);
                ("and".to_owned(), all, parts)
            }
            Node::Or(nodes) => {
                let (sets, parts) = explain(self, nodes)?;
                let any = sets.into_iter().reduce(Set::or).unwrap_or_else(Set::empty);
                ("or".to_owned(), any, parts)
            }
            Node::Not(node) => {
                let (set, part) = self.explain(node)?;
                ("not".to_owned(), set.negate(), vec![part])
            }
            Node::Leaf(leaf) => (leaf.to_string(), Set::Of(self.leaf(leaf, None)?), Vec::new()),
        };
        let devices = self.len(&set);
        Ok((set, Explained { part, devices, parts }))
    }
}

fn is_language(text: &str, pattern: &Pattern) -> bool {
    let head = text.get(..pattern.text.len());
    let begins = head.is_some_and(|head| head.eq_ignore_ascii_case(&pattern.text));
    begins && (pattern.is_prefix || text.len() == pattern.text.len())
}

/// The devices of a column whose value compares, or those of them that are `within`.
fn compare_numbers(
    column: &Column,
    compare: Compare,
    than: f64,
    within: Option<&RoaringBitmap>,
) -> RoaringBitmap {
    if let Some(within) = within.filter(|within| within.len() * MUCH_SMALLER < column.len()) {
        let holds = |value: f64| compare.holds(value, than);
        let devices = within.iter();
        return devices
            .filter(|at| column.get(*at).is_some_and(|value| holds(value.get())))
            .collect();
    }
    // Each has a loop of its own, without a branch in it.
    match compare {
        Compare::Equal => column.select(|value| value == than),
        Compare::NotEqual => column.select(|value| value != than),
        Compare::Less => column.select(|value| value < than),
        Compare::LessOrEqual => column.select(|value| value <= than),
        Compare::Greater => column.select(|value| value > than),
        Compare::GreaterOrEqual => column.select(|value| value >= than),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Device, Limits, Number, Value};

    #[test]
    fn an_evaluation_looks_at_so_many_devices_and_no_more() {
        let mut registry = Registry::new(Limits::default()).unwrap();
        registry.add_app("shop").unwrap();
        for number in 0..100 {
            let mut device = Device::new(&format!("d{number}"), "shop", "ios");
            device.tags.insert(format!("t{}", number % 7));
            device.attributes.insert("age".into(), Value::Number(Number::from(number)));
            device.app_version = Some("1.2".into());
            registry.register(&device, 0).unwrap();
        }
        for text in ["t*", "age > 5", "age:5", "registered > 2020-01-01", "app_version > 1"] {
            let node = Expression::parse(text).unwrap().0;
            for (looks_left, is_enough) in [(100, true), (99, false)] {
                let mut evaluation = registry.evaluation(0).unwrap();
                evaluation.looks_left = looks_left;
                assert_eq!(evaluation.set(&node, None).is_ok(), is_enough, "{text}");
            }
        }
    }
}
