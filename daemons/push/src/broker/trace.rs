//! Traces of clients: whoever has been asked for has every packet told, both ways, as the MQTT code
//! sees it, and the ends of its connections.
//!
//! A trace is of a client identifier and lives on its home core; it is there before the client
//! connects, and stays when it leaves. Packets that are encoded for one connection are told from
//! their bytes, messages from what they are made of. While nobody is traced all this is a
//! look at an empty list; while somebody is, the others pay a comparison a packet.

use std::fmt::Write;

use bytes::Bytes;
use sextant_mqtt::{Ack, Connect, Frame, Inbound, Packet, Publish, ReasonCode, Version};
use sextant_ring::core::ConnId;
use tokio::sync::mpsc;

use super::conn::Stage;
use super::once::unframed;
use super::transport::Framing;
use super::{Broker, Context};
use crate::control::trace::{
    TRACE_PAYLOAD_BYTES_MAX, TRACE_TEXT_BYTES_MAX, TraceEvent, Traced, TracedPacket, Tracing,
};
use crate::meters::Closed;

/// Connections of one client that are told of at a time: the one that it has, and those that are
/// on their way in.
const CONNS_MAX: usize = 8;

/// A trace on its core.
pub(super) struct Trace {
    client_id: Box<str>,
    payloads: bool,
    sink: mpsc::Sender<Traced>,
    lost: u64,
    conns: Vec<ConnId>,
}

impl Trace {
    fn is_of(&self, conn: ConnId) -> bool {
        self.conns.contains(&conn)
    }

    fn tell(&mut self, at: u64, event: TraceEvent) {
        let traced = Traced { at, lost: self.lost, event };
        match self.sink.try_send(traced) {
            Ok(()) => self.lost = 0,
            // Nobody may read it any more; then the next tick ends it.
            Err(_) => self.lost += 1,
        }
    }
}

/// Which way a packet goes.
#[derive(Clone, Copy)]
pub(super) enum Way {
    In,
    Out,
}

impl Way {
    fn event(self, packet: TracedPacket) -> TraceEvent {
        match self {
            Way::In => TraceEvent::In(packet),
            Way::Out => TraceEvent::Out(packet),
        }
    }
}

/// A PUBLISH on its way to a client.
pub(super) struct Sent<'a> {
    pub(super) topic: &'a str,
    pub(super) payload: &'a [u8],
    pub(super) qos: u8,
    pub(super) retain: bool,
    /// With the DUP flag.
    pub(super) id: Option<(u16, bool)>,
    /// The packet's length.
    pub(super) bytes: usize,
}

impl Broker {
    /// Begins a trace.
    pub(super) fn begin_trace(&mut self, cx: &Context, tracing: Tracing) {
        let Tracing { client_id, payloads, sink } = tracing;
        let session = self.sessions.of_client(&client_id).and_then(|slot| self.sessions.get(slot));
        let conns: Vec<ConnId> = session.and_then(|session| session.conn).into_iter().collect();
        let client_id = client_id.into();
        let mut trace = Trace { client_id, payloads, sink, lost: 0, conns };
        let connected = !trace.conns.is_empty();
        trace.tell(cx.clock().unix_ms, TraceEvent::Began { connected });
        self.traces.push(trace);
    }

    /// Ends the traces that nobody reads any more.
    pub(super) fn sweep_traces(&mut self) {
        self.traces.retain(|trace| !trace.sink.is_closed());
    }

    /// Whether a connection is traced.
    #[inline]
    pub(super) fn is_traced(&self, conn: ConnId) -> bool {
        !self.traces.is_empty() && self.traces.iter().any(|trace| trace.is_of(conn))
    }

    fn trace(&mut self, cx: &Context, conn: ConnId, event: impl Fn(bool) -> TraceEvent) {
        let at = cx.clock().unix_ms;
        for trace in self.traces.iter_mut().filter(|trace| trace.is_of(conn)) {
            let event = event(trace.payloads);
            trace.tell(at, event);
        }
    }

    /// A CONNECT has come home. It may be looked at again, and is told once.
    pub(super) fn trace_connect(
        &mut self,
        cx: &Context,
        conn: ConnId,
        client_id: &str,
        connect: &Connect<'_>,
        bytes: usize,
    ) {
        let at = cx.clock().unix_ms;
        for trace in &mut self.traces {
            if *trace.client_id != *client_id || trace.is_of(conn) {
                continue;
            }
            if trace.conns.len() == CONNS_MAX {
                trace.conns.remove(0);
            }
            trace.conns.push(conn);
            let packet = described(&Packet::Connect(*connect), bytes, trace.payloads);
            trace.tell(at, TraceEvent::In(packet));
        }
    }

