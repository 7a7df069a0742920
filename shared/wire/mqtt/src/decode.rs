//! From bytes to packets: first the fixed header ([`frame`]), so that a packet that is too large
//! or no packet at all is refused before its body is waited for; then the body, strictly
//! ([`Packet::decode`]).
//!
//! ```text
//! | type : flags | remaining length, 1 to 4 bytes | body ............ |
//!  └────────────────────── Frame::total_len ────────────────────────┘
//! ```

use crate::error::DecodeError;
use crate::packet::{
    Ack, Auth, ConnAck, Connect, Delivery, Disconnect, Filters, Packet, PacketId, PacketType,
    Publish, QoS, ReasonCodes, Secret, SubAck, Subscribe, Subscription, Subscriptions, UnsubAck,
    Unsubscribe, Version, Will,
};
use crate::property::{
    AckProperties, AuthProperties, ConnAckProperties, ConnectProperties, DisconnectProperties,
    PublishProperties, SubscribeProperties, UnsubscribeProperties, WillProperties,
};
use crate::reason::ReasonCode;
use crate::topic::{self, TopicError};
use crate::wire::{self, Reader};

/// A whole packet whose header was checked and whose body was not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Type and flags.
    pub first_byte: u8,
    /// What follows the fixed header.
    pub body: &'a [u8],
    /// Length of header and body, bytes.
    pub total_len: usize,
}

/// A fixed header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) first_byte: u8,
    pub(crate) header_len: usize,
    pub(crate) total_len: usize,
}

/// The fixed header at the front of `input`; `None` where it is cut off.
pub(crate) fn header(input: &[u8], packet_bytes_max: u32) -> Result<Option<Header>, DecodeError> {
    let Some((&first_byte, rest)) = input.split_first() else { return Ok(None) };
    check_first_byte(first_byte)?;
    let Some((remaining, len_len)) = wire::variable(rest)? else { return Ok(None) };
    let header_len = 1 + len_len;
    let len = remaining + header_len as u32;
    // [MQTT-3.2.2-15]
    if len > packet_bytes_max {
        return Err(DecodeError::TooLarge { len, max: packet_bytes_max });
    }
    Ok(Some(Header { first_byte, header_len, total_len: len as usize }))
}

/// Type and reserved flags (table 2-2).
fn check_first_byte(first_byte: u8) -> Result<(), DecodeError> {
    let packet = PacketType::from_u8(first_byte >> 4)
        .ok_or(DecodeError::ReservedPacketType(first_byte >> 4))?;
    let flags = first_byte & 0x0F;
    match packet.fixed_flags() {
        // [MQTT-2.1.3-1], and for each packet [MQTT-3.6.1-1], [MQTT-3.8.1-1], [MQTT-3.10.1-1],
        // [MQTT-3.14.1-1], [MQTT-3.15.1-1]
        Some(fixed) if flags != fixed => Err(DecodeError::ReservedFlags { packet, flags }),
        Some(_) => Ok(()),
        None => publish_qos(flags).map(drop),
    }
}

fn publish_qos(flags: u8) -> Result<QoS, DecodeError> {
    // [MQTT-3.3.1-4]
    let qos = QoS::from_u8(flags >> 1 & 0b11).ok_or(DecodeError::QosReserved)?;
    // [MQTT-3.3.1-2]
    if qos == QoS::AtMostOnce && flags & 0b1000 != 0 {
        return Err(DecodeError::DupOnQos0);
    }
    Ok(qos)
}

/// Cuts the first whole packet off `input`, which may hold less or more than one.
///
/// `Ok(None)` asks for more bytes. `packet_bytes_max` counts header and body, as Maximum Packet
/// Size does.
///
/// # Errors
/// The header is malformed, or says a length above `packet_bytes_max`; no further byte of this
/// peer can be understood.
pub fn frame(input: &[u8], packet_bytes_max: u32) -> Result<Option<Frame<'_>>, DecodeError> {
    let Some(header) = header(input, packet_bytes_max)? else { return Ok(None) };
    Ok(input.get(header.header_len..header.total_len).map(|body| Frame {
        first_byte: header.first_byte,
        body,
        total_len: header.total_len,
    }))
}

