//! Retained messages: one for each topic, on the core that is the topic's home, and what of them a
//! new subscription gets.
//!
//! A [`Search`] goes through the topics in order. What a session of its core gets at QoS 1 or 2 it
//! queues, to be read when its turn comes; what is to be sent itself, at QoS 0 or to another core,
//! has to be in memory, and the search waits wherever a message is on disk alone. Until it has
//! ended, the SUBACK that it belongs to is owed, so that searches are bounded by what clients may
//! be owed.
//!
//! ```text
//!   home of the session                                  any other core
//!   search ──► send, or queue                            search ──► RetainedFound, a page of them
//!     └ pause, while the client takes nothing more         └ RetainedMore: where it stopped
//!                ▲                                                │
//!                └──────── asks for the next page when there is room ┘
//! ```
//!
//! So whoever subscribes to `#` gets all there is, however much, at the pace at which it reads, and
//! little of it is in memory at any time.

use std::ops::Bound;
use std::rc::Rc;

use sextant_mqtt::{QoS, ReasonCode, topic};
use sextant_ring::core::ConnId;
use sextant_ring::slot::SlotId;

use super::message::{Delivery, Held, Incoming, Message, Publication, RetainedAsk};
use super::recall::{Loaded, READ_AHEAD, Reading, Waiter};
use super::records::{Fact, MessageRecord, Recipient, Subscribed};
use super::session::Subscriber;
use super::store::Gated;
use super::{Broker, Context, Then};
use crate::home::home;
use crate::meters::Dropped;

/// Somebody's look through the retained messages, for those that are sent rather than queued.
pub(super) struct Search {
    ask: RetainedAsk,
    /// A part of what it is owed for.
    ticket: Option<SlotId>,
    /// Where it goes on.
    from: Bound<Rc<str>>,
    /// The newest message when it began: who subscribes gets newer ones anyway.
    last: u64,
    /// Messages and bytes that another core may be given before it asks for more.
    page: (usize, usize),
}

/// What goes on when a client takes more.
pub(super) enum Paused {
    /// A search on this core.
    Search(SlotId),
    /// What another core is to be asked next.
    Ask(usize, RetainedAsk),
}

/// Messages of a page.
const PAGE_MESSAGES_MAX: usize = 64;

/// Searches of one connection that may wait for it to take more. Those beyond are given up: a
/// client that has so many names one filter again and again.
const PAUSED_MAX: usize = 4096;

impl Broker {
    /// Whether a message may be kept as its topic's.
    pub(super) fn check_retained(&mut self, incoming: &Incoming<'_>) -> Result<(), ReasonCode> {
        let before = self.retained.get(incoming.topic).map_or(0, |held| held.bytes as usize);
        let bytes = incoming.topic.len() + incoming.forward.len() + incoming.payload.len();
        if incoming.payload.is_empty()
            || self.retained_bytes - before + bytes <= self.settings.retained_bytes_max
        {
            Ok(())
        } else {
            self.meters.publish_refused(crate::meters::PublishRefused::NoRoom);
            Err(ReasonCode::QuotaExceeded)
        }
    }

    /// Keeps a message as its topic's, or forgets the one that is `[MQTT-3.3.1-6]`.
    pub(super) fn keep_retained(
        &mut self,
        incoming: &Incoming<'_>,
        held: Option<&Rc<Held>>,
        ticket: Option<SlotId>,
    ) {
        let before = match held.filter(|_| !incoming.payload.is_empty()) {
            Some(held) => {
                self.retained_bytes += held.bytes as usize;
                let topic = held.topic.clone().unwrap_or_else(|| incoming.topic.into());
                self.retained.insert(topic, Rc::clone(held))
            }
            None => {
                let before = self.retained.remove(incoming.topic);
                if before.is_some() {
                    self.store.fact(&Fact::Unretained(incoming.topic.into()));
                }
                // With nothing left to remove as well: that it went may not be on disk yet.
                if let Some(ticket) = ticket {
                    self.add_part(ticket);
                    self.store.gate(Gated::Part(ticket));
                }
                before
            }
        };
        if let Some(before) = before {
            self.retained_bytes -= before.bytes as usize;
            self.store.release(before);
        }
    }

