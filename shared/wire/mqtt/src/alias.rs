//! Topic aliases (section 3.3.2.3.4): numbers that stand for topic names within one connection,
//! one table for each direction. Both are bounded by what was agreed in CONNECT and CONNACK, and
//! neither takes memory before the first alias.

use std::num::NonZeroU16;
use std::ops::Deref;
use std::sync::Arc;

use crate::error::Fault;

/// The topic name of a received PUBLISH: its own, or the one its alias stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Topic<'p> {
    /// From the packet.
    Borrowed(&'p str),
    /// From the table of aliases.
    Aliased(Arc<str>),
}

impl Deref for Topic<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        match self {
            Topic::Borrowed(topic) => topic,
            Topic::Aliased(topic) => topic,
        }
    }
}

/// What the peer's aliases stand for.
// [MQTT-3.3.2-7]: it lives in a link, as long as the connection.
#[derive(Debug, Default)]
pub(crate) struct InboundAliases {
    /// Indexed by alias less one.
    topics: Vec<Option<Arc<str>>>,
}

impl InboundAliases {
    /// The topic of a PUBLISH with `alias`: an empty `topic` is looked up, another is stored.
    pub(crate) fn resolve<'p>(
        &mut self,
        alias: NonZeroU16,
        topic: &'p str,
        alias_max: u16,
    ) -> Result<Topic<'p>, Fault> {
        // [MQTT-3.2.2-17], [MQTT-3.3.2-9], [MQTT-3.3.2-12]
        if alias.get() > alias_max {
            return Err(Fault::TopicAliasInvalid(alias.get()));
        }
        let index = usize::from(alias.get()) - 1;
        if topic.is_empty() {
            return match self.topics.get(index) {
                Some(Some(topic)) => Ok(Topic::Aliased(Arc::clone(topic))),
                _ => Err(Fault::TopicAliasUnknown(alias.get())),
            };
        }
        if self.topics.len() <= index {
            self.topics.resize(index + 1, None);
        }
        let stored = &mut self.topics[index];
        if stored.as_deref() != Some(topic) {
            *stored = Some(Arc::from(topic));
        }
        Ok(Topic::Borrowed(topic))
    }
}

/// An alias for a PUBLISH to the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutboundAlias {
    /// Send the topic name and this alias; the peer will know it from then on.
    Establish(NonZeroU16),
    /// Send this alias and an empty topic name.
    Use(NonZeroU16),
}

/// The aliases given to the peer: first come, first served, never given anew.
#[derive(Debug, Default)]
pub(crate) struct OutboundAliases {
    /// Indexed by alias less one.
    topics: Vec<Box<str>>,
}

impl OutboundAliases {
    /// The alias of `topic`, or a new one while there is one. Looks through the table: the
    /// caller bounds it to some tens.
    pub(crate) fn alias(&mut self, topic: &str, alias_max: u16) -> Option<OutboundAlias> {
        let number = |index: usize| NonZeroU16::new(u16::try_from(index + 1).ok()?);
        if let Some(index) = self.topics.iter().position(|known| **known == *topic) {
            return number(index).map(OutboundAlias::Use);
        }
        // [MQTT-3.1.2-26], [MQTT-3.3.2-11]
        if self.topics.len() >= usize::from(alias_max) {
            return None;
        }
        self.topics.push(Box::from(topic));
        number(self.topics.len() - 1).map(OutboundAlias::Establish)
    }
}

/// What the peer was told of aliases that a server gives itself, the same for many connections:
/// by alias less one, the name of what it stands for. Zero is nothing.
#[derive(Debug, Default)]
pub(crate) struct ToldAliases {
    names: Vec<u32>,
}

impl ToldAliases {
    pub(crate) fn knows(&self, alias: NonZeroU16, name: u32) -> bool {
        name != 0 && self.names.get(usize::from(alias.get()) - 1) == Some(&name)
    }

    pub(crate) fn note(&mut self, alias: NonZeroU16, name: u32) {
        let index = usize::from(alias.get()) - 1;
        if self.names.len() <= index {
            self.names.resize(index + 1, 0);
        }
        self.names[index] = name;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alias(value: u16) -> NonZeroU16 {
        NonZeroU16::new(value).unwrap()
    }

    // [MQTT-3.2.2-17], [MQTT-3.3.2-9]
    #[test]
    fn mqtt_3_3_2_9_an_alias_above_the_maximum_is_a_fault() {
        let mut aliases = InboundAliases::default();
        let fault = aliases.resolve(alias(3), "a", 2);
        assert_eq!(fault, Err(Fault::TopicAliasInvalid(3)));
        assert_eq!(fault.unwrap_err().reason(), crate::ReasonCode::TopicAliasInvalid);
        assert_eq!(aliases.topics.capacity(), 0);
        assert_eq!(aliases.resolve(alias(1), "a", 0), Err(Fault::TopicAliasInvalid(1)));
    }

    #[test]
    fn an_alias_stands_for_the_last_topic_it_came_with() {
        let mut aliases = InboundAliases::default();
        let unknown = Fault::TopicAliasUnknown(2);
        assert_eq!(aliases.resolve(alias(2), "", 2), Err(unknown));
        assert_eq!(unknown.reason(), crate::ReasonCode::ProtocolError);
        assert_eq!(&*aliases.resolve(alias(2), "a", 2).unwrap(), "a");
        assert_eq!(&*aliases.resolve(alias(2), "", 2).unwrap(), "a");
        assert_eq!(aliases.resolve(alias(1), "", 2), Err(Fault::TopicAliasUnknown(1)));
        assert_eq!(&*aliases.resolve(alias(2), "b", 2).unwrap(), "b");
        assert_eq!(&*aliases.resolve(alias(2), "", 2).unwrap(), "b");
    }

    #[test]
    fn what_an_alias_was_told_to_be_is_known_until_it_is_told_to_be_another() {
        let mut told = ToldAliases::default();
        assert!(!told.knows(alias(2), 7) && !told.knows(alias(2), 0));
        told.note(alias(2), 7);
        assert!(told.knows(alias(2), 7) && !told.knows(alias(1), 7) && !told.knows(alias(1), 0));
        told.note(alias(2), 8);
        assert!(told.knows(alias(2), 8) && !told.knows(alias(2), 7));
    }

    // [MQTT-3.1.2-26]
    #[test]
    fn mqtt_3_1_2_26_aliases_are_given_up_to_the_maximum() {
        let mut aliases = OutboundAliases::default();
        assert_eq!(aliases.alias("a", 2), Some(OutboundAlias::Establish(alias(1))));
        assert_eq!(aliases.alias("b", 2), Some(OutboundAlias::Establish(alias(2))));
        assert_eq!(aliases.alias("a", 2), Some(OutboundAlias::Use(alias(1))));
        assert_eq!(aliases.alias("c", 2), None);
        assert_eq!(OutboundAliases::default().alias("a", 0), None);
    }
}
