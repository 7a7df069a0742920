//! The fifteen control packets as values that borrow from the bytes they were decoded from.
//!
//! Lists (subscriptions, filters, reason codes) are either validated bytes of a packet, walked
//! when iterated, or a slice of the caller's; both read alike. Whatever MQTT 3.1.1 does not have
//! (properties, most reason codes) decodes to its default and is left out when encoded for it.

use std::fmt;
use std::num::NonZeroU16;

use crate::error::DecodeError;
use crate::property::{
    AckProperties, AuthProperties, ConnAckProperties, ConnectProperties, DisconnectProperties,
    PublishProperties, SubscribeProperties, UnsubscribeProperties, WillProperties,
};
use crate::reason::ReasonCode;
use crate::topic;
use crate::wire::Reader;

/// A version of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Version {
    /// MQTT 3.1.1, protocol level 4.
    V311,
    /// MQTT 5.0, protocol level 5.
    V5,
}

impl Version {
    /// The protocol level byte of CONNECT.
    pub const fn level(self) -> u8 {
        match self {
            Version::V311 => 4,
            Version::V5 => 5,
        }
    }
}

/// Quality of service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(u8)]
pub enum QoS {
    /// QoS 0: at most once.
    #[default]
    AtMostOnce = 0,
    /// QoS 1: at least once.
    AtLeastOnce = 1,
    /// QoS 2: exactly once.
    ExactlyOnce = 2,
}

impl QoS {
    /// The QoS of this number; 3 is none.
    pub const fn from_u8(value: u8) -> Option<QoS> {
        match value {
            0 => Some(QoS::AtMostOnce),
            1 => Some(QoS::AtLeastOnce),
            2 => Some(QoS::ExactlyOnce),
            _ => None,
        }
    }

    /// The reason code that grants it in a SUBACK.
    pub const fn granted(self) -> ReasonCode {
        match self {
            QoS::AtMostOnce => ReasonCode::GRANTED_QOS_0,
            QoS::AtLeastOnce => ReasonCode::GrantedQos1,
            QoS::ExactlyOnce => ReasonCode::GrantedQos2,
        }
    }
}

/// A packet identifier, 1 to 65,535.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PacketId(NonZeroU16);

impl PacketId {
    /// The first identifier.
    pub const MIN: PacketId = PacketId(NonZeroU16::MIN);

    /// The identifier of this number; 0 is none `[MQTT-2.2.1-3]`.
    pub const fn new(value: u16) -> Option<PacketId> {
        match NonZeroU16::new(value) {
            Some(value) => Some(PacketId(value)),
            None => None,
        }
    }

    /// The number.
    pub const fn get(self) -> u16 {
        self.0.get()
    }

    /// The identifier before; 65,535 precedes 1.
    pub(crate) const fn previous(self) -> PacketId {
        match NonZeroU16::new(self.get() - 1) {
            Some(value) => PacketId(value),
            None => PacketId(NonZeroU16::MAX),
        }
    }

    /// The next identifier; 1 follows 65,535.
    pub const fn next(self) -> PacketId {
        match self.0.checked_add(1) {
            Some(value) => PacketId(value),
            None => PacketId::MIN,
        }
    }
}

impl fmt::Debug for PacketId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

impl fmt::Display for PacketId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The type of a control packet, the upper half of its first byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
#[expect(missing_docs, reason = "the names are those of the standard")]
pub enum PacketType {
    Connect = 1,
    ConnAck = 2,
    Publish = 3,
    PubAck = 4,
    PubRec = 5,
    PubRel = 6,
    PubComp = 7,
    Subscribe = 8,
    SubAck = 9,
    Unsubscribe = 10,
    UnsubAck = 11,
    PingReq = 12,
    PingResp = 13,
    Disconnect = 14,
    Auth = 15,
}

