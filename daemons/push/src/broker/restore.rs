//! What a core finds in its log when it starts: the records, replayed into sessions, messages and
//! receipts, and these put back into the broker.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::path::Path;
use std::rc::Rc;

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use sextant_mqtt::{Inflight, PacketId, QoS};
use sextant_ring::disk::Disk;
use sextant_segment::{Log, OpenError, Options, Position, ReadError, Record, Recovery, Seq};
use tracing::{error, info, warn};

use super::message::{Delivery, Held, Incoming, Publication};
use super::receipts::apply;
use super::records::{
    self, Exchange, Fact, MessageRecord, Origin, Publisher, Queued, Recipient, SessionRecord, Take,
    Told, Unreadable, WillRecord, take_recipients,
};
use super::relays::Relayed;
use super::session::{Owner, Session};
use super::store::Gated;
use super::{Broker, Context, Then};
use crate::control::Receipt;

type Map<K, V> = HashMap<K, V, RandomState>;

/// Why a core cannot start from its log.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RestoreError {
    /// See [`OpenError`].
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A record that was there a moment ago.
    #[error("the log cannot be read: {0}")]
    Read(#[from] ReadError),
    /// A record of a later version.
    #[error("record {seq}: {source}")]
    Record {
        /// Which record.
        seq: Seq,
        /// What is wrong.
        source: Unreadable,
    },
}

/// A message as its record says it, and where that is.
struct Found {
    position: Position,
    stored_bytes: u32,
    bytes: u32,
    expires_at: u64,
    receipt: Option<(u16, u128)>,
    waits_for: Option<Box<str>>,
    retained: bool,
    qos: QoS,
    topic: Option<Rc<str>>,
    /// It was still to be relayed, for this publisher.
    relayed: Option<Publisher>,
}

#[derive(Default)]
pub(super) struct State {
    messages: Map<u64, Found>,
    sessions: Map<u64, (SessionRecord, Position, u32)>,
    receipts: Map<u128, (Receipt, Position, u32)>,
    wills: Map<u64, (WillRecord, (Position, u32))>,
    retained: Map<Box<str>, u64>,
    waiting: Map<u64, Box<str>>,
    origins: Vec<(u16, Told)>,
    /// The last one that had begun.
    life: u64,
    next_number: u64,
    /// Messages that are still to be relayed, oldest first.
    to_relay: Vec<MessageRecord>,
    /// Whom the message that follows is for, by record.
    listed: VecDeque<Vec<Recipient>>,
}

/// A core's log, and what was in it.
pub struct Restored {
    pub(super) log: Log,
    pub(super) state: State,
}

/// Opens a core's log and reads it.
///
/// # Errors
/// See [`RestoreError`]. A damaged log is none: it opens read-only, and says so.
pub fn restore(disk: &dyn Disk, dir: &Path, options: Options) -> Result<Restored, RestoreError> {
    let (mut log, recovery) = Log::open(disk, dir, options)?;
    tell(dir, &recovery, &log);
    let mut state = State { next_number: 1, ..State::default() };
    let mut cursor = log.records();
    let mut dead = Vec::new();
    while let Some(record) = cursor.next(&log) {
        let record = match record {
            Ok(record) => record,
            // What lies behind the damage of a read-only log is not served.
            Err(error) if log.read_only().is_some() => {
                error!(%error, "the rest of a damaged log is not read");
                break;
            }
            Err(error) => return Err(error.into()),
        };
        state
            .replay(&record, &mut dead)
            .map_err(|source| RestoreError::Record { seq: record.seq, source })?;
    }
    for (position, bytes) in dead {
        log.retire(position, bytes);
    }
    state.load_relayed(&log)?;
    Ok(Restored { log, state })
}

fn tell(dir: &Path, recovery: &Recovery, log: &Log) {
    info!(
        dir = %dir.display(),
        records = recovery.records,
        segments = recovery.segments,
        torn_bytes = recovery.torn_bytes,
        "log opened"
    );
    if let Some(reason) = log.read_only() {
        error!(dir = %dir.display(), %reason, "the log is damaged: it is read, not written");
    }
}

