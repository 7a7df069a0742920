//! A core's sessions, found by their slot, by the client identifier, or by the number that names
//! them in the log.
//!
//! The two indexes hold nothing but the numbers of slots; what is looked for is compared with the
//! session itself. So an identifier is in memory once, and an entry takes five bytes.

use std::hash::BuildHasher;

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use sextant_ring::slot::{SlotId, Slots};

use super::session::Session;

/// Sessions of a core at most. They are bounded by the log's quota before.
const SESSIONS_MAX: u32 = 1 << 24;

/// Sessions. `client_id` and `number` of one that is here are not to be changed.
pub(super) struct Sessions {
    slots: Slots<Session>,
    by_client: HashTable<u32>,
    by_number: HashTable<u32>,
    hasher: RandomState,
}

impl Default for Sessions {
    fn default() -> Sessions {
        Sessions {
            slots: Slots::new(SESSIONS_MAX),
            by_client: HashTable::new(),
            by_number: HashTable::new(),
            hasher: RandomState::default(),
        }
    }
}

impl Sessions {
    /// Adds a session, whose client identifier and number no other one has.
    ///
    /// # Panics
    /// There are [`SESSIONS_MAX`].
    pub(super) fn insert(&mut self, session: Session) -> SlotId {
        let Sessions { slots, by_client, by_number, hasher } = self;
        let client = hasher.hash_one(&*session.client_id);
        let number = hasher.hash_one(session.number);
        let Ok(slot) = slots.insert(session) else {
            panic!("sessions are bounded by the log's quota")
        };
        let at = slot.index() as u32;
        let session = |at: &u32| slots.at(*at as usize).expect("an entry is a session's");
        by_client.insert_unique(client, at, |at| hasher.hash_one(&*session(at).client_id));
        by_number.insert_unique(number, at, |at| hasher.hash_one(session(at).number));
        slot
    }

    pub(super) fn remove(&mut self, slot: SlotId) -> Option<Session> {
        let session = self.slots.remove(slot)?;
        let at = slot.index() as u32;
        let client = self.hasher.hash_one(&*session.client_id);
        let number = self.hasher.hash_one(session.number);
        for (index, hash) in [(&mut self.by_client, client), (&mut self.by_number, number)] {
            match index.find_entry(hash, |entry| *entry == at) {
                Ok(entry) => drop(entry.remove()),
                Err(_) => panic!("every session is in both indexes"),
            }
        }
        Some(session)
    }

    pub(super) fn of_client(&self, client_id: &str) -> Option<SlotId> {
        let is_it =
            |at: &u32| self.slots.at(*at as usize).is_some_and(|s| *s.client_id == *client_id);
        let at = self.by_client.find(self.hasher.hash_one(client_id), is_it)?;
        self.slots.id_at(*at as usize)
    }

    pub(super) fn of_number(&self, number: u64) -> Option<SlotId> {
        let is_it = |at: &u32| self.slots.at(*at as usize).is_some_and(|s| s.number == number);
        let at = self.by_number.find(self.hasher.hash_one(number), is_it)?;
        self.slots.id_at(*at as usize)
    }

    pub(super) fn get(&self, slot: SlotId) -> Option<&Session> {
        self.slots.get(slot)
    }

    pub(super) fn get_mut(&mut self, slot: SlotId) -> Option<&mut Session> {
        self.slots.get_mut(slot)
    }

    /// The session that is in a slot now.
    pub(super) fn id_at(&self, index: usize) -> Option<SlotId> {
        self.slots.id_at(index)
    }

    /// Every slot's number is below it.
    pub(super) fn span(&self) -> usize {
        self.slots.span()
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Entries of the larger index: as many as there are sessions.
    pub(super) fn names(&self) -> usize {
        self.by_client.len().max(self.by_number.len())
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (SlotId, &Session)> {
        self.slots.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::super::session::Owner;
    use super::*;
    use proptest::prelude::*;
    use sextant_mqtt::SessionLimits;
    use std::collections::BTreeMap;

    fn session(client: u8, number: u64) -> Session {
        let owner = Owner::Named("anonymous".into());
        Session::new(format!("c{client}").into(), owner, number, SessionLimits::default())
    }

    proptest! {
        #[test]
        fn a_session_is_found_by_its_client_and_its_number_until_it_is_removed(
            clients in prop::collection::vec(0u8..40, 1..300),
        ) {
            let mut sessions = Sessions::default();
            let mut oracle: BTreeMap<u8, (u64, SlotId)> = BTreeMap::new();
            for (number, client) in clients.into_iter().enumerate() {
                let number = number as u64;
                match oracle.remove(&client) {
                    Some((number, slot)) => {
                        prop_assert_eq!(sessions.remove(slot).map(|s| s.number), Some(number));
                        prop_assert!(sessions.remove(slot).is_none());
                    }
                    None => {
                        oracle.insert(client, (number, sessions.insert(session(client, number))));
                    }
                }
                for client in 0..40 {
                    let held = oracle.get(&client);
                    let slot = held.map(|(_, slot)| *slot);
                    prop_assert_eq!(sessions.of_client(&format!("c{client}")), slot);
                    if let Some((number, slot)) = held {
                        prop_assert_eq!(sessions.of_number(*number), Some(*slot));
                    }
                }
                prop_assert_eq!(sessions.of_number(number + 1), None);
                prop_assert_eq!((sessions.len(), sessions.names()), (oracle.len(), oracle.len()));
            }
        }
    }
}
