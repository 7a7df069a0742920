//! The client's end of one network connection: what a load generator, a command line and the
//! tests of the server need.
//!
//! ```text
//! ClientHandshake::start (CONNECT) ── CONNACK 0 ──► ClientLink
//!        └── CONNACK ≥ 0x80 ──► close      ◄── AUTH ──► any number of steps
//! ```

use std::num::NonZeroU32;

use crate::alias::{InboundAliases, OutboundAlias, OutboundAliases, Topic};
use crate::decode::Frame;
use crate::encode::PublishHead;
use crate::error::{EncodeError, Fault};
use crate::link::{effective_max, encode_within};
use crate::packet::{
    Ack, Auth, ConnAck, Connect, Disconnect, Filters, Packet, PacketId, Publish, QoS, SubAck,
    Subscribe, Subscription, Subscriptions, UnsubAck, Unsubscribe, Version,
};
use crate::property::{DisconnectProperties, SubscribeProperties, UnsubscribeProperties};
use crate::reason::ReasonCode;

/// A connection that sent its CONNECT.
#[derive(Debug)]
pub struct ClientHandshake {
    link: ClientLink,
}

/// What the handshake came to.
#[derive(Debug)]
pub enum ClientStep<'p> {
    /// The server wants another step of an extended authentication: answer with
    /// [`ClientHandshake::auth`].
    Auth(ClientHandshake, Auth<'p>),
    /// The connection is established.
    Connected(ClientLink, ConnAck<'p>),
    /// The server refused; close.
    Refused(ConnAck<'p>),
}

impl ClientHandshake {
    /// Appends the CONNECT.
    ///
    /// # Errors
    /// CONNECT holds what MQTT forbids. Nothing was written.
    pub fn start(
        now_ms: u64,
        connect: &Connect<'_>,
        out: &mut Vec<u8>,
    ) -> Result<ClientHandshake, EncodeError> {
        Packet::Connect(*connect).encode(connect.version, out)?;
        let asked = &connect.properties;
        Ok(ClientHandshake {
            link: ClientLink {
                last_sent_ms: now_ms,
                ping_sent_ms: None,
                auth_method: asked.auth_method.map(Box::from),
                inbound_aliases: InboundAliases::default(),
                outbound_aliases: OutboundAliases::default(),
                packet_bytes_max: u32::MAX,
                receive_max: effective_max(asked.receive_max, u16::MAX),
                receiving: 0,
                peer_receive_max: u16::MAX,
                keep_alive_s: connect.keep_alive_s,
                inbound_alias_max: asked.topic_alias_max.unwrap_or(0),
                outbound_alias_max: 0,
                version: connect.version,
            },
        })
    }

    /// Appends the client's next step of an extended authentication.
    ///
    /// # Errors
    /// CONNECT named no method, or the packet does not fit.
    pub fn auth(
        &mut self,
        now_ms: u64,
        data: Option<&[u8]>,
        out: &mut Vec<u8>,
    ) -> Result<(), EncodeError> {
        self.link.auth(now_ms, ReasonCode::ContinueAuthentication, data, out)
    }

    /// Takes the server's answer.
    ///
    /// # Errors
    /// It is neither CONNACK nor an AUTH that CONNECT allows: close.
    pub fn handle<'p>(mut self, frame: &Frame<'p>) -> Result<ClientStep<'p>, Fault> {
        match Packet::decode(frame, self.link.version)? {
            Packet::ConnAck(connack) if connack.reason != ReasonCode::Success => {
                Ok(ClientStep::Refused(connack))
            }
            Packet::ConnAck(connack) => {
                self.link.agree(&connack);
                Ok(ClientStep::Connected(self.link, connack))
            }
            Packet::Auth(auth) => {
                self.link.check_auth(&auth)?;
                Ok(ClientStep::Auth(self, auth))
            }
            other => Err(Fault::Unexpected(other.packet_type())),
        }
    }
}

