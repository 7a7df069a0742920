//! The server's end of one network connection, after its CONNACK.
//!
//! A [`Link`] knows what the two ends agreed on and holds the peer to it: which packets a client
//! may send, Receive Maximum, topic aliases, keep-alive. It writes what the server sends, in the
//! version and within the limits of the client. It knows nothing of sessions, subscriptions or
//! credentials; what outlives the connection is in [`Session`](crate::Session).
//!
//! ```text
//! AwaitingConnect ── CONNECT ──► Connecting ── accept (CONNACK 0) ──► Link
//!        └── anything else, timeout ──► close     └── refuse (CONNACK) ──► close
//! ```

use std::num::NonZeroU16;

use crate::alias::{InboundAliases, OutboundAlias, OutboundAliases, ToldAliases, Topic};
use crate::decode::Frame;
use crate::encode::PublishHead;
use crate::error::{EncodeError, Fault};
use crate::packet::{
    Ack, Auth, Disconnect, Packet, PacketId, PacketType, Publish, QoS, ReasonCodes, SubAck,
    Subscribe, UnsubAck, Unsubscribe, Version,
};
use crate::property::{AckProperties, AuthProperties, DisconnectProperties, UserProperties};
use crate::reason::ReasonCode;
use crate::topic::TopicLimits;

