//! Topic aliases towards clients: numbers that a core gives to the topics which are published again
//! and again, the same for all of its clients, so that a packet with an alias is encoded once for
//! all who know it.
//!
//! ```text
//!   topic ──► Aliases ──► 3, as "v17" ──► who was not told "v17" of 3   topic and alias, once
//!                                    └──► who was                       alias alone
//! ```
//!
//! A number is given to another topic when its own is not published any more; it has another name
//! then, so that what a connection was told of it before counts no more. What a client takes, and
//! what it was told, is in its [`Link`]; where no client takes aliases nothing is counted here.

use std::hash::BuildHasher;
use std::num::NonZeroU16;

use sextant_mqtt::{Link, OutboundAlias, Version};

use super::{Broker, Context, Map};

/// A shorter topic takes no more than its alias.
const TOPIC_BYTES_MIN: usize = 3;

/// Topics without an alias that are remembered as published, for when they are again.
const SEEN_MAX: usize = 64;

/// How often a topic may be passed over before its number is another's, at most.
const CREDIT_MAX: u8 = 15;

/// A number that stands for a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Alias {
    pub(super) number: NonZeroU16,
    /// What tells it from what the number stood for before.
    pub(super) name: u32,
}

/// How a PUBLISH names its topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Naming {
    Topic,
    /// By the topic and the number that stands for it from then on.
    Both(Alias),
    Alias(Alias),
}

impl Naming {
    /// For a client, of a packet that has `bytes` with its topic. To be [noted](Naming::note) when
    /// that was sent.
    pub(super) fn of(alias: Option<Alias>, link: &Link, bytes: usize) -> Naming {
        /// The property, and what it may make lengths longer by.
        const ALIAS_BYTES_MAX: usize = 8;
        let Some(alias) = alias.filter(|_| link.version() == Version::V5) else {
            return Naming::Topic;
        };
        // [MQTT-3.1.2-26], [MQTT-3.1.2-27], [MQTT-3.3.2-11]
        match link.shared_alias(alias.number, alias.name) {
            Some(OutboundAlias::Use(_)) => Naming::Alias(alias),
            Some(OutboundAlias::Establish(_))
                if bytes + ALIAS_BYTES_MAX <= link.peer_packet_bytes_max() as usize =>
            {
                Naming::Both(alias)
            }
            _ => Naming::Topic,
        }
    }

    /// A packet that names its topic so was sent.
    #[inline]
    pub(super) fn note(self, link: &mut Link) {
        if let Naming::Both(alias) = self {
            link.note_shared_alias(alias.number, alias.name);
        }
    }

    /// What the packet has as its topic, and as its alias.
    pub(super) fn fields(self, topic: &str) -> (&str, Option<NonZeroU16>) {
        match self {
            Naming::Topic => (topic, None),
            Naming::Both(alias) => (topic, Some(alias.number)),
            Naming::Alias(alias) => ("", Some(alias.number)),
        }
    }
}

struct Entry {
    topic: Box<str>,
    name: u32,
    credit: u8,
}

/// The topics that have numbers.
pub(super) struct Aliases {
    /// By number, less one.
    entries: Vec<Entry>,
    by_topic: Map<Box<str>, u16>,
    entries_max: u16,
    /// Whose number is looked at next for another topic.
    hand: usize,
    last_name: u32,
    /// By hash, the topics that were published lately and have no number.
    seen: Box<[u64; SEEN_MAX]>,
    /// Connections that take aliases.
    takers: usize,
}

impl Aliases {
    pub(super) fn new(entries_max: u16) -> Aliases {
        Aliases {
            entries: Vec::new(),
            by_topic: Map::default(),
            entries_max,
            hand: 0,
            last_name: 0,
            seen: Box::new([0; SEEN_MAX]),
            takers: 0,
        }
    }

    /// A connection came.
    pub(super) fn came(&mut self, link: &Link) {
        self.takers += usize::from(link.takes_aliases());
    }

    /// A connection went.
    pub(super) fn went(&mut self, link: &Link) {
        self.takers -= usize::from(link.takes_aliases());
    }