/// What a server did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientEvent<'p> {
    /// A message. Above QoS 0 answer with PUBACK or PUBREC.
    Publish {
        /// Its topic name, an alias resolved.
        topic: Topic<'p>,
        /// The packet; its own topic may be empty.
        publish: Publish<'p>,
    },
    /// A QoS 1 message was acknowledged or refused.
    PubAck(Ack<'p>),
    /// A QoS 2 message was received or refused. Answer with PUBREL.
    PubRec(Ack<'p>),
    /// A QoS 2 message of the server is released. Answer with PUBCOMP.
    PubRel(Ack<'p>),
    /// A QoS 2 message is complete.
    PubComp(Ack<'p>),
    /// The subscriptions were made or refused.
    SubAck(SubAck<'p>),
    /// The subscriptions were removed.
    UnsubAck(UnsubAck<'p>),
    /// The server is there.
    PingResp,
    /// The server closes the connection.
    Disconnect(Disconnect<'p>),
    /// A step of a re-authentication.
    Auth(Auth<'p>),
}

/// The client's end of an established connection.
#[derive(Debug)]
pub struct ClientLink {
    last_sent_ms: u64,
    /// When a PINGREQ was sent that was not answered yet.
    ping_sent_ms: Option<u64>,
    auth_method: Option<Box<str>>,
    inbound_aliases: InboundAliases,
    outbound_aliases: OutboundAliases,
    /// The server's Maximum Packet Size, bytes.
    packet_bytes_max: u32,
    /// Ours, and how many the server has in flight.
    receive_max: u16,
    receiving: u16,
    /// The server's.
    peer_receive_max: u16,
    keep_alive_s: u16,
    inbound_alias_max: u16,
    outbound_alias_max: u16,
    version: Version,
}

impl ClientLink {
    fn agree(&mut self, connack: &ConnAck<'_>) {
        let told = &connack.properties;
        self.packet_bytes_max = told.packet_bytes_max.map_or(u32::MAX, NonZeroU32::get);
        self.peer_receive_max = effective_max(told.receive_max, u16::MAX);
        self.outbound_alias_max = told.topic_alias_max.unwrap_or(0);
        // [MQTT-3.1.2-21]
        self.keep_alive_s = told.server_keep_alive_s.unwrap_or(self.keep_alive_s);
    }

    /// The version of the connection.
    pub const fn version(&self) -> Version {
        self.version
    }

    /// How many QoS 1 and 2 publishes the server takes at once; what
    /// [`Session::resume`](crate::Session::resume) wants to know.
    pub const fn peer_receive_max(&self) -> u16 {
        self.peer_receive_max
    }

    /// The largest packet the server takes, bytes.
    pub const fn peer_packet_bytes_max(&self) -> u32 {
        self.packet_bytes_max
    }

    /// The keep-alive in force, seconds; 0 is none.
    pub const fn keep_alive_s(&self) -> u16 {
        self.keep_alive_s
    }

    const fn keep_alive_ms(&self) -> u64 {
        self.keep_alive_s as u64 * 1000
    }

    /// When to call [`ClientLink::handle_timeout`]; none without a keep-alive.
    pub const fn deadline(&self) -> Option<u64> {
        if self.keep_alive_s == 0 {
            return None;
        }
        let since = match self.ping_sent_ms {
            Some(ping_sent_ms) => ping_sent_ms,
            None => self.last_sent_ms,
        };
        Some(since.saturating_add(self.keep_alive_ms()))
    }

    /// Tells the time: appends a PINGREQ when nothing was sent for a keep-alive
    /// `[MQTT-3.1.2-20]`.
    ///
    /// # Errors
    /// The last PINGREQ was not answered for a keep-alive: close.
    pub fn handle_timeout(&mut self, now_ms: u64, out: &mut Vec<u8>) -> Result<(), Fault> {
        if self.deadline().is_none_or(|deadline| now_ms < deadline) {
            return Ok(());
        }
        if self.ping_sent_ms.is_some() {
            return Err(Fault::KeepAliveTimeout);
        }
        // A server that takes no packet of two bytes cannot be pinged; it will be silent, too.
        let _ = self.send(now_ms, &Packet::PingReq, out);
        self.ping_sent_ms = Some(now_ms);
        Ok(())
    }

    /// Decodes a frame and handles its packet.
    ///
    /// # Errors
    /// As [`ClientLink::handle`], or the frame is not a valid packet.
    pub fn handle_frame<'p>(&mut self, frame: &Frame<'p>) -> Result<ClientEvent<'p>, Fault> {
        let packet = Packet::decode(frame, self.version)?;
        self.handle(packet)
    }

    /// Takes a packet of the server.
    ///
    /// # Errors
    /// The server broke a rule: send a DISCONNECT with [`Fault::reason`] and close.
    pub fn handle<'p>(&mut self, packet: Packet<'p>) -> Result<ClientEvent<'p>, Fault> {
        match packet {
            Packet::Publish(publish) => self.handle_publish(publish),
            Packet::PubAck(ack) => Ok(ClientEvent::PubAck(ack)),
            Packet::PubRec(ack) => Ok(ClientEvent::PubRec(ack)),
            Packet::PubRel(ack) => Ok(ClientEvent::PubRel(ack)),
            Packet::PubComp(ack) => Ok(ClientEvent::PubComp(ack)),
            Packet::SubAck(suback) => Ok(ClientEvent::SubAck(suback)),
            Packet::UnsubAck(unsuback) => Ok(ClientEvent::UnsubAck(unsuback)),
            Packet::PingResp => {
                self.ping_sent_ms = None;
                Ok(ClientEvent::PingResp)
            }
            Packet::Disconnect(disconnect) if self.version == Version::V5 => {
                // [MQTT-3.14.2-2]
                if disconnect.properties.session_expiry_s.is_some() {
                    return Err(Fault::SessionExpiryFromServer);
                }
                Ok(ClientEvent::Disconnect(disconnect))
            }
            Packet::Auth(auth) => {
                self.check_auth(&auth)?;
                Ok(ClientEvent::Auth(auth))
            }
            other => Err(Fault::Unexpected(other.packet_type())),
        }
    }

    fn handle_publish<'p>(&mut self, publish: Publish<'p>) -> Result<ClientEvent<'p>, Fault> {
        let topic = match publish.properties.topic_alias {
            None => Topic::Borrowed(publish.topic),
            Some(alias) => {
                self.inbound_aliases.resolve(alias, publish.topic, self.inbound_alias_max)?
            }
        };
        if publish.delivery.qos() > QoS::AtMostOnce {
            // [MQTT-3.3.4-9]
            if self.version == Version::V5 && self.receiving >= self.receive_max {
                return Err(Fault::ReceiveMaximumExceeded);
            }
            self.receiving = self.receiving.saturating_add(1);
        }
        Ok(ClientEvent::Publish { topic, publish })
    }

    fn check_auth(&self, auth: &Auth<'_>) -> Result<(), Fault> {
        if self.auth_method.is_none() || auth.properties.auth_method != self.auth_method.as_deref()
        {
            return Err(Fault::AuthenticationMethod);
        }
        match auth.reason {
            ReasonCode::ReAuthenticate => Err(Fault::ReasonNotAllowed(auth.reason)),
            _ => Ok(()),
        }
    }

    /// The alias to send with the next PUBLISH to `topic`, among the first `alias_max` that the
    /// server takes. The PUBLISH must then be sent, and in this order.
    pub fn outbound_alias(&mut self, topic: &str, alias_max: u16) -> Option<OutboundAlias> {
        self.outbound_aliases.alias(topic, alias_max.min(self.outbound_alias_max))
    }

    /// Appends any packet, within the server's limits.
    ///
    /// # Errors
    /// The packet is too large or holds what MQTT forbids. Nothing was written.
    pub fn send(
        &mut self,
        now_ms: u64,
        packet: &Packet<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), EncodeError> {
        encode_within(packet, self.version, self.packet_bytes_max, out)?;
        self.last_sent_ms = now_ms;
        let ends = match packet {
            Packet::PubAck(_) => true,
            Packet::PubRec(ack) => ack.reason.is_error(),
            Packet::PubComp(ack) => !ack.reason.is_error(),
            _ => false,
        };
        if ends {
            self.receiving = self.receiving.saturating_sub(1);
        }
        Ok(())
    }

    /// Appends a PUBLISH without its payload, which the caller sends next.
    ///
    /// # Errors
    /// The packet is larger than the server takes. Nothing was written.
    pub fn publish_head(
        &mut self,
        now_ms: u64,
        head: &PublishHead<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), EncodeError> {
        head.encode_within(self.version, self.packet_bytes_max, out)?;
        self.last_sent_ms = now_ms;
        Ok(())
    }

    /// Appends a SUBSCRIBE. The identifier is one of
    /// [`Session::reserve_id`](crate::Session::reserve_id), since publishes share the numbers.
    ///
    /// # Errors
    /// As [`ClientLink::send`].
    pub fn subscribe(
        &mut self,
        now_ms: u64,
        packet_id: PacketId,
        subscriptions: &[Subscription<'_>],
        out: &mut Vec<u8>,
    ) -> Result<(), EncodeError> {
        let subscribe = Subscribe {
            packet_id,
            properties: SubscribeProperties::default(),
            subscriptions: Subscriptions::new(subscriptions),
        };
        self.send(now_ms, &Packet::Subscribe(subscribe), out)
    }

    /// Appends an UNSUBSCRIBE, with an identifier as for [`ClientLink::subscribe`].
    ///
    /// # Errors
    /// As [`ClientLink::send`].
    pub fn unsubscribe(
        &mut self,
        now_ms: u64,
        packet_id: PacketId,
        filters: &[&str],
        out: &mut Vec<u8>,
    ) -> Result<(), EncodeError> {
        let unsubscribe = Unsubscribe {
            packet_id,
            properties: UnsubscribeProperties::default(),
            filters: Filters::new(filters),
        };
        self.send(now_ms, &Packet::Unsubscribe(unsubscribe), out)
    }

    /// Appends an AUTH with the method of CONNECT `[MQTT-4.12.0-5]`.
    ///
    /// # Errors
    /// CONNECT named no method, or as [`ClientLink::send`].
    pub fn auth(
        &mut self,
        now_ms: u64,
        reason: ReasonCode,
        data: Option<&[u8]>,
        out: &mut Vec<u8>,
    ) -> Result<(), EncodeError> {
        let Some(method) = self.auth_method.take() else { return Err(EncodeError::Forbidden) };
        let properties = crate::AuthProperties {
            auth_method: Some(&method),
            auth_data: data.map(crate::Secret::new),
            ..crate::AuthProperties::default()
        };
        let result = self.send(now_ms, &Packet::Auth(Auth { reason, properties }), out);
        self.auth_method = Some(method);
        result
    }

    /// Appends a DISCONNECT; its reason is left out in MQTT 3.1.1. Then close
    /// `[MQTT-3.14.4-2]`.
    ///
    /// # Errors
    /// As [`ClientLink::send`]; close all the same.
    pub fn disconnect(
        &mut self,
        now_ms: u64,
        reason: ReasonCode,
        out: &mut Vec<u8>,
    ) -> Result<(), EncodeError> {
        let properties = DisconnectProperties::default();
        self.send(now_ms, &Packet::Disconnect(Disconnect { reason, properties }), out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::frame;
    use crate::property::{ConnAckProperties, PublishProperties};
    use crate::{Delivery, PacketType};
    use Version::{V5, V311};

    fn step<'p>(connect: &Connect<'_>, bytes: &'p [u8]) -> Result<ClientStep<'p>, Fault> {
        let handshake = ClientHandshake::start(0, connect, &mut Vec::new()).unwrap();
        handshake.handle(&frame(bytes, u32::MAX).unwrap().unwrap())
    }

    fn connected(connect: &Connect<'_>, properties: ConnAckProperties<'_>) -> ClientLink {
        let mut bytes = Vec::new();
        let connack = ConnAck { properties, ..ConnAck::default() };
        Packet::ConnAck(connack).encode(connect.version, &mut bytes).unwrap();
        let Ok(ClientStep::Connected(link, _)) = step(connect, &bytes) else { panic!() };
        link
    }

    #[test]
    fn a_refusal_is_told() {
        let Ok(ClientStep::Refused(connack)) = step(&Connect::new(V311, "c"), &[0x20, 2, 0, 5])
        else {
            panic!()
        };
        assert_eq!(connack.reason, ReasonCode::NotAuthorized);
    }

    #[test]
    fn mqtt_3_2_0_1_a_server_begins_with_connack_or_auth() {
        let connect = Connect::new(V5, "c");
        let fault = step(&connect, &[0xD0, 0]).unwrap_err();
        assert_eq!(fault, Fault::Unexpected(PacketType::PingResp));
        let auth = b"\xF0\x06\x18\x04\x15\0\x01m";
        assert_eq!(step(&connect, auth).unwrap_err(), Fault::AuthenticationMethod);
        let mut with_method = connect;
        with_method.properties.auth_method = Some("m");
        let Ok(ClientStep::Auth(mut handshake, _)) = step(&with_method, auth) else { panic!() };
        let mut out = Vec::new();
        handshake.auth(0, None, &mut out).unwrap();
        assert_eq!(out, auth);
        let connack = b"\x20\x07\0\0\x04\x15\0\x01m";
        let connack = frame(connack, 100).unwrap().unwrap();
        assert!(matches!(handshake.handle(&connack), Ok(ClientStep::Connected(..))));
    }

    #[test]
    fn mqtt_3_1_2_20_a_client_that_sends_nothing_pings() {
        let mut connect = Connect::new(V311, "c");
        connect.keep_alive_s = 10;
        let mut link = connected(&connect, ConnAckProperties::default());
        let mut out = Vec::new();
        assert_eq!(link.deadline(), Some(10_000));
        link.handle_timeout(9_999, &mut out).unwrap();
        assert!(out.is_empty());
        link.publish_head(4_000, &PublishHead::new(Delivery::AtMostOnce, "t", 0), &mut out)
            .unwrap();
        out.clear();
        link.handle_timeout(10_000, &mut out).unwrap();
        assert!(out.is_empty());
        link.handle_timeout(14_000, &mut out).unwrap();
        assert_eq!(out, [0xC0, 0]);
        assert_eq!(link.deadline(), Some(24_000));
        link.handle(Packet::PingResp).unwrap();
        link.handle_timeout(24_000, &mut out).unwrap();
        assert_eq!(out, [0xC0, 0, 0xC0, 0]);
        assert_eq!(link.handle_timeout(34_000, &mut out), Err(Fault::KeepAliveTimeout));
    }

    #[test]
    fn mqtt_3_1_2_21_the_server_keep_alive_is_used() {
        let properties =
            ConnAckProperties { server_keep_alive_s: Some(3), ..ConnAckProperties::default() };
        let mut connect = Connect::new(V5, "c");
        connect.keep_alive_s = 10;
        assert_eq!(connected(&connect, properties).keep_alive_s(), 3);
    }

    #[test]
    fn mqtt_3_3_4_9_a_server_keeps_to_the_receive_maximum() {
        let mut connect = Connect::new(V5, "c");
        connect.properties.receive_max = std::num::NonZeroU16::new(1);
        let mut link = connected(&connect, ConnAckProperties::default());
        let publish = Packet::Publish(Publish {
            delivery: Delivery::AtLeastOnce { packet_id: PacketId::MIN, dup: false },
            retain: false,
            topic: "t",
            properties: PublishProperties::default(),
            payload: b"",
        });
        link.handle(publish).unwrap();
        let ack = Ack::new(PacketId::MIN, ReasonCode::Success);
        link.send(0, &Packet::PubAck(ack), &mut Vec::new()).unwrap();
        link.handle(publish).unwrap();
        assert_eq!(link.handle(publish), Err(Fault::ReceiveMaximumExceeded));
    }

    #[test]
    fn mqtt_3_14_2_2_a_server_sets_no_session_expiry() {
        let mut link = connected(&Connect::new(V5, "c"), ConnAckProperties::default());
        let properties =
            DisconnectProperties { session_expiry_s: Some(1), ..DisconnectProperties::default() };
        let disconnect = Disconnect { reason: ReasonCode::ServerBusy, properties };
        let fault = link.handle(Packet::Disconnect(disconnect)).unwrap_err();
        assert_eq!(fault, Fault::SessionExpiryFromServer);
        let mut link = connected(&Connect::new(V311, "c"), ConnAckProperties::default());
        assert!(link.handle(Packet::Disconnect(Disconnect::default())).is_err());
    }

    #[test]
    fn packets_of_a_client_are_a_protocol_error() {
        let mut link = connected(&Connect::new(V5, "c"), ConnAckProperties::default());
        for packet in [Packet::PingReq, Packet::Connect(Connect::new(V5, "c"))] {
            assert_eq!(link.handle(packet), Err(Fault::Unexpected(packet.packet_type())));
        }
        let subscriptions = [Subscription::new("a/#", QoS::AtLeastOnce)];
        let mut out = Vec::new();
        link.subscribe(0, PacketId::MIN, &subscriptions, &mut out).unwrap();
        link.unsubscribe(0, PacketId::MIN, &["a/#"], &mut out).unwrap();
        link.disconnect(0, ReasonCode::DisconnectWithWill, &mut out).unwrap();
        let expected = b"\x82\x09\0\x01\0\0\x03a/#\x01\xA2\x08\0\x01\0\0\x03a/#\xE0\x01\x04";
        assert_eq!(out, expected);
    }
}