/// What a client did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event<'p> {
    /// A message. Above QoS 0 answer with [`Link::puback`] or [`Link::pubrec`].
    Publish {
        /// Its topic name, an alias resolved.
        topic: Topic<'p>,
        /// The packet; its own topic may be empty.
        publish: Publish<'p>,
    },
    /// A QoS 1 message to the client was acknowledged or refused.
    PubAck(Ack<'p>),
    /// A QoS 2 message was received or refused. Answer with [`Link::pubrel`].
    PubRec(Ack<'p>),
    /// A QoS 2 message of the client is released. Answer with [`Link::pubcomp`].
    PubRel(Ack<'p>),
    /// A QoS 2 message to the client is complete.
    PubComp(Ack<'p>),
    /// Answer with [`Link::suback`] `[MQTT-3.8.4-1]`.
    Subscribe(Subscribe<'p>),
    /// Answer with [`Link::unsuback`] `[MQTT-3.10.4-4]`.
    Unsubscribe(Unsubscribe<'p>),
    /// Answer with [`Link::pingresp`] `[MQTT-3.12.4-1]`.
    PingReq,
    /// The client leaves; no more packets follow `[MQTT-3.14.4-1]`.
    Disconnect(Disconnect<'p>),
    /// A re-authentication, or a step of one. Answer with [`Link::auth`].
    Auth(Auth<'p>),
}

/// The server's end of a connection. Small: a million of them idle.
#[derive(Debug)]
pub struct Link {
    pub(crate) last_received_ms: u64,
    pub(crate) rare: Option<Box<Rare>>,
    /// The client's Maximum Packet Size, bytes.
    pub(crate) packet_bytes_max: u32,
    pub(crate) topics: TopicLimits,
    /// Ours: QoS 1 and 2 publishes that the client may have in flight.
    pub(crate) receive_max: u16,
    /// Those it has.
    pub(crate) receiving: u16,
    /// The client's: QoS 1 and 2 publishes that it takes at once.
    pub(crate) peer_receive_max: u16,
    /// The keep-alive in force, seconds; 0 is none.
    pub(crate) keep_alive_s: u16,
    pub(crate) inbound_alias_max: u16,
    pub(crate) outbound_alias_max: u16,
    pub(crate) version: Version,
    pub(crate) problem_info: bool,
    /// The session ends with the connection, whatever DISCONNECT says.
    pub(crate) expires_at_close: bool,
}

/// What few connections have.
#[derive(Debug, Default)]
pub(crate) struct Rare {
    /// The authentication method of CONNECT.
    pub(crate) auth_method: Option<Box<str>>,
    pub(crate) inbound_aliases: InboundAliases,
    pub(crate) outbound_aliases: OutboundAliases,
    pub(crate) told_aliases: ToldAliases,
}

impl Link {
    pub(crate) fn auth_method(&self) -> Option<&str> {
        self.rare.as_ref()?.auth_method.as_deref()
    }

    /// The version that the client asked for.
    pub const fn version(&self) -> Version {
        self.version
    }

    /// How many QoS 1 and 2 publishes the client takes at once; what
    /// [`Session::resume`](crate::Session::resume) wants to know.
    pub const fn peer_receive_max(&self) -> u16 {
        self.peer_receive_max
    }

    /// The largest packet the client takes, bytes.
    pub const fn peer_packet_bytes_max(&self) -> u32 {
        self.packet_bytes_max
    }

    /// The keep-alive in force, seconds; 0 is none.
    pub const fn keep_alive_s(&self) -> u16 {
        self.keep_alive_s
    }

    /// When to call [`Link::handle_timeout`], if nothing is received before; none without a
    /// keep-alive.
    pub const fn deadline(&self) -> Option<u64> {
        if self.keep_alive_s == 0 {
            return None;
        }
        // [MQTT-3.1.2-22]: one and a half times the keep-alive.
        Some(self.last_received_ms.saturating_add(self.keep_alive_s as u64 * 1500))
    }

    /// Tells the time.
    ///
    /// # Errors
    /// The keep-alive passed: send [`Link::disconnect`] and close.
    pub const fn handle_timeout(&self, now_ms: u64) -> Result<(), Fault> {
        match self.deadline() {
            Some(deadline) if now_ms >= deadline => Err(Fault::KeepAliveTimeout),
            _ => Ok(()),
        }
    }

    /// The client was not listened to until now: that it was silent does not count.
    pub const fn forgive_silence(&mut self, now_ms: u64) {
        self.last_received_ms = now_ms;
    }

    /// Decodes a frame and handles its packet.
    ///
    /// # Errors
    /// As [`Link::handle`], or the frame is not a valid packet.
    pub fn handle_frame<'p>(&mut self, now_ms: u64, frame: &Frame<'p>) -> Result<Event<'p>, Fault> {
        match frame.packet_type()? {
            // The hot path, spared two copies of a packet.
            PacketType::Publish => {
                self.last_received_ms = now_ms;
                self.handle_publish(Publish::decode_frame(frame, self.version)?)
            }
            // [MQTT-3.1.0-2], well formed or not.
            PacketType::Connect => Err(Fault::SecondConnect),
            _ => self.handle(now_ms, Packet::decode(frame, self.version)?),
        }
    }

    /// Takes a packet of the client.
    ///
    /// # Errors
    /// The client broke a rule: send [`Link::disconnect`] with [`Fault::reason`] and close.
    pub fn handle<'p>(&mut self, now_ms: u64, packet: Packet<'p>) -> Result<Event<'p>, Fault> {
        self.last_received_ms = now_ms;
        match packet {
            Packet::Publish(publish) => self.handle_publish(publish),
            Packet::PubAck(ack) => Ok(Event::PubAck(ack)),
            Packet::PubRec(ack) => Ok(Event::PubRec(ack)),
            Packet::PubRel(ack) => Ok(Event::PubRel(ack)),
            Packet::PubComp(ack) => Ok(Event::PubComp(ack)),
            Packet::Subscribe(subscribe) => {
                let filters = subscribe.subscriptions.iter().map(|each| each.filter);
                self.check_filters(filters)?;
                Ok(Event::Subscribe(subscribe))
            }
            Packet::Unsubscribe(unsubscribe) => {
                self.check_filters(unsubscribe.filters.iter())?;
                Ok(Event::Unsubscribe(unsubscribe))
            }
            Packet::PingReq => Ok(Event::PingReq),
            Packet::Disconnect(disconnect) => self.handle_disconnect(disconnect),
            Packet::Auth(auth) => self.handle_auth(auth),
            Packet::Connect(_) => Err(Fault::SecondConnect), // [MQTT-3.1.0-2]
            Packet::ConnAck(_) | Packet::SubAck(_) | Packet::UnsubAck(_) | Packet::PingResp => {
                Err(Fault::Unexpected(packet.packet_type()))
            }
        }
    }

    #[inline]
    fn handle_publish<'p>(&mut self, publish: Publish<'p>) -> Result<Event<'p>, Fault> {
        // [MQTT-3.3.4-6]
        if !publish.properties.subscription_ids.is_empty() {
            return Err(Fault::SubscriptionIdFromClient);
        }
        self.topics.check(publish.topic).map_err(|_| Fault::TopicNameLimit)?;
        let topic = match publish.properties.topic_alias {
            None => Topic::Borrowed(publish.topic),
            Some(alias) => self.rare.get_or_insert_default().inbound_aliases.resolve(
                alias,
                publish.topic,
                self.inbound_alias_max,
            )?,
        };
        if publish.delivery.qos() > QoS::AtMostOnce {
            // [MQTT-3.3.4-7]; MQTT 3.1.1 has no Receive Maximum.
            if self.version == Version::V5 && self.receiving >= self.receive_max {
                return Err(Fault::ReceiveMaximumExceeded);
            }
            self.receiving = self.receiving.saturating_add(1);
        }
        Ok(Event::Publish { topic, publish })
    }

    fn check_filters<'p>(&self, mut filters: impl Iterator<Item = &'p str>) -> Result<(), Fault> {
        filters
            .try_for_each(|filter| self.topics.check(filter).map_err(|_| Fault::TopicFilterLimit))
    }

    fn handle_disconnect<'p>(&self, disconnect: Disconnect<'p>) -> Result<Event<'p>, Fault> {
        // Section 3.14.2.2.2: a session that ends with its connection cannot be made to last.
        let expiry_s = disconnect.properties.session_expiry_s.unwrap_or(0);
        if self.expires_at_close && expiry_s != 0 {
            return Err(Fault::SessionExpiryRaised);
        }
        if disconnect.properties.server_reference.is_some() {
            return Err(Fault::ReasonNotAllowed(disconnect.reason));
        }
        Ok(Event::Disconnect(disconnect))
    }

    fn handle_auth<'p>(&self, auth: Auth<'p>) -> Result<Event<'p>, Fault> {
        self.check_auth(&auth)?;
        Ok(Event::Auth(auth))
    }

    /// An AUTH names the method of CONNECT `[MQTT-4.12.1-1]`, and only a server says success.
    pub(crate) fn check_auth(&self, auth: &Auth<'_>) -> Result<(), Fault> {
        let method = self.auth_method();
        // [MQTT-4.12.0-7]
        if method.is_none() || auth.properties.auth_method != method {
            return Err(Fault::AuthenticationMethod);
        }
        match auth.reason {
            ReasonCode::ContinueAuthentication | ReasonCode::ReAuthenticate => Ok(()),
            other => Err(Fault::ReasonNotAllowed(other)),
        }
    }

    /// QoS 1 and 2 publishes of the client that are not answered to the end.
    pub const fn receiving(&self) -> u16 {
        self.receiving
    }

    /// Whether the client has as many publishes in flight as it may. An MQTT 3.1.1 client does
    /// not know and goes on; whoever feeds this link can stop reading for a while instead.
    pub const fn is_receive_full(&self) -> bool {
        self.receiving >= self.receive_max
    }

    /// Gives back the room of a publish that will not be answered to the end: one whose packet
    /// identifier this connection has already counted, sent again by an MQTT 3.1.1 client.
    pub const fn forget_received(&mut self) {
        self.receiving = self.receiving.saturating_sub(1);
    }

    /// The alias to send with the next PUBLISH to `topic`, if one is to be had. The PUBLISH must
    /// then be sent, and in this order, or the client will not know what the alias stands for.
    pub fn outbound_alias(&mut self, topic: &str) -> Option<OutboundAlias> {
        if self.outbound_alias_max == 0 {
            return None;
        }
        let aliases = &mut self.rare.get_or_insert_default().outbound_aliases;
        aliases.alias(topic, self.outbound_alias_max)
    }

    /// Whether topic aliases may be sent to the client.
    pub const fn takes_aliases(&self) -> bool {
        self.outbound_alias_max > 0
    }

    /// How to send a PUBLISH to a topic for which the caller has a number of its own, the same for
    /// many connections: with topic and alias, until the client [was told](Self::note_shared_alias)
    /// that, or with the alias alone. `None` if the client takes no such alias. `name` tells the
    /// topics that have the number one after the other apart; it is not 0. A link is asked either
    /// this or [`outbound_alias`](Self::outbound_alias).
    pub fn shared_alias(&self, alias: NonZeroU16, name: u32) -> Option<OutboundAlias> {
        if alias.get() > self.outbound_alias_max {
            return None;
        }
        let known = self.rare.as_ref().is_some_and(|rare| rare.told_aliases.knows(alias, name));
        Some(if known { OutboundAlias::Use(alias) } else { OutboundAlias::Establish(alias) })
    }

    /// A PUBLISH with topic and alias was sent, as [`shared_alias`](Self::shared_alias) said.
    pub fn note_shared_alias(&mut self, alias: NonZeroU16, name: u32) {
        self.rare.get_or_insert_default().told_aliases.note(alias, name);
    }

    /// Appends a PUBLISH without its payload, which the caller sends next.
    ///
    /// # Errors
    /// The packet is larger than the client takes: it is dropped as if it had been delivered
    /// `[MQTT-3.1.2-25]`. Or the topic or payload is too long for any packet. Nothing was
    /// written.
    pub fn publish_head(
        &self,
        head: &PublishHead<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), EncodeError> {
        head.encode_within(self.version, self.packet_bytes_max, out)
    }

    /// Appends any packet, in the client's version and within its limits: reason strings and user
    /// properties are left out where the client does not want them `[MQTT-3.1.2-29]` or where
    /// they would make the packet too large `[MQTT-3.2.2-19]`. In MQTT 3.1.1, where a server
    /// sends neither DISCONNECT nor AUTH, these write nothing.
    ///
    /// # Errors
    /// The packet is too large even so, or holds what MQTT forbids. Nothing was written.
    pub fn send(&mut self, packet: &Packet<'_>, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let kind = packet.packet_type();
        if self.version == Version::V311
            && matches!(kind, PacketType::Disconnect | PacketType::Auth)
        {
            return Ok(());
        }
        let wants_problem_info = self.problem_info
            || matches!(kind, PacketType::Publish | PacketType::ConnAck | PacketType::Disconnect);
        let bare;
        let packet = if wants_problem_info {
            packet
        } else {
            bare = without_problem_info(packet);
            &bare
        };
        // [MQTT-3.4.2-2], [MQTT-3.4.2-3], [MQTT-3.5.2-2], [MQTT-3.5.2-3], [MQTT-3.6.2-2],
        // [MQTT-3.6.2-3], [MQTT-3.7.2-2], [MQTT-3.7.2-3], [MQTT-3.9.2-1], [MQTT-3.9.2-2],
        // [MQTT-3.11.2-1], [MQTT-3.11.2-2], [MQTT-3.14.2-3], [MQTT-3.14.2-4], [MQTT-3.15.2-2],
        // [MQTT-3.15.2-3], [MQTT-3.2.2-20]
        encode_within(packet, self.version, self.packet_bytes_max, out)?;
        self.note_sent(packet);
        Ok(())
    }

    /// An answer that ends an exchange gives its room back (section 4.9).
    fn note_sent(&mut self, packet: &Packet<'_>) {
        let ends = match packet {
            Packet::PubAck(_) => true,
            Packet::PubRec(ack) => ack.reason.is_error(),
            Packet::PubComp(ack) => !ack.reason.is_error(),
            _ => false,
        };
        if ends {
            self.receiving = self.receiving.saturating_sub(1);
        }
    }

    /// Appends a PUBACK.
    ///
    /// # Errors
    /// As [`Link::send`].
    pub fn puback(
        &mut self,
        packet_id: PacketId,
        reason: ReasonCode,
        out: &mut Vec<u8>,
    ) -> Result<(), EncodeError> {
        // [MQTT-2.2.1-5]
        self.send(&Packet::PubAck(Ack::new(packet_id, reason)), out)
    }

    /// Appends a PUBREC.
    ///
    /// # Errors
    /// As [`Link::send`].
    pub fn pubrec(
        &mut self,
        packet_id: PacketId,
        reason: ReasonCode,
        out: &mut Vec<u8>,
    ) -> Result<(), EncodeError> {
        self.send(&Packet::PubRec(Ack::new(packet_id, reason)), out)
    }

    /// Appends a PUBREL.
    ///
    /// # Errors
    /// As [`Link::send`].
    pub fn pubrel(
        &mut self,
        packet_id: PacketId,
        reason: ReasonCode,
        out: &mut Vec<u8>,
    ) -> Result<(), EncodeError> {
        self.send(&Packet::PubRel(Ack::new(packet_id, reason)), out)
    }

    /// Appends a PUBCOMP.
    ///
    /// # Errors
    /// As [`Link::send`].
    pub fn pubcomp(
        &mut self,
        packet_id: PacketId,
        reason: ReasonCode,
        out: &mut Vec<u8>,
    ) -> Result<(), EncodeError> {
        self.send(&Packet::PubComp(Ack::new(packet_id, reason)), out)
    }

    /// Appends a SUBACK: a reason for each subscription, in their order `[MQTT-3.9.3-1]`.
    ///
    /// # Errors
    /// As [`Link::send`].
    pub fn suback(
        &mut self,
        packet_id: PacketId,
        reasons: &[ReasonCode],
        out: &mut Vec<u8>,
    ) -> Result<(), EncodeError> {
        let (properties, reasons) = (AckProperties::default(), ReasonCodes::new(reasons));
        self.send(&Packet::SubAck(SubAck { packet_id, properties, reasons }), out)
    }

    /// Appends an UNSUBACK: a reason for each filter, in their order `[MQTT-3.11.3-1]`.
    ///
    /// # Errors
    /// As [`Link::send`].
    pub fn unsuback(
        &mut self,
        packet_id: PacketId,
        reasons: &[ReasonCode],
        out: &mut Vec<u8>,
    ) -> Result<(), EncodeError> {
        let (properties, reasons) = (AckProperties::default(), ReasonCodes::new(reasons));
        self.send(&Packet::UnsubAck(UnsubAck { packet_id, properties, reasons }), out)
    }

    /// Appends a PINGRESP.
    ///
    /// # Errors
    /// As [`Link::send`]; a client that takes no packet of two bytes takes none.
    pub fn pingresp(&mut self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        self.send(&Packet::PingResp, out)
    }

    /// Appends an AUTH with the method of CONNECT `[MQTT-4.12.0-5]`.
    ///
    /// # Errors
    /// As [`Link::send`].
    pub fn auth(
        &mut self,
        reason: ReasonCode,
        data: Option<&[u8]>,
        out: &mut Vec<u8>,
    ) -> Result<(), EncodeError> {
        // [MQTT-4.12.0-6]
        let method = self.rare.as_mut().and_then(|rare| rare.auth_method.take());
        let Some(method) = method else { return Err(EncodeError::Forbidden) };
        let properties = AuthProperties {
            auth_method: Some(&method),
            auth_data: data.map(crate::Secret::new),
            ..AuthProperties::default()
        };
        let result = self.send(&Packet::Auth(Auth { reason, properties }), out);
        self.rare.get_or_insert_default().auth_method = Some(method);
        result
    }

    /// Appends a DISCONNECT; nothing in MQTT 3.1.1. The connection is then closed
    /// `[MQTT-3.14.4-2]`.
    ///
    /// # Errors
    /// As [`Link::send`]; the connection is closed all the same.
    pub fn disconnect(
        &mut self,
        reason: ReasonCode,
        reason_string: Option<&str>,
        out: &mut Vec<u8>,
    ) -> Result<(), EncodeError> {
        let properties = DisconnectProperties { reason_string, ..DisconnectProperties::default() };
        self.send(&Packet::Disconnect(Disconnect { reason, properties }), out)
    }
}

