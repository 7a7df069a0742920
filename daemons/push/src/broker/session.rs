//! What a client's session is: its subscriptions, what is queued for it and in flight, its will;
//! and a connection's state on the way to one.

use std::collections::VecDeque;

use bytes::Bytes;
use sextant_mqtt::{AwaitingConnect, Inbound, Link, PacketId, QoS, ReasonCode, SessionLimits};
use sextant_ring::core::ConnId;
use sextant_ring::slot::SlotId;
use sextant_ring::time::Time;
use sextant_ring::wheel::TimerId;
use sextant_segment::Position;

use super::message::Delivery;
use super::recall::Reading;
use super::records::{Exchange, SessionRecord, Subscribed};
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

/// A client's will.
#[derive(Clone, Debug)]
pub(super) struct Will {
    pub(super) topic: Box<str>,
    pub(super) payload: Bytes,
    pub(super) forward: Bytes,
    pub(super) qos: QoS,
    pub(super) retain: bool,
    /// Seconds that it lives once published; zero is for ever.
    pub(super) expiry_s: u32,
    pub(super) delay_s: u32,
}

/// A session.
pub(super) struct Session {
    pub(super) client_id: Box<str>,
    /// Whose it is: nobody else may have it.
    pub(super) user: Box<str>,
    /// Its name in the log.
    pub(super) number: u64,
    /// `None` after a restart, until its client comes back.
    pub(super) principal: Option<Principal>,
    pub(super) conn: Option<ConnId>,
    /// How long it outlives its connection, seconds.
    pub(super) expiry_s: u32,
    /// Since when it has no connection, milliseconds since 1970.
    pub(super) left_at: u64,
    pub(super) subscriptions: Vec<Subscribed>,
    pub(super) flight: sextant_mqtt::Session<Delivery>,
    pub(super) queue: VecDeque<Delivery>,
    pub(super) queue_bytes: usize,
    pub(super) will: Option<Box<Will>>,
    /// For the end of the session, or its will's delay.
    pub(super) timer: Option<TimerId>,
    /// Its record in the log, if it outlives its connection.
    pub(super) record: Option<(Position, u32)>,
}

impl Session {
    pub(super) fn new(
        client_id: Box<str>,
        user: Box<str>,
        number: u64,
        limits: SessionLimits,
    ) -> Session {
        Session {
            client_id,
            user,
            number,
            principal: None,
            conn: None,
            expiry_s: 0,
            left_at: 0,
            subscriptions: Vec::new(),
            flight: sextant_mqtt::Session::new(limits),
            queue: VecDeque::new(),
            queue_bytes: 0,
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
        self.queue_bytes += delivery.held.bytes as usize;
        delivery.enters_queue(self.number);
        self.queue.push_back(delivery);
    }

    /// Puts a message back that was taken out of the queue.
    pub(super) fn push_front(&mut self, delivery: Delivery) {
        self.queue_bytes += delivery.held.bytes as usize;
        delivery.enters_queue(self.number);
        self.queue.push_front(delivery);
    }

    pub(super) fn pop(&mut self) -> Option<Delivery> {
        let delivery = self.queue.pop_front()?;
        self.queue_bytes -= delivery.held.bytes as usize;
        delivery.leaves_queue(self.number);
        if self.queue.is_empty() {
            self.queue = VecDeque::new();
        }
        Some(delivery)
    }

    /// Takes a message that a receipt counts out of the queue.
    pub(super) fn take_out(&mut self, message: u64) -> Option<Delivery> {
        let is_it = |delivery: &Delivery| delivery.tracked && delivery.held.id == message;
        let at = self.queue.iter().position(is_it)?;
        let delivery = self.queue.remove(at)?;
        self.queue_bytes -= delivery.held.bytes as usize;
        delivery.leaves_queue(self.number);
        Some(delivery)
    }

    /// The session whole, as its record says it.
    pub(super) fn to_record(&self) -> SessionRecord {
        use sextant_mqtt::Inflight;
        let mut record = SessionRecord {
            number: self.number,
            client_id: self.client_id.clone(),
            user: self.user.clone(),
            expiry_s: self.expiry_s,
            left_at: if self.conn.is_some() { 0 } else { self.left_at },
            subscriptions: self.subscriptions.clone(),
            received: self.flight.received().map(PacketId::get).collect(),
            ..SessionRecord::default()
        };
        for (packet_id, inflight) in self.flight.inflight() {
            match inflight {
                // Its identifier need not survive: a QoS 1 message may come twice.
                Inflight::AwaitPuback(delivery) => record.queue.push(delivery.queued()),
                Inflight::AwaitPubrec(delivery) => {
                    record.exchanges.push((packet_id.get(), Exchange::Publish(delivery.queued())));
                }
                Inflight::AwaitPubcomp => {
                    record.exchanges.push((packet_id.get(), Exchange::Release));
                }
            }
        }
        record.queue.extend(self.queue.iter().map(Delivery::queued));
        record
    }
}

/// An answer to the client that may have to wait for the disk or for other cores. Those of one
/// connection leave in the order of what they answer `[MQTT-4.6.0-2]`, `[MQTT-4.6.0-3]`.
#[derive(Debug)]
pub(super) enum Answer {
    Puback(PacketId),
    Pubrec(PacketId),
    Pubcomp(PacketId, ReasonCode),
    Suback(PacketId, Box<[ReasonCode]>),
    Unsuback(PacketId, Box<[ReasonCode]>),
}

struct Waiting {
    answer: Answer,
    /// `None` while it waits.
    result: Option<ReasonCode>,
}

/// The answers that a connection has yet to get.
#[derive(Default)]
pub(super) struct Answers {
    waiting: VecDeque<Waiting>,
    /// The number of the first.
    first: u64,
}

impl Answers {
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Adds an answer that waits, and gives its number.
    pub(super) fn push(&mut self, answer: Answer) -> u64 {
        self.waiting.push_back(Waiting { answer, result: None });
        self.first + self.waiting.len() as u64 - 1
    }