    /// Forgets a retained message whose time has come, unless another took its place.
    pub(super) fn expire_retained(&mut self, held: &Rc<Held>) {
        let Some(topic) = &held.topic else { return };
        if self.retained.get(topic).is_none_or(|kept| !Rc::ptr_eq(kept, held)) {
            return;
        }
        if let Some(held) = self.retained.remove(topic) {
            self.retained_bytes -= held.bytes as usize;
            self.store.fact(&Fact::Unretained((&**topic).into()));
            self.store.release(held);
        }
    }

    /// Gets a new subscription the retained messages that it matches. Those for a session that is
    /// kept are on disk before its SUBACK: nobody asks for them again.
    pub(super) fn ask_retained(
        &mut self,
        cx: &mut Context,
        slot: SlotId,
        subscribed: &Subscribed,
        ticket: SlotId,
    ) {
        let Some(session) = self.sessions.get(slot) else { return };
        let ask = RetainedAsk {
            core: cx.core(),
            session: session.number,
            filter: (&*subscribed.filter).into(),
            qos: subscribed.qos,
            subscription_id: subscribed.subscription_id,
            ticket: Some(ticket.to_bits()),
            after: None,
            last: u64::MAX,
        };
        let wild = subscribed.filter.contains(['+', '#']);
        let keeper = home(&subscribed.filter, cx.cores());
        // [3.1.1: MQTT-3.3.1-6], [3.1.1: MQTT-3.1.2-7]
        for core in (0..cx.cores()).filter(|core| wild || *core == keeper) {
            self.add_part(ticket);
            if core == cx.core() {
                self.begin_search(cx, ask.clone(), Some(ticket));
            } else {
                cx.tell(core, Message::RetainedAsk(ask.clone()));
            }
        }
    }

