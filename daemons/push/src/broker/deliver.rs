//! From a session's queue to its connection, and the acknowledgements back.
//!
//! A session gets its QoS 1 and 2 messages in order: what is in flight from before first, then
//! the queue, as far as the client's window and its connection have room. QoS 0 goes to whoever
//! is connected and keeps up.

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use sextant_mqtt::{
    Ack, Delivery as Wire, ForwardProperties, Inflight, PacketId, Puback, Pubcomp, PublishHead,
    Pubrec, QoS, ReasonCode, Released, SubscriptionIds,
};
use sextant_ring::core::ConnId;
use sextant_ring::slot::SlotId;

use super::aliases::Naming;
use super::conn::{Answer, Stage};
use super::devices::push_topic;
use super::encodings::{Shared, seconds_left, subscription_ids};
use super::message::{Delivery, Held, Incoming, Message};
use super::publish::Wanted;
use super::recall::{Loaded, Part, READ_AHEAD};
use super::records::{Fact, MessageRecord, Progress};
use super::store::Gated;
use super::trace::Sent;
use super::transport::{self, framing};
use super::{Broker, Context, Then, timer};
use crate::meters::{Closed, Dropped};

/// Up to here a payload is copied behind its head rather than sent as a run of its own.
const COPY_MAX: usize = 2048;

impl Broker {
    /// Sends a QoS 0 message, if the client is connected; behind those that wait for it.
    pub(super) fn send_once(
        &mut self,
        cx: &mut Context,
        slot: SlotId,
        shared: &mut Shared<'_>,
        wanted: &Wanted<'_>,
        tracked: bool,
    ) {
        // [MQTT-4.3.1-1]
        let Some(conn) = self.sessions.get(slot).and_then(|session| session.conn) else {
            return self.count(
                cx,
                shared.incoming().receipt.filter(|_| tracked),
                Progress::Dropped,
            );
        };
        let unix_ms = cx.clock().unix_ms;
        let full = cx.unsent(conn) >= self.settings.send_queue_bytes_max;
        let Some(held) = self.conns.get_mut(conn.index()).and_then(Option::as_mut) else {
            return;
        };
        if full || held.holds_once() {
            return self.queue_once(cx, conn, shared, wanted, tracked);
        }
        let framing = framing(held.transport());
        let Stage::Online { link, .. } = &mut held.stage else { return };
        let sent = if wanted.is_plain() {
            let (version, retain) = (link.version(), wanted.retain);
            let naming = shared.naming(link, retain);
            match shared.packet(cx, &mut self.scratch, version, retain, framing, naming) {
                Some(packet) if packet.packet_bytes <= link.peer_packet_bytes_max() as usize => {
                    let (bytes, transport) = (packet.packet_bytes, held.transport_mut());
                    let sent = transport::send_shared(cx, conn, transport, &packet.sent).is_ok();
                    if let Stage::Online { link, .. } = &mut held.stage
                        && sent
                    {
                        naming.note(link);
                    }
                    sent.then_some(bytes)
                }
                _ => None,
            }
        } else {
            let ids = subscription_ids(&wanted.subscription_ids());
            let head = PublishHead {
                subscription_ids: SubscriptionIds::new(&ids),
                ..shared.head(wanted.retain, unix_ms)
            };
            self.scratch.clear();
            let encoded = link.publish_head(&head, &mut self.scratch).ok();
            let bytes = self.scratch.len() + shared.incoming().payload.len();
            let payload = Some(shared.payload());
            let transport = held.transport_mut();
            encoded
                .and_then(|()| {
                    transport::send(cx, conn, transport, &mut self.scratch, payload).ok()
                })
                .map(|()| bytes)
        };
        let receipt = shared.incoming().receipt.filter(|_| tracked);
        if let Some(bytes) = sent {
            if self.is_traced(conn) {
                let Incoming { topic, payload, .. } = *shared.incoming();
                let (qos, retain, id) = (0, wanted.retain, None);
                self.trace_publish(cx, conn, &Sent { topic, payload, qos, retain, id, bytes });
            }
            self.count_sent(conn, 1, bytes);
            self.meters.core.inc(self.meters.names.delivered[0]);
            self.count(cx, receipt, Progress::Sent);
        } else {
            self.meters.dropped(Dropped::TooLarge);
            self.count(cx, receipt, Progress::Dropped);
        }
    }