impl PacketType {
    /// The packet type of this number; 0 is none.
    pub const fn from_u8(value: u8) -> Option<PacketType> {
        Some(match value {
            1 => PacketType::Connect,
            2 => PacketType::ConnAck,
            3 => PacketType::Publish,
            4 => PacketType::PubAck,
            5 => PacketType::PubRec,
            6 => PacketType::PubRel,
            7 => PacketType::PubComp,
            8 => PacketType::Subscribe,
            9 => PacketType::SubAck,
            10 => PacketType::Unsubscribe,
            11 => PacketType::UnsubAck,
            12 => PacketType::PingReq,
            13 => PacketType::PingResp,
            14 => PacketType::Disconnect,
            15 => PacketType::Auth,
            _ => return None,
        })
    }

    /// The flags that table 2-2 fixes; `None` for PUBLISH, whose flags mean something.
    pub const fn fixed_flags(self) -> Option<u8> {
        match self {
            PacketType::Publish => None,
            PacketType::PubRel | PacketType::Subscribe | PacketType::Unsubscribe => Some(0b0010),
            _ => Some(0),
        }
    }
}

/// Bytes that logs must not show: a password, authentication data. `Debug` prints their length.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Secret<'a>(&'a [u8]);

impl<'a> Secret<'a> {
    /// Hides `bytes`.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Secret(bytes)
    }

    /// The bytes. Compare them in constant time.
    pub const fn expose(self) -> &'a [u8] {
        self.0
    }
}

impl fmt::Debug for Secret<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({} bytes)", self.0.len())
    }
}

