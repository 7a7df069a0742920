//! The push daemon's records in its log, and their bytes. A record of the log is one of:
//!
//! | kind | content |
//! |---|---|
//! | 1 message | a message, the sessions it was queued for, and what its publisher is promised |
//! | 2 session | a session, whole: replaces all that was said of it before |
//! | 3 receipt | what is known of a pushed message, whole |
//! | 4 facts | small changes, one behind the other |
//! | 5 will | the will of a client that is connected, or was |
//! | 6 recipients | sessions that the message behind it was queued for, where they are very many |
//!
//! Numbers are little-endian base-128 varints, strings and bytes are preceded by their length. A
//! message's identifier is the sequence number of its first record, said explicitly in copies that
//! relocation makes. A session's number is its own for good, and so is a will's; both are counted
//! together. A message whose publisher has the packet identifier 0, which no PUBLISH has, publishes
//! the will of that number.
//!
//! A core's **life** is one run of the daemon, counted: a log that lost what it had acknowledged, as
//! all but `always` may, gives the same sequence numbers again, and what another core remembers of
//! the life before must not be taken for what is said in this one.
//!
//! ```text
//!   message   flags id? topic forward expires_at? receipt? waits_for? publisher? origin?
//!             recipients listed? shares? payload
//!   fact      kind fields…
//! ```
//!
//! Whatever is read here passed the log's checksum; a record that does not parse all the same was
//! written by a later version, and opening fails rather than losing it.

mod recipients;
mod will;

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use sextant_mqtt::QoS;

use super::shares::Chosen;
pub(super) use recipients::{INLINE_MAX, Recipient, RecipientLists, take_recipients};
pub(super) use will::WillRecord;

pub(super) const MESSAGE: u8 = 1;
pub(super) const SESSION: u8 = 2;
pub(super) const RECEIPT: u8 = 3;
pub(super) const FACTS: u8 = 4;
pub(super) const WILL: u8 = 5;
pub(super) const RECIPIENTS: u8 = 6;

/// The number of no session.
pub(super) const NOBODY: u64 = 0;

/// A record that this version does not understand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a record of the log has a form that this version does not know")]
pub struct Unreadable;

type Parsed<T> = Result<T, Unreadable>;

/// Appends numbers and bytes.
pub(super) trait Put {
    fn byte(&mut self, value: u8);
    fn number(&mut self, value: u64);
    fn bytes(&mut self, value: &[u8]);
}

impl Put for Vec<u8> {
    fn byte(&mut self, value: u8) {
        self.push(value);
    }

    fn number(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.push(value as u8);
    }

    fn bytes(&mut self, value: &[u8]) {
        self.number(value.len() as u64);
        self.extend_from_slice(value);
    }
}

/// Reads what [`Put`] wrote, sharing the record's bytes.
pub(super) struct Take {
    rest: Bytes,
}

impl Take {
    pub(super) fn new(record: Bytes) -> Take {
        Take { rest: record }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    fn byte(&mut self) -> Parsed<u8> {
        let byte = *self.rest.first().ok_or(Unreadable)?;
        let _ = self.rest.split_to(1);
        Ok(byte)
    }

    fn number(&mut self) -> Parsed<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7F).checked_shl(shift).ok_or(Unreadable)?;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Unreadable)
    }

    fn bytes(&mut self) -> Parsed<Bytes> {
        let len = usize::try_from(self.number()?).map_err(|_| Unreadable)?;
        if len > self.rest.len() {
            return Err(Unreadable);
        }
        Ok(self.rest.split_to(len))
    }

    fn text(&mut self) -> Parsed<Box<str>> {
        let bytes = self.bytes()?;
        std::str::from_utf8(&bytes).map(Box::from).map_err(|_| Unreadable)
    }

    fn small(&mut self) -> Parsed<u16> {
        u16::try_from(self.number()?).map_err(|_| Unreadable)
    }

    fn medium(&mut self) -> Parsed<u32> {
        u32::try_from(self.number()?).map_err(|_| Unreadable)
    }

    fn qos(&mut self) -> Parsed<QoS> {
        QoS::from_u8(self.byte()?).ok_or(Unreadable)
    }

    fn id(&mut self) -> Parsed<u128> {
        if self.rest.len() < 16 {
            return Err(Unreadable);
        }
        let bytes = self.rest.split_to(16);
        Ok(u128::from_be_bytes(bytes[..].try_into().map_err(|_| Unreadable)?))
    }
}