/// How many bytes from the beginning of `input` on are needed before [`frame`] says more than it
/// says now: the whole packet's, once its header is there, and one more until then. So a packet
/// that comes in pieces need not be looked at with each of them.
///
/// # Errors
/// Those of [`frame`].
pub fn frame_needs(input: &[u8], packet_bytes_max: u32) -> Result<usize, DecodeError> {
    let header = header(input, packet_bytes_max)?;
    Ok(header.map_or(input.len() + 1, |header| header.total_len))
}

impl<'a> Frame<'a> {
    /// The type of the packet.
    ///
    /// # Errors
    /// The first byte names none. A frame made by [`frame`] always has one.
    pub fn packet_type(&self) -> Result<PacketType, DecodeError> {
        PacketType::from_u8(self.first_byte >> 4)
            .ok_or(DecodeError::ReservedPacketType(self.first_byte >> 4))
    }

    /// The version that a CONNECT of the protocol "MQTT" asks for, readable even where the
    /// packet as a whole is malformed.
    pub(crate) fn connect_version(&self) -> Option<Version> {
        match self.body.strip_prefix(b"\x00\x04MQTT")?.first()? {
            4 => Some(Version::V311),
            5 => Some(Version::V5),
            _ => None,
        }
    }
}

impl<'a> Packet<'a> {
    /// Decodes the body of `frame`. A CONNECT says its version itself; `version` is not looked
    /// at then.
    ///
    /// # Errors
    /// The bytes are not a valid packet of this version.
    pub fn decode(frame: &Frame<'a>, version: Version) -> Result<Packet<'a>, DecodeError> {
        check_first_byte(frame.first_byte)?;
        let body = Reader::new(frame.body);
        Ok(match frame.packet_type()? {
            PacketType::Publish => {
                Packet::Publish(Publish::decode(frame.first_byte & 0x0F, body, version)?)
            }
            PacketType::PubAck => Packet::PubAck(Ack::decode(PacketType::PubAck, body, version)?),
            PacketType::PubRec => Packet::PubRec(Ack::decode(PacketType::PubRec, body, version)?),
            PacketType::PubRel => Packet::PubRel(Ack::decode(PacketType::PubRel, body, version)?),
            PacketType::PubComp => {
                Packet::PubComp(Ack::decode(PacketType::PubComp, body, version)?)
            }
            PacketType::PingReq => body.finish().map(|()| Packet::PingReq)?,
            PacketType::PingResp => body.finish().map(|()| Packet::PingResp)?,
            PacketType::Subscribe => Packet::Subscribe(Subscribe::decode(body, version)?),
            PacketType::SubAck => Packet::SubAck(SubAck::decode(body, version)?),
            PacketType::Unsubscribe => Packet::Unsubscribe(Unsubscribe::decode(body, version)?),
            PacketType::UnsubAck => Packet::UnsubAck(UnsubAck::decode(body, version)?),
            PacketType::Connect => Packet::Connect(Connect::decode(body)?),
            PacketType::ConnAck => Packet::ConnAck(ConnAck::decode(body, version)?),
            PacketType::Disconnect => Packet::Disconnect(Disconnect::decode(body, version)?),
            PacketType::Auth => Packet::Auth(Auth::decode(body, version)?),
        })
    }
}

fn packet_id(body: &mut Reader<'_>) -> Result<PacketId, DecodeError> {
    // [MQTT-2.2.1-3]
    PacketId::new(body.u16()?).ok_or(DecodeError::PacketIdZero)
}

fn reason(value: u8, packet: PacketType) -> Result<ReasonCode, DecodeError> {
    // [MQTT-3.4.2-1], [MQTT-3.5.2-1], [MQTT-3.6.2-1], [MQTT-3.7.2-1], [MQTT-3.9.3-2],
    // [MQTT-3.11.3-2], [MQTT-3.14.2-1], [MQTT-3.15.2-1]
    ReasonCode::from_u8(value)
        .filter(|reason| reason.allowed_in(packet))
        .ok_or(DecodeError::ReasonCode(value))
}

/// A topic name, which may be empty here.
fn topic_name<'a>(body: &mut Reader<'a>) -> Result<&'a str, DecodeError> {
    // [MQTT-3.3.2-1]
    let topic = std::str::from_utf8(body.binary()?).map_err(|_| DecodeError::IllFormedString)?;
    match topic::check_name(topic) {
        Ok(()) | Err(TopicError::Empty) => Ok(topic),
        Err(TopicError::Null) => Err(DecodeError::NullCharacter),
        // [MQTT-3.3.2-2]
        Err(_) => Err(DecodeError::TopicName),
    }
}