/// Any control packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are those of the standard")]
pub enum Packet<'a> {
    Connect(Connect<'a>),
    ConnAck(ConnAck<'a>),
    Publish(Publish<'a>),
    PubAck(Ack<'a>),
    PubRec(Ack<'a>),
    PubRel(Ack<'a>),
    PubComp(Ack<'a>),
    Subscribe(Subscribe<'a>),
    SubAck(SubAck<'a>),
    Unsubscribe(Unsubscribe<'a>),
    UnsubAck(UnsubAck<'a>),
    PingReq,
    PingResp,
    Disconnect(Disconnect<'a>),
    Auth(Auth<'a>),
}

impl Packet<'_> {
    /// The packet's type.
    pub const fn packet_type(&self) -> PacketType {
        match self {
            Packet::Connect(_) => PacketType::Connect,
            Packet::ConnAck(_) => PacketType::ConnAck,
            Packet::Publish(_) => PacketType::Publish,
            Packet::PubAck(_) => PacketType::PubAck,
            Packet::PubRec(_) => PacketType::PubRec,
            Packet::PubRel(_) => PacketType::PubRel,
            Packet::PubComp(_) => PacketType::PubComp,
            Packet::Subscribe(_) => PacketType::Subscribe,
            Packet::SubAck(_) => PacketType::SubAck,
            Packet::Unsubscribe(_) => PacketType::Unsubscribe,
            Packet::UnsubAck(_) => PacketType::UnsubAck,
            Packet::PingReq => PacketType::PingReq,
            Packet::PingResp => PacketType::PingResp,
            Packet::Disconnect(_) => PacketType::Disconnect,
            Packet::Auth(_) => PacketType::Auth,
        }
    }
}

/// CONNECT: a client asks for a connection (section 3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connect<'a> {
    /// The version that the whole connection will speak.
    pub version: Version,
    /// Begin without the old session. MQTT 3.1.1 calls it "clean session", and the session then
    /// also ends with the connection.
    pub clean_start: bool,
    /// The longest pause between two packets, seconds; 0 is none.
    pub keep_alive_s: u16,
    /// The client's name; empty asks the server to assign one.
    pub client_id: &'a str,
    /// What to publish when the connection is lost.
    pub will: Option<Will<'a>>,
    /// Who connects.
    pub user_name: Option<&'a str>,
    /// What proves it.
    pub password: Option<Secret<'a>>,
    /// MQTT 5 properties.
    pub properties: ConnectProperties<'a>,
}

impl<'a> Connect<'a> {
    /// A CONNECT with a clean start, no keep-alive, no will and no credentials.
    pub fn new(version: Version, client_id: &'a str) -> Self {
        Connect {
            version,
            clean_start: true,
            keep_alive_s: 0,
            client_id,
            will: None,
            user_name: None,
            password: None,
            properties: ConnectProperties::default(),
        }
    }

    /// How long the session outlives the connection, seconds; `u32::MAX` is for ever.
    pub fn session_expiry_s(&self) -> u32 {
        match self.version {
            Version::V311 if self.clean_start => 0,
            Version::V311 => u32::MAX,
            Version::V5 => self.properties.session_expiry_s.unwrap_or(0),
        }
    }
}

/// The will of a CONNECT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Will<'a> {
    /// With which QoS to publish it.
    pub qos: QoS,
    /// Whether to retain it.
    pub retain: bool,
    /// Where to publish it.
    pub topic: &'a str,
    /// The message, at most 65,535 bytes.
    pub payload: &'a [u8],
    /// MQTT 5 properties.
    pub properties: WillProperties<'a>,
}

/// CONNACK: the server's answer to CONNECT (section 3.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ConnAck<'a> {
    /// Whether the server still had the session.
    pub session_present: bool,
    /// Success, or why not.
    pub reason: ReasonCode,
    /// MQTT 5 properties.
    pub properties: ConnAckProperties<'a>,
}

/// How a PUBLISH is delivered: what it has beside the QoS follows from the QoS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// QoS 0: no packet identifier `[MQTT-2.2.1-2]`, never a duplicate `[MQTT-3.3.1-2]`.
    AtMostOnce,
    /// QoS 1.
    AtLeastOnce {
        /// The identifier of the exchange.
        packet_id: PacketId,
        /// Sent before.
        dup: bool,
    },
    /// QoS 2.
    ExactlyOnce {
        /// The identifier of the exchange.
        packet_id: PacketId,
        /// Sent before.
        dup: bool,
    },
}

impl Delivery {
    /// The QoS.
    pub const fn qos(self) -> QoS {
        match self {
            Delivery::AtMostOnce => QoS::AtMostOnce,
            Delivery::AtLeastOnce { .. } => QoS::AtLeastOnce,
            Delivery::ExactlyOnce { .. } => QoS::ExactlyOnce,
        }
    }

    /// The packet identifier, above QoS 0.
    pub const fn packet_id(self) -> Option<PacketId> {
        match self {
            Delivery::AtMostOnce => None,
            Delivery::AtLeastOnce { packet_id, .. } | Delivery::ExactlyOnce { packet_id, .. } => {
                Some(packet_id)
            }
        }
    }

    /// Whether it was sent before.
    pub const fn dup(self) -> bool {
        match self {
            Delivery::AtMostOnce => false,
            Delivery::AtLeastOnce { dup, .. } | Delivery::ExactlyOnce { dup, .. } => dup,
        }
    }

    /// The delivery of these parts; `packet_id` and `dup` are ignored for QoS 0, and `None` is
    /// answered where a packet identifier is missing.
    pub const fn new(qos: QoS, packet_id: Option<PacketId>, dup: bool) -> Option<Delivery> {
        match (qos, packet_id) {
            (QoS::AtMostOnce, _) => Some(Delivery::AtMostOnce),
            (QoS::AtLeastOnce, Some(packet_id)) => Some(Delivery::AtLeastOnce { packet_id, dup }),
            (QoS::ExactlyOnce, Some(packet_id)) => Some(Delivery::ExactlyOnce { packet_id, dup }),
            _ => None,
        }
    }

    /// The lower half of the first byte, without RETAIN.
    pub(crate) const fn flags(self) -> u8 {
        (self.dup() as u8) << 3 | (self.qos() as u8) << 1
    }
}

/// PUBLISH: a message (section 3.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Publish<'a> {
    /// QoS, and what belongs to it.
    pub delivery: Delivery,
    /// Retain it, or: it was retained.
    pub retain: bool,
    /// The topic name; empty where [`PublishProperties::topic_alias`] stands for it.
    pub topic: &'a str,
    /// MQTT 5 properties.
    pub properties: PublishProperties<'a>,
    /// The message.
    pub payload: &'a [u8],
}

/// PUBACK, PUBREC, PUBREL or PUBCOMP (sections 3.4 to 3.7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ack<'a> {
    /// The identifier of the PUBLISH.
    pub packet_id: PacketId,
    /// The outcome; always success in MQTT 3.1.1.
    pub reason: ReasonCode,
    /// MQTT 5 properties.
    pub properties: AckProperties<'a>,
}

impl Ack<'_> {
    /// An acknowledgement without properties.
    pub fn new(packet_id: PacketId, reason: ReasonCode) -> Self {
        Ack { packet_id, reason, properties: AckProperties::default() }
    }
}

/// SUBSCRIBE (section 3.8).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subscribe<'a> {
    /// The identifier that SUBACK repeats.
    pub packet_id: PacketId,
    /// MQTT 5 properties.
    pub properties: SubscribeProperties<'a>,
    /// What to subscribe to, at least one.
    pub subscriptions: Subscriptions<'a>,
}

/// When a new subscription gets the retained messages (section 3.8.3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(u8)]
pub enum RetainHandling {
    /// Whenever it is made.
    #[default]
    Send = 0,
    /// Only where it did not exist before.
    SendIfNew = 1,
    /// Never.
    DoNotSend = 2,
}

/// One subscription of a SUBSCRIBE.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subscription<'a> {
    /// The topic filter, with its `$share/group/` if it is shared.
    pub filter: &'a str,
    /// The highest QoS to deliver with.
    pub qos: QoS,
    /// Do not deliver what this client published itself.
    pub no_local: bool,
    /// Keep the RETAIN flag of what is forwarded.
    pub retain_as_published: bool,
    /// What happens with retained messages now.
    pub retain_handling: RetainHandling,
}

impl<'a> Subscription<'a> {
    /// A subscription with the options that MQTT 3.1.1 has.
    pub fn new(filter: &'a str, qos: QoS) -> Self {
        Subscription {
            filter,
            qos,
            no_local: false,
            retain_as_published: false,
            retain_handling: RetainHandling::Send,
        }
    }

    /// The options byte for `version`.
    pub(crate) fn options(&self, version: Version) -> u8 {
        match version {
            Version::V311 => self.qos as u8,
            Version::V5 => {
                self.qos as u8
                    | u8::from(self.no_local) << 2
                    | u8::from(self.retain_as_published) << 3
                    | (self.retain_handling as u8) << 4
            }
        }
    }

    /// Reads a filter and its options, and checks both.
    pub(crate) fn read(reader: &mut Reader<'a>, version: Version) -> Result<Self, DecodeError> {
        let filter = reader.string()?;
        let parsed = topic::Filter::parse(filter).map_err(|_| DecodeError::TopicFilter)?;
        let options = reader.u8()?;
        // [MQTT-3.8.3-1]
        // [MQTT-3.8.3-5], [3.1.1: MQTT-3-8.3-4]
        let reserved = if version == Version::V5 { 0b1100_0000 } else { 0b1111_1100 };
        if options & reserved != 0 {
            return Err(DecodeError::SubscriptionOptions);
        }
        let no_local = options & 0b100 != 0;
        // [MQTT-3.8.3-4]
        if no_local && parsed.share.is_some() {
            return Err(DecodeError::NoLocalOnShared);
        }
        Ok(Subscription {
            filter,
            qos: QoS::from_u8(options & 0b11).ok_or(DecodeError::QosReserved)?,
            no_local,
            retain_as_published: options & 0b1000 != 0,
            retain_handling: match options >> 4 & 0b11 {
                0 => RetainHandling::Send,
                1 => RetainHandling::SendIfNew,
                2 => RetainHandling::DoNotSend,
                _ => return Err(DecodeError::RetainHandling),
            },
        })
    }
}

/// A list that is either validated bytes of a packet or a slice of the caller's.
#[derive(Clone, Copy)]
enum Source<'a, T> {
    Wire(&'a [u8]),
    List(&'a [T]),
}

macro_rules! list {
    (
        $(#[$doc:meta])*
        $name:ident<$a:lifetime> of $item:ty, stored $stored:ty;
        wire |$reader:ident| $read:expr;
        list |$element:ident| $copy:expr;
    ) => {
        $(#[$doc])*
        #[derive(Clone, Copy)]
        pub struct $name<$a>(Source<$a, $stored>);

        impl<$a> $name<$a> {
            /// The list of a packet to encode.
            pub const fn new(list: &$a [$stored]) -> Self {
                $name(Source::List(list))
            }

            /// Bytes of a packet, every element of which was read once.
            pub(crate) const fn wire(bytes: &$a [u8]) -> Self {
                $name(Source::Wire(bytes))
            }

            /// The elements in their order.
            pub fn iter(&self) -> impl Iterator<Item = $item> + use<$a> {
                let (mut $reader, mut list) = match self.0 {
                    Source::Wire(bytes) => (Reader::new(bytes), [].iter()),
                    Source::List(list) => (Reader::new(&[]), list.iter()),
                };
                std::iter::from_fn(move || {
                    if $reader.is_empty() {
                        list.next().map(|$element| $copy)
                    } else {
                        $read
                    }
                })
            }
        }

        impl PartialEq for $name<'_> {
            fn eq(&self, other: &Self) -> bool {
                self.iter().eq(other.iter())
            }
        }

        impl Eq for $name<'_> {}

        impl fmt::Debug for $name<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_list().entries(self.iter()).finish()
            }
        }
    };
}

list! {
    /// The subscriptions of a SUBSCRIBE.
    Subscriptions<'a> of Subscription<'a>, stored Subscription<'a>;
    // The widest reading of the options is MQTT 5's; in 3.1.1 their bits were checked to be 0.
    wire |reader| Subscription::read(&mut reader, Version::V5).ok();
    list |subscription| *subscription;
}

list! {
    /// The filters of an UNSUBSCRIBE.
    Filters<'a> of &'a str, stored &'a str;
    wire |reader| reader.string().ok();
    list |filter| *filter;
}

list! {
    /// The reason codes of a SUBACK or UNSUBACK, in the order of the filters they answer.
    ReasonCodes<'a> of ReasonCode, stored ReasonCode;
    wire |reader| reader.u8().ok().and_then(ReasonCode::from_u8);
    list |reason| *reason;
}

/// SUBACK: one reason code for each subscription (section 3.9).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SubAck<'a> {
    /// The identifier of the SUBSCRIBE.
    pub packet_id: PacketId,
    /// MQTT 5 properties.
    pub properties: AckProperties<'a>,
    /// The QoS granted, or why not.
    pub reasons: ReasonCodes<'a>,
}

/// UNSUBSCRIBE (section 3.10).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unsubscribe<'a> {
    /// The identifier that UNSUBACK repeats.
    pub packet_id: PacketId,
    /// MQTT 5 properties.
    pub properties: UnsubscribeProperties<'a>,
    /// The filters to remove, at least one.
    pub filters: Filters<'a>,
}

/// UNSUBACK: one reason code for each filter in MQTT 5, none in 3.1.1 (section 3.11).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnsubAck<'a> {
    /// The identifier of the UNSUBSCRIBE.
    pub packet_id: PacketId,
    /// MQTT 5 properties.
    pub properties: AckProperties<'a>,
    /// The outcomes.
    pub reasons: ReasonCodes<'a>,
}

/// DISCONNECT (section 3.14). In MQTT 3.1.1 only a client sends it, and without a reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Disconnect<'a> {
    /// Why.
    pub reason: ReasonCode,
    /// MQTT 5 properties.
    pub properties: DisconnectProperties<'a>,
}

/// AUTH: a step of an extended authentication, MQTT 5 only (section 3.15).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Auth<'a> {
    /// Success, continue, or re-authenticate.
    pub reason: ReasonCode,
    /// The method and its data.
    pub properties: AuthProperties<'a>,
}