    /// The retained messages that a filter matches, by topic, from one on.
    fn retained_from<'a>(
        &'a self,
        filter: &'a str,
        from: Bound<&'a str>,
        unix_ms: u64,
    ) -> impl Iterator<Item = (&'a Rc<str>, &'a Rc<Held>)> {
        // All topics that match begin with the filter's plain part.
        let plain = filter.find(['+', '#']).map_or(filter, |at| &filter[..at]);
        // "a/#" matches "a" as well.
        let plain = plain.strip_suffix('/').unwrap_or(plain);
        let from = match from {
            Bound::Unbounded => Bound::Included(plain),
            from => from,
        };
        self.retained
            .range::<str, _>((from, Bound::Unbounded))
            .take_while(move |(topic, _)| topic.starts_with(plain))
            .filter(move |(topic, held)| topic::matches(filter, topic) && !held.is_expired(unix_ms))
    }

    fn queue_retained(&mut self, cx: &mut Context, slot: SlotId, delivery: Delivery) {
        if let Some(session) = self.sessions.get(slot)
            && session.is_persistent()
        {
            self.store.fact(&Fact::Queued(session.number, delivery.queued()));
        }
        self.offer(cx, slot, delivery, None);
    }

    fn send_retained_once(
        &mut self,
        cx: &mut Context,
        slot: SlotId,
        incoming: &Incoming<'_>,
        ask: &RetainedAsk,
    ) {
        let subscriber = Subscriber {
            session: slot,
            subscription_id: ask.subscription_id,
            qos: QoS::AtMostOnce,
            no_local: false,
            retain_as_published: true,
        };
        let group = [(slot, subscriber)];
        let mut shared = super::encodings::Shared::new(incoming);
        let wanted = super::publish::Wanted::of(&group, incoming);
        self.send_once(cx, slot, &mut shared, &wanted, false);
    }

    /// Another core's session asks for what is retained here.
    pub(super) fn answer_retained(&mut self, cx: &mut Context, ask: &RetainedAsk) {
        let ticket = ask.ticket.map(|name| self.open_ticket(cx, Then::Core(ask.core, name)));
        self.begin_search(cx, ask.clone(), ticket);
    }

    fn begin_search(&mut self, cx: &mut Context, ask: RetainedAsk, ticket: Option<SlotId>) {
        let last = self.store.log.last().0.min(ask.last);
        let from = ask.after.as_deref().map_or(Bound::Unbounded, |at| Bound::Excluded(at.into()));
        // All cores give one at once.
        let page_bytes = self.settings.send_queue_bytes_max / (2 * cx.cores());
        let page = (PAGE_MESSAGES_MAX, page_bytes);
        match self.searches.insert(Search { ask, ticket, from, last, page }) {
            Ok(id) => self.search(cx, id),
            Err(_) => panic!("searches are bounded by what clients may be owed"),
        }
    }

    /// Goes on with a search, until it ends, or has to wait for a message or for its client.
    pub(super) fn search(&mut self, cx: &mut Context, id: SlotId) {
        while let Some(held) = self.next_found(cx, id) {
            if !self.may_give(cx, id, &held) {
                return self.store.release(held);
            }
            match self.load_found(cx, id, &held) {
                Ok(None) => self.queue_found(cx, id, &held),
                Ok(Some(Loaded::Here(record))) => self.give_found(cx, id, &record),
                Ok(Some(Loaded::Away)) => {
                    self.store.ask(&held, Some(Waiter::Search(id)), cx);
                    self.store.release(held);
                    return self.read_ahead(cx, id);
                }
                Err(_) => self.meters.dropped(Dropped::Unreadable),
            }
            if let (Some(search), Some(topic)) = (self.searches.get_mut(id), &held.topic) {
                search.from = Bound::Excluded(Rc::clone(topic));
                let (messages, bytes) = search.page;
                let left = bytes.saturating_sub(held.bytes as usize);
                search.page = (messages.saturating_sub(1), left);
            }
            self.store.release(held);
        }
        self.end_search(cx, id);
    }

    fn end_search(&mut self, cx: &mut Context, id: SlotId) {
        if let Some(ticket) = self.searches.remove(id).and_then(|search| search.ticket) {
            self.part_done(cx, ticket, 0, None);
        }
    }

    /// A message to be sent; `None` if it is to be queued instead.
    fn load_found(
        &self,
        cx: &Context,
        id: SlotId,
        held: &Held,
    ) -> Result<Option<Loaded>, super::store::LoadError> {
        let queued = self.searches.get(id).is_some_and(|Search { ask, .. }| {
            ask.core == cx.core() && ask.qos.min(held.qos) > QoS::AtMostOnce
        });
        if queued { Ok(None) } else { self.store.load(held).map(Some) }
    }

    /// Whether a search may give what it found; if not, it goes on when there is room again.
    fn may_give(&mut self, cx: &mut Context, id: SlotId, held: &Held) -> bool {
        let Some(Search { ask, page, from, last, .. }) = self.searches.get(id) else {
            return false;
        };
        if ask.core != cx.core() {
            let (messages, bytes) = *page;
            if messages > 0 && bytes > 0 {
                return true;
            }
            let after = match from {
                Bound::Excluded(topic) | Bound::Included(topic) => Some((&**topic).into()),
                Bound::Unbounded => None,
            };
            let ask = RetainedAsk { after, last: *last, ..ask.clone() };
            // Its asker is answered when all is given.
            if let Some(ticket) = self.searches.remove(id).and_then(|search| search.ticket) {
                self.tickets.remove(ticket);
            }
            cx.tell(ask.core, Message::RetainedMore { core: cx.core(), ask });
            return false;
        }
        let (session, qos) = (ask.session, ask.qos.min(held.qos));
        let conn =
            self.sessions.of_number(session).and_then(|slot| self.takes_found(cx, slot, qos));
        match conn {
            None => true,
            Some(conn) => {
                self.pause_search(cx, conn, Paused::Search(id));
                false
            }
        }
    }

    /// The connection of a session, if that takes no more retained messages for now.
    fn takes_found(&self, cx: &Context, slot: SlotId, qos: QoS) -> Option<ConnId> {
        let session = self.sessions.get(slot)?;
        let conn = session.conn?;
        // Half of its queue is for what is published meanwhile.
        let queue_is_full = session.queue.len() >= self.settings.queue_messages_max.div_ceil(2)
            || session.queue.bytes() >= self.settings.queue_bytes_max / 2;
        let full = match qos {
            QoS::AtMostOnce => self.is_behind(cx, conn, self.refill_bytes_max()),
            _ => queue_is_full,
        };
        full.then_some(conn)
    }

    fn pause_search(&mut self, cx: &mut Context, conn: ConnId, paused: Paused) {
        let Some(held) = self.conn(conn) else { return };
        let searches = &mut held.reading_or_new().searches;
        if searches.len() >= PAUSED_MAX {
            self.meters.dropped(Dropped::QueueFull);
            return self.drop_searches(cx, vec![paused]);
        }
        searches.push(paused);
        if cx.unsent(conn) > 0 {
            self.note_blocked(cx, conn);
        }
    }

    /// A session's client may take more: what waits for that goes on.
    pub(super) fn go_on_searching(&mut self, cx: &mut Context, slot: SlotId) {
        let Some(conn) = self.sessions.get(slot).and_then(|session| session.conn) else { return };
        let reading = self.conn(conn).and_then(|held| held.reading_mut());
        let Some(reading) = reading.filter(|reading| !reading.searches.is_empty()) else { return };
        for paused in std::mem::take(&mut reading.searches) {
            match paused {
                Paused::Search(id) => self.search(cx, id),
                Paused::Ask(core, ask) => self.ask_for_more(cx, core, ask),
            }
        }
        if let Some(held) = self.conn(conn)
            && held.reading().is_some_and(Reading::is_idle)
        {
            held.read_nothing();
        }
    }

    /// Another core has more retained messages for a session of this one.
    pub(super) fn ask_for_more(&mut self, cx: &mut Context, core: usize, ask: RetainedAsk) {
        let slot = self.sessions.of_number(ask.session);
        let session = slot.and_then(|slot| self.sessions.get(slot));
        let Some(slot) = slot.filter(|_| session.is_some_and(|session| session.conn.is_some()))
        else {
            return self.drop_searches(cx, vec![Paused::Ask(core, ask)]);
        };
        // What comes may be of any QoS up to that.
        let full =
            [QoS::AtMostOnce, ask.qos].into_iter().find_map(|qos| self.takes_found(cx, slot, qos));
        match full {
            None => cx.tell(core, Message::RetainedAsk(ask)),
            Some(conn) => self.pause_search(cx, conn, Paused::Ask(core, ask)),
        }
    }

    /// Gives up what a connection would have been given.
    pub(super) fn drop_searches(&mut self, cx: &mut Context, all: Vec<Paused>) {
        for paused in all {
            match paused {
                Paused::Search(id) => self.end_search(cx, id),
                Paused::Ask(_, ask) => {
                    if let Some(ticket) = ask.ticket {
                        self.part_done(cx, SlotId::from_bits(ticket), 0, None);
                    }
                }
            }
        }
    }

    /// What a search finds next, from where it is on.
    fn found<'a>(&'a self, cx: &Context, search: &'a Search) -> impl Iterator<Item = &'a Rc<Held>> {
        let Search { ask, from, last, .. } = search;
        let from = match from {
            Bound::Included(topic) => Bound::Included(&**topic),
            Bound::Excluded(topic) => Bound::Excluded(&**topic),
            Bound::Unbounded => Bound::Unbounded,
        };
        self.retained_from(&ask.filter, from, cx.clock().unix_ms)
            .map(|(_, held)| held)
            .filter(move |held| held.id <= *last)
    }

    fn next_found(&self, cx: &Context, id: SlotId) -> Option<Rc<Held>> {
        let search = self.searches.get(id)?;
        if search.ask.core == cx.core() {
            // It may have ended meanwhile, or its client have gone: then it was not told that it is
            // subscribed, and asks again.
            let slot = self.sessions.of_number(search.ask.session)?;
            self.sessions.get(slot)?.conn?;
        }
        self.found(cx, search).next().cloned()
    }

    fn read_ahead(&mut self, cx: &mut Context, id: SlotId) {
        let Some(search) = self.searches.get(id) else { return };
        let next: Vec<Rc<Held>> = self.found(cx, search).take(4 * READ_AHEAD).cloned().collect();
        for held in next {
            self.store.ask(&held, None, cx);
            self.store.release(held);
        }
    }

    fn queue_found(&mut self, cx: &mut Context, id: SlotId, held: &Rc<Held>) {
        let Some(Search { ask, .. }) = self.searches.get(id) else { return };
        let delivery = retained_delivery(Rc::clone(held), ask.qos.min(held.qos), ask);
        if let Some(slot) = self.sessions.of_number(ask.session) {
            self.queue_retained(cx, slot, delivery);
        }
    }

    fn give_found(&mut self, cx: &mut Context, id: SlotId, record: &MessageRecord) {
        let Some(Search { ask, .. }) = self.searches.get(id) else { return };
        let ask = ask.clone();
        let incoming = retained_incoming(record);
        if ask.core != cx.core() {
            let publication = Publication::new(&incoming, None);
            return cx.tell(ask.core, Message::RetainedFound { ask, publication });
        }
        if let Some(slot) = self.sessions.of_number(ask.session) {
            self.send_retained_once(cx, slot, &incoming, &ask);
        }
    }

    /// Another core found a retained message for a session of this one.
    pub(super) fn retained_found(
        &mut self,
        cx: &mut Context,
        ask: &RetainedAsk,
        publication: &Publication,
    ) {
        let Some(slot) = self.sessions.of_number(ask.session) else { return };
        let incoming = publication.incoming();
        let qos = ask.qos.min(incoming.qos);
        if qos == QoS::AtMostOnce {
            return self.send_retained_once(cx, slot, &incoming, ask);
        }
        let Some(session) = self.sessions.get(slot) else { return };
        let mut record = MessageRecord {
            topic: incoming.topic.into(),
            forward: bytes::Bytes::copy_from_slice(incoming.forward),
            expires_at: incoming.expires_at,
            qos: incoming.qos as u8,
            retain: true,
            ..MessageRecord::default()
        };
        if session.is_persistent() {
            record.recipients.push(Recipient {
                session: session.number,
                qos,
                retain: true,
                tracked: false,
                subscription_ids: subscription_ids(ask),
            });
        }
        match self.store.keep(record, incoming.payload, cx.clock().unix_ms) {
            Ok(held) => {
                self.arm_held(cx, &held);
                if let Some(ticket) = ask.ticket.map(SlotId::from_bits) {
                    self.add_part(ticket);
                    self.store.gate(Gated::Part(ticket));
                }
                self.offer(cx, slot, retained_delivery(held, qos, ask), Some(&incoming));
            }
            Err(error) => {
                let _ = self.refused_by(error);
                self.meters.dropped(Dropped::QueueFull);
            }
        }
    }
}

fn retained_incoming(record: &MessageRecord) -> Incoming<'_> {
    let qos = QoS::from_u8(record.qos).unwrap_or(QoS::AtMostOnce);
    // [3.1.1: MQTT-3.3.1-8]: in answer to a subscription it is marked.
    Incoming { retain: true, ..Incoming::of(record, qos) }
}

fn retained_delivery(held: Rc<Held>, qos: QoS, ask: &RetainedAsk) -> Delivery {
    let subscription_ids = subscription_ids(ask);
    Delivery { held, qos, retain: true, tracked: false, device: 0, subscription_ids }
}

fn subscription_ids(ask: &RetainedAsk) -> Box<[u32]> {
    Some(ask.subscription_id).filter(|id| *id != 0).into_iter().collect()
}
