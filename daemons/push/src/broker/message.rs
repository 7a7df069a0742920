//! Messages as the broker has them in hand: one that is being routed, one that travels between
//! cores, one that is on disk for somebody, and its place in one session's queue.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use sextant_mqtt::{QoS, ReasonCode};
use sextant_ring::slot::SlotId;
use sextant_ring::wheel::TimerId;
use sextant_segment::Position;

use super::records::{MessageRecord, Origin, Progress, Publisher, Queued};
use super::shares::{Chosen, Part};
use super::transport::Arrival;
use crate::control::Command;

/// A message on its way through one core.
#[derive(Clone, Copy)]
pub(super) struct Incoming<'a> {
    pub(super) topic: &'a str,
    pub(super) payload: &'a [u8],
    /// The MQTT 5 properties that go to every receiver.
    pub(super) forward: &'a [u8],
    /// Milliseconds since 1970; zero is never.
    pub(super) expires_at: u64,
    pub(super) qos: QoS,
    pub(super) retain: bool,
    /// The session that published it, if that is on this core.
    pub(super) from: Option<SlotId>,
    pub(super) publisher: Option<Publisher>,
    pub(super) origin: Option<Origin>,
    pub(super) receipt: Option<(u16, u128)>,
    /// The device that it was pushed to: the receipt counts its session alone, and without one
    /// the message waits.
    pub(super) device: Option<&'a str>,
    /// The cores whose members of a shared subscription it is for, with the group's name.
    pub(super) shares: &'a [Chosen],
    /// Nobody else gets it.
    pub(super) for_groups_alone: bool,
}

impl<'a> Incoming<'a> {
    /// An empty message that nobody has promised anything of.
    pub(super) fn at_most_once(topic: &'a str) -> Incoming<'a> {
        Incoming {
            topic,
            payload: &[],
            forward: &[],
            expires_at: 0,
            qos: QoS::AtMostOnce,
            retain: false,
            from: None,
            publisher: None,
            origin: None,
            receipt: None,
            device: None,
            shares: &[],
            for_groups_alone: false,
        }
    }

    /// A message that was kept, on its way to one session.
    pub(super) fn of(record: &'a MessageRecord, qos: QoS) -> Incoming<'a> {
        Incoming {
            payload: &record.payload,
            forward: &record.forward,
            expires_at: record.expires_at,
            qos,
            ..Incoming::at_most_once(&record.topic)
        }
    }
}

/// A message that travels between cores.
#[derive(Debug)]
pub struct Publication {
    topic: Box<str>,
    payload: Bytes,
    forward: Bytes,
    expires_at: u64,
    qos: QoS,
    retain: bool,
    origin: Option<Origin>,
    receipt: Option<(u16, u128)>,
    device: Option<Box<str>>,
    shares: Box<[Chosen]>,
    for_groups_alone: bool,
}

impl Publication {
    pub(super) fn new(incoming: &Incoming<'_>, origin: Option<Origin>) -> Arc<Publication> {
        Arc::new(Publication {
            topic: incoming.topic.into(),
            payload: Bytes::copy_from_slice(incoming.payload),
            forward: Bytes::copy_from_slice(incoming.forward),
            expires_at: incoming.expires_at,
            qos: incoming.qos,
            retain: incoming.retain,
            origin,
            receipt: incoming.receipt,
            device: incoming.device.map(Box::from),
            shares: incoming.shares.into(),
            for_groups_alone: incoming.for_groups_alone,
        })
    }

    pub(super) fn incoming(&self) -> Incoming<'_> {
        Incoming {
            topic: &self.topic,
            payload: &self.payload,
            forward: &self.forward,
            expires_at: self.expires_at,
            qos: self.qos,
            retain: self.retain,
            from: None,
            publisher: None,
            origin: self.origin,
            receipt: self.receipt,
            device: self.device.as_deref(),
            shares: &self.shares,
            for_groups_alone: self.for_groups_alone,
        }
    }
}

/// Who asked another core for its retained messages, and how it subscribed.
#[derive(Clone, Debug)]
pub struct RetainedAsk {
    pub(super) core: usize,
    /// The session's number.
    pub(super) session: u64,
    pub(super) filter: Arc<str>,
    pub(super) qos: QoS,
    pub(super) subscription_id: u32,
    /// The name of the question, if the core waits until it has them.
    pub(super) ticket: Option<u64>,
    /// The topic behind which the search goes on; `None` at its beginning.
    pub(super) after: Option<Arc<str>>,
    /// The newest message that it finds, by its number on the core that is asked.
    pub(super) last: u64,
}

/// What cores tell each other, and what the control plane tells them.
#[derive(Debug)]
pub enum Message {
    /// From the control plane.
    Command(Command),
    /// A connection that belongs to this core comes with this note.
    Arrived(Option<Box<Arrival>>),
    /// A core has told what its sessions are subscribed to.
    Introduced,
    /// All cores have heard that of all others: clients may come.
    AllReady,
    /// A message for this core's sessions.
    Publish {
        /// The message.
        publication: Arc<Publication>,
        /// Whether it is to be kept as its topic's retained message here.
        keep: bool,
        /// Whether this core's sessions get it.
        deliver: bool,
        /// The core that wants to know, and the name it gave the question.
        answer: Option<(usize, u64)>,
    },
    /// An answer: a message is where it has to be, or was refused.
    Stored {
        /// The name of the question.
        ticket: u64,
        /// Sessions that the receipt counts.
        recipients: u32,
        /// Why it was refused, if it was.
        refused: Option<ReasonCode>,
    },
    /// A core has, or no longer has, subscribers of a filter.
    Interest {
        /// The filter.
        filter: Arc<str>,
        /// Which core.
        core: u16,
        /// Whether it has.
        has: bool,
        /// The name of the question, if the core waits for it to be known.
        ticket: Option<u64>,
    },
    /// What a core has of a shared subscription's group.
    Share {
        /// The subscription, whole.
        key: Arc<str>,
        /// Which core.
        core: u16,
        /// Its members.
        part: Part,
        /// The name of the question, if the core waits for it to be known.
        ticket: Option<u64>,
    },
    /// Somebody subscribed and wants what is retained here.
    RetainedAsk(RetainedAsk),
    /// A retained message for a session that asked.
    RetainedFound {
        /// The question.
        ask: RetainedAsk,
        /// The message.
        publication: Arc<Publication>,
    },
    /// There are more than were given: to be asked for again, so, when there is room.
    RetainedMore {
        /// The core that has them.
        core: usize,
        /// The question.
        ask: RetainedAsk,
    },
    /// A pushed message moved on.
    Progress {
        /// Which message.
        id: u128,
        /// How.
        progress: Progress,
        /// When, in milliseconds since 1970.
        at: u64,
    },
}

/// A message on disk that somebody is to get.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) id: u64,
    pub(super) position: Cell<Position>,
    /// Bytes of its record.
    pub(super) stored_bytes: Cell<u32>,
    /// Bytes of topic, properties and payload.
    pub(super) bytes: u32,
    pub(super) expires_at: u64,
    /// As it was published.
    pub(super) qos: QoS,
    /// Its topic, if that is asked for while it is on disk: of what is retained or waits for a
    /// device.
    pub(super) topic: Option<Rc<str>>,
    /// For that time.
    pub(super) timer: Cell<Option<TimerId>>,
    pub(super) expired: Cell<bool>,
    /// The sessions, by number, in whose queue it waits and that the receipt counts.
    pub(super) queued_in: RefCell<Vec<u64>>,
    pub(super) receipt: Option<(u16, u128)>,
    /// The device that it was kept for when nobody took it.
    pub(super) waits_for: Option<Box<str>>,
    /// It was kept as its topic's retained message.
    pub(super) retained: bool,
    /// What a message of the platform is; all others are on disk.
    pub(super) pushed: Option<Box<Pushed>>,
}