/// The QoS 2 PUBLISH that a message came with, or the will that it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Publisher {
    pub(super) session: u64,
    pub(super) packet_id: u16,
    /// Whether other cores are to get it, and are asked again after a crash; the life in which
    /// they were asked first.
    pub(super) relayed: Option<u64>,
}

impl Publisher {
    /// Of a message that is the will of this number.
    pub(super) fn of_will(number: u64) -> Publisher {
        Publisher { session: number, packet_id: 0, relayed: None }
    }

    /// The number of the will that the message publishes.
    pub(super) fn will(self) -> Option<u64> {
        (self.packet_id == 0).then_some(self.session)
    }
}

/// Where a message was relayed from, so that it is taken in once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Origin {
    pub(super) core: u16,
    pub(super) told: Told,
}

/// What names a relayed message among those of its core: each is above all that were relayed
/// before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Told {
    /// The core's life.
    pub(super) life: u64,
    /// The message's identifier there.
    pub(super) id: u64,
}

/// A message record.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(super) struct MessageRecord {
    /// Zero: the record's own sequence number.
    pub(super) id: u64,
    pub(super) topic: Box<str>,
    /// The MQTT 5 properties that go to every receiver.
    pub(super) forward: Bytes,
    /// Milliseconds since 1970; zero is never.
    pub(super) expires_at: u64,
    pub(super) qos: u8,
    /// It was published with RETAIN.
    pub(super) retain: bool,
    /// It is the retained message of its topic, or clears that if it has no payload.
    pub(super) retained: bool,
    /// The receipt that it counts for, and the core that keeps it.
    pub(super) receipt: Option<(u16, u128)>,
    /// It waits for this device.
    pub(super) waits_for: Option<Box<str>>,
    pub(super) publisher: Option<Publisher>,
    pub(super) origin: Option<Origin>,
    pub(super) recipients: Vec<Recipient>,
    /// Records of further recipients, right before this one.
    pub(super) listed: u64,
    /// Of one that is relayed: the cores whose members of a shared subscription it is for.
    pub(super) shares: Vec<Chosen>,
    pub(super) payload: Bytes,
}

mod flag {
    pub(super) const RETAIN: u64 = 1;
    pub(super) const RETAINED: u64 = 1 << 1;
    pub(super) const EXPIRES: u64 = 1 << 2;
    pub(super) const RECEIPT: u64 = 1 << 3;
    pub(super) const WAITS: u64 = 1 << 4;
    pub(super) const PUBLISHER: u64 = 1 << 5;
    pub(super) const RELAYED: u64 = 1 << 6;
    pub(super) const ORIGIN: u64 = 1 << 7;
    pub(super) const QOS_SHIFT: u32 = 8;
    /// Lives are told: of what was written before they were counted it is the first, zero.
    pub(super) const LIVES: u64 = 1 << 10;
    pub(super) const SHARES: u64 = 1 << 11;
    pub(super) const LISTED: u64 = 1 << 12;
    pub(super) const KNOWN: u64 = (1 << 13) - 1;
}

impl MessageRecord {
    /// The topic, if it has to be known while the message is on disk alone.
    pub(super) fn topic_to_remember(&self) -> Option<Rc<str>> {
        (self.retained || self.waits_for.is_some()).then(|| Rc::from(&*self.topic))
    }

    /// All but the payload, which follows.
    pub(super) fn put_head(&self, payload_len: usize, out: &mut Vec<u8>) {
        let mut flags = u64::from(self.qos) << flag::QOS_SHIFT;
        let mut set = |on, bit| flags |= if on { bit } else { 0 };
        set(self.retain, flag::RETAIN);
        set(self.retained, flag::RETAINED);
        set(self.expires_at != 0, flag::EXPIRES);
        set(self.receipt.is_some(), flag::RECEIPT);
        set(self.waits_for.is_some(), flag::WAITS);
        set(self.publisher.is_some(), flag::PUBLISHER);
        let relayed = self.publisher.and_then(|publisher| publisher.relayed);
        set(relayed.is_some(), flag::RELAYED);
        set(self.origin.is_some(), flag::ORIGIN);
        set(relayed.is_some() || self.origin.is_some(), flag::LIVES);
        set(!self.shares.is_empty(), flag::SHARES);
        set(self.listed != 0, flag::LISTED);
        out.number(flags);
        out.number(self.id);
        out.bytes(self.topic.as_bytes());
        out.bytes(&self.forward);
        if self.expires_at != 0 {
            out.number(self.expires_at);
        }
        if let Some((core, id)) = self.receipt {
            out.number(u64::from(core));
            out.extend_from_slice(&id.to_be_bytes());
        }
        if let Some(device) = &self.waits_for {
            out.bytes(device.as_bytes());
        }
        if let Some(publisher) = self.publisher {
            out.number(publisher.session);
            out.number(u64::from(publisher.packet_id));
            if let Some(life) = relayed {
                out.number(life);
            }
        }
        if let Some(origin) = self.origin {
            out.number(u64::from(origin.core));
            out.number(origin.told.life);
            out.number(origin.told.id);
        }
        out.number(self.recipients.len() as u64);
        self.recipients.iter().for_each(|recipient| recipient.put(out));
        if self.listed != 0 {
            out.number(self.listed);
        }
        if !self.shares.is_empty() {
            out.number(self.shares.len() as u64);
            for (core, key) in &self.shares {
                out.number(u64::from(*core));
                out.bytes(key.as_bytes());
            }
        }
        out.number(payload_len as u64);
    }