impl<'a> Publish<'a> {
    /// Decodes a frame that is a PUBLISH.
    #[inline]
    pub(crate) fn decode_frame(frame: &Frame<'a>, version: Version) -> Result<Self, DecodeError> {
        Publish::decode(frame.first_byte & 0x0F, Reader::new(frame.body), version)
    }

    #[inline]
    fn decode(flags: u8, mut body: Reader<'a>, version: Version) -> Result<Self, DecodeError> {
        let topic = topic_name(&mut body)?;
        let dup = flags & 0b1000 != 0;
        let delivery = match publish_qos(flags)? {
            QoS::AtMostOnce => Delivery::AtMostOnce,
            QoS::AtLeastOnce => Delivery::AtLeastOnce { packet_id: packet_id(&mut body)?, dup },
            QoS::ExactlyOnce => Delivery::ExactlyOnce { packet_id: packet_id(&mut body)?, dup },
        };
        let properties = match version {
            Version::V311 => PublishProperties::default(),
            Version::V5 => PublishProperties::parse(body.block()?)?,
        };
        if topic.is_empty() {
            match version {
                // [3.1.1: MQTT-4.7.3-1]
                Version::V311 => return Err(DecodeError::TopicName),
                Version::V5 if properties.topic_alias.is_none() => {
                    return Err(DecodeError::TopicMissing);
                }
                Version::V5 => {}
            }
        }
        Ok(Publish { delivery, retain: flags & 1 != 0, topic, properties, payload: body.rest() })
    }
}

impl<'a> Ack<'a> {
    fn decode(
        packet: PacketType,
        mut body: Reader<'a>,
        version: Version,
    ) -> Result<Self, DecodeError> {
        let mut ack = Ack::new(packet_id(&mut body)?, ReasonCode::Success);
        // The reason may be left out when it is success, and the properties where there is none
        // (sections 3.4.2.1 and 3.4.2.2.1).
        if version == Version::V5 && !body.is_empty() {
            ack.reason = reason(body.u8()?, packet)?;
            if !body.is_empty() {
                ack.properties = AckProperties::parse(body.block()?)?;
            }
        }
        body.finish()?;
        Ok(ack)
    }
}

impl<'a> Subscribe<'a> {
    fn decode(mut body: Reader<'a>, version: Version) -> Result<Self, DecodeError> {
        let packet_id = packet_id(&mut body)?;
        let properties = match version {
            Version::V311 => SubscribeProperties::default(),
            Version::V5 => SubscribeProperties::parse(body.block()?)?,
        };
        let list = body.rest();
        // [MQTT-3.8.3-2]
        if list.is_empty() {
            return Err(DecodeError::EmptyList);
        }
        while !body.is_empty() {
            Subscription::read(&mut body, version)?;
        }
        Ok(Subscribe { packet_id, properties, subscriptions: Subscriptions::wire(list) })
    }
}

impl<'a> Unsubscribe<'a> {
    fn decode(mut body: Reader<'a>, version: Version) -> Result<Self, DecodeError> {
        let packet_id = packet_id(&mut body)?;
        let properties = match version {
            Version::V311 => UnsubscribeProperties::default(),
            Version::V5 => UnsubscribeProperties::parse(body.block()?)?,
        };
        let list = body.rest();
        // [MQTT-3.10.3-2]
        if list.is_empty() {
            return Err(DecodeError::EmptyList);
        }
        while !body.is_empty() {
            // [MQTT-3.10.3-1]
            topic::Filter::parse(body.string()?).map_err(|_| DecodeError::TopicFilter)?;
        }
        Ok(Unsubscribe { packet_id, properties, filters: Filters::wire(list) })
    }
}

