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
mod tests {
    use super::*;
    use crate::decode::frame;
    use crate::handshake::{AcceptOptions, AwaitingConnect, ServerLimits};
    use crate::packet::{ConnAck, Connect, Delivery, Subscription, Subscriptions};
    use crate::property::{
        ConnAckProperties, PublishProperties, SubscribeProperties, SubscriptionId, SubscriptionIds,
    };
    use Version::{V5, V311};

    const ID: PacketId = PacketId::MIN;

    fn link_of(connect: &Connect<'_>, limits: &ServerLimits) -> Link {
        let mut bytes = Vec::new();
        Packet::Connect(*connect).encode(connect.version, &mut bytes).unwrap();
        let frame = frame(&bytes, u32::MAX).unwrap().unwrap();
        let (connecting, _) = AwaitingConnect::new(0, limits).handle(0, &frame, limits).unwrap();
        let accepted = AcceptOptions::default();
        connecting.accept(0, limits, &accepted, &mut Vec::new()).unwrap()
    }

    fn link(version: Version) -> Link {
        link_of(&Connect::new(version, "c"), &ServerLimits::default())
    }

    fn publish(delivery: Delivery, topic: &str) -> Packet<'_> {
        let properties = PublishProperties::default();
        Packet::Publish(Publish { delivery, retain: false, topic, properties, payload: b"" })
    }

    fn qos1(packet_id: u16) -> Packet<'static> {
        let packet_id = PacketId::new(packet_id).unwrap();
        publish(Delivery::AtLeastOnce { packet_id, dup: false }, "t")
    }

    #[test]
    fn an_idle_link_is_small() {
        assert_eq!(size_of::<Link>(), 40);
        assert!(link(V5).rare.is_none());
    }

    // [MQTT-3.1.0-2]
    #[test]
    fn mqtt_3_1_0_2_a_second_connect_is_a_protocol_error() {
        let connect = Packet::Connect(Connect::new(V5, "c"));
        let fault = link(V5).handle(0, connect).unwrap_err();
        assert_eq!(fault, Fault::SecondConnect);
        assert_eq!(fault.reason(), ReasonCode::ProtocolError);
        assert!(fault.is_violation());
        // One of another version could not even be decoded.
        let other = frame(b"\x10\x0D\x00\x04MQTT\x09\x02\0\0\0\x01c", 100).unwrap().unwrap();
        assert_eq!(link(V5).handle_frame(0, &other), Err(Fault::SecondConnect));
    }

    #[test]
    fn packets_of_a_server_are_a_protocol_error() {
        let reasons = [ReasonCode::Success];
        let (properties, reasons) = (AckProperties::default(), ReasonCodes::new(&reasons));
        for packet in [
            Packet::ConnAck(crate::ConnAck::default()),
            Packet::SubAck(SubAck { packet_id: ID, properties, reasons }),
            Packet::UnsubAck(UnsubAck { packet_id: ID, properties, reasons }),
            Packet::PingResp,
        ] {
            let fault = link(V5).handle(0, packet).unwrap_err();
            assert_eq!(fault, Fault::Unexpected(packet.packet_type()));
        }
    }

    // [MQTT-3.1.2-22]
    #[test]
    fn mqtt_3_1_2_22_the_keep_alive_ends_after_one_and_a_half() {
        let mut connect = Connect::new(V311, "c");
        connect.keep_alive_s = 10;
        let mut link = link_of(&connect, &ServerLimits::default());
        assert_eq!(link.deadline(), Some(15_000));
        assert_eq!(link.handle_timeout(14_999), Ok(()));
        link.handle(14_000, Packet::PingReq).unwrap();
        assert_eq!(link.handle_timeout(15_000), Ok(()));
        let fault = link.handle_timeout(29_000).unwrap_err();
        assert_eq!(fault, Fault::KeepAliveTimeout);
        assert_eq!(fault.reason(), ReasonCode::KeepAliveTimeout);
        assert!(!fault.is_violation());
        connect.keep_alive_s = 0;
        let never = link_of(&connect, &ServerLimits::default());
        assert_eq!((never.deadline(), never.handle_timeout(u64::MAX)), (None, Ok(())));
    }

    // [MQTT-3.3.4-7]
    #[test]
    fn mqtt_3_3_4_7_more_than_receive_maximum_in_flight_is_a_fault() {
        let limits =
            ServerLimits { receive_max: NonZeroU16::new(2).unwrap(), ..ServerLimits::default() };
        let mut link = link_of(&Connect::new(V5, "c"), &limits);
        link.handle(0, qos1(1)).unwrap();
        let packet_id = PacketId::new(2).unwrap();
        link.handle(0, publish(Delivery::ExactlyOnce { packet_id, dup: false }, "t")).unwrap();
        link.handle(0, publish(Delivery::AtMostOnce, "t")).unwrap();
        assert!(link.is_receive_full());
        let out = &mut Vec::new();
        // A PUBREC of success keeps the room taken, PUBCOMP gives it back.
        link.pubrec(packet_id, ReasonCode::Success, out).unwrap();
        assert_eq!(link.receiving(), 2);
        link.pubcomp(packet_id, ReasonCode::PacketIdentifierNotFound, out).unwrap();
        assert_eq!(link.receiving(), 2);
        link.pubcomp(packet_id, ReasonCode::Success, out).unwrap();
        assert_eq!(link.receiving(), 1);
        link.handle(0, publish(Delivery::ExactlyOnce { packet_id, dup: false }, "t")).unwrap();
        link.pubrec(packet_id, ReasonCode::QuotaExceeded, out).unwrap();
        link.puback(ID, ReasonCode::Success, out).unwrap();
        assert_eq!(link.receiving(), 0);
        link.handle(0, qos1(1)).unwrap();
        link.handle(0, qos1(2)).unwrap();
        let fault = link.handle(0, qos1(3)).unwrap_err();
        assert_eq!(fault.reason(), ReasonCode::ReceiveMaximumExceeded);
    }

    #[test]
    fn a_client_of_3_1_1_has_no_receive_maximum_but_fills_it() {
        let mut link = link(V311);
        for packet_id in 1..=100 {
            link.handle(0, qos1(packet_id)).unwrap();
        }
        assert!(link.is_receive_full());
        for _ in 0..37 {
            link.forget_received();
        }
        assert!(!link.is_receive_full());
    }

    // [MQTT-3.3.4-6]
    #[test]
    fn mqtt_3_3_4_6_a_client_sends_no_subscription_identifier() {
        let ids = [SubscriptionId::new(1).unwrap()];
        let subscription_ids = SubscriptionIds::new(&ids);
        let properties = PublishProperties { subscription_ids, ..PublishProperties::default() };
        let delivery = Delivery::AtMostOnce;
        let packet = Publish { delivery, retain: false, topic: "t", properties, payload: b"" };
        let fault = link(V5).handle(0, Packet::Publish(packet)).unwrap_err();
        assert_eq!(fault, Fault::SubscriptionIdFromClient);
    }

    // [MQTT-3.3.2-7]
    #[test]
    fn mqtt_3_3_2_7_an_alias_is_resolved_within_one_connection() {
        let aliased = |topic| {
            let topic_alias = NonZeroU16::new(1);
            let properties = PublishProperties { topic_alias, ..PublishProperties::default() };
            let delivery = Delivery::AtMostOnce;
            Packet::Publish(Publish { delivery, retain: false, topic, properties, payload: b"" })
        };
        let mut first = link(V5);
        for topic in ["a/b", ""] {
            let Ok(Event::Publish { topic, .. }) = first.handle(0, aliased(topic)) else {
                panic!()
            };
            assert_eq!(&*topic, "a/b");
        }
        let fault = link(V5).handle(0, aliased("")).unwrap_err();
        assert_eq!(fault, Fault::TopicAliasUnknown(1));
    }

    #[test]
    fn names_and_filters_beyond_the_limits_are_faults() {
        let topics = TopicLimits { bytes_max: 100, levels_max: 2 };
        let limits = ServerLimits { topics, ..ServerLimits::default() };
        let mut link = link_of(&Connect::new(V5, "c"), &limits);
        assert!(link.handle(0, publish(Delivery::AtMostOnce, "a/b")).is_ok());
        let fault = link.handle(0, publish(Delivery::AtMostOnce, "a/b/c")).unwrap_err();
        assert_eq!(fault.reason(), ReasonCode::TopicNameInvalid);
        let list =
            [Subscription::new("a", QoS::AtMostOnce), Subscription::new("a/b/#", QoS::AtMostOnce)];
        let subscribe = Packet::Subscribe(Subscribe {
            packet_id: ID,
            properties: SubscribeProperties::default(),
            subscriptions: Subscriptions::new(&list),
        });
        let fault = link.handle(0, subscribe).unwrap_err();
        assert_eq!(fault.reason(), ReasonCode::TopicFilterInvalid);
    }

    // [MQTT-4.12.0-7], [MQTT-4.12.1-1]
    #[test]
    fn mqtt_4_12_0_6_auth_needs_the_method_of_connect() {
        let auth = |auth_method, reason| {
            let properties = AuthProperties { auth_method, ..AuthProperties::default() };
            Packet::Auth(Auth { reason, properties })
        };
        let again = ReasonCode::ReAuthenticate;
        let without = link(V5).handle(0, auth(Some("m"), again)).unwrap_err();
        assert_eq!(without, Fault::AuthenticationMethod);
        let out = &mut Vec::new();
        assert_eq!(link(V5).auth(again, None, out), Err(EncodeError::Forbidden));

        let mut connect = Connect::new(V5, "c");
        connect.properties.auth_method = Some("m");
        let mut link = link_of(&connect, &ServerLimits::default());
        assert!(matches!(link.handle(0, auth(Some("m"), again)), Ok(Event::Auth(_))));
        // [MQTT-4.12.1-1]
        let other = link.handle(0, auth(Some("n"), again)).unwrap_err();
        assert_eq!(other, Fault::AuthenticationMethod);
        let success = link.handle(0, auth(Some("m"), ReasonCode::Success)).unwrap_err();
        assert_eq!(success, Fault::ReasonNotAllowed(ReasonCode::Success));
        link.auth(ReasonCode::Success, Some(b"x"), out).unwrap();
        assert_eq!(out, b"\xF0\x0A\x00\x08\x15\0\x01m\x16\0\x01x");
    }

    #[test]
    fn a_session_of_expiry_0_is_not_made_to_last() {
        let disconnect = |session_expiry_s| {
            let properties = DisconnectProperties { session_expiry_s, ..Default::default() };
            Packet::Disconnect(Disconnect { reason: ReasonCode::Success, properties })
        };
        let fault = link(V5).handle(0, disconnect(Some(1))).unwrap_err();
        assert_eq!(fault, Fault::SessionExpiryRaised);
        assert!(link(V5).handle(0, disconnect(Some(0))).is_ok());
        let mut connect = Connect::new(V5, "c");
        connect.properties.session_expiry_s = Some(5);
        let mut lasting = link_of(&connect, &ServerLimits::default());
        assert!(lasting.handle(0, disconnect(Some(100))).is_ok());
    }

    // [MQTT-3.1.2-29]
    #[test]
    fn mqtt_3_1_2_29_problem_information_is_left_out_where_it_is_not_wanted() {
        let properties = AckProperties { reason_string: Some("why"), ..AckProperties::default() };
        let puback = Packet::PubAck(Ack { packet_id: ID, reason: ReasonCode::Success, properties });
        let mut connect = Connect::new(V5, "c");
        for (wants, len) in [(None, 12), (Some(true), 12), (Some(false), 4)] {
            connect.properties.request_problem_info = wants;
            let mut link = link_of(&connect, &ServerLimits::default());
            let mut out = Vec::new();
            link.send(&puback, &mut out).unwrap();
            assert_eq!(out.len(), len, "{wants:?}");
            // DISCONNECT may say why in any case.
            let mut out = Vec::new();
            link.disconnect(ReasonCode::ServerBusy, Some("why"), &mut out).unwrap();
            assert_eq!(out.len(), 10);
        }
    }

    // [MQTT-3.1.2-24], [MQTT-3.14.2-3]
    #[test]
    fn mqtt_3_1_2_24_no_packet_is_larger_than_the_client_takes() {
        let mut connect = Connect::new(V5, "c");
        connect.properties.packet_bytes_max = std::num::NonZeroU32::new(8);
        let limits = ServerLimits::default();
        let mut bytes = Vec::new();
        Packet::Connect(connect).encode(V5, &mut bytes).unwrap();
        let connect_frame = frame(&bytes, 1000).unwrap().unwrap();
        let connecting =
            AwaitingConnect::new(0, &limits).handle(0, &connect_frame, &limits).unwrap().0;
        let accepted = AcceptOptions::default();
        let refused = connecting.accept(0, &limits, &accepted, &mut Vec::new());
        assert!(matches!(refused, Err(EncodeError::TooLarge { max: 8, .. })));

        connect.properties.packet_bytes_max = std::num::NonZeroU32::new(20);
        let mut link = link_of(&connect, &limits);
        assert_eq!(link.peer_packet_bytes_max(), 20);
        let mut out = Vec::new();
        let head = PublishHead::new(Delivery::AtMostOnce, "t", 14);
        link.publish_head(&head, &mut out).unwrap();
        assert_eq!(out.len() + 14, 20);
        out.clear();
        let head = PublishHead::new(Delivery::AtMostOnce, "t", 15);
        let error = EncodeError::TooLarge { len: 21, max: 20 };
        assert_eq!(link.publish_head(&head, &mut out), Err(error));
        assert!(out.is_empty());
        // A reason string that does not fit is left out.
        link.disconnect(ReasonCode::ServerBusy, Some(&"why".repeat(9)), &mut out).unwrap();
        assert_eq!(out, [0xE0, 1, 0x89]);
    }

    // [MQTT-3.2.2-19], [MQTT-3.2.2-20], [MQTT-3.4.2-2], [MQTT-3.4.2-3], [MQTT-3.5.2-2]
    // [MQTT-3.5.2-3], [MQTT-3.6.2-2], [MQTT-3.6.2-3], [MQTT-3.7.2-2], [MQTT-3.7.2-3]
    // [MQTT-3.9.2-1], [MQTT-3.9.2-2], [MQTT-3.11.2-1], [MQTT-3.11.2-2], [MQTT-3.14.2-3]
    // [MQTT-3.14.2-4], [MQTT-3.15.2-2], [MQTT-3.15.2-3]
    #[test]
    fn words_for_a_person_are_left_out_where_they_would_not_fit() {
        let pairs = [("name", "value")];
        for (reason_string, pairs) in [(Some("why"), &[][..]), (None, &pairs[..])] {
            let user_properties = UserProperties::new(pairs);
            let properties = AckProperties { reason_string, user_properties };
            let ack = Ack { packet_id: ID, reason: ReasonCode::Success, properties };
            let codes = [ReasonCode::Success];
            let reasons = ReasonCodes::new(&codes);
            let auth_method = Some("m");
            let packets = [
                Packet::PubAck(ack),
                Packet::PubRec(ack),
                Packet::PubRel(ack),
                Packet::PubComp(ack),
                Packet::SubAck(SubAck { packet_id: ID, properties, reasons }),
                Packet::UnsubAck(UnsubAck { packet_id: ID, properties, reasons }),
                Packet::ConnAck(ConnAck {
                    session_present: false,
                    reason: ReasonCode::Success,
                    properties: ConnAckProperties {
                        reason_string,
                        user_properties,
                        ..ConnAckProperties::default()
                    },
                }),
                Packet::Disconnect(Disconnect {
                    reason: ReasonCode::ServerBusy,
                    properties: DisconnectProperties {
                        reason_string,
                        user_properties,
                        ..DisconnectProperties::default()
                    },
                }),
                Packet::Auth(Auth {
                    reason: ReasonCode::ContinueAuthentication,
                    properties: AuthProperties {
                        auth_method,
                        reason_string,
                        user_properties,
                        ..AuthProperties::default()
                    },
                }),
            ];
            for packet in packets {
                let whole = packet.encoded_len(V5).unwrap();
                let bare = without_problem_info(&packet).encoded_len(V5).unwrap();
                assert!(bare < whole, "{packet:?}");
                for (max, len) in [(whole, whole), (whole - 1, bare), (bare, bare)] {
                    let mut out = Vec::new();
                    encode_within(&packet, V5, max as u32, &mut out).unwrap();
                    assert_eq!(out.len(), len, "{packet:?} within {max}");
                }
            }
        }
    }

    #[test]
    fn a_server_of_3_1_1_sends_no_disconnect() {
        let mut out = Vec::new();
        link(V311).disconnect(ReasonCode::ServerBusy, None, &mut out).unwrap();
        assert!(out.is_empty());
    }

    // [MQTT-3.1.2-26], [MQTT-3.1.2-27], [MQTT-3.3.2-11]
    #[test]
    fn mqtt_3_1_2_27_without_a_topic_alias_maximum_no_alias_is_given() {
        let limits = ServerLimits { outbound_alias_max: 16, ..ServerLimits::default() };
        let mut connect = Connect::new(V5, "c");
        assert_eq!(link_of(&connect, &limits).outbound_alias("t"), None);
        connect.properties.topic_alias_max = Some(1);
        let mut link = link_of(&connect, &limits);
        let one = NonZeroU16::MIN;
        assert_eq!(link.outbound_alias("t"), Some(OutboundAlias::Establish(one)));
        assert_eq!(link.outbound_alias("t"), Some(OutboundAlias::Use(one)));
        assert_eq!(link.outbound_alias("u"), None);
    }

    // [MQTT-3.1.2-26], [MQTT-3.1.2-27], [MQTT-3.3.2-11]
    #[test]
    fn mqtt_3_1_2_26_an_alias_that_many_share_is_told_once_and_not_above_the_maximum() {
        let limits = ServerLimits { outbound_alias_max: 16, ..ServerLimits::default() };
        let mut connect = Connect::new(V5, "c");
        let (one, two) = (NonZeroU16::MIN, NonZeroU16::MIN.saturating_add(1));
        assert!(!link_of(&connect, &limits).takes_aliases());
        assert_eq!(link_of(&connect, &limits).shared_alias(one, 7), None);
        connect.properties.topic_alias_max = Some(1);
        let mut link = link_of(&connect, &limits);
        assert_eq!(link.shared_alias(two, 7), None);
        assert_eq!(link.shared_alias(one, 7), Some(OutboundAlias::Establish(one)));
        link.note_shared_alias(one, 7);
        assert_eq!(link.shared_alias(one, 7), Some(OutboundAlias::Use(one)));
        assert_eq!(link.shared_alias(one, 8), Some(OutboundAlias::Establish(one)));
    }

    // [MQTT-2.2.1-6], [MQTT-3.8.4-1], [MQTT-3.8.4-2], [MQTT-3.10.4-4], [MQTT-3.12.4-1]
    #[test]
    fn mqtt_3_8_4_and_3_10_4_and_3_12_4_every_request_has_its_answer() {
        let mut link = link(V5);
        let mut out = Vec::new();
        link.suback(ID, &[ReasonCode::GrantedQos1, ReasonCode::NotAuthorized], &mut out).unwrap();
        link.unsuback(ID, &[ReasonCode::NoSubscriptionExisted], &mut out).unwrap();
        link.pingresp(&mut out).unwrap();
        link.pubrel(ID, ReasonCode::Success, &mut out).unwrap();
        let expected = b"\x90\x05\0\x01\0\x01\x87\xB0\x04\0\x01\0\x11\xD0\0\x62\x02\0\x01";
        assert_eq!(out, expected);
    }
}
