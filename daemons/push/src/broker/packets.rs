//! What a client that is online sends, packet by packet: cut from the bytes that arrived, held to
//! the rules by its link, and given to the part of the broker that it is for. What this core, or
//! the client's limits, cannot bear now is kept and read later.

use sextant_mqtt::{Disconnect, Event, Fault, Frame, Inbound, Link, PacketType, ReasonCode};
use sextant_ring::core::ConnId;
use sextant_ring::slot::SlotId;
use tracing::debug;

use super::conn::Stage;
use super::presence::End;
use super::{Broker, Context};
use crate::meters::Closed;

/// What an online connection may go on with after a packet.
pub(super) enum Flow {
    Continue,
    /// The connection is no more this core's to read.
    Ended,
}

impl Broker {
    pub(super) fn read_packets(&mut self, cx: &mut Context, conn: ConnId, mut data: &[u8]) {
        let max = self.settings.server.packet_bytes_max.get();
        let Some(held) = self.conn(conn) else { return };
        // Its own memory, so that a packet borrows nothing of this broker.
        let partial = held.busy.as_mut().map(|busy| std::mem::take(&mut busy.partial));
        let mut inbound = Inbound::with_partial(partial.unwrap_or_default(), max);
        let limited = self.throttle.is_on().then(|| self.throttle_key(conn)).flatten();
        let mut throttled = None;
        loop {
            if self.store.log.is_backlogged() {
                // What the disk cannot take yet is not refused: it is read later.
                break;
            }
            if let Some(key) = limited {
                throttled = self.throttle.holds(conn, key, cx.now());
                if throttled.is_some() {
                    break;
                }
            }
            match inbound.next_frame(&mut data) {
                Ok(Some(packet)) => {
                    if let Some(key) = limited
                        && packet.packet_type() == Ok(PacketType::Publish)
                    {
                        self.throttle.charge(key, packet.total_len, cx.now());
                    }
                    if let Flow::Ended = self.read_packet(cx, conn, &packet) {
                        return;
                    }
                }
                Ok(None) => break,
                Err(error) => return self.fault(cx, conn, error.into()),
            }
        }
        let unread = !data.is_empty() && throttled.is_none();
        let overloaded = self.is_overloaded(cx) || unread;
        let Some(held) = self.conn(conn) else { return };
        let partial = inbound.into_partial();
        if held.busy.is_some() || !partial.is_empty() || !data.is_empty() {
            let busy = held.busy();
            (busy.partial, busy.unread) = (partial, data.to_vec());
            held.rest();
        }
        if overloaded || held.owes_too_much() {
            self.hold_back(cx, conn);
        } else if let Some(why) = throttled {
            self.throttle(cx, conn, why);
        }
    }

    fn read_packet(&mut self, cx: &mut Context, conn: ConnId, packet: &Frame<'_>) -> Flow {
        if self.is_traced(conn) {
            self.trace_received(cx, conn, packet);
        }
        let now = cx.now().as_millis();
        let Some(held) = self.conn(conn) else { return Flow::Ended };
        let Stage::Online { link, session } = &mut held.stage else { return Flow::Ended };
        let session = *session;
        let event = match link.handle_frame(now, packet) {
            Ok(event) => event,
            Err(fault) => {
                self.fault(cx, conn, fault);
                return Flow::Ended;
            }
        };
        if !matches!(event, Event::Publish { .. }) {
            self.end_burst(cx);
        }
        match event {
            Event::Publish { topic, publish } => {
                self.count_published(session, &topic, packet.total_len);
                return self.published(cx, conn, session, &topic, &publish);
            }
            Event::PubAck(ack) => self.puback(cx, conn, session, &ack),
            Event::PubRec(ack) => self.pubrec(cx, conn, session, &ack),
            Event::PubRel(ack) => self.pubrel(cx, conn, session, &ack),
            Event::PubComp(ack) => self.pubcomp(cx, conn, session, &ack),
            Event::Subscribe(subscribe) => self.subscribe(cx, conn, session, &subscribe),
            Event::Unsubscribe(unsubscribe) => self.unsubscribe(cx, conn, session, &unsubscribe),
            Event::PingReq => self.write(cx, conn, Link::pingresp),
            Event::Disconnect(disconnect) => {
                self.client_left(cx, conn, session, &disconnect);
                return Flow::Ended;
            }
            Event::Auth(auth) => return self.authenticate_again(cx, conn, session, &auth),
        }
        if self.conn(conn).is_some() { Flow::Continue } else { Flow::Ended }
    }

    fn client_left(
        &mut self,
        cx: &mut Context,
        conn: ConnId,
        slot: SlotId,
        disconnect: &Disconnect<'_>,
    ) {
        self.closes(cx, conn, Closed::Disconnected);
        let max = self.settings.server.session_expiry_max_s;
        if let Some(session) = self.sessions.get_mut(slot)
            && let Some(expiry_s) = disconnect.properties.session_expiry_s
        {
            session.expiry_s = expiry_s.min(max);
        }
        // [MQTT-3.14.4-3], [3.1.1: MQTT-3.14.4-3]
        let in_order = disconnect.reason != ReasonCode::DisconnectWithWill;
        let (why, reason) = (Closed::Disconnected, Some(disconnect.reason));
        // TLS and WebSocket have a goodbye that the peer answers.
        let answers = self.conn(conn).is_some_and(|held| held.transport().is_some());
        self.detach(cx, conn, End { why, reason, in_order });
        match answers {
            true => cx.finish(conn),
            false => cx.part(conn),
        }
    }

    /// The client broke a rule.
    pub(super) fn fault(&mut self, cx: &mut Context, conn: ConnId, fault: Fault) {
        self.end_burst(cx);
        debug!(%fault, "a client broke a rule");
        let why = match fault.reason() {
            ReasonCode::MalformedPacket => Closed::Malformed,
            ReasonCode::PacketTooLarge => Closed::TooLarge,
            _ => Closed::Protocol,
        };
        self.disconnect(cx, conn, fault.reason(), why);
    }
}