impl<'a> SubAck<'a> {
    fn decode(mut body: Reader<'a>, version: Version) -> Result<Self, DecodeError> {
        let packet_id = packet_id(&mut body)?;
        let properties = match version {
            Version::V311 => AckProperties::default(),
            Version::V5 => AckProperties::parse(body.block()?)?,
        };
        let list = body.rest();
        if list.is_empty() {
            return Err(DecodeError::EmptyList);
        }
        for &value in list {
            // [3.1.1: MQTT-3.9.3-2]
            if version == Version::V311 && !matches!(value, 0..=2 | 0x80) {
                return Err(DecodeError::ReasonCode(value));
            }
            reason(value, PacketType::SubAck)?;
        }
        Ok(SubAck { packet_id, properties, reasons: ReasonCodes::wire(list) })
    }
}

impl<'a> UnsubAck<'a> {
    fn decode(mut body: Reader<'a>, version: Version) -> Result<Self, DecodeError> {
        let packet_id = packet_id(&mut body)?;
        if version == Version::V311 {
            body.finish()?;
            let (properties, reasons) = (AckProperties::default(), ReasonCodes::wire(&[]));
            return Ok(UnsubAck { packet_id, properties, reasons });
        }
        let properties = AckProperties::parse(body.block()?)?;
        let list = body.rest();
        if list.is_empty() {
            return Err(DecodeError::EmptyList);
        }
        for &value in list {
            reason(value, PacketType::UnsubAck)?;
        }
        Ok(UnsubAck { packet_id, properties, reasons: ReasonCodes::wire(list) })
    }
}

/// Bits of the connect flags (section 3.1.2.3).
pub(crate) mod connect_flag {
    pub(crate) const RESERVED: u8 = 1;
    pub(crate) const CLEAN_START: u8 = 1 << 1;
    pub(crate) const WILL: u8 = 1 << 2;
    pub(crate) const WILL_QOS_SHIFT: u8 = 3;
    pub(crate) const WILL_RETAIN: u8 = 1 << 5;
    pub(crate) const PASSWORD: u8 = 1 << 6;
    pub(crate) const USER_NAME: u8 = 1 << 7;
}

impl<'a> Connect<'a> {
    fn decode(mut body: Reader<'a>) -> Result<Self, DecodeError> {
        let version = Self::protocol(&mut body)?;
        let flags = body.u8()?;
        Self::check_flags(flags, version)?;
        let has = |flag: u8| flags & flag != 0;
        let keep_alive_s = body.u16()?;
        let properties = match version {
            Version::V311 => ConnectProperties::default(),
            Version::V5 => ConnectProperties::parse(body.block()?)?,
        };
        if properties.auth_data.is_some() && properties.auth_method.is_none() {
            return Err(DecodeError::AuthenticationMethodMissing);
        }
        // [MQTT-3.1.3-1]: client identifier, will, user name, password, in this order.
        // [MQTT-3.1.3-3], [MQTT-3.1.3-4]
        let client_id = body.string()?;
        // [MQTT-3.1.2-9]
        let will = if has(connect_flag::WILL) {
            Some(Will::decode(flags, &mut body, version)?)
        } else {
            None
        };
        // [MQTT-3.1.2-16], [MQTT-3.1.2-17], [MQTT-3.1.2-18], [MQTT-3.1.2-19], [MQTT-3.1.3-12]
        let user_name = if has(connect_flag::USER_NAME) { Some(body.string()?) } else { None };
        let password =
            if has(connect_flag::PASSWORD) { Some(Secret::new(body.binary()?)) } else { None };
        body.finish()?;
        Ok(Connect {
            version,
            clean_start: has(connect_flag::CLEAN_START),
            keep_alive_s,
            client_id,
            will,
            user_name,
            password,
            properties,
        })
    }

    fn protocol(body: &mut Reader<'_>) -> Result<Version, DecodeError> {
        let name = body.binary()?;
        let level = body.u8()?;
        match (name, level) {
            (b"MQTT", 4) => Ok(Version::V311),
            (b"MQTT", 5) => Ok(Version::V5),
            // [MQTT-3.1.2-2]. "MQIsdp" is MQTT 3.1, a version that is known and not supported.
            (b"MQTT", _) | (b"MQIsdp", 3) => Err(DecodeError::ProtocolVersion(level)),
            // [MQTT-3.1.2-1]
            _ => Err(DecodeError::ProtocolName),
        }
    }