/// Appends `packet` if it has at most `packet_bytes_max` bytes, without its reason string and
/// user properties if it needs to be.
pub(crate) fn encode_within(
    packet: &Packet<'_>,
    version: Version,
    packet_bytes_max: u32,
    out: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    let fits = |packet: &Packet<'_>| -> Result<Option<usize>, EncodeError> {
        let len = packet.encoded_len(version)?;
        Ok((len > packet_bytes_max as usize).then_some(len))
    };
    if fits(packet)?.is_none() {
        return packet.encode(version, out);
    }
    let bare = without_problem_info(packet);
    match fits(&bare)? {
        None => bare.encode(version, out),
        Some(len) => Err(EncodeError::TooLarge { len: len as u32, max: packet_bytes_max }),
    }
}

/// The packet without its reason string and user properties; those of a PUBLISH, SUBSCRIBE,
/// UNSUBSCRIBE or CONNECT are no problem information and stay.
fn without_problem_info<'a>(packet: &Packet<'a>) -> Packet<'a> {
    let mut bare = *packet;
    match &mut bare {
        Packet::PubAck(ack) | Packet::PubRec(ack) | Packet::PubRel(ack) | Packet::PubComp(ack) => {
            ack.properties = AckProperties::default();
        }
        Packet::SubAck(suback) => suback.properties = AckProperties::default(),
        Packet::UnsubAck(unsuback) => unsuback.properties = AckProperties::default(),
        Packet::ConnAck(connack) => {
            connack.properties.reason_string = None;
            connack.properties.user_properties = UserProperties::default();
        }
        Packet::Disconnect(disconnect) => {
            disconnect.properties.reason_string = None;
            disconnect.properties.user_properties = UserProperties::default();
        }
        Packet::Auth(auth) => {
            auth.properties.reason_string = None;
            auth.properties.user_properties = UserProperties::default();
        }
        Packet::Connect(_)
        | Packet::Publish(_)
        | Packet::Subscribe(_)
        | Packet::Unsubscribe(_)
        | Packet::PingReq
        | Packet::PingResp => {}
    }
    bare
}

/// The value of a maximum that has a default where it was not told.
pub(crate) const fn effective_max(value: Option<NonZeroU16>, default: u16) -> u16 {
    match value {
        Some(value) => value.get(),
        None => default,
    }
}

#[cfg(test)]
mod tests;
