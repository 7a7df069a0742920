//! Topic filters, each with the subscribers of type `T` that hold it, and the question which of
//! them a topic name matches.
//!
//! Nearly all filters are of two kinds that a hash table answers: a plain topic name, and a plain
//! prefix with `#` behind it (`d/4711/#`, a device's own). Only filters with `+` go into a tree
//! of levels. A million devices cost a million table entries, not a million branches.

use std::borrow::Borrow;
use std::hash::Hash;
use std::rc::Rc;

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use sextant_mqtt::topic::levels;

pub(super) type Map<V> = HashMap<Box<str>, V, RandomState>;
/// Whose keys may be held elsewhere too.
type Names<V> = HashMap<Rc<str>, V, RandomState>;

/// Filters and their subscribers.
pub(super) struct Filters<T> {
    /// Without wildcard: the whole topic name.
    exact: Names<Vec<T>>,
    /// `#` alone or behind plain levels: what comes before `/#`, and `#` itself as `None`.
    prefixes: Map<Vec<T>>,
    everything: Vec<T>,
    tree: Node<T>,
}

/// The value of a key, made if need be; the key is copied only then.
pub(super) fn entry<'m, V: Default>(map: &'m mut Map<V>, key: &str) -> &'m mut V {
    if !map.contains_key(key) {
        map.insert(key.into(), V::default());
    }
    map.get_mut(key).expect("it was just made sure")
}

struct Node<T> {
    children: Map<Node<T>>,
    plus: Option<Box<Node<T>>>,
    /// Of the filter that ends here.
    here: Vec<T>,
    /// Of the filter that ends here with `#`.
    below: Vec<T>,
}

impl<T> Default for Node<T> {
    fn default() -> Node<T> {
        Node { children: Map::default(), plus: None, here: Vec::new(), below: Vec::new() }
    }
}

impl<T> Node<T> {
    fn is_empty(&self) -> bool {
        self.children.is_empty()
            && self.plus.is_none()
            && self.here.is_empty()
            && self.below.is_empty()
    }
}