    /// Gives a session a QoS 1 or 2 message: in flight if there is room, else in its queue.
    /// `hot` is the message itself, while it is at hand.
    pub(super) fn offer(
        &mut self,
        cx: &mut Context,
        slot: SlotId,
        delivery: Delivery,
        hot: Option<&Incoming<'_>>,
    ) {
        let (messages_max, bytes_max) =
            (self.settings.queue_messages_max, self.settings.queue_bytes_max);
        let Some(session) = self.sessions.get_mut(slot) else {
            return self.finish(cx, slot, delivery, Some(Dropped::SessionEnded));
        };
        // [MQTT-4.6.0-5]: none overtakes what is queued.
        let next = session.queue.is_empty()
            && session.flight.has_room()
            && self.takes_more(cx, slot)
            && !self.awaits_resend(slot);
        if next && let Some(hot) = hot {
            let payload = delivery.held.pushed.as_ref().map(|it| it.record.payload.clone());
            return self.start(cx, slot, delivery, Some((hot, payload)));
        }
        let Some(session) = self.sessions.get_mut(slot) else { return };
        let full = session.queue.len() >= messages_max
            || session.queue.bytes() + delivery.held.bytes as usize > bytes_max;
        if full && !next {
            return self.finish(cx, slot, delivery, Some(Dropped::QueueFull));
        }
        session.push(delivery);
        if next {
            self.pump(cx, slot);
        }
    }

    /// Whether a session has a connection that keeps up.
    fn takes_more(&mut self, cx: &mut Context, slot: SlotId) -> bool {
        let Some(conn) = self.sessions.get(slot).and_then(|session| session.conn) else {
            return false;
        };
        let full = cx.unsent(conn) >= self.settings.send_queue_bytes_max;
        if full {
            self.note_blocked(cx, conn);
        }
        !full
    }

    pub(super) fn note_blocked(&mut self, cx: &mut Context, conn: ConnId) {
        let now = cx.now();
        let Some(held) = self.conn(conn) else { return };
        let blocked = &mut held.busy().blocked;
        if blocked.is_none() {
            *blocked = Some(now);
            self.blocked.push(conn);
            cx.tell_drained(conn);
        }
    }

    /// A connection that took nothing has taken something.
    pub(super) fn drained(&mut self, cx: &mut Context, conn: ConnId) {
        let Some(held) = self.conn(conn) else { return };
        if let Some(busy) = &mut held.busy {
            busy.blocked = None;
        }
        held.rest();
        if let Stage::Online { session, .. } = held.stage {
            self.send_waiting(cx, conn, session);
            self.send_later(cx, conn, session);
            self.resend(cx, session);
        }
    }

    /// Sends again what was in flight when the last connection ended, as far as this one takes it
    /// and it is in memory, then goes on. What QoS 2 sends again waits until the disk has what was
    /// said of it: that may still be on its way.
    // [MQTT-4.8.2-4]
    pub(super) fn resend(&mut self, cx: &mut Context, slot: SlotId) {
        while self.takes_more(cx, slot) {
            let Some(session) = self.sessions.get_mut(slot) else { return };
            let Some(conn) = session.conn else { return };
            let persistent = session.is_persistent();
            let Some((packet_id, message)) = self.next_to_resend(slot, conn) else { break };
            let Some(message) = message else {
                self.store.gate(Gated::Release { session: slot, conn, packet_id });
                continue;
            };
            let InFlight { held, qos, retain, ids } = message;
            // [MQTT-4.3.3-7]: what was sent once does not expire.
            if persistent && qos == QoS::ExactlyOnce {
                self.store.gate(Gated::Publish { session: slot, conn, packet_id, dup: true });
                self.store.release(held);
                continue;
            }
            match self.store.load(&held) {
                Ok(Loaded::Here(record)) => {
                    self.send_read(cx, slot, packet_id, &record, (qos, retain, true), &ids);
                }
                Ok(Loaded::Away) => {
                    self.await_message(cx, conn, Part::Queue, &held);
                    if let Some(conn) = self.conn(conn) {
                        conn.reading_or_new().resending = Some(packet_id);
                    }
                    return self.store.release(held);
                }
                Err(_) => self.cancel(cx, slot, packet_id, Dropped::Unreadable),
            }
            self.store.release(held);
        }
        self.pump(cx, slot);
        self.go_on_searching(cx, slot);
    }