    fn at(&mut self, number: u64) -> Option<&mut Waiting> {
        let at = usize::try_from(number.checked_sub(self.first)?).ok()?;
        self.waiting.get_mut(at)
    }

    /// Says what an answer is to be, now that it is known.
    pub(super) fn replace(&mut self, number: u64, answer: Answer) {
        if let Some(waiting) = self.at(number) {
            waiting.answer = answer;
        }
    }

    /// Says that an answer need not wait any more.
    pub(super) fn resolve(&mut self, number: u64, result: ReasonCode) {
        if let Some(waiting) = self.at(number) {
            waiting.result = Some(result);
        }
    }

    /// The next answer that may leave.
    pub(super) fn next(&mut self) -> Option<(Answer, ReasonCode)> {
        let result = self.waiting.front()?.result?;
        let waiting = self.waiting.pop_front()?;
        self.first += 1;
        if self.waiting.is_empty() {
            self.waiting = VecDeque::new();
        }
        Some((waiting.answer, result))
    }
}

/// How far a connection has come.
pub(super) enum Stage {
    /// Nothing but perhaps a part of its CONNECT has arrived.
    Awaiting {
        awaiting: AwaitingConnect,
        bytes: Vec<u8>,
    },
    /// Its password is being checked; what has arrived waits, its CONNECT first.
    Verifying {
        bytes: Vec<u8>,
    },
    Online {
        link: Link,
        session: SlotId,
    },
}

/// A connection.
pub(super) struct Conn {
    pub(super) id: ConnId,
    pub(super) stage: Stage,
    pub(super) inbound: Inbound,
    pub(super) answers: Answers,
    pub(super) timer: Option<TimerId>,
    /// Since when it takes nothing.
    pub(super) blocked: Option<Time>,
    /// Not read from, since it is owed too many answers, or this core cannot keep up.
    pub(super) paused: bool,
    /// What it had sent when that began.
    pub(super) unread: Vec<u8>,
    /// QoS 2 messages that are to be sent as soon as it takes more; whether they are duplicates.
    pub(super) later: VecDeque<(PacketId, bool)>,
    /// What it waits for that is on disk alone.
    pub(super) reading: Option<Box<Reading>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u16) -> PacketId {
        PacketId::new(n).unwrap()
    }

    #[test]
    fn answers_leave_in_the_order_of_what_they_answer() {
        let mut answers = Answers::default();
        let first = answers.push(Answer::Puback(id(1)));
        let second = answers.push(Answer::Puback(id(2)));
        answers.resolve(second, ReasonCode::Success);
        assert!(answers.next().is_none(), "the first still waits");
        answers.resolve(first, ReasonCode::QuotaExceeded);
        assert!(
            matches!(answers.next(), Some((Answer::Puback(i), ReasonCode::QuotaExceeded)) if i == id(1))
        );
        assert!(
            matches!(answers.next(), Some((Answer::Puback(i), ReasonCode::Success)) if i == id(2))
        );
        assert!(answers.next().is_none());
        answers.resolve(first, ReasonCode::Success);
        let third = answers.push(Answer::Puback(id(3)));
        assert_eq!((third, answers.len()), (2, 1));
    }
}