    /// A packet of a client that is online.
    pub(super) fn trace_received(&mut self, cx: &Context, conn: ConnId, frame: &Frame<'_>) {
        let Some(version) = self.version(conn) else { return };
        let Ok(packet) = Packet::decode(frame, version) else { return };
        self.trace(cx, conn, |payloads| {
            Way::In.event(described(&packet, frame.total_len, payloads))
        });
    }

    /// Packets that were encoded for one client, before their framing.
    pub(super) fn trace_sent(
        &mut self,
        cx: &Context,
        conn: ConnId,
        version: Version,
        mut bytes: &[u8],
    ) {
        let mut inbound = Inbound::new(u32::MAX);
        while let Ok(Some(frame)) = inbound.next_frame(&mut bytes) {
            let Ok(packet) = Packet::decode(&frame, version) else { return };
            self.trace(cx, conn, |payloads| {
                Way::Out.event(described(&packet, frame.total_len, payloads))
            });
        }
    }

    /// A packet as it was sent, in its framing.
    pub(super) fn trace_framed(
        &mut self,
        cx: &Context,
        conn: ConnId,
        version: Version,
        framing: Framing,
        framed: &[u8],
    ) {
        if let Some(packet) = unframed(framed, framing) {
            self.trace_sent(cx, conn, version, packet);
        }
    }

    /// A message that was sent to a client.
    pub(super) fn trace_publish(&mut self, cx: &Context, conn: ConnId, sent: &Sent<'_>) {
        self.trace(cx, conn, |payloads| {
            TraceEvent::Out(TracedPacket {
                packet: "PUBLISH",
                bytes: sent.bytes,
                topic: Some(cut(sent.topic)),
                qos: Some(sent.qos),
                id: sent.id.map(|(id, _)| id),
                dup: sent.id.is_some_and(|(_, dup)| dup),
                retain: sent.retain,
                payload_bytes: Some(sent.payload.len()),
                payload: payloads.then(|| payload(sent.payload)),
                ..TracedPacket::default()
            })
        });
    }

    /// QoS 0 messages that a client was not sent.
    pub(super) fn trace_dropped(&mut self, cx: &Context, conn: ConnId, messages: u64) {
        self.trace(cx, conn, |_| TraceEvent::Dropped { messages });
    }

    /// A connection ends, for a reason that is counted and, where it is traced, told.
    pub(super) fn closes(&mut self, cx: &Context, conn: ConnId, why: Closed) {
        self.meters.closed(why);
        if self.is_traced(conn) {
            self.trace(cx, conn, |_| TraceEvent::Closed { why: why.name() });
        }
    }

    /// A connection is there no more.
    pub(super) fn trace_gone(&mut self, conn: ConnId) {
        for trace in &mut self.traces {
            trace.conns.retain(|held| *held != conn);
        }
    }

    fn version(&mut self, conn: ConnId) -> Option<Version> {
        match &self.conn(conn)?.stage {
            Stage::Online { link, .. } => Some(link.version()),
            _ => None,
        }
    }
}

/// A text, not all of it where it is long.
fn cut(text: &str) -> String {
    let end = text.floor_char_boundary(TRACE_TEXT_BYTES_MAX);
    text[..end].to_owned()
}

fn payload(payload: &[u8]) -> Bytes {
    Bytes::copy_from_slice(&payload[..payload.len().min(TRACE_PAYLOAD_BYTES_MAX)])
}

/// What a trace tells of a packet: no secret, and little of what is long.
fn described(packet: &Packet<'_>, bytes: usize, payloads: bool) -> TracedPacket {
    let mut told = TracedPacket { bytes, ..TracedPacket::default() };
    match packet {
        Packet::Connect(connect) => {
            told.packet = "CONNECT";
            told.detail = asked(connect);
        }
        Packet::ConnAck(connack) => {
            told.packet = "CONNACK";
            told.reasons = vec![connack.reason.as_u8()];
            told.detail = match connack.session_present {
                true => "session present".to_owned(),
                false => cut(connack.properties.reason_string.unwrap_or_default()),
            };
        }
        Packet::Publish(publish) => of_publish(&mut told, publish, payloads),
        Packet::PubAck(ack) => of_ack(&mut told, "PUBACK", ack),
        Packet::PubRec(ack) => of_ack(&mut told, "PUBREC", ack),
        Packet::PubRel(ack) => of_ack(&mut told, "PUBREL", ack),
        Packet::PubComp(ack) => of_ack(&mut told, "PUBCOMP", ack),
        Packet::Subscribe(subscribe) => {
            told.packet = "SUBSCRIBE";
            told.id = Some(subscribe.packet_id.get());
            let each = subscribe.subscriptions.iter();
            told.detail = listed(each.map(|each| (each.filter, Some(each.qos as u8))));
        }
        Packet::SubAck(suback) => {
            told.packet = "SUBACK";
            told.id = Some(suback.packet_id.get());
            told.reasons = suback.reasons.iter().take(64).map(ReasonCode::as_u8).collect();
        }
        Packet::Unsubscribe(unsubscribe) => {
            told.packet = "UNSUBSCRIBE";
            told.id = Some(unsubscribe.packet_id.get());
            told.detail = listed(unsubscribe.filters.iter().map(|filter| (filter, None)));
        }
        Packet::UnsubAck(unsuback) => {
            told.packet = "UNSUBACK";
            told.id = Some(unsuback.packet_id.get());
            told.reasons = unsuback.reasons.iter().take(64).map(ReasonCode::as_u8).collect();
        }
        Packet::PingReq => told.packet = "PINGREQ",
        Packet::PingResp => told.packet = "PINGRESP",
        Packet::Disconnect(disconnect) => {
            told.packet = "DISCONNECT";
            told.reasons = vec![disconnect.reason.as_u8()];
            let properties = &disconnect.properties;
            told.detail = match (properties.server_reference, properties.reason_string) {
                (Some(server), _) => cut(&format!("use {server}")),
                (None, why) => cut(why.unwrap_or_default()),
            };
        }
        Packet::Auth(auth) => {
            told.packet = "AUTH";
            told.reasons = vec![auth.reason.as_u8()];
            told.detail = cut(auth.properties.auth_method.unwrap_or_default());
        }
    }
    told
}