    /// What is to be sent again next: what had to be read for that, or what follows. Of a message
    /// that the client has, its PUBREL alone.
    fn next_to_resend(
        &mut self,
        slot: SlotId,
        conn: ConnId,
    ) -> Option<(PacketId, Option<InFlight>)> {
        let reading = self.conn(conn).and_then(|held| held.reading_mut());
        if let Some(packet_id) = reading.and_then(|reading| reading.resending.take())
            && let Some(message) = self.in_flight(slot, packet_id)
        {
            return Some((packet_id, Some(message)));
        }
        let session = self.sessions.get_mut(slot)?;
        session.flight.resend().map(|(packet_id, inflight)| match inflight {
            Inflight::AwaitPuback(delivery) | Inflight::AwaitPubrec(delivery) => {
                (packet_id, Some(InFlight::of(delivery)))
            }
            Inflight::AwaitPubcomp => (packet_id, None),
        })
    }

    /// A message that was sent, or is to be, and was not acknowledged.
    fn in_flight(&self, slot: SlotId, packet_id: PacketId) -> Option<InFlight> {
        self.sessions.get(slot)?.flight.inflight().find_map(|(id, inflight)| match inflight {
            Inflight::AwaitPuback(delivery) | Inflight::AwaitPubrec(delivery)
                if id == packet_id =>
            {
                Some(InFlight::of(delivery))
            }
            _ => None,
        })
    }

    /// Moves a session's queue on, as far as there is room.
    pub(super) fn pump(&mut self, cx: &mut Context, slot: SlotId) {
        let unix_ms = cx.clock().unix_ms;
        loop {
            let Some(session) = self.sessions.get_mut(slot) else { return };
            let Some(front) = session.queue.front() else { return };
            let expired = front.held.is_expired(unix_ms);
            // It is read when the disk has its packet identifier.
            let read_later = front.qos == QoS::ExactlyOnce && session.is_persistent();
            let has_room = session.flight.has_room();
            let held = Rc::clone(&front.held);
            // [MQTT-3.3.4-10], [MQTT-4.9.0-3]: a full window holds up the queue alone.
            let may_start =
                !expired && has_room && self.takes_more(cx, slot) && !self.awaits_resend(slot);
            if !expired && !may_start {
                return self.store.release(held);
            }
            let loaded = match expired || read_later {
                true => Ok(None),
                false => self.store.load(&held).map(Some),
            };
            if let Ok(Some(Loaded::Away)) = loaded {
                self.read_queue(cx, slot, &held);
                return self.store.release(held);
            }
            self.store.release(held);
            let popped = self.sessions.get_mut(slot).and_then(super::session::Session::pop);
            let Some(delivery) = popped else { return };
            match loaded {
                // [MQTT-3.3.2-5]
                Ok(_) if expired => self.finish(cx, slot, delivery, Some(Dropped::Expired)),
                Ok(Some(Loaded::Here(record))) => {
                    let incoming = Incoming::of(&record, delivery.qos);
                    let payload = record.payload.clone();
                    self.start(cx, slot, delivery, Some((&incoming, Some(payload))));
                }
                Ok(_) => self.start(cx, slot, delivery, None),
                Err(_) => self.finish(cx, slot, delivery, Some(Dropped::Unreadable)),
            }
        }
    }

    /// Has the front of a session's queue read, and some of what is behind it.
    fn read_queue(&mut self, cx: &mut Context, slot: SlotId, front: &Rc<Held>) {
        let Some(session) = self.sessions.get(slot) else { return };
        let Some(conn) = session.conn else { return };
        let behind = session.queue.iter().skip(1).take(READ_AHEAD);
        let behind: Vec<Rc<Held>> = behind.map(|delivery| Rc::clone(&delivery.held)).collect();
        self.await_message(cx, conn, Part::Queue, front);
        for held in behind {
            self.store.ask(&held, None, cx);
            self.store.release(held);
        }
    }

