//! Messages of one topic that come one after the other at QoS 0: a burst. Who gets the first ones
//! gets them all, until somebody comes or goes. So its receivers are looked up once, and what comes
//! within a turn is gathered and given to each of them together:
//!
//! ```text
//!   message   1        2         3   4   5  …          anything else, or the turn's end
//!             delivered│delivered│gathered             │
//!                      └ receivers are written down    └ each receiver is sent 3 4 5 … at once
//! ```
//!
//! Who falls behind stays a receiver: what it is to get waits for it, message by message, until it
//! takes more ([`OnceQueue`](super::once::OnceQueue)).
//!
//! Nothing waits for that: what a turn sends leaves at its end. Whatever may send to somebody has
//! what was gathered sent first ([`Broker::end_burst`]), so that the order is that of messages which
//! are delivered one by one. The receivers are known until messages of another topic come
//! at QoS 0, or [`Broker::receivers_change`] was called.

use bytes::Bytes;
use sextant_mqtt::{QoS, Version};
use sextant_ring::core::{self, ConnId};
use sextant_ring::slot::SlotId;

use super::aliases::{Alias, Naming};
use super::conn::{Conn, Stage};
use super::encodings::{Shared, lane};
use super::message::Incoming;
use super::once::{Ready, rewritten};
use super::publish::Wanted;
use super::transport::{self, Framing, Transport, framing};
use super::{Broker, Context};
use crate::meters::Dropped;

/// What is gathered at most. A connection has that much room behind its limit.
const BYTES_MAX: usize = 64 * 1024;

/// A burst, or what may become one.
#[derive(Default)]
pub(super) struct Burst {
    state: State,
    topic: String,
    /// Of the topic.
    alias: Option<Alias>,
    from: Option<SlotId>,
    parts: [Part; KINDS.len()],
    /// The smallest limit of a receiver.
    packet_bytes_max: usize,
    /// Something is gathered.
    pending: bool,
}

#[derive(Clone, Copy, Default, PartialEq)]
enum State {
    #[default]
    None,
    /// One message was delivered.
    Likely,
    /// Its receivers are written down.
    Known,
}

/// The share of the clients of one version of MQTT on one framing, by what they call the topic.
#[derive(Default)]
struct Part {
    /// Those that nothing waits for, as far as is known.
    receivers: Vec<ConnId>,
    /// Those that something waits for, or did.
    behind: Vec<ConnId>,
    /// Those for each of whom it has to be sealed.
    sealed: Vec<ConnId>,
    packets: Option<core::Shared>,
    /// Of the messages in them: bytes, and when they expire, in milliseconds since 1970.
    messages: Vec<(u32, u64)>,
}

impl Part {
    fn is_empty(&self) -> bool {
        self.receivers.is_empty() && self.behind.is_empty() && self.sealed.is_empty()
    }

    fn len(&self) -> usize {
        self.receivers.len() + self.behind.len() + self.sealed.len()
    }
}

/// The parts, in the order of [`part`]; the last are those of clients that know the topic's alias.
const KINDS: [(Version, Framing); 6] = [
    (Version::V311, Framing::Plain),
    (Version::V5, Framing::Plain),
    (Version::V311, Framing::WebSocket),
    (Version::V5, Framing::WebSocket),
    (Version::V5, Framing::Plain),
    (Version::V5, Framing::WebSocket),
];

const WITH_ALIAS: usize = 4;

fn part(version: Version, framing: Framing, by_alias: bool) -> usize {
    match by_alias {
        true => WITH_ALIAS + framing as usize,
        false => framing as usize * 2 + usize::from(version == Version::V5),
    }
}

impl Burst {
    fn is_of(&self, incoming: &Incoming<'_>) -> bool {
        self.from == incoming.from && self.topic == incoming.topic
    }

    /// Gives back the memory of an ended burst.
    pub(super) fn shed(&mut self) {
        assert!(!self.pending && self.state == State::None, "a burst goes on");
        self.parts = Default::default();
    }

    /// Whether a message is surely not larger than a receiver takes.
    fn all_take(&self, incoming: &Incoming<'_>) -> bool {
        /// Header, lengths and expiry.
        const HEAD_BYTES_MAX: usize = 32;
        let Incoming { topic, payload, forward, .. } = incoming;
        let bytes = HEAD_BYTES_MAX + topic.len() + forward.len() + payload.len();
        bytes <= self.packet_bytes_max
    }
}

/// Whether it matters to nobody but those who are connected, and is for all of them the same.
fn is_light(incoming: &Incoming<'_>) -> bool {
    incoming.qos == QoS::AtMostOnce
        && !incoming.retain
        && incoming.receipt.is_none()
        && incoming.device.is_none()
        && incoming.origin.is_none()
        && incoming.shares.is_empty()
}