impl State {
    /// Reads what is still to be relayed: that is few, and goes out in order, so it is read before
    /// anybody is served.
    fn load_relayed(&mut self, log: &Log) -> Result<(), RestoreError> {
        let relayed = self.messages.iter().filter(|(_, found)| found.relayed.is_some());
        for (id, found) in relayed {
            let record = log.load(found.position)?;
            let message = MessageRecord::take(record.payload, *id)
                .map_err(|source| RestoreError::Record { seq: record.seq, source })?;
            self.to_relay.push(message);
        }
        self.to_relay.sort_unstable_by_key(|message| message.id);
        Ok(())
    }

    /// Takes one record in. Records that are needed no longer are added to `dead`.
    fn replay(
        &mut self,
        record: &Record,
        dead: &mut Vec<(Position, u32)>,
    ) -> Result<(), Unreadable> {
        let (position, stored_bytes) = (record.position, record.stored_bytes());
        let listed = match record.kind {
            records::RECIPIENTS => VecDeque::new(),
            _ => std::mem::take(&mut self.listed),
        };
        match record.kind {
            records::RECIPIENTS => {
                dead.push((position, stored_bytes));
                self.listed.push_back(take_recipients(record.payload.clone())?);
            }
            records::MESSAGE => {
                let mut message = MessageRecord::take(record.payload.clone(), record.seq.0)?;
                // Before them may be such as a crash left without their message.
                let others = (listed.len() as u64).saturating_sub(message.listed) as usize;
                message.recipients.extend(listed.into_iter().skip(others).flatten());
                self.replay_message(message, position, stored_bytes, dead);
            }
            records::SESSION => {
                let session = SessionRecord::take(record.payload.clone())?;
                self.next_number = self.next_number.max(session.number + 1);
                let number = session.number;
                let before = self.sessions.insert(number, (session, position, stored_bytes));
                dead.extend(before.map(|(_, position, bytes)| (position, bytes)));
            }
            records::WILL => {
                let will = WillRecord::take(record.payload.clone())?;
                self.next_number = self.next_number.max(will.number + 1);
                let before = self.wills.insert(will.number, (will, (position, stored_bytes)));
                dead.extend(before.map(|(_, place)| place));
            }
            records::RECEIPT => {
                let receipt = records::take_receipt(record.payload.clone())?;
                let id = receipt.id;
                let before = self.receipts.insert(id, (receipt, position, stored_bytes));
                dead.extend(before.map(|(_, position, bytes)| (position, bytes)));
            }
            records::FACTS => {
                dead.push((position, stored_bytes));
                let mut from = Take::new(record.payload.clone());
                while !from.is_empty() {
                    self.replay_fact(Fact::take(&mut from)?, dead);
                }
            }
            _ => return Err(Unreadable),
        }
        Ok(())
    }

    fn replay_message(
        &mut self,
        message: MessageRecord,
        position: Position,
        stored_bytes: u32,
        dead: &mut Vec<(Position, u32)>,
    ) {
        let id = message.id;
        let bytes = message.topic.len() + message.forward.len() + message.payload.len();
        let topic = message.topic_to_remember();
        for recipient in message.recipients {
            if let Some((session, ..)) = self.sessions.get_mut(&recipient.session) {
                session.queue.push(recipient.queued(Some(id)));
            }
        }
        if let Some(number) = message.publisher.and_then(Publisher::will) {
            dead.extend(self.wills.remove(&number).map(|(_, place)| place));
        } else if let Some(publisher) = message.publisher
            && let Some((session, ..)) = self.sessions.get_mut(&publisher.session)
            && !session.received.contains(&publisher.packet_id)
        {
            session.received.push(publisher.packet_id);
        }
        if let Some(origin) = message.origin {
            self.origins.push((origin.core, origin.told));
        }
        if message.retained && message.payload.is_empty() {
            self.retained.remove(&message.topic);
        } else if message.retained {
            self.retained.insert(message.topic, id);
        }
        if let Some(device) = &message.waits_for {
            self.waiting.insert(id, device.clone());
        }
        let found = Found {
            position,
            stored_bytes,
            bytes: bytes as u32,
            expires_at: message.expires_at,
            receipt: message.receipt,
            waits_for: message.waits_for,
            retained: message.retained,
            qos: QoS::from_u8(message.qos).unwrap_or(QoS::AtMostOnce),
            topic,
            relayed: message.publisher.filter(|publisher| publisher.relayed.is_some()),
        };
        let before = self.messages.insert(id, found);
        dead.extend(before.map(|found| (found.position, found.stored_bytes)));
    }

