//! What a client's session is: its subscriptions, what is queued for it and in flight, its will.
//!
//! A session takes some memory for as long as its client is known, so what most sessions have not
//! (messages in the queue or in flight, a will) is in boxes of its own.

use std::collections::VecDeque;

use sextant_mqtt::{PacketId, QoS, SessionLimits};
use sextant_ring::core::ConnId;
use sextant_ring::slot::SlotId;
use sextant_ring::wheel::TimerId;
use sextant_segment::Position;

use super::message::Delivery;
use super::records::{Exchange, SessionRecord};
use super::subscriptions::Subscriptions;
use super::wills::Will;
use crate::auth::Principal;

/// Who holds a filter, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Subscriber {
    pub(super) session: SlotId,
    pub(super) subscription_id: u32,
    pub(super) qos: QoS,
    pub(super) no_local: bool,
    pub(super) retain_as_published: bool,
}

/// Whose a session is: nobody else may have it.
pub(super) enum Owner {
    /// Its client, as it was let in the last time.
    Known(Principal),
    /// After a restart, until its client comes back.
    Named(Box<str>),
}

impl Owner {
    pub(super) fn name(&self) -> &str {
        match self {
            Owner::Known(principal) => principal.name(),
            Owner::Named(name) => name,
        }
    }

    pub(super) fn principal(&self) -> Option<&Principal> {
        match self {
            Owner::Known(principal) => Some(principal),
            Owner::Named(_) => None,
        }
    }
}

/// The messages that wait for a session, in their order. An empty queue has no memory but a word.
#[derive(Default)]
pub(super) struct Queue(Option<Box<Waiting>>);

#[derive(Default)]
struct Waiting {
    deliveries: VecDeque<Delivery>,
    /// Of their messages.
    bytes: usize,
}

impl Queue {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    pub(super) fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |waiting| waiting.deliveries.len())
    }

    /// Bytes of the messages in it.
    pub(super) fn bytes(&self) -> usize {
        self.0.as_ref().map_or(0, |waiting| waiting.bytes)
    }

    pub(super) fn front(&self) -> Option<&Delivery> {
        self.0.as_ref()?.deliveries.front()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Delivery> {
        self.0.iter().flat_map(|waiting| &waiting.deliveries)
    }

    fn push_back(&mut self, delivery: Delivery) {
        let waiting = self.0.get_or_insert_default();
        waiting.bytes += delivery.held.bytes as usize;
        waiting.deliveries.push_back(delivery);
    }

    fn push_front(&mut self, delivery: Delivery) {
        let waiting = self.0.get_or_insert_default();
        waiting.bytes += delivery.held.bytes as usize;
        waiting.deliveries.push_front(delivery);
    }

    fn remove(&mut self, at: usize) -> Option<Delivery> {
        let waiting = self.0.as_mut()?;
        let delivery = waiting.deliveries.remove(at)?;
        waiting.bytes -= delivery.held.bytes as usize;
        if waiting.deliveries.is_empty() {
            self.0 = None;
        }
        Some(delivery)
    }

    /// Everything in it.
    pub(super) fn take(&mut self) -> Vec<Delivery> {
        self.0.take().map_or_else(Vec::new, |waiting| waiting.deliveries.into())
    }
}

/// A session.
pub(super) struct Session {
    pub(super) client_id: Box<str>,
    pub(super) owner: Owner,
    /// Its name in the log.
    pub(super) number: u64,
    pub(super) conn: Option<ConnId>,
    /// How long it outlives its connection, seconds.
    pub(super) expiry_s: u32,
    /// Since when it has its connection, or has none, milliseconds since 1970.
    pub(super) since: u64,
    pub(super) subscriptions: Subscriptions,
    pub(super) flight: sextant_mqtt::Session<Delivery>,
    pub(super) queue: Queue,
    pub(super) will: Option<Box<Will>>,
    /// For the end of the session, or its will's delay.
    pub(super) timer: Option<TimerId>,
    /// Its record in the log, if it outlives its connection.
    pub(super) record: Option<(Position, u32)>,
}

impl Session {
    pub(super) fn new(
        client_id: Box<str>,
        owner: Owner,
        number: u64,
        limits: SessionLimits,
    ) -> Session {
        Session {
            client_id,
            owner,
            number,
            conn: None,
            expiry_s: 0,
            since: 0,
            subscriptions: Subscriptions::None,
            flight: sextant_mqtt::Session::new(limits),
            queue: Queue::default(),
            will: None,
            timer: None,
            record: None,
        }
    }

    /// Whether it outlives its connection, and so is kept on disk.
    pub(super) fn is_persistent(&self) -> bool {
        self.record.is_some()
    }

    pub(super) fn push(&mut self, delivery: Delivery) {
        delivery.enters_queue(self.number);
        self.queue.push_back(delivery);
    }

    /// Puts a message back that was taken out of the queue.
    pub(super) fn push_front(&mut self, delivery: Delivery) {
        delivery.enters_queue(self.number);
        self.queue.push_front(delivery);
    }

    pub(super) fn pop(&mut self) -> Option<Delivery> {
        let delivery = self.queue.remove(0)?;
        delivery.leaves_queue(self.number);
        Some(delivery)
    }

    /// Takes a message that a receipt counts out of the queue.
    pub(super) fn take_out(&mut self, message: u64) -> Option<Delivery> {
        let is_it = |delivery: &Delivery| delivery.tracked && delivery.held.id == message;
        let at = self.queue.iter().position(is_it)?;
        let delivery = self.queue.remove(at)?;
        delivery.leaves_queue(self.number);
        Some(delivery)
    }

    /// Takes a message of the platform out of the queue.
    pub(super) fn take_pushed(&mut self, message: u64) -> Option<Delivery> {
        let at = self.queue.iter().position(|delivery| delivery.held.is_pushed(message))?;
        let delivery = self.queue.remove(at)?;
        delivery.leaves_queue(self.number);
        Some(delivery)
    }

    /// The session whole, as its record says it. What the platform sent is its own to remember.
    pub(super) fn to_record(&self) -> SessionRecord {
        use sextant_mqtt::Inflight;
        let mut record = SessionRecord {
            number: self.number,
            client_id: self.client_id.clone(),
            user: self.owner.name().into(),
            expiry_s: self.expiry_s,
            left_at: if self.conn.is_some() { 0 } else { self.since },
            subscriptions: self.subscriptions.to_vec(),
            received: self.flight.received().map(PacketId::get).collect(),
            ..SessionRecord::default()
        };
        for (packet_id, inflight) in self.flight.inflight() {
            match inflight {
                // Its identifier need not survive: a QoS 1 message may come twice.
                Inflight::AwaitPuback(delivery) if delivery.is_kept() => {
                    record.queue.push(delivery.queued());
                }
                Inflight::AwaitPuback(_) => {}
                Inflight::AwaitPubrec(delivery) => {
                    record.exchanges.push((packet_id.get(), Exchange::Publish(delivery.queued())));
                }
                Inflight::AwaitPubcomp => {
                    record.exchanges.push((packet_id.get(), Exchange::Release));
                }
            }
        }
        let queued = self.queue.iter().filter(|delivery| delivery.is_kept());
        record.queue.extend(queued.map(Delivery::queued));
        record
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_that_has_nothing_is_small() {
        assert!(size_of::<Session>() <= 144, "{}", size_of::<Session>());
    }
}