    /// Reads a record whose sequence number is `seq`.
    pub(super) fn take(record: Bytes, seq: u64) -> Parsed<MessageRecord> {
        let mut from = Take::new(record);
        let flags = from.number()?;
        if flags & !flag::KNOWN != 0 {
            return Err(Unreadable);
        }
        let has = |bit| flags & bit != 0;
        let life = |from: &mut Take| if has(flag::LIVES) { from.number() } else { Ok(0) };
        let id = from.number()?;
        let topic = from.text()?;
        let forward = from.bytes()?;
        let expires_at = if has(flag::EXPIRES) { from.number()? } else { 0 };
        let receipt = match has(flag::RECEIPT) {
            true => Some((from.small()?, from.id()?)),
            false => None,
        };
        let waits_for = if has(flag::WAITS) { Some(from.text()?) } else { None };
        let publisher = match has(flag::PUBLISHER) {
            true => Some(Publisher {
                session: from.number()?,
                packet_id: from.small()?,
                relayed: match has(flag::RELAYED) {
                    true => Some(life(&mut from)?),
                    false => None,
                },
            }),
            false => None,
        };
        let origin = match has(flag::ORIGIN) {
            true => Some(Origin {
                core: from.small()?,
                told: Told { life: life(&mut from)?, id: from.number()? },
            }),
            false => None,
        };
        let count = from.number()?;
        let recipients = (0..count).map(|_| Recipient::take(&mut from)).collect::<Parsed<_>>()?;
        let listed = if has(flag::LISTED) { from.number()? } else { 0 };
        let count = if has(flag::SHARES) { from.number()? } else { 0 };
        let shares = (0..count)
            .map(|_| Ok((from.small()?, Arc::from(from.text()?))))
            .collect::<Parsed<_>>()?;
        let payload = from.bytes()?;
        Ok(MessageRecord {
            id: if id == 0 { seq } else { id },
            topic,
            forward,
            expires_at,
            qos: (flags >> flag::QOS_SHIFT) as u8 & 3,
            retain: has(flag::RETAIN),
            retained: has(flag::RETAINED),
            receipt,
            waits_for,
            publisher,
            origin,
            recipients,
            listed,
            shares,
            payload,
        })
    }
}

/// A subscription of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Subscribed {
    pub(super) filter: Rc<str>,
    pub(super) qos: QoS,
    pub(super) no_local: bool,
    pub(super) retain_as_published: bool,
    /// Zero: none.
    pub(super) subscription_id: u32,
}

impl Subscribed {
    fn put(&self, out: &mut Vec<u8>) {
        out.bytes(self.filter.as_bytes());
        out.byte(
            self.qos as u8 | u8::from(self.no_local) << 2 | u8::from(self.retain_as_published) << 3,
        );
        out.number(u64::from(self.subscription_id));
    }

    fn take(from: &mut Take) -> Parsed<Subscribed> {
        let filter = from.text()?;
        let flags = from.byte()?;
        Ok(Subscribed {
            filter: filter.into(),
            qos: QoS::from_u8(flags & 3).ok_or(Unreadable)?,
            no_local: flags & 4 != 0,
            retain_as_published: flags & 8 != 0,
            subscription_id: from.medium()?,
        })
    }
}

/// A message in a session's queue or in flight, by its identifier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Queued {
    pub(super) message: u64,
    pub(super) qos: QoS,
    pub(super) retain: bool,
    pub(super) tracked: bool,
    pub(super) subscription_ids: Box<[u32]>,
}

