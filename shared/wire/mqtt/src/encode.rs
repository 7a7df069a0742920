//! From packets to bytes, appended to a `Vec<u8>` whose room is reserved once, exactly.
//!
//! [`Packet::encode`] writes any packet. [`PublishHead`] is for a fan-out: it writes all of a
//! PUBLISH that differs from receiver to receiver, and the payload is sent from where it lies.
//!
//! ```text
//!  first byte | remaining | topic | packet | property | expiry alias ids | forward    | payload
//!             | length    |       | id     | length   |                  | properties |
//!  └───────────────────────── PublishHead, one each receiver ────────────────────────┘ └ shared ┘
//! ```

use std::num::NonZeroU16;

use crate::decode::connect_flag;
use crate::error::EncodeError;
use crate::packet::{
    Ack, Auth, ConnAck, Connect, Delivery, Disconnect, Packet, PacketType, Publish, QoS, SubAck,
    Subscribe, UnsubAck, Unsubscribe, Version, Will,
};
use crate::property::{
    AuthProperties, DisconnectProperties, ForwardProperties, SubscriptionIds, id,
};
use crate::reason::ReasonCode;
use crate::topic;
use crate::wire::{self, Counter, Sink, remaining_len, variable_len};

impl Packet<'_> {
    /// Length of the packet with its header, bytes. A CONNECT says its version itself.
    ///
    /// # Errors
    /// As [`Packet::encode`].
    pub fn encoded_len(&self, version: Version) -> Result<usize, EncodeError> {
        let remaining = self.remaining_len(version)?;
        Ok(1 + variable_len(remaining) + remaining as usize)
    }

    /// Appends the packet to `out`. A CONNECT says its version itself.
    ///
    /// # Errors
    /// A field is too long or holds what MQTT forbids, or the packet does not exist in this
    /// version; nothing was written then.
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let remaining = self.remaining_len(version)?;
        out.reserve(1 + variable_len(remaining) + remaining as usize);
        out.u8(self.first_byte());
        out.variable(remaining);
        let body_start = out.len();
        self.write_body(version, out);
        assert_eq!(out.len() - body_start, remaining as usize, "the body is as long as counted");
        Ok(())
    }

    fn first_byte(&self) -> u8 {
        let packet_type = self.packet_type();
        let flags = match self {
            Packet::Publish(publish) => publish.delivery.flags() | u8::from(publish.retain),
            _ => packet_type.fixed_flags().unwrap_or(0),
        };
        (packet_type as u8) << 4 | flags
    }

    fn remaining_len(&self, version: Version) -> Result<u32, EncodeError> {
        self.check(version)?;
        let mut counter = Counter::default();
        self.write_body(version, &mut counter);
        if counter.field_too_long {
            return Err(EncodeError::FieldTooLong);
        }
        if counter.null_character {
            return Err(EncodeError::Forbidden);
        }
        remaining_len(counter.len).ok_or(EncodeError::PacketTooLong)
    }

    fn write_body<S: Sink>(&self, version: Version, sink: &mut S) {
        match self {
            Packet::Connect(connect) => connect.write(sink),
            Packet::ConnAck(connack) => connack.write(version, sink),
            Packet::Publish(publish) => publish.write(version, sink),
            Packet::PubAck(ack)
            | Packet::PubRec(ack)
            | Packet::PubRel(ack)
            | Packet::PubComp(ack) => ack.write(version, sink),
            Packet::Subscribe(subscribe) => subscribe.write(version, sink),
            Packet::SubAck(suback) => suback.write(version, sink),
            Packet::Unsubscribe(unsubscribe) => unsubscribe.write(version, sink),
            Packet::UnsubAck(unsuback) => unsuback.write(version, sink),
            Packet::PingReq | Packet::PingResp => {}
            Packet::Disconnect(disconnect) => disconnect.write(version, sink),
            Packet::Auth(auth) => auth.write(sink),
        }
    }

    /// What the types do not rule out and the peer would refuse.
    fn check(&self, version: Version) -> Result<(), EncodeError> {
        let packet_type = self.packet_type();
        let permitted = match self {
            Packet::Connect(connect) => connect.is_permitted(),
            Packet::ConnAck(connack) => {
                connack.reason.allowed_in(packet_type)
                    && !(connack.session_present && connack.reason != ReasonCode::Success)
                    && connack.properties.qos_max != Some(QoS::ExactlyOnce)
            }
            Packet::Publish(publish) => publish.is_permitted(version),
            Packet::PubAck(ack)
            | Packet::PubRec(ack)
            | Packet::PubRel(ack)
            | Packet::PubComp(ack) => ack.reason.allowed_in(packet_type),
            Packet::Subscribe(subscribe) => subscribe.is_permitted(),
            Packet::SubAck(suback) => {
                suback.reasons.iter().next().is_some()
                    && suback.reasons.iter().all(|reason| reason.allowed_in(packet_type))
            }
            Packet::Unsubscribe(unsubscribe) => {
                let mut filters = unsubscribe.filters.iter();
                filters.next().is_some_and(is_filter) && filters.all(is_filter)
            }
            Packet::UnsubAck(unsuback) => {
                (version == Version::V311 || unsuback.reasons.iter().next().is_some())
                    && unsuback.reasons.iter().all(|reason| reason.allowed_in(packet_type))
            }
            Packet::PingReq | Packet::PingResp => true,
            Packet::Disconnect(disconnect) => disconnect.reason.allowed_in(packet_type),
            Packet::Auth(_) if version == Version::V311 => return Err(EncodeError::NotInVersion),
            Packet::Auth(auth) => {
                auth.reason.allowed_in(packet_type)
                    && (auth.properties.auth_method.is_some() || *auth == Auth::default())
            }
        };
        if permitted { Ok(()) } else { Err(EncodeError::Forbidden) }
    }
}