impl Broker {
    /// Gathers a message if it continues a burst; otherwise sends what was gathered.
    pub(super) fn joins_burst(&mut self, cx: &mut Context, incoming: &Incoming<'_>) -> bool {
        let joins = self.burst.state == State::Known
            && is_light(incoming)
            && self.burst.is_of(incoming)
            && self.burst.all_take(incoming);
        match joins {
            true => self.gather(cx, incoming),
            false => self.end_burst(cx),
        }
        joins
    }

    fn gather(&mut self, cx: &mut Context, incoming: &Incoming<'_>) {
        let shared = Shared::new(incoming);
        let unix_ms = cx.clock().unix_ms;
        for (at, (version, framing)) in KINDS.into_iter().enumerate() {
            let part = &mut self.burst.parts[at];
            if part.is_empty() {
                continue;
            }
            let naming = match self.burst.alias {
                Some(alias) if at >= WITH_ALIAS => Naming::Alias(alias),
                _ => Naming::Topic,
            };
            if shared.encode(version, false, naming, unix_ms, &mut self.scratch).is_none() {
                let receivers = part.len();
                self.meters.dropped_many(Dropped::TooLarge, receivers as u64);
                continue;
            }
            framing.apply(&mut self.scratch);
            let packet = cx.share(lane(version, false, framing, naming), &self.scratch);
            let packet_bytes = packet.len() as u32;
            let joined = part
                .packets
                .as_mut()
                .is_some_and(|held| held.len() + packet.len() <= BYTES_MAX && held.join(&packet));
            if !joined {
                self.send_part(cx, at);
                self.burst.parts[at].packets = Some(packet);
                self.burst.pending = true;
            }
            let message = (packet_bytes, incoming.expires_at);
            self.burst.parts[at].messages.push(message);
        }
    }

    /// A message was delivered to all that [`Broker::matches`] has.
    pub(super) fn may_begin_burst(&mut self, incoming: &Incoming<'_>) {
        if !is_light(incoming) {
            return;
        }
        let burst = &mut self.burst;
        match burst.state {
            State::Known if burst.is_of(incoming) => {}
            State::Likely if burst.is_of(incoming) => self.write_down_receivers(incoming),
            _ => {
                burst.state = State::Likely;
                burst.from = incoming.from;
                burst.topic.clear();
                burst.topic.push_str(incoming.topic);
            }
        }
    }

    /// Unless some of them get other packets than the others, or not at once.
    fn write_down_receivers(&mut self, incoming: &Incoming<'_>) {
        let Broker { burst, matches, sessions, conns, aliases, .. } = self;
        burst.alias = aliases.get(incoming.topic);
        for part in &mut burst.parts {
            part.receivers.clear();
            part.behind.clear();
            part.sealed.clear();
        }
        burst.packet_bytes_max = usize::MAX;
        for group in matches.chunk_by(|a, b| a.0 == b.0) {
            let Some(conn) = sessions.get(group[0].0).and_then(|session| session.conn) else {
                continue;
            };
            let Some(held) = conns.get(conn.index()).and_then(Option::as_ref) else { continue };
            let Stage::Online { link, .. } = &held.stage else { continue };
            if !Wanted::of(group, incoming).is_plain() {
                burst.state = State::None;
                return;
            }
            burst.packet_bytes_max =
                burst.packet_bytes_max.min(link.peer_packet_bytes_max() as usize);
            let knows = matches!(Naming::of(burst.alias, link, 0), Naming::Alias(_));
            let part = part(link.version(), framing(held.transport()), knows);
            let part = &mut burst.parts[part];
            match held.transport().is_some_and(Transport::is_sealed) {
                _ if held.holds_once() => part.behind.push(conn),
                true => part.sealed.push(conn),
                false => part.receivers.push(conn),
            }
        }
        burst.state = State::Known;
    }

    /// To be called when a session comes to a connection or leaves it, when a filter comes or goes,
    /// and when something waits to be sent to somebody before what is published.
    pub(super) fn receivers_change(&mut self, cx: &mut Context) {
        self.end_burst(cx);
        self.burst.state = State::None;
    }

    /// Sends what was gathered. To be called before anything else happens.
    #[inline]
    pub(super) fn end_burst(&mut self, cx: &mut Context) {
        if std::mem::take(&mut self.burst.pending) {
            for at in 0..KINDS.len() {
                self.send_part(cx, at);
            }
        }
    }