    fn session(&mut self, number: u64) -> Option<&mut SessionRecord> {
        self.sessions.get_mut(&number).map(|(session, ..)| session)
    }

    fn replay_fact(&mut self, fact: Fact, dead: &mut Vec<(Position, u32)>) {
        match fact {
            Fact::Subscribed(number, subscribed) => {
                if let Some(session) = self.session(number) {
                    session.subscriptions.retain(|held| held.filter != subscribed.filter);
                    session.subscriptions.push(subscribed);
                }
            }
            Fact::Unsubscribed(number, filter) => {
                if let Some(session) = self.session(number) {
                    session.subscriptions.retain(|held| *held.filter != *filter);
                }
            }
            Fact::Presence(number, expiry_s, left_at) => {
                if let Some(session) = self.session(number) {
                    session.expiry_s = expiry_s;
                    session.left_at = left_at;
                }
            }
            Fact::Ended(number) => {
                if let Some((_, position, bytes)) = self.sessions.remove(&number) {
                    dead.push((position, bytes));
                }
            }
            Fact::Done(number, message, qos) => {
                if let Some(session) = self.session(number) {
                    take_queued(&mut session.queue, message, qos);
                }
            }
            Fact::Queued(number, queued) => {
                if let Some(session) = self.session(number) {
                    session.queue.push(queued);
                }
            }
            Fact::Started(number, packet_id, message) => {
                if let Some(session) = self.session(number) {
                    let queued = take_queued(&mut session.queue, message, QoS::ExactlyOnce)
                        .or_else(|| take_exchanged(&mut session.exchanges, message));
                    let queued = queued.map(Exchange::Publish);
                    session.exchanges.extend(queued.map(|publish| (packet_id, publish)));
                }
            }
            Fact::Released(number, packet_id) => {
                if let Some(session) = self.session(number) {
                    let held = session.exchanges.iter_mut().find(|held| held.0 == packet_id);
                    match held {
                        Some(exchange) => exchange.1 = Exchange::Release,
                        None => session.exchanges.push((packet_id, Exchange::Release)),
                    }
                }
            }
            Fact::Completed(number, packet_id) => {
                if let Some(session) = self.session(number) {
                    session.exchanges.retain(|held| held.0 != packet_id);
                }
            }
            Fact::Received(number, packet_id) => {
                if let Some(session) = self.session(number)
                    && !session.received.contains(&packet_id)
                {
                    session.received.push(packet_id);
                }
            }
            Fact::Forgotten(number, packet_id) => {
                if let Some(session) = self.session(number) {
                    session.received.retain(|held| *held != packet_id);
                }
            }
            Fact::Receipt(id, progress, at) => {
                if let Some((receipt, ..)) = self.receipts.get_mut(&id) {
                    apply(receipt, progress, at);
                }
            }
            Fact::Relayed(message) => {
                if let Some(found) = self.messages.get_mut(&message) {
                    found.relayed = None;
                }
            }
            Fact::OriginMark(core, told) => self.origins.push((core, told)),
            Fact::Life(life) => self.life = self.life.max(life),
            Fact::WillGone(number) => {
                dead.extend(self.wills.remove(&number).map(|(_, place)| place));
            }
            Fact::Unretained(topic) => {
                self.retained.remove(&topic);
            }
            Fact::Claimed(message) => {
                self.waiting.remove(&message);
            }
        }
    }
}