    /// The number of a topic, if it has one.
    pub(super) fn get(&self, topic: &str) -> Option<Alias> {
        if self.takers == 0 {
            return None;
        }
        let index = *self.by_topic.get(topic)?;
        Some(self.alias(usize::from(index)))
    }

    fn alias(&self, index: usize) -> Alias {
        let number = u16::try_from(index + 1).ok().and_then(NonZeroU16::new);
        Alias { number: number.expect("numbers have a limit"), name: self.entries[index].name }
    }

    /// A topic is published; its number if it has one, or gets one now, and whether that was
    /// another's.
    fn published(&mut self, topic: &str) -> Option<(Alias, bool)> {
        if let Some(index) = self.by_topic.get(topic) {
            let index = usize::from(*index);
            let credit = &mut self.entries[index].credit;
            *credit = (*credit + 1).min(CREDIT_MAX);
            return Some((self.alias(index), false));
        }
        if topic.len() < TOPIC_BYTES_MIN {
            return None;
        }
        let hash = self.by_topic.hasher().hash_one(topic);
        let seen = &mut self.seen[hash as usize % SEEN_MAX];
        if *seen != hash {
            *seen = hash;
            return None;
        }
        self.last_name = self.last_name.wrapping_add(1).max(1);
        let entry = Entry { topic: topic.into(), name: self.last_name, credit: 1 };
        let new = self.entries.len() < usize::from(self.entries_max);
        let index = if new {
            self.entries.push(entry);
            self.entries.len() - 1
        } else {
            let index = self.hand;
            let before = self.entries.get_mut(index)?;
            self.hand = (index + 1) % usize::from(self.entries_max);
            if before.credit > 0 {
                before.credit -= 1;
                return None;
            }
            let before = std::mem::replace(before, entry);
            self.by_topic.remove(&before.topic);
            index
        };
        self.by_topic.insert(topic.into(), index as u16);
        Some((self.alias(index), !new))
    }
}

impl Broker {
    /// The alias of a topic that is being published. A burst of the topic which had it before does
    /// not go on.
    pub(super) fn alias_of(&mut self, cx: &mut Context, topic: &str) -> Option<Alias> {
        if self.aliases.takers == 0 {
            return None;
        }
        let (alias, was_anothers) = self.aliases.published(topic)?;
        if was_anothers {
            self.receivers_change(cx);
        }
        Some(alias)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(aliases: &mut Aliases, topics: &[&str]) -> Vec<Option<u16>> {
        topics
            .iter()
            .map(|topic| aliases.published(topic).map(|(alias, _)| alias.number.get()))
            .collect()
    }

    #[test]
    fn a_topic_gets_a_number_when_it_is_published_again() {
        let mut aliases = Aliases::new(2);
        let got = numbers(&mut aliases, &["a/b", "a/b", "a/c", "a/b", "a/c", "a", "a"]);
        assert_eq!(got, [None, Some(1), None, Some(1), Some(2), None, None]);
    }

    #[test]
    fn a_number_goes_to_another_topic_when_its_own_is_published_less() {
        let mut aliases = Aliases::new(1);
        assert_eq!(numbers(&mut aliases, &["a/b", "a/b", "a/b"])[2], Some(1));
        let (first, _) = aliases.published("a/b").unwrap();
        let taken = (0..10).find_map(|_| aliases.published("a/c"));
        let (second, was_anothers) = taken.expect("it gets the number at last");
        assert!(was_anothers);
        assert_eq!(first.number, second.number);
        assert_ne!(first.name, second.name, "it is told again what the number stands for");
        aliases.takers = 1;
        assert_eq!((aliases.get("a/b"), aliases.get("a/c")), (None, Some(second)));
    }

    #[test]
    fn no_number_is_above_the_limit_and_none_is_given_without_one() {
        let topics: Vec<String> = (0..100).map(|n| format!("topic/{n}")).collect();
        for entries_max in [0, 1, 16] {
            let mut aliases = Aliases::new(entries_max);
            for topic in topics.iter().chain(&topics).chain(&topics) {
                for _ in 0..3 {
                    let given = aliases.published(topic);
                    assert!(given.is_none_or(|(alias, _)| alias.number.get() <= entries_max));
                }
            }
            assert_eq!(aliases.by_topic.len(), usize::from(entries_max));
        }
    }
}