/// A message of the sender platform, which has it on disk. It has no topic of its own: each receiver
/// gets it as `d/{client}/push`.
#[derive(Debug)]
pub(super) struct Pushed {
    pub(super) message: u64,
    pub(super) app: u16,
    /// Its content.
    pub(super) record: Rc<MessageRecord>,
}

impl Held {
    pub(super) fn is_expired(&self, unix_ms: u64) -> bool {
        self.expired.get() || (self.expires_at != 0 && self.expires_at <= unix_ms)
    }

    /// Whether it is this message of the platform.
    pub(super) fn is_pushed(&self, message: u64) -> bool {
        self.pushed.as_ref().is_some_and(|pushed| pushed.message == message)
    }
}

/// A message's place in one session's queue, or in flight.
#[derive(Debug)]
pub(super) struct Delivery {
    pub(super) held: Rc<Held>,
    pub(super) qos: QoS,
    pub(super) retain: bool,
    /// Whether the message's receipt counts it.
    pub(super) tracked: bool,
    /// Of a message of the platform, whom it is for; otherwise zero.
    pub(super) device: u32,
    pub(super) subscription_ids: Box<[u32]>,
}

impl Delivery {
    /// Whether the log, and not the platform, has its message.
    pub(super) fn is_kept(&self) -> bool {
        self.held.pushed.is_none()
    }

    pub(super) fn queued(&self) -> Queued {
        Queued {
            message: self.held.id,
            qos: self.qos,
            retain: self.retain,
            tracked: self.tracked,
            subscription_ids: self.subscription_ids.clone(),
        }
    }

    /// Notes that it entered a session's queue.
    pub(super) fn enters_queue(&self, session: u64) {
        if self.tracked {
            self.held.queued_in.borrow_mut().push(session);
        }
    }

    /// Notes that it left a session's queue.
    pub(super) fn leaves_queue(&self, session: u64) {
        if self.tracked {
            let mut queued_in = self.held.queued_in.borrow_mut();
            let at = queued_in.iter().position(|number| *number == session);
            queued_in.swap_remove(at.expect("it entered the queue"));
        }
    }

    /// The receipt that counts this delivery.
    pub(super) fn receipt(&self) -> Option<(u16, u128)> {
        self.held.receipt.filter(|_| self.tracked)
    }
}

/// The device whose own a topic or filter is: the second level below `d`, if that is a plain one.
pub(super) fn device_of(topic: &str) -> Option<&str> {
    let rest = topic.strip_prefix("d/")?;
    let device = rest.split('/').next()?;
    Some(device).filter(|device| !device.is_empty() && *device != "+" && *device != "#")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_devices_own_topics_and_filters_name_it() {
        for own in ["d/x1/push", "d/x1", "d/x1/#", "d/x1/+/a"] {
            assert_eq!(device_of(own), Some("x1"), "{own}");
        }
        for other in ["d/+/push", "d/#", "d", "e/x1/push", "d//push", "dd/x1"] {
            assert_eq!(device_of(other), None, "{other}");
        }
    }
}