    /// Puts a message in flight, and sends it unless the disk has to have its packet identifier
    /// first. `content` is the message, and its payload if that is shared already.
    fn start(
        &mut self,
        cx: &mut Context,
        slot: SlotId,
        delivery: Delivery,
        content: Option<(&Incoming<'_>, Option<Bytes>)>,
    ) {
        let Some(session) = self.sessions.get_mut(slot) else { return };
        let (qos, retain, held) = (delivery.qos, delivery.retain, Rc::clone(&delivery.held));
        let ids = delivery.subscription_ids.clone();
        let (receipt, device) = (delivery.receipt(), delivery.device);
        let (number, persistent, conn) = (session.number, session.is_persistent(), session.conn);
        let packet_id = match session.flight.begin(qos, delivery) {
            Ok(packet_id) => packet_id,
            Err(delivery) => {
                session.push_front(delivery);
                return self.store.release(held);
            }
        };
        if qos == QoS::ExactlyOnce && persistent {
            // Sent under another identifier after a crash, it would come twice.
            self.store.fact(&Fact::Started(number, packet_id.get(), held.id));
            if let Some(conn) = conn {
                let dup = false;
                self.store.gate(Gated::Publish { session: slot, conn, packet_id, dup });
            }
        } else if let Some((incoming, payload)) = content {
            // [MQTT-3.3.1-3], [MQTT-4.3.2-2], [MQTT-4.3.3-2]
            let flags = (qos, retain, false);
            let sent = self.send_publish(cx, slot, packet_id, incoming, flags, &ids, payload);
            if let Some(pushed) = held.pushed.as_ref().filter(|_| sent) {
                self.tell_sent(cx, pushed, device);
            }
        } else {
            unreachable!("what needs no record first is started with its content");
        }
        self.count(cx, receipt, Progress::Sent);
        self.store.release(held);
    }

    /// A QoS 2 message whose packet identifier is on disk is sent, if this is still its
    /// connection, now or as soon as that takes more.
    pub(super) fn send_started(
        &mut self,
        cx: &mut Context,
        slot: SlotId,
        conn: ConnId,
        packet_id: PacketId,
        dup: bool,
    ) {
        let Some(held) = self.conn(conn) else { return };
        held.busy().later.push_back((packet_id, dup));
        self.send_later(cx, conn, slot);
    }

    /// Sends what QoS 2 sends later, as far as its connection takes it and it is in memory.
    pub(super) fn send_later(&mut self, cx: &mut Context, conn: ConnId, slot: SlotId) {
        while self.takes_more(cx, slot) {
            let Some(held) = self.conn(conn) else { return };
            let next = held.busy.as_ref().and_then(|busy| busy.later.front().copied());
            let Some((packet_id, dup)) = next else { return };
            let message = self.in_flight(slot, packet_id);
            if let Some(InFlight { held, qos, retain, ids }) = message {
                match self.store.load(&held) {
                    // Its identifier is another message's by now.
                    _ if qos != QoS::ExactlyOnce => {}
                    Ok(Loaded::Here(record)) => {
                        self.send_read(cx, slot, packet_id, &record, (qos, retain, dup), &ids);
                    }
                    Ok(Loaded::Away) => {
                        self.await_message(cx, conn, Part::Later, &held);
                        self.read_later_ahead(cx, conn, slot);
                        return self.store.release(held);
                    }
                    Err(_) => self.cancel(cx, slot, packet_id, Dropped::Unreadable),
                }
                self.store.release(held);
            }
            let Some(held) = self.conn(conn) else { return };
            if let Some(busy) = &mut held.busy {
                busy.later.pop_front();
            }
            held.rest();
        }
    }

    /// Asks for what is to be sent behind the first of what QoS 2 sends later.
    fn read_later_ahead(&mut self, cx: &mut Context, conn: ConnId, slot: SlotId) {
        let Some(held) = self.conn(conn) else { return };
        let later = held.busy.iter().flat_map(|busy| &busy.later);
        let next: Vec<PacketId> =
            later.skip(1).take(READ_AHEAD).map(|(packet_id, _)| *packet_id).collect();
        for packet_id in next {
            if let Some(message) = self.in_flight(slot, packet_id) {
                self.store.ask(&message.held, None, cx);
                self.store.release(message.held);
            }
        }
    }

    /// Sends a message that was kept.
    fn send_read(
        &mut self,
        cx: &mut Context,
        slot: SlotId,
        packet_id: PacketId,
        record: &MessageRecord,
        flags: (QoS, bool, bool),
        ids: &[u32],
    ) {
        let payload = Some(record.payload.clone());
        let incoming = Incoming::of(record, flags.0);
        self.send_publish(cx, slot, packet_id, &incoming, flags, ids, payload);
    }

    /// Sends a message that is in flight. One that has no topic is the platform's, and gets its
    /// receiver's own. Tells whether it stays in flight: what cannot be sent is cancelled.
    #[allow(clippy::too_many_arguments)]
    fn send_publish(
        &mut self,
        cx: &mut Context,
        slot: SlotId,
        packet_id: PacketId,
        incoming: &Incoming<'_>,
        (qos, retain, dup): (QoS, bool, bool),
        ids: &[u32],
        payload: Option<Bytes>,
    ) -> bool {
        let unix_ms = cx.clock().unix_ms;
        let Some(session) = self.sessions.get(slot) else { return true };
        let Some(conn) = session.conn else { return true };
        let own;
        let incoming = match incoming.topic {
            "" => {
                own = push_topic(&session.client_id);
                &Incoming { topic: &own, ..*incoming }
            }
            _ => incoming,
        };
        let Some(held) = self.conns.get_mut(conn.index()).and_then(Option::as_mut) else {
            return true;
        };
        let Stage::Online { link, .. } = &mut held.stage else { return true };
        let wire = Wire::new(qos, Some(packet_id), dup).expect("QoS 1 and 2 have an identifier");
        let ids = subscription_ids(ids);
        // Subscription identifiers, lengths and expiry.
        let bytes = 32 + 5 * ids.len() + incoming.topic.len() + incoming.forward.len();
        let alias = if link.takes_aliases() { self.aliases.get(incoming.topic) } else { None };
        let naming = Naming::of(alias, link, bytes + incoming.payload.len());
        let (topic, topic_alias) = naming.fields(incoming.topic);
        let head = PublishHead {
            topic_alias,
            retain,
            message_expiry_s: seconds_left(incoming.expires_at, unix_ms),
            subscription_ids: SubscriptionIds::new(&ids),
            forward: ForwardProperties::trusted(incoming.forward),
            ..PublishHead::new(wire, topic, incoming.payload.len())
        };
        self.scratch.clear();
        if link.publish_head(&head, &mut self.scratch).is_err() {
            self.cancel(cx, slot, packet_id, Dropped::TooLarge);
            return false;
        }
        let rest = if incoming.payload.len() <= COPY_MAX {
            self.scratch.extend_from_slice(incoming.payload);
            None
        } else {
            Some(payload.unwrap_or_else(|| Bytes::copy_from_slice(incoming.payload)))
        };
        let bytes = self.scratch.len() + rest.as_ref().map_or(0, Bytes::len);
        let sent = transport::send(cx, conn, held.transport_mut(), &mut self.scratch, rest);
        if sent.is_err() {
            // The room for one packet is always left: it is closing, and will be sent again.
            return true;
        }
        if let Stage::Online { link, .. } = &mut held.stage {
            naming.note(link);
        }
        if self.is_traced(conn) {
            let Incoming { topic, payload, .. } = *incoming;
            let (qos, id) = (qos as u8, Some((packet_id.get(), dup)));
            self.trace_publish(cx, conn, &Sent { topic, payload, qos, retain, id, bytes });
        }
        self.meters.core.inc(self.meters.names.delivered[qos as usize]);
        self.count_sent(conn, 1, bytes);
        true
    }

    /// A message that cannot be sent counts as delivered, as one does that is larger than the
    /// client takes `[MQTT-3.1.2-25]`.
    fn cancel(&mut self, cx: &mut Context, slot: SlotId, packet_id: PacketId, why: Dropped) {
        let Some(session) = self.sessions.get_mut(slot) else { return };
        let Some(delivery) = session.flight.cancel(packet_id) else { return };
        let number = session.number;
        if delivery.qos == QoS::ExactlyOnce && session.is_persistent() {
            self.store.fact(&Fact::Completed(number, packet_id.get()));
            return self.settle(cx, delivery, Some(why));
        }
        self.finish(cx, slot, delivery, Some(why));
    }

    /// A message leaves a session for good: acknowledged, or dropped for a reason.
    pub(super) fn finish(
        &mut self,
        cx: &mut Context,
        slot: SlotId,
        delivery: Delivery,
        dropped: Option<Dropped>,
    ) {
        if let Some(session) = self.sessions.get(slot)
            && session.is_persistent()
            && delivery.is_kept()
        {
            let (message, qos) = (delivery.held.id, delivery.qos);
            self.store.fact(&Fact::Done(session.number, message, qos));
        }
        self.settle(cx, delivery, dropped);
    }

    /// [`finish`](Self::finish) for one that the log knows to have left: its exchange of QoS 2 was
    /// released or completed.
    pub(super) fn settle(
        &mut self,
        cx: &mut Context,
        delivery: Delivery,
        dropped: Option<Dropped>,
    ) {
        if let Some(pushed) = &delivery.held.pushed {
            return self.tell_settled(cx, pushed, delivery.device, dropped);
        }
        let receipt = delivery.receipt();
        match dropped {
            None => self.count(cx, receipt, Progress::Acknowledged),
            Some(Dropped::Expired) => {
                self.meters.dropped(Dropped::Expired);
                self.count(cx, receipt, Progress::Expired(1));
            }
            Some(why) => {
                self.meters.dropped(why);
                self.count(cx, receipt, Progress::Dropped);
            }
        }
        self.store.release(delivery.held);
    }

    /// Tells a receipt, wherever it is kept.
    pub(super) fn count(
        &mut self,
        cx: &mut Context,
        receipt: Option<(u16, u128)>,
        progress: Progress,
    ) {
        let Some((core, id)) = receipt else { return };
        let at = cx.clock().unix_ms;
        if usize::from(core) == cx.core() {
            self.receipts.advance(id, progress, at, &mut self.store);
        } else {
            cx.tell(usize::from(core), Message::Progress { id, progress, at });
        }
    }

    pub(super) fn puback(&mut self, cx: &mut Context, conn: ConnId, slot: SlotId, ack: &Ack<'_>) {
        let Some(session) = self.sessions.get_mut(slot) else { return };
        match session.flight.puback(ack.packet_id, ack.reason) {
            Puback::Acknowledged(delivery) => self.finish(cx, slot, delivery, None),
            // [MQTT-4.8.2-6]: nobody else of a group gets it.
            Puback::Refused(delivery) => self.finish(cx, slot, delivery, Some(Dropped::Refused)),
            Puback::Unknown => {}
            Puback::WrongState => {
                return self.disconnect(cx, conn, ReasonCode::ProtocolError, Closed::Protocol);
            }
        }
        self.resend(cx, slot);
    }

    pub(super) fn pubrec(&mut self, cx: &mut Context, conn: ConnId, slot: SlotId, ack: &Ack<'_>) {
        let packet_id = ack.packet_id;
        let Some(session) = self.sessions.get_mut(slot) else { return };
        let (number, persistent) = (session.number, session.is_persistent());
        match session.flight.pubrec(packet_id, ack.reason) {
            Pubrec::Release(delivery) => {
                if persistent {
                    // Sent again after its PUBREL, the message would come twice.
                    self.store.fact(&Fact::Released(number, packet_id.get()));
                }
                self.settle(cx, delivery, None);
                if persistent {
                    self.store.gate(Gated::Release { session: slot, conn, packet_id });
                } else {
                    self.send_released(cx, slot, conn, packet_id);
                }
            }
            Pubrec::ReleaseAgain => {
                self.store.gate(Gated::Release { session: slot, conn, packet_id });
            }
            Pubrec::Refused(delivery) => {
                if persistent {
                    self.store.fact(&Fact::Completed(number, packet_id.get()));
                }
                self.settle(cx, delivery, Some(Dropped::Refused));
            }
            Pubrec::Unknown => self.write(cx, conn, |link, out| {
                link.pubrel(packet_id, ReasonCode::PacketIdentifierNotFound, out)
            }),
            Pubrec::WrongState => {
                return self.disconnect(cx, conn, ReasonCode::ProtocolError, Closed::Protocol);
            }
        }
        self.resend(cx, slot);
    }

    /// A QoS 2 message that the client has, as the disk knows, is released, if this is still the
    /// connection that it has to be released on.
    pub(super) fn send_released(
        &mut self,
        cx: &mut Context,
        slot: SlotId,
        conn: ConnId,
        packet_id: PacketId,
    ) {
        let Some(session) = self.sessions.get(slot).filter(|held| held.conn == Some(conn)) else {
            return;
        };
        let awaits = session
            .flight
            .inflight()
            .any(|(id, inflight)| id == packet_id && matches!(inflight, Inflight::AwaitPubcomp));
        if awaits {
            self.write(cx, conn, |link, out| link.pubrel(packet_id, ReasonCode::Success, out));
        }
    }

    pub(super) fn pubcomp(&mut self, cx: &mut Context, conn: ConnId, slot: SlotId, ack: &Ack<'_>) {
        let Some(session) = self.sessions.get_mut(slot) else { return };
        let (number, persistent) = (session.number, session.is_persistent());
        match session.flight.pubcomp(ack.packet_id) {
            Pubcomp::Completed if persistent => {
                self.store.fact(&Fact::Completed(number, ack.packet_id.get()));
            }
            Pubcomp::Completed | Pubcomp::Unknown => {}
            Pubcomp::WrongState => {
                return self.disconnect(cx, conn, ReasonCode::ProtocolError, Closed::Protocol);
            }
        }
        self.resend(cx, slot);
    }

    /// The client released a QoS 2 packet identifier. It may use it again once it is told so:
    /// that it may has to be on disk first, or a new message would look like the old one.
    pub(super) fn pubrel(&mut self, cx: &mut Context, conn: ConnId, slot: SlotId, ack: &Ack<'_>) {
        let packet_id = ack.packet_id;
        let Some(session) = self.sessions.get_mut(slot) else { return };
        let reason = match session.flight.release(packet_id) {
            // [MQTT-4.3.2-5], [MQTT-4.3.3-12], [MQTT-4.3.3-13]: that one is over, however old its
            // message.
            Released::Known => ReasonCode::Success,
            Released::Unknown => ReasonCode::PacketIdentifierNotFound,
        };
        if session.is_persistent() && reason == ReasonCode::Success {
            self.store.fact(&Fact::Forgotten(session.number, packet_id.get()));
        }
        let Some(held) = self.conn(conn) else { return };
        let number = held.busy().answers.push(Answer::Pubcomp(packet_id, reason));
        let ticket = self.open_ticket(cx, Then::Answer(conn, number));
        self.store.gate(Gated::Part(ticket));
    }

    /// Arms the timer of a message that expires.
    pub(super) fn arm_held(&mut self, cx: &mut Context, held: &Held) {
        let unix_ms = cx.clock().unix_ms;
        if held.expires_at == 0 || held.id >> timer::SHIFT != 0 {
            return;
        }
        let wait = Duration::from_millis(held.expires_at.saturating_sub(unix_ms));
        // Without a timer left it expires when its turn comes.
        held.timer.set(cx.arm(cx.now() + wait, timer::key(timer::HELD, held.id)));
    }

    /// An expired message leaves the queues of the sessions that its receipt counts, so that it is
    /// told at once; it leaves the others when its turn comes.
    fn take_out_of_queues(&mut self, cx: &mut Context, held: &Rc<Held>) {
        let numbers = held.queued_in.borrow().clone();
        for number in numbers {
            let slot = self.sessions.of_number(number);
            let delivery = slot
                .and_then(|slot| self.sessions.get_mut(slot))
                .and_then(|session| session.take_out(held.id));
            if let (Some(slot), Some(delivery)) = (slot, delivery) {
                self.finish(cx, slot, delivery, Some(Dropped::Expired));
            }
        }
    }

    /// A message's time has come, even if the wall clock was set back meanwhile.
    pub(super) fn held_timer(&mut self, cx: &mut Context, id: u64) {
        let Some(held) = self.store.find(id).cloned() else { return };
        held.timer.set(None);
        if !held.expired.replace(true) {
            if held.retained {
                self.expire_retained(&held);
            }
            if self.stop_waiting(&held) {
                self.count(cx, held.receipt, Progress::Expired(1));
            }
            self.take_out_of_queues(cx, &held);
        }
        self.store.release(held);
    }
}

/// A message in flight, as far as sending it goes. Its reference is to be released.
struct InFlight {
    held: Rc<Held>,
    qos: QoS,
    retain: bool,
    ids: Box<[u32]>,
}

impl InFlight {
    fn of(delivery: &Delivery) -> InFlight {
        InFlight {
            held: Rc::clone(&delivery.held),
            qos: delivery.qos,
            retain: delivery.retain,
            ids: delivery.subscription_ids.clone(),
        }
    }
}