fn of_publish(told: &mut TracedPacket, publish: &Publish<'_>, payloads: bool) {
    told.packet = "PUBLISH";
    told.topic = Some(cut(publish.topic));
    told.qos = Some(publish.delivery.qos() as u8);
    told.id = publish.delivery.packet_id().map(sextant_mqtt::PacketId::get);
    told.dup = publish.delivery.dup();
    told.retain = publish.retain;
    told.payload_bytes = Some(publish.payload.len());
    told.payload = payloads.then(|| payload(publish.payload));
    if let Some(alias) = publish.properties.topic_alias {
        told.detail = format!("topic alias {alias}");
    }
}

fn of_ack(told: &mut TracedPacket, name: &'static str, ack: &Ack<'_>) {
    told.packet = name;
    told.id = Some(ack.packet_id.get());
    told.reasons = vec![ack.reason.as_u8()];
    told.detail = cut(ack.properties.reason_string.unwrap_or_default());
}

/// Filters, and the QoS asked for with them.
fn listed<'a>(filters: impl Iterator<Item = (&'a str, Option<u8>)>) -> String {
    let mut text = String::new();
    for (filter, qos) in filters {
        if text.len() >= TRACE_TEXT_BYTES_MAX {
            text.push_str(", …");
            break;
        }
        let comma = if text.is_empty() { "" } else { ", " };
        let _ = write!(text, "{comma}{}", cut(filter));
        if let Some(qos) = qos {
            let _ = write!(text, " qos={qos}");
        }
    }
    text
}

/// What a CONNECT asks for; of its password, that there is one.
fn asked(connect: &Connect<'_>) -> String {
    let version = match connect.version {
        Version::V311 => "3.1.1",
        Version::V5 => "5",
    };
    let mut text = format!("MQTT {version}, keep-alive {} s", connect.keep_alive_s);
    if connect.clean_start {
        text.push_str(", clean start");
    }
    if let Some(expiry_s) = connect.properties.session_expiry_s {
        let _ = write!(text, ", session expiry {expiry_s} s");
    }
    if let Some(user) = connect.user_name {
        let _ = write!(text, ", user {}", cut(user));
    }
    if connect.password.is_some() {
        text.push_str(", with a password");
    }
    if let Some(will) = &connect.will {
        let _ = write!(text, ", will to {} qos={}", cut(will.topic), will.qos as u8);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_tells_no_password() {
        let connect = Connect {
            user_name: Some("bob"),
            password: Some(sextant_mqtt::Secret::new(b"hunter2")),
            ..Connect::new(Version::V5, "c")
        };
        let told = described(&Packet::Connect(connect), 30, true);
        assert_eq!(told.detail, "MQTT 5, keep-alive 0 s, clean start, user bob, with a password");
        assert!(!format!("{told:?}").contains("hunter2"));
    }

    #[test]
    fn what_is_long_is_cut_between_characters() {
        let long = "é".repeat(TRACE_TEXT_BYTES_MAX);
        assert!(cut(&long).len() <= TRACE_TEXT_BYTES_MAX && long.starts_with(&cut(&long)));
        assert_eq!(payload(&[7; 5000]).len(), TRACE_PAYLOAD_BYTES_MAX);
        let filters = (0..10_000).map(|_| ("a/b/c", Some(1)));
        assert!(listed(filters).len() < 2 * TRACE_TEXT_BYTES_MAX);
    }
}
