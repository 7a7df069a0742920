//! The QoS 2 messages that this core has sent on to others, until those confirm them; found by
//! their own number, or by the PUBLISH that they came with.

use std::rc::Rc;

use sextant_mqtt::PacketId;
use sextant_ring::slot::SlotId;

use super::Map;
use super::message::Held;
use super::records::Publisher;

/// A message that other cores have yet to confirm.
pub(super) struct Relayed {
    pub(super) held: Rc<Held>,
    /// The PUBLISH that it came with.
    pub(super) publisher: Publisher,
    /// The tickets of those that came with the same identifier since: they are not answered before
    /// the first one would be.
    pub(super) waiting: Vec<SlotId>,
}

/// All of them.
#[derive(Default)]
pub(super) struct Relays {
    by_id: Map<u64, Relayed>,
    /// Session and packet identifier, while the PUBLISH is unanswered.
    by_publisher: Map<(u64, u16), u64>,
}

impl Relays {
    pub(super) fn insert(&mut self, id: u64, held: Rc<Held>, publisher: Publisher) {
        self.by_publisher.insert((publisher.session, publisher.packet_id), id);
        self.by_id.insert(id, Relayed { held, publisher, waiting: Vec::new() });
    }

    pub(super) fn get(&self, id: u64) -> Option<&Relayed> {
        self.by_id.get(&id)
    }

    /// The message that a PUBLISH brought, if that is to be answered when others have it.
    pub(super) fn pending(&mut self, session: u64, packet_id: PacketId) -> Option<&mut Relayed> {
        let id = self.by_publisher.get(&(session, packet_id.get()))?;
        self.by_id.get_mut(id)
    }

    pub(super) fn remove(&mut self, id: u64) -> Option<Relayed> {
        self.settle(id);
        self.by_id.remove(&id)
    }

    /// The PUBLISH is answered though others have not confirmed the message; gives the tickets that
    /// wait for that.
    pub(super) fn answered(&mut self, id: u64) -> Vec<SlotId> {
        self.settle(id);
        self.by_id.get_mut(&id).map_or_else(Vec::new, |held| std::mem::take(&mut held.waiting))
    }

    /// From then on its identifier may be another message's.
    fn settle(&mut self, id: u64) {
        let Some(Relayed { publisher, .. }) = self.by_id.get(&id) else { return };
        let key = (publisher.session, publisher.packet_id);
        if self.by_publisher.get(&key) == Some(&id) {
            self.by_publisher.remove(&key);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.by_id.len().max(self.by_publisher.len())
    }
}
