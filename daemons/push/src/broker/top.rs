//! Top talkers: which clients publish and get most, and which topics, counted while somebody looks.
//!
//! Names without bound are counted in a bounded number of counters, as the *space saving* algorithm
//! does (Metwally, Agrawal, El Abbadi: Efficient computation of frequent and top-k elements in data
//! streams, 2005): who has no counter takes over the smallest one, with what that had counted as its
//! possible error. So nobody who has more than a [`TOP_COUNTERS`]th of all is missed, and no number
//! is too high by more than that. While nobody looks, nothing is counted.

use std::borrow::Borrow;
use std::hash::Hash;
use std::time::Duration;

use sextant_ring::core::ConnId;
use sextant_ring::slot::SlotId;
use sextant_ring::time::Time;

use super::conn::Stage;
use super::{Broker, Context, Map};
use crate::control::top::{Heavy, TOP_COUNTERS, TopBegin, TopEnd, Topped};

/// Bytes of a topic that is counted; longer ones count as their beginning.
const TOPIC_BYTES_MAX: usize = 256;

/// Which way a message goes.
#[derive(Clone, Copy)]
pub(super) enum Way {
    In = 0,
    Out = 1,
}

/// A bounded number of counters, for any number of keys.
struct Counters<K> {
    places: Map<K, usize>,
    keys: Vec<K>,
    /// Apart from the keys, so that the smallest is found quickly.
    counts: Vec<u64>,
    errors: Vec<u64>,
    ways: Vec<[u64; 2]>,
}

impl<K> Default for Counters<K> {
    fn default() -> Self {
        Counters {
            places: Map::default(),
            keys: Vec::new(),
            counts: Vec::new(),
            errors: Vec::new(),
            ways: Vec::new(),
        }
    }
}

impl<K: Clone + Eq + Hash> Counters<K> {
    fn add<Q>(&mut self, key: &Q, way: Way, weight: u64)
    where
        K: Borrow<Q>,
        Q: ToOwned<Owned = K> + Eq + Hash + ?Sized,
    {
        let place = match self.places.get(key) {
            Some(place) => *place,
            None => self.place_for(key.to_owned()),
        };
        self.counts[place] += weight;
        self.ways[place][way as usize] += weight;
    }

    /// A new counter, or the smallest one's.
    fn place_for(&mut self, key: K) -> usize {
        if self.keys.len() < TOP_COUNTERS {
            let place = self.keys.len();
            self.places.insert(key.clone(), place);
            self.keys.push(key);
            self.counts.push(0);
            self.errors.push(0);
            self.ways.push([0; 2]);
            return place;
        }
        let smallest = self.counts.iter().enumerate().min_by_key(|(_, count)| **count);
        let (place, count) =
            smallest.map(|(place, count)| (place, *count)).expect("there are some");
        self.places.remove(&self.keys[place]);
        self.places.insert(key.clone(), place);
        self.keys[place] = key;
        self.errors[place] = count;
        self.ways[place] = [0; 2];
        place
    }

    /// Those with the highest counts, as far as they have names.
    fn highest(&self, limit: usize, name: impl Fn(&K) -> Option<String>) -> Vec<Heavy> {
        let mut order: Vec<usize> = (0..self.keys.len()).collect();
        order.sort_unstable_by_key(|place| std::cmp::Reverse(self.counts[*place]));
        let named = order.into_iter().filter_map(|place| {
            let (count, error) = (self.counts[place], self.errors[place]);
            let ways = self.ways[place];
            name(&self.keys[place]).map(|name| Heavy { name, count, error, ways })
        });
        named.take(limit).collect()
    }
}

/// What is counted while somebody looks.
pub(super) struct Top {
    began: Time,
    longest: Duration,
    messages: Counters<SlotId>,
    bytes: Counters<SlotId>,
    topics: Counters<String>,
}

impl Broker {
    pub(super) fn begin_top(&mut self, cx: &Context, begin: &TopBegin) {
        self.top = Some(Box::new(Top {
            began: cx.now(),
            longest: begin.longest,
            messages: Counters::default(),
            bytes: Counters::default(),
            topics: Counters::default(),
        }));
    }

    pub(super) fn end_top(&mut self, cx: &Context, end: TopEnd) {
        let topped = self.top.take().map(|top| {
            let client = |slot: &SlotId| Some(self.sessions.get(*slot)?.client_id.to_string());
            Topped {
                window: cx.now().since(top.began),
                messages: top.messages.highest(end.limit, client),
                bytes: top.bytes.highest(end.limit, client),
                topics: top.topics.highest(end.limit, |topic| Some(topic.clone())),
            }
        });
        // Whoever asked may have gone.
        let _ = end.reply.send(topped);
    }

    /// Ends a count that nobody has asked for in time.
    pub(super) fn sweep_top(&mut self, now: Time) {
        self.top.take_if(|top| now.since(top.began) > top.longest);
    }

    /// A client published.
    #[inline]
    pub(super) fn count_published(&mut self, slot: SlotId, topic: &str, bytes: usize) {
        if let Some(top) = &mut self.top {
            top.messages.add(&slot, Way::In, 1);
            top.bytes.add(&slot, Way::In, bytes as u64);
            let topic = &topic[..topic.floor_char_boundary(TOPIC_BYTES_MAX)];
            top.topics.add(topic, Way::In, 1);
        }
    }

    /// A connection was sent messages.
    #[inline]
    pub(super) fn count_sent(&mut self, conn: ConnId, messages: u64, bytes: usize) {
        let Some(top) = &mut self.top else { return };
        let held = self.conns.get(conn.index()).and_then(Option::as_ref);
        if let Some(Stage::Online { session, .. }) = held.map(|held| &held.stage) {
            top.messages.add(session, Way::Out, messages);
            top.bytes.add(session, Way::Out, bytes as u64);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn whoever_has_more_than_its_part_is_found_and_no_number_is_further_off(
            heavy in proptest::collection::vec((0u64..20, 1u64..2000), 1..20),
            seed in any::<u64>(),
        ) {
            let mut rng = fastrand::Rng::with_seed(seed);
            let mut counters = Counters::<String>::default();
            let mut truth = std::collections::HashMap::<String, u64>::new();
            let mut add = |key: String, weight: u64| {
                counters.add(key.as_str(), Way::Out, weight);
                *truth.entry(key).or_default() += weight;
            };
            // Few who have much among many who have little.
            for (who, times) in heavy {
                for _ in 0..times {
                    add(format!("heavy-{who}"), 1 + rng.u64(..3));
                    add(format!("light-{}", rng.u32(..5000)), 1);
                }
            }
            let all: u64 = truth.values().sum();
            let most = all / TOP_COUNTERS as u64;
            let found = counters.highest(TOP_COUNTERS, |key| Some(key.clone()));
            prop_assert!(found.len() <= TOP_COUNTERS);
            for Heavy { name, count, error, ways } in &found {
                prop_assert!(*error <= most, "{error} of {most}");
                prop_assert!(count - error <= truth[name] && truth[name] <= *count);
                prop_assert!(ways[1] <= truth[name]);
            }
            for (name, count) in &truth {
                prop_assert!(*count <= most || found.iter().any(|heavy| heavy.name == *name));
            }
            prop_assert!(found.is_sorted_by(|a, b| a.count >= b.count));
        }
    }
}
