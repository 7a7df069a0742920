//! Which messages came before.

use std::collections::{HashMap, VecDeque};

use uuid::Uuid;

/// What an id came as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A message.
    Message,
    /// The news that it was taken back.
    Recall,
}

/// A memory of what came before. One that outlives the process keeps a message from being shown
/// again after a restart.
pub trait Seen: Send {
    /// Whether this came before.
    fn is_seen(&mut self, id: Uuid, kind: Kind) -> bool;

    /// This was given to the handler, which returned. It is acknowledged when this returns, too.
    fn record(&mut self, id: Uuid, kind: Kind);
}

/// A memory of the ids that came last, or came again last.
///
/// ```text
///   order   (3,a) (4,b) (7,a) (9,c)     oldest first; an id counts where its number is
///   ids      a:7   b:4   c:9            the last one: (3,a) is passed over
/// ```
#[derive(Debug)]
pub struct SeenIds {
    capacity: usize,
    ids: HashMap<(Uuid, Kind), u64>,
    order: VecDeque<(u64, (Uuid, Kind))>,
    count: u64,
}

impl SeenIds {
    /// A memory of at most `capacity` ids, at least one.
    pub fn new(capacity: usize) -> SeenIds {
        let capacity = capacity.max(1);
        SeenIds { capacity, ids: HashMap::new(), order: VecDeque::new(), count: 0 }
    }

    fn touch(&mut self, key: (Uuid, Kind)) {
        self.count += 1;
        self.ids.insert(key, self.count);
        self.order.push_back((self.count, key));
        while self.ids.len() > self.capacity {
            let (number, key) = self.order.pop_front().expect("every id has a place in the order");
            if self.ids.get(&key) == Some(&number) {
                self.ids.remove(&key);
            }
        }
        // Half of the order are places that ids have left: amortized, each is looked at twice.
        if self.order.len() > 2 * self.capacity {
            let SeenIds { ids, order, .. } = self;
            order.retain(|(number, key)| ids.get(key) == Some(number));
        }
    }
}

impl Seen for SeenIds {
    fn is_seen(&mut self, id: Uuid, kind: Kind) -> bool {
        let is_seen = self.ids.contains_key(&(id, kind));
        if is_seen {
            self.touch((id, kind));
        }
        is_seen
    }

    fn record(&mut self, id: Uuid, kind: Kind) {
        self.touch((id, kind));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn it_remembers_those_that_came_last(
            capacity in 1usize..6,
            ids in proptest::collection::vec(0u128..9, 0..200),
        ) {
            let mut seen = SeenIds::new(capacity);
            // The oracle: ids in a list, the last one last.
            let mut list: Vec<u128> = Vec::new();
            for id in ids {
                let expected = list.contains(&id);
                prop_assert_eq!(seen.is_seen(Uuid::from_u128(id), Kind::Message), expected);
                seen.record(Uuid::from_u128(id), Kind::Message);
                list.retain(|other| *other != id);
                list.push(id);
                if list.len() > capacity {
                    list.remove(0);
                }
                prop_assert!(seen.order.len() <= 2 * capacity + 1);
            }
        }
    }

    #[test]
    fn a_message_and_its_recall_are_two() {
        let mut seen = SeenIds::new(2);
        seen.record(Uuid::nil(), Kind::Message);
        assert!(!seen.is_seen(Uuid::nil(), Kind::Recall));
    }
}