impl Queued {
    fn put(&self, out: &mut Vec<u8>) {
        Recipient {
            session: self.message,
            qos: self.qos,
            retain: self.retain,
            tracked: self.tracked,
            subscription_ids: self.subscription_ids.clone(),
        }
        .put(out);
    }

    fn take(from: &mut Take) -> Parsed<Queued> {
        Recipient::take(from).map(|recipient| recipient.queued(None))
    }
}

/// A QoS 2 exchange towards the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Exchange {
    /// Its PUBLISH may have been sent.
    Publish(Queued),
    /// The client has it; its PUBREL may have been sent.
    Release,
}

/// A session record.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(super) struct SessionRecord {
    pub(super) number: u64,
    pub(super) client_id: Box<str>,
    pub(super) user: Box<str>,
    pub(super) expiry_s: u32,
    /// Since when it has no connection, milliseconds since 1970; zero while it has one.
    pub(super) left_at: u64,
    pub(super) subscriptions: Vec<Subscribed>,
    /// QoS 2 packet identifiers of the client that it has not released.
    pub(super) received: Vec<u16>,
    pub(super) exchanges: Vec<(u16, Exchange)>,
    pub(super) queue: Vec<Queued>,
}

impl SessionRecord {
    pub(super) fn put(&self, out: &mut Vec<u8>) {
        out.number(self.number);
        out.bytes(self.client_id.as_bytes());
        out.bytes(self.user.as_bytes());
        out.number(u64::from(self.expiry_s));
        out.number(self.left_at);
        out.number(self.subscriptions.len() as u64);
        self.subscriptions.iter().for_each(|subscription| subscription.put(out));
        out.number(self.received.len() as u64);
        self.received.iter().for_each(|id| out.number(u64::from(*id)));
        out.number(self.exchanges.len() as u64);
        for (packet_id, exchange) in &self.exchanges {
            out.number(u64::from(*packet_id));
            match exchange {
                Exchange::Publish(queued) => {
                    out.byte(0);
                    queued.put(out);
                }
                Exchange::Release => out.byte(1),
            }
        }
        out.number(self.queue.len() as u64);
        self.queue.iter().for_each(|queued| queued.put(out));
    }

    pub(super) fn take(record: Bytes) -> Parsed<SessionRecord> {
        let mut from = Take::new(record);
        let from = &mut from;
        let mut record = SessionRecord {
            number: from.number()?,
            client_id: from.text()?,
            user: from.text()?,
            expiry_s: from.medium()?,
            left_at: from.number()?,
            ..SessionRecord::default()
        };
        for _ in 0..from.number()? {
            record.subscriptions.push(Subscribed::take(from)?);
        }
        for _ in 0..from.number()? {
            record.received.push(from.small()?);
        }
        for _ in 0..from.number()? {
            let packet_id = from.small()?;
            let exchange = match from.byte()? {
                0 => Exchange::Publish(Queued::take(from)?),
                1 => Exchange::Release,
                _ => return Err(Unreadable),
            };
            record.exchanges.push((packet_id, exchange));
        }
        for _ in 0..from.number()? {
            record.queue.push(Queued::take(from)?);
        }
        Ok(record)
    }
}

/// What happened to a pushed message, for its receipt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Progress {
    /// So many more sessions are to get it.
    Recipients(u32),
    /// It was sent to one.
    Sent,
    /// One acknowledged it.
    Acknowledged,
    /// It expired for so many.
    Expired(u32),
    /// It was dropped for one.
    Dropped,
}

/// A small change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fact {
    /// A session subscribed.
    Subscribed(u64, Subscribed),
    /// A session gave a filter up.
    Unsubscribed(u64, Box<str>),
    /// A session got or lost its connection, with its expiry in seconds and when it left.
    Presence(u64, u32, u64),
    /// A session is no more.
    Ended(u64),
    /// A message of a QoS left a session's queue for good, other than through an exchange that was
    /// [started](Fact::Started). The QoS tells it from another copy: live and retained, one message
    /// may wait for a session twice.
    Done(u64, u64, QoS),
    /// A message was queued for a session, apart from its own record.
    Queued(u64, Queued),
    /// A QoS 2 message was put in flight under a packet identifier.
    Started(u64, u16, u64),
    /// The client has the QoS 2 message of a packet identifier.
    Released(u64, u16),
    /// The QoS 2 exchange of a packet identifier is over.
    Completed(u64, u16),
    /// A QoS 2 packet identifier of the client was taken in.
    Received(u64, u16),
    /// The client released a QoS 2 packet identifier.
    Forgotten(u64, u16),
    /// A receipt moved on, at a time.
    Receipt(u128, Progress, u64),
    /// All cores have the relayed message.
    Relayed(u64),
    /// Messages from a core up to this one were taken in.
    OriginMark(u16, Told),
    /// The topic has no retained message any more.
    Unretained(Box<str>),
    /// A message waits for its device no longer.
    Claimed(u64),
    /// This life began.
    Life(u64),
    /// The will of this number is not to be published any more.
    WillGone(u64),
}