/// Takes the first copy of a message at a QoS out of a queue; it is nearly always the front one.
fn take_queued(queue: &mut Vec<Queued>, message: u64, qos: QoS) -> Option<Queued> {
    let at = queue.iter().position(|held| held.message == message && held.qos == qos)?;
    Some(queue.remove(at))
}

/// Takes a message out of the exchange that it was in. It is started again when more were in flight
/// than, after a restart, may be.
fn take_exchanged(exchanges: &mut Vec<(u16, Exchange)>, message: u64) -> Option<Queued> {
    let holds =
        |held: &Exchange| matches!(held, Exchange::Publish(held) if held.message == message);
    let at = exchanges.iter().position(|(_, held)| holds(held))?;
    match exchanges.remove(at).1 {
        Exchange::Publish(queued) => Some(queued),
        Exchange::Release => None,
    }
}

impl Broker {
    /// Puts back what was found.
    pub(super) fn load_state(&mut self, state: State) {
        let State { messages, sessions, receipts, wills, retained, waiting, origins, .. } = state;
        self.next_number = state.next_number;
        self.to_relay = state.to_relay;
        self.life = state.life + 1;
        for (core, told) in origins {
            // A core that is no more relays nothing.
            if let Some(mark) = self.origins.get_mut(usize::from(core)) {
                *mark = told.max(*mark);
            }
        }
        let relayed: Vec<(u64, Publisher)> = messages
            .iter()
            .filter_map(|(id, found)| found.relayed.map(|publisher| (*id, publisher)))
            .collect();
        let mut messages: Vec<(u64, Found)> = messages.into_iter().collect();
        messages.sort_unstable_by_key(|(id, _)| *id);
        let held: Vec<Rc<Held>> =
            messages.into_iter().map(|(id, found)| self.store.restore(found.held(id))).collect();
        let mut sessions: Vec<_> = sessions.into_values().collect();
        sessions.sort_unstable_by_key(|(session, ..)| session.number);
        for (record, position, bytes) in sessions {
            self.load_session(record, (position, bytes));
        }
        self.load_wills(wills.into_values().collect());
        for (topic, id) in retained {
            if let Some(held) = self.store.find(id).cloned() {
                self.retained_bytes += held.bytes as usize;
                let topic = held.topic.clone().unwrap_or_else(|| topic.into());
                self.retained.insert(topic, held);
            }
        }
        let mut waiting: Vec<_> = waiting.into_iter().collect();
        waiting.sort_unstable();
        for (id, device) in waiting {
            if let Some(held) = self.store.find(id).cloned() {
                self.waiting.entry(device).or_default().push_back(held);
            }
        }
        for (id, publisher) in relayed {
            if let Some(held) = self.store.find(id).cloned() {
                self.relays.insert(id, held, publisher);
            }
        }
        let mut receipts: Vec<_> = receipts.into_values().collect();
        receipts.sort_unstable_by_key(|(receipt, ..)| (receipt.accepted_at, receipt.id));
        for (receipt, position, bytes) in receipts {
            self.receipts.insert(receipt, (position, bytes), &mut self.store);
        }
        // What nobody took a share of is dead.
        held.into_iter().for_each(|held| self.store.release(held));
    }

    fn load_session(&mut self, record: SessionRecord, place: (Position, u32)) {
        let mut session = Session::new(
            record.client_id,
            Owner::Named(record.user),
            record.number,
            self.settings.session,
        );
        session.expiry_s = record.expiry_s;
        session.since = record.left_at;
        session.record = Some(place);
        session.subscriptions = record.subscriptions.into();
        for packet_id in record.received.into_iter().filter_map(PacketId::new) {
            let _ = session.flight.restore_received(packet_id);
        }
        let mut queue = Vec::new();
        for (packet_id, exchange) in record.exchanges {
            let Some(packet_id) = PacketId::new(packet_id) else { continue };
            let inflight = match exchange {
                Exchange::Release => Inflight::AwaitPubcomp,
                Exchange::Publish(queued) => match self.delivery(queued) {
                    Some(delivery) => Inflight::AwaitPubrec(delivery),
                    None => continue,
                },
            };
            if let Err(inflight) = session.flight.restore_inflight(packet_id, inflight) {
                warn!(client = &*session.client_id, "a session has more in flight than it may");
                if let Inflight::AwaitPubrec(delivery) = inflight {
                    queue.push(delivery);
                }
            }
        }
        queue.extend(record.queue.into_iter().filter_map(|queued| self.delivery(queued)));
        queue.into_iter().for_each(|delivery| session.push(delivery));
        self.sessions.insert(session);
    }