fn is_filter(text: &str) -> bool {
    topic::Filter::parse(text).is_ok()
}

fn is_name_or_none(text: Option<&str>) -> bool {
    text.is_none_or(|text| topic::check_name(text).is_ok())
}

impl Connect<'_> {
    fn is_permitted(&self) -> bool {
        let will_permitted = self.will.as_ref().is_none_or(|will| {
            topic::check_name(will.topic).is_ok() && is_name_or_none(will.properties.response_topic)
        });
        let password_permitted = match self.version {
            // [3.1.1: MQTT-3.1.2-22]
            Version::V311 => self.password.is_none() || self.user_name.is_some(),
            Version::V5 => true,
        };
        let auth = &self.properties;
        will_permitted
            && password_permitted
            && (auth.auth_data.is_none() || auth.auth_method.is_some())
    }

    fn flags(&self) -> u8 {
        let mut flags = 0;
        if self.clean_start {
            flags |= connect_flag::CLEAN_START;
        }
        if let Some(will) = &self.will {
            flags |= connect_flag::WILL | (will.qos as u8) << connect_flag::WILL_QOS_SHIFT;
            if will.retain {
                flags |= connect_flag::WILL_RETAIN;
            }
        }
        if self.user_name.is_some() {
            flags |= connect_flag::USER_NAME;
        }
        if self.password.is_some() {
            flags |= connect_flag::PASSWORD;
        }
        flags
    }

    fn write<S: Sink>(&self, sink: &mut S) {
        sink.string("MQTT");
        sink.u8(self.version.level());
        sink.u8(self.flags());
        sink.u16(self.keep_alive_s);
        if self.version == Version::V5 {
            self.properties.write_block(sink);
        }
        sink.string(self.client_id);
        if let Some(will) = &self.will {
            will.write(self.version, sink);
        }
        if let Some(user_name) = self.user_name {
            sink.string(user_name);
        }
        if let Some(password) = self.password {
            sink.binary(password.expose());
        }
    }
}