impl Fact {
    pub(super) fn put(&self, out: &mut Vec<u8>) {
        let pair = |out: &mut Vec<u8>, kind, a: u64, b: u64| {
            out.byte(kind);
            out.number(a);
            out.number(b);
        };
        match self {
            Fact::Subscribed(session, subscribed) => {
                out.byte(1);
                out.number(*session);
                subscribed.put(out);
            }
            Fact::Unsubscribed(session, filter) => {
                out.byte(2);
                out.number(*session);
                out.bytes(filter.as_bytes());
            }
            Fact::Presence(session, expiry_s, left_at) => {
                pair(out, 3, *session, u64::from(*expiry_s));
                out.number(*left_at);
            }
            Fact::Ended(session) => {
                out.byte(4);
                out.number(*session);
            }
            Fact::Done(session, message, qos) => {
                pair(out, 5, *session, *message);
                out.byte(*qos as u8);
            }
            Fact::Queued(session, queued) => {
                out.byte(6);
                out.number(*session);
                queued.put(out);
            }
            Fact::Started(session, packet_id, message) => {
                pair(out, 7, *session, u64::from(*packet_id));
                out.number(*message);
            }
            Fact::Released(session, id) => pair(out, 8, *session, u64::from(*id)),
            Fact::Completed(session, id) => pair(out, 9, *session, u64::from(*id)),
            Fact::Received(session, id) => pair(out, 10, *session, u64::from(*id)),
            Fact::Forgotten(session, id) => pair(out, 11, *session, u64::from(*id)),
            Fact::Receipt(id, progress, at) => {
                out.byte(12);
                out.extend_from_slice(&id.to_be_bytes());
                let (kind, count) = match progress {
                    Progress::Recipients(count) => (0, *count),
                    Progress::Sent => (1, 1),
                    Progress::Acknowledged => (2, 1),
                    Progress::Expired(count) => (3, *count),
                    Progress::Dropped => (4, 1),
                };
                out.byte(kind);
                out.number(u64::from(count));
                out.number(*at);
            }
            Fact::Relayed(message) => {
                out.byte(13);
                out.number(*message);
            }
            Fact::OriginMark(core, Told { life, id }) => {
                pair(out, 17, u64::from(*core), *life);
                out.number(*id);
            }
            Fact::Unretained(topic) => {
                out.byte(15);
                out.bytes(topic.as_bytes());
            }
            Fact::Claimed(message) => {
                out.byte(16);
                out.number(*message);
            }
            Fact::Life(life) => {
                out.byte(18);
                out.number(*life);
            }
            Fact::WillGone(number) => {
                out.byte(19);
                out.number(*number);
            }
        }
    }

    pub(super) fn take(from: &mut Take) -> Parsed<Fact> {
        Ok(match from.byte()? {
            1 => Fact::Subscribed(from.number()?, Subscribed::take(from)?),
            2 => Fact::Unsubscribed(from.number()?, from.text()?),
            3 => Fact::Presence(from.number()?, from.medium()?, from.number()?),
            4 => Fact::Ended(from.number()?),
            5 => Fact::Done(from.number()?, from.number()?, from.qos()?),
            6 => Fact::Queued(from.number()?, Queued::take(from)?),
            7 => Fact::Started(from.number()?, from.small()?, from.number()?),
            8 => Fact::Released(from.number()?, from.small()?),
            9 => Fact::Completed(from.number()?, from.small()?),
            10 => Fact::Received(from.number()?, from.small()?),
            11 => Fact::Forgotten(from.number()?, from.small()?),
            12 => {
                let id = from.id()?;
                let kind = from.byte()?;
                let count = from.medium()?;
                let progress = match kind {
                    0 => Progress::Recipients(count),
                    1 => Progress::Sent,
                    2 => Progress::Acknowledged,
                    3 => Progress::Expired(count),
                    4 => Progress::Dropped,
                    _ => return Err(Unreadable),
                };
                Fact::Receipt(id, progress, from.number()?)
            }
            13 => Fact::Relayed(from.number()?),
            // Of a time when lives were not counted.
            14 => Fact::OriginMark(from.small()?, Told { life: 0, id: from.number()? }),
            15 => Fact::Unretained(from.text()?),
            16 => Fact::Claimed(from.number()?),
            17 => {
                Fact::OriginMark(from.small()?, Told { life: from.number()?, id: from.number()? })
            }
            18 => Fact::Life(from.number()?),
            19 => Fact::WillGone(from.number()?),
            _ => return Err(Unreadable),
        })
    }
}