enum Kind<'a> {
    Exact(&'a str),
    Prefix(&'a str),
    Everything,
    Tree(&'a str),
}

fn kind(filter: &str) -> Kind<'_> {
    if filter.contains('+') {
        return Kind::Tree(filter);
    }
    match filter.strip_suffix('#') {
        None => Kind::Exact(filter),
        Some("") => Kind::Everything,
        Some(prefix) => Kind::Prefix(prefix.strip_suffix('/').unwrap_or(prefix)),
    }
}

impl<T: Copy + PartialEq> Default for Filters<T> {
    fn default() -> Filters<T> {
        Filters {
            exact: Names::default(),
            prefixes: Map::default(),
            everything: Vec::new(),
            tree: Node::default(),
        }
    }
}

impl<T: Copy + PartialEq> Filters<T> {
    /// Whether nobody holds a filter.
    pub(super) fn is_empty(&self) -> bool {
        self.exact.is_empty()
            && self.prefixes.is_empty()
            && self.everything.is_empty()
            && self.tree.is_empty()
    }

    /// A filter to keep: if somebody has a plain topic name, in common with him.
    pub(super) fn name(&self, filter: &str) -> Rc<str> {
        self.exact.get_key_value(filter).map_or_else(|| filter.into(), |(name, _)| Rc::clone(name))
    }

    /// Adds a subscriber to a filter, which is a valid one; whether it is the filter's first.
    pub(super) fn insert(&mut self, filter: &Rc<str>, subscriber: T) -> bool {
        let held = match kind(filter) {
            Kind::Exact(name) => {
                if !self.exact.contains_key(name) {
                    self.exact.insert(Rc::clone(filter), Vec::new());
                }
                self.exact.get_mut(name).expect("it was just made sure")
            }
            Kind::Prefix(prefix) => entry(&mut self.prefixes, prefix),
            Kind::Everything => &mut self.everything,
            Kind::Tree(filter) => {
                let mut node = &mut self.tree;
                let mut below = false;
                for level in levels(filter) {
                    match level {
                        "#" => below = true,
                        "+" => node = node.plus.get_or_insert_default(),
                        _ => node = entry(&mut node.children, level),
                    }
                }
                if below { &mut node.below } else { &mut node.here }
            }
        };
        if held.is_empty() {
            // Most filters are a device's own, and have no second subscriber.
            held.reserve_exact(1);
        }
        held.push(subscriber);
        held.len() == 1
    }

    /// Takes the first subscriber of a filter for which `which` holds; whether the filter has
    /// none left, or `None` if there was no such subscriber.
    pub(super) fn remove(&mut self, filter: &str, which: impl Fn(&T) -> bool) -> Option<bool> {
        match kind(filter) {
            Kind::Exact(name) => remove_from_map(&mut self.exact, name, which),
            Kind::Prefix(prefix) => remove_from_map(&mut self.prefixes, prefix, which),
            Kind::Everything => remove_from(&mut self.everything, which),
            Kind::Tree(filter) => {
                let levels: Vec<&str> = levels(filter).collect();
                remove_from_tree(&mut self.tree, &levels, which)
            }
        }
    }

    /// Calls `found` with the subscribers of each filter that matches a topic name, and tells how
    /// many filters those are.
    pub(super) fn matches(&self, topic: &str, mut found: impl FnMut(&[T])) -> usize {
        let mut filters = 0;
        let mut take = |held: &[T]| {
            if !held.is_empty() {
                filters += 1;
                found(held);
            }
        };
        if let Some(held) = self.exact.get(topic) {
            take(held);
        }
        // [MQTT-4.7.2-1]: a filter that begins with a wildcard matches no topic that begins
        // with $.
        let reserved = topic.starts_with('$');
        if !reserved {
            take(&self.everything);
        }
        if !self.prefixes.is_empty() {
            let ends = topic.match_indices('/').map(|(at, _)| at);
            for end in ends.chain(std::iter::once(topic.len())) {
                if let Some(held) = self.prefixes.get(&topic[..end]) {
                    take(held);
                }
            }
        }
        if !self.tree.is_empty() {
            walk(&self.tree, Some(topic), reserved, &mut take);
        }
        filters
    }
}

/// Visits what matches `rest`, which is the topic's levels from here on, or `None` behind its
/// last. `reserved` forbids a wildcard at this level.
fn walk<T>(node: &Node<T>, rest: Option<&str>, reserved: bool, take: &mut impl FnMut(&[T])) {
    if !reserved {
        // "a/#" matches "a" as well.
        take(&node.below);
    }
    let Some(rest) = rest else {
        take(&node.here);
        return;
    };
    let (level, rest) = match rest.split_once('/') {
        Some((level, rest)) => (level, Some(rest)),
        None => (rest, None),
    };
    if let Some(child) = node.children.get(level) {
        walk(child, rest, false, take);
    }
    if let Some(plus) = node.plus.as_deref().filter(|_| !reserved) {
        walk(plus, rest, false, take);
    }
}

fn remove_from<T>(held: &mut Vec<T>, which: impl Fn(&T) -> bool) -> Option<bool> {
    let at = held.iter().position(which)?;
    held.swap_remove(at);
    if held.capacity() > 4 * held.len().max(4) {
        held.shrink_to_fit();
    }
    Some(held.is_empty())
}

fn remove_from_map<K: Borrow<str> + Eq + Hash, T>(
    map: &mut HashMap<K, Vec<T>, RandomState>,
    key: &str,
    which: impl Fn(&T) -> bool,
) -> Option<bool> {
    let last = remove_from(map.get_mut(key)?, which)?;
    if last {
        map.remove(key);
    }
    Some(last)
}

fn remove_from_tree<T>(
    node: &mut Node<T>,
    levels: &[&str],
    which: impl Fn(&T) -> bool,
) -> Option<bool> {
    match levels {
        [] => remove_from(&mut node.here, which),
        ["#"] => remove_from(&mut node.below, which),
        ["+", rest @ ..] => {
            let last = remove_from_tree(node.plus.as_deref_mut()?, rest, which)?;
            if node.plus.as_ref().is_some_and(|plus| plus.is_empty()) {
                node.plus = None;
            }
            Some(last)
        }
        [level, rest @ ..] => {
            let last = remove_from_tree(node.children.get_mut(*level)?, rest, which)?;
            if node.children.get(*level).is_some_and(Node::is_empty) {
                node.children.remove(*level);
            }
            Some(last)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use sextant_mqtt::topic;

    fn filter() -> impl Strategy<Value = String> {
        let level = prop::sample::select(vec!["a", "b", "", "+", "$s", "d"]);
        (prop::collection::vec(level, 1..4), any::<bool>()).prop_map(|(levels, below)| {
            let mut filter = levels.join("/");
            if below {
                filter = if levels == [""] { "#".to_owned() } else { filter + "/#" };
            }
            filter
        })
    }

    fn name() -> impl Strategy<Value = String> {
        let level = prop::sample::select(vec!["a", "b", "", "$s", "d"]);
        prop::collection::vec(level, 1..5).prop_map(|levels| levels.join("/"))
    }

    proptest! {
        #[test]
        fn matches_what_a_list_of_all_filters_would(
            held in prop::collection::vec((filter(), 0u32..3), 0..12),
            removed in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
            names in prop::collection::vec(name(), 1..8),
        ) {
            let mut held = held;
            held.retain(|(filter, _)| topic::Filter::parse(filter).is_ok());
            let mut filters = Filters::default();
            for (filter, subscriber) in &held {
                filters.insert(&(**filter).into(), *subscriber);
            }
            for pick in removed {
                if !held.is_empty() {
                    let (filter, subscriber) = held.swap_remove(pick.index(held.len()));
                    let last = filters.remove(&filter, |held| *held == subscriber);
                    let left = held.iter().any(|(other, _)| *other == filter);
                    prop_assert_eq!(last, Some(!left));
                }
            }
            for name in names.iter().filter(|name| topic::check_name(name).is_ok()) {
                let mut found = Vec::new();
                filters.matches(name, |held| found.extend_from_slice(held));
                let mut expected: Vec<u32> = held
                    .iter()
                    .filter(|(filter, _)| topic::matches(filter, name))
                    .map(|(_, subscriber)| *subscriber)
                    .collect();
                found.sort_unstable();
                expected.sort_unstable();
                prop_assert_eq!(found, expected, "{}", name);
            }
        }
    }
}