impl Will<'_> {
    fn write<S: Sink>(&self, version: Version, sink: &mut S) {
        if version == Version::V5 {
            self.properties.write_block(sink);
        }
        sink.string(self.topic);
        sink.binary(self.payload);
    }
}

impl ConnAck<'_> {
    fn write<S: Sink>(&self, version: Version, sink: &mut S) {
        sink.u8(u8::from(self.session_present));
        sink.u8(self.reason.connack_code(version));
        if version == Version::V5 {
            self.properties.write_block(sink);
        }
    }
}

impl Publish<'_> {
    fn is_permitted(&self, version: Version) -> bool {
        let alias = version == Version::V5 && self.properties.topic_alias.is_some();
        (topic::check_name(self.topic).is_ok() || (self.topic.is_empty() && alias))
            && is_name_or_none(self.properties.response_topic)
    }

    fn write<S: Sink>(&self, version: Version, sink: &mut S) {
        sink.string(self.topic);
        if let Some(packet_id) = self.delivery.packet_id() {
            sink.u16(packet_id.get());
        }
        if version == Version::V5 {
            self.properties.write_block(sink);
        }
        sink.put(self.payload);
    }
}

impl Ack<'_> {
    fn write<S: Sink>(&self, version: Version, sink: &mut S) {
        sink.u16(self.packet_id.get());
        let properties = !self.properties.is_empty();
        if version == Version::V5 && (self.reason != ReasonCode::Success || properties) {
            sink.u8(self.reason.as_u8());
            if properties {
                self.properties.write_block(sink);
            }
        }
    }
}

impl Subscribe<'_> {
    fn is_permitted(&self) -> bool {
        let is_subscription = |subscription: crate::Subscription<'_>| {
            topic::Filter::parse(subscription.filter)
                .is_ok_and(|filter| !(subscription.no_local && filter.share.is_some()))
        };
        let mut list = self.subscriptions.iter();
        list.next().is_some_and(is_subscription) && list.all(is_subscription)
    }

    fn write<S: Sink>(&self, version: Version, sink: &mut S) {
        sink.u16(self.packet_id.get());
        if version == Version::V5 {
            self.properties.write_block(sink);
        }
        for subscription in self.subscriptions.iter() {
            sink.string(subscription.filter);
            sink.u8(subscription.options(version));
        }
    }
}

impl SubAck<'_> {
    fn write<S: Sink>(&self, version: Version, sink: &mut S) {
        sink.u16(self.packet_id.get());
        if version == Version::V5 {
            self.properties.write_block(sink);
        }
        for reason in self.reasons.iter() {
            sink.u8(reason.suback_code(version));
        }
    }
}

impl Unsubscribe<'_> {
    fn write<S: Sink>(&self, version: Version, sink: &mut S) {
        sink.u16(self.packet_id.get());
        if version == Version::V5 {
            self.properties.write_block(sink);
        }
        for filter in self.filters.iter() {
            sink.string(filter);
        }
    }
}

impl UnsubAck<'_> {
    fn write<S: Sink>(&self, version: Version, sink: &mut S) {
        sink.u16(self.packet_id.get());
        if version == Version::V5 {
            self.properties.write_block(sink);
            for reason in self.reasons.iter() {
                sink.u8(reason.as_u8());
            }
        }
    }
}

impl Disconnect<'_> {
    fn write<S: Sink>(&self, version: Version, sink: &mut S) {
        let properties = self.properties != DisconnectProperties::default();
        if version == Version::V5 && (self.reason != ReasonCode::Success || properties) {
            sink.u8(self.reason.as_u8());
            if properties {
                self.properties.write_block(sink);
            }
        }
    }
}

impl Auth<'_> {
    fn write<S: Sink>(&self, sink: &mut S) {
        if self.reason != ReasonCode::Success || self.properties != AuthProperties::default() {
            sink.u8(self.reason.as_u8());
            self.properties.write_block(sink);
        }
    }
}