    fn check_flags(flags: u8, version: Version) -> Result<(), DecodeError> {
        // [MQTT-3.1.2-3]
        if flags & connect_flag::RESERVED != 0 {
            return Err(DecodeError::ConnectFlags);
        }
        let will_qos = flags >> connect_flag::WILL_QOS_SHIFT & 0b11;
        if flags & connect_flag::WILL == 0 {
            // [MQTT-3.1.2-11], [MQTT-3.1.2-13]
            if will_qos != 0 || flags & connect_flag::WILL_RETAIN != 0 {
                return Err(DecodeError::WillFlags);
            }
        } else if will_qos == 3 {
            // [MQTT-3.1.2-12]
            return Err(DecodeError::WillFlags);
        }
        // [3.1.1: MQTT-3.1.2-22]; MQTT 5 lets a password come alone.
        let password_alone =
            flags & (connect_flag::USER_NAME | connect_flag::PASSWORD) == connect_flag::PASSWORD;
        if version == Version::V311 && password_alone {
            return Err(DecodeError::PasswordWithoutUserName);
        }
        Ok(())
    }
}

impl<'a> Will<'a> {
    fn decode(flags: u8, body: &mut Reader<'a>, version: Version) -> Result<Self, DecodeError> {
        let properties = match version {
            Version::V311 => WillProperties::default(),
            Version::V5 => WillProperties::parse(body.block()?)?,
        };
        // [MQTT-3.1.3-11]
        let topic = topic_name(body)?;
        // [MQTT-4.7.3-1]
        if topic.is_empty() {
            return Err(DecodeError::TopicName);
        }
        Ok(Will {
            qos: QoS::from_u8(flags >> connect_flag::WILL_QOS_SHIFT & 0b11)
                .ok_or(DecodeError::WillFlags)?,
            retain: flags & connect_flag::WILL_RETAIN != 0,
            topic,
            payload: body.binary()?,
            properties,
        })
    }
}

impl<'a> ConnAck<'a> {
    fn decode(mut body: Reader<'a>, version: Version) -> Result<Self, DecodeError> {
        let flags = body.u8()?;
        // [MQTT-3.2.2-1]
        if flags > 1 {
            return Err(DecodeError::ConnectFlags);
        }
        let code = body.u8()?;
        let reason =
            // [MQTT-3.2.2-8]
            ReasonCode::from_connack_code(code, version).ok_or(DecodeError::ReasonCode(code))?;
        // [MQTT-3.2.2-6]
        if flags == 1 && reason != ReasonCode::Success {
            return Err(DecodeError::SessionPresent);
        }
        let properties = match version {
            Version::V311 => ConnAckProperties::default(),
            Version::V5 => ConnAckProperties::parse(body.block()?)?,
        };
        body.finish()?;
        Ok(ConnAck { session_present: flags == 1, reason, properties })
    }
}

impl<'a> Disconnect<'a> {
    fn decode(mut body: Reader<'a>, version: Version) -> Result<Self, DecodeError> {
        let mut disconnect = Disconnect::default();
        // Reason and properties may be left out (sections 3.14.2.1 and 3.14.2.2.1).
        if version == Version::V5 && !body.is_empty() {
            disconnect.reason = reason(body.u8()?, PacketType::Disconnect)?;
            if !body.is_empty() {
                disconnect.properties = DisconnectProperties::parse(body.block()?)?;
            }
        }
        body.finish()?;
        Ok(disconnect)
    }
}

impl<'a> Auth<'a> {
    fn decode(mut body: Reader<'a>, version: Version) -> Result<Self, DecodeError> {
        if version == Version::V311 {
            return Err(DecodeError::ReservedPacketType(PacketType::Auth as u8));
        }
        // Reason and properties may be left out together (section 3.15.2.1).
        if body.is_empty() {
            return Ok(Auth::default());
        }
        let reason = reason(body.u8()?, PacketType::Auth)?;
        let properties = AuthProperties::parse(body.block()?)?;
        body.finish()?;
        // Section 3.15.2.2.2: the method must not be omitted.
        if properties.auth_method.is_none() {
            return Err(DecodeError::AuthenticationMethodMissing);
        }
        Ok(Auth { reason, properties })
    }
}

#[cfg(test)]
mod tests;