    fn send_part(&mut self, cx: &mut Context, at: usize) {
        let part = &mut self.burst.parts[at];
        let Some(packets) = part.packets.take() else { return };
        let mut messages = std::mem::take(&mut part.messages);
        let mut receivers = std::mem::take(&mut part.receivers);
        let mut behind = std::mem::take(&mut part.behind);
        let mut sealed = std::mem::take(&mut part.sealed);
        let unsent_max = self.settings.send_queue_bytes_max;
        let caught_up = behind.extract_if(.., |conn| !self.is_behind(cx, *conn, unsent_max));
        for conn in caught_up {
            let held = self.conns.get(conn.index()).and_then(Option::as_ref);
            let transport = held.and_then(Conn::transport);
            match transport.is_some_and(Transport::is_sealed) {
                true => sealed.push(conn),
                false => receivers.push(conn),
            }
        }
        let (mut sent, together, mut next) = (0, messages.len() as u64, 0);
        while let Some(conn) = receivers.get(next).copied() {
            if cx.unsent(conn) >= unsent_max {
                behind.push(receivers.swap_remove(next));
                continue;
            }
            if cx.send_shared(conn, &packets).is_ok() {
                sent += together;
                self.note_part(cx, conn, at, &packets, &messages);
            }
            next += 1;
        }
        let to = (&mut sealed, &mut behind);
        sent += together * self.send_sealed(cx, to, at, &packets, &messages);
        self.meters.core.add(self.meters.names.delivered[0], sent);
        if !behind.is_empty() {
            let packets = self.packets_to_wait(at, &cx.copy_shared(&packets), &messages);
            for (conn, (packet, expires_at)) in
                behind.iter().flat_map(|conn| packets.iter().map(move |packet| (*conn, packet)))
            {
                let packet = packet.clone();
                self.let_wait(cx, conn, Ready { packet, expires_at: *expires_at, receipt: None });
            }
        }
        messages.clear();
        let part = &mut self.burst.parts[at];
        part.messages = messages;
        (part.receivers, part.behind, part.sealed) = (receivers, behind, sealed);
    }

    /// Seals what was gathered for each of some; to how many it was sent. Whoever has fallen
    /// behind is moved.
    fn send_sealed(
        &mut self,
        cx: &mut Context,
        (sealed, behind): (&mut Vec<ConnId>, &mut Vec<ConnId>),
        at: usize,
        packets: &core::Shared,
        messages: &[(u32, u64)],
    ) -> u64 {
        let unsent_max = self.settings.send_queue_bytes_max;
        let (mut sent, mut next) = (0, 0);
        while let Some(conn) = sealed.get(next).copied() {
            if cx.unsent(conn) >= unsent_max {
                behind.push(sealed.swap_remove(next));
                continue;
            }
            let transport = self.conn(conn).and_then(Conn::transport_mut);
            if transport::send_shared(cx, conn, transport, packets).is_ok() {
                sent += 1;
                self.note_part(cx, conn, at, packets, messages);
            }
            next += 1;
        }
        sent
    }

    /// Counts messages that a receiver was sent together, and tells its trace of them, if it has
    /// one.
    #[inline]
    fn note_part(
        &mut self,
        cx: &Context,
        conn: ConnId,
        at: usize,
        packets: &core::Shared,
        messages: &[(u32, u64)],
    ) {
        self.count_sent(conn, messages.len() as u64, packets.len());
        if self.is_traced(conn) {
            self.trace_part(cx, conn, at, &cx.copy_shared(packets), messages);
        }
    }

    fn trace_part(
        &mut self,
        cx: &Context,
        conn: ConnId,
        at: usize,
        packets: &Bytes,
        messages: &[(u32, u64)],
    ) {
        let (version, framing) = KINDS[at];
        for (packet, _) in self.packets_to_wait(at, packets, messages) {
            self.trace_framed(cx, conn, version, framing, &packet);
        }
    }

    /// What was gathered, one by one, with the topic's name: until one that waits is sent its alias
    /// may stand for another topic. Receivers share the bytes.
    fn packets_to_wait(
        &self,
        at: usize,
        packets: &Bytes,
        messages: &[(u32, u64)],
    ) -> Vec<(Bytes, u64)> {
        let (version, framing) = KINDS[at];
        let mut start = 0;
        let one = |(bytes, expires_at): &(u32, u64)| {
            let end = start + *bytes as usize;
            let packet = packets.slice(start..end);
            start = end;
            if at < WITH_ALIAS {
                return Some((packet, *expires_at));
            }
            let packet = rewritten(&packet, framing, version, |publish| {
                publish.topic = &self.burst.topic;
                publish.properties.topic_alias = None;
            });
            Some((packet?, *expires_at))
        };
        messages.iter().filter_map(one).collect()
    }
}