/// A receipt record: see [`Receipt`](crate::control::Receipt).
pub(super) fn put_receipt(receipt: &crate::control::Receipt, out: &mut Vec<u8>) {
    out.extend_from_slice(&receipt.id.to_be_bytes());
    out.bytes(receipt.topic.as_bytes());
    out.byte(receipt.qos | u8::from(receipt.device.is_some()) << 2);
    if let Some(device) = &receipt.device {
        out.bytes(device.as_bytes());
    }
    let counts =
        [receipt.recipients, receipt.sent, receipt.acknowledged, receipt.expired, receipt.dropped];
    counts.iter().for_each(|count| out.number(u64::from(*count)));
    out.number(receipt.accepted_at);
    for time in [receipt.sent_at, receipt.acknowledged_at, receipt.expired_at] {
        out.number(time.unwrap_or(0));
    }
    out.number(receipt.expires_at);
}

pub(super) fn take_receipt(record: Bytes) -> Parsed<crate::control::Receipt> {
    let mut from = Take::new(record);
    let id = from.id()?;
    let topic = from.text()?.into_string();
    let flags = from.byte()?;
    let device = if flags & 4 != 0 { Some(from.text()?.into_string()) } else { None };
    Ok(crate::control::Receipt {
        id,
        topic,
        device,
        qos: flags & 3,
        recipients: from.medium()?,
        sent: from.medium()?,
        acknowledged: from.medium()?,
        expired: from.medium()?,
        dropped: from.medium()?,
        accepted_at: from.number()?,
        sent_at: Some(from.number()?).filter(|at| *at != 0),
        acknowledged_at: Some(from.number()?).filter(|at| *at != 0),
        expired_at: Some(from.number()?).filter(|at| *at != 0),
        expires_at: from.number()?,
    })
}

/// For the fuzzer: whatever is read of any bytes is written as bytes that are read as the same.
#[doc(hidden)]
pub fn fuzz_records(bytes: &Bytes) {
    const SEQ: u64 = 7;
    let mut written = Vec::new();
    if let Ok(message) = MessageRecord::take(bytes.clone(), SEQ) {
        message.put_head(message.payload.len(), &mut written);
        written.extend_from_slice(&message.payload);
        assert_eq!(MessageRecord::take(std::mem::take(&mut written).into(), SEQ), Ok(message));
    }
    if let Ok(session) = SessionRecord::take(bytes.clone()) {
        session.put(&mut written);
        assert_eq!(SessionRecord::take(std::mem::take(&mut written).into()), Ok(session));
    }
    if let Ok(will) = WillRecord::take(bytes.clone()) {
        will.put(&mut written);
        assert_eq!(WillRecord::take(std::mem::take(&mut written).into()), Ok(will));
    }
    if let Ok(receipt) = take_receipt(bytes.clone()) {
        put_receipt(&receipt, &mut written);
        assert_eq!(take_receipt(std::mem::take(&mut written).into()), Ok(receipt));
    }
    if let Ok(mut recipients) = take_recipients(bytes.clone()) {
        recipients.sort_by_key(|recipient| recipient.session);
        let mut again = Vec::new();
        for list in RecipientLists::new(recipients.clone()) {
            again.extend(take_recipients(list.into()).expect("it was just written"));
        }
        assert_eq!(again, recipients);
    }
    let mut from = Take::new(bytes.clone());
    while let Ok(fact) = Fact::take(&mut from) {
        fact.put(&mut written);
        let again = Fact::take(&mut Take::new(std::mem::take(&mut written).into()));
        assert_eq!(again, Ok(fact));
    }
}

#[cfg(test)]
mod tests;