/// A PUBLISH of a message that many receivers share, without its payload.
///
/// The topic name is written as it is: it must have been decoded or checked before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PublishHead<'a> {
    /// QoS, and what belongs to it.
    pub delivery: Delivery,
    /// The RETAIN flag for this receiver.
    pub retain: bool,
    /// The topic name; empty where `topic_alias` stands for it.
    pub topic: &'a str,
    /// A number for the topic (MQTT 5).
    pub topic_alias: Option<NonZeroU16>,
    /// What is left of the message's life, seconds (MQTT 5) `[MQTT-3.3.2-6]`.
    pub message_expiry_s: Option<u32>,
    /// Identifiers of the subscriptions that it matched (MQTT 5) `[MQTT-3.3.4-3]`.
    pub subscription_ids: SubscriptionIds<'a>,
    /// What goes to every receiver alike (MQTT 5).
    pub forward: ForwardProperties<'a>,
    /// Length of the payload that follows, bytes.
    pub payload_len: usize,
}

impl<'a> PublishHead<'a> {
    /// The head of a message with nothing but a topic and a payload.
    pub const fn new(delivery: Delivery, topic: &'a str, payload_len: usize) -> Self {
        PublishHead {
            delivery,
            retain: false,
            topic,
            topic_alias: None,
            message_expiry_s: None,
            subscription_ids: SubscriptionIds::new(&[]),
            forward: ForwardProperties::EMPTY,
            payload_len,
        }
    }

    fn properties_len(&self) -> usize {
        let ids = self.subscription_ids.iter();
        let ids_len: usize = ids.map(|id| 1 + variable_len(id.get())).sum();
        self.forward.as_bytes().len()
            + self.message_expiry_s.map_or(0, |_| 5)
            + self.topic_alias.map_or(0, |_| 3)
            + ids_len
    }

    /// Lengths of the property block and of all that follows the fixed header.
    fn lens(&self, version: Version) -> Result<(u32, u32), EncodeError> {
        if self.topic.len() > usize::from(u16::MAX) {
            return Err(EncodeError::FieldTooLong);
        }
        let fixed = 2 + self.topic.len() + self.delivery.packet_id().map_or(0, |_| 2);
        let (properties_len, block_len) = match version {
            Version::V311 => (0, 0),
            Version::V5 => {
                let len = remaining_len(self.properties_len()).ok_or(EncodeError::PacketTooLong)?;
                (len, variable_len(len) + len as usize)
            }
        };
        let remaining = self
            .payload_len
            .checked_add(fixed + block_len)
            .and_then(remaining_len)
            .ok_or(EncodeError::PacketTooLong)?;
        Ok((properties_len, remaining))
    }

    /// Length of the whole packet, payload included, bytes.
    ///
    /// # Errors
    /// As [`PublishHead::encode`].
    pub fn encoded_len(&self, version: Version) -> Result<usize, EncodeError> {
        let (_, remaining) = self.lens(version)?;
        Ok(1 + variable_len(remaining) + remaining as usize)
    }