    fn delivery(&self, queued: Queued) -> Option<Delivery> {
        let Queued { message, qos, retain, tracked, subscription_ids } = queued;
        let Some(held) = self.store.find(message).cloned() else {
            error!(message, "a queued message is not in the log");
            return None;
        };
        let (qos, device) = (qos.max(QoS::AtLeastOnce), 0);
        Some(Delivery { held, qos, retain, tracked, device, subscription_ids })
    }

    /// With the loop running: filters are announced, timers armed, what was interrupted goes on.
    pub(super) fn start_restored(&mut self, cx: &mut Context) {
        self.store.begin_life(self.life);
        let unix_ms = cx.clock().unix_ms;
        let grace_ms = self.settings.will_grace.as_millis() as u64;
        self.start_wills(cx);
        let slots: Vec<_> = self.sessions.iter().map(|(slot, _)| slot).collect();
        for slot in slots {
            let Some(session) = self.sessions.get_mut(slot) else { continue };
            // One that was connected when the daemon ended has left now.
            let was_connected = session.since == 0;
            if was_connected {
                session.since = unix_ms;
            }
            if let Some(will) = &mut session.will {
                will.not_before = unix_ms + grace_ms;
            }
            let (number, expiry_s) = (session.number, session.expiry_s);
            for (at, mut subscribed) in
                session.subscriptions.clone().into_vec().into_iter().enumerate()
            {
                subscribed.filter = self.filters.name(&subscribed.filter);
                self.hold_filter(cx, slot, &subscribed, None);
                if let Some(session) = self.sessions.get_mut(slot) {
                    session.subscriptions.replace(at, subscribed);
                }
            }
            if was_connected {
                self.store.fact(&Fact::Presence(number, expiry_s, unix_ms));
            }
            self.arm_session(cx, slot);
        }
        for held in self.store.all_held() {
            // One whose time came while the daemon was down is due at once.
            self.arm_held(cx, &held);
            self.store.release(held);
        }
        // In their order: a core that has one has all before it.
        for message in std::mem::take(&mut self.to_relay) {
            self.relay_again(cx, &message);
        }
    }

    /// Asks the other cores again for a message that may not have reached them all.
    fn relay_again(&mut self, cx: &mut Context, message: &MessageRecord) {
        let Some(Relayed { publisher, .. }) = self.relays.get(message.id) else { return };
        let Some(life) = publisher.relayed else { return };
        let qos = QoS::from_u8(message.qos).unwrap_or(QoS::ExactlyOnce);
        let (retain, shares) = (message.retain, &*message.shares);
        let incoming = Incoming { retain, shares, ..Incoming::of(message, qos) };
        let told = Told { life, id: message.id };
        let origin = Origin { core: cx.core() as u16, told };
        let publication = Publication::new(&incoming, Some(origin));
        let ticket = self.open_ticket(cx, Then::Relayed(message.id));
        self.tell_all(cx, &publication, ticket);
        self.store.gate(Gated::Part(ticket));
    }
}

impl Found {
    fn held(self, id: u64) -> Held {
        Held {
            id,
            position: Cell::new(self.position),
            stored_bytes: Cell::new(self.stored_bytes),
            bytes: self.bytes,
            expires_at: self.expires_at,
            qos: self.qos,
            topic: self.topic,
            timer: Cell::new(None),
            expired: Cell::new(false),
            queued_in: RefCell::default(),
            receipt: self.receipt,
            waits_for: self.waits_for,
            retained: self.retained,
            pushed: None,
        }
    }
}