    /// Appends all that comes before the payload. Whoever sends it sends `payload_len` bytes of
    /// payload next.
    ///
    /// # Errors
    /// The topic is longer than 65,535 bytes or the packet than MQTT allows; nothing was
    /// written.
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        self.encode_within(version, u32::MAX, out)
    }

    /// [`PublishHead::encode`], unless the packet would be larger than `packet_bytes_max`.
    pub(crate) fn encode_within(
        &self,
        version: Version,
        packet_bytes_max: u32,
        out: &mut Vec<u8>,
    ) -> Result<(), EncodeError> {
        let (properties_len, remaining) = self.lens(version)?;
        let len = remaining + 1 + variable_len(remaining) as u32;
        // [MQTT-3.1.2-24]
        if len > packet_bytes_max {
            return Err(EncodeError::TooLarge { len, max: packet_bytes_max });
        }
        out.reserve(len as usize - self.payload_len);
        out.u8((PacketType::Publish as u8) << 4 | self.delivery.flags() | u8::from(self.retain));
        out.variable(remaining);
        out.string(self.topic);
        if let Some(packet_id) = self.delivery.packet_id() {
            out.u16(packet_id.get());
        }
        if version == Version::V5 {
            out.variable(properties_len);
            self.write_properties(out);
        }
        Ok(())
    }

    fn write_properties(&self, out: &mut Vec<u8>) {
        if let Some(seconds) = self.message_expiry_s {
            out.u8(id::MESSAGE_EXPIRY);
            wire::Sink::u32(out, seconds);
        }
        if let Some(alias) = self.topic_alias {
            out.u8(id::TOPIC_ALIAS);
            out.u16(alias.get());
        }
        for subscription_id in self.subscription_ids.iter() {
            out.u8(id::SUBSCRIPTION_ID);
            out.variable(subscription_id.get());
        }
        out.put(self.forward.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::{Filters, PacketId, ReasonCodes, Secret, Subscription, Subscriptions};
    use crate::property::{
        AckProperties, ConnAckProperties, PayloadFormat, PublishProperties, SubscribeProperties,
        SubscriptionId, UnsubscribeProperties, UserProperties,
    };
    use Version::{V5, V311};

    const ID: PacketId = PacketId::MIN;

    #[track_caller]
    fn encodes(version: Version, packet: &Packet<'_>, expected: &[u8]) {
        let mut out = vec![0xEE];
        packet.encode(version, &mut out).unwrap();
        assert_eq!(&out[1..], expected);
        assert_eq!(packet.encoded_len(version), Ok(expected.len()));
    }

    #[track_caller]
    fn refuses(version: Version, packet: &Packet<'_>, error: EncodeError) {
        let mut out = Vec::new();
        assert_eq!(packet.encode(version, &mut out), Err(error));
        assert!(out.is_empty());
    }

    fn publish<'a>(topic: &'a str, payload: &'a [u8]) -> Publish<'a> {
        Publish {
            delivery: Delivery::AtMostOnce,
            retain: false,
            topic,
            properties: PublishProperties::default(),
            payload,
        }
    }

    // [MQTT-2.2.2-1]
    #[test]
    fn mqtt_2_2_2_1_the_shortest_form_is_written() {
        let ack = Ack::new(ID, ReasonCode::Success);
        encodes(V5, &Packet::PubAck(ack), &[0x40, 2, 0, 1]);
        encodes(V311, &Packet::PubRec(ack), &[0x50, 2, 0, 1]);
        let failed = Ack::new(ID, ReasonCode::PacketIdentifierNotFound);
        encodes(V5, &Packet::PubRel(failed), &[0x62, 3, 0, 1, 0x92]);
        encodes(V311, &Packet::PubComp(failed), &[0x70, 2, 0, 1]);
        let properties = AckProperties { reason_string: Some("r"), ..AckProperties::default() };
        let told = Ack { properties, ..ack };
        encodes(V5, &Packet::PubComp(told), &[0x70, 8, 0, 1, 0, 4, 0x1F, 0, 1, b'r']);
        encodes(V5, &Packet::Disconnect(Disconnect::default()), &[0xE0, 0]);
        let reason = ReasonCode::SessionTakenOver;
        let disconnect = Disconnect { reason, ..Disconnect::default() };
        encodes(V5, &Packet::Disconnect(disconnect), &[0xE0, 1, 0x8E]);
        encodes(V311, &Packet::Disconnect(disconnect), &[0xE0, 0]);
        encodes(V5, &Packet::Auth(Auth::default()), &[0xF0, 0]);
        encodes(V5, &Packet::PingReq, &[0xC0, 0]);
        encodes(V311, &Packet::PingResp, &[0xD0, 0]);
        encodes(V5, &Packet::ConnAck(ConnAck::default()), &[0x20, 3, 0, 0, 0]);
    }

    #[test]
    fn mqtt_3_2_2_3_connack_codes_of_3_1_1_are_mapped() {
        use ReasonCode as R;
        let codes = [
            (R::Success, 0),
            (R::UnsupportedProtocolVersion, 1),
            (R::ClientIdentifierNotValid, 2),
            (R::ServerBusy, 3),
            (R::UseAnotherServer, 3),
            (R::BadUserNameOrPassword, 4),
            (R::NotAuthorized, 5),
            (R::Banned, 5),
        ];
        for (reason, code) in codes {
            let connack = Packet::ConnAck(ConnAck { reason, ..ConnAck::default() });
            encodes(V311, &connack, &[0x20, 2, 0, code]);
            encodes(V5, &connack, &[0x20, 3, 0, reason.as_u8(), 0]);
        }
    }

    // [3.1.1: MQTT-3.8.4-6], [3.1.1: MQTT-3.9.3-2]
    #[test]
    fn mqtt_3_9_3_of_3_1_1_every_failed_subscription_is_0x80() {
        let reasons = [ReasonCode::GrantedQos2, ReasonCode::NotAuthorized];
        let suback = Packet::SubAck(SubAck {
            packet_id: ID,
            properties: AckProperties::default(),
            reasons: ReasonCodes::new(&reasons),
        });
        encodes(V311, &suback, &[0x90, 4, 0, 1, 2, 0x80]);
        encodes(V5, &suback, &[0x90, 5, 0, 1, 0, 2, 0x87]);
    }

    #[test]
    fn a_connect_is_written_in_the_order_of_mqtt_3_1_3_1() {
        let mut connect = Connect::new(V311, "c");
        connect.keep_alive_s = 10;
        connect.user_name = Some("u");
        connect.password = Some(Secret::new(b"p"));
        connect.will = Some(Will {
            qos: QoS::ExactlyOnce,
            retain: true,
            topic: "w",
            payload: b"x",
            properties: crate::WillProperties::default(),
        });
        let expected = b"\x10\x19\x00\x04MQTT\x04\xF6\x00\x0A\0\x01c\0\x01w\0\x01x\0\x01u\0\x01p";
        encodes(V5, &Packet::Connect(connect), expected);
    }

    #[test]
    fn what_mqtt_forbids_is_not_written() {
        let forbidden = EncodeError::Forbidden;
        for topic in ["", "a/#", "a\0"] {
            refuses(V5, &Packet::Publish(publish(topic, b"")), forbidden);
        }
        let long = "a".repeat(65_536);
        refuses(V5, &Packet::Publish(publish(&long, b"")), forbidden);
        let mut connect = Connect::new(V5, &long);
        refuses(V5, &Packet::Connect(connect), EncodeError::FieldTooLong);
        connect.client_id = "a\0";
        refuses(V5, &Packet::Connect(connect), forbidden);
        refuses(V311, &Packet::Auth(Auth::default()), EncodeError::NotInVersion);
        let reason = ReasonCode::NotAuthorized;
        refuses(V5, &Packet::PubRel(Ack::new(ID, reason)), forbidden);
        refuses(V5, &Packet::Auth(Auth { reason, ..Auth::default() }), forbidden);
        let connack = ConnAck { reason, session_present: true, ..ConnAck::default() };
        refuses(V5, &Packet::ConnAck(connack), forbidden);
        let properties =
            ConnAckProperties { qos_max: Some(QoS::ExactlyOnce), ..ConnAckProperties::default() };
        refuses(V5, &Packet::ConnAck(ConnAck { properties, ..ConnAck::default() }), forbidden);
        let unsubscribe = |filters| {
            Packet::Unsubscribe(Unsubscribe {
                packet_id: ID,
                properties: UnsubscribeProperties::default(),
                filters: Filters::new(filters),
            })
        };
        refuses(V5, &unsubscribe(&[]), forbidden);
        refuses(V5, &unsubscribe(&["a", "b#"]), forbidden);
        let shared =
            Subscription { no_local: true, ..Subscription::new("$share/g/a", QoS::AtMostOnce) };
        for list in [&[][..], &[shared]] {
            let subscribe = Subscribe {
                packet_id: ID,
                properties: SubscribeProperties::default(),
                subscriptions: Subscriptions::new(list),
            };
            refuses(V5, &Packet::Subscribe(subscribe), forbidden);
        }
    }

    #[test]
    fn a_packet_beyond_the_largest_length_is_not_written() {
        let payload = vec![0; crate::REMAINING_LEN_MAX as usize];
        refuses(V311, &Packet::Publish(publish("a", &payload)), EncodeError::PacketTooLong);
        let head = PublishHead::new(Delivery::AtMostOnce, "a", usize::MAX);
        assert_eq!(head.encode(V5, &mut Vec::new()), Err(EncodeError::PacketTooLong));
        let fits = PublishHead::new(Delivery::AtMostOnce, "a", payload.len() - 3);
        assert_eq!(fits.encoded_len(V311), Ok(payload.len() + 5));
    }

    #[test]
    fn a_head_and_its_payload_are_the_packet() {
        let ids = [SubscriptionId::new(1).unwrap(), SubscriptionId::new(200).unwrap()];
        let pairs = [("name", "value"), ("name", "other")];
        for version in [V311, V5] {
            for delivery in [
                Delivery::AtMostOnce,
                Delivery::AtLeastOnce { packet_id: ID, dup: true },
                Delivery::ExactlyOnce { packet_id: ID, dup: false },
            ] {
                let whole = Publish {
                    delivery,
                    retain: true,
                    topic: "a/b",
                    properties: PublishProperties {
                        payload_format: Some(PayloadFormat::Text),
                        message_expiry_s: Some(9),
                        topic_alias: NonZeroU16::new(3),
                        response_topic: Some("r"),
                        correlation_data: Some(b"\x00\xFF"),
                        subscription_ids: SubscriptionIds::new(&ids),
                        content_type: Some("t"),
                        user_properties: UserProperties::new(&pairs),
                    },
                    payload: b"payload",
                };
                let mut forward = Vec::new();
                whole.properties.write_forward(&mut forward);
                let head = PublishHead {
                    delivery,
                    retain: true,
                    topic: "a/b",
                    topic_alias: NonZeroU16::new(3),
                    message_expiry_s: Some(9),
                    subscription_ids: SubscriptionIds::new(&ids),
                    forward: ForwardProperties::parse(&forward).unwrap(),
                    payload_len: 7,
                };
                let mut out = Vec::new();
                head.encode(version, &mut out).unwrap();
                out.extend_from_slice(b"payload");
                assert_eq!(Ok(out.len()), head.encoded_len(version));
                let frame = crate::frame(&out, u32::MAX).unwrap().unwrap();
                let decoded = Packet::decode(&frame, version).unwrap();
                let expected = match version {
                    V5 => whole,
                    V311 => Publish { properties: PublishProperties::default(), ..whole },
                };
                assert_eq!(decoded, Packet::Publish(expected));
            }
        }
    }

    #[test]
    fn forwarded_properties_hold_nothing_of_one_receiver() {
        for block in [&[0x02, 0, 0, 0, 1][..], &[0x23, 0, 1], &[0x0B, 1], &[0x11, 0, 0, 0, 1], &[1]]
        {
            assert!(ForwardProperties::parse(block).is_err(), "{block:?}");
        }
        let wrong = ForwardProperties::trusted(&[0xFF]);
        assert_eq!(wrong.properties(), PublishProperties::default());
    }
}
